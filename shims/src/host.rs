//! One host as the resolver describes it: an owned copy of C's `hostent`, and the way back.

use std::ffi::{CStr, CString, c_char};
use std::ptr::null_mut;

use libc::{c_int, hostent};

/// A copy of a [`hostent`] that owns all of it.
pub(crate) struct Host {
    name: CString,
    aliases: Vec<CString>,
    family: c_int,
    /// How long each address is.
    address_bytes: c_int,
    addresses: Vec<Vec<u8>>,
}

impl Host {
    /// # Safety
    ///
    /// `entry` is as gethostbyname makes it: each list ends in null, each address is
    /// `h_length` long.
    pub(crate) unsafe fn copy(entry: &hostent) -> Host {
        let bytes = entry.h_length as usize;
        // SAFETY: the caller's promise.
        unsafe {
            Host {
                name: CStr::from_ptr(entry.h_name).to_owned(),
                aliases: items(entry.h_aliases)
                    .map(|alias| CStr::from_ptr(alias).to_owned())
                    .collect(),
                family: entry.h_addrtype,
                address_bytes: entry.h_length,
                addresses: items(entry.h_addr_list)
                    .map(|address| std::slice::from_raw_parts(address.cast::<u8>(), bytes).to_vec())
                    .collect(),
            }
        }
    }

    /// Writes everything to `buffer` and describes it; `None` if it does not fit.
    ///
    /// # Safety
    ///
    /// `bytes` bytes can be written at `buffer`.
    pub(crate) unsafe fn pack(&self, buffer: *mut u8, bytes: usize) -> Option<hostent> {
        let skipped = buffer.align_offset(align_of::<*mut c_char>());
        if skipped.checked_add(self.packed_bytes())? > bytes {
            return None;
        }
        // The two lists of pointers, then the addresses, then the strings.
        // SAFETY: by `packed_bytes` all of it fits, and the lists are aligned.
        unsafe {
            let aliases = buffer.add(skipped).cast::<*mut c_char>();
            let addresses = aliases.add(self.aliases.len() + 1);
            let mut end = addresses.add(self.addresses.len() + 1).cast::<c_char>();
            let mut put = |content: &[u8]| {
                let place = end;
                place.cast::<u8>().copy_from_nonoverlapping(content.as_ptr(), content.len());
                end = place.add(content.len());
                place
            };
            for (index, address) in self.addresses.iter().enumerate() {
                addresses.add(index).write(put(address));
            }
            addresses.add(self.addresses.len()).write(null_mut());
            for (index, alias) in self.aliases.iter().enumerate() {
                aliases.add(index).write(put(alias.as_bytes_with_nul()));
            }
            aliases.add(self.aliases.len()).write(null_mut());
            Some(hostent {
                h_name: put(self.name.as_bytes_with_nul()),
                h_aliases: aliases,
                h_addrtype: self.family,
                h_length: self.address_bytes,
                h_addr_list: addresses,
            })
        }
    }

    /// How much room [`pack`](Host::pack) needs in an aligned buffer.
    fn packed_bytes(&self) -> usize {
        let pointers = self.aliases.len() + self.addresses.len() + 2;
        let strings = self.aliases.iter().chain([&self.name]);
        pointers * size_of::<*mut c_char>()
            + self.addresses.iter().map(Vec::len).sum::<usize>()
            + strings.map(|string| string.as_bytes_with_nul().len()).sum::<usize>()
    }
}

/// A packed host with the memory it lies in.
pub(crate) struct KeptHost {
    entry: hostent,
    /// What `entry` points into: words, so that it is aligned. Never touched again.
    _buffer: Vec<usize>,
}

impl KeptHost {
    pub(crate) fn new(host: &Host) -> KeptHost {
        let words = host.packed_bytes().div_ceil(size_of::<usize>());
        let mut buffer = vec![0usize; words];
        let bytes = words * size_of::<usize>();
        // SAFETY: the buffer has as many bytes, and stays in its place when the Vec is moved.
        let entry = unsafe { host.pack(buffer.as_mut_ptr().cast(), bytes) };
        KeptHost { entry: entry.expect("the buffer is made to measure"), _buffer: buffer }
    }

    /// What a C caller gets to see.
    pub(crate) fn entry(&mut self) -> *mut hostent {
        &mut self.entry
    }
}

/// The items of a list that ends in null; none if there is no list.
///
/// # Safety
///
/// `list` is null or such a list, and stays one while the items are taken.
unsafe fn items(list: *mut *mut c_char) -> impl Iterator<Item = *mut c_char> {
    let mut next = list;
    std::iter::from_fn(move || {
        // SAFETY: `next` has not gone beyond the null, by the check below.
        let item = unsafe { next.as_ref() }.copied().filter(|item| !item.is_null())?;
        // SAFETY: as above.
        next = unsafe { next.add(1) };
        Some(item)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            name: c"name".to_owned(),
            aliases: vec![c"one".to_owned(), c"other".to_owned()],
            family: libc::AF_INET,
            address_bytes: 4,
            addresses: vec![vec![127, 0, 0, 1], vec![127, 0, 0, 2]],
        }
    }

    #[test]
    fn what_is_packed_can_be_copied_again() {
        let mut kept = KeptHost::new(&host());
        // SAFETY: the entry was just packed and is alive.
        let copy = unsafe { Host::copy(&*kept.entry()) };
        assert_eq!(copy.name, host().name);
        assert_eq!(copy.aliases, host().aliases);
        assert_eq!(copy.addresses, host().addresses);
        assert_eq!((copy.family, copy.address_bytes), (libc::AF_INET, 4));
    }

    #[test]
    fn a_buffer_that_is_too_small_is_refused_at_any_alignment() {
        let needed = host().packed_bytes();
        for shift in 0..8 {
            let mut buffer = vec![0u8; needed + 16];
            // SAFETY: at most 8 + needed bytes are used of the buffer.
            unsafe {
                let start = buffer.as_mut_ptr().add(shift);
                let skipped = start.align_offset(align_of::<usize>());
                assert!(host().pack(start, needed + skipped - 1).is_none());
                assert!(host().pack(start, needed + skipped).is_some());
            }
        }
    }
}

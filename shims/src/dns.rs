//! getaddrinfo and getnameinfo.
//!
//! The real functions run on a thread that may block, since what they wait for is inside the C
//! library, out of the shims' sight. Calls that ask nobody (numeric addresses and ports) run in
//! place. The older functions are in [`hosts`](crate::hosts).
//!
//! A killed or timed-out call fails with `EAI_SYSTEM` and `ECANCELED` or `ETIMEDOUT` in errno.

use std::ffi::{CStr, CString};
use std::mem::transmute;
use std::ptr::{NonNull, null, null_mut};

use libc::{addrinfo, c_char, c_int, sockaddr, sockaddr_storage, socklen_t};

use crate::errno::{self, Errno};
use crate::gate::{self, Category};
use crate::lookup::{ask, is_address};
use crate::real::Next;
use crate::runtime::Runtime;

type GetAddrInfo = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const addrinfo,
    *mut *mut addrinfo,
) -> c_int;

type GetNameInfo = unsafe extern "C" fn(
    *const sockaddr,
    socklen_t,
    *mut c_char,
    socklen_t,
    *mut c_char,
    socklen_t,
    c_int,
) -> c_int;

/// The most of a name that is asked for; more than any resolver's names have.
const NAME_BYTES_MAX: usize = 64 * 1024;

/// POSIX `getaddrinfo`.
///
/// # Safety
///
/// As POSIX says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    if false {
        // SAFETY: never runs; it makes a wrong signature a compile error.
        return unsafe { libc::getaddrinfo(node, service, hints, result) };
    }
    let Some(real) = real_getaddrinfo() else { return system_error(Errno(libc::ENOSYS)) };
    if let Ok(runtime) = gate::enter(Category::Dns) {
        // SAFETY: strings and hints are null or valid by the caller's promise.
        let question = unsafe { AddressQuestion::copy(node, service, hints) };
        if !question.asks_nobody() {
            return match errno::kept(|| ask(runtime, move || question.put(real))) {
                Ok(Ok(list)) => {
                    // SAFETY: writable by the caller's promise. The list is the caller's now.
                    unsafe { result.write(list.into_raw()) };
                    0
                }
                Ok(Err((libc::EAI_SYSTEM, error))) => system_error(error),
                Ok(Err((code, _))) => code,
                Err(error) => system_error(error),
            };
        }
    }
    // SAFETY: the caller's promise.
    unsafe { real(node, service, hints, result) }
}

/// POSIX `getnameinfo`.
///
/// # Safety
///
/// As POSIX says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getnameinfo(
    address: *const sockaddr,
    address_bytes: socklen_t,
    host: *mut c_char,
    host_bytes: socklen_t,
    service: *mut c_char,
    service_bytes: socklen_t,
    flags: c_int,
) -> c_int {
    if false {
        // SAFETY: never runs; it makes a wrong signature a compile error.
        return unsafe {
            libc::getnameinfo(
                address,
                address_bytes,
                host,
                host_bytes,
                service,
                service_bytes,
                flags,
            )
        };
    }
    let Some(real) = real_getnameinfo() else { return system_error(Errno(libc::ENOSYS)) };
    let host_wanted = !host.is_null() && host_bytes > 0;
    let service_wanted = !service.is_null() && service_bytes > 0;
    // The services are in a file, so only the host's name can block. A host's name is asked for
    // with neither buffer too: the real function says what is wrong with that.
    let asks_somebody = host_wanted && flags & libc::NI_NUMERICHOST == 0 && !address.is_null();
    if asks_somebody && let Ok(runtime) = gate::enter(Category::Dns) {
        let question = NameQuestion {
            // SAFETY: not null, so readable by the caller's promise.
            address: unsafe { Address::copy(address, address_bytes) },
            host_bytes: (host_bytes as usize).min(NAME_BYTES_MAX),
            service_bytes: if service_wanted {
                (service_bytes as usize).min(NAME_BYTES_MAX)
            } else {
                0
            },
            flags,
        };
        // SAFETY: the buffers are as long as the question says, by the caller's promise.
        return unsafe { name(runtime, question, real, host, service) };
    }
    // SAFETY: the caller's promise.
    unsafe { real(address, address_bytes, host, host_bytes, service, service_bytes, flags) }
}

/// Has `question` answered and copies the answer to the caller.
///
/// # Safety
///
/// `host` and `service` are writable for as many bytes as the question says.
unsafe fn name(
    runtime: &dyn Runtime,
    question: NameQuestion,
    real: GetNameInfo,
    host: *mut c_char,
    service: *mut c_char,
) -> c_int {
    match errno::kept(|| ask(runtime, move || question.put(real))) {
        Ok(Ok(names)) => {
            // SAFETY: each name was written by the real function into as many bytes, and an
            // empty one has none.
            unsafe {
                host.copy_from_nonoverlapping(names.host.as_ptr().cast(), names.host.len());
                if !names.service.is_empty() {
                    let bytes = names.service.len();
                    service.copy_from_nonoverlapping(names.service.as_ptr().cast(), bytes);
                }
            }
            0
        }
        Ok(Err((libc::EAI_SYSTEM, error))) => system_error(error),
        Ok(Err((code, _))) => code,
        Err(error) => system_error(error),
    }
}

/// The arguments of getaddrinfo, owned.
struct AddressQuestion {
    node: Option<CString>,
    service: Option<CString>,
    hints: Option<Hints>,
}

/// What getaddrinfo reads of its hints.
struct Hints {
    flags: c_int,
    family: c_int,
    socktype: c_int,
    protocol: c_int,
}

impl AddressQuestion {
    /// # Safety
    ///
    /// Each pointer is null or valid for getaddrinfo.
    unsafe fn copy(
        node: *const c_char,
        service: *const c_char,
        hints: *const addrinfo,
    ) -> AddressQuestion {
        // SAFETY: the caller's promise.
        unsafe {
            AddressQuestion {
                node: (!node.is_null()).then(|| CStr::from_ptr(node).to_owned()),
                service: (!service.is_null()).then(|| CStr::from_ptr(service).to_owned()),
                hints: hints.as_ref().map(|hints| Hints {
                    flags: hints.ai_flags,
                    family: hints.ai_family,
                    socktype: hints.ai_socktype,
                    protocol: hints.ai_protocol,
                }),
            }
        }
    }

    /// Whether the answer is in the question.
    fn asks_nobody(&self) -> bool {
        let flags = self.hints.as_ref().map_or(0, |hints| hints.flags);
        let node = match &self.node {
            None => true,
            Some(node) => flags & libc::AI_NUMERICHOST != 0 || is_address(node),
        };
        let service = match &self.service {
            None => true,
            Some(service) => {
                flags & libc::AI_NUMERICSERV != 0
                    || service.to_bytes().iter().all(u8::is_ascii_digit)
            }
        };
        node && service
    }

    /// Calls `real`, which blocks.
    fn put(self, real: GetAddrInfo) -> Result<AddressList, (c_int, Errno)> {
        let hints = self.hints.map(|hints| addrinfo {
            ai_flags: hints.flags,
            ai_family: hints.family,
            ai_socktype: hints.socktype,
            ai_protocol: hints.protocol,
            ai_addrlen: 0,
            ai_addr: null_mut(),
            ai_canonname: null_mut(),
            ai_next: null_mut(),
        });
        let mut list = null_mut();
        let pointer = |string: &Option<CString>| string.as_ref().map_or(null(), |s| s.as_ptr());
        let (node, service) = (pointer(&self.node), pointer(&self.service));
        let hints = hints.as_ref().map_or(null(), |hints| hints as *const addrinfo);
        // SAFETY: strings and hints live until the end of this function.
        match unsafe { real(node, service, hints, &mut list) } {
            // SAFETY: the list is fresh, so nobody else's.
            0 => unsafe { AddressList::from_raw(list) }.ok_or((libc::EAI_FAIL, Errno(0))),
            code => Err((code, Errno(errno::get()))),
        }
    }
}

/// A list that getaddrinfo made, freed on drop.
struct AddressList(NonNull<addrinfo>);

// SAFETY: the list is plain memory of malloc's, tied to no thread.
unsafe impl Send for AddressList {}

impl AddressList {
    /// # Safety
    ///
    /// `list` comes from getaddrinfo and is nobody else's.
    unsafe fn from_raw(list: *mut addrinfo) -> Option<AddressList> {
        NonNull::new(list).map(AddressList)
    }

    fn into_raw(self) -> *mut addrinfo {
        let list = self.0.as_ptr();
        std::mem::forget(self);
        list
    }
}

impl Drop for AddressList {
    fn drop(&mut self) {
        // SAFETY: `from_raw`'s promise.
        unsafe { libc::freeaddrinfo(self.0.as_ptr()) }
    }
}

/// The arguments of getnameinfo, owned.
struct NameQuestion {
    address: Address,
    host_bytes: usize,
    service_bytes: usize,
    flags: c_int,
}

/// What getnameinfo found: each name with its NUL, or nothing if it was not asked for.
struct Names {
    host: Vec<u8>,
    service: Vec<u8>,
}

impl NameQuestion {
    /// Calls `real`, which blocks.
    fn put(self, real: GetNameInfo) -> Result<Names, (c_int, Errno)> {
        let mut names =
            Names { host: vec![0; self.host_bytes], service: vec![0; self.service_bytes] };
        // SAFETY: the address and the buffers are as long as is said.
        let code = unsafe {
            real(
                (&raw const self.address.storage).cast(),
                self.address.bytes,
                names.host.as_mut_ptr().cast(),
                names.host.len() as socklen_t,
                names.service.as_mut_ptr().cast(),
                names.service.len() as socklen_t,
                self.flags,
            )
        };
        if code != 0 {
            return Err((code, Errno(errno::get())));
        }
        for name in [&mut names.host, &mut names.service] {
            if let Some(end) = name.iter().position(|&byte| byte == 0) {
                name.truncate(end + 1);
            }
        }
        Ok(names)
    }
}

/// A socket address of any family.
struct Address {
    storage: sockaddr_storage,
    bytes: socklen_t,
}

impl Address {
    /// # Safety
    ///
    /// `bytes` bytes can be read at `address`.
    unsafe fn copy(address: *const sockaddr, bytes: socklen_t) -> Address {
        // No family has more than fits; what goes beyond is padding.
        let bytes = bytes.min(size_of::<sockaddr_storage>() as socklen_t);
        // SAFETY: all zeros is a valid sockaddr_storage, and `bytes` are readable and fit.
        unsafe {
            let mut storage: sockaddr_storage = std::mem::zeroed();
            let target = (&raw mut storage).cast::<u8>();
            target.copy_from_nonoverlapping(address.cast(), bytes as usize);
            Address { storage, bytes }
        }
    }
}

/// EAI_SYSTEM: the error is in errno.
fn system_error(error: Errno) -> c_int {
    errno::set(error.0);
    libc::EAI_SYSTEM
}

fn real_getaddrinfo() -> Option<GetAddrInfo> {
    static REAL: Next = Next::new(c"getaddrinfo");
    // SAFETY: this is the type of the C library's function of that name.
    REAL.get().map(|real| unsafe { transmute(real) })
}

fn real_getnameinfo() -> Option<GetNameInfo> {
    static REAL: Next = Next::new(c"getnameinfo");
    // SAFETY: as above.
    REAL.get().map(|real| unsafe { transmute(real) })
}

//! Slabs: mappings that hold many slots of one size.
//!
//! A million stacks must not take a million mappings, so slots are carved from slabs. A slab is
//! registered with the overflow report while it is mapped. This file must never unmap a slab with a
//! stack in use; who counts them is the pool.

use std::ptr::NonNull;
use std::{io, ptr};

use super::guard;
use super::registry::Registration;
use super::slot::{Stack, StackSize, out_of_memory};

/// The slots of the first slab: enough for a small program, in 17 MiB of address space.
const SLOTS_MIN: usize = 64;

/// The slots of the largest slab: 17 GiB of address space at the default size, so a million stacks
/// take 26 slabs.
const SLOTS_MAX: usize = 1 << 16;

/// The largest slab in bytes, which matters for large classes.
const BYTES_MAX: usize = if cfg!(target_pointer_width = "64") { 32 << 30 } else { 64 << 20 };

/// A mapping with room for `slots` stacks. It has no `Drop`: a slab with an abandoned stack is
/// leaked on purpose.
#[derive(Debug)]
pub(super) struct Slab {
    /// The lowest address.
    ///
    /// # Invariant
    ///
    /// `slots * size.stride()` bytes from here on are a mapping of this slab's own until
    /// [`Slab::unmap`].
    start: NonNull<u8>,
    /// The class of all its stacks.
    size: StackSize,
    /// How many slots fit.
    slots: usize,
    /// How many slots, from the low end on, have a guard and were handed out at least once.
    pub(super) carved: usize,
    /// How many guards are mappings of their own.
    protected: usize,
    /// How many of its stacks are free: scratch for the pool, which counts them when it looks for
    /// slabs to unmap.
    pub(super) free: usize,
    /// Its entry in the overflow report's list.
    registration: Registration,
}

impl Slab {
    /// Maps a slab, as large as all earlier ones of its class together, so that the number of slabs
    /// grows with the logarithm of the number of stacks. A smaller one has to do if the kernel
    /// refuses that.
    pub(super) fn map(size: StackSize, existing_slots: usize) -> io::Result<Slab> {
        let stride = size.stride();
        let most = SLOTS_MAX.min(BYTES_MAX / stride).max(1);
        let mut slots =
            if size.is_pooled() { existing_slots.clamp(SLOTS_MIN.min(most), most) } else { 1 };
        let start = loop {
            match map_bytes(slots.saturating_mul(stride)) {
                Some(start) => break start,
                None if slots > 1 => slots /= 2,
                None => return Err(out_of_memory("map", stride)),
            }
        };
        let registration = Registration::new(start.addr().get(), slots * stride, size);
        Ok(Slab { start, size, slots, carved: 0, protected: 0, free: 0, registration })
    }

    /// Whether every slot has been handed out at least once.
    pub(super) fn is_full(&self) -> bool {
        self.carved == self.slots
    }

    /// Makes the stack of the next slot, which must exist.
    pub(super) fn carve(&mut self) -> io::Result<Stack> {
        assert!(!self.is_full());
        // SAFETY: the slot lies in the slab, as `carved < slots` and the invariant of `start` say.
        let low = unsafe { self.start.add(self.carved * self.size.stride()) };
        // SAFETY: the guard is the low end of a slot that was never handed out.
        let kind = unsafe { guard::install(low)? };
        // SAFETY: the slot is mapped (the invariant of `start`), its guard is in place, and
        // `carved` makes this its only handle.
        let stack = unsafe { Stack::new(low, self.size, self.carved) };
        self.protected += usize::from(kind == guard::Kind::Protect);
        self.carved += 1;
        Ok(stack)
    }

    /// Whether `stack` is one of its slots.
    pub(super) fn contains(&self, stack: &Stack) -> bool {
        stack.slot_low().wrapping_sub(self.start.addr().get()) < self.bytes()
    }

    /// The address space it takes.
    pub(super) fn bytes(&self) -> usize {
        self.slots * self.size.stride()
    }

    /// Gives the slab back to the kernel.
    ///
    /// # Safety
    ///
    /// No stack of it is in use or will be used, free ones included.
    pub(super) unsafe fn unmap(self) {
        let bytes = self.bytes();
        // Another thread may get the addresses as soon as they are unmapped, so the registration
        // has to go first.
        self.registration.remove();
        // SAFETY: the range is the slab's own mapping (the invariant of `start`), and the caller
        // guarantees that it's unused.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), bytes) };
        debug_assert_eq!(result, 0);
        guard::forget(self.protected);
    }
}

/// A new private mapping that isn't charged until it is touched, and never backed by huge pages:
/// the first touch of a stack would take 2 MiB.
fn map_bytes(bytes: usize) -> Option<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;
    // SAFETY: the kernel chooses the address, so no memory of anyone's is touched.
    let start = unsafe {
        libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    if start == libc::MAP_FAILED {
        return None;
    }
    // An error only says that the kernel has no huge pages.
    #[cfg(target_os = "linux")]
    // SAFETY: the range was just mapped.
    unsafe {
        libc::madvise(start, bytes, libc::MADV_NOHUGEPAGE);
    }
    NonNull::new(start.cast())
}

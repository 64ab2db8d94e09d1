//! The list of all slabs of the process, which the overflow report searches in a signal handler.
//!
//! A search must not allocate, wait for a lock or write: it may interrupt anything, on any thread.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::slot::{GRAIN, GUARD_BYTES, StackSize};

/// The first entry of the list of slabs. Entries are never freed, because a handler on another
/// thread may stand on one.
static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

/// One registered slab, or a free entry.
///
/// A handler reads it while another thread changes it. It reads `start` first and last: an entry is
/// changed only while `start` is zero or [`CLAIMED`].
#[derive(Debug)]
struct Entry {
    /// The slab's lowest address with its size class in the low bits; zero if the entry is free.
    start: AtomicUsize,
    /// The slab's length.
    bytes: AtomicUsize,
    /// The entry after this one; never changed once the entry is in the list.
    next: *mut Entry,
}

/// The `start` of an entry that somebody took and hasn't filled yet.
const CLAIMED: usize = 1;

/// The low bits of `start`.
const CLASS_MASK: usize = GRAIN - 1;

/// A slab's place in the list. It stays there unless it is removed: an abandoned stack may still
/// overflow.
#[derive(Debug)]
pub(super) struct Registration(
    /// Ours alone until [`Registration::remove`].
    &'static Entry,
);

impl Registration {
    /// Makes a slab known to the handler.
    pub(super) fn new(start: usize, bytes: usize, size: StackSize) -> Registration {
        let entry = reuse().unwrap_or_else(extend);
        entry.bytes.store(bytes, Ordering::Relaxed);
        entry.start.store(start | size.index(), Ordering::Release);
        Registration(entry)
    }

    /// Makes the handler forget the slab.
    pub(super) fn remove(self) {
        self.0.start.store(0, Ordering::Release);
    }
}

/// Takes a free entry.
fn reuse() -> Option<&'static Entry> {
    entries().find(|entry| {
        entry.start.compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    })
}

/// Adds a claimed entry to the list.
fn extend() -> &'static Entry {
    let entry = Box::leak(Box::new(Entry {
        start: AtomicUsize::new(CLAIMED),
        bytes: AtomicUsize::new(0),
        next: ptr::null_mut(),
    }));
    let mut first = ENTRIES.load(Ordering::Relaxed);
    loop {
        entry.next = first;
        match ENTRIES.compare_exchange_weak(first, entry, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return entry,
            Err(now) => first = now,
        }
    }
}

/// All entries.
fn entries() -> impl Iterator<Item = &'static Entry> {
    let mut next = ENTRIES.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: the list holds null or leaked entries, which `extend` published with Release when
        // they were complete.
        let entry: &'static Entry = unsafe { next.as_ref()? };
        next = entry.next;
        Some(entry)
    })
}

/// The slot that a thread overflows whose stack pointer is `stack_pointer` and whose access of
/// `address` faulted: its size and its stack's base. A wild write into another greenlet's guard is
/// no overflow, so both have to lie in one slot.
pub(super) fn overflowed(
    address: usize,
    stack_pointer: Option<usize>,
) -> Option<(StackSize, usize)> {
    entries().find_map(|entry| {
        let tagged = entry.start.load(Ordering::Acquire);
        let bytes = entry.bytes.load(Ordering::Acquire);
        let start = tagged & !CLASS_MASK;
        let offset = address.checked_sub(start).filter(|&offset| offset < bytes)?;
        if start == 0 || entry.start.load(Ordering::Relaxed) != tagged {
            return None;
        }
        let size = StackSize::from_index(tagged & CLASS_MASK);
        let (index, depth) = (offset / size.stride(), offset % size.stride());
        let low = address - depth;
        let runs_there =
            stack_pointer.is_none_or(|pointer| (low..low + size.stride()).contains(&pointer));
        (depth < GUARD_BYTES && runs_there).then(|| (size, low + size.base_offset(index)))
    })
}

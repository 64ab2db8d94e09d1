//! One stack: the geometry of its slot, its handle and its size class.
//!
//! Everything about a slot follows from two facts, the address of its stack's base and its size
//! class, so a [`Stack`] is one tagged pointer and no byte of the slot itself is spent on a header.
//! This file must never call the kernel; it and the fiber are the only ones that name corosensei.

use std::io;
use std::ptr::NonNull;

use corosensei::stack::{StackPointer, valgrind::ValgrindStackRegistration};

/// The unit of the layout: a page on x86_64; elsewhere a size that every page size of the
/// architecture divides (aarch64 has 4, 16 and 64 KiB pages), so that the geometry is known at
/// compile time.
pub(super) const GRAIN: usize = if cfg!(target_arch = "x86_64") { 4 << 10 } else { 64 << 10 };

/// The guard at the low end of a slot. One page is not enough: C frames have no stack probes and
/// can jump over it.
pub(super) const GUARD_BYTES: usize = 64 << 10;

/// The area at the high end of a slot, kept free for the thread-local storage of an isolated
/// greenlet. It costs address space only until somebody writes to it.
pub(crate) const TLS_BYTES: usize = (8_usize << 10).next_multiple_of(GRAIN);

/// How many different offsets in the top page the bases of neighbouring stacks have. See the
/// measurements in the module's docs.
const COLOURS: usize = 16;

/// The distance of two colours: a cache line. All colours together take 960 bytes of the top page.
const COLOUR_BYTES: usize = 64;

/// How many size classes there are. The class is kept in the low bits of a base, which
/// [`COLOUR_BYTES`] keeps free.
pub(super) const CLASSES: usize = if cfg!(target_pointer_width = "64") { COLOUR_BYTES } else { 32 };

/// The usable bytes of the smallest class.
const SIZE_MIN: usize = (16_usize << 10).next_multiple_of(GRAIN);

/// Stacks above this size are unmapped when they are released, because keeping one costs more than
/// making one.
const POOLED_MAX: usize = 8 << 20;

/// The last class that is kept, so that a release compares two bytes.
const POOLED_LAST: u8 = {
    let mut class = 0;
    while StackSize(class + 1).bytes() <= POOLED_MAX {
        class += 1;
    }
    class
};

// The widest colour has to fit in the top page together with the frames of a typical parked
// greenlet (about 1 KB), and the tag in the bits that a base leaves zero.
const _: () = assert!(
    CLASSES.is_power_of_two()
        && COLOURS * COLOUR_BYTES <= 1 << 10
        && CLASSES <= COLOUR_BYTES
        && COLOUR_BYTES >= 16
);
const _: () = assert!(GUARD_BYTES.is_multiple_of(GRAIN));

/// A size class: powers of two and the steps half-way between them (16, 24, 32, 48, 64, 96, 128,
/// 192 KiB ...).
///
/// All of them are an even number of pages, which makes every slot an odd number of pages: see
/// [`StackSize::stride`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StackSize(
    /// Below [`CLASSES`].
    u8,
);

impl StackSize {
    /// The smallest class with at least `bytes` of usable stack; the last class if there is none,
    /// which is half the address space, so no kernel can map it.
    pub(crate) fn at_least(bytes: usize) -> StackSize {
        let class = (0..CLASSES as u8).find(|&class| StackSize(class).bytes() >= bytes);
        StackSize(class.unwrap_or(CLASSES as u8 - 1))
    }

    /// All classes, the smallest first.
    #[cfg(test)]
    pub(super) fn all() -> impl Iterator<Item = StackSize> {
        (0..CLASSES as u8).map(StackSize)
    }

    /// The class with this place.
    pub(super) fn from_index(index: usize) -> StackSize {
        debug_assert!(index < CLASSES);
        StackSize(index as u8)
    }

    /// The class's place in an array of [`CLASSES`].
    #[inline]
    pub(super) const fn index(self) -> usize {
        // The mask changes nothing, but spares the array a check.
        self.0 as usize & (CLASSES - 1)
    }

    /// The usable bytes: without the guard and the thread-local storage.
    #[inline]
    pub(crate) const fn bytes(self) -> usize {
        if self.0 as usize == CLASSES - 1 {
            return usize::MAX / 2 + 1;
        }
        let halves = 2 + (self.0 as usize & 1);
        (((SIZE_MIN / 2) * halves) << (self.0 / 2)).next_multiple_of(GRAIN)
    }

    /// The distance between two slots. On x86_64 it is an odd number of pages (16 + 2 + 1 and an
    /// even usable size), because an even one, above all a power of two, puts the tops of all
    /// stacks in the same sets of the TLB.
    #[inline]
    pub(super) const fn stride(self) -> usize {
        GUARD_BYTES + self.bytes() + GRAIN + TLS_BYTES
    }

    /// Whether released stacks of this class are kept for reuse.
    #[inline]
    pub(super) const fn is_pooled(self) -> bool {
        self.0 <= POOLED_LAST
    }

    /// The bytes between the low end of a slot and the base of its stack, for the slot with this
    /// index in its slab.
    pub(super) const fn base_offset(self, slot_index: usize) -> usize {
        self.stride() - TLS_BYTES - (slot_index % COLOURS) * COLOUR_BYTES
    }
}

/// A stack that nobody else uses.
///
/// It has no `Drop`: a stack is given back with `Stacks::release`, and one that was not unwound to
/// its end is abandoned by forgetting it. It is neither `Send` nor `Sync`: it belongs to the
/// `Stacks` of one thread.
#[must_use = "a stack that is not released is leaked"]
#[derive(Debug)]
pub(crate) struct Stack {
    /// The base, with the size class in its low bits.
    ///
    /// # Invariant
    ///
    /// The base is what [`StackSize::base_offset`] says for a slot that is mapped, readable and
    /// writable above its guard, and whose guard is in place. Only [`Stack::new`] makes one.
    tagged: NonNull<u8>,
}

impl Stack {
    /// The handle of the slot whose low end is `low`.
    ///
    /// # Safety
    ///
    /// The slot is one of the slab's, mapped as the invariant of [`Stack`] says, stays so while the
    /// handle lives, and no other handle to it exists.
    pub(super) unsafe fn new(low: NonNull<u8>, size: StackSize, slot_index: usize) -> Stack {
        // SAFETY: the base lies inside the slot, which the caller guarantees to be mapped.
        let base = unsafe { low.add(size.base_offset(slot_index)) };
        // Valgrind takes a switch to a stack less than 2 MB away for growth of the present one, and
        // reports nonsense, unless it knows the stacks. Ten instructions that do nothing elsewhere,
        // once in a slot's life. A slot that is unmapped stays known to valgrind: that is harmless,
        // and the identifiers would cost 8 bytes a stack.
        let usable = base.as_ptr().wrapping_sub(size.bytes());
        std::mem::forget(ValgrindStackRegistration::new(usable, size.bytes()));
        Stack { tagged: base.map_addr(|base| base | size.index()) }
    }

    /// The highest address: the first frame begins below it.
    #[inline]
    pub(crate) fn base(&self) -> usize {
        self.tagged.addr().get() & !(COLOUR_BYTES - 1)
    }

    /// The size class.
    #[inline]
    pub(crate) fn size(&self) -> StackSize {
        StackSize((self.tagged.addr().get() & (COLOUR_BYTES - 1)) as u8)
    }

    /// The lowest address a frame may use: where the guard ends.
    #[inline]
    pub(crate) fn lowest(&self) -> usize {
        self.slot_end() - TLS_BYTES - GRAIN - self.size().bytes()
    }

    /// The area for an isolated greenlet's thread-local storage: [`TLS_BYTES`], aligned to a page,
    /// with unspecified contents (zeros, or what the slot's previous user left).
    #[cfg_attr(not(test), expect(dead_code, reason = "isolated greenlets will use the room"))]
    pub(crate) fn tls(&self) -> NonNull<u8> {
        // SAFETY: the area is the end of the slot, which the invariant of `tagged` says is mapped,
        // so it isn't at address zero.
        unsafe { NonNull::new_unchecked(self.pointer(self.slot_end() - TLS_BYTES)) }
    }

    /// The lowest address of the slot: where its guard begins.
    #[inline]
    pub(super) fn slot_low(&self) -> usize {
        self.lowest() - GUARD_BYTES
    }

    /// The end of the slot.
    #[inline]
    pub(super) fn slot_end(&self) -> usize {
        // The base is at most 960 bytes below the end of the top page.
        self.base().next_multiple_of(GRAIN) + TLS_BYTES
    }

    /// A pointer into the slot.
    pub(super) fn pointer(&self, address: usize) -> *mut u8 {
        self.tagged.as_ptr().with_addr(address)
    }

    /// The address as corosensei wants it.
    #[inline]
    fn stack_pointer(address: usize) -> StackPointer {
        // SAFETY: only called with addresses in a mapped slot (the invariant of `tagged`), and zero
        // isn't one.
        unsafe { StackPointer::new_unchecked(address) }
    }
}

// SAFETY: the invariant of `Stack::tagged`: the memory from the guard's end to the base is mapped
// and this handle's alone, it is at least `SIZE_MIN` bytes, and the guard below it is in place. A
// base is aligned to `COLOUR_BYTES`.
unsafe impl corosensei::stack::Stack for Stack {
    #[inline]
    fn base(&self) -> StackPointer {
        Stack::stack_pointer(Stack::base(self))
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        Stack::stack_pointer(self.slot_low())
    }
}

/// The error of a mapping that the kernel refused.
#[cold]
pub(super) fn out_of_memory(what: &str, bytes: usize) -> io::Error {
    let cause = io::Error::last_os_error();
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!("cannot {what} {} KiB for greenlet stacks: {cause}", bytes >> 10),
    )
}

/// Runs `f` on `stack` to its end and hands the stack back.
#[cfg(test)]
pub(super) fn run_on(stack: Stack, f: impl FnOnce() + 'static) -> Stack {
    let mut coroutine =
        corosensei::Coroutine::<(), (), (), Stack>::with_stack(stack, move |_, ()| f());
    coroutine.resume(());
    coroutine.into_stack()
}

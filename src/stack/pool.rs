//! The pool of one size class: its slabs and its free stacks.
//!
//! The hot path is a push or a pop of a vector that always has room, so that it neither allocates nor calls anything: an
//! allocator may wait for a lock, and the shims turn such a wait into a switch to another greenlet, which spawns.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::io;
use std::mem;

use super::slab::Slab;
use super::slot::{GRAIN, Stack, StackSize};

/// What stays resident of a free stack whose deep pages are dropped, below its top page: most greenlets need no more, and a first
/// touch of a page costs about a microsecond.
const SHALLOW_BYTES: usize = (16_usize << 10).next_multiple_of(GRAIN);

/// The free stacks of one size class, and where more come from.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// The free stacks, the hottest last.
    ///
    /// # Invariant
    ///
    /// Its capacity is at least `carved`, so that a push never allocates. References to it don't outlive the statement or block
    /// that makes them, and nothing in there calls the allocator or code of others.
    free: UnsafeCell<Vec<Stack>>,
    /// How short `free` was at its shortest since the last trim: the stacks below weren't needed since then.
    unused: Cell<usize>,
    /// How many stacks, from the start of `free`, had no resident memory after the last trim. Those at or above `unused` may have
    /// been used since.
    trimmed: Cell<usize>,
    /// How many stacks exist, in use and free.
    carved: Cell<usize>,
    /// Whether stacks were trimmed since slabs were last looked at for free ones.
    uncounted: Cell<bool>,
    /// Their slabs.
    slabs: RefCell<Vec<Slab>>,
}

impl Pool {
    /// The free stack that was released last.
    #[inline]
    pub(super) fn pop(&self) -> Option<Stack> {
        // SAFETY: the only reference, by the invariant of `free`; `pop` calls nothing.
        let (stack, left) = unsafe {
            let free = &mut *self.free.get();
            (free.pop()?, free.len())
        };
        self.unused.set(self.unused.get().min(left));
        Some(stack)
    }

    /// Keeps a stack of this pool for reuse.
    #[inline]
    pub(super) fn push(&self, stack: Stack) {
        debug_assert!(
            self.slabs
                .try_borrow()
                .map_or(true, |slabs| slabs.iter().any(|slab| slab.contains(&stack)))
        );
        // SAFETY: the only reference, by the invariant of `free`; `push` doesn't allocate, because the stack is one of `carved`.
        unsafe { (*self.free.get()).push(stack) }
    }

    /// Makes a stack that didn't exist before.
    #[cold]
    pub(super) fn carve(&self, size: StackSize) -> io::Result<Stack> {
        loop {
            self.reserve_one();
            if let Some(slab) =
                self.slabs.borrow_mut().iter_mut().rev().find(|slab| !slab.is_full())
            {
                let stack = slab.carve()?;
                self.carved.set(self.carved.get() + 1);
                return Ok(stack);
            }
            self.adopt(Slab::map(size, self.carved.get())?);
        }
    }

    /// Adds a slab. As with `free`, the allocator is called only while nothing is borrowed.
    fn adopt(&self, slab: Slab) {
        let mut larger = Vec::with_capacity(self.slabs.borrow().len() * 2 + 4);
        let mut slabs = self.slabs.borrow_mut();
        if slabs.len() == slabs.capacity() {
            larger.append(&mut slabs);
            mem::swap(&mut *slabs, &mut larger);
        }
        slabs.push(slab);
        drop(slabs);
    }

    /// Sees to it that `free` has room for one more stack than there are.
    fn reserve_one(&self) {
        let wanted = self.carved.get() + 1;
        // SAFETY: a read by the only reference.
        if wanted <= unsafe { (*self.free.get()).capacity() } {
            return;
        }
        // The allocator is called while `free` isn't borrowed, and the old memory is freed after it was replaced.
        let mut larger = Vec::with_capacity((wanted * 2).max(64));
        // SAFETY: the only reference, by the invariant of `free`; `append` has room and doesn't allocate.
        let _old = unsafe {
            let free = &mut *self.free.get();
            larger.append(free);
            mem::replace(free, larger)
        };
    }

    /// Unmaps a stack that has a slab of its own.
    #[cold]
    pub(super) fn unmap(&self, stack: Stack) {
        let slab = {
            let mut slabs = self.slabs.borrow_mut();
            let index = slabs
                .iter()
                .position(|slab| slab.contains(&stack))
                .expect("a stack is released where it was acquired");
            slabs.swap_remove(index)
        };
        debug_assert!(slab.carved == 1);
        self.carved.set(self.carved.get() - 1);
        // SAFETY: its only stack was in the hands of the caller, who gave it up.
        unsafe { slab.unmap() }
    }

    /// Gives all memory of the coldest free stacks back to the kernel, but of `keep` of them. With `only_unused` it also spares
    /// those that were used since the last trim. Takes one from `batch` for each stack it treats; if that comes to zero, some
    /// may be left for another call.
    pub(super) fn trim(&self, keep: usize, only_unused: bool, batch: &mut usize) {
        // SAFETY: the only reference, by the invariant of `free`; only the kernel is called while it lives.
        let free = unsafe { &*self.free.get() };
        let from = self.trimmed.get().min(self.unused.get());
        let most = if only_unused { self.unused.get() } else { free.len() };
        let goal = most.min(free.len().saturating_sub(keep)).max(from);
        let to = goal.min(from.saturating_add(*batch));
        free[from..to].iter().for_each(|stack| discard(stack, stack.slot_end()));
        *batch -= to - from;
        self.trimmed.set(to);
        self.uncounted.set(self.uncounted.get() || from < to);
        if to == goal {
            // Only now a new period begins: until then the next call goes on with this one's.
            self.unused.set(free.len());
            if self.uncounted.replace(false) {
                self.unmap_free_slabs(to);
            }
        }
    }

    /// Gives the deep pages of all free stacks back to the kernel.
    pub(super) fn trim_deep_pages(&self) {
        // SAFETY: the only reference, by the invariant of `free`; only the kernel is called while it lives.
        let free = unsafe { &*self.free.get() };
        let from = self.trimmed.get().min(self.unused.get());
        for stack in &free[from..] {
            discard(stack, stack.base().next_multiple_of(GRAIN) - GRAIN - SHALLOW_BYTES);
        }
    }

    /// Unmaps the slabs whose stacks are all among the `candidates` coldest free ones.
    pub(super) fn unmap_free_slabs(&self, candidates: usize) {
        let mut slabs = self.slabs.borrow_mut();
        count_free(&mut slabs, self, candidates);
        if slabs.iter().all(|slab| slab.free < slab.carved) {
            return;
        }
        // SAFETY: the only reference, by the invariant of `free`; `retain` moves and drops handles, which calls nothing.
        let length = unsafe {
            let free = &mut *self.free.get();
            free.retain(|stack| {
                !slabs.iter().any(|slab| slab.free == slab.carved && slab.contains(stack))
            });
            free.len()
        };
        let mut gone = 0;
        for slab in slabs.extract_if(.., |slab| slab.free == slab.carved) {
            gone += slab.carved;
            // SAFETY: all its stacks were free, and their handles were just dropped.
            unsafe { slab.unmap() }
        }
        self.carved.set(self.carved.get() - gone);
        self.trimmed.set(candidates - gone);
        self.unused.set(length);
    }

    /// How many stacks exist, and how many of them are free.
    pub(super) fn counts(&self) -> (usize, usize) {
        // SAFETY: a read by the only reference.
        (self.carved.get(), unsafe { (*self.free.get()).len() })
    }

    /// How many slabs there are, and the address space they take.
    pub(super) fn mapped(&self) -> (usize, usize) {
        let slabs = self.slabs.borrow();
        (slabs.len(), slabs.iter().map(Slab::bytes).sum())
    }
}

/// Counts, for each slab, the stacks that are among the `candidates` coldest free ones.
fn count_free(slabs: &mut [Slab], pool: &Pool, candidates: usize) {
    slabs.iter_mut().for_each(|slab| slab.free = 0);
    // SAFETY: the only reference, by the invariant of `free`; nothing is called below but the slabs' arithmetic.
    let free = unsafe { &*pool.free.get() };
    let mut last = 0;
    for stack in &free[..candidates] {
        // Neighbours in the pool are mostly neighbours in a slab.
        if !slabs[last].contains(stack) {
            last = slabs
                .iter()
                .position(|slab| slab.contains(stack))
                .expect("a free stack lies in a slab of its pool");
        }
        slabs[last].free += 1;
    }
}

/// Gives the memory from the guard's end to `end` back to the kernel. The guard survives it, whichever kind it is.
fn discard(stack: &Stack, end: usize) {
    let lowest = stack.lowest();
    if end <= lowest {
        return;
    }
    // SAFETY: the range lies in the slot of a free stack, whose contents nobody relies on.
    unsafe { libc::madvise(stack.pointer(lowest).cast(), end - lowest, libc::MADV_DONTNEED) };
}

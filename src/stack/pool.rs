//! The pool of one size class: its slabs and its free stacks.
//!
//! The hot path is a push or a pop of a vector that always has room, so that it neither allocates
//! nor calls anything: an allocator may wait for a lock, and the shims turn such a wait into a
//! switch to another greenlet, which spawns.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::io;
use std::mem;

use super::slab::Slab;
use super::slot::{GRAIN, Stack, StackSize};

/// What stays resident of a free stack whose deep pages are dropped, below its top page: most
/// greenlets need no more, and a first touch of a page costs about a microsecond.
const SHALLOW_BYTES: usize = (16_usize << 10).next_multiple_of(GRAIN);

/// The free stacks of one size class, and where more come from.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// The free stacks, the hottest last.
    ///
    /// # Invariant
    ///
    /// Its capacity is at least `carved`, so that a push never allocates. References to it don't
    /// outlive the statement or block that makes them, and nothing in there calls the allocator or
    /// code of others.
    free: UnsafeCell<Vec<Stack>>,
    /// How short `free` was at its shortest in this period: the stacks below weren't needed since
    /// it began.
    unused: Cell<usize>,
    /// How many stacks, from the start of `free`, the end of the last period condemned to lose
    /// their memory. Those at or above `unused` may have been used since.
    condemned: Cell<usize>,
    /// How many stacks, from the start of `free`, have lost theirs. Those at or above `unused` may
    /// have been used since.
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
        if cfg!(debug_assertions) && !self.owns(&stack) {
            foreign();
        }
        // SAFETY: the only reference, by the invariant of `free`. `push` has room, so it doesn't
        // allocate.
        unsafe {
            let free = &mut *self.free.get();
            // The stack is one of `carved` and not among the free ones, so there is room, unless it
            // is another's. The check lets the compiler leave out the growth, and with it a fifth
            // of the time of a spawn.
            if free.len() == free.capacity() {
                foreign();
            }
            free.push(stack);
        }
    }

    /// Whether a stack is of this pool; true if the slabs are being changed.
    fn owns(&self, stack: &Stack) -> bool {
        let slabs = self.slabs.try_borrow();
        slabs.map_or(true, |slabs| slabs.iter().any(|slab| slab.contains(stack)))
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
        // The allocator is called while `free` isn't borrowed, and the old memory is freed after it
        // was replaced.
        let mut larger = Vec::with_capacity((wanted * 2).max(64));
        // SAFETY: the only reference, by the invariant of `free`; `append` has room and doesn't
        // allocate.
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

    /// Ends a period: condemns the stacks that were not needed in it.
    pub(super) fn condemn_unused(&self) {
        self.condemn(self.unused.get());
    }

    /// Ends a period: condemns all free stacks but the `keep` hottest.
    pub(super) fn condemn_all_but(&self, keep: usize) {
        self.condemn(self.counts().1.saturating_sub(keep));
    }

    /// Ends a period: condemns the `count` coldest free stacks.
    fn condemn(&self, count: usize) {
        self.trimmed.set(self.trimmed.get().min(self.unused.get()));
        self.condemned.set(count);
        self.unused.set(self.counts().1);
    }

    /// Gives the memory of condemned stacks back to the kernel, and slabs that hold no others.
    /// Takes one from `batch` for each stack. Returns whether some are left.
    pub(super) fn trim(&self, batch: &mut usize) -> bool {
        // SAFETY: the only reference, by the invariant of `free`; only the kernel is called while
        // it lives.
        let free = unsafe { &*self.free.get() };
        let from = self.trimmed.get().min(self.unused.get());
        let goal = self.condemned.get().min(self.unused.get()).max(from);
        let to = goal.min(from.saturating_add(*batch));
        discard(&free[from..to]);
        *batch -= to - from;
        self.trimmed.set(to);
        self.uncounted.set(self.uncounted.get() || from < to);
        if to == goal && self.uncounted.replace(false) {
            self.unmap_free_slabs(to);
        }
        to < goal
    }

    /// Gives the deep pages of all free stacks back to the kernel.
    pub(super) fn trim_deep_pages(&self) {
        // SAFETY: the only reference, by the invariant of `free`; only the kernel is called while
        // it lives.
        let free = unsafe { &*self.free.get() };
        let from = self.trimmed.get().min(self.unused.get());
        for stack in &free[from..] {
            let end = stack.base().next_multiple_of(GRAIN) - GRAIN - SHALLOW_BYTES;
            if stack.lowest() < end {
                dont_need(stack.pointer(stack.lowest()), end);
            }
        }
    }

    /// Unmaps the slabs whose stacks are all among the `candidates` coldest free ones.
    pub(super) fn unmap_free_slabs(&self, candidates: usize) {
        let mut slabs = self.slabs.borrow_mut();
        count_free(&mut slabs, self, candidates);
        if slabs.iter().all(|slab| slab.free < slab.carved) {
            return;
        }
        // SAFETY: the only reference, by the invariant of `free`; `retain` moves and drops handles,
        // which calls nothing.
        unsafe {
            (*self.free.get()).retain(|stack| {
                !slabs.iter().any(|slab| slab.free == slab.carved && slab.contains(stack))
            });
        }
        let mut gone = 0;
        for slab in slabs.extract_if(.., |slab| slab.free == slab.carved) {
            gone += slab.carved;
            // SAFETY: all its stacks were free, and their handles were just dropped.
            unsafe { slab.unmap() }
        }
        self.carved.set(self.carved.get() - gone);
        // They were the coldest, so what is known of the others moves down by as many places.
        for count in [&self.trimmed, &self.condemned, &self.unused] {
            count.set(count.get().saturating_sub(gone));
        }
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
    // SAFETY: the only reference, by the invariant of `free`; nothing is called below but the
    // slabs' arithmetic.
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

/// A stack of other `Stacks` was released.
#[cold]
#[inline(never)]
fn foreign() -> ! {
    panic!("a stack is released to the stacks it was acquired from");
}

/// Gives all memory of free stacks back to the kernel, in one call where they are neighbours, which
/// they mostly are in the pool too: a third of the time that a call for each takes.
fn discard(stacks: &[Stack]) {
    let follows = |a: &Stack, b: &Stack| a.slot_end() == b.slot_low();
    // A run goes either up or down throughout: to turn, it would have to contain a stack twice.
    for run in stacks.chunk_by(|a, b| follows(a, b) || follows(b, a)) {
        let [first, last] = [&run[0], &run[run.len() - 1]];
        let (low, high) = if first.base() < last.base() { (first, last) } else { (last, first) };
        dont_need(low.pointer(low.lowest()), high.slot_end());
    }
}

/// Gives the memory from `start` to the address `end` back to the kernel. Guards in between survive
/// it, whichever kind they are.
fn dont_need(start: *mut u8, end: usize) {
    // SAFETY: the callers pass ranges within slots of free stacks, whose contents nobody relies on.
    unsafe { libc::madvise(start.cast(), end - start.addr(), libc::MADV_DONTNEED) };
}

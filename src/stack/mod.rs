//! The stacks of a thread's greenlets.
//!
//! A stack is a slot of a slab, and a slab is one mapping that holds up to 65,536 slots, so that a
//! million stacks take a few dozen mappings. Free stacks are reused last in, first out: the hottest
//! first. It relies on libc and corosensei alone, and it must never hand out a stack without a
//! guard, nor reuse or unmap one that wasn't released.
//!
//! # A slot
//!
//! ```text
//!  low end                                                              high end
//!  | guard 64 KiB | usable, 192 KiB by default     | top page  | TLS 8 KiB |  next guard ...
//!  |  any access  |           <--- the stack grows |    ^      | untouched |
//!  |    faults    |                                |    |      | until used|
//!  ^              ^                                     ^
//!  slot_low()     lowest()                              base(): the page's end less 0..=15 lines
//! ```
//!
//! A parked greenlet of ordinary depth (some 3 KB) touches the top page and nothing else: 4096
//! bytes, and 536 for page tables.
//!
//! Two measurements (a resume and suspend each over 1,000 coroutines; an AMD EPYC) chose this
//! layout. Slots of 64 pages with all bases at the same offset: 5.0 ns. Slots of an odd number of
//! pages, so that the tops don't share sets of the TLB: 4.7 ns; bases coloured by 16 cache lines,
//! so that they don't share sets of the first cache: 3.5 ns; both: 2.8 ns, as much as one coroutine
//! alone takes. Over 100,000 the cache misses of the switch are all that counts, and no layout
//! wins.
//!
//! # What it costs
//!
//! Acquiring and releasing a pooled stack takes 2 ns; with a coroutine that runs on it in between,
//! 4 ns. A stack that never existed takes 1.2 us for its guard and 2 us and more for the first
//! touch of its page, so released stacks keep their memory until somebody trims:
//! [`Stacks::trim_unused`] takes it from those that weren't needed for a whole period, at 1 us
//! each.

mod altstack;
mod guard;
mod overflow;
mod pool;
mod registry;
mod size;
mod slab;
mod slot;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;

use self::altstack::AlternateStack;
use self::pool::Pool;
use self::slot::CLASSES;

pub(crate) use self::overflow::set_describe;
pub use self::size::default_stack_size;
pub(crate) use self::slot::{Stack, StackSize};

/// How many stacks one call of [`Stacks::trim_unused`] treats at most: about half a millisecond's
/// worth.
const TRIM_BATCH: usize = 512;

/// How many free stacks of the default size are not worth a look at the clock.
const SPARE_MIN: usize = 64;

/// The stacks of one thread.
///
/// Dropping it unmaps the slabs of which every stack was released. The others are leaked on
/// purpose: a stack that was not unwound to its end is never reused or unmapped, because something
/// may still point into it.
#[derive(Debug)]
pub(crate) struct Stacks {
    /// A pool for each size class.
    pools: [Pool; CLASSES],
    /// The class of a stack nobody asked a size for.
    default: StackSize,
    /// Whether the last [`Stacks::trim_unused`] left some work.
    trimming: Cell<bool>,
    /// Where the overflow report runs, if the thread came without such a place.
    _alternate_stack: Option<AlternateStack>,
    /// The alternate stack and the pools belong to the thread that made them.
    _not_send: PhantomData<*mut ()>,
}

/// What the stacks of a thread amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackStats {
    /// Stacks that were acquired and not released, abandoned ones included.
    pub in_use: usize,
    /// Stacks that wait for reuse.
    pub pooled: usize,
    /// Mappings that hold stacks.
    pub slabs: usize,
    /// The address space these take.
    pub mapped_bytes: usize,
}

impl Stacks {
    /// No stacks yet. Installs the overflow report, once in the process's life, and gives the
    /// calling thread an alternate signal stack if it has none.
    ///
    /// # Panics
    ///
    /// If `GREENLING_STACK_SIZE` is set to something that isn't a size.
    pub(crate) fn new() -> Stacks {
        guard::prepare();
        overflow::install();
        Stacks {
            pools: std::array::from_fn(|_| Pool::default()),
            default: size::default_class(),
            trimming: Cell::new(false),
            _alternate_stack: AlternateStack::ensure(),
            _not_send: PhantomData,
        }
    }

    /// A stack of at least the given size: the free one that was used last, or a new one. Its
    /// contents are unspecified.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`, with a text that says what ran out, if there is no free stack and the kernel
    /// refuses a new one.
    #[inline]
    pub(crate) fn acquire(&self, size: Option<StackSize>) -> io::Result<Stack> {
        let size = size.unwrap_or(self.default);
        let pool = &self.pools[size.index()];
        match pool.pop() {
            Some(stack) => Ok(stack),
            None => pool.carve(size),
        }
    }

    /// Takes a stack back that nothing points into any more: it was unwound to its end, or never
    /// used. It keeps its memory, so that its next user finds it hot, unless it is larger than 8
    /// MiB.
    #[inline]
    pub(crate) fn release(&self, stack: Stack) {
        let size = stack.size();
        let pool = &self.pools[size.index()];
        if size.is_pooled() { pool.push(stack) } else { pool.unmap(stack) }
    }

    /// Gives memory of free stacks back to the kernel: of each size, the `keep` hottest keep their
    /// upper 16 KiB, the others nothing, and a slab without a stack in use or kept is unmapped.
    /// This takes about a microsecond for each free stack.
    pub(crate) fn trim(&self, keep: usize) {
        for pool in &self.pools {
            pool.condemn_all_but(keep);
            pool.trim(&mut { usize::MAX });
            pool.trim_deep_pages();
        }
    }

    /// Gives the memory of those free stacks back that weren't needed for a whole period; it is for
    /// a hub about to go idle. A call ends the period, so it should come some seconds after the one
    /// before: a burst that comes again in between finds its stacks hot. The work has a limit; if
    /// it returns true, some is left, and the next call goes on with it and ends no period.
    pub(crate) fn trim_unused(&self) -> bool {
        if !self.trimming.get() {
            self.pools.iter().for_each(Pool::condemn_unused);
        }
        let mut batch = TRIM_BATCH;
        let left = self.pools.iter().any(|pool| pool.trim(&mut batch));
        self.trimming.set(left);
        left
    }

    /// Whether there are more free stacks than a small program has use for.
    #[inline]
    pub(crate) fn has_spare(&self) -> bool {
        self.pools[self.default.index()].counts().1 > SPARE_MIN
    }

    /// What there is at the moment.
    pub(crate) fn stats(&self) -> StackStats {
        self.pools.iter().fold(StackStats::default(), |sum, pool| {
            let ((carved, free), (slabs, bytes)) = (pool.counts(), pool.mapped());
            StackStats {
                in_use: sum.in_use + carved - free,
                pooled: sum.pooled + free,
                slabs: sum.slabs + slabs,
                mapped_bytes: sum.mapped_bytes + bytes,
            }
        })
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        for pool in &self.pools {
            pool.unmap_free_slabs(pool.counts().1);
        }
    }
}

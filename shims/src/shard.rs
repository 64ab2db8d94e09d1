//! One list of greenlets that wait on futexes, and its lock.
//!
//! The lock spins: what is done under it is a few dozen instructions (for a waker, a few per
//! waiter of the list), never a call that blocks or comes back here. Relies on the protocol that
//! [`futex`](crate::futex) describes. Must never allocate, nor call the runtime with the lock
//! held.

use std::cell::UnsafeCell;
use std::hint;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use libc::c_int;

use crate::real;
use crate::runtime::{Runtime, Ticket};

/// How many greenlets are unlinked under one hold of the lock.
const BATCH: usize = 16;

/// How often a taken lock is looked at before the thread offers its CPU.
const SPINS: u32 = 100;

/// One waiting greenlet, on its own stack. Written and read under its shard's lock.
pub(crate) struct Node {
    /// The futex.
    pub(crate) address: *const AtomicU32,
    /// A wake-up must share one of these bits.
    pub(crate) bits: u32,
    /// Whether a waker has unlinked the node.
    pub(crate) woken: bool,
    /// The park to end.
    pub(crate) ticket: Ticket,
    /// Grows along the list.
    stamp: u64,
    /// The next older node, or null.
    previous: *mut Node,
    /// The next newer node, or null.
    next: *mut Node,
}

impl Node {
    pub(crate) fn new(address: *const AtomicU32, bits: u32, ticket: Ticket) -> Node {
        let (previous, next) = (null_mut(), null_mut());
        Node { address, bits, woken: false, ticket, stamp: 0, previous, next }
    }
}

/// One list of waiters and its lock. Alone on its cache line.
#[repr(align(64))]
pub(crate) struct Shard {
    /// The errno location of the context that holds the lock, or null. It is cheap to ask for
    /// and tells apart what must be told apart: a signal handler has the one of the thread (or
    /// of the isolated greenlet) that it interrupted, and whoever runs beside the holder has
    /// another, since no greenlet switches while it holds the lock.
    owner: AtomicPtr<c_int>,
    /// How many nodes are linked. Changed under the lock; zero lets wakers skip it.
    count: AtomicUsize,
    /// A signal handler wanted the lock that its own thread held: the holder must wake everyone.
    interrupted: AtomicBool,
    /// # Invariant
    ///
    /// Used by the holder of the lock alone. Each linked node is alive.
    list: UnsafeCell<List>,
}

// SAFETY: `list`, and the nodes it leads to, are used under the lock only; see the field.
unsafe impl Sync for Shard {}

impl Shard {
    pub(crate) const fn new() -> Shard {
        Shard {
            owner: AtomicPtr::new(null_mut()),
            count: AtomicUsize::new(0),
            interrupted: AtomicBool::new(false),
            list: UnsafeCell::new(List::new()),
        }
    }

    /// Whether nobody waits here. What this is worth is said in [`futex`](crate::futex).
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Waits for the lock. `None` in a signal handler that interrupted the holder, who can't go
    /// on before the handler is done: the holder then wakes all waiters of the shard, which look
    /// again whether they still have to wait. A futex wait may end so.
    pub(crate) fn lock(&self) -> Option<Locked<'_>> {
        // SAFETY: there is nothing to ask for.
        let me = unsafe { libc::__errno_location() };
        let mut spins = 0;
        loop {
            let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
            match self.owner.compare_exchange_weak(null_mut(), me, acquire, relaxed) {
                Ok(_) => return Some(Locked { shard: self }),
                Err(owner) if owner == me => {
                    self.interrupted.store(true, Ordering::Relaxed);
                    return None;
                }
                Err(_) if spins < SPINS => hint::spin_loop(),
                // The holder was preempted.
                // SAFETY: sched_yield has no arguments.
                Err(_) => drop(unsafe { real::syscall(libc::SYS_sched_yield, [0; 6]) }),
            }
            spins = spins.saturating_add(1);
        }
    }

    /// Wakes up to `limit` of the waiters that are `wanted`, the oldest first; says how many.
    pub(crate) fn wake(
        &self,
        runtime: &dyn Runtime,
        limit: usize,
        wanted: impl Fn(&Node) -> bool,
    ) -> usize {
        let Some(count) = self.wake_some(runtime, limit, wanted) else { return 0 };
        self.settle(runtime);
        count
    }

    /// [`wake`](Shard::wake), but for what signal handlers may have left to do. `None` in a signal
    /// handler that has just left it to the thread it interrupted.
    fn wake_some(
        &self,
        runtime: &dyn Runtime,
        limit: usize,
        wanted: impl Fn(&Node) -> bool,
    ) -> Option<usize> {
        let mut total = 0;
        // Only those that wait by now: a greenlet that is woken here, runs on another thread and
        // waits again would keep this loop going.
        let mut newest = None;
        while total < limit {
            let list = self.lock()?;
            // SAFETY: this is the only use of the list while the lock is held.
            let batch = unsafe {
                let newest = *newest.get_or_insert_with(|| list.newest());
                let wanted = |node: &Node| node.stamp <= newest && wanted(node);
                list.collect((limit - total).min(BATCH), wanted)
            };
            list.release();
            // Those whose thread has ended do not count: the next ones get their wake-ups.
            let woken = batch.unpark(runtime);
            total += woken;
            if batch.count < BATCH && batch.count == woken {
                break;
            }
        }
        Some(total)
    }

    /// Does what signal handlers could not do while this thread held the lock.
    fn settle(&self, runtime: &dyn Runtime) {
        while self.interrupted.load(Ordering::Relaxed)
            && self.interrupted.swap(false, Ordering::Relaxed)
        {
            if self.wake_some(runtime, usize::MAX, |_| true).is_none() {
                // This is such a handler itself: the holder settles after it.
                return;
            }
        }
    }

    /// Empties the list and opens the lock.
    ///
    /// # Safety
    ///
    /// No other thread uses the shard, and no linked waiter runs again.
    pub(crate) unsafe fn forget_all(&self) {
        // SAFETY: the caller's promise.
        unsafe { *self.list.get() = List::new() };
        self.count.store(0, Ordering::Relaxed);
        self.interrupted.store(false, Ordering::Relaxed);
        self.owner.store(null_mut(), Ordering::Release);
    }
}

/// A held lock, to be ended by [`unlock`](Locked::unlock).
pub(crate) struct Locked<'a> {
    shard: &'a Shard,
}

impl Locked<'_> {
    /// Releases the lock, and does what signal handlers could not do meanwhile.
    pub(crate) fn unlock(self, runtime: &dyn Runtime) {
        let shard = self.shard;
        self.release();
        shard.settle(runtime);
    }

    /// Links `node` as the newest.
    ///
    /// # Safety
    ///
    /// `node` is not linked, and stays alive in its place until it is unlinked.
    pub(crate) unsafe fn push(&self, node: *mut Node) {
        // SAFETY: the lock is held; linked nodes are alive.
        unsafe {
            let list = self.shard.list.get();
            (*list).stamp += 1;
            (*node).stamp = (*list).stamp;
            (*node).previous = (*list).last;
            match (*list).last.as_mut() {
                Some(last) => last.next = node,
                None => (*list).first = node,
            }
            (*list).last = node;
        }
        self.shard.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes `node` out.
    ///
    /// # Safety
    ///
    /// `node` is linked, and no reference to a neighbour of it exists.
    pub(crate) unsafe fn unlink(&self, node: *mut Node) {
        // SAFETY: the lock is held; linked nodes are alive.
        unsafe {
            let list = self.shard.list.get();
            let Node { previous, next, .. } = *node;
            match previous.as_mut() {
                Some(previous) => previous.next = next,
                None => (*list).first = next,
            }
            match next.as_mut() {
                Some(next) => next.previous = previous,
                None => (*list).last = previous,
            }
        }
        self.shard.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Unlinks up to `limit` nodes that are `wanted`, the oldest first, and marks them woken.
    ///
    /// # Safety
    ///
    /// No reference to a node of the list exists.
    unsafe fn collect(&self, limit: usize, wanted: impl Fn(&Node) -> bool) -> Batch {
        let mut batch = Batch::new();
        // SAFETY: the lock is held; linked nodes are alive, and `next` is read before its node
        // is unlinked.
        unsafe {
            let mut next = (*self.shard.list.get()).first;
            while batch.count < limit && !next.is_null() {
                let node = next;
                next = (*node).next;
                if wanted(&*node) {
                    self.unlink(node);
                    (*node).woken = true;
                    batch.push((*node).ticket);
                }
            }
        }
        batch
    }

    /// The stamp of the newest node that was ever linked.
    ///
    /// # Safety
    ///
    /// No exclusive reference to the list exists.
    unsafe fn newest(&self) -> u64 {
        // SAFETY: the lock is held.
        unsafe { (*self.shard.list.get()).stamp }
    }

    /// Releases the lock and no more: [`Shard::settle`] must follow.
    fn release(self) {
        // `swap`, since what `settle` reads must be read after it: a handler that comes later
        // gets the lock, so no request is overlooked.
        self.shard.owner.swap(null_mut(), Ordering::AcqRel);
    }
}

/// The waiters of one shard, the oldest first.
struct List {
    /// The oldest node, or null.
    first: *mut Node,
    /// The newest node, or null.
    last: *mut Node,
    /// The stamp of the newest node that was ever linked.
    stamp: u64,
}

impl List {
    const fn new() -> List {
        List { first: null_mut(), last: null_mut(), stamp: 0 }
    }
}

/// Tickets of nodes that were unlinked, to be used after the lock is released.
struct Batch {
    /// The first `count` are meant.
    tickets: [Ticket; BATCH],
    /// At most [`BATCH`].
    count: usize,
}

impl Batch {
    fn new() -> Batch {
        Batch { tickets: [Ticket { hub: 0, greenlet: 0, generation: 0 }; BATCH], count: 0 }
    }

    fn push(&mut self, ticket: Ticket) {
        self.tickets[self.count] = ticket;
        self.count += 1;
    }

    /// Ends the parks; tells how many of them were somebody's.
    fn unpark(&self, runtime: &dyn Runtime) -> usize {
        self.tickets[..self.count].iter().filter(|&&ticket| runtime.unpark(ticket)).count()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::RawFd;
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;
    use crate::runtime::{Bypass, Direction, Seen, Wake};

    /// Notes who is unparked.
    struct Unparked(Mutex<Vec<u64>>);

    impl Runtime for Unparked {
        fn bypass(&self) -> Option<Bypass> {
            None
        }
        fn wait_fd(&self, _: RawFd, _: Direction, _: Seen, _: Option<Instant>) -> Wake {
            Wake::Ready
        }
        fn wait_any(
            &self,
            _: &[(RawFd, Direction)],
            _: Option<Instant>,
            _: &mut dyn FnMut() -> bool,
        ) -> Wake {
            Wake::Ready
        }
        fn sleep_until(&self, _: Instant) -> Wake {
            Wake::TimedOut
        }
        fn fd_closing(&self, _: RawFd) {}
        fn fd_duplicated(&self, _: RawFd, _: RawFd) {}
        fn ticket(&self) -> Ticket {
            Ticket { hub: 0, greenlet: 0, generation: 0 }
        }
        fn park(&self, _: Option<Instant>) -> Wake {
            Wake::Ready
        }
        fn unpark(&self, ticket: Ticket) -> bool {
            self.0.lock().unwrap().push(ticket.greenlet);
            true
        }
        fn offload(&self, _: Box<dyn FnOnce() + Send>) -> Wake {
            Wake::Ready
        }
        fn yield_now(&self) {}
    }

    fn node(greenlet: u64) -> UnsafeCell<Node> {
        let ticket = Ticket { hub: 0, greenlet, generation: 0 };
        UnsafeCell::new(Node::new(null_mut(), !0, ticket))
    }

    #[test]
    fn what_a_signal_handler_could_not_do_the_holder_does() {
        let (shard, runtime) = (Shard::new(), Unparked(Mutex::new(Vec::new())));
        let nodes: Vec<_> = (0..20).map(node).collect();
        let list = shard.lock().unwrap();
        for node in &nodes {
            // SAFETY: the nodes outlive their stay in the list.
            unsafe { list.push(node.get()) };
        }
        // As in a handler: the same thread, with the lock held.
        assert_eq!(shard.wake(&runtime, 1, |_| true), 0);
        assert!(runtime.0.lock().unwrap().is_empty());
        list.unlock(&runtime);
        assert_eq!(*runtime.0.lock().unwrap(), (0..20).collect::<Vec<_>>());
        assert!(shard.is_empty());
    }

    #[test]
    fn a_node_can_be_taken_out_anywhere() {
        let (shard, runtime) = (Shard::new(), Unparked(Mutex::new(Vec::new())));
        let nodes: Vec<_> = (0..5).map(node).collect();
        let list = shard.lock().unwrap();
        // SAFETY: the nodes outlive their stay in the list, and each is taken out once.
        unsafe {
            nodes.iter().for_each(|node| list.push(node.get()));
            for index in [2, 0, 4] {
                list.unlink(nodes[index].get());
            }
        }
        list.unlock(&runtime);
        assert_eq!(shard.wake(&runtime, 9, |_| true), 2);
        assert_eq!(*runtime.0.lock().unwrap(), [1, 3]);
    }
}

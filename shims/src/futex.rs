//! Greenlets that wait on a futex. Process-wide, since any OS thread may wake them.
//!
//! This must work wherever a futex call does, so also in a signal handler, before `main` and
//! inside an allocator. Hence it uses no lock of std's (they end right here), and allocates
//! nothing: a waiter's [`Node`] lives on the waiting greenlet's stack, linked into the list of
//! the [shard](crate::shard) that its address hashes to, and is unlinked before the wait returns.
//!
//! ```text
//!   SHARDS[hash(address)]   first ─▶ Node ⇄ Node ⇄ Node ◀─ last       oldest first
//!                                    (each on its own greenlet's stack)
//! ```
//!
//! # No wake-up is lost
//!
//! A waiter, under the shard's lock, links its node, and so counts itself; then fence; then reads
//! `*address`, and gives up if the value is not the expected one. A waker changes `*address` and
//! calls [`wake`]: fence; reads the count; unless that is zero, takes the lock, walks the list.
//! - Both fences are `SeqCst`, so there is one order of them. If the waiter's is first, the waker
//!   sees it counted, and the lock makes it walk the list with the node linked, or given up. If
//!   the waker's is first, the waiter reads the new value and does not wait. The fence of a waker
//!   comes even before it asks the gate whether anything is patched, for the same reason.
//! - A waker unlinks a node and marks it `woken` under the lock, and copies its ticket, since the
//!   node is gone as soon as the waiter returns. The park is ended after unlocking: the ticket
//!   names that one park, so this is ignored if it is over and remembered if it has not begun.
//! - A waiter whose park ends for another reason looks at `woken` under the lock: a wake-up that
//!   was spent on it is reported as one, even if its time ran out at the same moment.
//!
//! # Signals and forks
//!
//! A signal handler may run while its thread holds a shard's lock, and then can't have it: see
//! [`Shard::lock`]. Waking from a handler is safe at any time. Waiting in one is as bad an idea
//! as POSIX says, but ends when the wait does.
//!
//! In a forked child nobody waits: the parked greenlets are the parent's, and so are the threads
//! that may have held a lock. [`follow_forks`] has the table emptied there.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Instant;

use crate::clock::Moment;
use crate::runtime::{Runtime, Wake};
use crate::shard::{Node, Shard};

/// How many lists there are. A power of two, for the hash.
const SHARDS_COUNT: usize = 256;

static SHARDS: [Shard; SHARDS_COUNT] = [const { Shard::new() }; SHARDS_COUNT];

/// How a green wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Woken, or spuriously so, which a futex wait may be.
    Woken,
    /// The futex did not hold the expected value.
    Changed,
    /// The time is over.
    TimedOut,
    /// The runtime ended the park for a reason that a futex wait does not have.
    Interrupted,
    /// A signal handler that interrupted the holder of the shard's lock can't wait here.
    Unavailable,
}

/// Parks the calling greenlet while `*address` is `expected`, until it is woken with a bit of
/// `bits`, or until `until`. No kill point.
///
/// # Safety
///
/// `address` can be read atomically now. It may be gone by the time the wait ends.
pub(crate) unsafe fn wait(
    runtime: &dyn Runtime,
    address: *const AtomicU32,
    expected: u32,
    bits: u32,
    until: Option<Moment>,
) -> Outcome {
    let shard = shard(address);
    let node = UnsafeCell::new(Node::new(address, bits, runtime.ticket()));
    let node = node.get();
    let Some(list) = shard.lock() else { return Outcome::Unavailable };
    // SAFETY: the node stays in its place until it is unlinked, since this function does not
    // return before that; a greenlet that never runs again keeps its stack (see `Runtime`).
    unsafe { list.push(node) };
    fence(Ordering::SeqCst);
    // SAFETY: the caller's promise.
    if unsafe { (*address).load(Ordering::Relaxed) } != expected {
        // SAFETY: it was linked above, and the lock is still held.
        unsafe { list.unlink(node) };
        list.unlock(runtime);
        return Outcome::Changed;
    }
    list.unlock(runtime);

    loop {
        // A moment that has come still means a park: the others get their turn.
        let deadline = until.map(|until| until.slice().unwrap_or_else(Instant::now));
        let wake = runtime.park(deadline);
        let sliced = wake == Wake::TimedOut && until.is_some_and(|until| until.slice().is_some());
        let (list, ticket) = loop {
            let ticket = runtime.ticket();
            match shard.lock() {
                Some(list) => break (list, ticket),
                // Another greenlet of this thread holds the lock: it waits in a signal handler
                // that interrupted it there, and must get on first.
                None => runtime.yield_now(),
            }
        };
        // SAFETY: the lock is held, and with it comes the right to the node.
        let woken = unsafe { (*node).woken };
        if !woken && sliced {
            // A slice is over, the wait is not. The next park has another ticket.
            // SAFETY: as above.
            unsafe { (*node).ticket = ticket };
            list.unlock(runtime);
            continue;
        }
        if !woken {
            // SAFETY: only wakers unlink the nodes of others, and mark them woken.
            unsafe { list.unlink(node) };
        }
        list.unlock(runtime);
        return match wake {
            Wake::TimedOut if !woken => Outcome::TimedOut,
            Wake::Killed | Wake::Expired | Wake::Closed | Wake::Unpollable if !woken => {
                Outcome::Interrupted
            }
            _ => Outcome::Woken,
        };
    }
}

/// Wakes up to `limit` of the greenlets that wait on `address` with a bit of `bits`, the oldest
/// first, and says how many. In any context, after a `SeqCst` fence that comes after the change
/// of `*address`. The address is compared, never read.
pub(crate) fn wake(
    runtime: &dyn Runtime,
    address: *const AtomicU32,
    bits: u32,
    limit: usize,
) -> usize {
    let shard = shard(address);
    if shard.is_empty() {
        return 0;
    }
    shard.wake(runtime, limit, |node| node.address == address && node.bits & bits != 0)
}

/// Has the table emptied in every child that this process forks. To be called once.
pub(crate) fn follow_forks() {
    extern "C" fn child() {
        for shard in &SHARDS {
            // SAFETY: this is the child's only thread, and no greenlet of the parent's runs in
            // it again. (A signal handler that interrupted a holder of the lock and forks leaves
            // the list half changed; since no wait in the child is green, nobody walks it.)
            unsafe { shard.forget_all() };
        }
    }
    // It fails only for want of memory. Then the table keeps the parent's nodes, whose memory the
    // child has copies of, and `Bypass::Forked` keeps everyone off.
    // SAFETY: the handler lives as long as the process.
    unsafe { libc::pthread_atfork(None, None, Some(child)) };
}

fn shard(address: *const AtomicU32) -> &'static Shard {
    // Fibonacci hashing: the upper bits of the product depend on all bits of the address.
    let hash = (address as u64 >> 2).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    &SHARDS[(hash >> (u64::BITS - SHARDS_COUNT.trailing_zeros())) as usize]
}

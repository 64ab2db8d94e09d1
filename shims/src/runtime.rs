//! What the shims need from a scheduler, and nothing more.
//!
//! The shims never name a scheduler: they call the one [`Runtime`] that was handed to
//! [`install`](crate::install). greenling implements it for its hub; the tests of this crate
//! implement it with plain blocking calls.
//!
//! Every method may be called on any thread at any time, also before `main`, while a thread is
//! being torn down and in a forked child. None may unwind: the caller is an `extern "C"` frame.

use std::os::fd::RawFd;
use std::time::Instant;

/// A direction in which an fd can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Until a read, receive or accept would not block.
    Read,
    /// Until a write, send or connect would not block.
    Write,
}

/// What a caller that is about to wait knows of the fd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// An operation has just failed with `EAGAIN`: only an edge that comes from now on counts.
    Nothing,
    /// An earlier operation came short, so that nothing was left then: an edge that has come
    /// since counts as well.
    Shortage,
}

/// Why a parked greenlet runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wake {
    /// What was waited for has happened, or may have: try again.
    Ready,
    /// The call's own deadline passed.
    TimedOut,
    /// Another greenlet closed the fd: the call fails with `EBADF`.
    Closed,
    /// The greenlet is being killed: the call fails with `ECANCELED`. The runtime has already
    /// let the others run, so a caller that ignores errors can't hold the hub.
    Killed,
    /// An enclosing `with_timeout` expired: the call fails with `ETIMEDOUT`. The same promise as
    /// for [`Wake::Killed`].
    Expired,
    /// The fd can't be waited for (a regular file, say): the caller makes the blocking call.
    Unpollable,
}

/// Why a shim passes a call through to the real one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bypass {
    /// `patch_all` has not run, or not for this category.
    NotPatched,
    /// The calling OS thread has no hub.
    NoHub,
    /// The hub itself is calling: it must never wait for itself.
    InHub,
    /// The thread is panicking: the panic count is per OS thread, so no switch may happen now.
    Panicking,
    /// This is a forked child whose hub belongs to the parent.
    Forked,
}

/// Names one park of one greenlet, so that any thread can end it. A ticket whose park is over is
/// stale, and using it does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Which hub of the process.
    pub hub: u64,
    /// Which greenlet of that hub; never reused while the hub lives.
    pub greenlet: u64,
    /// Which of the greenlet's parks.
    pub generation: u64,
}

/// A scheduler that shims can park on.
pub trait Runtime: Sync {
    /// Why the calling context can't be parked, or `None` if it can. The first call of every
    /// shim: a few instructions, async-signal-safe, no allocation.
    fn bypass(&self) -> Option<Bypass>;

    /// As [`bypass`](Self::bypass), for an operation on an fd that may wait. It also lets the
    /// others run now and then, so that an fd that is always ready does not starve them. Keeps
    /// `errno`.
    fn bypass_io(&self) -> Option<Bypass> {
        self.bypass()
    }

    /// Parks until `direction` of `fd` becomes ready or `deadline` passes. `seen` says which
    /// edges count.
    fn wait_fd(
        &self,
        fd: RawFd,
        direction: Direction,
        seen: Seen,
        deadline: Option<Instant>,
    ) -> Wake;

    /// Parks until one of `fds` becomes ready or `deadline` passes. `check` looks at the real
    /// state after every fd has been armed, so that no edge is missed: if it says true, nothing
    /// is waited for and the answer is [`Wake::Ready`].
    fn wait_any(
        &self,
        fds: &[(RawFd, Direction)],
        deadline: Option<Instant>,
        check: &mut dyn FnMut() -> bool,
    ) -> Wake;

    /// Parks until `deadline`: [`Wake::TimedOut`] when it is reached.
    fn sleep_until(&self, deadline: Instant) -> Wake;

    /// `fd` is about to be closed or replaced, by the calling thread, which may have no hub:
    /// whoever of its own greenlets waits for it wakes with [`Wake::Closed`], and what any hub
    /// remembers of the number is forgotten.
    fn fd_closing(&self, fd: RawFd);

    /// `old` and `new` share one open file description from now on, so closing one of them no
    /// longer ends the reactor's registration of the other.
    fn fd_duplicated(&self, old: RawFd, new: RawFd);

    /// The ticket of the calling greenlet's next [`park`](Self::park).
    fn ticket(&self) -> Ticket;

    /// Parks until [`unpark`](Self::unpark) is called with the ticket taken just before (also if
    /// that happened already), or until `deadline`. No kill point: neither a kill nor a timeout
    /// ends it.
    fn park(&self, deadline: Option<Instant>) -> Wake;

    /// Ends the park that `ticket` names. From any thread; a stale ticket is ignored. False if the
    /// ticket's scheduler has ended, so that the wake-up may have reached nobody.
    fn unpark(&self, ticket: Ticket) -> bool;

    /// Runs `job` on a thread that may block and parks until it has run. Ended early by a kill
    /// or a timeout, the job still runs to its end; `job` owns whatever it needs.
    fn offload(&self, job: Box<dyn FnOnce() + Send>) -> Wake;

    /// Lets every greenlet that is ready run before the caller goes on.
    fn yield_now(&self);
}

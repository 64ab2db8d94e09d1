//! The middle of every shim on an fd: who to wait with, until when, and what the end of a wait
//! means to the caller.
//!
//! ```text
//!   scheduler(fd) --> try --> EAGAIN --> Waiting::until_ready --> try again
//! ```
//!
//! Relies on the gate for the runtime and on `fds` for what the user believes of the fd. Must
//! not be used for a call that the user asked not to wait.

use std::os::fd::RawFd;
use std::time::Instant;

use crate::blocking;
use crate::errno::{self, Errno};
use crate::fds::{self, Description, Patience};
use crate::gate::{self, Category};
use crate::runtime::{Bypass, Direction, Runtime, Seen, Wake};

/// Who a call on `fd` waits with; `None` if the real call does the waiting.
#[inline]
pub(crate) fn scheduler(fd: RawFd) -> Option<&'static dyn Runtime> {
    match gate::enter(Category::Socket) {
        Ok(runtime) => Some(runtime),
        Err(Bypass::NotPatched) => None,
        Err(_) => blocking_scheduler(fd),
    }
}

/// Who a transfer on `fd` waits with, and what is known of the fd; `None` if the real call is
/// right as it is, because nothing is patched, the thread can't park, or the fd's user wants no
/// waiting. May suspend, if it is the turn of others.
#[inline(always)]
pub(crate) fn waiter(fd: RawFd) -> Option<(&'static dyn Runtime, &'static Description)> {
    if !gate::is_patched(Category::Socket) {
        return None;
    }
    let known = fds::known(fd);
    // Who wants no waiting is not made to wait for its turn either.
    if known.is_some_and(|description| !description.is_waiting_socket()) {
        return None;
    }
    let runtime = match gate::enter_io() {
        Ok(runtime) => runtime,
        Err(_) => blocking_scheduler(fd)?,
    };
    match known {
        Some(description) => Some((runtime, description)),
        None => learn(fd).map(|description| (runtime, description)),
    }
}

/// What is known of an fd that nothing was known of, if calls on it may have to wait.
#[cold]
fn learn(fd: RawFd) -> Option<&'static Description> {
    fds::lookup(fd).filter(|description| description.is_waiting_socket())
}

/// A thread that can't park still has to wait by hand where the real call wouldn't wait at all.
#[cold]
fn blocking_scheduler(fd: RawFd) -> Option<&'static dyn Runtime> {
    let flipped = fds::known(fd).is_some_and(Description::is_flipped);
    flipped.then_some(&blocking::BLOCKING)
}

/// How to go on after a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Try again without blocking.
    Try,
    /// The fd can't be waited for: make the blocking call.
    Block,
}

/// The waits of one call on one fd: they share a deadline.
pub(crate) struct Waiting<'a> {
    /// Who parks the caller.
    runtime: &'a dyn Runtime,
    /// What it waits for.
    fd: RawFd,
    /// Likewise.
    direction: Direction,
    /// What is known of the fd.
    description: &'a Description,
    /// Which edges end the next wait.
    seen: Seen,
    /// What the call fails with when its timeout passes.
    expiry: Errno,
    /// The call's deadline, once a first wait has asked for it.
    deadline: Option<Option<Instant>>,
}

impl<'a> Waiting<'a> {
    /// The waits of a call that fails with `EAGAIN` when its timeout passes.
    pub(crate) fn new(
        runtime: &'a dyn Runtime,
        fd: RawFd,
        direction: Direction,
        description: &'a Description,
    ) -> Waiting<'a> {
        let expiry = Errno(libc::EAGAIN);
        let seen = Seen::Nothing;
        Waiting { runtime, fd, direction, description, seen, expiry, deadline: None }
    }

    /// Lets an edge that has come already end the first wait.
    #[inline]
    pub(crate) fn after(mut self, seen: Seen) -> Waiting<'a> {
        self.seen = seen;
        self
    }

    /// Lets the call fail with `expiry` when its timeout passes.
    pub(crate) fn set_expiry(&mut self, expiry: Errno) {
        self.expiry = expiry;
    }

    /// Parks until the fd may be ready. Suspends. `errno` stays.
    ///
    /// # Errors
    ///
    /// What the call has to fail with: its own timeout, `EBADF` after a close, `ECANCELED` when
    /// the greenlet is being killed, `ETIMEDOUT` when an enclosing timeout has expired.
    #[inline(always)]
    pub(crate) fn until_ready(&mut self) -> Result<Retry, Errno> {
        let deadline = self.deadline()?;
        let seen = std::mem::replace(&mut self.seen, Seen::Nothing);
        match errno::kept(|| self.runtime.wait_fd(self.fd, self.direction, seen, deadline)) {
            Wake::Ready => Ok(Retry::Try),
            wake => self.meaning(wake),
        }
    }

    /// Parks for `nap` or until the deadline, for the few things that send no edge. Suspends.
    ///
    /// # Errors
    ///
    /// As [`until_ready`](Self::until_ready).
    #[cold]
    pub(crate) fn nap(&mut self, nap: &mut Nap) -> Result<Retry, Errno> {
        let deadline = self.deadline()?;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(self.expiry);
        }
        let end = nap.next_end();
        let end = deadline.map_or(end, |deadline| deadline.min(end));
        match errno::kept(|| self.runtime.sleep_until(end)) {
            Wake::TimedOut => Ok(Retry::Try),
            wake => self.meaning(wake),
        }
    }

    /// The deadline, from the socket's timeout and the moment of the first wait.
    #[inline]
    fn deadline(&mut self) -> Result<Option<Instant>, Errno> {
        if self.description.waits_for_ever(self.direction) {
            return Ok(None);
        }
        self.first_deadline()
    }

    /// The deadline of a call that may have one.
    #[inline(never)]
    fn first_deadline(&mut self) -> Result<Option<Instant>, Errno> {
        if let Some(deadline) = self.deadline {
            return Ok(deadline);
        }
        if !self.description.may_wait(self.fd) {
            return Err(self.expiry);
        }
        match self.description.patience(self.fd, self.direction) {
            Patience::None => Err(self.expiry),
            Patience::Until(deadline) => Ok(*self.deadline.insert(deadline)),
        }
    }

    /// What `wake` means to the call.
    #[cold]
    fn meaning(&self, wake: Wake) -> Result<Retry, Errno> {
        match wake {
            Wake::TimedOut => Err(self.expiry),
            wake => meaning(wake),
        }
    }
}

/// What the end of a wait without a deadline of the call's own means to the call.
pub(crate) fn meaning(wake: Wake) -> Result<Retry, Errno> {
    match wake {
        Wake::Ready => Ok(Retry::Try),
        Wake::Unpollable => Ok(Retry::Block),
        Wake::Closed => Err(Errno(libc::EBADF)),
        Wake::Killed => Err(Errno(libc::ECANCELED)),
        Wake::TimedOut | Wake::Expired => Err(Errno(libc::ETIMEDOUT)),
    }
}

/// Growing pauses, from a tenth of a millisecond to 20.
pub(crate) struct Nap {
    /// The next pause.
    microseconds: u64,
}

impl Nap {
    /// Before the first pause.
    pub(crate) fn new() -> Nap {
        Nap { microseconds: 100 }
    }

    /// When the next pause ends, if it begins now.
    fn next_end(&mut self) -> Instant {
        let pause = std::time::Duration::from_micros(self.microseconds);
        self.microseconds = (self.microseconds * 2).min(20_000);
        Instant::now() + pause
    }
}

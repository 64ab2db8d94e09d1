//! A [`Runtime`] that blocks the thread: what shims wait with where no greenlet can be parked
//! and the real call would not wait either.
//!
//! That is so for a description that the shims gave a hidden `O_NONBLOCK` (see
//! `Description::flip`) and that is then used by a thread without a hub, by a forked child or
//! while panicking. Relies on poll(2) alone, by hand. A signal does not end a wait: it behaves as
//! with `SA_RESTART`. Only the waits for an fd and for a time are ever asked of it.

use std::os::fd::RawFd;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use crate::errno::Errno;
use crate::real;
use crate::runtime::{Bypass, Direction, Runtime, Seen, Ticket, Wake};

/// The one value there is.
pub(crate) static BLOCKING: Blocking = Blocking;

/// Blocks the calling thread.
pub(crate) struct Blocking;

impl Runtime for Blocking {
    fn bypass(&self) -> Option<Bypass> {
        None
    }

    fn wait_fd(&self, fd: RawFd, direction: Direction, _: Seen, deadline: Option<Instant>) -> Wake {
        let events = match direction {
            Direction::Read => libc::POLLIN,
            Direction::Write => libc::POLLOUT,
        };
        let mut one = libc::pollfd { fd, events, revents: 0 };
        block(&mut one, 1, deadline)
    }

    fn wait_any(
        &self,
        _: &[(RawFd, Direction)],
        _: Option<Instant>,
        _: &mut dyn FnMut() -> bool,
    ) -> Wake {
        Wake::Unpollable
    }

    fn sleep_until(&self, deadline: Instant) -> Wake {
        while Instant::now() < deadline {
            block(null_mut(), 0, Some(deadline));
        }
        Wake::TimedOut
    }

    fn fd_closing(&self, _: RawFd) {}

    fn fd_duplicated(&self, _: RawFd, _: RawFd) {}

    fn ticket(&self) -> Ticket {
        Ticket { hub: 0, greenlet: 0, generation: 0 }
    }

    fn park(&self, _: Option<Instant>) -> Wake {
        Wake::Unpollable
    }

    fn unpark(&self, _: Ticket) -> bool {
        false
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>) -> Wake {
        job();
        Wake::Ready
    }

    fn yield_now(&self) {}
}

/// One ppoll(2) until `deadline`.
fn block(fds: *mut libc::pollfd, count: libc::nfds_t, deadline: Option<Instant>) -> Wake {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let mut timeout = timespec(left.unwrap_or_default());
    let timeout = if left.is_some() { &raw mut timeout } else { null_mut() };
    // SAFETY: `fds` is `count` entries of the caller's, `timeout` null or a local; no mask.
    match unsafe { real::ppoll(fds, count, timeout, null()) } {
        Ok(0) => Wake::TimedOut,
        Ok(_) | Err(Errno(libc::EINTR)) => Wake::Ready,
        Err(_) => Wake::Unpollable,
    }
}

/// `duration` as the kernel takes it.
fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

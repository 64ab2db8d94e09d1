//! Waiting for fds: arm, park, disarm.

use std::io;
use std::os::fd::RawFd;
use std::time::Instant;

use crate::hub::Direction;
use crate::hub::core::Hub;
use crate::hub::park::Kill;
use crate::hub::reactor::Trust;
use crate::hub::reason::Reason;
use crate::hub::record::Wake;

impl Hub {
    /// Suspends the running greenlet until an edge of `fd` that comes after now, or `deadline`.
    ///
    /// The caller has just been told `EAGAIN`, or `worth_trying` was false.
    pub(crate) fn wait_fd(
        &self,
        fd: RawFd,
        direction: Direction,
        trust: Trust,
        deadline: Option<Instant>,
    ) -> Wake {
        if let Err(error) = self.reactor.arm(fd, direction, trust) {
            return cannot_wait(&error);
        }
        let ticket = self.ticket();
        self.reactor.add_waiter(fd, direction, ticket.clone());
        let wake = self.park(Reason::Fd(fd, direction), Kill::Delivered, deadline);
        self.reactor.remove_waiter(fd, direction, &ticket);
        wake
    }

    /// Suspends the running greenlet until an edge of one of `fds`, or `deadline`. `check` is
    /// called after all are armed: if it says true, there is nothing to wait for.
    pub(crate) fn wait_fds(
        &self,
        fds: impl ExactSizeIterator<Item = (RawFd, Direction)> + Clone,
        deadline: Option<Instant>,
        check: &mut dyn FnMut() -> bool,
    ) -> Wake {
        for (fd, direction) in fds.clone() {
            if let Err(error) = self.reactor.arm(fd, direction, Trust::Foreign) {
                return cannot_wait(&error);
            }
        }
        if check() {
            return Wake::Ready;
        }
        let ticket = self.ticket();
        for (fd, direction) in fds.clone() {
            self.reactor.add_waiter(fd, direction, ticket.clone());
        }
        let wake = self.park(Reason::Fds(fds.len()), Kill::Delivered, deadline);
        for (fd, direction) in fds.clone() {
            self.reactor.remove_waiter(fd, direction, &ticket);
        }
        wake
    }
}

/// What a refusal of epoll means for the waiter.
fn cannot_wait(error: &io::Error) -> Wake {
    match error.raw_os_error() {
        Some(libc::EBADF) => Wake::Closed,
        // A regular file (EPERM), or no memory or watches left: then the thread has to wait.
        _ => Wake::Unpollable,
    }
}

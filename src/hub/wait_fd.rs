//! Waiting for fds: arm, park, disarm.

use std::io;
use std::os::fd::RawFd;
use std::time::Instant;

use crate::hub::Direction;
use crate::hub::core::Hub;
use crate::hub::park::{Kill, Ticket};
use crate::hub::reactor::{Seen, Trust};
use crate::hub::reason::Reason;
use crate::hub::record::Wake;

impl Hub {
    /// Suspends the running greenlet until an edge of `fd`, or `deadline`. `seen` says which edges
    /// count.
    #[inline(always)]
    pub(crate) fn wait_fd(
        &self,
        fd: RawFd,
        direction: Direction,
        trust: Trust,
        seen: Seen,
        deadline: Option<Instant>,
    ) -> Wake {
        let reason = Reason::Fd(fd, direction);
        let me = match self.begin_park(&reason, Kill::Delivered, deadline) {
            Ok(me) => me,
            Err(wake) => return wake,
        };
        let running = self.take_running();
        let generation = me.generation.get();
        let timer = deadline.map(|deadline| self.unpark_at(deadline, running.clone()));
        // The running greenlet's reference becomes the reactor's, so that nothing is counted.
        let ticket = Ticket::next_of(running);
        if let Err((error, ticket)) = self.reactor.add_waiter(fd, direction, trust, seen, ticket) {
            if let Some(timer) = timer {
                self.cancel_timer(timer);
            }
            self.keep_running(ticket.into_greenlet());
            return error.map_or(Wake::Ready, |error| cannot_wait(&error));
        }
        let wake = self.end_park(me, &reason, timer);
        if wake != Wake::Ready && wake != Wake::Closed {
            let is_mine = |ticket: &Ticket| ticket.names(me, generation);
            if self.reactor.remove_waiter(fd, direction, is_mine) == 0 {
                self.reactor.keep_edge(fd, direction);
            }
        } else if trust == Trust::Foreign && wake == Wake::Ready {
            self.reactor.keep_edge(fd, direction);
        }
        wake
    }

    /// Suspends the running greenlet until an edge of one of `fds`, or `deadline`. `check` is
    /// called after all are armed: if it says true, there is nothing to wait for.
    #[cfg(feature = "monkey")]
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
            self.reactor.add_armed_waiter(fd, direction, ticket.clone());
        }
        let wake = self.park(Reason::Fds(fds.len()), Kill::Delivered, deadline);
        for (fd, direction) in fds.clone() {
            self.reactor.remove_waiter(fd, direction, |waiter| waiter.is(&ticket));
            self.reactor.keep_edge(fd, direction);
        }
        wake
    }
}

/// What a refusal of epoll means for the waiter.
#[cold]
fn cannot_wait(error: &io::Error) -> Wake {
    match error.raw_os_error() {
        Some(libc::EBADF) => Wake::Closed,
        // A regular file (EPERM), or no memory or watches left: then the thread has to wait.
        _ => Wake::Unpollable,
    }
}

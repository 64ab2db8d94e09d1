//! The hub as the shims see it.

use std::os::fd::RawFd;
use std::time::Instant;

use greenling_shims::runtime::{Bypass, Direction, Runtime, Seen, Ticket, Wake};

use crate::hub::core::Hub;
use crate::hub::park::Kill;
use crate::hub::reactor::{self, Trust};
use crate::hub::reason::Reason;
use crate::hub::remote::RemoteTicket;
use crate::hub::{self, record, try_hub};

/// The calling thread's hub, whichever that is.
pub(crate) struct HubRuntime;

impl Runtime for HubRuntime {
    #[inline]
    fn bypass(&self) -> Option<Bypass> {
        try_hub().map_or(Some(Bypass::NoHub), bypass)
    }

    #[inline]
    fn bypass_io(&self) -> Option<Bypass> {
        let Some(hub) = try_hub() else { return Some(Bypass::NoHub) };
        let bypass = bypass(hub);
        if bypass.is_none() && hub.spend_io_budget() {
            give_others_a_turn(hub);
        }
        bypass
    }

    fn wait_fd(
        &self,
        fd: RawFd,
        direction: Direction,
        seen: Seen,
        deadline: Option<Instant>,
    ) -> Wake {
        let hub = the_hub();
        let direction = direction.into();
        let seen = match seen {
            Seen::Nothing => reactor::Seen::Nothing,
            Seen::Shortage => reactor::Seen::Shortage,
        };
        match hub.wait_fd(fd, direction, Trust::Owned, seen, deadline) {
            record::Wake::Ready => Wake::Ready,
            wake => told(hub, wake, Reason::Fd(fd, direction)),
        }
    }

    fn wait_any(
        &self,
        fds: &[(RawFd, Direction)],
        deadline: Option<Instant>,
        check: &mut dyn FnMut() -> bool,
    ) -> Wake {
        let hub = the_hub();
        let count = fds.len();
        let fds = fds.iter().map(|&(fd, direction)| (fd, direction.into()));
        told(hub, hub.wait_fds(fds, deadline, check), Reason::Fds(count))
    }

    fn sleep_until(&self, deadline: Instant) -> Wake {
        let hub = the_hub();
        told(hub, hub.park(Reason::Sleep, Kill::Delivered, Some(deadline)), Reason::Sleep)
    }

    fn fd_closing(&self, fd: RawFd) {
        reactor::number_freed(fd);
        if let Some(hub) = try_hub() {
            hub.reactor.closing(fd, |ticket, wake| hub.unpark(ticket, wake));
        }
    }

    fn fd_duplicated(&self, old: RawFd, new: RawFd) {
        if let Some(hub) = try_hub() {
            hub.reactor.duplicated(old);
            hub.reactor.duplicated(new);
        }
    }

    fn ticket(&self) -> Ticket {
        let RemoteTicket { hub, greenlet, generation } = the_hub().remote_ticket();
        Ticket { hub, greenlet, generation: generation.into() }
    }

    fn park(&self, deadline: Option<Instant>) -> Wake {
        let hub = the_hub();
        hub.futex_waits.set(hub.futex_waits.get() + 1);
        let wake = hub.park(Reason::Futex, Kill::Deferred, deadline);
        hub.futex_waits.set(hub.futex_waits.get() - 1);
        told(hub, wake, Reason::Futex)
    }

    fn unpark(&self, ticket: Ticket) -> bool {
        let Ticket { hub, greenlet, generation } = ticket;
        // A generation has 32 bits where it comes from, in `ticket`.
        let ticket = RemoteTicket { hub, greenlet, generation: generation as u32 };
        Hub::unpark_remote(try_hub(), ticket)
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>) -> Wake {
        let hub = the_hub();
        told(hub, hub.offload(job), Reason::Offload)
    }

    fn yield_now(&self) {
        the_hub().yield_now();
    }
}

/// Why a thread with this hub can't park now.
#[inline]
fn bypass(hub: &Hub) -> Option<Bypass> {
    if !hub.in_greenlet() {
        return Some(Bypass::InHub);
    }
    if std::thread::panicking() {
        return Some(Bypass::Panicking);
    }
    None
}

/// Lets the others run. They write `errno`, which the caller has not been told of.
#[cold]
fn give_others_a_turn(hub: &Hub) {
    // SAFETY: the address is that of the thread's errno, and the greenlet does not leave the thread.
    // No reference to it lives while the others run.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        hub.yield_now();
        *errno = before;
    }
}

/// The hub of a thread for which `bypass` has just found that it has one.
#[inline]
fn the_hub() -> &'static Hub {
    try_hub().expect("the gate lets only threads with a hub pass")
}

/// What to tell a shim of the end of its park.
fn told(hub: &Hub, wake: record::Wake, reason: Reason) -> Wake {
    match wake {
        record::Wake::Ready => Wake::Ready,
        record::Wake::TimedOut => Wake::TimedOut,
        record::Wake::Closed => Wake::Closed,
        record::Wake::Unpollable => Wake::Unpollable,
        record::Wake::Killed | record::Wake::Expired => {
            hub.deliver();
            if wake == record::Wake::Killed { Wake::Killed } else { Wake::Expired }
        }
        // The caller is foreign: a panic can't pass through it, and it would wait for ever.
        record::Wake::Deadlock => {
            crate::report!("{}", hub.deadlock_report(reason));
            std::process::abort()
        }
    }
}

impl From<Direction> for hub::Direction {
    #[inline]
    fn from(direction: Direction) -> hub::Direction {
        match direction {
            Direction::Read => hub::Direction::Read,
            Direction::Write => hub::Direction::Write,
        }
    }
}

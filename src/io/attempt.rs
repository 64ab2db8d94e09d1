//! The loop that every operation on an fd goes through: try, and wait if it would block.
//!
//! The fd is nonblocking for real. It relies on the reactor's memory to skip a try that is known
//! to fail, and must never wait, yield or look at the clock when the operation can be done at once
//! and the greenlet's share of such operations is not used up.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::hub::core::Hub;
use crate::hub::reactor::{Seen, Trust};
use crate::hub::reason::Reason;
use crate::hub::record::Wake;
use crate::hub::{Direction, hub};
use crate::io::wait::{interrupted, wait};
use crate::time::after;

/// The first and the longest pause of [`attempt_patiently`].
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(32));

/// Does `operation` on `fd`, whose owner tells the reactor when it closes it. Suspends the greenlet
/// as often as the operation would block; after `timeout` it is left at that error, `EAGAIN`, as
/// the kernel does with `SO_RCVTIMEO`.
///
/// `short` says of a result whether it shows that the next operation would block; `shortage` keeps
/// that for the next operation in this direction.
#[inline]
pub(crate) fn attempt<R>(
    fd: RawFd,
    direction: Direction,
    timeout: Option<Duration>,
    shortage: &Cell<bool>,
    short: impl Fn(&R) -> bool,
    mut operation: impl FnMut() -> io::Result<R>,
) -> io::Result<R> {
    let hub = hub();
    if hub.spend_io_budget() {
        give_others_a_turn(hub)?;
    }
    let mut patience = Patience { timeout, deadline: None };
    if shortage.replace(false) {
        patience.wait(hub, fd, direction, Seen::Shortage)?;
    }
    loop {
        match operation() {
            Ok(result) => {
                if short(&result) {
                    shortage.set(true);
                }
                return Ok(result);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        patience.wait(hub, fd, direction, Seen::Nothing)?;
    }
}

/// Does `operation`, which the kernel may refuse with `EAGAIN` without ever reporting that it has
/// become possible: a connect to a Unix listener whose backlog is full, and a datagram to a Unix
/// socket, not connected to, whose queue is full. So it is tried again after growing pauses.
pub(crate) fn attempt_patiently<R>(
    timeout: Option<Duration>,
    mut operation: impl FnMut() -> io::Result<R>,
) -> io::Result<R> {
    let mut deadline = None;
    let mut pause = PAUSES.0;
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let now = Instant::now();
                if let Some(timeout) = timeout {
                    let deadline = *deadline.get_or_insert_with(|| now.checked_add(timeout));
                    if deadline.is_some_and(|deadline| deadline <= now) {
                        return Err(error);
                    }
                    let left = deadline.map_or(pause, |deadline| deadline - now);
                    pause = pause.min(left);
                }
                let reason = Reason::Named("room in a Unix socket's queue");
                // Under `panic = "abort"` a kill comes back as a wake-up. A thread that is
                // panicking must not switch and sleeps itself.
                if std::thread::panicking() {
                    std::thread::sleep(pause);
                } else if let wake @ (Wake::Killed | Wake::Expired) =
                    hub().wait(reason, now.checked_add(pause))
                {
                    return Err(interrupted(wake));
                }
                pause = (pause * 2).min(PAUSES.1);
            }
            result => return result,
        }
    }
}

/// How long one call may still wait. The clock is not looked at before the first wait.
struct Patience {
    /// How long the whole call may wait.
    timeout: Option<Duration>,
    /// When that ends. None before the first wait.
    deadline: Option<Instant>,
}

impl Patience {
    /// Waits for an edge of `fd`.
    #[inline]
    fn wait(&mut self, hub: &Hub, fd: RawFd, direction: Direction, seen: Seen) -> io::Result<()> {
        match self.timeout {
            None => wait_for_ever(hub, fd, direction, seen),
            Some(timeout) => self.wait_for(timeout, hub, fd, direction, seen),
        }
    }

    /// Waits for an edge of `fd` until the time is up.
    #[inline(never)]
    fn wait_for(
        &mut self,
        timeout: Duration,
        hub: &Hub,
        fd: RawFd,
        direction: Direction,
        seen: Seen,
    ) -> io::Result<()> {
        if self.deadline.is_none() {
            self.deadline = after(timeout);
        }
        if wait(hub, fd, direction, Trust::Owned, seen, self.deadline)? {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }
}

/// Waits for an edge of `fd` however long it takes: nearly every wait there is, so it has a function
/// of its own that knows of no deadline.
#[inline(never)]
fn wait_for_ever(hub: &Hub, fd: RawFd, direction: Direction, seen: Seen) -> io::Result<()> {
    wait(hub, fd, direction, Trust::Owned, seen, None).map(|_| ())
}

/// Lets the others run, because this greenlet has done many operations without waiting. Before
/// the operation and not after it, so that a kill or a timeout loses no data.
#[cold]
fn give_others_a_turn(hub: &Hub) -> io::Result<()> {
    if hub.yield_now() {
        let me = hub.current();
        return Err(interrupted(hub.unwind(hub.interruption(&me))));
    }
    Ok(())
}

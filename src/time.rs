//! Sleeping, and bounding the time of what blocks.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use crate::hub::interrupt::Interrupt;
use crate::hub::reason::Reason;
use crate::hub::{self, hub};

/// Suspends the greenlet for at least `duration`, while others run. A zero duration lets every
/// greenlet that is ready run first, as [`yield_now`](crate::yield_now) does.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// let greenlets: Vec<_> =
///     (0..10).map(|_| greenling::spawn(|| greenling::sleep(Duration::from_millis(50)))).collect();
/// greenling::joinall(&greenlets);
/// assert!(start.elapsed() < Duration::from_millis(500)); // Together, not one after another.
/// ```
///
/// # Cancellation
///
/// A kill point.
pub fn sleep(duration: Duration) {
    if duration.is_zero() {
        return crate::yield_now();
    }
    if hub::has_ended() {
        // A destructor of a thread-local: nobody is left who could run meanwhile.
        return std::thread::sleep(duration);
    }
    hub().wait(Reason::Sleep, Some(at(duration)));
}

/// Calls `f`, and gives up on it once `duration` has passed: its next blocking call, or the one it
/// is in, ends.
///
/// A call of greenling's own ends by unwinding, so that destructors run. A call of the standard
/// library that was [patched](crate::monkey) fails with `ETIMEDOUT`, and every later one does, so
/// that `f` comes to its end however it wraps the error. What does not block can't be ended. gevent's
/// `with_timeout`; where several are nested, each one's expiry is its own.
///
/// # Errors
///
/// [`TimedOut`] if the expiry ended a call of `f`, whatever `f` then made of it.
///
/// # Examples
///
/// ```
/// use greenling::{sleep, with_timeout};
/// use std::time::Duration;
///
/// assert_eq!(with_timeout(Duration::from_secs(1), || 7), Ok(7));
/// assert!(with_timeout(Duration::from_millis(5), || sleep(Duration::from_secs(9))).is_err());
/// ```
///
/// # Cancellation
///
/// A kill goes through `f` and this call.
pub fn with_timeout<T>(duration: Duration, f: impl FnOnce() -> T) -> Result<T, TimedOut> {
    let Some(deadline) = after(duration) else { return Ok(f()) };
    let number = hub().open_timeout(deadline);
    let result = catch_unwind(AssertUnwindSafe(f));
    let delivered = hub().close_timeout(number);
    match result {
        Ok(_) if delivered => Err(TimedOut(())),
        Ok(value) => Ok(value),
        Err(payload) if payload.downcast_ref() == Some(&Interrupt::Expired(number)) => {
            Err(TimedOut(()))
        }
        Err(payload) => resume_unwind(payload),
    }
}

/// The time of a [`with_timeout`] was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut(());

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out")
    }
}

impl std::error::Error for TimedOut {}

impl From<TimedOut> for std::io::Error {
    fn from(_: TimedOut) -> std::io::Error {
        std::io::ErrorKind::TimedOut.into()
    }
}

/// The point in time that lies `duration` ahead, or a century if no clock will show it.
pub(crate) fn at(duration: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    after(duration).unwrap_or_else(|| Instant::now() + CENTURY)
}

/// The point in time that lies `duration` ahead; None, never, if no clock will show it.
pub(crate) fn after(duration: Duration) -> Option<Instant> {
    Instant::now().checked_add(duration)
}

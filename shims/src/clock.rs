//! A moment on one of the system's clocks, for calls that wait until it: sleeps and futex waits.
//!
//! The runtime's deadlines are [`Instant`]s, so CLOCK_MONOTONIC. Every other clock can be stepped
//! (or, CLOCK_BOOTTIME, runs on while the machine sleeps), so a moment on one is not an instant.
//! It is therefore waited for in slices: [`Moment::slice`] converts afresh before each, and a
//! step is noticed one slice late at worst, where the kernel would have noticed at once.

use std::time::{Duration, Instant};

use libc::{clockid_t, timespec};

/// How long one slice lasts at most on CLOCK_MONOTONIC, which never steps: long enough to be no
/// tick, short enough that adding it to an `Instant` can't overflow.
const STEADY_SLICE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long one slice lasts at most on a clock that can be stepped.
const STEPPED_SLICE: Duration = Duration::from_secs(30);

/// A moment on a clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// One of the clocks that [`Moment::on`] accepts.
    clock: clockid_t,
    /// Since the clock's zero. Saturated: a moment that can't be named is never reached.
    at: Duration,
}

impl Moment {
    /// `at` on `clock`; `None` if greenlets can't wait on that clock (the CPU-time clocks, which
    /// stand still meanwhile, the alarms, which wake the machine, and what the kernel refuses).
    pub(crate) fn on(clock: clockid_t, at: Duration) -> Option<Moment> {
        can_wait_on(clock).then_some(Moment { clock, at })
    }

    /// `after` from now, on the clock that never steps. This is right for a relative sleep on any
    /// clock but CLOCK_BOOTTIME: a step of CLOCK_REALTIME does not change its length.
    pub(crate) fn after(clock: clockid_t, after: Duration) -> Option<Moment> {
        let steady = match clock {
            libc::CLOCK_REALTIME | libc::CLOCK_TAI => libc::CLOCK_MONOTONIC,
            other => other,
        };
        can_wait_on(steady).then(|| Moment { clock: steady, at: now(steady).saturating_add(after) })
    }

    /// How long to wait before asking again, or `None` when the moment has come.
    pub(crate) fn slice(&self) -> Option<Instant> {
        let left = self.at.checked_sub(now(self.clock)).filter(|left| !left.is_zero())?;
        let longest =
            if self.clock == libc::CLOCK_MONOTONIC { STEADY_SLICE } else { STEPPED_SLICE };
        Some(Instant::now() + left.min(longest))
    }
}

/// The time that `spec` holds, or `None` where the kernel answers `EINVAL`.
pub(crate) fn duration(spec: timespec) -> Option<Duration> {
    let seconds = u64::try_from(spec.tv_sec).ok()?;
    let nanoseconds = u32::try_from(spec.tv_nsec).ok().filter(|&n| n < 1_000_000_000)?;
    Some(Duration::new(seconds, nanoseconds))
}

fn can_wait_on(clock: clockid_t) -> bool {
    matches!(
        clock,
        libc::CLOCK_MONOTONIC | libc::CLOCK_REALTIME | libc::CLOCK_BOOTTIME | libc::CLOCK_TAI
    )
}

/// What `clock`, which [`can_wait_on`] accepts, shows. A time before its zero counts as zero.
fn now(clock: clockid_t) -> Duration {
    let mut spec = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `spec` is writable, and the four clocks always exist, so the call can't fail.
    unsafe { libc::clock_gettime(clock, &mut spec) };
    duration(spec).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_in_the_past_has_come() {
        let moment = Moment::on(libc::CLOCK_REALTIME, Duration::from_secs(1)).unwrap();
        assert_eq!(moment.slice(), None);
        assert_eq!(Moment::after(libc::CLOCK_MONOTONIC, Duration::ZERO).unwrap().slice(), None);
    }

    #[test]
    fn a_moment_that_cannot_be_named_never_comes() {
        for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME, libc::CLOCK_BOOTTIME] {
            let moment = Moment::after(clock, Duration::MAX).unwrap();
            assert!(moment.slice().unwrap() > Instant::now());
            assert!(Moment::on(clock, Duration::MAX).unwrap().slice().is_some());
        }
    }

    #[test]
    fn a_steppable_clock_is_asked_again_soon() {
        let hour = Duration::from_secs(3600);
        let at = now(libc::CLOCK_REALTIME) + hour;
        let slice = Moment::on(libc::CLOCK_REALTIME, at).unwrap().slice().unwrap();
        assert!(slice <= Instant::now() + STEPPED_SLICE);
        // A relative sleep does not follow the steps, so it needs no slices.
        let slice = Moment::after(libc::CLOCK_REALTIME, hour).unwrap().slice().unwrap();
        assert!(slice > Instant::now() + STEPPED_SLICE);
    }

    #[test]
    fn times_are_judged_as_the_kernel_judges_them() {
        let spec = |tv_sec, tv_nsec| duration(timespec { tv_sec, tv_nsec });
        assert_eq!(spec(-1, 0), None);
        assert_eq!(spec(0, -1), None);
        assert_eq!(spec(0, 1_000_000_000), None);
        assert_eq!(spec(2, 999_999_999), Some(Duration::new(2, 999_999_999)));
        assert_eq!(spec(i64::MAX, 0), Some(Duration::new(i64::MAX as u64, 0)));
    }

    #[test]
    fn odd_clocks_are_left_to_the_kernel() {
        for clock in [libc::CLOCK_PROCESS_CPUTIME_ID, libc::CLOCK_REALTIME_ALARM, 999, -1] {
            assert!(Moment::after(clock, Duration::ZERO).is_none());
            assert!(Moment::on(clock, Duration::ZERO).is_none());
        }
    }
}

//! The sleeping shims, beside the kernel's answers.

mod threads;

use std::ptr::{null, null_mut};
use std::thread;
use std::time::{Duration, Instant};

use greenling_shims::runtime::Wake;
use libc::{c_int, clockid_t, timespec};
use threads::{Counts, counts, green, patch, script};

unsafe extern "C" {
    fn thrd_sleep(request: *const timespec, remain: *mut timespec) -> c_int;
}

const SHORT: Duration = Duration::from_millis(100);

/// A function that sleeps, and its name.
type Sleeper = (&'static str, Box<dyn Fn() -> c_int>);

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn set_errno(value: c_int) {
    // SAFETY: errno's location is the thread's own.
    unsafe { *libc::__errno_location() = value };
}

fn spec(duration: Duration) -> timespec {
    timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}

fn now(clock: clockid_t) -> Duration {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn clock_nanosleep(clock: clockid_t, flags: c_int, request: timespec) -> c_int {
    // SAFETY: `request` is a local, and nobody wants a remainder.
    unsafe { libc::clock_nanosleep(clock, flags, &request, null_mut()) }
}

fn only_sleeps(sleeps: u32) -> Counts {
    Counts { sleeps, ..Counts::NONE }
}

#[test]
fn std_sleep_ends_in_the_shim() {
    patch();
    let started = Instant::now();
    let counts = green(|| {
        thread::sleep(SHORT);
        counts()
    });
    assert_eq!(counts, only_sleeps(1));
    assert!(started.elapsed() >= SHORT);
}

#[test]
fn a_thread_that_is_no_greenlet_sleeps_in_the_kernel() {
    patch();
    let started = Instant::now();
    thread::sleep(SHORT);
    assert_eq!(counts(), Counts::NONE);
    assert!(started.elapsed() >= SHORT);
}

#[test]
fn every_sleeping_function_parks_for_its_time_and_keeps_errno() {
    patch();
    green(|| {
        let short = spec(SHORT);
        // SAFETY: `short` is a valid time, and nobody wants a remainder.
        let functions: [Sleeper; 7] = unsafe {
            [
                ("nanosleep", Box::new(move || libc::nanosleep(&short, null_mut()))),
                ("thrd_sleep", Box::new(move || thrd_sleep(&short, null_mut()))),
                ("usleep", Box::new(|| libc::usleep(SHORT.as_micros() as u32))),
                ("realtime", Box::new(move || clock_nanosleep(libc::CLOCK_REALTIME, 0, short))),
                ("boottime", Box::new(move || clock_nanosleep(libc::CLOCK_BOOTTIME, 0, short))),
                ("tai", Box::new(move || clock_nanosleep(libc::CLOCK_TAI, 0, short))),
                (
                    "absolute",
                    Box::new(|| {
                        let at = spec(now(libc::CLOCK_REALTIME) + SHORT);
                        clock_nanosleep(libc::CLOCK_REALTIME, libc::TIMER_ABSTIME, at)
                    }),
                ),
            ]
        };
        for (name, function) in functions {
            let (before, started) = (counts(), Instant::now());
            set_errno(libc::EXDEV);
            assert_eq!(function(), 0, "{name}");
            assert_eq!(errno(), libc::EXDEV, "{name}");
            assert!(counts().sleeps > before.sleeps, "{name}");
            assert!(started.elapsed() >= SHORT, "{name}");
        }
    });
}

#[test]
fn sleep_and_a_usleep_of_more_than_a_second_are_whole() {
    patch();
    green(|| {
        let started = Instant::now();
        // SAFETY: no pointers.
        unsafe {
            assert_eq!(libc::sleep(1), 0);
            assert_eq!(libc::usleep(1_000_001), 0);
        }
        assert!(started.elapsed() >= Duration::from_secs(2));
        assert!(counts().sleeps >= 2);
    });
}

#[test]
fn a_sleep_with_nothing_to_wait_for_yields() {
    patch();
    green(|| {
        // SAFETY: no pointers.
        unsafe {
            assert_eq!(libc::usleep(0), 0);
            assert_eq!(libc::sleep(0), 0);
            assert_eq!(libc::sched_yield(), 0);
        }
        let past = spec(Duration::from_secs(1));
        assert_eq!(clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, past), 0);
        assert_eq!(counts(), Counts { yields: 4, ..Counts::NONE });
    });
}

#[test]
fn a_killed_or_expired_sleep_says_that_it_slept() {
    patch();
    green(|| {
        for wake in [Wake::Killed, Wake::Expired] {
            let mut remain = timespec { tv_sec: 77, tv_nsec: 77 };
            let request = spec(Duration::from_secs(3600));
            script(wake);
            // SAFETY: both are locals.
            let answer =
                unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &request, &mut remain) };
            assert_eq!((answer, remain.tv_sec, remain.tv_nsec), (0, 77, 77));
            script(wake);
            // SAFETY: no pointers.
            assert_eq!(unsafe { libc::sleep(3600) }, 0);
            // std's loop takes it for the whole time.
            script(wake);
            thread::sleep(Duration::from_secs(3600));
        }
        assert_eq!(counts(), only_sleeps(6));
    });
}

#[test]
fn an_early_wake_and_a_huge_time_sleep_on() {
    patch();
    green(|| {
        let started = Instant::now();
        // The runtime says too early that the time has come.
        script(Wake::TimedOut);
        assert_eq!(clock_nanosleep(libc::CLOCK_MONOTONIC, 0, spec(SHORT)), 0);
        assert_eq!(counts(), only_sleeps(2));
        assert!(started.elapsed() >= SHORT);
        // Kills end what would not end otherwise; no time is too long to be slept.
        script(Wake::Killed);
        let request = timespec { tv_sec: i64::MAX, tv_nsec: 999_999_999 };
        assert_eq!(clock_nanosleep(libc::CLOCK_MONOTONIC, 0, request), 0);
        script(Wake::Killed);
        assert_eq!(clock_nanosleep(libc::CLOCK_REALTIME, libc::TIMER_ABSTIME, request), 0);
    });
}

#[test]
fn bad_arguments_get_the_answer_of_the_kernel() {
    patch();
    let answers = || {
        let mut answers = Vec::new();
        let good = spec(Duration::ZERO);
        for flags in [0, libc::TIMER_ABSTIME] {
            for clock in [-1, 99, libc::CLOCK_MONOTONIC_RAW, libc::CLOCK_MONOTONIC_COARSE] {
                answers.push(clock_nanosleep(clock, flags, good));
            }
            answers.push(clock_nanosleep(libc::CLOCK_THREAD_CPUTIME_ID, flags, good));
            for (tv_sec, tv_nsec) in [(-1, 0), (0, -1), (0, 1_000_000_000), (0, i64::MIN)] {
                let bad = timespec { tv_sec, tv_nsec };
                answers.push(clock_nanosleep(libc::CLOCK_MONOTONIC, flags, bad));
                // SAFETY: `bad` is a local.
                unsafe {
                    set_errno(0);
                    answers.extend([libc::nanosleep(&bad, null_mut()), errno()]);
                    set_errno(0);
                    answers.extend([thrd_sleep(&bad, null_mut()), errno()]);
                }
            }
        }
        // SAFETY: the kernel checks the pointer.
        unsafe {
            answers.push(libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, null(), null_mut()));
            set_errno(0);
            answers.extend([libc::nanosleep(null(), null_mut()), errno()]);
        }
        (answers, counts())
    };
    // The thread that runs this test is no greenlet.
    let (kernel, _) = answers();
    assert!(kernel.contains(&libc::EINVAL) && kernel.contains(&libc::EFAULT));
    assert_eq!(green(answers), (kernel, Counts::NONE));
}

#[test]
fn request_and_remainder_may_be_the_same() {
    patch();
    green(|| {
        let mut time = spec(SHORT);
        let time = &raw mut time;
        // SAFETY: `time` points to the local above.
        let answer = unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, time, time) };
        assert_eq!((answer, counts()), (0, only_sleeps(1)));
    });
}

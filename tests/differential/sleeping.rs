//! Sleeping: what the calls answer.

use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use libc::{CLOCK_MONOTONIC, CLOCK_REALTIME, TIMER_ABSTIME, timespec};

use crate::common::sys;
use crate::world::{Transcript, World, told};

/// nanosleep(2) without a remainder.
fn nanosleep(tv_sec: i64, tv_nsec: i64) -> std::io::Result<usize> {
    let time = timespec { tv_sec, tv_nsec };
    // SAFETY: the time is readable, and null asks for no remainder.
    sys::cvt(unsafe { libc::nanosleep(&time, null_mut()) } as isize)
}

/// clock_nanosleep(2): the answer is the error.
fn clock_nanosleep(clock: i32, flags: i32, tv_sec: i64, tv_nsec: i64) -> i32 {
    let time = timespec { tv_sec, tv_nsec };
    // SAFETY: as above.
    unsafe { libc::clock_nanosleep(clock, flags, &time, null_mut()) }
}

/// Times and clocks that are none.
pub(crate) fn sleep_errors(_: World, log: &mut Transcript) {
    log.io("too many nanoseconds", nanosleep(0, 1_000_000_000));
    log.io("negative nanoseconds", nanosleep(0, -1));
    log.io("negative seconds", nanosleep(-1, 0));
    log.note("too many", clock_nanosleep(CLOCK_MONOTONIC, 0, 0, 1_000_000_000));
    log.note("negative", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, -1, 0));
    for clock in [99, -1, 12345, libc::CLOCK_THREAD_CPUTIME_ID, libc::CLOCK_MONOTONIC_RAW] {
        log.note("clock", clock_nanosleep(clock, 0, 0, 1));
    }
    log.note("coarse", clock_nanosleep(libc::CLOCK_MONOTONIC_COARSE, 0, 0, 1));
    // SAFETY: the kernel refuses the pointer.
    unsafe {
        log.io("null", sys::cvt(libc::nanosleep(null(), null_mut()) as isize));
        log.note("null", libc::clock_nanosleep(CLOCK_MONOTONIC, 0, null(), null_mut()));
    }
}

/// Moments that have passed, and no time at all.
pub(crate) fn sleeps_in_the_past(_: World, log: &mut Transcript) {
    log.io("nothing", nanosleep(0, 0));
    log.note("nothing", clock_nanosleep(CLOCK_MONOTONIC, 0, 0, 0));
    log.note("the beginning", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, 0, 0));
    log.note("1970", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, 0, 1));
    // SAFETY: no pointers.
    unsafe {
        log.note("usleep", libc::usleep(0));
        log.note("sleep", libc::sleep(0));
        log.note("sched_yield", libc::sched_yield());
    }
    std::thread::sleep(Duration::ZERO);
    std::thread::yield_now();
}

/// Sleeps that end in time: never early, and the remainder is left alone.
pub(crate) fn sleeps_return(world: World, log: &mut Transcript) {
    let start = Instant::now();
    std::thread::sleep(Duration::from_millis(5));
    log.note("not early", start.elapsed() >= Duration::from_millis(5));
    let time = timespec { tv_sec: 0, tv_nsec: 2_000_000 };
    let mut rest = timespec { tv_sec: 77, tv_nsec: 88 };
    // SAFETY: both are locals.
    log.io("nanosleep", sys::cvt(unsafe { libc::nanosleep(&time, &mut rest) } as isize));
    log.note("rest", (rest.tv_sec, rest.tv_nsec));
    // SAFETY: the two may be the same.
    let aliased = unsafe {
        let time = &raw mut rest;
        (*time).tv_sec = 0;
        (*time).tv_nsec = 1_000;
        libc::clock_nanosleep(CLOCK_MONOTONIC, 0, time, time)
    };
    log.note("aliased", aliased);
    // SAFETY: no pointers.
    log.note("usleep", unsafe { libc::usleep(1_500) });
    // SAFETY: errno is the thread's.
    unsafe { *libc::__errno_location() = 4242 };
    log.note("clock_nanosleep", clock_nanosleep(CLOCK_MONOTONIC, 0, 0, 1_000_000));
    log.note("errno stays", std::io::Error::last_os_error().raw_os_error());
    let mut order: Vec<_> = [30, 10, 20]
        .map(|millis| {
            world.spawn(move || {
                std::thread::sleep(Duration::from_millis(millis));
                (told(Ok(millis)), Instant::now())
            })
        })
        .into_iter()
        .map(|task| task.join())
        .collect();
    order.sort_unstable_by_key(|(_, end)| *end);
    log.note("count", order.len());
}

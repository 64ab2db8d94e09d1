//! Sleeping: clock_nanosleep, nanosleep, usleep, sleep, thrd_sleep, and sched_yield.
//!
//! Each is a shim of its own, since glibc's own calls among them don't pass through its symbols.
//! Whatever is odd about the arguments (a clock greenlets can't wait on, a time out of range, a
//! null pointer) is left to the kernel, which then answers at once, or blocks the thread where
//! the clock is one of a process's CPU time or an alarm.
//!
//! Two promises that differ from a thread's sleep:
//! - A killed or timed-out sleep returns early and says that it slept to the end. std asserts
//!   that a failed sleep failed with `EINTR`, and sleeps on. The kill stays pending, so the next
//!   blocking call that can fail does.
//! - A sleep that has nothing to wait for (zero, or a moment in the past) lets the other
//!   greenlets run, as gevent's `sleep(0)` does: a loop that paces itself and has fallen behind
//!   would hold the hub otherwise.
//!
//! A signal does not end a greenlet's sleep, so `rem` is never written.

use std::time::Duration;

use libc::{c_int, c_long, c_uint, clockid_t, timespec, useconds_t};

use crate::clock::{self, Moment};
use crate::gate::{self, Category};
use crate::runtime::{Runtime, Wake};
use crate::{errno, real};

/// POSIX `clock_nanosleep`: the error is the return value, and errno is left alone.
///
/// # Safety
///
/// As POSIX says: `request` points to a time, `remain` is null or writable; they may be equal.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    request: *const timespec,
    remain: *mut timespec,
) -> c_int {
    if false {
        // SAFETY: never runs; it makes a wrong signature a compile error.
        return unsafe { libc::clock_nanosleep(clock, flags, request, remain) };
    }
    if let Ok(runtime) = gate::enter(Category::Time)
        && !request.is_null()
        // SAFETY: not null, so readable by the caller's promise. It is read before anything is
        // written, so that `remain` may be the same pointer.
        && let Some(moment) = moment(clock, flags, unsafe { request.read_unaligned() })
    {
        errno::kept(|| sleep_until(runtime, moment));
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe { real_clock_nanosleep(clock, flags, request, remain) }
}

/// POSIX `nanosleep`.
///
/// # Safety
///
/// As [`clock_nanosleep`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nanosleep(
    request: *const timespec,
    remain: *mut timespec,
) -> c_int {
    if false {
        // SAFETY: never runs; it makes a wrong signature a compile error.
        return unsafe { libc::nanosleep(request, remain) };
    }
    // SAFETY: the caller's promise. The clock is the one that glibc's nanosleep names.
    match unsafe { clock_nanosleep(libc::CLOCK_REALTIME, 0, request, remain) } {
        0 => 0,
        error => {
            errno::set(error);
            -1
        }
    }
}

/// BSD `usleep`. As in glibc, `microseconds` may be a million and more.
///
/// # Safety
///
/// Always safe to call.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn usleep(microseconds: useconds_t) -> c_int {
    if false {
        // SAFETY: never runs; it makes a wrong signature a compile error.
        return unsafe { libc::usleep(microseconds) };
    }
    let request = spec(Duration::from_micros(microseconds.into()));
    // SAFETY: `request` is a valid time, and null asks for no remainder.
    unsafe { nanosleep(&request, std::ptr::null_mut()) }
}

/// POSIX `sleep`: the answer is the number of seconds that were not slept.
///
/// # Safety
///
/// Always safe to call.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sleep(seconds: c_uint) -> c_uint {
    if false {
        // SAFETY: never runs; it makes a wrong signature a compile error.
        return unsafe { libc::sleep(seconds) };
    }
    let mut time = spec(Duration::from_secs(seconds.into()));
    let time = &raw mut time;
    // SAFETY: `time` is valid for both, and the two may be the same.
    match unsafe { nanosleep(time, time) } {
        0 => 0,
        // Only a signal gets here, and then the kernel has stored what was left.
        // SAFETY: `time` points to the local above.
        _ => unsafe { (*time).tv_sec as c_uint },
    }
}

/// C11 `thrd_sleep`: 0 after the whole time, -1 after a signal, -2 for a bad argument. errno is
/// left alone.
///
/// # Safety
///
/// As [`clock_nanosleep`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn thrd_sleep(
    request: *const timespec,
    remain: *mut timespec,
) -> c_int {
    // The libc crate does not declare this one: there is no signature to check.
    // SAFETY: the caller's promise. The clock is the one that glibc's thrd_sleep names.
    match unsafe { clock_nanosleep(libc::CLOCK_REALTIME, 0, request, remain) } {
        0 => 0,
        libc::EINTR => -1,
        _ => -2,
    }
}

/// POSIX `sched_yield`. It belongs to the locks rather than to the sleeps: who calls it spins
/// until somebody else gets on, and here that somebody is a greenlet.
///
/// # Safety
///
/// Always safe to call.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sched_yield() -> c_int {
    if false {
        // SAFETY: never runs; it makes a wrong signature a compile error.
        return unsafe { libc::sched_yield() };
    }
    if let Ok(runtime) = gate::enter(Category::Thread) {
        errno::kept(|| runtime.yield_now());
        return 0;
    }
    // SAFETY: the call has no arguments.
    errno::answer_int(unsafe { real::syscall(libc::SYS_sched_yield, [0; 6]) })
}

/// What a sleep waits for, or `None` if the kernel must judge the arguments.
fn moment(clock: clockid_t, flags: c_int, request: timespec) -> Option<Moment> {
    let request = clock::duration(request)?;
    // The kernel ignores every other flag.
    if flags & libc::TIMER_ABSTIME != 0 {
        Moment::on(clock, request)
    } else {
        Moment::after(clock, request)
    }
}

/// Parks until `moment`, or until a kill or a timeout.
fn sleep_until(runtime: &dyn Runtime, moment: Moment) {
    let Some(mut slice) = moment.slice() else {
        return runtime.yield_now();
    };
    while !matches!(runtime.sleep_until(slice), Wake::Killed | Wake::Expired)
        && let Some(next) = moment.slice()
    {
        slice = next;
    }
}

fn spec(duration: Duration) -> timespec {
    // A u32 of seconds, the most that is asked for here, fits.
    timespec {
        tv_sec: duration.as_secs() as libc::time_t,
        tv_nsec: duration.subsec_nanos() as c_long,
    }
}

/// The kernel's clock_nanosleep, with the one thing that glibc adds.
///
/// # Safety
///
/// As [`clock_nanosleep`].
unsafe fn real_clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    request: *const timespec,
    remain: *mut timespec,
) -> c_int {
    if clock == libc::CLOCK_THREAD_CPUTIME_ID {
        // The clock stands still while its thread sleeps: POSIX wants this refused, and the
        // kernel would say EOPNOTSUPP.
        return libc::EINVAL;
    }
    let arguments = [clock as usize, flags as usize, request as usize, remain as usize, 0, 0];
    // SAFETY: the caller's promise; the kernel checks the pointers.
    match unsafe { real::syscall(libc::SYS_clock_nanosleep, arguments) } {
        Ok(_) => 0,
        Err(error) => error.0,
    }
}

//! Futex wakes from signal handlers. In a process of its own: a handler that interrupts the holder of
//! a shard's lock has it wake everyone of the shard, and that may be another test's waiter.

mod threads;

use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libc::c_int;
use threads::{WAIT, WAKE, futex, patch, spawn};

static HANDLED: AtomicI32 = AtomicI32::new(0);
static IN_HANDLER: AtomicU32 = AtomicU32::new(0);

extern "C" fn wake_in_handler(_: c_int) {
    futex(&IN_HANDLER, WAKE, 1, null(), 0);
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn a_signal_handler_may_wake_at_any_moment() {
    patch();
    // SAFETY: the handler is async-signal-safe, as this test shows.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = wake_in_handler as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGUSR1, &action, null_mut());
    }
    static DONE: AtomicBool = AtomicBool::new(false);
    static TARGET: AtomicU32 = AtomicU32::new(0);
    let (_, waiter) = spawn(|| {
        // SAFETY: gettid has no arguments.
        TARGET.store(unsafe { libc::syscall(libc::SYS_gettid) } as u32, Ordering::Release);
        while !DONE.load(Ordering::Relaxed) {
            // Takes the lock, finds the value changed and releases it.
            futex(&IN_HANDLER, WAIT, 1, null(), 0);
        }
    });
    // Thousands of signals if the machine has time for them, one if it has not.
    let started = Instant::now();
    while match HANDLED.load(Ordering::Relaxed) {
        0 => true,
        handled => handled < 2000 && started.elapsed() < Duration::from_secs(1),
    } {
        let target = TARGET.load(Ordering::Acquire);
        if target != 0 {
            // SAFETY: the waiter's thread runs until it is told to stop.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), target, libc::SIGUSR1) };
        }
        thread::yield_now();
    }
    DONE.store(true, Ordering::Relaxed);
    waiter.join().unwrap();
}

//! std's locks, held across sleeps.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, Once, OnceLock, RwLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::sys;
use crate::world::{Transcript, World, told};

/// A moment.
const SHORT: Duration = Duration::from_millis(1);

/// Read, sleep, write: the lock makes it one step.
pub(crate) fn mutex_across_sleeps(world: World, log: &mut Transcript) {
    let count = Arc::new(Mutex::new(0));
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let count = Arc::clone(&count);
            world.spawn(move || {
                for _ in 0..3 {
                    let mut count = count.lock().unwrap();
                    let seen = *count;
                    sleep(SHORT);
                    *count = seen + 1;
                }
            })
        })
        .collect();
    tasks.into_iter().for_each(|task| task.join());
    log.note("count", *count.lock().unwrap());
    let held = count.lock().unwrap();
    log.note("taken", count.try_lock().is_err());
    drop(held);
    log.note("free", count.try_lock().is_ok());
}

/// A bounded queue made of a lock and two conditions.
pub(crate) fn condvar_queue(world: World, log: &mut Transcript) {
    let shared = Arc::new((Mutex::new(VecDeque::new()), Condvar::new(), Condvar::new()));
    let producers: Vec<_> = (0..3)
        .map(|producer| {
            let shared = Arc::clone(&shared);
            world.spawn(move || {
                let (queue, not_full, not_empty) = &*shared;
                for item in 0..20 {
                    let mut queue = not_full
                        .wait_while(queue.lock().unwrap(), |queue| queue.len() == 4)
                        .unwrap();
                    queue.push_back(producer * 100 + item);
                    not_empty.notify_one();
                }
            })
        })
        .collect();
    let consumers: Vec<_> = (0..2)
        .map(|_| {
            let shared = Arc::clone(&shared);
            world.spawn(move || {
                let (queue, not_full, not_empty) = &*shared;
                (0..30)
                    .map(|_| {
                        let queue = queue.lock().unwrap();
                        let mut queue =
                            not_empty.wait_while(queue, |queue| queue.is_empty()).unwrap();
                        not_full.notify_all();
                        queue.pop_front().unwrap()
                    })
                    .collect::<Vec<u32>>()
            })
        })
        .collect();
    producers.into_iter().for_each(|task| task.join());
    let mut all: Vec<u32> = consumers.into_iter().flat_map(|task| task.join()).collect();
    all.sort_unstable();
    log.note("all", all);
}

/// wait_timeout in time and too late.
pub(crate) fn condvar_timeouts(world: World, log: &mut Transcript) {
    let shared = Arc::new((Mutex::new(false), Condvar::new()));
    let (flag, changed) = &*shared;
    let start = Instant::now();
    let wait = |time| {
        let (flag, result) =
            changed.wait_timeout_while(flag.lock().unwrap(), time, |flag| !*flag).unwrap();
        (*flag, result.timed_out())
    };
    log.note("too late", wait(10 * SHORT));
    log.note("not early", start.elapsed() >= 10 * SHORT);
    let other = Arc::clone(&shared);
    let setter = world.spawn(move || {
        sleep(3 * SHORT);
        *other.0.lock().unwrap() = true;
        other.1.notify_all();
    });
    log.note("in time", wait(Duration::from_secs(50)));
    log.note("at once", wait(Duration::ZERO));
    setter.join();
}

/// Readers together, writers alone.
pub(crate) fn rwlock_across_sleeps(world: World, log: &mut Transcript) {
    let lock = Arc::new(RwLock::new([0u32; 2]));
    let inside = Arc::new(AtomicU32::new(0));
    let together = Arc::new(Barrier::new(4));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (lock, inside, together) =
                (Arc::clone(&lock), Arc::clone(&inside), Arc::clone(&together));
            world.spawn(move || {
                let pair = lock.read().unwrap();
                inside.fetch_add(1, Ordering::SeqCst);
                together.wait();
                sleep(SHORT);
                pair[0] == pair[1]
            })
        })
        .collect();
    let whole: Vec<bool> = readers.into_iter().map(|task| task.join()).collect();
    log.note("readers", (whole, inside.load(Ordering::SeqCst)));
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let lock = Arc::clone(&lock);
            world.spawn(move || {
                if task % 2 == 0 {
                    let mut pair = lock.write().unwrap();
                    pair[0] += 1;
                    sleep(SHORT);
                    pair[1] += 1;
                    true
                } else {
                    let pair = lock.read().unwrap();
                    let first = pair[0];
                    sleep(SHORT);
                    first == pair[1]
                }
            })
        })
        .collect();
    let whole: Vec<bool> = tasks.into_iter().map(|task| task.join()).collect();
    log.note("whole", whole);
    log.note("end", *lock.read().unwrap());
}

/// One runs it, all wait for it.
pub(crate) fn once_across_sleeps(world: World, log: &mut Transcript) {
    let shared = Arc::new((Once::new(), OnceLock::new(), AtomicU32::new(0)));
    let tasks: Vec<_> = (0..6)
        .map(|task| {
            let shared = Arc::clone(&shared);
            world.spawn(move || {
                let (once, cell, count) = &*shared;
                once.call_once(|| {
                    sleep(3 * SHORT);
                    count.fetch_add(1, Ordering::SeqCst);
                });
                let seen = count.load(Ordering::SeqCst);
                let value = *cell.get_or_init(|| {
                    sleep(3 * SHORT);
                    count.fetch_add(10, Ordering::SeqCst);
                    7
                });
                let _ = task;
                (seen % 10, value)
            })
        })
        .collect();
    let seen: Vec<_> = tasks.into_iter().map(|task| task.join()).collect();
    log.note("seen", seen);
    log.note("count", shared.2.load(Ordering::SeqCst));
}

/// All meet, one leads, again and again.
pub(crate) fn barrier(world: World, log: &mut Transcript) {
    let barrier = Arc::new(Barrier::new(5));
    let tasks: Vec<_> = (0..5)
        .map(|task| {
            let barrier = Arc::clone(&barrier);
            world.spawn(move || {
                let mut led = 0;
                for round in 0..4 {
                    if (task + round) % 3 == 0 {
                        sleep(SHORT);
                    }
                    led += u32::from(barrier.wait().is_leader());
                }
                led
            })
        })
        .collect();
    let led: u32 = tasks.into_iter().map(|task| task.join()).sum();
    log.note("leaders", led);
}

/// A panic poisons what it holds, and nothing else.
pub(crate) fn poisoning(world: World, log: &mut Transcript) {
    let (one, other) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    let holder = {
        let other = Arc::clone(&other);
        world.spawn(move || {
            let mut other = other.lock().unwrap();
            sleep(3 * SHORT);
            *other += 1;
        })
    };
    let panicking = {
        let one = Arc::clone(&one);
        world.spawn(move || {
            let _one = one.lock().unwrap();
            sleep(SHORT);
            // Without the panic hook: its output means nothing here.
            std::panic::resume_unwind(Box::new("on purpose"));
        })
    };
    log.note("panicked", panicking.outcome().is_none());
    holder.join();
    log.note("poisoned", one.is_poisoned());
    log.note("not poisoned", (other.is_poisoned(), *other.lock().unwrap()));
    log.note("value", one.lock().map_err(|error| *error.into_inner()).map(|value| *value));
}

/// The system call itself.
pub(crate) fn raw_futex(_: World, log: &mut Transcript) {
    let word = AtomicU32::new(5);
    let call =
        |address: usize, operation: i32, value: u32, time: Option<libc::timespec>, bits: u32| {
            let time = time.as_ref().map_or(std::ptr::null(), |time| time as *const libc::timespec);
            // SAFETY: the word and the time are live; bad addresses are the kernel's to refuse.
            let result = unsafe {
                libc::syscall(libc::SYS_futex, address, operation, value, time, 0usize, bits)
            };
            told(sys::cvt(result as isize))
        };
    let address = word.as_ptr().expose_provenance();
    let short = Some(libc::timespec { tv_sec: 0, tv_nsec: 2_000_000 });
    let past = Some(libc::timespec { tv_sec: 0, tv_nsec: 1 });
    let bad = Some(libc::timespec { tv_sec: 0, tv_nsec: -1 });
    for private in [libc::FUTEX_PRIVATE_FLAG, 0] {
        let (wait, wake) = (libc::FUTEX_WAIT | private, libc::FUTEX_WAKE | private);
        let (wait_bits, wake_bits) =
            (libc::FUTEX_WAIT_BITSET | private, libc::FUTEX_WAKE_BITSET | private);
        log.note("another value", call(address, wait, 6, None, 0));
        log.note("another value", call(address, wait_bits, 6, None, !0));
        log.note("too late", call(address, wait, 5, short, 0));
        log.note("past", call(address, wait_bits, 5, past, !0));
        log.note(
            "past, real time",
            call(address, wait_bits | libc::FUTEX_CLOCK_REALTIME, 5, past, !0),
        );
        log.note("bad time", call(address, wait, 5, bad, 0));
        log.note("no bits", call(address, wait_bits, 5, short, 0));
        log.note("unaligned", call(address + 1, wait, 5, short, 0));
        log.note("nowhere", call(0, wait, 5, short, 0));
        log.note("nobody", call(address, wake, 1, None, 0));
        log.note("nobody of all", call(address, wake, i32::MAX as u32, None, 0));
        log.note("nobody of none", call(address, wake, 0, None, 0));
        log.note("nobody with bits", call(address, wake_bits, 1, None, 1));
        log.note("wake without bits", call(address, wake_bits, 1, None, 0));
        log.note("wake unaligned", call(address + 2, wake, 1, None, 0));
        log.note("bad operation", call(address, 99 | private, 1, None, 0));
    }
}

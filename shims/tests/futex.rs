//! Futex waits of greenlets and threads side by side, and std's locks on top.

mod threads;

use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, Once, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use libc::{c_int, c_long, timespec};
use threads::{WAIT, WAKE, counts, futex, green, patch, spawn, wait_until_parked};

const WAIT_BITSET: c_int = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;
const WAKE_BITSET: c_int = libc::FUTEX_WAKE_BITSET | libc::FUTEX_PRIVATE_FLAG;
const SHORT: Duration = Duration::from_millis(20);

/// A futex that lives for ever.
fn new() -> &'static AtomicU32 {
    Box::leak(Box::new(AtomicU32::new(0)))
}

fn wake(address: &AtomicU32, count: u32) -> c_long {
    futex(address, WAKE, count, null(), 0)
}

/// A greenlet that waits on `address`, and is parked by now.
fn waiter(address: &'static AtomicU32, bits: u32) -> thread::JoinHandle<c_long> {
    let (greenlet, thread) = spawn(move || futex(address, WAIT_BITSET, 0, null(), bits));
    wait_until_parked(greenlet);
    thread
}

fn now(clock: c_int) -> Duration {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn spec(time: Duration) -> timespec {
    timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}

#[test]
fn a_value_that_has_changed_is_not_waited_for() {
    patch();
    let address = new();
    let parks = green(move || {
        assert_eq!(futex(address, WAIT, 1, null(), 0), -c_long::from(libc::EAGAIN));
        counts().parks
    });
    assert_eq!(parks, 0);
}

#[test]
fn the_oldest_waiters_are_woken_first_and_no_more_than_asked_for() {
    patch();
    let address = new();
    let waiters = [(); 3].map(|()| waiter(address, !0));
    assert_eq!(wake(address, 2), 2);
    let [first, second, third] = waiters;
    assert_eq!((first.join().unwrap(), second.join().unwrap()), (0, 0));
    assert!(!third.is_finished());
    // None asked for means one, as in the kernel.
    assert_eq!(wake(address, 0), 1);
    assert_eq!(third.join().unwrap(), 0);
    assert_eq!(wake(address, 9), 0);
}

#[test]
fn more_waiters_than_one_batch_are_all_woken() {
    patch();
    let address = new();
    let waiters: Vec<_> = (0..40).map(|_| waiter(address, !0)).collect();
    assert_eq!(wake(address, i32::MAX as u32), 40);
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), 0);
    }
}

#[test]
fn a_wake_count_is_shared_by_greenlets_and_threads() {
    patch();
    let address = new();
    let greenlets = [(); 3].map(|()| waiter(address, !0));
    let threads = [(); 2].map(|()| thread::spawn(move || futex(address, WAIT, 0, null(), 0)));
    let mut woken = wake(address, 2);
    assert_eq!(woken, 2);
    // The threads may not wait yet: nothing tells when they do.
    while woken < 5 {
        woken += wake(address, 9);
        thread::yield_now();
    }
    assert_eq!(woken, 5);
    for waiter in greenlets.into_iter().chain(threads) {
        assert_eq!(waiter.join().unwrap(), 0);
    }
}

#[test]
fn a_bitset_wakes_only_whom_it_names() {
    patch();
    let address = new();
    let (one, two) = (waiter(address, 1), waiter(address, 2));
    assert_eq!(futex(address, WAKE_BITSET, 9, null(), 4), 0);
    assert_eq!(futex(address, WAKE_BITSET, 9, null(), 2), 1);
    assert_eq!(two.join().unwrap(), 0);
    assert!(!one.is_finished());
    assert_eq!(futex(address, WAKE_BITSET, 9, null(), 3), 1);
    assert_eq!(one.join().unwrap(), 0);
}

#[test]
fn a_wait_times_out_on_its_clock() {
    patch();
    let address = new();
    green(move || {
        let timed_out = -c_long::from(libc::ETIMEDOUT);
        let started = Instant::now();
        assert_eq!(futex(address, WAIT, 0, &spec(SHORT), 0), timed_out);
        let at = spec(now(libc::CLOCK_MONOTONIC) + SHORT);
        assert_eq!(futex(address, WAIT_BITSET, 0, &at, !0), timed_out);
        let at = spec(now(libc::CLOCK_REALTIME) + SHORT);
        let real_time = WAIT_BITSET | libc::FUTEX_CLOCK_REALTIME;
        assert_eq!(futex(address, real_time, 0, &at, !0), timed_out);
        assert!(started.elapsed() >= 3 * SHORT);
        // Long past, and now.
        let past = spec(Duration::from_secs(1));
        assert_eq!(futex(address, WAIT_BITSET, 0, &past, !0), timed_out);
        assert_eq!(futex(address, WAIT, 0, &spec(Duration::ZERO), 0), timed_out);
        assert!(counts().parks >= 5);
    });
    // Nobody is left in the table.
    assert_eq!(wake(address, 9), 0);
}

#[test]
fn bad_arguments_get_the_answer_of_the_kernel() {
    patch();
    let address = new();
    let answers = move || {
        let times = [(0, -1), (0, 1_000_000_000), (-1, 0)]
            .map(|(tv_sec, tv_nsec)| timespec { tv_sec, tv_nsec });
        let mut answers = Vec::new();
        let odd = (&raw const *address).wrapping_byte_add(1);
        for operation in [WAIT, WAIT_BITSET] {
            answers.extend(times.iter().map(|time| futex(address, operation, 0, time, !0)));
            answers.push(futex(odd, operation, 0, null(), !0));
            answers.push(futex(null(), operation, 0, null(), !0));
        }
        answers.push(futex(address, WAIT_BITSET, 0, null(), 0));
        answers.push(futex(address, WAIT | libc::FUTEX_CLOCK_REALTIME, 0, &spec(SHORT), 0));
        answers.push(futex(address, WAKE | libc::FUTEX_CLOCK_REALTIME, 1, null(), 0));
        answers.push(futex(address, WAKE_BITSET, 1, null(), 0));
        answers.push(futex(odd, WAKE, 1, null(), 0));
        answers.push(futex(address, 99 | libc::FUTEX_PRIVATE_FLAG, 1, null(), 0));
        (answers, counts().parks)
    };
    // The thread that runs this test is no greenlet.
    let (kernel, _) = answers();
    assert!(kernel.iter().all(|&answer| answer < 0), "{kernel:?}");
    assert_eq!(green(answers), (kernel, 0));
}

#[test]
fn a_requeue_loses_no_green_waiter() {
    patch();
    let (address, other) = (new(), new());
    let waiter = waiter(address, !0);
    let operation = libc::FUTEX_CMP_REQUEUE | libc::FUTEX_PRIVATE_FLAG;
    let number = libc::SYS_futex;
    // SAFETY: both futexes are alive.
    let answer = unsafe { libc::syscall(number, address, operation, 0, 9usize, other, 0) };
    assert_eq!((answer, waiter.join().unwrap()), (0, 0));
}

#[test]
fn other_system_calls_pass_with_all_arguments_and_errno() {
    patch();
    green(|| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let none = null_mut::<u8>();
        // SAFETY: a fresh mapping that is given back.
        unsafe {
            let page = libc::syscall(libc::SYS_mmap, none, 4096, libc::PROT_READ, flags, -1, 0);
            assert!(page > 0);
            assert_eq!(libc::syscall(libc::SYS_munmap, page, 4096), 0);
            assert_eq!(libc::syscall(libc::SYS_close, -1), -1);
        }
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EBADF));
    });
}

#[test]
fn std_locks_work_between_greenlets_and_threads() {
    patch();
    const ROUNDS: u32 = 2000;
    let (mutex, lock) = (Arc::new(Mutex::new(0)), Arc::new(RwLock::new(0)));
    let (once, barrier) = (Arc::new(Once::new()), Arc::new(Barrier::new(8)));
    let started = Arc::new(AtomicU32::new(0));
    let workers: Vec<_> = (0..8)
        .map(|index| {
            let (mutex, lock) = (mutex.clone(), lock.clone());
            let (once, barrier, started) = (once.clone(), barrier.clone(), started.clone());
            let work = move || {
                barrier.wait();
                once.call_once(|| {
                    thread::sleep(SHORT);
                    started.fetch_add(1, Ordering::Relaxed);
                });
                for _ in 0..ROUNDS {
                    *mutex.lock().unwrap() += 1;
                    *lock.write().unwrap() += 1;
                    assert!(*lock.read().unwrap() > 0);
                }
            };
            if index % 2 == 0 { spawn(work).1 } else { thread::spawn(work) }
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!((*mutex.lock().unwrap(), *lock.read().unwrap()), (8 * ROUNDS, 8 * ROUNDS));
    assert_eq!(started.load(Ordering::Relaxed), 1);
}

#[test]
fn std_condvars_and_channels_cross_the_border_both_ways() {
    patch();
    let pair = Arc::new((Mutex::new(0), Condvar::new()));
    let player = |turn: u32| {
        let pair = pair.clone();
        move || {
            let (mutex, changed) = &*pair;
            for _ in 0..500 {
                let mut state =
                    changed.wait_while(mutex.lock().unwrap(), |s| *s % 2 != turn).unwrap();
                *state += 1;
                changed.notify_all();
            }
        }
    };
    let (green, thread) = (spawn(player(0)).1, thread::spawn(player(1)));
    green.join().unwrap();
    thread.join().unwrap();
    assert_eq!(*pair.0.lock().unwrap(), 1000);

    let (sender, receiver) = mpsc::sync_channel(0);
    let sum = spawn(move || receiver.iter().sum::<u32>()).1;
    (0..500).for_each(|number| sender.send(number).unwrap());
    drop(sender);
    assert_eq!(sum.join().unwrap(), 499 * 250);
}

#[test]
fn nobody_waits_in_a_forked_child() {
    patch();
    let address = new();
    let waiter = waiter(address, !0);
    // SAFETY: the child makes system calls only.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let woken = wake(address, 9);
        // SAFETY: no destructors run.
        unsafe { libc::_exit(woken as c_int) };
    }
    let mut status = -1;
    // SAFETY: `status` is writable.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    assert_eq!(wake(address, 9), 1);
    assert_eq!(waiter.join().unwrap(), 0);
}

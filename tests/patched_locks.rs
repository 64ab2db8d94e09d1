//! std's locks between greenlets, and between greenlets and threads in both directions.

mod common;

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, RwLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Random, Watchdog};
use greenling::monkey::patch_all;
use greenling::{Greenlet, joinall, spawn};

/// How long a test may take on a very busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A moment.
const MOMENT: Duration = Duration::from_micros(500);

/// Waits for all of them, none of which may have panicked.
fn get_all<T>(greenlets: Vec<Greenlet<T>>) -> Vec<T> {
    greenlets.into_iter().map(|greenlet| greenlet.get().unwrap()).collect()
}

/// Threads that are joined without holding the hub: the last thing each does is to count itself
/// out, under a lock that the caller waits for as a greenlet.
struct Threads {
    running: Arc<(Mutex<u32>, Condvar)>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Threads {
    fn new() -> Threads {
        Threads { running: Arc::default(), threads: Vec::new() }
    }

    fn spawn(&mut self, f: impl FnOnce() + Send + 'static) {
        *self.running.0.lock().unwrap() += 1;
        let running = Arc::clone(&self.running);
        self.threads.push(std::thread::spawn(move || {
            f();
            *running.0.lock().unwrap() -= 1;
            running.1.notify_all();
        }));
    }

    fn join(self) {
        let (running, ended) = &*self.running;
        drop(ended.wait_while(running.lock().unwrap(), |running| *running > 0).unwrap());
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn a_mutex_is_held_across_sleeps() {
    let _watchdog = Watchdog::new("a_mutex_is_held", LIMIT);
    patch_all();
    let count = Arc::new(Mutex::new(0));
    let inside = Rc::new(Cell::new(0));
    let ticks = Rc::new(Cell::new(0));
    let ticker = {
        let ticks = Rc::clone(&ticks);
        spawn(move || {
            for _ in 0..50 {
                ticks.set(ticks.get() + 1);
                sleep(MOMENT);
            }
        })
    };
    let holders: Vec<_> = (0..100)
        .map(|_| {
            let (count, inside) = (Arc::clone(&count), Rc::clone(&inside));
            spawn(move || {
                let mut count = count.lock().unwrap();
                assert_eq!(inside.replace(1), 0);
                let seen = *count;
                sleep(MOMENT);
                *count = seen + 1;
                assert_eq!(inside.replace(0), 1);
            })
        })
        .collect();
    get_all(holders);
    assert_eq!(*count.lock().unwrap(), 100);
    ticker.get().unwrap();
    assert_eq!(ticks.get(), 50);
}

#[test]
fn a_mutex_is_contended_by_greenlets_and_threads() {
    let _watchdog = Watchdog::new("a_mutex_is_contended", LIMIT);
    patch_all();
    let count = Arc::new(Mutex::new(0u32));
    let mut threads = Threads::new();
    const ROUNDS: u32 = 100;
    let work = |count: Arc<Mutex<u32>>, seed: u64| {
        let mut random = Random::new(seed);
        for _ in 0..ROUNDS {
            let mut count = count.lock().unwrap();
            let seen = *count;
            match random.below(10) {
                0 => sleep(Duration::from_micros(random.below(300))),
                1 => std::thread::yield_now(),
                _ => {}
            }
            *count = seen + 1;
        }
    };
    // Threads without a hub, threads with one, and greenlets of all of these.
    for seed in 0..2 {
        let shared = Arc::clone(&count);
        threads.spawn(move || work(shared, seed));
        let count = Arc::clone(&count);
        threads.spawn(move || {
            patch_all();
            let greenlets: Vec<_> = (0..5)
                .map(|n| {
                    let count = Arc::clone(&count);
                    spawn(move || work(count, 10 * seed + n))
                })
                .collect();
            get_all(greenlets);
        });
    }
    let greenlets: Vec<_> = (0..10)
        .map(|seed| {
            let count = Arc::clone(&count);
            spawn(move || work(count, 100 + seed))
        })
        .collect();
    get_all(greenlets);
    threads.join();
    assert_eq!(*count.lock().unwrap(), (2 + 2 * 5 + 10) * ROUNDS);
}

/// A bounded queue between whoever.
struct Channel {
    items: Mutex<VecDeque<u32>>,
    not_empty: Condvar,
    not_full: Condvar,
}

impl Channel {
    const ROOM: usize = 3;

    fn new() -> Arc<Channel> {
        let items = Mutex::new(VecDeque::new());
        Arc::new(Channel { items, not_empty: Condvar::new(), not_full: Condvar::new() })
    }

    fn send(&self, item: u32) {
        let items = self.items.lock().unwrap();
        let mut items =
            self.not_full.wait_while(items, |items| items.len() == Channel::ROOM).unwrap();
        items.push_back(item);
        self.not_empty.notify_one();
    }

    fn receive(&self) -> u32 {
        let items = self.items.lock().unwrap();
        let mut items = self.not_empty.wait_while(items, |items| items.is_empty()).unwrap();
        self.not_full.notify_one();
        items.pop_front().unwrap()
    }
}

#[test]
fn condvars_connect_greenlets_and_threads() {
    let _watchdog = Watchdog::new("condvars_connect", LIMIT);
    patch_all();
    const ITEMS: u32 = 300;
    // There and back: greenlet to thread, thread to greenlet, greenlet to greenlet.
    let (out, back) = (Channel::new(), Channel::new());
    let mut threads = Threads::new();
    for _ in 0..2 {
        let (out, back) = (Arc::clone(&out), Arc::clone(&back));
        threads.spawn(move || (0..ITEMS).for_each(|_| back.send(out.receive() + 1)));
    }
    let relays: Vec<_> = (0..2)
        .map(|_| {
            let (out, back) = (Arc::clone(&out), Arc::clone(&back));
            spawn(move || (0..ITEMS).for_each(|_| back.send(out.receive() + 1)))
        })
        .collect();
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let out = Arc::clone(&out);
            spawn(move || (0..ITEMS).for_each(|item| out.send(sender * ITEMS + item)))
        })
        .collect();
    let receiver = spawn(move || {
        let mut all: Vec<u32> = (0..4 * ITEMS).map(|_| back.receive()).collect();
        all.sort_unstable();
        all
    });
    assert_eq!(receiver.get().unwrap(), (1..=4 * ITEMS).collect::<Vec<u32>>());
    joinall(&senders);
    joinall(&relays);
    threads.join();
}

#[test]
fn wait_timeout_tells_in_time_from_too_late() {
    let _watchdog = Watchdog::new("wait_timeout", LIMIT);
    patch_all();
    let shared = Arc::new((Mutex::new(0), Condvar::new()));
    // Many short waits that nobody ends, one after another and at the same time.
    let late: Vec<_> = (0..20)
        .map(|n| {
            let shared = Arc::clone(&shared);
            spawn(move || {
                for _ in 0..5 {
                    let start = Instant::now();
                    let time = Duration::from_micros(200 * n);
                    let value = shared.0.lock().unwrap();
                    let (_value, result) =
                        shared.1.wait_timeout_while(value, time, |value| *value == 0).unwrap();
                    assert!(result.timed_out());
                    assert!(start.elapsed() >= time);
                }
            })
        })
        .collect();
    get_all(late);
    let set_by = |threads: bool| {
        let early: Vec<_> = (0..10)
            .map(|_| {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    let value = shared.0.lock().unwrap();
                    let wait = Duration::from_secs(500);
                    let (value, result) =
                        shared.1.wait_timeout_while(value, wait, |value| *value == 0).unwrap();
                    (*value, result.timed_out())
                })
            })
            .collect();
        sleep(MOMENT);
        let other = Arc::clone(&shared);
        let set = move || {
            *other.0.lock().unwrap() = 7;
            other.1.notify_all();
        };
        if threads {
            std::thread::spawn(set).join().unwrap();
        } else {
            spawn(set);
        }
        assert_eq!(get_all(early), [(7, false); 10]);
        *shared.0.lock().unwrap() = 0;
    };
    set_by(false);
    set_by(true);
    // A thread waits, a greenlet ends it.
    let other = Arc::clone(&shared);
    let mut threads = Threads::new();
    threads.spawn(move || {
        let value = other.0.lock().unwrap();
        drop(other.1.wait_while(value, |value| *value == 0).unwrap());
    });
    let other = Arc::clone(&shared);
    spawn(move || {
        sleep(MOMENT);
        *other.0.lock().unwrap() = 1;
        other.1.notify_all();
    });
    threads.join();
}

#[test]
fn readers_share_and_writers_do_not() {
    let _watchdog = Watchdog::new("readers_share", LIMIT);
    patch_all();
    let lock = Arc::new(RwLock::new([0u32; 2]));
    let readers_max = Arc::new(AtomicU32::new(0));
    let readers = Arc::new(AtomicU32::new(0));
    let work = |n: u64,
                lock: Arc<RwLock<[u32; 2]>>,
                readers: Arc<AtomicU32>,
                readers_max: Arc<AtomicU32>| {
        let mut random = Random::new(n);
        for _ in 0..20 {
            let time = Duration::from_micros(random.below(200));
            if random.below(4) == 0 {
                let mut pair = lock.write().unwrap();
                assert_eq!(readers.load(Ordering::SeqCst), 0);
                pair[0] += 1;
                sleep(time);
                pair[1] += 1;
            } else {
                let pair = lock.read().unwrap();
                let now = readers.fetch_add(1, Ordering::SeqCst) + 1;
                readers_max.fetch_max(now, Ordering::SeqCst);
                let first = pair[0];
                sleep(time);
                assert_eq!(first, pair[1]);
                readers.fetch_sub(1, Ordering::SeqCst);
            }
        }
    };
    let mut threads = Threads::new();
    for n in 0..2 {
        let (lock, readers, readers_max) =
            (Arc::clone(&lock), Arc::clone(&readers), Arc::clone(&readers_max));
        threads.spawn(move || work(n, lock, readers, readers_max));
    }
    let greenlets: Vec<_> = (10..30)
        .map(|n| {
            let (lock, readers, readers_max) =
                (Arc::clone(&lock), Arc::clone(&readers), Arc::clone(&readers_max));
            spawn(move || work(n, lock, readers, readers_max))
        })
        .collect();
    get_all(greenlets);
    threads.join();
    assert!(readers_max.load(Ordering::SeqCst) > 1);
    let pair = *lock.read().unwrap();
    assert_eq!(pair[0], pair[1]);
}

#[test]
fn what_is_done_once_is_waited_for_by_all() {
    let _watchdog = Watchdog::new("what_is_done_once", LIMIT);
    patch_all();
    static LAZY: LazyLock<u32> = LazyLock::new(|| {
        sleep(MOMENT * 4);
        RUNS.fetch_add(1, Ordering::SeqCst)
    });
    static RUNS: AtomicU32 = AtomicU32::new(0);
    static CELL: OnceLock<u32> = OnceLock::new();
    static ONCE: Once = Once::new();
    let task = |_| {
        ONCE.call_once(|| {
            sleep(MOMENT * 4);
            RUNS.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(RUNS.load(Ordering::SeqCst) & 1, 1);
        let cell = *CELL.get_or_init(|| {
            sleep(MOMENT * 4);
            RUNS.fetch_add(2, Ordering::SeqCst)
        });
        (cell, *LAZY)
    };
    let mut threads = Threads::new();
    // The threads come late, so that it is a greenlet that they wait for, or the first one.
    let greenlets: Vec<_> = (0..20).map(|n| spawn(move || task(n))).collect();
    greenling::yield_now();
    for n in 0..3 {
        threads.spawn(move || {
            task(n);
        });
    }
    let seen = get_all(greenlets);
    assert!(seen.iter().all(|it| *it == (1, 3)), "{seen:?}");
    threads.join();
    // A run that panics is not one: the next to come runs it again.
    static RETRIED: OnceLock<u32> = OnceLock::new();
    let failing = spawn(|| {
        RETRIED.get_or_init(|| {
            sleep(MOMENT);
            std::panic::resume_unwind(Box::new("on purpose"))
        });
    });
    let next = spawn(|| *RETRIED.get_or_init(|| 5));
    assert!(failing.get().is_err());
    assert_eq!(next.get().unwrap(), 5);
}

#[test]
fn a_barrier_is_for_greenlets_and_threads() {
    let _watchdog = Watchdog::new("a_barrier", LIMIT);
    patch_all();
    const ROUNDS: u32 = 30;
    let barrier = Arc::new(Barrier::new(8));
    let rounds = Arc::new(AtomicU32::new(0));
    let leaders = Arc::new(AtomicU32::new(0));
    let work = {
        let (barrier, rounds, leaders) =
            (Arc::clone(&barrier), Arc::clone(&rounds), Arc::clone(&leaders));
        move || {
            for round in 0..ROUNDS {
                rounds.fetch_add(1, Ordering::SeqCst);
                let leads = barrier.wait().is_leader();
                leaders.fetch_add(u32::from(leads), Ordering::SeqCst);
                // Everyone has come, and nobody can have come to the one after next.
                let seen = rounds.load(Ordering::SeqCst);
                assert!((8 * (round + 1)..=8 * (round + 2)).contains(&seen), "{round}: {seen}");
            }
        }
    };
    let mut threads = Threads::new();
    (0..3).for_each(|_| threads.spawn(work.clone()));
    let greenlets: Vec<_> = (0..5).map(|_| spawn(work.clone())).collect();
    get_all(greenlets);
    threads.join();
    assert_eq!(leaders.load(Ordering::SeqCst), ROUNDS);
}

#[test]
fn the_main_greenlet_waits_for_locks_as_well() {
    let _watchdog = Watchdog::new("the_main_greenlet", LIMIT);
    patch_all();
    let lock = Arc::new(Mutex::new(0));
    let holder = {
        let lock = Arc::clone(&lock);
        spawn(move || {
            let mut value = lock.lock().unwrap();
            sleep(MOMENT * 4);
            *value = 1;
        })
    };
    greenling::yield_now();
    assert!(lock.try_lock().is_err());
    assert_eq!(*lock.lock().unwrap(), 1);
    holder.get().unwrap();
}

/// A thread may end while greenlets of it wait for a lock. They will never take it, so a wake-up
/// must not be spent on them.
#[test]
fn waiters_of_a_thread_that_has_ended_take_no_wake_ups() {
    let _watchdog = Watchdog::new("waiters_of_a_thread", LIMIT);
    let lock = Arc::new(Mutex::new(0));
    let guard = lock.lock().unwrap();
    let ending = {
        let lock = Arc::clone(&lock);
        std::thread::spawn(move || {
            patch_all();
            for _ in 0..20 {
                let lock = Arc::clone(&lock);
                spawn(move || *lock.lock().unwrap() += 1);
            }
            sleep(MOMENT);
        })
    };
    ending.join().unwrap();
    let waiting = {
        let lock = Arc::clone(&lock);
        std::thread::spawn(move || *lock.lock().unwrap())
    };
    sleep(10 * MOMENT);
    drop(guard);
    assert_eq!(waiting.join().unwrap(), 0);
}

/// Likewise if it ends at the moment at which they are woken.
#[test]
fn threads_end_while_their_waiters_are_woken() {
    let _watchdog = Watchdog::new("threads_end_while", LIMIT);
    let lock = Arc::new(Mutex::new(0));
    for round in 0..100 {
        let ending: Vec<_> = (0..2)
            .map(|_| {
                let lock = Arc::clone(&lock);
                std::thread::spawn(move || {
                    patch_all();
                    for _ in 0..3 {
                        let lock = Arc::clone(&lock);
                        spawn(move || *lock.lock().unwrap() += 1);
                    }
                    greenling::yield_now();
                })
            })
            .collect();
        let holding = {
            let lock = Arc::clone(&lock);
            std::thread::spawn(move || {
                for _ in 0..20 {
                    let mut value = lock.lock().unwrap();
                    *value += 1;
                    if round % 2 == 0 {
                        sleep(Duration::from_micros(20));
                    }
                }
            })
        };
        ending.into_iter().for_each(|thread| thread.join().unwrap());
        holding.join().unwrap();
    }
    assert!(*lock.lock().unwrap() >= 100 * 20);
}

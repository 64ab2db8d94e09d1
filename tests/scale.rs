//! Many greenlets, long idleness, short sleeps.

#[path = "common/child.rs"]
mod child;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::{joinall, sleep, spawn, spawn_later, with_timeout, yield_now};

/// Nothing here takes that long.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_hundred_thousand_sleep_and_wake() {
    child::run("many", &[]).succeeded();
}

#[test]
fn a_hundred_thousand_delayed_ones_start() {
    let started = Rc::new(Cell::new(0));
    for n in 0..100_000 {
        let started = started.clone();
        spawn_later(Duration::from_micros(n % 1000), move || started.set(started.get() + 1));
    }
    while started.get() < 100_000 {
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn ten_thousand_are_killed() {
    let alive = Rc::new(());
    let greenlets: Vec<_> = (0..10_000)
        .map(|_| {
            let alive = alive.clone();
            spawn(move || (sleep(LONG), drop(alive)))
        })
        .collect();
    yield_now();
    greenlets.iter().for_each(|greenlet| greenlet.kill_nowait());
    joinall(&greenlets);
    assert_eq!(Rc::strong_count(&alive), 1);
}

#[test]
fn ten_thousand_join_one() {
    let last = spawn(|| sleep(Duration::from_millis(50)));
    let joiners: Vec<_> = (0..10_000)
        .map(|n| {
            let last = last.clone();
            let timeout = if n % 2 == 0 { Duration::from_millis(1) } else { LONG };
            spawn(move || last.join_timeout(timeout))
        })
        .collect();
    joinall(&joiners);
    assert!(joiners.into_iter().skip(1).step_by(2).all(|joiner| joiner.get().unwrap()));
}

#[test]
fn an_idle_hub_uses_no_cpu() {
    let greenlets: Vec<_> = (0..1000)
        .map(|n| {
            spawn(move || match n % 3 {
                0 => sleep(LONG),
                1 => _ = with_timeout(LONG, || sleep(LONG * 2)),
                _ => greenling::getcurrent().join(),
            })
        })
        .collect();
    yield_now();
    let before = cpu_time();
    sleep(Duration::from_millis(300));
    let used = cpu_time() - before;
    assert!(used < Duration::from_millis(50), "{used:?}");
    greenlets.iter().for_each(|greenlet| greenlet.kill_nowait());
    joinall(&greenlets);
}

#[test]
fn short_sleeps_are_not_rounded_up_to_milliseconds() {
    // On a busy machine a round may be late, but not all of them.
    let duration = Duration::from_micros(100);
    let fast = (0..20).any(|_| {
        let start = Instant::now();
        (0..50).for_each(|_| sleep(duration));
        assert!(start.elapsed() >= duration * 50);
        start.elapsed() < Duration::from_millis(40) // Rounded up, it would take 50.
    });
    assert!(fast);
}

#[test]
fn no_sleep_is_too_short() {
    for micros in [1, 10, 100, 900, 1000, 1001, 1999, 2500, 10_000, 20_500] {
        let (start, duration) = (Instant::now(), Duration::from_micros(micros));
        sleep(duration);
        assert!(start.elapsed() >= duration, "{duration:?}");
    }
}

/// The CPU time of the calling thread.
fn cpu_time() -> Duration {
    // SAFETY: an all-zero timespec is a valid value, and the pointer is to a live one.
    unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        assert_eq!(libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time), 0);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

/// The cases for a process of their own.
#[test]
fn child() {
    match child::case().as_deref() {
        Some("many") => {
            const COUNT: usize = 100_000;
            let resident = || {
                let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
                statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
            };
            let awake = Rc::new(Cell::new(0));
            let before = resident();
            let greenlets: Vec<_> = (0..COUNT)
                .map(|n| {
                    let awake = awake.clone();
                    spawn(move || {
                        sleep(Duration::from_millis(100 + (n % 100) as u64));
                        awake.set(awake.get() + 1);
                    })
                })
                .collect();
            yield_now();
            let each = (resident() - before) / COUNT;
            assert!(each < 12 << 10, "{each} bytes each");
            joinall(&greenlets);
            assert_eq!(awake.get(), COUNT);
        }
        Some(other) => panic!("no such case: {other}"),
        None => {}
    }
}

//! In which order greenlets run: the traces that gevent's tests and its users rely on.

#[path = "common/trace.rs"]
mod trace;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use greenling::net::unix::UnixStream;
use greenling::{Greenlet, joinall, sleep, spawn, spawn_later, with_timeout, yield_now};
use trace::Trace;

/// Long enough for deadlines to differ, short enough for a test.
const TICK: Duration = Duration::from_millis(10);

#[test]
fn a_yield_goes_behind_all_that_are_ready() {
    let trace = Trace::default();
    let greenlets = [1, 2].map(|n| {
        let trace = trace.clone();
        spawn(move || {
            trace.note(format!("{n}A"));
            yield_now();
            trace.note(format!("{n}B"));
        })
    });
    joinall(&greenlets);
    assert_eq!(trace.text(), "1A 2A 1B 2B");
}

#[test]
fn a_sleep_of_zero_is_a_yield() {
    let trace = Trace::default();
    let greenlets = [1, 2].map(|n| {
        let trace = trace.clone();
        spawn(move || {
            trace.note(format!("{n}A"));
            sleep(Duration::ZERO);
            trace.note(format!("{n}B"));
        })
    });
    joinall(&greenlets);
    assert_eq!(trace.text(), "1A 2A 1B 2B");
}

#[test]
fn a_child_runs_after_those_that_were_ready_before_it() {
    let trace = Trace::default();
    let a = {
        let trace = trace.clone();
        spawn(move || {
            trace.note("a");
            let noted = trace.clone();
            spawn(move || noted.note("a-child"));
            yield_now();
            trace.note("a2");
        })
    };
    let b = {
        let trace = trace.clone();
        spawn(move || {
            trace.note("b");
            yield_now();
            trace.note("b2");
        })
    };
    joinall(&[a, b]);
    assert_eq!(trace.text(), "a b a-child a2 b2");
}

#[test]
fn spawn_runs_nothing_before_the_spawner_blocks() {
    let trace = Trace::default();
    let greenlet = {
        let trace = trace.clone();
        spawn(move || trace.note("greenlet"))
    };
    trace.note("main");
    greenlet.join();
    assert_eq!(trace.text(), "main greenlet");
}

#[test]
fn a_delay_of_zero_comes_after_what_is_ready() {
    let trace = Trace::default();
    let (later, now) = (trace.clone(), trace.clone());
    let later = spawn_later(Duration::ZERO, move || later.note("later"));
    let now = spawn(move || now.note("now"));
    joinall(&[later, now]);
    assert_eq!(trace.text(), "now later");
}

#[test]
fn joiners_wake_in_the_order_in_which_they_came() {
    let trace = Trace::default();
    let greenlet = spawn(|| sleep(TICK)).clone();
    let joiners: Vec<_> = (0..5)
        .map(|n| {
            let (trace, greenlet) = (trace.clone(), greenlet.clone());
            spawn(move || {
                greenlet.join();
                trace.note(n.to_string());
            })
        })
        .collect();
    joinall(&joiners);
    assert_eq!(trace.text(), "0 1 2 3 4");
}

#[test]
fn what_the_woken_schedule_goes_behind_all_of_them() {
    let trace = Trace::default();
    let event = spawn(yield_now).clone();
    let waiters = [0, 1].map(|n| {
        let (trace, event) = (trace.clone(), event.clone());
        spawn(move || {
            event.join();
            trace.note(format!("w{n}"));
            let noted = trace.clone();
            spawn(move || noted.note(format!("child{n}")));
            yield_now();
            trace.note(format!("w2-{n}"));
        })
    });
    joinall(&waiters);
    assert_eq!(trace.text(), "w0 w1 child0 w2-0 child1 w2-1");
}

#[test]
fn a_woken_greenlet_runs_before_one_that_is_spawned_after() {
    let trace = Trace::default();
    let (woken, spawned) = (trace.clone(), trace.clone());
    let event = spawn_later(Duration::from_secs(60), || ());
    let event_ref = event.clone();
    let waiter = spawn(move || {
        event_ref.join();
        woken.note("woken");
    });
    yield_now();
    event.kill_nowait(); // It never started, so it ends here and now.
    let late = spawn(move || spawned.note("spawned"));
    joinall(&[late, waiter]);
    assert_eq!(trace.text(), "woken spawned");
}

#[test]
fn equal_deadlines_are_first_in_first_out() {
    // The greenlets can't arm equal deadlines, but one clock reading may find them all overdue.
    let trace = Trace::default();
    let greenlets: Vec<_> = (0..20)
        .map(|n| {
            let trace = trace.clone();
            spawn(move || {
                sleep(TICK);
                trace.note(n.to_string());
            })
        })
        .collect();
    yield_now();
    std::thread::sleep(TICK * 3);
    joinall(&greenlets);
    let expected: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(trace.text(), expected.join(" "));
}

/// Arms timers of `TICK` times 3, 1, 4 and 2, each of which notes its number, and sees to it that
/// the machine was not so busy meanwhile that their order is another one.
fn armed(arm: impl Fn(u32, Trace) -> Greenlet<()>) -> (Vec<Greenlet<()>>, Trace) {
    loop {
        let (start, trace) = (Instant::now(), Trace::default());
        let greenlets: Vec<_> = [3, 1, 4, 2].into_iter().map(|n| arm(n, trace.clone())).collect();
        yield_now();
        if start.elapsed() < TICK {
            return (greenlets, trace);
        }
        greenlets.iter().for_each(|greenlet| greenlet.kill());
    }
}

#[test]
fn distinct_deadlines_fire_in_their_order() {
    let (greenlets, trace) = armed(|n, trace| {
        spawn(move || {
            sleep(TICK * n);
            trace.note(n.to_string());
        })
    });
    joinall(&greenlets);
    assert_eq!(trace.text(), "1 2 3 4");
}

#[test]
fn overdue_deadlines_still_fire_in_their_order() {
    let (greenlets, trace) =
        armed(|n, trace| spawn_later(TICK * n, move || trace.note(n.to_string())));
    std::thread::sleep(TICK * 5);
    joinall(&greenlets);
    assert_eq!(trace.text(), "1 2 3 4");
}

#[test]
fn a_timeout_that_was_armed_before_an_equal_sleep_fires_first() {
    for block in [false, true] {
        let greenlet = spawn(|| with_timeout(TICK, || sleep(TICK)));
        yield_now();
        if block {
            // Now both are overdue when the hub looks at the clock.
            std::thread::sleep(TICK * 2);
        }
        assert!(greenlet.get().unwrap().is_err());
    }
}

#[test]
fn data_wins_over_an_overdue_timeout() {
    let (mut reader, mut writer) = UnixStream::pair().unwrap();
    let greenlet = spawn(move || {
        let mut byte = [0];
        with_timeout(TICK, || reader.read(&mut byte).unwrap()).map(|count| (count, byte[0]))
    });
    yield_now();
    writer.write_all(&[7]).unwrap();
    std::thread::sleep(TICK * 2);
    assert_eq!(greenlet.get().unwrap(), Ok((1, 7)));
}

#[test]
fn a_greenlet_that_only_yields_does_not_starve_the_timers() {
    let spinner = spawn(|| {
        loop {
            yield_now();
        }
    });
    let start = Instant::now();
    sleep(TICK);
    assert!(with_timeout(TICK, || sleep(Duration::from_secs(60))).is_err());
    let (later, timed) =
        (spawn_later(TICK, || 1), spawn(|| with_timeout(TICK, || sleep(TICK * 999))));
    assert_eq!(later.get().unwrap(), 1);
    assert!(timed.get().unwrap().is_err());
    assert!(start.elapsed() < Duration::from_secs(10));
    spinner.kill();
}

#[test]
fn yielding_in_a_timeout_ends() {
    assert!(
        with_timeout(TICK, || loop {
            yield_now()
        })
        .is_err()
    );
    let inner = spawn(|| {
        with_timeout(TICK, || {
            loop {
                yield_now()
            }
        })
    });
    assert!(inner.get().unwrap().is_err());
}

#[test]
fn the_main_greenlet_takes_its_turn_like_any_other() {
    let trace = Trace::default();
    let a = {
        let trace = trace.clone();
        spawn(move || {
            trace.note("a");
            let noted = trace.clone();
            let b = spawn(move || noted.note("b"));
            yield_now();
            trace.note("a2");
            b.join();
        })
    };
    trace.note("main");
    yield_now();
    trace.note("main2");
    yield_now();
    trace.note("main3");
    a.join();
    assert_eq!(trace.text(), "main a main2 b a2 main3");
}

#[test]
fn the_order_holds_across_the_hubs_turns() {
    // More than the hub runs between two looks at the clock.
    let trace = Trace::default();
    let greenlets: Vec<_> = (0..300)
        .map(|n| {
            let trace = trace.clone();
            spawn(move || {
                trace.note(n.to_string());
                yield_now();
                trace.note(n.to_string());
            })
        })
        .collect();
    let sleeper = spawn(|| sleep(Duration::from_micros(1)));
    joinall(&greenlets);
    sleeper.join();
    let once = (0..300).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
    assert_eq!(trace.text(), format!("{once} {once}"));
}

#[test]
fn joinall_waits_for_all_whatever_the_order_of_their_ends() {
    let trace = Trace::default();
    let greenlets = [3, 1, 2].map(|n| {
        let trace = trace.clone();
        spawn(move || {
            (0..n).for_each(|_| yield_now());
            trace.note(n.to_string());
        })
    });
    joinall(&greenlets);
    trace.note("joined");
    joinall(&greenlets); // Those that have ended are no wait.
    joinall::<()>(&[]);
    assert_eq!(trace.text(), "1 2 3 joined");
}

#[test]
fn kills_are_delivered_in_the_order_of_the_kills() {
    let trace = Trace::default();
    let greenlets: Vec<_> = (0..4)
        .map(|n| {
            let trace = trace.clone();
            spawn(move || {
                let _noted = trace.on_drop(n.to_string());
                sleep(Duration::from_secs(60));
            })
        })
        .collect();
    yield_now();
    for n in [2, 0, 3, 1] {
        greenlets[n].kill_nowait();
    }
    assert_eq!(trace.text(), "");
    joinall(&greenlets);
    assert_eq!(trace.text(), "2 0 3 1");
}

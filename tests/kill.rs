//! Killing: where it strikes, what is unwound, and who notices.

#[path = "common/child.rs"]
mod child;
#[path = "common/trace.rs"]
mod trace;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use greenling::{
    Greenlet, GreenletError, GreenletRef, getcurrent, joinall, sleep, spawn, spawn_later,
    with_timeout, yield_now,
};
use trace::Trace;

/// Nothing here takes that long.
const LONG: Duration = Duration::from_secs(60);

/// Whether a greenlet's result is that of a killed one.
fn was_killed<T>(greenlet: Greenlet<T>) -> bool {
    matches!(greenlet.get(), Err(GreenletError::Killed))
}

/// Kills a greenlet that is inside `call`, and sees to it that it unwinds from there.
#[track_caller]
fn unwinds(call: impl FnOnce() + 'static) {
    let trace = Trace::default();
    let greenlet = {
        let trace = trace.clone();
        spawn(move || {
            let _first = trace.on_drop("first");
            let _second = trace.on_drop("second");
            let noted = trace.clone();
            let _inside = trace.on_drop("third");
            noted.note("called");
            call();
            noted.note("returned");
        })
    };
    yield_now();
    assert_eq!(trace.text(), "called");
    greenlet.kill();
    assert_eq!(trace.text(), "called third second first");
    assert!(greenlet.is_finished() && was_killed(greenlet));
}

#[test]
fn every_blocking_call_is_a_kill_point() {
    let sleeper = spawn(|| sleep(LONG));
    let another = sleeper.clone();
    unwinds(|| sleep(LONG));
    unwinds(|| sleep(Duration::MAX));
    unwinds(|| {
        loop {
            yield_now()
        }
    });
    unwinds(|| {
        loop {
            sleep(Duration::ZERO)
        }
    });
    unwinds(move || another.join());
    let another = sleeper.clone();
    unwinds(move || _ = another.join_timeout(LONG));
    let another = sleeper.clone();
    unwinds(move || {
        with_timeout(LONG, || another.join()).unwrap();
    });
    unwinds(|| _ = spawn(|| sleep(LONG)).get());
    unwinds(|| joinall(&[spawn(|| ()), spawn(|| sleep(LONG))]));
    unwinds(|| _ = with_timeout(LONG, || with_timeout(LONG, || sleep(LONG))));
    unwinds(|| getcurrent().join());
    assert!(!sleeper.is_finished());
    sleeper.kill();
}

#[test]
fn the_kill_of_a_killer_leaves_the_victim_dying() {
    let trace = Trace::default();
    // It is killed while it waits for the death of one that takes its time.
    let stubborn = {
        let trace = trace.clone();
        spawn(move || {
            let _ = catch_unwind(|| sleep(LONG));
            (0..10).for_each(|_| _ = catch_unwind(yield_now));
            trace.note("stubborn");
        })
    };
    let victim = stubborn.clone();
    unwinds(move || victim.kill());
    stubborn.join();
    assert_eq!(trace.text(), "stubborn");
}

#[test]
fn an_unstarted_greenlet_never_runs_and_drops_its_function() {
    for delay in [None, Some(Duration::ZERO), Some(LONG)] {
        let trace = Trace::default();
        let captured = trace.on_drop("dropped");
        let f = move || captured;
        let greenlet = match delay {
            None => spawn(f),
            Some(delay) => spawn_later(delay, f),
        };
        let joiner = {
            let (greenlet, trace) = (greenlet.clone(), trace.clone());
            spawn(move || {
                greenlet.join();
                trace.note("joined");
            })
        };
        if delay != Some(Duration::ZERO) && delay.is_some() {
            yield_now();
        }
        greenlet.kill_nowait();
        assert!(greenlet.is_finished());
        assert_eq!(trace.text(), "dropped");
        joiner.join();
        assert_eq!(trace.text(), "dropped joined");
        assert!(was_killed(greenlet));
        (0..3).for_each(|_| yield_now());
        sleep(Duration::from_millis(1));
        assert_eq!(trace.text(), "dropped joined");
    }
}

#[test]
fn a_delayed_greenlet_that_was_killed_keeps_nothing_waiting() {
    // With its timer gone, nothing is left to wait for: the join is a deadlock at once.
    let deadlock = std::thread::spawn(|| {
        spawn_later(LONG, || ()).kill();
        getcurrent().join();
    });
    assert!(deadlock.join().is_err());
}

#[test]
fn a_panic_in_the_drop_of_an_unstarted_function_goes_to_the_killer() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("bomb");
        }
    }
    let bomb = Bomb;
    let greenlet = spawn_later(LONG, move || bomb);
    let joiner = {
        let greenlet = greenlet.clone();
        spawn(move || greenlet.join())
    };
    yield_now();
    let killed = catch_unwind(AssertUnwindSafe(|| greenlet.kill()));
    assert_eq!(killed.unwrap_err().downcast_ref(), Some(&"bomb"));
    assert!(greenlet.is_finished());
    joiner.get().unwrap();
}

#[test]
fn the_second_kill_of_one_changes_nothing() {
    let trace = Trace::default();
    let greenlet = {
        let trace = trace.clone();
        spawn(move || {
            let _noted = trace.on_drop("dropped");
            sleep(LONG);
        })
    };
    yield_now();
    greenlet.kill_nowait();
    greenlet.kill_nowait();
    greenlet.kill();
    greenlet.kill();
    greenlet.kill_nowait();
    assert_eq!(trace.text(), "dropped");
    assert!(was_killed(greenlet));
}

#[test]
fn a_finished_greenlet_keeps_its_result() {
    let greenlet = spawn(|| 7);
    greenlet.join();
    greenlet.kill();
    assert_eq!(greenlet.get().unwrap(), 7);
}

#[test]
fn killing_oneself_unwinds_at_once() {
    let trace = Trace::default();
    let noted = trace.clone();
    let greenlet = spawn(move || {
        let _noted = noted.on_drop("dropped");
        getcurrent().kill();
        noted.note("unreachable");
    });
    assert!(was_killed(greenlet));
    assert_eq!(trace.text(), "dropped");
}

#[test]
fn killing_oneself_without_waiting_strikes_at_the_next_blocking_call() {
    let trace = Trace::default();
    let noted = trace.clone();
    let greenlet = spawn(move || {
        getcurrent().kill_nowait();
        noted.note("goes on");
        sleep(Duration::from_millis(1));
        noted.note("unreachable");
    });
    assert!(was_killed(greenlet));
    assert_eq!(trace.text(), "goes on");
    // One that never blocks again is not struck.
    let greenlet = spawn(|| {
        getcurrent().kill_nowait();
        7
    });
    assert_eq!(greenlet.get().unwrap(), 7);
}

#[test]
fn a_greenlet_that_is_ready_is_killed_at_its_next_kill_point() {
    let trace = Trace::default();
    let noted = trace.clone();
    let greenlet = spawn(move || {
        let _noted = noted.on_drop("dropped");
        yield_now();
        noted.note("unreachable");
    });
    yield_now();
    greenlet.kill_nowait(); // It is in the run queue already.
    assert!(was_killed(greenlet));
    assert_eq!(trace.text(), "dropped");
}

#[test]
fn what_has_already_happened_is_not_lost_to_a_kill() {
    // Both happen in one pass: the join's end is there before the kill.
    let trace = Trace::default();
    let event = spawn_later(LONG, || ());
    let joiner = {
        let (trace, event) = (trace.clone(), event.clone());
        spawn(move || {
            event.join();
            trace.note("joined");
            yield_now();
            trace.note("unreachable");
        })
    };
    yield_now();
    event.kill_nowait();
    joiner.kill_nowait();
    assert!(was_killed(joiner));
    assert_eq!(trace.text(), "joined");
}

#[test]
fn who_catches_the_unwinding_is_killed_again() {
    let caught = Rc::new(Cell::new(0));
    let greenlet = {
        let caught = caught.clone();
        spawn(move || {
            for call in [|| sleep(LONG), yield_now, || spawn(|| sleep(LONG)).join()] {
                assert!(catch_unwind(call).is_err());
                caught.set(caught.get() + 1);
            }
            sleep(LONG);
        })
    };
    yield_now();
    greenlet.kill();
    assert_eq!(caught.get(), 3);
    assert!(was_killed(greenlet));
}

#[test]
fn who_catches_the_unwinding_may_return_a_value() {
    let greenlet = spawn(|| catch_unwind(|| sleep(LONG)).is_err());
    yield_now();
    greenlet.kill();
    assert!(greenlet.get().unwrap());
}

#[test]
fn who_ignores_the_kill_for_ever_does_not_starve_the_others() {
    let stop = Rc::new(Cell::new(false));
    let stubborn = {
        let stop = stop.clone();
        spawn(move || {
            while !stop.get() {
                let _ = catch_unwind(|| sleep(LONG));
            }
        })
    };
    yield_now();
    assert!(with_timeout(Duration::from_millis(2), || stubborn.kill()).is_err());
    assert!(!stubborn.is_finished());
    stop.set(true);
    stubborn.join();
    stubborn.get().unwrap();
}

#[test]
fn a_destructor_may_sleep_while_it_unwinds() {
    struct Sleeps(Trace);
    impl Drop for Sleeps {
        fn drop(&mut self) {
            self.0.note("slept from");
            sleep(Duration::from_millis(2));
            yield_now();
            self.0.note("to");
        }
    }
    let trace = Trace::default();
    let (sleeps, noted) = (Sleeps(trace.clone()), trace.clone());
    let greenlet = spawn(move || {
        let _sleeps = sleeps;
        sleep(LONG);
    });
    yield_now();
    let other = spawn(move || {
        yield_now();
        noted.note("other"); // It would run in between if the destructor let it.
    });
    greenlet.kill_nowait();
    joinall(&[greenlet, other]);
    assert_eq!(trace.text(), "slept from to other");
}

#[test]
fn a_destructor_may_spawn_while_it_unwinds() {
    struct Spawns(Rc<RefCell<Option<Greenlet<u32>>>>);
    impl Drop for Spawns {
        fn drop(&mut self) {
            *self.0.borrow_mut() = Some(spawn(|| 7));
        }
    }
    let slot = Rc::default();
    let spawns = Spawns(Rc::clone(&slot));
    let greenlet = spawn(move || {
        let _spawns = spawns;
        sleep(LONG);
    });
    yield_now();
    greenlet.kill();
    assert_eq!(slot.take().unwrap().get().unwrap(), 7);
}

#[test]
fn a_destructor_may_kill_while_it_unwinds() {
    struct KillsOnDrop<T>(Greenlet<T>);
    impl<T> Drop for KillsOnDrop<T> {
        fn drop(&mut self) {
            self.0.kill();
        }
    }
    let trace = Trace::default();
    let noted = trace.clone();
    let inner = spawn(move || {
        let _noted = noted.on_drop("inner");
        sleep(LONG);
    });
    let inner_ref = inner.clone();
    let noted = trace.clone();
    let outer = spawn(move || {
        let _unstarted = KillsOnDrop(spawn_later(LONG, || unreachable!("killed before")));
        let _inner = KillsOnDrop(inner);
        let _noted = noted.on_drop("outer");
        with_timeout(LONG, || sleep(LONG))
    });
    sleep(Duration::from_millis(1));
    outer.kill();
    inner_ref.join();
    assert_eq!(trace.text(), "outer inner");
    // Its own greenlet, which dies already.
    let selfish = spawn(|| {
        struct KillsItself;
        impl Drop for KillsItself {
            fn drop(&mut self) {
                getcurrent().kill();
            }
        }
        let _killer = KillsItself;
        sleep(LONG);
    });
    yield_now();
    selfish.kill();
    assert!(was_killed(selfish));
    // Without an unwinding it waits.
    let sleeper = spawn(|| sleep(LONG));
    yield_now();
    let handle = sleeper.clone();
    drop(KillsOnDrop(sleeper));
    assert!(handle.is_finished());
}

#[test]
fn two_that_kill_each_other_both_die() {
    let (first, second) = (Rc::new(RefCell::new(None::<GreenletRef>)), Rc::default());
    let kills = |other: &Rc<RefCell<Option<GreenletRef>>>| {
        let other = other.clone();
        spawn(move || {
            let victim = other.borrow().clone().unwrap();
            victim.kill();
        })
    };
    let (a, b) = (kills(&first), kills(&second));
    *first.borrow_mut() = Some(b.clone());
    *second.borrow_mut() = Some(a.clone());
    joinall(&[a, b]);
    first.take();
    second.take();
}

#[test]
fn a_victim_that_kills_back_takes_its_killer_along() {
    struct KillsBack(GreenletRef);
    impl Drop for KillsBack {
        fn drop(&mut self) {
            self.0.kill_nowait();
        }
    }
    let killer_slot = Rc::new(RefCell::new(None::<GreenletRef>));
    let victim = {
        let slot = killer_slot.clone();
        spawn(move || {
            yield_now();
            let _back = KillsBack(slot.borrow().clone().unwrap());
            sleep(LONG);
        })
    };
    let killer = {
        let victim = victim.clone();
        spawn(move || {
            sleep(Duration::from_millis(1));
            victim.kill();
        })
    };
    *killer_slot.borrow_mut() = Some(killer.clone());
    victim.join();
    assert!(was_killed(killer) && was_killed(victim));
    killer_slot.take();
}

#[test]
fn joiners_of_a_killed_greenlet_wake() {
    let greenlet = spawn(|| sleep(LONG));
    let joiners: Vec<_> = (0..10)
        .map(|_| {
            let greenlet = greenlet.clone();
            spawn(move || greenlet.join())
        })
        .collect();
    yield_now();
    greenlet.kill_nowait();
    joiners.into_iter().for_each(|joiner| joiner.get().unwrap());
    // Joiners that were killed themselves are not waited for.
    let greenlet = spawn(|| sleep(LONG));
    let handle = greenlet.clone();
    let joiner = spawn(move || handle.join());
    yield_now();
    joiner.kill();
    greenlet.kill();
}

#[test]
fn a_kill_wins_over_a_timeout() {
    for timeout_first in [true, false] {
        let greenlet = spawn(|| {
            let outcome = with_timeout(Duration::from_millis(1), || sleep(LONG));
            unreachable!("the kill goes through with_timeout: {outcome:?}");
        });
        yield_now();
        if timeout_first {
            // Overdue, but not delivered when the kill comes.
            std::thread::sleep(Duration::from_millis(3));
        }
        greenlet.kill();
        assert!(was_killed(greenlet));
    }
}

#[test]
fn a_kill_during_an_expired_timeout_strikes_after_it() {
    let noted = Trace::default();
    let trace = noted.clone();
    let greenlet = spawn(move || {
        let outcome = with_timeout(Duration::from_millis(1), || {
            let expired = catch_unwind(|| sleep(LONG)).unwrap_err();
            getcurrent().kill_nowait();
            std::panic::resume_unwind(expired);
        });
        trace.note(format!("{outcome:?}"));
        yield_now();
        trace.note("unreachable");
    });
    assert!(was_killed(greenlet));
    assert_eq!(noted.text(), "Err(TimedOut(()))");
}

#[test]
fn the_main_greenlet_cannot_be_killed() {
    for kill in [GreenletRef::kill, GreenletRef::kill_nowait] {
        let main = getcurrent();
        let from_main = catch_unwind(AssertUnwindSafe(|| kill(&main))).unwrap_err();
        assert_eq!(from_main.downcast_ref(), Some(&"the main greenlet can't be killed"));
        let from_greenlet = spawn(move || kill(&main)).get().unwrap_err().into_panic().unwrap();
        assert_eq!(from_greenlet.downcast_ref(), Some(&"the main greenlet can't be killed"));
    }
    sleep(Duration::from_millis(1));
}

#[test]
fn a_panic_in_a_destructor_while_a_kill_unwinds_aborts_as_in_threads() {
    child::run("panic-in-drop", &[]).aborted().said(&["bomb", "panic in a destructor"]);
    child::run("caught-in-drop", &[]).succeeded();
}

#[test]
fn a_join_in_a_destructor_while_unwinding_says_why_it_cannot() {
    let said = "a greenlet that is panicking waits for greenlet";
    child::run("join-in-drop", &[]).aborted().said(&[said, "panic in a destructor"]);
}

#[test]
fn a_thousand_are_killed_at_once() {
    let alive = Rc::new(());
    let greenlets: Vec<_> = (0..1000)
        .map(|_| {
            let alive = alive.clone();
            spawn(move || {
                let _alive = alive;
                sleep(LONG);
            })
        })
        .collect();
    yield_now();
    assert_eq!(Rc::strong_count(&alive), 1001);
    greenlets.iter().for_each(|greenlet| greenlet.kill_nowait());
    joinall(&greenlets);
    assert_eq!(Rc::strong_count(&alive), 1);
}

/// Calls a function when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The cases for a process of their own.
#[test]
fn child() {
    let dies = |on_drop: fn()| {
        let greenlet = spawn(move || {
            let _guard = OnDrop(on_drop);
            sleep(LONG);
        });
        yield_now();
        greenlet.kill();
        assert!(was_killed(greenlet));
    };
    match child::case().as_deref() {
        Some("panic-in-drop") => dies(|| panic!("bomb")),
        Some("caught-in-drop") => dies(|| assert!(catch_unwind(|| panic!("bomb")).is_err())),
        Some("join-in-drop") => dies(|| spawn(|| ()).join()),
        Some(other) => panic!("no such case: {other}"),
        None => {}
    }
}

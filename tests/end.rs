//! The end of a thread's hub: its greenlets are unwound, and handles that outlive it make sense.

#[path = "common/child.rs"]
mod child;

use std::cell::RefCell;
use std::panic::catch_unwind;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use greenling::net::unix::UnixStream;
use greenling::{
    Greenlet, GreenletRef, getcurrent, sleep, spawn, spawn_later, with_timeout, yield_now,
};

/// Nothing here takes that long.
const LONG: Duration = Duration::from_secs(60);

/// Sends its text when it is dropped.
struct SendOnDrop(Sender<&'static str>, &'static str);

impl Drop for SendOnDrop {
    fn drop(&mut self) {
        self.0.send(self.1).unwrap();
    }
}

/// Calls a function when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// What a thread that runs `f` sends until it and its hub have ended.
fn thread(
    f: impl FnOnce(&dyn Fn(&'static str) -> SendOnDrop) + Send + 'static,
) -> Vec<&'static str> {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || f(&|text| SendOnDrop(sender.clone(), text)));
    thread.join().unwrap();
    receiver.into_iter().collect()
}

#[test]
fn greenlets_are_unwound_wherever_they_are() {
    let sent = thread(|guard| {
        let sleeping = guard("sleeping");
        spawn(move || (sleep(LONG), drop(sleeping)));
        let yielding = guard("yielding");
        spawn(move || (yield_now(), yield_now(), drop(yielding)));
        let joining = guard("joining");
        let stuck = spawn(|| getcurrent().join());
        spawn(move || (stuck.join(), drop(joining)));
        let timed = guard("timed");
        spawn(move || (with_timeout(LONG, || sleep(LONG)), drop(timed)));
        let reading = guard("reading");
        spawn(move || {
            let (stream, _peer) = UnixStream::pair().unwrap();
            let _ = std::io::Read::read(&mut &stream, &mut [0]);
            drop(reading);
        });
        yield_now();
        let unstarted = guard("unstarted");
        spawn(move || drop(unstarted));
        let delayed = guard("delayed");
        spawn_later(LONG, move || drop(delayed));
    });
    let mut sorted = sent.clone();
    sorted.sort_unstable();
    let all = ["delayed", "joining", "reading", "sleeping", "timed", "unstarted", "yielding"];
    assert_eq!(sorted, all, "{sent:?}");
}

#[test]
fn greenlets_that_were_killed_just_before_are_unwound() {
    let sent = thread(|guard| {
        let parked = guard("parked");
        let parked = spawn(move || (sleep(LONG), drop(parked)));
        yield_now();
        parked.kill_nowait();
    });
    assert_eq!(sent, ["parked"]);
}

#[test]
fn locals_are_dropped_innermost_first() {
    let sent = thread(|guard| {
        let (first, second, third) = (guard("first"), guard("second"), guard("third"));
        spawn(move || {
            let _first = first;
            with_timeout(LONG, move || {
                let _second = second;
                let _third = third;
                sleep(LONG);
            })
        });
        yield_now();
    });
    assert_eq!(sent, ["third", "second", "first"]);
}

#[test]
fn a_destructor_at_the_end_may_sleep_spawn_and_kill() {
    let sent = thread(|guard| {
        let (slept, spawned) = (guard("slept"), RefCell::new(Some(guard("spawned"))));
        let victim = spawn(|| sleep(LONG));
        spawn(move || {
            let _slept = slept;
            let _busy = OnDrop(move || {
                sleep(Duration::from_millis(1));
                let spawned = spawned.take();
                spawn::<_, ()>(move || {
                    let _spawned = &spawned;
                    std::process::abort() // It is killed before it runs.
                });
                victim.kill();
            });
            sleep(LONG);
        });
        yield_now();
    });
    assert_eq!(sent, ["slept", "spawned"]);
}

#[test]
fn dropping_an_unstarted_function_at_the_end_may_block() {
    let sent = thread(|guard| {
        let dropped = guard("dropped");
        let busy = OnDrop(move || {
            let _ = &dropped;
            sleep(Duration::from_millis(1));
            assert_eq!(getcurrent().name(), "main");
            assert_eq!(spawn(|| 7).get().unwrap(), 7);
            spawn_later(LONG, || ());
        });
        spawn(move || drop(busy));
    });
    assert_eq!(sent, ["dropped"]);
}

#[test]
fn greenlets_that_spawn_their_successors_come_to_an_end() {
    fn successor(sender: Sender<&'static str>) {
        let busy = OnDrop(move || {
            sender.send("dropped").unwrap();
            successor(sender.clone());
        });
        spawn(move || drop(busy));
    }
    let (sender, receiver) = channel();
    std::thread::spawn(move || successor(sender)).join().unwrap();
    assert!((1..100).contains(&receiver.try_iter().count()));
}

#[test]
fn a_greenlet_may_finish_its_work_at_the_end() {
    // It has caught the kill; a few turns are granted.
    let sent = thread(|guard| {
        let finished = guard("finished");
        spawn(move || {
            let _ = catch_unwind(|| sleep(LONG));
            (0..5).for_each(|_| _ = catch_unwind(yield_now));
            drop(finished);
        });
        yield_now();
    });
    assert_eq!(sent, ["finished"]);
}

#[test]
fn one_that_refuses_to_die_is_abandoned_and_said_so() {
    let said = "greenling: the thread's hub has ended; 1 greenlet(s) did not come to an end when \
                killed and were abandoned, the first: 'undead' (id 1), spawned at tests/end.rs:";
    child::run("undead", &[]).succeeded().said(&[said]);
    child::run("undead-yields", &[]).succeeded().said(&[said]);
}

#[test]
fn nothing_is_said_about_those_that_die() {
    assert_eq!(child::run("mortal", &[]).succeeded().stderr, "");
}

#[test]
fn a_panicking_thread_unwinds_its_greenlets_too() {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || {
        let guard = SendOnDrop(sender, "unwound");
        spawn(move || (sleep(LONG), drop(guard)));
        yield_now();
        panic!("the thread's own");
    });
    assert!(thread.join().is_err());
    assert_eq!(receiver.into_iter().collect::<Vec<_>>(), ["unwound"]);
}

#[test]
fn a_deadlocked_thread_unwinds_its_greenlets_too() {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || {
        let guard = SendOnDrop(sender, "unwound");
        let stuck = spawn(move || {
            let _guard = guard;
            getcurrent().join();
        });
        stuck.join();
    });
    assert!(thread.join().is_err());
    assert_eq!(receiver.into_iter().collect::<Vec<_>>(), ["unwound"]);
}

/// What a test keeps beyond the end of its hub.
struct Outliving {
    greenlets: Vec<Greenlet<String>>,
    main: Option<GreenletRef>,
    sender: Option<Sender<&'static str>>,
}

thread_local! {
    /// Destroyed after the hub, because it was first used before the hub.
    static OUTLIVING: RefCell<Outliving> =
        const { RefCell::new(Outliving { greenlets: Vec::new(), main: None, sender: None }) };
}

impl Drop for Outliving {
    fn drop(&mut self) {
        let Some(sender) = self.sender.take() else { return };
        assert!(self.greenlets.iter().all(|greenlet| greenlet.is_finished()));
        for greenlet in self.greenlets.drain(..) {
            assert_eq!(greenlet.name(), format!("Greenlet-{}", greenlet.id()));
            assert!(greenlet.spawned_at().file().ends_with("end.rs"));
            assert!(format!("{greenlet:?}").contains("Finished"));
            greenlet.kill();
            greenlet.kill_nowait();
            greenlet.join();
            assert!(greenlet.join_timeout(LONG));
            sender.send(if greenlet.get().is_ok() { "returned" } else { "killed" }).unwrap();
        }
        let main = self.main.take().unwrap();
        assert_eq!((main.name(), main.is_finished()), ("main".into(), false));
        assert_eq!(main, main.clone());
    }
}

#[test]
fn handles_outlive_their_hub() {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || {
        OUTLIVING.with_borrow_mut(|outliving| outliving.sender = Some(sender));
        let greenlets = vec![
            spawn(|| String::from("a result")),
            spawn(|| (sleep(LONG), String::new()).1),
            spawn_later(LONG, String::new),
        ];
        yield_now();
        OUTLIVING.with_borrow_mut(|outliving| {
            outliving.greenlets = greenlets;
            outliving.main = Some(getcurrent());
        });
    });
    thread.join().unwrap();
    assert_eq!(receiver.into_iter().collect::<Vec<_>>(), ["returned", "killed", "killed"]);
}

#[test]
fn a_hub_that_was_only_asked_who_it_is_ends_too() {
    std::thread::spawn(|| drop(getcurrent())).join().unwrap();
    std::thread::spawn(yield_now).join().unwrap();
}

/// The cases for a process of their own.
#[test]
fn child() {
    let undead = |f: fn()| {
        let undead = move || loop {
            let _ = catch_unwind(f);
        };
        std::thread::spawn(move || {
            greenling::Builder::new().name("undead").spawn(undead).unwrap();
            spawn(|| sleep(LONG));
            yield_now();
        })
        .join()
        .unwrap();
    };
    match child::case().as_deref() {
        Some("undead") => undead(|| sleep(LONG)),
        Some("undead-yields") => undead(yield_now),
        Some("mortal") => std::thread::spawn(|| {
            (0..100).for_each(|n| drop(spawn_later(LONG * (n % 2), || sleep(LONG))));
            (0..100).for_each(|_| drop(spawn(|| sleep(LONG))));
            sleep(Duration::from_millis(1));
        })
        .join()
        .unwrap(),
        Some(other) => panic!("no such case: {other}"),
        None => {}
    }
}

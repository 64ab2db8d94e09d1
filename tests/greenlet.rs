//! Spawning, joining, results, panics, names: what a greenlet and its handle promise.

#[path = "common/child.rs"]
mod child;
#[path = "common/trace.rs"]
mod trace;

use std::cell::Cell;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::{
    Builder, Greenlet, GreenletError, getcurrent, joinall, sleep, spawn, spawn_later, yield_now,
};
use trace::Trace;

/// Nothing here takes that long.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_greenlet_is_finished_from_its_end_on() {
    let seen = Rc::new(Cell::new(None));
    let greenlet = {
        let seen = seen.clone();
        spawn(move || {
            seen.set(Some(getcurrent().is_finished()));
            yield_now();
        })
    };
    let delayed = spawn_later(LONG, || ());
    assert!(!greenlet.is_finished() && !delayed.is_finished());
    yield_now();
    assert_eq!(seen.get(), Some(false));
    assert!(!greenlet.is_finished());
    yield_now();
    assert!(greenlet.is_finished());
    let panicked = spawn(|| panic_any(1));
    let killed = spawn(|| sleep(LONG));
    panicked.join();
    killed.kill();
    delayed.kill();
    assert!(panicked.is_finished() && killed.is_finished() && delayed.is_finished());
    assert!(!getcurrent().is_finished());
}

#[test]
fn the_debug_form_tells_name_and_state() {
    let greenlet = Builder::new().name("worker").spawn(|| sleep(LONG)).unwrap();
    assert!(format!("{greenlet:?}").contains(r#"name: "worker", state: Unstarted"#));
    yield_now();
    assert!(format!("{greenlet:?}").contains("state: Parked"));
    assert_eq!(format!("{greenlet:?}"), format!("{:?}", *greenlet));
    greenlet.kill();
    assert!(format!("{greenlet:?}").contains("state: Finished"));
    assert!(format!("{:?}", getcurrent()).contains(r#"name: "main", state: Running"#));
}

#[test]
fn get_returns_what_the_function_returned() {
    assert_eq!(spawn(|| 6 * 7).get().unwrap(), 42);
    assert_eq!(spawn(|| vec![String::from("a")]).get().unwrap(), ["a"]);
    let shared = Rc::new(5);
    let clone = shared.clone();
    assert!(Rc::ptr_eq(&spawn(move || clone).get().unwrap(), &shared));
    assert_eq!(spawn(|| [7_u8; 4000]).get().unwrap(), [7; 4000]);
    assert_eq!(spawn(|| Err::<(), _>("its own error")).get().unwrap(), Err("its own error"));
    #[repr(align(256))]
    struct Aligned(u8);
    let aligned = Aligned(3);
    let result = spawn(move || (std::ptr::from_ref(&aligned).addr() % 256, aligned.0));
    assert_eq!(result.get().unwrap(), (0, 3));
}

#[test]
fn get_passes_a_panics_payload_on() {
    let payload = |greenlet: Greenlet<()>| greenlet.get().unwrap_err().into_panic().unwrap();
    let text = payload(spawn(|| panic!("plain")));
    assert_eq!(text.downcast_ref(), Some(&"plain"));
    let formatted = payload(spawn(|| panic!("number {}", black_box(7))));
    assert_eq!(formatted.downcast_ref::<String>().unwrap(), "number 7");
    assert_eq!(payload(spawn(|| panic_any(7_u64))).downcast_ref(), Some(&7_u64));
}

#[test]
fn errors_say_what_happened() {
    let texts = |error: GreenletError| (format!("{error}"), format!("{error:?}"));
    let panicked = texts(spawn(|| panic!("no {}", "luck")).get().unwrap_err());
    assert_eq!(panicked.0, "the greenlet panicked: no luck");
    assert_eq!(panicked.1, r#"Panicked("no luck")"#);
    let other = texts(spawn(|| panic_any(7)).get().unwrap_err());
    assert_eq!(other.0, "the greenlet panicked: (a payload that is no string)");
    let greenlet = spawn(|| ());
    greenlet.kill();
    let killed = greenlet.get().unwrap_err();
    assert!(matches!(killed.into_panic(), Err(GreenletError::Killed)));
    assert_eq!(texts(GreenletError::Killed), ("the greenlet was killed".into(), "Killed".into()));
    let _: Box<dyn std::error::Error> = Box::new(GreenletError::Killed);
}

#[test]
fn a_panic_takes_nobody_else_down() {
    let trace = Trace::default();
    let neighbours: Vec<_> = (0..3)
        .map(|n| {
            let trace = trace.clone();
            spawn(move || {
                yield_now();
                trace.note(n.to_string());
            })
        })
        .collect();
    let panicking = {
        let trace = trace.clone();
        spawn(move || {
            let _noted = trace.on_drop("unwound");
            yield_now();
            panic!("only me");
        })
    };
    panicking.join(); // Joining is not failing.
    joinall(&neighbours);
    assert_eq!(trace.text(), "0 1 2 unwound");
    let Err(GreenletError::Panicked(_)) = panicking.get() else { panic!() };
    assert_eq!(spawn(|| 1).get().unwrap(), 1);
}

#[test]
fn a_panic_is_reported_once_and_names_the_greenlet() {
    let child = child::run("panic", &[]).succeeded();
    let lines: Vec<_> = child.stderr.lines().filter(|line| line.contains("panic")).collect();
    assert_eq!(lines.len(), 2, "{}", child.stderr);
    assert!(lines[0].contains("panicked at tests/greenlet.rs:"), "{}", child.stderr);
    let ours =
        "greenling: that panic ended greenlet 'unlucky' (id 1), spawned at tests/greenlet.rs:";
    assert!(lines[1].starts_with(ours), "{}", child.stderr);
    assert_eq!(child.stderr.matches("no luck").count(), 1, "{}", child.stderr);
}

#[test]
fn kills_and_timeouts_print_nothing() {
    let child = child::run("quiet", &[]).succeeded();
    assert_eq!(child.stderr, "");
}

#[test]
fn a_greenlet_runs_on_without_its_handle() {
    let trace = Trace::default();
    let noted = trace.clone();
    drop(spawn(move || {
        yield_now();
        noted.note("ran");
    }));
    (0..3).for_each(|_| yield_now());
    assert_eq!(trace.text(), "ran");
}

#[test]
fn a_result_that_nobody_takes_is_dropped() {
    let trace = Trace::default();
    let result = |what: &str| {
        let noted = trace.on_drop(what);
        spawn(move || noted)
    };
    let kept = result("kept");
    drop(result("detached"));
    let waited = result("waited");
    waited.join();
    assert_eq!(trace.text(), "detached");
    drop(waited);
    assert_eq!(trace.text(), "detached waited");
    let taken = kept.get().unwrap();
    assert_eq!(trace.text(), "detached waited");
    drop(taken);
    assert_eq!(trace.text(), "detached waited kept");
}

#[test]
fn a_result_may_block_spawn_and_panic_in_its_drop() {
    struct Busy(Trace);
    impl Drop for Busy {
        fn drop(&mut self) {
            self.0.note("drops");
            spawn(|| ()).join();
            sleep(Duration::from_millis(1));
            self.0.note(getcurrent().name());
            panic!("in a drop");
        }
    }
    let trace = Trace::default();
    let busy = Busy(trace.clone());
    let detached = Builder::new().name("detached").spawn(move || busy).unwrap().clone();
    detached.join();
    assert!(trace.text().starts_with("drops"), "{}", trace.text());
    assert!(trace.text().ends_with("detached"), "{}", trace.text());
    let busy = Busy(trace.clone());
    let held = spawn(move || busy);
    held.join();
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(held)));
    assert!(dropped.is_err());
    assert_eq!(trace.text(), "drops detached drops main");
    sleep(Duration::from_millis(1)); // The hub is as good as before.
}

#[test]
fn what_a_function_captured_is_dropped_before_the_joiners_run() {
    let trace = Trace::default();
    let captured = trace.on_drop("captured");
    spawn(move || drop(captured)).join();
    let captured = trace.on_drop("unused");
    spawn(move || {
        let _ = &captured;
    })
    .join();
    assert_eq!(trace.text(), "captured unused");
}

#[test]
fn greenlets_spawn_greenlets() {
    fn tree(depth: u32) -> u32 {
        if depth == 0 {
            return 1;
        }
        let branches = [0; 3].map(|_| spawn(move || tree(depth - 1)));
        branches.into_iter().map(|branch| branch.get().unwrap()).sum()
    }
    assert_eq!(spawn(|| tree(6)).get().unwrap(), 729);
}

#[test]
fn a_chain_of_joins_unwinds_from_its_end() {
    let mut last = spawn(|| 0);
    for _ in 0..1000 {
        let inner = last;
        last = spawn(move || inner.get().unwrap() + 1);
    }
    assert_eq!(last.get().unwrap(), 1000);
}

#[test]
fn many_may_join_one() {
    let greenlet = spawn(|| (0..3).for_each(|_| yield_now()));
    let joiners: Vec<_> = (0..1000)
        .map(|_| {
            let greenlet = greenlet.clone();
            spawn(move || greenlet.join())
        })
        .collect();
    joinall(&joiners);
    assert!(greenlet.is_finished());
}

#[test]
fn join_timeout_says_whether_the_greenlet_has_ended() {
    let greenlet = spawn(|| sleep(LONG));
    assert!(!greenlet.join_timeout(Duration::from_millis(2)));
    assert!(!greenlet.join_timeout(Duration::ZERO));
    greenlet.kill_nowait();
    assert!(greenlet.join_timeout(LONG));
    assert!(greenlet.join_timeout(Duration::ZERO));
    assert!(spawn(|| ()).join_timeout(Duration::MAX));
    // Many that time out leave those in order that do not.
    let greenlet = spawn(|| sleep(LONG)).clone();
    let trace = Trace::default();
    let joiner = |n: u32| {
        let (greenlet, trace) = (greenlet.clone(), trace.clone());
        let timeout = if n.is_multiple_of(10) { LONG } else { Duration::from_millis(1) };
        spawn(move || {
            if greenlet.join_timeout(timeout) {
                trace.note(n.to_string());
            }
        })
    };
    let (patient, hasty): (Vec<_>, Vec<_>) =
        (0..100).map(|n| (n, joiner(n))).partition(|(n, _)| n.is_multiple_of(10));
    hasty.iter().for_each(|(_, joiner)| joiner.join());
    greenlet.kill();
    patient.iter().for_each(|(_, joiner)| joiner.join());
    assert_eq!(trace.text(), "0 10 20 30 40 50 60 70 80 90");
}

#[test]
fn spawn_later_waits_for_its_delay() {
    let (start, delay) = (Instant::now(), Duration::from_millis(20));
    let greenlet = spawn_later(delay, move || start.elapsed());
    let named = Builder::new().name("late").spawn_later(delay, || getcurrent().name()).unwrap();
    assert!(greenlet.get().unwrap() >= delay);
    assert_eq!(named.get().unwrap(), "late");
}

#[test]
fn a_delay_beyond_the_clock_never_ends() {
    for delay in [Duration::MAX, Duration::from_secs(u64::MAX / 2), Duration::from_secs(1 << 62)] {
        let greenlet = spawn_later(delay, || ());
        assert!(!greenlet.join_timeout(Duration::from_millis(2)), "{delay:?}");
        greenlet.kill();
    }
}

#[test]
fn names_ids_and_places() {
    let line = line!() + 1;
    let first = spawn(getcurrent);
    let named = Builder::new().name(String::from("resolver")).spawn(|| ()).unwrap();
    let later = spawn_later(Duration::ZERO, || ());
    assert_eq!(named.name(), "resolver");
    assert!(first.name().strip_prefix("Greenlet-").unwrap().parse::<u32>().is_ok());
    for (greenlet, line) in [(&*first, line), (&*named, line + 1), (&*later, line + 2)] {
        assert_eq!((greenlet.spawned_at().file(), greenlet.spawned_at().line()), (file!(), line));
    }
    let ids = [getcurrent().id(), first.id(), named.id(), later.id()];
    assert!((1..4).all(|n| !ids[..n].contains(&ids[n])));
    assert_eq!(ids[1].to_string(), format!("{}", ids[1]));
    let (handle, id, name) = (first.clone(), first.id(), first.name());
    let inside = first.get().unwrap();
    assert_eq!(inside, handle);
    assert_ne!(inside, *named);
    // They stay after the end, and the id is never another's.
    assert_eq!((inside.id(), inside.name()), (id, name));
    assert!((0..1000).all(|_| {
        let next = spawn(|| ());
        next.join();
        next.id() != id
    }));
}

#[test]
fn getcurrent_in_main_is_the_main_greenlet() {
    let main = getcurrent();
    assert_eq!(main.name(), "main");
    assert_eq!(main, getcurrent());
    let main_ref = main.clone();
    assert!(spawn(move || getcurrent() != main_ref).get().unwrap());
    assert_eq!(main, getcurrent());
    let other = std::thread::spawn(|| getcurrent().name()).join().unwrap();
    assert_eq!(other, "main");
}

#[test]
fn locals_and_the_stack_are_a_greenlets_own() {
    let greenlets: Vec<_> = (0..50_u64)
        .map(|n| {
            spawn(move || {
                let mut local = black_box([n; 100]);
                for number in local.iter_mut().take(10) {
                    yield_now();
                    *number += 1;
                }
                local.iter().sum::<u64>()
            })
        })
        .collect();
    for (n, greenlet) in (0..).zip(greenlets) {
        assert_eq!(greenlet.get().unwrap(), n * 100 + 10);
    }
}

#[test]
fn stack_size_is_honoured() {
    fn deep(depth: u32) -> u32 {
        let frame = black_box([depth as u8; 1024]);
        if depth == 0 { 0 } else { deep(depth - 1) + u32::from(black_box(frame)[0] == depth as u8) }
    }
    let with = |bytes| Builder::new().stack_size(bytes);
    assert_eq!(with(8 << 20).spawn(|| deep(2000)).unwrap().get().unwrap(), 2000);
    assert_eq!(with(64 << 20).spawn(|| deep(15_000)).unwrap().get().unwrap(), 15_000);
    assert_eq!(with(0).spawn(|| 1).unwrap().get().unwrap(), 1);
    // Greenlets of several sizes side by side.
    let greenlets: Vec<_> = (0..30)
        .map(|n| with(64 << 10 << (n % 6)).spawn(move || (yield_now(), deep(8), n)).unwrap())
        .collect();
    for (n, greenlet) in (0..).zip(greenlets) {
        assert_eq!(greenlet.get().unwrap(), ((), 8, n));
    }
}

#[test]
fn a_greenlet_without_a_stack_is_killed_and_says_so() {
    child::run("no-stack", &[]).succeeded().said(&["greenling: greenlet 'huge' can't start: "]);
}

#[test]
fn unstarted_greenlets_cost_little() {
    child::run("unstarted", &[]).succeeded();
}

#[test]
fn a_greenlet_can_be_spawned_for_ever() {
    // Records and stacks are reused: nothing here grows.
    for _ in 0..200 {
        let greenlets: Vec<_> = (0..100).map(|n| spawn(move || n)).collect();
        assert_eq!(greenlets.into_iter().map(|g| g.get().unwrap()).sum::<u32>(), 4950);
    }
}

/// The cases for a process of their own.
#[test]
fn child() {
    match child::case().as_deref() {
        Some("panic") => std::thread::spawn(|| {
            let unlucky = Builder::new().name("unlucky").spawn(|| panic!("no luck")).unwrap();
            unlucky.join();
            assert!(unlucky.get().is_err());
        })
        .join()
        .unwrap(),
        Some("quiet") => {
            let sleeper = spawn(|| sleep(LONG));
            yield_now();
            sleeper.kill();
            spawn(|| getcurrent().kill()).join();
            assert!(greenling::with_timeout(Duration::from_millis(1), || sleep(LONG)).is_err());
        }
        Some("no-stack") => {
            // Its function is dropped by the hub, which must not wait.
            struct YieldsOnDrop;
            impl Drop for YieldsOnDrop {
                fn drop(&mut self) {
                    yield_now();
                }
            }
            let captured = YieldsOnDrop;
            let function = move || drop(captured);
            let huge = Builder::new().name("huge").stack_size(usize::MAX).spawn(function).unwrap();
            let joiner = {
                let huge = huge.clone();
                spawn(move || huge.join())
            };
            assert!(matches!(huge.get(), Err(GreenletError::Killed)));
            joiner.get().unwrap();
            assert_eq!(spawn(|| 1).get().unwrap(), 1);
        }
        Some("unstarted") => {
            let resident = || {
                let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
                statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
            };
            yield_now();
            let before = resident();
            let mut greenlets: Vec<_> = (0..100_000).map(|n| spawn(move || n)).collect();
            assert!(resident() - before < 50 << 20, "{} bytes", resident() - before);
            // One after another, they need but one stack.
            assert_eq!(greenlets.pop().unwrap().get().unwrap(), 99_999);
            assert!(resident() - before < 50 << 20, "{} bytes", resident() - before);
        }
        Some(other) => panic!("no such case: {other}"),
        None => {}
    }
}

//! What happens when nothing is left that could wake the main greenlet: a panic that names every
//! greenlet that is stuck, and a hub that goes on.

#[path = "common/child.rs"]
mod child;

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use greenling::net::unix::UnixStream;
use greenling::{
    Builder, GreenletRef, getcurrent, joinall, sleep, spawn, spawn_later, with_timeout, yield_now,
};

/// Short, but not over before the main greenlet waits.
const SHORT: Duration = Duration::from_millis(3);

/// Runs a test on a thread of its own, because stuck greenlets stay on their hub.
fn on_thread(test: fn()) {
    std::thread::spawn(test).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// The report of the deadlock that `f` runs into.
#[track_caller]
fn report(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("this would block for ever");
    *payload.downcast::<String>().expect("the report is a text")
}

/// A greenlet that waits for itself, so for ever.
#[track_caller]
fn spawn_stuck(name: &str) -> GreenletRef {
    Builder::new().name(name).spawn(|| getcurrent().join()).unwrap().clone()
}

#[test]
fn the_report_names_what_is_stuck() {
    on_thread(|| {
        let line = line!() + 1;
        let first = spawn_stuck("first");
        let awaited = first.clone();
        let second = Builder::new().name("second").spawn(move || awaited.join()).unwrap();
        let report = report(|| second.join());
        let (first_id, second_id) = (first.id(), second.id());
        let expected = [
            format!(
                "this operation would block forever: the main greenlet waits for greenlet \
                 {second_id} to end, and nothing is left that could wake it"
            ),
            String::from("\n2 greenlet(s) are stuck:\n"),
            format!("\n  'first' (id {first_id}), spawned at tests/deadlock.rs:{line}:"),
            format!(": waits for greenlet {first_id} to end"),
            format!("\n  'second' (id {second_id}), spawned at tests/deadlock.rs:"),
            format!(": waits for greenlet {first_id} to end"),
        ];
        let mut rest = report.as_str();
        for text in &expected {
            let at = rest.find(text.as_str());
            rest = &rest[at.unwrap_or_else(|| panic!("`{text}` is not in:\n{report}"))..];
        }
    });
}

#[test]
fn unnamed_ones_have_their_number() {
    on_thread(|| {
        let stuck = spawn(|| getcurrent().join());
        let report = report(|| stuck.join());
        assert!(report.contains(&format!("  '{}' (id {})", stuck.name(), stuck.id())), "{report}");
    });
}

#[test]
fn a_long_report_counts_the_rest() {
    on_thread(|| {
        let stuck: Vec<_> = (0..150).map(|_| spawn(|| getcurrent().join())).collect();
        let report = report(|| joinall(&stuck));
        assert!(report.contains("\n150 greenlet(s) are stuck:"), "{report}");
        assert!(report.ends_with("\n  ... and 50 more"), "{report}");
    });
}

#[test]
fn main_waiting_for_itself_alone_is_a_deadlock() {
    on_thread(|| {
        let report = report(|| getcurrent().join());
        assert!(!report.contains("stuck:"), "{report}");
    });
}

#[test]
fn greenlets_that_wait_for_each_other_are_a_deadlock() {
    on_thread(|| {
        let main = getcurrent();
        let other = spawn(move || main.join());
        let report = report(|| other.join());
        assert!(report.contains("1 greenlet(s) are stuck:"), "{report}");
    });
}

#[test]
fn the_hub_goes_on_after_it() {
    on_thread(|| {
        let stuck = spawn_stuck("stuck");
        for _ in 0..3 {
            assert!(report(|| stuck.join()).contains("'stuck'"));
            assert_eq!(spawn(|| 7).get().unwrap(), 7);
            sleep(SHORT);
            assert!(!stuck.join_timeout(SHORT));
            assert!(with_timeout(SHORT, || stuck.join()).is_err());
        }
        stuck.kill();
        assert!(stuck.is_finished());
        stuck.join();
    });
}

#[test]
fn only_the_main_greenlet_is_told() {
    on_thread(|| {
        // The others are stuck, but main has something to do.
        let stuck: Vec<_> = (0..3).map(|_| spawn(|| getcurrent().join())).collect();
        sleep(SHORT);
        assert_eq!(spawn(|| (sleep(SHORT), 7).1).get().unwrap(), 7);
        assert!(stuck.iter().all(|greenlet| !greenlet.is_finished()));
    });
}

#[test]
fn destructors_run_when_the_report_unwinds() {
    on_thread(|| {
        let joined = spawn(|| {
            // A deadlock of its own main greenlet is a panic like any other.
            std::thread::spawn(|| getcurrent().join()).join().is_err()
        });
        assert!(joined.get().unwrap());
    });
}

#[test]
fn no_false_alarm_while_a_timer_is_set() {
    on_thread(|| {
        let greenlet = spawn(|| sleep(SHORT));
        greenlet.join();
        spawn_later(SHORT, || ()).join();
        let stuck = spawn_stuck("stuck");
        let victim = stuck.clone();
        spawn_later(SHORT, move || victim.kill_nowait());
        stuck.join();
    });
}

#[test]
fn no_false_alarm_while_an_fd_is_waited_for() {
    on_thread(|| {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut reader = UnixStream::from(reader);
        let closer = std::thread::spawn(move || {
            std::thread::sleep(SHORT);
            drop(writer);
        });
        let greenlet = spawn(move || reader.read(&mut [0]).unwrap());
        assert_eq!(greenlet.get().unwrap(), 0);
        closer.join().unwrap();
    });
}

#[test]
fn a_yield_is_never_a_deadlock() {
    on_thread(|| {
        let _stuck = spawn_stuck("stuck");
        (0..200).for_each(|_| yield_now());
        sleep(Duration::ZERO);
    });
}

/// What the child processes of this file do.
#[test]
fn child() {
    if child::case().as_deref() == Some("traces") {
        let stuck = spawn_stuck("lost");
        let _ = catch_unwind(AssertUnwindSafe(|| stuck.join()));
        // Looking at a greenlet leaves it where it was.
        let report = report(|| stuck.join());
        assert!(report.contains("'lost'"), "{report}");
        eprintln!("done");
    }
}

#[test]
fn with_rust_backtrace_the_report_shows_where_each_greenlet_is_parked() {
    let texts = ["'lost'", "join_until", "done"];
    child::run("traces", &[("RUST_BACKTRACE", "1")]).succeeded().said(&texts);
}

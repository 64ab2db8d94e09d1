//! A greenlet that overflows its stack: the report names it, and the process aborts.

#[path = "common/child.rs"]
mod child;

use std::hint::black_box;
use std::time::Duration;

use greenling::{Builder, sleep, spawn, yield_now};

/// The environments that force each kind of guard.
const GUARDS: [&[(&str, &str)]; 2] = [&[], &[("GREENLING_STACK_GUARD", "mprotect")]];

/// How every report ends.
const HELP: &str = "help: raise it with Builder::stack_size or GREENLING_STACK_SIZE\n\
                    fatal runtime error: stack overflow, aborting";

#[test]
fn the_report_names_greenlet_and_place() {
    for guard in GUARDS {
        child::run("named", guard).aborted().said(&[
            "greenlet 'deep' (id 1), spawned at tests/overflow.rs:",
            "has overflowed its stack of 192 KiB\n",
            HELP,
        ]);
        child::run("unnamed", guard).aborted().said(&[
            "greenlet 'Greenlet-1' (id 1), spawned at tests/overflow.rs:",
            "has overflowed its stack of 192 KiB\n",
            HELP,
        ]);
    }
}

#[test]
fn the_report_tells_the_size() {
    child::run("sized", &[]).aborted().said(&["has overflowed its stack of 1024 KiB\n", HELP]);
    let large = [("GREENLING_STACK_SIZE", "2M")];
    child::run("named", &large).aborted().said(&["has overflowed its stack of 2048 KiB\n", HELP]);
}

#[test]
fn the_one_that_runs_is_named_among_many() {
    for guard in GUARDS {
        child::run("among-many", guard).aborted().said(&["greenlet 'deep' (id 51), spawned", HELP]);
    }
}

#[test]
fn it_works_on_other_threads_and_on_a_used_stack() {
    child::run("on-thread", &[]).aborted().said(&["greenlet 'deep' (id 1), spawned", HELP]);
    child::run("reused", &[]).aborted().said(&["greenlet 'deep' (id ", "), spawned", HELP]);
}

#[test]
fn the_main_greenlets_overflow_is_the_threads() {
    let child = child::run("main", &[]).aborted().said(&["has overflowed its stack"]);
    assert!(!child.stderr.contains("greenlet"), "{}", child.stderr);
}

/// Never ends.
#[expect(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 16]);
    recurse(depth + 1) + black_box(frame)[0]
}

/// A greenlet that overflows after a switch or two.
fn deep(builder: Builder) {
    let overflow = || {
        yield_now();
        black_box(recurse(0))
    };
    builder.name("deep").spawn(overflow).unwrap().join();
}

/// The cases for a process of their own.
#[test]
fn child() {
    let on_thread = |f: fn()| _ = std::thread::spawn(f).join();
    match child::case().as_deref() {
        Some("named") => deep(Builder::new()),
        Some("unnamed") => spawn(|| black_box(recurse(0))).join(),
        Some("sized") => deep(Builder::new().stack_size(1 << 20)),
        Some("among-many") => {
            (0..50).for_each(|_| drop(spawn(|| sleep(Duration::from_secs(60)))));
            deep(Builder::new());
        }
        Some("on-thread") => on_thread(|| deep(Builder::new())),
        Some("reused") => {
            (0..100).for_each(|n| assert_eq!(spawn(move || n).get().unwrap(), n));
            deep(Builder::new());
        }
        Some("main") => on_thread(|| {
            spawn(|| ()).join();
            black_box(recurse(0));
        }),
        Some(other) => panic!("no such case: {other}"),
        None => {}
    }
}

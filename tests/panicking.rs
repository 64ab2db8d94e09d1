//! While a thread panics, no greenlet is switched: the panic count is the thread's, so another one
//! would see a panic that is not its own.

#[path = "common/trace.rs"]
mod trace;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use greenling::{Greenlet, joinall, sleep, spawn, yield_now};
use trace::Trace;

/// Blocks in every way that it may, when it is dropped.
struct Blocks(Trace);

impl Drop for Blocks {
    fn drop(&mut self) {
        assert!(std::thread::panicking());
        self.0.note("blocks");
        let (start, duration) = (Instant::now(), Duration::from_millis(3));
        sleep(duration);
        assert!(start.elapsed() >= duration);
        yield_now();
        sleep(Duration::ZERO);
        self.0.note("goes on");
    }
}

/// A greenlet that would run whenever another blocks.
fn spawn_busy(trace: &Trace) -> Greenlet<()> {
    let trace = trace.clone();
    spawn(move || {
        for _ in 0..3 {
            assert!(!std::thread::panicking());
            trace.note("busy");
            yield_now();
        }
    })
}

#[test]
fn no_other_greenlet_runs_while_one_panics() {
    let trace = Trace::default();
    let blocks = Blocks(trace.clone());
    let panicking = spawn(move || {
        let _blocks = blocks;
        panic!("on purpose");
    });
    joinall(&[panicking, spawn_busy(&trace)]);
    assert_eq!(trace.text(), "blocks goes on busy busy busy");
}

#[test]
fn no_greenlet_runs_while_main_panics() {
    let trace = Trace::default();
    let busy = spawn_busy(&trace);
    let blocks = Blocks(trace.clone());
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _blocks = blocks;
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(trace.text(), "blocks goes on");
    busy.join();
    assert_eq!(trace.text(), "blocks goes on busy busy busy");
}

#[test]
fn a_neighbours_panic_poisons_no_mutex() {
    let mutex = Rc::new(Mutex::new(0));
    let holder = {
        let mutex = mutex.clone();
        spawn(move || {
            let mut guard = mutex.lock().unwrap();
            yield_now(); // The other one panics.
            *guard += 1;
        })
    };
    let panicking = spawn(|| {
        let _blocks = Blocks(Trace::default());
        panic!("on purpose");
    });
    holder.join();
    panicking.join();
    assert_eq!(*mutex.lock().unwrap(), 1);
    // One's own panic does, as in a thread.
    let own = mutex.clone();
    spawn(move || {
        let _guard = own.lock().unwrap();
        panic!("on purpose");
    })
    .join();
    assert!(mutex.is_poisoned());
}

#[test]
fn what_was_locked_while_a_kill_unwinds_is_no_other_greenlets_matter() {
    let mutex = Rc::new(Mutex::new(()));
    let victim = spawn(|| {
        let _blocks = Blocks(Trace::default());
        sleep(Duration::from_secs(60));
    });
    let holder = {
        let mutex = mutex.clone();
        spawn(move || {
            let _guard = mutex.lock().unwrap();
            yield_now();
            yield_now();
        })
    };
    yield_now();
    victim.kill();
    holder.join();
    assert!(!mutex.is_poisoned());
}

#[test]
fn panics_one_after_another_leave_the_count_at_zero() {
    let greenlets: Vec<_> = (0..50)
        .map(|n| {
            spawn(move || {
                yield_now();
                assert!(n % 2 == 0, "on purpose");
                yield_now();
                assert!(!std::thread::panicking());
            })
        })
        .collect();
    joinall(&greenlets);
    assert!(!std::thread::panicking());
    let failed = greenlets.into_iter().filter_map(|greenlet| greenlet.get().err()).count();
    assert_eq!(failed, 25);
}

#[test]
fn a_panic_caught_inside_a_greenlet_is_its_own_affair() {
    let greenlet = spawn(|| {
        let caught = catch_unwind(|| {
            yield_now();
            panic!("on purpose");
        });
        yield_now();
        caught.is_err()
    });
    assert!(greenlet.get().unwrap());
}

/// A join that a destructor tries, and whose panic it catches, leaves nothing behind that ends a
/// later wait.
#[test]
fn a_refused_join_ends_no_later_sleep() {
    struct JoinsOnDrop(Greenlet<()>);
    impl Drop for JoinsOnDrop {
        fn drop(&mut self) {
            catch_unwind(AssertUnwindSafe(|| self.0.join())).unwrap_err();
            self.0.kill_nowait();
        }
    }
    let slept = spawn(|| {
        let joins = JoinsOnDrop(spawn(|| sleep(Duration::from_secs(60))));
        yield_now();
        catch_unwind(AssertUnwindSafe(move || {
            let _joins = joins;
            panic!("expected");
        }))
        .unwrap_err();
        let start = Instant::now();
        sleep(Duration::from_millis(20));
        start.elapsed()
    });
    assert!(slept.get().unwrap() >= Duration::from_millis(20));
}

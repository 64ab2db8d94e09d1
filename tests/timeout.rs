//! `with_timeout`: whose expiry it is, and that nothing can swallow it for good.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::{GreenletError, TimedOut, sleep, spawn, spawn_later, with_timeout, yield_now};

/// Nothing here takes that long.
const LONG: Duration = Duration::from_secs(60);

/// Expires soon.
const SHORT: Duration = Duration::from_millis(3);

/// Runs a test in the main greenlet of its thread and in another one.
fn everywhere(test: fn()) {
    test();
    spawn(test).get().unwrap();
}

#[test]
fn the_value_is_returned_in_time() {
    everywhere(|| {
        assert_eq!(with_timeout(LONG, || 7), Ok(7));
        assert_eq!(with_timeout(LONG, || sleep(SHORT)), Ok(()));
        assert_eq!(with_timeout(LONG, || spawn(|| 8).get().unwrap()), Ok(8));
        let borrowed = String::from("not 'static");
        assert_eq!(with_timeout(LONG, || borrowed.as_str()), Ok("not 'static"));
    });
}

#[test]
fn expiry_ends_the_blocking_call_and_runs_destructors() {
    everywhere(|| {
        let (dropped, start) = (Rc::new(()), Instant::now());
        let inside = dropped.clone();
        let outcome = with_timeout(SHORT, move || {
            let _inside = inside;
            sleep(LONG);
        });
        let error = outcome.unwrap_err();
        assert!(start.elapsed() >= SHORT && start.elapsed() < LONG);
        assert_eq!(Rc::strong_count(&dropped), 1);
        assert_eq!(error.to_string(), "timed out");
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::TimedOut);
        sleep(SHORT); // It is over and done with.
    });
}

#[test]
fn a_join_that_times_out_leaves_the_other_alone() {
    everywhere(|| {
        let greenlet = spawn(|| {
            sleep(SHORT * 3);
            7
        });
        assert!(with_timeout(SHORT, || greenlet.join()).is_err());
        assert_eq!(greenlet.get().unwrap(), 7);
    });
}

#[test]
fn the_inner_one_expires_alone() {
    everywhere(|| {
        let outer = with_timeout(LONG, || {
            let inner = with_timeout(SHORT, || sleep(LONG));
            assert!(inner.is_err());
            sleep(SHORT);
            "went on"
        });
        assert_eq!(outer, Ok("went on"));
    });
}

#[test]
fn the_outer_one_goes_through_the_inner_one() {
    everywhere(|| {
        let inner_said = Cell::new(None);
        let outer = with_timeout(SHORT, || {
            inner_said.set(Some(with_timeout(LONG, || sleep(LONG))));
        });
        assert!(outer.is_err());
        assert_eq!(inner_said.get(), None);
    });
}

#[test]
fn the_outer_one_goes_first_if_both_have_expired() {
    everywhere(|| {
        for (outer, inner) in [(SHORT, SHORT), (SHORT, SHORT / 2), (SHORT / 2, SHORT)] {
            let inner_said = Cell::new(None);
            let outcome = with_timeout(outer, || {
                inner_said.set(Some(with_timeout(inner, || {
                    std::thread::sleep(SHORT * 2);
                    // Now the hub sees both at once, the earlier first.
                    let expired = catch_unwind(|| sleep(LONG));
                    yield_now_ignoring_expiry();
                    std::panic::resume_unwind(expired.unwrap_err());
                })));
                sleep(LONG);
            });
            assert!(outcome.is_err());
        }
    });
}

/// A blocking call whose expiry is swallowed.
fn yield_now_ignoring_expiry() {
    assert!(catch_unwind(yield_now).is_err());
}

#[test]
fn the_middle_one_of_three() {
    everywhere(|| {
        let trace = Cell::new(0);
        let outer = with_timeout(LONG, || {
            let middle = with_timeout(SHORT, || {
                let inner = with_timeout(LONG, || sleep(LONG));
                trace.set(1);
                inner
            });
            assert!(middle.is_err());
            7
        });
        assert_eq!((outer, trace.get()), (Ok(7), 0));
    });
}

#[test]
fn catching_the_unwinding_does_not_swallow_the_expiry() {
    everywhere(|| {
        let caught = Cell::new(0);
        let outcome = with_timeout(SHORT, || {
            while catch_unwind(|| sleep(LONG)).is_err() && caught.get() < 5 {
                caught.set(caught.get() + 1);
            }
            "a value that comes too late"
        });
        assert_eq!((outcome.is_err(), caught.get()), (true, 5));
        sleep(SHORT);
    });
}

#[test]
fn swallowing_an_outer_expiry_in_an_inner_timeout() {
    everywhere(|| {
        let outer = with_timeout(SHORT, || {
            let inner = with_timeout(LONG, || catch_unwind(|| sleep(LONG)).is_err());
            assert_eq!(inner, Ok(true)); // It wasn't the inner one's expiry.
            yield_now();
            unreachable!("the outer one is still pending");
        });
        assert!(outer.is_err());
    });
}

#[test]
fn ignoring_the_expiry_for_ever_does_not_starve_the_others() {
    let stop = Rc::new(Cell::new(false));
    let seen = stop.clone();
    spawn_later(SHORT * 3, move || seen.set(true));
    let outcome = with_timeout(SHORT, || {
        while !stop.get() {
            let _ = catch_unwind(|| sleep(LONG));
        }
    });
    assert!(outcome.is_err());
}

#[test]
fn an_expiry_after_the_last_blocking_call_is_none() {
    everywhere(|| {
        let busy = || {
            std::thread::sleep(SHORT * 2);
            7
        };
        assert_eq!(with_timeout(SHORT, busy), Ok(7));
        // Not for the next blocking call either.
        yield_now();
        sleep(SHORT);
        assert_eq!(with_timeout(LONG, || with_timeout(SHORT, busy)), Ok(Ok(7)));
    });
}

#[test]
fn zero_expires_at_the_first_call_that_waits() {
    everywhere(|| {
        assert_eq!(with_timeout(Duration::ZERO, || 7), Ok(7));
        assert!(with_timeout(Duration::ZERO, || sleep(SHORT)).is_err());
        assert!(with_timeout(Duration::ZERO, || sleep(Duration::MAX)).is_err());
        assert!(with_timeout(Duration::ZERO, || spawn(|| sleep(LONG)).join()).is_err());
    });
}

#[test]
fn huge_durations_never_expire() {
    everywhere(|| {
        for huge in [Duration::MAX, Duration::from_secs(1 << 62), Duration::from_secs(1 << 40)] {
            assert_eq!(with_timeout(huge, || (sleep(SHORT / 3), 7).1), Ok(7));
            assert!(with_timeout(SHORT, || with_timeout(huge, || sleep(huge))).is_err());
        }
    });
}

#[test]
fn panics_pass_through() {
    everywhere(|| {
        let panicked = catch_unwind(|| with_timeout(LONG, || panic_any(7)));
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&7));
        // Also one that replaces the expiry.
        let panicked = catch_unwind(|| {
            with_timeout(SHORT, || {
                let _ = catch_unwind(|| sleep(LONG));
                panic_any(8)
            })
        });
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&8));
        sleep(SHORT);
    });
}

#[test]
fn a_greenlets_timeouts_are_its_own() {
    let outer = with_timeout(LONG, || {
        let greenlets: Vec<_> = (0..50)
            .map(|n| {
                spawn(move || {
                    let timeout = if n % 2 == 0 { SHORT } else { LONG };
                    with_timeout(timeout, || sleep(SHORT * 3))
                })
            })
            .collect();
        greenlets.into_iter().map(|g| g.get().unwrap().is_err()).collect::<Vec<_>>()
    });
    assert!(outer.unwrap().iter().enumerate().all(|(n, expired)| *expired == (n % 2 == 0)));
    // One that is spawned inside does not inherit it.
    let inside = with_timeout(SHORT, || spawn(|| sleep(SHORT * 3))).unwrap();
    inside.get().unwrap();
}

#[test]
fn a_killed_greenlets_timeout_does_not_strike_the_next() {
    let greenlet = spawn(|| with_timeout(SHORT, || sleep(LONG)));
    yield_now();
    greenlet.kill();
    assert!(matches!(greenlet.get(), Err(GreenletError::Killed)));
    let next = spawn(|| sleep(SHORT * 3));
    next.get().unwrap();
}

#[test]
fn timeouts_in_a_loop_stay_apart() {
    everywhere(|| {
        let outcomes: Vec<Result<(), TimedOut>> = (0..20)
            .map(|n| {
                with_timeout(SHORT / 3, || {
                    if n % 2 == 0 {
                        sleep(LONG);
                    }
                })
            })
            .collect();
        assert!((0..20).all(|n| outcomes[n].is_err() == (n % 2 == 0)));
    });
}

#[test]
fn deeply_nested_timeouts() {
    fn nest(depth: u32) -> Result<(), TimedOut> {
        match depth {
            0 => with_timeout(SHORT, || sleep(LONG)),
            _ => with_timeout(LONG, || nest(depth - 1)).expect("only the innermost expires"),
        }
    }
    everywhere(|| assert!(nest(20).is_err()));
}

#[test]
fn a_destructor_may_use_a_timeout_while_it_unwinds() {
    struct Waits(Rc<Cell<bool>>);
    impl Drop for Waits {
        fn drop(&mut self) {
            let outcome = with_timeout(LONG, || (sleep(SHORT / 3), 7).1);
            self.0.set(outcome == Ok(7));
        }
    }
    let waited = Rc::new(Cell::new(false));
    let waits = Waits(waited.clone());
    let outcome = with_timeout(
        SHORT,
        AssertUnwindSafe(move || {
            let _waits = waits;
            sleep(LONG);
        }),
    );
    assert!(outcome.is_err() && waited.get());
}

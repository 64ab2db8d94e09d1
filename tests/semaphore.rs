//! What `greenling::sync::Semaphore` promises: order, barging, and that no permit is ever lost.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use greenling::sync::Semaphore;
use greenling::{Greenlet, joinall, sleep, spawn, with_timeout, yield_now};

/// A semaphore, and what the greenlets of a test have noted.
#[derive(Clone)]
struct Scene {
    semaphore: Rc<Semaphore>,
    log: Rc<RefCell<Vec<String>>>,
}

impl Scene {
    fn with_permits(permits: usize) -> Scene {
        Scene { semaphore: Rc::new(Semaphore::new(permits)), log: Rc::default() }
    }

    fn note(&self, what: impl Into<String>) {
        self.log.borrow_mut().push(what.into());
    }

    fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    /// A greenlet that notes its name when it has a permit, and gives it back at once.
    fn spawn_waiter(&self, name: &str) -> Greenlet<()> {
        let (scene, name) = (self.clone(), name.to_owned());
        spawn(move || {
            let _permit = scene.semaphore.acquire();
            scene.note(name);
        })
    }
}

#[test]
fn waiters_are_served_in_the_order_in_which_they_came() {
    let scene = Scene::with_permits(1);
    let permit = scene.semaphore.acquire();
    let waiters: Vec<_> = ["a", "b", "c"].map(|name| scene.spawn_waiter(name)).into();
    yield_now();
    assert!(scene.log().is_empty());
    drop(permit);
    joinall(&waiters);
    assert_eq!(scene.log(), ["a", "b", "c"]);
    assert_eq!(scene.semaphore.available_permits(), 1);
}

#[test]
fn as_many_run_at_once_as_there_are_permits() {
    let scene = Scene::with_permits(3);
    let greenlets: Vec<_> = (0..10)
        .map(|_| {
            let scene = scene.clone();
            spawn(move || {
                let _permit = scene.semaphore.acquire();
                scene.note("in");
                sleep(Duration::from_millis(2));
                scene.note("out");
            })
        })
        .collect();
    joinall(&greenlets);
    let (mut inside, mut most) = (0, 0);
    for what in scene.log() {
        inside += if what == "in" { 1 } else { -1 };
        most = most.max(inside);
    }
    assert_eq!(most, 3);
    assert_eq!(scene.semaphore.available_permits(), 3);
}

#[test]
fn several_permits_given_back_at_once_wake_as_many_waiters_in_order() {
    let scene = Scene::with_permits(2);
    let permits = [scene.semaphore.acquire(), scene.semaphore.acquire()];
    let waiters: Vec<_> = ["a", "b", "c"].map(|name| scene.spawn_waiter(name)).into();
    yield_now();
    drop(permits);
    joinall(&waiters);
    assert_eq!(scene.log(), ["a", "b", "c"]);
    assert_eq!(scene.semaphore.available_permits(), 2);
}

#[test]
fn try_acquire_does_not_wait() {
    let semaphore = Semaphore::new(1);
    let permit = semaphore.try_acquire();
    assert!(permit.is_some());
    assert!(semaphore.try_acquire().is_none());
    drop(permit);
    assert!(semaphore.try_acquire().is_some());
}

#[test]
fn the_running_greenlet_may_take_a_permit_before_a_woken_waiter() {
    let scene = Scene::with_permits(1);
    let permit = scene.semaphore.acquire();
    let waiters: Vec<_> = ["a", "b"].map(|name| scene.spawn_waiter(name)).into();
    yield_now();
    drop(permit);
    let permit = scene.semaphore.try_acquire();
    assert!(permit.is_some());
    yield_now();
    assert!(scene.log().is_empty(), "the woken waiter found nothing");
    drop(permit);
    joinall(&waiters);
    assert_eq!(scene.log(), ["a", "b"], "and kept its place");
}

#[test]
fn waiters_keep_their_order_when_two_permits_were_taken_ahead_of_them() {
    let scene = Scene::with_permits(2);
    let permits = [scene.semaphore.acquire(), scene.semaphore.acquire()];
    let waiters: Vec<_> = ["a", "b", "c"].map(|name| scene.spawn_waiter(name)).into();
    yield_now();
    drop(permits);
    let first = scene.semaphore.try_acquire();
    let second = scene.semaphore.try_acquire();
    yield_now();
    assert!(scene.log().is_empty());
    drop(second);
    yield_now();
    drop(first);
    joinall(&waiters);
    assert_eq!(scene.log(), ["a", "b", "c"]);
    assert_eq!(scene.semaphore.available_permits(), 2);
}

#[test]
fn a_wait_for_a_permit_can_time_out() {
    let scene = Scene::with_permits(1);
    let permit = scene.semaphore.acquire();
    assert!(scene.semaphore.acquire_timeout(Duration::from_millis(5)).is_none());
    assert!(scene.semaphore.acquire_timeout(Duration::ZERO).is_none());
    drop(permit);
    assert!(scene.semaphore.acquire_timeout(Duration::ZERO).is_some());
    assert_eq!(scene.semaphore.available_permits(), 1);
}

#[test]
fn a_waiter_that_timed_out_leaves_its_place_to_the_next() {
    let scene = Scene::with_permits(1);
    let permit = scene.semaphore.acquire();
    let impatient = scene.clone();
    let impatient =
        spawn(move || impatient.semaphore.acquire_timeout(Duration::from_millis(1)).is_none());
    let patient = scene.spawn_waiter("patient");
    assert!(impatient.get().unwrap());
    drop(permit);
    patient.join();
    assert_eq!(scene.log(), ["patient"]);
    assert_eq!(scene.semaphore.available_permits(), 1);
}

#[test]
fn with_timeout_ends_a_wait() {
    let scene = Scene::with_permits(1);
    let permit = scene.semaphore.acquire();
    let waits = || drop(scene.semaphore.acquire());
    assert!(with_timeout(Duration::from_millis(5), waits).is_err());
    drop(permit);
    assert!(with_timeout(Duration::from_secs(60), waits).is_ok());
    assert_eq!(scene.semaphore.available_permits(), 1);
}

#[test]
fn a_killed_waiter_takes_no_permit() {
    let scene = Scene::with_permits(1);
    let permit = scene.semaphore.acquire();
    let victim = scene.spawn_waiter("victim");
    let next = scene.spawn_waiter("next");
    yield_now();
    victim.kill();
    drop(permit);
    next.join();
    assert_eq!(scene.log(), ["next"]);
    assert_eq!(scene.semaphore.available_permits(), 1);
}

#[test]
fn kill_and_then_release_keeps_the_permit() {
    let scene = Scene::with_permits(1);
    let permit = scene.semaphore.acquire();
    let victim = scene.spawn_waiter("victim");
    let next = scene.spawn_waiter("next");
    yield_now();
    // The victim has been woken to die, and is still in the queue when the permit comes back.
    victim.kill_nowait();
    drop(permit);
    next.join();
    assert_eq!(scene.log(), ["next"]);
    assert_eq!(scene.semaphore.available_permits(), 1);
}

#[test]
fn release_and_then_kill_gives_the_victim_its_permit_and_takes_it_back() {
    let scene = Scene::with_permits(1);
    let permit = scene.semaphore.acquire();
    let victim = scene.clone();
    let victim = spawn(move || {
        let _permit = victim.semaphore.acquire();
        victim.note("victim");
        sleep(Duration::from_secs(60));
    });
    let next = scene.spawn_waiter("next");
    yield_now();
    drop(permit);
    victim.kill_nowait();
    next.join();
    assert_eq!(scene.log(), ["victim", "next"]);
    assert!(victim.is_finished());
    assert_eq!(scene.semaphore.available_permits(), 1);
}

#[test]
fn a_panic_gives_the_permit_back() {
    let scene = Scene::with_permits(1);
    let holder = scene.clone();
    let holder = spawn(move || {
        let _permit = holder.semaphore.acquire();
        sleep(Duration::from_millis(1));
        panic!("while it holds a permit");
    });
    let waiter = scene.spawn_waiter("waiter");
    waiter.join();
    assert!(holder.get().is_err());
    assert_eq!(scene.semaphore.available_permits(), 1);
}

#[test]
fn a_deadlock_leaves_a_semaphore_that_works() {
    let semaphore = Semaphore::new(0);
    let stuck = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        drop(semaphore.acquire());
    }));
    let message = *stuck.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("waits for a permit of a semaphore"), "{message}");
    assert_eq!(format!("{semaphore:?}"), "Semaphore { permits: Cell { value: 0 }, waiters: 0 }");
}

#[test]
fn no_permit_is_lost_however_waits_end() {
    const PERMITS: usize = 3;
    let scene = Scene::with_permits(PERMITS);
    // A small generator of numbers: the same run every time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let greenlets: Vec<_> = (0..300)
        .map(|_| {
            let (scene, how, pause) = (scene.clone(), random(4), random(400));
            spawn(move || {
                let hold = || sleep(Duration::from_micros(pause));
                sleep(Duration::from_micros(pause * 7));
                let patience = Duration::from_micros(pause * 3);
                match how {
                    0 => drop(scene.semaphore.try_acquire().map(|permit| (hold(), permit))),
                    1 => drop(
                        scene.semaphore.acquire_timeout(patience).map(|permit| (hold(), permit)),
                    ),
                    2 => drop(with_timeout(patience, || {
                        let _permit = scene.semaphore.acquire();
                        hold();
                    })),
                    _ => {
                        let _permit = scene.semaphore.acquire();
                        hold();
                    }
                }
            })
        })
        .collect();
    for victim in greenlets.iter().step_by(5) {
        sleep(Duration::from_micros(random(100)));
        victim.kill_nowait();
    }
    joinall(&greenlets);
    assert_eq!(scene.semaphore.available_permits(), PERMITS);
}

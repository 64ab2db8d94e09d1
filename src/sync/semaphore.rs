//! A counting semaphore.
//!
//! The waiters stand in a queue until they have a permit or give up. One rule keeps every wake-up:
//! with `n` permits left, the first `n` waiters of the queue have been woken. Whatever adds a
//! permit or takes a waiter out of the queue restores it ([`Semaphore::wake_the_first`]), and a
//! waiter that runs takes a permit only if it is among those first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::hub::hub;
use crate::hub::park::{Kill, Ticket};
use crate::hub::reason::Reason;
use crate::hub::record::Wake;

/// What the deadlock report says of a waiter.
const REASON: Reason = Reason::Named("a permit of a semaphore");

/// Where nothing can unwind, a kill can't end `acquire`, which has no error to return.
const KILL: Kill = if cfg!(panic = "abort") { Kill::Deferred } else { Kill::Delivered };

/// A number of permits that greenlets of one OS thread acquire and give back: gevent's
/// `Semaphore`.
///
/// Waiters are woken first come, first served. A permit that is free goes to whoever asks for it
/// first, though: a greenlet that is running may take it before a waiter that was woken has come
/// to run, and the waiter keeps its place in the queue (barging, as in gevent).
///
/// # Examples
///
/// ```
/// use greenling::sync::Semaphore;
/// use std::rc::Rc;
/// use std::time::{Duration, Instant};
///
/// // Ten greenlets that sleep for 10 ms, five at a time.
/// let semaphore = Rc::new(Semaphore::new(5));
/// let start = Instant::now();
/// let greenlets: Vec<_> = (0..10)
///     .map(|_| {
///         let semaphore = semaphore.clone();
///         greenling::spawn(move || {
///             let _permit = semaphore.acquire();
///             greenling::sleep(Duration::from_millis(10));
///         })
///     })
///     .collect();
/// greenling::joinall(&greenlets);
/// assert!(start.elapsed() >= Duration::from_millis(20));
/// ```
///
/// It belongs to one hub, so it does not leave its OS thread:
///
/// ```compile_fail
/// fn check<T: Send>(_: T) {}
/// check(greenling::sync::Semaphore::new(1));
/// ```
pub struct Semaphore {
    /// How many permits are left.
    permits: Cell<usize>,
    /// Who waits for one, in the order in which they came.
    waiters: RefCell<VecDeque<Waiter>>,
}

/// A greenlet in the queue.
struct Waiter {
    /// Its present park.
    ticket: Ticket,
    /// Whether that park has been ended: the greenlet is about to look for its permit.
    woken: bool,
}

impl Semaphore {
    /// A semaphore with this many permits.
    pub const fn new(permits: usize) -> Semaphore {
        Semaphore { permits: Cell::new(permits), waiters: RefCell::new(VecDeque::new()) }
    }

    /// Takes a permit, and waits for one if none is left. Dropping it gives it back.
    ///
    /// # Panics
    ///
    /// In the main greenlet, if nothing is left that could ever give a permit back: a deadlock, as
    /// in [`GreenletRef::join`](crate::GreenletRef::join).
    ///
    /// # Cancellation
    ///
    /// A kill point. No permit is lost by a kill or a timeout: a waiter that had been given one
    /// first returns with it, and gives it back when it unwinds at its next kill point.
    pub fn acquire(&self) -> SemaphorePermit<'_> {
        self.acquire_until(None).expect("a wait without a deadline ends with a permit")
    }

    /// Takes a permit, and waits for at most `timeout` if none is left. None if there still is
    /// none then.
    ///
    /// # Cancellation
    ///
    /// As [`acquire`](Semaphore::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Option<SemaphorePermit<'_>> {
        self.acquire_until(crate::time::after(timeout))
    }

    /// Takes a permit if one is left, without waiting: also ahead of greenlets that wait.
    pub fn try_acquire(&self) -> Option<SemaphorePermit<'_>> {
        let left = self.permits.get().checked_sub(1)?;
        self.permits.set(left);
        Some(SemaphorePermit { semaphore: self })
    }

    /// How many permits are left.
    pub fn available_permits(&self) -> usize {
        self.permits.get()
    }

    /// Takes a permit, and waits for one until `deadline`. Suspends.
    fn acquire_until(&self, deadline: Option<Instant>) -> Option<SemaphorePermit<'_>> {
        if let Some(permit) = self.try_acquire() {
            return Some(permit);
        }
        let mut place = Place::at_the_end(self);
        loop {
            let wake = hub().park(REASON, KILL, deadline);
            if wake != Wake::Ready {
                drop(place);
                hub().surface(wake, REASON);
                return None;
            }
            if place.index() < self.permits.get() {
                return self.try_acquire();
            }
            place.wait_again();
        }
    }

    /// Wakes as many of the first waiters as there are permits, unless they are woken already.
    fn wake_the_first(&self) {
        let permits = self.permits.get();
        for waiter in self.waiters.borrow_mut().iter_mut().take(permits) {
            if !waiter.woken {
                waiter.woken = true;
                hub().unpark(waiter.ticket.clone(), Wake::Ready);
            }
        }
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("permits", &self.permits)
            .field("waiters", &self.waiters.borrow().len())
            .finish()
    }
}

/// A permit of a [`Semaphore`]. Dropping it gives it back.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once guards nothing"]
pub struct SemaphorePermit<'a> {
    /// Where the permit is from.
    semaphore: &'a Semaphore,
}

impl Drop for SemaphorePermit<'_> {
    fn drop(&mut self) {
        self.semaphore.permits.set(self.semaphore.permits.get() + 1);
        self.semaphore.wake_the_first();
    }
}

/// The running greenlet's place in the queue, which it leaves however its wait ends.
struct Place<'a> {
    /// Whose queue it is.
    semaphore: &'a Semaphore,
    /// What the waiter is found by.
    ticket: Ticket,
}

impl<'a> Place<'a> {
    /// Queues the running greenlet behind all others.
    fn at_the_end(semaphore: &'a Semaphore) -> Place<'a> {
        let ticket = hub().ticket();
        let waiter = Waiter { ticket: ticket.clone(), woken: false };
        semaphore.waiters.borrow_mut().push_back(waiter);
        Place { semaphore, ticket }
    }

    /// How many wait ahead of this place.
    fn index(&self) -> usize {
        let waiters = self.semaphore.waiters.borrow();
        let index = waiters.iter().position(|waiter| waiter.ticket.is(&self.ticket));
        index.expect("only a place's owner takes its waiter out of the queue")
    }

    /// Prepares the place for another park.
    fn wait_again(&mut self) {
        let index = self.index();
        self.ticket = hub().ticket();
        self.semaphore.waiters.borrow_mut()[index] =
            Waiter { ticket: self.ticket.clone(), woken: false };
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let index = self.index();
        self.semaphore.waiters.borrow_mut().remove(index);
        self.semaphore.wake_the_first();
    }
}

//! The hub's loop: run what is ready, look at the fds, the mailbox and the clock, sleep if there
//! is nothing to do.
//!
//! It runs on the OS thread's own stack, in the place where the main greenlet blocks, until the
//! main greenlet is woken.

use std::time::{Duration, Instant};

use crate::hub::core::Hub;
use crate::hub::park::Due;
use crate::hub::record::{RecordRef, State, Wake};

/// How many greenlets of the run queue run between two looks at the fds and the clock. std's listen
/// backlog is 128: an accepting greenlet must get its turn before twice this many others have
/// connected.
const RESUMES_PER_TURN: u32 = 64;

/// How long a stack has to be free before its memory is given back, in nanoseconds.
const TRIM_PERIOD: u64 = 5_000_000_000;

impl Hub {
    /// Runs the others until the main greenlet is at the head of the run queue.
    #[cold]
    #[inline(never)]
    pub(crate) fn run_until_main(&self) {
        loop {
            while let Some(greenlet) = self.next_to_run() {
                if greenlet.is(&self.main) {
                    greenlet.state.set(State::Running);
                    return self.set_running(greenlet);
                }
                self.resume(greenlet);
            }
            self.turn();
        }
    }

    /// The greenlet whose turn it is; None when it is time to look at the fds and the clock.
    ///
    /// Those whose fd has become ready go first, as in gevent, and are limited by what one poll
    /// reports. An accepting greenlet would otherwise stand behind every client that is ready to
    /// connect.
    #[inline]
    fn next_to_run(&self) -> Option<RecordRef> {
        if let Some(greenlet) = self.woken.pop() {
            return Some(greenlet);
        }
        let resumed = self.resumed.get();
        if resumed == RESUMES_PER_TURN {
            return None;
        }
        self.resumed.set(resumed + 1);
        self.ready.pop()
    }

    /// Sees to it that the fds and the clock are looked at before anybody else of the run queue
    /// runs.
    pub(crate) fn end_turn(&self) {
        self.resumed.set(RESUMES_PER_TURN);
    }

    /// Collects what has happened since the last turn; sleeps first if nothing is ready. I/O
    /// before timers: where data and an overdue deadline meet, data wins.
    fn turn(&self) {
        self.resumed.set(0);
        if !self.ready.is_empty() {
            if self.reactor.waiting() > 0 {
                self.poll(Some(Duration::ZERO));
            }
        } else if self.mailbox.fall_asleep() {
            if self.stacks.has_spare() {
                self.trim_stacks();
            }
            match self.time_to_sleep() {
                Some(timeout) => self.poll(timeout),
                None => self.deadlock(),
            }
            self.mailbox.wake_up();
        }
        if self.mailbox.has_messages() {
            self.mailbox.take(|ticket| self.unpark_local(ticket));
        }
        self.expire();
    }

    /// How long nothing can happen but I/O and messages: None if nothing can happen at all.
    fn time_to_sleep(&self) -> Option<Option<Duration>> {
        if let Some(deadline) = self.timers.borrow().next_deadline() {
            let now = self.nanos(Instant::now());
            return Some(Some(Duration::from_nanos(deadline.saturating_sub(now))));
        }
        let may_be_woken = self.reactor.waiting() > 0
            || self.remote_waits.get() > 0
            || (self.futex_waits.get() > 0 && super::report::has_other_threads());
        may_be_woken.then_some(None)
    }

    /// Gives memory back that a burst of greenlets has left, if the last look at it was a while
    /// ago.
    #[cold]
    fn trim_stacks(&self) {
        let now = self.nanos(Instant::now());
        if now - self.trimmed.get() >= TRIM_PERIOD && !self.stacks.trim_unused() {
            self.trimmed.set(now);
        }
    }

    /// Wakes whoever waits for an fd that has become ready.
    fn poll(&self, timeout: Option<Duration>) {
        self.reactor.poll(timeout, |ticket, wake| self.unpark_to(&self.woken, ticket, wake));
    }

    /// Does what is due.
    fn expire(&self) {
        if self.timers.borrow().is_empty() {
            return;
        }
        let now = self.nanos(Instant::now());
        let mut due = self.due.take();
        self.timers.borrow_mut().expire(now, &mut due);
        for (_, due) in due.drain(..) {
            match due {
                Due::Unpark(ticket) => self.unpark(ticket, Wake::TimedOut),
                Due::Expire(greenlet, timeout) => self.expire_timeout(&greenlet, timeout),
                Due::Start(greenlet) if greenlet.is_finished() => {}
                Due::Start(greenlet) => self.ready.push(greenlet),
            }
        }
        self.due.replace(due);
    }

    /// Gives the main greenlet's park up, for nothing could ever end it. The hub stays usable.
    #[cold]
    fn deadlock(&self) {
        self.unpark_greenlet(self.main.clone(), Wake::Deadlock);
    }
}

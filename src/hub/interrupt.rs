//! Kills and timeouts: what ends a greenlet's blocking call from outside.
//!
//! Both stay pending until the greenlet comes to a kill point. greenling's own calls deliver them
//! by unwinding, with a payload that no panic hook sees; a shim fails with an errno, because there
//! are foreign frames below it. A kill stays pending for ever, a timeout until its `with_timeout`
//! returns.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use crate::hub::core::Hub;
use crate::hub::park::Due;
use crate::hub::record::{Record, RecordRef, State, Wake, pending};
use crate::timers::TimerKey;

/// The payload with which a kill or a timeout unwinds a greenlet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The greenlet is being killed: caught where it began.
    Killed,
    /// The `with_timeout` with this number has expired: caught there.
    Expired(u32),
}

/// An open `with_timeout`.
pub(crate) struct Timeout {
    /// Tells it from the greenlet's other ones.
    number: u32,
    /// Its entry in the timers. None once it has expired.
    timer: Option<TimerKey>,
    /// Whether it has been delivered into a blocking call.
    delivered: bool,
}

impl Hub {
    /// Opens a timeout for the running greenlet and tells its number.
    pub(crate) fn open_timeout(&self, deadline: Instant) -> u32 {
        let me = self.current();
        let deadline = self.nanos(deadline);
        me.extras_mut(|extras| {
            extras.timeouts_started += 1;
            let number = extras.timeouts_started;
            let due = Due::Expire(me.clone(), number);
            let timer = Some(self.timers.borrow_mut().insert(deadline, due));
            extras.timeouts.push(Timeout { number, timer, delivered: false });
            number
        })
    }

    /// Closes the innermost timeout of the running greenlet. True if it was delivered.
    pub(crate) fn close_timeout(&self, number: u32) -> bool {
        let me = self.me();
        me.extras_mut(|extras| {
            let timeout = extras.timeouts.pop().expect("each timeout is closed once");
            assert_eq!(timeout.number, number, "timeouts are closed innermost first");
            if let Some(timer) = timeout.timer {
                self.timers.borrow_mut().cancel(timer);
            }
            let expired = extras.timeouts.iter().any(|timeout| timeout.timer.is_none());
            me.set_pending(pending::EXPIRY, expired);
            timeout.delivered
        })
    }

    /// A timeout is due: from now on the greenlet's blocking calls fail.
    pub(crate) fn expire_timeout(&self, greenlet: &RecordRef, number: u32) {
        let open = greenlet.extras_mut(|extras| {
            let timeout = extras.timeouts.iter_mut().find(|timeout| timeout.number == number);
            timeout.map(|timeout| timeout.timer = None).is_some()
        });
        if open {
            greenlet.set_pending(pending::EXPIRY, true);
            self.interrupt(greenlet, Wake::Expired);
        }
    }

    /// Asks a greenlet to end: at once if it never ran, else at its next kill point.
    pub(crate) fn kill(&self, greenlet: &RecordRef) {
        match greenlet.state.get() {
            State::Finished => {}
            State::Unstarted => {
                // Finished before the function is dropped, so that code run by the drop sees a
                // greenlet that can't be run or cancelled any more.
                greenlet.state.set(State::Finished);
                if let Some(start) = greenlet.extras(|extras| extras.start).flatten() {
                    let due = self.timers.borrow_mut().cancel(start);
                    drop(due);
                }
                // SAFETY: the state was Unstarted, so the function was neither run nor dropped.
                let dropped = catch_unwind(AssertUnwindSafe(|| unsafe { greenlet.cancel() }));
                self.finish(greenlet);
                if let Err(payload) = dropped {
                    resume_unwind(payload);
                }
            }
            State::Running | State::Ready | State::Parked => {
                greenlet.set_pending(pending::KILL, true);
                self.interrupt(greenlet, Wake::Killed);
            }
        }
    }

    /// Ends the greenlet's park if that is a kill point and no shield is open.
    fn interrupt(&self, greenlet: &RecordRef, wake: Wake) {
        let parked = greenlet.state.get() == State::Parked;
        if parked && greenlet.interruptible.get() && greenlet.is_interrupted() {
            self.unpark_greenlet(greenlet.clone(), wake);
        }
    }

    /// Which interruption of `greenlet` is pending: a kill before a timeout.
    pub(crate) fn interruption(&self, greenlet: &Record) -> Wake {
        if greenlet.is_pending(pending::KILL) { Wake::Killed } else { Wake::Expired }
    }

    /// Notes that a blocking call of the running greenlet has failed, or is about to unwind,
    /// because of what is pending, and says what that is: the kill, else the expired timeout
    /// that was opened first.
    pub(crate) fn deliver(&self) -> Interrupt {
        let me = self.me();
        if me.is_pending(pending::KILL) {
            return Interrupt::Killed;
        }
        me.extras_mut(|extras| {
            let expired = extras.timeouts.iter_mut().find(|timeout| timeout.timer.is_none());
            let timeout = expired.expect("an expired timeout is open");
            timeout.delivered = true;
            Interrupt::Expired(timeout.number)
        })
    }

    /// Delivers what is pending by unwinding to where it is caught.
    #[cold]
    pub(crate) fn unwind(&self, wake: Wake) -> Wake {
        let interrupt = self.deliver();
        if cfg!(panic = "abort") {
            return wake;
        }
        resume_unwind(Box::new(interrupt))
    }
}

//! Park and unpark: the two verbs that every blocking call is built on.
//!
//! A park is named by a [`Ticket`]: the greenlet and the number of its park. Whoever may end the
//! park holds a copy of the ticket. The first unpark ends it; the number goes up, and every other
//! copy is stale. Nothing of the hub is borrowed across the switch.

use std::time::Instant;

use crate::hub::core::Hub;
use crate::hub::reason::Reason;
use crate::hub::record::{Record, RecordRef, State, Wake, pending};
use crate::hub::remote::{Mailbox, RemoteTicket};
use crate::hub::run_queue::RunQueue;
use crate::timers::TimerKey;

/// Names one park of one greenlet of the same thread.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    /// The greenlet.
    greenlet: RecordRef,
    /// Which of its parks.
    generation: u32,
}

impl Ticket {
    /// Whether both name the same park.
    pub(crate) fn is(&self, other: &Ticket) -> bool {
        self.generation == other.generation && self.greenlet.is(&other.greenlet)
    }

    /// The ticket of the next park of `greenlet`.
    #[inline]
    pub(crate) fn next_of(greenlet: RecordRef) -> Ticket {
        let generation = greenlet.generation.get();
        Ticket { greenlet, generation }
    }

    /// Gives the ticket up for the reference in it.
    pub(crate) fn into_greenlet(self) -> RecordRef {
        self.greenlet
    }

    /// Whether it is that park of that greenlet.
    pub(crate) fn names(&self, greenlet: &Record, generation: u32) -> bool {
        self.generation == generation && std::ptr::eq(&raw const *self.greenlet, greenlet)
    }
}

/// What a timer does when it is due.
pub(crate) enum Due {
    /// Ends a park with [`Wake::TimedOut`].
    Unpark(Ticket),
    /// Delivers the expiry of the `with_timeout` with this number.
    Expire(RecordRef, u32),
    /// Makes a `spawn_later` ready for its first run.
    Start(RecordRef),
}

/// Whether a kill or an expired timeout ends a park.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kill {
    /// It does: the park is a kill point.
    Delivered,
    /// It stays pending: the caller can't fail.
    Deferred,
}

impl Hub {
    /// The ticket of the next park of the running greenlet.
    #[inline]
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket::next_of(self.current())
    }

    /// The same ticket in the form for other threads.
    pub(crate) fn remote_ticket(&self) -> RemoteTicket {
        let me = self.me();
        RemoteTicket {
            hub: self.id,
            greenlet: me.id.get().to_u64(),
            generation: me.generation.get(),
        }
    }

    /// Suspends the running greenlet until somebody uses the ticket that was taken just before,
    /// or `deadline` passes. Others run meanwhile.
    ///
    /// On a thread that is panicking no switch may happen; see [`Hub::block_thread`].
    #[inline]
    pub(crate) fn park(&self, reason: Reason, kill: Kill, deadline: Option<Instant>) -> Wake {
        match self.begin_park(&reason, kill, deadline) {
            Ok(me) => {
                let running = self.take_running();
                let timer = deadline.map(|deadline| self.unpark_at(deadline, running));
                self.end_park(me, &reason, timer)
            }
            Err(wake) => wake,
        }
    }

    /// The first half of a park: whether it has to suspend at all. Between the halves the caller
    /// takes the running greenlet, to drop its reference or to leave it with whom it waits for.
    ///
    /// # Errors
    ///
    /// Why the park is over at once.
    #[inline(always)]
    pub(crate) fn begin_park(
        &self,
        reason: &Reason,
        kill: Kill,
        deadline: Option<Instant>,
    ) -> Result<&Record, Wake> {
        if std::thread::panicking() {
            return Err(self.block_thread(*reason, deadline));
        }
        let me = self.me();
        me.interruptible.set(kill == Kill::Delivered);
        if me.pending.get() != 0
            && let Some(wake) = self.wake_at_once(me, kill)
        {
            return Err(wake);
        }
        Ok(me)
    }

    /// What is pending for a park that is about to suspend.
    #[cold]
    fn wake_at_once(&self, me: &Record, kill: Kill) -> Option<Wake> {
        let interrupted = kill == Kill::Delivered && me.is_interrupted();
        if !interrupted && !me.is_pending(pending::UNPARK) {
            return None;
        }
        me.generation.set(me.generation.get().wrapping_add(1));
        // It was meant for this park, which is over.
        me.set_pending(pending::UNPARK, false);
        if !interrupted {
            return Some(Wake::Ready);
        }
        // One that ignores its kill must not keep the CPU: it takes its turn before it fails.
        self.yield_now();
        Some(self.interruption(me))
    }

    /// Ends the next park of `greenlet` with [`Wake::TimedOut`] at `deadline`.
    #[inline(never)]
    pub(crate) fn unpark_at(&self, deadline: Instant, greenlet: RecordRef) -> TimerKey {
        let due = Due::Unpark(Ticket::next_of(greenlet));
        self.timers.borrow_mut().insert(self.nanos(deadline), due)
    }

    /// The second half of a park: suspends, and then cancels the timer if it was not that which
    /// ended the park. The caller has taken the running greenlet, `me`.
    #[inline(always)]
    pub(crate) fn end_park(&self, me: &Record, reason: &Reason, timer: Option<TimerKey>) -> Wake {
        me.reason.set(reason);
        me.state.set(State::Parked);
        self.suspend(me);
        let wake = me.wake.get();
        if let Some(timer) = timer
            && wake != Wake::TimedOut
        {
            self.cancel_timer(timer);
        }
        wake
    }

    /// Takes a timer back.
    #[inline(never)]
    pub(crate) fn cancel_timer(&self, timer: TimerKey) {
        self.timers.borrow_mut().cancel(timer);
    }

    /// [`Hub::park`] for greenling's own calls: a kill or an expired timeout unwinds, a deadlock
    /// panics with the report.
    #[inline]
    pub(crate) fn wait(&self, reason: Reason, deadline: Option<Instant>) -> Wake {
        let wake = self.park(reason, Kill::Delivered, deadline);
        self.surface(wake, reason)
    }

    /// What a park's end means for greenling's own calls. Under `panic = "abort"`, where nothing
    /// can unwind, a kill or an expired timeout is returned.
    #[inline]
    pub(crate) fn surface(&self, wake: Wake, reason: Reason) -> Wake {
        match wake {
            Wake::Killed | Wake::Expired => self.unwind(wake),
            Wake::Deadlock => panic!("{}", self.deadlock_report(reason)),
            wake => wake,
        }
    }

    /// Lets every greenlet that is ready run before the running one goes on. Whether a kill or an
    /// expired timeout is pending afterwards.
    ///
    /// Inlined into the caller down to the switch: a `ret` on a stack that was just switched to
    /// is mispredicted, so each call level between here and the switch would cost as much as the
    /// rest.
    #[inline(always)]
    pub(crate) fn yield_now(&self) -> bool {
        if std::thread::panicking() {
            return false;
        }
        let me = self.me();
        me.state.set(State::Ready);
        self.ready.push(self.take_running());
        self.suspend(me);
        me.is_interrupted()
    }

    /// Ends the park that `ticket` names. A stale ticket is ignored.
    #[inline]
    pub(crate) fn unpark(&self, ticket: Ticket, wake: Wake) {
        self.unpark_to(&self.ready, ticket, wake);
    }

    /// [`Hub::unpark`] to one of the hub's two queues.
    #[inline]
    pub(crate) fn unpark_to(&self, queue: &RunQueue, ticket: Ticket, wake: Wake) {
        let Ticket { greenlet, generation } = ticket;
        if generation != greenlet.generation.get() {
            return;
        }
        if greenlet.state.get() == State::Parked {
            greenlet.generation.set(generation.wrapping_add(1));
            greenlet.wake.set(wake);
            greenlet.state.set(State::Ready);
            queue.push(greenlet);
        } else if !greenlet.is_finished() {
            // The wake-up has overtaken the park: the park will return at once.
            greenlet.set_pending(pending::UNPARK, true);
        }
    }

    /// Ends the present park of a greenlet, whatever it waits for.
    #[inline]
    pub(crate) fn unpark_greenlet(&self, greenlet: RecordRef, wake: Wake) {
        self.unpark(Ticket::next_of(greenlet), wake);
    }

    /// Ends a park named by any thread's ticket. From any thread. False if the ticket's hub has
    /// ended, or is just ending.
    pub(crate) fn unpark_remote(here: Option<&Hub>, ticket: RemoteTicket) -> bool {
        match here {
            Some(hub) if hub.id == ticket.hub => {
                hub.unpark_local(ticket);
                true
            }
            _ => Mailbox::post(ticket),
        }
    }

    /// Ends a park that a message of the mailbox names.
    pub(crate) fn unpark_local(&self, ticket: RemoteTicket) {
        if ticket.hub != self.id {
            return;
        }
        if let Some(greenlet) = self.greenlet(ticket.greenlet)
            && greenlet.generation.get() == ticket.generation
        {
            self.unpark_greenlet(greenlet, Wake::Ready);
        }
    }

    /// Switches away from the running greenlet until it is its turn again.
    #[inline(always)]
    fn suspend(&self, me: &Record) {
        let suspender = me.suspender.get();
        if suspender.is_null() {
            self.run_until_main();
        } else {
            // SAFETY: a record's suspender lives in the first frame of its fiber (set in
            // `Hub::start`), and this code runs on that fiber.
            unsafe { (*suspender).suspend() }
        }
    }
}

//! The hub: the scheduler of one OS thread.
//!
//! It owns the run queue, the timers, the reactor, the mailbox and the stacks, and knows every
//! live greenlet. Everything in it is reached through shared references with cells inside, and no
//! borrow of a cell is ever held across a switch.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::fiber::{Fiber, Resume};
use crate::hub::park::{Due, Ticket};
use crate::hub::reactor::Reactor;
use crate::hub::record::{Record, RecordRef, State, Wake};
use crate::hub::remote::Mailbox;
use crate::hub::run_queue::RunQueue;
use crate::slab::{Id, Slab};
use crate::stack::Stacks;
use crate::timers::Timers;

/// How many operations on always-ready fds a greenlet may do before others get their turn.
const IO_BUDGET: u32 = 256;

/// The scheduler of one OS thread.
pub(crate) struct Hub {
    /// The greenlets that are ready, in order.
    pub(crate) ready: RunQueue,
    /// The greenlets whose fd has become ready, in order. They go first.
    pub(crate) woken: RunQueue,
    /// What is due when, in nanoseconds since `epoch`.
    pub(crate) timers: RefCell<Timers<Due>>,
    /// Who waits for which fd.
    pub(crate) reactor: Reactor,
    /// The way in from other threads.
    pub(crate) mailbox: &'static Mailbox,
    /// What the hub's tickets carry: its mailbox, and which of the mailbox's hubs it is.
    pub(crate) id: u64,
    /// The stacks of the greenlets.
    pub(crate) stacks: Stacks,
    /// Every greenlet that is not finished, by id; the main greenlet is the first.
    pub(crate) greenlets: RefCell<Slab<RecordRef>>,
    /// The OS thread's own stack.
    pub(crate) main: RecordRef,
    /// The greenlet that is on the CPU; None while the hub itself is. The reference is the one
    /// that was in the run queue, so that a yield moves it and counts nothing.
    running: Cell<Option<RecordRef>>,
    /// How many greenlets of `ready` were taken since the last turn.
    pub(crate) resumed: Cell<u32>,
    /// How many more operations on ready fds the running greenlet may do before it yields.
    io_budget: Cell<u32>,
    /// How many greenlets wait for something that comes from another thread.
    pub(crate) remote_waits: Cell<usize>,
    /// How many greenlets wait in a lock of std, which another thread may or may not hold.
    pub(crate) futex_waits: Cell<usize>,
    /// Where the timers' clock begins.
    epoch: Instant,
    /// Whether this is the copy of a hub in a forked child. Only a frame from before the fork can
    /// still see it.
    pub(crate) forked: Cell<bool>,
    /// When the stacks were trimmed last, in nanoseconds since `epoch`.
    pub(crate) trimmed: Cell<u64>,
    /// Where timers that are due are collected; kept for its memory.
    pub(crate) due: RefCell<Vec<(u64, Due)>>,
}

impl Hub {
    /// A hub for the calling thread, which becomes its main greenlet.
    pub(crate) fn new(main: RecordRef) -> io::Result<Hub> {
        let mailbox = Mailbox::acquire()?;
        let reactor = Reactor::new(mailbox.event_fd()).inspect_err(|_| mailbox.vacate())?;
        let mut greenlets = Slab::new();
        main.id.set(greenlets.insert(main.clone()));
        main.state.set(State::Running);
        Ok(Hub {
            ready: RunQueue::new(),
            woken: RunQueue::new(),
            timers: RefCell::new(Timers::new()),
            reactor,
            id: mailbox.hub_id(),
            mailbox,
            stacks: Stacks::new(),
            greenlets: RefCell::new(greenlets),
            running: Cell::new(Some(main.clone())),
            main,
            resumed: Cell::new(0),
            io_budget: Cell::new(IO_BUDGET),
            remote_waits: Cell::new(0),
            futex_waits: Cell::new(0),
            epoch: Instant::now(),
            forked: Cell::new(false),
            trimmed: Cell::new(0),
            due: RefCell::new(Vec::new()),
        })
    }

    /// The record of the greenlet that calls.
    ///
    /// # Panics
    ///
    /// If the hub itself calls: it must never wait.
    #[inline]
    pub(crate) fn me(&self) -> &Record {
        // SAFETY: nothing is moved into or out of the cell while it is looked at. The record
        // outlives the caller's frames, whatever happens to the cell later: a greenlet stays in
        // the table `greenlets` until its fiber has ended, the main greenlet as long as the hub.
        let running = unsafe { (*self.running.as_ptr()).as_ref() };
        match running {
            // SAFETY: as above.
            Some(running) => unsafe { running.as_ptr().as_ref() },
            None => hub_would_wait(),
        }
    }

    /// The greenlet that calls, counted.
    #[inline]
    pub(crate) fn current(&self) -> RecordRef {
        let running = self.running.take();
        self.running.set(running.clone());
        running.unwrap_or_else(|| hub_would_wait())
    }

    /// Whether a greenlet is on the CPU, not the hub.
    #[inline]
    pub(crate) fn in_greenlet(&self) -> bool {
        // SAFETY: nothing is moved into or out of the cell while it is looked at.
        unsafe { (*self.running.as_ptr()).is_some() }
    }

    /// Whether the main greenlet, so the OS thread's own stack, is on the CPU.
    pub(crate) fn in_main(&self) -> bool {
        self.in_greenlet() && std::ptr::eq(self.me(), &raw const *self.main)
    }

    /// Takes the CPU from the running greenlet; from here on the hub is on it.
    #[inline]
    pub(crate) fn take_running(&self) -> RecordRef {
        self.running.take().unwrap_or_else(|| hub_would_wait())
    }

    /// Gives the CPU to a greenlet.
    #[inline]
    pub(crate) fn set_running(&self, greenlet: RecordRef) {
        let idle = self.running.replace(Some(greenlet));
        debug_assert!(idle.is_none(), "two greenlets on one CPU");
        // It is None, which the compiler can't know; forgetting it drops the drop.
        std::mem::forget(idle);
        self.io_budget.set(IO_BUDGET);
    }

    /// The live greenlet with this id.
    pub(crate) fn greenlet(&self, id: u64) -> Option<RecordRef> {
        self.greenlets.borrow().get(Id::from_u64(id)).cloned()
    }

    /// `instant` on the timers' clock.
    #[inline]
    pub(crate) fn nanos(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes a new greenlet in. It becomes ready at once, or at `start` if there is one.
    #[inline]
    pub(crate) fn spawn(&self, greenlet: RecordRef, start: Option<Instant>) {
        greenlet.id.set(self.greenlets.borrow_mut().insert(greenlet.clone()));
        match start {
            None => self.ready.push(greenlet),
            Some(start) => {
                let start = self.nanos(start);
                let due = Due::Start(greenlet.clone());
                let timer = self.timers.borrow_mut().insert(start, due);
                greenlet.extras_mut(|extras| extras.start = Some(timer));
            }
        }
    }

    /// Runs a greenlet from the run queue until it suspends or ends. Only for the hub's loop.
    #[inline(always)]
    pub(crate) fn resume(&self, greenlet: RecordRef) {
        match greenlet.state.get() {
            State::Ready => {}
            State::Unstarted if self.start(&greenlet) => {}
            // Killed before it ran, or no stack was to be had.
            _ => return,
        }
        greenlet.state.set(State::Running);
        let fiber = greenlet.fiber.get();
        self.set_running(greenlet);
        // SAFETY: only the hub touches a record's fiber, and it is not inside another call for
        // this one, since the greenlet was not running. `start` has put the fiber there. The table
        // `greenlets` keeps the record alive until `ended`.
        let ended = unsafe { (*fiber).as_mut().unwrap_unchecked() }.resume(Resume::Run);
        if ended {
            self.ended();
        }
    }

    /// The fiber of the running greenlet has ended.
    #[inline(never)]
    fn ended(&self) {
        if self.forked.get() {
            // This was the greenlet that forked, in the child: the only thread there is has come to
            // its end, and that ends the process. The others are the parent's.
            std::process::exit(0);
        }
        let greenlet = self.take_running();
        // SAFETY: only the hub touches a record's fiber, and nothing runs on it any more.
        let fiber = unsafe { (*greenlet.fiber.get()).take() };
        if let Some(fiber) = fiber {
            self.stacks.release(fiber.into_stack());
        }
        self.finish(&greenlet);
    }

    /// Gives an unstarted greenlet its stack. False if none is to be had: then it has ended.
    #[inline(never)]
    fn start(&self, greenlet: &RecordRef) -> bool {
        let stack_size = greenlet.extras(|extras| extras.stack_size).flatten();
        let stack = match self.stacks.acquire(stack_size) {
            Ok(stack) => stack,
            Err(error) => {
                return self.no_stack(greenlet, error);
            }
        };
        let record = greenlet.as_ptr();
        let fiber = Fiber::new(stack, move |suspender| {
            // SAFETY: the hub's table `greenlets` holds a reference to the record until `finish`,
            // which comes after the fiber has ended. The greenlet was never run before: its state
            // was Unstarted.
            unsafe {
                record.as_ref().suspender.set(suspender);
                let borrowed = std::mem::ManuallyDrop::new(RecordRef::from_counted(record));
                borrowed.run();
            }
        });
        // SAFETY: only the hub touches a record's fiber, and there was none.
        unsafe { *greenlet.fiber.get() = Some(fiber) };
        true
    }

    /// Ends an unstarted greenlet for which there is no stack.
    #[cold]
    fn no_stack(&self, greenlet: &RecordRef, error: io::Error) -> bool {
        crate::report!("greenlet '{}' can't start: {error}", greenlet.display_name());
        // As in `kill`: finished before user code runs. That may neither wait, for the hub is on
        // the CPU, nor unwind into the hub. The payload's destructor may panic, too.
        greenlet.state.set(State::Finished);
        // SAFETY: the state was Unstarted (`resume`), so the function was neither run nor dropped.
        let dropped = catch_unwind(AssertUnwindSafe(|| unsafe { greenlet.cancel() }));
        std::mem::forget(dropped);
        self.finish(greenlet);
        false
    }

    /// The greenlet's result is there: tells whoever waits for it.
    #[inline]
    pub(crate) fn finish(&self, greenlet: &RecordRef) {
        greenlet.state.set(State::Finished);
        let live = self.greenlets.borrow_mut().remove(greenlet.id.get());
        debug_assert!(live.is_some(), "a greenlet ended twice");
        while let Some(ticket) = greenlet.pop_joiner() {
            self.unpark(ticket, Wake::Ready);
        }
    }

    /// Gives the CPU back to the greenlet it was taken from a moment ago, for a park that is over
    /// before it began. Nobody else ran, so what is left of its I/O budget stays.
    #[inline]
    pub(crate) fn keep_running(&self, greenlet: RecordRef) {
        let budget = self.io_budget.get();
        self.set_running(greenlet);
        self.io_budget.set(budget);
    }

    /// Counts an operation on an fd that did not wait. True if the greenlet should yield now, so
    /// that an fd that is always ready does not starve the others.
    #[inline]
    pub(crate) fn spend_io_budget(&self) -> bool {
        let left = self.io_budget.get();
        if left == 0 {
            self.io_budget.set(IO_BUDGET);
            // Of the others, some wait for fds and for the clock.
            self.end_turn();
            return true;
        }
        self.io_budget.set(left - 1);
        false
    }
}

/// The hub has made a blocking call.
#[cold]
fn hub_would_wait() -> ! {
    panic!("the hub itself made a blocking call; this is a bug of greenling")
}

impl Record {
    /// Takes the first of those who wait for the end of the greenlet.
    #[inline]
    fn pop_joiner(&self) -> Option<Ticket> {
        self.joiners.borrow_mut().pop()
    }
}

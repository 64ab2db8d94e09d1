//! The record of a greenlet: what the hub knows of it, and a counted pointer to it.
//!
//! One allocation holds the record and, behind it, the greenlet's function or result (typed, so
//! reached through [`VTable`]). A record is reached from the run queue, wait lists, timers and
//! handles, all on its own OS thread: the pointer is counted without atomics and is not `Send`.
//!
//! ```text
//!             spawn                    resume                      returns, panics, is killed
//!   (nothing) -----> Unstarted ------> Running ------------------> Finished
//!                       |  ^           |  ^  ^                        ^
//!                  kill |  | after     |  |  | resume                 |
//!                       |  | a delay   |  |  +--------- Ready         |
//!                       |  +-(timer)   |  |               ^           |
//!                       |              |  | yield_now     | unpark    |
//!                       |              v  |               |           |
//!                       |             park ---------> Parked          |
//!                       +---------------------------------------------+
//! ```

use std::cell::{Cell, RefCell, UnsafeCell};
use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::ptr::NonNull;

use crate::fiber::{Fiber, Suspender};
use crate::hub::interrupt::Timeout;
use crate::hub::park::Ticket;
use crate::hub::reason::Reason;
use crate::slab::Id;
use crate::stack::StackSize;
use crate::timers::TimerKey;
use crate::wait_list::WaitList;

/// Where a greenlet is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Spawned, function not entered. Entered by `spawn`; left by the first resume or by a kill.
    Unstarted,
    /// On the CPU. Entered by the hub's resume (the main greenlet: when its hub loop returns);
    /// left by parking, yielding or ending.
    Running,
    /// In the run queue, waiting for its turn. Entered by unpark and yield; left by resume.
    Ready,
    /// Suspended until an unpark with its current generation. Entered and left only in `park`.
    Parked,
    /// Ended: the result is there. Never left.
    Finished,
}

/// What can be pending for a greenlet's next park.
pub(crate) mod pending {
    /// A kill. Never cleared: every later blocking call fails as well.
    pub(crate) const KILL: u8 = 1;
    /// The expiry of a timeout. Cleared when its `with_timeout` returns.
    pub(crate) const EXPIRY: u8 = 2;
    /// An unpark that has overtaken the park it is meant for, which then returns at once.
    pub(crate) const UNPARK: u8 = 4;
}

/// Why a park ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// What was waited for has happened, or may have.
    Ready,
    /// The park's own deadline passed.
    TimedOut,
    /// The fd that was waited for is being closed.
    Closed,
    /// A kill is pending.
    Killed,
    /// A `with_timeout` around the call has expired.
    Expired,
    /// The fd can't be waited for.
    Unpollable,
    /// Nothing is left that could ever wake the main greenlet: its park is given up.
    Deadlock,
}

/// The typed part of a record, behind a pointer to its untyped part.
pub(crate) struct VTable {
    /// Runs the greenlet's function on the current stack and keeps its result. Does not unwind.
    pub(crate) run: unsafe fn(NonNull<Record>),
    /// Drops the function of an unstarted greenlet and makes its result that of a killed one.
    pub(crate) cancel: unsafe fn(NonNull<Record>),
    /// Moves the result of a finished greenlet to where the pointer points, an
    /// `Option<Result<T, GreenletError>>`; None if it was taken before.
    pub(crate) take: unsafe fn(NonNull<Record>, *mut ()),
    /// Drops what is left of function and result, and frees the record.
    pub(crate) free: unsafe fn(NonNull<Record>),
}

/// What the hub knows of one greenlet.
pub(crate) struct Record {
    /// How many [`RecordRef`]s point here.
    references: Cell<u32>,
    /// Counts the greenlet's parks: a wake-up that carries another number is stale.
    pub(crate) generation: Cell<u32>,
    /// Where the greenlet is in its life.
    pub(crate) state: Cell<State>,
    /// Why the last park ended. Written by unpark, read by the park it ends.
    pub(crate) wake: Cell<Wake>,
    /// Whether a kill or an expired timeout may end the current park.
    pub(crate) interruptible: Cell<bool>,
    /// What the next park has to know before it suspends: an or of the constants of [`pending`].
    /// Nearly always 0, so that a park looks at one byte.
    pub(crate) pending: Cell<u8>,
    /// Whether the typed handle is gone, so that nobody will take the result.
    pub(crate) detached: Cell<bool>,
    /// How many shields are open: while there are any, kills and timeouts stay pending.
    pub(crate) shields: Cell<u8>,
    /// Names the greenlet as long as the hub lives. The hub's table of live greenlets holds it
    /// under this id until it is finished.
    pub(crate) id: Cell<Id>,
    /// The next in the run queue. Written by the run queue alone.
    pub(crate) next: Cell<Option<RecordRef>>,
    /// The typed part.
    vtable: &'static VTable,
    /// The line that spawned the greenlet.
    pub(crate) spawned_at: &'static Location<'static>,
    /// How the running greenlet suspends itself; dangling unless it has a fiber. It lives in the
    /// fiber's first frame.
    pub(crate) suspender: Cell<*const Suspender>,
    /// What the greenlet waits for; dangling unless it is parked. It lives in the frame of `park`.
    pub(crate) reason: Cell<*const Reason>,
    /// The stack with the function on it, from the first resume to the end. Touched only by the
    /// hub, which is never inside two calls of it for one greenlet.
    pub(crate) fiber: UnsafeCell<Option<Fiber>>,
    /// Who waits for the end of the greenlet.
    pub(crate) joiners: RefCell<WaitList<Ticket>>,
    /// What most greenlets don't have. Boxed at first use.
    extras: RefCell<Option<Box<Extras>>>,
}

/// The rarely used part of a record.
#[derive(Default)]
pub(crate) struct Extras {
    /// The name given by `Builder::name`.
    pub(crate) name: Option<Box<str>>,
    /// The stack size asked for by `Builder::stack_size`.
    pub(crate) stack_size: Option<StackSize>,
    /// The timer of a `spawn_later`. Stale once the greenlet has started.
    pub(crate) start: Option<TimerKey>,
    /// The open `with_timeout`s, outermost first.
    pub(crate) timeouts: Vec<Timeout>,
    /// Makes the numbers of `timeouts` unique.
    pub(crate) timeouts_started: u32,
}

impl Record {
    /// A record with one reference, which the caller owns, in the state Unstarted.
    pub(crate) fn new(
        vtable: &'static VTable,
        spawned_at: &'static Location<'static>,
        extras: Option<Box<Extras>>,
    ) -> Record {
        Record {
            references: Cell::new(1),
            generation: Cell::new(0),
            state: Cell::new(State::Unstarted),
            wake: Cell::new(Wake::Ready),
            interruptible: Cell::new(false),
            pending: Cell::new(0),
            detached: Cell::new(false),
            shields: Cell::new(0),
            id: Cell::new(Id::from_u64(0)),
            next: Cell::new(None),
            vtable,
            spawned_at,
            suspender: Cell::new(std::ptr::null()),
            reason: Cell::new(std::ptr::null()),
            fiber: UnsafeCell::new(None),
            joiners: RefCell::new(WaitList::new()),
            extras: RefCell::new(extras),
        }
    }

    /// Whether the greenlet has ended.
    #[inline]
    pub(crate) fn is_finished(&self) -> bool {
        self.state.get() == State::Finished
    }

    /// Gives up the frames of a greenlet that can't be unwound. Its stack is never used again.
    pub(crate) fn abandon(&self) {
        // SAFETY: only the hub touches a record's fiber, and the greenlet is not running.
        if let Some(fiber) = unsafe { (*self.fiber.get()).take() } {
            fiber.abandon();
        }
    }

    /// Looks into the extras without making them.
    pub(crate) fn extras<R>(&self, look: impl FnOnce(&Extras) -> R) -> Option<R> {
        self.extras.borrow().as_deref().map(look)
    }

    /// Looks into the extras if there are any and nobody is changing them: for signal handlers.
    pub(crate) fn try_extras<R>(&self, look: impl FnOnce(&Extras) -> R) -> Option<R> {
        self.extras.try_borrow().ok()?.as_deref().map(look)
    }

    /// Changes the extras, which are made if need be.
    pub(crate) fn extras_mut<R>(&self, change: impl FnOnce(&mut Extras) -> R) -> R {
        change(self.extras.borrow_mut().get_or_insert_default())
    }

    /// Whether something of `what`, constants of [`pending`], is pending.
    #[inline]
    pub(crate) fn is_pending(&self, what: u8) -> bool {
        self.pending.get() & what != 0
    }

    /// Notes that `what` is pending from now on, or no longer.
    pub(crate) fn set_pending(&self, what: u8, yes: bool) {
        let others = self.pending.get() & !what;
        self.pending.set(if yes { others | what } else { others });
    }

    /// Whether a kill or an expired timeout is to be delivered at a kill point.
    #[inline]
    pub(crate) fn is_interrupted(&self) -> bool {
        self.is_pending(pending::KILL | pending::EXPIRY) && self.shields.get() == 0
    }

    /// The name to show: the given one, or `Greenlet-N` with the greenlet's number.
    pub(crate) fn display_name(&self) -> String {
        match self.extras(|extras| extras.name.as_deref().map(str::to_owned)).flatten() {
            Some(name) => name,
            None => format!("Greenlet-{}", self.id.get().index()),
        }
    }
}

/// A counted pointer to a [`Record`].
pub(crate) struct RecordRef(NonNull<Record>);

impl RecordRef {
    /// Takes over a reference that was counted before.
    ///
    /// # Safety
    ///
    /// `record` is the start of a live allocation that its vtable's `free` can free, and the
    /// caller owns one of its counted references.
    #[inline]
    pub(crate) unsafe fn from_counted(record: NonNull<Record>) -> RecordRef {
        RecordRef(record)
    }

    /// The pointer, for code that knows the type behind it.
    #[inline]
    pub(crate) fn as_ptr(&self) -> NonNull<Record> {
        self.0
    }

    /// Whether both point to one greenlet.
    #[inline]
    pub(crate) fn is(&self, other: &RecordRef) -> bool {
        self.0 == other.0
    }

    /// Whether there is no other reference.
    #[inline]
    pub(crate) fn is_last(&self) -> bool {
        self.references.get() == 1
    }

    /// Runs the greenlet's function on the current stack, to its end.
    ///
    /// # Safety
    ///
    /// The greenlet was never run and never cancelled.
    #[inline]
    pub(crate) unsafe fn run(&self) {
        // SAFETY: the vtable belongs to this record; the rest is the caller's promise.
        unsafe { (self.vtable.run)(self.0) }
    }

    /// Takes the result of a finished greenlet.
    ///
    /// # Safety
    ///
    /// The greenlet is finished, and `R` is the `Option<Result<T, GreenletError>>` for the type
    /// it was spawned with.
    pub(crate) unsafe fn take<R>(&self) -> R {
        let mut result = std::mem::MaybeUninit::<R>::uninit();
        // SAFETY: `take` of the vtable writes an `R`, as the caller promises.
        unsafe {
            (self.vtable.take)(self.0, result.as_mut_ptr().cast());
            result.assume_init()
        }
    }

    /// Drops the function of an unstarted greenlet.
    ///
    /// # Safety
    ///
    /// The greenlet was never run and never cancelled.
    pub(crate) unsafe fn cancel(&self) {
        // SAFETY: as for `run`.
        unsafe { (self.vtable.cancel)(self.0) }
    }
}

impl Deref for RecordRef {
    type Target = Record;

    #[inline]
    fn deref(&self) -> &Record {
        // SAFETY: a counted reference keeps the record alive (`from_counted`, `clone`, `drop`),
        // and nothing ever makes a `&mut Record` of a shared one.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for RecordRef {
    #[inline]
    fn clone(&self) -> RecordRef {
        let references = self.references.get();
        // Four billion references can only be leaked ones.
        assert!(references < u32::MAX, "a greenlet's reference count overflowed");
        self.references.set(references + 1);
        RecordRef(self.0)
    }
}

impl Drop for RecordRef {
    #[inline]
    fn drop(&mut self) {
        let references = self.references.get() - 1;
        self.references.set(references);
        if references == 0 {
            // SAFETY: this was the last reference, so nobody can reach the record any more.
            unsafe { (self.vtable.free)(self.0) }
        }
    }
}

impl fmt::Debug for RecordRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Greenlet")
            .field("id", &self.id.get().to_u64())
            .field("name", &self.display_name())
            .field("state", &self.state.get())
            .finish_non_exhaustive()
    }
}

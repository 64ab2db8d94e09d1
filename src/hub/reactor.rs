//! The reactor: which fds are ready, and who waits for them. The only file that names mio.
//!
//! Each fd is registered once, edge-triggered, for both directions. An operation is tried first and
//! waits only after `EAGAIN`, or when an earlier one came short: then the wait is over at once if an
//! edge has come since. Events are only collected here: a wake-up
//! puts the greenlet on the run queue, nothing runs from inside the reactor.
//!
//! ```text
//!              first wait                    an edge that wakes nobody
//!   unknown --------------> registered, no edge ------------------> registered, edge
//!      ^                        ^   ^                                   |
//!      |                        |   +-----------------------------------+
//!      |                        |               next wait
//!      +------------------------+
//!        closing, or the number got another owner (generation)
//! ```

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::hub::Direction;
use crate::hub::park::Ticket;
use crate::hub::record::Wake;
use crate::wait_list::WaitList;

/// The token of the mailbox's eventfd and of the timerfd: their edges only end the poll.
const INTERNAL: Token = Token(usize::MAX);

/// How many events one poll takes at the most, so how many greenlets run before the next one.
const EVENTS_MAX: usize = 256;

/// Counts the times that an fd number was given back to the kernel, by any thread. Numbers that are
/// equal modulo the length share a count; that costs a registration anew, no more.
static FREED: [AtomicU32; 4096] = [const { AtomicU32::new(0) }; 4096];

/// Tells every hub of the process that `fd` is about to be closed: what they remember of the number
/// belongs to a former owner.
#[cfg(feature = "monkey")]
pub(crate) fn number_freed(fd: RawFd) {
    // By two, so that a count is never `UNREGISTERED`.
    freed(fd).fetch_add(2, Ordering::Release);
}

/// The count of a number.
#[inline]
fn freed(fd: RawFd) -> &'static AtomicU32 {
    &FREED[fd as usize % FREED.len()]
}

/// By how much the table of fds grows without a look whether the fd is open at all.
const GROWTH_MAX: usize = 1024;

/// How an fd's owner treats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The owner tells when it closes the fd, so a registration stays good until then.
    Owned,
    /// The fd may be closed behind our back: the registration is renewed at each wait.
    Foreign,
}

/// What a caller that is about to wait knows of the fd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// An operation has just failed with `EAGAIN`: only an edge that comes from now on counts.
    Nothing,
    /// An earlier operation came short, so that nothing was left then: an edge that has come
    /// since counts as well.
    Shortage,
}

/// What is remembered of one fd number. A cache line of its own, so that one is all that a wait
/// and a wake-up touch. The arrays have a place for each [`Direction`].
#[repr(align(64))]
struct Entry {
    /// Who waits for an edge.
    waiters: [WaitList<Ticket>; 2],
    /// Counts the number's owners. An event with another count is of a former one.
    generation: u32,
    /// The number's count of [`FREED`] when the fd was registered with the poll; [`UNREGISTERED`]
    /// if it is not.
    registered: u32,
    /// Whether an edge has come that woke nobody.
    edge: [bool; 2],
    /// Whether the peer has shut the direction, or an error is pending. An edge says so only
    /// once, so a short read must not make us forget it.
    sticky: [bool; 2],
    /// Whether a duplicate of the fd may keep its open file description, and with it the
    /// registration, alive after a close.
    duplicated: bool,
    /// Whether `closing` has been promised for this number.
    trust: Trust,
}

const _: () = assert!(size_of::<Entry>() == 64);

/// The value of [`Entry::registered`] if the fd is not registered. Not a count: those are even.
const UNREGISTERED: u32 = 1;

impl Entry {
    const fn new() -> Entry {
        Entry {
            waiters: [const { WaitList::new() }; 2],
            generation: 0,
            registered: UNREGISTERED,
            edge: [true; 2],
            sticky: [false; 2],
            duplicated: false,
            trust: Trust::Owned,
        }
    }

    /// Remembers an edge, or tells it to those who wait for it.
    #[inline(always)]
    fn edge(&mut self, direction: Direction, sticky: bool, wake: impl FnMut(Ticket)) {
        let waiters = &mut self.waiters[direction as usize];
        self.edge[direction as usize] = waiters.is_empty();
        self.sticky[direction as usize] |= sticky;
        waiters.drain(wake);
    }

    /// Whether a waiter that has seen `seen` need not wait. Otherwise it waits for what comes
    /// from now on.
    #[inline]
    fn is_over(&mut self, direction: Direction, seen: Seen) -> bool {
        let edge = std::mem::replace(&mut self.edge[direction as usize], false);
        let sticky = &mut self.sticky[direction as usize];
        if seen == Seen::Shortage {
            return edge || *sticky;
        }
        // Only `EAGAIN` shows that the end is not there yet: the edge that brought it may have
        // brought data as well, and then the next read comes short again.
        *sticky = false;
        false
    }
}

/// The reactor of one hub.
pub(crate) struct Reactor {
    /// epoll.
    poll: RefCell<Poll>,
    /// Where a poll puts what it found.
    events: RefCell<Events>,
    /// By fd number; as long as the highest one that was ever waited for.
    entries: RefCell<Vec<Entry>>,
    /// How many parks wait for an fd.
    waiting: Cell<usize>,
    /// Ends a poll at a time that epoll, which counts in milliseconds, can't express. Made and
    /// armed when it is first needed.
    timer: RefCell<Option<PreciseTimer>>,
}

impl Reactor {
    /// A reactor that also watches `event_fd`, whose edges end a poll and mean nothing else.
    pub(crate) fn new(event_fd: RawFd) -> io::Result<Reactor> {
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&event_fd), INTERNAL, Interest::READABLE)?;
        Ok(Reactor {
            poll: RefCell::new(poll),
            events: RefCell::new(Events::with_capacity(EVENTS_MAX)),
            entries: RefCell::new(Vec::new()),
            waiting: Cell::new(0),
            timer: RefCell::new(None),
        })
    }

    /// How many parks wait for an fd.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Makes edges of `fd` that come from now on visible, and forgets those that came before.
    #[cfg(any(test, feature = "monkey"))]
    pub(crate) fn arm(&self, fd: RawFd, direction: Direction, trust: Trust) -> io::Result<()> {
        let mut entries = self.entries.borrow_mut();
        self.entry(&mut entries, fd, trust)?.is_over(direction, Seen::Nothing);
        Ok(())
    }

    /// Adds a waiter for the next edge of `fd`, which is registered if need be.
    ///
    /// # Errors
    ///
    /// The ticket, and why there is nothing to wait for: None if the edge has come already, else
    /// what epoll says.
    #[inline(always)]
    pub(crate) fn add_waiter(
        &self,
        fd: RawFd,
        direction: Direction,
        trust: Trust,
        seen: Seen,
        ticket: Ticket,
    ) -> Result<(), (Option<io::Error>, Ticket)> {
        let mut entries = self.entries.borrow_mut();
        match self.entry(&mut entries, fd, trust) {
            Ok(entry) => {
                if entry.is_over(direction, seen) {
                    return Err((None, ticket));
                }
                entry.waiters[direction as usize].push(ticket);
            }
            Err(error) => return Err((Some(error), ticket)),
        }
        self.waiting.set(self.waiting.get() + 1);
        Ok(())
    }

    /// The entry of an fd that is registered, or is now.
    #[inline]
    fn entry<'a>(
        &self,
        entries: &'a mut Vec<Entry>,
        fd: RawFd,
        trust: Trust,
    ) -> io::Result<&'a mut Entry> {
        let freed = freed(fd).load(Ordering::Acquire);
        let is_good = |entry: &Entry| {
            entry.registered == freed && entry.trust == Trust::Owned && trust == Trust::Owned
        };
        if !entries.get(fd as usize).is_some_and(is_good) {
            self.register(fd, entries, trust)?;
        }
        Ok(&mut entries[fd as usize])
    }

    /// Registers an fd, or registers it anew: then epoll reports again what is ready.
    #[cold]
    fn register(&self, fd: RawFd, entries: &mut Vec<Entry>, trust: Trust) -> io::Result<()> {
        let index = usize::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
        if entries.len() <= index {
            // The table must not grow to any size for a number that is nobody's.
            let far = index - entries.len() > GROWTH_MAX;
            // SAFETY: no pointers are passed.
            if far && unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
                return Err(io::Error::last_os_error());
            }
            entries.resize_with(index + 1, Entry::new);
        }
        let entry = &mut entries[index];
        let freed = freed(fd).load(Ordering::Acquire);
        let poll = self.poll.borrow();
        let registry = poll.registry();
        let token = token(fd, entry.generation);
        // Priority, because a read stops short at TCP's urgent mark: see `deliver`.
        let all = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        let mut source = SourceFd(&fd);
        let result = if entry.registered != UNREGISTERED {
            match registry.reregister(&mut source, token, all) {
                // Closed and opened again behind our back: a new description.
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
                    registry.register(&mut source, token, all)
                }
                result => result,
            }
        } else {
            match registry.register(&mut source, token, all) {
                // A duplicate that was closed behind our back and whose number came back.
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
                    registry.reregister(&mut source, token, all)
                }
                result => result,
            }
        };
        entry.registered = if result.is_ok() { freed } else { UNREGISTERED };
        entry.trust = trust;
        // epoll reports what is ready now as an edge.
        entry.edge = [false; 2];
        result
    }

    /// Adds a waiter for the next edge. The caller has armed the fd.
    #[cfg(feature = "monkey")]
    pub(crate) fn add_armed_waiter(&self, fd: RawFd, direction: Direction, ticket: Ticket) {
        self.entries.borrow_mut()[fd as usize].waiters[direction as usize].push(ticket);
        self.waiting.set(self.waiting.get() + 1);
    }

    /// Removes the waiters that `is_gone` names, whose park was ended by something else. How many
    /// there were: none if an edge has come since, which woke nobody then.
    pub(crate) fn remove_waiter(
        &self,
        fd: RawFd,
        direction: Direction,
        mut is_gone: impl FnMut(&Ticket) -> bool,
    ) -> usize {
        let mut entries = self.entries.borrow_mut();
        let mut removed = 0;
        entries[fd as usize].waiters[direction as usize].remove(|ticket| {
            let gone = is_gone(ticket);
            removed += usize::from(gone);
            gone
        });
        self.waiting.set(self.waiting.get() - removed);
        removed
    }

    /// Somebody has waited for an edge who will not do the operation: whoever does shall try. If
    /// one that would waits by now, epoll is asked to report again what is ready.
    pub(crate) fn keep_edge(&self, fd: RawFd, direction: Direction) {
        let mut entries = self.entries.borrow_mut();
        let entry = &mut entries[fd as usize];
        entry.edge[direction as usize] = true;
        if !entry.waiters[direction as usize].is_empty() {
            let trust = entry.trust;
            // It fails for an fd that was closed behind our back: no edge will come for that.
            let _ = self.register(fd, &mut entries, trust);
        }
    }

    /// The fd's owner is about to close it: whoever waits for it is woken, and the number is as
    /// good as new.
    pub(crate) fn closing(&self, fd: RawFd, mut wake: impl FnMut(Ticket, Wake)) {
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = usize::try_from(fd).ok().and_then(|fd| entries.get_mut(fd)) else {
            return;
        };
        if entry.registered != UNREGISTERED && (entry.duplicated || entry.trust == Trust::Foreign) {
            // A close drops the registration only with the last duplicate, so drop it here. It
            // fails if the fd was closed behind our back, and then there is nothing to do.
            let _ = self.poll.borrow().registry().deregister(&mut SourceFd(&fd));
        }
        let mut former = std::mem::replace(entry, Entry::new());
        entry.generation = former.generation.wrapping_add(1);
        drop(entries);
        for waiters in &mut former.waiters {
            while let Some(ticket) = waiters.pop() {
                self.waiting.set(self.waiting.get() - 1);
                wake(ticket, Wake::Closed);
            }
        }
    }

    /// `fd` has a duplicate from now on.
    pub(crate) fn duplicated(&self, fd: RawFd) {
        let Ok(index) = usize::try_from(fd) else { return };
        let mut entries = self.entries.borrow_mut();
        if entries.len() <= index {
            entries.resize_with(index + 1, Entry::new);
        }
        entries[index].duplicated = true;
    }

    /// Waits for events for at most `timeout`, for ever if None, and wakes their waiters.
    pub(crate) fn poll(&self, timeout: Option<Duration>, mut wake: impl FnMut(Ticket, Wake)) {
        let mut events = self.events.borrow_mut();
        let timeout = timeout.map(|timeout| self.coarse(timeout));
        let result = self.poll.borrow_mut().poll(&mut events, timeout.unwrap_or(None));
        if let Err(error) = result {
            // A signal: the hub looks at its timers and comes back. Nothing else can happen to an
            // epoll fd of ours.
            assert_eq!(error.kind(), io::ErrorKind::Interrupted, "epoll_wait: {error}");
            return;
        }
        let mut entries = self.entries.borrow_mut();
        let mut woken = 0;
        for event in &*events {
            let (fd, generation) = from_token(event.token());
            // INTERNAL has an fd that is in no table.
            if let Some(entry) = entries.get_mut(fd)
                && entry.generation == generation
            {
                deliver(event, entry, |ticket| {
                    woken += 1;
                    wake(ticket, Wake::Ready);
                });
            }
        }
        self.waiting.set(self.waiting.get() - woken);
    }

    /// What to tell epoll for `timeout`, so that the poll does not end later than that: whole
    /// milliseconds while there are many, and the timerfd for the rest.
    fn coarse(&self, timeout: Duration) -> Option<Duration> {
        if timeout.is_zero() {
            return Some(timeout);
        }
        // The kernel may end a timeout late by a thousandth of it (select_estimate_accuracy), so
        // that much is left to the timerfd.
        let whole = timeout.mul_f64(0.999).as_millis();
        if whole > 1 {
            return Some(Duration::from_millis(u64::try_from(whole).unwrap_or(u64::MAX)));
        }
        let mut timer = self.timer.borrow_mut();
        if timer.is_none() {
            *timer = PreciseTimer::new(&self.poll.borrow()).ok();
        }
        match &*timer {
            Some(timer) if timer.arm(timeout) => None,
            // No timerfd to be had (the fd table is full): late by up to a millisecond.
            _ => Some(timeout),
        }
    }

    /// Whether an edge is remembered, which is forgotten.
    #[cfg(test)]
    pub(crate) fn take_edge(&self, fd: RawFd, direction: Direction) -> bool {
        let edges = &mut self.entries.borrow_mut()[fd as usize].edge;
        std::mem::replace(&mut edges[direction as usize], false)
    }

    /// How many waiters there are at each fd, for the tests and the report.
    #[cfg(test)]
    pub(crate) fn waiters(&self, fd: RawFd) -> usize {
        let entries = self.entries.borrow();
        entries
            .get(fd as usize)
            .map_or(0, |entry| entry.waiters.iter().map(|waiters| waiters.iter().count()).sum())
    }
}

/// Remembers what an event says and wakes whom it concerns.
#[inline(always)]
fn deliver(event: &Event, entry: &mut Entry, mut wake: impl FnMut(Ticket)) {
    let error = event.is_error();
    let read_closed = error | event.is_read_closed();
    if event.is_readable() | read_closed {
        // A read that stops at the urgent mark is short although more is there, and there will be
        // no other edge (tcp(7)).
        entry.edge(Direction::Read, read_closed | event.is_priority(), &mut wake);
    }
    let write_closed = error | event.is_write_closed();
    if event.is_writable() | write_closed {
        entry.edge(Direction::Write, write_closed, &mut wake);
    }
}

/// An fd and the generation of its number in one word.
fn token(fd: RawFd, generation: u32) -> Token {
    Token((generation as usize) << 32 | fd as usize)
}

/// What `token` put together, the fd as an index.
fn from_token(token: Token) -> (usize, u32) {
    (token.0 & u32::MAX as usize, (token.0 >> 32) as u32)
}

/// A timerfd.
struct PreciseTimer(std::os::fd::OwnedFd);

impl PreciseTimer {
    /// A timer that ends polls of `poll`.
    fn new(poll: &Poll) -> io::Result<PreciseTimer> {
        use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: no pointers are passed; a negative answer is turned into an error below.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `timerfd_create` has just made this fd, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let raw = fd.as_raw_fd();
        poll.registry().register(&mut SourceFd(&raw), INTERNAL, Interest::READABLE)?;
        Ok(PreciseTimer(fd))
    }

    /// Ends a poll after `timeout`. Arming it anew also makes a new edge possible, so it need not
    /// be read. False if the kernel refused.
    fn arm(&self, timeout: Duration) -> bool {
        use std::os::fd::AsRawFd;
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
        };
        let spec = libc::itimerspec { it_interval: zero, it_value: value };
        // SAFETY: the pointer is to a live itimerspec; no old value is asked for.
        let result =
            unsafe { libc::timerfd_settime(self.0.as_raw_fd(), 0, &spec, std::ptr::null_mut()) };
        result == 0
    }
}

//! The reactor: which fds are ready, and who waits for them. The only file that names mio.
//!
//! Each fd is registered once, edge-triggered, for both directions. Readiness is remembered per
//! direction, so an operation is tried first and waits only after `EAGAIN`; a short read tells
//! that the direction is drained and saves even that. Events are only collected here: a wake-up
//! puts the greenlet on the run queue, nothing runs from inside the reactor.
//!
//! ```text
//!              first wait                       edge
//!   unknown --------------> registered, drained ----> registered, ready
//!      ^                        ^   ^                     |
//!      |                        |   +---------------------+
//!      |                        |     EAGAIN or short read
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
pub(crate) fn number_freed(fd: RawFd) {
    freed(fd).fetch_add(1, Ordering::Release);
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

/// What is remembered of one direction of an fd.
struct Side {
    /// Whether an operation is worth trying. True until one has been told `EAGAIN` or came short.
    ready: bool,
    /// Whether the peer has shut this direction, or an error is pending. An edge says so only
    /// once, so a short read must not make us forget it.
    sticky: bool,
    /// Who waits for an edge.
    waiters: WaitList<Ticket>,
}

impl Side {
    const fn new() -> Side {
        Side { ready: true, sticky: false, waiters: WaitList::new() }
    }
}

/// What is remembered of one fd number.
struct Entry {
    /// Counts the number's owners. An event with another count is of a former one.
    generation: u32,
    /// Whether the fd is registered with the poll.
    registered: bool,
    /// The number's count of [`FREED`] when it was registered.
    freed: u32,
    /// Whether a duplicate of the fd may keep its open file description, and with it the
    /// registration, alive after a close.
    duplicated: bool,
    /// Whether `closing` has been promised for this number.
    trust: Trust,
    /// Reads, receives and accepts.
    read: Side,
    /// Writes, sends and connects.
    write: Side,
}

impl Entry {
    const fn new() -> Entry {
        Entry {
            generation: 0,
            registered: false,
            freed: 0,
            duplicated: false,
            trust: Trust::Owned,
            read: Side::new(),
            write: Side::new(),
        }
    }

    #[inline]
    fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
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

    /// False if an operation in this direction is known to fail with `EAGAIN`.
    #[inline]
    pub(crate) fn worth_trying(&self, fd: RawFd, direction: Direction) -> bool {
        // A signal handler may come while the entries are being changed: it tries.
        let Ok(mut entries) = self.entries.try_borrow_mut() else { return true };
        entries.get_mut(fd as usize).is_none_or(|entry| entry.side(direction).ready)
    }

    /// A short read has shown that nothing is left.
    #[inline]
    pub(crate) fn drained(&self, fd: RawFd, direction: Direction) {
        if let Ok(mut entries) = self.entries.try_borrow_mut()
            && let Some(entry) = entries.get_mut(fd as usize)
        {
            let side = entry.side(direction);
            side.ready = side.sticky;
        }
    }

    /// Makes edges of `fd` that come from now on visible, and forgets those that came before.
    pub(crate) fn arm(&self, fd: RawFd, direction: Direction, trust: Trust) -> io::Result<()> {
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let mut entries = self.entries.borrow_mut();
        if entries.len() <= fd as usize {
            // The table must not grow to any size for a number that is nobody's.
            let far = fd as usize - entries.len() > GROWTH_MAX;
            // SAFETY: no pointers are passed.
            if far && unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
                return Err(io::Error::last_os_error());
            }
            entries.resize_with(fd as usize + 1, Entry::new);
        }
        let entry = &mut entries[fd as usize];
        let freed = freed(fd).load(Ordering::Acquire);
        let doubtful = trust == Trust::Foreign || entry.trust == Trust::Foreign;
        if !entry.registered || entry.freed != freed || doubtful {
            self.register(fd, entry)?;
            entry.freed = freed;
        }
        entry.trust = trust;
        let side = entry.side(direction);
        side.ready = false;
        side.sticky = false;
        Ok(())
    }

    /// Registers an fd, or registers it anew: then epoll reports again what is ready.
    fn register(&self, fd: RawFd, entry: &mut Entry) -> io::Result<()> {
        let poll = self.poll.borrow();
        let registry = poll.registry();
        let token = token(fd, entry.generation);
        // Priority, because a read stops short at TCP's urgent mark: see `deliver`.
        let both = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        let mut source = SourceFd(&fd);
        let result = if entry.registered {
            match registry.reregister(&mut source, token, both) {
                // Closed and opened again behind our back: a new description.
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
                    registry.register(&mut source, token, both)
                }
                result => result,
            }
        } else {
            match registry.register(&mut source, token, both) {
                // A duplicate that was closed behind our back and whose number came back.
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
                    registry.reregister(&mut source, token, both)
                }
                result => result,
            }
        };
        entry.registered = result.is_ok();
        result
    }

    /// Adds a waiter for the next edge. The caller has armed the fd.
    pub(crate) fn add_waiter(&self, fd: RawFd, direction: Direction, ticket: Ticket) {
        self.entries.borrow_mut()[fd as usize].side(direction).waiters.push(ticket);
        self.waiting.set(self.waiting.get() + 1);
    }

    /// Ends a wait that `add_waiter` began, however the park ended.
    pub(crate) fn remove_waiter(&self, fd: RawFd, direction: Direction, ticket: &Ticket) {
        self.waiting.set(self.waiting.get() - 1);
        let mut entries = self.entries.borrow_mut();
        let waiters = &mut entries[fd as usize].side(direction).waiters;
        if !waiters.is_empty() {
            waiters.remove(|waiter| waiter.is(ticket));
        }
    }

    /// The fd's owner is about to close it: whoever waits for it is woken, and the number is as
    /// good as new.
    pub(crate) fn closing(&self, fd: RawFd, mut wake: impl FnMut(Ticket, Wake)) {
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = usize::try_from(fd).ok().and_then(|fd| entries.get_mut(fd)) else {
            return;
        };
        if entry.registered && (entry.duplicated || entry.trust == Trust::Foreign) {
            // A close drops the registration only with the last duplicate, so drop it here. It
            // fails if the fd was closed behind our back, and then there is nothing to do.
            let _ = self.poll.borrow().registry().deregister(&mut SourceFd(&fd));
        }
        let mut former = std::mem::replace(entry, Entry::new());
        entry.generation = former.generation.wrapping_add(1);
        drop(entries);
        for side in [&mut former.read, &mut former.write] {
            while let Some(ticket) = side.waiters.pop() {
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
        for event in events.iter().filter(|event| event.token() != INTERNAL) {
            let (fd, generation) = from_token(event.token());
            let entry = &mut entries[fd as usize];
            if entry.generation == generation {
                deliver(event, entry, &mut wake);
            }
        }
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

    /// How many waiters there are at each fd, for the tests and the report.
    #[cfg(test)]
    pub(crate) fn waiters(&self, fd: RawFd) -> usize {
        let entries = self.entries.borrow();
        entries.get(fd as usize).map_or(0, |entry| {
            entry.read.waiters.iter().count() + entry.write.waiters.iter().count()
        })
    }
}

/// Remembers what an event says and wakes whom it concerns.
#[inline]
fn deliver(event: &Event, entry: &mut Entry, wake: &mut impl FnMut(Ticket, Wake)) {
    let error = event.is_error();
    let read_closed = event.is_read_closed() || error;
    if event.is_readable() || read_closed {
        entry.read.ready = true;
        entry.read.sticky |= read_closed;
        while let Some(ticket) = entry.read.waiters.pop() {
            wake(ticket, Wake::Ready);
        }
    }
    // A read that stops at the urgent mark is short although more is there, and there will be no
    // other edge (tcp(7)).
    entry.read.sticky |= event.is_priority();
    let write_closed = event.is_write_closed() || error;
    if event.is_writable() || write_closed {
        entry.write.ready = true;
        entry.write.sticky |= write_closed;
        while let Some(ticket) = entry.write.waiters.pop() {
            wake(ticket, Wake::Ready);
        }
    }
}

/// An fd and the generation of its number in one word.
fn token(fd: RawFd, generation: u32) -> Token {
    Token((generation as usize) << 32 | fd as usize)
}

/// What `token` put together.
fn from_token(token: Token) -> (RawFd, u32) {
    ((token.0 & u32::MAX as usize) as RawFd, (token.0 >> 32) as u32)
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

//! What is known of each fd: which kind it is, and the state its user believes it to be in.
//!
//! `O_NONBLOCK` and the socket timeouts belong to the open file description, which dup(2) and
//! fork(2) share; so a table maps each fd to a [`Description`], and duplicates map to the same.
//!
//! ```text
//!   TABLE  [0][.][3][4][.][6]         one word per fd: an index, 0 = nothing known
//!                 \  |      \
//!   POOL     [0][ 1: Tcp, 2 fds ][ 2: Other, 1 fd ][ free ]-->[ free ]
//!                                                    ^ FREE (tagged)
//! ```
//!
//! An fd comes into the table when a shim makes it ("born": its state is known), or when it is
//! first used (then it is foreign: opened before patch_all, inherited, made by a raw system
//! call), and leaves it when a shim closes it. A number that was closed and reused behind the
//! shims' back keeps what was known of it until a shim gives birth to that number again or the
//! kernel answers `ENOTSOCK`; `O_NONBLOCK` of foreign descriptions is asked for again before
//! each wait, since another process may share them.
//!
//! Relies on zeroed static memory, of which no page is touched before an fd uses it. Everything
//! is atomic and of a bounded number of steps in practice: usable in signal handlers and in
//! forked children. Never allocates, locks or unwinds.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libc::c_int;

use crate::errno::Errno;
pub(crate) use crate::kind::Kind;
use crate::real;
use crate::runtime::Direction;

/// Fds from here on are not tracked, and calls on them pass through. The same as the kernel's
/// default limit (`fs.nr_open`), so only a changed sysctl brings such a number into the world.
const FDS_MAX: usize = 1 << 20;

/// Index into [`POOL`] of each fd's description; 0 means that nothing is known.
static TABLE: [AtomicU32; FDS_MAX] = [const { AtomicU32::new(0) }; FDS_MAX];

/// All descriptions there can be. The first is never used, since 0 means none.
static POOL: [Description; FDS_MAX] = [const { Description::new() }; FDS_MAX];

/// How many of [`POOL`] were ever used, the first included (so one less than the next index).
static USED: AtomicU32 = AtomicU32::new(0);

/// The stack of freed descriptions: the top's index, below a tag that each push and pop raises,
/// so that a top which was popped and pushed meanwhile is not mistaken for an unchanged one.
static FREE: AtomicU64 = AtomicU64::new(0);

/// One more than the highest fd that was ever in the table: what close_range has to look at.
static HIGHEST: AtomicU32 = AtomicU32::new(0);

/// The bits of [`Description::state`] that hold the [`Kind`].
const KIND: u32 = 0xf;
/// The user believes that the description has `O_NONBLOCK`.
const NONBLOCKING: u32 = 1 << 4;
/// The shims gave it a real `O_NONBLOCK` that the user does not see.
const FLIPPED: u32 = 1 << 5;
/// It was not made by a shim: what is known may be changed by others.
const FOREIGN: u32 = 1 << 6;
/// A timeout was set on it, or may have been: sockets accepted from it may inherit one.
const TIMED: u32 = 1 << 7;
/// Somebody has shut it down, is about to, or may have.
const SHUT: u32 = 1 << 8;

/// The value of a timeout that the kernel has to be asked for.
const UNKNOWN: u64 = u64::MAX;
/// The value of a negative timeout: the kernel never waits then.
const IMMEDIATE: u64 = u64::MAX - 1;

/// How long a call on a socket may wait (`SO_RCVTIMEO`, `SO_SNDTIMEO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// No time at all: the timeout is negative.
    None,
    /// Until this moment, or for ever.
    Until(Option<Instant>),
}

/// What is known of one open file description.
pub(crate) struct Description {
    /// The kind and the flags above.
    state: AtomicU32,
    /// How many fds of the table, and calls that are adding one, hold this. 0: free.
    references: AtomicU32,
    /// While this is free, the index of the free description below it in the stack.
    below: AtomicU32,
    /// `SO_RCVTIMEO` in microseconds; 0 for none, or [`UNKNOWN`] or [`IMMEDIATE`].
    receive_timeout: AtomicU64,
    /// `SO_SNDTIMEO`, likewise.
    send_timeout: AtomicU64,
    /// Whether the last receive came short, so that nothing was left then. Apart from the flags,
    /// so that each receive can write it without a locked instruction.
    shortage: AtomicBool,
}

impl Description {
    /// A description that was never used.
    const fn new() -> Description {
        Description {
            state: AtomicU32::new(0),
            references: AtomicU32::new(0),
            below: AtomicU32::new(0),
            receive_timeout: AtomicU64::new(0),
            send_timeout: AtomicU64::new(0),
            shortage: AtomicBool::new(false),
        }
    }

    /// What it is.
    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        const KINDS: [Kind; 8] = [
            Kind::Other,
            Kind::Tcp,
            Kind::Stream,
            Kind::Datagram,
            Kind::UnixDatagram,
            Kind::Packet,
            Kind::Other,
            Kind::Other,
        ];
        KINDS[(self.state.load(Ordering::Relaxed) & 7) as usize]
    }

    /// Short reads of it no longer prove anything (kTLS, urgent data inline).
    pub(crate) fn demote_to_stream(&self) {
        let _ = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
            (state & KIND == Kind::Tcp.bits()).then_some(state & !KIND | Kind::Stream.bits())
        });
    }

    /// Whether its user believes it to have `O_NONBLOCK`.
    #[inline]
    pub(crate) fn is_nonblocking(&self) -> bool {
        self.state.load(Ordering::Relaxed) & NONBLOCKING != 0
    }

    /// Whether calls on it may have to wait: it is a socket, and it is not certain that its user
    /// wants no waiting. (Where others may have changed that, [`may_wait`](Self::may_wait) is
    /// asked before a wait.)
    #[inline]
    pub(crate) fn is_waiting_socket(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        state & KIND != Kind::Other.bits() && state & (NONBLOCKING | FOREIGN) != NONBLOCKING
    }

    /// Whether it is certain that a call of `direction` may wait as long as it takes.
    #[inline]
    pub(crate) fn waits_for_ever(&self, direction: Direction) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        let sure = state & FOREIGN == 0 || state & FLIPPED != 0;
        let timed = self.timeout(direction).load(Ordering::Relaxed) != 0;
        sure && state & NONBLOCKING == 0 && !timed
    }

    /// Notes whether the last receive came short, so that nothing was left then.
    #[inline]
    pub(crate) fn note_shortage(&self) {
        self.shortage.store(true, Ordering::Relaxed);
    }

    /// What a receive knows that is about to begin. The next one tries.
    #[inline]
    pub(crate) fn take_shortage(&self) -> bool {
        let shortage = self.shortage.load(Ordering::Relaxed);
        if shortage {
            self.shortage.store(false, Ordering::Relaxed);
        }
        shortage
    }

    /// Notes that it is about to be shut down.
    pub(crate) fn note_shutdown(&self) {
        self.set_bit(SHUT, true);
    }

    /// Whether these are datagrams of which none may come any more. A receive that waits ends
    /// then, with nothing; but one that does not wait is told `EAGAIN`, as if it could go on.
    pub(crate) fn is_shut_datagram(&self, fd: RawFd) -> bool {
        self.state.load(Ordering::Relaxed) & SHUT != 0
            && matches!(self.kind(), Kind::Datagram | Kind::UnixDatagram)
            && real::poll_now(fd, libc::POLLRDHUP) != 0
    }

    /// Notes what its user has set `O_NONBLOCK` to.
    pub(crate) fn set_nonblocking(&self, nonblocking: bool) {
        self.set_bit(NONBLOCKING, nonblocking);
    }

    /// Whether it has an `O_NONBLOCK` that its user does not know of.
    #[inline]
    pub(crate) fn is_flipped(&self) -> bool {
        self.state.load(Ordering::Relaxed) & FLIPPED != 0
    }

    /// Whether a call that has to wait may wait: asks the kernel again where others may have
    /// changed `O_NONBLOCK`.
    pub(crate) fn may_wait(&self, fd: RawFd) -> bool {
        if self.state.load(Ordering::Relaxed) & (FOREIGN | FLIPPED) == FOREIGN {
            // SAFETY: F_GETFL has no argument.
            if let Ok(flags) = unsafe { real::fcntl(fd, libc::F_GETFL, 0) } {
                self.set_nonblocking(flags as c_int & libc::O_NONBLOCK != 0);
            }
        }
        !self.is_nonblocking()
    }

    /// Gives it a real `O_NONBLOCK` behind its user's back, for the calls that have no flag of
    /// their own (accept, connect). The user must have been asked about with
    /// [`may_wait`](Self::may_wait).
    pub(crate) fn flip(&self, fd: RawFd) -> Result<(), Errno> {
        if self.is_flipped() {
            return Ok(());
        }
        // Before the flag is real: a thread that meets the flag must know whose it is.
        self.set_bit(FLIPPED, true);
        real::set_nonblocking(fd, true).map(drop).inspect_err(|_| self.set_bit(FLIPPED, false))
    }

    /// Undoes [`flip`](Self::flip): the real flag is what the user believes again.
    pub(crate) fn unflip(&self, fd: RawFd) {
        if self.is_flipped() && real::set_nonblocking(fd, self.is_nonblocking()).is_ok() {
            self.set_bit(FLIPPED, false);
        }
    }

    /// Notes a timeout that the kernel has accepted; `microseconds` as the field holds them.
    pub(crate) fn set_timeout(&self, direction: Direction, seconds: i64, microseconds: i64) {
        let value = match (seconds, microseconds) {
            (0, 0) => 0,
            (i64::MIN..0, _) => IMMEDIATE,
            (seconds, microseconds) => (seconds as u64)
                .saturating_mul(1_000_000)
                .saturating_add(microseconds as u64)
                .min(IMMEDIATE - 1),
        };
        if value != 0 {
            self.set_bit(TIMED, true);
        }
        self.timeout(direction).store(value, Ordering::Relaxed);
    }

    /// The moment at which a call of `direction` that begins now has waited enough.
    pub(crate) fn patience(&self, fd: RawFd, direction: Direction) -> Patience {
        if self.timeout(direction).load(Ordering::Relaxed) == UNKNOWN {
            self.ask_timeout(fd, direction);
        }
        match self.timeout(direction).load(Ordering::Relaxed) {
            0 | UNKNOWN => Patience::Until(None),
            IMMEDIATE => Patience::None,
            // A deadline beyond what Instant holds is none.
            value => Patience::Until(Instant::now().checked_add(Duration::from_micros(value))),
        }
    }

    /// Learns a timeout from the kernel.
    #[cold]
    fn ask_timeout(&self, fd: RawFd, direction: Direction) {
        let name = match direction {
            Direction::Read => libc::SO_RCVTIMEO,
            Direction::Write => libc::SO_SNDTIMEO,
        };
        let mut time = libc::timeval { tv_sec: 0, tv_usec: 0 };
        let mut bytes = size_of::<libc::timeval>() as libc::socklen_t;
        let (level, time_address, bytes_address) =
            (libc::SOL_SOCKET as usize, (&raw mut time) as usize, (&raw mut bytes) as usize);
        let arguments = [fd as usize, level, name as usize, time_address, bytes_address, 0];
        // SAFETY: both pointers are to locals that outlive the call, and `bytes` is the size.
        if unsafe { real::syscall(libc::SYS_getsockopt, arguments) }.is_ok() {
            self.set_timeout(direction, time.tv_sec, time.tv_usec);
        }
    }

    /// The field of `direction`.
    fn timeout(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::Read => &self.receive_timeout,
            Direction::Write => &self.send_timeout,
        }
    }

    /// Sets or clears one of the flags.
    fn set_bit(&self, bit: u32, value: bool) {
        if value {
            self.state.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.state.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

/// What the table knows of `fd`, without asking the kernel.
#[inline]
pub(crate) fn known(fd: RawFd) -> Option<&'static Description> {
    // A negative fd becomes a huge index.
    match TABLE.get(fd as usize)?.load(Ordering::Acquire) {
        0 => None,
        index => POOL.get(index as usize),
    }
}

/// What there is to know of `fd`, asking the kernel the first time. `None` if the fd is bad or
/// out of the table: the real call has to answer.
#[inline]
pub(crate) fn lookup(fd: RawFd) -> Option<&'static Description> {
    known(fd).or_else(|| learn(fd))
}

/// Asks the kernel about a foreign fd and remembers the answer.
#[cold]
fn learn(fd: RawFd) -> Option<&'static Description> {
    let entry = TABLE.get(fd as usize)?;
    let kind = Kind::ask(fd).ok()?;
    // SAFETY: F_GETFL has no argument.
    let flags = unsafe { real::fcntl(fd, libc::F_GETFL, 0) }.ok()? as c_int;
    let nonblocking = if flags & libc::O_NONBLOCK == 0 { 0 } else { NONBLOCKING };
    let index = take(kind.bits() | FOREIGN | TIMED | SHUT | nonblocking, UNKNOWN)?;
    raise_highest(fd);
    if entry.compare_exchange(0, index, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // Another thread learned it, or gave birth to it: it is at least as right.
        release(index);
    }
    known(fd)
}

/// A shim has made `fd`: nobody else knows of it yet.
pub(crate) fn born(fd: RawFd, kind: Kind, nonblocking: bool) {
    let state = kind.bits() | if nonblocking { NONBLOCKING } else { 0 };
    enter(fd, take(state, 0));
}

/// A shim has accepted `fd` from `listener`, whose timeouts it may have inherited.
pub(crate) fn accepted(fd: RawFd, listener: &Description, nonblocking: bool) {
    let inherited = listener.state.load(Ordering::Relaxed);
    let state = inherited & (KIND | TIMED) | if nonblocking { NONBLOCKING } else { 0 };
    enter(fd, take(state, if inherited & TIMED == 0 { 0 } else { UNKNOWN }));
}

/// `new` is a duplicate of `old` from now on.
pub(crate) fn duplicated(old: RawFd, new: RawFd) {
    enter(new, hold(old));
}

/// `fd` is about to be closed, or is a number of which nothing is known any more.
pub(crate) fn forget(fd: RawFd) {
    if TABLE.get(fd as usize).is_some_and(|entry| entry.load(Ordering::Relaxed) != 0) {
        enter(fd, None);
    }
}

/// The fds in `first..=last` that may be in the table.
pub(crate) fn tracked(first: u32, last: u32) -> impl Iterator<Item = RawFd> {
    let end = HIGHEST.load(Ordering::Relaxed).min(last.saturating_add(1));
    (first..end).map(|fd| fd as RawFd).filter(|&fd| known(fd).is_some())
}

/// Lets `fd` hold the description `index`, or none, instead of what it held.
fn enter(fd: RawFd, index: Option<u32>) {
    let Some(entry) = TABLE.get(fd as usize) else {
        return index.map(release).unwrap_or_default();
    };
    raise_highest(fd);
    match entry.swap(index.unwrap_or(0), Ordering::AcqRel) {
        0 => {}
        before => release(before),
    }
}

/// Notes that `fd` is or was in the table.
fn raise_highest(fd: RawFd) {
    let end = fd as u32 + 1;
    if HIGHEST.load(Ordering::Relaxed) < end {
        HIGHEST.fetch_max(end, Ordering::Relaxed);
    }
}

/// A further reference to the description of `fd`, `None` if nothing is known of it.
fn hold(fd: RawFd) -> Option<u32> {
    let entry = TABLE.get(fd as usize)?;
    let index = entry.load(Ordering::Acquire);
    let description = POOL.get(index as usize).filter(|_| index != 0)?;
    let more = |references: u32| (references != 0).then_some(references.wrapping_add(1));
    description.references.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
    if entry.load(Ordering::Acquire) == index {
        return Some(index);
    }
    // `fd` was closed meanwhile, so what was held may be another's by now.
    release(index);
    None
}

/// Takes a free description, with one reference and both timeouts set to `timeout`.
fn take(state: u32, timeout: u64) -> Option<u32> {
    let index = pop().or_else(|| {
        let index = USED.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        // Only fds hold descriptions, so they run out only while two threads fight for the last.
        ((index as usize) < FDS_MAX).then_some(index)
    })?;
    let description = POOL.get(index as usize)?;
    description.receive_timeout.store(timeout, Ordering::Relaxed);
    description.send_timeout.store(timeout, Ordering::Relaxed);
    description.shortage.store(false, Ordering::Relaxed);
    description.state.store(state, Ordering::Relaxed);
    description.references.store(1, Ordering::Release);
    Some(index)
}

/// Gives one reference back; the last one frees the description.
fn release(index: u32) {
    let Some(description) = POOL.get(index as usize) else { return };
    if description.references.fetch_sub(1, Ordering::AcqRel) == 1 {
        push(index, description);
    }
}

/// Puts a free description on the stack.
fn push(index: u32, description: &Description) {
    let mut top = FREE.load(Ordering::Relaxed);
    loop {
        description.below.store(top as u32, Ordering::Relaxed);
        match FREE.compare_exchange_weak(
            top,
            retagged(top, index),
            Ordering::AcqRel,
            Ordering::Relaxed,
        ) {
            Ok(_) => return,
            Err(now) => top = now,
        }
    }
}

/// Takes a free description off the stack.
fn pop() -> Option<u32> {
    let mut top = FREE.load(Ordering::Acquire);
    loop {
        let description = POOL.get(top as u32 as usize).filter(|_| top as u32 != 0)?;
        let below = description.below.load(Ordering::Relaxed);
        match FREE.compare_exchange_weak(
            top,
            retagged(top, below),
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) => return Some(top as u32),
            Err(now) => top = now,
        }
    }
}

/// A top of the stack with `index`, told apart from `before` by its tag.
fn retagged(before: u64, index: u32) -> u64 {
    (before >> 32).wrapping_add(1) << 32 | u64::from(index)
}

#[cfg(test)]
#[path = "fds_tests.rs"]
mod tests;

//! What a parked greenlet waits for, as the deadlock report tells it.

use std::fmt;
use std::os::fd::RawFd;

use crate::hub::Direction;

/// What a parked greenlet waits for.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "monkey"), expect(dead_code, reason = "some waits are the shims' alone"))]
pub(crate) enum Reason {
    /// The end of the greenlet with this name and id.
    Join(u64),
    /// A point in time.
    Sleep,
    /// An fd to become ready.
    Fd(RawFd, Direction),
    /// One of several fds to become ready.
    Fds(usize),
    /// A job on the threadpool.
    Offload,
    /// A lock of std or of libc (a futex).
    Futex,
    /// Something with a name, a greenling lock for example.
    Named(&'static str),
    /// Its turn: it is ready.
    Turn,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Join(id) => write!(f, "waits for greenlet {id} to end"),
            Reason::Sleep => f.write_str("sleeps"),
            Reason::Fd(fd, Direction::Read) => write!(f, "waits for fd {fd} to become readable"),
            Reason::Fd(fd, Direction::Write) => write!(f, "waits for fd {fd} to become writable"),
            Reason::Fds(count) => write!(f, "waits for one of {count} fds"),
            Reason::Offload => f.write_str("waits for a job on the threadpool"),
            Reason::Futex => f.write_str("waits for a lock of the standard library (a futex)"),
            Reason::Named(what) => write!(f, "waits for {what}"),
            Reason::Turn => f.write_str("is ready to run"),
        }
    }
}

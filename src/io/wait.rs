//! Waiting for one fd.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use crate::hub::core::Hub;
use crate::hub::reactor::{Seen, Trust};
use crate::hub::reason::Reason;
use crate::hub::record::Wake;
use crate::hub::{Direction, hub};

/// Suspends the greenlet until a read of `fd` would not block (there is data, the end of it, or an
/// error), or until `deadline`. gevent's `wait_read`.
///
/// It works for whatever epoll(7) does: sockets, pipes, eventfds, timerfds, terminals and so on,
/// whoever owns them and whether they are nonblocking or not. The fd may be closed afterwards
/// without telling greenling. Where several greenlets wait for one fd, all of them are woken.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write, pipe};
///
/// let (mut reader, mut writer) = pipe()?;
/// greenling::spawn(move || writer.write_all(b"!"));
/// greenling::io::wait_readable(&reader, None)?; // Lets the writer run.
/// let mut byte = [0];
/// reader.read_exact(&mut byte)?;
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
///
/// [`TimedOut`](io::ErrorKind::TimedOut) if `deadline` passed;
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for a regular file or a directory, for which there
/// is no waiting; `EBADF` if the fd is not open, or is closed by greenling meanwhile.
///
/// # Cancellation
///
/// A kill point.
pub fn wait_readable(fd: impl AsFd, deadline: Option<Instant>) -> io::Result<()> {
    wait_for(fd.as_fd(), Direction::Read, deadline)
}

/// Suspends the greenlet until a write to `fd` would not block, or until `deadline`; see
/// [`wait_readable`]. gevent's `wait_write`.
///
/// # Examples
///
/// ```
/// let (_reader, writer) = std::io::pipe()?;
/// greenling::io::wait_writable(&writer, None)?; // A pipe is writable until it is full.
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
///
/// As [`wait_readable`].
///
/// # Cancellation
///
/// A kill point.
pub fn wait_writable(fd: impl AsFd, deadline: Option<Instant>) -> io::Result<()> {
    wait_for(fd.as_fd(), Direction::Write, deadline)
}

fn wait_for(fd: BorrowedFd<'_>, direction: Direction, deadline: Option<Instant>) -> io::Result<()> {
    if wait(hub(), fd.as_raw_fd(), direction, Trust::Foreign, Seen::Nothing, deadline)? {
        return Ok(());
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Suspends the greenlet until an edge of `fd`. False if `deadline` passed.
/// Kills and expired timeouts unwind.
#[inline(always)]
pub(crate) fn wait(
    hub: &Hub,
    fd: RawFd,
    direction: Direction,
    trust: Trust,
    seen: Seen,
    deadline: Option<Instant>,
) -> io::Result<bool> {
    match hub.wait_fd(fd, direction, trust, seen, deadline) {
        Wake::Ready => Ok(true),
        wake => ended(hub, fd, direction, deadline, wake),
    }
}

/// What it means that a wait has ended with something else than readiness.
#[cold]
fn ended(
    hub: &Hub,
    fd: RawFd,
    direction: Direction,
    deadline: Option<Instant>,
    wake: Wake,
) -> io::Result<bool> {
    match wake {
        Wake::TimedOut => Ok(false),
        Wake::Closed => Err(io::Error::from_raw_os_error(libc::EBADF)),
        Wake::Unpollable => block(fd, direction, deadline),
        wake => Err(interrupted(hub.surface(wake, Reason::Fd(fd, direction)))),
    }
}

/// The error of a call that was interrupted and can't unwind, because of `panic = "abort"`.
#[cold]
pub(crate) fn interrupted(wake: Wake) -> io::Error {
    io::Error::from_raw_os_error(match wake {
        Wake::Expired => libc::ETIMEDOUT,
        _ => libc::ECANCELED,
    })
}

/// Waits with the OS thread itself, because it is panicking or epoll has refused the fd.
#[cold]
fn block(fd: RawFd, direction: Direction, deadline: Option<Instant>) -> io::Result<bool> {
    if !std::thread::panicking() {
        refuse_files(fd)?;
    }
    let events = match direction {
        Direction::Read => libc::POLLIN,
        Direction::Write => libc::POLLOUT,
    };
    loop {
        let timeout = match deadline {
            None => -1,
            // Rounded up, so that the deadline has passed when the poll times out.
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let left = left + Duration::from_nanos(999_999);
                i32::try_from(left.as_millis()).unwrap_or(i32::MAX)
            }
        };
        let mut entry = libc::pollfd { fd, events, revents: 0 };
        // SAFETY: the pointer is to one live pollfd, which is what the count says.
        match unsafe { libc::poll(&raw mut entry, 1, timeout) } {
            0 if timeout < i32::MAX => return Ok(false),
            0 => {}
            1 if entry.revents & libc::POLLNVAL != 0 => {
                return Err(io::Error::from_raw_os_error(libc::EBADF));
            }
            1 => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// An error for what is always ready, so that there is no waiting for it.
pub(crate) fn refuse_files(fd: RawFd) -> io::Result<()> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the pointer is to room for a stat.
    if unsafe { libc::fstat(fd, status.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fstat has succeeded, so it has filled the room.
    let kind = unsafe { status.assume_init() }.st_mode & libc::S_IFMT;
    if kind == libc::S_IFREG || kind == libc::S_IFDIR {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a regular file or directory can't be waited for: it always counts as ready",
        ));
    }
    Ok(())
}

//! The owner of any pollable fd.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Instant;

use crate::hub::Direction;
use crate::io::registration::Registration;
use crate::io::wait::refuse_files;
use crate::io::{attempt, wait_readable, wait_writable};

/// Makes reads and writes of any pollable fd suspend the greenlet instead of blocking the thread:
/// pipes, eventfds, timerfds, terminals, sockets that [`net`](crate::net) has no type for.
///
/// It stays on its thread, as everything does that one hub knows:
///
/// ```compile_fail
/// let pipe = greenling::io::Pollable::new(std::io::pipe().unwrap().0).unwrap();
/// std::thread::spawn(move || drop(pipe));
/// ```
///
/// # Examples
///
/// ```
/// use greenling::io::Pollable;
/// use std::io::{Read, Write};
///
/// let (reader, writer) = std::io::pipe()?;
/// let (mut reader, mut writer) = (Pollable::new(reader)?, Pollable::new(writer)?);
/// greenling::spawn(move || writer.write_all(b"hello"));
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// # std::io::Result::Ok(())
/// ```
pub struct Pollable<T: AsFd> {
    /// Of the fd that `inner` had when it came. Above `inner`, so that it ends before the fd is
    /// closed.
    registration: Registration,
    /// The owner of the fd. Never lent mutably, so that it keeps the fd.
    inner: T,
}

impl<T: AsFd> Pollable<T> {
    /// Takes an fd over and makes it nonblocking (`O_NONBLOCK`), which it stays. So does what
    /// shares its open file description: duplicates, and for a terminal other processes.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a regular file or a directory: they can't
    /// be waited for, and `O_NONBLOCK` means nothing to them. Else what fcntl(2) says.
    pub fn new(inner: T) -> io::Result<Pollable<T>> {
        let fd = inner.as_fd();
        refuse_files(fd.as_raw_fd())?;
        set_nonblocking(fd)?;
        let registration = Registration::new(fd.as_raw_fd());
        // Nobody knows whether `T` closes the fd when it is dropped, or has duplicated it.
        registration.share();
        Ok(Pollable { registration, inner })
    }

    /// What is owned. An operation on it does not wait: it may fail with
    /// [`WouldBlock`](io::ErrorKind::WouldBlock).
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// Gives back what is owned. It is still nonblocking.
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// Suspends the greenlet until a read would not block; see [`wait_readable`].
    ///
    /// # Errors
    ///
    /// As [`wait_readable`].
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn readable(&self, deadline: Option<Instant>) -> io::Result<()> {
        wait_readable(&self.inner, deadline)
    }

    /// Suspends the greenlet until a write would not block; see [`wait_writable`].
    ///
    /// # Errors
    ///
    /// As [`wait_readable`].
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn writable(&self, deadline: Option<Instant>) -> io::Result<()> {
        wait_writable(&self.inner, deadline)
    }

    /// Calls `read`, again after each time it said [`WouldBlock`](io::ErrorKind::WouldBlock) and
    /// the fd has become readable since.
    ///
    /// # Examples
    ///
    /// An eventfd, which has no type in std:
    ///
    /// ```
    /// use greenling::io::Pollable;
    /// use std::fs::File;
    /// use std::io::{Read, Write};
    /// use std::os::fd::{FromRawFd, OwnedFd};
    ///
    /// // SAFETY: a new fd, which nobody else owns.
    /// let event = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
    /// let event = Pollable::new(File::from(event))?;
    /// event.write_with(|mut file| file.write_all(&3_u64.to_ne_bytes()))?;
    /// let mut count = [0; 8];
    /// event.read_with(|mut file| file.read_exact(&mut count))?;
    /// assert_eq!(u64::from_ne_bytes(count), 3);
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// What `read` says other than `WouldBlock`.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn read_with<R>(&self, mut read: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        attempt(
            self.fd(),
            Direction::Read,
            None,
            &Cell::new(false),
            |_| false,
            || read(&self.inner),
        )
    }

    /// Calls `write`, again after each time it said [`WouldBlock`](io::ErrorKind::WouldBlock) and
    /// the fd has become writable since; see [`read_with`](Pollable::read_with).
    ///
    /// # Errors
    ///
    /// What `write` says other than `WouldBlock`.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn write_with<R>(&self, mut write: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        attempt(
            self.fd(),
            Direction::Write,
            None,
            &Cell::new(false),
            |_| false,
            || write(&self.inner),
        )
    }

    #[inline]
    fn fd(&self) -> RawFd {
        self.registration.fd()
    }
}

impl<T: AsFd + Read> Read for Pollable<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (fd, inner) = (self.fd(), &mut self.inner);
        attempt(fd, Direction::Read, None, &Cell::new(false), |_| false, || inner.read(buf))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let (fd, inner) = (self.fd(), &mut self.inner);
        attempt(
            fd,
            Direction::Read,
            None,
            &Cell::new(false),
            |_| false,
            || inner.read_vectored(bufs),
        )
    }
}

impl<T: AsFd> Read for &Pollable<T>
where
    for<'a> &'a T: Read,
{
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_with(|mut inner| inner.read(buf))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.read_with(|mut inner| inner.read_vectored(bufs))
    }
}

impl<T: AsFd + Write> Write for Pollable<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let (fd, inner) = (self.fd(), &mut self.inner);
        attempt(fd, Direction::Write, None, &Cell::new(false), |_| false, || inner.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let (fd, inner) = (self.fd(), &mut self.inner);
        attempt(
            fd,
            Direction::Write,
            None,
            &Cell::new(false),
            |_| false,
            || inner.write_vectored(bufs),
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        let (fd, inner) = (self.fd(), &mut self.inner);
        attempt(fd, Direction::Write, None, &Cell::new(false), |_| false, || inner.flush())
    }
}

impl<T: AsFd> Write for &Pollable<T>
where
    for<'a> &'a T: Write,
{
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_with(|mut inner| inner.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_with(|mut inner| inner.write_vectored(bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_with(|mut inner| inner.flush())
    }
}

impl<T: AsFd> AsFd for Pollable<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<T: AsFd> AsRawFd for Pollable<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd()
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for Pollable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pollable").field(&self.inner).finish()
    }
}

/// Makes operations on the fd's open file description fail instead of blocking.
fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let fd = fd.as_raw_fd();
    // SAFETY: no pointers are passed; a negative answer is turned into an error below.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::O_NONBLOCK == 0 {
        // SAFETY: as above.
        let result = unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

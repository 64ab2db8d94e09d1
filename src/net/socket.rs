//! What all sockets have in common: std's socket, made nonblocking, and how long its user wants to
//! wait.

use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;

use crate::hub::Direction;
use crate::io::{Registration, attempt, attempt_patiently};

/// A nonblocking socket. `S` is std's type for it, which knows its options and addresses.
pub(super) struct Socket<S> {
    /// Tells the reactor before the fd is closed: above `inner`, so dropped first.
    registration: Registration,
    /// The owner of the fd.
    inner: S,
    /// Whether the last read, and the last write, came short: there was no more then.
    shortage: [Cell<bool>; 2],
    /// How long to wait. Without a value, and without an allocation, until something is set: then
    /// operations wait for as long as it takes.
    options: OnceCell<Rc<Options>>,
}

/// How long a socket and its clones wait. std's sockets have all of this in the kernel, in what
/// their clones share.
#[derive(Default)]
struct Options {
    /// `SO_RCVTIMEO`.
    read_timeout: Cell<Option<Duration>>,
    /// `SO_SNDTIMEO`.
    write_timeout: Cell<Option<Duration>>,
    /// `O_NONBLOCK`: do not wait at all.
    nonblocking: Cell<bool>,
    /// Whether a datagram socket has been shut down for reading; see [`Socket::end_if_shut`].
    read_shut: Cell<bool>,
}

impl Options {
    fn timeout(&self, direction: Direction) -> &Cell<Option<Duration>> {
        match direction {
            Direction::Read => &self.read_timeout,
            Direction::Write => &self.write_timeout,
        }
    }
}

impl<S: AsRawFd> Socket<S> {
    /// A socket that is nonblocking already.
    #[inline]
    pub(super) fn from_nonblocking(inner: S) -> Socket<S> {
        let registration = Registration::new(inner.as_raw_fd());
        let shortage = [const { Cell::new(false) }; 2];
        Socket { registration, inner, shortage, options: OnceCell::new() }
    }

    /// std's socket.
    #[inline]
    pub(super) fn inner(&self) -> &S {
        &self.inner
    }

    /// Does `operation`, waiting as often as it would block.
    #[inline]
    pub(super) fn attempt<R>(
        &self,
        direction: Direction,
        operation: impl FnMut(&S) -> io::Result<R>,
    ) -> io::Result<R> {
        self.attempt_and_see(direction, |_| false, operation)
    }

    /// Does `operation`, waiting as often as it would block. `short` says of a result whether it
    /// shows that the next operation would block.
    #[inline]
    pub(super) fn attempt_and_see<R>(
        &self,
        direction: Direction,
        short: impl Fn(&R) -> bool,
        mut operation: impl FnMut(&S) -> io::Result<R>,
    ) -> io::Result<R> {
        let timeout = match self.options.get() {
            None => None,
            Some(options) if options.nonblocking.get() => return operation(&self.inner),
            Some(options) => options.timeout(direction).get(),
        };
        let fd = self.registration.fd();
        let shortage = &self.shortage[direction as usize];
        attempt(fd, direction, timeout, shortage, short, || operation(&self.inner))
    }

    /// Does a write `operation` of which the kernel does not tell when it has become possible.
    pub(super) fn attempt_patiently<R>(
        &self,
        mut operation: impl FnMut(&S) -> io::Result<R>,
    ) -> io::Result<R> {
        let timeout = match self.options.get() {
            None => None,
            Some(options) if options.nonblocking.get() => return operation(&self.inner),
            Some(options) => options.write_timeout.get(),
        };
        attempt_patiently(timeout, || operation(&self.inner))
    }

    /// How long reads or writes wait; None is for ever.
    pub(super) fn timeout(&self, direction: Direction) -> Option<Duration> {
        self.options.get().and_then(|options| options.timeout(direction).get())
    }

    /// Sets how long reads or writes wait. As std has it, zero is an error.
    pub(super) fn set_timeout(
        &self,
        direction: Direction,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            let message = "cannot set a 0 duration timeout";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        self.options().timeout(direction).set(timeout);
        Ok(())
    }

    /// Whether operations fail with `EAGAIN` instead of waiting.
    pub(super) fn set_nonblocking(&self, nonblocking: bool) {
        self.options().nonblocking.set(nonblocking);
    }

    /// Notes that a datagram socket has been shut down for reading.
    pub(super) fn shut_read(&self) {
        self.options().read_shut.set(true);
    }

    /// The end, if a receive found nothing because a datagram socket is shut down for reading. The
    /// kernel tells that to blocking sockets only: a nonblocking one is told `EAGAIN` for ever.
    pub(super) fn end_if_shut<R>(&self, received: io::Result<R>) -> io::Result<Option<R>> {
        match (received, self.options.get()) {
            (Err(error), Some(options))
                if error.kind() == io::ErrorKind::WouldBlock
                    && options.read_shut.get()
                    && !options.nonblocking.get() =>
            {
                Ok(None)
            }
            (received, _) => received.map(Some),
        }
    }

    /// Another owner of the same open file description, made by `duplicate` from std's socket.
    /// What is set through one holds for the other.
    pub(super) fn try_clone(
        &self,
        duplicate: impl FnOnce(&S) -> io::Result<S>,
    ) -> io::Result<Socket<S>> {
        let clone = Socket::from_nonblocking(duplicate(&self.inner)?);
        self.registration.share();
        clone.registration.share();
        let _ = clone.options.set(Rc::clone(self.options()));
        Ok(clone)
    }

    fn options(&self) -> &Rc<Options> {
        self.options.get_or_init(Rc::default)
    }
}

impl<S: AsRawFd + From<OwnedFd> + Into<OwnedFd>> Socket<S> {
    /// Takes a socket over from std: it becomes nonblocking, and its timeouts come with it.
    pub(super) fn adopt(inner: S) -> Socket<S> {
        let fd: OwnedFd = inner.into();
        let socket = SockRef::from(&fd);
        // It fails only for what is no socket; then every operation will say so.
        let _ = socket.set_nonblocking(true);
        let timeouts =
            [(Direction::Read, socket.read_timeout()), (Direction::Write, socket.write_timeout())];
        let socket = Socket::from_nonblocking(S::from(fd));
        for (direction, timeout) in timeouts {
            if let Ok(Some(timeout)) = timeout {
                socket.options().timeout(direction).set(Some(timeout));
            }
        }
        socket
    }

    /// Gives the socket back to std: it is blocking from now on unless its user wanted the
    /// contrary, and its timeouts go with it.
    pub(super) fn release(self) -> S {
        let Socket { registration, inner, options, .. } = self;
        registration.share();
        drop(registration);
        let fd: OwnedFd = inner.into();
        let socket = SockRef::from(&fd);
        // These fail only for what is no socket; then every operation will say so.
        let _ = socket.set_nonblocking(options.get().is_some_and(|o| o.nonblocking.get()));
        if let Some(options) = options.get() {
            let _ = socket.set_read_timeout(options.read_timeout.get());
            let _ = socket.set_write_timeout(options.write_timeout.get());
        }
        S::from(fd)
    }
}

/// recv(2) without waiting. Said in the call and not only by the socket's mode, so that a shim
/// below need not look the mode up.
#[inline]
pub(super) fn receive(socket: &impl AsRawFd, buf: &mut [u8]) -> io::Result<usize> {
    let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
    // SAFETY: the pointer and the length are those of a slice that may be written.
    let result = unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), flags) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// send(2) without waiting, and without the signal that a connection shut by the peer would cause.
#[inline]
pub(super) fn send(socket: &impl AsRawFd, buf: &[u8]) -> io::Result<usize> {
    let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    // SAFETY: the pointer and the length are those of a slice.
    let result = unsafe { libc::send(fd, buf.as_ptr().cast(), buf.len(), flags) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

//! A Unix stream connection.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use crate::hub::Direction;
use crate::net::connect::connect_unix;
use crate::net::socket::{Socket, receive, send};

/// A Unix stream connection: [`std::os::unix::net::UnixStream`] whose calls suspend the greenlet.
///
/// ```compile_fail
/// // It stays on its thread.
/// let (stream, _) = greenling::net::unix::UnixStream::pair().unwrap();
/// std::thread::spawn(move || drop(stream));
/// ```
///
/// # Examples
///
/// ```
/// use greenling::net::unix::UnixStream;
/// use std::io::{Read, Write};
///
/// let (mut here, mut there) = UnixStream::pair()?;
/// greenling::spawn(move || there.write_all(b"hello"));
/// let mut text = String::new();
/// here.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// # std::io::Result::Ok(())
/// ```
///
/// # Cancellation
///
/// Connecting, reading and writing are kill points, where they have to wait.
pub struct UnixStream {
    /// std's socket.
    socket: Socket<std::os::unix::net::UnixStream>,
}

impl UnixStream {
    /// A connection that is nonblocking.
    #[inline]
    pub(super) fn from_nonblocking(stream: std::os::unix::net::UnixStream) -> UnixStream {
        UnixStream { socket: Socket::from_nonblocking(stream) }
    }

    /// Connects to the listener at `path`. See [std's](std::os::unix::net::UnixStream::connect).
    ///
    /// # Errors
    ///
    /// What connect(2) says.
    ///
    /// # Cancellation
    ///
    /// A kill point if the listener's backlog is full.
    pub fn connect<P: AsRef<Path>>(path: P) -> io::Result<UnixStream> {
        UnixStream::connect_addr(&SocketAddr::from_pathname(path)?)
    }

    /// Connects to the listener at `socket_addr`, which may be an abstract one. See
    /// [std's](std::os::unix::net::UnixStream::connect_addr).
    ///
    /// # Errors
    ///
    /// What connect(2) says.
    ///
    /// # Cancellation
    ///
    /// A kill point if the listener's backlog is full.
    pub fn connect_addr(socket_addr: &SocketAddr) -> io::Result<UnixStream> {
        connect_unix(socket_addr).map(UnixStream::from_nonblocking)
    }

    /// Two sockets that are connected with each other. See
    /// [std's](std::os::unix::net::UnixStream::pair).
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` if there are no fds left.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (one, other) = std::os::unix::net::UnixStream::pair()?;
        one.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
        Ok((UnixStream::from_nonblocking(one), UnixStream::from_nonblocking(other)))
    }

    /// The address of this end.
    ///
    /// # Errors
    ///
    /// As [std's](std::os::unix::net::UnixStream::local_addr).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.inner().local_addr()
    }

    /// The address of the other end.
    ///
    /// # Errors
    ///
    /// As [std's](std::os::unix::net::UnixStream::peer_addr).
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.inner().peer_addr()
    }

    /// Shuts one or both directions down. See
    /// [std's](std::os::unix::net::UnixStream::shutdown).
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.inner().shutdown(how)
    }

    socket_methods!(UnixStream, std::os::unix::net::UnixStream);
    timeout_methods!(std::os::unix::net::UnixStream);

    #[inline]
    fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        // A short read does not mean that nothing is left: the kernel also stops behind a message
        // that carries fds or comes from another sender (unix(7), SCM_RIGHTS and SO_PASSCRED).
        self.socket.attempt(Direction::Read, |inner| receive(inner, buf))
    }

    #[inline]
    fn send(&self, buf: &[u8]) -> io::Result<usize> {
        let short = |&written: &usize| written < buf.len();
        self.socket.attempt_and_see(Direction::Write, short, |inner| send(inner, buf))
    }
}

impl_stream_io!(UnixStream);
impl_conversions!(UnixStream, std::os::unix::net::UnixStream);

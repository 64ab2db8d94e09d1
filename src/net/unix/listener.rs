//! A Unix stream socket that accepts connections.

use std::io;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use crate::hub::Direction;
use crate::net::accept::{accept, unix_peer};
use crate::net::socket::Socket;
use crate::net::unix::UnixStream;

/// A Unix stream socket that accepts connections: [`std::os::unix::net::UnixListener`] whose calls
/// suspend the greenlet.
///
/// ```compile_fail
/// // It stays on its thread.
/// let listener = greenling::net::unix::UnixListener::bind("/tmp/socket").unwrap();
/// std::thread::spawn(move || drop(listener));
/// ```
///
/// # Examples
///
/// ```
/// use greenling::net::unix::{SocketAddr, UnixListener, UnixStream};
/// use std::io::{Read, Write};
/// use std::os::linux::net::SocketAddrExt;
///
/// let name = format!("greenling-doc-{}", std::process::id());
/// let address = SocketAddr::from_abstract_name(name)?;
/// let listener = UnixListener::bind_addr(&address)?;
/// greenling::spawn(move || UnixStream::connect_addr(&address)?.write_all(b"hello"));
/// let (mut stream, _) = listener.accept()?;
/// let mut text = String::new();
/// stream.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// # std::io::Result::Ok(())
/// ```
///
/// # Cancellation
///
/// Accepting is a kill point. No connection gets lost by it.
pub struct UnixListener {
    /// std's socket.
    socket: Socket<std::os::unix::net::UnixListener>,
}

impl UnixListener {
    /// Listens at a new file `path`. See [std's](std::os::unix::net::UnixListener::bind).
    ///
    /// # Errors
    ///
    /// What bind(2) says.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixListener> {
        UnixListener::from_std(std::os::unix::net::UnixListener::bind(path)?)
    }

    /// Listens at `socket_addr`, which may be an abstract one. See
    /// [std's](std::os::unix::net::UnixListener::bind_addr).
    ///
    /// # Errors
    ///
    /// What bind(2) says.
    pub fn bind_addr(socket_addr: &SocketAddr) -> io::Result<UnixListener> {
        UnixListener::from_std(std::os::unix::net::UnixListener::bind_addr(socket_addr)?)
    }

    fn from_std(listener: std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
        listener.set_nonblocking(true)?;
        Ok(UnixListener { socket: Socket::from_nonblocking(listener) })
    }

    /// Waits for a connection and takes it. See
    /// [std's](std::os::unix::net::UnixListener::accept).
    ///
    /// # Errors
    ///
    /// As [`TcpListener::accept`](crate::net::TcpListener::accept).
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (fd, address) = self.socket.attempt(Direction::Read, accept)?;
        Ok((UnixStream::from_nonblocking(fd.into()), unix_peer(&address)?))
    }

    /// The address at which it listens.
    ///
    /// # Errors
    ///
    /// As [std's](std::os::unix::net::UnixListener::local_addr).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.inner().local_addr()
    }

    /// Accepts one connection after the other, for ever; as
    /// [`TcpListener::incoming`](crate::net::TcpListener::incoming).
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    socket_methods!(UnixListener, std::os::unix::net::UnixListener);
}

impl_conversions!(UnixListener, std::os::unix::net::UnixListener);

impl<'a> IntoIterator for &'a UnixListener {
    type Item = io::Result<UnixStream>;
    type IntoIter = Incoming<'a>;

    fn into_iter(self) -> Incoming<'a> {
        self.incoming()
    }
}

/// Accepts one connection after the other; see [`UnixListener::incoming`].
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Incoming<'a> {
    /// Where the connections come from.
    listener: &'a UnixListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<UnixStream>;

    fn next(&mut self) -> Option<io::Result<UnixStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}

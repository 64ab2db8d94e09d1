//! A Unix datagram socket.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use crate::hub::Direction;
use crate::net::socket::{Socket, receive, send};

/// A Unix datagram socket: [`std::os::unix::net::UnixDatagram`] whose calls suspend the greenlet.
///
/// ```compile_fail
/// // It stays on its thread.
/// let socket = greenling::net::unix::UnixDatagram::unbound().unwrap();
/// std::thread::spawn(move || drop(socket));
/// ```
///
/// # Examples
///
/// ```
/// use greenling::net::unix::UnixDatagram;
///
/// let (here, there) = UnixDatagram::pair()?;
/// greenling::spawn(move || there.send(b"ping"));
/// let mut buf = [0; 16];
/// let len = here.recv(&mut buf)?;
/// assert_eq!(&buf[..len], b"ping");
/// # std::io::Result::Ok(())
/// ```
///
/// # Cancellation
///
/// Receiving and sending are kill points, where they have to wait. A datagram is received and sent
/// as a whole or not at all.
pub struct UnixDatagram {
    /// std's socket.
    socket: Socket<std::os::unix::net::UnixDatagram>,
}

impl UnixDatagram {
    fn from_std(socket: std::os::unix::net::UnixDatagram) -> io::Result<UnixDatagram> {
        socket.set_nonblocking(true)?;
        Ok(UnixDatagram { socket: Socket::from_nonblocking(socket) })
    }

    /// A socket at a new file `path`. See [std's](std::os::unix::net::UnixDatagram::bind).
    ///
    /// # Errors
    ///
    /// What bind(2) says.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixDatagram> {
        UnixDatagram::from_std(std::os::unix::net::UnixDatagram::bind(path)?)
    }

    /// A socket at `socket_addr`, which may be an abstract one. See
    /// [std's](std::os::unix::net::UnixDatagram::bind_addr).
    ///
    /// # Errors
    ///
    /// What bind(2) says.
    pub fn bind_addr(socket_addr: &SocketAddr) -> io::Result<UnixDatagram> {
        UnixDatagram::from_std(std::os::unix::net::UnixDatagram::bind_addr(socket_addr)?)
    }

    /// A socket without an address. See [std's](std::os::unix::net::UnixDatagram::unbound).
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` if there are no fds left.
    pub fn unbound() -> io::Result<UnixDatagram> {
        UnixDatagram::from_std(std::os::unix::net::UnixDatagram::unbound()?)
    }

    /// Two sockets that are connected with each other. See
    /// [std's](std::os::unix::net::UnixDatagram::pair).
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` if there are no fds left.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (one, other) = std::os::unix::net::UnixDatagram::pair()?;
        Ok((UnixDatagram::from_std(one)?, UnixDatagram::from_std(other)?))
    }

    /// Fixes the peer for [`send`](UnixDatagram::send). It never waits. See
    /// [std's](std::os::unix::net::UnixDatagram::connect).
    ///
    /// # Errors
    ///
    /// What connect(2) says.
    pub fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.socket.inner().connect(path)
    }

    /// Fixes the peer for [`send`](UnixDatagram::send). It never waits. See
    /// [std's](std::os::unix::net::UnixDatagram::connect_addr).
    ///
    /// # Errors
    ///
    /// What connect(2) says.
    pub fn connect_addr(&self, socket_addr: &SocketAddr) -> io::Result<()> {
        self.socket.inner().connect_addr(socket_addr)
    }

    /// The socket's own address.
    ///
    /// # Errors
    ///
    /// As [std's](std::os::unix::net::UnixDatagram::local_addr).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.inner().local_addr()
    }

    /// The peer's address.
    ///
    /// # Errors
    ///
    /// As [std's](std::os::unix::net::UnixDatagram::peer_addr).
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.inner().peer_addr()
    }

    /// Waits for a datagram, and says who sent it. What does not fit is cut off. See
    /// [std's](std::os::unix::net::UnixDatagram::recv_from).
    ///
    /// # Errors
    ///
    /// What recvfrom(2) says.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let received = self
            .socket
            .attempt(Direction::Read, |inner| self.socket.end_if_shut(inner.recv_from(buf)))?;
        match received {
            Some(received) => Ok(received),
            None => Ok((0, SocketAddr::from_pathname("")?)),
        }
    }

    /// Waits for a datagram. What does not fit is cut off. See
    /// [std's](std::os::unix::net::UnixDatagram::recv).
    ///
    /// # Errors
    ///
    /// What recv(2) says.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        let received = self
            .socket
            .attempt(Direction::Read, |inner| self.socket.end_if_shut(receive(inner, buf)))?;
        Ok(received.unwrap_or(0))
    }

    /// Sends a datagram to the socket at `path`. See
    /// [std's](std::os::unix::net::UnixDatagram::send_to).
    ///
    /// While the receiver's queue is full this looks again after growing pauses of some
    /// milliseconds, because the kernel does not tell when there is room;
    /// [`connect`](UnixDatagram::connect) and [`send`](UnixDatagram::send) have no such delay.
    ///
    /// # Errors
    ///
    /// What sendto(2) says.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn send_to<P: AsRef<Path>>(&self, buf: &[u8], path: P) -> io::Result<usize> {
        let path = path.as_ref();
        self.socket.attempt_patiently(|inner| inner.send_to(buf, path))
    }

    /// Sends a datagram to the socket at `socket_addr`; as [`send_to`](UnixDatagram::send_to). See
    /// [std's](std::os::unix::net::UnixDatagram::send_to_addr).
    ///
    /// # Errors
    ///
    /// What sendto(2) says.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn send_to_addr(&self, buf: &[u8], socket_addr: &SocketAddr) -> io::Result<usize> {
        self.socket.attempt_patiently(|inner| inner.send_to_addr(buf, socket_addr))
    }

    /// Sends a datagram to the peer. See [std's](std::os::unix::net::UnixDatagram::send).
    ///
    /// # Errors
    ///
    /// What send(2) says.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.socket.attempt(Direction::Write, |inner| send(inner, buf))
    }

    /// Shuts one or both directions down. See
    /// [std's](std::os::unix::net::UnixDatagram::shutdown).
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.inner().shutdown(how)?;
        if how != Shutdown::Write {
            self.socket.shut_read();
        }
        Ok(())
    }

    socket_methods!(UnixDatagram, std::os::unix::net::UnixDatagram);
    timeout_methods!(std::os::unix::net::UnixDatagram);
}

impl_conversions!(UnixDatagram, std::os::unix::net::UnixDatagram);

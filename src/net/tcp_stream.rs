//! A TCP connection.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use socket2::SockRef;

use crate::hub::Direction;
use crate::net::ToSocketAddrs;
use crate::net::addr::each_address;
use crate::net::connect::connect_tcp;
use crate::net::socket::{Socket, receive, send};
use crate::time::after;

/// A TCP connection: [`std::net::TcpStream`] whose calls suspend the greenlet.
///
/// It is read and written through `&self`, so one greenlet can read while another writes. A short
/// read tells that nothing more is there, and saves the next one a system call.
///
/// ```compile_fail
/// // It stays on its thread. Send a std::net::TcpStream instead, and convert it there.
/// let stream = greenling::net::TcpStream::connect("127.0.0.1:80").unwrap();
/// std::thread::spawn(move || drop(stream));
/// ```
///
/// # Examples
///
/// ```no_run
/// use greenling::net::TcpStream;
/// use std::io::{Read, Write};
///
/// let mut stream = TcpStream::connect("example.org:80")?;
/// stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
/// let mut answer = String::new();
/// stream.read_to_string(&mut answer)?;
/// # std::io::Result::Ok(())
/// ```
///
/// # Cancellation
///
/// Connecting, reading, writing and peeking are kill points, where they have to wait. A read that
/// is ended takes nothing from the socket; a `write_all` that is ended has written a part.
pub struct TcpStream {
    /// std's socket.
    socket: Socket<std::net::TcpStream>,
}

impl TcpStream {
    /// A connection that was accepted or connected, and is nonblocking.
    #[inline]
    pub(super) fn from_nonblocking(stream: std::net::TcpStream) -> TcpStream {
        TcpStream { socket: Socket::from_nonblocking(stream) }
    }

    /// Opens a connection to the first of the addresses that accepts it. See
    /// [std's](std::net::TcpStream::connect).
    ///
    /// # Errors
    ///
    /// What the last address gave.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        each_address(addr, |addr| connect_tcp(addr, None)).map(TcpStream::from_nonblocking)
    }

    /// Opens a connection to `addr` and gives up after `timeout`. See
    /// [std's](std::net::TcpStream::connect_timeout).
    ///
    /// # Errors
    ///
    /// [`TimedOut`](io::ErrorKind::TimedOut); [`InvalidInput`](io::ErrorKind::InvalidInput) for a
    /// zero duration; else what connect(2) says.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        if timeout.is_zero() {
            let message = "cannot set a 0 duration timeout";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        connect_tcp(*addr, after(timeout)).map(TcpStream::from_nonblocking)
    }

    /// The address of the other end.
    ///
    /// # Errors
    ///
    /// As [std's](std::net::TcpStream::peer_addr).
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.inner().peer_addr()
    }

    /// The address of this end.
    ///
    /// # Errors
    ///
    /// As [std's](std::net::TcpStream::local_addr).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.inner().local_addr()
    }

    /// Shuts one or both directions down. Whoever waits in that direction, here or at the peer,
    /// comes to the end. See [std's](std::net::TcpStream::shutdown).
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if the peer has gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.inner().shutdown(how)
    }

    /// Reads without taking what is read from the socket. See
    /// [std's](std::net::TcpStream::peek).
    ///
    /// # Errors
    ///
    /// As a read.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.attempt(Direction::Read, |inner| inner.peek(buf))
    }

    /// Sets `SO_LINGER`: for how long a close waits until the peer has everything that was sent.
    /// Zero makes the close throw it away and reset the connection. socket(7)
    ///
    /// It is the thread that waits, with all of its greenlets, because close(2) has no nonblocking
    /// form. To wait only with the greenlet, [shut the socket down](TcpStream::shutdown) for
    /// writing instead, and read to the end.
    ///
    /// # Errors
    ///
    /// What setsockopt(2) says.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        SockRef::from(self).set_linger(linger)
    }

    /// What [`set_linger`](TcpStream::set_linger) was given.
    ///
    /// # Errors
    ///
    /// What getsockopt(2) says.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        SockRef::from(self).linger()
    }

    /// Sets `TCP_NODELAY`. See [std's](std::net::TcpStream::set_nodelay).
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.socket.inner().set_nodelay(nodelay)
    }

    /// Whether `TCP_NODELAY` is set.
    ///
    /// # Errors
    ///
    /// As [std's](std::net::TcpStream::nodelay).
    pub fn nodelay(&self) -> io::Result<bool> {
        self.socket.inner().nodelay()
    }

    /// Sets `IP_TTL`. See [std's](std::net::TcpStream::set_ttl).
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.socket.inner().set_ttl(ttl)
    }

    /// The value of `IP_TTL`.
    ///
    /// # Errors
    ///
    /// As [std's](std::net::TcpStream::ttl).
    pub fn ttl(&self) -> io::Result<u32> {
        self.socket.inner().ttl()
    }

    socket_methods!(TcpStream, std::net::TcpStream);
    timeout_methods!(std::net::TcpStream);

    #[inline]
    fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        let room = buf.len();
        // A short read has taken all there is. Nothing at all is the end, which stays.
        let short = |&read: &usize| read > 0 && read < room;
        self.socket.attempt_and_see(Direction::Read, short, |inner| receive(inner, buf))
    }

    #[inline]
    fn send(&self, buf: &[u8]) -> io::Result<usize> {
        let short = |&written: &usize| written < buf.len();
        self.socket.attempt_and_see(Direction::Write, short, |inner| send(inner, buf))
    }
}

impl_stream_io!(TcpStream);
impl_conversions!(TcpStream, std::net::TcpStream);

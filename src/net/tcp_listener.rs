//! A TCP socket that accepts connections.

use std::io;
use std::net::SocketAddr;

use crate::hub::Direction;
use crate::net::accept::accept;
use crate::net::socket::Socket;
use crate::net::{Incoming, TcpListenerBuilder, TcpStream, ToSocketAddrs};

/// A TCP socket that accepts connections: [`std::net::TcpListener`] whose calls suspend the
/// greenlet. Several greenlets may accept from one listener.
///
/// ```compile_fail
/// // It stays on its thread.
/// let listener = greenling::net::TcpListener::bind("127.0.0.1:0").unwrap();
/// std::thread::spawn(move || listener.accept());
/// ```
///
/// # Examples
///
/// See [`net`](crate::net).
///
/// # Cancellation
///
/// Accepting is a kill point. No connection gets lost by it.
pub struct TcpListener {
    /// std's socket.
    socket: Socket<std::net::TcpListener>,
}

impl TcpListener {
    /// A listener that is nonblocking.
    pub(super) fn from_nonblocking(listener: std::net::TcpListener) -> TcpListener {
        TcpListener { socket: Socket::from_nonblocking(listener) }
    }

    /// Listens at the first of the addresses that can be had, with `SO_REUSEADDR` and a backlog of
    /// 128. See [std's](std::net::TcpListener::bind), and [`builder`](TcpListener::builder) for
    /// other settings.
    ///
    /// # Errors
    ///
    /// What the last address gave.
    ///
    /// # Cancellation
    ///
    /// A kill point if a name must be looked up.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        TcpListener::builder().bind(addr)
    }

    /// Settings for a listener that [`bind`](TcpListener::bind) has no argument for.
    ///
    /// # Examples
    ///
    /// ```
    /// use greenling::net::TcpListener;
    ///
    /// let listener = TcpListener::builder().backlog(4096).reuse_port(true).bind("127.0.0.1:0")?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn builder() -> TcpListenerBuilder {
        TcpListenerBuilder::new()
    }

    /// The address at which it listens.
    ///
    /// # Errors
    ///
    /// As [std's](std::net::TcpListener::local_addr).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.inner().local_addr()
    }

    /// Waits for a connection and takes it. See [std's](std::net::TcpListener::accept).
    ///
    /// # Errors
    ///
    /// What accept(2) says. `EMFILE` and `ENFILE` (no fds left) leave the connection in the queue,
    /// so the next call fails at once, too: a loop should sleep a little before it goes on, or it
    /// spins. Errors of the connection itself, `ECONNABORTED` for example, concern only that one.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (fd, address) = self.socket.attempt(Direction::Read, accept)?;
        let address = address.as_socket().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "the peer has no internet address")
        })?;
        Ok((TcpStream::from_nonblocking(fd.into()), address))
    }

    /// Accepts one connection after the other, for ever. See
    /// [std's](std::net::TcpListener::incoming).
    ///
    /// # Examples
    ///
    /// A server that lives through a time without free fds:
    ///
    /// ```no_run
    /// use greenling::net::TcpListener;
    /// use std::time::Duration;
    ///
    /// for stream in TcpListener::bind("127.0.0.1:8080")?.incoming() {
    ///     match stream {
    ///         Ok(stream) => drop(greenling::spawn(move || std::io::copy(&mut &stream, &mut &stream))),
    ///         Err(_) => greenling::sleep(Duration::from_millis(100)),
    ///     }
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming::new(self)
    }

    /// Sets `IP_TTL`, also of the connections that are accepted. See
    /// [std's](std::net::TcpListener::set_ttl).
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
    /// As [std's](std::net::TcpListener::ttl).
    pub fn ttl(&self) -> io::Result<u32> {
        self.socket.inner().ttl()
    }

    socket_methods!(TcpListener, std::net::TcpListener);
}

impl_conversions!(TcpListener, std::net::TcpListener);

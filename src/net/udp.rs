//! A UDP socket.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::hub::Direction;
use crate::net::ToSocketAddrs;
use crate::net::addr::each_address;
use crate::net::socket::{Socket, receive, send};

/// A UDP socket: [`std::net::UdpSocket`] whose calls suspend the greenlet.
///
/// ```compile_fail
/// // It stays on its thread.
/// let socket = greenling::net::UdpSocket::bind("127.0.0.1:0").unwrap();
/// std::thread::spawn(move || drop(socket));
/// ```
///
/// # Examples
///
/// ```
/// use greenling::net::UdpSocket;
///
/// let (here, there) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// let address = there.local_addr()?;
/// greenling::spawn(move || here.send_to(b"ping", address));
/// let mut buf = [0; 16];
/// let (len, _from) = there.recv_from(&mut buf)?;
/// assert_eq!(&buf[..len], b"ping");
/// # std::io::Result::Ok(())
/// ```
///
/// # Cancellation
///
/// Receiving, peeking and sending are kill points, where they have to wait. A datagram is received
/// and sent as a whole or not at all.
pub struct UdpSocket {
    /// std's socket.
    socket: Socket<std::net::UdpSocket>,
}

/// The options that std's socket handles.
macro_rules! options {
    ($($(#[doc = $what:literal])+ $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)+) => {$(
        $(#[doc = $what])+ #[doc = concat!("See [std's](std::net::UdpSocket::", stringify!($name), ").")]
        ///
        /// # Errors
        ///
        /// As std's.
        pub fn $name(&self, $($arg: $type),*) -> io::Result<$result> {
            self.socket.inner().$name($($arg),*)
        }
    )+};
}

impl UdpSocket {
    /// A socket at the first of the addresses that can be had. See
    /// [std's](std::net::UdpSocket::bind).
    ///
    /// # Errors
    ///
    /// What the last address gave.
    ///
    /// # Cancellation
    ///
    /// A kill point if a name must be looked up.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<UdpSocket> {
        let socket = each_address(addr, std::net::UdpSocket::bind)?;
        socket.set_nonblocking(true)?;
        Ok(UdpSocket { socket: Socket::from_nonblocking(socket) })
    }

    /// Waits for a datagram, and says who sent it. What does not fit is cut off. See
    /// [std's](std::net::UdpSocket::recv_from).
    ///
    /// # Errors
    ///
    /// What recvfrom(2) says.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.attempt(Direction::Read, |inner| inner.recv_from(buf))
    }

    /// [`recv_from`](UdpSocket::recv_from), but the datagram stays in the queue. See
    /// [std's](std::net::UdpSocket::peek_from).
    ///
    /// # Errors
    ///
    /// What recvfrom(2) says.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.attempt(Direction::Read, |inner| inner.peek_from(buf))
    }

    /// Sends a datagram to the first of the addresses. See
    /// [std's](std::net::UdpSocket::send_to).
    ///
    /// # Errors
    ///
    /// What sendto(2) says; [`InvalidInput`](io::ErrorKind::InvalidInput) if there is no address.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn send_to<A: ToSocketAddrs>(&self, buf: &[u8], addr: A) -> io::Result<usize> {
        let Some(addr) = addr.to_socket_addrs()?.next() else {
            let message = "no addresses to send data to";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        self.socket.attempt(Direction::Write, |inner| inner.send_to(buf, addr))
    }

    /// Fixes the peer for [`send`](UdpSocket::send) and [`recv`](UdpSocket::recv). It waits for
    /// nothing but the lookup of a name. See [std's](std::net::UdpSocket::connect).
    ///
    /// # Errors
    ///
    /// What the last address gave.
    ///
    /// # Cancellation
    ///
    /// A kill point if a name must be looked up.
    pub fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<()> {
        each_address(addr, |addr| self.socket.inner().connect(addr))
    }

    /// Sends a datagram to the peer. See [std's](std::net::UdpSocket::send).
    ///
    /// # Errors
    ///
    /// What send(2) says: `ECONNREFUSED` if the peer answered an earlier one so.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.socket.attempt(Direction::Write, |inner| send(inner, buf))
    }

    /// Waits for a datagram from the peer. What does not fit is cut off. See
    /// [std's](std::net::UdpSocket::recv).
    ///
    /// # Errors
    ///
    /// What recv(2) says.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.attempt(Direction::Read, |inner| receive(inner, buf))
    }

    /// [`recv`](UdpSocket::recv), but the datagram stays in the queue. See
    /// [std's](std::net::UdpSocket::peek).
    ///
    /// # Errors
    ///
    /// What recv(2) says.
    ///
    /// # Cancellation
    ///
    /// A kill point.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.attempt(Direction::Read, |inner| inner.peek(buf))
    }

    options! {
        /// The peer's address.
        peer_addr() -> SocketAddr;
        /// The socket's own address.
        local_addr() -> SocketAddr;
        /// Sets `SO_BROADCAST`.
        set_broadcast(broadcast: bool) -> ();
        /// The value of `SO_BROADCAST`.
        broadcast() -> bool;
        /// Sets `IP_MULTICAST_LOOP`.
        set_multicast_loop_v4(multicast_loop_v4: bool) -> ();
        /// The value of `IP_MULTICAST_LOOP`.
        multicast_loop_v4() -> bool;
        /// Sets `IP_MULTICAST_TTL`.
        set_multicast_ttl_v4(multicast_ttl_v4: u32) -> ();
        /// The value of `IP_MULTICAST_TTL`.
        multicast_ttl_v4() -> u32;
        /// Sets `IPV6_MULTICAST_LOOP`.
        set_multicast_loop_v6(multicast_loop_v6: bool) -> ();
        /// The value of `IPV6_MULTICAST_LOOP`.
        multicast_loop_v6() -> bool;
        /// Sets `IP_TTL`.
        set_ttl(ttl: u32) -> ();
        /// The value of `IP_TTL`.
        ttl() -> u32;
        /// Joins a multicast group.
        join_multicast_v4(multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> ();
        /// Joins a multicast group.
        join_multicast_v6(multiaddr: &Ipv6Addr, interface: u32) -> ();
        /// Leaves a multicast group.
        leave_multicast_v4(multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> ();
        /// Leaves a multicast group.
        leave_multicast_v6(multiaddr: &Ipv6Addr, interface: u32) -> ();
    }

    socket_methods!(UdpSocket, std::net::UdpSocket);
    timeout_methods!(std::net::UdpSocket);
}

impl_conversions!(UdpSocket, std::net::UdpSocket);

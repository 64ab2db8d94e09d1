//! Settings for a TCP listener.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Type};

use crate::net::addr::each_address;
use crate::net::connect::new_socket;
use crate::net::{TcpListener, ToSocketAddrs};

/// std's backlog.
const BACKLOG: u32 = 128;

/// Settings for a listener, as [`TcpListener::builder`] returns them. Those of
/// [`TcpListener::bind`] otherwise.
#[derive(Clone, Debug)]
#[must_use = "a builder makes no listener until `bind` is called"]
pub struct TcpListenerBuilder {
    /// How many connections may wait to be accepted.
    backlog: u32,
    /// `SO_REUSEADDR`.
    reuse_address: bool,
    /// `SO_REUSEPORT`.
    reuse_port: bool,
    /// `IPV6_V6ONLY`; None leaves it as the system has it.
    only_v6: Option<bool>,
    /// `TCP_NODELAY`, which connections inherit.
    nodelay: bool,
}

impl TcpListenerBuilder {
    pub(super) fn new() -> TcpListenerBuilder {
        TcpListenerBuilder {
            backlog: BACKLOG,
            reuse_address: true,
            reuse_port: false,
            only_v6: None,
            nodelay: false,
        }
    }

    /// How many connections may wait to be accepted; the system's `net.core.somaxconn` is the
    /// most. 128 otherwise, as with std. listen(2)
    pub fn backlog(mut self, connections: u32) -> TcpListenerBuilder {
        self.backlog = connections;
        self
    }

    /// Whether an address may be bound of which closed connections are left in TIME_WAIT. True
    /// otherwise, as with std. `SO_REUSEADDR`, socket(7)
    pub fn reuse_address(mut self, reuse: bool) -> TcpListenerBuilder {
        self.reuse_address = reuse;
        self
    }

    /// Whether several listeners, of several threads or processes, may bind one address; the
    /// kernel then shares the connections out among them. `SO_REUSEPORT`, socket(7)
    pub fn reuse_port(mut self, reuse: bool) -> TcpListenerBuilder {
        self.reuse_port = reuse;
        self
    }

    /// Whether an IPv6 listener refuses IPv4 connections. What the system says otherwise, mostly
    /// no. Ignored for an IPv4 address. `IPV6_V6ONLY`, ipv6(7)
    pub fn only_v6(mut self, only: bool) -> TcpListenerBuilder {
        self.only_v6 = Some(only);
        self
    }

    /// Whether the accepted connections send small segments at once. They inherit it, which saves
    /// a system call for each. `TCP_NODELAY`, tcp(7)
    pub fn nodelay(mut self, nodelay: bool) -> TcpListenerBuilder {
        self.nodelay = nodelay;
        self
    }

    /// Listens at the first of the addresses that can be had.
    ///
    /// # Errors
    ///
    /// What the last address gave.
    ///
    /// # Cancellation
    ///
    /// A kill point if a name must be looked up.
    pub fn bind<A: ToSocketAddrs>(&self, addr: A) -> io::Result<TcpListener> {
        each_address(addr, |addr| self.bind_one(addr))
    }

    fn bind_one(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let domain = Domain::for_address(address);
        let socket = new_socket(domain, Type::STREAM, Some(Protocol::TCP))?;
        if let Some(only_v6) = self.only_v6
            && address.is_ipv6()
        {
            socket.set_only_v6(only_v6)?;
        }
        if self.reuse_address {
            socket.set_reuse_address(true)?;
        }
        if self.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if self.nodelay {
            socket.set_tcp_nodelay(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(self.backlog).unwrap_or(i32::MAX))?;
        Ok(TcpListener::from_nonblocking(socket.into()))
    }
}

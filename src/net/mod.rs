//! Sockets, with the types, names and signatures of [`std::net`]: what blocks there suspends the
//! greenlet here.
//!
//! The documentation of std holds for everything that is not said otherwise. What is different:
//!
//! - The sockets stay on their thread, because they are known to its hub: they are neither `Send`
//!   nor `Sync`. To move one to another thread, convert it into std's type and back there.
//! - A conversion from a type of std (or an fd) makes the socket nonblocking for the kernel and
//!   waiting for its user, whatever it was before. The conversion back makes it blocking, unless
//!   [`set_nonblocking`](TcpStream::set_nonblocking) asked for the contrary. Timeouts go with it.
//! - Names are looked up on threads that may block, through a [`ToSocketAddrs`] of greenling's own.
//!   It is implemented for the types for which std implements its own.
//! - [`TcpListener::builder`] has what std leaves out: the backlog, `SO_REUSEPORT` and so on.
//!
//! # Examples
//!
//! ```
//! use greenling::net::{TcpListener, TcpStream};
//! use std::io::{Read, Write};
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! greenling::spawn(move || {
//!     for stream in listener.incoming() {
//!         let stream = stream.unwrap();
//!         greenling::spawn(move || std::io::copy(&mut &stream, &mut &stream));
//!     }
//! });
//!
//! let mut stream = TcpStream::connect(address)?;
//! stream.write_all(b"hello")?;
//! let mut echo = [0; 5];
//! stream.read_exact(&mut echo)?;
//! assert_eq!(&echo, b"hello");
//! # std::io::Result::Ok(())
//! ```

#[macro_use]
mod macros;

mod accept;
mod addr;
mod builder;
mod connect;
mod incoming;
mod socket;
mod tcp_listener;
mod tcp_stream;
mod udp;
pub mod unix;

pub use addr::ToSocketAddrs;
pub use builder::TcpListenerBuilder;
pub use incoming::Incoming;
pub use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};
pub use tcp_listener::TcpListener;
pub use tcp_stream::TcpStream;
pub use udp::UdpSocket;

//! Unix domain sockets, with the types, names and signatures of [`std::os::unix::net`].
//!
//! What [`net`](crate::net) says of the differences from std holds here, too.

mod datagram;
mod listener;
mod stream;

pub use datagram::UnixDatagram;
pub use listener::{Incoming, UnixListener};
pub use std::os::unix::net::SocketAddr;
pub use stream::UnixStream;

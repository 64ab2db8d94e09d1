//! What an fd is, as far as the shims treat it differently.
//!
//! Pure but for the question to the kernel about an fd nobody told us of.

use std::os::fd::RawFd;

use libc::c_int;

use crate::errno::Errno;
use crate::real;

/// What an fd is, as far as the shims treat it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No socket. Reads and writes pass through.
    Other,
    /// A TCP socket: the only kind whose short read proves that nothing is left.
    Tcp,
    /// Another stream socket. A short read may end at an ancillary message or a record.
    Stream,
    /// A socket of messages.
    Datagram,
    /// A Unix datagram socket, which sends no edge when an unconnected peer has room again.
    UnixDatagram,
    /// A sequenced-packet socket: write(2) ends a record.
    Packet,
}

impl Kind {
    /// The kind of a socket, from what socket(2) was given.
    pub(crate) fn of_socket(domain: c_int, kind: c_int, protocol: c_int) -> Kind {
        let internet = domain == libc::AF_INET || domain == libc::AF_INET6;
        match kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) {
            libc::SOCK_STREAM if internet && (protocol == 0 || protocol == libc::IPPROTO_TCP) => {
                Kind::Tcp
            }
            libc::SOCK_STREAM => Kind::Stream,
            libc::SOCK_SEQPACKET => Kind::Packet,
            _ if domain == libc::AF_UNIX => Kind::UnixDatagram,
            _ => Kind::Datagram,
        }
    }

    /// The kind of an fd nobody told us of. `EBADF` if there is no such fd.
    pub(crate) fn ask(fd: RawFd) -> Result<Kind, Errno> {
        match real::socket_option(fd, libc::SOL_SOCKET, libc::SO_TYPE) {
            Ok(kind) => {
                let domain = real::socket_option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)?;
                let protocol = real::socket_option(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL)?;
                Ok(Kind::of_socket(domain, kind, protocol))
            }
            Err(Errno(libc::ENOTSOCK)) => Ok(Kind::Other),
            Err(error) => Err(error),
        }
    }

    /// Whether bytes flow without boundaries, so that a blocking send has to send them all.
    #[inline]
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Kind::Tcp | Kind::Stream)
    }

    /// The bits that stand for this kind in [`Description::state`].
    pub(crate) const fn bits(self) -> u32 {
        self as u32
    }
}

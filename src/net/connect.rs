//! Connecting without blocking the thread.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::hub::reactor::{Seen, Trust};
use crate::hub::{Direction, hub};
use crate::io::{Registration, attempt_patiently, wait};

/// A new socket that is nonblocking and closed by exec.
pub(super) fn new_socket(
    domain: Domain,
    kind: Type,
    protocol: Option<Protocol>,
) -> io::Result<Socket> {
    Socket::new_raw(domain, kind.nonblocking().cloexec(), protocol)
}

/// Connects a TCP socket to `address`, and suspends the greenlet until the peer has answered.
/// Nothing is left behind if it is killed or `deadline` passes.
pub(super) fn connect_tcp(
    address: std::net::SocketAddr,
    deadline: Option<Instant>,
) -> io::Result<std::net::TcpStream> {
    let domain = Domain::for_address(address);
    let socket = new_socket(domain, Type::STREAM, Some(Protocol::TCP))?;
    let address = SockAddr::from(address);
    // Below `socket`, so that it ends before the fd is closed.
    let registration = Registration::new(socket.as_raw_fd());
    loop {
        // Called again, connect(2) tells how the first call has ended. A wake-up without an
        // answer, which SO_ERROR could not tell from a success, is seen here.
        match socket.connect(&address) {
            Ok(()) => break,
            Err(error) => match error.raw_os_error() {
                Some(libc::EISCONN) => break,
                Some(libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => {}
                _ => return Err(error),
            },
        }
        if !wait(hub(), registration.fd(), Direction::Write, Trust::Owned, Seen::Nothing, deadline)?
        {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "connection timed out"));
        }
    }
    // The stream begins with a registration of its own, at the same fd; what the reactor knows of
    // it is still true.
    std::mem::forget(registration);
    Ok(socket.into())
}

/// Connects a Unix stream socket to `address`. Where the listener's backlog is full, so that
/// connect(2) would block, the kernel says `EAGAIN` to a nonblocking socket and never reports that
/// there is room.
pub(super) fn connect_unix(
    address: &std::os::unix::net::SocketAddr,
) -> io::Result<std::os::unix::net::UnixStream> {
    let address = unix_address(address)?;
    let socket = new_socket(Domain::UNIX, Type::STREAM, None)?;
    attempt_patiently(None, || {
        loop {
            match socket.connect(&address) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    })?;
    Ok(std::os::fd::OwnedFd::from(socket).into())
}

/// An address of std's in the form for socket2.
fn unix_address(address: &std::os::unix::net::SocketAddr) -> io::Result<SockAddr> {
    match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => SockAddr::unix(path),
        // An abstract name is one that begins with a zero byte.
        (None, Some(name)) => SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat())),
        (None, None) => SockAddr::unix(""),
    }
}

//! Accepting a connection with one system call.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;

use socket2::SockAddr;

/// Takes the first connection from a listener's queue. It is nonblocking and closed by exec from
/// the beginning, so that no further call is needed.
pub(super) fn accept(listener: &impl AsRawFd) -> io::Result<(OwnedFd, SockAddr)> {
    let listener = listener.as_raw_fd();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    loop {
        // SAFETY: accept4 fills the storage with an address and the length with its length, or
        // says that it has failed.
        let accepted = unsafe {
            SockAddr::try_init(|storage, len| {
                match libc::accept4(listener, storage.cast(), len, flags) {
                    fd if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
                    _ => Err(io::Error::last_os_error()),
                }
            })
        };
        match accepted {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            accepted => return accepted,
        }
    }
}

/// The address of a Unix socket that was accepted: mostly none.
pub(super) fn unix_peer(address: &SockAddr) -> io::Result<SocketAddr> {
    if let Some(path) = address.as_pathname() {
        SocketAddr::from_pathname(path)
    } else if let Some(name) = address.as_abstract_namespace() {
        SocketAddr::from_abstract_name(name)
    } else {
        // An empty path stands for no address at all.
        SocketAddr::from_pathname("")
    }
}

//! accept(2) and accept4(2).
//!
//! They have no flag that says not to wait, and another process may take the connection between
//! a poll and the accept. So a listener gets a real `O_NONBLOCK` at the first accept that may
//! park, which its user never sees: see `Description::flip`. Known difference: a program that is
//! executed with such a listener open, or another process that shares it and runs without
//! shims, does see the flag.

use libc::{c_int, sockaddr, socklen_t};

use crate::errno::{Errno, answer_int};
use crate::fds::{self, Description};
use crate::gate::{self, Category};
use crate::real;
use crate::runtime::{Direction, Runtime};
use crate::wait::{Retry, Waiting, waiter};

/// accept(2).
///
/// # Safety
///
/// As libc's `accept`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn accept(
    fd: c_int,
    name: *mut sockaddr,
    name_bytes: *mut socklen_t,
) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::accept(fd, name, name_bytes) };
    }
    // SAFETY: the caller's promise.
    answer_int(unsafe { accept_any(fd, name, name_bytes, 0) })
}

/// accept4(2).
///
/// # Safety
///
/// As libc's `accept4`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn accept4(
    fd: c_int,
    name: *mut sockaddr,
    name_bytes: *mut socklen_t,
    flags: c_int,
) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::accept4(fd, name, name_bytes, flags) };
    }
    // SAFETY: the caller's promise.
    answer_int(unsafe { accept_any(fd, name, name_bytes, flags) })
}

/// Both of them.
unsafe fn accept_any(
    fd: c_int,
    name: *mut sockaddr,
    name_bytes: *mut socklen_t,
    flags: c_int,
) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let attempt = || unsafe { try_accept(fd, name, name_bytes, flags) };
    let Some((runtime, listener)) = waiter(fd) else { return attempt() };
    if !prepare(fd, listener) {
        return attempt();
    }
    accept_with(runtime, fd, listener, attempt)
}

/// Makes sure that accepting from `listener` never blocks the thread. False if the real call is
/// to answer: the user wants no waiting, or this is no listener.
fn prepare(fd: c_int, listener: &Description) -> bool {
    if listener.is_flipped() {
        return !listener.is_nonblocking();
    }
    listener.may_wait(fd)
        && real::socket_option(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN) == Ok(1)
        && listener.flip(fd).is_ok()
}

/// Accepts as soon as a connection is there. Suspends.
fn accept_with(
    runtime: &dyn Runtime,
    fd: c_int,
    listener: &Description,
    attempt: impl Fn() -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let mut waiting = Waiting::new(runtime, fd, Direction::Read, listener);
    loop {
        match attempt() {
            Err(Errno(libc::EAGAIN)) => {}
            answer => return answer,
        }
        if waiting.until_ready()? == Retry::Block {
            return attempt();
        }
    }
}

/// One accept4(2), with the books kept about the new fd.
unsafe fn try_accept(
    fd: c_int,
    name: *mut sockaddr,
    name_bytes: *mut socklen_t,
    flags: c_int,
) -> Result<usize, Errno> {
    let arguments = [fd as usize, name as usize, name_bytes as usize, flags as usize, 0, 0];
    // SAFETY: the caller's promise.
    let accepted = unsafe { real::syscall(libc::SYS_accept4, arguments) }?;
    if gate::is_patched(Category::Socket) {
        match fds::lookup(fd) {
            Some(listener) => {
                gate::forget_former(accepted as c_int);
                fds::accepted(accepted as c_int, listener, flags & libc::SOCK_NONBLOCK != 0);
            }
            None => fds::forget(accepted as c_int),
        }
    }
    Ok(accepted)
}

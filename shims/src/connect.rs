//! connect(2).
//!
//! It has no flag that says not to wait, so a blocking socket gets a real `O_NONBLOCK` while it
//! connects, which its user never sees (`Description::flip`), and loses it at the end. The
//! result is fetched by connecting again, because that answers what a blocking connect would
//! have answered and leaves the socket in the same state; `SO_ERROR` does not.

use libc::{c_int, sockaddr, socklen_t};

use crate::errno::{Errno, answer_int};
use crate::fds::{self, Description, Kind};
use crate::real;
use crate::runtime::{Direction, Runtime};
use crate::wait::{Nap, Retry, Waiting, scheduler};

/// connect(2).
///
/// # Safety
///
/// As libc's `connect`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn connect(
    fd: c_int,
    name: *const sockaddr,
    name_bytes: socklen_t,
) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::connect(fd, name, name_bytes) };
    }
    let attempt = || {
        let arguments = [fd as usize, name as usize, name_bytes as usize, 0, 0, 0];
        // SAFETY: the caller's promise.
        unsafe { real::syscall(libc::SYS_connect, arguments) }
    };
    answer_int(connect_any(fd, attempt))
}

/// Connects, where waiting is wanted without blocking the thread.
fn connect_any(fd: c_int, attempt: impl Fn() -> Result<usize, Errno>) -> Result<usize, Errno> {
    let Some(runtime) = scheduler(fd) else { return attempt() };
    let Some(description) = fds::lookup(fd) else { return attempt() };
    let connects = matches!(description.kind(), Kind::Tcp | Kind::Stream | Kind::Packet);
    // Connecting a socket of datagrams only notes the name.
    if !connects || !description.may_wait(fd) || description.flip(fd).is_err() {
        return attempt();
    }
    let answer = connect_with(runtime, fd, description, attempt);
    // After a close the number may be another's already, and the flag went with the socket (or
    // stays known as ours, if the socket has a duplicate).
    if answer != Err(Errno(libc::EBADF)) {
        description.unflip(fd);
    }
    answer
}

/// Connects a socket that has a real `O_NONBLOCK`. Suspends.
fn connect_with(
    runtime: &dyn Runtime,
    fd: c_int,
    description: &Description,
    attempt: impl Fn() -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let mut waiting = Waiting::new(runtime, fd, Direction::Write, description);
    let mut nap = Nap::new();
    let mut begun = false;
    loop {
        // Another greenlet's connect of the same socket may have ended and taken the flag away.
        description.flip(fd)?;
        let retry = match attempt() {
            // The backlog of a Unix listener is full: no edge comes when it has room again.
            Err(Errno(libc::EAGAIN)) => waiting.nap(&mut nap)?,
            // In progress by an earlier call, which this one joins; or still, after a wake-up
            // that was for nothing.
            Err(Errno(libc::EALREADY)) if !begun => {
                waiting.set_expiry(Errno(libc::EALREADY));
                waiting.until_ready()?
            }
            Err(Errno(libc::EINPROGRESS | libc::EALREADY)) => {
                begun = true;
                waiting.set_expiry(Errno(libc::EINPROGRESS));
                waiting.until_ready()?
            }
            answer => return answer,
        };
        if retry == Retry::Block {
            description.unflip(fd);
            return attempt();
        }
    }
}

//! send(2) and its relatives: try without blocking, park on `EAGAIN`, and on a stream go on until
//! everything is sent, as a blocking send does.
//!
//! Sockets never get `O_NONBLOCK` for this: every try carries `MSG_DONTWAIT`. The tries after
//! the first bytes also carry `MSG_NOSIGNAL`: the call will answer with a count, and the kernel
//! raises no `SIGPIPE` for such a call.
//!
//! Known differences: an error that ends a send which moved bytes already is used up, where the
//! kernel keeps it for the next call; a signal handler runs, but does not end the call; with
//! `MSG_FASTOPEN` the thread blocks.

use libc::{c_int, c_void, iovec, msghdr, size_t, sockaddr, socklen_t, ssize_t};

use crate::errno::{Errno, answer};
use crate::fds::{Description, Kind};
use crate::iovecs;
use crate::real;
use crate::runtime::{Direction, Runtime};
use crate::wait::{self, Nap, Retry, Waiting};

/// send(2).
///
/// # Safety
///
/// As libc's `send`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn send(
    fd: c_int,
    buffer: *const c_void,
    bytes: size_t,
    flags: c_int,
) -> ssize_t {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::send(fd, buffer, bytes, flags) };
    }
    // SAFETY: the caller's promise.
    answer(unsafe { send_buffer(fd, buffer, bytes, flags, Name::NONE) })
}

/// sendto(2).
///
/// # Safety
///
/// As libc's `sendto`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendto(
    fd: c_int,
    buffer: *const c_void,
    bytes: size_t,
    flags: c_int,
    name: *const sockaddr,
    name_bytes: socklen_t,
) -> ssize_t {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::sendto(fd, buffer, bytes, flags, name, name_bytes) };
    }
    let name = Name { address: name as usize, bytes: name_bytes as usize };
    // SAFETY: the caller's promise.
    answer(unsafe { send_buffer(fd, buffer, bytes, flags, name) })
}

/// sendmsg(2).
///
/// # Safety
///
/// As libc's `sendmsg`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendmsg(
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::sendmsg(fd, message, flags) };
    }
    // SAFETY: the caller's promise.
    answer(unsafe { send_message(fd, message, flags) })
}

/// Whom a message is for, as sendto(2) takes it.
#[derive(Clone, Copy)]
struct Name {
    /// The address of the caller's `sockaddr`, or 0.
    address: usize,
    /// Its size.
    bytes: usize,
}

impl Name {
    /// Nobody in particular: the connected peer.
    const NONE: Name = Name { address: 0, bytes: 0 };
}

/// send(2) and sendto(2).
#[inline(always)]
unsafe fn send_buffer(
    fd: c_int,
    buffer: *const c_void,
    bytes: usize,
    flags: c_int,
    name: Name,
) -> Result<usize, Errno> {
    let Some((runtime, description)) = waiter(fd, flags) else {
        // SAFETY: the caller's promise.
        return unsafe { try_send(fd, buffer, bytes, flags, name) };
    };
    // SAFETY: the caller's promise.
    unsafe { send_with(runtime, description, fd, buffer, bytes, flags, name) }
}

/// write(2) on a socket, once it is known whom to wait with.
///
/// # Safety
///
/// As libc's `send`.
#[inline]
pub(crate) unsafe fn write_with(
    runtime: &dyn Runtime,
    description: &Description,
    fd: c_int,
    buffer: *const c_void,
    bytes: usize,
    flags: c_int,
) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    unsafe { send_with(runtime, description, fd, buffer, bytes, flags, Name::NONE) }
}

/// [`send_buffer`], once it is known whom to wait with.
#[inline(always)]
unsafe fn send_with(
    runtime: &dyn Runtime,
    description: &Description,
    fd: c_int,
    buffer: *const c_void,
    bytes: usize,
    flags: c_int,
    name: Name,
) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let first = move |flags| unsafe { try_send(fd, buffer, bytes, flags, name) };
    let done = send_first(runtime, fd, description, flags, name.address != 0, first)?;
    let bytes = bytes.min(iovecs::BYTES_MAX);
    if done >= bytes || !description.kind().is_stream() {
        return Ok(done);
    }
    let done = send_rest(runtime, fd, description, flags, done, bytes, move |done, flags| {
        // SAFETY: `done` bytes of the caller's buffer are sent, so that many less follow.
        unsafe { try_send(fd, buffer.wrapping_byte_add(done), bytes - done, flags, Name::NONE) }
    });
    Ok(done)
}

/// sendmsg(2).
unsafe fn send_message(fd: c_int, message: *const msghdr, flags: c_int) -> Result<usize, Errno> {
    let Some((runtime, description)) = waiter(fd, flags) else {
        // SAFETY: the caller's promise.
        return unsafe { try_send_message(fd, message, flags) };
    };
    // SAFETY: the caller's promise.
    unsafe { send_message_with(runtime, description, fd, message, flags) }
}

/// [`send_message`], once it is known whom to wait with.
///
/// # Safety
///
/// As libc's `sendmsg`.
pub(crate) unsafe fn send_message_with(
    runtime: &dyn Runtime,
    description: &Description,
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let first = move |flags| unsafe { try_send_message(fd, message, flags) };
    // Whether the message has a name matters to Unix datagrams only, and a pause instead of an
    // edge is right for them with and without one.
    let done = send_first(runtime, fd, description, flags, true, first)?;
    if !description.kind().is_stream() {
        return Ok(done);
    }
    // SAFETY: the kernel has read the message and its vectors.
    let (vectors, count) = unsafe { ((*message).msg_iov, (*message).msg_iovlen) };
    // SAFETY: as above.
    let bytes = unsafe { iovecs::total(vectors, count) };
    if done >= bytes {
        return Ok(done);
    }
    let done = send_rest(runtime, fd, description, flags, done, bytes, move |done, flags| {
        // SAFETY: the kernel has read the vectors, and they are `count`.
        unsafe { send_window(fd, vectors, count, done, flags) }
    });
    Ok(done)
}

/// Sends what follows the first `done` bytes of some vectors, or as much as one window holds.
unsafe fn send_window(
    fd: c_int,
    vectors: *const iovec,
    count: usize,
    done: usize,
    flags: c_int,
) -> Result<usize, Errno> {
    let mut room = [iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; iovecs::WINDOW];
    // SAFETY: all zeroes is a message without name, vectors and ancillary data: those went with
    // the first part.
    let mut part: msghdr = unsafe { std::mem::zeroed() };
    // SAFETY: the caller's promise.
    part.msg_iovlen = unsafe { iovecs::window(vectors, count, done, &mut room) };
    part.msg_iov = room.as_mut_ptr();
    // SAFETY: the vectors are parts of the caller's.
    unsafe { try_send_message(fd, &raw const part, flags) }
}

/// [`wait::waiter`] for a send with `flags`.
#[inline(always)]
fn waiter(fd: c_int, flags: c_int) -> Option<(&'static dyn Runtime, &'static Description)> {
    if flags & (libc::MSG_DONTWAIT | libc::MSG_FASTOPEN) != 0 {
        return None;
    }
    wait::waiter(fd)
}

/// Sends the whole message, or what fits of a stream. Suspends.
#[inline(always)]
fn send_first(
    runtime: &dyn Runtime,
    fd: c_int,
    description: &Description,
    flags: c_int,
    named: bool,
    attempt: impl Fn(c_int) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    match attempt(flags | libc::MSG_DONTWAIT) {
        Err(Errno(libc::EAGAIN)) => {}
        answer => return answer,
    }
    send_after_wait(runtime, fd, description, flags, named, attempt)
}

/// [`send_first`] where there was no room. Suspends.
#[cold]
fn send_after_wait(
    runtime: &dyn Runtime,
    fd: c_int,
    description: &Description,
    flags: c_int,
    named: bool,
    attempt: impl Fn(c_int) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let edgeless = named && description.kind() == Kind::UnixDatagram;
    let mut waiting = Waiting::new(runtime, fd, Direction::Write, description);
    let mut nap = Nap::new();
    loop {
        let retry = if edgeless { waiting.nap(&mut nap) } else { waiting.until_ready() };
        let flags = match retry? {
            Retry::Try => flags | libc::MSG_DONTWAIT,
            Retry::Block => return attempt(flags),
        };
        match attempt(flags) {
            Err(Errno(libc::EAGAIN)) => {}
            answer => return answer,
        }
    }
}

/// Sends what is left of a stream's `bytes` after the first `done`; answers how many are sent in
/// the end, fewer than all only after an error or a timeout. Suspends.
#[cold]
fn send_rest(
    runtime: &dyn Runtime,
    fd: c_int,
    description: &Description,
    flags: c_int,
    mut done: usize,
    bytes: usize,
    part: impl Fn(usize, c_int) -> Result<usize, Errno>,
) -> usize {
    let quiet = flags | libc::MSG_NOSIGNAL;
    let mut waiting = Waiting::new(runtime, fd, Direction::Write, description);
    while done < bytes {
        let answer = match part(done, quiet | libc::MSG_DONTWAIT) {
            Err(Errno(libc::EAGAIN)) => match waiting.until_ready() {
                Ok(Retry::Try) => continue,
                Ok(Retry::Block) => part(done, quiet),
                Err(error) => Err(error),
            },
            answer => answer,
        };
        match answer {
            Ok(0) | Err(_) => break,
            Ok(more) => done += more,
        }
    }
    done
}

/// One sendto(2).
#[inline]
unsafe fn try_send(
    fd: c_int,
    buffer: *const c_void,
    bytes: usize,
    flags: c_int,
    name: Name,
) -> Result<usize, Errno> {
    let arguments = [fd as usize, buffer as usize, bytes, flags as usize, name.address, name.bytes];
    // SAFETY: the caller's promise.
    unsafe { real::syscall(libc::SYS_sendto, arguments) }
}

/// One sendmsg(2).
#[inline]
unsafe fn try_send_message(
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> Result<usize, Errno> {
    let arguments = [fd as usize, message as usize, flags as usize, 0, 0, 0];
    // SAFETY: the caller's promise.
    unsafe { real::syscall(libc::SYS_sendmsg, arguments) }
}

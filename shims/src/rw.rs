//! read(2), write(2) and their vectors: on a socket they are recv(2) and send(2).
//!
//! Everything that is no socket passes through for now and blocks the thread if it blocks. A
//! write on a socket raises `SIGPIPE` as write(2) does. Known difference: a writev(2) of a bad
//! vector array to a datagram socket crashes instead of failing with `EFAULT`.

use libc::{c_int, c_void, iovec, msghdr, size_t, ssize_t};

use crate::errno::{Errno, answer};
use crate::fds::{self, Description, Kind};
use crate::iovecs;
use crate::real;
use crate::receive;
use crate::runtime::Seen;
use crate::send;
use crate::wait::waiter;

/// read(2).
///
/// # Safety
///
/// As libc's `read`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn read(fd: c_int, buffer: *mut c_void, bytes: size_t) -> ssize_t {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::read(fd, buffer, bytes) };
    }
    // SAFETY: the caller's promise.
    answer(unsafe { read_any(fd, buffer, bytes) })
}

/// read(2) as code compiled with `_FORTIFY_SOURCE` calls it.
///
/// # Safety
///
/// As libc's `read`; `room` is the size of the buffer.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __read_chk(
    fd: c_int,
    buffer: *mut c_void,
    bytes: size_t,
    room: size_t,
) -> ssize_t {
    receive::check_room(bytes, room);
    // SAFETY: the caller's promise.
    answer(unsafe { read_any(fd, buffer, bytes) })
}

/// write(2).
///
/// # Safety
///
/// As libc's `write`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, bytes: size_t) -> ssize_t {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::write(fd, buffer, bytes) };
    }
    // SAFETY: the caller's promise.
    answer(unsafe { write_any(fd, buffer, bytes) })
}

/// readv(2).
///
/// # Safety
///
/// As libc's `readv`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn readv(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::readv(fd, vectors, count) };
    }
    // SAFETY: the caller's promise.
    answer(unsafe { read_vectors(fd, vectors, count) })
}

/// writev(2).
///
/// # Safety
///
/// As libc's `writev`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn writev(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::writev(fd, vectors, count) };
    }
    // SAFETY: the caller's promise.
    answer(unsafe { write_vectors(fd, vectors, count) })
}

/// read(2) of anything.
unsafe fn read_any(fd: c_int, buffer: *mut c_void, bytes: usize) -> Result<usize, Errno> {
    // Reading nothing from a socket is a matter of course to read(2), but not to recv(2).
    if bytes != 0
        && let Some((runtime, description)) = waiter(fd)
    {
        // SAFETY: the caller's promise.
        let answer = unsafe { receive::receive_with(runtime, description, fd, buffer, bytes, 0) };
        if !was_reused(fd, answer) {
            return answer;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { real::read(fd, buffer, bytes) }
}

/// Whether a write to `fd` may let others run. One to the standard streams, which may be sockets,
/// may not: std's lock around them knows threads only, so a second greenlet of the thread would
/// get in, and panic over a borrow.
fn may_yield(fd: c_int) -> bool {
    fd > libc::STDERR_FILENO
}

/// write(2) of anything.
unsafe fn write_any(fd: c_int, buffer: *const c_void, bytes: usize) -> Result<usize, Errno> {
    if may_yield(fd)
        && let Some((runtime, description)) = waiter(fd)
    {
        let flags = record_end(description);
        // SAFETY: the caller's promise.
        let answer = unsafe { send::write_with(runtime, description, fd, buffer, bytes, flags) };
        if !was_reused(fd, answer) {
            return answer;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { real::write(fd, buffer, bytes) }
}

/// readv(2) of anything.
unsafe fn read_vectors(fd: c_int, vectors: *const iovec, count: c_int) -> Result<usize, Errno> {
    if is_message(count)
        && let Some((runtime, description)) = waiter(fd)
    {
        let mut message = message(vectors, count);
        let message = &raw mut message;
        // SAFETY: called only after the kernel has read the vectors.
        let wanted = || unsafe { iovecs::total(vectors, count as usize) };
        // SAFETY: the message is a local, its vectors the caller's.
        let attempt = |flags| unsafe { receive::try_receive_message(fd, message, flags) };
        // The first try comes before any wait, whatever the runtime knows: it checks the
        // vectors, and reading nothing must not wait.
        let answer = match attempt(libc::MSG_DONTWAIT) {
            Err(Errno(libc::EAGAIN)) if wanted() == 0 => Ok(0),
            Err(Errno(libc::EAGAIN)) => {
                let nothing = Seen::Nothing;
                receive::receive_after_wait(runtime, fd, description, 0, nothing, wanted, attempt)
            }
            Ok(done) => Ok(receive::received(description, 0, &wanted, done)),
            error => error,
        };
        if !was_reused(fd, answer) {
            return answer;
        }
    }
    let arguments = [fd as usize, vectors as usize, count as usize, 0, 0, 0];
    // SAFETY: the caller's promise.
    unsafe { real::syscall(libc::SYS_readv, arguments) }
}

/// writev(2) of anything.
unsafe fn write_vectors(fd: c_int, vectors: *const iovec, count: c_int) -> Result<usize, Errno> {
    if may_yield(fd)
        && is_message(count)
        && let Some((runtime, description)) = waiter(fd)
        // SAFETY: the caller's promise: the vectors are readable.
        && unsafe { has_message(description, vectors, count) }
    {
        let message = message(vectors, count);
        let flags = record_end(description);
        // SAFETY: the message is a local, its vectors the caller's.
        let answer =
            unsafe { send::send_message_with(runtime, description, fd, &raw const message, flags) };
        if !was_reused(fd, answer) {
            return answer;
        }
    }
    let arguments = [fd as usize, vectors as usize, count as usize, 0, 0, 0];
    // SAFETY: the caller's promise.
    unsafe { real::syscall(libc::SYS_writev, arguments) }
}

/// Whether a writev(2) sends anything: of no bytes it sends no message, where a sendmsg(2) would
/// send an empty one. To a stream both send nothing.
///
/// # Safety
///
/// `count` vectors are readable.
unsafe fn has_message(description: &Description, vectors: *const iovec, count: c_int) -> bool {
    // SAFETY: the caller's promise.
    description.kind().is_stream() || unsafe { iovecs::total(vectors, count as usize) } != 0
}

/// Whether a message takes as many vectors; for any other number readv(2) and writev(2) have
/// answers of their own.
fn is_message(count: c_int) -> bool {
    (1..=libc::UIO_MAXIOV).contains(&count)
}

/// A message that is nothing but vectors.
fn message(vectors: *const iovec, count: c_int) -> msghdr {
    // SAFETY: all zeroes is a message without name, vectors and ancillary data.
    let mut message: msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.cast_mut();
    message.msg_iovlen = count as usize;
    message
}

/// The flag that write(2) has on a socket of records.
fn record_end(description: &Description) -> c_int {
    if description.kind() == Kind::Packet { libc::MSG_EOR } else { 0 }
}

/// Whether `answer` shows that `fd` is no socket any more: the number was closed and reused
/// behind the shims' backs. Forgets what was known then.
#[inline]
fn was_reused(fd: c_int, answer: Result<usize, Errno>) -> bool {
    let reused = answer == Err(Errno(libc::ENOTSOCK));
    if reused {
        fds::forget(fd);
    }
    reused
}

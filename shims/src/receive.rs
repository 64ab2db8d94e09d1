//! recv(2) and its relatives: try without blocking, park on `EAGAIN`, try again.
//!
//! Sockets never get `O_NONBLOCK` for this: every try carries `MSG_DONTWAIT`, so a description
//! that other threads and processes share stays as its user made it.
//!
//! Known differences: `SO_RCVLOWAT` does not hold a receive back once bytes are there; a signal
//! handler runs, but does not end the call; a receive of no bytes whose timeout passes fails
//! with `EAGAIN`, where TCP answers 0.

use libc::{c_int, c_void, iovec, msghdr, size_t, sockaddr, socklen_t, ssize_t};

use crate::errno::{Errno, answer};
use crate::fds::{self, Description, Kind};
use crate::gate::{self, Category};
use crate::iovecs;
use crate::real;
use crate::runtime::{Direction, Runtime, Seen};
use crate::wait::{self, Retry, Waiting};

/// With these the call never blocks, whatever the socket's state: recv(2) answers at once.
const NEVER_WAITS: c_int = libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE | libc::MSG_OOB;

/// With these a short answer does not mean that the socket has been emptied.
const PROVES_NOTHING: c_int = libc::MSG_PEEK | libc::MSG_WAITALL | libc::MSG_TRUNC;

/// recv(2).
///
/// # Safety
///
/// As libc's `recv`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn recv(
    fd: c_int,
    buffer: *mut c_void,
    bytes: size_t,
    flags: c_int,
) -> ssize_t {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::recv(fd, buffer, bytes, flags) };
    }
    // SAFETY: the caller's promise.
    answer(unsafe { receive(fd, buffer, bytes, flags) })
}

/// recvfrom(2).
///
/// # Safety
///
/// As libc's `recvfrom`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn recvfrom(
    fd: c_int,
    buffer: *mut c_void,
    bytes: size_t,
    flags: c_int,
    name: *mut sockaddr,
    name_bytes: *mut socklen_t,
) -> ssize_t {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::recvfrom(fd, buffer, bytes, flags, name, name_bytes) };
    }
    // SAFETY: the caller's promise.
    answer(unsafe { receive_from(fd, buffer, bytes, flags, name, name_bytes) })
}

/// recv(2) as code compiled with `_FORTIFY_SOURCE` calls it.
///
/// # Safety
///
/// As libc's `recv`; `room` is the size of the buffer.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __recv_chk(
    fd: c_int,
    buffer: *mut c_void,
    bytes: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    check_room(bytes, room);
    // SAFETY: the caller's promise.
    answer(unsafe { receive(fd, buffer, bytes, flags) })
}

/// recvfrom(2) as code compiled with `_FORTIFY_SOURCE` calls it.
///
/// # Safety
///
/// As libc's `recvfrom`; `room` is the size of the buffer.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    buffer: *mut c_void,
    bytes: size_t,
    room: size_t,
    flags: c_int,
    name: *mut sockaddr,
    name_bytes: *mut socklen_t,
) -> ssize_t {
    check_room(bytes, room);
    // SAFETY: the caller's promise.
    answer(unsafe { receive_from(fd, buffer, bytes, flags, name, name_bytes) })
}

/// recvmsg(2).
///
/// # Safety
///
/// As libc's `recvmsg`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::recvmsg(fd, message, flags) };
    }
    // SAFETY: the caller's promise.
    answer(unsafe { receive_message(fd, message, flags) })
}

unsafe extern "C" {
    /// Ends the process because a buffer is too small (a part of the fortified functions' ABI).
    safe fn __chk_fail() -> !;
}

/// What the fortified functions check before anything else.
pub(crate) fn check_room(bytes: size_t, room: size_t) {
    if bytes > room {
        __chk_fail();
    }
}

/// recv(2), which is recvfrom(2) without a name.
///
/// # Safety
///
/// As libc's `recv`.
#[inline(always)]
pub(crate) unsafe fn receive(
    fd: c_int,
    buffer: *mut c_void,
    bytes: usize,
    flags: c_int,
) -> Result<usize, Errno> {
    let Some((runtime, description)) = waiter(fd, flags) else {
        // SAFETY: the caller's promise.
        return unsafe { try_receive(fd, buffer, bytes, flags) };
    };
    // SAFETY: the caller's promise.
    unsafe { receive_with(runtime, description, fd, buffer, bytes, flags) }
}

/// [`receive`], once it is known whom to wait with.
///
/// # Safety
///
/// As libc's `recv`.
#[inline(always)]
pub(crate) unsafe fn receive_with(
    runtime: &dyn Runtime,
    description: &Description,
    fd: c_int,
    buffer: *mut c_void,
    bytes: usize,
    flags: c_int,
) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let attempt = move |flags| unsafe { try_receive(fd, buffer, bytes, flags) };
    if flags & libc::MSG_WAITALL != 0 && bytes != 0 && description.kind().is_stream() {
        let part = move |done: usize, flags| {
            // SAFETY: `done` bytes of the caller's buffer are filled, so that many less follow.
            unsafe { try_receive(fd, buffer.wrapping_byte_add(done), bytes - done, flags) }
        };
        return receive_all(runtime, fd, description, bytes, flags, part);
    }
    receive_some(runtime, fd, description, flags, move || bytes, attempt)
}

/// recvfrom(2).
unsafe fn receive_from(
    fd: c_int,
    buffer: *mut c_void,
    bytes: usize,
    flags: c_int,
    name: *mut sockaddr,
    name_bytes: *mut socklen_t,
) -> Result<usize, Errno> {
    if name.is_null() {
        // SAFETY: the caller's promise. Without a name its size is not looked at.
        return unsafe { receive(fd, buffer, bytes, flags) };
    }
    let attempt = move |done: usize, flags: c_int| {
        let at = buffer.wrapping_byte_add(done) as usize;
        let arguments =
            [fd as usize, at, bytes - done, flags as usize, name as usize, name_bytes as usize];
        // SAFETY: the caller's promise; `done` bytes of the buffer are filled.
        unsafe { real::syscall(libc::SYS_recvfrom, arguments) }
    };
    let Some((runtime, description)) = waiter(fd, flags) else { return attempt(0, flags) };
    if flags & libc::MSG_WAITALL != 0 && bytes != 0 && description.kind().is_stream() {
        return receive_all(runtime, fd, description, bytes, flags, attempt);
    }
    receive_some(runtime, fd, description, flags, || bytes, |flags| attempt(0, flags))
}

/// recvmsg(2).
unsafe fn receive_message(fd: c_int, message: *mut msghdr, flags: c_int) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let attempt = move |flags| unsafe { try_receive_message(fd, message, flags) };
    let result = match waiter(fd, flags) {
        None => attempt(flags),
        Some((runtime, description))
            if flags & libc::MSG_WAITALL != 0 && description.kind().is_stream() =>
        {
            // SAFETY: the caller's promise.
            unsafe { receive_message_all(runtime, fd, description, message, flags) }
        }
        Some((runtime, description)) => {
            let wanted = move || {
                // SAFETY: asked only after the kernel has read the message, so it is readable.
                unsafe { iovecs::total((*message).msg_iov, (*message).msg_iovlen) }
            };
            receive_some(runtime, fd, description, flags, wanted, attempt)
        }
    };
    if result.is_ok() && gate::is_patched(Category::Socket) {
        // SAFETY: the kernel has just filled the message.
        unsafe { forget_received(message) };
    }
    result
}

/// [`wait::waiter`] for a receive with `flags`.
#[inline(always)]
fn waiter(fd: c_int, flags: c_int) -> Option<(&'static dyn Runtime, &'static Description)> {
    if flags & NEVER_WAITS != 0 {
        return None;
    }
    wait::waiter(fd)
}

/// Receives once, as soon as there is something. Suspends.
///
/// `wanted` is how much room there is; it is asked only after a receive succeeded.
#[inline(always)]
fn receive_some(
    runtime: &dyn Runtime,
    fd: c_int,
    description: &Description,
    flags: c_int,
    wanted: impl Fn() -> usize,
    attempt: impl Fn(c_int) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let seen = if description.take_shortage() {
        Seen::Shortage
    } else {
        match attempt(flags | libc::MSG_DONTWAIT) {
            Err(Errno(libc::EAGAIN)) => Seen::Nothing,
            Ok(done) => return Ok(received(description, flags, &wanted, done)),
            Err(error) => return Err(error),
        }
    };
    receive_after_wait(runtime, fd, description, flags, seen, wanted, attempt)
}

/// [`receive_some`] where nothing was there when it was last seen. Suspends.
#[inline(always)]
pub(crate) fn receive_after_wait(
    runtime: &dyn Runtime,
    fd: c_int,
    description: &Description,
    flags: c_int,
    seen: Seen,
    wanted: impl Fn() -> usize,
    attempt: impl Fn(c_int) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let mut waiting = Waiting::new(runtime, fd, Direction::Read, description).after(seen);
    loop {
        if description.is_shut_datagram(fd) {
            return attempt(flags);
        }
        let flags = match waiting.until_ready()? {
            Retry::Try => flags | libc::MSG_DONTWAIT,
            Retry::Block => return attempt(flags),
        };
        match attempt(flags) {
            Err(Errno(libc::EAGAIN)) => {}
            Ok(done) => return Ok(received(description, flags, &wanted, done)),
            Err(error) => return Err(error),
        }
    }
}

/// Notes whether a receive of `done` bytes came short.
#[inline]
pub(crate) fn received(
    description: &Description,
    flags: c_int,
    wanted: &impl Fn() -> usize,
    done: usize,
) -> usize {
    if done != 0
        && flags & PROVES_NOTHING == 0
        && description.kind() == Kind::Tcp
        && done < wanted()
    {
        description.note_shortage();
    }
    done
}

/// Receives until `bytes` are there (`MSG_WAITALL`), or the end, or an error: then what came
/// before it counts. `part` receives what follows the first so many bytes. Suspends.
#[cold]
fn receive_all(
    runtime: &dyn Runtime,
    fd: c_int,
    description: &Description,
    bytes: usize,
    flags: c_int,
    part: impl Fn(usize, c_int) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let peek = flags & libc::MSG_PEEK != 0;
    let bytes = bytes.min(iovecs::BYTES_MAX);
    let mut waiting = Waiting::new(runtime, fd, Direction::Read, description);
    let mut done = 0;
    let failure = loop {
        // A peek starts over each time, since nothing was taken.
        match part(if peek { 0 } else { done }, flags | libc::MSG_DONTWAIT) {
            Ok(0) => break None,
            Ok(more) if peek => done = more,
            Ok(more) => done += more,
            Err(Errno(libc::EAGAIN)) => match waiting.until_ready() {
                Ok(Retry::Try) => continue,
                Ok(Retry::Block) => break part(done, flags).map(|more| done += more).err(),
                Err(error) => break Some(error),
            },
            Err(error) => break Some(error),
        }
        if done >= bytes || peek && at_end(fd) {
            break None;
        }
        // A short peek is all there is for now; after a short receive the next one says so.
        if peek && let Err(error) = waiting.until_ready() {
            break Some(error);
        }
    };
    match failure {
        Some(error) if done == 0 => Err(error),
        _ => Ok(done),
    }
}

/// Whether nothing can follow the bytes that are there, or an urgent mark: the kernel stops a
/// receive at one.
fn at_end(fd: c_int) -> bool {
    real::poll_now(fd, libc::POLLRDHUP | libc::POLLPRI) != 0
}

/// [`receive_all`] for a message: the parts after the first go into what is left of its vectors.
///
/// # Safety
///
/// As libc's `recvmsg`.
#[cold]
unsafe fn receive_message_all(
    runtime: &dyn Runtime,
    fd: c_int,
    description: &Description,
    message: *mut msghdr,
    flags: c_int,
) -> Result<usize, Errno> {
    // The first part brings the name and the ancillary data, and shows that the message and its
    // vectors are readable.
    let first = receive_some(
        runtime,
        fd,
        description,
        flags,
        || 0,
        |flags| {
            // SAFETY: the caller's promise.
            unsafe { try_receive_message(fd, message, flags) }
        },
    )?;
    // SAFETY: the kernel has read it.
    let (vectors, count, control) =
        unsafe { ((*message).msg_iov, (*message).msg_iovlen, (*message).msg_controllen) };
    // SAFETY: the kernel has read them.
    let bytes = unsafe { iovecs::total(vectors, count) };
    // The kernel, too, ends the receive at ancillary data.
    if first == 0 || first >= bytes || control != 0 || flags & libc::MSG_PEEK != 0 {
        return Ok(first);
    }
    let rest = receive_all(runtime, fd, description, bytes - first, flags, |done, flags| {
        let mut room = [iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; iovecs::WINDOW];
        // SAFETY: the kernel has read the vectors, and they are `count`.
        let filled = unsafe { iovecs::window(vectors, count, first + done, &mut room) };
        // SAFETY: all zeroes is a message without name, vectors and ancillary data.
        let mut part: msghdr = unsafe { std::mem::zeroed() };
        part.msg_iov = room.as_mut_ptr();
        part.msg_iovlen = filled;
        // SAFETY: the vectors are parts of the caller's.
        unsafe { try_receive_message(fd, &raw mut part, flags) }
    });
    Ok(first + rest.unwrap_or(0))
}

/// One recvfrom(2) without a name.
#[inline]
unsafe fn try_receive(
    fd: c_int,
    buffer: *mut c_void,
    bytes: usize,
    flags: c_int,
) -> Result<usize, Errno> {
    let arguments = [fd as usize, buffer as usize, bytes, flags as usize, 0, 0];
    // SAFETY: the caller's promise.
    unsafe { real::syscall(libc::SYS_recvfrom, arguments) }
}

/// One recvmsg(2).
#[inline]
pub(crate) unsafe fn try_receive_message(
    fd: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> Result<usize, Errno> {
    let arguments = [fd as usize, message as usize, flags as usize, 0, 0, 0];
    // SAFETY: the caller's promise.
    unsafe { real::syscall(libc::SYS_recvmsg, arguments) }
}

/// Forgets what was known of the numbers that came in with `SCM_RIGHTS`: whatever had them
/// before was closed behind the shims' backs.
///
/// # Safety
///
/// The kernel has filled `message`.
unsafe fn forget_received(message: *const msghdr) {
    // SAFETY: the kernel has filled the message, so its ancillary data is well-formed and as
    // long as it says; the fds follow the header without padding between them.
    unsafe {
        if (*message).msg_controllen == 0 {
            return;
        }
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(header).cast::<c_int>();
                let bytes = (*header).cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                (0..bytes / size_of::<c_int>())
                    .for_each(|index| fds::forget(data.wrapping_add(index).read_unaligned()));
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
}

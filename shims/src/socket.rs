//! socket(2), its options and the calls on sockets that never wait: bookkeeping, then the answer
//! of the kernel.
//!
//! Known difference: a negative timeout that was set before the category was patched counts as
//! none, since the kernel does not tell the two apart.

use libc::{c_int, c_void, sockaddr, socklen_t};

use crate::errno::answer_int;
use crate::fds::{self, Kind};
use crate::gate::{self, Category};
use crate::real;
use crate::runtime::Direction;

/// The kernel's `SO_RCVTIMEO` for a 64-bit timeval under its second number.
const SO_RCVTIMEO_NEW: c_int = 66;
/// The kernel's `SO_SNDTIMEO` for a 64-bit timeval under its second number.
const SO_SNDTIMEO_NEW: c_int = 67;

/// socket(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::socket(domain, kind, protocol) };
    }
    let arguments = [domain as usize, kind as usize, protocol as usize, 0, 0, 0];
    // SAFETY: no pointers.
    let answer = unsafe { real::syscall(libc::SYS_socket, arguments) };
    if let Ok(fd) = answer
        && gate::is_patched(Category::Socket)
    {
        note_born(fd as c_int, domain, kind, protocol);
    }
    answer_int(answer)
}

/// socketpair(2).
///
/// # Safety
///
/// As libc's `socketpair`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn socketpair(
    domain: c_int,
    kind: c_int,
    protocol: c_int,
    pair: *mut c_int,
) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::socketpair(domain, kind, protocol, pair) };
    }
    let arguments = [domain as usize, kind as usize, protocol as usize, pair as usize, 0, 0];
    // SAFETY: the caller's promise.
    let answer = unsafe { real::syscall(libc::SYS_socketpair, arguments) };
    if answer.is_ok() && gate::is_patched(Category::Socket) {
        // SAFETY: the kernel has just written both.
        let both = unsafe { [pair.read_unaligned(), pair.wrapping_add(1).read_unaligned()] };
        both.into_iter().for_each(|fd| note_born(fd, domain, kind, protocol));
    }
    answer_int(answer)
}

/// setsockopt(2).
///
/// # Safety
///
/// As libc's `setsockopt`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    value_bytes: socklen_t,
) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::setsockopt(fd, level, name, value, value_bytes) };
    }
    let (address, bytes) = (value as usize, value_bytes as usize);
    let arguments = [fd as usize, level as usize, name as usize, address, bytes, 0];
    // SAFETY: the caller's promise.
    let answer = unsafe { real::syscall(libc::SYS_setsockopt, arguments) };
    if answer.is_ok() && gate::is_patched(Category::Socket) {
        // SAFETY: the kernel has accepted the option, so it has read the value.
        unsafe { note_option(fd, level, name, value) };
    }
    answer_int(answer)
}

/// getsockopt(2): passes through.
///
/// # Safety
///
/// As libc's `getsockopt`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    value_bytes: *mut socklen_t,
) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::getsockopt(fd, level, name, value, value_bytes) };
    }
    let (address, bytes) = (value as usize, value_bytes as usize);
    let arguments = [fd as usize, level as usize, name as usize, address, bytes, 0];
    // SAFETY: the caller's promise.
    answer_int(unsafe { real::syscall(libc::SYS_getsockopt, arguments) })
}

/// bind(2): passes through.
///
/// # Safety
///
/// As libc's `bind`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn bind(
    fd: c_int,
    name: *const sockaddr,
    name_bytes: socklen_t,
) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::bind(fd, name, name_bytes) };
    }
    let arguments = [fd as usize, name as usize, name_bytes as usize, 0, 0, 0];
    // SAFETY: the caller's promise.
    answer_int(unsafe { real::syscall(libc::SYS_bind, arguments) })
}

/// listen(2): passes through.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn listen(fd: c_int, backlog: c_int) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::listen(fd, backlog) };
    }
    // SAFETY: no pointers.
    answer_int(unsafe {
        real::syscall(libc::SYS_listen, [fd as usize, backlog as usize, 0, 0, 0, 0])
    })
}

/// shutdown(2). Whoever waits on the socket is woken by the edge it causes.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::shutdown(fd, how) };
    }
    // Before the edge, so that whom it wakes knows. (An unconnected socket is shut down all the
    // same when the answer is `ENOTCONN`.)
    if gate::is_patched(Category::Socket)
        && let Some(description) = fds::known(fd)
    {
        description.note_shutdown();
    }
    // SAFETY: no pointers.
    answer_int(unsafe {
        real::syscall(libc::SYS_shutdown, [fd as usize, how as usize, 0, 0, 0, 0])
    })
}

/// Notes a socket that was just made.
fn note_born(fd: c_int, domain: c_int, kind: c_int, protocol: c_int) {
    let nonblocking = kind & libc::SOCK_NONBLOCK != 0;
    gate::forget_former(fd);
    fds::born(fd, Kind::of_socket(domain, kind, protocol), nonblocking);
}

/// Notes an option that changes how the shims treat the socket.
///
/// # Safety
///
/// The kernel has accepted the option with this value.
unsafe fn note_option(fd: c_int, level: c_int, name: c_int, value: *const c_void) {
    let Some(description) = fds::lookup(fd) else { return };
    let direction = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_RCVTIMEO | SO_RCVTIMEO_NEW) => Direction::Read,
        (libc::SOL_SOCKET, libc::SO_SNDTIMEO | SO_SNDTIMEO_NEW) => Direction::Write,
        (libc::SOL_SOCKET, libc::SO_OOBINLINE) | (libc::IPPROTO_TCP, libc::TCP_ULP) => {
            return description.demote_to_stream();
        }
        _ => return,
    };
    // SAFETY: the kernel has read a timeval from it.
    let time = unsafe { value.cast::<libc::timeval>().read_unaligned() };
    description.set_timeout(direction, time.tv_sec, time.tv_usec);
}

/// What a socket option's number means is the same in the kernel's headers of both architectures.
const _: () = assert!(libc::SO_RCVTIMEO == 20 && libc::SO_SNDTIMEO == 21);

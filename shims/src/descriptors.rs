//! The calls that make, copy, change and end fds: close, dup, fcntl, ioctl, pipe.
//!
//! None of them parks, and the books about fds are kept on every thread once the category is
//! patched, also where shims pass through: on threads without a hub, by the hub itself, while
//! panicking and in a forked child. The runtime hears of closed and duplicated fds on all of them.
//!
//! Known differences: closing a socket with `SO_LINGER` may block the thread; a child made by
//! vfork(2) shares these books with its parent, so what it closes is forgotten there; an fd that
//! a thread without a hub closes wakes nobody.

use std::os::fd::RawFd;

use libc::{c_int, c_uint, c_ulong};

use crate::errno::{Errno, answer_int};
use crate::fds::{self, Kind};
use crate::gate::{self, Category};
use crate::real;
use crate::runtime::Runtime;

/// Who hears when an fd ends or is copied: whichever thread does it, since the number may be one
/// that another thread's hub has waited for. `None` until the category is patched.
fn books() -> Option<&'static dyn Runtime> {
    gate::patched(Category::Socket)
}

/// `fd` is about to be closed or replaced.
fn closing(runtime: &dyn Runtime, fd: RawFd) {
    runtime.fd_closing(fd);
    fds::forget(fd);
}

/// `new` was made a duplicate of `old`.
fn duplicated(old: RawFd, new: RawFd) {
    if let Some(runtime) = books() {
        fds::duplicated(old, new);
        runtime.fd_duplicated(old, new);
    }
}

/// close(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn close(fd: c_int) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::close(fd) };
    }
    // Before the real close: after it the number may be another's.
    if let Some(runtime) = books() {
        closing(runtime, fd);
    }
    answer_int(real::close(fd))
}

/// close_range(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::close_range(first, last, flags) };
    }
    // With any other flag nothing is closed: it is another job, or an error.
    let closes = flags as c_uint & !libc::CLOSE_RANGE_UNSHARE == 0;
    if closes && let Some(runtime) = books() {
        fds::tracked(first, last).for_each(|fd| closing(runtime, fd));
    }
    answer_int(real::close_range(first, last, flags))
}

/// dup(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn dup(fd: c_int) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::dup(fd) };
    }
    // SAFETY: no pointers.
    let answer = unsafe { real::syscall(libc::SYS_dup, [fd as usize, 0, 0, 0, 0, 0]) };
    if let Ok(new) = answer {
        duplicated(fd, new as RawFd);
    }
    answer_int(answer)
}

/// dup2(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::dup2(old, new) };
    }
    if old == new {
        // SAFETY: F_GETFD has no argument. It asks what dup2 asks here: whether the fd is open.
        return answer_int(unsafe { real::fcntl(old, libc::F_GETFD, 0) }.map(|_| new as usize));
    }
    answer_int(replace(old, new, 0))
}

/// dup3(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::dup3(old, new, flags) };
    }
    answer_int(replace(old, new, flags))
}

/// dup3(2), with the books kept about both fds.
fn replace(old: RawFd, new: RawFd, flags: c_int) -> Result<usize, Errno> {
    // The kernel leaves `new` alone if `old` or a flag is bad, and so do the books.
    let valid = old != new
        && flags & !libc::O_CLOEXEC == 0
        // SAFETY: F_GETFD has no argument.
        && unsafe { real::fcntl(old, libc::F_GETFD, 0) }.is_ok();
    if valid && let Some(runtime) = books() {
        closing(runtime, new);
    }
    let arguments = [old as usize, new as usize, flags as usize, 0, 0, 0];
    // SAFETY: no pointers.
    let answer = unsafe { real::syscall(libc::SYS_dup3, arguments) };
    if answer.is_ok() {
        duplicated(old, new);
    }
    answer
}

/// pipe(2).
///
/// # Safety
///
/// As libc's `pipe`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pipe(pair: *mut c_int) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::pipe(pair) };
    }
    // SAFETY: the caller's promise.
    answer_int(unsafe { make_pipe(pair, 0) })
}

/// pipe2(2).
///
/// # Safety
///
/// As libc's `pipe2`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pipe2(pair: *mut c_int, flags: c_int) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::pipe2(pair, flags) };
    }
    // SAFETY: the caller's promise.
    answer_int(unsafe { make_pipe(pair, flags) })
}

/// pipe2(2), with the books kept about both ends.
unsafe fn make_pipe(pair: *mut c_int, flags: c_int) -> Result<usize, Errno> {
    let arguments = [pair as usize, flags as usize, 0, 0, 0, 0];
    // SAFETY: the caller's promise.
    let answer = unsafe { real::syscall(libc::SYS_pipe2, arguments) }?;
    if gate::is_patched(Category::Socket) {
        // SAFETY: the kernel has just written both.
        let both = unsafe { [pair.read_unaligned(), pair.wrapping_add(1).read_unaligned()] };
        let nonblocking = flags & libc::O_NONBLOCK != 0;
        for fd in both {
            gate::forget_former(fd);
            fds::born(fd, Kind::Other, nonblocking);
        }
    }
    Ok(answer)
}

/// fcntl(2). Variadic in C; on Linux a third argument travels in the same register either way.
///
/// # Safety
///
/// As libc's `fcntl`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::fcntl(fd, command, argument) };
    }
    // SAFETY: the caller's promise.
    answer_int(unsafe { control(fd, command, argument) })
}

/// fcntl(2) under the name that code built for large files calls.
///
/// # Safety
///
/// As libc's `fcntl`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the caller's promise.
    answer_int(unsafe { control(fd, command, argument) })
}

/// fcntl(2), with the books kept about flags and duplicates.
unsafe fn control(fd: c_int, command: c_int, argument: usize) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let plain = || unsafe { real::fcntl(fd, command, argument) };
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => {
            let new = plain()?;
            duplicated(fd, new as RawFd);
            Ok(new)
        }
        libc::F_GETFL => {
            let flags = plain()?;
            let hidden = fds::known(fd).is_some_and(|it| it.is_flipped() && !it.is_nonblocking());
            Ok(if hidden { flags & !(libc::O_NONBLOCK as usize) } else { flags })
        }
        libc::F_SETFL => {
            let Some(description) = fds::known(fd) else { return plain() };
            let flipped = if description.is_flipped() { libc::O_NONBLOCK as usize } else { 0 };
            // SAFETY: F_SETFL takes a number.
            let answer = unsafe { real::fcntl(fd, command, argument | flipped) }?;
            description.set_nonblocking(argument as c_int & libc::O_NONBLOCK != 0);
            Ok(answer)
        }
        // The kernel's own F_GETOWN returns a process group as a negative number, which looks
        // like an error; so libc asks in another way, and so do we.
        libc::F_GETOWN => owner(fd),
        _ => plain(),
    }
}

/// Who gets the signals of `fd`: a process, or minus a process group.
fn owner(fd: c_int) -> Result<usize, Errno> {
    /// F_GETOWN_EX of `<fcntl.h>`.
    const F_GETOWN_EX: c_int = 16;
    /// F_OWNER_PGRP of `<fcntl.h>`.
    const F_OWNER_PGRP: c_int = 2;
    let mut found: [c_int; 2] = [0; 2];
    // SAFETY: F_GETOWN_EX writes a type and a pid, two ints, to the pointer, which is to a local.
    unsafe { real::fcntl(fd, F_GETOWN_EX, (&raw mut found) as usize) }?;
    let [kind, id] = found;
    Ok(if kind == F_OWNER_PGRP { -(id as isize) as usize } else { id as usize })
}

/// ioctl(2). Variadic in C; on Linux a third argument travels in the same register either way.
///
/// # Safety
///
/// As libc's `ioctl`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::ioctl(fd, request, argument) };
    }
    // SAFETY: the caller's promise.
    let answer = unsafe { real::ioctl(fd, request, argument) };
    if request == libc::FIONBIO
        && answer.is_ok()
        && let Some(description) = fds::known(fd)
    {
        // SAFETY: the kernel has just read an int from it.
        let nonblocking = unsafe { (argument as *const c_int).read_unaligned() } != 0;
        description.set_nonblocking(nonblocking);
        if description.is_flipped() && !nonblocking {
            // What the user switched off was ours. It can't fail: it has just worked.
            let _ = real::set_nonblocking(fd, true);
        }
    }
    answer_int(answer)
}

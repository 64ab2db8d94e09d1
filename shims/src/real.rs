//! The real calls, which no shim can catch.
//!
//! Where the kernel has the call, it is a system call made by hand: libc's own function is what
//! the shims replace, and `syscall(2)` is a shim too. Where there is none (getaddrinfo,
//! `pthread_*`), [`Next`] finds the definition behind ours. Relies on the kernel's calling
//! convention of x86_64 and aarch64. Never touches `errno`, allocates (but see [`Next`]) or
//! unwinds, so everything else here may be used in a signal handler and in a forked child.

use std::arch::asm;
use std::ffi::{CStr, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_int, c_long, c_uint, c_ulong};

use crate::errno::Errno;

/// Makes the system call `number`. Arguments the call does not have are ignored by the kernel.
///
/// # Safety
///
/// What the call does to this process must be sound: pointers that the kernel writes through
/// are valid for it, or known by the kernel to be wrong (it answers `EFAULT`).
#[inline(always)]
pub(crate) unsafe fn syscall(number: c_long, arguments: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let value = unsafe { trap(number, arguments) };
    // The kernel keeps the last page of numbers for errors.
    if value > -4096isize as usize { Err(Errno(-(value as isize) as c_int)) } else { Ok(value) }
}

/// The instruction itself: the answer is a value or a negated error number.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn trap(number: c_long, arguments: [usize; 6]) -> usize {
    let value;
    // SAFETY: the x86_64 convention: rcx and r11 are lost, all other registers and the stack
    // are kept. Memory is assumed to change, since `nomem` is not given.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as usize => value,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r9") arguments[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    value
}

/// The instruction itself: the answer is a value or a negated error number.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn trap(number: c_long, arguments: [usize; 6]) -> usize {
    let value;
    // SAFETY: the aarch64 convention: x0 is the answer, all other registers and the stack are
    // kept. Memory is assumed to change, since `nomem` is not given.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number as usize,
            inlateout("x0") arguments[0] => value,
            in("x1") arguments[1],
            in("x2") arguments[2],
            in("x3") arguments[3],
            in("x4") arguments[4],
            in("x5") arguments[5],
            options(nostack),
        );
    }
    value
}

/// A function of libc's that is no system call, looked up behind our own definition of it.
///
/// The first look-up goes through the dynamic loader, which locks and may allocate; each further
/// one is a load.
pub(crate) struct Next {
    /// The symbol.
    name: &'static CStr,
    /// Its address once it was looked up; null before, and for ever if there is none.
    address: AtomicPtr<c_void>,
}

impl Next {
    /// The function `name`, not looked up yet.
    pub(crate) const fn new(name: &'static CStr) -> Next {
        Next { name, address: AtomicPtr::new(null_mut()) }
    }

    /// The address of the definition that comes after this crate's, `None` if there is none.
    pub(crate) fn get(&self) -> Option<NonNull<c_void>> {
        let cached = NonNull::new(self.address.load(Ordering::Acquire));
        cached.or_else(|| {
            // SAFETY: the name is a C string, and RTLD_NEXT looks behind the object this code
            // is linked into.
            let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            self.address.store(found, Ordering::Release);
            NonNull::new(found)
        })
    }
}

/// read(2). Safety of this and the calls below: as for [`syscall`].
#[inline]
pub(crate) unsafe fn read(fd: c_int, buffer: *mut c_void, bytes: usize) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    unsafe { syscall(libc::SYS_read, [fd as usize, buffer as usize, bytes, 0, 0, 0]) }
}

/// write(2).
#[inline]
pub(crate) unsafe fn write(fd: c_int, buffer: *const c_void, bytes: usize) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    unsafe { syscall(libc::SYS_write, [fd as usize, buffer as usize, bytes, 0, 0, 0]) }
}

/// fcntl(2).
#[inline]
pub(crate) unsafe fn fcntl(fd: c_int, command: c_int, argument: usize) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    unsafe { syscall(libc::SYS_fcntl, [fd as usize, command as usize, argument, 0, 0, 0]) }
}

/// ioctl(2).
#[inline]
pub(crate) unsafe fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    unsafe { syscall(libc::SYS_ioctl, [fd as usize, request as usize, argument, 0, 0, 0]) }
}

/// close(2).
#[inline]
pub(crate) fn close(fd: c_int) -> Result<usize, Errno> {
    // SAFETY: no pointers; who may close the fd is the caller's business, as with close(2).
    unsafe { syscall(libc::SYS_close, [fd as usize, 0, 0, 0, 0, 0]) }
}

/// An option of a socket's whose value is one `int`.
pub(crate) fn socket_option(fd: c_int, level: c_int, name: c_int) -> Result<c_int, Errno> {
    let mut value: c_int = 0;
    let mut bytes = size_of::<c_int>() as libc::socklen_t;
    let arguments = [
        fd as usize,
        level as usize,
        name as usize,
        (&raw mut value) as usize,
        (&raw mut bytes) as usize,
        0,
    ];
    // SAFETY: both pointers are to locals that outlive the call, and `bytes` is their size.
    unsafe { syscall(libc::SYS_getsockopt, arguments) }.map(|_| value)
}

/// ppoll(2), which is also poll(2) where the kernel has none of its own (aarch64). The kernel
/// writes the time that is left to `timeout`.
#[inline]
pub(crate) unsafe fn ppoll(
    fds: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: *mut libc::timespec,
    mask: *const libc::sigset_t,
) -> Result<usize, Errno> {
    // The kernel's sigset_t is 64 bits, whatever size libc's is.
    let arguments =
        [fds as usize, count as usize, timeout as usize, mask as usize, size_of::<u64>(), 0];
    // SAFETY: the caller's promise.
    unsafe { syscall(libc::SYS_ppoll, arguments) }
}

/// What poll(2) reports of one fd right now for `events`; 0 if nothing, or if it can't be asked.
pub(crate) fn poll_now(fd: c_int, events: i16) -> i16 {
    let mut one = libc::pollfd { fd, events, revents: 0 };
    let mut timeout = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both pointers are to locals that outlive the call; no mask.
    let _ = unsafe { ppoll(&raw mut one, 1, &raw mut timeout, std::ptr::null()) };
    one.revents
}

/// Switches the real `O_NONBLOCK` of a description, leaving its other flags alone.
pub(crate) fn set_nonblocking(fd: c_int, nonblocking: bool) -> Result<usize, Errno> {
    let value = c_int::from(nonblocking);
    // SAFETY: FIONBIO reads one int from the pointer, which is to a local.
    unsafe { ioctl(fd, libc::FIONBIO, (&raw const value) as usize) }
}

/// close_range(2).
#[inline]
pub(crate) fn close_range(first: c_uint, last: c_uint, flags: c_int) -> Result<usize, Errno> {
    let arguments = [first as usize, last as usize, flags as usize, 0, 0, 0];
    // SAFETY: no pointers; who may close the fds is the caller's business.
    unsafe { syscall(libc::SYS_close_range, arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_answers_the_error_and_leaves_errno() {
        crate::errno::set(libc::EXDEV);
        assert_eq!(close(-1), Err(Errno(libc::EBADF)));
        assert_eq!(crate::errno::get(), libc::EXDEV);
    }

    #[test]
    fn a_call_with_six_arguments_passes_them_all() {
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
        let arguments = [0, 4096, libc::PROT_READ as usize, flags, -1isize as usize, 0];
        // SAFETY: a fresh anonymous mapping, which is unmapped again below.
        let page = unsafe { syscall(libc::SYS_mmap, arguments) }.expect("an anonymous page");
        // SAFETY: the page is readable and zero-filled.
        assert_eq!(unsafe { *(page as *const u8) }, 0);
        // SAFETY: nothing refers to the page any more.
        unsafe { syscall(libc::SYS_munmap, [page, 4096, 0, 0, 0, 0]) }.expect("unmapped");
    }

    #[test]
    fn next_finds_a_function_and_says_when_there_is_none() {
        static FOUND: Next = Next::new(c"getaddrinfo");
        static ABSENT: Next = Next::new(c"greenling_has_no_such_function");
        assert!(FOUND.get().is_some());
        assert_eq!(FOUND.get(), FOUND.get());
        assert!(ABSENT.get().is_none());
    }
}

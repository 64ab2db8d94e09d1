//! The alternate signal stack: where the overflow report runs, because the overflowed stack has no
//! room.
//!
//! std gives one to its own threads. This file must never take the place of one that is there.

use std::{mem, ptr};

use super::slot::GRAIN;

/// A signal stack for a thread that came without one: a thread std didn't make.
#[derive(Debug)]
pub(super) struct AlternateStack {
    /// Its mapping, a guard at the low end included.
    start: *mut libc::c_void,
    /// The mapping's length.
    bytes: usize,
}

impl AlternateStack {
    /// Makes one for the calling thread unless it has one. Without memory for it an overflow still
    /// kills the process, only silently, so that is no error.
    pub(super) fn ensure() -> Option<AlternateStack> {
        // The kernel needs room for the registers, 3 KiB with AVX-512 and 64 KiB with SME.
        #[cfg(target_os = "linux")]
        // SAFETY: getauxval takes any number.
        let frame = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
        #[cfg(not(target_os = "linux"))]
        let frame = libc::MINSIGSTKSZ;
        let usable = (frame + (32 << 10)).next_multiple_of(GRAIN);
        let bytes = GRAIN + usable;
        // SAFETY: the first call fills a live value; the mapping is new, its guard is its own low
        // end, and the kernel gets the rest, which stays mapped until `drop`.
        unsafe {
            let mut current: libc::stack_t = mem::zeroed();
            if libc::sigaltstack(ptr::null(), &mut current) != 0
                || current.ss_flags & libc::SS_DISABLE == 0
            {
                return None;
            }
            let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
            let start = libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            );
            if start == libc::MAP_FAILED {
                return None;
            }
            libc::mprotect(start, GRAIN, libc::PROT_NONE);
            let stack = AlternateStack { start, bytes };
            let wanted =
                libc::stack_t { ss_sp: start.byte_add(GRAIN), ss_flags: 0, ss_size: usable };
            (libc::sigaltstack(&wanted, ptr::null_mut()) == 0).then_some(stack)
        }
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        // SAFETY: we are on the thread that made it (`Stacks` isn't `Send`), so the kernel doesn't
        // use it any more once it isn't this thread's alternate stack, which the first lines see
        // to.
        unsafe {
            let mut current: libc::stack_t = mem::zeroed();
            libc::sigaltstack(ptr::null(), &mut current);
            if current.ss_sp == self.start.byte_add(GRAIN) {
                let off = libc::stack_t {
                    ss_sp: ptr::null_mut(),
                    ss_flags: libc::SS_DISABLE,
                    ss_size: self.bytes,
                };
                libc::sigaltstack(&off, ptr::null_mut());
            }
            libc::munmap(self.start, self.bytes);
        }
    }
}

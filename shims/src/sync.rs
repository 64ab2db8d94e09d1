//! `syscall(2)` as a shim: std's Mutex, Condvar, RwLock, Once, Barrier, park and mpsc all end in
//! `syscall(SYS_futex, ...)`.
//!
//! Taken over are FUTEX_WAIT, WAIT_BITSET, WAKE and WAKE_BITSET with FUTEX_PRIVATE_FLAG. A wait
//! of a greenlet parks in the table of [`futex`](crate::futex); a wake, from any thread, serves
//! greenlets first and threads in the kernel with what is left of its count. So among waiters of
//! one kind the order is first come, first served; between the kinds greenlets go first.
//!
//! Passed through:
//! - Futexes without the private flag, which other processes may wake.
//! - FUTEX_REQUEUE, CMP_REQUEUE and WAKE_OP. Greenlets that wait on their addresses are all
//!   woken after the call, so that none misses a wake-up that was meant for it.
//! - The PI operations, and whatever has a bad argument: the kernel answers.
//! - Every other system call, also those that block: who makes `read` a raw system call is not
//!   seen.
//!
//! A futex wait is no kill point: std would take any failure for EINTR and wait again.

use std::ptr::with_exposed_provenance;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use libc::{c_int, c_long, timespec};

use crate::clock::{self, Moment};
use crate::errno::{self, Errno};
use crate::futex::{self, Outcome};
use crate::gate::{self, Category};
use crate::real;
use crate::runtime::{Bypass, Runtime};

/// Every bit of a bitset: what FUTEX_WAIT and FUTEX_WAKE use.
const ALL_BITS: u32 = !0;

/// glibc's `syscall`. C declares it variadic; the callee of a variadic function finds integers
/// where it finds fixed arguments, on x86_64 and aarch64 Linux. (On x86_64 the seventh is on the
/// stack: if the caller passed fewer, something of the caller's frame is read and not used.)
///
/// # Safety
///
/// As the system call itself asks.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn syscall(
    number: c_long,
    a1: usize,
    a2: usize,
    a3: usize,
    a4: usize,
    a5: usize,
    a6: usize,
) -> c_long {
    if false {
        // SAFETY: never runs; it makes a wrong signature a compile error.
        return unsafe { libc::syscall(number, a1, a2, a3, a4, a5, a6) };
    }
    let arguments = [a1, a2, a3, a4, a5, a6];
    let result = if number == libc::SYS_futex {
        // SAFETY: the caller's promise.
        unsafe { futex_call(arguments) }
    } else {
        // SAFETY: the caller's promise.
        unsafe { real::syscall(number, arguments) }
    };
    errno::answer(result) as c_long
}

/// futex(2).
///
/// # Safety
///
/// As futex(2) asks.
unsafe fn futex_call(arguments: [usize; 6]) -> Result<usize, Errno> {
    let operation = arguments[1] as c_int;
    if operation & libc::FUTEX_PRIVATE_FLAG != 0 {
        match operation & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME) {
            libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET => {
                if let Ok(runtime) = gate::enter(Category::Thread)
                    // SAFETY: the caller's promise.
                    && let Some(result) = unsafe { wait(runtime, arguments) }
                {
                    return result;
                }
            }
            // SAFETY: the caller's promise.
            libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET => return unsafe { wake(arguments) },
            libc::FUTEX_REQUEUE | libc::FUTEX_CMP_REQUEUE | libc::FUTEX_WAKE_OP => {
                // SAFETY: the caller's promise.
                return unsafe { wake_behind_requeue(arguments) };
            }
            _ => {}
        }
    }
    // SAFETY: the caller's promise.
    unsafe { real::syscall(libc::SYS_futex, arguments) }
}

/// FUTEX_WAIT and FUTEX_WAIT_BITSET of a greenlet; `None` if the kernel must do it.
///
/// # Safety
///
/// As futex(2) asks.
unsafe fn wait(runtime: &dyn Runtime, arguments: [usize; 6]) -> Option<Result<usize, Errno>> {
    let [address, operation, expected, timeout, _, bits] = arguments;
    let operation = operation as c_int;
    let bitset = operation & libc::FUTEX_CMD_MASK == libc::FUTEX_WAIT_BITSET;
    let real_time = operation & libc::FUTEX_CLOCK_REALTIME != 0;
    let bits = if bitset { bits as u32 } else { ALL_BITS };
    // What the kernel refuses: a bad address (of which only the plainest is seen: others fault
    // here), no bits, and a clock for the relative wait.
    if address == 0 || address % align_of::<u32>() != 0 || bits == 0 || (real_time && !bitset) {
        return None;
    }
    let timeout = with_exposed_provenance::<timespec>(timeout);
    let until = if timeout.is_null() {
        None
    } else {
        // SAFETY: not null, so readable by the caller's promise.
        let time = clock::duration(unsafe { timeout.read_unaligned() })?;
        let clock = if real_time { libc::CLOCK_REALTIME } else { libc::CLOCK_MONOTONIC };
        // FUTEX_WAIT's timeout is relative, FUTEX_WAIT_BITSET's is not.
        Some(if bitset { Moment::on(clock, time)? } else { Moment::after(clock, time)? })
    };
    let address = with_exposed_provenance::<AtomicU32>(address);
    // SAFETY: the caller's promise, and the alignment was checked.
    let wait = || unsafe { futex::wait(runtime, address, expected as u32, bits, until) };
    match errno::kept(wait) {
        Outcome::Woken => Some(Ok(0)),
        Outcome::Changed => Some(Err(Errno(libc::EAGAIN))),
        Outcome::TimedOut => Some(Err(Errno(libc::ETIMEDOUT))),
        Outcome::Interrupted => Some(Err(Errno(libc::EINTR))),
        Outcome::Unavailable => None,
    }
}

/// FUTEX_WAKE and FUTEX_WAKE_BITSET: greenlets first, then threads.
///
/// # Safety
///
/// As futex(2) asks; it reads nothing of the process.
unsafe fn wake(mut arguments: [usize; 6]) -> Result<usize, Errno> {
    let [address, operation, count, _, _, bits] = arguments;
    let bitset = operation as c_int & libc::FUTEX_CMD_MASK == libc::FUTEX_WAKE_BITSET;
    let bits = if bitset { bits as u32 } else { ALL_BITS };
    // The kernel wakes one where none or fewer are asked for.
    let limit = (count as c_int).max(1) as usize;
    // What the kernel refuses: a clock, and a bad address.
    let valid =
        operation as c_int & libc::FUTEX_CLOCK_REALTIME == 0 && address % align_of::<u32>() == 0;
    let green = if valid { wake_green(address, bits, limit) } else { 0 };
    if green == limit {
        return Ok(green);
    }
    if green > 0 {
        arguments[2] = limit - green;
    }
    // SAFETY: the caller's promise.
    match unsafe { real::syscall(libc::SYS_futex, arguments) } {
        Ok(threads) => Ok(green + threads),
        // The memory may be gone by now, as after the last unlock of a lock; what was woken was.
        Err(_) if green > 0 => Ok(green),
        Err(error) => Err(error),
    }
}

/// The operations that move threads from one futex to another, or change one on the way.
///
/// # Safety
///
/// As futex(2) asks.
unsafe fn wake_behind_requeue(arguments: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let result = unsafe { real::syscall(libc::SYS_futex, arguments) };
    if result.is_ok() {
        // The greenlets can't be moved along, but they may wake without a reason. Only after the
        // call, which may have changed the second futex: they look at it again.
        for address in [arguments[0], arguments[4]] {
            wake_green(address, ALL_BITS, usize::MAX);
        }
    }
    result
}

/// Wakes greenlets that wait on `address`, from whatever context.
fn wake_green(address: usize, bits: u32, limit: usize) -> usize {
    // The caller has changed the futex. Whether anybody waits on it, and whether anything is
    // patched at all, must be read after that: see `futex`, "No wake-up is lost".
    fence(Ordering::SeqCst);
    let Some(runtime) = gate::patched(Category::Thread) else { return 0 };
    if runtime.bypass() == Some(Bypass::Forked) {
        // The waiters are the parent's.
        return 0;
    }
    let address = with_exposed_provenance::<AtomicU32>(address);
    errno::kept(|| futex::wake(runtime, address, bits, limit))
}

//! The one decision every shim makes first: park the greenlet, or pass the call through.
//!
//! Inert until [`install`]: one relaxed load, then the real call.

use std::os::fd::RawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::fds;
use crate::runtime::{Bypass, Runtime};

/// A group of symbols that is patched together, under gevent's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Category {
    /// recv, send, read, write, connect, accept and what keeps the books about fds.
    Socket = 1 << 0,
    /// sleep, usleep, nanosleep, clock_nanosleep.
    Time = 1 << 1,
    /// getaddrinfo and its relatives.
    Dns = 1 << 2,
    /// poll and its relatives.
    Select = 1 << 3,
    /// futex, so std's Mutex, Condvar, RwLock, Once.
    Thread = 1 << 4,
}

/// The categories that are patched, as an or of [`Category`] values. Only ever grows.
static PATCHED: AtomicU32 = AtomicU32::new(0);

/// The scheduler. Set before the first bit of [`PATCHED`] is.
static RUNTIME: OnceLock<&'static dyn Runtime> = OnceLock::new();

/// Hands calls of `categories` to `runtime` from now on, in the whole process. Called again, it
/// adds categories; the runtime of the first call stays.
pub fn install(runtime: &'static dyn Runtime, categories: &[Category]) {
    // Without a use of the table here a linker would find std's undefined symbols in libc: it
    // takes an object out of this crate's archive only when something before it asks for it.
    std::hint::black_box(crate::TABLE.as_ptr());
    if RUNTIME.set(runtime).is_ok() {
        crate::futex::follow_forks();
    }
    let bits = categories.iter().fold(0, |bits, &category| bits | category as u32);
    PATCHED.fetch_or(bits, Ordering::Release);
}

/// Whether `category` is patched.
pub fn is_patched(category: Category) -> bool {
    PATCHED.load(Ordering::Relaxed) & category as u32 != 0
}

/// The runtime, if `category` is patched: for what may be done from any context, such as waking a
/// greenlet from a thread that has no hub.
#[inline]
pub(crate) fn patched(category: Category) -> Option<&'static dyn Runtime> {
    if is_patched(category) { RUNTIME.get().copied() } else { None }
}

/// The runtime to park on, or the reason why this call passes through.
#[inline]
pub(crate) fn enter(category: Category) -> Result<&'static dyn Runtime, Bypass> {
    if PATCHED.load(Ordering::Relaxed) & category as u32 == 0 {
        return Err(Bypass::NotPatched);
    }
    let runtime = *RUNTIME.get().ok_or(Bypass::NotPatched)?;
    match runtime.bypass() {
        None => Ok(runtime),
        Some(reason) => Err(reason),
    }
}

/// [`enter`] for an operation on an fd that may wait. May suspend.
#[inline]
pub(crate) fn enter_io() -> Result<&'static dyn Runtime, Bypass> {
    let runtime = *RUNTIME.get().ok_or(Bypass::NotPatched)?;
    match runtime.bypass_io() {
        None => Ok(runtime),
        Some(reason) => Err(reason),
    }
}

/// A call has made `fd`. If the books still have something under that number, its former owner was
/// closed behind the shims' back (by `fclose`, say), and the hubs must forget it as well.
#[inline]
pub(crate) fn forget_former(fd: RawFd) {
    if fds::known(fd).is_some()
        && let Some(runtime) = patched(Category::Socket)
    {
        runtime.fd_closing(fd);
    }
}

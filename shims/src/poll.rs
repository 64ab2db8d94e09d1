//! poll(2) and ppoll(2): ask the kernel without waiting, park for an edge of any of the fds, ask
//! again.
//!
//! The answer always comes from the kernel, so what is reported, of which kinds of fds, of bad
//! and negative and repeated numbers, is what an unpatched call reports. Known differences: a
//! signal handler runs, but does not end the call with `EINTR`, and with ppoll's mask only
//! while the kernel is asked; out-of-band data alone (`POLLPRI`) may go unnoticed until
//! something else happens on the fd.

use std::os::fd::RawFd;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use libc::{c_int, nfds_t, pollfd, sigset_t, size_t, timespec};

use crate::errno::{Errno, answer_int, kept};
use crate::gate::{self, Category};
use crate::real;
use crate::receive::check_room;
use crate::runtime::{Direction, Runtime, Wake};
use crate::wait::{Retry, meaning};

/// How many directions fit on the stack; a call with more maps pages for them.
const INLINE: usize = 64;

/// poll(2).
///
/// # Safety
///
/// As libc's `poll`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::poll(fds, count, timeout) };
    }
    let timeout = u64::try_from(timeout).ok().map(Duration::from_millis);
    // SAFETY: the caller's promise.
    answer_int(unsafe { poll_any(fds, count, timeout, null()) })
}

/// poll(2) as code compiled with `_FORTIFY_SOURCE` calls it.
///
/// # Safety
///
/// As libc's `poll`; `room` is the size of the array.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __poll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: c_int,
    room: size_t,
) -> c_int {
    check_room(count as usize, room / size_of::<pollfd>());
    // SAFETY: the caller's promise.
    unsafe { poll(fds, count, timeout) }
}

/// ppoll(2).
///
/// # Safety
///
/// As libc's `ppoll`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    if false {
        // SAFETY: never runs; it checks the signature.
        return unsafe { libc::ppoll(fds, count, timeout, mask) };
    }
    // SAFETY: the caller's promise. libc reads the timeout itself, too.
    let timeout = unsafe { timeout.as_ref() }.map(duration).transpose();
    // SAFETY: the caller's promise.
    answer_int(timeout.and_then(|timeout| unsafe { poll_any(fds, count, timeout, mask) }))
}

/// ppoll(2) as code compiled with `_FORTIFY_SOURCE` calls it.
///
/// # Safety
///
/// As libc's `ppoll`; `room` is the size of the array.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __ppoll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    room: size_t,
) -> c_int {
    check_room(count as usize, room / size_of::<pollfd>());
    // SAFETY: the caller's promise.
    unsafe { ppoll(fds, count, timeout, mask) }
}

/// A caller's timeout.
fn duration(time: &timespec) -> Result<Duration, Errno> {
    match (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec)) {
        (Ok(seconds), Ok(nanoseconds @ 0..1_000_000_000)) => {
            Ok(Duration::new(seconds, nanoseconds))
        }
        _ => Err(Errno(libc::EINVAL)),
    }
}

/// All of them. No timeout means for ever.
unsafe fn poll_any(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: Option<Duration>,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let ask = |timeout| unsafe { ask(fds, count, timeout, mask) };
    let Ok(runtime) = gate::enter(Category::Select) else { return ask(timeout) };
    let ready = ask(Some(Duration::ZERO))?;
    if ready != 0 || timeout == Some(Duration::ZERO) {
        return Ok(ready);
    }
    // A deadline beyond what Instant holds is none.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    // SAFETY: the kernel has just read and written that many entries.
    let directions = unsafe { Directions::of(fds, count as usize) }?;
    loop {
        let wake = kept(|| park(runtime, directions.all(), deadline, &ask));
        if wake == Wake::TimedOut {
            // What came while the deadline passed still counts.
            return ask(Some(Duration::ZERO));
        }
        // A closed fd is the kernel's to report, as POLLNVAL.
        if wake != Wake::Closed && meaning(wake)? == Retry::Block {
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            return ask(left);
        }
        let ready = ask(Some(Duration::ZERO))?;
        let over = deadline.is_some_and(|deadline| deadline <= Instant::now());
        if ready != 0 || over {
            return Ok(ready);
        }
    }
}

/// Parks until something may have happened. Suspends.
#[cold]
fn park(
    runtime: &dyn Runtime,
    directions: &[(RawFd, Direction)],
    deadline: Option<Instant>,
    ask: &dyn Fn(Option<Duration>) -> Result<usize, Errno>,
) -> Wake {
    match deadline {
        Some(deadline) if directions.is_empty() => runtime.sleep_until(deadline),
        // An error is the next question's to report.
        _ => runtime.wait_any(directions, deadline, &mut || ask(Some(Duration::ZERO)) != Ok(0)),
    }
}

/// One real ppoll(2), which is also poll(2).
unsafe fn ask(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: Option<Duration>,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    let mut time = timeout.map(|timeout| timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    let time = time.as_mut().map_or(null_mut(), |time| &raw mut *time);
    // SAFETY: the caller's promise; `time` is null or a local.
    unsafe { real::ppoll(fds, count, time, mask) }
}

/// What the fds of one call are waited for, each direction on its own.
struct Directions {
    /// The first ones.
    inline: [(RawFd, Direction); INLINE],
    /// All of them, if they are more: pages of this call's own.
    mapped: *mut (RawFd, Direction),
    /// How many bytes are mapped.
    mapped_bytes: usize,
    /// How many there are.
    length: usize,
}

impl Directions {
    /// What `count` entries ask for.
    ///
    /// # Safety
    ///
    /// `count` entries are readable at `fds`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, which poll(2) fails with, too.
    unsafe fn of(fds: *const pollfd, count: usize) -> Result<Directions, Errno> {
        let inline = [(-1, Direction::Read); INLINE];
        let mut all = Directions { inline, mapped: null_mut(), mapped_bytes: 0, length: 0 };
        if count.saturating_mul(2) > INLINE {
            all.map(count.saturating_mul(2))?;
        }
        for index in 0..count {
            // SAFETY: the caller's promise.
            let entry = unsafe { fds.wrapping_add(index).read_unaligned() };
            if entry.fd < 0 {
                continue;
            }
            // Errors and hang-ups are reported unasked, and they are edges of both directions.
            if entry.events & !WRITE_EVENTS != 0 || entry.events == 0 {
                all.push((entry.fd, Direction::Read));
            }
            if entry.events & WRITE_EVENTS != 0 {
                all.push((entry.fd, Direction::Write));
            }
        }
        Ok(all)
    }

    /// Maps room for `entries`.
    fn map(&mut self, entries: usize) -> Result<(), Errno> {
        let bytes = entries.saturating_mul(size_of::<(RawFd, Direction)>());
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
        let arguments = [0, bytes, protection, flags, usize::MAX, 0];
        // SAFETY: a fresh anonymous mapping, which `drop` unmaps.
        let address = unsafe { real::syscall(libc::SYS_mmap, arguments) }?;
        self.mapped = address as *mut _;
        self.mapped_bytes = bytes;
        Ok(())
    }

    /// Adds one; there is room, since each entry adds two at most.
    fn push(&mut self, direction: (RawFd, Direction)) {
        if !self.mapped.is_null() {
            // SAFETY: `map` made room for two per entry of the call.
            unsafe { self.mapped.wrapping_add(self.length).write(direction) };
        } else if let Some(slot) = self.inline.get_mut(self.length) {
            *slot = direction;
        }
        self.length += 1;
    }

    /// All of them.
    fn all(&self) -> &[(RawFd, Direction)] {
        if self.mapped.is_null() {
            return self.inline.get(..self.length).unwrap_or(&[]);
        }
        // SAFETY: `push` has written that many, and the pages live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.mapped, self.length) }
    }
}

impl Drop for Directions {
    fn drop(&mut self) {
        if !self.mapped.is_null() {
            let arguments = [self.mapped as usize, self.mapped_bytes, 0, 0, 0, 0];
            // SAFETY: the pages are this call's own, and nothing refers to them any more.
            let _ = unsafe { real::syscall(libc::SYS_munmap, arguments) };
        }
    }
}

/// The events that a writable fd is waited for by.
const WRITE_EVENTS: i16 = libc::POLLOUT | libc::POLLWRNORM | libc::POLLWRBAND;

//! Guards: how the low end of a slot is made to fault.
//!
//! Linux 6.13 and newer mark the page table entries of a guard (`MADV_GUARD_INSTALL`), which costs
//! no mapping. Elsewhere a guard is a mapping without permissions, and the kernel limits their
//! number (`vm.max_map_count`), so they are handed out within a budget and then refused with an
//! error that names the limit. This file must never let a slot go without a guard.
//!
//! `GREENLING_STACK_GUARD=mprotect` forces the second kind. It is there for tests.

use std::io;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::slot::{GRAIN, GUARD_BYTES, out_of_memory};

/// `MADV_GUARD_INSTALL`, which the libc crate doesn't have on every target.
#[cfg(target_os = "linux")]
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// How a guard was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Marked page table entries.
    Install,
    /// A mapping of its own, which counts against the budget until [`forget`].
    Protect,
}

/// The guards by mapping that exist in this process. Each splits its slab once more, so it costs
/// two mappings.
static PROTECTED: AtomicUsize = AtomicUsize::new(0);

/// Finds out which guards this system has, while nothing of a hub is borrowed.
pub(super) fn prepare() {
    if kind() == Kind::Protect {
        budget();
    }
}

/// Makes the guard at the low end of a slot.
///
/// # Safety
///
/// `GUARD_BYTES` from `low` on are mapped, and no one uses them.
pub(super) unsafe fn install(low: NonNull<u8>) -> io::Result<Kind> {
    #[cfg(target_os = "linux")]
    if kind() == Kind::Install {
        // SAFETY: the caller guarantees that the range is mapped and unused.
        if unsafe { libc::madvise(low.as_ptr().cast(), GUARD_BYTES, MADV_GUARD_INSTALL) } == 0 {
            return Ok(Kind::Install);
        }
        // Locked memory (mlockall) can't be marked: EINVAL. Then a mapping has to do.
        if io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
            return Err(out_of_memory("guard", GUARD_BYTES));
        }
    }
    let existing = PROTECTED.fetch_add(1, Ordering::Relaxed);
    if existing < budget() {
        // SAFETY: the caller guarantees that the range is mapped and unused.
        let result = unsafe { libc::mprotect(low.as_ptr().cast(), GUARD_BYTES, libc::PROT_NONE) };
        if result == 0 {
            return Ok(Kind::Protect);
        }
    }
    PROTECTED.fetch_sub(1, Ordering::Relaxed);
    Err(over_budget(existing))
}

/// Gives guards by mapping, which have been unmapped, back to the budget.
pub(super) fn forget(count: usize) {
    PROTECTED.fetch_sub(count, Ordering::Relaxed);
}

/// The kind this system has, probed once.
pub(super) fn kind() -> Kind {
    static KIND: OnceLock<Kind> = OnceLock::new();
    *KIND.get_or_init(|| match std::env::var("GREENLING_STACK_GUARD").as_deref() {
        Ok("mprotect") => Kind::Protect,
        Ok(other) => panic!("GREENLING_STACK_GUARD must be `mprotect` or unset; it is `{other}`"),
        Err(_) => probe(),
    })
}

/// Tries to mark one page.
#[cfg(target_os = "linux")]
fn probe() -> Kind {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, at an address of the kernel's choice, is marked and unmapped; nobody
    // else knows it.
    let marked = unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            GRAIN,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        );
        if page == libc::MAP_FAILED {
            false
        } else {
            let marked = libc::madvise(page, GRAIN, MADV_GUARD_INSTALL) == 0;
            libc::munmap(page, GRAIN);
            marked
        }
    };
    if marked { Kind::Install } else { Kind::Protect }
}

/// Only Linux can mark pages.
#[cfg(not(target_os = "linux"))]
fn probe() -> Kind {
    Kind::Protect
}

/// How many guards by mapping this process may have, found out once.
#[cfg(target_os = "linux")]
fn budget() -> usize {
    static BUDGET: OnceLock<usize> = OnceLock::new();
    *BUDGET.get_or_init(|| {
        // A missing /proc has no count to offer, but the mappings of a program that has no stacks
        // yet are few.
        let used = std::fs::read("/proc/self/maps")
            .map_or(0, |maps| maps.iter().filter(|&&byte| byte == b'\n').count());
        budget_of(max_map_count(), used)
    })
}

/// No other system limits the number of mappings to anything a program would meet.
#[cfg(not(target_os = "linux"))]
fn budget() -> usize {
    usize::MAX
}

/// What is left of the limit when the mappings in use and a sixteenth for the rest of the program
/// are taken away, at two mappings a stack: 30,700 stacks with the kernel's default of 65,530.
pub(super) fn budget_of(limit: usize, used: usize) -> usize {
    limit.saturating_sub(limit / 16).saturating_sub(used) / 2
}

/// The kernel's limit of mappings a process may have; its default where it can't be read.
#[cfg(target_os = "linux")]
fn max_map_count() -> usize {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    text.trim().parse().unwrap_or(65_530)
}

/// The error of a guard that isn't to be had.
#[cold]
#[cfg(target_os = "linux")]
fn over_budget(existing: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!(
            "cannot guard another greenlet stack: {existing} exist, each takes two memory maps, and \
             vm.max_map_count allows {} of those; raise it with `sysctl -w vm.max_map_count=...`, \
             or use Linux 6.13 or newer, where guards take none",
            max_map_count()
        ),
    )
}

/// The error of a guard that isn't to be had.
#[cold]
#[cfg(not(target_os = "linux"))]
fn over_budget(_existing: usize) -> io::Error {
    out_of_memory("guard", GUARD_BYTES)
}

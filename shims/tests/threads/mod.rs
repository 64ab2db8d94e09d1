//! A scheduler for the tests: each "greenlet" is an OS thread of its own that says it is one.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use greenling_shims::runtime::{Bypass, Direction, Runtime, Seen, Ticket, Wake};
use greenling_shims::{Category, install};

thread_local! {
    /// Which greenlet this thread is; 0 if it is none.
    static GREENLET: Cell<u64> = const { Cell::new(0) };
    /// The generation of the next park.
    static GENERATION: Cell<u64> = const { Cell::new(0) };
    /// Whether the runtime itself is running: what it calls must pass through.
    static IN_HUB: Cell<bool> = const { Cell::new(false) };
    /// The answer of the next sleep or offload, instead of the true one.
    static SCRIPT: Cell<Option<Wake>> = const { Cell::new(None) };
    /// How often this thread has slept, yielded, offloaded and parked.
    static COUNTS: Cell<Counts> = const { Cell::new(Counts::NONE) };
}

/// How often a greenlet has used the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sleeps: u32,
    pub(crate) yields: u32,
    pub(crate) offloads: u32,
    pub(crate) parks: u32,
}

impl Counts {
    pub(crate) const NONE: Counts = Counts { sleeps: 0, yields: 0, offloads: 0, parks: 0 };
}

/// What is known of parks: the parked greenlets by number, with the generation of the park and
/// whether it was ended.
static PARKS: Mutex<Option<HashMap<u64, Park>>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();
static NEXT_GREENLET: AtomicU64 = AtomicU64::new(1);

#[derive(Clone, Copy)]
struct Park {
    generation: u64,
    unparked: bool,
    parked: bool,
}

pub(crate) struct Threads;

/// Patches all that the tests are about.
pub(crate) fn patch() {
    static RUNTIME: Threads = Threads;
    install(&RUNTIME, &[Category::Time, Category::Dns, Category::Thread]);
}

/// Runs `body` as a greenlet, next to the caller.
pub(crate) fn spawn<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> (u64, JoinHandle<T>) {
    let greenlet = NEXT_GREENLET.fetch_add(1, Ordering::Relaxed);
    let thread = thread::spawn(move || {
        GREENLET.set(greenlet);
        let result = body();
        GREENLET.set(0);
        result
    });
    (greenlet, thread)
}

/// Runs `body` as a greenlet, to its end.
pub(crate) fn green<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    spawn(body).1.join().expect("the greenlet")
}

/// Waits until `greenlet` is parked.
pub(crate) fn wait_until_parked(greenlet: u64) {
    while !with_parks(|parks| parks.get(&greenlet).is_some_and(|park| park.parked)) {
        thread::yield_now();
    }
}

/// Lets the next sleep or offload of the calling greenlet answer `wake`.
pub(crate) fn script(wake: Wake) {
    SCRIPT.set(Some(wake));
}

/// How often the calling greenlet has used the runtime.
pub(crate) fn counts() -> Counts {
    COUNTS.get()
}

fn count(change: impl FnOnce(&mut Counts)) {
    let mut counts = COUNTS.get();
    change(&mut counts);
    COUNTS.set(counts);
}

fn parks() -> MutexGuard<'static, Option<HashMap<u64, Park>>> {
    PARKS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_parks<T>(body: impl FnOnce(&mut HashMap<u64, Park>) -> T) -> T {
    body(parks().get_or_insert_default())
}

/// Marks the runtime as running, and errno as lost, as a switch would.
fn in_hub<T>(body: impl FnOnce() -> T) -> T {
    let before = IN_HUB.replace(true);
    let result = body();
    IN_HUB.set(before);
    // SAFETY: errno's location is the thread's own.
    unsafe { *libc::__errno_location() = libc::EXFULL };
    result
}

impl Runtime for Threads {
    fn bypass(&self) -> Option<Bypass> {
        match () {
            () if IN_HUB.get() => Some(Bypass::InHub),
            () if GREENLET.get() == 0 => Some(Bypass::NoHub),
            () => None,
        }
    }

    fn wait_fd(&self, _: RawFd, _: Direction, _: Seen, _: Option<Instant>) -> Wake {
        Wake::Unpollable
    }

    fn wait_any(
        &self,
        _: &[(RawFd, Direction)],
        _: Option<Instant>,
        _: &mut dyn FnMut() -> bool,
    ) -> Wake {
        Wake::Unpollable
    }

    fn sleep_until(&self, deadline: Instant) -> Wake {
        count(|counts| counts.sleeps += 1);
        if let Some(wake) = SCRIPT.take() {
            return wake;
        }
        in_hub(|| thread::sleep(deadline.saturating_duration_since(Instant::now())));
        Wake::TimedOut
    }

    fn fd_closing(&self, _: RawFd) {}

    fn fd_duplicated(&self, _: RawFd, _: RawFd) {}

    fn ticket(&self) -> Ticket {
        Ticket { hub: 1, greenlet: GREENLET.get(), generation: GENERATION.get() }
    }

    fn park(&self, deadline: Option<Instant>) -> Wake {
        count(|counts| counts.parks += 1);
        let Ticket { greenlet, generation, .. } = self.ticket();
        GENERATION.set(generation + 1);
        in_hub(|| {
            let mut guard = parks();
            loop {
                let park = guard.get_or_insert_default().entry(greenlet).or_insert(Park {
                    generation,
                    unparked: false,
                    parked: true,
                });
                if park.generation != generation {
                    *park = Park { generation, unparked: false, parked: true };
                }
                park.parked = true;
                if park.unparked {
                    park.parked = false;
                    return Wake::Ready;
                }
                guard = match deadline {
                    None => CHANGED.wait(guard).unwrap_or_else(PoisonError::into_inner),
                    Some(deadline) => {
                        let left = deadline.saturating_duration_since(Instant::now());
                        if left.is_zero() {
                            park.parked = false;
                            return Wake::TimedOut;
                        }
                        CHANGED.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
                    }
                };
            }
        })
    }

    fn unpark(&self, ticket: Ticket) -> bool {
        in_hub(|| {
            with_parks(|parks| {
                let Ticket { greenlet, generation, .. } = ticket;
                let fresh = Park { generation, unparked: false, parked: false };
                let park = parks.entry(greenlet).or_insert(fresh);
                if park.generation < generation {
                    *park = fresh;
                }
                if park.generation == generation {
                    park.unparked = true;
                }
            });
            CHANGED.notify_all();
        });
        true
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>) -> Wake {
        count(|counts| counts.offloads += 1);
        in_hub(|| {
            let thread = thread::spawn(job);
            match SCRIPT.take() {
                // The job goes on alone.
                Some(wake) => wake,
                None => {
                    thread.join().expect("the job");
                    Wake::Ready
                }
            }
        })
    }

    fn yield_now(&self) {
        count(|counts| counts.yields += 1);
        in_hub(thread::yield_now);
    }
}

/// Waits for a wake.
pub(crate) const WAIT: libc::c_int = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
/// Wakes waiters.
pub(crate) const WAKE: libc::c_int = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;

/// futex(2): the answer, or the negated errno.
pub(crate) fn futex(
    futex: *const std::sync::atomic::AtomicU32,
    operation: libc::c_int,
    value: u32,
    timeout: *const libc::timespec,
    bits: u32,
) -> libc::c_long {
    let second = std::ptr::null::<u32>();
    // SAFETY: the tests' futexes are alive, and bad pointers are for the kernel to judge.
    match unsafe { libc::syscall(libc::SYS_futex, futex, operation, value, timeout, second, bits) }
    {
        -1 => -libc::c_long::from(std::io::Error::last_os_error().raw_os_error().unwrap()),
        answer => answer,
    }
}

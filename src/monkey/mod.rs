//! Monkey patching: unmodified blocking code yields to the hub.
//!
//! [`patch_all`] makes the libc calls that blocking code ends in (`recv`, `connect`,
//! `clock_nanosleep`, `getaddrinfo` ...) park the calling greenlet instead of the OS thread, in the
//! whole process: in `std`, in crates built on it, and in C libraries. gevent's `monkey`.
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! greenling::monkey::patch_all();
//!
//! let start = Instant::now();
//! let sleepers: Vec<_> = (0..10)
//!     .map(|_| greenling::spawn(|| std::thread::sleep(Duration::from_millis(100))))
//!     .collect();
//! greenling::joinall(&sleepers);
//! assert!(start.elapsed() < Duration::from_millis(900)); // Together, not one after another.
//! ```
//!
//! # Where it applies
//!
//! To threads that have a hub: the one that calls [`patch_all`], and every other from its first
//! use of greenling on. On all others, before `main`, on the hub's own calls, while the thread is
//! panicking and in a forked child the calls pass through as if nothing were patched. There is no
//! patch order to mind: what was linked or opened earlier is patched as well.
//!
//! # In tests
//!
//! `cargo test` runs each test on a thread of its own. Patching is process-wide and may be done
//! any number of times, so begin each test that needs it with [`patch_all`]: that also gives the
//! test's thread its hub, and the hub ends with the test.
//!
//! ```
//! # use std::time::Duration;
//! #[test]
//! fn sleeps_together() {
//!     greenling::monkey::patch_all();
//!     let greenlets = [(); 3].map(|()| {
//!         greenling::spawn(|| std::thread::sleep(Duration::from_millis(10)))
//!     });
//!     greenling::joinall(&greenlets);
//! }
//! ```
//!
//! # Cancellation
//!
//! A patched call never unwinds, because there may be foreign frames on the stack. When its
//! greenlet is killed it fails with `ECANCELED`, when a [`with_timeout`](crate::with_timeout)
//! around it expires with `ETIMEDOUT`; a sleep returns early. Every later blocking call of the
//! greenlet fails likewise. Locks of `std` are no kill points.
//!
//! # Thread-locals
//!
//! Greenlets of one thread share its thread-locals; see [`spawn`](crate::spawn()). What keeps one
//! waiter for each OS thread serves one waiting greenlet of a thread at a time: `thread::park`,
//! `mpsc` and crossbeam's channels (two greenlets that wait in them spin), `reqwest::blocking`
//! (two stall), and rayon (two of a thread in it corrupt memory: hold a `Mutex` around it). A later
//! version gives greenlets that are spawned after patching thread-locals of their own, and makes
//! `std::thread::spawn` spawn greenlets.

// Its documentation shows how a test is patched.
#![allow(clippy::test_attr_in_doctest)]

mod patch;
mod report;
mod runtime;

pub use greenling_shims::Category;
pub use patch::{Patch, is_patched, patch_all, patch_dns, patch_socket, patch_time};
pub use report::{Report, report};

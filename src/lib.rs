//! gevent for Rust: green threads that make ordinary blocking code concurrent.
//!
//! A [greenlet](spawn()) is a function with a stack of its own. All greenlets of an OS thread take
//! turns on it: one runs until it blocks, then the thread's hub switches to another. Code is
//! written as if each had a thread to itself: no `async`, no second kind of function, no `Send`
//! bound on [`spawn`](spawn()). A parked greenlet costs about 4 KiB.
//!
//! # A tour
//!
//! Spawn, wait, ask for the result; bound the time of whatever blocks; kill:
//!
//! ```
//! use greenling::{joinall, sleep, spawn, with_timeout};
//! use std::time::Duration;
//!
//! let sleepers: Vec<_> =
//!     (0..3).map(|n| spawn(move || sleep(Duration::from_millis(20 + n)))).collect();
//! joinall(&sleepers); // 22 ms, not 63.
//!
//! assert_eq!(spawn(|| 6 * 7).get().unwrap(), 42);
//! assert!(with_timeout(Duration::from_millis(5), || sleep(Duration::from_secs(9))).is_err());
//!
//! let stubborn = spawn(|| sleep(Duration::from_secs(9)));
//! stubborn.kill(); // It unwinds where it blocks, so its destructors run.
//! assert!(stubborn.is_finished());
//! ```
//!
//! Unmodified code, that of `std` and of blocking crates and C libraries, waits in the same way
//! once the process is patched:
//!
#![cfg_attr(feature = "monkey", doc = "```")]
#![cfg_attr(not(feature = "monkey"), doc = "```ignore")]
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream};
//!
//! greenling::monkey::patch_all();
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! greenling::spawn(move || {
//!     let (mut stream, _) = listener.accept().unwrap(); // Parks this greenlet, not the thread.
//!     stream.write_all(b"hello").unwrap();
//! });
//! let mut text = String::new();
//! TcpStream::connect(address)?.read_to_string(&mut text)?;
//! assert_eq!(text, "hello");
//! # std::io::Result::Ok(())
//! ```
//!
//! # Modules
//!
//! - the root: [`spawn`](spawn()) and its handles, [`sleep`](sleep()), [`with_timeout`],
//!   [`yield_now`](yield_now())
#![cfg_attr(feature = "monkey", doc = "- [`monkey`]: patching, and the report of what is patched")]
//! - [`net`]: std's sockets, on the hub without any patching
//! - [`io`]: waiting for any file descriptor
//! - [`sync`]: synchronization between greenlets
//!
//! # Kills and timeouts
//!
//! Both are delivered where the greenlet blocks. A call of greenling's own unwinds; no panic
//! message is printed, and destructors run. A patched call of `std` or of C fails instead, with
//! `ECANCELED` or `ETIMEDOUT`, because nothing may unwind through foreign frames; so does every
//! later one, until the greenlet has come to its end or the `with_timeout` has returned. A patched
//! sleep returns early. Waiting for a lock of `std` is no kill point. With `panic = "abort"`
//! nothing unwinds: a kill is then an error of the calls that can return one.
//!
//! # Soundness of plain greenlets
//!
//! A greenlet never leaves its thread, so what it holds need not be `Send`. But the greenlets of a
//! thread share its thread-locals, and the compiler does not know that a blocking call may let
//! others run. A crate that lends a reference for the extent of a scope, and trusts that nothing
//! else of the thread runs inside it, is unsound if the scope blocks:
//!
//! ```text
//! scoped_tls::scoped_thread_local!(static REQUEST: Request);
//!
//! greenling::spawn(|| {
//!     let request = Request::new();
//!     REQUEST.set(&request, || greenling::sleep(second)); // Switches inside the scope ...
//! });
//! greenling::spawn(|| {
//!     let request = Request::new();
//!     // ... so this saves the other greenlet's pointer, and puts it back when it ends: perhaps
//!     // after the other's `request` is gone.
//!     REQUEST.set(&request, || greenling::sleep(second + second));
//! });
//! ```
//!
//! In the same way a `RefCell` in a `thread_local!` that is borrowed across a blocking call makes
//! the other greenlets' borrows panic, and crates that keep one waiter for each OS thread
//! (`std::sync::mpsc`, `std::thread::park`, parking_lot) don't work between greenlets of one
//! thread. The rule: give back what a thread-local lends before you block.
//!
//! This will change for the better: a later version gives the greenlets that are spawned after
//! patching thread-locals of their own. Code that keeps to the rule won't notice.
//!
//! # Panics
//!
//! A panic ends its greenlet, and [`Greenlet::get`] returns it. While a greenlet unwinds, the OS
//! thread does not switch to another, because the panic count belongs to the thread: a blocking
//! call in a destructor then blocks the thread, and waiting for another greenlet in one aborts.
//!
//! # Feature flags
//!
//! - `monkey` (default): the `monkey` module, and with it the shims over libc. Linux with glibc on
//!   x86_64 or aarch64. Elsewhere switch it off with `default-features = false`.
//!
//! # Environment
//!
//! - `GREENLING_STACK_SIZE`: the usable stack of a greenlet that doesn't ask for another; bytes, or
//!   with a suffix `K`, `M`, `G`. 192K otherwise. See [`default_stack_size`].
//! - `GREENLING_STACK_GUARD=mprotect`: guards stacks as on kernels before 6.13, to test that.

#[cfg(not(target_os = "linux"))]
compile_error!("greenling runs on Linux: its hub needs eventfd and timerfd");

#[cfg(all(
    feature = "monkey",
    not(all(
        target_os = "linux",
        target_env = "gnu",
        any(target_arch = "x86_64", target_arch = "aarch64")
    ))
))]
compile_error!(
    "the feature `monkey` of greenling needs Linux with glibc on x86_64 or aarch64; without it the \
     runtime has everything but `greenling::monkey`: set `default-features = false`"
);

mod dns;
mod fiber;
mod greenlet;
mod hub;
pub mod io;
#[cfg(feature = "monkey")]
pub mod monkey;
pub mod net;
#[allow(dead_code, reason = "a container has more than is used so far")]
mod slab;
#[allow(
    dead_code,
    unused_imports,
    reason = "nobody uses the room for thread-locals yet, and only tests count stacks"
)]
mod stack;
pub mod sync;
mod threadpool;
mod time;
#[allow(dead_code, reason = "a container has more than is used so far")]
mod timers;
#[allow(dead_code, reason = "a container has more than is used so far")]
mod wait_list;

pub use greenlet::{
    Builder, Greenlet, GreenletError, GreenletId, GreenletRef, getcurrent, joinall, spawn,
    spawn_later, stack_stats, trim_stacks, yield_now,
};
pub use stack::{StackStats, default_stack_size};
pub use time::{TimedOut, sleep, with_timeout};

/// Runs the examples of README.md as doctests.
#[cfg(all(doctest, feature = "monkey"))]
#[doc = include_str!("../README.md")]
struct Readme;

//! libc's blocking calls, taken over.
//!
//! This crate defines the libc symbols that blocking code ends in ([`TABLE`] lists them). Until
//! [`install`] is called each is one relaxed load and the real call. From then on, on threads
//! whose scheduler says so, a call that would block the thread parks the calling greenlet
//! through the [`Runtime`](runtime::Runtime) instead, and answers what the real call would
//! have answered, error number for error number.
//!
//! A shim is: signature check, gate, try, wait, real call. No allocation, logging, lock or
//! unwinding in it: it may run in a signal handler, before `main` and in a forked child.
mod accept;
mod blocking;
pub mod check;
mod clock;
mod connect;
mod descriptors;
mod dns;
mod errno;
mod fds;
mod futex;
pub mod gate;
mod host;
mod hosts;
mod iovecs;
mod lookup;
mod poll;
mod real;
mod receive;
pub mod runtime;
mod rw;
mod send;
mod shard;
mod socket;
mod sync;
mod table;
mod time;
mod wait;

pub use gate::{Category, install, is_patched};
pub use table::{Address, Symbol, TABLE};

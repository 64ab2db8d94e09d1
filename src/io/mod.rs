//! Waiting for file descriptors, of any kind that epoll knows.
//!
//! [`wait_readable`] and [`wait_writable`] suspend the greenlet until an fd is ready, whoever owns
//! it. A [`Pollable`] owns one and reads and writes it as if it were blocking. The sockets of
//! [`net`](crate::net) are built on the same loop: try, and wait if it would block.

mod attempt;
mod pollable;
mod registration;
mod wait;

pub(crate) use attempt::{attempt, attempt_patiently};
pub use pollable::Pollable;
pub(crate) use registration::Registration;
pub(crate) use wait::{interrupted, wait};
pub use wait::{wait_readable, wait_writable};

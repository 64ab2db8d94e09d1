//! The hub: the scheduler of one OS thread. Its README has the phases of the loop, the states of
//! a greenlet and the proof that no wake-up is lost.

pub(crate) mod core;
pub(crate) mod current;
pub(crate) mod interrupt;
pub(crate) mod park;
pub(crate) mod reactor;
pub(crate) mod reason;
pub(crate) mod record;
pub(crate) mod remote;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod run_queue;
#[cfg(test)]
mod tests;
pub(crate) mod wait_fd;

pub(crate) use current::{has_ended, hub, try_hub};

/// A direction in which an fd can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Until a read, receive or accept would not block.
    Read,
    /// Until a write, send or connect would not block.
    Write,
}

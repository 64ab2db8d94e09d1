//! gevent for Rust.

mod fiber;
mod greenlet;
mod hub;
#[cfg(feature = "monkey")]
pub mod monkey;
mod slab;
mod stack;
mod threadpool;
mod time;
mod timers;
mod wait_list;

pub use greenlet::{
    Builder, Greenlet, GreenletError, GreenletId, GreenletRef, getcurrent, joinall, spawn,
    spawn_later, yield_now,
};
pub use stack::default_stack_size;
pub use time::{TimedOut, sleep, with_timeout};

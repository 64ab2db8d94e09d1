//! gevent for Rust.

mod dns;
mod fiber;
mod greenlet;
mod hub;
pub mod io;
#[cfg(feature = "monkey")]
pub mod monkey;
pub mod net;
mod slab;
mod stack;
pub mod sync;
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

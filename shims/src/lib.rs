//! libc's blocking calls, taken over.
pub mod check;
mod clock;
mod dns;
mod errno;
mod futex;
pub mod gate;
mod host;
mod hosts;
mod lookup;
mod real;
pub mod runtime;
mod shard;
mod sync;
mod time;

pub use gate::{Category, install, is_patched};

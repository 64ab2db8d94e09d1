//! libc's blocking calls, taken over.
mod clock;
mod errno;
mod futex;
pub mod gate;
mod real;
pub mod runtime;
mod shard;
mod sync;
mod time;

pub use gate::{Category, install, is_patched};

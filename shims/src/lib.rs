//! libc's blocking calls, taken over.
mod errno;
pub mod gate;
mod real;
pub mod runtime;

pub use gate::{Category, install, is_patched};

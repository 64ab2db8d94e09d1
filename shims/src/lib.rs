//! libc's blocking calls, taken over.
pub mod gate;
pub mod runtime;

pub use gate::{Category, install, is_patched};

//! gevent for Rust.

#[allow(dead_code, unused_imports)]
mod stack;

pub use stack::default_stack_size;

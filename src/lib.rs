//! gevent for Rust.

#[allow(dead_code)]
mod slab;
#[allow(dead_code)]
mod timers;

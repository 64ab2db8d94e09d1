//! gevent for Rust.

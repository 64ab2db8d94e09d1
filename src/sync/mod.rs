//! Synchronization between the greenlets of one OS thread.

mod semaphore;

pub use semaphore::{Semaphore, SemaphorePermit};

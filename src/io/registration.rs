//! The promise to tell the reactor when an fd is closed.

use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::RawFd;

use crate::hub::try_hub;

/// Held beside an fd by its owner, and dropped before the fd is closed: then whoever waits for it
/// is woken with an error, and what the reactor remembers of the number is forgotten.
///
/// It is of one hub, so it is neither `Send` nor `Sync`, and nor is its owner.
#[derive(Debug)]
pub(crate) struct Registration {
    /// The fd.
    fd: RawFd,
    /// Whether the open file description may live on when the registration ends. A close would
    /// then not end epoll's interest in it.
    shared: Cell<bool>,
    /// Keeps the owner on its thread.
    not_send: PhantomData<*const ()>,
}

impl Registration {
    /// Promises to tell when `fd` is closed. Nothing is registered with epoll before the first
    /// wait.
    pub(crate) fn new(fd: RawFd) -> Registration {
        Registration { fd, shared: Cell::new(false), not_send: PhantomData }
    }

    /// The fd.
    #[inline]
    pub(crate) fn fd(&self) -> RawFd {
        self.fd
    }

    /// Notes that the open file description may live on when the registration ends: the fd has a
    /// duplicate, or its owner is someone else.
    pub(crate) fn share(&self) {
        self.shared.set(true);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Without a hub nobody can wait, and in a forked child the epoll is the parent's.
        if let Some(hub) = try_hub().filter(|hub| !hub.forked.get()) {
            if self.shared.get() {
                hub.reactor.duplicated(self.fd);
            }
            hub.reactor.closing(self.fd, |ticket, wake| hub.unpark(ticket, wake));
        }
    }
}

//! The calling thread's hub: the only `thread_local!` of the crate.
//!
//! A hub is made at the first blocking call or spawn of its thread and ends with the thread.

use std::cell::Cell;
use std::ptr;

use crate::hub::core::Hub;

thread_local! {
    /// The thread's hub: null before there is one, [`ENDED`] after its end. Without a destructor,
    /// so that reading it is one load.
    static HUB: Cell<*const Hub> = const { Cell::new(ptr::null()) };

    /// Ends the thread's hub when the thread ends.
    static END: EndOfThread = const { EndOfThread };
}

/// The value of [`HUB`] after the thread's hub has ended. No hub can be there.
const ENDED: *const Hub = ptr::without_provenance(align_of::<Hub>());

/// Ends the hub when the thread's locals are destroyed.
struct EndOfThread;

impl Drop for EndOfThread {
    fn drop(&mut self) {
        if let Some(hub) = try_hub() {
            // `exit` may have been called by a greenlet: then its own frames are live, and
            // ending the hub under it would be wrong. The process is about to end anyway.
            if hub.in_main() && !hub.forked.get() {
                hub.end();
                HUB.set(ENDED);
                // SAFETY: `hub()` made the pointer from a box, and `end` has unwound or abandoned
                // every greenlet, so no frame on this thread that could run again refers to it.
                drop(unsafe { Box::from_raw(ptr::from_ref(hub).cast_mut()) });
            }
        }
    }
}

/// The calling thread's hub, if it has one.
#[inline]
pub(crate) fn try_hub() -> Option<&'static Hub> {
    let hub = HUB.get();
    if hub.is_null() || hub == ENDED {
        return None;
    }
    // SAFETY: a pointer that is neither null nor ENDED was made by `hub()` from a box that lives
    // until `EndOfThread` is dropped. That is the end of the thread, and a reference to a hub
    // does not leave its thread: `Hub` is not `Sync`.
    Some(unsafe { &*hub })
}

/// Whether the calling thread's hub has ended, and with it the thread but for its destructors.
pub(crate) fn has_ended() -> bool {
    HUB.get() == ENDED
}

/// The calling thread's hub, which is made if there is none.
///
/// # Panics
///
/// If the thread is ending and its hub is gone, or if the OS refuses what a hub needs.
#[inline]
pub(crate) fn hub() -> &'static Hub {
    match try_hub() {
        Some(hub) => hub,
        None => start(),
    }
}

/// Makes the thread's hub.
#[cold]
fn start() -> &'static Hub {
    assert!(HUB.get() != ENDED, "the hub of this thread has ended: the thread is being torn down");
    let hub = Hub::new(crate::greenlet::main_record())
        .unwrap_or_else(|error| panic!("this thread can't have a hub: {error}"));
    END.with(|_| ());
    HUB.set(Box::into_raw(Box::new(hub)));
    crate::stack::set_describe(super::report::describe_running);
    hub_atfork::register();
    try_hub().expect("it was set in the line before")
}

/// Marks the hub of a forked child as not its own.
mod hub_atfork {
    use std::sync::Once;

    /// Makes `fork` call [`in_child`]. Once in a process.
    pub(super) fn register() {
        static REGISTER: Once = Once::new();
        REGISTER.call_once(|| {
            // SAFETY: the handler is a plain function that lives as long as the process.
            unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
    }

    /// Runs in the child: its epoll fd and its timerfd are the parent's, and its greenlets run
    /// there. The hub must not touch any of them.
    unsafe extern "C" fn in_child() {
        if let Some(hub) = super::try_hub() {
            hub.forked.set(true);
        }
    }
}

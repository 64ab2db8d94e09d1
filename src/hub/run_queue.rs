//! The run queue: greenlets that are ready, in the order in which they became so.
//!
//! Linked through the records themselves, so a push neither allocates nor fails, and a million
//! ready greenlets cost the queue nothing.

use std::cell::Cell;
use std::ptr::NonNull;

use crate::hub::record::{Record, RecordRef};

/// A FIFO of records. A record is in it at most once; its state says so.
pub(crate) struct RunQueue {
    /// The next one to run; it owns the one behind it through `Record::next`, and so on.
    head: Cell<Option<RecordRef>>,
    /// The last one. Dangling if `head` is None.
    ///
    /// # Invariant
    ///
    /// While `head` is Some, this points to the last record of the chain, which the chain keeps
    /// alive.
    tail: Cell<NonNull<Record>>,
}

impl RunQueue {
    /// An empty queue.
    pub(crate) fn new() -> RunQueue {
        RunQueue { head: Cell::new(None), tail: Cell::new(NonNull::dangling()) }
    }

    /// Whether nothing is ready.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // SAFETY: nothing is moved into or out of the cell while it is looked at.
        unsafe { (*self.head.as_ptr()).is_none() }
    }

    /// Puts a greenlet behind all that are ready.
    #[inline]
    pub(crate) fn push(&self, greenlet: RecordRef) {
        let new_tail = greenlet.as_ptr();
        let old_tail = self.tail.replace(new_tail);
        let link = if self.is_empty() {
            &self.head
        } else {
            // SAFETY: the queue is not empty, so the old tail is alive (`tail`'s invariant).
            &unsafe { old_tail.as_ref() }.next
        };
        set_empty(link, greenlet);
    }

    /// Takes the greenlet that has been ready for longest.
    #[inline]
    pub(crate) fn pop(&self) -> Option<RecordRef> {
        let greenlet = self.head.take()?;
        if let Some(next) = greenlet.next.take() {
            set_empty(&self.head, next);
        }
        Some(greenlet)
    }
}

/// Fills a cell that is empty. The compiler can't know that it is, and would drop what was there.
#[inline]
fn set_empty(cell: &Cell<Option<RecordRef>>, greenlet: RecordRef) {
    let before = cell.replace(Some(greenlet));
    debug_assert!(before.is_none(), "a link of the run queue was overwritten");
    std::mem::forget(before);
}

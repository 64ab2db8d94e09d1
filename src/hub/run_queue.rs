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
        let head = self.head.take();
        let empty = head.is_none();
        self.head.set(head);
        empty
    }

    /// Puts a greenlet behind all that are ready.
    #[inline]
    pub(crate) fn push(&self, greenlet: RecordRef) {
        let new_tail = greenlet.as_ptr();
        let old_tail = self.tail.replace(new_tail);
        match self.head.take() {
            None => self.head.set(Some(greenlet)),
            head => {
                self.head.set(head);
                // SAFETY: the queue is not empty, so the old tail is alive (`tail`'s invariant).
                unsafe { old_tail.as_ref() }.next.set(Some(greenlet));
            }
        }
    }

    /// Takes the greenlet that has been ready for longest.
    #[inline]
    pub(crate) fn pop(&self) -> Option<RecordRef> {
        let greenlet = self.head.take()?;
        self.head.set(greenlet.next.take());
        Some(greenlet)
    }
}

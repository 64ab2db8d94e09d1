//! What the greenlets of a test have noted, in order.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::cell::RefCell;
use std::rc::Rc;

/// Notes that all greenlets of a thread share.
#[derive(Clone, Default)]
pub(crate) struct Trace(Rc<RefCell<Vec<String>>>);

impl Trace {
    /// Adds a note.
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }

    /// The notes so far, separated by spaces.
    pub(crate) fn text(&self) -> String {
        self.0.borrow().join(" ")
    }

    /// A value that adds a note when it is dropped.
    pub(crate) fn on_drop(&self, what: impl Into<String>) -> NoteOnDrop {
        NoteOnDrop(self.clone(), what.into())
    }
}

/// Adds a note when it is dropped.
pub(crate) struct NoteOnDrop(Trace, String);

impl Drop for NoteOnDrop {
    fn drop(&mut self) {
        self.0.note(&self.1);
    }
}

//! What the benches share: how a run is set up, measured and handed to the table.
//!
//! Every bench compiles this for itself and uses a part of it. It never names a runtime: those
//! are each bench's own business.

#![allow(dead_code, reason = "each bench uses a part of it")]

pub(crate) mod child;
pub(crate) mod mode;
pub(crate) mod pairs;
pub(crate) mod proc;
pub(crate) mod results;
pub(crate) mod row;

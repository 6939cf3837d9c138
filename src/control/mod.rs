//! Decides: what the bus says goes into the route table, and workers get to see it.

pub mod event;
pub mod plane;
pub mod run;

//! Plumbing: the clock, the snapshot cell, shutdown, back-off.

pub mod clock;
pub mod published;
pub mod shutdown;

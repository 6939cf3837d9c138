//! Plumbing: the clock, the snapshot cell, file descriptors, shutdown, succession and supervision, back-off.

pub mod authorities;
pub mod backoff;
pub mod bus_state;
pub mod clock;
pub mod descriptors;
pub mod lookups;
pub mod published;
pub mod shutdown;
pub mod succession;
pub mod supervisor;

//! The messages of the bus, from bytes to proven values and back.

pub mod envelope;

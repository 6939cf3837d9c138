//! The messages of the bus, from bytes to proven values and back.

pub mod app;
pub mod envelope;
pub mod life;
pub mod register;
pub mod rejection;
pub mod route_uri;

mod wire;

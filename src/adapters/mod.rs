//! Each adapter talks to one neighbour: the bus, the operator, the instances' health.
pub mod admin;
pub mod bus;
pub mod resolver;
pub mod starter;

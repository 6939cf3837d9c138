//! Each adapter talks to one neighbour: the bus, the operator, name servers, whoever starts apps.
pub mod admin;
pub mod bus;
pub mod probe;
pub mod resolver;
pub mod starter;

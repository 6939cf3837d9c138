//! The rules of routing and balancing: pure and synchronous. No clock, no chance, no sockets, no logs: time, dice and
//! bytes are arguments, and what happened is returned for the caller to count.

pub mod accept;
pub mod balance;
pub mod dice;
pub mod endpoint;
pub mod hash;
pub mod identity;
pub mod load;
pub mod moment;
pub mod pace;
pub mod protocol;
pub mod retry;
pub mod table;
pub mod tags;
pub mod wake;

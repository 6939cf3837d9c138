//! Which instance gets the request: load becomes score, score becomes weight, a strategy picks.
//!
//! All workers of the process share [`Live`] (one per endpoint) and [`Fleet`] (one per pool). Both are atomics: the pick
//! and the sampling of an answer never wait for anybody, and a lost race costs one sample, never the meaning of a value.

pub mod affinity;
pub mod derived;
pub mod explain;
pub mod fleet;
pub mod live;
pub mod score;
pub mod strategy;

#[cfg(test)]
mod fixture;
mod packed;

pub use affinity::pinned;
pub use derived::Derived;
pub use explain::{Explained, explain};
pub use fleet::Fleet;
pub use live::{Live, Outcome, State};
pub use strategy::{Eligibility, NoPick, Strategy, Wish, pick};

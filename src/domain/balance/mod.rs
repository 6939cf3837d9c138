//! Which instance gets the request: load becomes score, score becomes weight, a strategy picks.
//!
//! All workers of the process share [`Live`] (one per endpoint) and [`Fleet`] (one per pool). Both are atomics: the
//! pick and the sampling of an answer never wait for anybody, and a lost race costs one sample, never the meaning of a
//! value.
//!
//! `adaptive` picks the least `(L + 1) · r / (w^0.3 · s · static weight)`:
//!
//! - `L` requests sent and not yet answered with a response head ([`Live::waiting`]);
//! - `r` how slow the instance is against the fleet ([`Live::relative_latency`]): the exponential of an EWMA (alpha 0.1,
//!   first sample 0.3) of ln(latency) less the fleet's mean, forgotten with a time constant of 10 s, within 1/4 and 64;
//!   1 while unknown or while the fleet has under 20 samples;
//! - `w` how many requests a second its host could do for us ([`score::recompute`]): attainable CPU over the CPU that a
//!   request costs. What our own requests use counts as attainable, so `w` does not react to our own picks;
//! - `s` slow start ([`Live::slow_start`]).
//!
//! `weight` picks by the JAE article's formula ([`score::ScoreConfig`]).

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

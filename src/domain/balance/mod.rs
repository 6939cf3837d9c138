//! Which instance gets the request: load becomes score, score becomes weight, a strategy picks.

pub mod fleet;
pub mod live;
pub mod strategy;

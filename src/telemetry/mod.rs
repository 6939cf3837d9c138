//! What the router tells about itself: metrics, the access log, and its own log.

pub mod access_log;
pub mod logs;
pub mod metrics;

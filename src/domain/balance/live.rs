//! What changes about an endpoint with every request and report.

/// Shared by all workers and snapshots.
#[derive(Debug, Default)]
pub struct Live {}

//! What the endpoints of one pool share.

/// Shared by all workers and snapshots of one route.
#[derive(Debug, Default)]
pub struct Fleet {}

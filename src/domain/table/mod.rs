//! The route table: routes, their endpoints and leases. Owned by the control plane alone; workers read snapshots of it.

pub mod snapshot;

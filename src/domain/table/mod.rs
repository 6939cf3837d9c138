//! The route table: routes, their endpoints and leases. Owned by the control plane alone; workers read snapshots of it.

pub mod settings;
pub mod snapshot;

use std::sync::Arc;

use super::endpoint::Endpoint;

/// Why an endpoint left a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Departure {
    /// Its lease ran out.
    Pruned,
    /// Somebody said so.
    Unregistered,
    /// It crashed, stopped or exited.
    Exited,
    /// Its agent reported it before and does so no more.
    LeftOut,
    /// Another instance registered at its address.
    Replaced,
    /// The configuration names it no more.
    Unconfigured,
}

impl Departure {
    /// The label of the metric.
    pub fn label(self) -> &'static str {
        match self {
            Departure::Pruned => "pruned",
            Departure::Unregistered => "unregistered",
            Departure::Exited => "exited",
            Departure::LeftOut => "left_out",
            Departure::Replaced => "replaced",
            Departure::Unconfigured => "unconfigured",
        }
    }
}

/// What a change of the table brought about. An endpoint with several routes is named once for each that it joined or left.
#[derive(Debug, Default)]
pub struct Changes {
    /// Endpoints that serve a route they did not serve before, or whose facts changed.
    pub arrived: Vec<Arc<Endpoint>>,
    /// Endpoints that left a route.
    pub left: Vec<(Departure, Arc<Endpoint>)>,
}

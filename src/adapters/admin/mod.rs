//! The operator's port: health, metrics, the route table, why a request would go where, and a way onto the bus. Also the
//! client of it that the command line uses.

mod answer;
pub mod client;
mod explain;
mod query;
mod routes;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::mpsc;

use crate::config::Login;
use crate::domain::protocol::envelope::Outgoing;
use crate::domain::table::snapshot::Snapshot;
use crate::runtime::clock::Clock;
use crate::runtime::published::Published;
use crate::runtime::shutdown::{Listener, Phase};
use crate::telemetry::metrics::Metrics;

pub use server::serve;

/// What the operator's port speaks about.
#[derive(Clone, Debug)]
pub struct Admin {
    /// All counters.
    pub metrics: Arc<Metrics>,
    /// The route table.
    pub routes: Arc<Published<Snapshot>>,
    /// The way onto the bus.
    pub bus: mpsc::Sender<Outgoing>,
    /// What `/health` says.
    pub health: Health,
    /// The process's clock.
    pub clock: Clock,
    /// Needed for everything but `/health`.
    pub login: Option<Login>,
}

/// Whether this router should be sent requests.
#[derive(Clone, Debug)]
pub struct Health {
    primed: Arc<AtomicBool>,
    phase: Listener,
}

impl Health {
    /// Not healthy before `primed` is called, nor from `Phase::Leaving` on.
    pub fn new(phase: Listener) -> Health {
        Health { primed: Arc::default(), phase }
    }

    /// Registrations have been gathered long enough: requests may come. Holds for all clones.
    pub fn primed(&self) {
        self.primed.store(true, Relaxed);
    }

    /// Whether requests should come.
    pub fn is_well(&self) -> bool {
        self.primed.load(Relaxed) && self.phase.phase() == Phase::Running
    }
}

//! The operator's port: health, metrics, the route table, why a request would go where, and a way onto the bus. Also the
//! client of it that the command line uses.

mod answer;
mod apps;
pub mod client;
mod explain;
mod query;
mod routes;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::config::{BalanceConfig, Config, Login};
use crate::domain::balance::Wish;
use crate::domain::balance::score::ScoreConfig;
use crate::domain::protocol::envelope::Outgoing;
use crate::domain::table::snapshot::Snapshot;
use crate::domain::wake::{Happening, LiveApps};
use crate::runtime::bus_state::{BusState, Dropped};
use crate::runtime::clock::Clock;
use crate::runtime::published::Published;
use crate::runtime::shutdown::{Listener, Phase};
use crate::telemetry::metrics::{BusCounts, Metrics};

pub use server::{AdminSocket, serve};

/// What the operator's port speaks about.
#[derive(Clone, Debug)]
pub struct Admin {
    /// All counters.
    pub metrics: Arc<Metrics>,
    /// The route table.
    pub routes: Arc<Published<Snapshot>>,
    /// What the workers share about each app.
    pub apps: Arc<LiveApps>,
    /// Tells the control plane whom to wake.
    pub happenings: mpsc::Sender<Happening>,
    /// What it takes to read the table as the proxy does.
    pub settings: Arc<Published<Settings>>,
    /// The way onto the bus.
    pub bus: mpsc::Sender<Outgoing>,
    /// How the bus is doing.
    pub bus_state: Arc<BusState>,
    /// What `/health` says.
    pub health: Health,
    /// How many processes wait to take this one's place, with its sockets.
    pub successors: watch::Receiver<usize>,
    /// The process's clock.
    pub clock: Clock,
    /// Needed for everything but `/health`.
    pub login: Option<Login>,
}

impl Admin {
    /// The text that Prometheus reads.
    fn exposition(&self) -> String {
        let bus = BusCounts {
            connected: self.bus_state.is_connected(),
            connects: self.bus_state.connects(),
            failures: self.bus_state.failures(),
            sent: self.bus_state.sent(),
            dropped: Dropped::ALL.map(|reason| (reason.label(), self.bus_state.dropped(reason))).into(),
        };
        self.metrics.text(&self.routes.get(), &self.apps, &bus, self.clock.now())
    }
}

/// What of the configuration decides how the table is to be understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The article's formula.
    pub score: ScoreConfig,
    /// The zone that first attempts stay in, if any.
    pub zone: Option<String>,
}

impl Settings {
    /// Those of `config`.
    pub fn of(config: &Config) -> Settings {
        let BalanceConfig { score, zone, prefer_zone, .. } = &config.balance;
        Settings { score: *score, zone: prefer_zone.then(|| zone.clone()) }
    }

    /// What a request asks of the pick at its first attempt.
    fn wish(&self) -> Wish<'_> {
        Wish { zone: self.zone.as_deref(), first_attempt: true, ..Wish::default() }
    }
}

/// Whether this router should be sent requests.
#[derive(Clone, Debug)]
pub struct Health {
    primed: watch::Sender<bool>,
    phase: Listener,
}

impl Health {
    /// Not healthy before `primed` is called, nor from `Phase::Leaving` on.
    pub fn new(phase: Listener) -> Health {
        Health { primed: watch::Sender::new(false), phase }
    }

    /// Registrations have been gathered long enough: requests may come. Holds for all clones.
    pub fn primed(&self) {
        self.primed.send_replace(true);
    }

    /// Whether requests should come.
    pub fn is_well(&self) -> bool {
        *self.primed.borrow() && self.phase.phase() == Phase::Running
    }
}

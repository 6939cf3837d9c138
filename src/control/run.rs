//! The control plane as a task: takes in all that is queued, then publishes, at most every 20 ms while busy.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::control::event::Event;
use crate::control::plane::{ControlPlane, Effects};
use crate::domain::protocol::envelope::{BusEvent, Outgoing};
use crate::domain::table::snapshot::Snapshot;
use crate::runtime::clock::Clock;
use crate::runtime::published::Published;
use crate::telemetry::metrics::Metrics;

/// While events keep coming, snapshots are at least so far apart.
pub const PUBLISH_EVERY: Duration = Duration::from_millis(20);

/// What the loop is joined to.
pub struct Ports {
    /// What the bus tells.
    pub bus: mpsc::Receiver<BusEvent>,
    /// Everything else that happens: reloads.
    pub events: mpsc::Receiver<Event>,
    /// To the bus.
    pub outgoing: mpsc::Sender<Outgoing>,
    /// Where workers read.
    pub published: Arc<Published<Snapshot>>,
    /// Where is counted.
    pub metrics: Arc<Metrics>,
    /// Reads the time.
    pub clock: Clock,
}

/// Runs until both inboxes are closed. `then` sees the effects of every event after the loop has sent and counted them:
/// endpoints to resolve (`changes.arrived`), apps that came alive, messages of others.
pub async fn run(mut plane: ControlPlane, mut ports: Ports, mut then: impl FnMut(Effects)) {
    while let Some(event) = ports.bus.recv().await {
        let now = ports.clock.now();
        then(plane.handle(event.into(), now));
        if let Some(snapshot) = plane.snapshot(now) {
            ports.published.publish(snapshot);
        }
    }
}

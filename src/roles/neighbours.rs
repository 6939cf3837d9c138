//! Who acts on what the control plane has decided: the resolver of names, and whoever starts apps. Nobody is waited for.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::adapters::resolver::Resolver;
use crate::control::plane::Effects;
use crate::domain::endpoint::Endpoint;
use crate::domain::wake::{Ask, Effect, Happening};
use crate::telemetry::metrics::Metrics;

/// The ways to all of them.
#[derive(Debug)]
pub(super) struct Neighbours {
    /// Resolves the names of instances.
    pub(super) names: Resolver,
    /// Finds out who answers.
    pub(super) probes: mpsc::Sender<Arc<Endpoint>>,
    /// Starts apps.
    pub(super) asks: mpsc::Sender<Ask>,
    /// Shares with other routers what becomes of sleeping apps.
    pub(super) effects: mpsc::Sender<Effect>,
    /// The way back to the control plane.
    pub(super) happenings: mpsc::Sender<Happening>,
    /// Where is counted.
    pub(super) metrics: Arc<Metrics>,
}

impl Neighbours {
    /// Hands on what is to be done.
    pub(super) fn hear(&self, effects: Effects) {
        for endpoint in effects.changes.arrived.iter().filter(|endpoint| endpoint.has_name()) {
            self.names.offer(endpoint);
        }
        for endpoint in effects.probes {
            // A full queue is no loss: the instance is offered again with its next sign of life.
            let _full = self.probes.try_send(endpoint);
        }
        effects.apps.into_iter().for_each(|effect| self.act(effect));
    }

    fn act(&self, effect: Effect) {
        match effect {
            Effect::Ask(ask) => {
                if let Err(error) = self.asks.try_send(ask) {
                    let Ask { app, epoch, attempt, .. } = error.into_inner();
                    let message = "too many apps are being started at this time".into();
                    // If that queue is full as well: the app fails when its deadline is over.
                    let _full =
                        self.happenings.try_send(Happening::Refused { app, epoch, attempt, message, for_all: false });
                }
            }
            Effect::Asleep(_) | Effect::Awake { .. } | Effect::Forgotten { .. } | Effect::Failed { .. } => {
                if self.effects.try_send(effect).is_err() {
                    self.metrics.control.memory_written("dropped");
                }
            }
            Effect::Probe { .. } => {}
            Effect::Unpark { .. } | Effect::AnswerPark { .. } | Effect::GaveUp { .. } => {} // done by the control plane
        }
    }
}

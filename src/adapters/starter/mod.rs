//! Who starts apps: a message on the bus, a web service, a program, or a Cloud Controller. Each ask ends as started (taken
//! on, that is: whether the app comes is seen when it registers) or as refused, with a reason that a visitor may read. When
//! to ask, and how often, is decided in `domain::wake`.

mod call;
mod cloud_foundry;
mod command;
#[cfg(test)]
mod tests;
mod webhook;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arcstr::ArcStr;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::WakeStart;
use crate::domain::protocol::app::{self, Failed, Wake};
use crate::domain::protocol::envelope::Outgoing;
use crate::domain::wake::{Ask, Happening, Order};
use crate::telemetry::metrics::Metrics;

use cloud_foundry::CloudFoundry;
use command::Program;
use webhook::Webhook;

/// Orders that are carried out at a time; others wait in the channel, whose length is the caller's.
const AT_A_TIME: usize = 64;

/// What a starter is joined to.
#[derive(Debug)]
pub struct Ports {
    /// Apps to start. The starter ends with the last sender.
    pub orders: mpsc::Receiver<Order>,
    /// Asks that came to nothing: `Happening::Refused`.
    pub happenings: mpsc::Sender<Happening>,
    /// To the bus.
    pub outgoing: mpsc::Sender<Outgoing>,
    /// The id that this router signs messages with.
    pub router: ArcStr,
    /// Where is counted.
    pub metrics: Arc<Metrics>,
}

/// Somebody who starts apps.
#[derive(Clone)]
pub struct Starter(Way);

#[derive(Clone)]
enum Way {
    Bus,
    Webhook(Webhook),
    Program(Program),
    CloudFoundry(CloudFoundry),
}

/// One ask, with what is needed to carry it out.
struct Task {
    ask: Ask,
    router: ArcStr,
}

/// Why a start was not taken on.
#[derive(Debug)]
struct NotStarted {
    /// A sentence for visitors: no addresses, nothing that helps to get in.
    visitors: String,
    /// For operators.
    log: String,
}

impl NotStarted {
    fn unreachable(log: String) -> NotStarted {
        NotStarted { visitors: "The service that starts this app cannot be reached.".into(), log }
    }
}

impl Starter {
    /// Reads the files that the way needs.
    ///
    /// # Errors
    /// The authorities of `ca` cannot be used: a sentence with the name of the key.
    pub fn new(way: &WakeStart) -> Result<Starter, String> {
        Ok(Starter(match way {
            WakeStart::Nats => Way::Bus,
            WakeStart::Webhook(config) => {
                Way::Webhook(Webhook::new(config).map_err(|error| format!("wake.webhook.ca: {error}"))?)
            }
            WakeStart::Command(config) => Way::Program(Program::new(config)),
            WakeStart::CloudFoundry(config) => {
                Way::CloudFoundry(CloudFoundry::new(config).map_err(|error| format!("wake.cloudfoundry.ca: {error}"))?)
            }
        }))
    }

    /// Carries asks out until nobody can send any more.
    pub async fn serve(self, mut ports: Ports) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                order = ports.orders.recv(), if running.len() < AT_A_TIME => match order {
                    Some(Order { ask, for_all }) => {
                        let task = Task { ask, router: ports.router.clone() };
                        let (starter, back) = (self.clone(), Back::of(&ports, for_all));
                        running.spawn(async move {
                            let ended = starter.start(&task, &back.outgoing).await;
                            back.conclude(task.ask, ended).await;
                        });
                    }
                    None => break,
                },
                Some(ended) = running.join_next() => ended.unwrap_or_else(|error| tracing::error!(%error, "an ask broke off")),
            }
        }
        running.shutdown().await;
    }

    async fn start(&self, task: &Task, outgoing: &mpsc::Sender<Outgoing>) -> Result<(), NotStarted> {
        match &self.0 {
            // Whoever starts apps answers on the bus, and what gets lost is asked again: there is nothing to wait for.
            Way::Bus => {
                let message = Outgoing { subject: app::WAKE.to_owned(), payload: task.wake().encode(), reply: None };
                let _bus_is_gone = outgoing.send(message).await;
                Ok(())
            }
            Way::Webhook(webhook) => webhook.start(task).await,
            Way::Program(program) => program.start(task).await,
            Way::CloudFoundry(cloud_foundry) => cloud_foundry.start(task).await,
        }
    }
}

impl Task {
    fn wake(&self) -> Wake {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Wake {
            app: self.ask.app.clone(),
            uri: self.ask.uri.clone(),
            epoch: self.ask.epoch,
            router: self.router.clone(),
            at_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            attempt: self.ask.attempt,
        }
    }
}

/// The ways back from one ask.
struct Back {
    happenings: mpsc::Sender<Happening>,
    outgoing: mpsc::Sender<Outgoing>,
    metrics: Arc<Metrics>,
    for_all: bool,
}

impl Back {
    fn of(ports: &Ports, for_all: bool) -> Back {
        let (happenings, outgoing) = (ports.happenings.clone(), ports.outgoing.clone());
        Back { happenings, outgoing, metrics: ports.metrics.clone(), for_all }
    }

    async fn conclude(self, ask: Ask, ended: Result<(), NotStarted>) {
        let Ask { app, epoch, attempt, .. } = ask;
        let Err(NotStarted { visitors, log }) = ended else {
            self.metrics.control.ask_ended("started");
            tracing::info!(%app, epoch, attempt, "asked to start an app");
            return;
        };
        self.metrics.control.ask_ended("refused");
        tracing::warn!(%app, epoch, attempt, why = log, "an app is not started");
        let message = app::shown_message(&visitors);
        if self.for_all {
            let failed = Failed {
                app: app.clone(),
                epoch,
                message: message.clone(),
                retry_at_unix_ms: None,
                attempt: Some(attempt),
            };
            let message = Outgoing { subject: app::FAILED.to_owned(), payload: failed.encode(), reply: None };
            let _others_wait_longer = self.outgoing.try_send(message);
        }
        let refused = Happening::Refused { app, epoch, attempt, message, for_all: self.for_all };
        let _router_is_leaving = self.happenings.send(refused).await;
    }
}

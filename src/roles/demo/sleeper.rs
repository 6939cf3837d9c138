//! The demo's sleeping app and its platform: it is asleep until somebody opens it, takes some seconds to start and tells how
//! far it is, and goes to sleep again when nobody has used it for a while. What is said here is what a controller says.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, interval, sleep, timeout_at};

use super::app::Instance;
use super::machine::Machine;
use crate::adapters::bus::embedded::Embedded;
use crate::domain::protocol::app;
use crate::domain::protocol::envelope::{Incoming, Outgoing};
use crate::domain::protocol::subject;

/// The app.
pub const APP: &str = "notes";

/// How long routers may take to say that it is used after all.
const ANSWERS: Duration = Duration::from_secs(1);

/// How often its instance is registered and how it is used is looked at, if it sleeps after so long a time without use.
pub fn look_every(idle: Duration) -> Duration {
    idle / 6
}

/// The steps of a start, and how long each takes.
const STEPS: [(&str, Duration); 4] = [
    ("Looking for a machine with room", Duration::from_millis(1_200)),
    ("Copying the files to oak", Duration::from_millis(2_200)),
    ("Starting the program", Duration::from_millis(1_600)),
    ("Waiting for its first answer", Duration::from_millis(1_000)),
];

/// The platform of the app.
pub struct Sleeper {
    bus: Embedded,
    machine: Arc<Machine>,
    slot: usize,
    /// How long nobody must have used it before it goes to sleep.
    idle: Duration,
    epoch: u64,
    wakes: Receiver<Incoming>,
    stats: Receiver<Incoming>,
    unparks: Receiver<Incoming>,
}

impl Sleeper {
    /// Of an app that has not run yet, on this machine.
    pub fn new(bus: Embedded, machine: Arc<Machine>, slot: usize, idle: Duration) -> Sleeper {
        let [wakes, stats, unparks] = [app::WAKE, app::STATS, app::UNPARK].map(|subject| bus.subscribe(subject));
        Sleeper { bus, machine, slot, idle, epoch: 1, wakes, stats, unparks }
    }

    /// Until the demo ends.
    pub async fn run(mut self) {
        self.say(app::SLEEP, self.sleep());
        while self.is_wanted().await {
            let Ok(instance) = self.start().await else { return }; // no free port: the page says that it takes long
            self.until_idle(&instance).await;
            self.say(app::SLEEP, self.sleep());
            self.say(subject::UNREGISTER, registration(&instance));
            instance.stop();
        }
    }

    fn sleep(&self) -> Value {
        let usually: Duration = STEPS.iter().map(|(_, time)| *time).sum();
        json!({
            "app": APP, "uris": [format!("{APP}.localhost")], "epoch": self.epoch, "name": "Notes",
            "ready_after_ms": usually.as_millis() as u64,
        })
    }

    /// Waits for the first visitor.
    async fn is_wanted(&mut self) -> bool {
        while let Some(message) = self.wakes.recv().await {
            let wake = app::Wake::decode(&message.payload);
            if wake.is_ok_and(|wake| wake.app.as_str() == APP && wake.epoch == self.epoch) {
                return true;
            }
        }
        false
    }

    /// Takes its time, and tells.
    async fn start(&self) -> std::io::Result<Arc<Instance>> {
        for (n, (message, time)) in STEPS.iter().enumerate() {
            let progress = n as f64 / STEPS.len() as f64;
            let starting =
                json!({"app": APP, "epoch": self.epoch, "instances": 1, "progress": progress, "message": message});
            self.say(app::STARTING, starting);
            sleep(*time).await;
        }
        let instance = Instance::start(APP, 0, &self.machine, self.slot, self.epoch).await?;
        self.say(subject::REGISTER, registration(&instance));
        Ok(instance)
    }

    /// Keeps it registered until nobody has used it for a while and no router objects to its sleep.
    async fn until_idle(&mut self, instance: &Instance) {
        let mut every = interval(look_every(self.idle));
        let mut used = Instant::now();
        loop {
            tokio::select! {
                _ = every.tick() => self.say(subject::REGISTER, registration(instance)),
                Some(report) = self.stats.recv() => {
                    let report: Value = serde_json::from_slice(&report.payload).unwrap_or_default();
                    let of_app = &report["apps"][APP];
                    if of_app["requests"].as_u64() > Some(0) || of_app["in_flight"].as_u64() > Some(0) {
                        used = Instant::now();
                    }
                }
            }
            if used.elapsed() >= self.idle {
                self.epoch += 1;
                if self.nobody_objects().await {
                    return;
                }
                used = Instant::now();
            }
        }
    }

    /// Asks the router, and waits whether a request comes meanwhile.
    async fn nobody_objects(&mut self) -> bool {
        let park = json!({"app": APP, "epoch": self.epoch}).to_string();
        let Ok(mut answers) = self.bus.request(app::PARK, park.into()) else { return false };
        let until = Instant::now() + ANSWERS;
        let mut is_idle = true;
        while let Ok(Some(answer)) = timeout_at(until, answers.recv()).await {
            let answer = app::ParkAnswer::decode(&answer.payload);
            is_idle &= answer.is_ok_and(|answer| answer.in_flight == 0);
        }
        while let Ok(unpark) = self.unparks.try_recv() {
            is_idle &= app::Unpark::decode(&unpark.payload).is_ok_and(|unpark| unpark.app.as_str() != APP);
        }
        is_idle
    }

    fn say(&self, subject: &str, body: Value) {
        let message = Outgoing { subject: subject.to_owned(), payload: Bytes::from(body.to_string()), reply: None };
        let _heard = self.bus.publish(&message).expect("our own subjects are good");
    }
}

fn registration(instance: &Instance) -> Value {
    json!({
        "host": "127.0.0.1", "port": instance.address.port(), "uris": [format!("{APP}.localhost")], "app": APP,
        "private_instance_id": instance.name, "private_instance_index": "0",
    })
}

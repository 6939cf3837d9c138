//! The control plane as a task: takes in all that is queued, then publishes, at most every 20 ms while busy.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::warn;

use crate::control::event::Event;
use crate::control::plane::{ControlPlane, Effects, Outcome, TICK_EVERY};
use crate::domain::moment::Moment;
use crate::domain::protocol::envelope::{BusEvent, Outgoing};
use crate::domain::protocol::rejection::{Reason, Rejection};
use crate::domain::table::snapshot::Snapshot;
use crate::domain::wake::{Happening, LiveApp};
use crate::runtime::clock::Clock;
use crate::runtime::published::Published;
use crate::telemetry::metrics::Metrics;

/// While events keep coming, snapshots are at least so far apart.
pub const PUBLISH_EVERY: Duration = Duration::from_millis(20);
/// So many events are taken in before anything else gets a turn.
const BATCH: usize = 256;
/// Rejections of one reason are logged at most so often.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a rejected payload in the log.
const LOGGED_BYTES: usize = 256;
/// Waiting for less than this is not worth it.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// Registrations between two publications whose latency is measured.
const MEASURED_MAX: usize = 1024;

/// What the loop is joined to.
pub struct Ports {
    /// What the bus tells.
    pub bus: mpsc::Receiver<BusEvent>,
    /// Reloads.
    pub events: mpsc::Receiver<Event>,
    /// What happens to apps beside what the bus tells: visitors, starts, probes.
    pub happenings: mpsc::Receiver<Happening>,
    /// Who wants to know when all that the bus has brought by then is in the snapshot.
    pub caught_up: mpsc::Receiver<oneshot::Sender<()>>,
    /// To the bus.
    pub outgoing: mpsc::Sender<Outgoing>,
    /// Where workers read.
    pub published: Arc<Published<Snapshot>>,
    /// Where is counted.
    pub metrics: Arc<Metrics>,
    /// Reads the time.
    pub clock: Clock,
}

/// Runs until the bus and the inbox of reloads are closed. `then` sees the effects of every event after the loop has sent
/// and counted them: endpoints to resolve (`changes.arrived`), what sleeping apps need of others (`apps`).
pub async fn run(plane: ControlPlane, ports: Ports, then: impl FnMut(Effects)) {
    let now = ports.clock.now();
    let Ports { mut bus, mut events, mut happenings, mut caught_up, outgoing, published, metrics, clock } = ports;
    let mut task = Task {
        plane,
        outgoing,
        published,
        metrics,
        clock,
        then,
        ticked_at: now,
        published_at: None,
        has_news: true,
        settled: Vec::new(),
        registered: Vec::new(),
        logged: HashMap::new(),
    };
    task.set_wall_clock(now);
    task.publish_if_due();
    let (mut from_bus, mut others, mut about_apps) = (Vec::with_capacity(BATCH), Vec::new(), Vec::new());
    let mut waiting = Vec::new();
    while !(bus.is_closed() && bus.is_empty() && events.is_closed() && events.is_empty()) {
        tokio::select! {
            1.. = bus.recv_many(&mut from_bus, BATCH) => {
                // Whoever gives way to a busy worker gets little of their core: only while nothing piles up.
                task.plane.pace().hurry(bus.len() > BATCH);
                from_bus.drain(..).for_each(|event| task.take(event.into()));
            }
            1.. = events.recv_many(&mut others, BATCH) => others.drain(..).for_each(|event| task.take(event)),
            1.. = happenings.recv_many(&mut about_apps, BATCH) => {
                about_apps.drain(..).for_each(|happening| task.take(Event::App(happening)));
            }
            Some(asking) = caught_up.recv() => waiting.push(asking),
            () = sleep(task.wait()) => {}
        }
        // What is still queued comes first: a lease may be renewed there.
        if bus.is_empty() {
            task.tick_if_due();
        }
        task.publish_if_due();
        if bus.is_empty() && !waiting.is_empty() {
            task.publish();
            waiting.drain(..).for_each(|asking| _ = asking.send(()));
        }
    }
}

struct Task<F> {
    plane: ControlPlane,
    outgoing: mpsc::Sender<Outgoing>,
    published: Arc<Published<Snapshot>>,
    metrics: Arc<Metrics>,
    clock: Clock,
    then: F,
    ticked_at: Moment,
    published_at: Option<Moment>,
    /// Whether something happened since the last publication.
    has_news: bool,
    /// Apps whose waiting requests are to be let go after the next publication, and how many at a time.
    settled: Vec<(Arc<LiveApp>, usize)>,
    /// Unix times (nanoseconds) of instances that were registered since the last publication.
    registered: Vec<i64>,
    /// When a rejection for this reason was last logged.
    logged: HashMap<Reason, Moment>,
}

impl<F: FnMut(Effects)> Task<F> {
    fn take(&mut self, event: Event) {
        let now = self.clock.now();
        let payload = match &event {
            Event::Message(incoming) => incoming.payload.clone(),
            _ => Default::default(),
        };
        let effects = self.plane.handle(event, now);
        if let Some((subject, outcome)) = &effects.message {
            self.count_message(subject, outcome, &payload, now);
        }
        self.apply(effects);
        self.plane.pace().rest();
    }

    fn apply(&mut self, mut effects: Effects) {
        self.has_news = true;
        for message in effects.outgoing.drain(..) {
            if self.outgoing.try_send(message).is_err() {
                self.metrics.control.outgoing_dropped(1);
            }
        }
        for (departure, _) in &effects.changes.left {
            self.metrics.control.endpoints_removed(departure.label(), 1);
        }
        if let Some(age) = effects.heartbeat_age {
            self.metrics.control.heartbeat_age(age);
        }
        if self.registered.len() < MEASURED_MAX {
            self.registered.extend(effects.registered);
        }
        effects.apps.iter().for_each(|effect| self.metrics.control.app(effect));
        effects.ignored.into_iter().for_each(|why| self.metrics.control.app_news_ignored(why));
        self.settled.append(&mut effects.settled);
        (self.then)(effects);
    }

    fn count_message(&mut self, subject: &'static str, outcome: &Outcome, payload: &[u8], now: Moment) {
        match outcome {
            Outcome::Applied | Outcome::Ignored => self.metrics.control.message_received(subject),
            Outcome::Rejected(rejection) => {
                self.metrics.control.message_rejected(subject, rejection.reason.label());
                self.log_rejection(subject, rejection, payload, now);
            }
            Outcome::Foreign(_) => {}
        }
    }

    fn log_rejection(&mut self, subject: &str, rejection: &Rejection, payload: &[u8], now: Moment) {
        let last = self.logged.get(&rejection.reason);
        if last.is_some_and(|last| now.since(*last) < LOG_EVERY) {
            return;
        }
        self.logged.insert(rejection.reason, now);
        let cut = String::from_utf8_lossy(&payload[..payload.len().min(LOGGED_BYTES)]);
        warn!(subject, reason = rejection.reason.label(), why = rejection.sentence, payload = %cut, "message rejected");
    }

    fn tick_if_due(&mut self) {
        let now = self.clock.now();
        if now < self.next_tick() {
            return;
        }
        self.ticked_at = now;
        self.set_wall_clock(now);
        let effects = self.plane.handle(Event::Tick, now);
        self.apply(effects);
    }

    fn set_wall_clock(&mut self, now: Moment) {
        self.plane.set_wall_clock(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), now);
    }

    fn next_tick(&self) -> Moment {
        let at_the_latest = self.ticked_at + TICK_EVERY;
        self.plane.next_due().map_or(at_the_latest, |due| due.min(at_the_latest))
    }

    fn publish_if_due(&mut self) {
        if self.has_news && self.clock.now() >= self.next_publication() {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let began = self.clock.now();
        self.has_news = false;
        let snapshot = self.plane.snapshot(began);
        let is_new = snapshot.is_some();
        snapshot.into_iter().for_each(|snapshot| self.published.publish(snapshot));
        // Only now: who is let go looks into the newest snapshot.
        self.settled.drain(..).for_each(|(app, at_a_time)| app.let_go(at_a_time));
        let ended = self.clock.now();
        // Counted from the end: however long it takes, events get their turn.
        self.published_at = Some(ended);
        if is_new {
            self.metrics.control.snapshot_published(ended.since(began));
            self.measure_latency();
        }
    }

    fn next_publication(&self) -> Moment {
        self.published_at.map_or(Moment::START, |at| at + PUBLISH_EVERY)
    }

    fn measure_latency(&mut self) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_nanos());
        for at in self.registered.drain(..) {
            // Clocks differ between machines: what comes from the future took no time.
            let latency = unix.saturating_sub(u128::try_from(at).unwrap_or(0));
            self.metrics.control.registration_latency(Duration::from_nanos(u64::try_from(latency).unwrap_or(u64::MAX)));
        }
    }

    /// How long there is nothing to do but to listen.
    fn wait(&self) -> Duration {
        let until = if self.has_news { self.next_tick().min(self.next_publication()) } else { self.next_tick() };
        until.since(self.clock.now()).max(WAIT_MIN)
    }
}

#[cfg(test)]
mod tests;

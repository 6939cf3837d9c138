//! The control plane as a function: an event and the time go in, effects come out. No clock, no chance, no sockets, so that
//! a simulation can drive it.

mod apps;

use std::sync::Arc;
use std::time::Duration;

use crate::control::event::{AppSettings, Event};
use crate::domain::endpoint::Endpoint;
use crate::domain::moment::Moment;
use crate::domain::pace::Pace;
use crate::domain::protocol::envelope::{Incoming, Outgoing};
use crate::domain::protocol::heartbeat::{Exited, Heartbeat, Shutdown};
use crate::domain::protocol::life::RouterStart;
use crate::domain::protocol::register::Registration;
use crate::domain::protocol::rejection::{Reason, Rejection};
use crate::domain::protocol::subject;
use crate::domain::table::settings::{ConfiguredRoute, TableSettings};
use crate::domain::table::snapshot::Snapshot;
use crate::domain::table::{Changes, Heard, RouteTable};
use crate::domain::wake::{self, Apps, Happening, Ignored, LiveApp, LiveApps, Reporter};

/// Ticks are at most so far apart.
pub const TICK_EVERY: Duration = Duration::from_secs(1);
/// When nothing at all was handled for so long, the process or its machine stood still. What instances said meanwhile is
/// still on its way, so it counts like a time without bus.
const STANDSTILL: Duration = Duration::from_secs(10);

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied.
    Applied,
    /// It was well formed but had nothing to say to this router: another segment's, older than what is known, no routes.
    Ignored,
    /// It was refused whole.
    Rejected(Rejection),
    /// Its subject is none of the control plane's.
    Foreign(Incoming),
}

/// What is to be done after an event. The table itself has changed already.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages to send.
    pub outgoing: Vec<Outgoing>,
    /// What happened in the table.
    pub changes: Changes,
    /// What became of the message, if the event was one: its subject (a label) and the outcome.
    pub message: Option<(&'static str, Outcome)>,
    /// A heartbeat came so long after the one before of the same agent.
    pub heartbeat_age: Option<Duration>,
    /// An instance became known that the platform changed at this Unix time (nanoseconds).
    pub registered: Option<i64>,
    /// What happened to sleeping apps that others have to act on, in order: starts to ask for, sleeps to remember and to
    /// forget, waiting requests to let go. What concerns the table or the bus has been done already.
    pub apps: Vec<wake::Effect>,
    /// Why something that happened to an app had no effect.
    pub ignored: Option<Ignored>,
    /// Instances of sleeping apps to find out about: `Happening::Ready` when one answers.
    pub probes: Vec<Arc<Endpoint>>,
    /// Apps whose waiting requests know more from the next snapshot on, and how many of them may be on their way to instances
    /// at a time.
    pub settled: Vec<(Arc<LiveApp>, usize)>,
}

/// Owns the route table and decides what happens to it.
#[derive(Debug)]
pub struct ControlPlane {
    me: RouterStart,
    table: RouteTable,
    apps: Apps,
    reporter: Reporter,
    reported_at: Moment,
    stats_every: Duration,
    release_concurrency: usize,
    /// Where answers to `app.list` come in.
    inbox: String,
    /// Unix time at `Moment::START`.
    born: Duration,
    is_connected: bool,
    handled_at: Moment,
    swept_at: Moment,
}

impl ControlPlane {
    /// An empty table. `secret` keys its hashes: random in a router, fixed in a test.
    pub fn new(me: RouterStart, settings: TableSettings, secret: u128, now: Moment) -> ControlPlane {
        let table = RouteTable::new(settings, secret);
        let AppSettings { wake, stats_every, release_concurrency } = AppSettings::default();
        ControlPlane {
            apps: Apps::new(&me.id, wake, table.live_apps().clone()),
            reporter: Reporter::new(&me.id, now),
            reported_at: now,
            stats_every,
            release_concurrency,
            inbox: format!("_INBOX.weighbridge.{}", me.id),
            born: Duration::ZERO,
            me,
            table,
            is_connected: false,
            handled_at: now,
            swept_at: now,
        }
    }

    /// The pace of all that is long.
    pub fn pace(&mut self) -> &mut Pace {
        self.table.pace()
    }

    /// It is `unix` (since 1970) now: messages may name such times.
    pub fn set_wall_clock(&mut self, unix: Duration, now: Moment) {
        self.born = unix.saturating_sub(now.since(Moment::START));
    }

    /// Takes in one event.
    pub fn handle(&mut self, event: Event, now: Moment) -> Effects {
        if now.since(self.handled_at) > STANDSTILL && self.is_connected {
            self.table.resume(now);
        }
        self.handled_at = now;
        let mut effects = Effects::default();
        match event {
            Event::Connected => self.on_connected(now, &mut effects),
            Event::Disconnected => {
                self.is_connected = false;
                self.table.suspend();
                self.happen(Happening::BusDown, None, now, &mut effects);
            }
            Event::Message(incoming) => self.on_message(incoming, now, &mut effects),
            Event::Configured { settings, routes, apps } => {
                self.on_configured(settings, &routes, now, &mut effects);
                self.apps.reconfigure(apps.wake);
                (self.stats_every, self.release_concurrency) = (apps.stats_every, apps.release_concurrency);
            }
            Event::App(happening) => {
                self.happen(happening, None, now, &mut effects);
            }
            Event::Tick => self.on_tick(now, &mut effects),
        }
        self.follow_instances(now, &mut effects);
        effects
    }

    fn on_connected(&mut self, now: Moment, effects: &mut Effects) {
        self.is_connected = true;
        self.table.resume(now);
        effects.outgoing.push(self.start(subject::START.to_owned()));
        self.happen(Happening::BusUp, None, now, effects);
        effects.outgoing.push(self.ask_for_the_list());
    }

    fn on_configured(&mut self, to: TableSettings, routes: &[ConfiguredRoute], now: Moment, effects: &mut Effects) {
        self.me.register_interval = to.advertise_interval;
        self.me.prune_threshold = to.stale_after;
        self.table.configure(to, routes, now, &mut effects.changes);
    }

    fn on_tick(&mut self, now: Moment, effects: &mut Effects) {
        self.table.prune(now, &mut effects.changes);
        if now.since(self.swept_at) >= TICK_EVERY {
            self.swept_at = now;
            self.table.sweep(now);
        }
        if self.apps.due().is_some_and(|due| due <= now) {
            self.happen(Happening::Tick, None, now, effects);
        }
        self.report_if_due(now, effects);
    }

    fn on_message(&mut self, incoming: Incoming, now: Moment, effects: &mut Effects) {
        let payload = &incoming.payload[..];
        let heard = match incoming.subject.as_str() {
            subject::REGISTER => (subject::REGISTER, self.on_register(payload, now, effects)),
            subject::UNREGISTER => (subject::UNREGISTER, self.on_unregister(payload, now, effects)),
            subject::HEARTBEAT => (subject::HEARTBEAT, self.on_heartbeat(payload, now, effects)),
            subject::SHUTDOWN => {
                let shutdown = Shutdown::decode(payload);
                (subject::SHUTDOWN, shutdown.map(|it| self.table.shutdown(&it, now, &mut effects.changes)))
            }
            subject::EXITED => {
                let exited = Exited::decode(payload);
                (subject::EXITED, exited.map(|it| self.table.exited(&it, now, &mut effects.changes)))
            }
            subject::GREET => {
                effects.outgoing.extend(incoming.reply.map(|reply| self.start(reply)));
                (subject::GREET, Ok(Heard::Applied))
            }
            subject => match self.app_subject(subject) {
                Some(subject) => (subject, self.on_app_message(subject, &incoming, now, effects)),
                None => {
                    effects.message = Some(("other", Outcome::Foreign(incoming)));
                    return;
                }
            },
        };
        let outcome = match heard.1 {
            Ok(Heard::Applied) => Outcome::Applied,
            Ok(Heard::Ignored) => Outcome::Ignored,
            Ok(Heard::Full) => {
                Outcome::Rejected(Rejection::new(Reason::TableFull, "the table takes no more endpoints or agents"))
            }
            Err(rejection) => Outcome::Rejected(rejection),
        };
        effects.message = Some((heard.0, outcome));
    }

    fn on_register(&mut self, payload: &[u8], now: Moment, effects: &mut Effects) -> Result<Heard, Rejection> {
        let registration = Registration::decode(payload)?;
        let heard = self.table.register(&registration, now, &mut effects.changes);
        if !effects.changes.arrived.is_empty() {
            effects.registered = registration.updated_at_ns;
        }
        Ok(heard)
    }

    fn on_unregister(&mut self, payload: &[u8], now: Moment, effects: &mut Effects) -> Result<Heard, Rejection> {
        let registration = Registration::decode(payload)?;
        Ok(self.table.unregister(&registration, now, &mut effects.changes))
    }

    fn on_heartbeat(&mut self, payload: &[u8], now: Moment, effects: &mut Effects) -> Result<Heard, Rejection> {
        let heartbeat = Heartbeat::decode_in_strides(payload, self.pace())?;
        let (heard, age) = self.table.heartbeat(&heartbeat, now, &mut effects.changes);
        effects.heartbeat_age = age;
        Ok(heard)
    }

    fn start(&self, subject: String) -> Outgoing {
        Outgoing { subject, payload: self.me.encode(), reply: None }
    }

    /// The table as workers are to see it, if that changed since the last call. New loads are worked into the weights.
    pub fn snapshot(&mut self, now: Moment) -> Option<Arc<Snapshot>> {
        self.table.snapshot(now)
    }

    /// When the next `Tick` has something to do, as far as is known now.
    pub fn next_due(&self) -> Option<Moment> {
        self.table.next_due().into_iter().chain(self.apps.due()).min()
    }

    /// What the workers share about each app.
    pub fn live_apps(&self) -> &Arc<LiveApps> {
        self.apps.lives()
    }

    /// The subject to which others answer this router.
    pub fn inbox(&self) -> &str {
        &self.inbox
    }

    /// What the router says about itself.
    pub fn me(&self) -> &RouterStart {
        &self.me
    }

    /// The table, to look at.
    pub fn table(&self) -> &RouteTable {
        &self.table
    }
}

#[cfg(test)]
mod tests;

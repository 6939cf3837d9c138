//! The control plane as a function: an event and the time go in, effects come out.

use std::sync::Arc;
use std::time::Duration;

use crate::control::event::Event;
use crate::domain::hash::Keyed;
use crate::domain::moment::Moment;
use crate::domain::protocol::envelope::{Incoming, Outgoing};
use crate::domain::protocol::life::RouterStart;
use crate::domain::protocol::rejection::Rejection;
use crate::domain::table::Changes;
use crate::domain::table::settings::TableSettings;
use crate::domain::table::snapshot::Snapshot;

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
    /// An instance became known that changed at this Unix time (nanoseconds).
    pub registered: Option<i64>,
}

/// Owns the route table and decides what happens to it.
#[derive(Debug)]
pub struct ControlPlane {
    me: RouterStart,
    #[expect(dead_code, reason = "the table is on its way")]
    settings: TableSettings,
    snapshot: Option<Arc<Snapshot>>,
}

impl ControlPlane {
    /// An empty table. `secret` keys the hash of hosts: random in a router, fixed in a test.
    pub fn new(me: RouterStart, settings: TableSettings, secret: u128, _now: Moment) -> ControlPlane {
        ControlPlane { me, settings, snapshot: Some(Arc::new(Snapshot::empty(Keyed::new(secret)))) }
    }

    /// Takes in one event.
    pub fn handle(&mut self, event: Event, _now: Moment) -> Effects {
        let mut effects = Effects::default();
        match event {
            Event::Connected => effects.outgoing.push(Outgoing {
                subject: "router.start".to_owned(),
                payload: self.me.encode(),
                reply: None,
            }),
            Event::Message(incoming) => effects.message = Some(("other", Outcome::Foreign(incoming))),
            Event::Disconnected | Event::Configured { .. } | Event::Tick => {}
        }
        effects
    }

    /// The table as workers are to see it, if that changed since the last call. Loads of endpoints are worked in as well.
    pub fn snapshot(&mut self, _now: Moment) -> Option<Arc<Snapshot>> {
        self.snapshot.take()
    }
}

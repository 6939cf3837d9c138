//! Everything that can happen to the control plane.

use std::time::Duration;

use crate::domain::protocol::envelope::{BusEvent, Incoming};
use crate::domain::table::settings::{ConfiguredRoute, TableSettings};
use crate::domain::wake::{self, Happening};

/// One thing that happened.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a box would only be for the sake of reloads, which are rare")]
pub enum Event {
    /// The bus is there (again) and everything is subscribed.
    Connected,
    /// The bus is gone.
    Disconnected,
    /// The bus brought a message.
    Message(Incoming),
    /// The configuration was (re)loaded.
    Configured {
        /// Settings of the table.
        settings: TableSettings,
        /// All routes of the configuration; those of the one before that are missing here go.
        routes: Vec<ConfiguredRoute>,
        /// Sleep and wake.
        apps: AppSettings,
    },
    /// Something happened to an app that did not come over the bus: a worker has a visitor, a start was refused, an instance
    /// answers, or somebody remembers that the app sleeps (its instances are filled in here).
    App(Happening),
    /// Time has passed.
    Tick,
}

/// What the operator decides about apps.
#[derive(Clone, Debug, PartialEq)]
pub struct AppSettings {
    /// How patient the router is with those that sleep.
    pub wake: wake::Settings,
    /// How often `router.stats` is published.
    pub stats_every: Duration,
    /// Requests that waited for an app and are on their way to one of its instances at a time.
    pub release_concurrency: usize,
}

impl Default for AppSettings {
    fn default() -> AppSettings {
        AppSettings { wake: wake::Settings::default(), stats_every: Duration::from_secs(10), release_concurrency: 32 }
    }
}

impl From<BusEvent> for Event {
    fn from(event: BusEvent) -> Event {
        match event {
            BusEvent::Connected => Event::Connected,
            BusEvent::Disconnected => Event::Disconnected,
            BusEvent::Message(incoming) => Event::Message(incoming),
        }
    }
}

//! Everything that can happen to the control plane.

use crate::domain::protocol::envelope::{BusEvent, Incoming};
use crate::domain::table::settings::{ConfiguredRoute, TableSettings};

/// One thing that happened.
#[derive(Clone, Debug)]
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
    },
    /// Time has passed.
    Tick,
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

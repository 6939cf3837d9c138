//! The bus: brings messages to the control plane and takes its messages away. NATS, or an in-process bus with the same
//! subjects and payloads; whoever speaks to it sees two bounded channels and cannot tell which one it is.

mod access;
pub mod embedded;
mod inlet;
pub mod memory;
mod nats;
mod servers;
mod subject;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::config::NatsConfig;
use crate::domain::dice::Dice;
use crate::domain::protocol::envelope::{BusEvent, Outgoing};
use crate::runtime::bus_state::BusState;

use inlet::Inlet;
use memory::Sessions;
pub use nats::{NotPublished, publish};
pub use subject::{BadSubject, check_subject, matches};

/// Which bus.
#[derive(Clone, Debug)]
pub enum Bus {
    /// A NATS server or a cluster of them.
    Nats(NatsConfig),
    /// Nothing but this process.
    Embedded(embedded::Embedded),
}

/// The bus as the control plane sees it.
#[derive(Debug)]
pub struct Attached {
    /// What comes in. `Connected` comes once the subscriptions are known to the server, after every reconnect again.
    /// Dropping the receiver ends the bus.
    pub events: mpsc::Receiver<BusEvent>,
    /// What goes out. Dropping all senders ends the bus after what is queued has gone out.
    pub outgoing: mpsc::Sender<Outgoing>,
    /// How the bus is doing.
    pub state: Arc<BusState>,
    /// For `memory::run`.
    pub sessions: Sessions,
}

/// Limits on what may wait. All of them count what they drop in `BusState`; none of them ever blocks the reader of the
/// connection: a router that reads slowly would be cut off by the server, one that drops gets the next heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Incoming messages that wait for the control plane.
    pub incoming: usize,
    /// Bytes that waiting messages hold, together.
    pub incoming_bytes: usize,
    /// Bytes of one incoming message.
    pub message_bytes: usize,
    /// Outgoing messages that wait for the bus.
    pub outgoing: usize,
}

impl Default for Limits {
    /// Room for every instance of a large platform to register at once: 262,144 messages in 128 MiB, 8 MiB each.
    fn default() -> Limits {
        Limits { incoming: 262_144, incoming_bytes: 128 << 20, message_bytes: 8 << 20, outgoing: 4_096 }
    }
}

/// Starts the bus on the present tokio runtime and returns at once, connected or not: it keeps trying for ever.
/// `subjects` may hold `*` and `>` as NATS knows them.
pub fn start(bus: Bus, subjects: &[&str], limits: Limits, dice: Dice) -> Attached {
    let (events_sender, events) = mpsc::channel(limits.incoming);
    let (outgoing, outgoing_receiver) = mpsc::channel(limits.outgoing);
    let state = Arc::new(BusState::default());
    let (sessions_sender, sessions) = watch::channel(None);
    let inlet = Inlet::new(events_sender, limits, state.clone());
    let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
    match bus {
        Bus::Nats(config) => tokio::spawn(nats::run(config, subjects, inlet, outgoing_receiver, sessions_sender, dice)),
        Bus::Embedded(bus) => tokio::spawn(async move {
            bus.serve(subjects, inlet, outgoing_receiver).await;
            drop(sessions_sender); // there never was one
        }),
    };
    Attached { events, outgoing, state, sessions: Sessions(sessions) }
}

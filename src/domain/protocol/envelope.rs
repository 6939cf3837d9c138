//! Messages as they travel: what came from the bus and what is to go out, whatever bus it is.

use bytes::Bytes;

/// What the bus tells the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusEvent {
    /// Connected (again) and subscribed: time to publish `router.start`.
    Connected,
    /// The connection is gone; leases do not run out until it is back.
    Disconnected,
    /// A message arrived.
    Message(Incoming),
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Its subject.
    pub subject: String,
    /// Foreign bytes.
    pub payload: Bytes,
    /// Where an answer is expected.
    pub reply: Option<String>,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its subject.
    pub subject: String,
    /// Its payload.
    pub payload: Bytes,
    /// Where answers shall go.
    pub reply: Option<String>,
}

//! The messages of the bus, from bytes to proven values and back.

pub mod app;
pub mod envelope;
pub mod heartbeat;
pub mod life;
pub mod register;
pub mod rejection;
pub mod route_uri;

mod wire;

#[cfg(test)]
mod tests;

use heartbeat::{Exited, Heartbeat, Shutdown};
use register::Registration;
use rejection::Rejection;

/// The subjects the router listens to for its route table.
pub mod subject {
    /// An instance serves routes.
    pub const REGISTER: &str = "router.register";
    /// It does so no more.
    pub const UNREGISTER: &str = "router.unregister";
    /// A request for what `router.start` says.
    pub const GREET: &str = "router.greet";
    /// A router is there.
    pub const START: &str = "router.start";
    /// An agent reports its instances.
    pub const HEARTBEAT: &str = "dea.heartbeat";
    /// An agent leaves.
    pub const SHUTDOWN: &str = "dea.shutdown";
    /// An instance is gone.
    pub const EXITED: &str = "droplet.exited";
}

/// Whether the router would take `payload` on `subject`; subjects it does not listen to may carry anything.
///
/// # Errors
/// Why it would drop it.
pub fn check(subject: &str, payload: &[u8]) -> Result<(), Rejection> {
    match subject {
        subject::REGISTER | subject::UNREGISTER => Registration::decode(payload).map(drop),
        subject::HEARTBEAT => Heartbeat::decode(payload).map(drop),
        subject::SHUTDOWN => Shutdown::decode(payload).map(drop),
        subject::EXITED => Exited::decode(payload).map(drop),
        app::PARK => app::Park::decode(payload).map(drop),
        app::UNPARK => app::Unpark::decode(payload).map(drop),
        app::SLEEP => app::Sleep::decode(payload).map(drop),
        app::STARTING => app::Starting::decode(payload).map(drop),
        app::FAILED => app::Failed::decode(payload).map(drop),
        app::FORGET => app::Forget::decode(payload).map(drop),
        app::LIST => app::List::decode(payload).map(drop),
        _ => Ok(()),
    }
}

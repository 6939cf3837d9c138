//! NATS as the bus.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

use super::inlet::Inlet;
use crate::domain::dice::Dice;
use crate::domain::protocol::envelope::Outgoing;

/// What is needed to reach NATS.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses: `nats://host:port`, `tls://host:port` or `host:port`; user and password may be part of them.
    pub servers: Vec<String>,
    /// User name, or empty.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Token, or empty.
    pub token: String,
    /// A `.creds` file, or a file that holds an nkey seed. It is read anew for every connection.
    pub credentials_file: Option<PathBuf>,
    /// Certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate, with `key`.
    pub cert: Option<PathBuf>,
    /// The key of `cert`.
    pub key: Option<PathBuf>,
    /// How often the server is asked whether it is alive; three silent times are a lost connection.
    pub ping_interval: Duration,
    /// Where learnt servers are kept across restarts.
    pub server_cache: Option<PathBuf>,
}

pub(super) async fn run(
    _settings: Settings,
    _subjects: Vec<String>,
    _inlet: Inlet,
    _outgoing: mpsc::Receiver<Outgoing>,
    _dice: Dice,
) {
}

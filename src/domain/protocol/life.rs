//! `router.start` and `router.greet`: how a router tells that it is there, and how often it wants to hear from others.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::rejection::Rejection;
use super::wire;

/// What a router says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterStart {
    /// `<index>-<uuid>`, fixed per process.
    pub id: String,
    /// Its addresses.
    pub hosts: Vec<String>,
    /// How often it wants registrations refreshed at least; whole seconds travel.
    pub register_interval: Duration,
    /// How long a registration without a lease of its own is kept; whole seconds travel.
    pub prune_threshold: Duration,
}

#[derive(Deserialize, Serialize)]
struct Wire {
    id: String,
    hosts: Vec<String>,
    #[serde(rename = "minimumRegisterIntervalInSeconds")]
    register_interval: u64,
    #[serde(rename = "pruneThresholdInSeconds")]
    prune_threshold: u64,
}

impl RouterStart {
    /// Reads the body of `router.start` or of an answer to `router.greet`.
    ///
    /// # Errors
    /// The message is refused whole for the first mistake found.
    pub fn decode(payload: &[u8]) -> Result<RouterStart, Rejection> {
        let wire: Wire = wire::read(payload)?;
        Ok(RouterStart {
            id: wire.id,
            hosts: wire.hosts,
            register_interval: Duration::from_secs(wire.register_interval),
            prune_threshold: Duration::from_secs(wire.prune_threshold),
        })
    }

    /// Writes the body.
    pub fn encode(&self) -> Bytes {
        let wire = Wire {
            id: self.id.clone(),
            hosts: self.hosts.clone(),
            register_interval: self.register_interval.as_secs(),
            prune_threshold: self.prune_threshold.as_secs(),
        };
        wire::write(&wire).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_the_one_clients_of_gorouter_expect() {
        let start = RouterStart {
            id: "0-2c1e".into(),
            hosts: vec!["10.0.0.2".into()],
            register_interval: Duration::from_secs(20),
            prune_threshold: Duration::from_secs(120),
        };
        let body = r#"{"id":"0-2c1e","hosts":["10.0.0.2"],"minimumRegisterIntervalInSeconds":20,"pruneThresholdInSeconds":120}"#;
        assert_eq!(start.encode(), body.as_bytes());
        assert_eq!(RouterStart::decode(body.as_bytes()), Ok(start));
    }
}

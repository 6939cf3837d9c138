//! What the operator decides about the table: leases, isolation, defaults, and routes of the configuration.

use std::sync::Arc;
use std::time::Duration;

use super::snapshot::RouteSettings;
use crate::domain::balance::score::ScoreConfig;
use crate::domain::balance::strategy::Strategy;
use crate::domain::protocol::register::Registration;
use crate::domain::protocol::route_uri::RouteUri;

/// Settings of the table; they change with a reload.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSettings {
    /// Longest lease, and the lease of those that ask for none.
    pub stale_after: Duration,
    /// How often registrations are refreshed (`minimumRegisterIntervalInSeconds`): loads in them are late after three times
    /// as long.
    pub advertise_interval: Duration,
    /// How long a route whose last instance left is still known, without any; zero forgets it at once, as gorouter does.
    pub keep_empty: Duration,
    /// Whether leases of instances spoken to over TLS run out. gorouter keeps those for ever.
    pub expire_tls_endpoints: bool,
    /// Whose registrations are heard.
    pub isolation: Isolation,
    /// Strategy of routes that nobody has another wish for.
    pub strategy: Strategy,
    /// Requests in flight per endpoint where a route does not say; 0 is unlimited.
    pub max_conns: u32,
    /// How reported load becomes a score.
    pub score: ScoreConfig,
    /// Endpoints of all routes together, beyond which nobody new is taken; one that serves two routes counts twice.
    pub endpoints_max: usize,
    /// Host agents beyond which no new one is heard.
    pub agents_max: usize,
}

impl Default for TableSettings {
    fn default() -> TableSettings {
        TableSettings {
            stale_after: Duration::from_secs(120),
            advertise_interval: Duration::from_secs(20),
            keep_empty: Duration::from_secs(30),
            expire_tls_endpoints: true,
            isolation: Isolation::All,
            strategy: Strategy::default(),
            max_conns: 0,
            score: ScoreConfig::default(),
            // About 2 GiB: far from any platform, near enough to survive a client that has lost its mind.
            endpoints_max: 2_000_000,
            agents_max: 200_000,
        }
    }
}

/// Which isolation segments a router serves. The shared segment is the one without a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Every segment.
    #[default]
    All,
    /// Those listed.
    Segments(Vec<String>),
    /// The shared one and those listed.
    SharedAndSegments(Vec<String>),
}

impl Isolation {
    /// Whether instances of `segment` are served here.
    pub fn admits(&self, segment: &str) -> bool {
        match self {
            Isolation::All => true,
            Isolation::Segments(ours) => ours.iter().any(|our| our == segment),
            Isolation::SharedAndSegments(ours) => segment.is_empty() || ours.iter().any(|our| our == segment),
        }
    }
}

/// A route of the configuration: always known, whether it has instances or not.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfiguredRoute {
    /// The route.
    pub uri: RouteUri,
    /// What differs from the router's settings.
    pub settings: Arc<RouteSettings>,
    /// Its instances, which never expire (their `uris` mean nothing here). More may register.
    pub instances: Vec<Registration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_admitted_by_mode() {
        let ours = vec!["blue".to_owned()];
        let check = |isolation: Isolation| ["", "blue", "red"].map(|segment| isolation.admits(segment));
        assert_eq!(check(Isolation::All), [true, true, true]);
        assert_eq!(check(Isolation::Segments(ours.clone())), [false, true, false]);
        assert_eq!(check(Isolation::SharedAndSegments(ours)), [true, true, false]);
    }
}

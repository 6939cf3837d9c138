//! Who is who: apps, instances, agents, addresses and routes, proven once at the edge and valid for ever after.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use arcstr::ArcStr;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(ArcStr);

        impl $name {
            /// Takes the name as it came.
            pub fn new(name: &str) -> Self {
                Self(name.into())
            }

            /// The name as it came.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The same name, with its text taken from `keep`, which gives an equal one.
            pub(super) fn kept(&self, keep: impl FnOnce(&ArcStr) -> ArcStr) -> Self {
                Self(keep(&self.0))
            }

            /// Whether it was missing or empty.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// What users deploy (wire: `app`, `droplet`). Empty when the registration did not say.
    AppId,
    /// One running copy (wire: `private_instance_id`); what the sticky cookie holds. Empty: no stickiness.
    InstanceId,
    /// The host agent that reports instances (wire: `dea`).
    AgentId,
}

/// Where an instance is spoken to: `host:port`. The identity of an endpoint inside a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    host: ArcStr,
    port: u16,
}

impl Address {
    /// Joins a host (lower-cased here) and a port.
    pub fn new(host: &str, port: u16) -> Address {
        let host =
            if host.bytes().any(|b| b.is_ascii_uppercase()) { host.to_ascii_lowercase().into() } else { host.into() };
        Address { host, port }
    }

    /// The same address, with its text taken from `keep`, which gives an equal one.
    pub(super) fn kept(&self, keep: impl FnOnce(&ArcStr) -> ArcStr) -> Address {
        Address { host: keep(&self.host), port: self.port }
    }

    /// IP or name, lower case, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket address if the host is an IP address; names are resolved elsewhere.
    pub fn as_socket(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

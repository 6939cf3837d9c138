//! An endpoint: the address of one instance with what is known about it. The facts are immutable; what changes with
//! every request or report is in `Live`, shared by all snapshots and workers, so a refresh never resets it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::balance::live::Live;
use super::identity::{Address, AgentId, AppId, InstanceId};

/// How an endpoint is spoken to above TCP or TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 (over TLS by ALPN, in clear text with prior knowledge).
    Http2,
}

/// Set when the instance is spoken to over TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tls {
    /// The subject alternative name its certificate must carry; `None`: its host.
    pub server_name: Option<Arc<str>>,
}

/// The facts of one endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Unique in this process; never used again for another endpoint. A rebuilt endpoint (new tags) gets a new one only
    /// if connections to the old one must not be used for it.
    pub serial: u64,
    /// Where it is.
    pub address: Address,
    /// TLS towards it, or clear text.
    pub tls: Option<Tls>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its app; empty if unknown.
    pub app: AppId,
    /// Its instance; empty: no stickiness to it.
    pub instance: InstanceId,
    /// Number in its app, as sent; empty if unknown.
    pub index: Arc<str>,
    /// The host agent that reports it.
    pub agent: Option<AgentId>,
    /// Tags as sent.
    pub tags: BTreeMap<Arc<str>, Arc<str>>,
    /// Availability zone; empty if unknown.
    pub zone: Arc<str>,
    /// Isolation segment; empty: shared.
    pub isolation_segment: Arc<str>,
    /// Static capacity weight, above 0.
    pub weight: f32,
    /// What changes: in-flight counts, latency, failures, reported load.
    pub live: Arc<Live>,
    /// The socket address when the host is a name, once it has been resolved (by the control side, again and again).
    pub resolved: Mutex<Option<SocketAddr>>,
}

impl Endpoint {
    /// Where to connect to, if that is known yet.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        // An IP address is resolved at birth, so there is one place to look.
        *self.resolved.lock()
    }
}

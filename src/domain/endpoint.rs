//! An endpoint: the address of one instance with what is known about it. The facts are immutable; what changes with
//! every request or report is in `Live`, shared by all snapshots and workers, so a refresh never resets it.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use arcstr::ArcStr;
use parking_lot::Mutex;

use super::balance::live::Live;
use super::identity::{Address, AgentId, AppId, InstanceId};
use super::tags::Tags;
use super::wake::LiveApp;

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
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// The subject alternative name its certificate must carry; empty: its host.
    pub server_name: ArcStr,
}

/// What a registration says about an instance: everything but what changes with every report.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
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
    pub index: ArcStr,
    /// The host agent that reports it.
    pub agent: Option<AgentId>,
    /// Tags as sent.
    pub tags: Tags,
    /// Availability zone; empty if unknown.
    pub zone: ArcStr,
    /// Isolation segment; empty: shared.
    pub isolation_segment: ArcStr,
    /// The route service that requests were to pass first (`https://…`).
    pub route_service: Option<ArcStr>,
    /// Static capacity weight, above 0.
    pub weight: f32,
}

impl Facts {
    /// An instance at `address` with nothing else known.
    pub fn at(address: Address) -> Facts {
        Facts {
            address,
            tls: None,
            protocol: Protocol::Http1,
            app: AppId::default(),
            instance: InstanceId::default(),
            index: ArcStr::new(),
            agent: None,
            tags: Tags::default(),
            zone: ArcStr::new(),
            isolation_segment: ArcStr::new(),
            route_service: None,
            weight: 1.0,
        }
    }

    /// The same facts, with the texts that many instances have in common taken from `keep`, which gives equal ones.
    pub(super) fn kept(&self, mut keep: impl FnMut(&ArcStr) -> ArcStr) -> Facts {
        Facts {
            address: self.address.kept(&mut keep),
            tls: self.tls.clone(),
            protocol: self.protocol,
            app: self.app.kept(&mut keep),
            // Nobody else has it.
            instance: self.instance.kept(ArcStr::clone),
            index: keep(&self.index),
            agent: self.agent.as_ref().map(|agent| agent.kept(&mut keep)),
            tags: self.tags.kept(&mut keep),
            zone: keep(&self.zone),
            isolation_segment: keep(&self.isolation_segment),
            route_service: self.route_service.as_ref().map(keep),
            weight: self.weight,
        }
    }
}

/// One endpoint. Its facts are reached by dereferencing.
#[derive(Debug)]
pub struct Endpoint {
    /// Unique in this process; never used again for another endpoint. A rebuilt endpoint (new tags) keeps it unless
    /// connections to the old one must not be used for it.
    pub serial: u64,
    /// What its registration said.
    pub facts: Facts,
    /// Whether app, instance and index are made of nothing but visible ASCII, as nearly always: each request to it says them.
    pub is_plain: bool,
    /// Seconds for which it is kept without being heard of; `None`: for ever.
    pub lease_s: Option<NonZeroU32>,
    /// What changes: in-flight counts, latency, failures, reported load.
    pub live: Arc<Live>,
    /// The same for its app as a whole: at which stage of sleep it is, how much it is used.
    pub live_app: Arc<LiveApp>,
    /// What its host stands for: known at birth if that is an IP address, else once the control side has found out.
    pub(super) resolved: Mutex<Option<IpAddr>>,
}

impl Endpoint {
    /// An endpoint that is known for the first time and is kept for ever; an IP address is resolved at birth.
    pub fn new(serial: u64, facts: Facts, live: Arc<Live>, live_app: Arc<LiveApp>) -> Endpoint {
        let resolved = Mutex::new(facts.address.as_socket().map(|socket| socket.ip()));
        let told = [facts.app.as_str(), facts.instance.as_str(), &facts.index];
        let is_plain = told.iter().all(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
        Endpoint { serial, facts, is_plain, lease_s: None, live, live_app, resolved }
    }

    /// Where to connect to, if that is known yet.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        // An IP address is resolved at birth, so there is one place to look.
        let ip = *self.resolved.lock();
        ip.map(|ip| SocketAddr::new(ip, self.facts.address.port()))
    }

    /// Its host is a name that stands for this address now.
    pub fn resolve(&self, ip: IpAddr) {
        *self.resolved.lock() = Some(ip);
    }

    /// Whether its host is a name that somebody has to resolve.
    pub fn has_name(&self) -> bool {
        self.facts.address.as_socket().is_none()
    }
}

impl std::ops::Deref for Endpoint {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.facts
    }
}

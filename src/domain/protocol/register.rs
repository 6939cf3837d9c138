//! `router.register` and `router.unregister`: wire-compatible with Cloud Foundry's, plus `load`, `dea` and
//! `options.weight`.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use arcstr::ArcStr;
use serde::{Deserialize, Serialize};

use super::rejection::{HOST_BYTES_MAX, Reason, Rejection, URIS_MAX};
use super::route_uri::RouteUri;
use super::wire::{self, Text, WireTags, WireUsage};
use crate::domain::balance::strategy::Strategy;
use crate::domain::endpoint::{Facts, Protocol, Tls};
use crate::domain::identity::{Address, AgentId, AppId, InstanceId};
use crate::domain::load::Usage;

/// One instance and the routes it serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// The instance.
    pub facts: Facts,
    /// The routes; if there are none, nothing happens.
    pub uris: Vec<RouteUri>,
    /// The lease it asks for; `None`: the router's own.
    pub lease: Option<Duration>,
    /// The strategy it asks for. Names that are not known are not heard, as in gorouter.
    pub strategy: Option<Strategy>,
    /// The header to hash, for `hash`.
    pub hash_header: Option<ArcStr>,
    /// Load of the instance.
    pub load: Usage,
    /// Load of its host.
    pub host_load: Usage,
    /// When the platform changed the instance: Unix time in nanoseconds.
    pub updated_at_ns: Option<i64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct Wire<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    host: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_port: Option<i64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    uris: Option<Vec<Text<'a>>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    app: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    private_instance_id: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    private_instance_index: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    dea: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    tags: Option<WireTags<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_threshold_in_seconds: Option<i64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    protocol: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    server_cert_domain_san: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    route_service_url: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    isolation_segment: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    availability_zone: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint_updated_at_ns: Option<i64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    options: Option<WireOptions<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<WireLoad>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct WireOptions<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    loadbalancing: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    hash_header: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<f64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct WireLoad {
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<WireUsage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<WireUsage>,
}

impl Registration {
    /// An instance at `address` with nothing else known, serving nothing.
    pub fn at(address: Address) -> Registration {
        Registration {
            facts: Facts::at(address),
            uris: Vec::new(),
            lease: None,
            strategy: None,
            hash_header: None,
            load: Usage::default(),
            host_load: Usage::default(),
            updated_at_ns: None,
        }
    }

    /// Reads the payload of `router.register` or `router.unregister`.
    ///
    /// # Errors
    /// The message is refused whole for the first mistake found.
    pub fn decode(payload: &[u8]) -> Result<Registration, Rejection> {
        let wire: Wire = wire::read(payload)?;
        let (port, tls) = port(wire.port, wire.tls_port, &wire.server_cert_domain_san)?;
        let agent = wire::plain("dea", &wire.dea)?;
        let options = wire.options.unwrap_or_default();
        let load = wire.load.unwrap_or_default();
        let facts = Facts {
            address: address(wire::plain("host", &wire.host)?, port)?,
            tls,
            protocol: protocol(wire::plain("protocol", &wire.protocol)?)?,
            app: AppId::new(wire::plain("app", &wire.app)?),
            instance: InstanceId::new(wire::plain("private_instance_id", &wire.private_instance_id)?),
            index: wire::shared("private_instance_index", &wire.private_instance_index)?,
            agent: (!agent.is_empty()).then(|| AgentId::new(agent)),
            tags: wire::tags(&wire.tags)?,
            zone: wire::shared("availability_zone", &wire.availability_zone)?,
            isolation_segment: wire::shared("isolation_segment", &wire.isolation_segment)?,
            route_service: route_service(wire::plain("route_service_url", &wire.route_service_url)?)?,
            weight: weight(options.weight)?,
        };
        let hash_header = wire::plain("options.hash_header", &options.hash_header)?;
        Ok(Registration {
            facts,
            uris: uris(wire.uris.as_deref().unwrap_or_default())?,
            lease: lease(wire.stale_threshold_in_seconds),
            strategy: wire::plain("options.loadbalancing", &options.loadbalancing)?.parse().ok(),
            hash_header: (!hash_header.is_empty()).then(|| hash_header.into()),
            load: wire::usage("instance", &load.instance)?,
            host_load: wire::usage("host", &load.host)?,
            updated_at_ns: wire.endpoint_updated_at_ns.filter(|at| *at > 0),
        })
    }

    /// Writes the payload: what [`Registration::decode`] makes an equal registration of.
    pub fn encode(&self) -> Vec<u8> {
        let facts = &self.facts;
        let port = i64::from(facts.address.port());
        let options = WireOptions {
            loadbalancing: self.strategy.map(|strategy| strategy.name().into()),
            hash_header: self.hash_header.as_deref().and_then(wire::said),
            weight: (facts.weight != 1.0).then_some(f64::from(facts.weight)),
        };
        let load = WireLoad { instance: wire::wire_usage(&self.load), host: wire::wire_usage(&self.host_load) };
        let has_options = options.loadbalancing.is_some() || options.hash_header.is_some() || options.weight.is_some();
        wire::write(&Wire {
            host: Some(facts.address.host().into()),
            port: facts.tls.is_none().then_some(port),
            tls_port: facts.tls.is_some().then_some(port),
            uris: Some(self.uris.iter().map(|uri| Text(Cow::Owned(uri.to_string()))).collect()),
            app: wire::said(facts.app.as_str()),
            private_instance_id: wire::said(facts.instance.as_str()),
            private_instance_index: wire::said(&facts.index),
            dea: facts.agent.as_ref().and_then(|agent| wire::said(agent.as_str())),
            tags: wire::wire_tags(&facts.tags),
            stale_threshold_in_seconds: self.lease.map(|lease| i64::try_from(lease.as_secs()).unwrap_or(i64::MAX)),
            protocol: (facts.protocol == Protocol::Http2).then(|| "http2".into()),
            server_cert_domain_san: facts.tls.as_ref().and_then(|tls| wire::said(&tls.server_name)),
            route_service_url: facts.route_service.as_deref().and_then(wire::said),
            isolation_segment: wire::said(&facts.isolation_segment),
            availability_zone: wire::said(&facts.zone),
            endpoint_updated_at_ns: self.updated_at_ns,
            options: has_options.then_some(options),
            load: (load.instance.is_some() || load.host.is_some()).then_some(load),
        })
    }
}

/// `port` and `tls_port` as written → the port that counts, with TLS or without. 0 is missing, as in gorouter.
///
/// # Errors
/// `bad_port` for numbers that are no ports, or if neither is given.
pub(super) fn port(plain: Option<i64>, tls: Option<i64>, san: &Option<Text>) -> Result<(u16, Option<Tls>), Rejection> {
    let proven = |key: &str, number: Option<i64>| match number {
        None | Some(0) => Ok(None),
        Some(number) => match u16::try_from(number) {
            Ok(port) => Ok(Some(port)),
            Err(_) => Err(Rejection::new(Reason::BadPort, format!("{key} is {number}, not from 1 to 65535"))),
        },
    };
    let (plain, tls) = (proven("port", plain)?, proven("tls_port", tls)?);
    if let Some(port) = tls {
        let server_name = wire::plain("server_cert_domain_san", san)?;
        return Ok((port, Some(Tls { server_name: server_name.into() })));
    }
    match plain {
        Some(port) => Ok((port, None)),
        None => Err(Rejection::new(Reason::BadPort, "neither port nor tls_port is given")),
    }
}

/// A host as written → with its port, proven to be an IP address or a name.
///
/// # Errors
/// `missing_host`, `bad_host`.
pub(super) fn address(host: &str, port: u16) -> Result<Address, Rejection> {
    if host.is_empty() {
        return Err(Rejection::new(Reason::MissingHost, "the message does not say at which host the instance is"));
    }
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let is_ip = bare.parse::<IpAddr>().is_ok();
    let is_name = host.len() <= HOST_BYTES_MAX
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if is_ip || is_name {
        Ok(Address::new(bare, port))
    } else {
        Err(Rejection::new(Reason::BadHost, format!("host {host:?} is neither a name nor an IP address")))
    }
}

/// # Errors
/// `bad_protocol`.
pub(super) fn protocol(name: &str) -> Result<Protocol, Rejection> {
    match name {
        "" | "http1" => Ok(Protocol::Http1),
        "http2" => Ok(Protocol::Http2),
        _ => Err(Rejection::new(Reason::BadProtocol, format!("protocol {name:?} is neither http1 nor http2"))),
    }
}

/// # Errors
/// `bad_weight`.
pub(super) fn weight(number: Option<f64>) -> Result<f32, Rejection> {
    match number {
        None => Ok(1.0),
        // Tested after narrowing: a tiny double becomes 0.
        Some(number) if number as f32 > 0.0 && (number as f32).is_finite() => Ok(number as f32),
        Some(number) => Err(Rejection::new(Reason::BadWeight, format!("weight {number} is not above 0"))),
    }
}

/// # Errors
/// `too_large`, and what [`RouteUri::parse`] finds.
pub(super) fn uris(written: &[Text<'_>]) -> Result<Vec<RouteUri>, Rejection> {
    if written.len() > URIS_MAX {
        return Err(Rejection::new(Reason::TooLarge, format!("{} uris, more than {URIS_MAX}", written.len())));
    }
    written.iter().map(|uri| RouteUri::parse(&uri.0)).collect()
}

fn route_service(url: &str) -> Result<Option<ArcStr>, Rejection> {
    match url {
        "" => Ok(None),
        _ if url.starts_with("https://") => Ok(Some(url.into())),
        _ => Err(Rejection::new(Reason::BadRouteServiceUrl, format!("route_service_url {url:?} is not https"))),
    }
}

/// Seconds as written → a lease; the router's own where they are missing or mean nothing.
fn lease(seconds: Option<i64>) -> Option<Duration> {
    let seconds = u64::try_from(seconds?).ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

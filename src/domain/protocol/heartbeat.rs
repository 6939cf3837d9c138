//! `dea.heartbeat`, `dea.shutdown` and `droplet.exited`: what host agents say about their instances. A heartbeat is a
//! superset of the one of Cloud Foundry's v2 DEA, which is read as well (it then is not taken for complete).

use std::borrow::Cow;
use std::time::Duration;

use arcstr::ArcStr;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::register;
use super::rejection::{DROPLETS_MAX, Reason, Rejection};
use super::route_uri::RouteUri;
use super::wire::{self, Text, WireTags, WireUsage};
use crate::domain::endpoint::{Facts, Protocol};
use crate::domain::identity::{AgentId, AppId, InstanceId};
use crate::domain::load::Usage;
use crate::domain::pace::Pace;

/// The schema from which on a heartbeat lists all instances of its agent.
const COMPLETE_SINCE: i64 = 2;

/// What one host agent says about all its instances.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// Who says it.
    pub agent: AgentId,
    /// Whether an instance that is left out is gone (schema 2 and later).
    pub complete: bool,
    /// Grows with every heartbeat of one life of the agent.
    pub seq: Option<u64>,
    /// Names that life; empty if unknown.
    pub boot: ArcStr,
    /// When it was sent, by the agent's clock: Unix time in nanoseconds.
    pub sent_at_ns: Option<i64>,
    /// How often heartbeats come.
    pub interval: Option<Duration>,
    /// The host's IP address or name; empty if unknown.
    pub host: ArcStr,
    /// Availability zone; empty if unknown.
    pub zone: ArcStr,
    /// Load of the host.
    pub load: Usage,
    /// The instances.
    pub entries: Vec<Entry>,
}

/// What a heartbeat says about one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its app.
    pub app: AppId,
    /// Its `private_instance_id`; empty if unknown.
    pub instance: InstanceId,
    /// The agent's own id of it (wire: `instance`); empty if unknown.
    pub local: InstanceId,
    /// Number in its app.
    pub index: Option<u64>,
    /// What it is doing.
    pub state: EntryState,
    /// Load of the instance.
    pub load: Usage,
    /// Where and for which routes it is to be registered, if the entry says so.
    pub serves: Serves,
}

/// What a heartbeat says about the routes of an instance.
#[derive(Clone, Debug, PartialEq)]
pub enum Serves {
    /// Nothing: whoever registered it decides.
    Unsaid,
    /// No route at all: leases are not renewed.
    Nothing,
    /// These facts, for these routes.
    Routes(Facts, Vec<RouteUri>),
}

/// What an instance is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EntryState {
    /// It is picked.
    #[default]
    Running,
    /// It is known but not picked.
    Starting,
    /// No new client, only those pinned to it (`DRAINING`, `STOPPING`, `EVACUATING`).
    Leaving,
    /// It is gone (`CRASHED`, `STOPPED`).
    Gone,
}

impl EntryState {
    fn parse(name: &str) -> Result<EntryState, Rejection> {
        match name {
            "RUNNING" | "" => Ok(EntryState::Running),
            // A DEA's instance is BORN before it starts and RESUMING after the agent's restart.
            "STARTING" | "BORN" | "RESUMING" => Ok(EntryState::Starting),
            "DRAINING" | "STOPPING" | "EVACUATING" => Ok(EntryState::Leaving),
            "CRASHED" | "STOPPED" => Ok(EntryState::Gone),
            _ => Err(Rejection::new(Reason::BadState, format!("no instance can be {name:?}"))),
        }
    }

    fn name(self) -> &'static str {
        match self {
            EntryState::Running => "RUNNING",
            EntryState::Starting => "STARTING",
            EntryState::Leaving => "DRAINING",
            EntryState::Gone => "STOPPED",
        }
    }
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct Wire<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    dea: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    boot_id: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    sent_at: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval_ms: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    host: Option<WireHost<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    droplets: Option<Vec<WireDroplet<'a>>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct WireHost<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    ip: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    zone: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<WireUsage>,
}

/// `version`, `state_timestamp` and `cc_partition` are for others; here they only have to be of the right type.
#[derive(Debug, Default, Deserialize, Serialize)]
struct WireDroplet<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    droplet: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    version: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    instance: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    state: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_timestamp: Option<f64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    cc_partition: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    private_instance_id: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    host: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_port: Option<i64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    server_cert_domain_san: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    protocol: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    isolation_segment: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    uris: Option<Vec<Text<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<WireUsage>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    tags: Option<WireTags<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<f64>,
}

impl Heartbeat {
    /// Reads the payload of `dea.heartbeat`.
    ///
    /// # Errors
    /// The message is refused whole for the first mistake found.
    pub fn decode(payload: &[u8]) -> Result<Heartbeat, Rejection> {
        Heartbeat::decode_in_strides(payload, &mut Pace::default())
    }

    /// The same at a pace.
    ///
    /// # Errors
    /// As those of [`Heartbeat::decode`].
    pub fn decode_in_strides(payload: &[u8], pace: &mut Pace) -> Result<Heartbeat, Rejection> {
        let wire: Wire = wire::read(payload)?;
        pace.rest();
        let agent = agent(&wire.dea)?;
        let host = wire.host.unwrap_or_default();
        let droplets = wire.droplets.unwrap_or_default();
        if droplets.len() > DROPLETS_MAX {
            let sentence = format!("{} droplets, more than {DROPLETS_MAX}", droplets.len());
            return Err(Rejection::new(Reason::TooLarge, sentence));
        }
        let mut heartbeat = Heartbeat {
            agent,
            complete: wire.schema.is_some_and(|schema| schema >= COMPLETE_SINCE),
            seq: wire.seq,
            boot: wire::shared("boot_id", &wire.boot_id)?,
            sent_at_ns: time(wire::plain("sent_at", &wire.sent_at)?)?,
            interval: wire.interval_ms.filter(|ms| *ms > 0).map(Duration::from_millis),
            host: wire::shared("host.ip", &host.ip)?,
            zone: wire::shared("host.zone", &host.zone)?,
            load: wire::usage("host", &host.load)?,
            entries: Vec::new(),
        };
        let entries = droplets.iter().inspect(|_| pace.step()).map(|droplet| heartbeat.entry(droplet));
        heartbeat.entries = entries.collect::<Result<_, _>>()?;
        Ok(heartbeat)
    }

    fn entry(&self, wire: &WireDroplet) -> Result<Entry, Rejection> {
        let _proven_only = (wire::plain("version", &wire.version)?, wire::plain("cc_partition", &wire.cc_partition)?);
        let app = AppId::new(wire::plain("droplet", &wire.droplet)?);
        let instance = InstanceId::new(wire::plain("private_instance_id", &wire.private_instance_id)?);
        Ok(Entry {
            local: InstanceId::new(wire::plain("instance", &wire.instance)?),
            index: wire.index,
            state: EntryState::parse(wire::plain("state", &wire.state)?)?,
            load: wire::usage("instance", &wire.load)?,
            serves: self.serves(wire, &app, &instance)?,
            app,
            instance,
        })
    }

    fn serves(&self, wire: &WireDroplet, app: &AppId, instance: &InstanceId) -> Result<Serves, Rejection> {
        let uris = register::uris(wire.uris.as_deref().unwrap_or_default())?;
        let tags = wire::tags(&wire.tags)?;
        let weight = register::weight(wire.weight)?;
        let protocol = register::protocol(wire::plain("protocol", &wire.protocol)?)?;
        let isolation_segment = wire::shared("isolation_segment", &wire.isolation_segment)?;
        let own_host = wire::plain("host", &wire.host)?;
        let has_port = wire.port.is_some_and(|port| port != 0) || wire.tls_port.is_some_and(|port| port != 0);
        // A port that is given has to be one, whether it is needed or not.
        let port =
            has_port.then(|| register::port(wire.port, wire.tls_port, &wire.server_cert_domain_san)).transpose()?;
        let (port, tls) = match (&wire.uris, port) {
            (None, _) => return Ok(Serves::Unsaid),
            (Some(_), _) if uris.is_empty() => return Ok(Serves::Nothing),
            (Some(_), None) => return Ok(Serves::Unsaid),
            (Some(_), Some(port)) => port,
        };
        let host = if own_host.is_empty() { &*self.host } else { own_host };
        let facts = Facts {
            address: register::address(host, port)?,
            tls,
            protocol,
            app: app.clone(),
            instance: instance.clone(),
            index: wire.index.map(|index| index.to_string().into()).unwrap_or_default(),
            agent: Some(self.agent.clone()),
            tags,
            zone: self.zone.clone(),
            isolation_segment,
            route_service: None,
            weight,
        };
        Ok(Serves::Routes(facts, uris))
    }

    /// Writes the payload: what [`Heartbeat::decode`] makes an equal heartbeat of.
    pub fn encode(&self) -> Vec<u8> {
        wire::write(&Wire {
            dea: Some(self.agent.as_str().into()),
            schema: self.complete.then_some(COMPLETE_SINCE),
            seq: self.seq,
            boot_id: wire::said(&self.boot),
            sent_at: self.sent_at_ns.and_then(written_time).map(|at| Text(Cow::Owned(at))),
            interval_ms: self.interval.map(|interval| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)),
            host: Some(WireHost {
                ip: wire::said(&self.host),
                zone: wire::said(&self.zone),
                load: wire::wire_usage(&self.load),
            }),
            droplets: Some(self.entries.iter().map(Entry::wire).collect()),
        })
    }
}

impl Entry {
    fn wire(&self) -> WireDroplet<'_> {
        let common = WireDroplet {
            droplet: wire::said(self.app.as_str()),
            instance: wire::said(self.local.as_str()),
            index: self.index,
            state: Some(self.state.name().into()),
            private_instance_id: wire::said(self.instance.as_str()),
            load: wire::wire_usage(&self.load),
            ..WireDroplet::default()
        };
        match &self.serves {
            Serves::Unsaid => common,
            Serves::Nothing => WireDroplet { uris: Some(Vec::new()), ..common },
            Serves::Routes(facts, uris) => {
                let port = i64::from(facts.address.port());
                WireDroplet {
                    host: Some(facts.address.host().into()),
                    port: facts.tls.is_none().then_some(port),
                    tls_port: facts.tls.is_some().then_some(port),
                    server_cert_domain_san: facts.tls.as_ref().and_then(|tls| wire::said(&tls.server_name)),
                    protocol: (facts.protocol == Protocol::Http2).then(|| "http2".into()),
                    isolation_segment: wire::said(&facts.isolation_segment),
                    uris: Some(uris.iter().map(|uri| Text(Cow::Owned(uri.to_string()))).collect()),
                    tags: wire::wire_tags(&facts.tags),
                    weight: (facts.weight != 1.0).then_some(f64::from(facts.weight)),
                    ..common
                }
            }
        }
    }
}

/// `dea.shutdown`: an agent leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Which.
    pub agent: AgentId,
}

#[derive(Deserialize, Serialize)]
struct WireShutdown<'a> {
    #[serde(borrow)]
    dea: Option<Text<'a>>,
}

impl Shutdown {
    /// Reads the payload.
    ///
    /// # Errors
    /// The message is refused whole for the first mistake found.
    pub fn decode(payload: &[u8]) -> Result<Shutdown, Rejection> {
        let wire: WireShutdown = wire::read(payload)?;
        Ok(Shutdown { agent: agent(&wire.dea)? })
    }

    /// Writes the payload.
    pub fn encode(&self) -> Vec<u8> {
        wire::write(&WireShutdown { dea: Some(self.agent.as_str().into()) })
    }
}

/// `droplet.exited`: an instance is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exited {
    /// Its app; empty if unknown.
    pub app: AppId,
    /// The agent's id of it, or its `private_instance_id`; empty if unknown.
    pub instance: InstanceId,
    /// Number in its app.
    pub index: Option<u64>,
    /// Why it went, for people.
    pub reason: String,
}

#[derive(Deserialize, Serialize)]
struct WireExited<'a> {
    #[serde(borrow)]
    droplet: Option<Text<'a>>,
    #[serde(borrow)]
    instance: Option<Text<'a>>,
    index: Option<u64>,
    #[serde(borrow)]
    reason: Option<Text<'a>>,
}

impl Exited {
    /// Reads the payload.
    ///
    /// # Errors
    /// The message is refused whole for the first mistake found; `missing_id` if it names no instance, neither by its id
    /// nor by app and index.
    pub fn decode(payload: &[u8]) -> Result<Exited, Rejection> {
        let wire: WireExited = wire::read(payload)?;
        let exited = Exited {
            app: AppId::new(wire::plain("droplet", &wire.droplet)?),
            instance: InstanceId::new(wire::plain("instance", &wire.instance)?),
            index: wire.index,
            reason: wire::plain("reason", &wire.reason)?.to_owned(),
        };
        if exited.instance.is_empty() && (exited.app.is_empty() || exited.index.is_none()) {
            return Err(Rejection::new(Reason::MissingId, "the message does not say which instance exited"));
        }
        Ok(exited)
    }

    /// Writes the payload.
    pub fn encode(&self) -> Vec<u8> {
        wire::write(&WireExited {
            droplet: Some(self.app.as_str().into()),
            instance: Some(self.instance.as_str().into()),
            index: self.index,
            reason: Some((&*self.reason).into()),
        })
    }
}

fn agent(id: &Option<Text>) -> Result<AgentId, Rejection> {
    match wire::plain("dea", id)? {
        "" => Err(Rejection::new(Reason::MissingId, "the message does not say which agent it is from")),
        id => Ok(AgentId::new(id)),
    }
}

/// RFC 3339 → Unix time in nanoseconds; empty is missing.
fn time(written: &str) -> Result<Option<i64>, Rejection> {
    if written.is_empty() {
        return Ok(None);
    }
    let at = OffsetDateTime::parse(written, &Rfc3339)
        .map_err(|error| Rejection::new(Reason::BadTime, format!("{written:?}: {error}")))?;
    i64::try_from(at.unix_timestamp_nanos())
        .map(Some)
        .map_err(|_| Rejection::new(Reason::BadTime, format!("{written:?} is centuries away")))
}

fn written_time(nanos: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp_nanos(nanos.into()).ok()?.format(&Rfc3339).ok()
}

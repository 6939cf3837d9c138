//! `/routes`: the route table in the layout that gorouter's tools know (uri → list of endpoints), with more about each.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::Settings;
use crate::domain::balance::{self, Explained, State};
use crate::domain::endpoint::{Endpoint, Protocol};
use crate::domain::load::Usage;
use crate::domain::moment::Moment;
use crate::domain::table::snapshot::{Pool, Snapshot};

/// A piece of the answer is about this large: a short time of work for one who also has other things to do.
const PIECE_BYTES: usize = 64 * 1024;

/// The table as it was when it was asked for, made into text piece by piece: with 100,000 routes the whole text would
/// be tens of megabytes.
pub(super) struct Listing {
    pools: std::vec::IntoIter<Arc<Pool>>,
    settings: Arc<Settings>,
    now: Moment,
    part: Part,
}

enum Part {
    First,
    Middle,
    Over,
}

impl Listing {
    /// Sorts the routes by name.
    pub(super) fn of(snapshot: &Snapshot, settings: Arc<Settings>, now: Moment) -> Listing {
        let mut pools: Vec<_> = snapshot.pools().cloned().collect();
        pools.sort_unstable_by(|a, b| a.route.cmp(&b.route));
        Listing { pools: pools.into_iter(), settings, now, part: Part::First }
    }

    fn pool(&self, pool: &Pool, out: &mut Vec<u8>) {
        let explained = balance::explain(pool, &self.settings.wish(), &self.settings.score, self.now);
        let endpoints: Vec<_> = explained.iter().map(|known| Listed::of(known, self.now)).collect();
        push(out, &*pool.route);
        out.push(b':');
        push(out, &endpoints);
    }
}

impl Iterator for Listing {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if matches!(self.part, Part::Over) {
            return None;
        }
        let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        while piece.len() < PIECE_BYTES {
            let Some(pool) = self.pools.next() else {
                piece.extend_from_slice(if matches!(self.part, Part::First) { b"{}\n" } else { b"}\n" });
                self.part = Part::Over;
                break;
            };
            piece.push(if matches!(self.part, Part::First) { b'{' } else { b',' });
            self.part = Part::Middle;
            self.pool(&pool, &mut piece);
        }
        Some(piece.into())
    }
}

fn push(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("plain structures with text as keys, written to memory");
}

/// One endpoint of a route. The keys from `address` to `server_cert_domain_san` are gorouter's.
#[derive(Debug, Serialize)]
pub(super) struct Listed<'a> {
    /// `host:port`.
    address: Cow<'a, str>,
    availability_zone: Cow<'a, str>,
    protocol: Cow<'a, str>,
    tls: bool,
    /// Seconds after which it is forgotten if nothing is heard of it; -1: never.
    ttl: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    route_service_url: Option<Cow<'a, str>>,
    tags: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    isolation_segment: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    private_instance_id: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    server_cert_domain_san: Cow<'a, str>,

    #[serde(skip_serializing_if = "str::is_empty")]
    app: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    index: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    dea: Cow<'a, str>,
    /// `running`, `starting`, `draining` or `ejected`.
    state: Cow<'a, str>,
    /// Milliseconds until it is no longer ejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    ejected_for_ms: Option<u64>,
    /// What it and its host reported last.
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<Reported>,
    /// Age of that report in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat_age_ms: Option<u64>,
    /// What the article's formula makes of that report: 0 is idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    /// The weight that follows from it, times the static one.
    weight: f32,
    static_weight: f32,
    /// Chance that the next request goes there.
    chance: f64,
    /// Requests in flight, to the end of the body or tunnel.
    in_flight: u32,
    /// Requests that wait for their response head.
    waiting: u32,
    /// Share of recent attempts that failed.
    failure_rate: f32,
    /// Against the mean of the route: 2 is twice as slow.
    relative_latency: f32,
}

impl<'a> Listed<'a> {
    /// What is known of an endpoint at `now`.
    pub(super) fn of(known: &Explained<'a>, now: Moment) -> Listed<'a> {
        let endpoint = known.endpoint;
        let live = &endpoint.live;
        let heard = live.heard();
        let tls_name = endpoint.tls.as_ref().map(|tls| &*tls.server_name).filter(|name| !name.is_empty());
        Listed {
            address: endpoint.address.to_string().into(),
            availability_zone: (&*endpoint.zone).into(),
            protocol: match endpoint.protocol {
                Protocol::Http1 => "http1".into(),
                Protocol::Http2 => "http2".into(),
            },
            tls: endpoint.tls.is_some(),
            ttl: endpoint.lease_s.map_or(-1, |seconds| seconds.get().into()),
            route_service_url: endpoint.route_service.as_deref().map(Cow::from),
            tags: endpoint.tags.iter().map(|(key, value)| (key.into(), value.into())).collect(),
            isolation_segment: (&*endpoint.isolation_segment).into(),
            private_instance_id: endpoint.instance.as_str().into(),
            server_cert_domain_san: tls_name.unwrap_or_default().into(),
            app: endpoint.app.as_str().into(),
            index: (&*endpoint.index).into(),
            dea: endpoint.agent.as_ref().map_or("", |agent| agent.as_str()).into(),
            state: state_of(endpoint, now).into(),
            ejected_for_ms: live.ejected_until(now).map(|until| millis(until.since(now))),
            load: heard.map(|heard| Reported { instance: heard.instance.into(), host: heard.host.into() }),
            heartbeat_age_ms: heard.map(|heard| millis(now.since(heard.at))),
            score: known.loads.map(|loads| loads.load),
            weight: known.weight,
            static_weight: endpoint.weight,
            chance: known.probability,
            in_flight: live.open(),
            waiting: live.waiting(),
            failure_rate: live.failure_rate(),
            relative_latency: known.relative_latency,
        }
    }
}

/// Its state as one word.
pub(super) fn state_of(endpoint: &Endpoint, now: Moment) -> &'static str {
    match endpoint.live.state() {
        State::Running if endpoint.live.ejected_until(now).is_some() => "ejected",
        State::Running => "running",
        State::Starting => "starting",
        State::Draining => "draining",
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Usage as in the messages of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Reported {
    instance: Shares,
    host: Shares,
}

/// Shares from 0 to 1; absent is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Shares {
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    io: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    net: Option<f32>,
}

impl From<Usage> for Shares {
    fn from(usage: Usage) -> Shares {
        let [cpu, mem, io, net] =
            [usage.cpu, usage.mem, usage.io, usage.net].map(|share| share.map(|share| share.get()));
        Shares { cpu, mem, io, net }
    }
}

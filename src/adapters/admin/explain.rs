//! `/v1/explain`: where a request would go, and why.

use std::borrow::Cow;

use serde::Serialize;

use super::Settings;
use super::routes::{Listed, state_of};
use crate::domain::balance::{self, Eligibility, Explained, Strategy, Wish};
use crate::domain::moment::Moment;
use crate::domain::table::snapshot::{Found, Pool, Snapshot};

/// A request somebody wonders about.
pub(super) struct Question<'a> {
    /// As in `Host`, with or without a port.
    pub(super) host: &'a str,
    /// As in the request line.
    pub(super) path: &'a str,
    /// Value of the sticky cookie.
    pub(super) session: Option<&'a str>,
    /// Value of the route's hash header.
    pub(super) hash_key: Option<&'a str>,
}

/// The answer.
#[derive(Serialize)]
pub(super) struct Explanation<'a> {
    host: Cow<'a, str>,
    path: Cow<'a, str>,
    /// `found`, `no_endpoints` or `unknown_route`.
    result: Cow<'a, str>,
    /// The same as a sentence.
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<Cow<'a, str>>,
    /// What the cookie does, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Session>,
    endpoints: Vec<Candidate<'a>>,
}

/// What a sticky cookie does.
#[derive(Serialize)]
struct Session {
    /// The endpoint it leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned_to: Option<String>,
    why: String,
}

/// An endpoint of the route.
#[derive(Serialize)]
struct Candidate<'a> {
    #[serde(flatten)]
    listed: Listed<'a>,
    eligible: bool,
    /// Why, or why not.
    why: Cow<'a, str>,
    /// What it could do for us against the mean of the route (strategy `adaptive`).
    capacity: f32,
    /// Share of its traffic it gets while it is new or just back.
    slow_start: f32,
    /// What the strategy compares, if it compares: the least is picked.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f32>,
}

/// Explains.
pub(super) fn explain<'a>(
    snapshot: &'a Snapshot,
    question: &Question<'a>,
    settings: &Settings,
    now: Moment,
) -> Explanation<'a> {
    let host = without_port(question.host);
    let (result, pool) = match snapshot.lookup(host, question.path) {
        Found::Pool(pool) => ("found", Some(pool)),
        Found::Empty(pool) => ("no_endpoints", Some(pool)),
        Found::Nothing => ("unknown_route", None),
    };
    let why = match pool {
        Some(pool) => matched(pool, host),
        None => format!("neither {host} nor a wildcard above it has a route for this path"),
    };
    let wish = Wish { hash_key: question.hash_key.map(str::as_bytes), ..settings.wish() };
    let candidates = |pool: &'a Pool| -> Vec<_> {
        let known = balance::explain(pool, &wish, &settings.score, now);
        known.iter().map(|known| candidate(pool, known, now)).collect()
    };
    Explanation {
        host: host.into(),
        path: question.path.into(),
        result: result.into(),
        why,
        route: pool.map(|pool| (&*pool.route).into()),
        strategy: pool.map(|pool| strategy(pool, &wish).into()),
        session: pool.zip(question.session).map(|(pool, session)| pinned(pool, session, now)),
        endpoints: pool.map(|pool| candidates(pool)).unwrap_or_default(),
    }
}

fn matched(pool: &Pool, host: &str) -> String {
    let (name, path) = pool.route.split_once('/').unwrap_or((&pool.route, ""));
    let host = if name.eq_ignore_ascii_case(host) { "the host as it is" } else { "the most specific wildcard" };
    let path =
        if path.is_empty() { String::new() } else { format!(", and /{path} is the longest path of whole segments") };
    match pool.endpoints.len() {
        0 => format!("{} matches ({host}{path}), but nobody serves it", pool.route),
        _ => format!("{} matches: {host}{path}", pool.route),
    }
}

/// The pool's strategy, or what it falls back to.
fn strategy(pool: &Pool, wish: &Wish<'_>) -> String {
    match (pool.strategy, wish.hash_key, &pool.hash_header) {
        (Strategy::Hash, None, Some(header)) => format!("hash of {header}; adaptive without that header"),
        (Strategy::Hash, Some(_), Some(header)) => format!("hash of {header}"),
        (strategy, ..) => strategy.name().to_owned(),
    }
}

fn pinned(pool: &Pool, session: &str, now: Moment) -> Session {
    if let Some(endpoint) = balance::pinned(pool, session, now) {
        let why = "the cookie names this instance, and it can be used".to_owned();
        return Session { pinned_to: Some(endpoint.address.to_string()), why };
    }
    let known = pool.endpoints.iter().any(|endpoint| endpoint.instance.as_str() == session);
    let why = match known {
        true => "the instance of the cookie is starting, ejected or full: balanced afresh, and the cookie set anew",
        false => "no instance of this route has the cookie's id: balanced afresh, and the cookie set anew",
    };
    Session { pinned_to: None, why: why.to_owned() }
}

fn candidate<'a>(pool: &Pool, known: &Explained<'a>, now: Moment) -> Candidate<'a> {
    let endpoint = known.endpoint;
    let listed = Listed::of(known, now);
    let picked = known.probability > 0.0;
    let why: Cow<'a, str> = match known.eligibility {
        Eligibility::Eligible => "can be picked".into(),
        Eligibility::NotRunning => format!("{}: only sessions pinned to it go there", state_of(endpoint, now)).into(),
        Eligibility::OtherZone => format!("in another zone ({:?})", &*endpoint.zone).into(),
        Eligibility::LeftOut => "left out: it kept failing".into(),
        Eligibility::Full => format!("has {} of {} requests in flight", endpoint.live.open(), pool.max_conns).into(),
        Eligibility::Tried => "this request has been there".into(),
    };
    let eligible = known.eligibility == Eligibility::Eligible;
    let why = if picked && !eligible { format!("{why}, but there is nobody better").into() } else { why };
    Candidate {
        listed,
        eligible,
        why,
        capacity: known.capacity,
        slow_start: known.slow_start,
        cost: known.cost.filter(|cost| cost.is_finite()),
    }
}

/// `[::1]:80` and `shop.test:80` without the port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

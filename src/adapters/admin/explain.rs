//! `/v1/explain`: where a request would go, and why.

use serde::Serialize;

use super::routes::Listed;
use crate::domain::balance;
use crate::domain::moment::Moment;
use crate::domain::table::snapshot::{Found, Pool, Snapshot};

/// A request somebody wonders about.
pub(super) struct Question<'a> {
    /// As in `Host`, with or without a port.
    pub(super) host: &'a str,
    /// As in the request line.
    pub(super) path: &'a str,
    /// Value of the sticky cookie; empty: none.
    pub(super) session: &'a str,
}

/// The answer.
#[derive(Serialize)]
pub(super) struct Explanation<'a> {
    host: &'a str,
    path: &'a str,
    /// `found`, `no_endpoints` or `unknown_route`.
    result: &'static str,
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned_to: Option<String>,
    endpoints: Vec<Listed<'a>>,
}

/// Explains.
pub(super) fn explain<'a>(snapshot: &'a Snapshot, question: &Question<'a>, now: Moment) -> Explanation<'a> {
    let host = without_port(question.host);
    let (result, pool) = match snapshot.lookup(host, question.path) {
        Found::Pool(pool) => ("found", Some(pool)),
        Found::Empty(pool) => ("no_endpoints", Some(pool)),
        Found::Nothing => ("unknown_route", None),
    };
    let pinned = pool.filter(|_| !question.session.is_empty());
    let pinned = pinned.and_then(|pool| balance::pinned(pool, question.session, now));
    Explanation {
        host,
        path: question.path,
        result,
        why: pool.map_or_else(
            || format!("no route is registered for {host} or a wildcard above it"),
            |pool| why(pool, host),
        ),
        route: pool.map(|pool| &*pool.route),
        strategy: pool.map(|pool| pool.strategy.name()),
        pinned_to: pinned.map(|endpoint| endpoint.address.to_string()),
        endpoints: pool.map_or_else(Vec::new, |pool| pool.endpoints.iter().map(|e| Listed::of(pool, e, now)).collect()),
    }
}

fn why(pool: &Pool, host: &str) -> String {
    let (name, path) = pool.route.split_once('/').unwrap_or((&pool.route, ""));
    let matched = if name.eq_ignore_ascii_case(host) { "the host as it is" } else { "the most specific wildcard" };
    match (pool.endpoints.len(), path) {
        (0, _) => format!("{} is known ({matched}), but nobody serves it", pool.route),
        (_, "") => format!("{} matches: {matched}", pool.route),
        (_, path) => format!("{} matches: {matched}, and /{path} is the longest path of whole segments", pool.route),
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

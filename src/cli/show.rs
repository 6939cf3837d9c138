//! Answers of a router as text for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;

/// The route table as the admin port tells it.
pub(super) type Routes = BTreeMap<String, Vec<Endpoint>>;

/// What is shown of an endpoint; all the rest is in the JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Endpoint {
    address: String,
    state: String,
    app: String,
    index: String,
    score: Option<f64>,
    weight: f64,
    chance: f64,
    in_flight: u32,
    waiting: u32,
    failure_rate: f64,
    relative_latency: f64,
    heartbeat_age_ms: Option<u64>,
    why: String,
    capacity: f64,
    slow_start: f64,
    cost: Option<f64>,
}

/// Where a request would go.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Explanation {
    why: String,
    strategy: Option<String>,
    session: Option<Session>,
    endpoints: Vec<Endpoint>,
}

/// What a sticky cookie does.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Session {
    pinned_to: Option<String>,
    why: String,
}

/// One line per endpoint; a route without any has one too.
pub(super) fn routes(routes: &Routes) -> String {
    if routes.is_empty() {
        return "no routes\n".into();
    }
    let head = ["ROUTE", "ENDPOINT", "STATE", "LOAD", "WEIGHT", "IN FLIGHT", "NEXT", "HEARTBEAT", "APP"];
    let mut lines = vec![head.map(String::from)];
    for (route, endpoints) in routes {
        if endpoints.is_empty() {
            lines.push([route.as_str(), "-", "", "", "", "", "", "", ""].map(clean));
        }
        for endpoint in endpoints {
            let app = match endpoint.index.as_str() {
                "" => endpoint.app.clone(),
                index => format!("{}:{index}", endpoint.app),
            };
            let line = [
                route,
                &endpoint.address,
                &endpoint.state,
                &endpoint.score.map_or("-".into(), percent),
                &decimal(endpoint.weight),
                &endpoint.in_flight.to_string(),
                &percent(endpoint.chance),
                &ago(endpoint.heartbeat_age_ms),
                &app,
            ];
            lines.push(line.map(|cell| clean(cell)));
        }
    }
    columns(&lines, 3..8)
}

/// The apps as the admin port tells them.
pub(super) type Apps = BTreeMap<String, App>;

/// What is shown of an app.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct App {
    state: String,
    name: Option<String>,
    requests: u64,
    in_flight: u64,
    waiting: u64,
    last_request_ms_ago: Option<u64>,
    failure: Option<String>,
}

/// One line per app.
pub(super) fn apps(apps: &Apps) -> String {
    if apps.is_empty() {
        return "no apps\n".into();
    }
    let head = ["APP", "STATE", "REQUESTS", "IN FLIGHT", "WAITING", "LAST REQUEST", "NAME"];
    let mut lines = vec![head.map(String::from)];
    lines.extend(apps.iter().map(|(id, app)| {
        let state = app.failure.as_ref().map_or(app.state.clone(), |why| format!("{}: {why}", app.state));
        [
            clean(id),
            clean(&state),
            app.requests.to_string(),
            app.in_flight.to_string(),
            app.waiting.to_string(),
            ago(app.last_request_ms_ago),
            clean(app.name.as_deref().unwrap_or_default()),
        ]
    }));
    columns(&lines, 2..6)
}

/// A sentence or two, then one line per endpoint.
pub(super) fn explanation(explanation: &Explanation) -> String {
    let mut text = format!("{}\n", clean(&explanation.why));
    if let Some(session) = &explanation.session {
        let whom = session.pinned_to.as_ref().map_or("nobody".into(), |address| clean(address));
        let _infallible = writeln!(text, "the session is pinned to {whom}: {}", clean(&session.why));
    }
    if let Some(strategy) = &explanation.strategy {
        let _infallible = writeln!(text, "strategy: {}", clean(strategy));
    }
    if explanation.endpoints.is_empty() {
        return text;
    }
    let head = [
        "ENDPOINT",
        "NEXT",
        "COST",
        "LOAD",
        "WEIGHT",
        "CAPACITY",
        "WAITING",
        "IN FLIGHT",
        "LATENCY",
        "FAILURES",
        "HEARTBEAT",
        "WHY",
    ];
    let mut lines = vec![head.map(String::from)];
    lines.extend(explanation.endpoints.iter().map(|endpoint| {
        [
            clean(&endpoint.address),
            percent(endpoint.chance),
            endpoint.cost.map_or("-".into(), |cost| format!("{cost:.2}")),
            endpoint.score.map_or("-".into(), percent),
            decimal(endpoint.weight),
            format!("×{:.2}", endpoint.capacity * endpoint.slow_start),
            endpoint.waiting.to_string(),
            endpoint.in_flight.to_string(),
            format!("×{:.2}", endpoint.relative_latency),
            percent(endpoint.failure_rate),
            ago(endpoint.heartbeat_age_ms),
            clean(&endpoint.why),
        ]
    }));
    let legend = "NEXT: chance of the next request. COST: what the strategy compares, the least is picked. CAPACITY and LATENCY: \
                  against the mean.\n";
    format!("{text}\n{}\n{legend}", columns(&lines, 1..11))
}

/// What a terminal might obey becomes a question mark.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn decimal(number: f64) -> String {
    if number.fract() == 0.0 { format!("{number}") } else { format!("{number:.1}") }
}

fn ago(millis: Option<u64>) -> String {
    millis.map_or("-".into(), |age| format!("{:.1} s ago", age as f64 / 1000.0))
}

/// Lines with their cells under each other; the columns `numbers` are aligned to the right.
fn columns<const N: usize>(lines: &[[String; N]], numbers: std::ops::Range<usize>) -> String {
    let mut widths = [0; N];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if numbers.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_listed_under_each_other() {
        let answer = r#"{"blog.test": [], "shop.test/cart": [
            {"address": "10.0.0.1:80", "state": "running", "app": "shop", "index": "0", "in_flight": 12, "tls": false,
             "score": 0.186, "weight": 81, "chance": 1.0, "heartbeat_age_ms": 1234},
            {"address": "10.0.0.20:80", "state": "draining", "app": "sh\u001bop", "weight": 40.5}]}"#;
        let expected = "\
ROUTE           ENDPOINT      STATE     LOAD  WEIGHT  IN FLIGHT   NEXT  HEARTBEAT  APP
blog.test       -
shop.test/cart  10.0.0.1:80   running   19 %      81         12  100 %  1.2 s ago  shop:0
shop.test/cart  10.0.0.20:80  draining     -    40.5          0    0 %          -  sh?op
";
        assert_eq!(routes(&serde_json::from_str(answer).expect("an answer")), expected);
        assert_eq!(routes(&Routes::new()), "no routes\n");
    }

    #[test]
    fn an_explanation_says_why_and_shows_who_there_is() {
        let answer = r#"{"host": "shop.test", "why": "shop.test matches", "strategy": "adaptive",
            "session": {"pinned_to": "10.0.0.1:80", "why": "it can be used"}, "endpoints": [
            {"address": "10.0.0.1:80", "state": "running", "weight": 81, "relative_latency": 0.5, "failure_rate": 0.012,
             "heartbeat_age_ms": 1200, "score": 0.186, "chance": 0.25, "cost": 1.5, "capacity": 2, "slow_start": 0.5,
             "waiting": 3, "in_flight": 4, "why": "can be picked"}]}"#;
        let expected = "\
shop.test matches
the session is pinned to 10.0.0.1:80: it can be used
strategy: adaptive

ENDPOINT     NEXT  COST  LOAD  WEIGHT  CAPACITY  WAITING  IN FLIGHT  LATENCY  FAILURES  HEARTBEAT  WHY
10.0.0.1:80  25 %  1.50  19 %      81     ×1.00        3          4    ×0.50       1 %  1.2 s ago  can be picked

NEXT: chance of the next request. COST: what the strategy compares, the least is picked. CAPACITY and LATENCY: against the mean.
";
        assert_eq!(explanation(&serde_json::from_str(answer).expect("an answer")), expected);
        let nothing = serde_json::from_str(r#"{"why": "no route"}"#).expect("an answer");
        assert_eq!(explanation(&nothing), "no route\n");
    }
}

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
    in_flight: u32,
    weight: f32,
    failure_rate: f32,
    relative_latency: f32,
    heartbeat_age_ms: Option<u64>,
}

/// Where a request would go.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Explanation {
    why: String,
    strategy: Option<String>,
    pinned_to: Option<String>,
    endpoints: Vec<Endpoint>,
}

/// One line per endpoint; a route without any has one too.
pub(super) fn routes(routes: &Routes) -> String {
    if routes.is_empty() {
        return "no routes\n".into();
    }
    let mut lines = vec![["ROUTE", "ENDPOINT", "STATE", "IN FLIGHT", "APP"].map(String::from)];
    for (route, endpoints) in routes {
        if endpoints.is_empty() {
            lines.push([route.as_str(), "-", "", "", ""].map(String::from));
        }
        for endpoint in endpoints {
            let app = match endpoint.index.as_str() {
                "" => endpoint.app.clone(),
                index => format!("{}:{index}", endpoint.app),
            };
            let in_flight = endpoint.in_flight.to_string();
            lines.push([route.clone(), endpoint.address.clone(), endpoint.state.clone(), in_flight, app]);
        }
    }
    columns(&lines)
}

/// A sentence or two, then one line per endpoint.
pub(super) fn explanation(explanation: &Explanation) -> String {
    let mut text = format!("{}\n", explanation.why);
    if let Some(pinned) = &explanation.pinned_to {
        let _infallible = writeln!(text, "the session is pinned to {pinned}");
    } else if let Some(strategy) = &explanation.strategy {
        let _infallible = writeln!(text, "one of its instances is picked by the strategy {strategy}");
    }
    if explanation.endpoints.is_empty() {
        return text;
    }
    let head = ["ENDPOINT", "STATE", "IN FLIGHT", "WEIGHT", "LATENCY", "FAILURES", "HEARTBEAT"];
    let mut lines = vec![head.map(String::from)];
    lines.extend(explanation.endpoints.iter().map(|endpoint| {
        [
            endpoint.address.clone(),
            endpoint.state.clone(),
            endpoint.in_flight.to_string(),
            endpoint.weight.to_string(),
            format!("×{:.2}", endpoint.relative_latency),
            format!("{:.1} %", endpoint.failure_rate * 100.0),
            endpoint.heartbeat_age_ms.map_or("-".into(), |age| format!("{:.1} s ago", age as f64 / 1000.0)),
        ]
    }));
    text + "\n" + &columns(&lines)
}

/// Lines with their cells under each other.
fn columns<const N: usize>(lines: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += cells.join("  ").trim_end();
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
            {"address": "10.0.0.1:80", "state": "running", "app": "shop", "index": "0", "in_flight": 12, "tls": false},
            {"address": "10.0.0.20:80", "state": "draining", "app": "shop"}]}"#;
        let expected = "\
ROUTE           ENDPOINT      STATE     IN FLIGHT  APP
blog.test       -
shop.test/cart  10.0.0.1:80   running   12         shop:0
shop.test/cart  10.0.0.20:80  draining  0          shop
";
        assert_eq!(routes(&serde_json::from_str(answer).expect("an answer")), expected);
        assert_eq!(routes(&Routes::new()), "no routes\n");
    }

    #[test]
    fn an_explanation_says_why_and_shows_who_there_is() {
        let answer = r#"{"host": "shop.test", "why": "shop.test matches", "strategy": "adaptive", "endpoints": [
            {"address": "10.0.0.1:80", "state": "running", "weight": 1.5, "relative_latency": 0.5, "failure_rate": 0.012,
             "heartbeat_age_ms": 1200}]}"#;
        let expected = "\
shop.test matches
one of its instances is picked by the strategy adaptive

ENDPOINT     STATE    IN FLIGHT  WEIGHT  LATENCY  FAILURES  HEARTBEAT
10.0.0.1:80  running  0          1.5     ×0.50    1.2 %     1.2 s ago
";
        assert_eq!(explanation(&serde_json::from_str(answer).expect("an answer")), expected);
        let nothing = serde_json::from_str(r#"{"why": "no route"}"#).expect("an answer");
        assert_eq!(explanation(&nothing), "no route\n");
    }
}

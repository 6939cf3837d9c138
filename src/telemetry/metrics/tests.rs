//! The exposition as a whole, and the page about it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::*;

/// Routes with series of their own.
const ROUTES_MAX: usize = 1_000;
use crate::domain::hash::Keyed;
use crate::domain::moment::Moment;
use crate::domain::table::snapshot::Snapshot;
use crate::domain::wake::{Ignored, LiveApps};

const MILLI: Duration = Duration::from_millis(1);

fn finished(status: u16) -> Finished {
    Finished { status, duration: MILLI, time_to_head: None, upstream: None, error: None, bytes_in: 0, bytes_out: 0 }
}

/// Everything that can be counted, once.
fn count_everything(metrics: &Metrics) {
    let shard = metrics.shard();
    shard.request_started();
    shard.request(&Finished {
        time_to_head: Some(MILLI),
        upstream: Some(MILLI),
        error: Some("no_endpoints"),
        bytes_in: 3,
        bytes_out: 5,
        ..finished(503)
    });
    shard.connection_opened();
    shard.connection_closed();
    shard.refused("bare_lf");
    shard.response_refused("status");
    shard.http2_reset("cancel");
    shard.http2_goaway("no_error");
    shard.accept_failed("no_descriptor");
    shard.tls_failed("no_certificate");
    drop(shard.upstream_connected(MILLI));
    shard.upstream_connect_failed("refused");
    shard.upstream_reused();
    shard.attempt_failed("reset");
    shard.retry("reset");
    shard.retry_denied();
    shard.ejected();
    shard.sticky(Sticky::Moved);
    shard.tunnel_opened();
    shard.tunnel_closed();
    shard.observation_dropped();
    shard.held();
    shard.not_held("too_many");
    let control = &metrics.control;
    control.message_received("router.register");
    control.message_rejected("router.register", "not_json");
    control.endpoints_removed("pruned", 2);
    control.heartbeat_age(MILLI);
    control.registration_latency(MILLI);
    control.snapshot_published(MILLI);
    control.ask_ended("started");
    control.memory_is_shared(true);
    control.memory_written("done");
    control.outgoing_dropped(1);
    control.app_news_ignored(Ignored::Stale);
}

fn text(metrics: &Metrics) -> String {
    let bus = BusCounts { connected: true, connects: 2, failures: 1, sent: 5, dropped: vec![("queue_full", 3)] };
    metrics.text(&Snapshot::empty(Keyed::new(1)), &LiveApps::default(), &bus, Moment::START)
}

#[track_caller]
fn check_has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|known| known == *line), "{line} is missing in\n{text}");
    }
}

#[test]
fn what_workers_count_is_summed() {
    let metrics = Metrics::new(ROUTES_MAX);
    let (one, two) = (metrics.shard(), metrics.shard());
    one.request_started();
    one.request_started();
    one.request(&Finished { bytes_in: 10, bytes_out: 20, ..finished(200) });
    two.request_started();
    two.request(&Finished { time_to_head: Some(3 * MILLI), bytes_out: 1, ..finished(200) });
    two.clone().request(&Finished { error: Some("unknown_route"), ..finished(404) });
    two.request(&finished(999));
    two.sticky(Sticky::Hit);
    drop(two);
    let expected = [
        r#"weighbridge_requests_total{code="200"} 2"#,
        r#"weighbridge_requests_total{code="404"} 1"#,
        r#"weighbridge_requests_total{code="other"} 1"#,
        "weighbridge_requests_in_flight 0",
        r#"weighbridge_request_duration_seconds_bucket{class="2xx",le="0.0005"} 0"#,
        r#"weighbridge_request_duration_seconds_bucket{class="2xx",le="0.001"} 2"#,
        r#"weighbridge_request_duration_seconds_bucket{class="2xx",le="+Inf"} 2"#,
        r#"weighbridge_request_duration_seconds_sum{class="2xx"} 0.002"#,
        r#"weighbridge_request_duration_seconds_count{class="2xx"} 2"#,
        r#"weighbridge_time_to_first_byte_seconds_bucket{class="2xx",le="0.0025"} 0"#,
        r#"weighbridge_time_to_first_byte_seconds_bucket{class="2xx",le="0.005"} 1"#,
        "weighbridge_request_body_bytes_total 10",
        "weighbridge_response_body_bytes_total 21",
        r#"weighbridge_router_errors_total{error="unknown_route"} 1"#,
        r#"weighbridge_sticky_requests_total{result="hit"} 1"#,
        r#"weighbridge_sticky_requests_total{result="new"} 0"#,
        "weighbridge_workers 2",
    ];
    check_has(&text(&metrics), &expected);
    one.request_started();
    one.connection_opened();
    one.connection_opened();
    one.connection_closed();
    check_has(&text(&metrics), &["weighbridge_requests_in_flight 0", "weighbridge_connections_open 1"]);
    let kept = one.upstream_connected(MILLI);
    drop(one.upstream_connected(MILLI));
    check_has(&text(&metrics), &["weighbridge_upstream_connections_open 1"]);
    drop(kept);
    check_has(
        &text(&metrics),
        &["weighbridge_upstream_connections_open 0", "weighbridge_upstream_connect_seconds_count 2"],
    );
}

#[test]
fn what_the_bus_brings_is_counted_by_subject() {
    let metrics = Metrics::new(ROUTES_MAX);
    metrics.control.message_received("dea.heartbeat");
    metrics.control.message_received("dea.heartbeat");
    metrics.control.message_rejected("router.register", "missing_host");
    metrics.control.endpoints_removed("pruned", 3);
    metrics.control.outgoing_dropped(4);
    let expected = [
        r#"weighbridge_bus_messages_received_total{subject="dea.heartbeat"} 2"#,
        r#"weighbridge_bus_messages_rejected_total{subject="router.register",reason="missing_host"} 1"#,
        r#"weighbridge_endpoints_removed_total{reason="pruned"} 3"#,
        r#"weighbridge_endpoints{state="running"} 0"#,
        "weighbridge_routes 0",
        "weighbridge_bus_connected 1",
        "weighbridge_bus_connects_total 2",
        "weighbridge_bus_messages_sent_total 5",
        r#"weighbridge_bus_messages_dropped_total{reason="queue_full"} 3"#,
        r#"weighbridge_bus_messages_dropped_total{reason="outgoing_full"} 4"#,
    ];
    check_has(&text(&metrics), &expected);
}

#[test]
fn pairs_of_labels_beyond_the_limit_are_counted_together() {
    let control = Control::default();
    let reasons: Vec<&'static str> = (0..600).map(|n| &*n.to_string().leak()).collect();
    reasons.iter().for_each(|reason| control.message_rejected("x", reason));
    control.message_rejected("x", reasons[0]);
    let counted = control
        .read(|counts| (counts.rejected.len(), counts.rejected[&("x", "0")], counts.rejected[&("other", "other")]));
    assert_eq!(counted, (513, 2, 88));
}

#[test]
fn the_exposition_is_what_prometheus_reads() {
    let metrics = Metrics::new(ROUTES_MAX);
    count_everything(&metrics);
    let text = text(&metrics);
    let (mut helps, mut types, mut series) = (Vec::new(), Vec::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helps.push(help.split_once(' ').expect("a name and a sentence").0);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            types.push(kind.split_once(' ').expect("a name and a type").0);
        } else {
            let (name, value) = line.rsplit_once(' ').expect("a series and a value");
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
            assert!(series.insert(name), "{name} twice");
            let family = types.last().expect("a type comes first");
            assert!(name.starts_with(family), "{name} is not of {family}");
        }
    }
    assert_eq!(helps, types);
    let everywhere = |name: &str| name.starts_with("process_") && !Path::new("/proc/self/stat").exists();
    let expected: Vec<_> = FAMILIES.iter().map(|family| family.name).filter(|name| !everywhere(name)).collect();
    let found: Vec<_> = types.clone();
    // Only a table with routes has series by route.
    let missing: Vec<_> = expected.iter().filter(|name| !found.contains(name)).collect();
    assert_eq!(missing, [&"weighbridge_route_requests_total"]);
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len());
}

#[test]
fn names_keep_the_rules() {
    let names: BTreeSet<_> = FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(names.len(), FAMILIES.len());
    for Family { name, kind, labels, help } in FAMILIES {
        assert!(name.starts_with("weighbridge_") || name.starts_with("process_"), "{name}");
        let plain =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        assert!(plain(name) && labels.iter().all(|label| plain(label) && *label != "le"), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert_eq!(
            name.ends_with("_seconds"),
            *kind == Kind::Histogram || *name == "process_start_time_seconds",
            "{name}"
        );
        assert!(help.ends_with('.') && !help.contains('|'), "{name}: {help}");
    }
}

#[test]
fn the_page_is_that_of_this_version() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/METRICS.md");
    let page = reference::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &page).expect("the page can be written");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == page, "docs/METRICS.md is stale: UPDATE_DOCS=1 cargo test --lib writes it");
}

//! `router.stats`: what happened with each app since the last report.

use std::sync::Arc;

use arcstr::ArcStr;
use bytes::Bytes;

use super::live::{Happened, LiveApp};
use crate::domain::moment::Moment;
use crate::domain::protocol::app::{AppStats, LatencyStats, Stats};

/// Bytes of one message, about: a bus that carries 1 MiB passes it with ease.
const BYTES_MAX: usize = 512 * 1024;
/// Bytes of one app beside its id, at most.
const FIGURES_BYTES: usize = 400;

/// Numbers the reports of one router.
#[derive(Debug)]
pub struct Reporter {
    router: ArcStr,
    seq: u64,
    last: Moment,
}

impl Reporter {
    /// Begins to report at `now`. `router`: the id it signs messages with.
    pub fn new(router: &str, now: Moment) -> Reporter {
        Reporter { router: router.into(), seq: 0, last: now }
    }

    /// The messages to publish now: one, or several (each with its own `seq` and apps of its own) if many apps were used.
    /// An app that was not used since the last report is left out. Do not call it while the bus is away: the next report
    /// then covers the whole time.
    pub fn report<'a>(&mut self, apps: impl Iterator<Item = &'a Arc<LiveApp>>, now: Moment) -> Vec<Bytes> {
        let interval_ms = u64::try_from(now.since(self.last).as_millis()).unwrap_or(u64::MAX);
        self.last = now;
        let mut parts = vec![Vec::new()]; // an empty one says that this router lives and had nothing to do
        let mut bytes = 0;
        for app in apps.filter(|app| !app.app().is_empty()) {
            let Some(happened) = app.take() else { continue };
            bytes += app.app().as_str().len() * 2 + FIGURES_BYTES; // twice: every byte may have to be escaped
            if bytes > BYTES_MAX {
                parts.push(Vec::new());
                bytes = 0;
            }
            let part = parts.last_mut().expect("there is one from the beginning");
            part.push((app.app().as_str(), stats_of(&happened, now)));
        }
        let message = |apps: Vec<(&str, AppStats)>| {
            self.seq += 1;
            Stats { router: &self.router, seq: self.seq, interval_ms, apps: &apps }.encode()
        };
        parts.into_iter().map(message).collect()
    }
}

/// As reports tell it.
pub fn stats_of(happened: &Happened, now: Moment) -> AppStats {
    AppStats {
        requests: happened.requests,
        in_flight: happened.in_flight,
        tunnels: happened.tunnels,
        last_request_ms_ago: happened.last_request.map(|last| now.since(last).as_millis() as u64),
        status: happened.answered,
        latency_ms: happened.latency.map(|latency| LatencyStats {
            p50: millis(latency.p50),
            p95: millis(latency.p95),
            p99: millis(latency.p99),
        }),
        bytes_in: happened.bytes_in,
        bytes_out: happened.bytes_out,
    }
}

/// Milliseconds with two digits after the point: more would pretend.
fn millis(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}

//! Sums the shards and reads the rest, family by family.

use super::count::{Count, Distribution, Labelled};
use super::exposition::Exposition;
use super::shard::{CLASSES, ClassSlots, Slots, Sticky};
use super::*;
use crate::domain::moment::Moment;
use crate::domain::table::snapshot::Snapshot;
use crate::domain::wake::{LiveApps, Stage};

impl Metrics {
    /// The text that Prometheus reads. Takes a while with a large table: not for a thread that serves requests.
    pub fn text(&self, table: &Snapshot, apps: &LiveApps, bus: &BusCounts, now: Moment) -> String {
        let mut exposition = Exposition::default();
        let shards = Shards(self.shards.lock().clone());
        shards.requests(&mut exposition);
        shards.connections(&mut exposition);
        shards.upstreams(&mut exposition);
        exposition.number(WORKERS, shards.0.len() as f64);
        exposition.number(ACCESS_LOG_RECORDS, self.access_log.written() as f64);
        exposition.number(ACCESS_LOG_DROPPED, self.access_log.dropped() as f64);
        shards.apps(apps, &mut exposition);
        self.control.gather_apps(&mut exposition);
        self.named.lock().gather(table, self.routes_max, now, &mut exposition);
        self.control.gather(bus, &mut exposition);
        process(&mut exposition);
        exposition.into_text()
    }
}

/// The counters of all workers there ever were.
struct Shards(Vec<Arc<Slots>>);

impl Shards {
    fn requests(&self, out: &mut Exposition) {
        let mut codes = BTreeMap::new();
        for (code, count) in self.0.iter().flat_map(|slots| slots.codes()) {
            *codes.entry(code).or_insert(0) += count;
        }
        let name = |code: Option<u16>| code.map_or_else(|| count::OTHER.to_owned(), |code| code.to_string());
        out.numbers(REQUESTS, codes.into_iter().map(|(code, count)| ([name(code)], count as f64)));
        out.number(REQUESTS_IN_FLIGHT, self.difference(|s| &s.requests_started, |s| &s.requests_finished));
        out.histograms(REQUEST_DURATION, self.by_class(|class, total| class.duration.add_to(total)));
        out.histograms(TIME_TO_FIRST_BYTE, self.by_class(|class, total| class.time_to_head.add_to(total)));
        out.histograms(UPSTREAM_RESPONSE, self.by_class(|class, total| class.upstream.add_to(total)));
        out.number(REQUEST_BYTES, self.sum(|s| &s.bytes_in));
        out.number(RESPONSE_BYTES, self.sum(|s| &s.bytes_out));
        out.numbers(ROUTER_ERRORS, self.labelled(|s| &s.router_errors));
        out.numbers(REFUSED, self.labelled(|s| &s.refused));
        out.numbers(RESPONSES_REFUSED, self.labelled(|s| &s.responses_refused));
    }

    fn connections(&self, out: &mut Exposition) {
        out.number(CONNECTIONS, self.sum(|s| &s.connections_opened));
        out.number(CONNECTIONS_OPEN, self.difference(|s| &s.connections_opened, |s| &s.connections_closed));
        out.numbers(HTTP2_RESETS, self.labelled(|s| &s.http2_resets));
        out.numbers(HTTP2_GOAWAYS, self.labelled(|s| &s.http2_goaways));
        out.numbers(ACCEPTS_FAILED, self.labelled(|s| &s.accepts_failed));
        out.numbers(TLS_FAILED, self.labelled(|s| &s.tls_failed));
        out.number(TUNNELS, self.sum(|s| &s.tunnels_opened));
        out.number(TUNNELS_OPEN, self.difference(|s| &s.tunnels_opened, |s| &s.tunnels_closed));
    }

    fn upstreams(&self, out: &mut Exposition) {
        let mut connect = Distribution::default();
        self.0.iter().for_each(|slots| slots.connect.add_to(&mut connect));
        out.histograms::<&str, 0>(UPSTREAM_CONNECT, [([], connect)]);
        out.numbers(UPSTREAM_CONNECT_FAILED, self.labelled(|s| &s.connect_failed));
        out.number(UPSTREAM_REUSED, self.sum(|s| &s.upstream_reused));
        out.number(UPSTREAM_OPEN, self.difference(|s| &s.upstream_opened, |s| &s.upstream_closed));
        out.numbers(ATTEMPTS_FAILED, self.labelled(|s| &s.attempts_failed));
        out.numbers(RETRIES, self.labelled(|s| &s.retries));
        out.number(RETRIES_DENIED, self.sum(|s| &s.retries_denied));
        let results = Sticky::LABELS.iter().enumerate();
        out.numbers(STICKY, results.map(|(n, label)| ([*label], self.sum(|s| &s.sticky[n]))));
        out.number(EJECTIONS, self.sum(|s| &s.ejections));
        out.number(OBSERVATIONS_DROPPED, self.sum(|s| &s.observations_dropped));
    }

    fn apps(&self, apps: &LiveApps, out: &mut Exposition) {
        let (stages, waiting) = apps.count();
        out.numbers(APPS, Stage::ALL.iter().zip(stages).map(|(stage, count)| ([stage.label()], count as f64)));
        out.number(APP_HELD, self.sum(|s| &s.held));
        out.number(APP_WAITING, waiting as f64);
        out.numbers(APP_REFUSED, self.labelled(|s| &s.not_held));
    }

    fn sum(&self, count: impl Fn(&Slots) -> &Count) -> f64 {
        self.total(&count) as f64
    }

    fn total(&self, count: &impl Fn(&Slots) -> &Count) -> u64 {
        self.0.iter().map(|slots| count(slots).get()).sum()
    }

    /// What was begun and has not ended.
    fn difference(&self, begun: impl Fn(&Slots) -> &Count, ended: impl Fn(&Slots) -> &Count) -> f64 {
        // Ended is read first: a thing that begins and ends in between then cannot make it negative.
        let ended = self.total(&ended);
        self.total(&begun).saturating_sub(ended) as f64
    }

    fn labelled(&self, counts: impl Fn(&Slots) -> &Labelled) -> impl Iterator<Item = ([&'static str; 1], f64)> {
        let mut totals = BTreeMap::new();
        for (label, count) in self.0.iter().flat_map(|slots| counts(slots).iter()) {
            *totals.entry(label).or_insert(0) += count;
        }
        totals.into_iter().map(|(label, count)| ([label], count as f64))
    }

    /// One distribution for every status class that occurred.
    fn by_class(&self, add: impl Fn(&ClassSlots, &mut Distribution)) -> Vec<([&'static str; 1], Distribution)> {
        let classes = CLASSES.iter().enumerate().map(|(n, name)| {
            let mut total = Distribution::default();
            self.0.iter().for_each(|slots| add(&slots.classes[n], &mut total));
            ([*name], total)
        });
        classes.filter(|(_, total)| total.buckets.iter().any(|count| *count > 0)).collect()
    }
}

impl Control {
    fn gather_apps(&self, out: &mut Exposition) {
        self.read(|counts| {
            out.number(APP_SLEEPS, counts.app_sleeps as f64);
            out.number(APP_START_FAILURES, counts.app_start_failures as f64);
            out.histograms::<&str, 0>(APP_WAKE_TIME, [([], counts.app_wake_time())]);
            let wakes = [("visited", counts.app_wakes_visited), ("started", counts.app_wakes_started)];
            out.numbers(APP_WAKES, wakes.map(|(reason, n)| ([reason], n as f64)));
            out.numbers(APP_IGNORED, counts.app_ignored.iter().map(|(reason, n)| ([*reason], *n as f64)));
        });
    }

    fn gather(&self, bus: &BusCounts, out: &mut Exposition) {
        self.read(|counts| {
            out.number(BUS_CONNECTED, f64::from(u8::from(bus.connected)));
            out.number(BUS_CONNECTS, bus.connects as f64);
            out.number(BUS_FAILURES, bus.failures as f64);
            out.number(TLS_LOADED, counts.tls_loaded as f64);
            out.number(TLS_REJECTED, counts.tls_rejected as f64);
            out.numbers(BUS_RECEIVED, counts.received.iter().map(|(subject, n)| ([*subject], *n as f64)));
            let rejected = counts.rejected.iter();
            out.numbers(BUS_REJECTED, rejected.map(|((subject, reason), n)| ([*subject, *reason], *n as f64)));
            out.number(BUS_SENT, bus.sent as f64);
            let dropped = bus.dropped.iter().copied().chain([("outgoing_full", counts.outgoing_dropped)]);
            out.numbers(BUS_DROPPED, dropped.map(|(reason, n)| ([reason], n as f64)));
            out.numbers(ENDPOINTS_REMOVED, counts.removed.iter().map(|(reason, n)| ([*reason], *n as f64)));
            out.histograms::<&str, 0>(HEARTBEAT_AGE, [([], counts.heartbeat_age())]);
            out.histograms::<&str, 0>(REGISTRATION_LATENCY, [([], counts.registration_latency())]);
            out.numbers(WAKE_ASKS, counts.asks.iter().map(|(outcome, n)| ([*outcome], *n as f64)));
            out.number(MEMORY_SHARED, f64::from(u8::from(counts.memory_is_shared)));
            out.numbers(MEMORY_WRITES, counts.memory_writes.iter().map(|(result, n)| ([*result], *n as f64)));
            out.histograms::<&str, 0>(SNAPSHOT_PUBLISH, [([], counts.publish_time())]);
        });
    }
}

fn process(out: &mut Exposition) {
    out.numbers(BUILD_INFO, [([env!("CARGO_PKG_VERSION")], 1.0)]);
    let process = process::read();
    let facts = [
        (PROCESS_CPU, process.cpu_seconds),
        (PROCESS_RESIDENT, process.resident_bytes),
        (PROCESS_VIRTUAL, process.virtual_bytes),
        (PROCESS_FDS, process.open_fds),
        (PROCESS_FDS_MAX, process.max_fds),
        (PROCESS_THREADS, process.threads),
        (PROCESS_START, process.start_seconds),
    ];
    for (family, fact) in facts {
        out.numbers::<&str, 0>(family, fact.map(|number| ([], number)));
    }
}

//! What the control plane counts: seldom enough for a lock.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::count::{Bounds, Distribution, Histogram, OTHER};
use crate::domain::wake::{Effect, Ignored};

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

const AGE_BOUNDS: Bounds<12> = [
    100 * MILLI,
    250 * MILLI,
    500 * MILLI,
    SECOND,
    2_500 * MILLI,
    5 * SECOND,
    7_500 * MILLI,
    10 * SECOND,
    15 * SECOND,
    30 * SECOND,
    60 * SECOND,
    300 * SECOND,
];

const LATENCY_BOUNDS: Bounds<12> = [
    MILLI,
    5 * MILLI,
    10 * MILLI,
    20 * MILLI,
    50 * MILLI,
    100 * MILLI,
    250 * MILLI,
    500 * MILLI,
    SECOND,
    5 * SECOND,
    15 * SECOND,
    60 * SECOND,
];

const PUBLISH_BOUNDS: Bounds<12> = [
    10_000,
    50_000,
    100_000,
    250_000,
    500_000,
    MILLI,
    2_500_000,
    5 * MILLI,
    10 * MILLI,
    50 * MILLI,
    250 * MILLI,
    SECOND,
];

const WAKE_BOUNDS: Bounds<12> = [
    100 * MILLI,
    500 * MILLI,
    SECOND,
    2 * SECOND,
    4 * SECOND,
    8 * SECOND,
    15 * SECOND,
    30 * SECOND,
    60 * SECOND,
    120 * SECOND,
    300 * SECOND,
    900 * SECOND,
];

/// Pairs of labels kept apart; both come from closed sets, so this is reached only by mistake.
const PAIRS_MAX: usize = 512;

/// Counters of the control plane.
#[derive(Debug)]
pub struct Control {
    counts: Mutex<Counts>,
}

#[derive(Debug)]
pub(super) struct Counts {
    pub(super) received: BTreeMap<&'static str, u64>,
    pub(super) rejected: BTreeMap<(&'static str, &'static str), u64>,
    pub(super) removed: BTreeMap<&'static str, u64>,
    pub(super) asks: BTreeMap<&'static str, u64>,
    pub(super) memory_is_shared: bool,
    pub(super) memory_writes: BTreeMap<&'static str, u64>,
    pub(super) outgoing_dropped: u64,
    pub(super) tls_loaded: u64,
    pub(super) tls_rejected: u64,
    pub(super) app_sleeps: u64,
    pub(super) app_start_failures: u64,
    pub(super) app_wakes_visited: u64,
    pub(super) app_wakes_started: u64,
    pub(super) app_ignored: BTreeMap<&'static str, u64>,
    app_wake_time: Histogram<12>,
    heartbeat_age: Histogram<12>,
    registration_latency: Histogram<12>,
    publish_time: Histogram<12>,
}

impl Default for Control {
    fn default() -> Control {
        Control {
            counts: Mutex::new(Counts {
                received: BTreeMap::new(),
                rejected: BTreeMap::new(),
                removed: BTreeMap::new(),
                asks: BTreeMap::new(),
                memory_is_shared: false,
                memory_writes: BTreeMap::new(),
                outgoing_dropped: 0,
                tls_loaded: 0,
                tls_rejected: 0,
                app_sleeps: 0,
                app_start_failures: 0,
                app_wakes_visited: 0,
                app_wakes_started: 0,
                app_ignored: BTreeMap::new(),
                app_wake_time: Histogram::new(&WAKE_BOUNDS),
                heartbeat_age: Histogram::new(&AGE_BOUNDS),
                registration_latency: Histogram::new(&LATENCY_BOUNDS),
                publish_time: Histogram::new(&PUBLISH_BOUNDS),
            }),
        }
    }
}

impl Control {
    /// A message on `subject` arrived and was applied.
    pub fn message_received(&self, subject: &'static str) {
        *self.counts.lock().received.entry(subject).or_default() += 1;
    }

    /// A message on `subject` was dropped whole for `reason`.
    pub fn message_rejected(&self, subject: &'static str, reason: &'static str) {
        let rejected = &mut self.counts.lock().rejected;
        let known = rejected.len() < PAIRS_MAX || rejected.contains_key(&(subject, reason));
        *rejected.entry(if known { (subject, reason) } else { (OTHER, OTHER) }).or_default() += 1;
    }

    /// `endpoints` were removed from the table because of `reason` (lease run out, unregistered, crashed, left out …).
    pub fn endpoints_removed(&self, reason: &'static str, endpoints: u64) {
        if endpoints > 0 {
            *self.counts.lock().removed.entry(reason).or_default() += endpoints;
        }
    }

    /// A heartbeat arrived `age` after the one before of the same agent: so old had what we knew become.
    pub fn heartbeat_age(&self, age: Duration) {
        self.counts.lock().heartbeat_age.observe(age);
    }

    /// A new endpoint was published `latency` after the time its registration says it came to be.
    pub fn registration_latency(&self, latency: Duration) {
        self.counts.lock().registration_latency.observe(latency);
    }

    /// A snapshot was made and published within `time`.
    pub fn snapshot_published(&self, time: Duration) {
        self.counts.lock().publish_time.observe(time);
    }

    /// An ask to start an app ended that way.
    pub fn ask_ended(&self, outcome: &'static str) {
        *self.counts.lock().asks.entry(outcome).or_default() += 1;
    }

    /// Whether sleeping apps and starts are shared with other routers.
    pub fn memory_is_shared(&self, is_shared: bool) {
        self.counts.lock().memory_is_shared = is_shared;
    }

    /// What became of a sleeping app that was to be shared.
    pub fn memory_written(&self, result: &'static str) {
        *self.counts.lock().memory_writes.entry(result).or_default() += 1;
    }

    /// Messages to the bus were dropped: its queue was full.
    pub fn outgoing_dropped(&self, messages: u64) {
        self.counts.lock().outgoing_dropped += messages;
    }

    /// Certificates and other files of TLS were read again and are in force.
    pub fn tls_loaded(&self) {
        self.counts.lock().tls_loaded += 1;
    }

    /// A file of TLS could not be used.
    pub fn tls_rejected(&self) {
        self.counts.lock().tls_rejected += 1;
    }

    /// Something happened to a sleeping app.
    pub fn app(&self, effect: &Effect) {
        let mut counts = self.counts.lock();
        match effect {
            Effect::Asleep(_) => counts.app_sleeps += 1,
            Effect::Failed { .. } => counts.app_start_failures += 1,
            Effect::Awake { took: Some(took), .. } => {
                counts.app_wakes_visited += 1;
                counts.app_wake_time.observe(*took);
            }
            Effect::Awake { took: None, .. } => counts.app_wakes_started += 1,
            Effect::Ask(_)
            | Effect::Unpark { .. }
            | Effect::AnswerPark { .. }
            | Effect::Probe { .. }
            | Effect::GaveUp { .. }
            | Effect::Forgotten { .. } => {}
        }
    }

    /// News about a sleeping app had no effect.
    pub fn app_news_ignored(&self, why: Ignored) {
        *self.counts.lock().app_ignored.entry(why.label()).or_default() += 1;
    }

    /// Reads all counters under one lock.
    pub(super) fn read<T>(&self, reader: impl FnOnce(&Counts) -> T) -> T {
        reader(&self.counts.lock())
    }
}

impl Counts {
    pub(super) fn heartbeat_age(&self) -> Distribution {
        distribution(&self.heartbeat_age)
    }

    pub(super) fn registration_latency(&self) -> Distribution {
        distribution(&self.registration_latency)
    }

    pub(super) fn app_wake_time(&self) -> Distribution {
        distribution(&self.app_wake_time)
    }

    pub(super) fn publish_time(&self) -> Distribution {
        distribution(&self.publish_time)
    }
}

fn distribution<const N: usize>(histogram: &Histogram<N>) -> Distribution {
    let mut total = Distribution::default();
    histogram.add_to(&mut total);
    total
}

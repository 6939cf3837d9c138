//! What changes about an endpoint with every request and report: requests in flight, the latency and failure estimates,
//! ejection, and the load last heard of. The guard that calls [`Live::begin`] and [`Live::finished`] lives in the
//! proxy.
//!
//! Five failures in a row eject. If the last of them is a failed connect or a reset it does so whatever the rest of the
//! fleet does (nobody listens there, and every try may cost a connect timeout); if the instance answered or kept silent
//! it does so only while fewer than a tenth of all attempts fail, since otherwise the app is ill, not the instance. A
//! third of the pool at most, one of two, never the last one.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::derived;
use super::fleet::Fleet;
use super::packed::{AtomicF32, AtomicPair, seconds_between, ticks};
use super::score::Learnt;
use crate::domain::load::Usage;
use crate::domain::moment::Moment;

/// How far one latency or failure moves the estimate; the first latency is trusted more, having nothing to lean on.
const ALPHA: f32 = 0.1;
const ALPHA_FIRST: f32 = 0.3;
/// Without samples the latency estimate returns to the fleet's mean with this time constant.
const FORGETTING_SECONDS: f32 = 10.0;
/// Relative latency is kept within these.
const RELATIVE_MIN: f32 = 0.25;
const RELATIVE_MAX: f32 = 64.0;
/// A failure weighs as a latency of at least this (the default time for a response head), so failing fast never looks
/// fast.
const FAILURE_SECONDS: f32 = 60.0;
/// An answer faster than this is not measured any finer.
const SECONDS_MIN: f32 = 1e-6;
/// A new instance comes to its full share within this time, from this share on.
const SLOW_START: Duration = Duration::from_secs(10);
const SLOW_START_MIN: f32 = 0.1;
/// Failures in a row that eject.
const STREAK: u8 = 5;
/// The first ejection; each one that follows soon doubles it, this often at most.
const EJECTION: Duration = Duration::from_secs(5);
const DOUBLINGS: u8 = 3;
/// Back for so long, an ejection is forgotten: the next one is a first one again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// Requests that must succeed after an ejection, and as many may be under way at once until then.
const PROBATION: u8 = 3;
/// The bit of `Live::begins` that is set by an ejection.
const EJECTED: u64 = 1;
/// While more of the fleet's attempts fail than this, an answer that is a failure ejects nobody.
const FLEET_FAILING: f32 = 0.1;

/// Whether an endpoint takes requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Takes requests.
    #[default]
    Running = 0,
    /// Known, but not picked: a sleeping app shows it as progress.
    Starting = 1,
    /// No new client, only those pinned to it.
    Draining = 2,
}

/// How an attempt ended, as far as the balance cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The response head came.
    Ok {
        /// From the request sent (or the first byte of it) to the response head.
        latency: Duration,
    },
    /// The response head came and says that the instance cannot do its work; [`Outcome::of_status`] decides.
    Failed {
        /// From the request sent to the response head.
        latency: Duration,
    },
    /// No connection, or no TLS.
    ConnectFailed,
    /// The connection broke before the response head.
    Reset,
    /// No response head in time.
    TimedOut {
        /// The time it had.
        timeout: Duration,
    },
    /// The client went away while it waited for the response head: the latency is at least this.
    Abandoned {
        /// From the request sent to the end of the client's patience.
        waited: Duration,
    },
    /// The attempt says nothing about the instance (a reused connection was already dead).
    Cancelled,
}

impl Outcome {
    /// What a response head means. 500, 502, 503 and 504 are failures: whatever the cause, an instance that gives more
    /// of them than the others is the wrong one to ask. Other 5xx speak about the request (501, 505) and are not.
    pub fn of_status(status: u16, latency: Duration) -> Outcome {
        match status {
            500 | 502 | 503 | 504 => Outcome::Failed { latency },
            _ => Outcome::Ok { latency },
        }
    }
}

/// What was last heard about the load of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Of the instance.
    pub instance: Usage,
    /// Of its host.
    pub host: Usage,
    /// When.
    pub at: Moment,
    /// How often such reports come.
    pub interval: Duration,
}

/// Shared by all workers and snapshots. What a pick reads comes first, within 64 bytes. Aligned to cache lines it would be
/// twice as large, and there are hundreds of thousands.
#[derive(Debug)]
#[repr(C)]
pub struct Live {
    /// EWMA of how far ln(seconds to the response head) is from the fleet's mean, and the tick of the last sample; NaN
    /// before the first. Kept as a distance, so that a change of the whole fleet's pace makes nobody look fast or slow.
    latency: AtomicPair,
    /// Nanoseconds from when on it takes requests, slowly at first. Odd: an ejection ends then; even: it is new or has started.
    begins: AtomicU64,
    waiting: AtomicU32,
    open: AtomicU32,
    /// w^0.3 as of the last recomputation; 0 before the first.
    capacity: AtomicF32,
    /// The article's weight as of the last recomputation; 0 before the first.
    article: AtomicF32,
    /// EWMA of failures, and [`Standing`].
    health: AtomicPair,
    /// Requests answered since the last report, to learn what one costs.
    completed: AtomicU32,
    state: AtomicU8,

    /// Written by the control plane when a heartbeat lands, read by it and by explain: never on the way of a request.
    learnt: Mutex<Option<Learnt>>,
}

/// The counts that change together with the failure estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    /// Failures in a row.
    streak: u8,
    /// How often the next ejection is doubled.
    doublings: u8,
    /// Successes still missing after an ejection.
    probation: u8,
}

impl Standing {
    fn of(word: u32) -> Standing {
        let [streak, doublings, probation, _] = word.to_le_bytes();
        Standing { streak, doublings, probation }
    }

    fn word(self) -> u32 {
        u32::from_le_bytes([self.streak, self.doublings, self.probation, 0])
    }
}

impl Live {
    /// A new endpoint, running, of which nothing is known.
    pub fn new(now: Moment) -> Live {
        Live {
            latency: AtomicPair::new(f32::NAN, 0),
            begins: AtomicU64::new(now.as_nanos() & !EJECTED),
            waiting: AtomicU32::new(0),
            open: AtomicU32::new(0),
            capacity: AtomicF32::new(0.0),
            article: AtomicF32::new(0.0),
            health: AtomicPair::new(0.0, 0),
            completed: AtomicU32::new(0),
            state: AtomicU8::new(State::Running as u8),
            learnt: Mutex::new(None),
        }
    }

    /// Whether it takes requests.
    pub fn state(&self) -> State {
        match self.state.load(Relaxed) {
            0 => State::Running,
            1 => State::Starting,
            _ => State::Draining,
        }
    }

    /// Sets whether it takes requests. One that has just started begins slowly.
    pub fn set_state(&self, state: State, now: Moment) {
        let before = self.state.swap(state as u8, Relaxed);
        if before == State::Starting as u8 && state == State::Running {
            self.begin_slowly(now);
        }
    }

    /// Its app has just woken up: it begins slowly. An ejection goes on.
    pub fn begin_slowly(&self, now: Moment) {
        let begin = |begins| match ejection_end(begins) {
            Some(end) if end > now => None,
            _ => Some(now.as_nanos() & !EJECTED),
        };
        let _ejected = self.begins.fetch_update(Relaxed, Relaxed, begin);
    }

    /// Requests sent and not yet answered with a response head.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Requests in flight to the end of the body or tunnel.
    pub fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// An attempt begins: it waits for its response head and is open. Every `begin` is followed by one `answered` and
    /// one `finished`.
    pub fn begin(&self) {
        self.waiting.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
    }

    /// An attempt waits no more, and what became of it says nothing: in place of `answered`.
    pub fn waits_no_more(&self) {
        let before = self.waiting.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "answered without begin");
    }

    /// The body or tunnel of an attempt has ended, or the attempt has failed.
    pub fn finished(&self) {
        let before = self.open.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "finished without begin");
    }

    /// The response head came, or will not come. Samples latency and failure. If that ejected the endpoint, returns for
    /// how long.
    pub fn answered(&self, fleet: &Fleet, outcome: Outcome, now: Moment) -> Option<Duration> {
        self.waits_no_more();
        match outcome {
            Outcome::Cancelled => None,
            Outcome::Abandoned { waited } => {
                self.sample_wait(fleet, ln_seconds(waited), now);
                None
            }
            Outcome::Ok { latency } => {
                self.completed.fetch_add(1, Relaxed);
                fleet.sample_failure(false);
                self.succeeded();
                let sample = ln_seconds(latency);
                let mean = fleet.sample_latency(sample);
                self.sample_latency(sample - mean, now);
                None
            }
            Outcome::Failed { latency } => {
                self.completed.fetch_add(1, Relaxed);
                self.failed(fleet, latency, Kind::Answer, now)
            }
            Outcome::TimedOut { timeout } => self.failed(fleet, timeout, Kind::Silence, now),
            Outcome::ConnectFailed | Outcome::Reset => self.failed(fleet, Duration::ZERO, Kind::Connection, now),
        }
    }

    fn succeeded(&self) {
        self.health.update(|failures, word| {
            let standing = Standing::of(word);
            let probation = standing.probation.saturating_sub(1);
            (failures - ALPHA * failures, Standing { streak: 0, probation, ..standing }.word())
        });
    }

    fn failed(&self, fleet: &Fleet, took: Duration, kind: Kind, now: Moment) -> Option<Duration> {
        let fleet_failures = fleet.sample_failure(true);
        let mut on_probation = false;
        let (failures, word) = self.health.update(|failures, word| {
            let standing = Standing::of(word);
            on_probation = standing.probation > 0;
            let streak = standing.streak.saturating_add(1);
            (failures + ALPHA * (1.0 - failures), Standing { streak, ..standing }.word())
        });
        let worse_than_the_fleet = failures > 2.0 * fleet_failures + 0.02;
        if kind == Kind::Silence || worse_than_the_fleet {
            // Leans on the mean of honest latencies; while there is none, nothing says what slow means here.
            if let Some(mean) = fleet.latency_so_far() {
                let distance = ln_seconds(took).max(FAILURE_SECONDS.ln()) - mean;
                // In an app whose answers take minutes, even that would not be slow.
                self.sample_latency(distance.max(RELATIVE_MAX.ln()), now);
            }
        }
        let standing = Standing::of(word);
        let out = on_probation || standing.streak >= STREAK;
        let its_own_fault = kind == Kind::Connection || fleet_failures < FLEET_FAILING;
        if out && its_own_fault { self.eject(fleet, now) } else { None }
    }

    fn eject(&self, fleet: &Fleet, now: Moment) -> Option<Duration> {
        let before = self.begins.load(Relaxed);
        let last_end = ejection_end(before);
        if last_end.is_some_and(|end| end > now) || !fleet.admit_ejection() {
            return None;
        }
        let forgiven = last_end.is_none_or(|end| now.since(end) > FORGIVEN_AFTER);
        let doublings = if forgiven { 0 } else { Standing::of(self.health.load().1).doublings };
        let term = jittered(EJECTION * (1 << doublings), now);
        let until = (now + term).as_nanos() | EJECTED;
        if self.begins.compare_exchange(before, until, Relaxed, Relaxed).is_err() {
            return None;
        }
        // It returns on probation, and slowly.
        let doublings = (doublings + 1).min(DOUBLINGS);
        self.health.update(|failures, _| (failures, Standing { streak: 0, doublings, probation: PROBATION }.word()));
        Some(term)
    }

    /// Until when it is left out, if it is.
    pub fn ejected_until(&self, now: Moment) -> Option<Moment> {
        ejection_end(self.begins.load(Relaxed)).filter(|end| *end > now)
    }

    /// Whether it is left out for failing: ejected, or back on probation with all its trial requests under way.
    pub(super) fn is_left_out(&self, now: Moment) -> bool {
        // Nearly all endpoints were never ejected: one load.
        ejection_end(self.begins.load(Relaxed)).is_some_and(|end| end > now || self.is_on_trial())
    }

    fn is_on_trial(&self) -> bool {
        let probation = Standing::of(self.health.load().1).probation;
        probation > 0 && self.waiting() >= u32::from(probation)
    }

    /// Share of its recent attempts that failed.
    pub fn failure_rate(&self) -> f32 {
        self.health.load().0
    }

    /// Takes in one more `ln(seconds) - mean`.
    fn sample_latency(&self, distance: f32, now: Moment) {
        let now = ticks(now);
        self.latency.update(|estimate, at| {
            let (from, alpha) =
                if estimate.is_nan() { (0.0, ALPHA_FIRST) } else { (forgotten(estimate, at, now), ALPHA) };
            (from + alpha * (distance - from), now)
        });
    }

    /// A wait without an answer counts only if it was longer than what was expected: without this, an instance that
    /// hangs would look idle to clients that are less patient than the timeout.
    fn sample_wait(&self, fleet: &Fleet, waited: f32, now: Moment) {
        let Some(mean) = fleet.latency_so_far() else { return };
        let (estimate, at) = self.latency.load();
        let expected = if estimate.is_nan() { 0.0 } else { forgotten(estimate, at, ticks(now)) };
        if waited - mean > expected {
            self.sample_latency(waited - mean, now);
        }
    }

    /// How slow it is against the fleet's mean: 1 is as slow, 2 twice as slow. 1 while unknown.
    pub fn relative_latency(&self, fleet: &Fleet, now: Moment) -> f32 {
        if fleet.knows_latency() { self.slowness(now) } else { 1.0 }
    }

    /// The same where the fleet is known to be known.
    pub(super) fn slowness(&self, now: Moment) -> f32 {
        let (estimate, at) = self.latency.load();
        if estimate.is_nan() {
            return 1.0;
        }
        forgotten(estimate, at, ticks(now)).exp().clamp(RELATIVE_MIN, RELATIVE_MAX)
    }

    /// A bound below [`Live::slowness`] that costs no exponential: what is forgotten moves towards 1, and e^x ≥ 1 + x.
    pub(super) fn slowness_at_least(&self) -> f32 {
        let (estimate, _) = self.latency.load();
        // min ignores NaN: nothing known is 1.
        (1.0 + estimate.min(0.0)).max(RELATIVE_MIN)
    }

    /// The share of its traffic that a new or returned endpoint gets: from a tenth to all within ten seconds.
    pub fn slow_start(&self, now: Moment) -> f32 {
        let age = now.as_nanos().saturating_sub(self.begins.load(Relaxed));
        if age >= SLOW_START.as_nanos() as u64 {
            return 1.0;
        }
        (age as f32 / SLOW_START.as_nanos() as f32).max(SLOW_START_MIN)
    }

    /// The last report, however old.
    pub fn heard(&self) -> Option<Heard> {
        self.learnt.lock().map(|learnt| learnt.heard())
    }

    pub(super) fn learnt(&self) -> Option<Learnt> {
        *self.learnt.lock()
    }

    pub(super) fn learn(&self, heard: Heard) {
        let served = self.completed.swap(0, Relaxed);
        let mut learnt = self.learnt.lock();
        *learnt = Some(Learnt::next(learnt.as_ref(), heard, served));
    }

    pub(super) fn set_capacity(&self, capacity: f32) {
        self.capacity.store(capacity);
    }

    pub(super) fn set_article(&self, weight: f32) {
        self.article.store(weight);
    }

    /// Capacity to the power of 0.3, as of the last recomputation.
    pub(super) fn capacity(&self) -> Option<f32> {
        let capacity = self.capacity.load();
        (capacity > 0.0).then_some(capacity)
    }

    /// The article's weight, as of the last recomputation.
    pub(super) fn article(&self) -> Option<f32> {
        let article = self.article.load();
        (article > 0.0).then_some(article)
    }
}

/// Where a failure showed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connection,
    Answer,
    Silence,
}

/// When an ejection ends or ended, if that is what `Live::begins` says.
fn ejection_end(begins: u64) -> Option<Moment> {
    (begins & EJECTED != 0).then_some(Moment::from_nanos(begins))
}

fn ln_seconds(latency: Duration) -> f32 {
    latency.as_secs_f32().max(SECONDS_MIN).ln()
}

fn forgotten(distance: f32, since: u32, now: u32) -> f32 {
    let idle = seconds_between(since, now);
    if idle == 0.0 { distance } else { distance * (-idle / FORGETTING_SECONDS).exp() }
}

/// ±10 %, so that endpoints ejected together do not all return together. The nanoseconds of `now` are chance enough.
fn jittered(term: Duration, now: Moment) -> Duration {
    let scattered = derived::hash(&now.as_nanos().to_le_bytes()) >> 40;
    term.mul_f32(0.9 + 0.2 * (scattered as f32 / (1u32 << 24) as f32))
}

#[cfg(test)]
mod tests;

//! What the endpoints of one pool share: the latency and failure rate of all of them, the position of round robin, and
//! how many of them are ejected. One per route; it outlives the snapshots.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::packed::{AtomicF32, AtomicPair};
use crate::domain::dice::Dice;
use crate::domain::moment::Moment;

/// Latency samples before relative latency counts at all.
const SAMPLES_NEEDED: u32 = 20;
/// How far one answer moves the fleet's mean latency and failure rate.
const ALPHA: f32 = 0.005;
/// Counting the ejected of a pool up to this size is cheaper than what else a pick does.
const CENSUS_EACH_PICK: usize = 64;
/// Bigger pools are counted this often.
const CENSUS_PERIOD: Duration = Duration::from_secs(1);

/// Shared by all workers and snapshots of one route.
#[derive(Debug)]
pub struct Fleet {
    /// Mean of ln(seconds to response head), and the number of samples in it.
    latency: AtomicPair,
    failures: AtomicF32,
    /// Next position of round robin; 0 until the first pick has rolled where to begin.
    position: AtomicU64,
    /// Number of endpoints when somebody last picked.
    size: AtomicU32,
    /// Ejected ones when somebody last counted.
    ejected: AtomicU32,
    next_census: AtomicU64,
    /// Means over the endpoints with a heartbeat, for those without one; 0 before the first heartbeat.
    capacity_mean: AtomicF32,
    article_mean: AtomicF32,
    responses: [AtomicU64; 5],
}

impl Default for Fleet {
    fn default() -> Fleet {
        Fleet {
            latency: AtomicPair::new(0.0, 0),
            failures: AtomicF32::new(0.0),
            position: AtomicU64::new(0),
            size: AtomicU32::new(0),
            ejected: AtomicU32::new(0),
            next_census: AtomicU64::new(0),
            capacity_mean: AtomicF32::new(0.0),
            article_mean: AtomicF32::new(0.0),
            responses: Default::default(),
        }
    }
}

impl Fleet {
    /// Counts a response that went to a client, by the class of its status (1xx to 5xx; anything else as 5xx).
    pub fn count_response(&self, status: u16) {
        let class = usize::from(status / 100).wrapping_sub(1).min(4);
        self.responses[class].fetch_add(1, Relaxed);
    }

    /// Responses so far by class of status: `[1xx, 2xx, 3xx, 4xx, 5xx]`.
    pub fn responses(&self) -> [u64; 5] {
        std::array::from_fn(|class| self.responses[class].load(Relaxed))
    }

    /// Share of recent attempts that failed, over all endpoints (about the last 200 attempts).
    pub fn failure_rate(&self) -> f32 {
        self.failures.load()
    }

    /// Whether there were answers enough to tell who is slow.
    pub fn knows_latency(&self) -> bool {
        self.latency.load().1 >= SAMPLES_NEEDED
    }

    /// Takes one honest latency into the mean; returns the mean.
    pub(super) fn sample_latency(&self, ln_seconds: f32) -> f32 {
        let sampled = self.latency.update(|mean, samples| {
            let samples = samples.saturating_add(1);
            // A plain mean at first, so that the first answer does not weigh for long.
            let alpha = ALPHA.max(1.0 / samples as f32);
            (mean + alpha * (ln_seconds - mean), samples)
        });
        sampled.0
    }

    /// The mean of the honest latencies however few, if there is one.
    pub(super) fn latency_so_far(&self) -> Option<f32> {
        let (mean, samples) = self.latency.load();
        (samples > 0).then_some(mean)
    }

    pub(super) fn sample_failure(&self, failed: bool) -> f32 {
        self.failures.lean(if failed { 1.0 } else { 0.0 }, ALPHA)
    }

    /// The next position of round robin. The first one is rolled, so that routers started together do not march in
    /// step.
    pub(super) fn next_position(&self, dice: &mut Dice) -> u64 {
        if self.position.load(Relaxed) == 0 {
            let begin = 1 + (dice.bits() >> 16);
            // Somebody else may have rolled first: then that roll stands.
            let _ = self.position.compare_exchange(0, begin, Relaxed, Relaxed);
        }
        self.position.fetch_add(1, Relaxed)
    }

    /// Whether the ejected must be counted again: the pool has changed, or it is small and has some, or a second is
    /// over.
    pub(super) fn wants_census(&self, size: usize, now: Moment) -> bool {
        self.size.load(Relaxed) != size as u32
            || (size <= CENSUS_EACH_PICK && self.ejected() > 0)
            || now.as_nanos() >= self.next_census.load(Relaxed)
    }

    /// Remembers how many endpoints the pool has and how many of them are ejected.
    pub(super) fn census(&self, size: usize, ejected: usize, now: Moment) {
        self.size.store(size as u32, Relaxed);
        self.ejected.store(ejected as u32, Relaxed);
        self.next_census.store((now + CENSUS_PERIOD).as_nanos(), Relaxed);
    }

    /// Endpoints ejected when they were last counted.
    pub fn ejected(&self) -> u32 {
        self.ejected.load(Relaxed)
    }

    /// Makes room for one more ejection: at most a third of the pool, though one of two; never the last endpoint.
    pub(super) fn admit_ejection(&self) -> bool {
        let size = self.size.load(Relaxed);
        let most = if size < 2 { 0 } else { (size / 3).max(1) };
        self.ejected.fetch_update(Relaxed, Relaxed, |ejected| (ejected < most).then_some(ejected + 1)).is_ok()
    }

    /// w^0.3 for an endpoint without a heartbeat.
    pub(super) fn capacity_mean(&self) -> f32 {
        let mean = self.capacity_mean.load();
        if mean > 0.0 { mean } else { 1.0 }
    }

    /// The article's weight for an endpoint without a heartbeat.
    pub(super) fn article_mean(&self) -> f32 {
        let mean = self.article_mean.load();
        if mean > 0.0 { mean } else { 100.0 }
    }

    pub(super) fn set_capacity_mean(&self, mean: f32) {
        self.capacity_mean.store(mean);
    }

    pub(super) fn set_article_mean(&self, mean: f32) {
        self.article_mean.store(mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_counted_by_class() {
        let fleet = Fleet::default();
        [101, 200, 204, 302, 404, 499, 500, 599, 42, 999].into_iter().for_each(|status| fleet.count_response(status));
        assert_eq!(fleet.responses(), [1, 2, 1, 2, 4]);
    }

    #[test]
    fn the_failure_rate_is_that_of_the_last_few_hundred() {
        let fleet = Fleet::default();
        (0..2_000).for_each(|n| _ = fleet.sample_failure(n % 4 == 0));
        assert!((0.2..0.3).contains(&fleet.failure_rate()), "{}", fleet.failure_rate());
        (0..2_000).for_each(|_| _ = fleet.sample_failure(false));
        assert!(fleet.failure_rate() < 0.001);
    }

    #[test]
    fn positions_are_handed_out_once() {
        let fleet = Fleet::default();
        let mut all: Vec<u64> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|seed| {
                    let fleet = &fleet;
                    scope.spawn(move || {
                        let mut dice = Dice::seeded(seed);
                        (0..1000).map(|_| fleet.next_position(&mut dice)).collect::<Vec<u64>>()
                    })
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("workers do not panic")).collect()
        });
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    }
}

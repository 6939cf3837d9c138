//! Percentiles of latency in bounded memory: counts in buckets that grow with what they hold, as HDR histograms do.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Eight buckets for each doubling from 64 µs to 134 s: a percentile is off by at most an eighth, mostly by far less.
const STEPS_BITS: u32 = 3;
const FIRST_BIT: u32 = 6;
const LAST_BIT: u32 = 27;
const BUCKETS: usize = 2 + (((LAST_BIT - FIRST_BIT) as usize) << STEPS_BITS);

/// Written by every worker, emptied by one reader. Under 1 KiB.
#[derive(Debug)]
pub struct Digest {
    /// The first bucket holds all below 64 µs, the last all above 134 s.
    buckets: [AtomicU32; BUCKETS],
}

/// Latencies that half, 95 and 99 of a hundred requests did not exceed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    /// The median.
    pub p50: Duration,
    /// 95 %.
    pub p95: Duration,
    /// 99 %.
    pub p99: Duration,
}

impl Default for Digest {
    fn default() -> Digest {
        Digest { buckets: [const { AtomicU32::new(0) }; BUCKETS] }
    }
}

impl Digest {
    /// Adds one latency.
    pub fn add(&self, latency: Duration) {
        self.buckets[bucket_of(latency)].fetch_add(1, Ordering::Relaxed);
    }

    /// Empties the digest; `None` if nothing was added since the last time. What is added meanwhile counts next time.
    pub fn take(&self) -> Option<Percentiles> {
        let counts: Vec<u32> = self.buckets.iter().map(|bucket| bucket.swap(0, Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().copied().map(u64::from).sum();
        (total > 0).then(|| {
            let at = |share: f64| percentile(&counts, (share * total as f64).max(1.0));
            Percentiles { p50: at(0.50), p95: at(0.95), p99: at(0.99) }
        })
    }
}

fn bucket_of(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    let top_bit = micros.checked_ilog2().unwrap_or(0);
    if top_bit < FIRST_BIT {
        return 0;
    }
    if top_bit >= LAST_BIT {
        return BUCKETS - 1;
    }
    let step = (micros >> (top_bit - STEPS_BITS)) as usize & ((1 << STEPS_BITS) - 1);
    1 + (((top_bit - FIRST_BIT) as usize) << STEPS_BITS) + step
}

/// Where bucket `index` begins, in microseconds; of the one after the last: where the last would end.
fn lower_edge(index: usize) -> f64 {
    if index == 0 {
        return 0.0;
    }
    let (doubling, step) = ((index - 1) >> STEPS_BITS, (index - 1) & ((1 << STEPS_BITS) - 1));
    (1u64 << (FIRST_BIT as usize + doubling)) as f64 * (1.0 + step as f64 / f64::from(1 << STEPS_BITS))
}

/// The latency of rank `rank` (counted from 1), assuming that a bucket is evenly filled.
fn percentile(counts: &[u32], rank: f64) -> Duration {
    let mut below = 0.0;
    for (index, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let count = f64::from(count);
        if below + count >= rank {
            let (from, to) = (lower_edge(index), lower_edge(index + 1));
            let micros = from + (to - from) * ((rank - below) / count);
            return Duration::from_micros(micros as u64);
        }
        below += count;
    }
    Duration::from_micros(lower_edge(counts.len()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_close(found: Duration, millis: f64) {
        let found = found.as_secs_f64() * 1000.0;
        assert!((found / millis - 1.0).abs() <= 0.125, "{found} ms is not about {millis} ms");
    }

    #[test]
    fn percentiles_are_within_an_eighth() {
        let digest = Digest::default();
        for tenths in 1..=10_000 {
            digest.add(Duration::from_micros(tenths * 100)); // evenly from 0.1 ms to 1 s
        }
        let found = digest.take().expect("ten thousand samples");
        check_close(found.p50, 500.0);
        check_close(found.p95, 950.0);
        check_close(found.p99, 990.0);
    }

    #[test]
    fn taking_empties_it() {
        let digest = Digest::default();
        assert_eq!(digest.take(), None);
        digest.add(Duration::from_millis(5));
        let found = digest.take().expect("one sample");
        check_close(found.p50, 5.0);
        assert_eq!(found.p50, found.p99);
        assert_eq!(digest.take(), None);
    }

    #[test]
    fn extremes_stay_in_the_outer_buckets() {
        assert_eq!(bucket_of(Duration::ZERO), 0);
        assert_eq!(bucket_of(Duration::from_micros(63)), 0);
        assert_eq!(bucket_of(Duration::from_micros(64)), 1);
        assert_eq!(bucket_of(Duration::from_secs(134)), BUCKETS - 2);
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn every_bucket_begins_where_the_one_before_ends() {
        for index in 1..BUCKETS {
            let edge = Duration::from_micros(lower_edge(index).ceil() as u64);
            assert_eq!(bucket_of(edge), index);
            assert_eq!(bucket_of(edge - Duration::from_micros(1)), index - 1);
        }
    }
}

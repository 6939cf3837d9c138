//! Counters, histograms and labelled counters for one writer each: a plain load and a plain store, never a locked
//! instruction. A reader on another thread may see them a moment old, never torn.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counts upwards. Two writers at once would lose counts, so whoever owns it has to be one thread or hold a lock.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the buckets of a histogram of times, in nanoseconds, ascending; what is longer lands in a last bucket.
pub(super) type Bounds<const N: usize> = [u64; N];

/// How often a time was at most so long.
#[derive(Debug)]
pub(super) struct Histogram<const N: usize> {
    bounds: &'static Bounds<N>,
    buckets: [Count; N],
    longer: Count,
    sum_ns: Count,
}

impl<const N: usize> Histogram<N> {
    pub(super) fn new(bounds: &'static Bounds<N>) -> Histogram<N> {
        Histogram {
            bounds,
            buckets: std::array::from_fn(|_| Count::default()),
            longer: Count::default(),
            sum_ns: Count::default(),
        }
    }

    pub(super) fn observe(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|bound| *bound < ns);
        self.buckets.get(bucket).unwrap_or(&self.longer).add(1);
        self.sum_ns.add(ns);
    }

    /// Adds what was observed to `total`.
    pub(super) fn add_to(&self, total: &mut Distribution) {
        total.bounds = self.bounds;
        total.buckets.resize(N + 1, 0);
        for (sum, count) in total.buckets.iter_mut().zip(self.buckets.iter().chain([&self.longer])) {
            *sum += count.get();
        }
        total.sum_ns += u128::from(self.sum_ns.get());
    }
}

/// The sum of some histograms with the same bounds.
#[derive(Debug, Default)]
pub(super) struct Distribution {
    /// As in the histograms; empty before the first was added.
    pub(super) bounds: &'static [u64],
    /// Not cumulative; one more than `bounds`.
    pub(super) buckets: Vec<u64>,
    pub(super) sum_ns: u128,
}

/// Distinct values of one label; what comes later is counted as [`OTHER`].
const VALUES_MAX: usize = 64;

/// Value of a label that stands for all that found no place.
pub(super) const OTHER: &str = "other";

/// Counters by a label whose values are written in the code. A value gets its place when it is first counted. For what
/// happens seldom: finding the place compares strings.
#[derive(Debug)]
pub(super) struct Labelled {
    places: [(OnceLock<&'static str>, Count); VALUES_MAX],
    other: Count,
}

impl Default for Labelled {
    fn default() -> Labelled {
        Labelled { places: std::array::from_fn(|_| Default::default()), other: Count::default() }
    }
}

impl Labelled {
    pub(super) fn add(&self, value: &'static str, n: u64) {
        let place = self.places.iter().find(|(label, _)| *label.get_or_init(|| value) == value);
        place.map_or(&self.other, |(_, count)| count).add(n);
    }

    /// Values with their counts, in order of first appearance.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let named = self.places.iter().map_while(|(label, count)| Some((*label.get()?, count.get())));
        named.chain((self.other.get() > 0).then(|| (OTHER, self.other.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    #[track_caller]
    fn check_buckets(millis: &[u64], expected: [u64; 4]) {
        let histogram = Histogram::new(&[MILLI, 10 * MILLI, 100 * MILLI]);
        millis.iter().for_each(|ms| histogram.observe(Duration::from_millis(*ms)));
        let mut total = Distribution::default();
        histogram.add_to(&mut total);
        assert_eq!(total.buckets, expected);
        assert_eq!(total.sum_ns, millis.iter().map(|ms| u128::from(ms * MILLI)).sum());
    }

    #[test]
    fn a_time_lands_in_the_first_bucket_that_is_not_shorter() {
        check_buckets(&[], [0, 0, 0, 0]);
        check_buckets(&[0, 1, 2, 10, 11], [2, 2, 1, 0]);
        check_buckets(&[100, 101, 5_000], [0, 0, 1, 2]);
    }

    #[test]
    fn histograms_of_several_workers_add_up() {
        let (a, b) = (Histogram::new(&[MILLI]), Histogram::new(&[MILLI]));
        a.observe(Duration::ZERO);
        b.observe(Duration::from_secs(1));
        let mut total = Distribution::default();
        a.add_to(&mut total);
        b.add_to(&mut total);
        assert_eq!(total.buckets, [1, 1]);
    }

    #[test]
    fn a_label_beyond_the_places_is_counted_as_other() {
        let counts = Labelled::default();
        let names: Vec<&'static str> = (0..VALUES_MAX + 2).map(|n| &*n.to_string().leak()).collect();
        names.iter().for_each(|name| counts.add(name, 1));
        counts.add(names[0], 2);
        let seen: Vec<_> = counts.iter().collect();
        assert_eq!(seen.len(), VALUES_MAX + 1);
        assert_eq!((seen[0], seen[VALUES_MAX]), (("0", 3), (OTHER, 2)));
    }
}

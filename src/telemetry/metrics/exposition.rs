//! From numbers to the text that Prometheus reads.

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::count::Distribution;
use super::{Family, Kind};

/// Media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Families gathered so far.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    families: Vec<MetricFamily>,
}

impl Exposition {
    /// One number without labels.
    pub(super) fn number(&mut self, family: &Family, value: f64) {
        self.numbers::<&str, 0>(family, [([], value)]);
    }

    /// Numbers with the values of the family's labels.
    pub(super) fn numbers<V: Into<String>, const N: usize>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = ([V; N], f64)>,
    ) {
        debug_assert_eq!(family.labels.len(), N, "{}", family.name);
        let metrics = series.into_iter().map(|(values, number)| {
            let mut metric = labelled(family, values);
            match family.kind {
                Kind::Counter => {
                    let mut counter = Counter::default();
                    counter.set_value(number);
                    metric.set_counter(counter);
                }
                Kind::Gauge => {
                    let mut gauge = Gauge::default();
                    gauge.set_value(number);
                    metric.set_gauge(gauge);
                }
                Kind::Histogram => debug_assert!(false, "{} is no number", family.name),
            }
            metric
        });
        let metrics = metrics.collect();
        self.family(family, metrics);
    }

    /// Distributions with the values of the family's labels.
    pub(super) fn histograms<V: Into<String>, const N: usize>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = ([V; N], Distribution)>,
    ) {
        debug_assert!(family.kind == Kind::Histogram && family.labels.len() == N, "{}", family.name);
        let metrics = series.into_iter().map(|(values, distribution)| {
            let mut metric = labelled(family, values);
            metric.set_histogram(histogram(&distribution));
            metric
        });
        let metrics = metrics.collect();
        self.family(family, metrics);
    }

    fn family(&mut self, family: &Family, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return; // a family without series has nothing to say, and the encoder refuses it
        }
        let mut gathered = MetricFamily::default();
        gathered.set_name(family.name.to_owned());
        gathered.set_help(family.help.to_owned());
        gathered.set_field_type(match family.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        gathered.set_metric(metrics);
        self.families.push(gathered);
    }

    pub(super) fn into_text(self) -> String {
        let mut text = String::new();
        TextEncoder::new()
            .encode_utf8(&self.families, &mut text)
            .expect("named families with series, written to memory, cannot fail");
        text
    }
}

fn labelled<V: Into<String>, const N: usize>(family: &Family, values: [V; N]) -> Metric {
    let pairs = family.labels.iter().zip(values).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.into());
        pair
    });
    Metric::from_label(pairs.collect())
}

fn histogram(distribution: &Distribution) -> Histogram {
    let mut so_far = 0;
    let cumulative = distribution.buckets.iter().map(|count| {
        so_far += count;
        so_far
    });
    let buckets = distribution.bounds.iter().zip(cumulative).map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e9);
        bucket.set_cumulative_count(count);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(distribution.buckets.iter().sum());
    histogram.set_sample_sum(distribution.sum_ns as f64 / 1e9);
    histogram
}

//! The article's formula by its published vectors, and what is learnt from one report after another.

use proptest::prelude::{prop_assert, proptest};

use super::*;
use crate::domain::balance::fixture::{INTERVAL, at, attempt, millis, named, pool};
use crate::domain::balance::{Outcome, Strategy};

fn usage(cpu: f64, mem: f64) -> Usage {
    Usage { cpu: Share::reported(cpu / 100.0), mem: Share::reported(mem / 100.0), ..Usage::default() }
}

// --- the article's formula ---

#[track_caller]
fn check_article(config: &ScoreConfig, host: Usage, instance: Usage, expected: (f64, f64, f64, f32)) {
    let loads = config.loads(&host, &instance).expect("something is known");
    let rounded = |load: Option<f64>| (load.unwrap_or(f64::NAN) * 1e6).round() / 1e6;
    let got = (rounded(loads.host), rounded(loads.instance), rounded(Some(loads.load)), config.weight(loads.load));
    assert_eq!(got, expected);
}

#[test]
fn the_articles_vectors() {
    let plain = ScoreConfig::default();
    check_article(&plain, usage(50.0, 40.0), usage(20.0, 30.0), (0.27, 0.15, 0.186, 81.0));
    check_article(&plain, usage(100.0, 100.0), usage(100.0, 100.0), (0.6, 0.6, 0.6, 40.0));
    check_article(&plain, usage(0.0, 0.0), usage(0.0, 0.0), (0.0, 0.0, 0.0, 100.0));
}

#[test]
fn normalised_vectors_reach_from_0_to_1() {
    let normalised = ScoreConfig { normalise: true, ..ScoreConfig::default() };
    check_article(&normalised, usage(50.0, 40.0), usage(20.0, 30.0), (0.45, 0.25, 0.31, 69.0));
    check_article(&normalised, usage(100.0, 100.0), usage(100.0, 100.0), (1.0, 1.0, 1.0, 1.0));
}

#[test]
fn what_is_unknown_is_as_the_known() {
    let config = ScoreConfig::default();
    let cpu_only = Usage { mem: None, ..usage(50.0, 0.0) };
    check_article(&config, cpu_only, usage(20.0, 30.0), (0.3, 0.15, 0.195, 81.0));
    // Only the instance is known: it stands for both.
    let instance_only = config.loads(&Usage::default(), &usage(20.0, 30.0)).expect("something is known");
    assert_eq!((instance_only.host, config.weight(instance_only.load)), (None, 85.0));
    // What counts nothing is not worth knowing.
    let io_only = Usage { io: Share::reported(0.9), ..Usage::default() };
    assert_eq!(config.loads(&io_only, &Usage::default()), None);
}

#[test]
fn every_vector_can_be_set() {
    let config = ScoreConfig {
        host: Vector { cpu: 0.0, mem: 0.0, io: 1.0, net: 0.0 },
        instance: Vector { cpu: 0.0, mem: 0.0, io: 0.0, net: 0.5 },
        host_share: 0.5,
        instance_share: 0.5,
        normalise: false,
    };
    let host = Usage { io: Share::reported(0.4), ..usage(100.0, 100.0) };
    let instance = Usage { net: Share::reported(0.2), ..usage(100.0, 100.0) };
    check_article(&config, host, instance, (0.4, 0.1, 0.25, 75.0));
}

#[test]
fn without_a_heartbeat_the_pools_mean_weight_counts() {
    let pool = pool(
        Strategy::Weight,
        "a cpu=20 mem=30 host_cpu=50 host_mem=40\nb cpu=100 mem=100 host_cpu=100 host_mem=100\nunheard",
    );
    assert_eq!(named(&pool, "unheard").live.article(), Some(60.5));
    assert_eq!(pool.fleet.article_mean(), 60.5);
}

// --- capacity ---

/// Capacities against each other, the first is 1, rounded to hundredths.
#[track_caller]
fn check_capacities(text: &str, expected: &[f32]) {
    assert_eq!(capacities(&pool(Strategy::Adaptive, text)), expected);
}

fn capacities(pool: &Pool) -> Vec<f32> {
    let capacity = |i: usize| pool.endpoints[i].live.capacity().expect("recomputed").powf(1.0 / 0.3);
    (0..pool.endpoints.len()).map(|i| (capacity(i) / capacity(0) * 100.0).round() / 100.0).collect()
}

#[test]
fn capacity_is_what_the_host_could_do_for_us() {
    // Own and free CPU, and half of what others burn.
    check_capacities("a host=h1 cpu=20 host_cpu=20\nb host=h2 cpu=20 host_cpu=70", &[1.0, 0.75]);
    check_capacities("a host=h1 cpu=0 host_cpu=0\nb host=h2 cpu=0 host_cpu=100", &[1.0, 0.5]);
}

#[test]
fn our_own_traffic_does_not_lower_capacity() {
    check_capacities("idle host=h1 cpu=0 host_cpu=0\nbusy host=h2 cpu=80 host_cpu=80", &[1.0, 1.0]);
}

#[test]
fn instances_on_one_host_share_what_is_free() {
    check_capacities(
        "a host=h1 cpu=0 host_cpu=50\nb host=h2 cpu=0 host_cpu=50\nc host=h2 cpu=0 host_cpu=50",
        &[1.0, 0.5, 0.5],
    );
}

#[test]
fn capacity_stays_within_a_factor_of_twenty_of_the_mean() {
    let pool = pool(Strategy::Adaptive, "a host=h1 cpu=0 host_cpu=0\nb host=h2 cpu=0 host_cpu=0");
    // What b burns for one request is enough for a thousand of a.
    serve_and_report(&pool, &[("a", 1000), ("b", 1)]);
    // A twentieth of the mean, which is about half of what a can do.
    assert_eq!(capacities(&pool), [1.0, 0.03]);
}

#[test]
fn without_a_heartbeat_the_mean_capacity_counts() {
    check_capacities(
        "a host=h1 cpu=0 host_cpu=0\nb host=h2 cpu=0 host_cpu=40\nunheard\nno_cpu mem=20",
        &[1.0, 0.8, 0.9, 0.9],
    );
}

#[test]
fn three_intervals_without_a_report_make_it_unheard() {
    let pool = pool(Strategy::Adaptive, "a host=h1 cpu=0 host_cpu=0\nb host=h2 cpu=0 host_cpu=50");
    recompute(&pool, &ScoreConfig::default(), at(15.0));
    assert_eq!(capacities(&pool), [1.0, 0.75]);
    recompute(&pool, &ScoreConfig::default(), at(15.1));
    assert_eq!(capacities(&pool), [1.0, 1.0]);
    assert_eq!(pool.endpoints[1].live.article(), Some(100.0));
}

#[test]
fn memory_running_out_takes_weight_away() {
    let with = |mem: &str| format!("a host=h1 cpu=0 host_cpu=0\nb host=h2 cpu=0 host_cpu=0 {mem}");
    check_capacities(&with("mem=90 host_mem=90"), &[1.0, 1.0]);
    check_capacities(&with("host_mem=95"), &[1.0, 0.5]);
    check_capacities(&with("mem=95"), &[1.0, 0.5]);
    check_capacities(&with("mem=98 host_mem=95"), &[1.0, 0.2]);
    check_capacities(&with("mem=100"), &[1.0, 0.05]);
}

/// Each burns 40 % of a host of its own and serves so many requests with it every five seconds, for a while.
fn serve_and_report(pool: &Pool, served: &[(&str, u32)]) {
    for round in 1..=20 {
        let now = at(5.0 * f64::from(round));
        for &(name, requests) in served {
            (0..requests).for_each(|_| _ = attempt(pool, name, Outcome::Ok { latency: millis(10) }, now));
            named(pool, name).live.reported(usage(40.0, 0.0), usage(40.0, 0.0), INTERVAL, now);
        }
        recompute(pool, &ScoreConfig::default(), now);
    }
}

#[test]
fn who_needs_more_cpu_for_a_request_can_do_fewer() {
    let pool = pool(Strategy::Adaptive, "a host=h1 cpu=0 host_cpu=0\nb host=h2 cpu=0 host_cpu=0");
    serve_and_report(&pool, &[("a", 400), ("b", 100)]);
    let capacities = capacities(&pool);
    assert!((0.25..0.28).contains(&capacities[1]), "{capacities:?}");
}

#[test]
fn reported_cpu_is_smoothed_over_five_seconds() {
    let pool = pool(Strategy::Adaptive, "a host=h1 cpu=0 host_cpu=0\nb host=h2 cpu=0 host_cpu=0");
    named(&pool, "a").live.reported(usage(0.0, 0.0), usage(0.0, 0.0), INTERVAL, at(5.0));
    named(&pool, "b").live.reported(usage(0.0, 0.0), usage(100.0, 0.0), INTERVAL, at(5.0));
    recompute(&pool, &ScoreConfig::default(), at(5.0));
    // One time constant: 1/e of what was free is still believed to be, and half of the rest would be yielded.
    assert_eq!(capacities(&pool), [1.0, 0.68]);
}

#[test]
fn a_host_is_its_agent_or_else_its_address() {
    let pool = pool(Strategy::Adaptive, "a\nb host=h1\nc host=h1\na\nh1");
    assert_eq!(pool.derived.neighbours(&pool), [2, 2, 2, 2, 1]);
}

#[test]
fn who_registers_at_an_agents_address_is_on_its_host() {
    let pool = pool(Strategy::Adaptive, "a host=h1\nb host=h1\na\nc\nd host=h2");
    assert_eq!(pool.derived.neighbours(&pool), [3, 3, 3, 1, 1]);
}

proptest! {
    #[test]
    fn no_report_makes_a_weight_unusable(
        reports in proptest::collection::vec((0..5usize, proptest::array::uniform4(0.0..1.5f64), 0..20u32, 0..3000u64), 0..40),
    ) {
        let pool = pool(Strategy::Adaptive, "a host=h1\nb host=h1\nc host=h2\nd host=h3\ne");
        let mut now = at(0.0);
        for (who, [cpu, mem, host_cpu, host_mem], served, passed) in reports {
            now = now + millis(passed);
            let name = ["a", "b", "c", "d", "e"][who];
            (0..served).for_each(|_| _ = attempt(&pool, name, Outcome::Ok { latency: millis(passed) }, now));
            let usage = |cpu: f64, mem: f64| Usage { cpu: Share::reported(cpu), mem: Share::reported(mem), ..Usage::default() };
            named(&pool, name).live.reported(usage(cpu, mem), usage(host_cpu, host_mem), INTERVAL, now);
            recompute(&pool, &ScoreConfig::default(), now);
            for endpoint in &pool.endpoints {
                let capacity = endpoint.live.capacity().expect("recomputed");
                prop_assert!(capacity.is_finite() && capacity > 0.0);
                prop_assert!((1.0..=100.0).contains(&endpoint.live.article().expect("recomputed")));
            }
        }
    }
}

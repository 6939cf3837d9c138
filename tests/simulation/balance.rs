//! What the picker must achieve in the model, in simulated time: the same on every machine, at every run.

#[path = "../../benches/balance/model.rs"]
mod model;
#[path = "../../benches/balance/scenarios.rs"]
mod scenarios;

use model::{Measured, Scenario, run};
use weighbridge::domain::balance::Strategy;

const SEEDS: [u64; 3] = [1, 2, 3];

/// Long enough for the tails to show, short enough to wait for in a debug build.
fn brief(scenario: Scenario) -> Scenario {
    Scenario { measured: 20.0, ..scenario }
}

/// Runs two worlds seed by seed; the geometric mean of the ratio of what `of` reads from them.
fn ratio((a, with_a): (&Scenario, Strategy), (b, with_b): (&Scenario, Strategy), of: impl Fn(&Measured) -> f64) -> f64 {
    let logs = SEEDS.map(|seed| (of(&run(a, with_a, seed)) / of(&run(b, with_b, seed))).ln());
    (logs.iter().sum::<f64>() / SEEDS.len() as f64).exp()
}

fn p99(measured: &Measured) -> f64 {
    measured.quantile(0.99)
}

#[track_caller]
fn check_p99_against_p2c(scenario: Scenario, at_most: f64) {
    let scenario = brief(scenario);
    let ratio = ratio((&scenario, Strategy::Adaptive), (&scenario, Strategy::P2c), p99);
    assert!(ratio <= at_most, "{}: p99 is {ratio:.3} of p2c's, not {at_most}", scenario.name);
}

#[test]
fn unequal_hosts_get_what_they_can_do() {
    check_p99_against_p2c(scenarios::unequal_hosts(), 0.15);
}

#[test]
fn antagonists_are_avoided() {
    check_p99_against_p2c(scenarios::antagonists(), 0.30);
}

#[test]
fn one_slow_instance_is_avoided() {
    check_p99_against_p2c(scenarios::one_slow_instance(), 0.40);
}

#[test]
fn equal_hosts_are_loaded_evenly() {
    let equal = Scenario { warm_up: 10.0, measured: 10.0, ..scenarios::equal_hosts() };
    let ratio = ratio((&equal, Strategy::Adaptive), (&equal, Strategy::P2c), |m| m.unevenness);
    assert!(ratio <= 1.3, "load varies {ratio:.2} times as much as with p2c");
}

#[test]
fn a_black_hole_swallows_next_to_nothing() {
    let scenario = scenarios::black_hole();
    for seed in SEEDS {
        let rate = run(&scenario, Strategy::Adaptive, seed).failure_rate();
        assert!(rate > 0.0 && rate <= 0.0015, "seed {seed}: {:.3} % failed", 100.0 * rate);
    }
}

#[test]
fn without_heartbeats_it_goes_on_nearly_as_well() {
    let with = brief(scenarios::unequal_hosts());
    let without = Scenario { changes: scenarios::heartbeats_stop().changes, ..with.clone() };
    let ratio = ratio((&without, Strategy::Adaptive), (&with, Strategy::Adaptive), p99);
    assert!((0.85..=1.15).contains(&ratio), "p99 is {ratio:.2} of what it was with heartbeats");
}

#[test]
fn in_flight_counts_are_exact_in_every_world_with_every_strategy() {
    for scenario in scenarios::all() {
        let brief = Scenario { warm_up: 0.0, measured: 1.0, ..scenario };
        for strategy in Strategy::ALL {
            let measured = run(&brief, strategy, 1);
            assert!(!measured.latencies.is_empty(), "{}: nobody was served", brief.name);
            assert_eq!(measured.miscounted, 0, "{} with {strategy}", brief.name);
        }
    }
}

//! How evenly and how fast each strategy serves, world by world: `cargo bench --bench balance [-- NAME...]`. Simulated
//! time only, so the table is the same on every machine.

#[path = "model.rs"]
mod model;
#[path = "scenarios.rs"]
mod scenarios;

use model::Measured;
use weighbridge::domain::balance::Strategy;

const SEEDS: u64 = 5;
const STRATEGIES: [Strategy; 6] = [
    Strategy::Adaptive,
    Strategy::P2c,
    Strategy::LeastConnection,
    Strategy::Weight,
    Strategy::RoundRobin,
    Strategy::Random,
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    println!(
        "{:<26} {:<17} {:>8} {:>8} {:>8} {:>9} {:>7} {:>8}",
        "scenario", "strategy", "p50 ms", "p99 ms", "p99.9 ms", "failed %", "CV", "p99/p2c"
    );
    for scenario in scenarios::all() {
        if !wanted.is_empty() && !wanted.iter().any(|name| scenario.name.contains(name.as_str())) {
            continue;
        }
        let runs = STRATEGIES.map(|strategy| {
            let runs: Vec<Measured> = (1..=SEEDS).map(|seed| model::run(&scenario, strategy, seed)).collect();
            (strategy, runs)
        });
        let p2c = runs.iter().find(|(strategy, _)| *strategy == Strategy::P2c).expect("p2c is one of them").1.clone();
        for (strategy, runs) in runs {
            let mean = |of: &dyn Fn(&Measured) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
            println!(
                "{:<26} {:<17} {:>8.1} {:>8.1} {:>8.1} {:>9.3} {:>7.2} {:>8.2}",
                scenario.name,
                strategy,
                1e3 * mean(&|m| m.quantile(0.5)),
                1e3 * mean(&|m| m.quantile(0.99)),
                1e3 * mean(&|m| m.quantile(0.999)),
                100.0 * mean(&Measured::failure_rate),
                mean(&|m| m.unevenness),
                ratio_of_p99(&runs, &p2c),
            );
        }
    }
}

/// Geometric mean over the seeds.
fn ratio_of_p99(runs: &[Measured], against: &[Measured]) -> f64 {
    let logs = runs.iter().zip(against).map(|(a, b)| (a.quantile(0.99) / b.quantile(0.99)).ln());
    (logs.sum::<f64>() / runs.len() as f64).exp()
}

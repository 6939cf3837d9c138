//! How evenly and how fast each strategy serves, world by world. Simulated time only, so the table is the same on every
//! machine. `cargo bench --bench balance -- [NAME...] [--markdown] [--svg FILE]`: only worlds whose name contains a NAME; a
//! table for pages; a chart too.

#[path = "chart.rs"]
mod chart;
#[path = "model.rs"]
mod model;
#[path = "scenarios.rs"]
mod scenarios;

use std::process::ExitCode;

use model::{Measured, Scenario};
use weighbridge::domain::balance::Strategy;

const SEEDS: u64 = 5;
/// `hash` is missing: it balances keys, not load.
const STRATEGIES: [Strategy; 6] = [
    Strategy::Adaptive,
    Strategy::LeastConnection,
    Strategy::P2c,
    Strategy::Weight,
    Strategy::RoundRobin,
    Strategy::Random,
];

/// One strategy in one world: means over the seeds.
struct Row {
    strategy: Strategy,
    /// Milliseconds at 50, 99 and 99.9 %.
    quantiles: [f64; 3],
    failed_percent: f64,
    unevenness: f64,
    /// p99 against p2c's, seed by seed, geometric mean.
    against_p2c: f64,
}

fn main() -> ExitCode {
    let (mut names, mut svg, mut layout) = (Vec::new(), None, Layout::Plain);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--svg" => svg = arguments.next(),
            "--markdown" => layout = Layout::Markdown,
            option if option.starts_with('-') => {} // cargo bench says --bench
            _ => names.push(argument),
        }
    }
    let wanted = |s: &Scenario| names.is_empty() || names.iter().any(|name| s.name.contains(name.as_str()));
    println!("{}", layout.title());
    let mut worlds = Vec::new();
    for scenario in scenarios::all().into_iter().filter(wanted) {
        let rows = measure(&scenario);
        rows.iter().for_each(|row| println!("{}", layout.line(scenario.name, row)));
        worlds.push((scenario.name, rows));
    }
    println!("\nGeometric mean of p99/p2c over {} worlds:\n", worlds.len());
    for (index, strategy) in STRATEGIES.into_iter().enumerate() {
        println!("- {strategy:<17} {:.2}", geometric_mean(worlds.iter().map(|(_, rows)| rows[index].against_p2c)));
    }
    let dots = |rows: &Vec<Row>| rows.iter().map(|row| row.against_p2c).collect();
    let drawn = chart::draw(
        &STRATEGIES.map(|strategy| strategy.to_string()),
        &worlds.iter().map(|(world, rows)| (*world, dots(rows))).collect::<Vec<_>>(),
    );
    match svg.map(|file| std::fs::write(&file, drawn).map_err(|error| format!("{file}: {error}"))) {
        Some(Err(problem)) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
        Some(Ok(())) | None => ExitCode::SUCCESS,
    }
}

fn measure(scenario: &Scenario) -> Vec<Row> {
    let run = |strategy| (1..=SEEDS).map(|seed| model::run(scenario, strategy, seed)).collect::<Vec<Measured>>();
    let p2c = run(Strategy::P2c);
    let row = |strategy: Strategy| {
        let runs = if strategy == Strategy::P2c { p2c.clone() } else { run(strategy) };
        let mean = |of: &dyn Fn(&Measured) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
        Row {
            strategy,
            quantiles: [0.5, 0.99, 0.999].map(|share| 1e3 * mean(&|m| m.quantile(share))),
            failed_percent: 100.0 * mean(&Measured::failure_rate),
            unevenness: mean(&|m| m.unevenness),
            against_p2c: geometric_mean(runs.iter().zip(&p2c).map(|(a, b)| a.quantile(0.99) / b.quantile(0.99))),
        }
    };
    STRATEGIES.into_iter().map(row).collect()
}

/// Columns for eyes, or a table for pages.
#[derive(Clone, Copy)]
enum Layout {
    Plain,
    Markdown,
}

impl Layout {
    fn title(self) -> String {
        match self {
            Layout::Plain => format!(
                "{:<19} {:<17} {:>8} {:>8} {:>9} {:>8} {:>5} {:>8}",
                "world", "strategy", "p50 ms", "p99 ms", "p99.9 ms", "failed %", "CV", "p99/p2c"
            ),
            Layout::Markdown => "| world | strategy | p50 ms | p99 ms | p99.9 ms | failed % | CV | p99/p2c |\n\
                                 |---|---|--:|--:|--:|--:|--:|--:|"
                .into(),
        }
    }

    fn line(self, world: &str, row: &Row) -> String {
        let [p50, p99, p999] = row.quantiles;
        let Row { strategy, failed_percent, unevenness, against_p2c, .. } = row;
        match self {
            Layout::Plain => format!(
                "{world:<19} {strategy:<17} {p50:>8.1} {p99:>8.1} {p999:>9.1} {failed_percent:>8.3} {unevenness:>5.2} \
                 {against_p2c:>8.2}"
            ),
            Layout::Markdown => format!(
                "| {world} | {strategy} | {p50:.1} | {p99:.1} | {p999:.1} | {failed_percent:.3} | {unevenness:.2} | \
                 {against_p2c:.2} |"
            ),
        }
    }
}

fn geometric_mean(values: impl Iterator<Item = f64>) -> f64 {
    let logs: Vec<f64> = values.map(f64::ln).collect();
    (logs.iter().sum::<f64>() / logs.len().max(1) as f64).exp()
}

//! The table of a work, in Markdown: medians over the rounds, and each also as a ratio to Weighbridge.

use super::Column;
use super::measure::Sample;
use super::work::{Ask, Work};

/// More failing requests than this share make a result worthless, so they are told.
const TOLERATED_ERRORS: f64 = 0.0001;

type Figure = (&'static str, usize, fn(&Sample) -> f64);

const FIGURES: [Figure; 8] = [
    ("CPU µs/request", 2, |sample| sample.user + sample.system),
    ("user", 2, |sample| sample.user),
    ("system", 2, |sample| sample.system),
    ("requests/s", 0, |sample| sample.per_second),
    ("p50 ms", 3, |sample| sample.p50),
    ("p99 ms", 3, |sample| sample.p99),
    ("RSS MiB", 1, |sample| sample.memory.resident / MIB),
    ("PSS MiB", 1, |sample| sample.memory.proportional / MIB),
];

const OF_IDLE: [Figure; 2] = [
    ("RSS KiB/connection", 2, |sample| sample.memory.resident / 1024.0),
    ("PSS KiB/connection", 2, |sample| sample.memory.proportional / 1024.0),
];

const MIB: f64 = 1024.0 * 1024.0;

/// Prints it.
pub fn print(work: &Work, columns: &[Column]) {
    let figures = if work.ask == Ask::Idle { &OF_IDLE[..] } else { &FIGURES[..] };
    let counted = columns.iter().any(|column| column.instructions.is_some());
    println!("\n#### `{}`: {}\n", work.name, work.title);
    let names: Vec<&str> = figures.iter().map(|(name, ..)| *name).chain(counted.then_some("instructions")).collect();
    println!("| | {} |\n|---|{}", names.join(" | "), "--:|".repeat(names.len()));
    let Some(ours) = columns.first() else { return };
    for column in columns.iter().filter(|column| !column.samples.is_empty()) {
        let cell = |(_, digits, figure): &Figure| {
            let ratios = column.samples.iter().zip(&ours.samples).map(|(sample, ours)| figure(sample) / figure(ours));
            let value = median(column.samples.iter().map(figure));
            format!("{value:.digits$} ({:.2})", median(ratios))
        };
        let mut cells: Vec<String> = figures.iter().map(cell).collect();
        if counted {
            let ratio = |count: f64| ours.instructions.map_or(String::new(), |ours| format!(" ({:.2})", count / ours));
            cells.push(column.instructions.map_or(String::new(), |count| format!("{count:.0}{}", ratio(count))));
        }
        println!("| {} | {} |", column.peer.name, cells.join(" | "));
    }
    println!();
    for column in columns {
        notes(work, column).iter().for_each(|note| println!("- {}: {note}", column.peer.name));
    }
}

fn notes(work: &Work, column: &Column) -> Vec<String> {
    let mut notes = column.notes.clone();
    let sum = |of: fn(&Sample) -> f64| column.samples.iter().map(of).sum::<f64>();
    let (errors, requests) = (sum(|sample| sample.errors as f64), sum(|sample| sample.requests as f64));
    if errors > TOLERATED_ERRORS * requests {
        let last = column.samples.iter().map(|sample| &*sample.last_error).find(|error| !error.is_empty());
        notes.push(format!("{errors:.0} of {requests:.0} requests failed ({})", last.unwrap_or_default()));
    }
    if work.resume {
        let resumed = 100.0 * median(column.samples.iter().map(|sample| sample.resumed));
        notes.push(format!("{resumed:.0} % of the sessions were resumed"));
    }
    let connections = median(column.samples.iter().map(|sample| sample.upstream_connections));
    if work.ask != Ask::Idle && connections > 0.01 {
        notes.push(format!("{connections:.2} new connections to instances per request"));
    }
    notes
}

/// Of nothing it is NaN.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => (values[even / 2 - 1] + values[even / 2]) / 2.0,
        odd => values[odd / 2],
    }
}

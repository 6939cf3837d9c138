//! The page about all metrics, made of the list of them.

use std::fmt::Write;

use super::{FAMILIES, Family, Kind};

const INTRODUCTION: &str = "\
# Metrics

`GET /metrics` on the admin port answers in the text format of Prometheus. Times are in seconds, sizes in bytes, shares from 0
to 1. Counters end in `_total` and begin at zero with the process. A series appears when there is something to count.

Labels are bounded: their values are words of the program, status codes, or routes. Histograms carry the class of the status
(`2xx`), not the code. A route has its own series from its first request until it leaves the table";

/// The page as Markdown.
pub fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    let _infallible = write!(
        page,
        "; beyond `admin.routes_in_metrics` of them the others\nare counted together as `other`.\n\nThis page is generated from the program's \
         own list.\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n"
    );
    for family in FAMILIES {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let Family { name, help, .. } = family;
        let _infallible = writeln!(page, "| `{name}` | {} | {} | {help} |", kind(family), labels.join(", "));
    }
    page
}

fn kind(family: &Family) -> &'static str {
    match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

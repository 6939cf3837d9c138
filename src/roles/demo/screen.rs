//! What the demo shows: a table that is redrawn in place on a terminal, plain lines now and then elsewhere.

use std::fmt::Write as _;
use std::time::Duration;

/// One instance, as of now.
#[derive(Clone, Debug)]
pub struct Row {
    /// Instance id.
    pub name: String,
    /// Name of its machine.
    pub machine: &'static str,
    /// Cores of its machine.
    pub cores: f64,
    /// Busy share of its machine's CPU, as the router heard it; `None` before the first heartbeat.
    pub machine_cpu: Option<f64>,
    /// The load the article's formula makes of the last heartbeat.
    pub load: Option<f64>,
    /// How much it could do for us against the mean of its app, as the default strategy sees it.
    pub capacity: Option<f32>,
    /// Requests it works on for the router now.
    pub in_flight: u32,
    /// Requests per second, lately.
    pub rate: f64,
    /// Its share of its app's requests, lately.
    pub share: f64,
    /// Time under which 99 % of its requests were answered, lately.
    pub p99: Option<Duration>,
}

/// Everything below the instructions.
#[derive(Clone, Debug)]
pub struct Picture {
    /// By app, then by instance.
    pub rows: Vec<Row>,
    /// The machine with a neighbour at present, and the cores it takes.
    pub neighbour: Option<(&'static str, f64)>,
    /// Answers with status 200 to the background visitors.
    pub good: u64,
    /// Everything else they got.
    pub bad: u64,
    /// Time since the demo began.
    pub up: Duration,
}

/// Length of a full bar.
const BAR: usize = 20;

impl Picture {
    /// The table, a line an instance.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "  INSTANCE  MACHINE        MACHINE CPU  LOAD  CAPACITY  IN FLIGHT  REQ/S  P99      SHARE OF ITS APP'S REQUESTS\n",
        );
        let mut app = "";
        for row in &self.rows {
            let of = row.name.split('-').next().unwrap_or_default();
            if !app.is_empty() && of != app {
                text.push('\n');
            }
            app = of;
            text.push_str(&row.line());
            text.push('\n');
        }
        text
    }

    /// What is going on, in two sentences.
    pub fn story(&self) -> String {
        let neighbour = match self.neighbour {
            Some((machine, cores)) => {
                format!(
                    "A noisy neighbour on {machine} takes {cores:.1} of its cores: watch its instances lose traffic."
                )
            }
            None => "No neighbour at present: each machine gets what it can carry.".to_owned(),
        };
        let up = self.up.as_secs();
        format!("{neighbour}\n  {} requests answered, {} failed, {}:{:02} up.", self.good, self.bad, up / 60, up % 60)
    }

    /// The same in one line, for logs.
    pub fn line(&self) -> String {
        let mut text = format!("{:>4}s", self.up.as_secs());
        for row in &self.rows {
            let cpu = row.machine_cpu.unwrap_or(0.0) * 100.0;
            let p99 = row.p99.map_or(0, |p99| p99.as_millis());
            let _never_fails = write!(
                text,
                "  {}@{} cpu {cpu:.0}% share {:.0}% p99 {p99}ms",
                row.name,
                row.machine,
                row.share * 100.0
            );
        }
        if let Some((machine, _)) = self.neighbour {
            text += &format!("  (noisy neighbour on {machine})");
        }
        text + &format!("  {} answered, {} failed", self.good, self.bad)
    }
}

impl Row {
    fn line(&self) -> String {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let cpu = or_dash(self.machine_cpu.map(|cpu| format!("{:.0} %", cpu * 100.0)));
        let load = or_dash(self.load.map(|load| format!("{load:.2}")));
        let capacity = or_dash(self.capacity.map(|capacity| format!("×{capacity:.2}")));
        let p99 = or_dash(self.p99.map(|p99| format!("{} ms", p99.as_millis())));
        let filled = ((self.share * BAR as f64).round() as usize).min(BAR);
        let bar = "#".repeat(filled) + &".".repeat(BAR - filled);
        format!(
            "  {:<9} {:<5}{:>2} cores  {cpu:>11}  {load:>4}  {capacity:>8}  {:>9}  {:>5.1}  {p99:>7}  {bar} {:>3.0} %",
            self.name,
            self.machine,
            self.cores,
            self.in_flight,
            self.rate,
            self.share * 100.0
        )
    }
}

/// A picture that replaces the one before on a terminal: goes up over it, then clears what is left of each line.
pub fn redrawn(lines_before: usize, text: &str) -> String {
    let up = if lines_before > 0 { format!("\x1b[{lines_before}A\r") } else { String::new() };
    let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("{up}{lines}\x1b[J")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, share: f64) -> Row {
        Row {
            name: name.to_owned(),
            machine: "oak",
            cores: 4.0,
            machine_cpu: Some(0.31),
            load: Some(0.123),
            capacity: Some(1.3),
            in_flight: 2,
            rate: 44.13,
            share,
            p99: Some(Duration::from_millis(38)),
        }
    }

    fn picture(rows: Vec<Row>) -> Picture {
        Picture { rows, neighbour: None, good: 10, bad: 0, up: Duration::from_secs(83) }
    }

    #[test]
    fn a_row_lines_up_with_its_heading() {
        let table = picture(vec![row("shop-0", 0.5)]).table();
        let lines: Vec<_> = table.lines().collect();
        let expected = "  shop-0    oak   4 cores         31 %  0.12     ×1.30          2   44.1    38 ms  ##########..........  50 %";
        assert_eq!(lines[1], expected);
        for (heading, value) in [("MACHINE CPU", "31 %"), ("LOAD", "0.12"), ("CAPACITY", "×1.30"), ("REQ/S", "44.1")] {
            let end = |line: &str, word: &str| {
                let at = line.find(word).expect("it is there");
                line[..at + word.len()].chars().count()
            };
            assert_eq!(end(lines[0], heading), end(lines[1], value), "{heading}");
        }
    }

    #[test]
    fn apps_are_apart_and_unknown_is_a_dash() {
        let blank = Row { load: None, capacity: None, machine_cpu: None, p99: None, ..row("blog-0", 0.0) };
        let table = picture(vec![row("shop-0", 1.0), blank]).table();
        assert_eq!(table.lines().count(), 4);
        assert!(table.lines().last().is_some_and(|line| line.contains("     -         -  ")), "{table}");
    }

    #[test]
    fn a_redrawn_picture_covers_the_one_before() {
        assert_eq!(redrawn(0, "a\nb"), "a\x1b[K\nb\x1b[K\n\x1b[J");
        assert!(redrawn(2, "a").starts_with("\x1b[2A\r"));
    }
}

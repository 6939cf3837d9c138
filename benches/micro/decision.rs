//! Instructions of the decision that a request needs (session, look-up, pick, what is learnt from it), counted by callgrind:
//! `cargo bench --bench micro -- --decision`. What a request costs in all is counted by `benches/peers`.

use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use weighbridge::config::Config;
use weighbridge::domain::balance::{Outcome, Strategy, Wish, pick, pinned};
use weighbridge::domain::dice::Dice;
use weighbridge::http1::{Head, Limits, parse};
use weighbridge::proxy::sticky::asked_instance;

use super::balance::{NOW, pool};
use super::callgrind;
use super::control::{host, table};

const STEPS: [&str; 6] = ["session", "look-up", "pick", "pinned", "learn", "all"];
/// Instances of the route.
const INSTANCES: usize = 8;
const ROUTES: usize = 1000;
/// Rounds of the two counted runs.
const COUNTED: [u64; 2] = [10_000, 60_000];
/// Rounds that are timed.
const TIMED: u64 = 2_000_000;

/// Prints the table.
pub fn report() -> ExitCode {
    println!("| step, {INSTANCES} instances, {ROUTES} routes | instructions | ns |\n|---|--:|--:|");
    for step in STEPS {
        let counts = COUNTED.map(|rounds| count(step, rounds));
        let [Ok(few), Ok(many)] = counts else {
            eprintln!("callgrind does not count {step}: {counts:?}");
            return ExitCode::FAILURE;
        };
        let each = (many as f64 - few as f64) / (COUNTED[1] - COUNTED[0]) as f64;
        println!("| {step} | {each:.0} | {:.0} |", perform(step, TIMED).as_nanos() as f64 / TIMED as f64);
    }
    ExitCode::SUCCESS
}

fn count(step: &str, rounds: u64) -> Result<u64, String> {
    let told = |error: std::io::Error| error.to_string();
    let dir = tempfile::tempdir().map_err(told)?;
    let this = std::env::current_exe().map_err(told)?;
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}/callgrind.out", dir.path().display()))
        .arg(this)
        .args(["--perform", step, &rounds.to_string()])
        .status()
        .map_err(told)?;
    if !status.success() {
        return Err(format!("valgrind: {status}"));
    }
    callgrind::total(dir.path()).map_err(told)
}

/// Takes a step so many times; tells how long that took.
pub fn perform(step: &str, rounds: u64) -> Duration {
    let snapshot = table(ROUTES).snapshot(weighbridge::domain::moment::Moment::from_nanos(1_000_000_000));
    let snapshot = snapshot.expect("it is new");
    let hosts: Vec<String> = (0..ROUTES).map(host).collect();
    let pool = pool(Strategy::Adaptive, INSTANCES);
    let config = Config::from_toml("").expect("the defaults are valid");
    let mut head = Head::new();
    parse::request(super::SMALL_REQUEST, &Limits::default(), &mut head).expect("it is well-formed");
    let mut dice = Dice::seeded(1);
    let does = |name: &str| step == name || step == "all";
    let begun = Instant::now();
    for round in 0..rounds {
        if does("session") {
            black_box(asked_instance(black_box(&head), &config.sticky));
        }
        if does("look-up") {
            black_box(snapshot.lookup(black_box(&hosts[round as usize % ROUTES]), "/cart/items?page=2"));
        }
        if does("pick") {
            let wish = Wish { first_attempt: true, ..Wish::default() };
            black_box(pick(black_box(&pool), &wish, NOW, &mut dice).is_ok());
        }
        if step == "pinned" {
            black_box(pinned(black_box(&pool), black_box("instance-7"), NOW).is_some());
        }
        if does("learn") {
            let live = &pool.endpoints[round as usize % INSTANCES].live;
            live.begin();
            live.answered(&pool.fleet, black_box(Outcome::Ok { latency: Duration::from_millis(3) }), NOW);
            live.finished();
        }
    }
    begun.elapsed()
}

//! The picker among real processes: one slow instance of four, one that refuses everything, a CPU hog on every second host.
//! `adaptive`, `p2c` and `round-robin` take turns. `cargo bench --bench live -- [--svg FILE]`; needs `taskset`,
//! `setpriv` and two cores.

mod agent;
#[path = "../balance/chart.rs"]
mod chart;
mod instance;
#[path = "../scale/router.rs"]
mod router;

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use agent::Known;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::SendRequest;
use instance::Service;
use router::{Process, Router};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use weighbridge::domain::dice::Dice;

const STRATEGIES: [&str; 3] = ["adaptive", "p2c", "round-robin"];
/// Answers that are still due after a round may take so long.
const PATIENCE: Duration = Duration::from_secs(70);
/// Mean service time of a healthy instance, in microseconds.
const SERVICE: u64 = 4000;
/// Router, load and the first two instances; the others, and the hogs.
const CORES: [usize; 2] = [0, 1];

struct Scenario {
    name: &'static str,
    /// The same in few words.
    title: &'static str,
    instances: [Service; 4],
    hogs: usize,
    /// Requests per second.
    rate: f64,
    /// How often every strategy has its turn, and for how long.
    rounds: (usize, Duration),
}

fn scenarios() -> [Scenario; 3] {
    let healthy = Service::Takes(SERVICE);
    // Of what four healthy instances can do.
    let rate = |utilisation: f64| utilisation * 4.0 * 1e6 / SERVICE as f64;
    let burns = Service::Burns(instance::turns_per_millisecond());
    let rounds = (5, Duration::from_secs(3));
    [
        Scenario {
            name: "one of four instances takes eight times as long (65 % of the capacity asked for)",
            title: "one slow of four",
            instances: [healthy, healthy, healthy, Service::Takes(8 * SERVICE)],
            hogs: 0,
            rate: rate(0.65),
            rounds,
        },
        Scenario {
            name: "one of four instances answers 503 at once (50 %)",
            title: "one refuses at once",
            instances: [healthy, healthy, healthy, Service::Refuses],
            hogs: 0,
            rate: rate(0.5),
            rounds,
        },
        Scenario {
            name: "two hogs on one of two cores with two instances each (1 ms of CPU a request, 500 a second)",
            title: "hogs beside two",
            instances: [burns; 4],
            hogs: 2,
            rate: 500.0,
            // The differences are smaller than those between rounds, and heartbeats come once a second.
            rounds: (9, Duration::from_secs(6)),
        },
    ]
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let done = runtime.and_then(|runtime| match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => runtime.block_on(run()).map(drop),
        ["--svg", file] => runtime
            .block_on(run())
            .and_then(|worlds| std::fs::write(file, chart::draw(&STRATEGIES.map(str::to_owned), &worlds))),
        ["--instance", service] => runtime.block_on(instance::serve(service.parse()?)),
        ["--hog"] => loop {
            instance::burn(u64::MAX);
        },
        _ => Err(io::Error::other("there is no option but --svg FILE")),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// What every strategy's p99 was against p2c's, scenario by scenario.
async fn run() -> io::Result<Vec<(&'static str, Vec<f64>)>> {
    let ours =
        Command::new("taskset").args(["-cp", &CORES[0].to_string(), &std::process::id().to_string()]).output()?;
    if !ours.status.success() {
        return Err(io::Error::other("this needs `taskset`"));
    }
    let mut worlds = Vec::new();
    for scenario in scenarios() {
        let rounds = live(&scenario).await?;
        print(&scenario, &rounds);
        worlds.push((scenario.title, rounds.iter().map(|seen| against(seen, &rounds[1])).collect()));
    }
    Ok(worlds)
}

/// What a round came to.
struct Seen {
    p50: f64,
    p99: f64,
    failed_percent: f64,
}

async fn live(scenario: &Scenario) -> io::Result<[Vec<Seen>; 3]> {
    let dir = tempfile::tempdir()?;
    let mut router = Router::start(env!("CARGO_BIN_EXE_weighbridge"), CORES[0], "", dir.path())?;
    while router::connect(router.admin).await.is_err() {
        if let Some(status) = router.process.0.try_wait()? {
            return Err(io::Error::other(format!("the router ended at once with {status}")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (mut processes, mut known) = (Vec::new(), Vec::new());
    for (n, service) in scenario.instances.iter().enumerate() {
        let (process, port) = start_instance(CORES[n / 2], *service)?;
        known.push(Known { pid: process.0.id(), core: CORES[n / 2], port });
        processes.push(process);
    }
    for _ in 0..scenario.hogs {
        processes.push(Process(this(CORES[1])?.arg("--hog").spawn()?));
    }
    // Only what burns CPU has something to report.
    let app = Rc::new(RefCell::new(String::new()));
    let burns = matches!(scenario.instances[0], Service::Burns(_));
    let agents = burns.then(|| spawn_local(agent::report(router.admin, known.clone(), app.clone())));
    let mut rounds: [Vec<Seen>; 3] = Default::default();
    for round in 0..scenario.rounds.0 {
        for turn in 0..STRATEGIES.len() {
            let at = (turn + round) % STRATEGIES.len();
            // Every round begins without anything learnt.
            let name = format!("{}-{round}", STRATEGIES[at]);
            for instance in &known {
                agent::register(router.admin, &name, STRATEGIES[at], instance).await?;
            }
            app.replace(name.clone());
            rounds[at].push(ask(router.http, &format!("{name}.test"), scenario, round as u64).await?);
        }
    }
    if let Some(agents) = agents {
        if agents.is_finished() {
            agents.await.map_err(io::Error::other)??;
        } else {
            agents.abort();
        }
    }
    Ok(rounds)
}

fn this(core: usize) -> io::Result<Command> {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(std::env::current_exe()?).stdin(Stdio::null());
    Ok(command)
}

fn start_instance(core: usize, service: Service) -> io::Result<(Process, u16)> {
    let mut child = this(core)?.args(["--instance", &service.argument()]).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
    let process = Process(child);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok((process, line.trim().parse().map_err(io::Error::other)?))
}

/// Requests at random times, whether or not those before have been answered.
async fn ask(http: SocketAddr, host: &str, scenario: &Scenario, seed: u64) -> io::Result<Seen> {
    let mut check = router::connect(http).await?;
    while router::get(&mut check, host).await? == 404 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let idle: Rc<RefCell<Vec<SendRequest<Empty<Bytes>>>>> = Rc::default();
    let seen: Rc<RefCell<Vec<(f64, bool)>>> = Rc::default();
    let mut dice = Dice::seeded(1000 + seed);
    let (begun, mut next) = (Instant::now(), Duration::ZERO);
    let mut tasks = Vec::new();
    while next < scenario.rounds.1 {
        tokio::time::sleep_until((begun + next).into()).await;
        let (idle, seen, host, due) = (idle.clone(), seen.clone(), host.to_owned(), begun + next);
        tasks.push(spawn_local(async move {
            let kept = idle.borrow_mut().pop();
            let mut connection = match kept {
                Some(connection) => connection,
                None => router::connect(http).await?,
            };
            let well = router::get(&mut connection, &host).await.is_ok_and(|status| status == 200);
            seen.borrow_mut().push((due.elapsed().as_secs_f64() * 1e3, well));
            idle.borrow_mut().extend(connection.is_ready().then_some(connection));
            Ok::<(), io::Error>(())
        }));
        next += Duration::from_secs_f64(-(1.0 - dice.share()).ln() / scenario.rate);
    }
    for task in tasks {
        let over = tokio::time::timeout(PATIENCE, task).await;
        over.map_err(|_| io::Error::other("an answer never comes"))?.map_err(io::Error::other)??;
    }
    let seen = seen.take();
    let mut latencies: Vec<f64> = seen.iter().map(|(latency, _)| *latency).collect();
    latencies.sort_unstable_by(f64::total_cmp);
    let quantile = |share: f64| latencies[(share * (latencies.len() - 1) as f64) as usize];
    let failed = seen.iter().filter(|(_, well)| !well).count();
    Ok(Seen { p50: quantile(0.5), p99: quantile(0.99), failed_percent: 100.0 * failed as f64 / seen.len() as f64 })
}

fn print(scenario: &Scenario, rounds: &[Vec<Seen>; 3]) {
    println!("\n#### Live: {}\n", scenario.name);
    println!("| strategy | p50 ms | p99 ms | failed % | p99 / p2c | p99 / round-robin | lowest and highest |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for (strategy, seen) in STRATEGIES.iter().zip(rounds) {
        let of = |figure: fn(&Seen) -> f64| median(seen.iter().map(figure));
        let failed = seen.iter().map(|seen| seen.failed_percent).sum::<f64>() / seen.len() as f64;
        println!(
            "| {strategy} | {:.1} | {:.1} | {failed:.2} | {:.2} | {:.2} | {:.2} … {:.2} |",
            of(|seen| seen.p50),
            of(|seen| seen.p99),
            against(seen, &rounds[1]),
            against(seen, &rounds[2]),
            ratios(seen, &rounds[2]).fold(f64::INFINITY, f64::min),
            ratios(seen, &rounds[2]).fold(0.0, f64::max),
        );
    }
}

/// The p99 of one strategy against another's, in the middle of all rounds.
fn against(ours: &[Seen], others: &[Seen]) -> f64 {
    median(ratios(ours, others))
}

/// The same round by round.
fn ratios(ours: &[Seen], others: &[Seen]) -> impl Iterator<Item = f64> {
    ours.iter().zip(others).map(|(ours, other)| ours.p99 / other.p99)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

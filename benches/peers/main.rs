//! Weighbridge beside nginx, HAProxy, Envoy, Caddy, Traefik and pingora on the same work, interleaved: what each costs.
//! The proxy has one core for itself, the load and the instances share the other. `benches/README.md` tells how to use it.

mod callgrind;
mod head;
mod instance;
mod load;
mod measure;
mod peer;
mod process;
mod report;
mod work;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use instance::Instances;
use measure::{Bench, Sample};
use peer::{Peer, Without};
use tokio::runtime::{Builder, LocalOptions};
use work::{Ask, Work};

/// The proxy's core and ours.
const PROXY_CORE: usize = 0;
const LOAD_CORE: usize = 1;
const INSTANCES: usize = 4;

const USAGE: &str = "\
cargo bench --bench peers -- [OPTIONS]

  --work NAME,…     only these works (see --list)
  --peers NAME,…    only these proxies beside Weighbridge; NAME=FILE is another build of Weighbridge
  --rounds N        rounds per work, in turn over the proxies [5]
  --seconds S       measured seconds of a round [2]
  --instructions    count user-space instructions per request too (small, log, headers; needs valgrind)
  --list            the works, the proxies that were found, and how to get those that were not";

/// What the command line asks for.
struct Options {
    works: Vec<Work>,
    peers: Vec<Peer>,
    rounds: usize,
    seconds: f64,
    instructions: bool,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    // All threads to come inherit it.
    let pinned =
        Command::new("taskset").args(["-cp", &LOAD_CORE.to_string(), &std::process::id().to_string()]).output();
    if !pinned.is_ok_and(|output| output.status.success()) {
        eprintln!("This needs two cores and `taskset`.");
        return ExitCode::FAILURE;
    }
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    match runtime.and_then(|runtime| runtime.block_on(run(&options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Option<Options>, String> {
    let (mut works, mut peers, mut rounds, mut seconds, mut instructions) = (Vec::new(), Vec::new(), 5, 2.0, false);
    let mut list = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let names = |list: String| list.split(',').map(str::to_owned).collect::<Vec<_>>();
        match argument.as_str() {
            "--work" => works = names(value()?),
            "--peers" => peers = names(value()?),
            "--rounds" => rounds = value()?.parse().map_err(|_| "--rounds needs a number")?,
            "--seconds" => seconds = value()?.parse().map_err(|_| "--seconds needs a number")?,
            "--instructions" => instructions = true,
            "--list" => list = true,
            "--bench" => {} // cargo says it
            unknown => return Err(format!("{unknown} is not known")),
        }
    }
    let (found, missing) = peer::find(&peers);
    missing.iter().for_each(|line| eprintln!("{line}"));
    if list {
        work::all().iter().for_each(|work| println!("{:<10} {}", work.name, work.title));
        found.iter().for_each(|peer| println!("{}", peer.version()));
        return Ok(None);
    }
    let all = work::all();
    if let Some(unknown) = works.iter().find(|name| !all.iter().any(|work| work.name == **name)) {
        return Err(format!("there is no work {unknown}"));
    }
    let works = all.into_iter().filter(|work| works.is_empty() || works.iter().any(|name| name == work.name)).collect();
    Ok(Some(Options { works, peers: found, rounds: usize::max(rounds, 1), seconds, instructions }))
}

async fn run(options: &Options) -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let bench = Bench {
        instances: Instances::start(INSTANCES).await?,
        certificate: measure::certificate(dir.path())?,
        seconds: options.seconds,
    };
    options.peers.iter().for_each(|peer| println!("- {}", peer.version()));
    for work in &options.works {
        let mut columns: Vec<Column> = options.peers.iter().map(Column::of).collect();
        if work.features.log {
            columns.extend(options.peers.first().map(|ours| Column::of(&ours.without(Without::Log))));
        }
        if work.name == "small" {
            let optional = options.peers.iter().filter(|peer| peer.has_optional_metrics());
            columns.extend(optional.map(|peer| Column::of(&peer.without(Without::Metrics))));
        }
        if work.ask == Ask::Idle {
            idle(&bench, work, options, &mut columns, dir.path()).await?;
        } else {
            interleaved(&bench, work, options, &mut columns, dir.path()).await?;
        }
        if options.instructions && work.countable {
            for column in columns.iter_mut().filter(|column| column.peer.is_countable()) {
                match bench.instructions(&column.peer, work, &folder(dir.path(), &column.peer)?).await {
                    Ok(count) => column.instructions = Some(count),
                    Err(problem) => column.notes.push(format!("callgrind: {problem}")),
                }
            }
        }
        report::print(work, &columns);
    }
    Ok(())
}

/// What is known of one proxy on one work.
pub struct Column {
    peer: Peer,
    samples: Vec<Sample>,
    instructions: Option<f64>,
    notes: Vec<String>,
}

impl Column {
    fn of(peer: &Peer) -> Column {
        Column { peer: peer.clone(), samples: Vec::new(), instructions: None, notes: Vec::new() }
    }
}

/// All proxies run, one at a time is asked; who begins changes from round to round.
async fn interleaved(
    bench: &Bench,
    work: &Work,
    options: &Options,
    columns: &mut [Column],
    dir: &Path,
) -> io::Result<()> {
    let mut running = Vec::new();
    for column in columns.iter_mut() {
        match bench.start(&column.peer, work, &folder(dir, &column.peer)?).await {
            Ok((proxy, lacks)) => {
                column.notes.extend(lacks);
                running.push(Some(proxy));
            }
            Err(problem) => {
                column.notes.push(problem.to_string());
                running.push(None);
            }
        }
    }
    for round in 0..options.rounds {
        for turn in 0..columns.len() {
            let at = (turn + round) % columns.len();
            let Some(proxy) = &running[at] else { continue };
            progress(work, round, &columns[at].peer);
            match bench.round(work, proxy).await {
                Ok(sample) => columns[at].samples.push(sample),
                Err(problem) => columns[at].notes.push(format!("round {}: {problem}", round + 1)),
            }
        }
    }
    Ok(())
}

/// A fresh proxy for every sample: memory that was once used does not always go back.
async fn idle(bench: &Bench, work: &Work, options: &Options, columns: &mut [Column], dir: &Path) -> io::Result<()> {
    for round in 0..options.rounds.min(3) {
        for column in columns.iter_mut() {
            progress(work, round, &column.peer);
            match bench.idle(&column.peer, work, &folder(dir, &column.peer)?).await {
                Ok(sample) => column.samples.push(sample),
                Err(problem) => column.notes.push(problem.to_string()),
            }
        }
    }
    Ok(())
}

/// For whoever watches; a file is not told.
fn progress(work: &Work, round: usize, peer: &Peer) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{} · round {} · {}\r", work.name, round + 1, peer.name);
    }
}

fn folder(dir: &Path, peer: &Peer) -> io::Result<PathBuf> {
    // Not every configuration can name a path with blanks.
    let folder = dir.join(peer.name.replace(' ', "-"));
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

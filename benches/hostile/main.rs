//! Two thousand clients that hang on (silent ones, slow heads, slow readers) while others ask as usual: what the others
//! notice, and what each who hangs on costs. `cargo bench --bench hostile`; needs `taskset`, `setpriv` and two cores. The router has one
//! of them; those who hang on, the instances and the visitors are processes of their own on the other. All of them are in
//! a real-time class where that is allowed, so that what else the machine does from time to time is not taken for theirs.
//! An instance that is asked directly all the while shows what is left of that.

#[path = "../scale/class.rs"]
mod class;
mod crowd;
mod instance;
#[path = "../scale/router.rs"]
#[allow(dead_code, reason = "it is shared")]
mod process;
mod router;
mod visitors;

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use crowd::Kind;
use process::{Process, Router};
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::sleep;
use visitors::{Noticed, visit};

/// Clients that hang on at once.
const HANGING: usize = 2_000;
/// Requests per second of the others, all together.
const RATE: u32 = 500;
/// How long each measurement takes.
const PHASE: Duration = Duration::from_secs(5);
/// Quiet and disturbed take turns that often, so that whatever else the machine does hits both.
const ROUNDS: usize = 5;
/// Of the router, and of everybody else.
const CORES: [usize; 2] = [0, 1];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    router::raise_descriptors();
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let done = runtime.and_then(|runtime| match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => runtime.block_on(run()),
        ["--instance"] => runtime.block_on(instance::serve()),
        ["--crowd", kind, to] => {
            runtime.block_on(crowd::hang_on(kind.parse()?, to.parse().map_err(io::Error::other)?, HANGING))
        }
        _ => Err(io::Error::other("there are no options")),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> io::Result<()> {
    let ours =
        Command::new("taskset").args(["-cp", &CORES[1].to_string(), &std::process::id().to_string()]).output()?;
    if !ours.status.success() {
        return Err(io::Error::other("this needs two cores and `taskset`"));
    }
    let class = class::real_time();
    let ((_visited, visited), (_hung, hung)) = (start(&["--instance"])?, start(&["--instance"])?);
    let route = |host: &str, port: &str| {
        format!("[[route]]\nhost = \"{host}\"\ninstances = [{{ host = \"127.0.0.1\", port = {port} }}]\n")
    };
    let folder = tempfile::tempdir()?;
    let settings = format!("{}{}", route("shop.test", &visited), route("hung.test", &hung));
    let router = Router::start(env!("CARGO_BIN_EXE_weighbridge"), CORES[0], &settings, folder.path())?;
    router.ready().await;
    let asked =
        Asked { router: &router, instance: ([127, 0, 0, 1], visited.parse().map_err(io::Error::other)?).into() };
    visit(router.http, RATE, Duration::from_secs(2)).await; // warm
    println!(
        "{HANGING} hanging clients, {RATE} requests/s beside them and as many to an instance directly, {ROUNDS} rounds of \
         {PHASE:?} each, all {class}\n"
    );
    println!(
        "| clients that hang on | p50 µs quiet | as they come | while they hang on | p99 µs quiet | as they come \
         | while they hang on | p99 µs directly: quiet | as they come | while they hang on | failed | KiB each \
         | of the kernel, all ends | descriptors |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let begin = router.memory_kib();
    for kind in Kind::ALL {
        measure(&asked, kind).await?;
    }
    router.until_connections_are_few().await;
    visit(router.http, RATE, Duration::from_secs(2)).await;
    println!(
        "\nmemory {} MiB at the beginning, {} MiB afterwards; open descriptors {}; connections of clients {}",
        begin / 1024,
        router.memory_kib() / 1024,
        router.descriptors(),
        router.connections().await,
    );
    Ok(())
}

/// This program with other arguments, and the first line it prints.
fn start(arguments: &[&str]) -> io::Result<(Process, String)> {
    let mut child =
        Command::new(std::env::current_exe()?).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
    let process = Process(child);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok((process, line.trim().to_owned()))
}

/// Who is asked.
struct Asked<'a> {
    router: &'a Router,
    instance: SocketAddr,
}

impl Asked<'_> {
    /// What those noticed who asked the router, and those who asked the instance.
    async fn visit(&self) -> [Noticed; 2] {
        tokio::join!(visit(self.router.http, RATE, PHASE), visit(self.instance, RATE, PHASE)).into()
    }
}

/// Measures one kind and prints its line.
async fn measure(asked: &Asked<'_>, kind: Kind) -> io::Result<()> {
    let router = asked.router;
    let mut noticed: [Vec<[Noticed; 2]>; 3] = Default::default();
    let (mut each, mut kernel_each, mut descriptors) = (0.0, 0.0, 0);
    for _ in 0..ROUNDS {
        noticed[0].push(asked.visit().await);
        let before = (router.memory_kib(), router::kernel_kib());
        let to = router.http.to_string();
        let coming = tokio::task::spawn_blocking(move || start(&["--crowd", kind.name(), &to]));
        noticed[1].push(asked.visit().await);
        let (crowd, _) = coming.await.map_err(io::Error::other)??;
        noticed[2].push(asked.visit().await);
        let holding = router.connections().await;
        assert!(holding > HANGING / 2, "{holding} of {HANGING} hang on");
        let share = |now: u64, before: u64| now.saturating_sub(before) as f64 / HANGING as f64;
        each = f64::max(each, share(router.memory_kib(), before.0));
        kernel_each = f64::max(kernel_each, share(router::kernel_kib(), before.1));
        descriptors = descriptors.max(router.descriptors());
        drop(crowd);
        router.until_connections_are_few().await;
        sleep(Duration::from_secs(1)).await;
    }
    let failed: usize = noticed.iter().flatten().flatten().map(|noticed| noticed.failed).sum();
    let medians = |of: fn(&[Noticed; 2]) -> Duration| {
        let median = noticed.each_ref().map(|phase| {
            let mut all: Vec<Duration> = phase.iter().map(of).collect();
            all.sort_unstable();
            all[all.len() / 2].as_micros().to_string()
        });
        median.join(" | ")
    };
    println!(
        "| {} | {} | {} | {} | {failed} | {each:.1} | {kernel_each:.0} | {descriptors} |",
        kind.name(),
        medians(|[routed, _]| routed.p50),
        medians(|[routed, _]| routed.p99),
        medians(|[_, direct]| direct.p99),
    );
    Ok(())
}

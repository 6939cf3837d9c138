//! A full platform over a real NATS server: how soon routes work, what the control plane and each endpoint cost, and whether
//! requests feel the storm of heartbeats. `cargo bench --bench scale -- [--routes N] [--router PATH]`, for another build's sake;
//! needs `nats-server`, `taskset`, two cores.

mod platform;
mod router;
mod sight;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use platform::{Orders, Platform, until};
use router::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{JoinHandle, spawn_local};

/// The router's core, and that of NATS, platform, clients and instance.
const ROUTER_CORE: usize = 0;
const OTHER_CORE: usize = 1;
/// Quiet and storm take turns.
const ROUNDS: usize = 3;
/// Less than a lease together with the time in which everybody reports again.
const QUIET: Duration = Duration::from_secs(4);
const STORM: Duration = Duration::from_secs(8);
/// After the rush of a start, memory comes to rest in this time.
const SETTLING: Duration = Duration::from_secs(15);
/// Clients that ask every so often.
const CLIENTS: usize = 8;
const EVERY: Duration = Duration::from_millis(5);
/// Registrations whose way into the table is timed, each round.
const TIMED: usize = 10;
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(120);
const MEASURED_HOST: &str = "measured.test";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (mut routes, mut program) = (Ok(100_000), env!("CARGO_BIN_EXE_weighbridge"));
    for option in arguments.chunks(2) {
        match option {
            [name, count] if name == "--routes" => routes = count.parse().map_err(|_| "--routes needs a number"),
            [name, path] if name == "--router" => program = path,
            _ => routes = Err("only --routes N and --router PATH are known"),
        }
    }
    // All threads to come inherit it.
    let pinned =
        Command::new("taskset").args(["-cp", &OTHER_CORE.to_string(), &std::process::id().to_string()]).output();
    let routes = routes.and_then(|routes: usize| match pinned {
        Ok(output) if output.status.success() => Ok(routes),
        _ => Err("this needs two cores and `taskset`"),
    });
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let done = routes.map_err(io::Error::other).and_then(|routes| runtime?.block_on(run(routes, program)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run(routes: usize, program: &str) -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let address = router::free_address()?;
    let nats = format!("nats://{address}");
    let port = address.port().to_string();
    let _server =
        router::spawn(OTHER_CORE, "nats-server", &["-a", "127.0.0.1", "-p", &port], &dir.path().join("nats.out"))?;
    until(PATIENCE, async || tokio::net::TcpStream::connect(address).await.is_ok()).await?;
    println!("| {routes} routes, {} endpoints | |\n|---|--:|", platform::endpoints(routes));
    let platform = Platform::of(routes, &nats);
    let bus = async_nats::connect(&nats).await.map_err(io::Error::other)?;

    let router = start_up(&platform, routes, program, &nats, dir.path()).await?;
    let instance = instance().await?;
    register(&bus, MEASURED_HOST, instance).await?;
    let mut connection = router::connect(router.http).await?;
    until(PATIENCE, async || router::get(&mut connection, MEASURED_HOST).await.is_ok_and(|status| status == 200))
        .await?;
    storm(&platform, &router, &bus, instance).await?;
    prune(&platform, &router).await
}

/// A router starts, and everybody registers at once.
async fn start_up(platform: &Platform, routes: usize, program: &str, nats: &str, dir: &Path) -> io::Result<Router> {
    let begun = Instant::now();
    let router = Router::start(program, ROUTER_CORE, &format!("nats.servers = [{nats:?}]"), dir)?;
    until(PATIENCE, async || router.metric("weighbridge_routes").await.is_some()).await?;
    let empty = router.resident_bytes();
    platform.order(Orders::Report);
    let all = platform::endpoints(routes);
    until(PATIENCE, async || router.endpoints().await >= all).await?;
    println!("| start to all endpoints known, s | {:.2} |", begun.elapsed().as_secs_f64());
    println!("| CPU of the control thread for it, s | {:.2} |", router.control_seconds());
    let dropped = router.metric("weighbridge_bus_messages_dropped_total").await.unwrap_or(f64::NAN);
    println!("| messages dropped on the way | {dropped:.0} |");
    // At first with the messages that had to wait, then without them, while everybody reports in turn.
    for when in ["", " when that is over"] {
        let bytes = router.resident_bytes() - empty;
        println!("| memory{when}, MiB | {:.0} |", bytes / 1024.0 / 1024.0);
        println!("| memory{when} per endpoint, bytes | {:.0} |", bytes / all as f64);
        println!("| memory{when} per endpoint or route, bytes | {:.0} |", bytes / (all + routes) as f64);
        if when.is_empty() {
            tokio::time::sleep(SETTLING).await;
        }
    }
    Ok(router)
}

/// What a while of requests and registrations came to.
#[derive(Default)]
struct Seen {
    p50: f64,
    p99: f64,
    /// The p99 of those who ask the instance itself: what clients, NATS and platform cost each other on their core.
    direct_p99: f64,
    routable: Vec<f64>,
    failures: usize,
}

/// Requests and registrations without heartbeats and with them, in turn.
async fn storm(platform: &Platform, router: &Router, bus: &async_nats::Client, instance: u16) -> io::Result<()> {
    let (mut quiet, mut stormy, mut control, mut reports) = (Vec::new(), Vec::new(), 0.0, 0);
    let mut serial = 0;
    for _ in 0..ROUNDS {
        platform.order(Orders::Rest);
        quiet.push(look(QUIET, router, bus, instance, &mut serial).await?);
        platform.order(Orders::Report);
        let (cpu, sent) = (router.control_seconds(), platform.reports.load(Ordering::Relaxed));
        let begun = Instant::now();
        stormy.push(look(STORM, router, bus, instance, &mut serial).await?);
        control += (router.control_seconds() - cpu) / begun.elapsed().as_secs_f64() / ROUNDS as f64;
        reports += ((platform.reports.load(Ordering::Relaxed) - sent) as f64 / begun.elapsed().as_secs_f64()) as u64;
    }
    println!("| storm: reports/s | {} |", reports / ROUNDS as u64);
    println!("| storm: CPU of the control thread, cores | {control:.3} |");
    let dropped = router.metric("weighbridge_bus_messages_dropped_total").await.unwrap_or(f64::NAN);
    println!("| messages dropped so far | {dropped:.0} |");
    for (name, seen) in [("quiet", &quiet), ("storm", &stormy)] {
        let routable: Vec<f64> = seen.iter().flat_map(|seen| seen.routable.iter().copied()).collect();
        let most = routable.iter().copied().fold(0.0, f64::max);
        println!("| {name}: request p50, ms | {:.3} |", median(seen.iter().map(|seen| seen.p50)));
        println!("| {name}: request p99, ms | {:.3} |", median(seen.iter().map(|seen| seen.p99)));
        println!(
            "| {name}: p99 of the instance asked directly, ms | {:.3} |",
            median(seen.iter().map(|seen| seen.direct_p99))
        );
        println!(
            "| {name}: registered to routable, ms, median (most of {}) | {:.1} ({most:.1}) |",
            routable.len(),
            median(routable.iter().copied())
        );
        println!("| {name}: requests failed | {} |", seen.iter().map(|seen| seen.failures).sum::<usize>());
    }
    let rounds = || stormy.iter().zip(&quiet);
    println!("| p99 in the storm / quiet | {:.2} |", median(rounds().map(|(storm, quiet)| storm.p99 / quiet.p99)));
    let direct = rounds().map(|(storm, quiet)| storm.direct_p99 / quiet.direct_p99);
    println!("| the same of the instance asked directly | {:.2} |", median(direct));
    Ok(())
}

async fn look(
    time: Duration,
    router: &Router,
    bus: &async_nats::Client,
    instance: u16,
    serial: &mut usize,
) -> io::Result<Seen> {
    let end = Instant::now() + time;
    let asked = [router.http, ([127, 0, 0, 1], instance).into()].map(|address| Asked::by(CLIENTS, address, end));
    let mut seen = Seen::default();
    for _ in 0..TIMED {
        *serial += 1;
        seen.routable.push(time_to_routable(&format!("new-{serial}.test"), router, bus, instance).await?);
        tokio::time::sleep(time / (2 * TIMED as u32)).await;
    }
    let [through, direct] = asked;
    let (through, direct) = (through.over().await?, direct.over().await?);
    let quantile = |latencies: &[f64], share: f64| latencies[(share * (latencies.len() - 1) as f64) as usize];
    (seen.p50, seen.p99) = (quantile(&through.0, 0.5), quantile(&through.0, 0.99));
    (seen.direct_p99, seen.failures) = (quantile(&direct.0, 0.99), through.1 + direct.1);
    Ok(seen)
}

/// Clients that ask one address every so often.
struct Asked {
    latencies: Rc<RefCell<Vec<f64>>>,
    failures: Rc<Cell<usize>>,
    clients: Vec<JoinHandle<io::Result<()>>>,
}

impl Asked {
    /// So many, until `end`.
    fn by(count: usize, address: SocketAddr, end: Instant) -> Asked {
        let (latencies, failures): (Rc<RefCell<Vec<f64>>>, Rc<Cell<usize>>) = Default::default();
        let client = |_| {
            let (latencies, failures) = (latencies.clone(), failures.clone());
            spawn_local(async move {
                let mut connection = router::connect(address).await?;
                let mut ticks = tokio::time::interval(EVERY);
                while Instant::now() < end {
                    ticks.tick().await;
                    let asked = Instant::now();
                    if router::get(&mut connection, MEASURED_HOST).await? != 200 {
                        failures.set(failures.get() + 1);
                    }
                    latencies.borrow_mut().push(asked.elapsed().as_secs_f64() * 1e3);
                }
                Ok(())
            })
        };
        let clients = (0..count).map(client).collect();
        Asked { latencies, failures, clients }
    }

    /// Milliseconds of all requests, in order, and how many failed.
    async fn over(self) -> io::Result<(Vec<f64>, usize)> {
        for client in self.clients {
            client.await.map_err(io::Error::other)??;
        }
        let mut latencies = self.latencies.take();
        latencies.sort_unstable_by(f64::total_cmp);
        Ok((latencies, self.failures.get()))
    }
}

/// Milliseconds from a registration to the first answer of its instance.
async fn time_to_routable(host: &str, router: &Router, bus: &async_nats::Client, instance: u16) -> io::Result<f64> {
    let mut connection = router::connect(router.http).await?;
    let begun = Instant::now();
    register(bus, host, instance).await?;
    while router::get(&mut connection, host).await? != 200 {
        if begun.elapsed() > PATIENCE {
            return Err(io::Error::other("a registration is never routable"));
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Everybody falls silent.
async fn prune(platform: &Platform, router: &Router) -> io::Result<()> {
    let all = router.endpoints().await;
    let cpu = router.control_seconds();
    platform.order(Orders::Rest);
    let first = until(PATIENCE, async || router.endpoints().await < all).await?;
    let rest = until(PATIENCE, async || router.endpoints().await < all / 100).await?;
    println!("| silence to the first pruned, s | {:.1} |", first.as_secs_f64());
    println!("| and from there to the last, s | {:.1} |", rest.as_secs_f64());
    println!("| CPU of the control thread for it, s | {:.2} |", router.control_seconds() - cpu);
    Ok(())
}

async fn register(bus: &async_nats::Client, host: &str, instance: u16) -> io::Result<()> {
    let message = format!(
        r#"{{"host":"127.0.0.1","port":{instance},"uris":["{host}"],"app":"{host}","private_instance_id":"{host}"}}"#
    );
    bus.publish("router.register", message.into()).await.map_err(io::Error::other)?;
    bus.flush().await.map_err(io::Error::other)
}

/// An instance that answers at once; its port.
async fn instance() -> io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            spawn_local(async move {
                let mut buffer = [0; 4096];
                // The router sends a small head in one piece and waits for its answer.
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    Ok(port)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

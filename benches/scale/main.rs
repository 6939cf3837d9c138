//! A full platform over a real NATS server: how soon routes work, what the control plane and each endpoint cost, and whether
//! requests feel the storm of heartbeats. `cargo bench --bench scale -- [--routes N] [--router PATH]`, for another build's sake;
//! needs `nats-server`, `taskset`, `chrt`, `setpriv`, two cores.

mod class;
mod platform;
mod router;
mod sight;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use platform::{Orders, Platform, until};
use router::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use weighbridge::domain::dice::Dice;

/// The router's core, and that of clients, instance, NATS and platform. The latter two get it when nobody else needs it
/// (`SCHED_IDLE`): elsewhere they would not share a core.
const ROUTER_CORE: usize = 0;
const OTHER_CORE: usize = 1;
/// Quiet and storm take turns, often: whatever else the machine does has to fall on both.
const ROUNDS: usize = 30;
/// A turn. So an agent reports every ten seconds, and its lease of fifteen does not run out.
const TURN: Duration = Duration::from_secs(2);
/// After the rush of a start, memory comes to rest in this time.
const SETTLING: Duration = Duration::from_secs(15);
/// Clients, and how often each asks on average.
const CLIENTS: usize = 8;
const EVERY: Duration = Duration::from_millis(5);
/// Registrations whose way into the table is timed, each turn.
const TIMED: usize = 2;
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
    let class = class::real_time();
    let dir = tempfile::tempdir()?;
    let address = router::free_address()?;
    let nats = format!("nats://{address}");
    let port = address.port().to_string();
    let server = ["--idle", "0", "nats-server", "-a", "127.0.0.1", "-p", &port];
    let _server = router::spawn(OTHER_CORE, "chrt", &server, &dir.path().join("nats.out"))?;
    until(PATIENCE, async || tokio::net::TcpStream::connect(address).await.is_ok()).await?;
    println!("Router, clients and instance are {class}.\n");
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

/// What all the quiet turns came to, or all those in the storm.
#[derive(Default)]
struct Seen {
    /// Milliseconds of requests through the router, and of those that ask the instance itself: what clients, NATS and
    /// platform cost each other on their core.
    through: Vec<f64>,
    direct: Vec<f64>,
    failures: usize,
    /// Milliseconds from registrations to their first answer.
    routable: Vec<f64>,
}

/// Requests and registrations without heartbeats and with them, in turn.
async fn storm(platform: &Platform, router: &Router, bus: &async_nats::Client, instance: u16) -> io::Result<()> {
    let (mut quiet, mut stormy) = (Seen::default(), Seen::default());
    let (mut control, mut reports, mut time) = (0.0, 0, Duration::ZERO);
    for _ in 0..ROUNDS {
        platform.order(Orders::Rest);
        quiet.look(router, bus, instance).await?;
        platform.order(Orders::Report);
        let (begun, cpu) = (Instant::now(), router.control_seconds());
        let sent = platform.reports.load(Ordering::Relaxed);
        stormy.look(router, bus, instance).await?;
        control += router.control_seconds() - cpu;
        reports += platform.reports.load(Ordering::Relaxed) - sent;
        time += begun.elapsed();
    }
    println!("| storm: reports/s | {:.0} |", reports as f64 / time.as_secs_f64());
    println!("| storm: CPU of the control thread, cores | {:.3} |", control / time.as_secs_f64());
    let dropped = router.metric("weighbridge_bus_messages_dropped_total").await.unwrap_or(f64::NAN);
    println!("| messages dropped so far | {dropped:.0} |");
    for (name, seen) in [("quiet", &mut quiet), ("storm", &mut stormy)] {
        for values in [&mut seen.through, &mut seen.direct, &mut seen.routable] {
            values.sort_unstable_by(f64::total_cmp);
        }
        println!("| {name}: request p50, ms | {:.3} |", quantile(&seen.through, 0.5));
        println!("| {name}: request p99, ms | {:.3} |", quantile(&seen.through, 0.99));
        println!("| {name}: p99 of the instance asked directly, ms | {:.3} |", quantile(&seen.direct, 0.99));
        println!(
            "| {name}: registered to routable, ms, median (most of {}) | {:.1} ({:.1}) |",
            seen.routable.len(),
            quantile(&seen.routable, 0.5),
            quantile(&seen.routable, 1.0)
        );
        println!("| {name}: requests, failed | {}, {} |", seen.through.len() + seen.direct.len(), seen.failures);
    }
    for share in [0.5, 0.99] {
        let ratio = quantile(&stormy.through, share) / quantile(&quiet.through, share);
        println!("| p{:.0} in the storm / quiet | {ratio:.2} |", share * 100.0);
    }
    let direct = quantile(&stormy.direct, 0.99) / quantile(&quiet.direct, 0.99);
    println!("| p99 of the instance asked directly, the same | {direct:.2} |");
    Ok(())
}

impl Seen {
    /// Another turn.
    async fn look(&mut self, router: &Router, bus: &async_nats::Client, instance: u16) -> io::Result<()> {
        // Else its lease would run out.
        register(bus, MEASURED_HOST, instance).await?;
        let end = Instant::now() + TURN;
        let asked = [router.http, ([127, 0, 0, 1], instance).into()].map(|address| Asked::by(CLIENTS, address, end));
        for _ in 0..TIMED {
            let host = format!("new-{:x}.test", uuid::Uuid::new_v4());
            self.routable.push(time_to_routable(&host, router, bus, instance).await?);
            tokio::time::sleep(TURN / (2 * TIMED as u32)).await;
        }
        for (asked, latencies) in asked.into_iter().zip([&mut self.through, &mut self.direct]) {
            self.failures += asked.over(latencies).await?;
        }
        Ok(())
    }
}

/// Of values in order.
fn quantile(values: &[f64], share: f64) -> f64 {
    values.get((share * (values.len().saturating_sub(1)) as f64) as usize).copied().unwrap_or(f64::NAN)
}

/// Milliseconds of requests, and how many of them failed.
type Answers = (Vec<f64>, usize);

/// Clients that ask one address.
struct Asked(Vec<JoinHandle<io::Result<Answers>>>);

impl Asked {
    /// So many, until `end`.
    fn by(count: usize, address: SocketAddr, end: Instant) -> Asked {
        Asked((0..count).map(|n| spawn_blocking(move || ask(address, end, Dice::seeded(n as u64)))).collect())
    }

    /// Adds the milliseconds of all requests; how many failed.
    async fn over(self, latencies: &mut Vec<f64>) -> io::Result<usize> {
        let mut failures = 0;
        for client in self.0 {
            let (its, failed) = client.await.map_err(io::Error::other)??;
            latencies.extend(its);
            failures += failed;
        }
        Ok(failures)
    }
}

/// Asks at random moments: in step with the platform's reports it would meet all of them or none. Only a thread of its own
/// can wait so exactly, a timer of the runtime goes by milliseconds.
fn ask(address: SocketAddr, end: Instant, mut dice: Dice) -> io::Result<Answers> {
    let connect = || {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        io::Result::Ok(stream)
    };
    let request = format!("GET / HTTP/1.1\r\nHost: {MEASURED_HOST}\r\n\r\n");
    let (mut stream, mut latencies, mut failures, mut buffer) = (connect()?, Vec::new(), 0, [0; 4096]);
    while Instant::now() < end {
        std::thread::sleep(EVERY.mul_f64(-(1.0 - dice.share()).ln()));
        let asked = Instant::now();
        stream.write_all(request.as_bytes())?;
        let mut filled = 0;
        while !buffer[..filled].ends_with(b"\r\n\r\nok") {
            let more = stream.read(&mut buffer[filled..])?;
            filled += more;
            if more == 0 || !buffer[..filled].starts_with(b"HTTP/1.1 200 ") {
                failures += 1;
                stream = connect()?;
                break;
            }
        }
        latencies.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    Ok((latencies, failures))
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

/// Everybody falls silent, after everybody has reported once more.
async fn prune(platform: &Platform, router: &Router) -> io::Result<()> {
    tokio::time::sleep(platform::PERIOD).await;
    let all = router.endpoints().await;
    let cpu = router.control_seconds();
    platform.order(Orders::Rest);
    let first = until(PATIENCE, async || router.endpoints().await < all - all / 100).await?;
    let rest = until(PATIENCE, async || router.endpoints().await < all / 100).await?;
    println!("| silence to the first hundredth pruned, s | {:.1} |", first.as_secs_f64());
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

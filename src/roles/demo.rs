//! The demo: the real router on an in-process bus, with three simulated machines of unequal speed behind it, real HTTP
//! instances on them, visitors, and an app that sleeps. It needs nothing installed and shows a busy machine losing its traffic.

mod app;
mod machine;
mod screen;
mod sleeper;
mod visitors;

use std::io::{self, IsTerminal, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::router::{self, Running, StartError};
use crate::config::Config;
use crate::domain::balance::score::ScoreConfig;
use crate::domain::balance::{Wish, explain};
use crate::domain::protocol::envelope::Outgoing;
use crate::domain::table::snapshot::Found;
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::Phase;
use app::{Instance, WINDOW};
use machine::Machine;
use screen::{Picture, Row};
use sleeper::Sleeper;

/// Ports the demo likes; if they are taken and were not asked for, any others do.
const LIKED_HTTP: u16 = 8080;
const LIKED_ADMIN: u16 = 8081;

/// How long a demo waits for others that are just starting.
const TURN_MAX: Duration = Duration::from_secs(5);

/// How often a host agent reports.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long the noisy neighbour stays away, and how long it stays.
const NEIGHBOUR_EVERY: Duration = Duration::from_secs(20);

/// Share of the cores of its machine that the neighbour takes.
const NEIGHBOUR_SHARE: f64 = 0.9;

/// The machine with the neighbour.
const NOISY: usize = 2;

/// What the operator may choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Port of the apps; `None`: 8080, or a free one.
    pub http_port: Option<u16>,
    /// Port of the operator; `None`: 8081, or a free one.
    pub admin_port: Option<u16>,
    /// How long nobody must have used the sleeping app before it sleeps again.
    pub idle: Duration,
    /// How this program was called, for the commands to try.
    pub program: String,
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A port that was asked for is taken.
    #[error("port {port} is taken ({cause}): choose another one with {option}, or leave it out to get a free one")]
    PortTaken {
        /// The port.
        port: u16,
        /// The option that asked for it.
        option: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// There is no free port on the loopback interface.
    #[error("no free port on the loopback interface")]
    NoPort(#[source] io::Error),
    /// The system gives no threads.
    #[error("cannot start: {0}")]
    NoRuntime(#[source] io::Error),
    /// The router did not start.
    #[error("the router did not start: {0}")]
    Router(#[from] StartError),
}

/// Runs the demo until Ctrl-C or SIGTERM.
///
/// # Errors
/// If it cannot start.
pub fn run(options: Options) -> Result<(), DemoError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(DemoError::NoRuntime)?.block_on(show(options))
}

async fn show(options: Options) -> Result<(), DemoError> {
    let turn = turn();
    let http = choose_port(options.http_port, LIKED_HTTP, "--http-port")?;
    let admin = choose_port(options.admin_port, LIKED_ADMIN, "--admin-port")?;
    let config = config(http, admin, options.idle);
    let _level_stays = router::start_log(&config.log);
    let router = router::start(config).await?;
    drop(turn);
    let world = World::start(&router, options.idle).await?;
    let watched = async {
        print(&instructions(&options, &router))?;
        world.show(&router).await
    };
    tokio::select! {
        _nobody_watches = watched => {}
        () = asked_to_stop() => {}
    }
    router.conductor.enter(Phase::Stopped);
    let _nobody_watches = print("\nStopped.\n");
    Ok(())
}

/// The configuration of the demo's router: what an operator would write, with quiet logs.
fn config(http: u16, admin: u16, idle: Duration) -> Config {
    let stats_every = sleeper::look_every(idle).as_millis();
    let text = format!(
        "http.listen = [\"127.0.0.1:{http}\"]\nadmin.listen = \"127.0.0.1:{admin}\"\n\
         workers = 2\naccess_log.path = \"\"\nlog.level = \"warn\"\nstats.interval = \"{stats_every}ms\"\n"
    );
    Config::from_toml(&text).expect("written by us: two ports and constants")
}

/// Demos that start at once take turns, or each would find the same port free and they would share it. Held until the
/// ports are taken. A demo that has waited for `TURN_MAX` goes on without.
fn turn() -> Option<UnixListener> {
    let place = SocketAddr::from_abstract_name("weighbridge-demo-starts").ok()?;
    let begun = Instant::now();
    loop {
        match UnixListener::bind_addr(&place) {
            Ok(ours) => return Some(ours),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return None,
            Err(_another_starts) => {}
        }
        let left = TURN_MAX.checked_sub(begun.elapsed()).filter(|left| !left.is_zero())?;
        if let Ok(mut other) = UnixStream::connect_addr(&place) {
            other.set_read_timeout(Some(left)).ok()?;
            // It says nothing; it ends when the other one has its ports.
            let _ended = other.read(&mut [0]);
        }
    }
}

/// The port that was asked for, or the liked one, or any.
fn choose_port(asked: Option<u16>, liked: u16, option: &'static str) -> Result<u16, DemoError> {
    // The router shares its ports between workers, and would share them with another router: hence a look without sharing.
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    let found = match asked {
        Some(port) => free(port).map_err(|cause| DemoError::PortTaken { port, option, cause })?,
        None => free(liked).or_else(|_| free(0)).map_err(DemoError::NoPort)?,
    };
    Ok(found.port())
}

fn instructions(options: &Options, router: &Running) -> String {
    let (http, admin) = (router.http[0].port(), router.admin);
    let note = if options.http_port.is_none() && http != LIKED_HTTP {
        format!(" (port {LIKED_HTTP} is taken, so it is {http})")
    } else {
        String::new()
    };
    let which = if admin.port() == LIKED_ADMIN { String::new() } else { format!(" --admin {admin}") };
    let program = &options.program;
    format!(
        "
  Weighbridge demo: a router, three machines, five instances of two apps, some visitors, and an app that sleeps.

  Open in a browser{note}:
    http://shop.localhost:{http}/      reload it: another instance answers each time
    http://blog.localhost:{http}/
    http://notes.localhost:{http}/     it sleeps: it starts because you come, and sleeps again when nobody uses it

  Try in another terminal:
    curl http://shop.localhost:{http}/
    curl -b jar -c jar http://shop.localhost:{http}/login     twice or more: a session stays where it is
    {program} explain shop.localhost{which}     who would be picked, and why

  Should a name not be found: curl -H 'Host: shop.localhost' http://127.0.0.1:{http}/
  Metrics are on http://{admin}/metrics. Ctrl-C ends the demo.

"
    )
}

/// Everything behind and in front of the router.
struct World {
    machines: Vec<Arc<Machine>>,
    instances: Vec<Arc<Instance>>,
    visitors: visitors::Counts,
    begun: Instant,
}

impl World {
    async fn start(router: &Running, idle: Duration) -> Result<World, DemoError> {
        let clock = Clock::new();
        let machines = vec![
            Machine::start("oak", 4.0, 3, clock),
            Machine::start("elm", 2.0, 1, clock),
            Machine::start("ash", 2.0, 2, clock),
        ];
        let mut instances = Vec::new();
        for (app, index, machine, slot) in
            [("shop", 0, 0, 0), ("shop", 1, 1, 0), ("shop", 2, 2, 0), ("blog", 0, 0, 1), ("blog", 1, 2, 1)]
        {
            let seed = instances.len() as u64;
            let started = Instance::start(app, index, &machines[machine], slot, seed).await;
            instances.push(started.map_err(DemoError::NoPort)?);
        }
        let world = World { machines, instances, visitors: visitors::Counts::default(), begun: Instant::now() };
        for machine in &world.machines {
            let own = world.instances.iter().filter(|instance| Arc::ptr_eq(&instance.machine, machine)).cloned();
            tokio::spawn(report(machine.clone(), own.collect(), router.bus.clone()));
        }
        tokio::spawn(come_and_go(world.machines[NOISY].clone()));
        if let Some(bus) = &router.embedded {
            tokio::spawn(Sleeper::new(bus.clone(), world.machines[0].clone(), 2, idle).run());
        }
        world.until_known(router).await;
        let address = router.http[0];
        visitors::send(60, "shop", Duration::from_millis(1_000), address, &world.visitors);
        visitors::send(20, "blog", Duration::from_millis(1_000), address, &world.visitors);
        Ok(world)
    }

    /// Shows the present, until stdout is closed.
    async fn show(&self, router: &Running) -> io::Result<()> {
        let in_place = io::stdout().is_terminal();
        let mut every =
            tokio::time::interval(if in_place { Duration::from_millis(500) } else { Duration::from_secs(5) });
        let mut lines = 0;
        loop {
            every.tick().await;
            let picture = self.picture(router);
            if in_place {
                let text = format!("{}\n  {}\n", picture.table(), picture.story());
                print(&screen::redrawn(lines, &text))?;
                lines = text.lines().count();
            } else {
                print(&(picture.line() + "\n"))?;
            }
        }
    }

    fn picture(&self, router: &Running) -> Picture {
        let lately: Vec<_> = self.instances.iter().map(|instance| instance.lately()).collect();
        let of_app = |app: &str| -> usize {
            self.instances.iter().zip(&lately).filter(|(i, _)| i.app == app).map(|(_, lately)| lately.answered).sum()
        };
        let window = self.begun.elapsed().min(WINDOW).as_secs_f64().max(0.5);
        let rows = self.instances.iter().zip(&lately).map(|(instance, lately)| {
            let known = known(router, instance).unwrap_or_default();
            Row {
                name: instance.name.clone(),
                machine: instance.machine.name,
                cores: instance.machine.cores(),
                machine_cpu: known.machine_cpu,
                load: known.load,
                capacity: known.capacity,
                in_flight: known.in_flight,
                rate: lately.answered as f64 / window,
                share: lately.answered as f64 / of_app(instance.app).max(1) as f64,
                p99: lately.p99,
            }
        });
        let noisy = &self.machines[NOISY];
        let seen = *self.visitors.lock();
        Picture {
            rows: rows.collect(),
            neighbour: (noisy.neighbour() > 0.0).then(|| (noisy.name, noisy.neighbour())),
            good: seen.good,
            bad: seen.bad,
            up: self.begun.elapsed(),
        }
    }

    /// Returns once the router knows every instance.
    async fn until_known(&self, router: &Running) {
        while !self.instances.iter().all(|instance| known(router, instance).is_some()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// What the router knows of an instance.
#[derive(Debug, Default)]
struct Known {
    machine_cpu: Option<f64>,
    load: Option<f64>,
    capacity: Option<f32>,
    in_flight: u32,
}

fn known(router: &Running, instance: &Instance) -> Option<Known> {
    let routes = router.routes.get();
    let Found::Pool(pool) = routes.lookup(&format!("{}.localhost", instance.app), "/") else { return None };
    let next = explain(pool, &Wish::default(), &ScoreConfig::default(), router.clock.now());
    let mine = next.iter().find(|it| it.endpoint.address.as_socket() == Some(instance.address))?;
    let live = &mine.endpoint.live;
    Some(Known {
        machine_cpu: live.heard().and_then(|heard| heard.host.cpu).map(|cpu| f64::from(cpu.get())),
        load: mine.loads.map(|loads| loads.load),
        capacity: Some(mine.capacity),
        in_flight: live.open(),
    })
}

/// The host agent of a machine: reports all its instances every `HEARTBEAT`.
async fn report(machine: Arc<Machine>, instances: Vec<Arc<Instance>>, bus: mpsc::Sender<Outgoing>) {
    let boot_id = uuid::Uuid::new_v4().to_string();
    let mut every = tokio::time::interval(HEARTBEAT);
    for seq in 1u64.. {
        every.tick().await;
        let cpu = machine.report();
        let droplets: Vec<Value> =
            instances.iter().map(|instance| instance.droplet(cpu.slots[instance.slot])).collect();
        let heartbeat = json!({
            "dea": machine.name, "schema": 2, "seq": seq, "boot_id": boot_id,
            "interval_ms": HEARTBEAT.as_millis() as u64,
            "host": {"ip": "127.0.0.1", "zone": "demo", "load": {"cpu": cpu.machine, "mem": 0.4}},
            "droplets": droplets,
        });
        let message =
            Outgoing { subject: "dea.heartbeat".to_owned(), payload: heartbeat.to_string().into(), reply: None };
        if bus.send(message).await.is_err() {
            return; // the router has ended
        }
    }
}

/// The noisy neighbour of a machine.
async fn come_and_go(machine: Arc<Machine>) {
    loop {
        tokio::time::sleep(NEIGHBOUR_EVERY).await;
        machine.set_neighbour(NEIGHBOUR_SHARE * machine.cores());
        tokio::time::sleep(NEIGHBOUR_EVERY).await;
        machine.set_neighbour(0.0);
    }
}

/// Resolves on Ctrl-C and on SIGTERM.
async fn asked_to_stop() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate => {}
    }
}

/// Writes to stdout; an error means that nobody reads it any more.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_was_asked_for_and_is_taken_is_an_error_that_says_what_to_do() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
        let port = taken.local_addr().expect("it is bound").port();
        let error = choose_port(Some(port), LIKED_HTTP, "--http-port").expect_err("it is taken");
        assert!(error.to_string().contains(&port.to_string()) && error.to_string().contains("--http-port"), "{error}");
    }

    #[test]
    fn a_liked_port_that_is_taken_is_replaced_by_a_free_one() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
        let port = taken.local_addr().expect("it is bound").port();
        let chosen = choose_port(None, port, "--http-port").expect("there are others");
        assert_ne!(chosen, port);
    }

    #[test]
    fn the_configuration_of_the_demo_is_valid() {
        assert_eq!(
            config(1234, 1235, Duration::from_secs(30)).http.listen,
            [std::net::SocketAddr::from(([127, 0, 0, 1], 1234))]
        );
    }
}

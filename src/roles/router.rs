//! The router: bus, control plane, workers and the operator's port, joined.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arcstr::ArcStr;
use socket2::Socket;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::neighbours::Neighbours;
use super::priming::{Gathering, Opening};
use super::wiring::{self, BadPage};
use crate::adapters::admin::{self, Admin, AdminSocket, Health};
use crate::adapters::bus::{self, Bus, embedded::Embedded, memory};
use crate::adapters::starter::{self, Starter};
use crate::adapters::{probe, resolver};
use crate::config::{Config, LogConfig, LogFormat, LogLevel, WakeStart};
use crate::control::event::Event;
use crate::control::plane::ControlPlane;
use crate::control::run::{self as control, Ports as Joints};
use crate::domain::dice::Dice;
use crate::domain::hash::Keyed;
use crate::domain::pace::Pace;
use crate::domain::protocol::envelope::Outgoing;
use crate::domain::protocol::rejection::Rejection;
use crate::domain::retry::Budget;
use crate::domain::table::snapshot::Snapshot;
use crate::domain::wake::LiveApps;
use crate::proxy::settings::Settings;
use crate::proxy::tls::keeper::{Keeper, Problems};
use crate::proxy::worker::{self, Belongings, Listeners, Over, Shared};
use crate::runtime::clock::Clock;
use crate::runtime::descriptors;
use crate::runtime::published::Published;
use crate::runtime::shutdown::{self, Conductor, Phase};
use crate::runtime::succession::{Inheritance, Offer};
use crate::runtime::supervisor::Supervisor;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::logs::{self, LevelHandle};
use crate::telemetry::metrics::Metrics;

/// What the router listens to on the bus, beside its own inbox.
const SUBJECTS: &[&str] = &[
    "router.register",
    "router.unregister",
    "router.greet",
    "dea.heartbeat",
    "dea.shutdown",
    "droplet.exited",
    "app.park",
    "app.unpark",
    "app.sleep",
    "app.starting",
    "app.failed",
    "app.forget",
    "app.list",
];

/// What happens to apps beside what the bus tells: so much may wait for the control plane.
const HAPPENINGS: usize = 4096;

/// Starts of apps that may wait to be asked for; one that finds no place counts as refused, and is asked for again.
const ASKS: usize = 1024;

/// Events beside those of the bus that may wait for the control plane.
const EVENTS: usize = 16;

/// How often files of TLS are looked at.
const FILES_EVERY: Duration = Duration::from_secs(2);

/// How long the last lines of the access log may take to be written.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// Why the router does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error("cannot listen on {address} ({key}): {cause}")]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// The address it names.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The access log could not be opened.
    #[error("cannot open the access log: {0}")]
    AccessLog(#[source] io::Error),
    /// No thread for a worker.
    #[error("cannot start a worker: {0}")]
    Worker(#[source] io::Error),
    /// Files of TLS cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] Problems),
    /// A static route is none.
    #[error("a route of the configuration cannot be: {0}")]
    Route(#[from] Rejection),
    /// Whoever starts apps cannot be spoken to.
    #[error("{0}")]
    Starter(String),
    /// The loading page cannot be used.
    #[error(transparent)]
    Page(#[from] BadPage),
}

/// Why a configuration was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Files of TLS cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] Problems),
    /// A static route is none.
    #[error("a route of the configuration cannot be: {0}")]
    Route(#[from] Rejection),
    /// The loading page cannot be used.
    #[error(transparent)]
    Page(#[from] BadPage),
}

/// A router that runs. Dropping it leaves it running; `leave` ends it.
#[derive(Debug)]
pub struct Running {
    /// Where clients connect.
    pub http: Vec<SocketAddr>,
    /// Where they connect for TLS.
    pub https: Vec<SocketAddr>,
    /// The operator's port.
    pub admin: SocketAddr,
    /// The way onto the bus, whichever it is.
    pub bus: mpsc::Sender<Outgoing>,
    /// The bus itself if it is the one in this process.
    pub embedded: Option<Embedded>,
    /// The routes as workers see them.
    pub routes: Arc<Published<Snapshot>>,
    /// What the workers share about each app.
    pub apps: Arc<LiveApps>,
    /// All counters.
    pub metrics: Arc<Metrics>,
    /// The clock of the process.
    pub clock: Clock,
    /// Moves it through its phases.
    pub conductor: Conductor,
    config: Config,
    settings: Arc<Published<Settings>>,
    tls: Arc<Keeper>,
    admin_settings: Arc<Published<admin::Settings>>,
    probe_settings: Arc<Published<probe::Settings>>,
    events: mpsc::Sender<Event>,
    access_log: AccessLog,
    workers: Vec<JoinHandle<()>>,
    primed: watch::Receiver<bool>,
    /// Whether it was said that requests are served.
    is_announced: bool,
    /// They hold the ports beside the workers.
    holders: [tokio::task::JoinHandle<()>; 2],
}

/// Starts everything on the present tokio runtime and returns at once: the bus connects when it can, requests are served
/// once the table has been primed (`table.prime_for`).
///
/// # Errors
/// What the operator has to mend: a port that is taken, a log that cannot be written.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let clock = Clock::new();
    let secret = uuid::Uuid::new_v4().as_u128();
    let mut dice = Dice::seeded(uuid::Uuid::new_v4().as_u64_pair().0);
    let (conductor, phase) = shutdown::channel();
    let metrics = Metrics::new(config.admin.routes_in_metrics);
    let routes = Published::new(Snapshot::empty(Keyed::new(secret)));
    let settings = Published::new(Settings::of(&config, wiring::pages(&config)?));
    let probe_settings = Published::new(wiring::probe(&config));
    let admin_settings = Published::new(admin::Settings::of(&config));

    let tls = Keeper::load(&config, &metrics)?;
    let starter = Starter::new(&config.wake.start).map_err(StartError::Starter)?;
    let Ports { listeners, http, https, admin_socket, admin, offer } = Ports::open(&config).await?;
    let (destination, format) = wiring::access_log(&config.access_log);
    let access_log =
        AccessLog::start(destination, format, metrics.access_log.clone()).map_err(StartError::AccessLog)?;

    let embedded = config.nats.is_none().then(Embedded::new);
    let bus = match (&config.nats, &embedded) {
        (Some(nats), _) => Bus::Nats(nats.clone()),
        (None, Some(embedded)) => Bus::Embedded(embedded.clone()),
        (None, None) => unreachable!("without NATS there is an embedded bus"),
    };
    let (events, events_inbox) = mpsc::channel(EVENTS);
    let (happenings, happenings_inbox) = mpsc::channel(HAPPENINGS);
    let introduction = wiring::introduction(&config.table, http.iter().chain(&https));
    tracing::info!(id = introduction.id, ?http, ?https, %admin, workers = config.workers, "starting");
    let mut plane = ControlPlane::new(introduction, wiring::table(&config), secret, clock.now());
    // Workers may share our core: a storm of reports shall not make them wait for all of it.
    *plane.pace() = Pace::new(std::thread::yield_now);
    let _nothing_to_send = plane.handle(wiring::configured(&config)?, clock.now());
    let subjects: Vec<&str> = SUBJECTS.iter().copied().chain([plane.inbox()]).collect();
    let attached = bus::start(bus, &subjects, bus::Limits::default(), Dice::seeded(dice.bits()));
    let (asks, asks_inbox) = mpsc::channel(ASKS);
    let (orders, orders_inbox) = mpsc::channel(ASKS);
    let (effects, effects_inbox) = mpsc::channel(HAPPENINGS);
    let id: ArcStr = plane.me().id.as_str().into();
    tokio::spawn(memory::run(
        attached.sessions,
        memory::Times::default(),
        memory::Ports {
            effects: effects_inbox,
            asks: asks_inbox,
            orders,
            happenings: happenings.clone(),
            router: id.clone(),
            asks_are_repeated: config.wake.start == WakeStart::Nats,
            metrics: metrics.clone(),
        },
    ));
    tokio::spawn(starter.serve(starter::Ports {
        orders: orders_inbox,
        happenings: happenings.clone(),
        outgoing: attached.outgoing.clone(),
        router: id,
        metrics: metrics.clone(),
    }));
    if let Some(snapshot) = plane.snapshot(clock.now()) {
        routes.publish(snapshot);
    }
    let apps = plane.live_apps().clone();
    let (caught_up, asked) = mpsc::channel(1);
    let joints = Joints {
        bus: attached.events,
        events: events_inbox,
        happenings: happenings_inbox,
        caught_up: asked,
        outgoing: attached.outgoing.clone(),
        published: routes.clone(),
        metrics: metrics.clone(),
        clock,
    };
    let names = resolver::start(routes.clone(), Dice::seeded(dice.bits()));
    let probes = probe::start(probe_settings.clone(), happenings.clone(), Dice::seeded(dice.bits()));
    let neighbours =
        Neighbours { names, probes, asks, effects, happenings: happenings.clone(), metrics: metrics.clone() };
    tokio::spawn(control::run(plane, joints, move |effects| neighbours.hear(effects)));

    let health = Health::new(phase.clone());
    let (primed_sender, primed) = watch::channel(false);
    let shared = Shared {
        routes: routes.clone(),
        settings: settings.clone(),
        tls: tls.published().clone(),
        clock,
        shutdown: phase,
        metrics: metrics.clone(),
        retries: Arc::new(Budget::new(config.retry.budget_share, config.retry.budget_per_second)),
        happenings: happenings.clone(),
        admission: Arc::default(),
        primed,
    };
    let sockets = handles(&listeners).map_err(StartError::Worker)?;
    let belongings = listeners
        .into_iter()
        .map(|listeners| Belongings { listeners, log: access_log.buffer(), seed: dice.bits() })
        .collect();
    let workers = worker::spawn(&shared, belongings).map_err(StartError::Worker)?;
    tokio::spawn(tls.clone().watch(FILES_EVERY));
    let gathering = Gathering { time: config.table.prime_for, bus: attached.state.clone(), caught_up };
    let opening = Opening { sockets, health: health.clone(), workers: primed_sender };
    let successors = offer.successors();
    let holders = [tokio::spawn(offer.serve()), opening.after(gathering)];
    tokio::spawn(admin::serve(
        admin_socket,
        Admin {
            metrics: metrics.clone(),
            routes: routes.clone(),
            apps: apps.clone(),
            happenings,
            settings: admin_settings.clone(),
            bus: attached.outgoing.clone(),
            bus_state: attached.state.clone(),
            health,
            successors,
            clock,
            login: config.admin.login.clone(),
        },
    ));
    let bus = attached.outgoing;
    Ok(Running {
        http,
        https,
        admin,
        bus,
        embedded,
        routes,
        apps,
        metrics,
        clock,
        conductor,
        config,
        settings,
        tls,
        admin_settings,
        probe_settings,
        events,
        access_log,
        workers,
        primed: shared.primed,
        is_announced: false,
        holders,
    })
}

/// Everything that connections come in by.
struct Ports {
    listeners: Vec<Listeners>,
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
    admin_socket: AdminSocket,
    admin: SocketAddr,
    offer: Offer,
}

impl Ports {
    /// Takes over what a predecessor listens with, and binds the rest.
    async fn open(config: &Config) -> Result<Ports, StartError> {
        let failed = |key| move |(address, cause)| StartError::Listen { key, address, cause };
        let mut inheritance = Inheritance::ask(config.http.listen.iter().chain(&config.https.listen).copied()).await;
        let mut listeners: Vec<Listeners> = (0..config.workers).map(|_| Listeners::default()).collect();
        let http = worker::bind(&config.http.listen, Over::Tcp, &mut inheritance, &mut listeners)
            .map_err(failed("http.listen"))?;
        let https = worker::bind(&config.https.listen, Over::Tls, &mut inheritance, &mut listeners)
            .map_err(failed("https.listen"))?;
        let wanted = config.admin.listen;
        let opened = match inheritance.take(wanted).pop() {
            Some(socket) => AdminSocket::inherited(socket),
            None => std::net::TcpListener::bind(wanted).and_then(AdminSocket::new),
        };
        let (admin_socket, admin) = opened.map_err(|cause| failed("admin.listen")((wanted, cause)))?;
        let mut offered = handles(&listeners).map_err(StartError::Worker)?;
        offered.push(admin_socket.handle().map_err(StartError::Worker)?);
        let addresses: Vec<_> = http.iter().chain(&https).copied().collect();
        let offer = Offer::new(&addresses, offered, inheritance);
        Ok(Ports { listeners, http, https, admin_socket, admin, offer })
    }
}

/// More handles of everything that clients connect to.
fn handles(listeners: &[Listeners]) -> io::Result<Vec<Socket>> {
    let mut all = Vec::new();
    for listeners in listeners {
        all.extend(listeners.handles()?);
    }
    Ok(all)
}

impl Running {
    /// Takes over what can change while the process runs; what cannot is named in the log and stays as it is.
    ///
    /// # Errors
    /// A static route is none, or a file cannot be used; nothing has changed then.
    pub async fn reload(&mut self, mut newer: Config, level: Option<&LevelHandle>) -> Result<(), ReloadError> {
        newer.wake.start = self.config.wake.start.clone(); // stays until a restart; others must not be told otherwise
        let configured = wiring::configured(&newer)?;
        let pages = wiring::pages(&newer)?;
        let (tls, wanted) = (self.tls.clone(), newer.clone());
        tokio::task::spawn_blocking(move || tls.replace(&wanted)).await.expect("reading files does not panic")?;
        let changes = self.config.changes(&newer);
        if !changes.restart.is_empty() {
            tracing::warn!(keys = changes.restart.join(", "), "these changes wait for a restart");
        }
        if let Some(level) = level
            && let Err(error) = level.set(&filter(newer.log.level))
        {
            tracing::warn!(%error, "the log level stays as it was");
        }
        self.settings.publish(Arc::new(Settings::of(&newer, pages)));
        self.probe_settings.publish(Arc::new(wiring::probe(&newer)));
        self.admin_settings.publish(Arc::new(admin::Settings::of(&newer)));
        let _stopped = self.events.send(configured).await;
        tracing::info!(keys = changes.live.join(", "), "configuration reloaded");
        self.config = newer;
        Ok(())
    }

    /// Returns once requests are served and nobody was told so yet.
    async fn serves(&mut self) {
        if self.is_announced {
            std::future::pending::<()>().await;
        }
        let _gone = self.primed.wait_for(|primed| *primed).await;
        self.is_announced = true;
    }

    /// Takes no more connections: those that wait are accepted, and all end as soon as they can.
    pub async fn close_ports(&mut self) {
        // The workers shall be the last to let go: they take those along who wait.
        for holder in &mut self.holders {
            holder.abort();
            let _cancelled = holder.await;
        }
        self.conductor.enter(Phase::Draining);
    }

    /// Leaves without breaking what is in flight: health says 503 for `drain.wait`, then the listeners close, then what
    /// is in flight may take `drain.timeout`. Returns when all workers have ended.
    pub async fn leave(mut self) {
        self.conductor.enter(Phase::Leaving);
        tokio::time::sleep(self.config.drain.wait).await;
        self.close_ports().await;
        let conductor = self.conductor.clone();
        let limit = self.config.drain.timeout;
        tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            conductor.enter(Phase::Stopped);
        });
        let (workers, access_log) = (self.workers, self.access_log);
        let ended = tokio::task::spawn_blocking(move || {
            workers.into_iter().for_each(|thread| drop(thread.join()));
            access_log.close(LOG_PATIENCE);
        });
        let _panicked = ended.await;
        self.conductor.enter(Phase::Stopped);
    }
}

/// Whether the files that a configuration names can be used.
///
/// # Errors
/// Everything that is wrong with them.
pub fn check_files(config: &Config) -> Result<(), StartError> {
    wiring::pages(config)?;
    Keeper::check(config)?;
    Starter::new(&config.wake.start).map(drop).map_err(StartError::Starter)
}

/// Runs a router until a signal ends it: SIGTERM, SIGINT and SIGUSR1 drain, a second SIGTERM or SIGINT ends at once,
/// SIGHUP reloads by `reread`. A service manager hears of it.
///
/// # Errors
/// Why it did not start.
pub fn run(config: Config, reread: impl Fn() -> Result<Config, String>) -> Result<(), StartError> {
    let limit = descriptors::raise_limit();
    descriptors::make_room(limit); // while there is one thread
    let level = start_log(&config.log);
    let supervisor = Arc::new(Supervisor::of(|name| std::env::var(name).ok()));
    tracing::debug!(limit, "file descriptors");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(StartError::Worker)?;
    runtime.block_on(async {
        let mut signals = Signals::listen().map_err(StartError::Worker)?;
        let mut running = start(config).await?;
        let _alive = supervisor.watchdog().map(|every| tokio::spawn(feed(supervisor.clone(), every)));
        let ended_by = loop {
            tokio::select! {
                () = running.serves() => supervisor.ready(),
                told = signals.next() => match told {
                    Told::Reload => {
                        supervisor.reloading();
                        reload(&mut running, &reread, level.as_ref()).await;
                        running.is_announced = false;
                    }
                    Told::Drain | Told::End => break told,
                },
            }
        };
        tracing::info!("leaving");
        supervisor.stopping();
        drain(running, &mut signals, ended_by).await;
        Ok(())
    })
}

/// Leaves; the second signal that means the end makes it short.
async fn drain(running: Running, signals: &mut Signals, first: Told) {
    let conductor = running.conductor.clone();
    let mut is_told_to_end = first == Told::End;
    let mut leaving = std::pin::pin!(running.leave());
    loop {
        tokio::select! {
            () = &mut leaving => return,
            told = signals.next() => if told == Told::End {
                if is_told_to_end {
                    tracing::warn!("ending at once");
                    conductor.enter(Phase::Stopped);
                }
                is_told_to_end = true;
            },
        }
    }
}

/// Tells the service manager that we are alive, as long as this runtime gets to it.
async fn feed(supervisor: Arc<Supervisor>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        supervisor.alive();
    }
}

async fn reload(running: &mut Running, reread: impl Fn() -> Result<Config, String>, level: Option<&LevelHandle>) {
    // Whatever is wrong with the configuration: the file of the access log may have been moved away.
    running.access_log.reopen();
    let outcome = match reread() {
        Ok(newer) => running.reload(newer, level).await.map_err(|error| error.to_string()),
        Err(problems) => Err(problems),
    };
    if let Err(problem) = outcome {
        tracing::error!(problem, "the configuration was not reloaded; the old one stays in force");
    }
}

/// Starts the process's own log, unless something in this process logs already.
pub fn start_log(config: &LogConfig) -> Option<LevelHandle> {
    let format = match config.format {
        LogFormat::Text => logs::LogFormat::Text,
        LogFormat::Json => logs::LogFormat::Json,
    };
    logs::init(&filter(config.level), format).ok()
}

/// The level as a filter: what the NATS library says about each of its connections is for those who look for trouble.
fn filter(level: LogLevel) -> String {
    match level {
        LogLevel::Error | LogLevel::Debug => level.as_str().to_owned(),
        LogLevel::Warn | LogLevel::Info => format!("{},async_nats=error", level.as_str()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Reload,
    Drain,
    End,
}

struct Signals {
    hangup: Signal,
    drain: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            drain: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.hangup.recv() => Told::Reload,
            _ = self.drain.recv() => Told::Drain,
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
        }
    }
}

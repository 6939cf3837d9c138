//! The worker threads: each has its own runtime, listeners, keep-alive connections, buffers and dice, and shares with the
//! others only the routes, the settings and the counters of the endpoints.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arcstr::ArcStr;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::admission::Admission;
use super::buffers::BufferPool;
use super::connection::{self, Client, Counts};
use super::connections::Connections;
use super::error::{Cause, ProxyError};
use super::http2::Attendants;
use super::ids;
use super::request::Trip;
use super::settings::Settings;
use super::stream;
use super::tls::Tls;
use super::upstreams::Upstreams;
use crate::domain::dice::Dice;
use crate::domain::moment::Moment;
use crate::domain::retry::Budget;
use crate::domain::table::snapshot::Snapshot;
use crate::domain::wake::{Happening, Knock, LiveApp};
use crate::http1::{Head, Name, Version};
use crate::runtime::clock::{Clock, Present};
use crate::runtime::descriptors;
use crate::runtime::published::{Published, Reader};
use crate::runtime::shutdown::{Listener, Phase};
use crate::runtime::succession::Inheritance;
use crate::telemetry::access_log::{Ending, LogBuffer, Record};
use crate::telemetry::metrics::{Finished, Metrics, Shard};

/// Connections the kernel completes ahead of us, per listener.
const BACKLOG: i32 = 4096;

/// How long accepting rests after a failure (out of file descriptors, most likely): others may close meanwhile.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Trouble with accepting is told that often at most.
const TROUBLE_EVERY: Duration = Duration::from_secs(10);

/// How often old upstream connections and spare memory are dropped and the log is flushed.
const HOUSEKEEPING: Duration = Duration::from_millis(500);

/// Heads a worker keeps for the next request.
const HEADS_KEPT_MAX: usize = 256;

/// What all workers share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The routes.
    pub routes: Arc<Published<Snapshot>>,
    /// The settings; replaced on reload.
    pub settings: Arc<Published<Settings>>,
    /// TLS on both sides; replaced when its files change.
    pub tls: Arc<Published<Tls>>,
    /// The clock of the process.
    pub clock: Clock,
    /// Phases of the process.
    pub shutdown: Listener,
    /// Becomes true when the first request may be accepted.
    pub primed: watch::Receiver<bool>,
    /// Counters; each worker gets its own shard.
    pub metrics: Arc<Metrics>,
    /// What keeps retries from becoming a storm.
    pub retries: Arc<Budget>,
    /// Tells the control plane who wants a sleeping app.
    pub happenings: mpsc::Sender<Happening>,
    /// How many clients there are.
    pub admission: Arc<Admission>,
}

/// One worker's world. Nothing in it is shared with another thread but through `Shared`.
#[derive(Debug)]
pub struct Worker {
    /// Its clock.
    pub clock: Present,
    /// Read buffers.
    pub buffers: BufferPool,
    /// Parsed heads.
    pub heads: Heads,
    /// Who serves streams of HTTP/2.
    pub attendants: Attendants,
    /// Connections to instances.
    pub upstreams: Upstreams,
    /// Connections of clients.
    pub connections: Rc<Connections>,
    /// Chance.
    pub dice: RefCell<Dice>,
    /// This worker's counters.
    pub metrics: Shard,
    /// The budget of all workers.
    pub retries: Arc<Budget>,
    happenings: mpsc::Sender<Happening>,
    /// The clients of all workers.
    pub admission: Arc<Admission>,
    log: RefCell<LogBuffer>,
    accept_trouble_told: Cell<Option<Moment>>,
    routes: RefCell<Reader<Snapshot>>,
    settings: RefCell<Reader<Settings>>,
    tls: RefCell<Reader<Tls>>,
}

impl Worker {
    /// The present settings.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.borrow_mut().latest().clone()
    }

    /// The present state of TLS.
    pub fn tls(&self) -> Arc<Tls> {
        self.tls.borrow_mut().latest().clone()
    }

    /// Looks into the newest routes.
    pub fn with_routes<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(self.routes.borrow_mut().latest())
    }

    /// When the present task was woken.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Starts a task on this thread. It comes in a box, since it is large and would be moved each time it is wrapped.
    pub fn spawn(&self, task: Pin<Box<impl Future<Output = ()> + 'static>>) {
        tokio::task::spawn_local(self.clock.ticking(task));
    }

    /// Somebody stands before `app` and asks for the route `uri`: the control plane is told, if that is news to it.
    pub fn knock(&self, app: &LiveApp, uri: &ArcStr, knock: Knock) {
        if app.knock(knock, self.now()) {
            hand_over(&self.happenings, Happening::Wanted { app: app.app().clone(), uri: uri.clone() });
        }
    }

    /// A connection could not be accepted: counted each time, told once in a while.
    fn not_accepted(&self, error: &io::Error) {
        let is_exhausted = descriptors::are_exhausted(error);
        if is_exhausted {
            self.upstreams.clear();
        }
        self.metrics.accept_failed(if is_exhausted { "no_descriptor" } else { "other" });
        let now = self.now();
        if self.accept_trouble_told.get().is_none_or(|told| now.since(told) >= TROUBLE_EVERY) {
            self.accept_trouble_told.set(Some(now));
            tracing::warn!(%error, "connections cannot be accepted");
        }
    }

    /// A random UUID (version 4, RFC 9562) in its usual form.
    pub fn request_id(&self) -> [u8; 36] {
        let mut dice = self.dice.borrow_mut();
        ids::uuid([dice.bits(), dice.bits()])
    }

    /// Counts and logs a request that is over. `counted` is what the client's link had counted before it.
    pub fn finished(&self, trip: &Trip, client: &Client, request: &Head, counted: Counts) {
        let duration = self.now().since(trip.started);
        let counts = client.counts();
        let bytes_in = counts.received - counted.received;
        let bytes_out = (counts.delivered - counted.delivered).saturating_sub(trip.head_bytes);
        if let Some(usage) = &trip.usage {
            usage.moved(bytes_in, bytes_out);
        }
        self.metrics.request(&Finished {
            status: trip.status,
            duration,
            time_to_head: trip.time_to_head,
            upstream: trip.upstream,
            error: match trip.ending {
                Ending::Failed => Some("internal"),
                _ => trip.error.as_ref().map(ProxyError::label),
            },
            bytes_in,
            bytes_out,
        });
        if let Some(reason) = trip.error.as_ref().and_then(ProxyError::refused) {
            self.metrics.refused(reason);
        }
        if let Some(ProxyError::Endpoint(Cause::BadResponse(refusal))) = &trip.error {
            self.metrics.response_refused(refusal.label());
        }
        let mut log = self.log.borrow_mut();
        if !log.is_on() {
            return;
        }
        let error = trip.error.as_ref().map(ProxyError::router_error).unwrap_or_default();
        log.record(&Record {
            started: trip.unix,
            host: request.value(Name::Host).unwrap_or_default(),
            method: request.method_bytes(),
            target: request.target_bytes(),
            version: match client.version {
                _ if client.http2 => "HTTP/2.0",
                Version::Http10 => "HTTP/1.0",
                Version::Http11 => "HTTP/1.1",
            },
            status: trip.status,
            bytes_in,
            bytes_out,
            referer: request.value(Name::Referer).unwrap_or_default(),
            user_agent: request.value(Name::UserAgent).unwrap_or_default(),
            forwarded_for: request.value(Name::XForwardedFor).unwrap_or_default(),
            forwarded_proto: request.value(Name::XForwardedProto).unwrap_or_default(),
            client: Some(client.peer),
            request_id: std::str::from_utf8(&trip.request_id).unwrap_or_default(),
            // As it went to the instance: version, trace, span, flags.
            trace: request.value(Name::Traceparent).and_then(|value| value.get(3..35)).unwrap_or_default(),
            route: trip.pool.as_ref().map_or("", |pool| &pool.route),
            endpoint: trip.endpoint.as_deref(),
            attempts: trip.attempts,
            duration,
            time_to_head: trip.time_to_head,
            upstream: trip.upstream,
            error: &error,
            ending: trip.ending,
        });
    }

    /// Counts and logs a request of HTTP/2 that was refused before we saw it. `status`: what it was answered with, or 0.
    pub fn withheld(&self, reason: &'static str, status: u16, error: &str, peer: SocketAddr) {
        self.metrics.refused(reason);
        let request_id = self.request_id();
        self.log.borrow_mut().record(&Record {
            started: self.clock.unix(),
            version: "HTTP/2.0",
            status,
            client: Some(peer),
            request_id: std::str::from_utf8(&request_id).unwrap_or_default(),
            error,
            ending: Ending::Refused,
            ..Record::default()
        });
    }
}

/// A worker's spare heads.
#[derive(Clone, Debug, Default)]
pub struct Heads {
    #[expect(clippy::vec_box, reason = "a pointer goes in and out with every request, not the head itself")]
    spare: Rc<RefCell<Vec<Box<Head>>>>,
}

/// A head on loan: it takes memory when it is first written to, and gives it back when it is dropped.
#[derive(Debug)]
pub struct LentHead {
    head: Option<Box<Head>>,
    home: Heads,
}

impl Deref for LentHead {
    type Target = Head;

    fn deref(&self) -> &Head {
        static EMPTY: Head = Head::new();
        self.head.as_deref().unwrap_or(&EMPTY)
    }
}

impl DerefMut for LentHead {
    fn deref_mut(&mut self) -> &mut Head {
        self.head.get_or_insert_with(|| self.home.spare.borrow_mut().pop().unwrap_or_default())
    }
}

impl Drop for LentHead {
    fn drop(&mut self) {
        let Some(mut head) = self.head.take() else { return };
        let mut spare = self.home.spare.borrow_mut();
        if spare.len() < HEADS_KEPT_MAX {
            head.clear();
            spare.push(head);
        }
    }
}

impl Heads {
    /// Frees half of the spare ones, as [`BufferPool::shrink`] does.
    fn shrink(&self) {
        let mut spare = self.spare.borrow_mut();
        let half = spare.len() / 2;
        spare.truncate(half);
    }

    /// Lends an empty one.
    pub fn lend(&self) -> LentHead {
        LentHead { head: None, home: self.clone() }
    }
}

/// The sockets of one worker, bound before its thread starts so that a taken port is an error the operator sees.
#[derive(Debug, Default)]
pub struct Listeners(Vec<(Socket, Over)>);

impl Listeners {
    /// More handles of the same sockets.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn handles(&self) -> io::Result<Vec<Socket>> {
        self.0.iter().map(|(socket, _)| socket.try_clone()).collect()
    }
}

/// What clients of a listener speak HTTP over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Clear text.
    Tcp,
    /// TLS.
    Tls,
}

/// Gives each of `workers` a socket for each of `addresses`: those of a predecessor first, all of them, then new ones.
/// Port 0 becomes the same free port for all of them. New ones do not listen before `listen`.
///
/// # Errors
/// The address that could not be bound, and why.
pub fn bind(
    addresses: &[SocketAddr],
    over: Over,
    inheritance: &mut Inheritance,
    workers: &mut [Listeners],
) -> Result<Vec<SocketAddr>, (SocketAddr, io::Error)> {
    let mut bound = Vec::new();
    for &wanted in addresses {
        let mut address = wanted;
        let mut sockets = inheritance.take(wanted);
        while sockets.len() < workers.len() {
            let socket = bind_one(address).map_err(|error| (address, error))?;
            let local = socket.local_addr().map_err(|error| (address, error))?;
            address = local.as_socket().unwrap_or(address);
            sockets.push(socket);
        }
        for (nth, socket) in sockets.into_iter().enumerate() {
            workers[nth % workers.len()].0.push((socket, over));
        }
        bound.push(address);
    }
    Ok(bound)
}

fn bind_one(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Opens the port: from now on the kernel takes connections for these sockets.
///
/// # Errors
/// What the system has against it.
pub fn listen(sockets: &[Socket]) -> io::Result<()> {
    sockets.iter().try_for_each(|socket| socket.listen(BACKLOG))
}

/// What one worker owns from the start.
#[derive(Debug)]
pub struct Belongings {
    /// Its listeners.
    pub listeners: Listeners,
    /// Its part of the access log.
    pub log: LogBuffer,
    /// The seed of its dice.
    pub seed: u64,
}

/// Starts one thread per entry of `workers`. A thread ends when the process has drained (or stopped).
///
/// # Errors
/// When the system gives no thread.
pub fn spawn(shared: &Shared, workers: Vec<Belongings>) -> io::Result<Vec<JoinHandle<()>>> {
    let start = |(index, belongings): (usize, Belongings)| {
        let shared = shared.clone();
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || run(&shared, belongings))
    };
    workers.into_iter().enumerate().map(start).collect()
}

fn run(shared: &Shared, belongings: Belongings) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .expect("the system gives every worker its reactor");
    runtime.block_on(serve(shared, belongings));
}

async fn serve(shared: &Shared, belongings: Belongings) {
    let buffers = BufferPool::default();
    let worker = Rc::new(Worker {
        clock: Present::of(shared.clock),
        heads: Heads::default(),
        attendants: Attendants::default(),
        upstreams: Upstreams::new(&buffers),
        buffers,
        connections: Rc::default(),
        dice: RefCell::new(Dice::seeded(belongings.seed)),
        metrics: shared.metrics.shard(),
        retries: shared.retries.clone(),
        happenings: shared.happenings.clone(),
        admission: shared.admission.clone(),
        log: RefCell::new(belongings.log),
        accept_trouble_told: Cell::new(None),
        routes: RefCell::new(Reader::new(shared.routes.clone())),
        settings: RefCell::new(Reader::new(shared.settings.clone())),
        tls: RefCell::new(Reader::new(shared.tls.clone())),
    });
    let mut shutdown = shared.shutdown.clone();
    tokio::task::spawn_local({
        let (worker, mut shutdown) = (worker.clone(), shared.shutdown.clone());
        async move {
            shutdown.reached(Phase::Leaving).await;
            worker.connections.wind_down();
        }
    });
    let accepting: Vec<_> = belongings
        .listeners
        .0
        .into_iter()
        .map(|(socket, over)| {
            let accepting = accept(worker.clone(), socket, over, shared.primed.clone(), shutdown.clone());
            tokio::task::spawn_local(accepting)
        })
        .collect();
    let housekeeping = tokio::task::spawn_local(keep_house(worker.clone()));
    for listener in accepting {
        let _panicked = listener.await;
    }
    worker.connections.leave();
    tokio::select! {
        () = std::future::poll_fn(|cx| worker.connections.poll_empty(cx)) => {}
        () = shutdown.reached(Phase::Stopped) => {}
    }
    housekeeping.abort();
    worker.log.borrow_mut().flush();
}

/// Tells the control plane, as soon as it takes it in. A knock that got lost would be nobody's: whoever knocked waits, and an
/// app knocks once per stage, which is also what limits how many wait here.
fn hand_over(to: &mpsc::Sender<Happening>, wanted: Happening) {
    if let Err(TrySendError::Full(wanted)) = to.try_send(wanted) {
        let to = to.clone();
        tokio::task::spawn_local(async move {
            let _router_is_leaving = to.send(wanted).await;
        });
    }
}

/// Accepts from when the table is primed until the process drains.
async fn accept(
    worker: Rc<Worker>,
    socket: Socket,
    over: Over,
    mut primed: watch::Receiver<bool>,
    mut shutdown: Listener,
) {
    let mut draining = std::pin::pin!(shutdown.reached(Phase::Draining));
    tokio::select! {
        () = &mut draining => return,
        Ok(_) = primed.wait_for(|primed| *primed) => {}
    }
    stream::tune(&socket);
    let listener = match TcpListener::from_std(socket.into()) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listener could not be registered with the reactor");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut draining => {
                // Before the port closes: who sees it closed shall find every answer saying so.
                worker.connections.leave();
                take_the_queue(&worker, listener, over);
                return;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => begin(&worker, stream, peer, over),
            Err(error) => {
                worker.not_accepted(&error);
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// Closes a listener, but not on those who wait in its queue: they would be reset.
fn take_the_queue(worker: &Rc<Worker>, listener: TcpListener, over: Over) {
    // The reactor may not know yet of everybody who waits.
    let Ok(listener) = listener.into_std() else { return };
    for _ in 0..BACKLOG {
        let Ok((stream, peer)) = listener.accept() else { return };
        if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
            begin(worker, stream, peer, over);
        }
    }
}

fn begin(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, over: Over) {
    worker.spawn(Box::pin(connection::serve(worker.clone(), stream, peer, over)));
}

async fn keep_house(worker: Rc<Worker>) {
    let mut ticks = interval(HOUSEKEEPING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        worker.log.borrow_mut().flush();
        worker.clock.set_calendar();
        worker.upstreams.sweep(worker.now(), worker.settings().timeouts.upstream_idle);
        worker.buffers.shrink();
        worker.heads.shrink();
        worker.attendants.shrink();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::identity::AppId;

    #[test]
    fn a_knock_waits_for_a_control_plane_that_cannot_keep_up() {
        let runtime = Builder::new_current_thread().build_local(LocalOptions::default()).expect("a runtime");
        runtime.block_on(async {
            let (sender, mut inbox) = mpsc::channel(1);
            for app in ["a", "b", "c"] {
                hand_over(&sender, Happening::Wanted { app: AppId::new(app), uri: "shop.test".into() });
            }
            for expected in ["a", "b", "c"] {
                let Some(Happening::Wanted { app, .. }) = inbox.recv().await else { panic!("it was lost") };
                assert_eq!(app.as_str(), expected);
            }
        });
    }
}

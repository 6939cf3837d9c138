//! Instances: small servers on free ports that do what the test says and remember what they were asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustls::{HandshakeKind, ServerConfig};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::answer::{self, Answer, Step};
use super::bus::Bus;
use super::eventually;
use super::message::{Message, Stream};
use super::pattern;

type Script = dyn Fn(&Received) -> Answer + Send + Sync;

/// An instance that will serve `route` (`host[/path]`) once it is put `on` a bus. Every setting has a default.
pub fn serving(route: &str) -> Plan {
    static SERIAL: AtomicUsize = AtomicUsize::new(1);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let host = route.split('/').next().unwrap_or(route).to_owned();
    Plan {
        routes: vec![route.to_owned()],
        app: format!("app-of-{host}"),
        name: format!("{host}-{serial}"),
        index: 0,
        extra: Map::new(),
        script: None,
        is_early: false,
        tls: None,
    }
}

/// An instance before it runs.
pub struct Plan {
    routes: Vec<String>,
    app: String,
    name: String,
    index: usize,
    extra: Map<String, Value>,
    script: Option<Box<Script>>,
    is_early: bool,
    tls: Option<ServerConfig>,
}

impl Plan {
    /// Its instance id, which is what it answers by default, too.
    pub fn named(mut self, name: &str) -> Plan {
        self.name = name.to_owned();
        self
    }

    /// Its app.
    pub fn of_app(mut self, app: &str) -> Plan {
        self.app = app.to_owned();
        self
    }

    /// Its number in the app.
    pub fn numbered(mut self, index: usize) -> Plan {
        self.index = index;
        self
    }

    /// A key of its registration, added or replaced.
    pub fn registered_with(mut self, key: &str, value: Value) -> Plan {
        self.extra.insert(key.to_owned(), value);
        self
    }

    /// Always does that.
    pub fn answering(self, answer: Answer) -> Plan {
        self.answering_each(move |_| answer.clone())
    }

    /// Does what `script` says to each request.
    pub fn answering_each(mut self, script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Plan {
        self.script = Some(Box::new(script));
        self
    }

    /// Does what `script` says as soon as the head is there, before the body is read.
    pub fn answering_early(self, script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Plan {
        Plan { is_early: true, ..self.answering_each(script) }
    }

    /// Answers with its name after some time.
    pub fn answering_after(self, delay: std::time::Duration) -> Plan {
        let name = self.name.clone();
        self.answering(answer::status(200, &name).after(delay))
    }

    /// Speaks TLS, and says so in its registration.
    pub fn over_tls(self, config: ServerConfig) -> Plan {
        Plan { tls: Some(config), ..self }
    }

    /// Runs it and registers it there; returns when routers have been told.
    pub async fn on(self, bus: &Bus) -> Instance {
        let instance = self.alone().await;
        instance.register(bus).await;
        instance
    }

    /// Runs it without registering it.
    pub async fn alone(self) -> Instance {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let name = self.name.clone();
        let script = self.script.unwrap_or_else(|| Box::new(move |_| answer::status(200, &name)));
        let shared = Arc::new(Shared::new(script, self.is_early));
        let facts = Facts {
            routes: self.routes,
            app: self.app,
            name: self.name,
            index: self.index,
            extra: self.extra,
            port_key: if self.tls.is_some() { "tls_port" } else { "port" },
            address,
        };
        let tls = self.tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let serving = tokio::spawn(accept(listener, tls, shared.clone()));
        Instance { facts, shared, serving: serving.abort_handle(), grave: Mutex::default() }
    }

    /// Registers it where nobody listens, so that connections are refused.
    pub async fn refusing_on(self, bus: &Bus) -> Instance {
        let instance = self.alone().await;
        instance.kill().await;
        instance.register(bus).await;
        instance
    }
}

/// Who it is.
struct Facts {
    routes: Vec<String>,
    app: String,
    name: String,
    index: usize,
    extra: Map<String, Value>,
    port_key: &'static str,
    address: SocketAddr,
}

/// A running instance.
pub struct Instance {
    facts: Facts,
    shared: Arc<Shared>,
    serving: tokio::task::AbortHandle,
    /// Bound to its port without listening, once it is killed.
    grave: Mutex<Option<TcpSocket>>,
}

/// A request as an instance saw it.
#[derive(Clone, Debug)]
pub struct Received {
    /// The request; its body is there only if it was read.
    pub message: Message,
    /// Which of its connections it came on, from 0.
    pub connection: usize,
    /// Which request on that connection it was, from 0.
    pub nth_on_connection: usize,
    /// How many requests the instance had seen before.
    pub nth: usize,
}

impl std::ops::Deref for Received {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

struct Shared {
    script: Box<Script>,
    is_early: bool,
    requests: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    resumed: AtomicUsize,
    begun: AtomicUsize,
    answered: AtomicUsize,
    aborted: AtomicUsize,
    pattern_bytes_sent: AtomicU64,
}

impl Shared {
    fn new(script: Box<Script>, is_early: bool) -> Shared {
        Shared {
            script,
            is_early,
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            resumed: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            aborted: AtomicUsize::new(0),
            pattern_bytes_sent: AtomicU64::new(0),
        }
    }
}

impl Instance {
    /// Its instance id.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// Its app.
    pub fn app(&self) -> &str {
        &self.facts.app
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.facts.address
    }

    /// What it publishes on `router.register`.
    pub fn registration(&self) -> Value {
        let facts = &self.facts;
        let mut message = json!({
            "host": facts.address.ip().to_string(),
            "uris": facts.routes,
            "app": facts.app,
            "private_instance_id": facts.name,
            "private_instance_index": facts.index.to_string(),
        });
        message[facts.port_key] = facts.address.port().into();
        message.as_object_mut().expect("an object was just written").extend(facts.extra.clone());
        message
    }

    /// What its host agent says about it in `dea.heartbeat`.
    pub fn droplet(&self, state: &str, load: &Value) -> Value {
        let facts = &self.facts;
        let mut droplet = json!({
            "droplet": facts.app, "instance": facts.name, "index": facts.index, "state": state,
            "private_instance_id": facts.name, "port": facts.address.port(), "uris": facts.routes, "load": load,
        });
        droplet.as_object_mut().expect("an object was just written").extend(facts.extra.clone());
        droplet
    }

    /// Registers it (again).
    pub async fn register(&self, bus: &Bus) {
        bus.publish("router.register", &self.registration()).await;
    }

    /// Takes it off the table.
    pub async fn unregister(&self, bus: &Bus) {
        bus.publish("router.unregister", &self.registration()).await;
    }

    /// Closes its port and all its connections, without telling anybody. Nobody else gets the port as long as this lives.
    pub async fn kill(&self) {
        self.serving.abort();
        eventually("the instance has stopped", || self.serving.is_finished()).await;
        let socket = TcpSocket::new_v4().expect("sockets can be made");
        socket.set_reuseaddr(true).expect("an option that sockets have");
        socket.bind(self.facts.address).expect("the port was ours until just now");
        *self.grave.lock() = Some(socket);
    }

    /// The requests it has seen, in order of their heads.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.requests.lock().clone()
    }

    /// The last request it has seen.
    #[track_caller]
    pub fn last(&self) -> Received {
        self.shared.requests.lock().last().cloned().expect("the instance has seen a request")
    }

    /// How many requests have reached it.
    pub fn begun(&self) -> usize {
        self.shared.begun.load(Ordering::SeqCst)
    }

    /// How many requests it has answered to the end.
    pub fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// How many requests ended because the connection was closed under them.
    pub fn aborted(&self) -> usize {
        self.shared.aborted.load(Ordering::SeqCst)
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many of its connections went on with a TLS session from before.
    pub fn resumed(&self) -> usize {
        self.shared.resumed.load(Ordering::SeqCst)
    }

    /// How many bytes of patterns its sockets have taken.
    pub fn pattern_bytes_sent(&self) -> u64 {
        self.shared.pattern_bytes_sent.load(Ordering::SeqCst)
    }

    /// Waits until `count` requests have reached it.
    pub async fn until_begun(&self, count: usize) {
        eventually("requests reach the instance", || self.begun() >= count).await;
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// An address where connecting is begun and never finished: a listener whose backlog is full.
pub struct BlackHole {
    /// Where it is.
    pub address: SocketAddr,
    _listener: tokio::net::TcpListener,
    _waiting: Vec<tokio::task::JoinHandle<()>>,
}

impl BlackHole {
    /// Digs one.
    pub async fn dig() -> BlackHole {
        let socket = TcpSocket::new_v4().expect("sockets can be made");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("loopback has a free port");
        let listener = socket.listen(1).expect("a bound socket can listen");
        let address = listener.local_addr().expect("a bound socket has an address");
        let mut waiting = Vec::new();
        loop {
            let connecting = tokio::net::TcpStream::connect(address);
            match tokio::time::timeout(super::millis(300), connecting).await {
                Ok(Ok(stream)) => waiting.push(tokio::spawn(async move {
                    let _kept_open = stream;
                    std::future::pending::<()>().await;
                })),
                _ => return BlackHole { address, _listener: listener, _waiting: waiting },
            }
        }
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new(); // aborted with this task
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let nth = shared.connections.fetch_add(1, Ordering::SeqCst);
        match tls.clone() {
            Some(tls) => connections.spawn(serve_tls(tls, socket, nth, shared.clone())),
            None => connections.spawn(serve(Stream::new(socket), nth, shared.clone())),
        };
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_tls(tls: TlsAcceptor, socket: TcpStream, connection: usize, shared: Arc<Shared>) {
    let Ok(agreed) = tls.accept(socket).await else { return };
    if agreed.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
        shared.resumed.fetch_add(1, Ordering::SeqCst);
    }
    serve(Stream::new(agreed), connection, shared).await;
}

async fn serve(mut stream: Stream, connection: usize, shared: Arc<Shared>) {
    for nth_on_connection in 0.. {
        let Ok(Some(message)) = stream.head().await else { return };
        let nth = shared.begun.load(Ordering::SeqCst);
        let mut received = Received { message, connection, nth_on_connection, nth };
        shared.requests.lock().push(received.clone());
        shared.begun.fetch_add(1, Ordering::SeqCst);
        if !shared.is_early {
            if stream.request_body_into(&mut received.message).await.is_err() {
                shared.aborted.fetch_add(1, Ordering::SeqCst);
                return;
            }
            remember(&shared, &received);
        }
        let answer = (shared.script)(&received);
        match perform(stream, &mut received, answer, &shared).await {
            Some(back) => stream = back,
            None => return,
        }
        shared.answered.fetch_add(1, Ordering::SeqCst);
    }
}

fn remember(shared: &Shared, received: &Received) {
    let mut requests = shared.requests.lock();
    let same = |other: &&mut Received| {
        (other.connection, other.nth_on_connection) == (received.connection, received.nth_on_connection)
    };
    *requests.iter_mut().find(same).expect("its head was noted before") = received.clone();
}

/// Does the steps; `None` when the connection is gone.
async fn perform(mut stream: Stream, received: &mut Received, answer: Answer, shared: &Shared) -> Option<Stream> {
    for step in answer.steps {
        let went_well = match step {
            Step::Write(bytes) => stream.send(bytes).await.is_ok(),
            Step::WritePattern(length) => write_pattern(&mut stream, length, shared).await,
            Step::Wait(time) => stays_open_until(&mut stream, tokio::time::sleep(time)).await,
            Step::Pass(gate) => stays_open_until(&mut stream, gate.passed()).await,
            Step::PassBlindly(gate) => {
                gate.passed().await;
                true
            }
            Step::ReadBody => {
                let read = stream.request_body_into(&mut received.message).await.is_ok();
                remember(shared, received);
                read
            }
            Step::EchoBytes => echo(&mut stream).await,
            Step::Close => return None,
            Step::Reset => {
                stream.reset();
                return None;
            }
            Step::Hang => stays_open_until(&mut stream, std::future::pending()).await,
        };
        if !went_well {
            shared.aborted.fetch_add(1, Ordering::SeqCst);
            return None;
        }
    }
    Some(stream)
}

/// Waits for `done`; `false` if the other end closes first.
async fn stays_open_until(stream: &mut Stream, done: impl Future<Output = ()>) -> bool {
    tokio::select! {
        biased;
        () = done => true,
        () = stream.gone() => false,
    }
}

async fn write_pattern(stream: &mut Stream, length: u64, shared: &Shared) -> bool {
    let mut sent = 0;
    while sent < length {
        let piece = pattern::piece(sent, usize::try_from(length - sent).unwrap_or(usize::MAX));
        if stream.send(piece).await.is_err() {
            return false;
        }
        sent += piece.len() as u64;
        shared.pattern_bytes_sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
    true
}

async fn echo(stream: &mut Stream) -> bool {
    loop {
        match stream.some().await {
            Ok(bytes) if bytes.is_empty() => return true,
            Ok(bytes) => {
                if stream.send(bytes).await.is_err() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}

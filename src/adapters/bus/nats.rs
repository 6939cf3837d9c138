//! NATS as the bus. One connection is one life: choose a server, get in, subscribe, say so, relay until it breaks, say so,
//! pause, again. Reconnecting is done here and not by the client library, because only so are subscriptions known to be in
//! place before `Connected` is told, is nothing stale sent after an outage, and are learnt servers remembered.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, Event, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, unconstrained, yield_now};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::access::{Access, NoAccess};
use super::inlet::{Gone, Inlet};
use super::servers::{Remembered, Server, Servers};
use super::subject::{self, check_subject};
use crate::config::NatsConfig;
use crate::domain::dice::Dice;
use crate::domain::protocol::envelope::{BusEvent, Incoming, Outgoing};
use crate::runtime::backoff::Backoff;
use crate::runtime::bus_state::{BusState, Dropped};

/// Pauses between rounds of attempts.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(4));
/// A connection that lasted that long starts its successors' back-off anew.
const SETTLED: Duration = Duration::from_secs(5);
/// How long the server may take to show that it has our subscriptions.
const CONFIRM_WITHIN: Duration = Duration::from_secs(2);
/// How long what is queued may take to go out at the end.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
/// Pauses between looks at the cluster: often while it forms, seldom later.
const LOOK: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// How often the state is compared with what events said, and losses are reported.
const TICK: Duration = Duration::from_secs(1);
/// How often the same trouble is logged.
const COMPLAINT: Duration = Duration::from_secs(60);
/// Messages of one subscription that may wait for us to take them over. We do nothing else, so it is only filled where the
/// machine has no time for us.
const SUBSCRIPTION_QUEUE: usize = 262_144;
/// Messages taken over before others get their turn.
const TURN: usize = 16_384;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    NoAccess(#[from] NoAccess),
    #[error("{server} does not let us in: {cause}; check user, password, token or credentials_file of [nats]")]
    Refused { server: Server, cause: async_nats::ConnectError },
    #[error("cannot connect to {server}: {cause}")]
    Connect { server: Server, cause: async_nats::ConnectError },
    #[error("{server}: {cause}")]
    Address { server: Server, cause: std::io::Error },
    #[error("no server is known")]
    NoServer,
    #[error("the connection to {server} broke{after}")]
    Broke { server: Server, after: String },
}

/// Keeps the router on the bus until one of its channels is closed.
pub(super) async fn run(
    config: NatsConfig,
    subjects: Vec<String>,
    inlet: Inlet,
    outgoing: mpsc::Receiver<Outgoing>,
    sessions: watch::Sender<Option<Client>>,
    dice: Dice,
) {
    let mut connector = Connector::new(&config, dice);
    let state = inlet.state.clone();
    let mut ends = Ends { subjects, inlet, outgoing, sessions };
    let Ok(()) = ends.meanwhile(connector.recall()).await else { return };
    loop {
        let pause = RETRY.pause(connector.servers.rounds(), &mut connector.dice);
        let Ok(()) = ends.meanwhile(sleep(pause)).await else { return };
        let Ok(connected) = ends.meanwhile(connector.connect(&state)).await else { return };
        let failure = match connected {
            Ok(connection) => {
                let began = Instant::now();
                let Ok(failure) = connection.serve(&mut connector, &mut ends).await else { return };
                if began.elapsed() >= SETTLED {
                    connector.servers.connected();
                }
                connector.servers.broke();
                failure
            }
            Err(failure) => failure,
        };
        connector.complaints.about(&failure);
        state.note_disconnected(failure.to_string());
    }
}

/// Why a message did not reach NATS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotPublished(String);

/// Publishes one message from a process that is not a router, and waits until the server has it. The server.
///
/// # Errors
/// `NotPublished` with the reason of the last server tried: no way in, not allowed, too large, no answer in time.
pub async fn publish(config: &NatsConfig, message: Outgoing, dice: Dice) -> Result<String, NotPublished> {
    check_subject(&message.subject).map_err(|error| NotPublished(error.to_string()))?;
    let mut connector = Connector::new(config, dice);
    connector.recall().await;
    let mut failure = Failure::NoServer;
    for _ in 0..connector.servers.count() {
        match connector.connect(&Arc::default()).await {
            Ok(connection) => return connection.publish_once(message).await,
            Err(next) => failure = next,
        }
    }
    Err(NotPublished(failure.to_string()))
}

/// Our ends of the channels to the control plane.
struct Ends {
    subjects: Vec<String>,
    inlet: Inlet,
    outgoing: mpsc::Receiver<Outgoing>,
    /// The client, for others who share the connection; they let go of it when it is gone from here.
    sessions: watch::Sender<Option<Client>>,
}

impl Ends {
    /// Does `work` while there is no connection: what should go out is dropped and counted, since it would be stale by
    /// the time it could go. The control plane publishes `router.start` after every connect, and agents answer that
    /// with all they have.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Gone> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                message = self.outgoing.recv() => match message {
                    Some(_) => self.inlet.state.count_dropped(Dropped::Disconnected),
                    None => return Err(Gone),
                },
                () = self.inlet.gone() => return Err(Gone),
            }
        }
    }

    async fn tell(&mut self, event: BusEvent) -> Result<(), Gone> {
        let inlet = self.inlet.clone();
        self.meanwhile(inlet.tell(event)).await?
    }
}

/// Makes connections.
struct Connector {
    servers: Servers,
    access: Access,
    cache: Option<PathBuf>,
    dice: Dice,
    complaints: Complaints,
}

impl Connector {
    fn new(config: &NatsConfig, dice: Dice) -> Connector {
        let (access, configured) = Access::new(config);
        let (servers, cache) = (Servers::new(configured), config.server_cache.clone());
        Connector { servers, access, cache, dice, complaints: Complaints::default() }
    }

    /// Reads the servers learnt in an earlier life.
    async fn recall(&mut self) {
        let Some(path) = &self.cache else { return };
        match Remembered::read(path).await {
            Ok(remembered) => {
                self.servers.learn(remembered.servers.iter().map(String::as_str));
            }
            Err(error) => tracing::warn!(path = %path.display(), %error, "the file of learnt NATS servers is ignored"),
        }
    }

    /// Takes over what a server says about its cluster, in memory and on disk.
    async fn learn(&mut self, places: &[String]) {
        if !self.servers.learn(places.iter().map(String::as_str)) {
            return;
        }
        let remembered = self.servers.remembered();
        tracing::info!(servers = ?remembered.servers, "learnt NATS servers");
        let Some(path) = &self.cache else { return };
        if let Err(error) = remembered.write(path).await {
            tracing::warn!(path = %path.display(), %error, "cannot remember learnt NATS servers");
        }
    }

    async fn connect(&mut self, state: &Arc<BusState>) -> Result<Connection, Failure> {
        let server = self.servers.next(&mut self.dice).ok_or(Failure::NoServer)?;
        let connection = Connection::open(&self.access, server, state.clone()).await?;
        self.learn(&connection.client.server_info().connect_urls).await;
        Ok(connection)
    }
}

/// Whether the server has handled what it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Confirmed {
    Yes,
    /// It did not say so in time, or may not.
    Unsure,
    /// The connection broke.
    No,
}

/// A connection to one server, until it breaks.
struct Connection {
    client: Client,
    server: Server,
    broken: watch::Receiver<bool>,
    state: Arc<BusState>,
}

impl Connection {
    async fn open(access: &Access, server: Server, state: Arc<BusState>) -> Result<Connection, Failure> {
        let (breaks, broken) = watch::channel(false);
        let address = server.address().map_err(|cause| Failure::Address { server: server.clone(), cause })?;
        let counted = state.clone();
        let connected = access
            .options()
            .await?
            // The library cannot be told never to reconnect. It makes one attempt of its own, which ends as soon as it
            // finds that nobody holds the client any more.
            .max_reconnects(1)
            .subscription_capacity(SUBSCRIPTION_QUEUE)
            .event_callback(move |event| {
                on_event(event, &breaks, &counted);
                std::future::ready(())
            })
            .connect(address)
            .await;
        match connected {
            Ok(client) => Ok(Connection { client, server, broken, state }),
            Err(cause) => Err(match cause.kind() {
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                    Failure::Refused { server, cause }
                }
                _ => Failure::Connect { server, cause },
            }),
        }
    }

    /// From subscribing to the end. `Err` when there is nobody left to serve.
    async fn serve(self, connector: &mut Connector, ends: &mut Ends) -> Result<Failure, Gone> {
        self.state.forget_trouble();
        let subscribers = match ends.meanwhile(self.subscribe(&ends.subjects.clone())).await? {
            Some(subscribers) => subscribers,
            None => return Ok(self.failure()),
        };
        self.state.note_connected(&self.server.to_string());
        tracing::info!(server = %self.server, name = self.client.server_info().server_name, "connected to NATS");
        connector.complaints.last = None;
        // In this order: who wants apps started now that the bus is back finds that starts can be shared.
        ends.sessions.send_replace(Some(self.client.clone()));
        ends.tell(BusEvent::Connected).await?;
        let (end, ended) = watch::channel(());
        let mut readers = JoinSet::new();
        for subscriber in subscribers {
            readers.spawn(take_over(subscriber, ends.subjects.clone(), ends.inlet.clone(), ended.clone()));
        }
        let relayed = self.relay(connector, ends).await;
        ends.sessions.send_replace(None);
        drop(end);
        let _finished = readers.join_all().await;
        relayed?;
        let failure = self.failure();
        self.state.note_disconnected(failure.to_string()); // before anybody can hear of it and look
        ends.tell(BusEvent::Disconnected).await?;
        Ok(failure)
    }

    /// Subscribes and waits for the server to show that it knows; `None` if the connection broke.
    async fn subscribe(&self, subjects: &[String]) -> Option<Vec<Subscriber>> {
        let mut subscribers = Vec::new();
        for subscription in subject::subscriptions(subjects) {
            match self.client.subscribe(subscription).await {
                Ok(subscriber) => subscribers.push(subscriber),
                Err(error) => self.state.note_trouble(error.to_string()),
            }
        }
        match self.confirm().await {
            Confirmed::No => return None,
            Confirmed::Unsure => {
                tracing::warn!(server = %self.server, "NATS did not confirm the subscriptions; may we use _INBOX.>?");
            }
            Confirmed::Yes => {}
        }
        Some(subscribers)
    }

    /// Waits until the server has handled everything we have sent: it does so in order, so a message to ourselves comes
    /// back last.
    async fn confirm(&self) -> Confirmed {
        let echo = async {
            let inbox = self.client.new_inbox();
            let mut echo = self.client.subscribe(inbox.clone()).await.ok()?;
            self.client.publish(inbox, Bytes::new()).await.ok()?;
            echo.next().await
        };
        tokio::select! {
            echoed = timeout(CONFIRM_WITHIN, echo) => match echoed {
                Ok(Some(_)) => Confirmed::Yes,
                Ok(None) => Confirmed::No,
                Err(_) => Confirmed::Unsure,
            },
            () = self.end() => Confirmed::No,
        }
    }

    async fn publish_once(self, message: Outgoing) -> Result<String, NotPublished> {
        let subject = message.subject.clone();
        self.send(message).await;
        let confirmed = if self.state.sent() == 1 { self.confirm().await } else { Confirmed::Unsure };
        // What the server complained about is known for sure once the library has told that it is done.
        let end = self.end();
        let Connection { client, server, state, .. } = self;
        drop(client);
        let _at_most = timeout(FLUSH_WITHIN, end).await;
        let trouble = state.last_error().unwrap_or_default();
        let is_about_us = state.sent() == 0 || trouble.contains(&format!("Publish to \"{subject}\""));
        match confirmed {
            _ if is_about_us => Err(NotPublished(format!("{server}: {trouble}"))),
            Confirmed::No => Err(NotPublished(format!("{server} closed the connection. {trouble}"))),
            // A user that may not use inboxes cannot be sure; everybody else can.
            Confirmed::Unsure if !trouble.contains("_INBOX") => {
                Err(NotPublished(format!("{server} did not confirm the message within {CONFIRM_WITHIN:?}")))
            }
            Confirmed::Yes | Confirmed::Unsure => Ok(server.to_string()),
        }
    }

    /// Sends what goes out until the connection breaks, and looks now and then who else is in the cluster.
    async fn relay(&self, connector: &mut Connector, ends: &mut Ends) -> Result<(), Gone> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 1;
        let mut looker = JoinSet::new();
        looker.spawn(look(connector.access.clone(), self.server.clone(), LOOK.pause(looks, &mut connector.dice)));
        loop {
            tokio::select! {
                () = self.end() => return Ok(()),
                message = ends.outgoing.recv() => match message {
                    Some(message) => self.send(message).await,
                    None => {
                        let _at_most = timeout(FLUSH_WITHIN, self.client.flush()).await;
                        return Err(Gone);
                    }
                },
                Some(found) = looker.join_next() => {
                    match found {
                        Ok(Ok(places)) => connector.learn(&places).await,
                        Ok(Err(error)) => tracing::debug!(%error, "cannot look who else is in the cluster"),
                        Err(_) => {}
                    }
                    looks += 1;
                    let pause = LOOK.pause(looks, &mut connector.dice);
                    looker.spawn(look(connector.access.clone(), self.server.clone(), pause));
                }
                _ = tick.tick() => {
                    if self.is_over() {
                        return Ok(());
                    }
                    connector.complaints.about_losses(&self.state);
                }
                () = ends.inlet.gone() => return Err(Gone),
            }
        }
    }

    async fn send(&self, Outgoing { subject, payload, reply }: Outgoing) {
        let bad = check_subject(&subject).and_then(|()| reply.as_deref().map_or(Ok(()), check_subject));
        if let Err(error) = bad {
            return self.refuse(error.to_string());
        }
        let described = format!("{subject} ({} bytes)", payload.len());
        let sending = async {
            match reply {
                Some(reply) => self.client.publish_with_reply(subject, reply, payload).await,
                None => self.client.publish(subject, payload).await,
            }
        };
        // A stalled connection stops taking commands; only its end tells.
        tokio::select! {
            sent = sending => match sent {
                Ok(()) => self.state.count_sent(),
                Err(error) => self.refuse(format!("cannot publish {described}: {error}")),
            },
            () = self.end() => self.state.count_dropped(Dropped::Disconnected),
        }
    }

    fn refuse(&self, why: String) {
        tracing::warn!("{why}");
        self.state.count_dropped(Dropped::Refused);
        self.state.note_trouble(why);
    }

    /// Whether the connection is not the one it was: events can be lost, these two cannot.
    fn is_over(&self) -> bool {
        let connects = self.client.statistics().connects.load(std::sync::atomic::Ordering::Relaxed);
        self.client.connection_state() != async_nats::connection::State::Connected || connects != 1
    }

    /// Returns once the connection has broken.
    fn end(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut broken = self.broken.clone();
        async move {
            let _or_the_library_is_gone = broken.wait_for(|broken| *broken).await;
        }
    }

    fn failure(&self) -> Failure {
        let after = self.state.last_error().map_or(String::new(), |trouble| format!(" after: {trouble}"));
        Failure::Broke { server: self.server.clone(), after }
    }
}

/// What the client library tells about one connection.
fn on_event(event: Event, breaks: &watch::Sender<bool>, state: &BusState) {
    if *breaks.borrow() {
        return; // the library's own attempt to reconnect, which nobody waits for
    }
    match event {
        Event::Disconnected | Event::Closed => {
            breaks.send_replace(true);
        }
        Event::SlowConsumer(_) => state.count_dropped(Dropped::SlowConsumer),
        Event::ServerError(error) => {
            tracing::warn!(%error, "NATS complains");
            state.note_trouble(error.to_string());
        }
        Event::LameDuckMode => tracing::info!("the NATS server is about to leave; it will send us to another one"),
        Event::Connected | Event::Draining | Event::ClientError(_) => {}
    }
}

/// Takes messages over from one subscription as fast as they come. At the end of the connection what has come is still
/// taken, and no more than that: the library's own attempt to reconnect might bring some.
async fn take_over(mut subscriber: Subscriber, subjects: Vec<String>, inlet: Inlet, mut ended: watch::Receiver<()>) {
    let offer = |message: async_nats::Message| {
        if !subjects.iter().any(|pattern| subject::matches(pattern, &message.subject)) {
            return Ok(());
        }
        inlet.offer(Incoming {
            subject: message.subject.to_string(),
            payload: message.payload,
            reply: message.reply.map(|reply| reply.to_string()),
        })
    };
    'connected: loop {
        // The runtime lets a task take 128 messages before it has to make room for others; the library's reader may put
        // some ten thousand into the queue in one turn of its own. So we say ourselves when it is enough.
        for _ in 0..TURN {
            let message = tokio::select! {
                biased;
                _ = ended.changed() => break 'connected,
                message = unconstrained(subscriber.next()) => message,
            };
            let Some(message) = message else { return };
            if offer(message) == Err(Gone) {
                return;
            }
        }
        yield_now().await;
    }
    for _ in 0..SUBSCRIPTION_QUEUE {
        let Some(Some(message)) = unconstrained(subscriber.next()).now_or_never() else { return };
        if offer(message) == Err(Gone) {
            return;
        }
    }
}

/// Asks `server`, after `pause`, who is in its cluster. The client library keeps what servers announce later to itself, so
/// we get in a second time and read the greeting: a router that connected while its cluster was still forming would
/// otherwise never hear of the others.
async fn look(access: Access, server: Server, pause: Duration) -> Result<Vec<String>, Failure> {
    sleep(pause).await;
    let connection = Connection::open(&access, server, Arc::default()).await?;
    Ok(connection.client.server_info().connect_urls)
}

/// Says things once, and again after a while if they are still so.
#[derive(Default)]
struct Complaints {
    last: Option<(String, Instant)>,
    losses: u64,
    losses_at: Option<Instant>,
}

impl Complaints {
    fn about(&mut self, failure: &Failure) {
        let text = failure.to_string();
        let is_old = self.last.as_ref().is_some_and(|(last, at)| *last == text && at.elapsed() < COMPLAINT);
        if !is_old {
            tracing::warn!("NATS: {text}; trying again for ever");
            self.last = Some((text, Instant::now()));
        }
    }

    fn about_losses(&mut self, state: &BusState) {
        let losses = state.dropped_in_all();
        if losses != self.losses && self.losses_at.is_none_or(|at| at.elapsed() >= COMPLAINT) {
            tracing::warn!(lost = losses.saturating_sub(self.losses), in_all = losses, "messages of the bus were lost");
            self.losses = losses;
            self.losses_at = Some(Instant::now());
        }
    }
}

//! The life of a request: read `relay` from top to bottom.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::admission::Place;
use super::answer::{self, Occasion, Page};
use super::asleep::{self, Door};
use super::body::{Download, Upload};
use super::connection::{After, Client, Counts};
use super::error::{ALLOWED, Cause, ProxyError};
use super::forward::{self, InFlight};
use super::headers::{self, ClientFacts};
use super::http2::Room;
use super::link::Link;
use super::settings::{RouteLimits, Settings};
use super::sticky;
use super::stream::Stream;
use super::tunnel::{self, TunnelEnd};
use super::upstreams::ConnectLimits;
use super::worker::Worker;
use crate::domain::balance::fleet::Fleet;
use crate::domain::balance::{NoPick, Outcome, Wish, affinity, pick, pinned};
use crate::domain::endpoint::{Endpoint, Protocol};
use crate::domain::moment::Moment;
use crate::domain::retry::{Replay, Retry, judge};
use crate::domain::table::snapshot::{Found, Pool};
use crate::domain::wake::{self, Knock, LiveApp, Stage};
use crate::http1::{Framing, Head, Method, Name, Version, framing};
use crate::telemetry::access_log::Ending;
use crate::telemetry::metrics::Sticky;

/// Everything worth telling about one request once it is over.
#[derive(Debug)]
pub struct Trip {
    /// When its head was complete.
    pub started: Moment,
    /// The same as time since the Unix epoch.
    pub unix: Duration,
    /// Its id.
    pub request_id: [u8; 36],
    /// Where it was routed.
    pub pool: Option<Arc<Pool>>,
    /// Who answered, or was tried last.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Counts it for its app, once it is on its way to an instance.
    pub usage: Option<wake::InFlight<Arc<LiveApp>>>,
    /// Attempts made.
    pub attempts: u32,
    /// From the start to the response head.
    pub time_to_head: Option<Duration>,
    /// From the start of the last attempt to the response head.
    pub upstream: Option<Duration>,
    /// What the client got; 499 if it went away, 0 if nothing was sent yet.
    pub status: u16,
    /// What went wrong, if anything did.
    pub error: Option<ProxyError>,
    /// How it ended.
    pub ending: Ending,
    /// Bytes of the response head as written.
    pub head_bytes: u64,
    /// A place for the tunnel that the request asks for.
    tunnel: Option<Place>,
}

/// Serves one request whose head is complete. Never fails: whatever goes wrong becomes an answer the client can read,
/// and in every case one line in the log.
pub async fn serve(worker: &Worker, client: &mut Client, request: &mut Head) -> After {
    let mut told = Told::begin(worker, client, request);
    let Told { client, request, trip, .. } = &mut told;
    let after = match relay(worker, client, request, trip).await {
        Ok(after) => after,
        Err(error) => Box::pin(give_answer(worker, client, request, trip, error)).await,
    };
    told.at_last();
    after
}

/// Answers a head that was refused before it was a request.
pub async fn refuse(worker: &Worker, client: &mut Client, request: &mut Head, error: ProxyError) -> After {
    let mut told = Told::begin(worker, client, request);
    let Told { client, request, trip, .. } = &mut told;
    let after = give_answer(worker, client, request, trip, error).await;
    told.at_last();
    after
}

/// A request that will be told of, even if it is dropped in the middle: because of a panic, or because the router stops.
struct Told<'a> {
    worker: &'a Worker,
    client: &'a mut Client,
    request: &'a mut Head,
    trip: Trip,
    counted: Counts,
    is_over: bool,
}

impl<'a> Told<'a> {
    #[inline(always)] // made where it stays
    fn begin(worker: &'a Worker, client: &'a mut Client, request: &'a mut Head) -> Told<'a> {
        worker.metrics.request_started();
        let counted = client.counts();
        Told { worker, client, request, trip: Trip::begin(worker), counted, is_over: false }
    }

    fn at_last(&mut self) {
        self.is_over = true;
        self.worker.finished(&self.trip, self.client, self.request, self.counted);
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.worker.clock.tick(); // nobody was woken for this
            self.trip.ending = if std::thread::panicking() { Ending::Failed } else { Ending::RouterStopped };
            self.worker.finished(&self.trip, self.client, self.request, self.counted);
        }
    }
}

/// Route, wait for the app if it is asleep, pick, forward, retry, deliver. What is rare gets a box of its own to wait in: the
/// future of a request is as large as the largest it may wait for, is moved with every call, and each connection has one.
async fn relay(worker: &Worker, client: &mut Client, request: &mut Head, trip: &mut Trip) -> Result<After, ProxyError> {
    let settings = worker.settings();
    let body = framing::of_request(request).map_err(ProxyError::BadRequest)?;
    if is_health_check(request, &settings) {
        return Ok(Box::pin(tell_health(worker, client, request, trip, &settings)).await);
    }
    match request.method_kind() {
        Method::Options if headers::forwards_left(request) == Some(0) => {
            return Ok(Box::pin(tell_options(worker, client, request, trip, &settings)).await);
        }
        Method::Trace if headers::forwards_left(request) == Some(0) => return Err(ProxyError::TraceMethod),
        _goes_on => {}
    }
    let mut now = worker.now();
    let mut door = Door::default();
    let mut tried = Tried::default();
    let (mut pool, limits, mut upload, wanted, mut endpoint) = loop {
        let pool = route(worker, request)?;
        trip.pool = Some(pool.clone());
        let limits = settings.for_route(&pool.settings);
        let upload = admit(body, &limits, &settings)?;
        let wanted = Wanted::of(request, &pool, &settings)?;
        let app = match pool.asleep() {
            Some(app) => app.clone(),
            None => {
                let endpoint = choose(worker, &pool, &wanted, &settings, &tried, now)?;
                match begin(worker, request, &settings, trip, &pool, &endpoint, now) {
                    Begun::Awake => break (pool, limits, upload, wanted, endpoint),
                    Begun::Asleep => endpoint.live_app.clone(),
                }
            }
        };
        let met = Box::pin(door.meet(worker, client, request, &settings, trip, &app, &pool.route));
        if let Some(after) = met.await? {
            return Ok(after);
        }
        now = worker.now();
    };
    let replay = Replay { idempotent: headers::is_idempotent(request), replayable: true };
    headers::towards_instances(request, &trip.client_facts(client, worker.dice.borrow_mut().bits()), &settings)
        .map_err(ProxyError::HeadTooLarge)?;
    if request.has(Name::Upgrade) {
        trip.tunnel = Some(worker.admission.tunnel(settings.tunnels_max)?);
    }
    worker.retries.request(now);

    let mut lent = worker.heads.lend();
    let response: &mut Head = &mut lent;
    loop {
        if endpoint.route_service.is_some() {
            return Err(ProxyError::RouteService);
        }
        let fresh = tried.wants_fresh(&endpoint);
        let mut in_flight = InFlight::begin(endpoint, now);
        trip.attempt(in_flight.endpoint(), fresh);
        let mut attempt = Attempt {
            worker,
            limits: &limits,
            settings: &settings,
            fleet: &pool.fleet,
            fresh,
            client: &mut *client,
            request,
            upload: &mut upload,
            response: &mut *response,
        };
        match attempt.send(&mut in_flight).await {
            Ok((instance, framing)) => {
                trip.answered(response, &in_flight, worker.now());
                door.passed();
                let mut delivery = Delivery {
                    worker,
                    settings: &settings,
                    limits: &limits,
                    wanted: &wanted,
                    endpoint: in_flight.endpoint(),
                    client,
                    upload: &mut upload,
                    response,
                    trip,
                };
                return delivery.run(instance, framing).await;
            }
            Err(error) => {
                now = worker.now();
                worker.metrics.attempt_failed(error.cause_label());
                let Some(failure) = error.failure() else { return Err(error) };
                let replay = Replay { replayable: upload.is_replayable(), ..replay };
                match judge(failure, replay) {
                    Retry::FreshConnection => tried.fresh = Some(in_flight.endpoint().serial),
                    Retry::OtherEndpoint if trip.attempts < limits.attempts => {
                        if !worker.retries.take(now) {
                            worker.metrics.retry_denied();
                            return Err(error);
                        }
                        worker.metrics.retry(error.cause_label());
                        tried.serials.push(in_flight.endpoint().serial);
                    }
                    Retry::OtherEndpoint | Retry::Never => return Err(error),
                }
                upload.rewind();
                if let Some(newer) = as_of_now(worker, request) {
                    pool = newer;
                    trip.pool = Some(pool.clone());
                }
                let next = choose(worker, &pool, &wanted, &settings, &tried, now)?;
                // The request is one of the other app's from here on.
                if !Arc::ptr_eq(&next.live_app, &in_flight.endpoint().live_app)
                    && matches!(begin(worker, request, &settings, trip, &pool, &next, now), Begun::Asleep)
                {
                    return Err(error);
                }
                endpoint = next;
            }
        }
    }
}

/// The pool that serves the request's host and path.
fn route(worker: &Worker, request: &Head) -> Result<Arc<Pool>, ProxyError> {
    if request.method_kind() == Method::Connect {
        return Err(ProxyError::ConnectMethod);
    }
    let destination = request.destination().filter(|to| !to.host.is_empty()).ok_or(ProxyError::EmptyHost)?;
    worker.with_routes(|routes| match routes.lookup(destination.host, destination.path) {
        Found::Pool(pool) => Ok(pool.clone()),
        Found::Empty(_) => Err(ProxyError::NoEndpoints),
        Found::Nothing => Err(ProxyError::UnknownRoute),
    })
}

/// The pool for another attempt: who has come since the request began may answer it, who has gone is not asked again.
/// `None` if there is nobody any more; the request then stays with those it began with.
fn as_of_now(worker: &Worker, request: &Head) -> Option<Arc<Pool>> {
    route(worker, request).ok().filter(|pool| pool.asleep().is_none())
}

/// Whether the app of a picked endpoint is as awake as the snapshot says.
enum Begun {
    Awake,
    Asleep,
}

/// Counts the request for its app. From here on the app is not put to sleep without this request being seen.
fn begin(
    worker: &Worker,
    request: &Head,
    settings: &Settings,
    trip: &mut Trip,
    pool: &Pool,
    endpoint: &Endpoint,
    now: Moment,
) -> Begun {
    let app = &endpoint.live_app;
    if asleep::is_ignored(request, settings) {
        return if app.stage().is_asleep() { Begun::Asleep } else { Begun::Awake };
    }
    let usage = LiveApp::begin(app.clone(), now);
    match usage.stage() {
        Stage::Awake => {}
        Stage::Parking => worker.knock(app, &pool.route, Knock::Visit),
        Stage::Sleeping | Stage::Starting | Stage::Failed => {
            usage.withdraw();
            return Begun::Asleep;
        }
    }
    trip.usage = Some(usage);
    Begun::Awake
}

fn admit(body: Framing, limits: &RouteLimits, settings: &Settings) -> Result<Upload, ProxyError> {
    if let Framing::Length(bytes) = body
        && limits.body_bytes_max > 0
        && bytes > limits.body_bytes_max
    {
        return Err(ProxyError::BodyTooLarge);
    }
    Ok(Upload::new(body, settings.kept_body_bytes, limits.body_bytes_max))
}

/// What a request says about who shall answer it.
struct Wanted {
    /// By sticky cookie.
    instance: Option<String>,
    /// By `X-CF-App-Instance` or `X-CF-Process-Instance`: this one or none.
    named: Option<Named>,
    hash_key: Option<Vec<u8>>,
}

enum Named {
    App(String, String),
    Process(String, Option<String>),
}

impl Wanted {
    fn of(request: &Head, pool: &Pool, settings: &Settings) -> Result<Wanted, ProxyError> {
        let hash_key = pool.hash_header.as_ref().and_then(|name| request.value_of(name)).map(<[u8]>::to_vec);
        let named = match (request.value(Name::XCfAppInstance), request.value(Name::XCfProcessInstance)) {
            (None, None) => None,
            (Some(value), _) => Some(Named::app(value)?),
            (None, Some(value)) => Some(Named::process(value)?),
        };
        Ok(Wanted { instance: sticky::asked_instance(request, &settings.sticky), named, hash_key })
    }
}

impl Named {
    fn app(value: &[u8]) -> Result<Named, ProxyError> {
        match Named::process(value)? {
            Named::Process(app, Some(index)) => Ok(Named::App(app, index)),
            _no_index => Err(ProxyError::MalformedInstanceHeader),
        }
    }

    fn process(value: &[u8]) -> Result<Named, ProxyError> {
        let text = std::str::from_utf8(value).map_err(|_| ProxyError::MalformedInstanceHeader)?;
        let (guid, index) = text.split_once(':').map_or((text, None), |(guid, index)| (guid, Some(index)));
        let is_number = |index: &str| !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit());
        if guid.is_empty() || !index.is_none_or(is_number) {
            return Err(ProxyError::MalformedInstanceHeader);
        }
        Ok(Named::Process(guid.into(), index.map(Into::into)))
    }
}

/// Where this request has been.
#[derive(Default)]
struct Tried {
    serials: Vec<u64>,
    /// A kept connection to this endpoint was dead: the next one shall be fresh.
    fresh: Option<u64>,
}

impl Tried {
    fn wants_fresh(&self, endpoint: &Endpoint) -> bool {
        self.fresh == Some(endpoint.serial)
    }
}

/// Who answers: the instance named, else the session's, else the one the strategy picks. No await in here.
fn choose(
    worker: &Worker,
    pool: &Pool,
    wanted: &Wanted,
    settings: &Settings,
    tried: &Tried,
    now: Moment,
) -> Result<Arc<Endpoint>, ProxyError> {
    let mut dice = worker.dice.borrow_mut();
    if let Some(again) = tried.fresh.and_then(|serial| pool.endpoints.iter().find(|e| e.serial == serial))
        && !tried.serials.contains(&again.serial)
    {
        return Ok(again.clone());
    }
    if let Some(named) = &wanted.named {
        let found = match named {
            Named::App(app, index) => affinity::of_app(pool, app, index),
            Named::Process(process, index) => affinity::of_process(pool, process, index.as_deref(), &mut dice),
        };
        return found.cloned().ok_or(ProxyError::UnknownInstance);
    }
    if let Some(instance) = &wanted.instance {
        let kept = pinned(pool, instance, now).filter(|endpoint| !tried.serials.contains(&endpoint.serial));
        worker.metrics.sticky(if kept.is_some() { Sticky::Hit } else { Sticky::Moved });
        if let Some(endpoint) = kept {
            return Ok(endpoint.clone());
        }
    }
    let wish = Wish {
        hash_key: wanted.hash_key.as_deref(),
        zone: settings.zone.as_deref(),
        first_attempt: tried.serials.is_empty(),
        tried: &tried.serials,
    };
    pick(pool, &wish, now, &mut dice).cloned().map_err(|none| match none {
        NoPick::Empty => ProxyError::NoEndpoints,
        NoPick::AllFull => ProxyError::ConnectionLimit,
    })
}

/// One try at one instance, up to its response head.
struct Attempt<'a> {
    worker: &'a Worker,
    settings: &'a Settings,
    limits: &'a RouteLimits,
    fleet: &'a Fleet,
    /// Not on a kept connection.
    fresh: bool,
    client: &'a mut Client,
    request: &'a Head,
    upload: &'a mut Upload,
    response: &'a mut Head,
}

impl Attempt<'_> {
    async fn send(&mut self, in_flight: &mut InFlight) -> Result<(Box<Link>, Framing), ProxyError> {
        let sent = self.exchange(in_flight.endpoint()).await;
        let now = self.worker.now();
        let took = in_flight.lasted(now);
        let outcome = match &sent {
            Ok(_) => Outcome::of_status(self.response.status(), took),
            Err(error) => error.outcome(took),
        };
        if in_flight.answered(self.fleet, outcome, took, now) {
            self.worker.metrics.ejected();
            tracing::info!(endpoint = %in_flight.endpoint().address, app = %in_flight.endpoint().app, "ejected a failing instance");
        }
        sent
    }

    async fn exchange(&mut self, endpoint: &Endpoint) -> Result<(Box<Link>, Framing), ProxyError> {
        let mut instance = self.checkout(endpoint).await?;
        let Attempt { settings, limits, client, request, upload, response, .. } = self;
        headers::write_to_instance(request, endpoint, instance.out());
        let framing =
            forward::exchange_heads(client, &mut instance, upload, request, response, settings, limits).await?;
        Ok((instance, framing))
    }

    /// A kept connection if there is a good one, else a new one.
    async fn checkout(&mut self, endpoint: &Endpoint) -> Result<Box<Link>, ProxyError> {
        if endpoint.protocol == Protocol::Http2 {
            return Box::pin(self.take_stream(endpoint)).await;
        }
        let upstreams = &self.worker.upstreams;
        let idle_max = self.settings.timeouts.upstream_idle;
        if !self.fresh
            && let Some(kept) = upstreams.checkout(endpoint, self.worker.now(), idle_max)
        {
            self.worker.metrics.upstream_reused();
            return Ok(kept);
        }
        let begun = self.worker.now();
        let (stream, address) = Box::pin(self.connect(endpoint)).await?;
        let mut link = upstreams.link(stream, address);
        link.counted = Some(self.worker.metrics.upstream_connected(self.worker.now().since(begun)));
        Ok(link)
    }

    async fn connect(&mut self, endpoint: &Endpoint) -> Result<(Stream, SocketAddr), ProxyError> {
        let limits =
            ConnectLimits { connect: self.limits.connect, tls_handshake: self.settings.timeouts.tls_handshake };
        let (worker, patience) = (self.worker, &mut self.client.patience);
        let connected = worker.upstreams.connect(endpoint, patience, limits, &worker.tls()).await;
        connected.inspect_err(|error| worker.metrics.upstream_connect_failed(error.cause_label()))
    }

    /// A stream on a connection of HTTP/2: on one that has room, or a new one.
    async fn take_stream(&mut self, endpoint: &Endpoint) -> Result<Box<Link>, ProxyError> {
        let Worker { upstreams, metrics, clock, .. } = self.worker;
        self.client.patience.set(self.limits.connect + self.settings.timeouts.tls_handshake);
        let found = upstreams.sessions().find(endpoint.serial, self.fresh, &mut self.client.patience).await;
        let opening = match found.ok_or(ProxyError::Endpoint(Cause::ConnectTimeout))? {
            Room::None(opening) => opening,
            Room::OnConnection(stream) => {
                metrics.upstream_reused();
                let address = endpoint.socket_address().ok_or(ProxyError::Endpoint(Cause::Unresolved))?;
                return Ok(upstreams.link(Stream::Http2Instance(stream), address));
            }
        };
        let begun = clock.now();
        let (stream, address) = self.connect(endpoint).await?;
        let patience = &mut self.client.patience;
        patience.set(self.limits.connect);
        match upstreams.sessions().establish(opening, stream, metrics, clock, patience).await {
            Ok((stream, open)) => {
                let counted = metrics.upstream_connected(clock.now().since(begun));
                self.worker.spawn(Box::pin(open.drive(counted, clock.clone())));
                Ok(upstreams.link(Stream::Http2Instance(Box::new(stream)), address))
            }
            Err(cause) => {
                metrics.upstream_connect_failed(cause.label());
                Err(ProxyError::Endpoint(cause))
            }
        }
    }
}

/// The way back: from a response head to the end of both bodies.
struct Delivery<'a> {
    worker: &'a Worker,
    settings: &'a Settings,
    limits: &'a RouteLimits,
    wanted: &'a Wanted,
    endpoint: &'a Endpoint,
    client: &'a mut Client,
    upload: &'a mut Upload,
    response: &'a mut Head,
    trip: &'a mut Trip,
}

impl Delivery<'_> {
    /// `framing` is that of the response's body.
    async fn run(&mut self, mut instance: Box<Link>, framing: Framing) -> Result<After, ProxyError> {
        if self.response.status() == 101 {
            return Box::pin(self.tunnel(instance)).await;
        }
        // Who answers before the request has come may take what is left of it for the next one.
        let instance_stays = self.response.keeps_alive() && framing != Framing::UntilClose && self.upload.is_done();
        let keep_alive = self.keeps_client(framing);
        let reframe = forward::reframe(self.response, framing, self.client.version);
        self.dress(keep_alive)?;
        if !self.answer() {
            return Ok(After::Abort);
        }
        let (client, idle) = (&mut *self.client, self.limits.idle_body);
        let download = Download::new(framing, reframe);
        let delivered = forward::exchange_bodies(client, &mut instance, self.upload, download, idle).await;
        if let Err(error) = delivered {
            self.trip.broken(error);
            return Ok(After::Abort);
        }
        if instance_stays {
            self.worker.upstreams.give_back(self.endpoint, instance, self.worker.now());
        }
        Ok(match (keep_alive, self.upload.is_read()) {
            (true, true) if !self.client.link.ended => After::KeepAlive,
            (_, true) => After::Close,
            (_, false) => After::Linger,
        })
    }

    /// The connection has become something else: whatever comes is passed on.
    async fn tunnel(&mut self, mut instance: Box<Link>) -> Result<After, ProxyError> {
        let unfit = |refusal| ProxyError::Endpoint(Cause::BadResponse(refusal));
        let unix = self.worker.clock.unix();
        headers::towards_client(self.response, &self.trip.request_id, unix, self.settings).map_err(unfit)?;
        if !self.answer() {
            return Ok(After::Abort);
        }
        self.worker.metrics.tunnel_opened();
        self.trip.usage.iter_mut().for_each(|usage| usage.became_tunnel());
        let end = tunnel::carry(self.client, &mut instance, self.settings.timeouts.tunnel_idle).await;
        self.worker.metrics.tunnel_closed();
        self.trip.ending = match end {
            TunnelEnd::Finished => Ending::Complete,
            TunnelEnd::ClientGone => Ending::ClientGone,
            TunnelEnd::InstanceGone => Ending::InstanceCut,
            TunnelEnd::Idle => Ending::TimedOut,
        };
        Ok(After::Abort)
    }

    /// Passes the head on; false: the client is gone.
    fn answer(&mut self) -> bool {
        self.trip.status = self.response.status();
        if let Some(pool) = &self.trip.pool {
            count(pool, self.trip.status);
        }
        match self.client.link.answer(self.response) {
            Ok(written) => {
                self.trip.head_bytes = written as u64;
                true
            }
            Err(_) => {
                self.trip.broken(ProxyError::ClientGone);
                false
            }
        }
    }

    /// Whether the client's connection can carry another request after this one, as far as can be known now.
    fn keeps_client(&self, framing: Framing) -> bool {
        let Client { version, stays, .. } = *self.client;
        let endless = version == Version::Http10 && matches!(framing, Framing::Chunked | Framing::UntilClose);
        // An instance that says no before it has read the request will hardly read on.
        let unread = !self.upload.is_read() && self.response.status() >= 300;
        stays && !endless && !unread && !self.worker.connections.is_winding_down()
    }

    /// Makes the instance's head fit for the client.
    fn dress(&mut self, keep_alive: bool) -> Result<(), ProxyError> {
        let Delivery { response, settings, trip, .. } = self;
        let unfit = |refusal| ProxyError::Endpoint(Cause::BadResponse(refusal));
        let unix = self.worker.clock.unix();
        headers::towards_client(response, &trip.request_id, unix, settings).map_err(unfit)?;
        let context_path = trip.pool.as_ref().map_or("/", |pool| &*pool.context_path);
        let asked = self.wanted.instance.as_deref();
        if let Some(cookie) = sticky::pinning_cookie(response, asked, self.endpoint, context_path, &settings.sticky) {
            self.worker.metrics.sticky(Sticky::New);
            response.push_known(Name::SetCookie, cookie.as_bytes()).map_err(unfit)?;
        }
        say_connection(response, self.client.version, keep_alive).map_err(unfit)
    }
}

fn say_connection(response: &mut Head, client: Version, keep_alive: bool) -> Result<(), crate::http1::Refusal> {
    match (client, keep_alive) {
        (_, false) => response.push_known(Name::Connection, b"close"),
        (Version::Http10, true) => response.push_known(Name::Connection, b"keep-alive"),
        (Version::Http11, true) => Ok(()),
    }
}

/// Tells the client what went wrong, if anything can be told.
async fn give_answer(
    worker: &Worker,
    client: &mut Client,
    request: &Head,
    trip: &mut Trip,
    error: ProxyError,
) -> After {
    let settings = worker.settings();
    trip.status = error.status(settings.timeout_status);
    if let Some(pool) = &trip.pool {
        count(pool, trip.status);
    }
    if let Some(usage) = &mut trip.usage {
        usage.failed(trip.status);
    }
    if matches!(error, ProxyError::ClientGone) {
        trip.broken(error);
        return After::Abort;
    }
    let keep_alive = !error.spoils_connection() && may_stay(worker, client, request);
    let occasion = occasion(worker, client, request, trip, keep_alive);
    trip.head_bytes = answer::write(&error, &settings, &occasion, client.link.out()) as u64;
    if error.refused().is_some() {
        trip.ending = Ending::Refused;
    }
    trip.error = Some(error);
    deliver(client, trip, &settings, keep_alive).await
}

/// Whether the client's connection can carry another request after an answer that the router makes without having read
/// this one's body.
pub fn may_stay(worker: &Worker, client: &Client, request: &Head) -> bool {
    // A body that nobody has read would be taken for the next request.
    let unread = !matches!(framing::of_request(request), Ok(Framing::None));
    !unread && client.stays && !worker.connections.is_winding_down()
}

/// What an answer of ours is about.
pub fn occasion<'a>(
    worker: &Worker,
    client: &Client,
    request: &'a Head,
    trip: &'a Trip,
    keep_alive: bool,
) -> Occasion<'a> {
    let unix = worker.clock.unix();
    Occasion { request, request_id: &trip.request_id, version: client.version, keep_alive, unix }
}

/// Sends an answer of ours that has been written.
pub async fn deliver(client: &mut Client, trip: &mut Trip, settings: &Settings, keep_alive: bool) -> After {
    client.patience.set(settings.timeouts.idle_body);
    let Client { link, patience, .. } = client;
    let flushed = patience.limit(|cx| link.poll_flush(cx)).await;
    match flushed {
        Ok(Ok(())) if keep_alive => After::KeepAlive,
        Ok(Ok(())) => After::Linger,
        Ok(Err(_)) | Err(_) => {
            trip.ending = Ending::ClientGone;
            After::Abort
        }
    }
}

/// Whether a load balancer asks if requests may come.
fn is_health_check(request: &Head, settings: &Settings) -> bool {
    let agent = settings.health_check_agent.as_bytes();
    !agent.is_empty() && request.value(Name::UserAgent) == Some(agent)
}

async fn tell_health(
    worker: &Worker,
    client: &mut Client,
    request: &Head,
    trip: &mut Trip,
    settings: &Settings,
) -> After {
    let is_well = !worker.connections.is_winding_down();
    trip.status = if is_well { 200 } else { 503 };
    trip.head_bytes = answer::health(is_well, request, worker.clock.unix(), client.link.out()) as u64;
    deliver(client, trip, settings, false).await
}

/// Answers in place of an app that the request may not reach (RFC 9110 section 7.6.2).
async fn tell_options(
    worker: &Worker,
    client: &mut Client,
    request: &Head,
    trip: &mut Trip,
    settings: &Settings,
) -> After {
    let keep_alive = may_stay(worker, client, request);
    let page = Page { status: 200, fields: &[("Allow", ALLOWED)], body: b"" };
    trip.status = page.status;
    let occasion = occasion(worker, client, request, trip, keep_alive);
    trip.head_bytes = answer::write_page(&page, &occasion, client.link.out()) as u64;
    deliver(client, trip, settings, keep_alive).await
}

/// Counts an answer for its route.
pub fn count(pool: &Pool, status: u16) {
    pool.fleet.count_response(status);
}

impl Trip {
    #[inline(always)] // as `Told::begin`
    fn begin(worker: &Worker) -> Trip {
        Trip {
            started: worker.now(),
            unix: worker.clock.unix(),
            request_id: worker.request_id(),
            pool: None,
            endpoint: None,
            usage: None,
            attempts: 0,
            time_to_head: None,
            upstream: None,
            status: 0,
            error: None,
            ending: Ending::Complete,
            head_bytes: 0,
            tunnel: None,
        }
    }

    fn client_facts<'a>(&self, client: &'a Client, span: u64) -> ClientFacts<'a> {
        ClientFacts {
            address: client.address,
            address_text: &client.address_text,
            secure: client.secure,
            certificate: client.certificate.as_deref(),
            request_id: self.request_id,
            span,
            unix_millis: self.unix.as_millis() as u64,
        }
    }

    fn attempt(&mut self, endpoint: &Arc<Endpoint>, again: bool) {
        self.endpoint = Some(endpoint.clone());
        // Again on a fresh connection is the same attempt.
        self.attempts += u32::from(!again);
    }

    fn answered(&mut self, response: &Head, in_flight: &InFlight, now: Moment) {
        debug_assert!(response.status() >= 200 || response.status() == 101);
        self.upstream = in_flight.took();
        if let Some(usage) = &mut self.usage {
            usage.answered(response.status(), self.upstream.unwrap_or_default());
        }
        self.time_to_head = if self.attempts == 1 { self.upstream } else { Some(now.since(self.started)) };
    }

    fn broken(&mut self, error: ProxyError) {
        self.ending = match &error {
            ProxyError::ClientGone => Ending::ClientGone,
            ProxyError::Endpoint(Cause::Stalled) | ProxyError::EndpointTimeout => Ending::TimedOut,
            client if client.refused().is_some() => Ending::Refused,
            _ => Ending::InstanceCut,
        };
        self.error = Some(error);
    }
}

//! One client connection: requests come one after the other, answers go back in that order.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::net::TcpStream;

use super::admission::Place;
use super::connections::Open;
use super::error::ProxyError;
use super::http2;
use super::link::{Link, Patience};
use super::proxy_protocol::{self, Preamble};
use super::request;
use super::settings::Settings;
use super::stream::Stream;
use super::tls::clients;
use super::worker::{LentHead, Over, Worker};
use crate::domain::moment::Moment;
use crate::http1::{Progress, Refusal, Version, parse};
use crate::telemetry::metrics::Shard;

/// How much of an unwanted body is read and thrown away, so that our answer is not lost to a reset.
const LINGER_BYTES_MAX: u64 = 1024 * 1024;

/// For how long.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// The client's side of a connection.
#[derive(Debug)]
pub struct Client {
    /// The connection itself.
    pub link: Link,
    /// Its one timer.
    pub patience: Patience,
    /// What the present request's client speaks.
    pub version: Version,
    /// It really speaks HTTP/2, and the link is one of its streams.
    pub http2: bool,
    /// Whether it wants to send another request after the present one.
    pub stays: bool,
    /// Who it is.
    pub address: IpAddr,
    /// The same as text, since every request says it.
    pub address_text: Rc<str>,
    /// Where it came from.
    pub peer: SocketAddr,
    /// Whether it came over TLS.
    pub secure: bool,
    /// Whether the PROXY protocol may still say who it is.
    pub may_be_introduced: bool,
    /// The certificate it has shown: DER in Base64.
    pub certificate: Option<Rc<str>>,
    /// Its place among the connections of the same client, where those are limited.
    place: Option<Place>,
}

/// What a link had counted at some time.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Body bytes received.
    pub received: u64,
    /// Bytes sent.
    pub delivered: u64,
}

impl Client {
    /// Somebody trusted says that it is the one at `source`.
    fn introduce(&mut self, source: SocketAddr) {
        self.address = source.ip().to_canonical();
        self.address_text = self.address.to_string().into();
        self.peer = SocketAddr::new(self.address, source.port());
    }

    /// What has been counted so far. What is in the buffer belongs to the next request.
    pub fn counts(&self) -> Counts {
        Counts { received: self.link.received - self.link.input.filled().len() as u64, delivered: self.link.delivered }
    }
}

/// What becomes of the connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next request may come.
    KeepAlive,
    /// Close; the answer has been sent.
    Close,
    /// Close although the client may still be sending: read on for a while first.
    Linger,
    /// Close at once: the answer could not be finished, and the client must notice.
    Abort,
}

/// How long a connection must have been idle before it is closed because the router leaves. Whoever asks more often than
/// that is told by an answer instead, and no request meets a connection that closes under it.
const IDLE_MIN: Duration = Duration::from_secs(1);

/// Who sends the requests of a connection.
#[derive(Clone, Debug)]
pub struct Facts {
    peer: SocketAddr,
    address: IpAddr,
    address_text: Rc<str>,
    secure: bool,
    certificate: Option<Rc<str>>,
}

impl Facts {
    /// Where it came from.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn of(stream: &Stream, peer: SocketAddr) -> Facts {
        let address = peer.ip().to_canonical();
        Facts {
            peer,
            address,
            address_text: address.to_string().into(),
            secure: stream.is_tls(),
            certificate: stream.certificate().map(|certificate| BASE64.encode(certificate).into()),
        }
    }

    fn client(self, link: Link, patience: Patience) -> Client {
        Client {
            link,
            patience,
            version: Version::Http11,
            http2: false,
            stays: false,
            address: self.address,
            address_text: self.address_text,
            peer: self.peer,
            secure: self.secure,
            may_be_introduced: false,
            certificate: self.certificate,
            place: None,
        }
    }
}

enum Arrival {
    Request,
    /// What comes is HTTP/2.
    Http2,
    Refused(ProxyError),
    Gone,
}

/// Counts a connection for as long as it lasts, whatever way it ends.
struct Counted<'a>(&'a Shard);

impl<'a> Counted<'a> {
    fn new(metrics: &'a Shard) -> Counted<'a> {
        metrics.connection_opened();
        Counted(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.connection_closed();
    }
}

/// Serves a connection until it ends.
pub async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, over: Over) {
    let open = worker.connections.open();
    let _counted = Counted::new(&worker.metrics);
    let settings = worker.settings();
    let place = worker.admission.connection(settings.connections_max);
    let from = peer.ip().to_canonical();
    let may_be_introduced = over == Over::Tcp && settings.may_be_introduced(from);
    let of_client = if may_be_introduced { Ok(None) } else { place_of_client(&worker, from) };
    if over == Over::Tls
        && let Some(error) = place.as_ref().err().or(of_client.as_ref().err())
    {
        // Not worth a handshake, and without one there is nothing to answer on.
        worker.metrics.refused(error.label());
        return;
    }
    let stream = match over {
        Over::Tcp => Stream::Plain(stream),
        Over::Tls => match Box::pin(secure(&worker, stream, peer)).await {
            Some(stream) => stream,
            None => return,
        },
    };
    let facts = Facts::of(&stream, peer);
    if stream.alpn() == Some(clients::HTTP2) {
        return Box::pin(http2::serve(worker.clone(), stream, Vec::new(), facts, open)).await;
    }
    let patience = Patience::new(&worker.clock, settings.timeouts.header_read);
    let mut client = facts.client(Link::new(stream, peer, &worker.buffers), patience);
    client.may_be_introduced = may_be_introduced;
    let _place = match (place, of_client) {
        (Ok(place), Ok(of_client)) => {
            client.place = of_client;
            place
        }
        (Err(error), _) | (_, Err(error)) => {
            let after = Box::pin(request::refuse(&worker, &mut client, &mut worker.heads.lend(), error)).await;
            return part(client, after).await;
        }
    };
    drop(settings);
    let mut nth = 0_u32;
    loop {
        nth = nth.saturating_add(1);
        let mut head = worker.heads.lend();
        let after = match arrival(&worker, &mut client, &mut head, &open, nth).await {
            Arrival::Request => request::serve(&worker, &mut client, &mut head).await,
            Arrival::Refused(error) => Box::pin(request::refuse(&worker, &mut client, &mut head, error)).await,
            Arrival::Http2 => {
                let (stream, unread) = client.link.into_parts();
                let facts = Facts::of(&stream, client.peer);
                return Box::pin(http2::serve(worker.clone(), stream, unread, facts, open)).await;
            }
            // TLS has a goodbye of its own.
            Arrival::Gone if client.secure => After::Close,
            Arrival::Gone => After::Abort,
        };
        if after != After::KeepAlive {
            return part(client, after).await;
        }
    }
}

/// Ends the connection as `after` says.
async fn part(mut client: Client, after: After) {
    if after != After::Abort {
        linger(&mut client, after == After::Linger).await;
    }
}

/// A place for a connection of the client at `address`. A proxy that is trusted speaks for many, and is not counted.
fn place_of_client(worker: &Worker, address: IpAddr) -> Result<Option<Place>, ProxyError> {
    let settings = worker.settings();
    let most = if settings.trusts(address) { 0 } else { settings.connections_per_client_max };
    worker.admission.client(address, most)
}

/// A request of HTTP/2.
#[derive(Debug)]
pub struct Translated {
    /// Who sends it.
    pub facts: Facts,
    /// What its body and its answer go over.
    pub stream: Stream,
    /// What it says, as a request of HTTP/1.1.
    pub head: LentHead,
    /// Whether it was fit to be one.
    pub verdict: Result<(), Refusal>,
}

/// Serves one request of HTTP/2. Gives the timer back.
pub async fn serve_translated(worker: &Worker, request: Translated, patience: Patience) -> Patience {
    let Translated { facts, stream, mut head, verdict } = request;
    let link = Link::new(stream, facts.peer, &worker.buffers);
    let mut client = facts.client(link, patience);
    client.http2 = true;
    client.stays = true;
    let after = match verdict {
        Ok(()) => request::serve(worker, &mut client, &mut head).await,
        Err(refusal) => Box::pin(request::refuse(worker, &mut client, &mut head, refused(refusal))).await,
    };
    // A stream that is dropped unfinished is reset. What a client has not sent to its end is read on for a while: there are
    // those to whom a reset, though it says that all is well, takes an answer away that came just before.
    if after != After::Abort {
        linger(&mut client, after == After::Linger).await;
    }
    client.patience
}

/// Agrees on TLS with a client; `None` if that fails.
async fn secure(worker: &Worker, stream: TcpStream, peer: SocketAddr) -> Option<Stream> {
    let config = worker.tls().clients.clone()?;
    let limit = worker.settings().timeouts.tls_handshake;
    match clients::accept(config, stream, limit).await {
        Ok(agreed) => Some(Stream::Tls(Box::new(agreed))),
        Err(reason) => {
            worker.metrics.tls_failed(reason);
            tracing::debug!(%peer, reason, "no TLS with a client");
            None
        }
    }
}

/// Waits for the head of the connection's `nth` request. An idle connection waits here without any memory of ours.
fn arrival<'a>(
    worker: &'a Worker,
    client: &'a mut Client,
    head: &'a mut LentHead,
    open: &'a Open,
    nth: u32,
) -> Arriving<'a> {
    let settings = worker.settings();
    let idle = if nth == 1 { settings.timeouts.header_read } else { settings.timeouts.client_idle };
    client.patience.set(idle);
    let since = worker.now();
    Arriving { worker, settings, client, head, open, nth, idle, since, is_seen: false, begun: false, leaves: false }
}

/// See [`arrival`].
#[must_use = "a future does nothing before it is polled"]
struct Arriving<'a> {
    worker: &'a Worker,
    settings: Arc<Settings>,
    client: &'a mut Client,
    head: &'a mut LentHead,
    open: &'a Open,
    nth: u32,
    /// How long it may be idle, and since when it is.
    idle: Duration,
    since: Moment,
    /// What has been read so far is known not to be enough.
    is_seen: bool,
    /// The head has begun to come.
    begun: bool,
    /// The router leaves, and the connection with it.
    leaves: bool,
}

impl Future for Arriving<'_> {
    type Output = Arrival;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Arrival> {
        let this = self.get_mut();
        loop {
            if !this.is_seen {
                if let Some(arrival) = this.look() {
                    return Poll::Ready(arrival);
                }
                this.is_seen = true;
            }
            match this.client.link.poll_fill(cx) {
                Poll::Ready(Ok(count)) if count > 0 => this.is_seen = false,
                Poll::Ready(_) => return Poll::Ready(Arrival::Gone),
                Poll::Pending => break,
            }
        }
        if !this.begun && !this.leaves && this.open.poll_leave(cx).is_ready() {
            this.leaves = true;
            let left = if this.idle.is_zero() { IDLE_MIN } else { this.idle.min(IDLE_MIN) };
            this.client.patience.set_since(this.since, left);
        }
        ready!(this.client.patience.poll_elapsed(cx));
        Poll::Ready(if this.begun { Arrival::Refused(ProxyError::ClientTimeout) } else { Arrival::Gone })
    }
}

impl Arriving<'_> {
    /// What has arrived by what was read so far; `None`: more has to come.
    fn look(&mut self) -> Option<Arrival> {
        let Arriving { worker, settings, client, head, .. } = self;
        if client.may_be_introduced
            && let Err(error) = introduction(worker, client)
        {
            client.stays = false;
            return Some(Arrival::Refused(error));
        }
        let may_be_http2 = self.nth == 1 && settings.h2c && !client.secure;
        if may_be_http2 && client.link.input.filled().starts_with(http2::PREFACE) {
            return Some(Arrival::Http2);
        }
        let undecided =
            client.may_be_introduced || may_be_http2 && http2::PREFACE.starts_with(client.link.input.filled());
        if client.link.input.is_empty() || undecided {
            client.link.rest();
            return None;
        }
        match parse::request(client.link.input.filled(), &settings.head_limits, head) {
            Ok(Progress::Complete(consumed)) => {
                client.link.input.consume(consumed);
                client.version = head.version();
                client.stays = head.keeps_alive() && self.nth != settings.requests_per_connection_max;
                return Some(Arrival::Request);
            }
            Ok(Progress::Partial) => {
                if client.link.input.is_full() {
                    client.link.input.grow();
                }
            }
            Err(refusal) => {
                client.stays = false;
                return Some(Arrival::Refused(refused(refusal)));
            }
        }
        if !self.begun && !client.link.input.is_empty() {
            self.begun = true;
            client.patience.set(settings.timeouts.header_read);
        }
        None
    }
}

/// Hears the PROXY protocol's preamble, if one comes; until that is known, the client may still be introduced.
fn introduction(worker: &Worker, client: &mut Client) -> Result<(), ProxyError> {
    let input = client.link.input.filled();
    if input.is_empty() {
        return Ok(());
    }
    match proxy_protocol::parse(input) {
        Ok(Preamble::Partial) => return Ok(()),
        Ok(Preamble::None) => {}
        Ok(Preamble::Complete(consumed, source)) => {
            client.link.input.consume(consumed);
            if let Some(source) = source {
                client.introduce(source);
            }
        }
        Err(malformed) => {
            tracing::debug!(peer = %client.peer, %malformed, "a preamble of the PROXY protocol was refused");
            return Err(ProxyError::BadRequest(Refusal::ProxyPreamble));
        }
    }
    client.may_be_introduced = false;
    client.place = place_of_client(worker, client.address)?;
    Ok(())
}

fn refused(refusal: Refusal) -> ProxyError {
    match refusal {
        Refusal::MissingHost => ProxyError::EmptyHost,
        _ if matches!(refusal.status(), 414 | 431) => ProxyError::HeadTooLarge(refusal),
        _ => ProxyError::BadRequest(refusal),
    }
}

/// Ends our side, then (if the client may be in the middle of a body) reads what it still sends, within limits: closing
/// with unread bytes would reset the connection and could take our answer with it.
async fn linger(client: &mut Client, still_sending: bool) {
    client.patience.set(LINGER_TIME);
    let Client { link, patience, .. } = client;
    let finished = patience.limit(|cx| link.poll_finish(cx)).await;
    if !matches!(finished, Ok(Ok(()))) || !still_sending {
        return;
    }
    let limit = link.received + LINGER_BYTES_MAX;
    let _ended_or_elapsed = patience
        .limit(|cx| {
            while link.received < limit {
                link.input.consume(link.input.filled().len());
                match link.poll_fill(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(count)) if count > 0 => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                }
            }
            Poll::Ready(())
        })
        .await;
}

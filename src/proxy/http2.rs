//! HTTP/2 on both sides. h2 speaks the protocol; each stream looks to the relay like a connection of HTTP/1.1 that
//! carries one request. So there is one relay, whatever is spoken.

mod attendants;
mod body;
mod client_stream;
mod frames;
mod heads;
mod instance_stream;
mod ledger;
mod pulse;
mod sessions;
mod streams;
mod wire;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use h2::ext::Protocol;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use hyper::Request;
use hyper::body::Bytes;
use tokio::task::yield_now;

pub use self::attendants::Attendants;
pub use self::client_stream::ClientStream;
pub use self::instance_stream::InstanceStream;
pub use self::sessions::{Open, Opening, Room, Sessions};

use self::client_stream::Asked;
use self::pulse::Pulse;
use self::streams::Streams;
use self::wire::{How, Outlet, Side, Tap, Wire};
use super::connection::{Facts, Translated};
use super::connections;
use super::error::Cause;
use super::link::Patience;
use super::stream::Stream;
use super::worker::Worker;
use crate::http1::Framing;

/// What every connection begins with (RFC 9113 section 3.4).
pub use self::frames::PREFACE;

/// Streams that a client may have open at once.
const STREAMS_MAX: u32 = 128;

/// Bytes that a peer may send ahead on one stream, and on all together.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes that one stream may have waiting to be sent.
const SEND_BUFFER: usize = 32 * 1024;

/// Bytes of a header list, as RFC 9113 section 6.5.2 counts them, that h2 decodes at all. Towards clients it is at least
/// twice what a head may have, so that nearly all that is too large is refused by us, with a line in the log.
const HEADER_LIST_MAX: u32 = 256 * 1024;

/// Streams that were reset before we came to them; more of them end the connection.
const RESETS_UNSEEN_MAX: usize = 32;

/// Streams that h2 itself may have to reset because they break the protocol; more of them end the connection.
const RESETS_OURS_MAX: usize = 128;

/// How long a client without requests may take to close after we have said goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a failed read from a stream says about its instance, if it is one of HTTP/2.
pub fn cause(error: &io::Error) -> Option<Cause> {
    error.get_ref()?.downcast_ref::<Cause>().copied()
}

/// Serves a client's connection until it ends. `unread` was read from it already.
pub async fn serve(worker: Rc<Worker>, stream: Stream, unread: Vec<u8>, facts: Facts, open: connections::Open) {
    let settings = worker.settings();
    let tap = Tap::new(Side::Server, &worker.metrics);
    let head_bytes = u32::try_from(settings.head_limits.head_bytes).unwrap_or(u32::MAX);
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(head_bytes.saturating_mul(2).max(HEADER_LIST_MAX))
        .max_pending_accept_reset_streams(RESETS_UNSEEN_MAX)
        .max_local_error_reset_streams(Some(RESETS_OURS_MAX))
        .enable_connect_protocol();
    let mut patience = Patience::new(&worker.clock, settings.timeouts.header_read);
    let (wire, outlet) = Wire::new(stream, unread, tap.clone());
    let mut agreeing = pin!(builder.handshake(wire));
    let connection = match patience.limit(|cx| agreeing.as_mut().poll(cx)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%error, "what should be HTTP/2 is something else");
            worker.metrics.refused("http2_preface");
            return;
        }
        Err(_elapsed) => return,
    };
    patience.set(settings.timeouts.header_read);
    let idle = settings.timeouts.client_idle;
    let streams = Streams::new(&worker.clock);
    let mut served = Served {
        worker,
        connection,
        outlet,
        tap,
        facts,
        patience,
        idle,
        streams,
        said_goodbye: false,
        holds_back: false,
        ended: false,
        timed: 0,
    };
    let mut pulse = served.connection.ping_pong().map(|pings| Pulse::new(pings, &served.worker.clock));
    poll_fn(|cx| {
        if served.poll(cx, &open).is_ready() {
            return Poll::Ready(());
        }
        match &mut pulse {
            Some(pulse) => pulse.poll_dead(cx, served.tap.received()),
            None => Poll::Pending,
        }
    })
    .await;
    served.tell_withheld();
}

/// A client's connection.
struct Served {
    worker: Rc<Worker>,
    connection: Connection<Wire, Bytes>,
    outlet: Outlet,
    tap: Rc<Tap>,
    facts: Facts,
    patience: Patience,
    /// How long it may be without requests; zero: for ever.
    idle: Duration,
    streams: Rc<Streams>,
    said_goodbye: bool,
    /// What was written in the last turn has not been sent yet.
    holds_back: bool,
    /// It was told to go.
    ended: bool,
    /// How many streams there had been when it last began to rest.
    timed: u64,
}

impl Served {
    /// Begins what is asked for and sends what there is. Ready when the connection has ended, or has rested for too long.
    fn poll(&mut self, cx: &mut Context<'_>, open: &connections::Open) -> Poll<()> {
        self.outlet.begin_turn();
        if self.poll_turn(cx, open).is_ready() {
            return Poll::Ready(());
        }
        // As long as others are at it, too, what is written waits until the reactor was asked once more: more may leave with it.
        self.holds_back = !self.holds_back && self.streams.open() > 0 && self.outlet.has_output();
        if self.holds_back {
            let _asked_again_behind_the_reactor = pin!(yield_now()).poll(cx);
            return Poll::Pending;
        }
        match self.outlet.poll_flush(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>, open: &connections::Open) -> Poll<()> {
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, answer)))) => self.begin(request, answer),
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, peer = %self.facts.peer(), "a connection of HTTP/2 failed");
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => match (self.tap.flood(), self.tap.violation()) {
                    _ if self.ended => break,
                    (Some(what), _) => self.end_flood(what),
                    (None, Some(violation)) => self.end(violation),
                    (None, None) => break,
                },
            }
        }
        self.tell_withheld();
        if !self.said_goodbye && self.streams.open() == 0 && self.streams.begun() != self.timed {
            self.timed = self.streams.begun();
            self.patience.set(self.idle);
        }
        if !self.said_goodbye && open.poll_leave(cx).is_ready() {
            self.say_goodbye(cx);
        }
        while self.patience.poll_elapsed(cx).is_ready() {
            let now = self.worker.now();
            let rested = self.streams.rested(now);
            let limit = if self.said_goodbye { GOODBYE } else { self.idle };
            match (self.streams.open(), self.said_goodbye) {
                (0, true) if rested >= GOODBYE => return Poll::Ready(()),
                (0, false) if self.streams.begun() == 0 || (!limit.is_zero() && rested >= limit) => {
                    self.say_goodbye(cx);
                }
                (0, _) if !limit.is_zero() => self.patience.set(limit.saturating_sub(rested)),
                (_, _) => self.patience.set(limit.max(GOODBYE)),
            }
        }
        Poll::Pending
    }

    fn say_goodbye(&mut self, cx: &mut Context<'_>) {
        self.said_goodbye = true;
        self.connection.graceful_shutdown();
        self.patience.set(GOODBYE);
        cx.waker().wake_by_ref(); // it is sent by the next poll
    }

    /// A client that makes work for nothing.
    fn end_flood(&mut self, what: &'static str) {
        let label = if what == "resets" { "http2_reset_flood" } else { "http2_frame_flood" };
        self.worker.metrics.refused(label);
        tracing::info!(peer = %self.facts.peer(), what, "ended a connection of HTTP/2 that floods");
        self.end(Reason::ENHANCE_YOUR_CALM);
    }

    fn end(&mut self, reason: Reason) {
        self.ended = true;
        self.connection.abrupt_shutdown(reason);
    }

    /// Requests that h2 refused by itself are counted and logged all the same, with what is known of them.
    fn tell_withheld(&self) {
        for withheld in self.tap.withheld() {
            let (label, status) = match withheld.how {
                How::TooLarge => ("head_too_large", 431),
                How::Reset("refused_stream") => ("http2_too_many_streams", 0),
                How::Reset(_) => ("http2_malformed", 0),
                How::GoAway(_) => ("http2_connection", 0),
            };
            self.worker.withheld(label, status, &withheld.to_string(), self.facts.peer());
        }
    }

    /// Has one stream served.
    fn begin(&self, request: Request<RecvStream>, answer: SendResponse<Bytes>) {
        self.tap.handed_over(answer.stream_id().into());
        let (parts, body) = request.into_parts();
        let mut head = self.worker.heads.lend();
        let settings = self.worker.settings();
        let (ended, limits) = (body.is_end_stream(), &settings.head_limits);
        let verdict = heads::request(&parts, ended, limits, || websocket_key(&self.worker), &mut head);
        let asked = Asked { method: head.method_kind(), extended: parts.extensions.get::<Protocol>().is_some() };
        let framing = *verdict.as_ref().unwrap_or(&Framing::None);
        let stream = ClientStream::new(body, framing, answer, asked, self.tap.clone(), self.streams.begin());
        let stream = Stream::Http2Client(Box::new(stream));
        let request = Translated { facts: self.facts.clone(), stream, head, verdict: verdict.map(drop) };
        attendants::attend(&self.worker, request);
    }
}

/// What a WebSocket of HTTP/2 does not have, and one of HTTP/1.1 must.
fn websocket_key(worker: &Worker) -> [u8; 24] {
    let mut bytes = [0; 16];
    let mut dice = worker.dice.borrow_mut();
    bytes[..8].copy_from_slice(&dice.bits().to_le_bytes());
    bytes[8..].copy_from_slice(&dice.bits().to_le_bytes());
    let mut key = [0; 24];
    BASE64.encode_slice(bytes, &mut key).expect("16 bytes are 24 characters");
    key
}

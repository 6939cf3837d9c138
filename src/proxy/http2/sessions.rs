//! Connections of HTTP/2 to instances. Each carries many requests; another one is opened when all are full, and nobody
//! uses one before the instance has said what it takes.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use h2::Reason;
use h2::client::{Builder, Connection, SendRequest};
use hyper::body::Bytes;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::instance_stream::InstanceStream;
use super::pulse::Pulse;
use super::streams::{Counted, Streams};
use super::wire::{Outlet, Side, Tap, Wire};
use super::{CONNECTION_WINDOW, HEADER_LIST_MAX, SEND_BUFFER, STREAM_WINDOW};
use crate::domain::moment::Moment;
use crate::proxy::error::Cause;
use crate::proxy::link::Patience;
use crate::proxy::stream::Stream;
use crate::proxy::tls::clients::HTTP2;
use crate::runtime::clock::Present;
use crate::telemetry::metrics::{OpenUpstream, Shard};

/// Streams on one connection, even if the instance takes more: lost packets and a busy thread hold all of them up.
const STREAMS_MAX: u32 = 128;

/// A worker's connections of HTTP/2 to instances, by serial of the endpoint.
#[derive(Debug, Default)]
pub struct Sessions {
    places: RefCell<FxHashMap<u64, Rc<Place>>>,
}

/// Those to one endpoint.
#[derive(Debug, Default)]
struct Place {
    sessions: RefCell<Vec<Session>>,
    /// Somebody is opening one; who waits for it is told when it is there, or will never be.
    opening: Cell<bool>,
    opened: Notify,
}

#[derive(Debug)]
struct Session {
    requests: SendRequest<Bytes>,
    streams: Rc<Streams>,
    secure: bool,
}

/// A place on a connection, as the stream that has it knows it.
#[derive(Debug)]
pub(super) struct Taken {
    secure: bool,
    /// It is not the connection's first.
    reused: bool,
    /// Nothing else was on the connection when it was taken.
    rested: bool,
    _counted: Counted,
}

/// Leave to open a connection: others wait until this is dropped.
#[derive(Debug)]
pub struct Opening {
    place: Rc<Place>,
    /// Nobody waits for one that is wanted instead of those there are.
    awaited: bool,
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.awaited {
            self.place.opening.set(false);
            self.place.opened.notify_waiters();
        }
    }
}

/// What there is for a request.
#[derive(Debug)]
pub enum Room {
    /// A stream on a connection that stands.
    OnConnection(Box<InstanceStream>),
    /// None: open a connection, and give it to [`Sessions::establish`].
    None(Opening),
}

impl Sessions {
    /// A place on a connection to the endpoint `serial`, or leave to open one. `fresh`: a new one in any case. Waits while
    /// another request is opening one; `None` when `patience` ends meanwhile.
    pub async fn find(&self, serial: u64, fresh: bool, patience: &mut Patience) -> Option<Room> {
        let place = self.places.borrow_mut().entry(serial).or_default().clone();
        loop {
            if !fresh && let Some(stream) = place.stream() {
                return Some(Room::OnConnection(Box::new(stream)));
            }
            if fresh || !place.opening.replace(true) {
                return Some(Room::None(Opening { place, awaited: !fresh }));
            }
            let mut opened = pin!(place.opened.notified());
            patience.limit(|cx| opened.as_mut().poll(cx)).await.ok()?;
        }
    }

    /// Speaks HTTP/2 over `stream`, a new connection, and takes a place on it.
    ///
    /// # Errors
    /// `NotHttp2` if the other side does not, `ConnectTimeout` if it takes too long to say.
    pub async fn establish(
        &self,
        opening: Opening,
        stream: Stream,
        metrics: &Shard,
        clock: &Present,
        patience: &mut Patience,
    ) -> Result<(InstanceStream, Open), Cause> {
        let secure = stream.is_tls();
        if secure && stream.alpn() != Some(HTTP2) {
            return Err(Cause::NotHttp2);
        }
        let tap = Tap::new(Side::Client, metrics);
        let watched = tap.clone();
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(HEADER_LIST_MAX);
        let (wire, outlet) = Wire::new(stream, Vec::new(), watched.clone());
        let mut greeting = pin!(async {
            let (requests, mut connection) = builder.handshake(wire).await.map_err(|_| Cause::NotHttp2)?;
            poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
                _ if watched.is_greeted() => Poll::Ready(Ok(())),
                Poll::Ready(_) => Poll::Ready(Err(Cause::NotHttp2)),
                Poll::Pending => Poll::Pending,
            })
            .await?;
            Ok((requests, connection))
        });
        let greeted = patience.limit(|cx| greeting.as_mut().poll(cx)).await;
        let (requests, connection) = greeted.unwrap_or(Err(Cause::ConnectTimeout))?;
        let session = Session { requests, streams: Streams::new(clock), secure };
        let taken = session.stream();
        opening.place.sessions.borrow_mut().push(session);
        Ok((taken, Open { connection, outlet, tap }))
    }

    /// Closes what has rested for too long or was closed by the instance.
    pub fn sweep(&self, now: Moment, idle_max: Duration) {
        self.places.borrow_mut().retain(|_, place| {
            let mut sessions = place.sessions.borrow_mut();
            sessions.retain_mut(|session| session.streams.rested(now) < idle_max && session.is_open());
            !sessions.is_empty() || place.opening.get()
        });
    }
}

impl Place {
    /// A stream on the first connection that has room: so that few are busy and the others can go.
    fn stream(&self) -> Option<InstanceStream> {
        let mut sessions = self.sessions.borrow_mut();
        sessions.retain_mut(Session::is_open);
        sessions.iter().find(|session| session.has_room()).map(Session::stream)
    }
}

impl Session {
    fn is_open(&mut self) -> bool {
        !matches!(self.requests.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    fn has_room(&self) -> bool {
        let theirs = u32::try_from(self.requests.current_max_send_streams()).unwrap_or(u32::MAX);
        self.streams.open() < STREAMS_MAX.min(theirs)
    }

    fn stream(&self) -> InstanceStream {
        let taken = Taken {
            secure: self.secure,
            reused: self.streams.begun() > 0,
            rested: self.streams.open() == 0,
            _counted: self.streams.begin(),
        };
        InstanceStream::new(self.requests.clone(), taken)
    }
}

impl Taken {
    pub(super) fn is_secure(&self) -> bool {
        self.secure
    }

    /// What a failure before the first byte of an answer says about the instance. What it has refused, or not looked at
    /// before its goodbye, it has not done; and a connection that broke when it was used again may well have been closed before.
    pub(super) fn failure(&self, error: &h2::Error) -> Cause {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        match (error.is_remote(), error.is_go_away()) {
            (true, true) if self.reused => Cause::StaleConnection,
            (true, true) => Cause::RefusedStream,
            (true, false) if refused => Cause::RefusedStream,
            (false, false) if error.is_io() && self.reused && self.rested => Cause::StaleConnection,
            (false, _) if error.is_library() => Cause::Http2Violated,
            _ => Cause::Reset,
        }
    }
}

/// A new connection, which has to be driven.
#[derive(Debug)]
pub struct Open {
    connection: Connection<Wire, Bytes>,
    outlet: Outlet,
    tap: Rc<Tap>,
}

impl Open {
    /// Drives the connection until it ends: when nobody holds it any more and its last stream has ended, or when the
    /// instance ends it, or does not answer.
    pub async fn drive(self, counted: OpenUpstream, clock: Present) {
        let _counted = counted;
        let Open { mut connection, outlet, tap } = self;
        let Some(mut pulse) = connection.ping_pong().map(|pings| Pulse::new(pings, &clock)) else { return };
        let ended = poll_fn(|cx| {
            outlet.begin_turn();
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(ended);
            }
            match (tap.violation(), tap.flood()) {
                (Some(violation), _) => Poll::Ready(Err(violation.into())),
                (None, Some(_)) => Poll::Ready(Err(Reason::ENHANCE_YOUR_CALM.into())),
                (None, None) => match outlet.poll_flush(cx) {
                    Poll::Ready(Err(_)) => Poll::Ready(Ok(())), // whoever reads or writes is told
                    Poll::Ready(Ok(())) | Poll::Pending => pulse.poll_dead(cx, tap.received()).map(Ok),
                },
            }
        })
        .await;
        if let Err(error) = ended {
            tracing::debug!(%error, flood = tap.flood(), "a connection of HTTP/2 to an instance failed");
        }
    }
}

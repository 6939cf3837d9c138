//! HTTP/2 with clients: hyper speaks the protocol, and each of its streams becomes one request of HTTP/1.1 over a pipe
//! inside the worker. So there is one relay, whatever the client speaks.

mod request;
mod response;
mod wire;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use self::response::Answer;
use self::wire::Wire;
use super::connection::{self, Facts};
use super::connections::Open;
use super::link::Patience;
use super::pipe::pipe;
use super::stream::Stream;
use super::worker::Worker;
use crate::http1::Method;

/// What every connection begins with (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Streams that a client may have open at once.
const STREAMS_MAX: u32 = 128;

/// Bytes that a client may send ahead on one stream, and on all together.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes that one stream may have waiting to be sent.
const SEND_BUFFER: usize = 64 * 1024;

/// Streams that were reset before we came to them; more of them are an attack, and end the connection.
const RESETS_MAX: usize = 32;

/// How often a silent client is asked whether it is still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(20);

/// How long a client without requests may take to close after we have said goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// Runs what hyper wants to have run on the thread of the worker.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, work: F) {
        tokio::task::spawn_local(work);
    }
}

/// The requests that a connection is at.
#[derive(Debug)]
struct Streams {
    open: Cell<usize>,
    begun: Cell<u64>,
    last_ended: Cell<Instant>,
}

/// One of them; it counts until it is dropped.
#[derive(Debug)]
struct Counted(Rc<Streams>);

impl Counted {
    fn new(streams: &Rc<Streams>) -> Counted {
        streams.open.set(streams.open.get() + 1);
        streams.begun.set(streams.begun.get() + 1);
        Counted(streams.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.last_ended.set(Instant::now());
    }
}

/// Serves a connection until it ends. `unread` was read from it already.
pub async fn serve(worker: Rc<Worker>, stream: Stream, unread: Vec<u8>, facts: Facts, open: Open) {
    let settings = worker.settings();
    let mut builder = Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(settings.head_limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE)
        .auto_date_header(false);
    let streams = Rc::new(Streams { open: Cell::new(0), begun: Cell::new(0), last_ended: Cell::new(Instant::now()) });
    let service = {
        let (worker, streams, facts) = (worker.clone(), streams.clone(), facts);
        service_fn(move |request| exchange(worker.clone(), facts.clone(), Counted::new(&streams), request))
    };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Wire::new(stream, unread)), service));
    let mut patience = Patience::new(&worker.clock, settings.timeouts.header_read);
    let mut said_goodbye = false;
    poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(%error, "an HTTP/2 connection failed");
            }
            return Poll::Ready(());
        }
        if !said_goodbye && open.poll_leave(cx).is_ready() {
            said_goodbye = true;
            connection.as_mut().graceful_shutdown();
            patience.set(GOODBYE);
            cx.waker().wake_by_ref(); // the goodbye is sent by the next poll
        }
        while patience.poll_elapsed(cx).is_ready() {
            let idle = settings.timeouts.client_idle;
            let silent = streams.last_ended.get().elapsed();
            let limit = if said_goodbye { GOODBYE } else { idle };
            match (streams.open.get(), said_goodbye) {
                (0, true) if silent >= GOODBYE => return Poll::Ready(()),
                (0, false) if streams.begun.get() == 0 || (!idle.is_zero() && silent >= idle) => {
                    said_goodbye = true;
                    connection.as_mut().graceful_shutdown();
                    patience.set(GOODBYE);
                    cx.waker().wake_by_ref();
                }
                (0, _) if !limit.is_zero() => patience.set(limit.saturating_sub(silent)),
                (_, _) => patience.set(limit.max(GOODBYE)),
            }
        }
        Poll::Pending
    })
    .await;
}

/// Serves one stream. It ends early, by an error that resets it, if the relay gives up.
async fn exchange(
    worker: Rc<Worker>,
    facts: Facts,
    counted: Counted,
    request: Request<Incoming>,
) -> io::Result<Response<Answer>> {
    let (ours, theirs) = pipe();
    let (parts, body) = request.into_parts();
    let mut head = worker.heads.lend();
    let limits = worker.settings().head_limits;
    let translated = request::translate(&parts, &body, &limits, &mut head);
    let asked = Method::of(parts.method.as_str().as_bytes());
    let framing = translated.ok();
    worker.spawn(connection::serve_translated(worker.clone(), facts, theirs, head, translated.map(drop)));
    let upload = framing.map(|framing| request::Upload::start(body, framing, ours.writer));
    Answer::arrival(ours.reader, upload, counted, asked, worker.clone()).await
}

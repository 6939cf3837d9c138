//! A stream to an instance as the relay sees it: HTTP/1.1. The request is written to it, the answer is read from it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use hyper::body::Bytes;
use hyper::{HeaderMap, Response, StatusCode};

use super::body::{Incoming, Outgoing};
use super::heads;
use super::sessions::Taken;
use crate::http1::head::HEAD_BYTES_MAX;
use crate::http1::{Body, Framing, Head, Method, Name, Progress, Refusal, framing, parse, write};
use crate::proxy::error::Cause;

/// What every WebSocket server adds to the key before it hashes it (RFC 6455 section 1.3).
const WEBSOCKET_MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// One stream. Dropping it unfinished resets it.
#[derive(Debug)]
pub struct InstanceStream {
    requests: SendRequest<Bytes>,
    request: Option<Outgoing>,
    answer: Answer,
    asked: Method,
    upgrade: Option<Upgrade>,
    head: Head,
    /// Interim heads that were not read yet.
    interim: Vec<u8>,
    taken: Taken,
}

/// The other protocol that was asked for.
#[derive(Debug)]
struct Upgrade {
    protocol: String,
    /// What proves to a client of HTTP/1.1 that its WebSocket was understood.
    accept: Option<String>,
}

#[derive(Debug)]
enum Answer {
    /// The request has not been sent yet.
    Unasked,
    Expected(ResponseFuture),
    Begun(Incoming),
    Failed(Cause),
}

impl InstanceStream {
    pub(super) fn new(requests: SendRequest<Bytes>, taken: Taken) -> InstanceStream {
        InstanceStream {
            requests,
            request: None,
            answer: Answer::Unasked,
            asked: Method::Get,
            upgrade: None,
            head: Head::new(),
            interim: Vec::new(),
            taken,
        }
    }

    /// See [`Stream::poll_read_ready`](crate::proxy::stream::Stream::poll_read_ready).
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.interim.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match &mut self.answer {
                Answer::Unasked => return Poll::Pending, // whoever writes looks again
                Answer::Failed(cause) => return Poll::Ready(Err(io::Error::other(*cause))),
                Answer::Begun(answer) => {
                    return answer.poll_ready(cx).map_err(|error| io::Error::other(self.taken.failure(&error)));
                }
                Answer::Expected(expected) => {
                    if let Poll::Ready(Some(Ok(interim))) = expected.poll_informational(cx) {
                        let (status, headers) = (interim.status(), interim.headers());
                        heads::response(status, headers, true, self.asked, &mut self.head).map_err(bad)?;
                        write::response(&self.head, &mut self.interim);
                        continue;
                    }
                    match ready!(Pin::new(expected).poll(cx)) {
                        Ok(answered) => self.answer = Answer::Begun(self.begin(answered).map_err(bad)?),
                        Err(error) => self.answer = Answer::Failed(self.taken.failure(&error)),
                    }
                }
            }
        }
    }

    /// The final head has come.
    fn begin(&mut self, answered: Response<RecvStream>) -> Result<Incoming, Refusal> {
        let (parts, body) = answered.into_parts();
        let mut text = Vec::with_capacity(512);
        if let Some(upgrade) = self.upgrade.take().filter(|_| parts.status.is_success()) {
            self.switched(&parts.headers, &upgrade)?;
            write::response(&self.head, &mut text);
            return Ok(Incoming::new(text, body, Framing::UntilClose));
        }
        let framing = heads::response(parts.status, &parts.headers, body.is_end_stream(), self.asked, &mut self.head)?;
        write::response(&self.head, &mut text);
        Ok(Incoming::new(text, body, framing))
    }

    /// An extended CONNECT has succeeded: for HTTP/1.1 that is a switch of protocols.
    fn switched(&mut self, headers: &HeaderMap, upgrade: &Upgrade) -> Result<(), Refusal> {
        heads::response(StatusCode::SWITCHING_PROTOCOLS, headers, false, self.asked, &mut self.head)?;
        self.head.push_known(Name::Connection, b"Upgrade")?;
        self.head.push_known(Name::Upgrade, upgrade.protocol.as_bytes())?;
        match &upgrade.accept {
            Some(accept) => self.head.push("Sec-WebSocket-Accept", accept.as_bytes()),
            None => Ok(()),
        }
    }

    /// Reads once; ready with 0 at the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_read_ready(cx))?;
        if !self.interim.is_empty() {
            let count = self.interim.len().min(room.len());
            room[..count].copy_from_slice(&self.interim[..count]);
            self.interim.drain(..count);
            return Poll::Ready(Ok(count));
        }
        match &mut self.answer {
            Answer::Begun(answer) => Poll::Ready(Ok(answer.read(room))),
            Answer::Unasked | Answer::Expected(_) | Answer::Failed(_) => Poll::Pending,
        }
    }

    /// Writes once. A head must be written whole.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(request) = &mut self.request {
            return request.poll_write(cx, bytes).map_err(|error| io::Error::other(self.taken.failure(&error)));
        }
        let asked = match ready!(self.requests.poll_ready(cx)) {
            Ok(()) => self.ask(bytes),
            Err(error) => Err(self.taken.failure(&error)),
        };
        Poll::Ready(asked.map_err(|cause| {
            self.answer = Answer::Failed(cause);
            io::Error::other(cause)
        }))
    }

    /// Sends the head that `bytes` begin with; tells its length.
    fn ask(&mut self, bytes: &[u8]) -> Result<usize, Cause> {
        let limits =
            parse::Limits { head_bytes: HEAD_BYTES_MAX, head_count: parse::FIELDS_MAX, ..parse::Limits::default() };
        let head = &mut self.head;
        let Ok(Progress::Complete(taken)) = parse::request(bytes, &limits, head) else {
            return Err(Cause::NotInHttp2);
        };
        self.asked = head.method_kind();
        let framing = framing::of_request(head).map_err(|_| Cause::NotInHttp2)?;
        self.upgrade = head.value(Name::Upgrade).map(|protocol| Upgrade::new(protocol, head));
        if self.upgrade.is_some() && !self.requests.is_extended_connect_protocol_enabled() {
            return Err(Cause::NotInHttp2);
        }
        let protocol = self.upgrade.as_ref().map(|upgrade| &*upgrade.protocol);
        let request = heads::as_request(head, self.taken.is_secure(), protocol).map_err(|_| Cause::NotInHttp2)?;
        let framing = if protocol.is_some() { Framing::UntilClose } else { framing };
        let ended = Body::new(framing).is_done();
        let sent = self.requests.send_request(request, ended);
        let (expected, stream) = sent.map_err(|error| self.taken.failure(&error))?;
        self.answer = Answer::Expected(expected);
        self.request = Some(Outgoing::new(stream, framing, ended));
        Ok(taken)
    }

    /// Nothing more will be written.
    ///
    /// # Errors
    /// When the instance is gone.
    pub fn finish(&mut self) -> io::Result<()> {
        match &mut self.request {
            Some(request) => request.finish().map_err(|error| io::Error::other(self.taken.failure(&error))),
            None => Ok(()),
        }
    }
}

impl Drop for InstanceStream {
    fn drop(&mut self) {
        let answered = matches!(&self.answer, Answer::Begun(answer) if answer.is_done());
        match &mut self.request {
            Some(request) if !request.is_ended() || !answered => request.reset(Reason::CANCEL),
            _ => {}
        }
    }
}

impl Upgrade {
    fn new(protocol: &[u8], head: &Head) -> Upgrade {
        let protocol = String::from_utf8_lossy(protocol).to_ascii_lowercase();
        let key = head.value_of("sec-websocket-key").filter(|_| protocol == "websocket");
        let accept = key.map(|key| {
            let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, WEBSOCKET_MAGIC].concat());
            BASE64.encode(hash)
        });
        Upgrade { protocol, accept }
    }
}

/// The answer is none that could be passed on. The relay would say so if it read it; so it is told.
fn bad(refusal: Refusal) -> io::Error {
    io::Error::other(Cause::BadResponse(refusal))
}

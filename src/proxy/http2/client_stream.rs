//! A client's stream as the relay sees it: HTTP/1.1. The request's body is read from it, the answer is written to it.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use hyper::StatusCode;
use hyper::body::Bytes;

use super::body::{Incoming, Outgoing};
use super::heads;
use super::streams::Counted;
use super::wire::Tap;
use crate::http1::head::HEAD_BYTES_MAX;
use crate::http1::{Body, Framing, Head, Method, Progress, framing, parse};

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// As HTTP/1.1 has it.
    pub(super) method: Method,
    /// By an extended CONNECT.
    pub(super) extended: bool,
}

/// One stream. Dropping it unfinished resets it.
#[derive(Debug)]
pub struct ClientStream {
    request: Incoming,
    answer: Answer,
    asked: Method,
    /// It is an extended CONNECT: a success would mean that the other protocol is spoken, and only a switch of protocols
    /// means that in HTTP/1.1.
    extended: bool,
    tunnel: bool,
    tap: Rc<Tap>,
    counted: Counted,
}

#[derive(Debug)]
enum Answer {
    /// Its final head has not been written yet.
    Expected(SendResponse<Bytes>),
    Begun(Outgoing),
}

impl ClientStream {
    /// A request whose body follows in `framing`.
    pub(super) fn new(
        body: RecvStream,
        framing: Framing,
        answer: SendResponse<Bytes>,
        asked: Asked,
        tap: Rc<Tap>,
        counted: Counted,
    ) -> ClientStream {
        ClientStream {
            request: Incoming::new(Vec::new(), body, framing),
            answer: Answer::Expected(answer),
            asked: asked.method,
            extended: asked.extended,
            tunnel: false,
            tap,
            counted,
        }
    }

    /// See [`Stream::poll_read_ready`](crate::proxy::stream::Stream::poll_read_ready). Behind the request nothing comes
    /// but the end of the stream, which is a failure before the answer has been written.
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.request.is_done() || self.tunnel {
            return self.request.poll_ready(cx).map_err(reset);
        }
        if matches!(&self.answer, Answer::Begun(answer) if answer.is_ended()) {
            return Poll::Ready(Ok(())); // both sides have said all
        }
        self.poll_gone(cx).map(Err)
    }

    /// Ready when the client has reset the stream, or is gone.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(&self.answer, Answer::Begun(answer) if answer.is_ended()) {
            return Poll::Pending;
        }
        self.poll_gone(cx).map(drop)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match &mut self.answer {
            Answer::Expected(answer) => answer.poll_reset(cx).map(|gone| match gone {
                Ok(reason) => io::Error::new(io::ErrorKind::ConnectionReset, reason.description()),
                Err(error) => reset(error),
            }),
            Answer::Begun(answer) => answer.poll_reset(cx),
        }
    }

    /// Reads once.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_read_ready(cx))?;
        Poll::Ready(Ok(self.request.read(room)))
    }

    /// Writes once. A head that comes as text (those of our own answers do) must be written whole.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Answer::Begun(answer) = &mut self.answer {
            return answer.poll_write(cx, bytes).map_err(reset);
        }
        let limits =
            parse::Limits { head_bytes: HEAD_BYTES_MAX, head_count: parse::FIELDS_MAX, ..parse::Limits::default() };
        let mut head = Head::new();
        let Progress::Complete(taken) = parse::response(bytes, &limits, &mut head).map_err(io::Error::other)? else {
            return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
        };
        if head.status() == 101 {
            // To read means something else from now on: who waits for it has to ask again.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(self.answer(&head).map(|()| taken))
    }

    /// Answers with `head`; only interim heads may have come before.
    ///
    /// # Errors
    /// When it cannot be said in HTTP/2, or the client is gone.
    pub fn answer(&mut self, head: &Head) -> io::Result<()> {
        let Answer::Expected(answer) = &mut self.answer else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let names = self.counted.leaves_names();
        let said = heads::as_response(head, names, &mut self.counted.last_response());
        let mut response = said.map_err(io::Error::other)?;
        if self.extended && (200..=299).contains(&head.status()) {
            *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
        }
        match head.status() {
            101 => {
                self.tunnel = true;
                self.request.tunnel();
                let stream = answer.send_response(response, false).map_err(reset)?;
                self.answer = Answer::Begun(Outgoing::new(stream, Framing::UntilClose, false));
            }
            100..=199 => answer.send_informational(response).map_err(reset)?,
            _ => {
                let framing = framing::of_response(head, self.asked).map_err(io::Error::other)?;
                let ended = Body::new(framing).is_done();
                let stream = answer.send_response(response, ended).map_err(reset)?;
                self.answer = Answer::Begun(Outgoing::new(stream, framing, ended));
            }
        }
        Ok(())
    }

    /// Nothing more will be written.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn finish(&mut self) -> io::Result<()> {
        match &mut self.answer {
            Answer::Begun(answer) => answer.finish().map_err(reset),
            Answer::Expected(_) => Ok(()),
        }
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        let reason = if self.request.is_malformed() { Reason::PROTOCOL_ERROR } else { Reason::INTERNAL_ERROR };
        match &mut self.answer {
            Answer::Begun(answer) if answer.is_ended() => self.tap.finished(),
            Answer::Begun(answer) => answer.reset(reason),
            Answer::Expected(answer) => answer.send_reset(reason),
        }
    }
}

fn reset(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

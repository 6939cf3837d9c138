//! Bodies on their way: each direction reads from one link and writes to the other, with the read buffer as all there is
//! between them, so that a slow reader slows the sender and memory stays flat whatever the size.

use std::io::{self, Write};
use std::task::{Context, Poll, ready};

use super::link::Link;
use super::turn::Turn;
use crate::http1::{Body, Framing, Refusal};

/// What stopped a body.
#[derive(Debug)]
pub enum Fault {
    /// The sender broke the framing.
    Framing(Refusal),
    /// The sender ended before its body did.
    CutOff,
    /// The sender's connection failed.
    Source(io::Error),
    /// The receiver's connection failed.
    Sink(io::Error),
    /// The body is larger than allowed.
    TooLarge,
}

/// The request's body, from the client to an instance; and again to another instance while it is small enough to keep.
#[derive(Debug)]
pub struct Upload {
    body: Body,
    /// Everything passed on so far, as framed; `None` once it was more than `kept_max`.
    kept: Option<Vec<u8>>,
    kept_max: usize,
    /// How much of `kept` the present instance was given.
    given: usize,
    /// Leading bytes of the client's input that belong to the body and wait to be sent.
    validated: usize,
    limit: u64,
}

impl Upload {
    /// A body in `framing`, kept for another try up to `kept_max` bytes and refused above `limit` bytes of data (0: no limit).
    pub fn new(framing: Framing, kept_max: usize, limit: u64) -> Upload {
        let limit = if limit == 0 { u64::MAX } else { limit };
        Upload { body: Body::new(framing), kept: Some(Vec::new()), kept_max, given: 0, validated: 0, limit }
    }

    /// Whether everything has been read from the client.
    pub fn is_read(&self) -> bool {
        self.body.is_done() && self.validated == 0
    }

    /// Whether everything has been given to the present instance.
    pub fn is_done(&self) -> bool {
        self.is_read() && self.kept.as_ref().is_none_or(|kept| self.given == kept.len())
    }

    /// Whether the whole body can be sent to another instance: nothing of it was let go.
    pub fn is_replayable(&self) -> bool {
        self.kept.is_some()
    }

    /// Starts again for another instance.
    pub fn rewind(&mut self) {
        debug_assert!(self.is_replayable());
        self.given = 0;
    }

    /// Passes on what there is; ready when the body has ended and left.
    pub fn poll(&mut self, cx: &mut Context<'_>, client: &mut Link, instance: &mut Link) -> Poll<Result<(), Fault>> {
        let turn = Turn::of(instance);
        loop {
            ready!(turn.poll_goes_on(cx, instance));
            if let Some(kept) = &self.kept
                && self.given < kept.len()
            {
                self.given += ready!(instance.poll_send(cx, &kept[self.given..])).map_err(Fault::Sink)?;
                continue;
            }
            if self.is_read() {
                return instance.poll_flush(cx).map_err(Fault::Sink);
            }
            if self.validated == 0 && !self.validate(client)? {
                // Before waiting for more: what is written shall not wait with us.
                if let Poll::Ready(Err(error)) = instance.poll_flush(cx) {
                    return Poll::Ready(Err(Fault::Sink(error)));
                }
                if ready!(client.poll_fill_for(cx, instance)).map_err(Fault::Source)? == 0 {
                    return Poll::Ready(Err(Fault::CutOff));
                }
                continue;
            }
            if self.validated > 0 {
                let taken =
                    ready!(instance.poll_send(cx, &client.input.filled()[..self.validated])).map_err(Fault::Sink)?;
                self.pass(taken, client);
            }
        }
    }

    /// Looks at what is there; false: nothing of the body is.
    fn validate(&mut self, client: &Link) -> Result<bool, Fault> {
        if client.input.is_empty() {
            return Ok(false);
        }
        self.validated = self.body.relay(client.input.filled()).map_err(Fault::Framing)?;
        if self.body.data_bytes() > self.limit {
            return Err(Fault::TooLarge);
        }
        debug_assert!(self.validated > 0 || self.body.is_done());
        Ok(true)
    }

    fn pass(&mut self, taken: usize, client: &mut Link) {
        if let Some(kept) = &mut self.kept {
            if kept.len() + taken <= self.kept_max {
                kept.extend_from_slice(&client.input.filled()[..taken]);
                self.given += taken;
            } else {
                self.kept = None;
            }
        }
        client.input.consume(taken);
        self.validated -= taken;
    }
}

/// How a response body is framed towards the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reframe {
    /// As the instance framed it.
    AsIs,
    /// Chunks taken off, for a client of HTTP/1.0.
    Unchunk,
    /// Chunks put on, where the instance marks the end by closing and the client's connection shall live on.
    Chunk,
}

/// The response's body, from the instance to the client.
#[derive(Debug)]
pub struct Download {
    body: Body,
    reframe: Reframe,
    /// Leading bytes of the instance's input that wait to be sent as they are.
    validated: usize,
    /// Bytes behind them that are framing and will not be sent.
    skipped: usize,
    finished: bool,
}

impl Download {
    /// A body in `framing`, passed on as `reframe` says.
    pub fn new(framing: Framing, reframe: Reframe) -> Download {
        Download { body: Body::new(framing), reframe, validated: 0, skipped: 0, finished: false }
    }

    /// Passes on what there is; ready when the body has ended and left.
    pub fn poll(&mut self, cx: &mut Context<'_>, instance: &mut Link, client: &mut Link) -> Poll<Result<(), Fault>> {
        let turn = Turn::of(client);
        loop {
            ready!(turn.poll_goes_on(cx, client));
            if self.validated > 0 {
                let taken =
                    ready!(client.poll_send(cx, &instance.input.filled()[..self.validated])).map_err(Fault::Sink)?;
                instance.input.consume(taken);
                self.validated -= taken;
                continue;
            }
            if self.skipped > 0 {
                instance.input.consume(std::mem::take(&mut self.skipped));
            }
            if self.finished {
                return client.poll_flush(cx).map_err(Fault::Sink);
            }
            if self.body.is_done() {
                self.finish(client);
                continue;
            }
            if !instance.input.is_empty() && self.validate(instance, client)? {
                continue;
            }
            if self.reframe == Reframe::Chunk {
                ready!(client.poll_flush(cx)).map_err(Fault::Sink)?;
            } else if let Poll::Ready(Err(error)) = client.poll_flush(cx) {
                return Poll::Ready(Err(Fault::Sink(error)));
            }
            if ready!(instance.poll_fill_for(cx, client)).map_err(Fault::Source)? == 0 && self.body.close().is_err() {
                return Poll::Ready(Err(Fault::CutOff));
            }
        }
    }

    /// Looks at what is there; false: nothing can be done with it before more comes.
    fn validate(&mut self, instance: &mut Link, client: &mut Link) -> Result<bool, Fault> {
        let input = instance.input.filled();
        match self.reframe {
            Reframe::AsIs => {
                self.validated = self.body.relay(input).map_err(Fault::Framing)?;
                Ok(self.validated > 0)
            }
            Reframe::Unchunk => {
                let piece = self.body.decode(input).map_err(Fault::Framing)?;
                instance.input.consume(piece.data.start);
                self.validated = piece.data.len();
                self.skipped = piece.consumed - piece.data.end;
                Ok(piece.consumed > 0)
            }
            Reframe::Chunk => {
                let count = self.body.relay(input).map_err(Fault::Framing)?;
                let output = client.out();
                write!(output, "{count:x}\r\n").expect("a vector takes every write");
                output.extend_from_slice(&input[..count]);
                output.extend_from_slice(b"\r\n");
                instance.input.consume(count);
                // Sent before the next read, so a slow client does not fill our memory.
                Ok(false)
            }
        }
    }

    fn finish(&mut self, client: &mut Link) {
        self.finished = true;
        if self.reframe == Reframe::Chunk {
            client.out().extend_from_slice(b"0\r\n\r\n");
        }
    }
}

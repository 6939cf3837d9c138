//! Bodies in both forms: frames that come are read as HTTP/1.1 has them on the wire, and what is written so leaves in
//! frames. Nothing waits in between: a stream's window is what holds a sender back.

use std::io;
use std::task::{Context, Poll, ready};

use h2::{Reason, RecvStream, SendStream};
use hyper::HeaderMap;
use hyper::body::Bytes;

use super::heads;
use crate::http1::{Body, Framing, write};

/// Bytes given to a stream at once.
const PIECE_MAX: usize = 16 * 1024;

/// What comes on a stream.
#[derive(Debug)]
pub(super) struct Incoming {
    body: RecvStream,
    chunked: bool,
    /// Framing and heads, to be read before `data`.
    text: Vec<u8>,
    text_read: usize,
    data: Bytes,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    /// Its trailers could not stand on lines.
    Malformed,
    /// All has come; what is left waits to be read.
    Done,
}

impl Incoming {
    /// `text`, and behind it the stream's data, as chunks where that is how it is framed.
    pub(super) fn new(text: Vec<u8>, body: RecvStream, framing: Framing) -> Incoming {
        let state = if framing == Framing::None { State::Done } else { State::Data };
        Incoming { body, chunked: framing == Framing::Chunked, text, text_read: 0, data: Bytes::new(), state }
    }

    /// From here on the stream's data are the bytes of another protocol.
    pub(super) fn tunnel(&mut self) {
        self.chunked = false;
        self.state = State::Data;
    }

    /// Ready when there is something to read, or never will be again.
    ///
    /// # Errors
    /// When the stream is reset, or its connection gone.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            if self.text_read < self.text.len() || !self.data.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Malformed => return Poll::Ready(Err(Reason::PROTOCOL_ERROR.into())),
                State::Data => match ready!(self.body.poll_data(cx)) {
                    Some(Ok(data)) if data.is_empty() => {}
                    Some(Ok(data)) => {
                        if self.chunked {
                            self.clear_text();
                            write::chunk_head(data.len(), &mut self.text);
                        }
                        self.data = data;
                    }
                    // Whoever has answered in full may say that the rest of the request is of no interest (section 8.1).
                    Some(Err(error)) if error.is_reset() && error.reason() == Some(Reason::NO_ERROR) => self.end(None),
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => self.state = State::Trailers,
                },
                State::Trailers => {
                    let trailers = ready!(self.body.poll_trailers(cx))?;
                    self.end(trailers);
                }
            }
        }
    }

    fn end(&mut self, trailers: Option<HeaderMap>) {
        let Ok(section) = trailers.map(|trailers| heads::trailers(&trailers)).transpose() else {
            self.state = State::Malformed;
            return;
        };
        self.state = State::Done;
        if self.chunked {
            self.clear_text();
            write::last_chunk(section.as_ref(), &mut self.text);
        }
    }

    fn clear_text(&mut self) {
        self.text.clear();
        self.text_read = 0;
    }

    /// Reads what there is; to be called when ready. 0 at the end.
    pub(super) fn read(&mut self, room: &mut [u8]) -> usize {
        let mut count = copy(&self.text[self.text_read..], room);
        self.text_read += count;
        if self.text_read < self.text.len() || self.data.is_empty() {
            return count;
        }
        let taken = copy(&self.data, &mut room[count..]);
        // It was counted when it came, so it may be given back.
        let _ended_meanwhile = self.body.flow_control().release_capacity(taken);
        let _read = self.data.split_to(taken);
        count += taken;
        if self.data.is_empty() && self.chunked {
            self.clear_text();
            write::chunk_end(&mut self.text);
            self.text_read = copy(&self.text, &mut room[count..]);
            count += self.text_read;
        }
        count
    }

    /// Whether it ended with trailers that are none.
    pub(super) fn is_malformed(&self) -> bool {
        self.state == State::Malformed
    }

    /// Whether all has been read.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done && self.text_read == self.text.len() && self.data.is_empty()
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    to[..count].copy_from_slice(&from[..count]);
    count
}

/// What leaves on a stream.
#[derive(Debug)]
pub(super) struct Outgoing {
    stream: SendStream<Bytes>,
    body: Body,
    ended: bool,
}

impl Outgoing {
    /// A body that is written in `framing`. `ended`: there is none, and the stream knows.
    pub(super) fn new(stream: SendStream<Bytes>, framing: Framing, ended: bool) -> Outgoing {
        Outgoing { stream, body: Body::new(framing), ended }
    }

    /// Whether the stream has been told that this was all.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Ready when the peer has reset the stream, or is gone.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match ready!(self.stream.poll_reset(cx)) {
            Ok(reason) => Poll::Ready(io::Error::new(io::ErrorKind::ConnectionReset, reason.description())),
            Err(error) => Poll::Ready(io::Error::new(io::ErrorKind::ConnectionReset, error)),
        }
    }

    /// Takes as many of `bytes` as the window lets through.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, h2::Error>> {
        let mut data = Vec::new();
        let mut taken = 0;
        let wanted = bytes.len().min(PIECE_MAX);
        let mut room = 0;
        while taken < bytes.len() && !self.body.is_done() && data.len() < PIECE_MAX {
            // Framing needs no room.
            let limit = if self.body.is_in_data() {
                if data.len() == room {
                    if !data.is_empty() {
                        break;
                    }
                    match self.poll_room(cx, wanted) {
                        Poll::Ready(granted) => room = granted?.min(PIECE_MAX),
                        Poll::Pending if taken > 0 => break,
                        Poll::Pending => return Poll::Pending,
                    }
                }
                room - data.len()
            } else {
                1
            };
            let piece = &bytes[taken..bytes.len().min(taken + limit)];
            let decoded = self.body.decode(piece).map_err(|_| h2::Error::from(Reason::INTERNAL_ERROR))?;
            data.extend_from_slice(&piece[decoded.data]);
            taken += decoded.consumed;
        }
        self.send(data)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, h2::Error>> {
        self.stream.reserve_capacity(wanted);
        match self.stream.capacity() {
            0 => match ready!(self.stream.poll_capacity(cx)) {
                Some(granted) => Poll::Ready(granted),
                None => Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
            },
            granted => Poll::Ready(Ok(granted)),
        }
    }

    fn send(&mut self, data: Vec<u8>) -> Result<(), h2::Error> {
        let ends = self.body.is_done() && !self.ended;
        match self.body.trailers().filter(|_| ends) {
            Some(trailers) => {
                if !data.is_empty() {
                    self.stream.send_data(data.into(), false)?;
                }
                let fields = heads::fields(trailers, false).map_err(|_| h2::Error::from(Reason::INTERNAL_ERROR))?;
                self.ended = true;
                self.stream.send_trailers(fields)
            }
            None if ends || !data.is_empty() => {
                self.ended |= ends;
                self.stream.send_data(data.into(), ends)
            }
            None => Ok(()),
        }
    }

    /// Nothing more will be written: ends a body that has no other end.
    pub(super) fn finish(&mut self) -> Result<(), h2::Error> {
        if !self.ended && self.body.close().is_ok() {
            self.ended = true;
            return self.stream.send_data(Bytes::new(), true);
        }
        Ok(())
    }

    /// Gives up.
    pub(super) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }
}

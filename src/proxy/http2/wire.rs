//! What h2 reads from and writes to: the connection, with an eye on the frames that pass. It sees what the library
//! answers by itself, and what a peer does that costs work and carries nothing.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::{Frame, Frames, Kind};
use super::ledger::Ledger;
use crate::proxy::stream::Stream;
use crate::telemetry::metrics::Shard;

/// Frames that carry nothing (of settings, pings, priorities, windows, empty data) that a peer may send at once, and how
/// many more a second. Whatever is asked or sent earns some on top.
const IDLE_FRAMES: Allowance = Allowance { most: 4_000, a_second: 500 };

/// What a request and a frame of data that we send earn.
const EARNED_BY_MESSAGE: u32 = 4;

/// Streams that a client may reset at once, and how many more a second. Every one that it lets us finish earns another.
const RESETS: Allowance = Allowance { most: 200, a_second: 20 };

/// Bytes of several streams that leave together: two full frames of data, or many small ones.
const GATHERED_MAX: usize = 36 * 1024;

/// Bytes that are read and thrown away at the end of a connection.
const UNREAD_MAX: usize = 1024 * 1024;

/// Which side of a connection we are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Towards a client.
    Server,
    /// Towards an instance.
    Client,
}

impl Side {
    fn label(self) -> &'static str {
        match self {
            Side::Server => "client",
            Side::Client => "instance",
        }
    }
}

/// A request that h2 refused by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Withheld {
    pub(super) stream: u32,
    pub(super) how: How,
}

/// How it did.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    /// With an answer: its head was too large.
    TooLarge,
    /// It reset the stream, for this reason.
    Reset(&'static str),
    /// It ended the connection, for this reason.
    GoAway(&'static str),
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.stream;
        match self.how {
            How::TooLarge => write!(f, "http2_head_too_large (stream {stream})"),
            How::Reset(code) => write!(f, "http2_reset ({code}, stream {stream})"),
            How::GoAway(code) => write!(f, "http2_goaway ({code}, stream {stream})"),
        }
    }
}

/// Refusals that wait to be told of; more of them at once are not.
const WITHHELD_MAX: usize = 1024;

/// What has passed on one connection.
#[derive(Debug)]
pub(super) struct Tap {
    side: Side,
    metrics: Shard,
    ledger: RefCell<Ledger>,
    withheld: RefCell<Vec<Withheld>>,
    incoming: RefCell<Frames>,
    outgoing: RefCell<Frames>,
    /// Bytes that have come.
    received: Cell<u64>,
    greeted: Cell<bool>,
    idle: RefCell<Bucket>,
    resets: RefCell<Bucket>,
    flood: Cell<Option<&'static str>>,
    violation: Cell<Option<Reason>>,
}

impl Tap {
    pub(super) fn new(side: Side, metrics: &Shard) -> Rc<Tap> {
        Rc::new(Tap {
            side,
            metrics: metrics.clone(),
            ledger: RefCell::default(),
            withheld: RefCell::default(),
            incoming: RefCell::new(if side == Side::Server { Frames::behind_preface() } else { Frames::new() }),
            outgoing: RefCell::new(if side == Side::Client { Frames::behind_preface() } else { Frames::new() }),
            received: Cell::new(0),
            greeted: Cell::new(false),
            idle: RefCell::new(Bucket::full(IDLE_FRAMES)),
            resets: RefCell::new(Bucket::full(RESETS)),
            flood: Cell::new(None),
            violation: Cell::new(None),
        })
    }

    /// Bytes that have come so far.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Whether the peer has sent its settings: until then nothing is known about it.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeted.get()
    }

    /// Which rule the peer has broken: nothing that came behind was passed on.
    pub(super) fn violation(&self) -> Option<Reason> {
        self.violation.get()
    }

    /// What the peer does too much of.
    pub(super) fn flood(&self) -> Option<&'static str> {
        self.flood.get()
    }

    /// A stream came to its proper end.
    pub(super) fn finished(&self) {
        self.resets.borrow_mut().earn(1);
    }

    /// A request has come through to us.
    pub(super) fn handed_over(&self, stream: u32) {
        self.ledger.borrow_mut().handed_over(stream);
    }

    /// Requests that h2 refused, since this was last asked.
    pub(super) fn withheld(&self) -> Vec<Withheld> {
        self.withheld.take()
    }

    /// Looks at what came; tells how much of it may be passed on.
    fn came(&self, bytes: &[u8]) -> usize {
        self.received.set(self.received.get() + bytes.len() as u64);
        let fed = self.incoming.borrow_mut().feed(bytes, |frame| {
            frame.violation().map_or(Ok(()), Err)?;
            self.saw(&frame)
        });
        match fed {
            Ok(()) => bytes.len(),
            Err((fit, violation)) => {
                self.violation.set(Some(violation));
                fit
            }
        }
    }

    fn saw(&self, frame: &Frame) -> Result<(), Reason> {
        match frame.kind {
            Kind::Settings if !frame.is_flagged(Frame::ACK) => {
                self.greeted.set(true);
                self.costs(&self.idle, "frames");
            }
            Kind::Ping if !frame.is_flagged(Frame::ACK) => self.costs(&self.idle, "frames"),
            Kind::Data if frame.length == 0 && !frame.is_flagged(Frame::END_STREAM) => self.costs(&self.idle, "frames"),
            Kind::Headers => self.idle.borrow_mut().earn(EARNED_BY_MESSAGE),
            Kind::Priority | Kind::WindowUpdate | Kind::Other => self.costs(&self.idle, "frames"),
            Kind::ResetStream => self.costs(&self.resets, "resets"),
            Kind::GoAway if frame.code != 0 => {
                tracing::debug!(side = self.side.label(), code = frame.code_name(), "the other side has ended HTTP/2");
            }
            Kind::Settings | Kind::Ping | Kind::Data | Kind::GoAway | Kind::Continuation => {}
        }
        if self.side == Side::Server { self.ledger.borrow_mut().came(frame) } else { Ok(()) }
    }

    fn went(&self, bytes: &[u8]) {
        let _never_objects = self.outgoing.borrow_mut().feed(bytes, |frame| {
            self.said(&frame);
            Ok::<(), ()>(())
        });
    }

    fn said(&self, frame: &Frame) {
        match frame.kind {
            Kind::Data => self.idle.borrow_mut().earn(EARNED_BY_MESSAGE),
            Kind::Headers if self.side == Side::Server => self.settles(frame.stream, How::TooLarge),
            Kind::Headers => self.resets.borrow_mut().earn(1), // a request may be refused
            Kind::ResetStream => {
                let (side, stream, code) = (self.side.label(), frame.stream, frame.code_name());
                self.metrics.http2_reset(code);
                tracing::debug!(side, stream, code, "reset a stream of HTTP/2");
                self.settles(frame.stream, How::Reset(code));
            }
            Kind::GoAway => {
                let (side, code) = (self.side.label(), frame.code_name());
                self.metrics.http2_goaway(code);
                if frame.code != 0 {
                    tracing::info!(side, code, "ended a connection of HTTP/2");
                    let how = How::GoAway(code);
                    let all = self.ledger.borrow_mut().settle_all();
                    self.withheld.borrow_mut().extend(all.into_iter().map(|stream| Withheld { stream, how }));
                }
            }
            _ => {}
        }
    }

    /// A stream is answered or reset. If we have never seen its request, h2 did that.
    fn settles(&self, stream: u32, how: How) {
        if self.ledger.borrow_mut().settle(stream) && self.withheld.borrow().len() < WITHHELD_MAX {
            self.withheld.borrow_mut().push(Withheld { stream, how });
        }
    }

    fn costs(&self, bucket: &RefCell<Bucket>, what: &'static str) {
        if !bucket.borrow_mut().take() {
            self.flood.set(Some(what));
        }
    }
}

/// How much of something is allowed.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    most: u32,
    a_second: u32,
}

/// How much of it is left.
#[derive(Debug)]
struct Bucket {
    allowance: Allowance,
    left: u32,
    filled: Instant,
}

impl Bucket {
    fn full(allowance: Allowance) -> Bucket {
        Bucket { allowance, left: allowance.most, filled: Instant::now() }
    }

    fn earn(&mut self, count: u32) {
        self.left = (self.left + count).min(self.allowance.most);
    }

    /// Takes one, if there is one. Only an empty bucket looks at the clock.
    fn take(&mut self) -> bool {
        if self.left == 0 {
            let passed = self.filled.elapsed().min(Duration::from_secs(60));
            let earned = (passed.as_secs_f64() * f64::from(self.allowance.a_second)) as u32;
            if earned > 0 {
                self.filled = Instant::now();
                self.earn(earned);
            }
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }
}

/// A connection under a tap, as h2 has it.
#[derive(Debug)]
pub(super) struct Wire(Rc<RefCell<Line>>);

/// The same connection, for whoever drives h2. From the first turn on, what h2 writes is gathered and leaves once per turn:
/// by itself h2 would send each piece of data on its own, however many streams have some.
#[derive(Debug)]
pub(super) struct Outlet(Rc<RefCell<Line>>);

#[derive(Debug)]
struct Line {
    stream: Stream,
    /// What was read from it before it was known to be HTTP/2 comes first.
    unread: Vec<u8>,
    at: usize,
    /// Written and not yet sent.
    output: Vec<u8>,
    sent: usize,
    gathers: bool,
    /// All that had come was read in this turn, and who waits for more is known.
    is_drained: bool,
    tap: Rc<Tap>,
}

impl Wire {
    pub(super) fn new(stream: Stream, unread: Vec<u8>, tap: Rc<Tap>) -> (Wire, Outlet) {
        let line = Line { stream, unread, at: 0, output: Vec::new(), sent: 0, gathers: false, is_drained: false, tap };
        let line = Rc::new(RefCell::new(line));
        (Wire(line.clone()), Outlet(line))
    }
}

impl Outlet {
    /// To be called before h2 is driven.
    pub(super) fn begin_turn(&self) {
        let line = &mut *self.0.borrow_mut();
        line.gathers = true;
        line.is_drained = false;
    }

    /// Whether h2 has written something that was not sent.
    pub(super) fn has_output(&self) -> bool {
        !self.0.borrow().output.is_empty()
    }

    /// Sends what h2 has written. To be called at the end of each turn.
    ///
    /// # Errors
    /// When the connection has failed.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let line = &mut *self.0.borrow_mut();
        if line.output.is_empty() { Poll::Ready(Ok(())) } else { line.poll_flush(cx) }
    }
}

impl Line {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_drained || self.tap.violation().is_some() {
            return Poll::Pending; // in the latter case whoever drives the connection ends it
        }
        let before = buffer.filled().len();
        if self.at < self.unread.len() {
            let count = buffer.remaining().min(self.unread.len() - self.at);
            buffer.put_slice(&self.unread[self.at..self.at + count]);
            self.at += count;
            if self.at == self.unread.len() {
                (self.unread, self.at) = (Vec::new(), 0);
            }
        } else {
            let read = self.stream.poll_read_into(cx, buffer);
            // h2 tries again for every request that it hands over.
            self.is_drained = self.gathers && read.is_pending();
            ready!(read)?;
        }
        let came = buffer.filled().len() - before;
        let fit = self.tap.came(&buffer.filled()[before..]);
        buffer.set_filled(before + fit);
        // Nothing would be taken for the end of the stream.
        if fit == 0 && came > 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.output.len() + bytes.len() > GATHERED_MAX && !self.output.is_empty() {
            ready!(self.poll_flush(cx))?;
        }
        if self.output.capacity() == 0 {
            self.output.reserve(GATHERED_MAX);
        }
        self.output.extend_from_slice(bytes);
        self.tap.went(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// Sends all, and keeps no memory then.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.output.len() {
            match ready!(self.stream.poll_write(cx, &self.output[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        (self.output, self.sent) = (Vec::new(), 0);
        self.stream.poll_flush(cx)
    }

    /// What has come and nobody reads would make a reset of the end, and that can take our goodbye away.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        ready!(self.stream.poll_shutdown(cx))?;
        let mut room = [0; 4096];
        for _ in 0..UNREAD_MAX / room.len() {
            let mut unread = ReadBuf::new(&mut room);
            match self.stream.poll_read_into(cx, &mut unread) {
                Poll::Ready(Ok(())) if !unread.filled().is_empty() => {}
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let line = &mut *self.0.borrow_mut();
        if line.gathers { Poll::Ready(Ok(())) } else { line.poll_flush(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_what_is_allowed_and_what_was_earned() {
        let mut bucket = Bucket::full(Allowance { most: 3, a_second: 0 });
        assert_eq!((0..5).filter(|_| bucket.take()).count(), 3);
        bucket.earn(1);
        assert!(bucket.take() && !bucket.take());
        bucket.earn(100);
        assert_eq!((0..5).filter(|_| bucket.take()).count(), 3);
    }
}

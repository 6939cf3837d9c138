//! One connection, to a client or to an instance: a stream with what was read and not yet consumed, what was written
//! and not yet sent, and one timer that is hardly ever touched.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop::has_budget_remaining;
use tokio::time::{Sleep, sleep_until};

use super::buffers::{Buffer, BufferPool};
use super::stream::{self, AtOnce, Stream};
use crate::domain::moment::Moment;
use crate::http1::{Head, write};
use crate::runtime::clock::Present;
use crate::telemetry::metrics::OpenUpstream;

/// Output up to this size is copied behind a head, so that both leave in one plain send; more goes by a vectored one.
const COPY_MAX: usize = 4 * 1024;

/// Bytes of output that may wait behind a slow reader before nothing more is copied to them.
const BACKLOG_MAX: usize = 16 * 1024;

/// A peer that has been given so many bytes reads them: twice what the kernel takes for one that does not.
const QUICK_BYTES: u64 = 2 * stream::UNSENT_MAX as u64;

/// A connection to either side.
#[derive(Debug)]
pub struct Link {
    stream: Stream,
    /// Read and not yet consumed.
    pub input: Buffer,
    /// Written and not yet sent; write to it by `out`.
    output: Vec<u8>,
    sent: usize,
    /// The other end.
    pub peer: SocketAddr,
    /// The peer has finished sending.
    pub ended: bool,
    /// The last read has taken all that there was.
    is_drained: bool,
    /// The reactor knows whom to wake when something comes.
    is_awaited: bool,
    /// Bytes received and sent since the link was opened.
    pub received: u64,
    /// See `received`.
    pub delivered: u64,
    /// Counts a connection to an instance as open; `None` towards clients, whose connections are counted elsewhere.
    pub counted: Option<OpenUpstream>,
}

impl Link {
    /// Wraps an open connection.
    pub fn new(stream: Stream, peer: SocketAddr, buffers: &BufferPool) -> Link {
        Link {
            stream,
            input: Buffer::new(buffers),
            output: Vec::new(),
            sent: 0,
            peer,
            ended: false,
            is_drained: false,
            is_awaited: false,
            received: 0,
            delivered: 0,
            counted: None,
        }
    }

    /// The stream, and what was read from it and not consumed. What was written and not sent is lost.
    pub fn into_parts(self) -> (Stream, Vec<u8>) {
        let unread = self.input.filled().to_vec();
        (self.stream, unread)
    }

    /// Reads once into `input`. Ready with 0 at the end of the stream. Takes memory only once bytes are there. Always to be
    /// polled by the same task, unless [`Link::forget_task`] was called.
    ///
    /// # Panics
    /// In debug builds if `input` is full.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // As long as it comes in small pieces; whoever has more than there is room for has to wait for his turn.
        if !self.input.overflows() {
            if !self.is_drained {
                match self.stream.read_at_once(|| self.input.room()) {
                    AtOnce::Moved(received) => return Poll::Ready(received.map(|count| self.fills(count))),
                    AtOnce::NotReady if self.is_awaited => return Poll::Pending,
                    AtOnce::NotReady | AtOnce::InVain => {}
                }
            }
            self.input.release();
        }
        self.poll_fill_into(cx, false)
    }

    /// From here on another task may wait for what comes.
    pub fn forget_task(&mut self) {
        self.is_awaited = false;
    }

    /// Reads once into `input`, as [`Link::poll_fill`] does, what is to be passed on to `sink`: more at once for one that has
    /// shown that it takes it.
    pub fn poll_fill_for(&mut self, cx: &mut Context<'_>, sink: &Link) -> Poll<io::Result<usize>> {
        self.poll_fill_into(cx, sink.delivered >= QUICK_BYTES)
    }

    fn poll_fill_into(&mut self, cx: &mut Context<'_>, wide: bool) -> Poll<io::Result<usize>> {
        self.is_drained = false;
        loop {
            let ready = self.stream.poll_read_ready(cx);
            // A task whose budget is spent is woken again without having been heard.
            self.is_awaited = ready.is_pending() && has_budget_remaining();
            ready!(ready)?;
            if wide {
                self.input.widen();
            }
            let room = self.input.room();
            debug_assert!(!room.is_empty(), "a full buffer cannot be filled");
            if let Poll::Ready(received) = self.stream.poll_read(cx, room) {
                return Poll::Ready(received.map(|count| self.fills(count)));
            }
            // The readiness was out of date, and is cleared now.
            self.input.release();
        }
    }

    fn fills(&mut self, count: usize) -> usize {
        self.input.fill(count);
        self.is_awaited = false;
        self.is_drained = !self.input.is_at_end();
        self.received += count as u64;
        self.ended |= count == 0;
        count
    }

    /// Reads once into `input`.
    pub async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Whether something unexpected has come on an idle connection (bytes, its end, an error): it must not be used again.
    /// Costs no system call as long as nothing has come; it knows what the reactor knew when it last ran.
    pub fn is_spoilt(&mut self) -> bool {
        !self.is_between_messages() || self.stream.has_news()
    }

    /// Whether nothing has been read that is not consumed, nor the end.
    pub fn is_between_messages(&self) -> bool {
        !self.ended && self.input.is_empty()
    }

    /// Ready once the peer has reset a stream of HTTP/2, whatever of it is unread; other connections tell by reading.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx)
    }

    /// Whether the kernel knows of an error on the connection, such as a reset.
    pub fn is_broken(&self) -> bool {
        self.stream.is_broken()
    }

    /// Whether all that was written has been handed to the kernel.
    pub fn is_flushed(&self) -> bool {
        self.sent == self.output.len()
    }

    /// Sends `output`.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.output.len() {
            let count = ready!(self.stream.poll_write(cx, &self.output[self.sent..]))?;
            self.advance(count)?;
        }
        self.output.clear();
        self.sent = 0;
        self.stream.poll_flush(cx)
    }

    /// Sends `output`.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Answers with `head`: text in `output`, or where heads are not text at once. Tells how many bytes were written.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn answer(&mut self, head: &Head) -> io::Result<usize> {
        if self.is_flushed()
            && let Some(answered) = self.stream.answer(head)
        {
            return answered.map(|()| 0);
        }
        let before = self.out().len();
        write::response(head, &mut self.output);
        Ok(self.output.len() - before)
    }

    /// Sends `output` and then `bytes`; ready with how many of `bytes` were taken (at least one, unless there are none).
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_flushed() {
            if bytes.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let count = ready!(self.stream.poll_write(cx, bytes))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.delivered += count as u64;
            return Poll::Ready(Ok(count));
        }
        if self.output.len() - self.sent > BACKLOG_MAX {
            ready!(self.poll_flush(cx))?;
            return self.poll_send(cx, bytes);
        }
        if bytes.len() <= COPY_MAX {
            // They are ours from here on; a later flush sends what does not go now.
            self.output.extend_from_slice(bytes);
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        loop {
            let slices = [IoSlice::new(&self.output[self.sent..]), IoSlice::new(bytes)];
            let count = ready!(self.stream.poll_write_vectored(cx, &slices))?;
            let pending = self.output.len() - self.sent;
            self.advance(count.min(pending))?;
            if self.is_flushed() {
                self.output.clear();
                self.sent = 0;
                let taken = count.saturating_sub(pending);
                if taken > 0 {
                    self.delivered += taken as u64;
                    return Poll::Ready(Ok(taken));
                }
                return self.poll_send(cx, bytes);
            }
        }
    }

    fn advance(&mut self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.sent += count;
        self.delivered += count as u64;
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        self.stream.poll_shutdown(cx)
    }

    /// Gives back all memory that holds nothing.
    pub fn rest(&mut self) {
        self.input.release();
        if self.is_flushed() && self.output.capacity() > 0 {
            self.sent = 0;
            self.input.pool().give_output(std::mem::take(&mut self.output));
        }
    }

    /// `output`, with memory to write into.
    pub fn out(&mut self) -> &mut Vec<u8> {
        if self.output.capacity() == 0 {
            self.output = self.input.pool().take_output();
        }
        &mut self.output
    }
}

/// A timer that moves only forwards in practice: setting a later deadline costs nothing, since the timer goes off at the
/// earlier one in vain and is then told the later. One per connection serves every wait of all its requests.
#[derive(Debug)]
pub struct Patience {
    clock: Present,
    timer: Pin<Box<Sleep>>,
    /// When the timer goes off: at the deadline, or earlier. Only what was set and not asked for yet may be earlier still.
    told: Moment,
    /// Whether it knows whom to wake then.
    is_waiting: bool,
    deadline: Moment,
}

/// The deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl Patience {
    /// Ends `limit` from now, as `clock` has it.
    pub fn new(clock: &Present, limit: Duration) -> Patience {
        let deadline = clock.now() + limit;
        let timer = Box::pin(sleep_until(clock.instant(deadline).into()));
        Patience { clock: clock.clone(), timer, told: deadline, is_waiting: false, deadline }
    }

    /// Ends `limit` from now; zero means never (a year).
    pub fn set(&mut self, limit: Duration) {
        self.set_since(self.clock.now(), limit);
    }

    /// Ends `limit` from `since`; zero means never (a year).
    pub fn set_since(&mut self, since: Moment, limit: Duration) {
        let limit = if limit.is_zero() { Duration::from_secs(365 * 24 * 3600) } else { limit };
        self.deadline = since + limit;
    }

    /// The timer is told when it is asked: most waits are over before.
    fn tell(&mut self) {
        self.told = self.deadline;
        self.is_waiting = false;
        self.timer.as_mut().reset(self.clock.instant(self.told).into());
    }

    /// Ready when the deadline has passed. Always to be polled by the same task.
    pub fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<Elapsed> {
        if self.deadline < self.told {
            self.tell();
        }
        loop {
            // Asking the timer costs more than it looks, and it goes off no earlier than it was told.
            if self.is_waiting && self.clock.now() < self.told {
                return Poll::Pending;
            }
            self.is_waiting = true;
            ready!(self.timer.as_mut().poll(cx));
            if self.told >= self.deadline {
                return Poll::Ready(Elapsed);
            }
            self.tell();
        }
    }

    /// Waits for `work`, but not beyond the deadline.
    pub async fn limit<T>(&mut self, mut work: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Result<T, Elapsed> {
        poll_fn(|cx| {
            if let Poll::Ready(done) = work(cx) {
                return Poll::Ready(Ok(done));
            }
            self.poll_elapsed(cx).map(Err)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::pin::pin;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::coop::consume_budget;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn a_task_that_had_spent_its_budget_hears_what_comes_later() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let ours = TcpStream::connect(address).await.expect("it listens");
        let (theirs, _) = listener.accept().await.expect("somebody has connected");
        let mut theirs = theirs.into_std().expect("the reactor lets go of it");
        let mut link = Link::new(Stream::Plain(ours), address, &BufferPool::default());
        let mut polls = 0;
        let filling = poll_fn(|cx| {
            polls += 1;
            while polls == 1 && pin!(consume_budget()).poll(cx).is_ready() {}
            let filled = link.poll_fill(cx);
            if polls == 2 {
                assert!(filled.is_pending(), "nothing has come");
                theirs.write_all(b"x").expect("it listens");
            }
            filled
        });
        tokio::select! {
            biased; // who is woken by the clock alone has not heard
            () = sleep(Duration::from_secs(60)) => panic!("it does not hear of it"),
            filled = filling => assert_eq!(filled.expect("the connection is well"), 1),
        }
    }
}

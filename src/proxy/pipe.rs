//! A connection inside one worker: bytes both ways through bounded memory, with the manners of a socket. One end looks to
//! the relay like any client; the other is whoever translates.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Bytes that may wait in one direction.
const CAPACITY: usize = 32 * 1024;

/// One direction.
#[derive(Debug, Default)]
struct Channel {
    bytes: VecDeque<u8>,
    /// Nothing more will be written, and that is the proper end.
    finished: bool,
    writer_gone: bool,
    reader_gone: bool,
    reading: Option<Waker>,
    writing: Option<Waker>,
}

/// Where bytes come out. Dropping it tells the writer that nobody listens.
#[derive(Debug)]
pub struct Reader(Rc<RefCell<Channel>>);

/// Where bytes go in. Dropping it unfinished breaks the pipe: the reader gets an error behind the last byte.
#[derive(Debug)]
pub struct Writer(Rc<RefCell<Channel>>);

/// One end: it reads what the other end writes.
#[derive(Debug)]
pub struct PipeEnd {
    /// From the other end.
    pub reader: Reader,
    /// To the other end.
    pub writer: Writer,
}

/// A new pipe.
pub fn pipe() -> (PipeEnd, PipeEnd) {
    let (here, there) = (Rc::<RefCell<Channel>>::default(), Rc::<RefCell<Channel>>::default());
    let one = PipeEnd { reader: Reader(here.clone()), writer: Writer(there.clone()) };
    (one, PipeEnd { reader: Reader(there), writer: Writer(here) })
}

impl Reader {
    /// Ready when a read brings something, the end, or an error.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut channel = self.0.borrow_mut();
        if !channel.bytes.is_empty() || channel.finished || channel.writer_gone {
            return Poll::Ready(());
        }
        channel.reading = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Reads what there is; ready with 0 at the end.
    ///
    /// # Errors
    /// `ConnectionReset` if the writer went away without finishing.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.poll_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let mut channel = self.0.borrow_mut();
        if channel.bytes.is_empty() {
            return Poll::Ready(if channel.finished { Ok(0) } else { Err(io::ErrorKind::ConnectionReset.into()) });
        }
        let (front, _) = channel.bytes.as_slices();
        let count = front.len().min(room.len());
        room[..count].copy_from_slice(&front[..count]);
        channel.bytes.drain(..count);
        wake(channel.writing.take());
        Poll::Ready(Ok(count))
    }
}

impl Writer {
    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// `BrokenPipe` if nobody listens any more.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut channel = self.0.borrow_mut();
        if channel.reader_gone {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(CAPACITY - channel.bytes.len());
        if count == 0 && !bytes.is_empty() {
            channel.writing = Some(cx.waker().clone());
            return Poll::Pending;
        }
        channel.bytes.extend(&bytes[..count]);
        wake(channel.reading.take());
        Poll::Ready(Ok(count))
    }

    /// Nothing more will be written.
    pub fn finish(&mut self) {
        let mut channel = self.0.borrow_mut();
        channel.finished = true;
        wake(channel.reading.take());
    }

    /// Whether nobody listens any more.
    pub fn is_broken(&self) -> bool {
        self.0.borrow().reader_gone
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut channel = self.0.borrow_mut();
        channel.reader_gone = true;
        channel.bytes = VecDeque::new();
        wake(channel.writing.take());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut channel = self.0.borrow_mut();
        channel.writer_gone = true;
        wake(channel.reading.take());
    }
}

/// Wakers of the worker's runtime only put a task into a queue: nothing of ours runs in here.
fn wake(waiting: Option<Waker>) {
    if let Some(waker) = waiting {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn bytes_come_out_as_they_went_in_and_the_end_behind_them() {
        let (mut here, mut there) = pipe();
        let mut room = [0; 8];
        assert!(there.reader.poll_read(&mut cx(), &mut room).is_pending());
        assert!(matches!(here.writer.poll_write(&mut cx(), b"bytes"), Poll::Ready(Ok(5))));
        here.writer.finish();
        assert!(matches!(there.reader.poll_read(&mut cx(), &mut room), Poll::Ready(Ok(5))));
        assert_eq!(&room[..5], b"bytes");
        assert!(matches!(there.reader.poll_read(&mut cx(), &mut room), Poll::Ready(Ok(0))));
    }

    #[test]
    fn a_writer_waits_for_a_slow_reader() {
        let (mut here, mut there) = pipe();
        let much = vec![7; CAPACITY + 1];
        assert!(matches!(here.writer.poll_write(&mut cx(), &much), Poll::Ready(Ok(CAPACITY))));
        assert!(here.writer.poll_write(&mut cx(), b"x").is_pending());
        assert!(matches!(there.reader.poll_read(&mut cx(), &mut [0; 3]), Poll::Ready(Ok(3))));
        assert!(matches!(here.writer.poll_write(&mut cx(), &much), Poll::Ready(Ok(3))));
    }

    #[test]
    fn whoever_leaves_without_a_goodbye_is_noticed_at_the_other_end() {
        let (mut here, there) = pipe();
        drop(there);
        assert!(here.writer.is_broken());
        assert!(matches!(here.writer.poll_write(&mut cx(), b"x"), Poll::Ready(Err(_))));
        assert!(matches!(here.reader.poll_read(&mut cx(), &mut [0; 3]), Poll::Ready(Err(_))));
    }
}

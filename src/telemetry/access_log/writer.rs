//! The thread that writes the access log, and the queue in front of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{CHUNK_BYTES, Destination, Format, LogBuffer, LogCounts};

/// Memory in bytes of what waits for the writer; what comes on top of it is dropped.
const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Written chunks whose memory is kept for the next ones.
const SPARE_MAX: usize = 8;

/// Failures to write are told at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What the writer is told.
#[derive(Debug)]
enum Message {
    /// Write these whole lines.
    Chunk {
        /// The lines.
        bytes: Vec<u8>,
        /// How many.
        records: u64,
    },
    /// Look at the flag.
    Reopen,
}

/// The way of lines to the writer, and of their memory back.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    messages: Sender<Message>,
    backlog: Arc<Backlog>,
}

#[derive(Debug)]
struct Backlog {
    /// Memory of what waits to be written, and how much there may be.
    bytes: AtomicUsize,
    bytes_max: usize,
    spare: Mutex<Vec<Vec<u8>>>,
}

/// The writer's end of a [`Queue`].
#[derive(Debug)]
pub(super) struct Outlet {
    messages: Receiver<Message>,
    backlog: Arc<Backlog>,
}

/// A queue whose contents take up to `bytes_max` bytes of memory.
pub(super) fn queue(bytes_max: usize) -> (Queue, Outlet) {
    let (sender, messages) = channel();
    let backlog = Arc::new(Backlog { bytes: AtomicUsize::new(0), bytes_max, spare: Mutex::default() });
    (Queue { messages: sender, backlog: backlog.clone() }, Outlet { messages, backlog })
}

impl Queue {
    /// Hands whole lines over; false: there is no room for them, or nobody writes any more.
    pub(super) fn push(&self, bytes: Vec<u8>, records: u64) -> bool {
        let size = bytes.capacity();
        // Several workers may find the same room: each brings one chunk too much at most.
        if self.backlog.bytes.load(Relaxed) + size > self.backlog.bytes_max {
            return false;
        }
        self.backlog.bytes.fetch_add(size, Relaxed);
        self.messages.send(Message::Chunk { bytes, records }).is_ok()
    }

    /// An empty vector with room for a chunk.
    pub(super) fn room(&self) -> Vec<u8> {
        let spare = self.backlog.spare.lock().pop();
        spare.unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8))
    }
}

impl Outlet {
    fn give_back(&self, mut bytes: Vec<u8>) {
        self.backlog.bytes.fetch_sub(bytes.capacity(), Relaxed);
        let mut spare = self.backlog.spare.lock();
        if bytes.capacity() >= CHUNK_BYTES && spare.len() < SPARE_MAX {
            bytes.clear();
            spare.push(bytes);
        }
    }
}

/// The access log: hands out a buffer to each worker and keeps the thread that writes.
#[derive(Debug)]
pub struct AccessLog {
    queue: Option<Queue>,
    format: Format,
    counts: Arc<LogCounts>,
    reopen: Arc<AtomicBool>,
    ended: Receiver<()>,
}

impl AccessLog {
    /// Opens the destination and starts the writer, if there is something to write to.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread can be started.
    pub fn start(destination: Destination, format: Format, counts: Arc<LogCounts>) -> io::Result<AccessLog> {
        let (running, ended) = sync_channel(0);
        let reopen = Arc::new(AtomicBool::new(false));
        let sink = match destination {
            Destination::Off => return Ok(AccessLog { queue: None, format, counts, reopen, ended }),
            Destination::Stdout => Sink::Stdout,
            Destination::File(path) => Sink::File { file: append_to(&path)?, path },
        };
        let (queue, outlet) = queue(QUEUE_BYTES_MAX);
        let writer = Writer { sink, outlet, counts: counts.clone(), reopen: reopen.clone(), told: None };
        thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            writer.run();
            drop::<SyncSender<()>>(running);
        })?;
        Ok(AccessLog { queue: Some(queue), format, counts, reopen, ended })
    }

    /// A buffer for one worker.
    pub fn buffer(&self) -> LogBuffer {
        LogBuffer::new(self.queue.clone(), self.format, self.counts.clone())
    }

    /// Opens the file by its path again, after it was moved away (SIGHUP). Does not wait. If that fails, the old file
    /// stays in use.
    pub fn reopen(&self) {
        if !self.reopen.swap(true, Relaxed) {
            // Wakes an idle writer.
            let _ended = self.queue.as_ref().map(|queue| queue.messages.send(Message::Reopen));
        }
    }

    /// Waits until everything handed over has been written, but not longer than `patience`. All buffers must be gone.
    pub fn close(mut self, patience: Duration) {
        self.queue = None;
        let _ended_or_late = self.ended.recv_timeout(patience);
    }
}

#[derive(Debug)]
enum Sink {
    Stdout,
    File { file: File, path: PathBuf },
}

struct Writer {
    sink: Sink,
    outlet: Outlet,
    counts: Arc<LogCounts>,
    reopen: Arc<AtomicBool>,
    told: Option<Instant>,
}

impl Writer {
    fn run(mut self) {
        while let Ok(message) = self.outlet.messages.recv() {
            if self.reopen.swap(false, Relaxed) {
                self.open_again();
            }
            match message {
                Message::Chunk { bytes, records } => {
                    self.write(&bytes, records);
                    self.outlet.give_back(bytes);
                }
                Message::Reopen => {}
            }
        }
    }

    fn write(&mut self, bytes: &[u8], records: u64) {
        let written = match &mut self.sink {
            Sink::Stdout => io::stdout().lock().write_all(bytes).and_then(|()| io::stdout().flush()),
            Sink::File { file, .. } => file.write_all(bytes),
        };
        match written {
            Ok(()) => _ = self.counts.written.fetch_add(records, Relaxed),
            Err(error) => {
                self.counts.dropped.fetch_add(records, Relaxed);
                self.tell(&error, "access log cannot be written");
            }
        }
    }

    fn open_again(&mut self) {
        let Sink::File { file, path } = &mut self.sink else { return };
        match append_to(path) {
            Ok(fresh) => *file = fresh,
            Err(error) => self.tell(&error, "access log cannot be opened again; the old file stays in use"),
        }
    }

    fn tell(&mut self, error: &io::Error, what: &str) {
        if self.told.is_none_or(|then| then.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            tracing::warn!(%error, dropped = self.counts.dropped(), "{what}");
        }
    }
}

fn append_to(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

//! The thread that writes the access log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{Destination, Format, LogBuffer, LogCounts};

/// Chunks waiting for the writer, some 8 MiB; what comes on top of them is dropped.
const QUEUE_CHUNKS: usize = 512;

/// Failures to write are told at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
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

/// The access log: hands out a buffer to each worker and keeps the thread that writes.
#[derive(Debug)]
pub struct AccessLog {
    queue: Option<SyncSender<Message>>,
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
        let (queue, messages) = sync_channel(QUEUE_CHUNKS);
        let writer = Writer { sink, messages, counts: counts.clone(), reopen: reopen.clone(), told: None };
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
        self.reopen.store(true, Relaxed);
        // Wakes an idle writer. When the queue is full it is not idle and sees the flag at its next chunk.
        let _full = self.queue.as_ref().map(|queue| queue.try_send(Message::Reopen));
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
    messages: Receiver<Message>,
    counts: Arc<LogCounts>,
    reopen: Arc<AtomicBool>,
    told: Option<Instant>,
}

impl Writer {
    fn run(mut self) {
        while let Ok(message) = self.messages.recv() {
            if self.reopen.swap(false, Relaxed) {
                self.open_again();
            }
            match message {
                Message::Chunk { bytes, records } => self.write(&bytes, records),
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

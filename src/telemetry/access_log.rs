//! One line for every request, however it ended. Each worker formats into its own buffer; one thread writes. A disk or
//! pipe that cannot keep up loses records, which are counted; it never holds up a request.

mod gorouter;
mod json;
mod text;
mod writer;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::domain::endpoint::Endpoint;

pub use writer::AccessLog;
use writer::Queue;

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

impl Destination {
    /// As the configuration says it: `stdout`, nothing for off, else the path of a file.
    pub fn of(path: &str) -> Destination {
        match path {
            "" => Destination::Off,
            "stdout" => Destination::Stdout,
            path => Destination::File(path.into()),
        }
    }
}

/// How a record is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// The line that gorouter writes.
    Gorouter,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// As it should: the client has the whole answer, be it the instance's or ours; a tunnel was closed.
    #[default]
    Complete,
    /// It was not routed: malformed, ambiguous or over a limit. There may be no request line.
    Refused,
    /// The client went away before it had the whole answer.
    ClientGone,
    /// The instance broke off its answer.
    InstanceCut,
    /// Nothing moved for too long.
    TimedOut,
    /// The router stopped before it was over.
    RouterStopped,
    /// The router made a mistake (a panic), which cost this request.
    Failed,
}

impl Ending {
    /// As written in the log.
    pub fn label(self) -> &'static str {
        match self {
            Ending::Complete => "complete",
            Ending::Refused => "refused",
            Ending::ClientGone => "client_gone",
            Ending::InstanceCut => "instance_cut",
            Ending::TimedOut => "timed_out",
            Ending::RouterStopped => "router_stopped",
            Ending::Failed => "failed",
        }
    }
}

/// What there is to say about one request. Bytes are foreign and may be anything; empty means absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    /// When the request head had been read (or refused): time since 1970.
    pub started: Duration,
    /// The host asked for, as sent.
    pub host: &'a [u8],
    /// The method as sent.
    pub method: &'a [u8],
    /// The request target as sent.
    pub target: &'a [u8],
    /// Protocol of the client's request: `HTTP/1.1`.
    pub version: &'a str,
    /// Status sent, or in its place 499 for a client that went away; 0 if neither.
    pub status: u16,
    /// Bytes of the request body received.
    pub bytes_in: u64,
    /// Bytes of the response body sent.
    pub bytes_out: u64,
    /// `Referer` of the request.
    pub referer: &'a [u8],
    /// `User-Agent` of the request.
    pub user_agent: &'a [u8],
    /// `X-Forwarded-For` as sent to the instance.
    pub forwarded_for: &'a [u8],
    /// `X-Forwarded-Proto` as sent to the instance.
    pub forwarded_proto: &'a [u8],
    /// Who connected (or whom the PROXY protocol named).
    pub client: Option<SocketAddr>,
    /// `X-Vcap-Request-Id`.
    pub request_id: &'a str,
    /// The trace it belongs to, in hexadecimal.
    pub trace: &'a [u8],
    /// The route that matched.
    pub route: &'a str,
    /// The instance that answered, or was tried last.
    pub endpoint: Option<&'a Endpoint>,
    /// How many instances were tried.
    pub attempts: u32,
    /// From the request head read to the end.
    pub duration: Duration,
    /// From the request head read to the first byte of the response head written.
    pub time_to_head: Option<Duration>,
    /// From the request sent to the instance to its response head.
    pub upstream: Option<Duration>,
    /// `X-Cf-RouterError` if the router made the answer.
    pub error: &'a str,
    /// How it ended.
    pub ending: Ending,
}

/// How many records were written and lost.
#[derive(Debug, Default)]
pub struct LogCounts {
    written: AtomicU64,
    dropped: AtomicU64,
}

impl LogCounts {
    /// Records written.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Records lost: the queue was full, or writing failed.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// A buffer of this size goes to the writer: some 250 records, so that waking it costs each of them little.
const CHUNK_BYTES: usize = 128 * 1024;

/// One worker's part of the access log.
#[derive(Debug)]
pub struct LogBuffer {
    writer: Option<Queue>,
    format: Format,
    bytes: Vec<u8>,
    records: u64,
    clock_face: text::ClockFace,
    counts: Arc<LogCounts>,
}

impl LogBuffer {
    fn new(writer: Option<Queue>, format: Format, counts: Arc<LogCounts>) -> LogBuffer {
        let clock_face = text::ClockFace::default();
        LogBuffer { writer, format, bytes: Vec::new(), records: 0, clock_face, counts }
    }

    /// Whether records go anywhere; if not, there is no need to make them.
    pub fn is_on(&self) -> bool {
        self.writer.is_some()
    }

    /// Adds one record; hands the buffer to the writer when it is full enough.
    pub fn record(&mut self, record: &Record<'_>) {
        if self.writer.is_none() {
            return;
        }
        match self.format {
            Format::Json => json::write(record, &mut self.clock_face, &mut self.bytes),
            Format::Gorouter => gorouter::write(record, &mut self.clock_face, &mut self.bytes),
        }
        self.records += 1;
        if self.bytes.len() >= CHUNK_BYTES {
            self.flush();
        }
    }

    /// Hands what there is to the writer. Call it every now and then, so that a quiet worker's records appear too.
    pub fn flush(&mut self) {
        let Some(writer) = self.writer.as_ref().filter(|_| self.records > 0) else { return };
        let records = std::mem::take(&mut self.records);
        let chunk = if self.bytes.len() < CHUNK_BYTES / 4 {
            let few = self.bytes.clone();
            self.bytes.clear();
            few
        } else {
            std::mem::replace(&mut self.bytes, writer.room())
        };
        if !writer.push(chunk, records) {
            self.counts.dropped.fetch_add(records, Relaxed);
        }
    }
}

impl Drop for LogBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests;

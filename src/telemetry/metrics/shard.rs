//! What one worker counts: written by its thread alone, summed with the others' when somebody asks.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::count::{Bounds, Count, Histogram, Labelled};

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// From a cached answer next door to a request that timed out.
pub(super) const REQUEST_BOUNDS: Bounds<17> = [
    500 * MICRO,
    MILLI,
    2_500 * MICRO,
    5 * MILLI,
    10 * MILLI,
    25 * MILLI,
    50 * MILLI,
    100 * MILLI,
    250 * MILLI,
    500 * MILLI,
    SECOND,
    2_500 * MILLI,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    60 * SECOND,
    300 * SECOND,
];

/// From the same rack to the end of patience.
pub(super) const CONNECT_BOUNDS: Bounds<12> = [
    100 * MICRO,
    250 * MICRO,
    500 * MICRO,
    MILLI,
    2_500 * MICRO,
    5 * MILLI,
    10 * MILLI,
    50 * MILLI,
    100 * MILLI,
    500 * MILLI,
    SECOND,
    5 * SECOND,
];

/// Status codes with a counter of their own.
const CODES: std::ops::Range<u16> = 100..600;

/// Values of the label `class`, by the first digit of the status code.
pub(super) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", super::count::OTHER];

/// How a request ended, for the counters.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// Status sent to the client, or what is logged in its place (499: the client went away).
    pub status: u16,
    /// From the request head read to the last byte of the answer, or to the end of the tunnel.
    pub duration: Duration,
    /// From the request head read to the first byte of the response head written; `None` if none was.
    pub time_to_head: Option<Duration>,
    /// From the request sent to the instance to its response head; `None` if no instance answered.
    pub upstream: Option<Duration>,
    /// Stable label of the error if the answer was made by the router.
    pub error: Option<&'static str>,
    /// Bytes of the request body.
    pub bytes_in: u64,
    /// Bytes of the response body sent.
    pub bytes_out: u64,
}

/// What stickiness did to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// It went to the instance its cookie names.
    Hit,
    /// The instance of its cookie could not take it; another did.
    Moved,
    /// The response pins a new session.
    New,
}

impl Sticky {
    /// Values of the label `result`, in the order of the variants.
    pub(super) const LABELS: [&'static str; 3] = ["hit", "moved", "new"];
}

/// One worker's counters. It cannot leave its thread, which is what makes plain stores right; clones count together.
#[derive(Clone, Debug)]
pub struct Shard {
    slots: Arc<Slots>,
    stays_on_its_thread: PhantomData<*const ()>,
}

impl Shard {
    pub(super) fn new(slots: Arc<Slots>) -> Shard {
        Shard { slots, stays_on_its_thread: PhantomData }
    }

    /// A request head has been read; `request` follows when it ends, however it ends.
    pub fn request_started(&self) {
        self.slots.requests_started.add(1);
    }

    /// A request has ended.
    pub fn request(&self, finished: &Finished) {
        let slots = &*self.slots;
        let class = &slots.classes[class_of(finished.status)];
        slots.requests_finished.add(1);
        let code = finished.status.wrapping_sub(CODES.start);
        slots.codes.get(usize::from(code)).unwrap_or(&slots.other_codes).add(1);
        class.duration.observe(finished.duration);
        if let Some(time) = finished.time_to_head {
            class.time_to_head.observe(time);
        }
        if let Some(time) = finished.upstream {
            class.upstream.observe(time);
        }
        slots.bytes_in.add(finished.bytes_in);
        slots.bytes_out.add(finished.bytes_out);
        if let Some(error) = finished.error {
            slots.router_errors.add(error, 1);
        }
    }

    /// A client has connected.
    pub fn connection_opened(&self) {
        self.slots.connections_opened.add(1);
    }

    /// Its connection is closed.
    pub fn connection_closed(&self) {
        self.slots.connections_closed.add(1);
    }

    /// A connection or request was refused for `reason` (malformed, ambiguous, over a limit).
    pub fn refused(&self, reason: &'static str) {
        self.slots.refused.add(reason, 1);
    }

    /// A response was refused for `reason`.
    pub fn response_refused(&self, reason: &'static str) {
        self.slots.responses_refused.add(reason, 1);
    }

    /// A stream of HTTP/2 was reset by us.
    pub fn http2_reset(&self, code: &'static str) {
        self.slots.http2_resets.add(code, 1);
    }

    /// A connection of HTTP/2 was ended by us.
    pub fn http2_goaway(&self, code: &'static str) {
        self.slots.http2_goaways.add(code, 1);
    }

    /// A connection could not be accepted.
    pub fn accept_failed(&self, reason: &'static str) {
        self.slots.accepts_failed.add(reason, 1);
    }

    /// A TLS handshake with a client failed.
    pub fn tls_failed(&self, reason: &'static str) {
        self.slots.tls_failed.add(reason, 1);
    }

    /// A new connection to an instance stands after `time`; it counts as open as long as what is returned lives.
    pub fn upstream_connected(&self, time: Duration) -> OpenUpstream {
        self.slots.upstream_opened.add(1);
        self.slots.connect.observe(time);
        OpenUpstream(self.clone())
    }

    /// A connection to an instance could not be made.
    pub fn upstream_connect_failed(&self, cause: &'static str) {
        self.slots.connect_failed.add(cause, 1);
    }

    /// A kept connection to an instance carries one more request.
    pub fn upstream_reused(&self) {
        self.slots.upstream_reused.add(1);
    }

    /// An attempt failed, whether or not another followed.
    pub fn attempt_failed(&self, cause: &'static str) {
        self.slots.attempts_failed.add(cause, 1);
    }

    /// Another attempt is made because of `reason`.
    pub fn retry(&self, reason: &'static str) {
        self.slots.retries.add(reason, 1);
    }

    /// Another attempt would have been right, but the retry budget was spent.
    pub fn retry_denied(&self) {
        self.slots.retries_denied.add(1);
    }

    /// An instance was ejected because of this request.
    pub fn ejected(&self) {
        self.slots.ejections.add(1);
    }

    /// What stickiness did.
    pub fn sticky(&self, sticky: Sticky) {
        self.slots.sticky[sticky as usize].add(1);
    }

    /// A connection was upgraded to a tunnel.
    pub fn tunnel_opened(&self) {
        self.slots.tunnels_opened.add(1);
    }

    /// A tunnel is over.
    pub fn tunnel_closed(&self) {
        self.slots.tunnels_closed.add(1);
    }

    /// A request begins to wait for its sleeping app.
    pub fn held(&self) {
        self.slots.held.add(1);
    }

    /// A request for a sleeping app was turned away for `reason`, at once or after it had waited.
    pub fn not_held(&self, reason: &'static str) {
        self.slots.not_held.add(reason, 1);
    }

    /// An observation for the control plane was dropped: its queue was full.
    pub fn observation_dropped(&self) {
        self.slots.observations_dropped.add(1);
    }
}

/// Counts a connection to an instance as open until it is dropped.
#[derive(Debug)]
#[must_use = "the connection counts as closed when this is dropped"]
pub struct OpenUpstream(Shard);

impl Drop for OpenUpstream {
    fn drop(&mut self) {
        self.0.slots.upstream_closed.add(1);
    }
}

/// Position in [`CLASSES`].
fn class_of(status: u16) -> usize {
    usize::from(status / 100).wrapping_sub(1).min(CLASSES.len() - 1)
}

/// The counters of one worker.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) requests_started: Count,
    pub(super) requests_finished: Count,
    pub(super) classes: [ClassSlots; CLASSES.len()],
    codes: Box<[Count]>,
    other_codes: Count,
    pub(super) bytes_in: Count,
    pub(super) bytes_out: Count,
    pub(super) router_errors: Labelled,
    pub(super) refused: Labelled,
    pub(super) responses_refused: Labelled,
    pub(super) connections_opened: Count,
    pub(super) connections_closed: Count,
    pub(super) http2_resets: Labelled,
    pub(super) http2_goaways: Labelled,
    pub(super) accepts_failed: Labelled,
    pub(super) tls_failed: Labelled,
    pub(super) connect: Histogram<12>,
    pub(super) connect_failed: Labelled,
    pub(super) upstream_opened: Count,
    pub(super) upstream_reused: Count,
    pub(super) upstream_closed: Count,
    pub(super) attempts_failed: Labelled,
    pub(super) retries: Labelled,
    pub(super) retries_denied: Count,
    pub(super) ejections: Count,
    pub(super) sticky: [Count; Sticky::LABELS.len()],
    pub(super) tunnels_opened: Count,
    pub(super) tunnels_closed: Count,
    pub(super) observations_dropped: Count,
    pub(super) held: Count,
    pub(super) not_held: Labelled,
}

/// The histograms of one status class.
#[derive(Debug)]
pub(super) struct ClassSlots {
    pub(super) duration: Histogram<17>,
    pub(super) time_to_head: Histogram<17>,
    pub(super) upstream: Histogram<17>,
}

impl Slots {
    pub(super) fn new() -> Slots {
        Slots {
            requests_started: Count::default(),
            requests_finished: Count::default(),
            classes: std::array::from_fn(|_| ClassSlots {
                duration: Histogram::new(&REQUEST_BOUNDS),
                time_to_head: Histogram::new(&REQUEST_BOUNDS),
                upstream: Histogram::new(&REQUEST_BOUNDS),
            }),
            codes: CODES.map(|_| Count::default()).collect(),
            other_codes: Count::default(),
            bytes_in: Count::default(),
            bytes_out: Count::default(),
            router_errors: Labelled::default(),
            refused: Labelled::default(),
            responses_refused: Labelled::default(),
            connections_opened: Count::default(),
            connections_closed: Count::default(),
            http2_resets: Labelled::default(),
            http2_goaways: Labelled::default(),
            accepts_failed: Labelled::default(),
            tls_failed: Labelled::default(),
            connect: Histogram::new(&CONNECT_BOUNDS),
            connect_failed: Labelled::default(),
            upstream_opened: Count::default(),
            upstream_reused: Count::default(),
            upstream_closed: Count::default(),
            attempts_failed: Labelled::default(),
            retries: Labelled::default(),
            retries_denied: Count::default(),
            ejections: Count::default(),
            sticky: Default::default(),
            tunnels_opened: Count::default(),
            tunnels_closed: Count::default(),
            observations_dropped: Count::default(),
            held: Count::default(),
            not_held: Labelled::default(),
        }
    }

    /// Requests by status code, those that occurred; `None` stands for codes that are none.
    pub(super) fn codes(&self) -> impl Iterator<Item = (Option<u16>, u64)> {
        let known = CODES.zip(self.codes.iter()).map(|(code, count)| (Some(code), count.get()));
        known.chain([(None, self.other_codes.get())]).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_class() {
        let expected =
            [(100, "1xx"), (200, "2xx"), (399, "3xx"), (499, "4xx"), (503, "5xx"), (600, "other"), (0, "other")];
        for (status, class) in expected {
            assert_eq!(CLASSES[class_of(status)], class, "{status}");
        }
        assert_eq!(CLASSES[class_of(u16::MAX)], "other");
    }
}

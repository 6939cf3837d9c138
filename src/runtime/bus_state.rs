//! What the bus knows about itself, for health and metrics: the bus writes, everybody may read.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

/// Why a message did not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Incoming: more messages were waiting for the control plane than its queue takes.
    QueueFull,
    /// Incoming: the waiting messages held more bytes than allowed.
    BytesFull,
    /// Incoming: one message larger than allowed.
    Oversized,
    /// Incoming: the client library's own queue was full before we could take the message over. At least that many: the
    /// library does not tell of every one.
    SlowConsumer,
    /// Outgoing: there was no connection. Nothing is kept for later: it would be stale by then.
    Disconnected,
    /// Outgoing: not a subject one can publish to, or larger than the server takes.
    Refused,
}

impl Dropped {
    /// All reasons.
    pub const ALL: [Dropped; 6] = [
        Dropped::QueueFull,
        Dropped::BytesFull,
        Dropped::Oversized,
        Dropped::SlowConsumer,
        Dropped::Disconnected,
        Dropped::Refused,
    ];

    /// The reason as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Dropped::QueueFull => "queue_full",
            Dropped::BytesFull => "bytes_full",
            Dropped::Oversized => "oversized",
            Dropped::SlowConsumer => "slow_consumer",
            Dropped::Disconnected => "disconnected",
            Dropped::Refused => "refused",
        }
    }
}

/// The bus as it is now and what it has done since the process began.
#[derive(Debug, Default)]
pub struct BusState {
    connected: watch::Sender<bool>,
    connects: AtomicU64,
    failures: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
    server: Mutex<String>,
    last_error: Mutex<Option<String>>,
}

impl BusState {
    /// Whether messages come in now.
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// Returns when messages come in.
    pub async fn until_connected(&self) {
        let mut connected = self.connected.subscribe();
        let _gone = connected.wait_for(|connected| *connected).await;
    }

    /// Times a connection was made and subscribed; one more than the number of reconnects once there was one.
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    /// Attempts to connect that failed, and connections that broke.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Messages handed to the control plane.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Messages given to the server.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Messages lost for this reason.
    pub fn dropped(&self, reason: Dropped) -> u64 {
        self.dropped[reason as usize].load(Ordering::Relaxed)
    }

    /// Messages lost for any reason.
    pub fn dropped_in_all(&self) -> u64 {
        Dropped::ALL.into_iter().map(|reason| self.dropped(reason)).sum()
    }

    /// The server we are connected to, or were last; empty if there was none.
    pub fn server(&self) -> String {
        self.server.lock().clone()
    }

    /// What went wrong last; `None` while the present connection has had no trouble.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// Forgets the trouble of earlier connections, at the beginning of a new one.
    pub fn forget_trouble(&self) {
        *self.last_error.lock() = None;
    }

    /// Notes a connection to `server` that is subscribed.
    pub fn note_connected(&self, server: &str) {
        *self.server.lock() = server.to_owned();
        self.connects.fetch_add(1, Ordering::Relaxed);
        self.connected.send_replace(true);
    }

    /// Notes that there is no connection (any more), and why.
    pub fn note_disconnected(&self, why: String) {
        self.connected.send_replace(false);
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock() = Some(why);
    }

    /// Notes trouble that leaves the connection as it is.
    pub fn note_trouble(&self, what: String) {
        *self.last_error.lock() = Some(what);
    }

    /// Counts a message handed to the control plane.
    pub fn count_received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a message given to the server.
    pub fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a message lost.
    pub fn count_dropped(&self, reason: Dropped) {
        self.dropped[reason as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_on_its_own() {
        let state = BusState::default();
        for (n, reason) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, n);
            (0..=n).for_each(|_| state.count_dropped(reason));
        }
        assert_eq!(Dropped::ALL.map(|reason| state.dropped(reason)), [1, 2, 3, 4, 5, 6]);
        assert_eq!(state.dropped_in_all(), 21);
    }

    #[test]
    fn an_error_stays_until_the_next_connection_begins() {
        let state = BusState::default();
        state.note_disconnected("refused".into());
        assert_eq!(
            (state.is_connected(), state.last_error().as_deref(), state.failures()),
            (false, Some("refused"), 1)
        );
        state.forget_trouble();
        state.note_connected("127.0.0.1:4222");
        assert_eq!((state.is_connected(), state.last_error(), state.connects()), (true, None, 1));
        assert_eq!(state.server(), "127.0.0.1:4222");
    }
}

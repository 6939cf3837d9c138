//! The way in: from whichever bus to the control plane, within limits, never waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::Limits;
use crate::domain::protocol::envelope::{BusEvent, Incoming};
use crate::runtime::bus_state::{BusState, Dropped};

/// The sending side of the control plane's queue, with what may wait in it.
#[derive(Clone, Debug)]
pub(super) struct Inlet {
    events: mpsc::Sender<BusEvent>,
    limits: Limits,
    held_bytes: Arc<AtomicUsize>,
    pub(super) state: Arc<BusState>,
}

/// The control plane is gone: there is nobody left to work for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl Inlet {
    pub(super) fn new(events: mpsc::Sender<BusEvent>, limits: Limits, state: Arc<BusState>) -> Inlet {
        Inlet { events, limits, held_bytes: Arc::default(), state }
    }

    /// Hands a message over, or drops and counts it where a limit is reached. Never waits.
    pub(super) fn offer(&self, message: Incoming) -> Result<(), Gone> {
        let bytes = message.payload.len();
        if bytes > self.limits.message_bytes {
            self.state.count_dropped(Dropped::Oversized);
            return Ok(());
        }
        let held_before = self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        let payload = Held { payload: message.payload, of: self.held_bytes.clone() };
        if held_before + bytes > self.limits.incoming_bytes {
            self.state.count_dropped(Dropped::BytesFull);
            return Ok(());
        }
        match self.events.try_send(BusEvent::Message(Incoming { payload: Bytes::from_owner(payload), ..message })) {
            Ok(()) => self.state.count_received(),
            Err(TrySendError::Full(_)) => self.state.count_dropped(Dropped::QueueFull),
            Err(TrySendError::Closed(_)) => return Err(Gone),
        }
        Ok(())
    }

    /// Tells of a connection made or lost: these are never dropped, so it may wait.
    pub(super) async fn tell(&self, event: BusEvent) -> Result<(), Gone> {
        self.events.send(event).await.map_err(|_| Gone)
    }

    /// Whether nobody listens any more.
    pub(super) fn is_gone(&self) -> bool {
        self.events.is_closed()
    }

    /// Returns once nobody listens any more.
    pub(super) async fn gone(&self) {
        self.events.closed().await;
    }
}

/// A payload that counts as held until its last owner lets go of it, wherever it waits.
struct Held {
    payload: Bytes,
    of: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.fetch_sub(self.payload.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { incoming: 3, incoming_bytes: 10, message_bytes: 8, outgoing: 1 };

    fn inlet() -> (Inlet, mpsc::Receiver<BusEvent>) {
        let (sender, receiver) = mpsc::channel(LIMITS.incoming);
        (Inlet::new(sender, LIMITS, Arc::default()), receiver)
    }

    fn message(bytes: usize) -> Incoming {
        Incoming { subject: "a.b".into(), payload: vec![7; bytes].into(), reply: None }
    }

    #[track_caller]
    fn check_counts(inlet: &Inlet, received: u64, dropped: &[(Dropped, u64)]) {
        assert_eq!(inlet.state.received(), received);
        for reason in Dropped::ALL {
            let expected = dropped.iter().find(|(of, _)| *of == reason).map_or(0, |(_, n)| *n);
            assert_eq!(inlet.state.dropped(reason), expected, "{reason:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (inlet, mut events) = inlet();
        (0..5).for_each(|_| inlet.offer(message(1)).expect("the receiver is there"));
        check_counts(&inlet, 3, &[(Dropped::QueueFull, 2)]);
        assert_eq!(events.try_recv(), Ok(BusEvent::Message(message(1))));
        inlet.offer(message(9)).expect("the receiver is there");
        check_counts(&inlet, 3, &[(Dropped::QueueFull, 2), (Dropped::Oversized, 1)]);
    }

    #[test]
    fn bytes_are_free_again_when_the_last_owner_lets_go() {
        let (inlet, mut events) = inlet();
        inlet.offer(message(8)).expect("the receiver is there");
        let taken = events.try_recv();
        inlet.offer(message(3)).expect("the receiver is there");
        check_counts(&inlet, 1, &[(Dropped::BytesFull, 1)]);
        drop(taken);
        inlet.offer(message(3)).expect("the receiver is there");
        check_counts(&inlet, 2, &[(Dropped::BytesFull, 1)]);
        drop(events);
        assert_eq!(inlet.offer(message(1)), Err(Gone));
        assert_eq!(inlet.held_bytes.load(Ordering::Relaxed), 0);
    }
}

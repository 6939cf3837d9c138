//! Has sleeping apps started: takes asks from the control plane and brings them to whoever starts apps, here by `app.wake`
//! on the bus. A message may get lost, so the control plane repeats its asks until the app is there.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use crate::domain::protocol::app::{WAKE, Wake};
use crate::domain::protocol::envelope::Outgoing;
use crate::domain::wake::Ask;

/// Asks that may wait; one that finds no place is refused, and asked again later.
const QUEUE: usize = 1024;

/// Starts on the present tokio runtime; ends when the sender of asks is gone. `router`: the id it signs messages with.
pub fn start(router: &str, outgoing: mpsc::Sender<Outgoing>) -> mpsc::Sender<Ask> {
    let (asks, inbox) = mpsc::channel(QUEUE);
    tokio::spawn(publish(router.to_owned(), inbox, outgoing));
    asks
}

async fn publish(router: String, mut asks: mpsc::Receiver<Ask>, outgoing: mpsc::Sender<Outgoing>) {
    while let Some(Ask { app, uri, epoch, attempt }) = asks.recv().await {
        let at_unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let wake = Wake { app, uri, epoch, router: router.as_str().into(), at_unix_ms, attempt };
        let message = Outgoing { subject: WAKE.to_owned(), payload: wake.encode(), reply: None };
        if outgoing.send(message).await.is_err() {
            return;
        }
    }
}

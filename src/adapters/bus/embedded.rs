//! The in-process bus: the same subjects and payloads as over NATS, for one process that needs nothing installed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::inlet::{Gone, Inlet};
use super::subject::{self, BadSubject, check_subject};
use crate::domain::protocol::envelope::{BusEvent, Incoming, Outgoing};
use crate::runtime::bus_state::Dropped;

/// Messages that may wait for one subscriber; what comes beyond is lost to that subscriber and counted.
const SUBSCRIBER_QUEUE: usize = 65_536;

/// A handle to an in-process bus; all clones are the same bus.
#[derive(Clone, Debug, Default)]
pub struct Embedded {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    listeners: Mutex<Vec<Listener>>,
    inboxes: AtomicU64,
    lost: AtomicU64,
}

#[derive(Clone, Debug)]
struct Listener {
    patterns: Vec<String>,
    ear: Ear,
}

#[derive(Clone, Debug)]
enum Ear {
    Router(Inlet),
    Subscriber(mpsc::Sender<Incoming>),
}

impl Embedded {
    /// A bus nobody listens on yet.
    pub fn new() -> Embedded {
        Embedded::default()
    }

    /// Delivers a message to everybody who is subscribed now; how many there were. Never waits: a subscriber whose queue
    /// is full loses the message.
    ///
    /// # Errors
    /// `BadSubject` if one cannot publish to its subject.
    pub fn publish(&self, message: &Outgoing) -> Result<usize, BadSubject> {
        check_subject(&message.subject)?;
        let mut delivered = 0;
        // Under the lock, so that everybody sees the messages of two publishers in the same order.
        self.shared.listeners.lock().retain(|listener| {
            let wanted = listener.patterns.iter().any(|pattern| subject::matches(pattern, &message.subject));
            let heard = if wanted { self.deliver(&listener.ear, message) } else { listener.ear.is_there() };
            delivered += usize::from(wanted && heard);
            heard
        });
        Ok(delivered)
    }

    /// From now on, what is published to subjects that match `pattern` (`*`, `>` as in NATS).
    pub fn subscribe(&self, pattern: &str) -> mpsc::Receiver<Incoming> {
        let (sender, receiver) = mpsc::channel(SUBSCRIBER_QUEUE);
        self.listen(vec![pattern.to_owned()], Ear::Subscriber(sender));
        receiver
    }

    /// Publishes a question; answers come from the receiver. It is for the caller to say how long it waits for them.
    ///
    /// # Errors
    /// `BadSubject` if one cannot publish to `subject`.
    pub fn request(&self, subject: &str, payload: Bytes) -> Result<mpsc::Receiver<Incoming>, BadSubject> {
        let inbox = format!("_INBOX.{}", self.shared.inboxes.fetch_add(1, Ordering::Relaxed));
        let answers = self.subscribe(&inbox);
        self.publish(&Outgoing { subject: subject.to_owned(), payload, reply: Some(inbox) })?;
        Ok(answers)
    }

    /// Messages that subscribers lost because their queue was full. The router's own losses are in its `BusState`.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Attaches a router: brings what is published to `subjects`, takes what it has to say.
    pub(super) async fn serve(self, subjects: Vec<String>, inlet: Inlet, mut outgoing: mpsc::Receiver<Outgoing>) {
        self.listen(subjects, Ear::Router(inlet.clone()));
        inlet.state.note_connected("embedded");
        if inlet.tell(BusEvent::Connected).await == Err(Gone) {
            return;
        }
        loop {
            let message = tokio::select! {
                message = outgoing.recv() => message,
                () = inlet.gone() => None,
            };
            let Some(message) = message else { break };
            match self.publish(&message) {
                Ok(_) => inlet.state.count_sent(),
                Err(error) => {
                    inlet.state.count_dropped(Dropped::Refused);
                    inlet.state.note_trouble(error.to_string());
                }
            }
        }
    }

    fn listen(&self, patterns: Vec<String>, ear: Ear) {
        self.shared.listeners.lock().push(Listener { patterns, ear });
    }

    /// Whether the listener is still there.
    fn deliver(&self, ear: &Ear, message: &Outgoing) -> bool {
        let Outgoing { subject, payload, reply } = message.clone();
        let message = Incoming { subject, payload, reply };
        match ear {
            Ear::Router(inlet) => inlet.offer(message) == Ok(()),
            Ear::Subscriber(queue) => match queue.try_send(message) {
                Ok(()) => true,
                Err(TrySendError::Closed(_)) => false,
                Err(TrySendError::Full(_)) => {
                    self.shared.lost.fetch_add(1, Ordering::Relaxed);
                    true
                }
            },
        }
    }
}

impl Ear {
    fn is_there(&self) -> bool {
        match self {
            Ear::Router(inlet) => !inlet.is_gone(),
            Ear::Subscriber(queue) => !queue.is_closed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Attached, Bus, Limits, start};
    use super::*;
    use crate::domain::dice::Dice;

    const SUBJECTS: &[&str] = &["router.register", "router.greet", "app.*"];

    fn attach(bus: &Embedded, limits: Limits) -> Attached {
        start(Bus::Embedded(bus.clone()), SUBJECTS, limits, Dice::seeded(1))
    }

    fn message(subject: &str, payload: &str) -> Outgoing {
        Outgoing { subject: subject.into(), payload: Bytes::copy_from_slice(payload.as_bytes()), reply: None }
    }

    fn arrived(subject: &str, payload: &str) -> Incoming {
        Incoming { subject: subject.into(), payload: Bytes::copy_from_slice(payload.as_bytes()), reply: None }
    }

    #[tokio::test]
    async fn a_router_hears_its_subjects_and_nothing_else() {
        let bus = Embedded::new();
        let mut router = attach(&bus, Limits::default());
        assert_eq!(router.events.recv().await, Some(BusEvent::Connected));
        assert!(router.state.is_connected());
        assert_eq!(bus.publish(&message("router.register", "1")), Ok(1));
        assert_eq!(bus.publish(&message("router.stats", "2")), Ok(0));
        assert_eq!(bus.publish(&message("app.wake", "3")), Ok(1));
        assert_eq!(router.events.recv().await, Some(BusEvent::Message(arrived("router.register", "1"))));
        assert_eq!(router.events.recv().await, Some(BusEvent::Message(arrived("app.wake", "3"))));
    }

    #[tokio::test]
    async fn what_a_router_says_reaches_others_and_itself_where_it_listens() {
        let bus = Embedded::new();
        let mut all = bus.subscribe(">");
        let mut router = attach(&bus, Limits::default());
        assert_eq!(router.events.recv().await, Some(BusEvent::Connected));
        router.outgoing.send(message("router.start", "hello")).await.expect("the bus is there");
        router.outgoing.send(message("not a subject", "")).await.expect("the bus is there");
        router.outgoing.send(message("app.wake", "up")).await.expect("the bus is there");
        assert_eq!(all.recv().await, Some(arrived("router.start", "hello")));
        assert_eq!(all.recv().await, Some(arrived("app.wake", "up")));
        assert_eq!(router.events.recv().await, Some(BusEvent::Message(arrived("app.wake", "up"))));
        assert_eq!((router.state.sent(), router.state.dropped(Dropped::Refused)), (2, 1));
    }

    #[tokio::test]
    async fn a_question_is_answered() {
        let bus = Embedded::new();
        let mut router = attach(&bus, Limits::default());
        assert_eq!(router.events.recv().await, Some(BusEvent::Connected));
        let mut answers = bus.request("router.greet", Bytes::new()).expect("a good subject");
        let Some(BusEvent::Message(question)) = router.events.recv().await else { panic!("no question") };
        let inbox = question.reply.expect("the question says where to answer");
        router.outgoing.send(message(&inbox, "0-2c1e")).await.expect("the bus is there");
        assert_eq!(answers.recv().await, Some(arrived(&inbox, "0-2c1e")));
    }

    #[tokio::test]
    async fn a_router_that_does_not_read_loses_messages_and_nobody_waits_for_it() {
        let bus = Embedded::new();
        let mut router = attach(&bus, Limits { incoming: 4, ..Limits::default() });
        assert_eq!(router.events.recv().await, Some(BusEvent::Connected));
        for _ in 0..10 {
            bus.publish(&message("router.register", "")).expect("a good subject");
        }
        assert_eq!((router.state.received(), router.state.dropped(Dropped::QueueFull)), (4, 6));
    }

    #[tokio::test]
    async fn who_is_gone_is_forgotten() {
        let bus = Embedded::new();
        let router = attach(&bus, Limits::default());
        let watcher = bus.subscribe("router.*");
        tokio::task::yield_now().await;
        drop((router, watcher));
        assert_eq!(bus.publish(&message("app.wake", "")), Ok(0));
        assert!(bus.shared.listeners.lock().is_empty());
    }
}

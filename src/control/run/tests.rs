//! The loop, joined to channels: everything waits for facts, nothing for time.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

use super::*;
use crate::control::event::AppSettings;
use crate::domain::hash::Keyed;
use crate::domain::pace::Pace;
use crate::domain::protocol::envelope::Incoming;
use crate::domain::protocol::life::RouterStart;
use crate::domain::table::settings::{ConfiguredRoute, TableSettings};
use crate::domain::table::snapshot::Found;
use crate::runtime::published::Reader;
use crate::telemetry::metrics::BusCounts;

struct Router {
    bus: Sender<BusEvent>,
    events: Sender<Event>,
    caught_up: Sender<oneshot::Sender<()>>,
    outgoing: Receiver<Outgoing>,
    routes: Reader<Snapshot>,
    metrics: Arc<Metrics>,
    effects: Receiver<Effects>,
    /// How often others were given way to.
    rests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Router {
    fn start() -> Router {
        let clock = Clock::new();
        let me = RouterStart {
            id: "0-test".into(),
            hosts: Vec::new(),
            register_interval: Duration::from_secs(20),
            prune_threshold: Duration::from_secs(120),
        };
        let mut plane = ControlPlane::new(me, TableSettings::default(), 1, clock.now());
        let rests = Arc::new(AtomicUsize::new(0));
        let counted = rests.clone();
        *plane.pace() = Pace::new(move || _ = counted.fetch_add(1, Relaxed));
        let published = Published::new(Snapshot::empty(Keyed::new(1)));
        let metrics = Metrics::new(10);
        let (bus, bus_inbox) = channel(1000);
        let (events, events_inbox) = channel(10);
        let (caught_up, asked) = channel(1);
        let (outbox, outgoing) = channel(1);
        let (told, effects) = channel(2000);
        let ports = Ports {
            bus: bus_inbox,
            events: events_inbox,
            happenings: channel(1).1,
            caught_up: asked,
            outgoing: outbox,
            published: published.clone(),
            metrics: metrics.clone(),
            clock,
        };
        let then = move |effects| told.try_send(effects).expect("the test reads what it causes");
        let task = tokio::spawn(run(plane, ports, then));
        Router { bus, events, caught_up, outgoing, routes: Reader::new(published), metrics, effects, rests, task }
    }

    async fn say(&self, subject: &str, payload: String) {
        let payload = Bytes::from(payload);
        let message = Incoming { subject: subject.to_owned(), payload, reply: None };
        self.bus.send(BusEvent::Message(message)).await.expect("the loop runs");
    }

    async fn register(&self, host: &str) {
        self.say("router.register", format!(r#"{{"host":"10.0.0.1","port":80,"uris":["{host}"]}}"#)).await;
    }

    /// Registers so many hosts while the loop does not run.
    fn queue(&self, count: usize, host: impl Fn(usize) -> String) {
        for n in 0..count {
            let payload = format!(r#"{{"host":"10.0.0.1","port":80,"uris":["{}"]}}"#, host(n)).into();
            let message = Incoming { subject: "router.register".to_owned(), payload, reply: None };
            self.bus.try_send(BusEvent::Message(message)).expect("there is room");
        }
    }

    async fn until_found(&mut self, host: &str) {
        while !matches!(self.routes.latest().lookup(host, "/"), Found::Pool(_)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn what_is_registered_is_published() {
    let mut router = Router::start();
    router.bus.send(BusEvent::Connected).await.expect("the loop runs");
    assert_eq!(router.outgoing.recv().await.map(|message| message.subject), Some("router.start".to_owned()));
    for n in 0..500 {
        router.register(&format!("a{n}.test")).await;
    }
    router.until_found("a499.test").await;
    assert_eq!(router.routes.latest().routes(), 500);
    let arrived = std::iter::from_fn(|| router.effects.try_recv().ok()).filter(|it| !it.changes.arrived.is_empty());
    assert_eq!(arrived.count(), 500, "every effect is handed on");
}

#[tokio::test]
async fn whoever_asks_hears_when_all_that_was_queued_is_published() {
    let mut router = Router::start();
    // Twice, since the first publication does not have to wait for its time.
    for round in 0..2 {
        // All in one go: the loop does not run meanwhile, and asks its channels in any order.
        let (answer, answered) = oneshot::channel();
        router.caught_up.try_send(answer).expect("there is room");
        router.queue(900, |n| format!("a{n}.round-{round}.test"));
        answered.await.expect("the loop runs");
        assert_eq!(router.routes.latest().routes(), 900 * (round + 1));
    }
}

#[tokio::test]
async fn others_are_given_way_to_while_little_waits() {
    let mut router = Router::start();
    for (messages, rests) in [(100, 100..150), (900, BATCH..600)] {
        // All in one go: of many, all but the last two batches hurry.
        router.queue(messages, |n| format!("a{n}.of-{messages}.test"));
        router.until_found(&format!("a{}.of-{messages}.test", messages - 1)).await;
        let counted = router.rests.swap(0, Relaxed);
        assert!(rests.contains(&counted), "{counted} rests for {messages} messages");
    }
}

#[tokio::test]
async fn what_is_refused_is_counted_and_stops_nothing() {
    let mut router = Router::start();
    for _ in 0..3 {
        router.say("router.register", "nonsense".to_owned()).await;
    }
    router.register("shop.test").await;
    router.until_found("shop.test").await;
    let text = router.metrics.text(
        router.routes.latest().as_ref(),
        &Default::default(),
        &BusCounts::default(),
        Clock::new().now(),
    );
    let counted = r#"weighbridge_bus_messages_rejected_total{subject="router.register",reason="not_json"} 3"#;
    assert!(text.contains(counted), "{text}");
}

#[tokio::test]
async fn a_full_outbox_does_not_stop_the_loop() {
    let mut router = Router::start();
    for _ in 0..5 {
        router.bus.send(BusEvent::Connected).await.expect("the loop runs");
    }
    router.register("shop.test").await;
    router.until_found("shop.test").await;
}

#[tokio::test]
async fn a_reload_is_published_and_the_loop_ends_with_its_inboxes() {
    let mut router = Router::start();
    let uri = crate::domain::protocol::route_uri::RouteUri::parse("static.test").expect("a good route");
    let address = crate::domain::identity::Address::new("10.0.0.1", 80);
    let instances = vec![crate::domain::protocol::register::Registration::at(address)];
    let routes = vec![ConfiguredRoute { uri, settings: Arc::default(), instances }];
    router
        .events
        .send(Event::Configured { settings: TableSettings::default(), routes, apps: AppSettings::default() })
        .await
        .expect("the loop runs");
    router.until_found("static.test").await;
    drop((router.bus, router.events));
    router.task.await.expect("the loop ends");
}

//! What the control plane answers to, and how it takes outages, reloads and standstills.

mod apps;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use super::*;
use crate::domain::endpoint::Endpoint;
use crate::domain::protocol::rejection::Reason;
use crate::domain::protocol::route_uri::RouteUri;
use crate::domain::table::snapshot::{Found, Snapshot};

struct World {
    plane: ControlPlane,
    now: Moment,
    snapshot: Arc<Snapshot>,
}

impl World {
    fn new() -> World {
        let me = RouterStart {
            id: "0-test".into(),
            hosts: vec!["10.0.0.2".into()],
            register_interval: Duration::from_secs(20),
            prune_threshold: Duration::from_secs(120),
        };
        let now = Moment::START;
        let mut plane = ControlPlane::new(me, TableSettings::default(), 1, now);
        let snapshot = plane.snapshot(now).expect("the first one is new");
        World { plane, now, snapshot }
    }

    fn handle(&mut self, event: Event) -> Effects {
        let effects = self.plane.handle(event, self.now);
        self.snapshot = self.plane.snapshot(self.now).unwrap_or(self.snapshot.clone());
        effects
    }

    fn message(&mut self, subject: &str, payload: &str) -> Effects {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        self.handle(Event::Message(Incoming { subject: subject.into(), payload, reply: Some("_INBOX.1".into()) }))
    }

    fn register(&mut self) {
        self.message("router.register", r#"{"host":"10.0.0.1","port":80,"uris":["shop.test"]}"#);
    }

    /// Time passes with a tick a second, as in the loop.
    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now + Duration::from_secs(1);
            self.handle(Event::Tick);
        }
    }

    fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        match self.snapshot.lookup("shop.test", "/") {
            Found::Pool(pool) => pool.endpoints.to_vec(),
            Found::Empty(_) | Found::Nothing => Vec::new(),
        }
    }
}

#[test]
fn a_router_says_that_it_is_there_whenever_it_is_connected() {
    let mut world = World::new();
    for _ in 0..2 {
        let effects = world.handle(Event::Connected);
        let [start, list] = &effects.outgoing[..] else { panic!("two messages go out") };
        assert_eq!((start.subject.as_str(), list.subject.as_str()), ("router.start", "app.list"));
        assert_eq!(list.reply.as_deref(), Some(world.plane.inbox()));
        assert_eq!(RouterStart::decode(&start.payload).as_ref(), Ok(world.plane.me()));
        world.handle(Event::Disconnected);
    }
}

#[test]
fn whoever_greets_is_answered_with_the_same_body() {
    let mut world = World::new();
    let effects = world.message("router.greet", "");
    let [answer] = &effects.outgoing[..] else { panic!("one message goes out") };
    assert_eq!((answer.subject.as_str(), &answer.payload), ("_INBOX.1", &world.plane.me().encode()));
}

#[test]
fn messages_are_applied_ignored_refused_or_somebody_elses() {
    let mut world = World::new();
    let mut outcome = |subject, payload| world.message(subject, payload).message;
    let good = r#"{"host":"10.0.0.1","port":80,"uris":["shop.test"],"private_instance_id":"a","dea":"d"}"#;
    assert_eq!(outcome("router.register", good), Some(("router.register", Outcome::Applied)));
    assert_eq!(outcome("router.register", r#"{"host":"a","port":1}"#), Some(("router.register", Outcome::Ignored)));
    assert_eq!(outcome("dea.shutdown", r#"{"dea":"d"}"#), Some(("dea.shutdown", Outcome::Applied)));
    assert_eq!(outcome("droplet.exited", r#"{"instance":"a"}"#), Some(("droplet.exited", Outcome::Applied)));
    assert_eq!(outcome("router.unregister", good), Some(("router.unregister", Outcome::Ignored)));
    assert_eq!(outcome("dea.heartbeat", r#"{"dea":"d"}"#), Some(("dea.heartbeat", Outcome::Applied)));
    for subject in ["router.register", "router.unregister", "dea.heartbeat", "dea.shutdown", "droplet.exited"] {
        let Some((label, Outcome::Rejected(rejection))) = outcome(subject, "nonsense") else { panic!("{subject}") };
        assert_eq!((label, rejection.reason), (subject, Reason::NotJson));
    }
    assert!(
        matches!(outcome("app.wake", "{}"), Some(("other", Outcome::Foreign(message))) if message.subject == "app.wake")
    );
}

#[test]
fn how_old_a_heartbeat_had_become_and_when_an_instance_changed_is_told() {
    let mut world = World::new();
    assert_eq!(world.message("dea.heartbeat", r#"{"dea":"d"}"#).heartbeat_age, None);
    world.wait(7);
    assert_eq!(world.message("dea.heartbeat", r#"{"dea":"d"}"#).heartbeat_age, Some(Duration::from_secs(7)));
    let payload = r#"{"host":"a","port":80,"uris":["shop.test"],"endpoint_updated_at_ns":123}"#;
    assert_eq!(world.message("router.register", payload).registered, Some(123));
    assert_eq!(world.message("router.register", payload).registered, None, "a refresh is no news");
}

#[test]
fn whatever_is_long_goes_on_in_strides() {
    const INSTANCES: usize = 160;
    const STRIDES: usize = 10;
    let mut world = World::new();
    world.handle(Event::Connected);
    let rests = Arc::new(AtomicUsize::new(0));
    let counted = rests.clone();
    *world.plane.pace() = Pace::new(move || _ = counted.fetch_add(1, Relaxed));
    let rests = || rests.swap(0, Relaxed);
    let droplet = |n| {
        format!(
            r#"{{"droplet":"{n}","instance":"{n}","port":{n},"uris":["a{n}.test"],"load":{{"cpu":0.1,"mem":0.1}}}}"#
        )
    };
    let droplets: Vec<String> = (1..=INSTANCES).map(droplet).collect();
    let beat = format!(r#"{{"dea":"d","interval_ms":5000,"host":{{"ip":"a"}},"droplets":[{}]}}"#, droplets.join(","));
    let incoming = Incoming { subject: "dea.heartbeat".into(), payload: beat.into(), reply: None };

    world.plane.handle(Event::Message(incoming), world.now);
    assert_eq!(rests(), 1 + 2 * STRIDES, "read, looked through and taken in");
    world.plane.snapshot(world.now);
    assert_eq!(rests(), 2 * STRIDES, "pools and weights");
    world.wait(14);
    assert_eq!(
        rests(),
        (14 * INSTANCES / 16 + INSTANCES) / 16,
        "a sixteenth of all routes a second, and all apps once"
    );
    world.wait(2);
    assert!(rests() >= 2 * STRIDES, "pruned and published");
    assert_eq!(world.snapshot.endpoints(), 0);
}

#[test]
fn leases_run_out_while_connected_only() {
    let mut world = World::new();
    world.handle(Event::Connected);
    world.register();
    world.wait(100);
    world.handle(Event::Disconnected);
    world.wait(1000);
    assert_eq!(world.endpoints().len(), 1);
    world.handle(Event::Connected);
    world.wait(119);
    assert_eq!(world.endpoints().len(), 1);
    world.wait(2);
    assert_eq!(world.endpoints().len(), 0);
}

#[test]
fn a_plane_that_stood_still_blames_nobody() {
    let mut world = World::new();
    world.handle(Event::Connected);
    world.register();
    world.now = world.now + Duration::from_secs(3600);
    world.handle(Event::Tick);
    assert_eq!(world.endpoints().len(), 1);
    world.wait(121);
    assert_eq!(world.endpoints().len(), 0);
}

#[test]
fn configured_routes_are_there_before_and_without_a_bus() {
    let mut world = World::new();
    let route = ConfiguredRoute {
        uri: RouteUri::parse("shop.test").expect("a good route"),
        settings: Arc::default(),
        instances: vec![Registration::at(crate::domain::identity::Address::new("10.0.0.1", 80))],
    };
    let settings = TableSettings { stale_after: Duration::from_secs(60), ..TableSettings::default() };
    world.handle(Event::Configured { settings, routes: vec![route], apps: AppSettings::default() });
    world.wait(500);
    assert_eq!(world.endpoints().len(), 1);
    assert_eq!(world.plane.me().prune_threshold, Duration::from_secs(60), "what it says follows the configuration");
}

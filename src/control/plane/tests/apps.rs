//! Sleep and wake as messages in, and messages and routes out.

use super::*;
use crate::domain::identity::{AppId, InstanceId};
use crate::domain::wake::{Effect, Instance};

const OLD: &str = r#"{"host":"10.0.0.1","port":80,"uris":["shop.test"],"app":"shop","private_instance_id":"old"}"#;
const NEW: &str = r#"{"host":"10.0.0.2","port":80,"uris":["shop.test"],"app":"shop","private_instance_id":"new"}"#;
const SLEEP: &str = r#"{"app":"shop","uris":["shop.test","shop.test/api"],"epoch":1}"#;

impl World {
    fn asleep() -> World {
        let mut world = World::new();
        world.handle(Event::Connected);
        world.message("router.register", OLD);
        world.message("app.sleep", SLEEP);
        world
    }

    /// `nothing`, `empty`, `asleep`, or the addresses.
    fn find(&self, host: &str, path: &str) -> String {
        match self.snapshot.lookup(host, path) {
            Found::Nothing => "nothing".into(),
            Found::Empty(_) => "empty".into(),
            Found::Pool(pool) if pool.asleep().is_some() => "asleep".into(),
            Found::Pool(pool) => pool.endpoints.iter().map(|it| it.address.to_string()).collect::<Vec<_>>().join(" "),
        }
    }

    #[track_caller]
    fn check(&self, path: &str, expected: &str) {
        assert_eq!(self.find("shop.test", path), expected, "{path}");
    }

    fn ready(&mut self, host: &str, id: &str) -> Effects {
        let instance = Instance { address: crate::domain::identity::Address::new(host, 80), id: InstanceId::new(id) };
        self.handle(Event::App(Happening::Ready { app: AppId::new("shop"), instance }))
    }
}

fn text(outgoing: &Outgoing) -> String {
    format!("{} {}", outgoing.subject, String::from_utf8_lossy(&outgoing.payload))
}

#[test]
fn routes_of_a_sleeping_app_outlive_its_instances() {
    let mut world = World::asleep();
    world.check("/", "asleep");
    world.check("/api/x", "asleep");
    world.message("router.unregister", OLD);
    world.wait(1000);
    world.check("/", "asleep");
    assert_eq!(world.find("other.test", "/"), "nothing");
}

#[test]
fn an_app_wakes_when_an_instance_answers_and_not_before() {
    let mut world = World::asleep();
    assert!(world.message("router.register", OLD).probes.is_empty(), "it is being stopped");
    let [probe] = &world.message("router.register", NEW).probes[..] else { panic!("one to find out about") };
    assert_eq!(probe.address.to_string(), "10.0.0.2:80");
    world.check("/", "asleep");
    let effects = world.ready("10.0.0.2", "new");
    assert!(matches!(&effects.apps[..], [Effect::Awake { epoch: 1, .. }]), "{effects:?}");
    assert_eq!(effects.settled.len(), 1);
    world.check("/", "10.0.0.1:80 10.0.0.2:80");
    world.check("/api", "10.0.0.1:80 10.0.0.2:80"); // nobody registered it: the parent serves
    world.wait(200);
    assert_eq!(world.find("shop.test", "/"), "nothing", "it depends on its instances again");
}

#[test]
fn an_instance_that_starts_is_probed_when_it_says_that_it_runs() {
    let mut world = World::asleep();
    let beat = |state: &str, seq: u32| {
        format!(
            r#"{{"dea":"d","schema":2,"seq":{seq},"interval_ms":5000,"host":{{"ip":"10.0.0.2"}},"droplets":[{{"droplet":"shop",
            "instance":"n","private_instance_id":"new","index":0,"state":"{state}","port":80,"uris":["shop.test"]}}]}}"#
        )
    };
    assert!(world.message("dea.heartbeat", &beat("STARTING", 1)).probes.is_empty());
    assert_eq!(world.message("dea.heartbeat", &beat("RUNNING", 2)).probes.len(), 1);
}

#[test]
fn one_that_answered_and_went_away_wakes_nobody() {
    let mut world = World::asleep();
    world.message("router.register", NEW);
    world.message("router.unregister", NEW);
    assert!(world.ready("10.0.0.2", "new").apps.is_empty());
    world.check("/", "asleep");
}

#[test]
fn a_new_instance_at_the_address_of_one_that_has_gone_is_not_taken_for_it() {
    let mut world = World::asleep();
    world.message("router.unregister", OLD);
    assert_eq!(world.message("router.register", OLD).probes.len(), 1, "it is known to have gone, so this is another");
}

#[test]
fn a_forgotten_app_is_not_found_at_once() {
    let mut world = World::asleep();
    world.message("router.unregister", OLD);
    world.message("app.forget", r#"{"app":"shop"}"#);
    world.check("/", "nothing");
    world.check("/api", "nothing");
}

#[test]
fn instances_of_a_forgotten_app_that_were_not_heard_of_go_with_it() {
    let mut world = World::asleep();
    world.message("router.register", NEW);
    let effects = world.message("app.forget", r#"{"app":"shop"}"#);
    assert_eq!(effects.changes.left.len(), 2, "one that was stopped and one that did not answer yet");
    world.check("/", "nothing");
    world.check("/api", "nothing");
    world.message("router.register", NEW);
    world.check("/", "10.0.0.2:80"); // it is alive after all
}

#[test]
fn a_route_that_somebody_else_serves_does_not_wait() {
    let mut world = World::asleep();
    world.message("router.register", r#"{"host":"10.0.0.9","port":80,"uris":["shop.test"],"app":"other"}"#);
    world.check("/", "10.0.0.9:80");
    world.check("/api", "asleep"); // and not the parent: it is the sleeping app's
}

#[test]
fn a_park_is_answered_and_a_visitor_calls_it_off() {
    let mut world = World::new();
    world.message("router.register", OLD);
    let answer = world.message("app.park", r#"{"app":"shop","epoch":1}"#);
    assert_eq!(text(&answer.outgoing[0]), r#"_INBOX.1 {"router":"0-test","app":"shop","in_flight":0}"#);
    world.check("/", "10.0.0.1:80");
    let wanted = Happening::Wanted { app: AppId::new("shop"), uri: "shop.test".into() };
    let unpark = world.handle(Event::App(wanted));
    assert_eq!(text(&unpark.outgoing[0]), r#"app.unpark {"app":"shop","epoch":1,"router":"0-test"}"#);
}

#[test]
fn a_router_that_asks_for_the_list_learns_who_sleeps() {
    let mut knows = World::asleep();
    let mut asks = World::new();
    let question = r#"{"router":"0-other"}"#;
    let answers = knows.message("app.list", question).outgoing;
    assert!(knows.message("app.list", r#"{"router":"0-test"}"#).outgoing.is_empty(), "it does not ask itself");
    let inbox = asks.plane.inbox().to_owned();
    for answer in answers {
        assert_eq!(answer.subject, "_INBOX.1");
        asks.message(&inbox, &String::from_utf8_lossy(&answer.payload));
    }
    asks.check("/", "asleep");
    assert_eq!(asks.message(&inbox, "{}").message.map(|(subject, _)| subject), Some("app.list answer"));
}

#[test]
fn statistics_go_out_while_there_is_a_bus() {
    let mut world = World::new();
    let reports = |effects: Effects| effects.outgoing.iter().filter(|it| it.subject == "router.stats").count();
    world.now = world.now + Duration::from_secs(60);
    assert_eq!(reports(world.handle(Event::Tick)), 0);
    world.handle(Event::Connected);
    assert_eq!(reports(world.handle(Event::Tick)), 1);
    assert_eq!(reports(world.handle(Event::Tick)), 0);
    world.now = world.now + Duration::from_secs(10);
    assert_eq!(reports(world.handle(Event::Tick)), 1);
}

#[test]
fn a_table_that_is_full_takes_no_sleeping_routes() {
    let mut world = World::new();
    let settings = TableSettings { endpoints_max: 1, ..TableSettings::default() };
    world.handle(Event::Configured { settings, routes: Vec::new(), apps: AppSettings::default() });
    let outcome = world.message("app.sleep", SLEEP).message.map(|(_, outcome)| outcome);
    assert!(matches!(outcome, Some(Outcome::Rejected(rejection)) if rejection.reason == Reason::TableFull));
    world.check("/", "nothing");
}

#[test]
fn when_another_try_is_worth_while_is_told_in_wall_clock_time() {
    let mut world = World::asleep();
    world.plane.set_wall_clock(Duration::from_secs(1_000), world.now);
    world.handle(Event::App(Happening::Wanted { app: AppId::new("shop"), uri: "shop.test".into() }));
    world.message("app.failed", r#"{"app":"shop","epoch":1,"message":"no","retry_at":"1970-01-01T00:16:50Z"}"#);
    let view = world.plane.live_apps().of(&AppId::new("shop")).view();
    assert_eq!(view.retry_at, Some(world.now + Duration::from_secs(10)));
}

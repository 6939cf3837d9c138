//! The rules of the table, told as small stories: who registers, what time passes, who is found then.

mod heartbeats;
mod lookup;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::settings::{ConfiguredRoute, Isolation, TableSettings};
use super::snapshot::{Found, Pool, RouteSettings, Snapshot};
use super::{Changes, Departure, Heard, RouteTable};
use crate::domain::balance::strategy::Strategy;
use crate::domain::endpoint::{Endpoint, Tls};
use crate::domain::identity::{Address, AgentId, AppId, InstanceId};
use crate::domain::moment::Moment;
use crate::domain::protocol::heartbeat::Heartbeat;
use crate::domain::protocol::register::Registration;
use crate::domain::protocol::route_uri::RouteUri;

/// A table with the bus connected, and its time.
struct World {
    table: RouteTable,
    now: Moment,
    snapshot: Arc<Snapshot>,
}

impl World {
    fn new() -> World {
        World::with(TableSettings::default())
    }

    fn with(settings: TableSettings) -> World {
        let mut table = RouteTable::new(settings, 7);
        let now = Moment::START + Duration::from_secs(1000);
        table.resume(now);
        let snapshot = table.snapshot(now).expect("the first snapshot is always new");
        World { table, now, snapshot }
    }

    /// Registers what `line` says: `host:port uri[,uri…] [key=value…]`.
    fn register(&mut self, line: &str) -> Changes {
        let mut changes = Changes::default();
        self.table.register(&registration(line), self.now, &mut changes);
        changes
    }

    fn unregister(&mut self, line: &str) -> Changes {
        let mut changes = Changes::default();
        self.table.unregister(&registration(line), self.now, &mut changes);
        changes
    }

    /// A heartbeat: keys of the message, then one droplet a line, all in JSON without the outer braces.
    fn beat(&mut self, keys: &str, droplets: &str) -> (Heard, Changes) {
        let droplets: Vec<String> = droplets.lines().map(|droplet| format!("{{{droplet}}}")).collect();
        let payload = format!(r#"{{"schema":2,{keys},"droplets":[{}]}}"#, droplets.join(","));
        let heartbeat = Heartbeat::decode(payload.as_bytes()).expect("a good heartbeat");
        let mut changes = Changes::default();
        let (heard, _) = self.table.heartbeat(&heartbeat, self.now, &mut changes);
        (heard, changes)
    }

    fn wait(&mut self, seconds: f64) -> Changes {
        self.now = self.now + Duration::from_secs_f64(seconds);
        let mut changes = Changes::default();
        self.table.prune(self.now, &mut changes);
        self.table.sweep(self.now);
        changes
    }

    fn configure(&mut self, settings: TableSettings, routes: &[ConfiguredRoute]) -> Changes {
        let mut changes = Changes::default();
        self.table.configure(settings, routes, self.now, &mut changes);
        changes
    }

    /// Whether workers get to see something new.
    fn publish(&mut self) -> bool {
        let new = self.table.snapshot(self.now);
        let is_new = new.is_some();
        self.snapshot = new.unwrap_or(self.snapshot.clone());
        is_new
    }

    fn pool(&mut self, url: &str) -> Option<Arc<Pool>> {
        self.publish();
        match lookup(&self.snapshot, url) {
            Found::Pool(pool) | Found::Empty(pool) => Some(pool.clone()),
            Found::Nothing => None,
        }
    }

    fn endpoint(&mut self, url: &str) -> Arc<Endpoint> {
        self.pool(url).and_then(|pool| pool.endpoints.first().cloned()).expect("somebody serves it")
    }

    /// The addresses that serve `url`, in order; `empty` or `nothing`.
    fn find(&mut self, url: &str) -> String {
        self.publish();
        shown(lookup(&self.snapshot, url))
    }

    #[track_caller]
    fn check(&mut self, url: &str, expected: &str) {
        assert_eq!(self.find(url), expected, "{url}");
    }
}

fn lookup<'a>(snapshot: &'a Snapshot, url: &str) -> Found<'a> {
    let (host, path) = url.split_at(url.find('/').unwrap_or(url.len()));
    snapshot.lookup(host, path)
}

fn shown(found: Found) -> String {
    match found {
        Found::Pool(pool) => {
            pool.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>().join(" ")
        }
        Found::Empty(_) => "empty".to_owned(),
        Found::Nothing => "nothing".to_owned(),
    }
}

fn registration(line: &str) -> Registration {
    let mut words = line.split(' ');
    let (host, port) = words.next().and_then(|word| word.rsplit_once(':')).expect("host:port");
    let uris = words.next().expect("uris");
    let mut made = Registration::at(Address::new(host, port.parse().expect("a port")));
    made.uris = uris.split(',').map(|uri| RouteUri::parse(uri).expect("a good route")).collect();
    for (key, value) in words.map(|word| word.split_once('=').unwrap_or((word, ""))) {
        match key {
            "app" => made.facts.app = AppId::new(value),
            "id" => made.facts.instance = InstanceId::new(value),
            "index" => made.facts.index = value.into(),
            "dea" => made.facts.agent = Some(AgentId::new(value)),
            "zone" => made.facts.zone = value.into(),
            "segment" => made.facts.isolation_segment = value.into(),
            "lease" => made.lease = Some(Duration::from_secs(value.parse().expect("seconds"))),
            "strategy" => made.strategy = Some(value.parse().expect("a strategy")),
            "tls" => made.facts.tls = Some(Tls { server_name: value.into() }),
            _ => panic!("{key} is no key of a registration"),
        }
    }
    made
}

fn configured(uri: &str, settings: RouteSettings, instances: &[&str]) -> ConfiguredRoute {
    let instance = |address: &&str| registration(&format!("{address} {uri}"));
    ConfiguredRoute {
        uri: RouteUri::parse(uri).expect("a good route"),
        settings: Arc::new(settings),
        instances: instances.iter().map(instance).collect(),
    }
}

fn departures(changes: &Changes) -> Vec<(Departure, String)> {
    changes.left.iter().map(|(why, endpoint)| (*why, endpoint.address.to_string())).collect()
}

// Registration and leases

#[test]
fn instances_of_a_route_stand_in_order_of_registration() {
    let mut world = World::new();
    world.register("10.0.0.2:80 shop.test,www.shop.test");
    world.register("10.0.0.1:80 shop.test");
    world.check("shop.test", "10.0.0.2:80 10.0.0.1:80");
    world.check("www.shop.test", "10.0.0.2:80");
    assert_eq!((world.snapshot.routes(), world.snapshot.endpoints()), (2, 3));
}

#[test]
fn routes_of_one_instance_share_one_endpoint() {
    let mut world = World::new();
    world.register("10.0.0.1:80 a.test,b.test id=one");
    assert!(Arc::ptr_eq(&world.endpoint("a.test"), &world.endpoint("b.test")));
    world.register("10.0.0.1:80 c.test id=one zone=z1");
    assert!(!Arc::ptr_eq(&world.endpoint("a.test"), &world.endpoint("c.test")), "what is known of it on c differs");
    assert!(Arc::ptr_eq(&world.endpoint("a.test").live, &world.endpoint("c.test").live));
}

#[test]
fn a_refresh_renews_the_lease_and_publishes_nothing() {
    let mut world = World::new();
    let line = "10.0.0.1:80 shop.test,b.test app=shop id=a index=0 zone=z1 lease=60";
    world.register(line);
    world.publish();
    for _ in 0..5 {
        world.wait(50.0);
        let changes = world.register(line);
        assert!(changes.arrived.is_empty() && changes.left.is_empty());
        assert!(!world.publish(), "a refresh is nothing new for workers");
    }
    world.check("shop.test", "10.0.0.1:80");
    let left = departures(&world.wait(60.0));
    assert_eq!(left, [(Departure::Pruned, "10.0.0.1:80".to_owned()), (Departure::Pruned, "10.0.0.1:80".to_owned())]);
    world.check("shop.test", "empty");
}

#[test]
fn a_lease_runs_out_on_time_and_not_before() {
    let mut world = World::new();
    world.register("10.0.0.1:80 shop.test lease=5");
    world.wait(4.999);
    world.check("shop.test", "10.0.0.1:80");
    world.wait(0.001);
    world.check("shop.test", "empty");
}

#[test]
fn a_lease_above_the_routers_own_is_cut_down_to_it() {
    for line in ["10.0.0.1:80 shop.test", "10.0.0.1:80 shop.test lease=100000"] {
        let mut world = World::new();
        world.register(line);
        world.wait(119.0);
        world.check("shop.test", "10.0.0.1:80");
        world.wait(1.0);
        world.check("shop.test", "empty");
    }
}

#[test]
fn endpoints_know_their_lease() {
    let mut world = World::new();
    world.register("10.0.0.1:80 shop.test,www.shop.test id=one lease=60");
    world.register("10.0.0.2:80 all.test lease=600");
    let mut seconds = |url| world.endpoint(url).lease_s.map(NonZeroU32::get);
    assert_eq!(["shop.test", "www.shop.test", "all.test"].map(&mut seconds), [Some(60), Some(60), Some(120)]);
    let before = world.endpoint("shop.test");
    world.register("10.0.0.1:80 shop.test id=one lease=30");
    let after = world.endpoint("shop.test");
    assert_eq!(after.lease_s.map(NonZeroU32::get), Some(30));
    assert_eq!(world.endpoint("www.shop.test").lease_s.map(NonZeroU32::get), Some(60));
    assert!(after.serial == before.serial && Arc::ptr_eq(&after.live, &before.live));
    world.configure(TableSettings::default(), &[configured("static.test", RouteSettings::default(), &["10.0.0.3:80"])]);
    assert_eq!(world.endpoint("static.test").lease_s, None);
}

#[test]
fn each_route_has_a_lease_of_its_own() {
    let mut world = World::new();
    world.register("10.0.0.1:80 a.test,b.test");
    for _ in 0..4 {
        world.wait(30.0);
        world.register("10.0.0.1:80 a.test");
    }
    world.check("a.test", "10.0.0.1:80");
    world.check("b.test", "empty");
}

#[test]
fn a_shorter_lease_counts_from_the_registration_that_brings_it() {
    let mut world = World::new();
    world.register("10.0.0.1:80 shop.test lease=100");
    world.register("10.0.0.1:80 shop.test lease=10");
    world.wait(10.0);
    world.check("shop.test", "empty");
}

#[test]
fn tls_endpoints_expire_unless_cloud_foundrys_rule_is_asked_for() {
    let mut world = World::new();
    world.register("10.0.0.1:443 shop.test tls=san");
    world.wait(120.0);
    world.check("shop.test", "empty");

    let mut world = World::with(TableSettings { expire_tls_endpoints: false, ..TableSettings::default() });
    world.register("10.0.0.1:443 shop.test tls=san");
    world.register("10.0.0.1:80 plain.test");
    world.wait(120.0);
    world.wait(100_000.0);
    world.check("shop.test", "10.0.0.1:443");
    world.check("plain.test", "nothing");
    world.unregister("10.0.0.1:443 shop.test");
    world.check("shop.test", "empty");
}

#[test]
fn nobody_is_pruned_while_the_bus_is_away_and_everybody_has_a_full_lease_after() {
    let mut world = World::new();
    world.register("10.0.0.1:80 a.test lease=10");
    world.register("10.0.0.2:80 b.test");
    world.table.suspend();
    world.wait(1000.0);
    world.check("a.test", "10.0.0.1:80");
    assert_eq!(world.table.next_due(), None);
    world.table.resume(world.now);
    world.wait(9.9);
    world.check("a.test", "10.0.0.1:80");
    world.wait(0.1);
    world.check("a.test", "empty");
    world.wait(109.0);
    world.check("b.test", "10.0.0.2:80");
    world.wait(1.0);
    world.check("b.test", "empty");
}

#[test]
fn unregistering_needs_only_the_address_and_the_routes() {
    let mut world = World::new();
    world.register("10.0.0.1:80 a.test,b.test app=shop id=one zone=z");
    world.register("10.0.0.2:80 a.test app=shop id=two");
    let left = world.unregister("10.0.0.1:80 A.test,unknown.test");
    assert_eq!(departures(&left), [(Departure::Unregistered, "10.0.0.1:80".to_owned())]);
    world.check("a.test", "10.0.0.2:80");
    world.check("b.test", "10.0.0.1:80");
    world.unregister("10.0.0.9:80 a.test");
    world.check("a.test", "10.0.0.2:80");
}

#[test]
fn a_registration_after_an_unregistration_counts() {
    let mut world = World::new();
    world.register("10.0.0.1:80 a.test,b.test id=one");
    world.unregister("10.0.0.1:80 a.test");
    world.register("10.0.0.1:80 a.test,b.test id=one");
    world.check("a.test", "10.0.0.1:80");
}

#[test]
fn what_changes_about_an_instance_is_published_without_resetting_it() {
    let mut world = World::new();
    world.register("10.0.0.1:80 shop.test id=one zone=z1");
    let before = world.endpoint("shop.test");
    before.live.begin();
    world.register("10.0.0.1:80 shop.test id=one zone=z2");
    let after = world.endpoint("shop.test");
    assert_eq!((&*before.zone, &*after.zone), ("z1", "z2"));
    assert_eq!(after.live.open(), 1);
    assert_eq!(before.serial, after.serial, "connections to it are still good");
    world.register("10.0.0.1:80 shop.test id=one tls=san");
    assert_ne!(world.endpoint("shop.test").serial, after.serial, "connections without TLS are not");
}

#[test]
fn another_instance_at_the_same_address_is_a_new_endpoint() {
    for (first, second) in [("app=shop id=one", "app=shop id=two"), ("app=shop", "app=blog")] {
        let mut world = World::new();
        world.register(&format!("10.0.0.1:80 shop.test,other.test {first}"));
        let before = world.endpoint("shop.test");
        before.live.begin();
        let changes = world.register(&format!("10.0.0.1:80 shop.test {second}"));
        assert_eq!(departures(&changes), [(Departure::Replaced, "10.0.0.1:80".to_owned())]);
        let after = world.endpoint("shop.test");
        assert_eq!(after.live.open(), 0);
        assert_ne!(before.serial, after.serial);
        world.check("shop.test", "10.0.0.1:80");
        // Identity is a matter of each route.
        assert_eq!(world.endpoint("other.test").instance, before.instance);
    }
}

#[test]
fn a_message_that_knows_less_is_about_the_same_instance() {
    let mut world = World::new();
    world.register("10.0.0.1:80 shop.test");
    world.endpoint("shop.test").live.begin();
    world.register("10.0.0.1:80 shop.test app=shop id=one");
    assert_eq!(world.endpoint("shop.test").live.open(), 1);
    assert_eq!(world.endpoint("shop.test").instance, InstanceId::new("one"));
    assert_eq!(world.table.instances(), 1);
}

#[test]
fn the_context_path_keeps_the_case_first_registered() {
    let mut world = World::new();
    world.register("10.0.0.1:80 a.test/Cart,a.test");
    world.register("10.0.0.2:80 a.test/CART");
    assert_eq!(&*world.pool("a.test/cart/x").expect("a pool").context_path, "/Cart");
    assert_eq!(&*world.pool("a.test").expect("a pool").context_path, "/");
}

#[test]
fn a_route_without_routes_or_of_another_segment_changes_nothing() {
    let settings = TableSettings { isolation: Isolation::Segments(vec!["blue".into()]), ..TableSettings::default() };
    let mut world = World::with(settings);
    world.register("10.0.0.1:80 a.test");
    world.register("10.0.0.1:80 b.test segment=red");
    world.register("10.0.0.1:80 c.test segment=blue");
    let mut nothing = registration("10.0.0.1:80 d.test segment=blue");
    nothing.uris.clear();
    assert_eq!(world.table.register(&nothing, world.now, &mut Changes::default()), Heard::Ignored);
    let found: Vec<String> = ["a.test", "b.test", "c.test", "d.test"].iter().map(|url| world.find(url)).collect();
    assert_eq!(found, ["nothing", "nothing", "10.0.0.1:80", "nothing"]);
}

#[test]
fn the_strategy_is_the_routes_then_the_last_registrations_then_the_routers() {
    let mut world = World::with(TableSettings { strategy: Strategy::P2c, ..TableSettings::default() });
    world.register("10.0.0.1:80 shop.test");
    assert_eq!(world.pool("shop.test").expect("a pool").strategy, Strategy::P2c);
    world.register("10.0.0.2:80 shop.test strategy=hash");
    assert_eq!(world.pool("shop.test").expect("a pool").strategy, Strategy::Hash);
    world.register("10.0.0.3:80 shop.test strategy=random");
    assert_eq!(world.pool("shop.test").expect("a pool").strategy, Strategy::Random);
    world.unregister("10.0.0.3:80 shop.test");
    world.register("10.0.0.2:80 shop.test");
    assert_eq!(world.pool("shop.test").expect("a pool").strategy, Strategy::P2c);
    let own = RouteSettings { strategy: Some(Strategy::Weight), ..RouteSettings::default() };
    world.configure(TableSettings::default(), &[configured("shop.test", own, &[])]);
    assert_eq!(world.pool("shop.test").expect("a pool").strategy, Strategy::Weight);
}

#[test]
fn a_full_table_takes_nobody_new_but_renews_who_is_there() {
    let mut world = World::with(TableSettings { endpoints_max: 3, agents_max: 1, ..TableSettings::default() });
    world.register("10.0.0.1:80 a.test,b.test dea=d1");
    let heard =
        |world: &mut World, line: &str| world.table.register(&registration(line), world.now, &mut Changes::default());
    assert_eq!(heard(&mut world, "10.0.0.2:80 a.test,b.test"), Heard::Full);
    assert_eq!(heard(&mut world, "10.0.0.2:80 a.test dea=d2"), Heard::Applied, "that it has an agent is not learnt");
    assert_eq!(heard(&mut world, "10.0.0.3:80 a.test"), Heard::Full);
    assert_eq!(heard(&mut world, "10.0.0.1:80 a.test,b.test,c.test"), Heard::Full);
    assert_eq!(heard(&mut world, "10.0.0.1:80 a.test,b.test dea=d1"), Heard::Applied);
    assert_eq!(world.beat(r#""dea":"d2""#, "").0, Heard::Full);
    let new = r#""port":80,"host":"10.0.0.9","uris":["a.test"]"#;
    assert_eq!(world.beat(r#""dea":"d1""#, new).0, Heard::Full);
    let known = new.replace("10.0.0.9", "10.0.0.1");
    assert_eq!(world.beat(r#""dea":"d1""#, &known).0, Heard::Applied);
    world.check("a.test", "10.0.0.1:80 10.0.0.2:80");
}

// Routes without instances

#[test]
fn a_route_whose_last_instance_left_is_known_for_a_while() {
    let mut world = World::new();
    world.register("10.0.0.1:80 shop.test");
    world.wait(10.0);
    world.unregister("10.0.0.1:80 shop.test");
    world.check("shop.test", "empty");
    world.wait(29.9);
    world.check("shop.test", "empty");
    world.wait(0.2);
    world.check("shop.test", "nothing");
    assert_eq!((world.table.routes(), world.table.instances()), (0, 0));
}

#[test]
fn a_route_that_comes_and_goes_is_forgotten_after_it_went_last() {
    let mut world = World::new();
    for _ in 0..10 {
        world.register("10.0.0.1:80 shop.test");
        world.unregister("10.0.0.1:80 shop.test");
        world.wait(7.0);
        world.check("shop.test", "empty");
    }
    world.wait(23.1);
    world.check("shop.test", "nothing");
    world.wait(120.0);
    assert_eq!(world.table.next_due(), None, "nothing is left to look after");
}

#[test]
fn with_gorouters_rule_a_route_without_instances_is_unknown_at_once() {
    let mut world = World::with(TableSettings { keep_empty: Duration::ZERO, ..TableSettings::default() });
    world.register("10.0.0.1:80 shop.test");
    world.check("shop.test", "10.0.0.1:80");
    world.unregister("10.0.0.1:80 shop.test");
    world.check("shop.test", "nothing");
}

// Configured routes

#[test]
fn routes_of_the_configuration_never_expire_and_are_known_without_instances() {
    let mut world = World::new();
    let routes = [
        configured("static.test", RouteSettings::default(), &["10.0.0.1:80", "10.0.0.2:80"]),
        configured("hollow.test", RouteSettings::default(), &[]),
    ];
    world.configure(TableSettings::default(), &routes);
    world.wait(100_000.0);
    world.check("static.test", "10.0.0.1:80 10.0.0.2:80");
    world.check("hollow.test", "empty");
    world.unregister("10.0.0.1:80 static.test");
    world.check("static.test", "10.0.0.1:80 10.0.0.2:80");
}

#[test]
fn others_may_register_for_a_configured_route_but_not_displace_its_instances() {
    let mut world = World::new();
    world.configure(TableSettings::default(), &[configured("static.test", RouteSettings::default(), &["10.0.0.1:80"])]);
    world.register("10.0.0.2:80 static.test app=shop");
    world.register("10.0.0.1:80 static.test app=shop");
    world.check("static.test", "10.0.0.1:80 10.0.0.2:80");
    world.wait(120.0);
    world.check("static.test", "10.0.0.1:80");
}

#[test]
fn a_reload_changes_what_differs_and_resets_nothing() {
    let mut world = World::new();
    let before = [
        configured("a.test", RouteSettings::default(), &["10.0.0.1:80", "10.0.0.2:80"]),
        configured("b.test", RouteSettings::default(), &["10.0.0.3:80"]),
    ];
    world.configure(TableSettings::default(), &before);
    let fleet = world.pool("a.test").expect("a pool").fleet.clone();
    let endpoint = world.endpoint("a.test");
    world.configure(TableSettings::default(), &before);
    assert!(!world.publish(), "nothing changed");
    let limited = RouteSettings { max_conns: Some(5), ..RouteSettings::default() };
    let changes = world.configure(TableSettings::default(), &[configured("a.test", limited, &["10.0.0.1:80"])]);
    assert_eq!(departures(&changes).len(), 2);
    let after = world.pool("a.test").expect("a pool");
    assert_eq!(after.max_conns, 5);
    assert!(Arc::ptr_eq(&after.fleet, &fleet));
    assert!(Arc::ptr_eq(&after.endpoints[0], &endpoint));
    world.check("a.test", "10.0.0.1:80");
    world.check("b.test", "empty");
    world.wait(31.0);
    world.check("b.test", "nothing");
}

#[test]
fn new_defaults_reach_every_route() {
    let mut world = World::new();
    world.register("10.0.0.1:80 shop.test");
    world.publish();
    world.configure(TableSettings { max_conns: 9, strategy: Strategy::Random, ..TableSettings::default() }, &[]);
    let pool = world.pool("shop.test").expect("a pool");
    assert_eq!((pool.max_conns, pool.strategy), (9, Strategy::Random));
}

// Sharing between snapshots

#[test]
fn a_change_leaves_old_snapshots_and_other_pools_alone() {
    let mut world = World::new();
    world.register("10.0.0.1:80 a.test");
    world.register("10.0.0.1:81 b.test");
    world.publish();
    let old = world.snapshot.clone();
    let b = world.pool("b.test").expect("a pool");
    world.register("10.0.0.2:80 a.test");
    world.check("a.test", "10.0.0.1:80 10.0.0.2:80");
    assert_eq!(shown(lookup(&old, "a.test")), "10.0.0.1:80");
    assert!(Arc::ptr_eq(&b, &world.pool("b.test").expect("a pool")));
    assert_eq!(world.snapshot.pools().count(), 2);
}

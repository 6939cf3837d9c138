//! What heartbeats do to the table.

use std::sync::Arc;

use super::{World, departures};
use crate::domain::balance::live::State;
use crate::domain::balance::strategy::Strategy;
use crate::domain::endpoint::Endpoint;
use crate::domain::identity::{AgentId, AppId, InstanceId};
use crate::domain::load::Usage;
use crate::domain::protocol::heartbeat::{Exited, Heartbeat, Shutdown};
use crate::domain::table::{Changes, Departure, Heard};

const ENTRY: &str =
    r#""droplet":"shop","private_instance_id":"one","index":0,"state":"RUNNING","port":80,"uris":["shop.test"]"#;

fn keys(seq: u64) -> String {
    format!(
        r#""dea":"d1","boot_id":"b1","seq":{seq},"interval_ms":5000,"host":{{"ip":"10.0.0.5","zone":"z1","load":{{"cpu":0.5}}}}"#
    )
}

#[test]
fn a_heartbeat_with_routes_registers_for_three_intervals() {
    let mut world = World::new();
    world.beat(&keys(1), ENTRY);
    world.check("shop.test", "10.0.0.5:80");
    let endpoint = world.endpoint("shop.test");
    assert_eq!((&*endpoint.index, &*endpoint.zone, endpoint.app.as_str()), ("0", "z1", "shop"));
    world.wait(14.9);
    world.check("shop.test", "10.0.0.5:80");
    world.wait(0.1);
    world.check("shop.test", "empty");
}

#[test]
fn the_lease_of_a_heartbeat_is_at_least_five_seconds_and_at_most_the_routers_threshold() {
    for (interval, lease) in [(100, 5.0), (1000, 5.0), (2000, 6.0), (60_000, 120.0)] {
        let mut world = World::new();
        world.beat(&keys(1).replace("5000", &interval.to_string()), ENTRY);
        world.wait(lease - 0.01);
        world.check("shop.test", "10.0.0.5:80");
        world.wait(0.01);
        world.check("shop.test", "empty");
    }
}

#[test]
fn a_heartbeat_without_routes_updates_load_and_renews_leases_by_id_then_local_id_then_slot() {
    for entry in [
        r#""droplet":"shop","private_instance_id":"one""#,
        r#""droplet":"shop","instance":"one""#,
        r#""droplet":"shop","index":0"#,
        r#""droplet":"shop","instance":"local","index":0"#,
    ] {
        let mut world = World::new();
        world.register("10.0.0.5:80 shop.test,b.test app=shop id=one index=0 dea=d1");
        world.publish();
        world.wait(100.0);
        world.beat(&keys(1), &format!(r#"{entry},"load":{{"cpu":0.25}}"#));
        assert!(!world.publish(), "load alone is nothing new for workers");
        let heard = world.endpoint("shop.test").live.heard().expect("a report");
        let cpu = |usage: Usage| usage.cpu.map(|share| share.get());
        assert_eq!((cpu(heard.instance), cpu(heard.host)), (Some(0.25), Some(0.5)), "{entry}");
        world.wait(100.0);
        world.check("shop.test", "10.0.0.5:80");
        world.check("b.test", "10.0.0.5:80");
    }
}

#[test]
fn an_entry_is_not_about_an_instance_with_another_id() {
    for entry in [
        r#""droplet":"shop","private_instance_id":"two","index":0"#,
        r#""droplet":"shop","private_instance_id":"two","instance":"one","index":0"#,
        r#""droplet":"blog","index":0"#,
        r#""droplet":"shop","index":1"#,
    ] {
        let mut world = World::new();
        world.register("10.0.0.5:80 shop.test app=shop id=one index=0 dea=d1");
        world.wait(100.0);
        world.beat(&keys(1), entry);
        world.wait(20.0);
        world.check("shop.test", "empty");
    }
}

#[test]
fn an_entry_with_an_empty_list_of_routes_renews_nothing() {
    let mut world = World::new();
    world.register("10.0.0.5:80 shop.test app=shop id=one");
    world.wait(100.0);
    world.beat(&keys(1), r#""private_instance_id":"one","uris":[],"port":80"#);
    world.wait(20.0);
    world.check("shop.test", "empty");
}

#[test]
fn a_route_that_is_named_no_more_runs_out_though_heartbeats_go_on() {
    let mut world = World::new();
    world.register("10.0.0.5:80 a.test,b.test app=shop id=one");
    for seq in 1..13 {
        world.wait(20.0);
        world.register("10.0.0.5:80 a.test app=shop id=one");
        world.beat(&keys(seq), r#""private_instance_id":"one""#);
    }
    world.check("a.test", "10.0.0.5:80");
    world.check("b.test", "empty");
    for seq in 13..30 {
        world.wait(20.0);
        world.beat(&keys(seq), r#""private_instance_id":"one""#);
    }
    world.check("a.test", "10.0.0.5:80");
}

#[test]
fn states_decide_who_is_picked() {
    let mut world = World::new();
    for (no, (state, expected)) in [
        ("STARTING", Some(State::Starting)),
        ("RUNNING", Some(State::Running)),
        ("DRAINING", Some(State::Draining)),
        ("STOPPING", Some(State::Draining)),
        ("EVACUATING", Some(State::Draining)),
        ("RUNNING", Some(State::Running)),
        ("CRASHED", None),
        ("RUNNING", Some(State::Running)),
        ("STOPPED", None),
    ]
    .into_iter()
    .enumerate()
    {
        world.beat(&keys(no as u64 + 1), &ENTRY.replace("RUNNING", state));
        let pool = world.pool("shop.test").expect("a pool");
        assert_eq!(pool.endpoints.first().map(|endpoint| endpoint.live.state()), expected, "{no} {state}");
    }
}

#[test]
fn an_instance_that_runs_after_starting_is_told() {
    let mut world = World::new();
    world.beat(&keys(1), &ENTRY.replace("RUNNING", "STARTING"));
    let (_, changes) = world.beat(&keys(2), ENTRY);
    assert_eq!(changes.started.len(), 1);
    let (_, changes) = world.beat(&keys(3), ENTRY);
    assert_eq!(changes.started.len(), 0);
}

#[test]
fn an_instance_left_out_of_a_later_heartbeat_is_removed_at_once() {
    let mut world = World::new();
    let other = ENTRY.replace("one", "two").replace(":80", ":81");
    world.beat(&keys(1), &format!("{ENTRY}\n{other}"));
    world.register("10.0.0.5:99 shop.test id=three dea=d1");
    world.check("shop.test", "10.0.0.5:80 10.0.0.5:81 10.0.0.5:99");
    let (_, changes) = world.beat(&keys(2), ENTRY);
    assert_eq!(departures(&changes), [(Departure::LeftOut, "10.0.0.5:81".to_owned())]);
    world.check("shop.test", "10.0.0.5:80 10.0.0.5:99");
}

#[test]
fn a_legacy_heartbeat_is_not_complete() {
    let mut world = World::new();
    world.register("10.0.0.5:80 shop.test id=one");
    let legacy = |droplets: &str| {
        Heartbeat::decode(format!(r#"{{"dea":"d1","droplets":[{droplets}]}}"#).as_bytes()).expect("a good heartbeat")
    };
    let mut changes = Changes::default();
    let entry = legacy(
        r#"{"droplet":"shop","version":"v","instance":"one","index":0,"state":"RUNNING","state_timestamp":1.5,"cc_partition":"default"}"#,
    );
    assert_eq!(world.table.heartbeat(&entry, world.now, &mut changes).0, Heard::Applied);
    world.table.heartbeat(&legacy(""), world.now, &mut changes);
    assert!(changes.left.is_empty());
    world.check("shop.test", "10.0.0.5:80");
}

#[test]
fn old_and_repeated_heartbeats_are_stale() {
    let mut world = World::new();
    world.beat(&keys(5), ENTRY);
    for seq in [5, 4] {
        assert_eq!(world.beat(&keys(seq), "").0, Heard::Ignored);
    }
    world.check("shop.test", "10.0.0.5:80");
    world.beat(&keys(6), "");
    world.check("shop.test", "empty");
}

#[test]
fn a_new_life_of_an_agent_replaces_all_it_said_before() {
    let mut world = World::new();
    let other = ENTRY.replace("one", "two").replace(":80", ":81");
    world.beat(&keys(100), &format!("{ENTRY}\n{other}"));
    let reborn = keys(1).replace("b1", "b2");
    let (_, changes) = world.beat(&reborn, ENTRY);
    assert_eq!(departures(&changes), [(Departure::LeftOut, "10.0.0.5:81".to_owned())]);
    assert_eq!(world.beat(&keys(101), "").0, Heard::Ignored, "a late message of the former life");
    world.check("shop.test", "10.0.0.5:80");
}

#[test]
fn a_registrations_facts_stand_against_a_heartbeats() {
    let mut world = World::new();
    world.register("10.0.0.5:80 shop.test app=shop id=one strategy=hash");
    world.publish();
    world.beat(&keys(1), ENTRY);
    assert!(!world.publish(), "the heartbeat says less, so it changes nothing");
    assert_eq!(world.pool("shop.test").expect("a pool").strategy, Strategy::Hash);
    world.wait(119.0);
    world.check("shop.test", "10.0.0.5:80");
}

#[test]
fn the_load_of_a_host_reaches_all_that_run_there() {
    let mut world = World::new();
    world.register("10.0.0.5:90 b.test dea=d1");
    world.beat(&keys(1), ENTRY);
    let host_cpu =
        |endpoint: Arc<Endpoint>| endpoint.live.heard().and_then(|heard| heard.host.cpu).map(|cpu| cpu.get());
    assert_eq!(host_cpu(world.endpoint("b.test")), Some(0.5));
    assert_eq!(host_cpu(world.endpoint("shop.test")), Some(0.5));
}

#[test]
fn an_agent_that_shuts_down_drains_all_its_instances_until_its_next_life() {
    let mut world = World::new();
    world.beat(&keys(1), ENTRY);
    world.register("10.0.0.5:90 b.test dea=d1");
    world.register("10.0.0.6:90 c.test dea=d2");
    let shutdown = Shutdown { agent: AgentId::new("d1") };
    assert_eq!(world.table.shutdown(&shutdown, world.now, &mut Changes::default()), Heard::Applied);
    world.beat(&keys(2), ENTRY);
    let states = |world: &mut World| ["shop.test", "b.test", "c.test"].map(|url| world.endpoint(url).live.state());
    assert_eq!(states(&mut world), [State::Draining, State::Draining, State::Running]);
    world.beat(&keys(1).replace("b1", "b2"), ENTRY);
    assert_eq!(world.endpoint("shop.test").live.state(), State::Running);
    let unknown = Shutdown { agent: AgentId::new("d9") };
    assert_eq!(world.table.shutdown(&unknown, world.now, &mut Changes::default()), Heard::Ignored);
}

#[test]
fn an_exited_instance_is_removed_at_once() {
    let exited = |app: &str, instance: &str, index: Option<u64>| Exited {
        app: AppId::new(app),
        instance: InstanceId::new(instance),
        index,
        reason: "CRASHED".to_owned(),
    };
    for (message, expected) in [
        (exited("shop", "one", Some(0)), "10.0.0.5:81"),
        (exited("shop", "local", None), "10.0.0.5:81"),
        (exited("shop", "", Some(1)), "10.0.0.5:80"),
        (exited("shop", "unknown", Some(7)), "10.0.0.5:80 10.0.0.5:81"),
        (exited("blog", "", Some(0)), "10.0.0.5:80 10.0.0.5:81"),
    ] {
        let mut world = World::new();
        world.beat(&keys(1), &ENTRY.replace(r#""index""#, r#""instance":"local","index""#));
        world.register("10.0.0.5:81 shop.test app=shop id=two index=1");
        world.table.exited(&message, world.now, &mut Changes::default());
        world.check("shop.test", expected);
    }
}

#[test]
fn agents_that_are_long_gone_are_forgotten() {
    let mut world = World::new();
    world.beat(&keys(1), ENTRY);
    for _ in 0..20 {
        world.wait(20.0);
    }
    assert_eq!(world.table.agents().len(), 1);
    for _ in 0..40 {
        world.wait(20.0);
    }
    assert_eq!(world.table.agents().len(), 0);
}

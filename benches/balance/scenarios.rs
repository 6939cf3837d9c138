//! The worlds.

use super::model::{Antagonist, Bursts, Change, Host, Instance, Scenario, Work};

/// All of them, in the order of the table.
pub fn all() -> Vec<Scenario> {
    vec![
        equal_hosts(),
        unequal_hosts(),
        antagonists(),
        one_slow_instance(),
        uneven_instances_per_host(),
        bursts(),
        heavy_tail(),
        rolling_restart(),
        mixed_small_apps(),
        black_hole(),
        dead_host(),
        silent_host(),
        hanging_instance(),
        big_pool(),
        streams(),
        slow_heartbeats(),
        heartbeats_stop(),
        six_routers(),
        overload(),
        two_instances(),
    ]
}

/// Sixteen equal hosts.
pub fn equal_hosts() -> Scenario {
    Scenario::new("equal hosts", vec![Host::of_speed(1.0); 16])
}

/// Four generations of machines.
pub fn unequal_hosts() -> Scenario {
    let speeds = [0.25, 0.5, 1.0, 2.0];
    let hosts = (0..16).map(|i| Host::of_speed(speeds[i % 4])).collect();
    Scenario { utilisation: 0.8, ..Scenario::new("unequal hosts", hosts) }
}

/// Half of the hosts also work for others, now and then, on most of their cores.
pub fn antagonists() -> Scenario {
    let antagonist = Some(Antagonist { share: 0.75, on: 60.0, off: 20.0 });
    let host = |i: usize| Host { antagonist: antagonist.filter(|_| i.is_multiple_of(2)), ..Host::of_speed(1.0) };
    Scenario { utilisation: 0.6, ..Scenario::new("antagonists", (0..16).map(host).collect()) }
}

/// One instance of four needs eight times the CPU for a request.
pub fn one_slow_instance() -> Scenario {
    let mut scenario = Scenario::new("one slow instance", vec![Host::of_speed(1.0); 4]);
    scenario.instances[3].cost = 8.0;
    Scenario { utilisation: 0.65, ..scenario }
}

/// One to four instances of the app on a host.
pub fn uneven_instances_per_host() -> Scenario {
    let instances = (0..16).flat_map(|host| vec![Instance { host, app: 0, cost: 1.0 }; 1 + host % 4]).collect();
    Scenario { instances, ..Scenario::new("uneven instances", vec![Host::of_speed(1.0); 16]) }
}

/// One second in five brings more than the hosts can do.
pub fn bursts() -> Scenario {
    let bursts = Some(Bursts { factor: 2.0, on: 1.0, off: 4.0 });
    Scenario { bursts, utilisation: 0.6, ..Scenario::new("bursts", equal_hosts().hosts) }
}

/// Few requests make most of the work.
pub fn heavy_tail() -> Scenario {
    Scenario { work: Work::LogNormal(1.6), ..Scenario::new("heavy tail", equal_hosts().hosts) }
}

/// Instance after instance drains, leaves, and comes back cold: at first a request costs four times as much.
pub fn rolling_restart() -> Scenario {
    let mut changes = Vec::new();
    for instance in 0..12 {
        let at = 20.0 + 3.0 * instance as f64;
        changes.push((at, Change::Drains(instance)));
        changes.push((at + 1.5, Change::Costs(instance, 4.0)));
        changes.push((at + 2.0, Change::Starts(instance)));
        changes.push((at + 6.0, Change::Costs(instance, 1.0)));
    }
    Scenario { changes, utilisation: 0.65, ..Scenario::new("rolling restart", vec![Host::of_speed(1.0); 12]) }
}

/// Twelve apps of two to five instances on the same unequal hosts, some of which work for others too.
pub fn mixed_small_apps() -> Scenario {
    let host = |i: usize| {
        let antagonist = Some(Antagonist { share: 0.75, on: 15.0, off: 30.0 }).filter(|_| i.is_multiple_of(4));
        Host { antagonist, ..Host::of_speed([1.0, 1.0, 0.5, 2.0][i % 4]) }
    };
    let instance = |(app, copy): (usize, usize)| Instance { host: (app * 5 + copy * 7) % 16, app, cost: 1.0 };
    let copies = (0..12).flat_map(|app| (0..2 + app % 4).map(move |copy| (app, copy)));
    Scenario {
        instances: copies.map(instance).collect(),
        utilisation: 0.45,
        ..Scenario::new("mixed small apps", (0..16).map(host).collect())
    }
}

/// One instance of twelve begins to answer 503 at once.
pub fn black_hole() -> Scenario {
    let changes = vec![(25.0, Change::TurnsBlackHole(5))];
    Scenario { changes, utilisation: 0.6, ..Scenario::new("black hole", vec![Host::of_speed(1.0); 12]) }
}

/// One instance of eight dies and refuses connections, and comes back half a minute later.
pub fn dead_host() -> Scenario {
    let changes = vec![(25.0, Change::Dies(2)), (50.0, Change::Recovers(2))];
    Scenario { changes, utilisation: 0.6, ..Scenario::new("dead instance", vec![Host::of_speed(1.0); 8]) }
}

/// One machine of eight vanishes: connections to it time out.
pub fn silent_host() -> Scenario {
    let changes = vec![(25.0, Change::Vanishes(2)), (50.0, Change::Recovers(2))];
    Scenario { changes, utilisation: 0.6, ..Scenario::new("silent host", vec![Host::of_speed(1.0); 8]) }
}

/// One instance of eight takes requests and never answers, and clients give up after three seconds; little is asked
/// for, so that nobody has much in flight.
pub fn hanging_instance() -> Scenario {
    let changes = vec![(22.0, Change::Hangs(2))];
    let scenario = Scenario::new("hanging instance", vec![Host::of_speed(1.0); 8]);
    Scenario { changes, patience: Some(3.0), utilisation: 0.02, measured: 200.0, ..scenario }
}

/// Two hundred hosts of two speeds: more than a pick looks at.
pub fn big_pool() -> Scenario {
    let hosts = (0..200).map(|i| Host::of_speed(if i % 2 == 0 { 1.0 } else { 0.4 })).collect();
    Scenario { warm_up: 15.0, measured: 10.0, ..Scenario::new("big pool", hosts) }
}

/// One response in a hundred goes on for half a minute, at no cost.
pub fn streams() -> Scenario {
    Scenario { streams: Some((0.01, 30.0)), warm_up: 40.0, ..Scenario::new("streams", unequal_hosts().hosts) }
}

/// Unequal hosts, heartbeats twice a minute.
pub fn slow_heartbeats() -> Scenario {
    Scenario { heartbeat: 30.0, warm_up: 40.0, ..Scenario::new("slow heartbeats", unequal_hosts().hosts) }
}

/// Unequal hosts, and no heartbeat any more from the moment that is measured.
pub fn heartbeats_stop() -> Scenario {
    let changes = vec![(20.0, Change::HeartbeatsStop)];
    Scenario { changes, ..Scenario::new("heartbeats stop", unequal_hosts().hosts) }
}

/// Unequal hosts, six routers that know nothing of each other.
pub fn six_routers() -> Scenario {
    Scenario { routers: 6, ..Scenario::new("six routers", unequal_hosts().hosts) }
}

/// More work than the hosts can do, for a while.
pub fn overload() -> Scenario {
    let bursts = Some(Bursts { factor: 1.6, on: 5.0, off: 15.0 });
    Scenario { bursts, utilisation: 0.75, ..Scenario::new("overload", equal_hosts().hosts) }
}

/// The smallest pool that can be balanced, on unequal hosts.
pub fn two_instances() -> Scenario {
    let hosts = vec![Host::of_speed(1.0), Host::of_speed(0.5)];
    Scenario { utilisation: 0.6, measured: 200.0, ..Scenario::new("two instances", hosts) }
}

//! What the control plane and the look-up cost at scale. Planned for: 100,000 routes, 250,000 endpoints, 50,000 instance
//! reports a second on a quarter of a core.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use weighbridge::domain::dice::Dice;
use weighbridge::domain::endpoint::Facts;
use weighbridge::domain::identity::{Address, AgentId, AppId, InstanceId};
use weighbridge::domain::load::{Share, Usage};
use weighbridge::domain::moment::Moment;
use weighbridge::domain::protocol::heartbeat::{Entry, EntryState, Heartbeat, Serves};
use weighbridge::domain::protocol::register::Registration;
use weighbridge::domain::protocol::route_uri::RouteUri;
use weighbridge::domain::table::settings::TableSettings;
use weighbridge::domain::table::snapshot::Snapshot;
use weighbridge::domain::table::{Changes, RouteTable};
use weighbridge::domain::tags::Tags;
use weighbridge::domain::wake::LiveApps;
use weighbridge::telemetry::metrics::{BusCounts, Metrics};

const NOW: Moment = Moment::from_nanos(1_000_000_000);
/// Instances a host agent runs.
const PER_AGENT: usize = 50;
/// Keys tried in turn: too many for the caches to know.
const TRIED: usize = 1 << 16;

pub fn host(route: usize) -> String {
    format!("app-{route}.apps.example.com")
}

fn usage(dice: &mut Dice) -> Usage {
    let mut share = || Share::reported(dice.share());
    Usage { cpu: share(), mem: share(), io: share(), net: share() }
}

/// An instance of a route as a platform registers it.
fn registration(route: usize, instance: usize, dice: &mut Dice) -> Registration {
    let agent = instance / PER_AGENT;
    let address = Address::new(
        &format!("10.{}.{}.{}", agent >> 16, agent >> 8 & 255, agent & 255),
        61_000 + (instance % PER_AGENT) as u16,
    );
    let guid = |n: usize| format!("0b2c7d9e-41f5-4a57-{:04x}-{:012x}", n >> 16 & 0xffff, n);
    let (app, id) = (guid(route), guid(instance + 1_000_000_000));
    let tags = [("component", "app"), ("process_type", "web"), ("process_id", &*app), ("source_id", &*app)];
    Registration {
        facts: Facts {
            app: AppId::new(&app),
            instance: InstanceId::new(&id),
            index: (instance % 3).to_string().into(),
            agent: Some(AgentId::new(&format!("dea-{agent}"))),
            zone: "z1".into(),
            tags: Tags::new(tags),
            ..Facts::at(address.clone())
        },
        uris: vec![RouteUri::parse(&host(route)).expect("a good route")],
        load: usage(dice),
        host_load: usage(dice),
        ..Registration::at(address)
    }
}

/// Routes with two and three instances in turn.
fn instances(routes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..routes).flat_map(|route| (0..2 + route % 2).map(move |nth| (route, route * 5 / 2 + nth)))
}

pub fn table(routes: usize) -> RouteTable {
    let mut table = RouteTable::new(TableSettings::default(), 42);
    table.resume(NOW);
    let mut dice = Dice::seeded(1);
    for (route, instance) in instances(routes) {
        table.register(&registration(route, instance, &mut dice), NOW, &mut Changes::default());
    }
    table
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Budgets: look-up 150 ns at 100,000 routes; decoding and applying an instance's report 5 µs; refresh 1 µs after decoding.
pub fn control(criterion: &mut Criterion) {
    decode(criterion);
    let before = resident_bytes();
    let mut large = table(100_000);
    let snapshot = large.snapshot(NOW).expect("it is new");
    let bytes = resident_bytes().saturating_sub(before);
    let (routes, endpoints) = (snapshot.routes(), snapshot.endpoints());
    eprintln!("memory: {routes} routes, {endpoints} endpoints: {} bytes each", bytes / (routes + endpoints).max(1));
    look_up(criterion, "100,000", &snapshot);
    scrape(criterion, &snapshot);
    refresh(criterion, &mut large);
    publish(criterion, "100,000", &mut large);
    drop((large, snapshot));
    for (name, routes) in [("100", 100), ("1,000,000", 1_000_000)] {
        let snapshot = table(routes).snapshot(NOW).expect("it is new");
        look_up(criterion, name, &snapshot);
    }
    for (name, routes) in [("1,000", 1_000), ("10,000", 10_000)] {
        publish(criterion, name, &mut table(routes));
    }
}

fn look_up(criterion: &mut Criterion, name: &str, snapshot: &Arc<Snapshot>) {
    let mut group = criterion.benchmark_group("look-up");
    let mut dice = Dice::seeded(2);
    let hosts: Vec<String> = (0..TRIED).map(|_| host(dice.below(snapshot.routes()))).collect();
    let mut next = 0;
    group.bench_function(format!("of {name} routes"), |bencher| {
        bencher.iter(|| {
            next = (next + 1) % TRIED;
            snapshot.lookup(black_box(&hosts[next]), black_box("/cart/items?page=2"))
        });
    });
    group.bench_function(format!("of {name} routes, in vain"), |bencher| {
        bencher.iter(|| snapshot.lookup(black_box("nobody.knows.this.example.org"), black_box("/")));
    });
    group.finish();
}

/// Counting all endpoints for `/metrics`, which the control plane waits for.
fn scrape(criterion: &mut Criterion, snapshot: &Snapshot) {
    let (metrics, apps, bus) = (Metrics::new(1_000), LiveApps::default(), BusCounts::default());
    let mut group = criterion.benchmark_group("scrape");
    group.throughput(Throughput::Elements(snapshot.endpoints() as u64));
    let name = format!("metrics with {} endpoints", snapshot.endpoints());
    group.bench_function(name, |bencher| bencher.iter(|| metrics.text(black_box(snapshot), &apps, &bus, NOW).len()));
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let mut dice = Dice::seeded(3);
    let payload = registration(12_345, 54_321, &mut dice).encode();
    group.throughput(Throughput::Bytes(payload.len() as u64));
    group.bench_function("registration", |bencher| bencher.iter(|| Registration::decode(black_box(&payload)).is_ok()));
    for (name, says_routes) in [("with routes", true), ("without routes", false)] {
        let payload = heartbeat(0, 1, says_routes, &mut dice).encode();
        group.throughput(Throughput::Elements(PER_AGENT as u64));
        group.bench_function(format!("heartbeat of {PER_AGENT} instances {name}"), |bencher| {
            bencher.iter(|| Heartbeat::decode(black_box(&payload)).is_ok());
        });
    }
    group.finish();
}

/// What an agent says about its instances: the first routes' instances run on the first agents.
fn heartbeat(agent: usize, seq: u64, says_routes: bool, dice: &mut Dice) -> Heartbeat {
    let its = (agent * PER_AGENT..(agent + 1) * PER_AGENT).map(|instance| {
        // The inverse of the numbering in `instances`.
        let route = 2 * (instance / 5) + usize::from(instance % 5 >= 2);
        let of_it = registration(route, instance, dice);
        Entry {
            app: of_it.facts.app.clone(),
            instance: of_it.facts.instance.clone(),
            local: InstanceId::default(),
            index: Some((instance % 3) as u64),
            state: EntryState::Running,
            load: of_it.load,
            serves: if says_routes { Serves::Routes(of_it.facts, of_it.uris) } else { Serves::Unsaid },
        }
    });
    let entries = its.collect();
    Heartbeat {
        agent: AgentId::new(&format!("dea-{agent}")),
        complete: true,
        seq: Some(seq),
        boot: "6f".into(),
        sent_at_ns: None,
        interval: Some(Duration::from_secs(5)),
        host: "10.0.0.5".into(),
        zone: "z1".into(),
        load: usage(dice),
        entries,
    }
}

fn refresh(criterion: &mut Criterion, table: &mut RouteTable) {
    let mut group = criterion.benchmark_group("refresh");
    let mut dice = Dice::seeded(4);
    let all: Vec<(usize, usize)> = instances(100_000).collect();
    group.bench_function("a registration among 250,000", |bencher| {
        bencher.iter_batched_ref(
            || {
                let (route, instance) = all[dice.below(all.len())];
                Registration::decode(&registration(route, instance, &mut dice).encode()).expect("it was encoded")
            },
            |said| table.register(said, NOW, &mut Changes::default()),
            // Few at a time: whoever applies a message has just read it.
            BatchSize::NumIterations(16),
        );
    });
    table.snapshot(NOW);
    let mut seq = 0;
    group.throughput(Throughput::Elements(PER_AGENT as u64));
    group.bench_function(format!("by a heartbeat of {PER_AGENT} instances"), |bencher| {
        bencher.iter_batched(
            || {
                seq += 1;
                heartbeat(dice.below(4000), seq, false, &mut dice)
            },
            |beat| table.heartbeat(&beat, NOW, &mut Changes::default()).0,
            BatchSize::SmallInput,
        );
    });
    let mut beats: Vec<Heartbeat> = Vec::new();
    group.bench_function(format!("and weights after heartbeats of {PER_AGENT} instances"), |bencher| {
        bencher.iter_custom(|rounds| {
            let begun = std::time::Instant::now();
            let mut preparing = Duration::ZERO;
            for _ in 0..rounds {
                let prepare = std::time::Instant::now();
                seq += 1;
                beats.clear();
                beats.push(heartbeat(dice.below(4000), seq, false, &mut dice));
                preparing += prepare.elapsed();
                table.heartbeat(&beats[0], NOW, &mut Changes::default());
                assert!(table.snapshot(NOW).is_none(), "a refresh publishes nothing");
            }
            begun.elapsed() - preparing
        });
    });
    group.finish();
}

fn publish(criterion: &mut Criterion, name: &str, table: &mut RouteTable) {
    let mut group = criterion.benchmark_group("publish");
    let mut dice = Dice::seeded(5);
    let mut published = table.snapshot(NOW);
    for changes in [1, 1000] {
        let mut port = 1;
        group.bench_function(format!("{changes} changed of {name} routes"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    for _ in 0..changes {
                        // A new instance takes the place of the last one at the same address.
                        let route = dice.below(1000);
                        port += 1;
                        let mut new = registration(route, 0, &mut dice);
                        new.facts.address = Address::new("192.168.0.1", 1);
                        new.facts.instance = InstanceId::new(&format!("new-{port}"));
                        table.register(&new, NOW, &mut Changes::default());
                    }
                    let begun = std::time::Instant::now();
                    let next = table.snapshot(NOW);
                    took += begun.elapsed();
                    assert!(next.is_some());
                    published = next;
                }
                took
            });
        });
    }
    drop(published);
    group.finish();
}

//! Look-ups of every kind, what a changed instance costs the table, and what becomes of a request's head.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::Criterion;
use weighbridge::config::Config;
use weighbridge::domain::dice::Dice;
use weighbridge::domain::identity::{Address, InstanceId};
use weighbridge::domain::moment::Moment;
use weighbridge::domain::protocol::register::Registration;
use weighbridge::domain::protocol::route_uri::RouteUri;
use weighbridge::domain::table::settings::TableSettings;
use weighbridge::domain::table::snapshot::Snapshot;
use weighbridge::domain::table::{Changes, RouteTable};
use weighbridge::http1::{Head, Limits, parse};
use weighbridge::proxy::headers::{ClientFacts, towards_instances};
use weighbridge::proxy::settings::Settings;

const NOW: Moment = Moment::from_nanos(1_000_000_000);
/// Keys tried in turn: too many for the caches to know.
const TRIED: usize = 1 << 14;

/// Budgets: look-up 150 ns at 100,000 routes; a head 0.5 µs.
pub fn routing(criterion: &mut Criterion) {
    for (name, routes) in [("100", 100), ("100,000", 100_000), ("1,000,000", 1_000_000)] {
        let (mut table, snapshot) = of_all_kinds(routes);
        look_up(criterion, name, routes, &snapshot);
        drop(snapshot);
        if routes == 100_000 {
            change(criterion, &mut table);
        }
    }
    rewrite(criterion);
}

/// The uri of a route: half of them are a host alone, a quarter have a path, a quarter are wildcards.
fn uri(route: usize) -> String {
    match route % 4 {
        0 | 1 => format!("app-{route}.apps.example.com"),
        2 => format!("app-{route}.apps.example.com/shop/v2"),
        _ => format!("*.app-{route}.tenants.example.com"),
    }
}

fn register(table: &mut RouteTable, route: usize, instance: usize) {
    let address = Address::new(&format!("10.{}.{}.{}", route >> 16, route >> 8 & 255, route & 255), 61_000);
    let mut said = Registration::at(address);
    said.facts.instance = InstanceId::new(&format!("instance-{instance}"));
    said.uris = vec![RouteUri::parse(&uri(route)).expect("a good route")];
    table.register(&said, NOW, &mut Changes::default());
}

fn of_all_kinds(routes: usize) -> (RouteTable, Arc<Snapshot>) {
    let mut table = RouteTable::new(TableSettings::default(), 42);
    table.resume(NOW);
    (0..routes).for_each(|route| register(&mut table, route, route));
    let snapshot = table.snapshot(NOW).expect("it is new");
    (table, snapshot)
}

fn look_up(criterion: &mut Criterion, name: &str, routes: usize, snapshot: &Snapshot) {
    let mut group = criterion.benchmark_group("look-up among all kinds");
    let mut dice = Dice::seeded(2);
    // A kind, the remainder of its routes by four, and what is asked of such a route.
    type Ask = fn(usize) -> (String, &'static str);
    let kinds: [(&str, usize, Ask); 5] = [
        ("exact", 0, |route| (uri(route), "/cart?page=2")),
        ("path", 2, |route| (format!("app-{route}.apps.example.com"), "/shop/v2/cart?page=2")),
        ("wildcard", 3, |route| (format!("www.app-{route}.tenants.example.com"), "/cart?page=2")),
        ("path in vain", 2, |route| (format!("app-{route}.apps.example.com"), "/elsewhere/v2")),
        ("host in vain", 0, |route| (format!("app-{route}.nowhere.example.org"), "/")),
    ];
    for (kind, remainder, ask) in kinds {
        let asked: Vec<(String, &str)> = (0..TRIED).map(|_| ask(4 * dice.below(routes / 4) + remainder)).collect();
        let mut next = 0;
        group.bench_function(format!("{kind}, {name} routes"), |bencher| {
            bencher.iter(|| {
                next = (next + 1) % TRIED;
                snapshot.lookup(black_box(&asked[next].0), black_box(asked[next].1))
            });
        });
    }
    group.finish();
}

/// Another instance takes the place of the one at an address, so that the pool is made anew.
fn change(criterion: &mut Criterion, table: &mut RouteTable) {
    let mut group = criterion.benchmark_group("change");
    let (mut dice, mut instance) = (Dice::seeded(3), 1_000_000_000);
    group.bench_function("an instance among 100,000 routes", |bencher| {
        bencher.iter(|| {
            instance += 1;
            register(table, dice.below(100_000), instance);
        });
    });
    group.finish();
}

fn rewrite(criterion: &mut Criterion) {
    let settings = Settings::of(&Config::from_toml("").expect("the defaults are valid"), Default::default());
    let client = ClientFacts {
        address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
        address_text: "203.0.113.9",
        secure: true,
        certificate: None,
        request_id: *b"3c2b7d9e-41f5-4a57-6d3e-1c2b0a9f8e7d",
        span: 42,
        unix_millis: 1_795_255_200_000,
    };
    let mut group = criterion.benchmark_group("headers");
    for (name, text) in [("small", super::SMALL_REQUEST), ("browser", super::BROWSER_REQUEST)] {
        let mut head = Head::new();
        group.bench_function(format!("parse a {name} request and make it fit for an instance"), |bencher| {
            bencher.iter(|| {
                let parsed = parse::request(black_box(text), &Limits::default(), &mut head).is_ok();
                parsed && towards_instances(&mut head, black_box(&client), &settings).is_ok()
            });
        });
    }
    group.finish();
}

//! What a pick costs, and what goes with it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use weighbridge::domain::balance::score::{ScoreConfig, recompute};
use weighbridge::domain::balance::{Fleet, Live, Outcome, Strategy, Wish, pick, pinned};
use weighbridge::domain::dice::Dice;
use weighbridge::domain::endpoint::{Endpoint, Facts};
use weighbridge::domain::identity::{Address, AgentId, InstanceId};
use weighbridge::domain::load::{Share, Usage};
use weighbridge::domain::moment::Moment;
use weighbridge::domain::table::snapshot::Pool;

pub const NOW: Moment = Moment::from_nanos(100_000_000_000);

/// Budgets of a pick: 0.5 µs at 8 instances, 3 µs at 1,000.
pub fn balance(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for strategy in Strategy::ALL {
        for size in [2, 8, 64, 1000] {
            let pool = pool(strategy, size);
            let mut dice = Dice::seeded(1);
            let wish = Wish { hash_key: Some(b"a key"), first_attempt: true, ..Wish::default() };
            group.bench_function(format!("{strategy} of {size}"), |bencher| {
                bencher.iter(|| pick(black_box(&pool), &wish, NOW, &mut dice).map(|endpoint| endpoint.serial));
            });
        }
    }
    group.finish();

    let mut group = criterion.benchmark_group("balance");
    for size in [8, 1000] {
        let pool = pool(Strategy::Adaptive, size);
        group.bench_function(format!("pinned of {size}"), |bencher| {
            bencher.iter(|| pinned(black_box(&pool), black_box("instance-7"), NOW).map(|endpoint| endpoint.serial));
        });
        group.bench_function(format!("recompute {size}"), |bencher| {
            bencher.iter(|| recompute(black_box(&pool), &ScoreConfig::default(), NOW));
        });
    }
    let pool = pool(Strategy::Adaptive, 1);
    group.bench_function("begin, answered, finished", |bencher| {
        let live = &pool.endpoints[0].live;
        bencher.iter(|| {
            live.begin();
            live.answered(&pool.fleet, black_box(Outcome::Ok { latency: Duration::from_millis(3) }), NOW);
            live.finished();
        });
    });
    group.finish();
}

/// A pool in the middle of its work: everybody has been heard and has answered, some a while ago, and some are busy.
pub fn pool(strategy: Strategy, size: usize) -> Pool {
    let fleet = Arc::new(Fleet::default());
    let endpoint = |i: usize| {
        let live = Live::new(Moment::START);
        let usage = |cpu: usize| Usage { cpu: Share::reported(cpu as f64 / 100.0), ..Usage::default() };
        live.reported(usage(i % 30), usage(30 + i % 60), Duration::from_secs(5), NOW);
        let answered_at = Moment::from_nanos(NOW.as_nanos() - (i as u64 % 9) * 500_000_000);
        for request in 0..30 {
            live.begin();
            let latency = Duration::from_millis(5 + (i + request) as u64 % 20);
            live.answered(&fleet, Outcome::Ok { latency }, answered_at);
            live.finished();
        }
        (0..i % 4).for_each(|_| live.begin());
        let facts = Facts {
            instance: InstanceId::new(&format!("instance-{i}")),
            agent: Some(AgentId::new(&format!("host-{}", i / 4))),
            ..Facts::at(Address::new(&format!("10.0.{}.{}", i / 250, i % 250), 8080))
        };
        Arc::new(Endpoint::new(i as u64, facts, Arc::new(live), Arc::default()))
    };
    let pool = Pool {
        route: "shop.test".into(),
        context_path: "/".into(),
        endpoints: (0..size).map(endpoint).collect(),
        strategy,
        hash_header: None,
        max_conns: 1000,
        settings: Arc::default(),
        fleet: fleet.clone(),
        sleeper: None,
        derived: Default::default(),
    };
    recompute(&pool, &ScoreConfig::default(), NOW);
    pool
}

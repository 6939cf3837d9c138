//! Pools written as text, for the tests of this module.

use std::sync::Arc;
use std::time::Duration;

use super::score::{ScoreConfig, recompute};
use super::{Derived, Fleet, Live, Outcome, State, Strategy, Wish, pick};
use crate::domain::dice::Dice;
use crate::domain::endpoint::{Endpoint, Facts};
use crate::domain::identity::{Address, AgentId, AppId, InstanceId};
use crate::domain::load::{Share, Usage};
use crate::domain::moment::Moment;
use crate::domain::table::snapshot::Pool;

pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// Long after everybody's slow start.
pub(super) const NOW: Moment = Moment::from_nanos(1_000_000_000_000);

/// `NOW` and so many seconds.
pub(super) fn at(seconds: f64) -> Moment {
    NOW + Duration::from_secs_f64(seconds)
}

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One endpoint a line: `name key=value...`. Keys: `waiting`, `open` (in flight but answered), `zone`, `weight`, `host`
/// (its agent), `state` (`starting`, `draining`), `age` (seconds), and reported percentages: `cpu`, `mem` of the
/// instance, `host_cpu`, `host_mem`. Serials count from 0. Endpoints have the name as host and as instance id.
pub(super) fn pool(strategy: Strategy, text: &str) -> Pool {
    let endpoints = text.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate().map(endpoint).collect();
    let pool = of(strategy, endpoints);
    recompute(&pool, &ScoreConfig::default(), NOW);
    pool
}

pub(super) fn of(strategy: Strategy, endpoints: Box<[Arc<Endpoint>]>) -> Pool {
    Pool {
        route: "shop.test".into(),
        context_path: "/".into(),
        endpoints,
        strategy,
        hash_header: None,
        max_conns: 0,
        settings: Arc::default(),
        fleet: Arc::new(Fleet::default()),
        sleeper: None,
        derived: Derived::default(),
    }
}

fn endpoint((serial, line): (usize, &str)) -> Arc<Endpoint> {
    let mut words = line.split_whitespace();
    let name = words.next().expect("a line has a name");
    let mut facts = Facts {
        instance: InstanceId::new(name),
        app: AppId::new("shop"),
        index: serial.to_string().into(),
        ..Facts::at(Address::new(name, 8080))
    };
    let (mut instance, mut host) = (Usage::default(), Usage::default());
    let mut live = Live::new(Moment::START);
    for (key, value) in words.map(|word| word.split_once('=').expect("key=value")) {
        let number = || value.parse::<f64>().expect("a number");
        let percent = || Share::reported(number() / 100.0);
        match key {
            "waiting" => (0..number() as u32).for_each(|_| live.begin()),
            "open" => (0..number() as u32).for_each(|_| {
                live.begin();
                live.answered(&Fleet::default(), Outcome::Cancelled, NOW);
            }),
            "zone" => facts.zone = value.into(),
            "weight" => facts.weight = number() as f32,
            "host" => facts.agent = Some(AgentId::new(value)),
            "age" => live = Live::new(Moment::from_nanos(NOW.as_nanos() - (number() * 1e9) as u64)),
            "state" if value == "starting" => live.set_state(State::Starting, NOW),
            "state" if value == "draining" => live.set_state(State::Draining, NOW),
            "cpu" => instance.cpu = percent(),
            "mem" => instance.mem = percent(),
            "host_cpu" => host.cpu = percent(),
            "host_mem" => host.mem = percent(),
            _ => panic!("{key}={value}?"),
        }
    }
    if !instance.is_unknown() || !host.is_unknown() {
        live.reported(instance, host, INTERVAL, NOW);
    }
    Arc::new(Endpoint::new(serial as u64, facts, Arc::new(live), Arc::default()))
}

/// The endpoint of that name.
#[track_caller]
pub(super) fn named<'a>(pool: &'a Pool, name: &str) -> &'a Arc<Endpoint> {
    pool.endpoints.iter().find(|e| e.address.host() == name).expect("the pool has it")
}

/// One attempt from begin to finish.
pub(super) fn attempt(pool: &Pool, name: &str, outcome: Outcome, now: Moment) -> Option<Duration> {
    let live = &named(pool, name).live;
    live.begin();
    let ejected = live.answered(&pool.fleet, outcome, now);
    live.finished();
    ejected
}

/// Lets the pool's first pick count its endpoints, without which nobody can be ejected.
pub(super) fn counted(pool: Pool) -> Pool {
    let _anybody = pick(&pool, &Wish::default(), NOW, &mut Dice::seeded(1));
    pool
}

/// How often each endpoint is picked in so many picks, as `name:count` in order of the pool, those never picked left
/// out.
pub(super) fn picks(pool: &Pool, wish: &Wish, now: Moment, count: usize) -> Vec<(String, usize)> {
    let mut dice = Dice::seeded(42);
    let mut counts = vec![0; pool.endpoints.len()];
    for _ in 0..count {
        if let Ok(picked) = pick(pool, wish, now, &mut dice) {
            counts[picked.serial as usize] += 1;
        }
    }
    let named = pool.endpoints.iter().zip(counts).filter(|(_, count)| *count > 0);
    named.map(|(e, count)| (e.address.host().to_owned(), count)).collect()
}

/// The names of those who are ever picked.
pub(super) fn picked(pool: &Pool, wish: &Wish, now: Moment) -> String {
    picks(pool, wish, now, 200).into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
}

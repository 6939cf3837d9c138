//! Apps that fall asleep and wake up, seen by several routers and a controller over a bus that loses, repeats, delays and
//! reorders what it carries, and over one that does not.

mod controller;
mod router;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use weighbridge::domain::dice::Dice;
use weighbridge::domain::identity::AppId;
use weighbridge::domain::moment::Moment;
use weighbridge::domain::protocol::app::Park;
use weighbridge::domain::wake::{Apps, Happening, LiveApp, Settings, Stage};
use world::{Tally, World};

/// Many worlds, or the one that `SIM_SEED` names.
fn seeds() -> Vec<u64> {
    match std::env::var("SIM_SEED") {
        Ok(seed) => vec![seed.parse().expect("SIM_SEED is a number")],
        Err(_) => (0..256).collect(),
    }
}

/// First the bus and the starts fail as they can; then they heal, and from then on nothing may go wrong any more. What may
/// never go wrong is checked all the time, where it happens: see `Router::check_*`.
#[test]
fn sleeping_apps_wake_whatever_the_bus_does() {
    let mut all = Tally::default();
    for seed in seeds() {
        let mut world = World::new(seed);
        world.run_for(200, Weather::Storm);
        world.run_for(150, Weather::Calm); // the last late message is a minute old by then, and so is every failure
        world.be_strict();
        world.run_for(200, Weather::Calm);
        world.check_agreement();
        all += world.tally;
    }
    // A world in which nothing happens would pass as well.
    let per_seed = |count: u64| count as f64 / seeds().len() as f64;
    assert!(per_seed(all.sleeps) > 10.0 && per_seed(all.starts) > 10.0, "{all:?}");
    assert!(per_seed(all.held) > 20.0 && per_seed(all.unparks) > 1.0, "{all:?}");
    assert!(per_seed(all.failures) > 0.5 && per_seed(all.ignored) > 100.0 && per_seed(all.lost) > 100.0, "{all:?}");
}

/// How the bus and the starts behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Storm,
    Calm,
}

/// Two threads race as often as it takes: whoever begins a request is seen by the park, or sees the parking.
#[test]
fn no_request_slips_between_a_park_and_its_answer() {
    let at = Moment::from_nanos(1_000_000_000);
    let mut counted = 0;
    for round in 0..2_000 {
        let mut apps = Apps::new("me", Settings::default(), Arc::default());
        let shop = AppId::new("shop");
        let live = apps.live(&shop);
        let ready = Arc::new(AtomicUsize::new(0));
        let worker = {
            let (live, ready) = (live.clone(), ready.clone());
            thread::spawn(move || {
                ready.fetch_add(1, Ordering::SeqCst);
                let request = LiveApp::begin(live, at);
                let saw_parking = request.stage() == Stage::Parking;
                std::mem::forget(request); // in flight for ever
                saw_parking
            })
        };
        while round % 2 == 0 && ready.load(Ordering::SeqCst) == 0 {
            std::hint::spin_loop();
        }
        let park = Happening::Park(Park { app: shop, uris: [].into(), epoch: 1 });
        let effects = apps.handle(park, at).expect("a first park");
        let in_answer = format!("{effects:?}").contains("in_flight: 1");
        counted += u32::from(in_answer);
        let saw_parking = worker.join().expect("no panic");
        assert!(in_answer || saw_parking, "round {round}");
    }
    assert!(counted > 0, "the threads never met");
}

/// Chance of `share`.
fn chance(dice: &mut Dice, share: f64) -> bool {
    dice.share() < share
}

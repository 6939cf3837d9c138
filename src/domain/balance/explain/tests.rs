//! What is foretold is what the pick then does.

use super::*;
use crate::domain::balance::fixture::{NOW, attempt, counted, millis, picks, pool};
use crate::domain::balance::{Outcome, State};

/// What explain promises is what many picks do.
#[track_caller]
fn check_promise(pool: &Pool, wish: &Wish) {
    const PICKS: usize = 10_000;
    let explained = explain(pool, wish, &ScoreConfig::default(), NOW);
    let sum: f64 = explained.iter().map(|e| e.probability).sum();
    assert!((sum - 1.0).abs() < 1e-6, "probabilities sum to {sum}");
    let counts = picks(pool, wish, NOW, PICKS);
    for explained in &explained {
        let name = explained.endpoint.address.host();
        let count = counts.iter().find(|(picked, _)| picked == name).map_or(0, |(_, count)| *count);
        let expected = explained.probability * PICKS as f64;
        let tolerance = 5.0 * expected.sqrt() + 1.0;
        assert!((count as f64 - expected).abs() <= tolerance, "{}: {name} {count}, not {expected}", pool.strategy);
    }
}

#[test]
fn probabilities_are_those_of_the_pick() {
    let some = "a waiting=2 weight=2\nb waiting=1 open=1\nc host=h1 cpu=50 host_cpu=80\nd state=draining\ne waiting=1";
    let many: String = (0..150).map(|i| format!("e{i} waiting={} weight={}\n", i % 7, 1 + i % 3)).collect();
    for strategy in Strategy::ALL {
        check_promise(&pool(strategy, some), &Wish::default());
        check_promise(&pool(strategy, some), &Wish { hash_key: Some(b"user-1"), ..Wish::default() });
        check_promise(&pool(strategy, &many), &Wish::default());
    }
}

#[test]
fn it_says_why_somebody_is_not_picked() {
    let pool = counted(Pool {
        max_conns: 3,
        ..pool(
            Strategy::Adaptive,
            "fine zone=z1\nstarting state=starting zone=z1\naway zone=z2\nfull open=3 zone=z1\nejected zone=z1\ntried zone=z1",
        )
    });
    (0..5).for_each(|_| _ = attempt(&pool, "ejected", Outcome::Reset, NOW));
    let wish = Wish { zone: Some("z1"), first_attempt: true, tried: &[5], ..Wish::default() };
    let why = explain(&pool, &wish, &ScoreConfig::default(), NOW).into_iter().map(|e| e.eligibility);
    use Eligibility::{Eligible, Full, LeftOut, NotRunning, OtherZone, Tried};
    assert_eq!(why.collect::<Vec<_>>(), [Eligible, NotRunning, OtherZone, Full, LeftOut, Tried]);
}

#[test]
fn when_nobody_is_eligible_it_tells_who_is_picked_all_the_same() {
    let pool = pool(Strategy::Adaptive, "a zone=z2\nb zone=z2");
    let wish = Wish { zone: Some("z1"), first_attempt: true, ..Wish::default() };
    let told: Vec<_> =
        (explain(&pool, &wish, &ScoreConfig::default(), NOW).iter()).map(|e| (e.eligibility, e.probability)).collect();
    assert_eq!(told, [(Eligibility::OtherZone, 0.5), (Eligibility::OtherZone, 0.5)]);
}

#[test]
fn an_empty_pool_and_one_that_cannot_serve_have_no_chances() {
    for strategy in Strategy::ALL {
        let wish = Wish { hash_key: Some(b"user-1"), ..Wish::default() };
        assert!(explain(&pool(strategy, ""), &wish, &ScoreConfig::default(), NOW).is_empty());
        let draining = pool(strategy, "a\nb");
        draining.endpoints.iter().for_each(|e| e.live.set_state(State::Draining, NOW));
        let explained = explain(&draining, &Wish::default(), &ScoreConfig::default(), NOW);
        assert!(explained.iter().all(|e| e.probability == 0.0), "{strategy}");
    }
}

#[test]
fn numbers_are_those_the_score_is_made_of() {
    let pool = pool(Strategy::Adaptive, "a host=h1 cpu=20 mem=30 host_cpu=50 host_mem=40 weight=2\nslow\nc\nd");
    for _ in 0..50 {
        ["a", "c", "d"].iter().for_each(|name| _ = attempt(&pool, name, Outcome::Ok { latency: millis(10) }, NOW));
        attempt(&pool, "slow", Outcome::Ok { latency: millis(50) }, NOW);
    }
    let explained = explain(&pool, &Wish::default(), &ScoreConfig::default(), NOW);
    assert_eq!(explained[0].loads.map(|l| (l.load * 1000.0).round()), Some(186.0));
    assert_eq!((explained[0].weight, explained[0].capacity, explained[0].slow_start), (162.0, 1.0, 1.0));
    assert!(explained[1].relative_latency > 2.0);
    assert!(explained[1].cost > explained[2].cost);
}

//! Who is picked, strategy by strategy, from pools written as text.

use std::collections::BTreeSet;

use proptest::prelude::{any, prop_assert, proptest};

use super::*;
use crate::domain::balance::Outcome;
use crate::domain::balance::fixture::{NOW, at, attempt, counted, millis, named, picked, picks, pool};

#[track_caller]
fn check_picked(strategy: Strategy, text: &str, expected: &str) {
    assert_eq!(picked(&pool(strategy, text), &Wish::default(), NOW), expected);
}

const ALL_BUT_HASH: [Strategy; 6] = [
    Strategy::Adaptive,
    Strategy::Weight,
    Strategy::LeastConnection,
    Strategy::P2c,
    Strategy::RoundRobin,
    Strategy::Random,
];

fn first(zone: &str) -> Wish<'_> {
    Wish { zone: Some(zone), first_attempt: true, ..Wish::default() }
}

// --- names ---

#[test]
fn names_are_read_as_they_are_written() {
    for strategy in Strategy::ALL {
        assert_eq!(strategy.to_string().parse(), Ok(strategy));
    }
    let unknown = "fastest".parse::<Strategy>().expect_err("there is none").to_string();
    assert!(Strategy::ALL.iter().all(|s| unknown.contains(s.name())), "{unknown}");
}

// --- who is eligible ---

#[test]
fn only_running_endpoints_get_new_clients() {
    for strategy in Strategy::ALL {
        check_picked(strategy, "a\nb state=starting\nc state=draining\nd", "a d");
    }
}

#[test]
fn without_a_running_endpoint_nobody_is_picked() {
    for strategy in Strategy::ALL {
        for text in ["", "a state=starting\nb state=draining"] {
            let result = pick(&pool(strategy, text), &Wish::default(), NOW, &mut Dice::seeded(1)).map(|e| e.serial);
            assert_eq!(result, Err(NoPick::Empty), "{strategy}");
        }
    }
}

#[test]
fn the_first_attempt_stays_in_its_zone() {
    for strategy in Strategy::ALL {
        let pool = pool(strategy, "a zone=z1\nb zone=z2\nc zone=z1");
        assert_eq!(picked(&pool, &first("z1"), NOW), "a c", "{strategy}");
        assert_eq!(picked(&pool, &Wish { first_attempt: false, ..first("z1") }, NOW), "a b c", "{strategy}");
        assert_eq!(picked(&pool, &first("z3"), NOW), "a b c", "{strategy}: nobody is in z3");
    }
}

#[test]
fn full_endpoints_are_passed_over_and_a_full_pool_says_so() {
    for strategy in Strategy::ALL {
        let limited = |text| Pool { max_conns: 2, ..pool(strategy, text) };
        assert_eq!(picked(&limited("a open=2\nb waiting=1\nc waiting=1 open=1"), &Wish::default(), NOW), "b");
        let full = limited("a open=2\nb waiting=2\nc state=starting");
        assert_eq!(pick(&full, &Wish::default(), NOW, &mut Dice::seeded(1)).err(), Some(NoPick::AllFull));
    }
}

#[test]
fn ejected_endpoints_are_left_out_until_nobody_else_is_left() {
    for strategy in Strategy::ALL {
        let pool = ejecting(strategy, "a zone=z1\nb zone=z2\nc zone=z2", &["a"]);
        assert_eq!(picked(&pool, &Wish::default(), NOW), "b c", "{strategy}");
        // The zone is heeded longer than the ejection.
        assert_eq!(picked(&pool, &first("z1"), NOW), "a", "{strategy}");
    }
}

#[test]
fn when_most_are_ejected_ejection_is_ignored() {
    // One of three may be ejected; then one of the healthy leaves, and one of two more than half is.
    let ejected = ejecting(Strategy::Random, "a\nb\nc", &["a"]);
    let only = |serials: &[usize]| Pool {
        endpoints: serials.iter().map(|&i| ejected.endpoints[i].clone()).collect(),
        fleet: ejected.fleet.clone(),
        ..pool(Strategy::Random, "")
    };
    assert_eq!(picked(&only(&[0, 1]), &Wish::default(), NOW), "b");
    assert_eq!(picked(&only(&[0]), &Wish::default(), NOW), "a");
    let six = ejecting(Strategy::Random, "a\nb\nc\nd\ne\nf", &["a", "b"]);
    let three = Pool { endpoints: six.endpoints[..3].into(), fleet: six.fleet.clone(), ..pool(Strategy::Random, "") };
    assert_eq!(picked(&three, &Wish::default(), NOW), "a b c", "two of three are ejected");
}

#[test]
fn a_retry_goes_to_distinct_endpoints_first() {
    for strategy in Strategy::ALL {
        let pool = pool(strategy, "a\nb\nc");
        let tried = |tried| Wish { tried, ..Wish::default() };
        assert_eq!(picked(&pool, &tried(&[0]), NOW), "b c", "{strategy}");
        assert_eq!(picked(&pool, &tried(&[0, 2]), NOW), "b", "{strategy}");
        assert_eq!(picked(&pool, &tried(&[0, 1, 2]), NOW), "a b c", "{strategy}");
    }
}

#[test]
fn a_retry_prefers_an_ejected_endpoint_to_the_one_that_just_failed() {
    let pool = ejecting(Strategy::Adaptive, "a\nb", &["a"]);
    assert_eq!(picked(&pool, &Wish { tried: &[1], ..Wish::default() }, NOW), "a");
}

/// A pool with these endpoints ejected at `NOW`.
fn ejecting(strategy: Strategy, text: &str, failing: &[&str]) -> Pool {
    let pool = counted(pool(strategy, text));
    for name in failing {
        let ejected = (0..5).filter_map(|_| attempt(&pool, name, Outcome::ConnectFailed, NOW)).count();
        assert_eq!(ejected, 1, "{name}");
    }
    pool
}

// --- adaptive ---

#[test]
fn the_fewest_waiting_get_the_next_one() {
    check_picked(Strategy::Adaptive, "a waiting=2\nb waiting=1\nc waiting=2", "b");
}

#[test]
fn bodies_and_tunnels_do_not_count_as_waiting() {
    check_picked(Strategy::Adaptive, "a open=50\nb waiting=1", "a");
}

#[test]
fn equals_are_picked_about_equally_often() {
    for strategy in [Strategy::Adaptive, Strategy::LeastConnection, Strategy::P2c, Strategy::Random] {
        let counts = picks(&pool(strategy, "a\nb\nc waiting=9\nd"), &Wish::default(), NOW, 12_000);
        let expected = if strategy == Strategy::Random { 3_000 } else { 4_000 };
        for (name, count) in counts.iter().filter(|(name, _)| name != "c") {
            assert!(count.abs_diff(expected) < 300, "{strategy} {name}: {count} of {expected}");
        }
    }
}

#[test]
fn a_slow_endpoint_gets_one_request_where_a_fast_one_gets_several() {
    let pool = pool(Strategy::Adaptive, "fast waiting=2\nslow");
    for _ in 0..100 {
        attempt(&pool, "fast", Outcome::Ok { latency: millis(10) }, NOW);
        attempt(&pool, "slow", Outcome::Ok { latency: millis(80) }, NOW);
    }
    assert_eq!(picked(&pool, &Wish::default(), NOW), "fast");
    // A minute later nobody knows any more.
    assert_eq!(picked(&pool, &Wish::default(), at(60.0)), "slow");
}

#[test]
fn an_idle_host_is_preferred_to_a_busy_one() {
    check_picked(Strategy::Adaptive, "busy host=h1 cpu=10 host_cpu=95\nidle host=h2 cpu=10 host_cpu=20", "idle");
}

#[test]
fn requests_in_flight_outweigh_a_stale_report() {
    check_picked(
        Strategy::Adaptive,
        "fresh host=h1 cpu=10 host_cpu=90\nflooded host=h2 cpu=10 host_cpu=20 waiting=5",
        "fresh",
    );
}

#[test]
fn twice_the_static_weight_carries_twice_the_requests() {
    check_picked(Strategy::Adaptive, "big weight=2 waiting=2\nsmall waiting=1", "big");
    check_picked(Strategy::Adaptive, "big weight=2 waiting=4\nsmall waiting=1", "small");
    check_picked(Strategy::LeastConnection, "big weight=2 open=2\nsmall open=1", "big");
}

#[test]
fn a_newcomer_is_led_in_slowly() {
    check_picked(Strategy::Adaptive, "old waiting=8\nnew age=0", "old");
    check_picked(Strategy::Adaptive, "old waiting=10\nnew age=0", "new");
    check_picked(Strategy::Adaptive, "old waiting=2\nnew age=5", "new");
}

// --- the others ---

#[test]
fn least_connection_counts_everything_in_flight() {
    check_picked(Strategy::LeastConnection, "a open=2\nb waiting=1 open=2\nc waiting=1", "c");
}

#[test]
fn of_two_the_better_one_is_taken() {
    // The worst of three is never the better of two.
    check_picked(Strategy::P2c, "a open=1\nb open=9\nc", "a c");
}

#[test]
fn round_robin_gives_each_its_turn() {
    let counts = picks(&pool(Strategy::RoundRobin, "a\nb waiting=9\nc"), &Wish::default(), NOW, 300);
    assert!(counts.iter().all(|(_, count)| *count == 100), "{counts:?}");
}

#[test]
fn round_robin_gives_the_turns_of_the_absent_to_nobody_in_particular() {
    let pool = pool(Strategy::RoundRobin, "a zone=z1\nb zone=z2\nc zone=z2\nd zone=z2\ne zone=z1");
    let counts = picks(&pool, &first("z1"), NOW, 200);
    assert_eq!(counts, [("a".to_owned(), 100), ("e".to_owned(), 100)]);
}

#[test]
fn routers_started_together_begin_their_rounds_apart() {
    let begins = |seed| {
        let pool = pool(Strategy::RoundRobin, "a\nb\nc\nd\ne\nf\ng\nh");
        pick(&pool, &Wish::default(), NOW, &mut Dice::seeded(seed)).map(|e| e.serial)
    };
    let begun: BTreeSet<_> = (0..20).filter_map(|seed| begins(seed).ok()).collect();
    assert!(begun.len() > 4, "{begun:?}");
}

#[test]
fn weight_gives_each_exactly_its_share() {
    // The article's weights: 81 and 40, and their mean for the one without a heartbeat; twice that with weight=2.
    let pool = pool(
        Strategy::Weight,
        "a host=h1 cpu=20 mem=30 host_cpu=50 host_mem=40\n\
         b host=h2 cpu=100 mem=100 host_cpu=100 host_mem=100\n\
         c\n\
         d weight=2",
    );
    let counts = picks(&pool, &Wish::default(), NOW, 3_025);
    let expected = [810, 400, 605, 1210];
    for ((name, count), expected) in counts.iter().zip(expected) {
        assert!(count.abs_diff(expected) <= 3, "{name}: {count} of {expected}");
    }
}

#[test]
fn weight_spreads_the_turns_of_each() {
    let pool = pool(Strategy::Weight, "a weight=5\nb\nc");
    let mut dice = Dice::seeded(3);
    let sequence: Vec<u64> =
        (0..70).map(|_| pick(&pool, &Wish::default(), NOW, &mut dice).expect("somebody").serial).collect();
    for window in sequence.windows(14) {
        let of = |serial| window.iter().filter(|&&s| s == serial).count();
        assert!((1..=3).contains(&of(1)) && (1..=3).contains(&of(2)), "{sequence:?}");
    }
}

#[test]
fn weight_finds_the_one_light_endpoint_that_is_left() {
    let pool = pool(Strategy::Weight, "heavy weight=1000 state=draining\nlight weight=0.1");
    assert_eq!(picks(&pool, &Wish::default(), NOW, 50), [("light".to_owned(), 50)]);
}

fn key(key: &str) -> Wish<'_> {
    Wish { hash_key: Some(key.as_bytes()), ..Wish::default() }
}

/// Who serves each of 1,000 keys.
fn served_by(pool: &Pool) -> Vec<String> {
    let pick = |i: usize| pick(pool, &key(&format!("user-{i}")), NOW, &mut Dice::seeded(i as u64)).expect("somebody");
    (0..1000).map(|i| pick(i).address.host().to_owned()).collect()
}

const TEN: &str = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj";

#[test]
fn equal_keys_go_to_the_same_endpoint_in_every_router() {
    let shuffled = "j\nc\na\ni\nb\nh\nd\ng\nf\ne";
    assert_eq!(served_by(&pool(Strategy::Hash, TEN)), served_by(&pool(Strategy::Hash, shuffled)));
}

#[test]
fn keys_are_spread_evenly() {
    let served = served_by(&pool(Strategy::Hash, TEN));
    for name in TEN.lines() {
        let count = served.iter().filter(|by| *by == name).count();
        assert!((60..140).contains(&count), "{name} serves {count} of 1000");
    }
}

#[test]
fn a_departure_moves_few_keys_but_those_of_the_departed() {
    let before = served_by(&pool(Strategy::Hash, TEN));
    let after = served_by(&pool(Strategy::Hash, TEN.strip_suffix("\nj").expect("ends in j")));
    let moved = before.iter().zip(&after).filter(|(b, a)| *b != "j" && b != a).count();
    assert!(moved < 60, "{moved} keys moved for no reason");
}

#[test]
fn while_an_endpoint_is_away_its_keys_go_to_the_next_and_then_come_back() {
    let pool = pool(Strategy::Hash, TEN);
    let before = served_by(&pool);
    named(&pool, "c").live.set_state(State::Draining, NOW);
    let meanwhile = served_by(&pool);
    assert!(!meanwhile.contains(&"c".to_owned()));
    assert!(before.iter().zip(&meanwhile).all(|(b, m)| b == "c" || b == m));
    named(&pool, "c").live.set_state(State::Running, NOW);
    assert_eq!(served_by(&pool), before);
}

#[test]
fn keys_of_many_absent_endpoints_still_find_somebody() {
    let pool = big(Strategy::Hash, 300);
    pool.endpoints[..299].iter().for_each(|e| e.live.set_state(State::Draining, NOW));
    assert_eq!(picked(&pool, &key("user-1"), NOW), "e299");
}

#[test]
fn without_the_header_hash_falls_back() {
    check_picked(Strategy::Hash, "a waiting=1\nb", "b");
}

// --- big pools ---

fn big(strategy: Strategy, size: usize) -> Pool {
    pool(strategy, &(0..size).map(|i| format!("e{i}\n")).collect::<String>())
}

#[test]
fn everybody_in_a_big_pool_is_picked_about_equally_often() {
    for strategy in ALL_BUT_HASH {
        let counts = picks(&big(strategy, 200), &Wish::default(), NOW, 40_000);
        assert_eq!(counts.len(), 200, "{strategy}");
        assert!(counts.iter().all(|(_, count)| (120..280).contains(count)), "{strategy}: {counts:?}");
    }
}

#[test]
fn the_only_eligible_endpoint_of_a_big_pool_is_found() {
    for strategy in Strategy::ALL {
        let pool = big(strategy, 1000);
        pool.endpoints.iter().skip(1).for_each(|e| e.live.set_state(State::Draining, NOW));
        assert_eq!(picked(&pool, &Wish::default(), NOW), "e0", "{strategy}");
    }
}

// --- for any pool ---

proptest! {
    #[test]
    fn whoever_is_picked_was_allowed_to_be(
        states in proptest::collection::vec((0..3u8, 0..4u32, 0..2u8), 0..90),
        max_conns in 0..4u32,
        which in 0..7usize,
        seed in any::<u64>(),
    ) {
        let lines: String = states.iter().enumerate().map(|(i, (state, open, zone))| {
            let state = ["", " state=starting", " state=draining"][usize::from(*state)];
            format!("e{i} open={open} zone=z{zone}{state}\n")
        }).collect();
        let pool = Pool { max_conns, ..pool(Strategy::ALL[which], &lines) };
        let wish = Wish { hash_key: Some(b"key"), ..first("z1") };
        let may = |e: &Arc<Endpoint>| {
            e.live.state() == State::Running && (max_conns == 0 || e.live.open() < max_conns)
        };
        let in_zone = |e: &Arc<Endpoint>| may(e) && &*e.zone == "z1";
        match pick(&pool, &wish, NOW, &mut Dice::seeded(seed)) {
            Ok(picked) => prop_assert!(in_zone(picked) || (may(picked) && !pool.endpoints.iter().any(in_zone))),
            Err(_) => prop_assert!(!pool.endpoints.iter().any(may)),
        }
    }
}

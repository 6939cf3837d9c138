//! What an endpoint remembers of its answers, and when it is left out.

use super::*;
use crate::domain::balance::fixture::{NOW, at, attempt, counted, millis, named, pool};
use crate::domain::balance::{Strategy, Wish, pick};
use crate::domain::dice::Dice;
use crate::domain::table::snapshot::Pool;

const FAILED: Outcome = Outcome::Failed { latency: Duration::from_millis(1) };

fn ok(latency: u64) -> Outcome {
    Outcome::Ok { latency: millis(latency) }
}

/// A pool whose endpoints have all answered within 10 ms many times.
fn warm(text: &str) -> Pool {
    let pool = counted(pool(Strategy::Adaptive, text));
    for endpoint in &pool.endpoints {
        (0..100).for_each(|_| assert_eq!(attempt(&pool, endpoint.address.host(), ok(10), NOW), None));
    }
    pool
}

#[track_caller]
fn check_relative_latency(pool: &Pool, name: &str, now: Moment, expected: std::ops::Range<f32>) {
    let relative = named(pool, name).live.relative_latency(&pool.fleet, now);
    assert!(expected.contains(&relative), "{name} is {relative} times as slow, not {expected:?}");
}

/// Fails in a row until ejected; how many failures that took, and for how long it is out.
#[track_caller]
fn eject(pool: &Pool, name: &str, outcome: Outcome, now: Moment) -> (usize, Duration) {
    let failures = (1..=20).map(|n| (n, attempt(pool, name, outcome, now)));
    failures.filter_map(|(n, out)| Some((n, out?))).next().expect("ejected after twenty failures in a row")
}

// --- counts ---

#[test]
fn a_request_waits_until_its_head_and_is_open_until_its_end() {
    let (live, fleet) = (Live::new(NOW), Fleet::default());
    let counts = || (live.waiting(), live.open());
    live.begin();
    live.begin();
    assert_eq!(counts(), (2, 2));
    live.answered(&fleet, ok(1), NOW);
    assert_eq!(counts(), (1, 2));
    live.finished();
    live.answered(&fleet, Outcome::Cancelled, NOW);
    live.finished();
    assert_eq!(counts(), (0, 0));
}

#[test]
fn counts_are_exact_however_many_workers_share_them() {
    let pool = counted(pool(Strategy::Adaptive, "a\nb\nc\nd"));
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                let mut dice = Dice::seeded(worker);
                for step in 0..5_000 {
                    let endpoint = pick(pool, &Wish::default(), at(step as f64), &mut dice).expect("somebody runs");
                    endpoint.live.begin();
                    let outcome = if dice.below(3) == 0 { FAILED } else { ok(5) };
                    endpoint.live.answered(&pool.fleet, outcome, at(step as f64));
                    endpoint.live.finished();
                }
            });
        }
    });
    for endpoint in &pool.endpoints {
        let live = &endpoint.live;
        assert_eq!((live.waiting(), live.open()), (0, 0));
        assert!((0.0..=1.0).contains(&live.failure_rate()) && live.relative_latency(&pool.fleet, NOW) > 0.0);
    }
}

// --- latency ---

#[test]
fn latency_is_relative_to_the_fleet() {
    let pool = warm("a\nb\nslow");
    check_relative_latency(&pool, "a", NOW, 0.99..1.01);
    (0..60).for_each(|_| _ = attempt(&pool, "slow", ok(80), NOW));
    check_relative_latency(&pool, "slow", NOW, 4.0..8.0);
}

#[test]
fn latency_is_forgotten_towards_the_mean() {
    let pool = warm("a\nb\nslow");
    (0..60).for_each(|_| _ = attempt(&pool, "slow", ok(80), NOW));
    let then = named(&pool, "slow").live.relative_latency(&pool.fleet, NOW);
    // After one time constant the distance on the logarithmic scale is 1/e of what it was.
    let expected = (then.ln() / 1f32.exp()).exp();
    check_relative_latency(&pool, "slow", at(10.0), expected * 0.99..expected * 1.01);
    check_relative_latency(&pool, "slow", at(100.0), 0.99..1.01);
}

#[test]
fn latency_counts_only_once_the_fleet_is_known() {
    let pool = counted(pool(Strategy::Adaptive, "a\nslow"));
    (0..18).for_each(|_| _ = attempt(&pool, "a", ok(5), NOW));
    attempt(&pool, "slow", ok(500), NOW);
    check_relative_latency(&pool, "slow", NOW, 1.0..1.01);
    attempt(&pool, "a", ok(5), NOW);
    check_relative_latency(&pool, "slow", NOW, 2.0..9.0);
}

#[test]
fn the_slow_first_answer_of_a_new_pool_is_held_against_nobody() {
    let pool = counted(pool(Strategy::Adaptive, "first\nsecond"));
    attempt(&pool, "first", ok(3_000), NOW);
    (0..40).for_each(|_| _ = attempt(&pool, "second", ok(5), NOW));
    check_relative_latency(&pool, "first", NOW, 0.99..1.01);
}

#[test]
fn when_all_slow_down_together_nobody_looks_slow() {
    let pool = warm("a\nb\nunasked");
    (0..200).for_each(|n| _ = attempt(&pool, ["a", "b"][n % 2], ok(1_000), NOW));
    check_relative_latency(&pool, "unasked", NOW, 0.95..1.05);
}

#[test]
fn the_first_sample_moves_more_than_the_next() {
    let pool = warm("a\nb\nc");
    let newcomers =
        counted(Pool { fleet: pool.fleet.clone(), ..super::super::fixture::pool(Strategy::Adaptive, "new") });
    attempt(&newcomers, "new", ok(100), NOW);
    // exp(0.3 ln 10), less what the sample moved the mean.
    check_relative_latency(&newcomers, "new", NOW, 1.9..2.0);
    attempt(&newcomers, "new", ok(100), NOW);
    check_relative_latency(&newcomers, "new", NOW, 2.2..2.35);
}

#[test]
fn relative_latency_has_bounds() {
    let pool = warm("a\nb\nc");
    (0..50).for_each(|_| _ = attempt(&pool, "a", ok(3_600_000), NOW));
    check_relative_latency(&pool, "a", NOW, 64.0..64.01);
    (0..50).for_each(|_| _ = attempt(&pool, "b", Outcome::Ok { latency: Duration::ZERO }, NOW));
    check_relative_latency(&pool, "b", NOW, 0.25..0.2501);
}

#[test]
fn failing_fast_never_looks_fast() {
    for failure in [FAILED, Outcome::ConnectFailed, Outcome::Reset, Outcome::TimedOut { timeout: millis(50) }] {
        let pool = warm("a\nb\nbad");
        (0..3).for_each(|_| _ = attempt(&pool, "bad", failure, NOW));
        check_relative_latency(&pool, "bad", NOW, 5.0..64.0);
    }
}

#[test]
fn failing_fast_does_not_look_fast_where_answers_take_minutes() {
    let pool = counted(pool(Strategy::Adaptive, "a\nb\nbad"));
    (0..100).for_each(|n| _ = attempt(&pool, ["a", "b"][n % 2], ok(300_000), NOW));
    (0..3).for_each(|_| _ = attempt(&pool, "bad", FAILED, NOW));
    check_relative_latency(&pool, "bad", NOW, 5.0..64.0);
}

#[test]
fn while_everybody_fails_failures_say_nothing_about_latency() {
    let pool = warm("a\nb\nc");
    (0..900).for_each(|n| _ = attempt(&pool, ["a", "b", "c"][n % 3], FAILED, NOW));
    assert!(pool.fleet.failure_rate() > 0.9);
    // The first few came while they were not everybody's yet; that is forgotten.
    ["a", "b", "c"].iter().for_each(|name| check_relative_latency(&pool, name, at(60.0), 0.9..1.1));
    let before = named(&pool, "a").live.relative_latency(&pool.fleet, at(60.0));
    attempt(&pool, "a", FAILED, at(60.0));
    assert_eq!(named(&pool, "a").live.relative_latency(&pool.fleet, at(60.0)), before);
}

#[test]
fn a_wait_that_was_given_up_counts_if_it_was_long() {
    let pool = warm("a\nb\nhanging");
    attempt(&pool, "hanging", Outcome::Abandoned { waited: millis(1) }, NOW);
    check_relative_latency(&pool, "hanging", NOW, 0.99..1.01);
    (0..5).for_each(|_| _ = attempt(&pool, "hanging", Outcome::Abandoned { waited: millis(3_000) }, NOW));
    check_relative_latency(&pool, "hanging", NOW, 8.0..12.0);
    assert_eq!(named(&pool, "hanging").live.failure_rate(), 0.0);
}

#[test]
fn cancelled_attempts_change_nothing() {
    let pool = warm("a\nb\nc");
    let before = (pool.fleet.latency_so_far(), pool.fleet.failure_rate());
    (0..50).for_each(|_| _ = attempt(&pool, "a", Outcome::Cancelled, NOW));
    assert_eq!((pool.fleet.latency_so_far(), pool.fleet.failure_rate()), before);
    assert_eq!(named(&pool, "a").live.failure_rate(), 0.0);
}

#[test]
fn a_status_is_a_failure_if_the_instance_cannot_work() {
    let failures: Vec<u16> = (100..600)
        .filter(|status| matches!(Outcome::of_status(*status, Duration::ZERO), Outcome::Failed { .. }))
        .collect();
    assert_eq!(failures, [500, 502, 503, 504]);
}

// --- ejection ---

#[test]
fn five_failures_in_a_row_eject() {
    for failure in [FAILED, Outcome::ConnectFailed, Outcome::Reset, Outcome::TimedOut { timeout: millis(50) }] {
        let (failures, term) = eject(&warm("a\nb\nc"), "a", failure, NOW);
        assert_eq!(failures, 5);
        assert!((4.5..=5.5).contains(&term.as_secs_f32()), "{term:?}");
    }
}

#[test]
fn a_success_in_between_breaks_the_row() {
    let pool = warm("a\nb\nc");
    for _ in 0..4 {
        (0..4).for_each(|_| assert_eq!(attempt(&pool, "a", FAILED, NOW), None));
        attempt(&pool, "a", ok(10), NOW);
    }
}

#[test]
fn ejections_in_a_row_double_up_to_forty_seconds() {
    let pool = warm("a\nb\nc");
    let (mut now, mut terms) = (NOW, Vec::new());
    for _ in 0..6 {
        let (_, term) = eject(&pool, "a", Outcome::ConnectFailed, now);
        terms.push((term.as_secs_f32() / 5.0).log2().round());
        now = now + term + millis(1);
        let _census = pick(&pool, &Wish::default(), now, &mut Dice::seeded(1));
    }
    assert_eq!(terms, [0.0, 1.0, 2.0, 3.0, 3.0, 3.0]);
}

#[test]
fn terms_are_scattered_by_a_tenth() {
    let term = |n: u64| eject(&warm("a\nb\nc"), "a", FAILED, NOW + Duration::from_nanos(n)).1.as_secs_f32();
    let terms: Vec<f32> = (0..100).map(|n| term(n * 12_345_677)).collect();
    assert!(terms.iter().all(|t| (4.5..=5.5).contains(t)));
    assert!(terms.iter().any(|t| *t < 4.7) && terms.iter().any(|t| *t > 5.3));
}

#[test]
fn on_probation_one_failure_ejects_again() {
    let pool = warm("a\nb\nc");
    let (_, term) = eject(&pool, "a", FAILED, NOW);
    let back = NOW + term + millis(1);
    let _census = pick(&pool, &Wish::default(), back, &mut Dice::seeded(1));
    attempt(&pool, "a", ok(10), back);
    let again = attempt(&pool, "a", FAILED, back).expect("ejected again");
    assert!((9.0..=11.0).contains(&again.as_secs_f32()), "{again:?}");
}

#[test]
fn a_start_meanwhile_does_not_end_an_ejection() {
    let pool = warm("a\nb\nc");
    let live = &named(&pool, "a").live;
    let (_, term) = eject(&pool, "a", FAILED, NOW);
    live.begin_slowly(NOW + millis(1));
    let end = live.ejected_until(NOW + millis(2)).expect("it goes on");
    assert!(end.since(NOW + term) < millis(1));
    assert_eq!((live.slow_start(end), live.ejected_until(end)), (0.1, None));
    live.begin_slowly(end + millis(9000));
    assert_eq!((live.slow_start(end + millis(9000)), live.ejected_until(end + millis(9000))), (0.1, None));
}

#[test]
fn three_successes_end_probation() {
    let pool = warm("a\nb\nc");
    let (_, term) = eject(&pool, "a", FAILED, NOW);
    let back = NOW + term + millis(1);
    let _census = pick(&pool, &Wish::default(), back, &mut Dice::seeded(1));
    (0..3).for_each(|_| _ = attempt(&pool, "a", ok(10), back));
    assert_eq!(eject(&pool, "a", FAILED, back).0, 5);
}

#[test]
fn on_probation_three_requests_are_under_way_at_most() {
    let pool = warm("a\nb\nc");
    let (_, term) = eject(&pool, "a", FAILED, NOW);
    let live = &named(&pool, "a").live;
    assert!(live.is_left_out(NOW));
    let back = NOW + term + millis(1);
    (0..3).for_each(|_| {
        assert!(!live.is_left_out(back));
        live.begin();
    });
    assert!(live.is_left_out(back));
    // The first success of the three makes room for nobody: two more must succeed.
    live.answered(&pool.fleet, ok(10), back);
    assert!(live.is_left_out(back));
}

#[test]
fn who_returns_is_led_in_slowly() {
    let pool = warm("a\nb\nc");
    let (_, term) = eject(&pool, "a", FAILED, NOW);
    let back = NOW + term;
    assert_eq!(named(&pool, "a").live.slow_start(back), 0.1);
    assert_eq!(named(&pool, "a").live.slow_start(back + Duration::from_secs(5)), 0.5);
    assert_eq!(named(&pool, "a").live.slow_start(back + Duration::from_secs(10)), 1.0);
}

#[test]
fn after_a_quiet_minute_the_next_ejection_is_a_first_one() {
    let pool = warm("a\nb\nc");
    let (_, first) = eject(&pool, "a", FAILED, NOW);
    let much_later = NOW + first + Duration::from_secs(61);
    let _census = pick(&pool, &Wish::default(), much_later, &mut Dice::seeded(1));
    (0..3).for_each(|_| _ = attempt(&pool, "a", ok(10), much_later));
    let (_, term) = eject(&pool, "a", FAILED, much_later);
    assert!(term.as_secs_f32() <= 5.5, "{term:?}");
}

#[track_caller]
fn check_ejectable(size: usize, expected: usize) {
    let pool = warm(&(0..size).map(|i| format!("e{i}\n")).collect::<String>());
    let fails = |i: usize| (0..5).any(|_| attempt(&pool, &format!("e{i}"), Outcome::ConnectFailed, NOW).is_some());
    assert_eq!((0..size).filter(|&i| fails(i)).count(), expected, "of {size}");
}

#[test]
fn a_third_of_the_pool_is_ejected_at_most_and_never_the_last() {
    check_ejectable(1, 0);
    check_ejectable(2, 1);
    check_ejectable(3, 1);
    check_ejectable(5, 1);
    check_ejectable(6, 2);
    check_ejectable(100, 33);
}

#[test]
fn a_failing_fleet_ejects_for_answers_no_more_but_for_connections_still() {
    let pool = warm("a\nb\nc");
    (0..100).for_each(|n| _ = attempt(&pool, ["b", "c"][n % 2], if n % 4 < 2 { FAILED } else { ok(10) }, NOW));
    assert!(pool.fleet.failure_rate() > 0.1);
    assert!((0..20).all(|_| attempt(&pool, "a", FAILED, NOW).is_none()));
    assert!(attempt(&pool, "a", Outcome::ConnectFailed, NOW).is_some());
}

#[test]
fn room_for_ejections_is_made_when_the_ejected_return() {
    let pool = warm("a\nb\nc");
    let (_, term) = eject(&pool, "a", FAILED, NOW);
    assert!((0..20).all(|_| attempt(&pool, "b", Outcome::ConnectFailed, NOW).is_none()), "one of three is out already");
    let back = NOW + term + millis(1);
    let _census = pick(&pool, &Wish::default(), back, &mut Dice::seeded(1));
    assert!(attempt(&pool, "b", Outcome::ConnectFailed, back).is_some());
}

// --- starting ---

#[test]
fn a_start_begins_slowly_and_a_drain_called_off_does_not() {
    let live = Live::new(Moment::START);
    assert_eq!(live.slow_start(NOW), 1.0);
    live.set_state(State::Draining, NOW);
    live.set_state(State::Running, NOW);
    assert_eq!(live.slow_start(NOW), 1.0);
    live.set_state(State::Starting, NOW);
    live.set_state(State::Running, NOW);
    assert_eq!(live.slow_start(NOW), 0.1);
}

#[test]
fn what_a_pick_reads_is_one_cache_line_and_all_of_it_is_two() {
    assert!(std::mem::offset_of!(Live, completed) <= 64);
    // With the counts of its Arc, what the allocator gives out.
    assert!(size_of::<Live>() + 2 * size_of::<usize>() <= 128, "{}", size_of::<Live>());
}

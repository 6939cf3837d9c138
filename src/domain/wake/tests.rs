//! Episodes as text: a line is `seconds happening -> effects [stage]`.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::identity::{Address, AppId, InstanceId};
use crate::domain::load::Share;
use crate::domain::moment::Moment;
use crate::domain::protocol::app::{Failed, Forget, Park, Sleep, Starting, Unpark};
use crate::domain::protocol::route_uri::RouteUri;

fn at(seconds: f64) -> Moment {
    Moment::from_nanos((seconds * 1e9) as u64)
}

fn shop() -> AppId {
    AppId::new("shop")
}

fn instance(name: &str) -> Instance {
    Instance { address: Address::new("10.0.0.1", 61001), id: InstanceId::new(name) }
}

fn sleep(epoch: u64) -> Sleep {
    let uri = RouteUri::parse("shop.test").expect("a good route");
    Sleep { app: shop(), uris: [uri].into(), epoch, ready_after: None, name: Some("Shop".into()) }
}

/// `park 3`, `unpark 3`, `sleep 3` (instance `old` leaves), `starting 3 0.5`, `failed 3`, `failed 3 until 30` (seconds
/// from now), `failed 3 until 30 #2`, `failed 3 #2` (the second start), `forget`, `want`, `refused 3 1`, `refused 3 1 for_all`, `registered x`, `gone x`, `ready x`, `up`, `down`, `tick`.
fn happening(words: &[&str]) -> Happening {
    let app = shop();
    let number = |index: usize| words[index].parse::<u64>().expect("a number");
    match words[0] {
        "park" => Happening::Park(Park { app, uris: [].into(), epoch: number(1) }),
        "unpark" => Happening::Unpark(Unpark { app, epoch: number(1), router: "other".into() }),
        "echo" => Happening::Unpark(Unpark { app, epoch: number(1), router: "me".into() }),
        "sleep" => Happening::Sleep(sleep(number(1)), vec![instance("old")]),
        "starting" => {
            let progress = words.get(2).and_then(|share| Share::reported(share.parse().expect("a share")));
            Happening::Starting(Starting { app, epoch: number(1), instances: 1, progress, message: None })
        }
        "failed" => {
            let attempt = words.iter().find_map(|word| word.strip_prefix('#')?.parse().ok());
            let until = words.get(2).filter(|word| **word == "until").map(|_| number(3));
            let retry_in = until.map(Duration::from_secs);
            let failed = Failed { app, epoch: number(1), message: "no room".into(), retry_at_unix_ms: None, attempt };
            Happening::Failed(failed, retry_in)
        }
        "forget" => Happening::Forget(Forget { app }),
        "want" => Happening::Wanted { app, uri: "shop.test".into() },
        "refused" => {
            let for_all = words.get(3) == Some(&"for_all");
            let (attempt, message) = (number(2) as u32, "status 500".into());
            Happening::Refused { app, epoch: number(1), attempt, message, for_all }
        }
        "registered" => Happening::Registered { app, instance: instance(words[1]) },
        "gone" => Happening::Gone { app, instance: instance(words[1]) },
        "ready" => Happening::Ready { app, instance: instance(words[1]) },
        "up" => Happening::BusUp,
        "down" => Happening::BusDown,
        "tick" => Happening::Tick,
        other => panic!("{other}?"),
    }
}

fn shown(effect: &Effect) -> String {
    match effect {
        Effect::Ask(ask) => format!("ask {}#{}", ask.epoch, ask.attempt),
        Effect::Unpark { epoch, .. } => format!("unpark {epoch}"),
        Effect::AnswerPark { in_flight, .. } => format!("answer {in_flight}"),
        Effect::Asleep(_) => "asleep".into(),
        Effect::Probe { instance, .. } => format!("probe {}", instance.id),
        Effect::Awake { took: None, .. } => "awake".into(),
        Effect::Awake { took: Some(took), .. } => format!("awake after {}", took.as_secs_f64()),
        Effect::Failed { .. } => "failed".into(),
        Effect::GaveUp { attempt, retry_in, .. } => format!("gave up #{attempt} for {}", retry_in.as_secs()),
        Effect::Forgotten { uris, .. } => format!("forgotten {}", uris[0]),
    }
}

fn run(apps: &mut Apps, script: &str) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (what, expected) = line.split_once("->").expect("an arrow");
        let words: Vec<&str> = what.split_whitespace().collect();
        let now = at(words[0].parse().expect("seconds"));
        let effects = match apps.handle(happening(&words[1..]), now) {
            Ok(effects) => effects.iter().map(shown).collect::<Vec<_>>().join(", "),
            Err(ignored) => format!("! {}", ignored.label()),
        };
        let found = format!("{effects} [{}]", apps.stage(&shop()).label());
        assert_eq!(found.trim(), expected.trim(), "at: {line}");
        assert_eq!(apps.live(&shop()).stage(), apps.stage(&shop()), "workers see another stage at: {line}");
    }
}

#[track_caller]
fn check(script: &str) -> Apps {
    check_with(Settings::default(), script)
}

#[track_caller]
fn check_with(settings: Settings, script: &str) -> Apps {
    let mut apps = Apps::new("me", settings, Arc::default());
    apps.handle(Happening::BusUp, at(0.0)).expect("the bus is new");
    run(&mut apps, script);
    apps
}

#[test]
fn the_first_visitor_wakes_and_the_second_only_waits() {
    check(
        "0 park 1 -> answer 0 [parking]
         1 sleep 1 -> asleep [sleeping]
         60 want -> ask 1#1 [starting]
         60.1 want -> ! repeated [starting]
         61 starting 1 0.5 -> [starting]
         63 registered new -> probe new [starting]
         64 ready new -> awake after 4 [awake]
         65 ready new -> ! repeated [awake]
         66 want -> ! out_of_place [awake]",
    );
}

#[test]
fn asks_are_repeated_less_and_less_often_until_the_deadline() {
    let mut apps = check("0 sleep 1 -> asleep [sleeping]\n 0 want -> ask 1#1 [starting]");
    let mut asked_at = Vec::new();
    while let Some(due) = apps.due().filter(|due| *due <= at(300.0)) {
        match apps.handle(Happening::Tick, due).expect("a timer").as_slice() {
            [Effect::Ask(Ask { attempt: 1, epoch: 1, .. })] => asked_at.push(due.as_nanos() / 1_000_000_000),
            [Effect::Failed { .. }] => assert_eq!(due, at(300.0)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(asked_at, [2, 6, 14, 30, 60, 90, 120, 150, 180, 210, 240, 270]);
    let view = apps.live(&shop()).view();
    assert_eq!((view.failure.clone(), view.retry_at), (Some(Failure::TooLate), Some(at(360.0))));
}

#[test]
fn three_failed_tries_fail_the_start_and_a_later_visitor_begins_anew() {
    check(
        "0 sleep 1 -> asleep [sleeping]
         0 want -> ask 1#1 [starting]
         1 failed 1 -> [starting]
         1 failed 1 -> ! repeated [starting]
         4.9 tick -> [starting]
         5 tick -> ask 1#2 [starting]
         6 failed 1 -> [starting]
         14 tick -> ask 1#3 [starting]
         15 failed 1 -> failed, gave up #3 for 60 [failed]
         15 failed 1 -> ! repeated [failed]
         74 want -> ! out_of_place [failed]
         75 want -> ask 1#4 [starting]
         76 ready new -> awake after 1 [awake]",
    );
}

#[test]
fn who_knows_when_to_retry_is_believed() {
    check(
        "0 sleep 1 -> asleep [sleeping]
         0 want -> ask 1#1 [starting]
         1 failed 1 until 10 -> failed [failed]
         10 want -> ! out_of_place [failed]
         11 want -> ask 1#2 [starting]",
    );
}

#[test]
fn what_another_router_has_given_up_is_not_tried_on_and_counts_on_from_there() {
    check(
        "0 sleep 1 -> asleep [sleeping]
         1 want -> ask 1#1 [starting]
         2 failed 1 #2 -> [starting]
         6 tick -> ask 1#3 [starting]
         6 failed 1 #2 -> ! stale [starting]
         7 failed 1 #3 -> [starting]
         7 failed 1 until 60 #3 -> failed [failed]
         66 want -> ! out_of_place [failed]
         67 want -> ask 1#4 [starting]",
    );
    check(
        "0 sleep 1 -> asleep [sleeping]
         1 failed 1 #3 -> ! out_of_place [sleeping]
         1 failed 1 until 0 #3 -> ! out_of_place [sleeping]
         1 failed 1 until 60 #3 -> failed [failed]
         60 want -> ! out_of_place [failed]
         61 want -> ask 1#4 [starting]
         62 ready new -> awake after 1 [awake]",
    );
}

#[test]
fn a_start_that_others_left_to_this_router_is_given_up_for_them_too() {
    let settings = Settings { asks_over_bus: false, tries: 1, ..Settings::default() };
    let script = "0 sleep 1 -> asleep [sleeping]
         0 want -> ask 1#1 [starting]
         1 refused 1 1 for_all -> failed, gave up #1 for 60 [failed]
         1 failed 1 until 60 #1 -> ! repeated [failed]";
    check_with(settings, script);
}

#[test]
fn an_ask_that_somebody_carries_is_not_repeated_but_its_refusal_counts() {
    let settings = Settings { asks_over_bus: false, ..Settings::default() };
    let script = "0 sleep 1 -> asleep [sleeping]
         0 want -> ask 1#1 [starting]
         3 tick -> [starting]
         3 refused 1 1 -> [starting]
         3 refused 1 1 -> ! repeated [starting]
         7 tick -> ask 1#2 [starting]
         8 refused 1 1 -> ! stale [starting]
         8 refused 1 2 -> [starting]
         16 tick -> ask 1#3 [starting]
         17 refused 1 3 -> failed [failed]";
    let apps = check_with(settings, script);
    assert_eq!(apps.live(&shop()).view().failure, Some(Failure::Told("status 500".into())));
}

#[test]
fn a_request_calls_the_sleep_off_on_every_router() {
    check(
        "0 park 1 -> answer 0 [parking]
         1 want -> unpark 1 [awake]
         1 echo 1 -> ! repeated [awake]
         2 park 1 -> answer 0 [awake]
         3 park 2 -> answer 0 [parking]
         4 unpark 2 -> [awake]
         4 unpark 2 -> ! repeated [awake]",
    );
}

#[test]
fn a_park_that_comes_after_it_was_called_off_parks_nothing() {
    check("0 unpark 1 -> [awake]\n 1 park 1 -> answer 0 [awake]\n 2 park 2 -> answer 0 [parking]");
}

#[test]
fn a_controller_that_did_not_hear_of_the_visitor_is_told_again() {
    check("0 park 1 -> answer 0 [parking]\n 1 want -> unpark 1 [awake]\n 2 sleep 1 -> asleep, ask 1#1 [starting]");
    // On the other routers the sleep holds, in whichever order the two come.
    check("0 park 1 -> answer 0 [parking]\n 1 unpark 1 -> [awake]\n 2 sleep 1 -> asleep [sleeping]");
    check("0 park 1 -> answer 0 [parking]\n 1 sleep 1 -> asleep [sleeping]\n 2 unpark 1 -> [sleeping]");
}

#[test]
fn older_and_repeated_messages_lose() {
    check(
        "0 sleep 5 -> asleep [sleeping]
         0 sleep 5 -> ! repeated [sleeping]
         0 sleep 4 -> ! stale [sleeping]
         0 park 4 -> ! stale [sleeping]
         0 unpark 4 -> ! stale [sleeping]
         0 starting 4 -> ! stale [sleeping]
         0 failed 4 -> ! stale [sleeping]
         20 ready new -> awake [awake]
         21 sleep 5 -> ! repeated [awake]
         21 park 5 -> answer 0 [awake]
         21 starting 5 -> ! out_of_place [awake]
         21 failed 5 -> ! out_of_place [awake]
         22 sleep 6 -> asleep [sleeping]",
    );
}

#[test]
fn messages_about_unknown_apps_change_nothing() {
    check(
        "0 starting 1 -> ! out_of_place [awake]
         0 failed 1 -> ! out_of_place [awake]
         0 forget -> ! out_of_place [awake]
         0 want -> ! out_of_place [awake]
         0 registered x -> [awake]
         0 ready x -> ! out_of_place [awake]",
    );
}

#[test]
fn last_signs_of_life_of_what_is_being_stopped_wake_nobody() {
    check(
        "0 sleep 1 -> asleep [sleeping]
         1 registered old -> ! leaving [sleeping]
         1 ready old -> ! leaving [sleeping]
         2 registered new -> probe new [sleeping]
         14.9 registered old -> ! leaving [sleeping]
         15 registered old -> probe old [sleeping]",
    );
    check("0 sleep 1 -> asleep [sleeping]\n 1 gone old -> [sleeping]\n 2 registered old -> probe old [sleeping]");
}

#[test]
fn a_start_for_somebody_else_is_shown_and_asked_for_only_if_it_comes_to_nothing() {
    check(
        "0 sleep 1 -> asleep [sleeping]
         1 starting 1 -> [starting]
         2 want -> [starting]
         4 tick -> ask 1#1 [starting]
         5 ready new -> awake after 4 [awake]",
    );
    check("0 sleep 1 -> asleep [sleeping]\n 1 starting 1 -> [starting]\n 301 tick -> [sleeping]");
    check(
        "0 sleep 1 -> asleep [sleeping]
         1 starting 1 -> [starting]
         2 failed 1 -> failed [failed]
         3 starting 1 0.1 -> [starting]",
    );
}

#[test]
fn while_the_bus_is_away_nobody_is_asked_and_no_deadline_runs_out() {
    let mut apps = check(
        "0 sleep 1 -> asleep [sleeping]
         1 down -> [sleeping]
         2 want -> [starting]
         500 tick -> [starting]",
    );
    assert!(apps.live(&shop()).view().unreachable);
    run(&mut apps, "600 up -> ask 1#1 [starting]\n 602 tick -> ask 1#1 [starting]");
    assert!(!apps.live(&shop()).view().unreachable);
    run(&mut apps, "900 tick -> failed [failed]");
}

#[test]
fn asks_are_never_closer_than_the_retry_even_over_a_flapping_bus() {
    check(
        "0 sleep 1 -> asleep [sleeping]
         0 want -> ask 1#1 [starting]
         0.5 down -> [starting]
         1 up -> [starting]
         1.5 tick -> [starting]
         2 tick -> ask 1#1 [starting]",
    );
}

#[test]
fn a_park_while_somebody_waits_is_called_off_at_once() {
    check(
        "0 sleep 1 -> asleep [sleeping]
         1 want -> ask 1#1 [starting]
         2 park 2 -> unpark 2, answer 0 [starting]
         3 sleep 2 -> asleep, ask 2#1 [starting]",
    );
    let mut apps = check("0 park 1 -> answer 0 [parking]");
    let _waiting = LiveApp::hold(apps.live(&shop()), 1);
    run(&mut apps, "1 park 1 -> unpark 1, answer 1 [awake]\n 2 sleep 2 -> asleep, ask 2#1 [starting]");
}

#[test]
fn a_park_while_it_sleeps_takes_no_route_away() {
    check("0 sleep 1 -> asleep [sleeping]\n 1 park 2 -> answer 0 [sleeping]\n 2 ready new -> awake [parking]");
    check("0 sleep 1 -> asleep [sleeping]\n 1 park 2 -> answer 0 [sleeping]\n 2 want -> unpark 2, ask 2#1 [starting]");
}

#[test]
fn forgetting_takes_the_routes_away_and_late_messages_do_not_bring_them_back() {
    let mut apps = check(
        "0 sleep 3 -> asleep [sleeping]
         1 forget -> forgotten shop.test [awake]
         2 sleep 3 -> ! repeated [awake]
         2 sleep 2 -> ! stale [awake]
         3 forget -> [awake]",
    );
    run(&mut apps, "3603 tick -> [awake]");
    apps.lives().sweep();
    assert_eq!((apps.lives().count().0, apps.due()), ([0; 5], None));
}

#[test]
fn an_app_that_stays_awake_is_forgotten_after_a_week() {
    let mut apps = check("0 sleep 1 -> asleep [sleeping]\n 1 ready new -> awake [awake]");
    assert_eq!(apps.lives().count(), ([1, 0, 0, 0, 0], 0));
    run(&mut apps, "604801 tick -> [awake]");
    apps.lives().sweep();
    assert!(apps.lives().all().is_empty());
}

#[test]
fn what_earlier_starts_took_is_expected_of_the_next() {
    let apps = check(
        "0 sleep 1 -> asleep [sleeping]
         1 want -> ask 1#1 [starting]
         5 ready new -> awake after 4 [awake]
         100 sleep 2 -> asleep [sleeping]
         101 want -> ask 2#1 [starting]",
    );
    assert_eq!(apps.live(&shop()).view().expected, Some(Duration::from_secs(4)));
    let told = apps.sleeping().next().expect("one app sleeps");
    assert_eq!((told.epoch, told.ready_after), (2, Some(Duration::from_secs(4))));
}

#[test]
fn until_then_the_platform_is_believed() {
    let mut apps = Apps::new("me", Settings::default(), Arc::default());
    let told = Sleep { ready_after: Some(Duration::from_secs(9)), ..sleep(1) };
    apps.handle(Happening::Sleep(told.clone(), Vec::new()), at(0.0)).expect("a first sleep");
    assert_eq!(apps.live(&shop()).view().expected, Some(Duration::from_secs(9)));
    assert!(apps.sleeping().eq([told]));
}

#[test]
fn no_more_apps_are_remembered_than_allowed() {
    let settings = Settings { apps_max: 0, ..Settings::default() };
    check_with(settings, "0 sleep 1 -> ! too_many [awake]\n 0 park 1 -> ! too_many [awake]");
}

#[test]
fn the_answer_to_a_park_tells_how_long_nobody_came() {
    let mut apps = Apps::new("me", Settings::default(), Arc::default());
    let request = LiveApp::begin(apps.live(&shop()), at(3.0));
    let park = || Happening::Park(Park { app: shop(), uris: [].into(), epoch: 1 });
    let answer =
        |in_flight| Effect::AnswerPark { app: shop(), in_flight, last_request_ago: Some(Duration::from_secs(7)) };
    assert_eq!(apps.handle(park(), at(10.0)), Ok(vec![answer(1)]));
    drop(request);
    assert_eq!(apps.handle(park(), at(10.0)), Ok(vec![answer(0)]));
}

#[test]
fn reports_tell_what_happened_since_the_last_one() {
    let apps = Apps::new("me", Settings::default(), Arc::default());
    let mut reporter = Reporter::new("0-2c1e", at(0.0));
    let mut request = LiveApp::begin(apps.live(&shop()), at(1.0));
    request.answered(200, Duration::from_millis(4));
    drop(request);
    apps.live(&AppId::new("idle"));
    let texts = |reports: Vec<bytes::Bytes>| {
        reports.iter().map(|report| String::from_utf8_lossy(report).into_owned()).collect::<Vec<_>>()
    };
    let [first] = texts(reporter.report(apps.lives().all().iter(), at(10.0))).try_into().expect("one message");
    assert!(
        first.starts_with(r#"{"router":"0-2c1e","seq":1,"interval_ms":10000,"apps":{"shop":{"requests":1,"#),
        "{first}"
    );
    assert!(first.contains(r#""last_request_ms_ago":9000,"status":{"2xx":1},"latency_ms":{"p50":"#), "{first}");
    let second = texts(reporter.report(apps.lives().all().iter(), at(20.0)));
    assert_eq!(second, [r#"{"router":"0-2c1e","seq":2,"interval_ms":10000,"apps":{}}"#]);
}

#[test]
fn a_report_on_many_apps_comes_in_parts_that_the_bus_carries() {
    let apps = Apps::new("me", Settings::default(), Arc::default());
    for n in 0..3000 {
        drop(LiveApp::begin(apps.live(&AppId::new(&format!("{n:036}"))), at(1.0)));
    }
    let reports = Reporter::new("me", at(0.0)).report(apps.lives().all().iter(), at(1.0));
    assert!(reports.len() > 1 && reports.iter().all(|report| report.len() < 1 << 20));
    let apps_of = |report: &bytes::Bytes| {
        let read: serde_json::Value = serde_json::from_slice(report).expect("JSON");
        read["apps"].as_object().map_or(0, serde_json::Map::len)
    };
    assert_eq!(reports.iter().map(apps_of).sum::<usize>(), 3000);
}

//! Messages about sleep: what is read, what is refused, and that what we write reads the same.

use std::fmt::Debug;

use proptest::prelude::*;

use super::*;

#[track_caller]
fn check_refused<T: Debug>(decode: fn(&[u8]) -> Result<T, Rejection>, payload: &str, reason: Reason) {
    match decode(payload.as_bytes()) {
        Err(rejection) => assert_eq!(rejection.reason, reason, "{payload}"),
        Ok(message) => panic!("{payload} was read as {message:?}"),
    }
}

fn uris(uris: &[&str]) -> Arc<[RouteUri]> {
    uris.iter().map(|uri| RouteUri::parse(uri).expect("a good route")).collect()
}

#[test]
fn a_sleep_is_read_whole() {
    let payload = br#"{"app":"a1","uris":["Shop.example.com/Cart","*.b.com"],"epoch":7,"ready_after_ms":2500,
        "name":" Shop\n one ","added_later":[1]}"#;
    let sleep = Sleep::decode(payload).expect("a good message");
    assert_eq!(sleep.app, AppId::new("a1"));
    assert_eq!(sleep.uris, uris(&["shop.example.com/cart", "*.b.com"]));
    assert_eq!((sleep.epoch, sleep.ready_after), (7, Some(Duration::from_millis(2500))));
    assert_eq!(sleep.name.as_deref(), Some("Shop one"));
}

#[test]
fn what_may_be_left_out_may_be_null_too() {
    let bare = Sleep::decode(br#"{"app":"a","uris":[],"epoch":0}"#);
    assert_eq!(bare, Sleep::decode(br#"{"app":"a","uris":[],"epoch":0,"name":null,"ready_after_ms":null}"#));
    assert_eq!(bare.map(|sleep| (sleep.name, sleep.ready_after)), Ok((None, None)));
    assert!(Park::decode(br#"{"app":"a","epoch":1}"#).is_ok_and(|park| park.uris.is_empty()));
}

#[test]
fn malformed_messages_are_refused_by_reason() {
    check_refused(Sleep::decode, "", Reason::NotJson);
    check_refused(Sleep::decode, r#"["a",["b.com"],1]"#, Reason::NotJson);
    check_refused(Sleep::decode, r#"{"app":"a","uris":[],"epoch":1"#, Reason::NotJson);
    check_refused(Sleep::decode, r#"{"app":"a","uris":[],"epoch":1}{}"#, Reason::NotJson);
    check_refused(Sleep::decode, r#"{"uris":[],"epoch":1}"#, Reason::MissingId);
    check_refused(Sleep::decode, r#"{"app":"","uris":[],"epoch":1}"#, Reason::MissingId);
    check_refused(Sleep::decode, r#"{"app":"a\u0000","uris":[],"epoch":1}"#, Reason::BadText);
    check_refused(Sleep::decode, r#"{"app":"a","epoch":1}"#, Reason::WrongType);
    check_refused(Sleep::decode, r#"{"app":"a","uris":[],"epoch":-1}"#, Reason::WrongType);
    check_refused(Sleep::decode, r#"{"app":"a","uris":[],"epoch":1.5}"#, Reason::WrongType);
    check_refused(Sleep::decode, r#"{"app":"a","uris":[],"epoch":"1"}"#, Reason::WrongType);
    check_refused(Sleep::decode, r#"{"app":"a","app":"b","uris":[],"epoch":1}"#, Reason::DuplicateKey);
    check_refused(Sleep::decode, r#"{"app":"a","uris":["/x"],"epoch":1}"#, Reason::BadUri);
    check_refused(Park::decode, r#"{"app":"a"}"#, Reason::WrongType);
    check_refused(Unpark::decode, r#"{"app":7,"epoch":1}"#, Reason::WrongType);
    check_refused(Forget::decode, "{}", Reason::MissingId);
    check_refused(Failed::decode, r#"{"app":"a","epoch":1,"retry_at":"tomorrow"}"#, Reason::BadTime);
    check_refused(Starting::decode, r#"{"app":"a","epoch":1,"instances":1,"progress":40}"#, Reason::LoadOutOfRange);
    check_refused(Starting::decode, r#"{"app":"a","epoch":1,"instances":-1}"#, Reason::WrongType);
    check_refused(ListAnswer::decode, r#"{"apps":[{"app":"a","uris":["b.com"]}]}"#, Reason::WrongType);
    assert_eq!(Sleep::decode(b"{\xff}").map_err(|rejection| rejection.reason), Err(Reason::NotUtf8));
}

#[test]
fn messages_larger_than_the_bus_carries_are_refused() {
    let many = format!(r#"{{"app":"a","epoch":1,"uris":[{}"a.com"]}}"#, r#""a.com","#.repeat(URIS_MAX));
    check_refused(Sleep::decode, &many, Reason::TooLarge);
    check_refused(Sleep::decode, &" ".repeat(MESSAGE_BYTES_MAX + 1), Reason::TooLarge);
    let long = format!(r#"{{"app":"{}","epoch":1}}"#, "a".repeat(TEXT_BYTES_MAX + 1));
    check_refused(Park::decode, &long, Reason::TooLarge);
}

#[test]
fn text_for_people_is_cut_rather_than_refused() {
    let payload = format!(r#"{{"app":"a","epoch":1,"message":"quota\r\n{}"}}"#, "é".repeat(2000));
    let failed = Failed::decode(payload.as_bytes()).expect("a good message");
    assert!(failed.message.starts_with("quota é") && failed.message.ends_with('…'));
    assert_eq!(failed.message.chars().count(), MESSAGE_CHARS_MAX + 1);
}

#[test]
fn the_time_of_the_next_try_becomes_a_duration() {
    let payload = br#"{"app":"a","epoch":1,"message":"","retry_at":"2026-11-21T10:00:00.5Z"}"#;
    let failed = Failed::decode(payload).expect("a good message");
    assert_eq!(failed.retry_at_unix_ms, Some(1_795_255_200_500));
    assert_eq!(failed.retry_in(1_795_255_200_000), Some(Duration::from_millis(500)));
    assert_eq!(failed.retry_in(1_795_255_999_000), Some(Duration::ZERO));
    assert_eq!(failed.retry_in(0), Some(DURATION_MAX));
}

#[test]
fn a_wake_says_when_and_why() {
    let wake = Wake {
        app: AppId::new("a1"),
        uri: "shop.example.com".into(),
        epoch: 3,
        router: "0-2c1e".into(),
        at_unix_ms: 1_795_255_200_000,
        attempt: 2,
    };
    let written = wake.encode();
    assert_eq!(
        std::str::from_utf8(&written),
        Ok(concat!(
            r#"{"app":"a1","uri":"shop.example.com","epoch":3,"router":"0-2c1e","#,
            r#""at":"2026-11-21T10:00:00Z","reason":"request","attempt":2}"#
        ))
    );
    assert_eq!(Wake::decode(&written), Ok(wake));
}

#[test]
fn a_list_needs_no_body() {
    assert_eq!(List::decode(b""), List::decode(b"{}"));
    let list = List { router: "0-2c1e".into() };
    assert_eq!(List::decode(&list.encode()), Ok(list));
}

#[test]
fn long_lists_are_answered_in_parts() {
    let sleep = |n: usize| Sleep {
        app: AppId::new(&format!("app-{n}")),
        uris: uris(&["a-route-of-some-length.example.com"; 10]),
        epoch: 1,
        ready_after: None,
        name: None,
    };
    let answers = ListAnswer::encode_all("0-2c1e", (0..2000).map(sleep));
    assert!(answers.len() > 1 && answers.iter().all(|answer| answer.len() < MESSAGE_BYTES_MAX));
    let read = answers.iter().flat_map(|answer| ListAnswer::decode(answer).expect("our own").apps);
    assert!(read.eq((0..2000).map(sleep)));
    assert_eq!(ListAnswer::encode_all("0-2c1e", std::iter::empty()).len(), 1);
}

#[test]
fn statistics_name_only_what_happened() {
    let stats = AppStats {
        requests: 810,
        in_flight: 3,
        tunnels: 1,
        last_request_ms_ago: Some(12),
        status: [0, 800, 0, 10, 0],
        latency_ms: Some(LatencyStats { p50: 4.1, p95: 19.0, p99: 44.0 }),
        bytes_in: 1024,
        bytes_out: 90210,
    };
    let message = Stats { router: "0-2c1e", seq: 12, interval_ms: 10_000, apps: &[("app-guid", stats)] }.encode();
    assert_eq!(
        std::str::from_utf8(&message),
        Ok(concat!(
            r#"{"router":"0-2c1e","seq":12,"interval_ms":10000,"apps":{"app-guid":{"requests":810,"in_flight":3,"#,
            r#""tunnels":1,"last_request_ms_ago":12,"status":{"2xx":800,"4xx":10},"#,
            r#""latency_ms":{"p50":4.1,"p95":19.0,"p99":44.0},"bytes_in":1024,"bytes_out":90210}}}"#
        ))
    );
}

prop_compose! {
    fn any_sleep()(
        app in "[ -~]{1,40}", hosts in prop::collection::vec("[a-zA-Z]{1,9}(\\.[a-z]{1,9}){0,3}(/[a-zA-Z0-9%]{1,5}){0,2}", 0..5),
        epoch in any::<u64>(), ready_after in prop::option::of(0..86_400_000u64), name in prop::option::of("[!-~]{1,9}"),
    ) -> Sleep {
        Sleep {
            app: AppId::new(&app),
            uris: hosts.iter().map(|uri| RouteUri::parse(uri).expect("a good route")).collect(),
            epoch,
            ready_after: ready_after.map(Duration::from_millis),
            name: name.as_deref().map(ArcStr::from),
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(sleep in any_sleep(), text in "[ -~]{0,20}", number in any::<u32>()) {
        prop_assert_eq!(&Sleep::decode(&sleep.encode()), &Ok(sleep.clone()));
        let (app, epoch) = (sleep.app.clone(), sleep.epoch);
        let park = Park { app: app.clone(), uris: sleep.uris.clone(), epoch };
        prop_assert_eq!(Park::decode(&park.encode()), Ok(park));
        let unpark = Unpark { app: app.clone(), epoch, router: text.as_str().into() };
        prop_assert_eq!(Unpark::decode(&unpark.encode()), Ok(unpark));
        let forget = Forget { app: app.clone() };
        prop_assert_eq!(Forget::decode(&forget.encode()), Ok(forget));
        let failed = Failed { app: app.clone(), epoch, message: shown_text(&text, 50), retry_at_unix_ms: Some(u64::from(number)), attempt: Some(number) };
        prop_assert_eq!(Failed::decode(&failed.encode()), Ok(failed));
        let progress = Share::reported(f64::from(number) / f64::from(u32::MAX));
        let starting = Starting { app, epoch, instances: number, progress, message: sleep.name.clone() };
        prop_assert_eq!(Starting::decode(&starting.encode()), Ok(starting));
        let answer = ParkAnswer { router: text.as_str().into(), app: sleep.app.clone(), in_flight: epoch, last_request_ms_ago: None };
        prop_assert_eq!(ParkAnswer::decode(&answer.encode()), Ok(answer));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(payload in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,200}") {
        for payload in [payload.as_slice(), text.as_bytes()] {
            let _ = (Park::decode(payload), Sleep::decode(payload), Wake::decode(payload), Failed::decode(payload));
            let _ = (Unpark::decode(payload), Starting::decode(payload), Forget::decode(payload), List::decode(payload));
            let _ = (ListAnswer::decode(payload), ParkAnswer::decode(payload));
        }
    }
}

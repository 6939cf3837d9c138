//! What is taken and what is refused, and that what is written reads back as the same.

use std::time::Duration;

use arcstr::ArcStr;
use proptest::prelude::*;

use super::heartbeat::{Entry, EntryState, Exited, Heartbeat, Serves, Shutdown};
use super::register::Registration;
use super::rejection::{MESSAGE_BYTES_MAX, Reason};
use super::route_uri::RouteUri;
use super::{check, subject};
use crate::domain::balance::strategy::Strategy as Balancing;
use crate::domain::endpoint::{Facts, Protocol, Tls};
use crate::domain::identity::{Address, AgentId, AppId, InstanceId};
use crate::domain::load::{Share, Usage};
use crate::domain::tags::Tags;

/// A registration with `keys` beside host, port and uris.
#[track_caller]
fn registration(keys: &str) -> Registration {
    let payload = format!(r#"{{"host":"10.0.0.1","port":8080,"uris":["shop.test"]{keys}}}"#);
    Registration::decode(payload.as_bytes()).expect("a good registration")
}

#[track_caller]
fn check_refused(subject: &str, payload: impl AsRef<[u8]>, reason: Reason) {
    let found = check(subject, payload.as_ref()).map_err(|rejection| rejection.reason);
    let shown: String = String::from_utf8_lossy(payload.as_ref()).chars().take(200).collect();
    assert_eq!(found, Err(reason), "{shown}");
}

#[track_caller]
fn check_registration_refused(keys: &str, reason: Reason) {
    check_refused(subject::REGISTER, format!(r#"{{"host":"10.0.0.1","port":8080,"uris":["a.b"]{keys}}}"#), reason);
    check_refused(subject::UNREGISTER, format!(r#"{{"host":"10.0.0.1","port":8080,"uris":["a.b"]{keys}}}"#), reason);
}

// Registrations

#[test]
fn a_registration_of_gorouters_documentation_is_understood() {
    let payload = r#"{
        "host": "127.0.0.1", "port": 4567, "tls_port": 1234, "protocol": "http1",
        "uris": ["my_first_url.localhost.routing.cf-app.com", "my_second_url.localhost.routing.cf-app.com"],
        "tags": {"another_key": "another_value", "some_key": "some_value"},
        "app": "some_app_guid", "stale_threshold_in_seconds": 120, "private_instance_id": "some_app_instance_id",
        "isolation_segment": "some_iso_seg_name", "server_cert_domain_san": "some_subject_alternative_name",
        "private_instance_index": "3", "availability_zone": "some-zone", "route_service_url": "https://service.test",
        "endpoint_updated_at_ns": 1234567890123456789, "options": {"loadbalancing": "least-connection"}
    }"#;
    let read = Registration::decode(payload.as_bytes()).expect("a good registration");
    assert_eq!(
        read.facts,
        Facts {
            address: Address::new("127.0.0.1", 1234),
            tls: Some(Tls { server_name: "some_subject_alternative_name".into() }),
            protocol: Protocol::Http1,
            app: AppId::new("some_app_guid"),
            instance: InstanceId::new("some_app_instance_id"),
            index: "3".into(),
            agent: None,
            tags: Tags::new([("another_key", "another_value"), ("some_key", "some_value")]),
            zone: "some-zone".into(),
            isolation_segment: "some_iso_seg_name".into(),
            route_service: Some("https://service.test".into()),
            weight: 1.0,
        }
    );
    assert_eq!(read.uris.len(), 2);
    assert_eq!(read.lease, Some(Duration::from_secs(120)));
    assert_eq!(read.strategy, Some(Balancing::LeastConnection));
    assert_eq!(read.updated_at_ns, Some(1_234_567_890_123_456_789));
}

#[test]
fn only_host_and_a_port_are_needed() {
    let read = Registration::decode(br#"{"host":"Backend.Internal","port":1}"#).expect("a good registration");
    assert_eq!(read, Registration::at(Address::new("backend.internal", 1)));
}

#[test]
fn null_is_missing_and_unknown_keys_are_skipped_however_deep() {
    let nulls = [
        "tls_port",
        "app",
        "private_instance_id",
        "private_instance_index",
        "dea",
        "tags",
        "stale_threshold_in_seconds",
        "protocol",
        "server_cert_domain_san",
        "route_service_url",
        "isolation_segment",
        "availability_zone",
        "endpoint_updated_at_ns",
        "options",
        "load",
    ];
    let nulls: String = nulls.iter().map(|key| format!(r#","{key}":null"#)).collect();
    assert_eq!(registration(&nulls), registration(""));
    let deep = format!(r#","unknown":{}1{},"another":{{"x":[{{}}]}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(registration(&deep), registration(""));
    assert_eq!(
        registration(r#","options":{"weight":null,"future":{"a":[1]}},"load":{"instance":{"cpu":null,"gpu":9}}"#),
        registration("")
    );
}

#[test]
fn zero_and_nonsense_leases_mean_the_routers_own() {
    for seconds in ["0", "-5"] {
        assert_eq!(registration(&format!(r#","stale_threshold_in_seconds":{seconds}"#)).lease, None);
    }
    assert_eq!(registration(r#","stale_threshold_in_seconds":7"#).lease, Some(Duration::from_secs(7)));
}

#[test]
fn the_tls_port_wins_and_a_port_of_zero_is_missing() {
    let address = |keys: &str| {
        let payload = format!(r#"{{"host":"a","uris":[],{keys}}}"#);
        Registration::decode(payload.as_bytes()).map(|read| (read.facts.address.port(), read.facts.tls.is_some()))
    };
    assert_eq!(address(r#""port":80,"tls_port":443"#), Ok((443, true)));
    assert_eq!(address(r#""port":80,"tls_port":0"#), Ok((80, false)));
    assert_eq!(address(r#""tls_port":443"#), Ok((443, true)));
    for bad in [r#""port":0"#, r#""port":65536"#, r#""port":-1"#, r#""port":80,"tls_port":70000"#, r#""app":"x""#] {
        check_refused(subject::REGISTER, format!(r#"{{"host":"a","uris":[],{bad}}}"#), Reason::BadPort);
    }
}

#[test]
fn hosts_are_names_or_ip_addresses() {
    for (written, shown) in
        [("10.0.0.1", "10.0.0.1:1"), ("[::1]", "[::1]:1"), ("::1", "[::1]:1"), ("A_b-c.D", "a_b-c.d:1")]
    {
        let read = Registration::decode(format!(r#"{{"host":"{written}","port":1}}"#).as_bytes()).expect("a good host");
        assert_eq!(read.facts.address.to_string(), shown);
    }
    for keys in [r#""port":1"#, r#""host":"","port":1"#, r#""host":null,"port":1"#] {
        check_refused(subject::REGISTER, format!("{{{keys}}}"), Reason::MissingHost);
    }
    for host in ["a b", "a/b", "user@a", "a:b", "a,b", "ä"] {
        check_refused(subject::REGISTER, format!(r#"{{"host":"{host}","port":1}}"#), Reason::BadHost);
    }
}

#[test]
fn one_wrong_type_refuses_the_whole_message() {
    for keys in [
        r#","app":1"#,
        r#","private_instance_index":1"#,
        r#","private_instance_id":["a"]"#,
        r#","tags":["a"]"#,
        r#","tags":{"a":1}"#,
        r#","tags":{"a":null}"#,
        r#","stale_threshold_in_seconds":"10""#,
        r#","stale_threshold_in_seconds":1.5"#,
        r#","options":"round-robin""#,
        r#","options":{"weight":"2"}"#,
        r#","options":{"loadbalancing":1}"#,
        r#","load":0.5"#,
        r#","load":{"instance":0.5}"#,
        r#","load":{"host":{"cpu":"0.5"}}"#,
        r#","endpoint_updated_at_ns":"now""#,
        r#","tls_port":"443""#,
        r#","dea":{}"#,
    ] {
        check_registration_refused(keys, Reason::WrongType);
    }
    for payload in [
        r#"{"host":"a","port":"80"}"#,
        r#"{"host":"a","port":80.5}"#,
        r#"{"host":"a","port":80,"uris":"a.b"}"#,
        r#"{"host":"a","port":80,"uris":["a.b",1]}"#,
        r#"{"host":"a","port":80,"uris":[null]}"#,
        r#"{"host":1,"port":80}"#,
    ] {
        check_refused(subject::REGISTER, payload, Reason::WrongType);
    }
}

#[test]
fn what_is_not_one_json_object_is_refused() {
    for payload in
        ["", "null", "[]", "[\"10.0.0.1\",80]", "\"x\"", "{", "{} {}", "{\"host\":}", "{'host':1}", "\u{feff}{}"]
    {
        check_refused(subject::REGISTER, payload, Reason::NotJson);
        check_refused(subject::HEARTBEAT, payload, Reason::NotJson);
    }
    check_refused(subject::REGISTER, b"{\"unknown\":\"\xff\"}", Reason::NotUtf8);
    check_refused(subject::REGISTER, format!(r#"{{"x":"{}"}}"#, "x".repeat(MESSAGE_BYTES_MAX)), Reason::TooLarge);
}

#[test]
fn a_known_key_given_twice_is_refused() {
    check_registration_refused(r#","port":8081"#, Reason::DuplicateKey);
    check_registration_refused(r#","tags":{"a":"1","a":"2"}"#, Reason::DuplicateKey);
    check_registration_refused(r#","load":{"host":{"cpu":0.1,"cpu":0.2}}"#, Reason::DuplicateKey);
    assert_eq!(registration(r#","unknown":1,"unknown":2"#), registration(""));
}

#[test]
fn values_that_mean_nothing_are_refused() {
    check_registration_refused(r#","route_service_url":"http://plain.test""#, Reason::BadRouteServiceUrl);
    check_registration_refused(r#","protocol":"http3""#, Reason::BadProtocol);
    for weight in ["0", "-1", "1e300", "1e-300"] {
        check_registration_refused(&format!(r#","options":{{"weight":{weight}}}"#), Reason::BadWeight);
    }
    check_registration_refused(r#","private_instance_id":"a\r\nSet-Cookie: x""#, Reason::BadText);
    check_refused(subject::REGISTER, r#"{"host":"a","port":1,"uris":["good.test",""]}"#, Reason::BadUri);
}

#[test]
fn lists_and_texts_have_limits() {
    let uris: Vec<String> = (0..5000).map(|n| format!(r#""{n}.test""#)).collect();
    check_refused(
        subject::REGISTER,
        format!(r#"{{"host":"a","port":1,"uris":[{}]}}"#, uris.join(",")),
        Reason::TooLarge,
    );
    let tags: Vec<String> = (0..200).map(|n| format!(r#""{n}":"""#)).collect();
    check_registration_refused(&format!(r#","tags":{{{}}}"#, tags.join(",")), Reason::TooLarge);
    check_registration_refused(&format!(r#","tags":{{"a":"{}"}}"#, "x".repeat(5000)), Reason::TooLarge);
    check_registration_refused(&format!(r#","app":"{}""#, "x".repeat(5000)), Reason::TooLarge);
    let droplets = vec!["{}"; 20_000].join(",");
    check_refused(subject::HEARTBEAT, format!(r#"{{"dea":"d","droplets":[{droplets}]}}"#), Reason::TooLarge);
}

#[test]
fn strategies_nobody_knows_are_not_heard() {
    assert_eq!(registration(r#","options":{"loadbalancing":"best-of-all"}"#).strategy, None);
    let hashed = registration(r#","options":{"loadbalancing":"hash","hash_header":"X-Tenant","weight":2.5}"#);
    assert_eq!((hashed.strategy, hashed.hash_header.as_deref()), (Some(Balancing::Hash), Some("X-Tenant")));
    assert_eq!(hashed.facts.weight, 2.5);
}

#[test]
fn loads_are_shares_and_percent_is_refused() {
    let read = registration(r#","load":{"instance":{"cpu":0.42,"mem":1.4,"io":-0.1},"host":{"net":1}}"#);
    let numbers = |usage: Usage| [usage.cpu, usage.mem, usage.io, usage.net].map(|share| share.map(Share::get));
    assert_eq!(numbers(read.load), [Some(0.42), Some(1.0), Some(0.0), None]);
    assert_eq!(numbers(read.host_load), [None, None, None, Some(1.0)]);
    check_registration_refused(r#","load":{"instance":{"cpu":42}}"#, Reason::LoadOutOfRange);
    check_registration_refused(r#","load":{"host":{"mem":1.5}}"#, Reason::LoadOutOfRange);
}

// Heartbeats and the rest

#[test]
fn the_heartbeat_of_the_protocol_is_understood() {
    let payload = r#"{"dea": "dea-3", "schema": 2, "seq": 1841, "boot_id": "6f", "sent_at": "2026-11-21T10:00:00Z", "interval_ms": 5000,
        "host": {"ip": "10.0.0.5", "zone": "z1", "load": {"cpu": 0.70, "mem": 0.55, "io": 0.10, "net": 0.02}},
        "droplets": [
          {"droplet": "app-guid", "version": "v", "instance": "i", "index": 0, "state": "RUNNING", "state_timestamp": 1385000000.0,
           "cc_partition": "default", "private_instance_id": "p", "port": 61001, "uris": ["shop.example.com"],
           "load": {"cpu": 0.42, "mem": 0.61, "io": 0.05, "net": 0.02}, "tags": {}, "weight": 1}]}"#;
    let read = Heartbeat::decode(payload.as_bytes()).expect("a good heartbeat");
    assert_eq!((read.agent.as_str(), read.complete, read.seq, &*read.boot), ("dea-3", true, Some(1841), "6f"));
    assert_eq!((read.sent_at_ns, read.interval), (Some(1_795_255_200_000_000_000), Some(Duration::from_secs(5))));
    let entry = &read.entries[0];
    assert_eq!((entry.app.as_str(), entry.instance.as_str(), entry.local.as_str()), ("app-guid", "p", "i"));
    let Serves::Routes(facts, uris) = &entry.serves else { panic!("the entry registers") };
    assert_eq!((facts.address.to_string().as_str(), uris[0].as_str()), ("10.0.0.5:61001", "shop.example.com"));
}

#[test]
fn an_entry_registers_with_port_and_routes_only() {
    let serves = |keys: &str| {
        let payload = format!(r#"{{"dea":"d","host":{{"ip":"10.0.0.5"}},"droplets":[{{{keys}}}]}}"#);
        Heartbeat::decode(payload.as_bytes()).expect("a good heartbeat").entries.remove(0).serves
    };
    assert_eq!(serves(""), Serves::Unsaid);
    assert_eq!(serves(r#""port":80"#), Serves::Unsaid);
    assert_eq!(serves(r#""uris":["a.b"]"#), Serves::Unsaid);
    assert_eq!(serves(r#""uris":null,"port":80"#), Serves::Unsaid);
    assert_eq!(serves(r#""uris":[],"port":80"#), Serves::Nothing);
    let address = |serves: Serves| match serves {
        Serves::Routes(facts, _) => facts.address.to_string(),
        _ => "none".to_owned(),
    };
    assert_eq!(address(serves(r#""uris":["a.b"],"port":80"#)), "10.0.0.5:80");
    assert_eq!(address(serves(r#""uris":["a.b"],"port":80,"tls_port":443,"host":"10.0.0.6""#)), "10.0.0.6:443");
}

#[test]
fn heartbeats_that_are_wrong_anywhere_are_refused_whole() {
    let refused = |keys: &str, reason| check_refused(subject::HEARTBEAT, format!(r#"{{"dea":"d",{keys}}}"#), reason);
    refused(r#""seq":-1"#, Reason::WrongType);
    refused(r#""droplets":{}"#, Reason::WrongType);
    refused(r#""host":"10.0.0.5""#, Reason::WrongType);
    refused(r#""droplets":[{"index":"0"}]"#, Reason::WrongType);
    refused(r#""droplets":[{"version":1}]"#, Reason::WrongType);
    refused(r#""droplets":[{"state_timestamp":"now"}]"#, Reason::WrongType);
    refused(r#""droplets":[{"state":"FLYING"}]"#, Reason::BadState);
    refused(r#""sent_at":"yesterday""#, Reason::BadTime);
    refused(r#""host":{"load":{"cpu":70}}"#, Reason::LoadOutOfRange);
    refused(r#""droplets":[{"load":{"cpu":70}}]"#, Reason::LoadOutOfRange);
    refused(r#""droplets":[{"uris":["a.b"],"port":80}]"#, Reason::MissingHost);
    refused(r#""host":{"ip":"x"},"droplets":[{"uris":["a.b"],"port":99999}]"#, Reason::BadPort);
    refused(r#""droplets":[{"weight":0}]"#, Reason::BadWeight);
    check_refused(subject::HEARTBEAT, r#"{"schema":2}"#, Reason::MissingId);
}

#[test]
fn agents_and_instances_that_go_have_to_be_named() {
    check_refused(subject::SHUTDOWN, "{}", Reason::MissingId);
    check_refused(subject::EXITED, r#"{"droplet":"a"}"#, Reason::MissingId);
    check_refused(subject::EXITED, r#"{"index":"0"}"#, Reason::WrongType);
    assert!(check(subject::EXITED, br#"{"droplet":"a","index":0,"reason":"CRASHED"}"#).is_ok());
    assert!(check(subject::EXITED, br#"{"instance":"a"}"#).is_ok());
    assert!(check("somebody.elses", b"\xff").is_ok(), "what the router does not hear may be anything");
    assert!(check(subject::GREET, b"").is_ok());
}

// What is written reads back as the same

fn name() -> impl Strategy<Value = String> {
    prop_oneof![2 => Just(String::new()), 3 => "[a-zA-Z0-9 \"\\\\/;é-]{1,12}"]
}

fn uri() -> impl Strategy<Value = RouteUri> {
    "(\\*\\.)?[a-zA-Z0-9_-]{1,8}(\\.[a-z]{2,4}){0,2}(/[a-zA-Z0-9%._~é-]{0,5}){0,3}"
        .prop_map(|written| RouteUri::parse(&written).expect("a good route"))
}

fn usage() -> impl Strategy<Value = Usage> {
    let share = || prop::option::of((0.0..=1.0f64).prop_map(|number| Share::reported(number).expect("a share")));
    (share(), share(), share(), share()).prop_map(|(cpu, mem, io, net)| Usage { cpu, mem, io, net })
}

fn tags() -> impl Strategy<Value = Tags> {
    prop::collection::vec(("[a-z]{0,3}", any::<String>()), 0..4)
        .prop_map(|pairs| Tags::new(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()))))
}

fn address() -> impl Strategy<Value = Address> {
    let host = prop_oneof![Just("10.1.2.3".to_owned()), Just("fe80::1".to_owned()), "[a-z]{1,8}(\\.[a-z]{1,5})?"];
    (host, 1..=u16::MAX).prop_map(|(host, port)| Address::new(&host, port))
}

prop_compose! {
    fn facts()(
        address in address(),
        tls in prop::option::of("[a-z]{0,9}"),
        http2 in any::<bool>(),
        (app, instance, index, agent) in (name(), name(), name(), name()),
        tags in tags(),
        (zone, segment) in (name(), name()),
        route_service in prop::option::of("https://[a-z]{1,9}"),
        weight in prop_oneof![Just(1.0f32), 0.001f32..1000.0],
    ) -> Facts {
        Facts {
            address,
            tls: tls.map(|name| Tls { server_name: name.into() }),
            protocol: if http2 { Protocol::Http2 } else { Protocol::Http1 },
            app: AppId::new(&app),
            instance: InstanceId::new(&instance),
            index: index.into(),
            agent: (!agent.is_empty()).then(|| AgentId::new(&agent)),
            tags,
            zone: zone.into(),
            isolation_segment: segment.into(),
            route_service: route_service.map(ArcStr::from),
            weight,
        }
    }
}

prop_compose! {
    fn any_registration()(
        facts in facts(),
        uris in prop::collection::vec(uri(), 0..4),
        lease in prop::option::of((1..100_000u64).prop_map(Duration::from_secs)),
        strategy in prop::option::of(prop::sample::select(Balancing::ALL.to_vec())),
        hash_header in prop::option::of("[A-Za-z-]{1,9}"),
        (load, host_load) in (usage(), usage()),
        updated_at_ns in prop::option::of(1..i64::MAX),
    ) -> Registration {
        Registration { facts, uris, lease, strategy, hash_header: hash_header.map(ArcStr::from), load, host_load, updated_at_ns }
    }
}

prop_compose! {
    fn any_entry()(
        facts in facts(),
        uris in prop::collection::vec(uri(), 0..3),
        (local, index) in (name(), prop::option::of(0..9u64)),
        state in prop::sample::select(vec![EntryState::Running, EntryState::Starting, EntryState::Leaving, EntryState::Gone]),
        load in usage(),
        says_routes in any::<bool>(),
    ) -> Entry {
        let index_text = index.map(|index| index.to_string().into()).unwrap_or_default();
        let facts = Facts { index: index_text, route_service: None, ..facts };
        let (app, instance) = (facts.app.clone(), facts.instance.clone());
        let serves = match (says_routes, uris.is_empty()) {
            (false, _) => Serves::Unsaid,
            (true, true) => Serves::Nothing,
            (true, false) => Serves::Routes(facts, uris),
        };
        Entry { app, instance, local: InstanceId::new(&local), index, state, load, serves }
    }
}

prop_compose! {
    fn any_heartbeat()(
        agent in "[a-z]{1,5}",
        complete in any::<bool>(),
        seq in any::<Option<u64>>(),
        (boot, host, zone) in (name(), "[a-z]{0,5}", name()),
        sent_at_ns in prop::option::of(0..4_000_000_000_000_000_000i64),
        interval in prop::option::of((1..100_000u64).prop_map(Duration::from_millis)),
        load in usage(),
        mut entries in prop::collection::vec(any_entry(), 0..4),
    ) -> Heartbeat {
        let agent = AgentId::new(&agent);
        let zone: ArcStr = zone.into();
        for entry in &mut entries {
            if let Serves::Routes(facts, _) = &mut entry.serves {
                (facts.agent, facts.zone) = (Some(agent.clone()), zone.clone());
            }
        }
        Heartbeat { agent, complete, seq, boot: boot.into(), sent_at_ns, interval, host: host.into(), zone, load, entries }
    }
}

proptest! {
    #[test]
    fn a_registration_reads_back_as_it_was_written(written in any_registration()) {
        let read = Registration::decode(&written.encode());
        let paths = |registration: &Registration| registration.uris.iter().map(RouteUri::to_string).collect::<Vec<_>>();
        prop_assert_eq!(read.as_ref().map(paths), Ok(paths(&written)));
        prop_assert_eq!(read, Ok(written));
    }

    #[test]
    fn a_heartbeat_reads_back_as_it_was_written(written in any_heartbeat()) {
        prop_assert_eq!(Heartbeat::decode(&written.encode()), Ok(written));
    }

    #[test]
    fn departures_read_back_as_they_were_written(agent in "[a-z]{1,5}", (app, reason) in (name(), name()), id in "[a-z]{1,4}", index in any::<Option<u64>>()) {
        let shutdown = Shutdown { agent: AgentId::new(&agent) };
        prop_assert_eq!(Shutdown::decode(&shutdown.encode()), Ok(shutdown));
        let exited = Exited { app: AppId::new(&app), instance: InstanceId::new(&id), index, reason };
        prop_assert_eq!(Exited::decode(&exited.encode()), Ok(exited));
    }

    #[test]
    fn bytes_of_any_kind_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for subject in [subject::REGISTER, subject::HEARTBEAT, subject::SHUTDOWN, subject::EXITED] {
            let _either = check(subject, &bytes);
        }
    }

    #[test]
    fn a_good_message_with_one_byte_changed_is_taken_or_refused(written in any_heartbeat(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut payload = written.encode();
        let at = at.index(payload.len());
        payload[at] = byte;
        let _either = check(subject::HEARTBEAT, &payload);
    }
}

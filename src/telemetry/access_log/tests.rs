//! Records as lines, whatever bytes they are made of, and the way of lines to the file.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::domain::balance::live::Live;
use crate::domain::endpoint::Facts;
use crate::domain::identity::{Address, AppId, InstanceId};
use crate::domain::moment::Moment;

/// 2026-11-21T10:00:00.123456789Z.
const STARTED: Duration = Duration::new(1_795_255_200, 123_456_789);

fn line(format: Format, record: &Record<'_>) -> String {
    let mut out = Vec::new();
    match format {
        Format::Json => json::write(record, &mut text::ClockFace::default(), &mut out),
        Format::Gorouter => gorouter::write(record, &mut text::ClockFace::default(), &mut out),
    }
    String::from_utf8(out).expect("whatever goes in, a line is UTF-8")
}

fn json_of(record: &Record<'_>) -> serde_json::Value {
    serde_json::from_str(&line(Format::Json, record)).expect("a line is JSON")
}

fn endpoint(host: &str) -> Endpoint {
    let facts = Facts {
        app: AppId::new("shop"),
        instance: InstanceId::new("shop-1"),
        index: "1".into(),
        ..Facts::at(Address::new(host, 61001))
    };
    Endpoint::new(1, facts, Arc::new(Live::new(Moment::START)), Arc::default())
}

fn relayed(endpoint: &Endpoint) -> Record<'_> {
    Record {
        started: STARTED,
        host: b"shop.test:8080",
        method: b"GET",
        target: b"/cart?q=1",
        version: "HTTP/1.1",
        status: 200,
        bytes_in: 0,
        bytes_out: 2048,
        referer: b"http://shop.test/",
        user_agent: br#"Mozilla/5.0 "x""#,
        forwarded_for: b"9.9.9.9, 10.0.0.1",
        forwarded_proto: b"https",
        client: Some(SocketAddr::from(([10, 0, 0, 1], 50123))),
        request_id: "5b0c",
        trace: b"0af7651916cd43dd8448eb211c80319c",
        route: "shop.test",
        endpoint: Some(endpoint),
        attempts: 2,
        duration: Duration::from_micros(12_345),
        time_to_head: Some(Duration::from_micros(10_001)),
        upstream: Some(Duration::from_micros(10_000)),
        error: "",
        ending: Ending::Complete,
    }
}

#[test]
fn a_relayed_request_is_one_json_object() {
    let endpoint = endpoint("10.0.0.5");
    let expected = serde_json::json!({
        "time": "2026-11-21T10:00:00.123456Z", "client": "10.0.0.1:50123", "host": "shop.test:8080", "method": "GET",
        "target": "/cart?q=1", "version": "HTTP/1.1", "status": 200, "bytes_in": 0, "bytes_out": 2048,
        "duration_ms": 12.345, "head_ms": 10.001, "upstream_ms": 10.0, "referer": "http://shop.test/",
        "user_agent": "Mozilla/5.0 \"x\"", "forwarded_for": "9.9.9.9, 10.0.0.1", "forwarded_proto": "https",
        "request_id": "5b0c", "trace": "0af7651916cd43dd8448eb211c80319c", "route": "shop.test", "attempts": 2, "endpoint": "10.0.0.5:61001", "app": "shop",
        "instance": "shop-1", "index": "1", "ending": "complete",
    });
    assert_eq!(json_of(&relayed(&endpoint)), expected);
}

#[test]
fn every_key_is_explained_in_the_documentation() {
    let page = include_str!("../../../docs/ADMIN.md");
    let endpoint = endpoint("10.0.0.5");
    let everything = json_of(&Record { error: "no_endpoints", ..relayed(&endpoint) });
    let missing: Vec<_> =
        everything.as_object().expect("it is one").keys().filter(|key| !page.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_relayed_request_in_gorouters_layout() {
    let endpoint = endpoint("10.0.0.5");
    let expected = concat!(
        r#"shop.test:8080 - [2026-11-21T10:00:00.123456789Z] "GET /cart?q=1 HTTP/1.1" 200 0 2048 "http://shop.test/" "#,
        r#""Mozilla/5.0 \"x\"" "10.0.0.1:50123" "10.0.0.5:61001" x_forwarded_for:"9.9.9.9, 10.0.0.1" "#,
        r#"x_forwarded_proto:"https" vcap_request_id:"5b0c" response_time:0.012345 gorouter_time:0.002345 "#,
        r#"app_id:"shop" app_index:"1" instance_id:"shop-1" x_cf_routererror:"-""#,
        "\n"
    );
    assert_eq!(line(Format::Gorouter, &relayed(&endpoint)), expected);
}

#[test]
fn a_request_refused_before_it_had_a_request_line_is_a_record_too() {
    let refused =
        Record { started: STARTED, status: 400, error: "bad_request", ending: Ending::Refused, ..Record::default() };
    let expected = serde_json::json!({
        "time": "2026-11-21T10:00:00.123456Z", "status": 400, "bytes_in": 0, "bytes_out": 0, "duration_ms": 0.0,
        "error": "bad_request", "ending": "refused",
    });
    assert_eq!(json_of(&refused), expected);
    let expected = concat!(
        r#"- - [2026-11-21T10:00:00.123456789Z] "-" 400 0 0 "-" "-" "-" "-" x_forwarded_for:"-" x_forwarded_proto:"-" "#,
        r#"vcap_request_id:"-" response_time:0.000000 gorouter_time:"-" app_id:"-" app_index:"-" instance_id:"-" "#,
        r#"x_cf_routererror:"bad_request""#,
        "\n"
    );
    assert_eq!(line(Format::Gorouter, &refused), expected);
    let silent = Record { started: STARTED, ..Record::default() };
    assert!(line(Format::Gorouter, &silent).contains(r#"] "-" "-" 0 0 "#));
}

#[test]
fn every_ending_has_a_name_of_its_own() {
    use Ending::*;
    let endings = [Complete, Refused, ClientGone, InstanceCut, TimedOut, RouterStopped, Failed];
    let labels: std::collections::BTreeSet<_> = endings.map(Ending::label).into();
    assert_eq!(labels.len(), endings.len());
    for ending in endings {
        assert_eq!(json_of(&Record { ending, ..Record::default() })["ending"], ending.label());
    }
}

#[test]
fn an_ipv6_address_stands_in_brackets() {
    let endpoint = endpoint("fd00::5");
    let client = Some("[::1]:80".parse().expect("it is an address"));
    let record = Record { client, ..relayed(&endpoint) };
    assert_eq!(json_of(&record)["endpoint"], "[fd00::5]:61001");
    assert_eq!(json_of(&record)["client"], "[::1]:80");
    assert!(line(Format::Gorouter, &record).contains(r#" "[::1]:80" "[fd00::5]:61001" x_forwarded_for"#));
}

#[test]
fn a_value_cannot_make_a_line_of_its_own() {
    let forged = Record {
        host: b"a\nb \"c",
        target: b"/\r\n{\"time\":\"never\"}",
        user_agent: "\u{1b}[2J\u{9b}31m\u{202e}\u{2028}".as_bytes(),
        referer: b"\xff\"",
        ..Record::default()
    };
    let gorouter = line(Format::Gorouter, &forged);
    assert!(gorouter.starts_with(r"a\x0ab\x20\x22c - ["), "{gorouter}");
    assert!(gorouter.contains(r#"" /\r\n{\"time\":\"never\"} ""#), "{gorouter}");
    assert!(gorouter.contains(r#""\xff\"" "\x1b[2J\u009b31m\u202e\u2028""#), "{gorouter}");
    let json = line(Format::Json, &forged);
    assert!(json.contains(r#""user_agent":"\u001b[2J\u009b31m\u202e\u2028""#), "{json}");
    for line in [gorouter, json] {
        assert_eq!(line.find('\n'), Some(line.len() - 1), "{line}");
    }
}

#[test]
fn an_endless_value_is_cut() {
    let long = vec![b'a'; 100_000];
    let record = Record { target: &long, user_agent: &long, ..Record::default() };
    for format in [Format::Json, Format::Gorouter] {
        assert!(line(format, &record).len() < 12_000);
    }
}

#[test]
fn times_between_the_years_are_written_right() {
    let mut out = Vec::new();
    let mut face = text::ClockFace::default();
    let times = [Duration::ZERO, Duration::new(951_782_399, 999_999_999), Duration::new(951_782_400, 1), Duration::MAX];
    for time in times {
        face.push::<3>(time, &mut out);
        out.push(b' ');
    }
    let expected =
        "1970-01-01T00:00:00.000Z 2000-02-28T23:59:59.999Z 2000-02-29T00:00:00.000Z 1970-01-01T00:00:00.999Z ";
    assert_eq!(String::from_utf8_lossy(&out), expected);
}

proptest! {
    #[test]
    fn whatever_bytes_come_a_json_line_tells_them(target: Vec<u8>, host: Vec<u8>, agent in ".*", status: u16, bytes: u64) {
        let record = Record {
            target: &target, host: &host, user_agent: agent.as_bytes(), status, bytes_out: bytes, ..Record::default()
        };
        let line = line(Format::Json, &record);
        prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        prop_assert!(!line.trim_end().chars().any(char::is_control));
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(read["target"].as_str().unwrap_or(""), String::from_utf8_lossy(&target));
        prop_assert_eq!(read["host"].as_str().unwrap_or(""), String::from_utf8_lossy(&host));
        prop_assert_eq!(read["user_agent"].as_str().unwrap_or(""), agent);
        prop_assert_eq!(read["status"].as_u64(), Some(u64::from(status)));
        prop_assert_eq!(read["bytes_out"].as_u64(), Some(bytes));
    }

    #[test]
    fn whatever_bytes_come_a_gorouter_line_keeps_its_fields(values in prop::collection::vec(any::<Vec<u8>>(), 5)) {
        let [host, method, target, referer, agent] = [0, 1, 2, 3, 4].map(|n| &values[n][..]);
        let record = Record { host, method, target, referer, user_agent: agent, ..Record::default() };
        let line = line(Format::Gorouter, &record);
        prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        prop_assert!(!line.trim_end().chars().any(char::is_control));
        // Outside of quotes there are always the same words.
        let words = outside_of_quotes(line.trim_end());
        prop_assert_eq!(words.split_whitespace().count(), 20, "{}", words);
    }

    #[test]
    fn numbers_are_written_as_everybody_writes_them(number: u64) {
        let mut out = Vec::new();
        text::push_number(number, &mut out);
        out.push(b' ');
        text::push_padded::<6>(number, &mut out);
        prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{number} {:06}", number % 1_000_000));
    }
}

/// The line with everything between quotes taken out, the quotes themselves left.
fn outside_of_quotes(line: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let kept = line.chars().filter(|c| {
        let was_quoted = quoted;
        match c {
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = *c == '\\' && !escaped;
        !was_quoted || !quoted
    });
    kept.collect()
}

fn lines_of(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).expect("the log is there").lines().map(str::to_owned).collect()
}

fn start(path: &Path, counts: &Arc<LogCounts>) -> AccessLog {
    AccessLog::start(Destination::File(path.to_owned()), Format::Json, counts.clone())
        .expect("the directory is writable")
}

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn records_of_all_workers_reach_the_file_whole() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("access.log");
    let counts = Arc::<LogCounts>::default();
    let log = start(&path, &counts);
    let workers = [1, 2, 3].map(|worker: u16| {
        let mut buffer = log.buffer();
        std::thread::spawn(move || {
            for _ in 0..500 {
                buffer.record(&Record { status: worker, ..Record::default() });
            }
        })
    });
    workers.into_iter().for_each(|worker| worker.join().expect("it does not panic"));
    log.close(PATIENCE);
    let mut seen = BTreeMap::new();
    for line in lines_of(&path) {
        let record: serde_json::Value = serde_json::from_str(&line).expect("lines of different workers do not mix");
        *seen.entry(record["status"].as_u64()).or_insert(0) += 1;
    }
    assert_eq!(seen, BTreeMap::from([(Some(1), 500), (Some(2), 500), (Some(3), 500)]));
    assert_eq!((counts.written(), counts.dropped()), (1500, 0));
}

#[test]
fn after_a_reopen_records_go_to_a_new_file() {
    let directory = tempfile::tempdir().expect("there is room");
    let (path, moved) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
    let log = start(&path, &Arc::default());
    let mut buffer = log.buffer();
    buffer.record(&Record { status: 1, ..Record::default() });
    buffer.flush();
    while lines_of(&path).is_empty() {
        std::thread::yield_now();
    }
    std::fs::rename(&path, &moved).expect("it is there");
    log.reopen();
    buffer.record(&Record { status: 2, ..Record::default() });
    drop(buffer);
    log.close(PATIENCE);
    assert!(lines_of(&moved)[0].contains(r#""status":1,"#));
    assert!(lines_of(&path)[0].contains(r#""status":2,"#));
}

#[test]
fn a_writer_that_cannot_keep_up_costs_records_not_time() {
    let line_bytes = line(Format::Json, &Record::default()).len();
    let (queue, stuck) = writer::queue(4 * line_bytes);
    let counts = Arc::<LogCounts>::default();
    let mut buffer = LogBuffer::new(Some(queue), Format::Json, counts.clone());
    for _ in 0..5 {
        buffer.record(&Record::default());
        buffer.record(&Record::default());
        buffer.flush();
    }
    assert_eq!(counts.dropped(), 6);
    drop(stuck);
}

#[test]
fn a_full_disk_costs_records_and_is_counted() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        return; // only Linux has one
    }
    let counts = Arc::<LogCounts>::default();
    let log = start(full, &counts);
    let mut buffer = log.buffer();
    buffer.record(&Record::default());
    drop(buffer);
    log.close(PATIENCE);
    assert_eq!((counts.written(), counts.dropped()), (0, 1));
}

#[test]
fn a_log_that_is_off_does_nothing() {
    let log = AccessLog::start(Destination::of(""), Format::Json, Arc::default()).expect("nothing can fail");
    let mut buffer = log.buffer();
    assert!(!buffer.is_on());
    buffer.record(&Record::default());
    assert!(buffer.bytes.is_empty());
    log.reopen();
    log.close(PATIENCE);
}

#[test]
fn a_destination_is_named_by_a_word_or_a_path() {
    assert_eq!(Destination::of("stdout"), Destination::Stdout);
    assert_eq!(Destination::of("/var/log/a.log"), Destination::File("/var/log/a.log".into()));
    assert!(AccessLog::start(Destination::of("/no/such/place/a.log"), Format::Json, Arc::default()).is_err());
}

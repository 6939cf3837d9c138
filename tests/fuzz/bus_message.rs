//! Attacks the messages of the bus: whatever arrives is refused whole and changes nothing, or reads back as what it was
//! written from; either way the control plane goes on.

use std::time::Duration;

use weighbridge::control::event::Event;
use weighbridge::control::plane::{ControlPlane, Outcome};
use weighbridge::domain::moment::Moment;
use weighbridge::domain::protocol::envelope::Incoming;
use weighbridge::domain::protocol::heartbeat::{Exited, Heartbeat, Shutdown};
use weighbridge::domain::protocol::life::RouterStart;
use weighbridge::domain::protocol::register::Registration;
use weighbridge::domain::protocol::{check as refuse, subject};
use weighbridge::domain::table::settings::TableSettings;
use weighbridge::domain::table::snapshot::Found;

/// See `tests/fuzz/main.rs`. Each line is a subject (`r`egister, `u`nregister, `h`eartbeat, `s`hutdown, `e`xited) and a
/// payload.
pub const TARGET: super::Target = super::Target {
    name: "bus_message",
    seeds: &[
        br#"r{"host":"10.0.0.1","port":8080,"uris":["a.test","*.b.test/Path?x"],"app":"a","private_instance_id":"i"}"#,
        br#"r{"host":"h","tls_port":443,"uris":["a.test"],"tags":{"a":"b"},"options":{"loadbalancing":"hash","weight":2}}
u{"host":"h","tls_port":443,"uris":["a.test"]}"#,
        br#"h{"dea":"d","schema":2,"seq":1,"boot_id":"b","interval_ms":5000,"host":{"ip":"10.0.0.1","load":{"cpu":0.5}},"droplets":[{"droplet":"a","instance":"l","index":0,"state":"RUNNING","port":80,"uris":["a.test"]}]}
h{"dea":"d","schema":2,"seq":2,"boot_id":"b","droplets":[]}"#,
        br#"h{"dea":"d","droplets":[{"droplet":"a","index":0,"state":"CRASHED","load":{"mem":1.4}}],"sent_at":"2026-11-21T10:00:00Z"}
s{"dea":"d"}
e{"droplet":"a","instance":"i","index":0,"reason":"x"}"#,
        br#"r{"host":"::1","port":1,"uris":["a.test/x"],"load":{"host":{"cpu":1e-9},"instance":{"net":0}},"dea":"d","stale_threshold_in_seconds":1}"#,
    ],
    dictionary: &[
        b"\nr{", b"\nu{", b"\nh{", b"\ne{", b"null", b"\"\"", b"[]", b"{}", b"1e400", b"-0", b"65536", b"18446744073709551616",
        b"\\u0000", b"\\ud800", b"\"uris\":[", b"\"*.\"", b"\"port\":0", b"\"state\":\"STARTING\"", b"\"weight\":0",
        b"\"route_service_url\":\"http://x\"", b"\"private_instance_index\":1", b"\"protocol\":\"http2\"", b"[[[[[[[[",
        b"\"cpu\":42", b"\"seq\":0", b"\"boot_id\":\"c\"", b"\"host\":\"\"",
    ],
    check,
};

/// Panics when a promise is broken.
pub fn check(input: &[u8]) -> super::Ending {
    let mut now = Moment::START;
    let mut plane = ControlPlane::new(me(), TableSettings::default(), 1, now);
    plane.handle(Event::Connected, now);
    plane.snapshot(now);
    let mut ending = "nothing said";
    for line in input.split(|byte| *byte == b'\n') {
        let Some((kind, payload)) = line.split_first() else { continue };
        let subject = match kind {
            b'u' => subject::UNREGISTER,
            b'h' => subject::HEARTBEAT,
            b's' => subject::SHUTDOWN,
            b'e' => subject::EXITED,
            _ => subject::REGISTER,
        };
        now = now + Duration::from_secs(1);
        ending = one(&mut plane, subject, payload, now);
    }
    ending
}

fn one(plane: &mut ControlPlane, subject: &str, payload: &[u8], now: Moment) -> super::Ending {
    check_reads_back(subject, payload);
    let message = Incoming { subject: subject.to_owned(), payload: payload.to_vec().into(), reply: None };
    let outcome = plane.handle(Event::Message(message), now).message.map(|(_, outcome)| outcome);
    let published = plane.snapshot(now);
    match (refuse(subject, payload), outcome.expect("a message has an outcome")) {
        (Err(expected), Outcome::Rejected(rejection)) => {
            assert_eq!(rejection, expected);
            assert!(published.is_none(), "a refused message changed the table");
            rejection.reason.label()
        }
        (Ok(()), Outcome::Applied) => {
            for pool in published.iter().flat_map(|snapshot| snapshot.pools()) {
                assert!(pool.endpoints.iter().all(|endpoint| endpoint.weight > 0.0 && endpoint.address.port() > 0));
            }
            let found = published.as_ref().map(|snapshot| snapshot.lookup("a.test", "/x/y"));
            match found {
                None => "applied, nothing new",
                Some(Found::Pool(_)) => "applied, found",
                Some(Found::Empty(_)) => "applied, empty",
                Some(Found::Nothing) => "applied",
            }
        }
        (Ok(()), Outcome::Ignored) => "ignored",
        (expected, found) => panic!("{expected:?} before, {found:?} then"),
    }
}

fn check_reads_back(subject: &str, payload: &[u8]) {
    match subject {
        subject::HEARTBEAT => {
            let Ok(read) = Heartbeat::decode(payload) else { return };
            assert_eq!(Heartbeat::decode(&read.encode()), Ok(read));
        }
        subject::SHUTDOWN => {
            let Ok(read) = Shutdown::decode(payload) else { return };
            assert_eq!(Shutdown::decode(&read.encode()), Ok(read));
        }
        subject::EXITED => {
            let Ok(read) = Exited::decode(payload) else { return };
            assert_eq!(Exited::decode(&read.encode()), Ok(read));
        }
        _ => {
            let Ok(read) = Registration::decode(payload) else { return };
            assert_eq!(Registration::decode(&read.encode()), Ok(read));
        }
    }
}

fn me() -> RouterStart {
    let interval = Duration::from_secs(20);
    RouterStart { id: "0-fuzz".into(), hosts: Vec::new(), register_interval: interval, prune_threshold: 6 * interval }
}

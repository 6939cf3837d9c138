//! Instances that flood the router with frames: they lose their connection, and others answer. And instances whose answers are
//! none: RFC 9113 section 8 from the other side.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::instances::router_for;
use super::raw::*;
use crate::harness::bus::Bus;
use crate::harness::{bus, in_time};

/// Frames that are sent at once.
const BATCH: usize = 1_000;

/// No router takes as many batches.
const BATCHES_MAX: usize = 1_000;

/// An instance that greets, waits for the first request, and then sends `piece` until it is no longer taken. Tells by the
/// channel when that is.
async fn rogue(bus: &Bus, piece: impl Fn(u32) -> Vec<u8> + Send + 'static) -> mpsc::UnboundedReceiver<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
    let address: SocketAddr = listener.local_addr().expect("a bound socket has an address");
    let (told, tells) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("the listener lives");
        drop(listener);
        socket.write_all(&frame(SETTINGS, 0, 0, [])).await.expect("the router greets");
        let (mut seen, mut room) = (Vec::new(), [0; 4096]);
        while !seen.windows(9).any(|head| head[3] == HEADERS && head[4] & END_HEADERS != 0 && head[8] == 1) {
            let count = socket.read(&mut room).await.expect("the router asks");
            assert!(count > 0, "the router has left");
            seen.extend_from_slice(&room[..count]);
        }
        for nth in 0..BATCHES_MAX {
            let batch: Vec<u8> = (0..BATCH).flat_map(|in_batch| piece((nth * BATCH + in_batch) as u32)).collect();
            if socket.write_all(&batch).await.is_err() {
                let _nobody_waits = told.send(());
                return;
            }
            while let Ok(1..) = socket.try_read(&mut room) {} // so that no window is shut
        }
    });
    let registration = json!({
        "host": "127.0.0.1", "port": address.port(), "uris": ["shop.test"], "app": "shop",
        "private_instance_id": "rogue", "protocol": "http2",
    });
    bus.publish("router.register", &registration).await;
    tells
}

/// Its connection is ended, the request that was on it fails, and the router goes on.
async fn check(piece: impl Fn(u32) -> Vec<u8> + Send + 'static) {
    let bus = bus::embedded().await;
    let mut ended = rogue(&bus, piece).await;
    let router = router_for(&bus, "").await;
    let asked = router.get("shop.test/").begin();
    in_time("the end of the flood", ended.recv()).await.expect("the router took all of it");
    asked.abandon().await;
    let line = router.until_logged(1).await.swap_remove(0);
    assert!(line.contains(r#""status":502"#) || line.contains("instance_cut"), "{line}");
    router.until_metric("weighbridge_upstream_connections_open", |open| open == 0.0).await;
}

#[tokio::test]
async fn settings() {
    check(|_| frame(SETTINGS, 0, 0, [])).await;
}

#[tokio::test]
async fn pings() {
    check(|_| frame(PING, 0, 0, [1; 8])).await;
}

#[tokio::test]
async fn windows() {
    check(|_| frame(WINDOW_UPDATE, 0, 0, 1_u32.to_be_bytes())).await;
}

#[tokio::test]
async fn frames_nobody_knows() {
    check(|_| frame(0x42, 0, 0, "????")).await;
}

/// Of streams that are long gone.
#[tokio::test]
async fn resets() {
    check(|_| frame(RST_STREAM, 0, 1, 8_u32.to_be_bytes())).await;
}

#[tokio::test]
async fn data_without_data() {
    check(|nth| {
        let head = if nth == 0 { frame(HEADERS, END_HEADERS, 1, [0x88]) } else { Vec::new() };
        [head, frame(DATA, 0, 1, [])].concat()
    })
    .await;
}

#[tokio::test]
async fn heads_without_an_end() {
    check(|nth| if nth == 0 { frame(HEADERS, 0, 1, [0x88]) } else { frame(CONTINUATION, 0, 1, []) }).await;
}

/// What a client of HTTP/1.1 gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gets {
    /// A whole answer with this status.
    Status(u16),
    /// The head of an answer that does not end as it should.
    Cut,
}
use Gets::{Cut, Status};

const ENDS: u8 = END_STREAM | END_HEADERS;

fn head(flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags, 1, block(fields))
}

/// A head with these fields besides its status, and nothing behind it.
fn only(more: &[(&str, &str)]) -> Vec<u8> {
    head(ENDS, &[&[(":status", "200")], more].concat())
}

/// A head with these fields besides its status, and this behind it.
fn with(more: &[(&str, &str)], rest: &[Vec<u8>]) -> Vec<u8> {
    [&[head(END_HEADERS, &[&[(":status", "200")], more].concat())], rest].concat().concat()
}

fn data(flags: u8, text: &str) -> Vec<u8> {
    frame(DATA, flags, 1, text)
}

fn answers() -> Vec<(&'static str, Vec<u8>, Gets)> {
    let trailing = |fields: &[(&str, &str)]| with(&[], &[data(0, "ok"), head(ENDS, fields)]);
    vec![
        ("8.1: an answer", with(&[], &[data(END_STREAM, "ok")]), Status(200)),
        ("8.1: an interim one before it", [head(END_HEADERS, &[(":status", "103")]), only(&[])].concat(), Status(200)),
        ("8.1: an interim one and then nothing", head(ENDS, &[(":status", "103")]), Status(502)),
        ("8.1: data before a head", data(END_STREAM, "ok"), Status(502)),
        ("8.2: a name in upper case", only(&[("X-Loud", "1")]), Status(502)),
        ("8.2.1: a value with a line break", only(&[("x", "1\r\nset-cookie: a=b")]), Status(502)),
        ("8.2.1: a value with NUL", only(&[("x", "1\0")]), Status(502)),
        ("8.2.1: a value that begins with a space", only(&[("x", " 1")]), Status(502)),
        ("8.2.2: Connection", only(&[("connection", "close")]), Status(502)),
        ("8.2.2: Transfer-Encoding", only(&[("transfer-encoding", "chunked")]), Status(502)),
        ("8.2.2: Upgrade", only(&[("upgrade", "h2c")]), Status(502)),
        // Both should be refused, but the library takes them away before anybody sees them; so they go nowhere.
        ("8.3: a pseudo field of requests", only(&[(":path", "/")]), Status(200)),
        ("8.1: a pseudo field in trailers", trailing(&[(":status", "200")]), Status(200)),
        ("8.3: an unknown pseudo field", only(&[(":x", "1")]), Status(502)),
        ("8.3.2: no status", head(ENDS, &[("x", "1")]), Status(502)),
        ("8.3.2: two statuses", only(&[(":status", "200")]), Status(502)),
        ("8.3.2: a status of two digits", head(ENDS, &[(":status", "20")]), Status(502)),
        ("8.6: a switch of protocols", head(ENDS, &[(":status", "101")]), Status(502)),
        ("8.1.1: a length that is no number", only(&[("content-length", "+0")]), Status(502)),
        ("8.1.1: two lengths", only(&[("content-length", "0"), ("content-length", "0")]), Status(502)),
        ("8.1.1: less data than announced", with(&[("content-length", "3")], &[data(END_STREAM, "ok")]), Cut),
        ("8.1: trailers", trailing(&[("x-sum", "1")]), Status(200)),
        ("8.1: trailers with a name in upper case", trailing(&[("X-Sum", "1")]), Cut),
        ("8.2.1: trailers with a value that begins with a space", trailing(&[("x-sum", " 1")]), Cut),
        ("9110 6.5.1: a cookie in trailers", trailing(&[("set-cookie", "a=b")]), Cut),
        ("9110 6.5.1: a length in trailers", trailing(&[("content-length", "1")]), Cut),
    ]
}

#[tokio::test]
async fn answers_that_are_none_are_bad_gateways_or_cut() {
    let mut wrong = Vec::new();
    for (title, answer, expected) in answers() {
        let bus = bus::embedded().await;
        let _told = rogue(&bus, move |nth| if nth == 0 { answer.clone() } else { Vec::new() }).await;
        let router = router_for(&bus, "retry.attempts = 1").await;
        let mut wire = router.wire().await;
        wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.expect("the router listens");
        let got = match in_time(title, wire.response_to("GET")).await {
            Ok(response) => Status(response.status()),
            Err(_) => Cut,
        };
        if got != expected {
            wrong.push(format!("{title}: {got:?} and not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

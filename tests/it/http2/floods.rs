//! Clients that make work for nothing, or ask for memory: they lose their connection, and nobody else notices.

use super::instances::router_for;
use super::raw::*;
use crate::harness::answer;
use crate::harness::bus::{self, Bus};
use crate::harness::in_time;
use crate::harness::instance::{self, Instance};
use crate::harness::router::Router;

const ENHANCE_YOUR_CALM: u32 = 11;
const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/")];

async fn shop(settings: &str, answer: answer::Answer) -> (Router, Instance, Bus) {
    let bus = bus::embedded().await;
    let instance = instance::serving("shop.test").answering(answer).on(&bus).await;
    (router_for(&bus, settings).await, instance, bus)
}

/// Pieces that are sent before what came is read. Well above what a router allows in the time that takes.
const BATCH: u32 = 50;
const LARGE_BATCH: u32 = 2_000;

/// No router takes as many, however slow the machine.
const PIECES_MAX: u32 = 1_000_000;

/// Sends `piece(n)` for n = 0, 1… until the router says goodbye; tells why it does.
async fn flood(raw: &mut Raw, batch_size: u32, mut piece: impl FnMut(u32) -> Vec<u8>) -> u32 {
    let mut sent = 0;
    while sent < PIECES_MAX {
        let batch: Vec<u8> = (sent..sent + batch_size).flat_map(&mut piece).collect();
        sent += batch_size;
        raw.send(batch).await;
        // What comes is read, so that nothing stands still for want of a reader.
        raw.send(frame(PING, 0, 0, "batch ok")).await;
        loop {
            match in_time("an answer", raw.frame()).await {
                Some(frame) if frame.kind == GOAWAY => return frame.word(4),
                Some(frame) if frame.kind == PING && frame.payload == b"batch ok" => break,
                Some(_) => {}
                None => panic!("the connection ended without a goodbye after {sent}"),
            }
        }
    }
    panic!("{sent} were taken")
}

/// A flood ends with a reason, is counted, and leaves the router well.
async fn check(label: &str, batch_size: u32, piece: impl FnMut(u32) -> Vec<u8>) {
    let (router, _shop, _bus) = shop("", answer::status(200, "hello")).await;
    let mut raw = Raw::connect(router.address()).await;
    assert_eq!(flood(&mut raw, batch_size, piece).await, ENHANCE_YOUR_CALM);
    let series = format!("weighbridge_refused_total{{reason=\"{label}\"}}");
    router.until_metric(&series, |count| count == 1.0).await;
    router.until_metric("weighbridge_http2_goaways_total{code=\"enhance_your_calm\"}", |count| count == 1.0).await;
    assert_eq!(router.get("shop.test/").await.status(), 200);
}

/// A flood that h2 notices before we do; it is counted by what h2 answers.
async fn check_by_h2(batch_size: u32, head: Vec<u8>, piece: impl FnMut(u32) -> Vec<u8>) {
    let (router, _shop, _bus) = shop("", answer::status(200, "hello")).await;
    let mut raw = Raw::connect(router.address()).await;
    raw.send(head).await;
    assert_eq!(flood(&mut raw, batch_size, piece).await, ENHANCE_YOUR_CALM);
    router.until_metric("weighbridge_http2_goaways_total{code=\"enhance_your_calm\"}", |count| count == 1.0).await;
    assert_eq!(router.get("shop.test/").await.status(), 200);
}

fn take_back(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, 8_u32.to_be_bytes())
}

fn ask(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, block(&GET))
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once() {
    check_by_h2(BATCH, Vec::new(), |n| [ask(2 * n + 1), take_back(2 * n + 1)].concat()).await;
}

/// By the time they are taken back they have been seen, and have cost an instance something.
#[tokio::test]
async fn requests_that_are_taken_back_a_little_later() {
    check("http2_reset_flood", BATCH, |n| {
        let before = if n < 50 { Vec::new() } else { take_back(2 * (n - 50) + 1) };
        [before, ask(2 * n + 1)].concat()
    })
    .await;
}

#[tokio::test]
async fn settings() {
    check("http2_frame_flood", LARGE_BATCH, |_| frame(SETTINGS, 0, 0, [])).await;
}

#[tokio::test]
async fn pings() {
    check("http2_frame_flood", LARGE_BATCH, |_| frame(PING, 0, 0, [1; 8])).await;
}

#[tokio::test]
async fn priorities() {
    check("http2_frame_flood", LARGE_BATCH, |n| frame(PRIORITY, 0, 2 * n + 1, [0, 0, 0, 0, 1])).await;
}

#[tokio::test]
async fn windows() {
    check("http2_frame_flood", LARGE_BATCH, |_| frame(WINDOW_UPDATE, 0, 0, 1_u32.to_be_bytes())).await;
}

#[tokio::test]
async fn frames_nobody_knows() {
    check("http2_frame_flood", LARGE_BATCH, |_| frame(0x42, 0, 0, "????")).await;
}

#[tokio::test]
async fn data_without_data() {
    let head = [&GET[1..], &[(":method", "POST")]].concat();
    check_by_h2(LARGE_BATCH, frame(HEADERS, END_HEADERS, 1, block(&head)), |_| frame(DATA, 0, 1, [])).await;
}

#[tokio::test]
async fn heads_without_an_end() {
    let (router, shop, _bus) = shop("", answer::status(200, "hello")).await;
    for piece in [&[][..], &block(&[("x", "y")])] {
        let mut raw = Raw::connect(router.address()).await;
        raw.send(frame(HEADERS, END_STREAM, 1, block(&GET))).await;
        let mut goodbye = None;
        for _ in 0..100_000 {
            raw.send(frame(CONTINUATION, 0, 1, piece).repeat(100)).await;
            if raw.is_closing() {
                while let Some(frame) = in_time("the end", raw.frame()).await {
                    goodbye = (frame.kind == GOAWAY).then(|| frame.word(4)).or(goodbye);
                }
                break;
            }
        }
        // A reset of the connection, for bytes that nobody reads any more, may take the goodbye with it.
        assert!(matches!(goodbye, None | Some(ENHANCE_YOUR_CALM | 9)), "{goodbye:?}");
    }
    assert_eq!(shop.begun(), 0);
    assert_eq!(router.get("shop.test/").await.status(), 200);
}

/// A few bytes that say over and over what was said at length once.
#[tokio::test]
async fn heads_that_unfold() {
    let (router, shop, _bus) = shop("", answer::status(200, "hello")).await;
    let mut raw = Raw::connect(router.address()).await;
    let mut bomb = block(&GET);
    bomb.extend([0x40, 0x01, b'x', 0x7f, 0xa1, 0x1e]); // 4,000 bytes that enter the table
    bomb.extend([b'y'; 4_000]);
    bomb.extend([0xbe; 10_000]); // that entry
    raw.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)).await;
    while let Some(frame) = in_time("the end", raw.frame()).await {
        assert!(![HEADERS, RST_STREAM].contains(&frame.kind), "{frame:?}");
        if frame.kind == GOAWAY {
            assert_eq!(frame.word(4), ENHANCE_YOUR_CALM);
        }
    }
    router.until_metric("weighbridge_http2_goaways_total{code=\"enhance_your_calm\"}", |count| count == 1.0).await;
    assert_eq!(shop.begun(), 0);
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_answered_and_logged() {
    let (router, shop, _bus) = shop("limits.head_bytes = 2048", answer::status(200, "hello")).await;
    let mut raw = Raw::connect(router.address()).await;
    let long = "y".repeat(4_000);
    let head = [&GET[..], &[("x", long.as_str())]].concat();
    raw.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, block(&head))).await;
    let answered = loop {
        let frame = in_time("an answer", raw.frame()).await.expect("the connection goes on");
        if frame.kind == HEADERS {
            break frame.status();
        }
    };
    assert_eq!((answered, shop.begun()), (431, 0));
    let logged = &router.until_logged(1).await[0];
    assert!(logged.contains(r#""status":431"#) && logged.contains("HTTP/2.0"), "{logged}");
    router.until_metric("weighbridge_refused_total{reason=\"head_too_large\"}", |count| count == 1.0).await;
}

/// A client that opens no window gets nothing, and is not waited for for ever.
#[tokio::test]
async fn windows_that_stay_shut() {
    let (router, shop, _bus) = shop("timeouts.idle_body = \"300ms\"", answer::pattern(10_000_000)).await;
    let mut raw = Raw::connect(router.address()).await;
    raw.send(frame(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0])).await;
    for stream in [1, 3, 5] {
        raw.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, block(&GET))).await;
    }
    let mut resets = 0;
    while resets < 3 {
        let frame = in_time("a reset", raw.frame()).await.expect("the connection goes on");
        assert_ne!(frame.kind, DATA);
        resets += usize::from(frame.kind == RST_STREAM);
    }
    assert_eq!(shop.begun(), 3);
    for line in router.until_logged(3).await {
        assert!(line.contains("client_gone"), "{line}");
    }
    assert_eq!(router.metric("weighbridge_requests_in_flight").await, 0.0);
}

//! Requests that the library refuses before they are ours: they are in the log and among the counters like all others.

use super::instances::router_for;
use super::raw::*;
use crate::harness::instance::{self, Instance};
use crate::harness::router::Router;
use crate::harness::{answer, bus, in_time};

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/")];
const ENDS: u8 = END_STREAM | END_HEADERS;

/// Sends `sent` to a new router, reads until `last` comes, and gives the first line of the log.
async fn logged(sent: Vec<u8>, last: u8, label: &str) -> (String, Router, Instance, bus::Bus) {
    let bus = bus::embedded().await;
    let shop = instance::serving("shop.test").answering(answer::status(200, "hello")).on(&bus).await;
    let router = router_for(&bus, "").await;
    let mut raw = Raw::connect(router.address()).await;
    raw.send(sent).await;
    in_time("a refusal", async { while raw.frame().await.expect("the refusal comes first").kind != last {} }).await;
    let line = router.until_logged(1).await.swap_remove(0);
    assert!(line.contains("HTTP/2.0") && line.contains(r#""ending":"refused""#), "{line}");
    assert_eq!(shop.begun(), 0);
    let series = format!("weighbridge_refused_total{{reason=\"{label}\"}}");
    router.until_metric(&series, |count| count == 1.0).await;
    (line, router, shop, bus)
}

#[tokio::test]
async fn a_malformed_request_that_is_reset() {
    let twice = [&GET[..], &[GET[0]]].concat();
    let (line, ..) = logged(frame(HEADERS, ENDS, 1, block(&twice)), RST_STREAM, "http2_malformed").await;
    assert!(line.contains("http2_reset (protocol_error, stream 1)"), "{line}");
}

#[tokio::test]
async fn a_block_that_cannot_be_read() {
    let (line, ..) = logged(frame(HEADERS, ENDS, 1, [0x80]), GOAWAY, "http2_connection").await;
    assert!(line.contains("http2_goaway (protocol_error, stream 1)"), "{line}");
}

#[tokio::test]
async fn a_head_that_is_larger_than_the_library_decodes() {
    let long = "y".repeat(15_000);
    let pieces: Vec<Vec<u8>> = (0..18).map(|_| block(&[("x", &long)])).collect();
    let mut sent = frame(HEADERS, END_STREAM, 1, block(&GET));
    for (nth, piece) in pieces.iter().enumerate() {
        sent.extend(frame(CONTINUATION, if nth == 17 { END_HEADERS } else { 0 }, 1, piece));
    }
    let (line, ..) = logged(sent, HEADERS, "head_too_large").await;
    assert!(line.contains(r#""status":431"#) && line.contains("http2_head_too_large (stream 1)"), "{line}");
}

#[tokio::test]
async fn one_stream_too_many() {
    let waiting = [(":method", "POST"), GET[1], GET[2], GET[3]];
    let bus = bus::embedded().await;
    let gate = answer::Gate::closed();
    let _shop = instance::serving("shop.test").answering(answer::status(200, "hello").behind(&gate)).on(&bus).await;
    let router = router_for(&bus, "").await;
    let mut raw = Raw::connect(router.address()).await;
    raw.send((0..129).flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, block(&waiting))).collect::<Vec<_>>()).await;
    in_time("a refusal", async { while raw.frame().await.expect("it goes on").kind != RST_STREAM {} }).await;
    let line = router.until_logged(1).await.swap_remove(0);
    assert!(line.contains("http2_reset (refused_stream, stream 257)"), "{line}");
    router.until_metric("weighbridge_refused_total{reason=\"http2_too_many_streams\"}", |count| count == 1.0).await;
}

/// RFC 9113 section 8.3.1 leaves no room for a fragment in `:path`. The library takes it away before anybody sees it, so it
/// cannot be refused as in HTTP/1.1; but it goes nowhere.
#[tokio::test]
async fn a_fragment_goes_nowhere() {
    let bus = bus::embedded().await;
    let shop = instance::serving("shop.test").answering(answer::status(200, "hello")).on(&bus).await;
    let router = router_for(&bus, "").await;
    let mut raw = Raw::connect(router.address()).await;
    let head = [GET[0], GET[1], GET[2], (":path", "/cart?item=1#/admin")];
    raw.send(frame(HEADERS, ENDS, 1, block(&head))).await;
    in_time("an answer", async { while raw.frame().await.expect("it goes on").kind != HEADERS {} }).await;
    assert_eq!(shop.last().target(), "/cart?item=1");
}

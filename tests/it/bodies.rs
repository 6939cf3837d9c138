//! Bodies of all sizes and framings pass through as they come, and nothing is gathered on the way.

use crate::harness::answer::{self, Answer, Gate, Step};
use crate::harness::instance::{Instance, Plan};
use crate::harness::router::{self, Router};
use crate::harness::{bus, eventually, in_time, instance, millis, pattern};

const MIB: u64 = 1 << 20;

async fn shop(plan: Plan) -> (Router, Instance) {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let shop = plan.on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    (router, shop)
}

#[tokio::test]
async fn bodies_with_a_length_pass_both_ways() {
    let plan = instance::serving("shop.test").answering_each(|request| answer::pattern(request.body_bytes));
    let (router, shop) = shop(plan).await;
    let mut client = router.client().await;
    for size in [0, 1, 100, 16_384, 65_535, 65_536, 65_537, 300_000] {
        let response = client.send(router.post("shop.test/").body(pattern::bytes(size))).await;
        let seen = shop.last();
        assert_eq!((seen.body_bytes, seen.follows_pattern), (size as u64, true));
        assert_eq!((response.body_bytes, response.follows_pattern), (size as u64, true));
    }
    assert_eq!(shop.connections(), 1, "the connection is kept in step");
}

#[tokio::test]
async fn chunks_and_trailers_pass_both_ways() {
    let answer = answer::chunked(&["first", "second", "third"], &[("X-Checksum", "abc"), ("X-Done", "yes")]);
    let (router, shop) = shop(instance::serving("shop.test").answering(answer)).await;
    let mut client = router.client().await;
    for _ in 0..3 {
        let request = router.post("shop.test/").header("TE", "trailers").header("Trailer", "X-Sum");
        let response = client.send(request.chunked(&["hello ", "world"], &[("X-Sum", "42")])).await;
        let seen = shop.last();
        assert_eq!((seen.text().as_str(), seen.complete), ("hello world", true));
        assert_eq!(seen.trailers, [("X-Sum".to_owned(), "42".to_owned())]);
        assert_eq!(response.text(), "firstsecondthird");
        let trailers: Vec<_> = response.trailers.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(trailers, [("X-Checksum", "abc"), ("X-Done", "yes")]);
    }
}

#[tokio::test]
async fn a_response_that_ends_with_the_connection_is_passed_on_whole() {
    let answer = Answer::new().write("HTTP/1.1 200 OK\r\n\r\nall of ").write("this").then(Step::Close);
    let (router, _shop) = shop(instance::serving("shop.test").answering(answer)).await;
    let response = router.get("shop.test/").await;
    assert_eq!((response.text().as_str(), response.complete), ("all of this", true));
}

#[tokio::test]
async fn a_response_cut_short_never_looks_whole() {
    for cut in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhello",
    ] {
        let (router, _shop) =
            shop(instance::serving("shop.test").answering(Answer::new().write(cut).then(Step::Close))).await;
        let mut wire = router.wire().await;
        wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.expect("sending");
        let response = in_time("the response to end", wire.response_to("GET")).await;
        assert!(response.is_err(), "{cut:?} looked whole: {response:?}");
    }
}

#[tokio::test]
async fn events_arrive_one_by_one_as_they_are_sent() {
    let gates: Vec<Gate> = (0..3).map(|_| Gate::closed()).collect();
    let mut answer =
        Answer::new().write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (number, gate) in gates.iter().enumerate() {
        let event = format!("data: {number}\n\n");
        answer = answer.until(gate).write(format!("{:x}\r\n{event}\r\n", event.len()));
    }
    let (router, _shop) = shop(instance::serving("shop.test").answering(answer.write("0\r\n\r\n"))).await;
    let mut wire = router.wire().await;
    wire.send("GET /events HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.expect("sending");
    let head = in_time("the head before any event", wire.head()).await.expect("a head").expect("not the end");
    assert_eq!(head.status(), 200);
    for (number, gate) in gates.iter().enumerate() {
        gate.open();
        let seen = in_time("an event", async {
            let mut seen = String::new();
            while !seen.contains(&format!("data: {number}")) {
                seen += &wire.line().await.expect("more lines");
                seen += "\n";
            }
            seen
        });
        let seen = seen.await;
        assert!(!seen.contains(&format!("data: {}", number + 1)), "the next event is behind its gate: {seen}");
    }
}

#[tokio::test]
async fn a_response_can_begin_before_the_request_has_ended() {
    let early = Answer::new()
        .write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n")
        .then(Step::ReadBody)
        .write("4\r\nlate\r\n0\r\n\r\n");
    let (router, shop) = shop(instance::serving("shop.test").answering_early(move |_| early.clone())).await;
    let mut wire = router.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 10\r\n\r\nhello").await.expect("sending");
    let head = in_time("the head", wire.head()).await.expect("a head").expect("not the end");
    assert_eq!(head.status(), 200);
    assert_eq!(wire.line().await.expect("a chunk"), "5");
    assert_eq!(wire.line().await.expect("its data"), "early");
    wire.send("world").await.expect("sending the rest");
    assert_eq!(in_time("the rest", wire.line()).await.expect("a chunk"), "4");
    assert_eq!(shop.last().text(), "helloworld");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_work() {
    let gate = Gate::closed();
    let (router, shop) =
        shop(instance::serving("shop.test").answering(answer::status(200, "late").behind(&gate))).await;
    let pending = router.get("shop.test/").begin();
    shop.until_begun(1).await;
    pending.abandon().await;
    eventually("the instance's connection is closed", || shop.aborted() == 1).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_body_cancels_the_work() {
    let (router, shop) = shop(instance::serving("shop.test").answering(answer::pattern(1 << 40))).await;
    let mut wire = router.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.expect("sending");
    wire.some().await.expect("the body has begun");
    drop(wire);
    eventually("the instance's connection is closed", || shop.aborted() == 1).await;
}

#[tokio::test]
async fn a_client_that_only_stops_sending_still_gets_its_answer() {
    let gate = Gate::closed();
    let (router, shop) =
        shop(instance::serving("shop.test").answering(answer::status(200, "late").behind(&gate))).await;
    let mut wire = router.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.expect("sending");
    wire.finish_sending().await;
    shop.until_begun(1).await;
    gate.open();
    let response = in_time("the response", wire.response_to("GET")).await.expect("a response");
    assert_eq!(response.text(), "late");
}

#[tokio::test]
async fn a_hundred_megabytes_pass_down_and_up_unchanged() {
    let size = 100 * MIB;
    let plan = instance::serving("shop.test").answering_each(move |request| match request.method() {
        "GET" => answer::pattern(size),
        _ => answer::status(200, "thanks"),
    });
    let (router, shop) = shop(plan).await;
    let down = in_time("the download", router.get("shop.test/big").sent()).await;
    assert_eq!((down.body_bytes, down.follows_pattern), (size, true));

    let mut wire = router.wire().await;
    wire.send(format!("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {size}\r\n\r\n")).await.expect("sending");
    let mut sent = 0;
    while sent < size {
        let piece = pattern::piece(sent, usize::try_from(size - sent).expect("100 MiB fit"));
        wire.send(piece).await.expect("the router takes all of it");
        sent += piece.len() as u64;
    }
    assert_eq!(in_time("the answer", wire.response_to("POST")).await.expect("a response").status(), 200);
    let seen = shop.last();
    assert_eq!((seen.body_bytes, seen.follows_pattern), (size, true));
}

#[tokio::test]
async fn what_the_client_does_not_read_stays_with_the_instance() {
    let size = 200 * MIB;
    let (router, shop) = shop(instance::serving("shop.test").answering(answer::pattern(size))).await;
    let mut wire = router.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.expect("sending");
    // Nobody reads: the kernel's buffers fill, then everything stands still long before the end.
    let mut before = u64::MAX;
    while before == 0 || before != shop.pattern_bytes_sent() {
        before = shop.pattern_bytes_sent();
        tokio::time::sleep(millis(300)).await; // standing still can only be seen over time
    }
    assert!(before < 32 * MIB, "{} MiB were taken for a client that reads nothing", before / MIB);
    let response = in_time("the rest", wire.response_to("GET")).await.expect("a response");
    assert_eq!((response.body_bytes, response.follows_pattern), (size, true));
}

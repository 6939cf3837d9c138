//! HTTP/1 on the wire: methods and statuses without bodies, interim responses, old clients, pipelines, and what is too
//! large. The rules that lines and framing must keep have cases of their own, in `strict`.

use crate::harness::instance::{Instance, Plan};
use crate::harness::router::{self, Router};
use crate::harness::{answer, bus, in_time, instance};

async fn shop(plan: Plan) -> (Router, Instance) {
    shop_with("", plan).await
}

async fn shop_with(settings: &str, plan: Plan) -> (Router, Instance) {
    let bus = bus::embedded().await;
    let router = router::with(settings).on(&bus).await;
    let shop = plan.on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    (router, shop)
}

#[tokio::test]
async fn a_head_request_gets_the_head_and_no_body() {
    let answer = answer::Answer::new().write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-A: b\r\n\r\n");
    let (router, _shop) = shop(instance::serving("shop.test").answering(answer)).await;
    let mut client = router.client().await;
    for _ in 0..3 {
        let response = client.send(router.request("HEAD", "shop.test/")).await;
        assert_eq!((response.status(), response.header("Content-Length")), (200, Some("1000")));
    }
}

#[tokio::test]
async fn a_head_request_for_nothing_gets_an_error_without_a_body() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let mut client = router.client().await;
    for _ in 0..3 {
        assert_eq!(client.send(router.request("HEAD", "nobody.test/")).await.status(), 404);
    }
}

#[tokio::test]
async fn statuses_without_a_body_keep_the_connection_in_step() {
    for (code, fields) in [(204, ""), (304, "ETag: \"x\"\r\nContent-Length: 500\r\n"), (205, "Content-Length: 0\r\n")] {
        let answer = answer::Answer::new().write(format!("HTTP/1.1 {code} Fine\r\n{fields}\r\n"));
        let (router, shop) = shop(instance::serving("shop.test").answering(answer)).await;
        let mut client = router.client().await;
        for _ in 0..3 {
            let response = in_time("a response without a body", client.send(router.get("shop.test/"))).await;
            assert_eq!((response.status(), response.body_bytes), (code, 0));
        }
        assert_eq!(shop.connections(), 1, "{code}: the connection to the instance is kept, too");
    }
}

#[tokio::test]
async fn interim_responses_reach_the_client_in_order() {
    let answer = answer::Answer::new()
        .write("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
        .write("HTTP/1.1 102 Processing\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
    let (router, _shop) = shop(instance::serving("shop.test").answering(answer)).await;
    let response = router.get("shop.test/").await;
    let interim: Vec<_> = response.informational.iter().map(|head| head.status()).collect();
    assert_eq!(interim, [103, 102]);
    assert_eq!(response.informational[0].header("Link"), Some("</style.css>; rel=preload"));
    assert_eq!((response.status(), response.text().as_str()), (200, "done"));
}

#[tokio::test]
async fn interim_responses_are_not_sent_to_clients_that_cannot_read_them() {
    let answer = answer::Answer::new()
        .write("HTTP/1.1 103 Early Hints\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
    let (router, _shop) = shop(instance::serving("shop.test").answering(answer)).await;
    let (response, _wire) = router.exchange("GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!((response.status(), response.informational.len()), (200, 0));
}

#[tokio::test]
async fn a_client_that_expects_100_continue_is_told_to_go_on() {
    let reads = answer::Answer::new()
        .write("HTTP/1.1 100 Continue\r\n\r\n")
        .then(answer::Step::ReadBody)
        .write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let plan = instance::serving("shop.test").answering_early(move |_| reads.clone());
    let (router, shop) = shop(plan).await;
    let mut wire = router.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await
        .expect("sending");
    let interim = in_time("the interim response", wire.head()).await.expect("a head").expect("not the end");
    assert_eq!(interim.status(), 100);
    wire.send("hello").await.expect("sending");
    let response = wire.response_to("POST").await.expect("a response");
    assert_eq!((response.status(), shop.last().text().as_str()), (200, "hello"));
}

#[tokio::test]
async fn a_client_that_expects_100_continue_is_told_when_the_body_is_not_wanted() {
    let refuses = answer::status(413, "too big");
    let plan = instance::serving("shop.test").answering_early(move |_| refuses.clone());
    let (router, _shop) = shop(plan).await;
    let (response, _wire) = router
        .exchange("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(response.status(), 413);
}

#[tokio::test]
async fn an_old_client_gets_what_it_can_read() {
    let (router, shop) =
        shop(instance::serving("shop.test").answering(answer::chunked(&["hello ", "world"], &[]))).await;
    let mut wire = router.wire().await;
    wire.send("GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n").await.expect("sending");
    let response = in_time("the response", wire.response_to("GET")).await.expect("a response");
    assert_eq!(response.header("Transfer-Encoding"), None, "HTTP/1.0 knows no chunks");
    assert_eq!(response.text(), "hello world");
    wire.closed().await;
    assert!(shop.last().start.ends_with("HTTP/1.1"), "towards the instance we speak 1.1: {}", shop.last().start);
}

#[tokio::test]
async fn an_old_client_can_keep_its_connection_if_it_asks() {
    let (router, _shop) = shop(instance::serving("shop.test")).await;
    let mut wire = router.wire().await;
    for _ in 0..3 {
        wire.send("GET / HTTP/1.0\r\nHost: shop.test\r\nConnection: keep-alive\r\n\r\n").await.expect("sending");
        let response = wire.response_to("GET").await.expect("a response");
        assert_eq!(response.status(), 200);
        assert!(response.headers("Connection").concat().to_ascii_lowercase().contains("keep-alive"));
    }
}

#[tokio::test]
async fn the_answer_of_an_old_instance_is_passed_on_as_ours() {
    for (head, body) in [("Content-Length: 2\r\n", "ok"), ("", "ok")] {
        let answer =
            answer::Answer::new().write(format!("HTTP/1.0 200 OK\r\n{head}\r\n{body}")).then(answer::Step::Close);
        let (router, _shop) = shop(instance::serving("shop.test").answering(answer)).await;
        let mut client = router.client().await;
        for _ in 0..3 {
            let response = client.send(router.get("shop.test/")).await;
            assert_eq!((response.start.as_str(), response.text().as_str()), ("HTTP/1.1 200 OK", "ok"));
        }
    }
}

#[tokio::test]
async fn a_client_that_says_close_is_told_the_same_and_closed() {
    let (router, _shop) = shop(instance::serving("shop.test")).await;
    let (response, mut wire) = router.exchange("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").await;
    assert!(response.says_close());
    wire.closed().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let plan = instance::serving("shop.test").answering_each(|request| {
        // The first takes longest, so that order is not given away.
        let delay = crate::harness::millis(if request.target() == "/0" { 20 } else { 0 });
        answer::status(200, request.target()).after(delay)
    });
    let (router, _shop) = shop(plan).await;
    let mut wire = router.wire().await;
    let requests: String = (0..5).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: shop.test\r\n\r\n")).collect();
    wire.send(requests).await.expect("sending");
    for n in 0..5 {
        let response = in_time("a pipelined response", wire.response_to("GET")).await.expect("a response");
        assert_eq!(response.text(), format!("/{n}"));
    }
}

#[tokio::test]
async fn a_pipelined_request_behind_a_body_is_not_part_of_it() {
    let (router, shop) = shop(instance::serving("shop.test")).await;
    let mut wire = router.wire().await;
    wire.send(
        "POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello\
         POST /b HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
         GET /c HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    )
    .await
    .expect("sending");
    for _ in 0..3 {
        assert_eq!(in_time("a response", wire.response_to("GET")).await.expect("a response").status(), 200);
    }
    let seen: Vec<_> = shop.requests().iter().map(|r| (r.target().to_owned(), r.text())).collect();
    let expected = [("/a", "hello"), ("/b", "abc"), ("/c", "")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_a_request() {
    let (router, shop) = shop(instance::serving("shop.test")).await;
    let mut wire = router.wire().await;
    let request = "POST /slow HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for byte in request.bytes() {
        wire.send([byte]).await.expect("sending");
        tokio::task::yield_now().await;
    }
    assert_eq!(in_time("a response", wire.response_to("POST")).await.expect("a response").status(), 200);
    assert_eq!(shop.last().text(), "abc");
}

#[tokio::test]
async fn heads_too_large_are_refused() {
    let settings = r#"limits = { head_bytes = "8KiB", head_count = 50 }"#;
    let (router, shop) = shop_with(settings, instance::serving("shop.test")).await;
    let long = "x".repeat(10_000);
    let many: String = (0..60).map(|n| format!("X-{n}: 1\r\n")).collect();
    for (status, request) in [
        (431, format!("GET / HTTP/1.1\r\nHost: shop.test\r\nX-Long: {long}\r\n\r\n")),
        (414, format!("GET /{long} HTTP/1.1\r\nHost: shop.test\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{many}\r\n")),
    ] {
        let (response, mut wire) = router.exchange(request).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.header("X-Cf-RouterError"), Some("max-request-size-exceeded"));
        wire.closed().await;
    }
    assert_eq!(shop.begun(), 0);
    assert_eq!(router.get("shop.test/").header("X-Fits", &"x".repeat(6_000)).await.status(), 200);
}

#[tokio::test]
async fn bodies_too_large_are_refused_with_413() {
    let (router, _shop) = shop_with(r#"limits = { body_bytes = "1KiB" }"#, instance::serving("shop.test")).await;
    assert_eq!(router.post("shop.test/").body(vec![b'x'; 1024]).await.status(), 200);
    assert_eq!(router.post("shop.test/").body(vec![b'x'; 1025]).await.status(), 413);
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_in_both_directions() {
    let accepts = answer::Answer::new()
        .write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst ")
        .then(answer::Step::EchoBytes);
    let (router, shop) = shop(instance::serving("shop.test").answering(accepts)).await;
    let mut wire = router.wire().await;
    // The client does not wait for the answer before it speaks the new protocol.
    wire.send("GET /chat HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello ")
        .await
        .expect("sending");
    let head = in_time("the upgrade", wire.head()).await.expect("a head").expect("not the end");
    assert_eq!((head.status(), head.header("Upgrade")), (101, Some("websocket")));
    assert_eq!(shop.last().header("Upgrade"), Some("websocket"));
    wire.send("world\0\r\n\r\n").await.expect("sending");
    let expected = b"first hello world\0\r\n\r\n";
    let mut heard = Vec::new();
    while heard.len() < expected.len() {
        heard.extend(in_time("more of the tunnel", wire.some()).await.expect("the tunnel holds"));
    }
    assert_eq!(heard, expected);
    router.until_metric("weighbridge_tunnels_open", |open| open == 1.0).await;
    drop(wire);
    router.until_metric("weighbridge_tunnels_open", |open| open == 0.0).await;
}

#[tokio::test]
async fn an_upgrade_that_is_declined_is_an_ordinary_response() {
    let (router, _shop) = shop(instance::serving("shop.test").answering(answer::status(426, "no"))).await;
    let mut client = router.client().await;
    for _ in 0..2 {
        let request = router.get("shop.test/").header("Connection", "Upgrade").header("Upgrade", "websocket");
        assert_eq!(client.send(request).await.status(), 426);
    }
}

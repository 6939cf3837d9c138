//! Other protocols over streams (RFC 8441): WebSockets from clients and to instances, whatever each of them speaks.

use h2::server::Builder;
use hyper::body::Bytes;

use super::h2c::{self, Caller};
use super::instances::{Shop, echo, router_for};
use crate::harness::answer::{self, Answer, Step};
use crate::harness::{bus, in_time, instance};

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: whatever\r\n\r\n";

/// The key and its answer from RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Says something through a tunnel, hears it again, and ends it.
async fn talk(caller: &mut Caller) {
    let (answer, mut sending) = caller.ask_tunnel("websocket").await;
    let answer = in_time("an answer", answer).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    for unwanted in ["connection", "upgrade", "sec-websocket-accept", "transfer-encoding", "content-length"] {
        assert!(!answer.headers().contains_key(unwanted), "{unwanted}");
    }
    let mut coming = answer.into_body();
    for word in ["one", "two", "three"] {
        h2c::send(&mut sending, Bytes::from(word)).await;
        let heard = in_time("the echo", coming.data()).await.expect("not the end").expect("no reset");
        coming.flow_control().release_capacity(heard.len()).expect("it was counted");
        assert_eq!(heard, word);
    }
    sending.send_data(Bytes::new(), true).expect("the tunnel stands");
    while let Some(last) = in_time("the end", coming.data()).await {
        assert_eq!(last.expect("no reset"), "");
    }
}

#[tokio::test]
async fn a_tunnel_to_an_instance_of_http1_is_an_upgrade() {
    let bus = bus::embedded().await;
    let answer = Answer::new().write(SWITCH).then(Step::EchoBytes).then(Step::Close);
    let shop = instance::serving("shop.test").answering(answer).on(&bus).await;
    let router = router_for(&bus, "").await;
    let mut caller = Caller::connect(router.address()).await;
    for _ in 0..3 {
        talk(&mut caller).await;
    }
    let seen = shop.last();
    assert_eq!((seen.method(), seen.target()), ("GET", "/chat"));
    assert_eq!((seen.header("upgrade"), seen.header("connection")), (Some("websocket"), Some("Upgrade")));
    assert_eq!(seen.header("sec-websocket-key").map(str::len), Some(24));
    let logged = &router.until_logged(1).await[0];
    assert!(logged.contains(r#""status":101"#) && logged.contains("HTTP/2.0"), "{logged}");
    router.until_metric("weighbridge_tunnels_total", |count| count == 3.0).await;
    router.until_metric("weighbridge_tunnels_open", |count| count == 0.0).await;
}

#[tokio::test]
async fn a_tunnel_to_an_instance_of_http2_is_a_tunnel() {
    let bus = bus::embedded().await;
    let mut builder = Builder::new();
    builder.enable_connect_protocol();
    let shop = Shop::speaking(builder, None, |request, answer| async move {
        assert_eq!((request.method().as_str(), request.uri().path()), ("CONNECT", "/chat"));
        let protocol = request.extensions().get::<h2::ext::Protocol>().map(h2::ext::Protocol::as_str);
        assert_eq!(protocol, Some("websocket"));
        assert!(!request.headers().contains_key("sec-websocket-key"));
        echo(request, answer).await;
    })
    .await;
    shop.register(&bus, "one").await;
    let router = router_for(&bus, "").await;
    talk(&mut Caller::connect(router.address()).await).await;

    let mut wire = router.wire().await;
    let asked = format!(
        "GET /chat HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\nhello"
    );
    wire.send(asked).await.expect("the router listens");
    let head = in_time("the upgrade", wire.head()).await.expect("a head").expect("not the end");
    assert_eq!((head.status(), head.header("upgrade")), (101, Some("websocket")));
    assert_eq!(head.header("sec-websocket-accept"), Some(ACCEPT));
    wire.finish_sending().await;
    assert_eq!(in_time("the echo", wire.rest()).await, b"hello");
}

#[tokio::test]
async fn a_tunnel_that_cannot_be_had_is_refused_clearly() {
    let bus = bus::embedded().await;
    let _shop = instance::serving("shop.test").answering(answer::status(200, "no")).on(&bus).await;
    let router = router_for(&bus, "").await;
    let mut caller = Caller::connect(router.address()).await;
    let (answer, _sending) = caller.ask_tunnel("websocket").await;
    let answer = in_time("an answer", answer).await.expect("an answer");
    assert_eq!(answer.status(), 501, "a success would have meant a tunnel");

    let bus = bus::embedded().await;
    let shop = Shop::open(echo).await;
    shop.register(&bus, "one").await;
    let router = router_for(&bus, "").await;
    let mut caller = Caller::connect(router.address()).await;
    let (answer, _sending) = caller.ask_tunnel("websocket").await;
    let answer = in_time("an answer", answer).await.expect("an answer");
    let error = answer.headers()["x-cf-routererror"].to_str().expect("text");
    assert_eq!((answer.status().as_u16(), error), (502, "endpoint_failure (http2: cannot be asked for)"));
}

#[tokio::test]
async fn a_tunnel_follows_other_requests() {
    let bus = bus::embedded().await;
    let script = |request: &instance::Received| match request.target() {
        "/chat" => Answer::new().write(SWITCH).then(Step::EchoBytes).then(Step::Close),
        _ => answer::status(200, "hello"),
    };
    let _shop = instance::serving("shop.test").answering_each(script).on(&bus).await;
    let router = router_for(&bus, "").await;
    let mut caller = Caller::connect(router.address()).await;
    for _ in 0..3 {
        let (answer, _) = caller.ask("GET", "/", &[], true).await;
        assert_eq!(in_time("an answer", answer).await.expect("an answer").status(), 200);
        talk(&mut caller).await;
    }
}

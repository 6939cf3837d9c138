//! Requests that wait for a sleeping app, over TLS and over HTTP/2.

use super::raw::{self, Raw};
use super::*;
use crate::harness::client::Client as Http1;
use crate::harness::eventually;
use crate::wake::{World, until_held};

#[tokio::test]
async fn over_tls_and_http2_requests_wait_for_the_app_and_are_answered_by_it_once_each() {
    let authority = Authority::new();
    let pair = authority.issue("shop", &["shop.test"]);
    let certificates = format!("[{{ cert = {:?}, key = {:?} }}]", pair.cert, pair.key);
    let https = format!("[https]\nlisten = [\"127.0.0.1:0\"]\ncertificates = {certificates}\n");
    let world = World::asleep(1, &https).await;
    let router = &world.routers[0];
    let upload = Bytes::from(pattern::bytes(1 << 20));

    let speaker = authority.client().offering_http2().ready();
    let socket = speaker.handshake(router.tls_address(), "shop.test").await.expect("TLS");
    let http2 = Client::over(socket).await;
    let mut streams: Vec<_> = (0..50).map(|n| tokio::spawn(http2.send(get(&format!("/{n}"))))).collect();
    streams.push(tokio::spawn(http2.send(request("POST", "/http2", Full::new(upload.clone()).boxed()))));
    let speaker = authority.client().ready();
    let (stream, _) = speaker.connect(router.tls_address(), "shop.test").await.expect("TLS");
    let post = router.post("shop.test/http1").body(&upload);
    let http1 = tokio::spawn(async move { Http1::over(stream).send(post).await });
    until_held(router, 52).await;

    let shop = world.start(instance::serving("shop.test").named("shop-1")).await;
    for stream in streams {
        let response = in_time("a response", stream).await.expect("no panic").expect("no reset");
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(whole(response).await.0, "shop-1");
    }
    assert_eq!(http1.await.expect("no panic").text(), "shop-1");
    let seen = shop.requests();
    let targets: std::collections::BTreeSet<&str> = seen.iter().map(|seen| seen.message.target()).collect();
    assert_eq!((seen.len(), targets.len()), (52, 52));
    let posts: Vec<_> = seen.iter().filter(|seen| seen.message.method() == "POST").collect();
    assert_eq!(posts.len(), 2);
    assert!(posts.iter().all(|post| post.message.body_bytes == 1 << 20 && post.message.follows_pattern));
}

#[tokio::test]
async fn a_stream_that_is_reset_while_it_waits_frees_its_place() {
    let world = World::asleep(1, &format!("{H2C}\nwake.hold = \"1h\"\nwake.held_max = 2")).await;
    let router = &world.routers[0];
    let client = Client::clear(router).await;
    let gives_up = tokio::spawn(client.send(get("/")));
    until_held(router, 1).await;
    gives_up.abort();
    until_held(router, 0).await;

    // One whose body fills all there is to fill before it is read.
    const FIELDS: [(&str, &str); 4] =
        [(":method", "POST"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/")];
    let mut wire = Raw::connect(router.address()).await;
    wire.send(raw::frame(raw::HEADERS, raw::END_HEADERS, 1, raw::block(&FIELDS))).await;
    for _ in 0..4 {
        wire.send(raw::frame(raw::DATA, 0, 1, vec![b'x'; 16 * 1024 - 1])).await;
    }
    wire.send(raw::frame(raw::PING, 0, 0, [0; 8])).await;
    in_time("an answer to the ping", async {
        while wire.frame().await.expect("the connection holds").kind != raw::PING {}
    })
    .await;
    until_held(router, 1).await;
    wire.send(raw::frame(raw::RST_STREAM, 0, 1, 8_u32.to_be_bytes())).await;
    until_held(router, 0).await;
    eventually("both are in the log", || router.log_lines().iter().filter(|line| line.contains("499")).count() == 2)
        .await;
}

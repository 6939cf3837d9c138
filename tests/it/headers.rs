//! What the router adds to, takes from and leaves alone in heads, in both directions.

use std::time::SystemTime;

use serde_json::json;

use crate::harness::instance::Instance;
use crate::harness::router::{self, Router};
use crate::harness::{answer, bus, instance, secs};

/// A router with one instance of shop.test that answers 200.
async fn shop(settings: &str) -> (Router, Instance) {
    let bus = bus::embedded().await;
    let router = router::with(settings).on(&bus).await;
    let plan = instance::serving("shop.test").named("shop-id").of_app("shop-guid").numbered(3);
    let shop = plan.on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    (router, shop)
}

#[tokio::test]
async fn an_instance_is_told_who_asks_and_who_it_is() {
    let (router, shop) = shop("").await;
    let response = router.get("shop.test/").await;
    let seen = shop.last();
    assert_eq!(seen.headers("Host"), ["shop.test"]);
    assert_eq!(seen.headers("X-Forwarded-For"), ["127.0.0.1"]);
    assert_eq!(seen.headers("X-Forwarded-Proto"), ["http"]);
    assert_eq!(seen.headers("X-CF-ApplicationID"), ["shop-guid"]);
    assert_eq!(seen.headers("X-CF-InstanceID"), ["shop-id"]);
    assert_eq!(seen.headers("X-CF-InstanceIndex"), ["3"]);
    let started = seen.header("X-Request-Start").expect("it is always set");
    assert!(started.len() == 13 && started.bytes().all(|digit| digit.is_ascii_digit()), "{started} is not unix ms");
    let id = seen.header("X-Vcap-Request-Id").expect("it is always set");
    assert_eq!(uuid::Uuid::parse_str(id).map(|id| id.get_version_num()), Ok(4), "{id}");
    assert_eq!(response.header("X-Vcap-Request-Id"), Some(id), "the client is told the same id");
}

#[tokio::test]
async fn forwarded_headers_of_the_client_are_kept_where_they_may_be() {
    let (router, shop) = shop("").await;
    router
        .get("shop.test/")
        .header("X-Forwarded-For", "10.1.1.1, 10.2.2.2")
        .header("X-Forwarded-Proto", "https")
        .header("X-Request-Start", "1234567890123")
        .header("X-Vcap-Request-Id", "mine")
        .header("X-CF-InstanceID", "forged")
        .await;
    let seen = shop.last();
    assert_eq!(seen.headers("X-Forwarded-For"), ["10.1.1.1, 10.2.2.2, 127.0.0.1"]);
    assert_eq!(seen.headers("X-Request-Start"), ["1234567890123"]);
    assert_eq!(seen.headers("X-CF-InstanceID"), ["shop-id"]);
    assert_ne!(seen.headers("X-Vcap-Request-Id"), ["mine"], "the id is always ours");
    assert_eq!(seen.headers("X-Vcap-Request-Id").len(), 1);
}

#[tokio::test]
async fn strangers_forwarded_headers_are_replaced_when_trusted_proxies_are_named() {
    let (router, shop) = shop(r#"http = { trusted_proxies = ["10.0.0.0/8"] }"#).await;
    router
        .get("shop.test/")
        .header("X-Forwarded-For", "10.1.1.1")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "bank.test")
        .header("Forwarded", "for=10.1.1.1")
        .await;
    let seen = shop.last();
    assert_eq!(seen.headers("X-Forwarded-For"), ["127.0.0.1"]);
    assert_eq!(seen.headers("X-Forwarded-Proto"), ["http"]);
    assert_ne!(seen.headers("X-Forwarded-Host"), ["bank.test"]);
    assert!(!seen.headers("Forwarded").concat().contains("10.1.1.1"));

    let (router, shop) = self::shop(r#"http = { trusted_proxies = ["127.0.0.0/8"] }"#).await;
    router.get("shop.test/").header("X-Forwarded-For", "10.1.1.1").header("X-Forwarded-Proto", "https").await;
    let seen = shop.last();
    assert_eq!(seen.headers("X-Forwarded-For"), ["10.1.1.1, 127.0.0.1"]);
    assert_eq!(seen.headers("X-Forwarded-Proto"), ["https"]);
}

#[tokio::test]
async fn hop_by_hop_headers_end_at_the_router() {
    let (router, shop) = shop("").await;
    router
        .get("shop.test/")
        .header("Connection", "keep-alive, X-Mine")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("Proxy-Authorization", "Basic eDp5")
        .header("X-Mine", "1")
        .header("X-Yours", "2")
        .await;
    let seen = shop.last();
    for gone in ["Keep-Alive", "Proxy-Connection", "X-Mine"] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    assert!(!seen.headers("Connection").concat().contains("X-Mine"));
    assert_eq!(seen.header("X-Yours"), Some("2"));
}

#[tokio::test]
async fn hop_by_hop_headers_of_an_instance_end_at_the_router_too() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let fields = [("Connection", "keep-alive, X-Mine"), ("Keep-Alive", "timeout=5"), ("X-Mine", "1"), ("X-Yours", "2")];
    let _shop = instance::serving("shop.test").answering(answer::with_fields(200, &fields, "x")).on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let response = router.get("shop.test/").await;
    assert_eq!((response.header("X-Mine"), response.header("Keep-Alive")), (None, None));
    assert_eq!(response.header("X-Yours"), Some("2"));
}

#[tokio::test]
async fn a_client_cannot_name_a_header_of_ours_in_connection_to_have_it_dropped() {
    let (router, shop) = shop("").await;
    let ours = [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Vcap-Request-Id",
        "X-Request-Start",
        "X-CF-ApplicationID",
        "X-CF-InstanceID",
        "X-CF-InstanceIndex",
        "Host",
    ];
    for name in ours {
        let response = router.get("shop.test/").header("Connection", &format!("close, {name}")).await;
        assert_eq!(response.status(), 200, "{name}");
        assert!(shop.last().header(name).is_some(), "{name} was dropped");
    }
}

#[tokio::test]
async fn names_an_operator_protects_cannot_be_dropped_either() {
    let (router, shop) = shop(r#"forwarded = { protect = ["X-Tenant"] }"#).await;
    router
        .get("shop.test/")
        .header("Connection", "X-Tenant, X-Free")
        .header("X-Tenant", "a")
        .header("X-Free", "b")
        .await;
    assert_eq!((shop.last().header("X-Tenant"), shop.last().header("X-Free")), (Some("a"), None));
}

#[tokio::test]
async fn the_request_target_arrives_byte_for_byte() {
    let (router, shop) = shop("").await;
    let mut wire = router.wire().await;
    for target in [
        "/",
        "/a//b/./../c",
        "/%2F%2e%2E/%zz%",
        "/?",
        "/??a=b&&c==d?",
        "/a%20b;jsessionid=1?x=[]{}|^",
        "/~!$&'()*+,;=:@",
        "/\"<>`",
    ] {
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n")).await.expect("the connection is kept");
        let response = wire.response_to("GET").await.expect("a response");
        assert_eq!(response.status(), 200, "{target}");
        assert_eq!(shop.last().target(), target);
    }
    let (response, _wire) = router.exchange("OPTIONS * HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!((response.status(), shop.last().target().to_owned()), (200, "*".to_owned()));
}

#[tokio::test]
async fn the_order_case_and_repetition_of_fields_arrive_as_sent() {
    let (router, shop) = shop("").await;
    router
        .get("shop.test/")
        .header("x-LOWER-and-UPPER", "1")
        .header("Cookie", "a=1")
        .header("X-Twice", "first")
        .header("cookie", "b=2")
        .header("X-Twice", "second")
        .header("X-Empty", "")
        .header("X-Latin", "caf\u{e9}")
        .await;
    let head: String = shop.last().raw_head.iter().map(|byte| *byte as char).collect();
    let sent = "x-LOWER-and-UPPER: 1\r\nCookie: a=1\r\nX-Twice: first\r\ncookie: b=2\r\nX-Twice: second\r\nX-Empty:";
    assert!(head.contains(sent), "{head}");
}

#[tokio::test]
async fn response_headers_are_removed_and_added_as_configured() {
    let bus = bus::embedded().await;
    let router = router::with(
        r#"rewrite = { remove_response_headers = ["Server"], add_response_headers = { "X-Frame-Options" = "DENY" } }"#,
    )
    .on(&bus)
    .await;
    let plain = answer::with_fields(200, &[("Server", "secret/1.0")], "x");
    let own = answer::with_fields(200, &[("X-Frame-Options", "SAMEORIGIN")], "x");
    let _a = instance::serving("plain.test").answering(plain).on(&bus).await;
    let _b = instance::serving("own.test").answering(own).on(&bus).await;
    router.until(|r| r.knows("plain.test") && r.knows("own.test")).await;
    let response = router.get("plain.test/").await;
    assert_eq!((response.header("Server"), response.header("X-Frame-Options")), (None, Some("DENY")));
    assert_eq!(router.get("own.test/").await.headers("X-Frame-Options"), ["SAMEORIGIN"]);
}

#[tokio::test]
async fn an_answer_says_when_it_was_given() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let dated = answer::with_fields(200, &[("Date", "Sun, 06 Nov 1994 08:49:37 GMT")], "x");
    let _a = instance::serving("dated.test").answering(dated).on(&bus).await;
    let _b = instance::serving("undated.test").on(&bus).await;
    router.until(|r| r.knows("dated.test") && r.knows("undated.test")).await;
    assert_eq!(router.get("dated.test/").await.headers("Date"), ["Sun, 06 Nov 1994 08:49:37 GMT"]);
    let begun = SystemTime::now() - secs(1); // dates know no fractions
    for url in ["undated.test/", "nobody.test/"] {
        let response = router.get(url).await;
        let [date] = response.headers("Date")[..] else { panic!("{url}: {:?}", response.headers("Date")) };
        let date = httpdate::parse_http_date(date).unwrap_or_else(|error| panic!("{url}: {date}: {error}"));
        assert!(begun <= date && date <= SystemTime::now(), "{url}: {date:?}");
    }
}

#[tokio::test]
async fn an_instance_without_an_app_is_told_of_none() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let bare = instance::serving("bare.test").alone().await;
    let message = json!({"host": "127.0.0.1", "port": bare.address().port(), "uris": ["bare.test"]});
    bus.publish("router.register", &message).await;
    router.until(|r| r.knows("bare.test")).await;
    router.get("bare.test/").header("X-CF-ApplicationID", "forged").await;
    assert_eq!(bare.last().header("X-CF-ApplicationID"), None);
}

#[tokio::test]
async fn a_trusted_load_balancer_may_say_whose_bytes_it_passes_on() {
    let (router, shop) = shop(r#"http = { proxy_protocol_from = ["127.0.0.0/8"] }"#).await;
    let request = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n".as_slice();
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x09\x7f\0\0\x01\x10\0\0\x50".as_slice();
    for (preamble, client) in [
        (b"PROXY TCP4 192.0.2.1 127.0.0.1 4096 80\r\n".as_slice(), "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::1 ::1 4096 80\r\n", "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (binary, "192.0.2.9"),
        (b"", "127.0.0.1"),
    ] {
        let (response, mut wire) = router.exchange([preamble, request].concat()).await;
        assert_eq!((response.status(), shop.last().headers("X-Forwarded-For")), (200, vec![client]));
        wire.send(request).await.expect("the connection is kept");
        assert_eq!(wire.response_to("GET").await.expect("a response").status(), 200);
        assert_eq!(shop.last().headers("X-Forwarded-For"), [client], "the same for every request of a connection");
    }
    let (response, _wire) = router.exchange([b"PROXY TCP4 nobody\r\n", request].concat()).await;
    assert_eq!(response.status(), 400);
    let (stranger, _shop) = self::shop(r#"http = { proxy_protocol_from = ["10.0.0.0/8"] }"#).await;
    let (response, _wire) = stranger.exchange([b"PROXY UNKNOWN\r\n", request].concat()).await;
    assert_eq!(response.status(), 400, "who is not trusted speaks HTTP");
}

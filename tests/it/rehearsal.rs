//! The harness without a router: a test that could not fail would prove nothing.

use crate::harness::answer::{self, Answer, Gate, Step};
use crate::harness::client::Request;
use crate::harness::instance::BlackHole;
use crate::harness::message::Stream;
use crate::harness::{eventually, in_time, instance, millis, pattern};

#[tokio::test]
async fn an_instance_remembers_what_it_was_asked() {
    let shop = instance::serving("shop.test").named("shop-0").alone().await;
    let request = Request::new(shop.address(), "POST", "shop.test/cart?a=1").header("X-A", "b");
    let response = request.chunked(&["hello ", "world"], &[("X-Sum", "42")]).await;
    assert_eq!((response.status(), response.text().as_str()), (200, "shop-0"));
    let seen = shop.last();
    assert_eq!((seen.method(), seen.target(), seen.header("x-a")), ("POST", "/cart?a=1", Some("b")));
    assert_eq!((seen.text().as_str(), &seen.chunks[..]), ("hello world", &[6, 5][..]));
    assert_eq!(seen.trailers, [("X-Sum".to_owned(), "42".to_owned())]);
    assert_eq!((shop.begun(), shop.answered(), shop.connections()), (1, 1, 1));
}

#[test]
fn the_pattern_notices_a_byte_that_is_wrong_missing_or_moved() {
    let bytes = pattern::bytes(200_000);
    assert!(pattern::matches(0, &bytes) && pattern::matches(70_000, &bytes[70_000..]));
    let mut wrong = bytes.clone();
    wrong[150_000] ^= 1;
    assert!(!pattern::matches(0, &wrong));
    let mut missing = bytes.clone();
    missing.remove(100_000);
    assert!(!pattern::matches(0, &missing));
    assert!(!pattern::matches(16_384, &bytes));
}

#[tokio::test]
async fn a_body_that_is_cut_short_is_an_error_to_the_reader() {
    for cut in ["Content-Length: 9\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let answer = Answer::new().write(format!("HTTP/1.1 200 OK\r\n{cut}")).then(Step::Close);
        let shop = instance::serving("shop.test").answering(answer).alone().await;
        let mut wire = Stream::connect(shop.address()).await;
        wire.send("GET / HTTP/1.1\r\n\r\n").await.expect("sending");
        assert!(wire.response_to("GET").await.is_err(), "{cut:?}");
    }
}

#[tokio::test]
async fn a_gate_holds_an_answer_and_a_client_that_leaves_is_noticed() {
    let gate = Gate::closed();
    let shop = instance::serving("shop.test").answering(answer::status(200, "x").behind(&gate)).alone().await;
    let (stays, leaves) = (
        Request::new(shop.address(), "GET", "shop.test/").begin(),
        Request::new(shop.address(), "GET", "shop.test/").begin(),
    );
    shop.until_begun(2).await;
    leaves.abandon().await;
    eventually("the instance notices", || shop.aborted() == 1).await;
    gate.open();
    assert_eq!(stays.response().await.status(), 200);
}

#[tokio::test]
async fn a_killed_instance_refuses_and_a_black_hole_does_not_even_do_that() {
    let shop = instance::serving("shop.test").alone().await;
    shop.kill().await;
    let refused = tokio::net::TcpStream::connect(shop.address()).await;
    assert_eq!(refused.expect_err("nobody listens").kind(), std::io::ErrorKind::ConnectionRefused);
    let hole = in_time("digging", BlackHole::dig()).await;
    let waited = tokio::time::timeout(millis(300), tokio::net::TcpStream::connect(hole.address)).await;
    assert!(waited.is_err(), "it answered: {waited:?}");
}

#[tokio::test]
async fn a_reset_is_seen_as_one() {
    let shop = instance::serving("shop.test").answering(Answer::new().then(Step::Reset)).alone().await;
    let mut wire = Stream::connect(shop.address()).await;
    wire.send("GET / HTTP/1.1\r\n\r\n").await.expect("sending");
    let error = wire.response_to("GET").await.expect_err("it was reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

//! Instances that refuse, break, stall and vanish, and clients that stall: what is tried again, what is not, and what is
//! said in the end.

use serde_json::{Value, json};

use crate::harness::answer::{self, Answer, Gate, Step};
use crate::harness::instance::{self, BlackHole, Instance, Plan};
use crate::harness::message::Message;
use crate::harness::router::{self, Router};
use crate::harness::{bus, eventually, in_time, pattern, secs};

/// A router with these instances of shop.test.
async fn shop<const N: usize>(settings: &str, plans: [Plan; N]) -> (Router, [Instance; N]) {
    let bus = bus::embedded().await;
    let router = router::with(settings).on(&bus).await;
    let mut instances = Vec::new();
    for plan in plans {
        instances.push(plan.on(&bus).await);
    }
    router.until(|r| r.instances_of("shop.test") == N).await;
    (router, instances.try_into().unwrap_or_else(|_| unreachable!("one for each plan")))
}

fn closing() -> Plan {
    instance::serving("shop.test").answering(Answer::new().then(Step::Close))
}

fn resetting() -> Plan {
    instance::serving("shop.test").answering(Answer::new().then(Step::Reset))
}

fn hanging() -> Plan {
    instance::serving("shop.test").answering(Answer::new().then(Step::Hang))
}

fn good() -> Plan {
    instance::serving("shop.test")
}

/// Asserts that `response` is the router's own error `status` for `cause`.
#[track_caller]
fn assert_error(response: &Message, status: u16, cause: &str) {
    assert_eq!(response.status(), status, "{}", response.text());
    let said = response.header("X-Cf-RouterError").unwrap_or_default();
    assert!(said.contains(cause), "{said:?} does not say {cause:?}");
    let stable = response.header("X-Weighbridge-Error").unwrap_or_default();
    assert!(!stable.is_empty() && stable.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{stable:?}");
}

#[tokio::test]
async fn a_killed_instance_costs_no_idempotent_request() {
    let (router, [dead, alive]) = shop("", [good(), good()]).await;
    for _ in 0..20 {
        assert_eq!(router.get("shop.test/").await.status(), 200);
    }
    dead.kill().await;
    let mut client = router.client().await;
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"].into_iter().cycle().take(100) {
        let response = client.send(router.request(method, "shop.test/")).await;
        assert_eq!(response.status(), 200, "{method}");
    }
    assert!(alive.answered() >= 100);
}

#[tokio::test]
async fn a_refused_connection_is_retried_for_any_method_and_body() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let _refusing = good().refusing_on(&bus).await;
    let alive = good().on(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    let body = pattern::bytes(300_000);
    for _ in 0..20 {
        let response = router.post("shop.test/").body(&body).await;
        assert_eq!(response.status(), 200);
        let seen = alive.last();
        assert_eq!((seen.body_bytes, seen.follows_pattern), (300_000, true));
    }
}

#[tokio::test]
async fn an_idempotent_request_is_tried_elsewhere_when_an_instance_closes_early() {
    for broken in [closing(), resetting()] {
        let (router, [_broken, alive]) = shop("", [broken, good()]).await;
        for _ in 0..20 {
            assert_eq!(router.get("shop.test/").await.status(), 200);
        }
        assert_eq!(alive.answered(), 20);
    }
}

#[tokio::test]
async fn an_instance_that_came_since_the_request_began_may_answer_it() {
    let gate = Gate::closed();
    let leaving = instance::serving("shop.test").answering(Answer::new().until(&gate).then(Step::Close));
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let leaving = leaving.on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let asked = tokio::spawn(router.get("shop.test/").sent());
    eventually("the request is with the one that leaves", || leaving.begun() == 1).await;
    let _fresh = good().on(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    leaving.unregister(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 1).await;
    gate.open();
    assert_eq!(in_time("an answer", asked).await.expect("no panic").status(), 200);
    assert_eq!(leaving.begun(), 1);
}

#[tokio::test]
async fn another_attempt_counts_for_the_app_that_gets_it() {
    let (early, late) = (Gate::closed(), Gate::closed());
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let leaving =
        instance::serving("shop.test").of_app("blue").answering(Answer::new().until(&early).then(Step::Close));
    let leaving = leaving.on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let asked = tokio::spawn(router.get("shop.test/").sent());
    eventually("the request is with the one that leaves", || leaving.begun() == 1).await;
    let fresh = good().of_app("green").answering(answer::status(200, "green").behind(&late)).on(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    leaving.unregister(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 1).await;
    early.open();
    eventually("the request is with the one that came", || fresh.begun() == 1).await;
    let apps: Value = serde_json::from_str(&router.admin("GET", "/v1/apps", "").await.text()).expect("JSON");
    assert_eq!((&apps["green"]["in_flight"], &apps["blue"]["in_flight"]), (&json!(1), &json!(0)), "{apps}");
    late.open();
    assert_eq!(in_time("an answer", asked).await.expect("no panic").text(), "green");
}

#[tokio::test]
async fn a_post_is_not_sent_twice_once_its_bytes_are_out() {
    let (router, [broken, alive]) = shop(r#"balance = { strategy = "round-robin" }"#, [closing(), good()]).await;
    let mut failed = 0;
    for _ in 0..4 {
        let response = router.post("shop.test/").body("once").await;
        failed += usize::from(response.status() == 502);
    }
    assert!(failed > 0, "a turn of the broken instance must fail");
    assert_eq!(broken.begun(), failed, "each failure is a request that reached it");
    assert_eq!(alive.begun(), 4 - failed, "and none of those was sent again");
}

#[tokio::test]
async fn a_post_with_an_idempotency_key_is_sent_again_with_its_body() {
    let (router, [_broken, alive]) = shop("", [closing(), good()]).await;
    for _ in 0..10 {
        let request = router.post("shop.test/").header("Idempotency-Key", "k1").body("again and again");
        assert_eq!(request.await.status(), 200);
        assert_eq!(alive.last().text(), "again and again");
    }
}

#[tokio::test]
async fn a_response_that_has_begun_is_never_tried_again() {
    let cut = Answer::new().write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").then(Step::Reset);
    let (router, [broken]) = shop("", [good().answering(cut)]).await;
    let mut wire = router.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.expect("sending");
    assert!(in_time("the end", wire.response_to("GET")).await.is_err());
    assert_eq!(broken.begun(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_died_meanwhile_costs_nothing_not_even_a_post() {
    // The instance closes after each answer without saying so: the next request finds a dead connection.
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let plan = good().answering(answer::status(200, "ok").then(Step::Close));
    let shop = plan.on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let mut client = router.client().await;
    for _ in 0..50 {
        assert_eq!(client.send(router.post("shop.test/").body("x")).await.status(), 200);
    }
    assert_eq!(shop.begun(), 50);
}

#[tokio::test]
async fn when_all_refuse_the_client_is_told_why() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let _refusing = good().refusing_on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    for _ in 0..3 {
        assert_error(&router.get("shop.test/").await, 502, "endpoint_failure");
    }
}

#[tokio::test]
async fn an_early_close_and_a_reset_are_502_when_nobody_else_is_there() {
    for broken in [closing(), resetting()] {
        let (router, [_broken]) = shop("", [broken]).await;
        assert_error(&router.get("shop.test/").await, 502, "endpoint_failure");
    }
}

#[tokio::test]
async fn attempts_are_limited() {
    let (router, instances) = shop("retry = { attempts = 2 }", [closing(), closing(), closing(), closing()]).await;
    assert_error(&router.get("shop.test/").await, 502, "endpoint_failure");
    assert_eq!(instances.iter().map(Instance::begun).sum::<usize>(), 2);
}

#[tokio::test]
async fn an_instance_that_speaks_nonsense_is_a_bad_gateway() {
    for nonsense in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A : b\r\n\r\n",
    ] {
        let answer = Answer::new().write(nonsense).then(Step::Close);
        let (router, [_broken]) = shop("", [good().answering(answer)]).await;
        assert_error(&router.get("shop.test/").await, 502, "endpoint_failure");
    }
}

#[tokio::test]
async fn an_instance_that_never_answers_is_a_gateway_timeout_and_not_tried_again() {
    let (router, [a, b]) = shop(r#"timeouts = { response_head = "200ms" }"#, [hanging(), hanging()]).await;
    assert_error(&router.get("shop.test/").await, 504, "endpoint_timeout");
    assert_eq!(a.begun() + b.begun(), 1);
}

#[tokio::test]
async fn an_instance_that_does_not_accept_is_given_up_after_the_connect_timeout() {
    let bus = bus::embedded().await;
    let router = router::with(r#"timeouts = { connect = "200ms" }"#).on(&bus).await;
    let hole = BlackHole::dig().await;
    let message =
        serde_json::json!({"host": "127.0.0.1", "port": hole.address.port(), "uris": ["shop.test"], "app": "a"});
    bus.publish("router.register", &message).await;
    router.until(|r| r.knows("shop.test")).await;
    let response = in_time("the refusal", router.get("shop.test/").sent()).await;
    assert!(matches!(response.status(), 502 | 504), "{}", response.status());
    let alive = good().on(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    for _ in 0..5 {
        assert_eq!(router.get("shop.test/").await.text(), alive.name());
    }
}

#[tokio::test]
async fn a_slow_answer_within_the_limit_is_an_answer() {
    let gate = Gate::closed();
    let slow = good().answering(answer::status(200, "slow").behind(&gate));
    let (router, [slow]) = shop("", [slow]).await;
    let pending = router.get("shop.test/").begin();
    slow.until_begun(1).await;
    gate.open();
    assert_eq!(pending.response().await.text(), "slow");
}

#[tokio::test]
async fn a_body_that_stands_still_is_cut() {
    let stalls = Answer::new().write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").then(Step::Hang);
    let (router, [shop]) = shop(r#"timeouts = { idle_body = "200ms" }"#, [good().answering(stalls)]).await;
    let mut wire = router.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.expect("sending");
    assert!(in_time("the end", wire.response_to("GET")).await.is_err());
    crate::harness::eventually("the instance is let go", || shop.aborted() == 1).await;
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_let_go() {
    let (router, [shop]) = shop(r#"timeouts = { header_read = "200ms" }"#, [good()]).await;
    let mut wire = router.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\nX-Slow: ").await.expect("sending");
    let said = String::from_utf8_lossy(&wire.rest().await).into_owned();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    assert_eq!(shop.begun(), 0);
}

#[tokio::test]
async fn an_idle_client_is_let_go() {
    let (router, [_shop]) = shop(r#"timeouts = { client_idle = "1s" }"#, [good()]).await;
    let mut client = router.client().await;
    assert_eq!(client.send(router.get("shop.test/")).await.status(), 200);
    client.into_stream().closed().await;
}

#[tokio::test]
async fn a_route_can_have_timeouts_of_its_own() {
    let bus = bus::embedded().await;
    let shop = hanging().alone().await;
    let port = shop.address().port();
    let router = router::with(&format!(
        "[[route]]\nhost = \"shop.test\"\ninstances = [{{ host = \"127.0.0.1\", port = {port} }}]\n
         timeouts = {{ response_head = \"200ms\" }}\n"
    ))
    .on(&bus)
    .await;
    assert_error(&in_time("the timeout", router.get("shop.test/").sent()).await, 504, "endpoint_timeout");
}

#[tokio::test]
async fn a_failing_instance_is_left_alone_for_a_while() {
    let (router, [broken, a, b, c]) = shop("", [closing(), good(), good(), good()]).await;
    for _ in 0..200 {
        assert_eq!(router.get("shop.test/").await.status(), 200);
    }
    assert!(broken.begun() <= 20, "{} of 200 first attempts went to the broken instance", broken.begun());
    assert_eq!(a.answered() + b.answered() + c.answered(), 200);
}

#[tokio::test]
async fn the_last_instance_is_never_left_alone() {
    let plan = good().answering_each(|request| {
        if request.nth < 20 { Answer::new().then(Step::Close) } else { answer::status(200, "back") }
    });
    let (router, [shop]) = shop("retry = { attempts = 1 }", [plan]).await;
    for _ in 0..20 {
        assert_eq!(router.post("shop.test/").await.status(), 502);
    }
    assert_eq!(router.post("shop.test/").await.text(), "back");
    assert_eq!(shop.begun(), 21);
}

#[tokio::test]
async fn a_router_that_ends_lets_requests_finish() {
    let gate = Gate::closed();
    let slow = good().answering(answer::status(200, "finished").behind(&gate));
    // One worker, so that the port is closed only once the worker that has the request knows.
    let (mut router, [slow]) = shop("workers = 1", [slow]).await;
    let pending = router.get("shop.test/").begin();
    slow.until_begun(1).await;
    router.drain().await;
    in_time("the port to close", async {
        while tokio::net::TcpStream::connect(router.address()).await.is_ok() {
            tokio::time::sleep(crate::harness::millis(5)).await;
        }
    })
    .await;
    gate.open();
    let response = tokio::time::timeout(secs(10), pending.response()).await.expect("in-flight requests finish");
    assert_eq!(response.text(), "finished");
    assert!(response.says_close(), "the client shall go elsewhere");
}

#[tokio::test]
async fn an_error_keeps_the_connection_for_those_who_want_it_and_closes_it_for_those_who_do_not() {
    let (router, [_broken]) = shop("", [closing()]).await;
    let mut client = router.client().await;
    for _ in 0..3 {
        assert_error(&client.send(router.get("shop.test/")).await, 502, "endpoint_failure");
    }
    let response = client.send(router.get("shop.test/").header("Connection", "close")).await;
    assert!(response.says_close());
    client.into_stream().closed().await;

    let (response, mut wire) = router.exchange("GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n").await;
    assert_error(&response, 502, "endpoint_failure");
    wire.closed().await;
}

#[tokio::test]
async fn in_gorouters_place_errors_are_gorouters_in_status_and_words() {
    let settings = "compat = \"gorouter\"\ntimeouts = { response_head = \"100ms\" }\nretry = { attempts = 1 }";
    let (router, [_silent]) = shop(settings, [hanging()]).await;
    let unknown = router.get("nowhere.test/").header("Accept", "application/json").await;
    assert_error(&unknown, 404, "unknown_route");
    assert_eq!(unknown.text(), "404 Not Found: Requested route ('nowhere.test') does not exist.\n");
    assert_eq!(unknown.header("Content-Type"), Some("text/plain; charset=utf-8"));
    let late = router.get("shop.test/").await;
    assert_error(&late, 502, "endpoint_timeout");
    assert_eq!(late.text(), "502 Bad Gateway: Registered endpoint failed to handle the request.\n");
}

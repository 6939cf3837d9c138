//! Instances and clients that misbehave on purpose: what one of them does must never reach another one's exchange.

use crate::harness::answer::{self, Answer, Gate, Step};
use crate::harness::instance::{self, Instance, Plan};
use crate::harness::router::{self, Router};
use crate::harness::{bus, eventually, in_time, millis, pattern};

const MIB: u64 = 1 << 20;

async fn shop(settings: &str, plan: Plan) -> (Router, Instance) {
    let bus = bus::embedded().await;
    let router = router::with(settings).on(&bus).await;
    let shop = plan.on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    (router, shop)
}

#[tokio::test]
async fn a_second_answer_smuggled_behind_the_first_is_nobodys_answer() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for smuggled in [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{evil}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{evil}"),
        format!("HTTP/1.1 204 No Content\r\n\r\n{evil}"),
        format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n{evil}"),
    ] {
        let plan = instance::serving("shop.test").answering(Answer::new().write(&smuggled));
        let (router, _shop) = shop("", plan).await;
        let mut first = router.client().await;
        for _ in 0..10 {
            let answer = first.send(router.get("shop.test/")).await;
            assert_ne!(answer.text(), "evil", "{smuggled:?}");
            assert_ne!(router.get("shop.test/").await.text(), "evil", "{smuggled:?}");
        }
    }
}

#[tokio::test]
async fn a_body_behind_the_answer_to_head_is_nobodys_answer() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil!!";
    let plan = instance::serving("shop.test").answering_each(move |request| match request.method() {
        "HEAD" => Answer::new().write(answer),
        _ => answer::status(200, "good"),
    });
    let (router, _shop) = shop("", plan).await;
    let mut client = router.client().await;
    for _ in 0..10 {
        assert_eq!(client.send(router.request("HEAD", "shop.test/")).await.status(), 200);
        assert_eq!(client.send(router.get("shop.test/")).await.text(), "good");
    }
}

#[tokio::test]
async fn what_an_instance_says_unasked_is_not_heard() {
    // After each answer a 408, as servers say to connections that were idle for long.
    let gate = Gate::closed();
    let late = answer::status(200, "good")
        .until(&gate)
        .write("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .then(Step::Close);
    let plan = instance::serving("shop.test").answering(late);
    let (router, _shop) = shop("", plan).await;
    assert_eq!(router.get("shop.test/").await.text(), "good");
    gate.open();
    for _ in 0..20 {
        assert_eq!(router.get("shop.test/").await.text(), "good");
    }
}

#[tokio::test]
async fn a_head_of_an_instance_that_never_ends_is_a_bad_gateway() {
    let endless =
        format!("HTTP/1.1 200 OK\r\n{}", "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(20_000));
    let plan = instance::serving("shop.test").answering(Answer::new().write(endless).then(Step::Hang));
    let (router, _shop) = shop("", plan).await;
    let response = in_time("the refusal", router.get("shop.test/").sent()).await;
    assert_eq!(response.status(), 502);
}

#[tokio::test]
async fn a_client_still_sending_can_read_why_it_was_refused() {
    let refuses = answer::status(413, "too big").then(Step::Close);
    let plan = instance::serving("shop.test").answering_early(move |_| refuses.clone());
    let (router, _shop) = shop("", plan).await;
    for _ in 0..5 {
        let response = in_time("the refusal", router.post("shop.test/").body(pattern::bytes(3_000_000)).sent()).await;
        assert!(matches!(response.status(), 413 | 502), "{}", response.status());
    }
}

#[tokio::test]
async fn a_client_refused_by_the_router_can_read_why_while_it_is_still_sending() {
    let (router, shop) = shop(r#"limits = { body_bytes = "1KiB" }"#, instance::serving("shop.test")).await;
    for _ in 0..5 {
        let response = in_time("the refusal", router.post("shop.test/").body(pattern::bytes(3_000_000)).sent()).await;
        assert_eq!(response.status(), 413);
        let nobody = in_time("the refusal", router.post("nobody.test/").body(pattern::bytes(3_000_000)).sent()).await;
        assert_eq!(nobody.status(), 404);
    }
    assert_eq!(shop.begun(), 0);
}

#[tokio::test]
async fn a_chunked_body_is_stopped_at_the_limit_too() {
    let (router, shop) = shop(r#"limits = { body_bytes = "1KiB" }"#, instance::serving("shop.test")).await;
    let small = router.post("shop.test/").chunked(&["x".repeat(900).as_str()], &[]);
    assert_eq!(small.await.status(), 200);
    let answered = shop.answered();
    let large = "x".repeat(600);
    let response = router.post("shop.test/").chunked(&[&large, &large], &[]).await;
    assert_eq!(response.status(), 413);
    assert_eq!(shop.answered(), answered, "the instance must not take it for whole");
}

#[tokio::test]
async fn a_client_whose_body_stands_still_is_let_go_and_the_instance_with_it() {
    let (router, shop) = shop(r#"timeouts = { idle_body = "200ms" }"#, instance::serving("shop.test")).await;
    let mut wire = router.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100\r\n\r\nhalf").await.expect("sending");
    let said = String::from_utf8_lossy(&wire.rest().await).into_owned();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    eventually("the instance is let go", || shop.aborted() == 1).await;
}

#[tokio::test]
async fn what_the_instance_does_not_read_stays_with_the_client() {
    let size = 200 * MIB;
    let gate = Gate::closed();
    let answer =
        Answer::new().blindly_until(&gate).then(Step::ReadBody).write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let plan = instance::serving("shop.test").answering_early(move |_| answer.clone());
    let (router, shop) = shop("", plan).await;
    let mut wire = router.wire().await;
    wire.send(format!("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {size}\r\n\r\n")).await.expect("sending");
    let mut sent = 0;
    let mut send_some = async |sent: &mut u64| {
        let piece = pattern::piece(*sent, usize::try_from(size - *sent).expect("200 MiB fit"));
        let taken = wire.send_some(piece).await.expect("the router takes it");
        *sent += taken as u64;
    };
    // Nobody reads: the kernel's buffers fill, then the router takes no more, long before the end.
    while tokio::time::timeout(millis(300), send_some(&mut sent)).await.is_ok() {
        assert!(sent < 32 * MIB, "{} MiB were taken for an instance that reads nothing", sent / MIB);
    }
    gate.open();
    while sent < size {
        in_time("the router takes more", send_some(&mut sent)).await;
    }
    let response = in_time("the answer", wire.response_to("POST")).await.expect("a response");
    assert_eq!(response.text(), "ok");
    let seen = shop.last();
    assert_eq!((seen.body_bytes, seen.follows_pattern), (size, true));
}

#[tokio::test]
async fn a_large_body_that_was_already_sent_is_not_sent_again() {
    let bus = bus::embedded().await;
    let router = router::with(r#"balance = { strategy = "round-robin" }"#).on(&bus).await;
    let broken = instance::serving("shop.test").answering(Answer::new().then(Step::Close)).on(&bus).await;
    let good = instance::serving("shop.test").on(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    let mut failed = 0;
    for _ in 0..4 {
        let response = router.request("PUT", "shop.test/").body(pattern::bytes(300_000)).await;
        failed += usize::from(response.status() == 502);
    }
    assert!(failed > 0, "what is not kept cannot be sent again");
    assert_eq!((broken.begun(), good.begun()), (failed, 4 - failed));
    assert!(good.requests().iter().all(|seen| seen.body_bytes == 300_000 && seen.follows_pattern));
}

#[tokio::test]
async fn two_hundred_clients_at_once_get_each_their_own_answer() {
    let plan = instance::serving("shop.test").answering_each(|request| answer::status(200, request.target()));
    let (router, shop) = shop("", plan).await;
    let pending: Vec<_> = (0..200).map(|n| (n, router.get(&format!("shop.test/{n}")).begin())).collect();
    for (n, pending) in pending {
        assert_eq!(pending.response().await.text(), format!("/{n}"));
    }
    assert_eq!(shop.answered(), 200);
}

#[tokio::test]
async fn clients_that_come_and_go_leave_nothing_behind() {
    let gate = Gate::closed();
    let plan = instance::serving("shop.test").answering(answer::status(200, "late").behind(&gate));
    let (router, shop) = shop("", plan).await;
    for round in 0..5 {
        let pending: Vec<_> = (0..20).map(|_| router.get("shop.test/").begin()).collect();
        shop.until_begun(20 * (round + 1)).await;
        for pending in pending {
            pending.abandon().await;
        }
    }
    eventually("all work was called off", || shop.aborted() == 100).await;
    router.until_metric("weighbridge_requests_in_flight", |count| count == 0.0).await;
    router.until_metric("weighbridge_connections_open", |count| count == 0.0).await;
    let in_flight = || match router.running.routes.get().lookup("shop.test", "/") {
        weighbridge::domain::table::snapshot::Found::Pool(pool) => pool.endpoints[0].live.open(),
        _ => unreachable!("it is registered"),
    };
    assert_eq!(in_flight(), 0);
}

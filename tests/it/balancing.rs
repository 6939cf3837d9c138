//! Which instance a request goes to.

use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::instance::Instance;
use crate::harness::router::Router;
use crate::harness::{agent, answer, bus, in_time, instance, millis, router};

/// Sends `count` requests one after the other on one connection, and tells each instance's share.
async fn shares<const N: usize>(router: &Router, url: &str, count: usize, instances: [&Instance; N]) -> [f64; N] {
    let before = instances.map(Instance::begun);
    let mut client = router.client().await;
    for _ in 0..count {
        assert_eq!(client.send(router.get(url)).await.status(), 200);
    }
    let mut now = before.into_iter();
    instances.map(|instance| {
        let before = now.next().expect("as many as instances");
        (instance.begun() - before) as f64 / count as f64
    })
}

#[tokio::test]
async fn shares_by_weight_follow_the_published_formula_within_two_percent() {
    let bus = bus::embedded().await;
    let router = router::with(r#"balance = { strategy = "weight" }"#).on(&bus).await;
    let mut instances = Vec::new();
    // Host 50/40 % and instance 20/30 % weigh 81; all full weighs 40; all idle weighs 100.
    for (dea, host, own) in
        [("d1", (0.5, 0.4), (0.2, 0.3)), ("d2", (1.0, 1.0), (1.0, 1.0)), ("d3", (0.0, 0.0), (0.0, 0.0))]
    {
        let instance = instance::serving("shop.test").alone().await;
        agent::called(dea).with_host(host.0, host.1).reports(&[(&instance, own.0, own.1)], &bus).await;
        instances.push(instance);
    }
    router.until(|r| r.instances_of("shop.test") == 3).await;
    let [a, b, c] = &instances[..] else { unreachable!("three were made") };
    let measured = shares(&router, "shop.test/", 2_210, [a, b, c]).await;
    for (measured, weight) in measured.into_iter().zip([81.0, 40.0, 100.0]) {
        let expected = weight / 221.0;
        assert!((measured - expected).abs() <= 0.02 * expected, "{measured} instead of {expected}");
    }
}

#[tokio::test]
async fn a_static_weight_multiplies_the_share() {
    let bus = bus::embedded().await;
    let router = router::with(r#"balance = { strategy = "weight" }"#).on(&bus).await;
    let heavy = instance::serving("shop.test").registered_with("options", json!({"weight": 3})).on(&bus).await;
    let plain = instance::serving("shop.test").on(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    let [to_heavy, to_plain] = shares(&router, "shop.test/", 800, [&heavy, &plain]).await;
    assert!((to_heavy - 0.75).abs() <= 0.02 * 0.75 && (to_plain - 0.25).abs() <= 0.02 * 0.75, "{to_heavy} {to_plain}");
}

#[tokio::test]
async fn a_header_decides_where_hash_is_asked_for() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let hashed = || {
        let options = json!({"loadbalancing": "hash", "hash_header": "X-Tenant"});
        instance::serving("shop.test").registered_with("options", options)
    };
    let (_a, _b, _c) = (hashed().on(&bus).await, hashed().on(&bus).await, hashed().on(&bus).await);
    router.until(|r| r.instances_of("shop.test") == 3).await;
    let mut homes = std::collections::BTreeSet::new();
    for tenant in 0..20 {
        let tenant = format!("tenant-{tenant}");
        let home = router.get("shop.test/").header("X-Tenant", &tenant).await.text();
        for _ in 0..3 {
            assert_eq!(router.get("shop.test/").header("X-Tenant", &tenant).await.text(), home, "{tenant}");
        }
        homes.insert(home);
    }
    assert_eq!(homes.len(), 3, "tenants are spread over all instances");
}

#[tokio::test]
async fn requests_go_where_the_host_is_idle() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let (busy, idle) = (instance::serving("shop.test").alone().await, instance::serving("shop.test").alone().await);
    agent::called("dea-1").with_host(0.1, 0.5).reports(&[(&idle, 0.05, 0.3)], &bus).await;
    agent::called("dea-2").with_host(1.0, 0.5).reports(&[(&busy, 0.05, 0.3)], &bus).await;
    // Their routes may be there before what their hosts have to give is known.
    let is_known = async {
        let address = idle.address().to_string();
        loop {
            let answer = router.admin("GET", "/v1/explain?host=shop.test", "").await.text();
            let explained: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
            let endpoints = explained["endpoints"].as_array().expect("a list");
            if endpoints.len() == 2 && endpoints.iter().any(|e| e["address"] == address && e["chance"] == 1.0) {
                return;
            }
            tokio::time::sleep(millis(5)).await;
        }
    };
    in_time("the router knows who is idle", is_known).await;
    let [to_busy, to_idle] = shares(&router, "shop.test/", 15, [&busy, &idle]).await;
    // One request after the other, and too few of them to tell who is slow: what the hosts have to give decides alone.
    assert_eq!((to_busy, to_idle), (0.0, 1.0));
}

#[tokio::test]
async fn an_instance_that_fails_at_once_does_not_attract_requests() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let good = || instance::serving("shop.test").answering_after(millis(3));
    let (_a, _b) = (good().on(&bus).await, good().on(&bus).await);
    let broken = instance::serving("shop.test").answering(answer::status(503, "no")).on(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 3).await;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (address, request) = (router.address(), router.get("shop.test/"));
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                for _ in 0..250 {
                    client.send(request.clone()).await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("a client does not panic");
    }
    assert!(broken.begun() <= 100, "{} of 1,000 requests went to the broken instance", broken.begun());
}

#[tokio::test]
async fn a_registration_can_ask_for_turns() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let in_turn = || instance::serving("shop.test").registered_with("options", json!({"loadbalancing": "round-robin"}));
    let (a, b) = (in_turn().on(&bus).await, in_turn().on(&bus).await);
    router.until(|r| r.instances_of("shop.test") == 2).await;
    for _ in 0..10 {
        let pair = [router.get("shop.test/").await.text(), router.get("shop.test/").await.text()];
        assert_ne!(pair[0], pair[1]);
    }
    assert_eq!((a.begun(), b.begun()), (10, 10));
}

#[tokio::test]
async fn a_busy_instance_is_passed_over_for_one_with_fewer_requests_in_flight() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let gate = answer::Gate::closed();
    let slow = instance::serving("shop.test").answering(answer::status(200, "slow").behind(&gate)).on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let pending: Vec<_> = (0..6).map(|_| router.get("shop.test/").begin()).collect();
    slow.until_begun(6).await;
    let free = instance::serving("shop.test").on(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    for _ in 0..5 {
        assert_eq!(router.get("shop.test/").await.text(), free.name());
    }
    gate.open();
    for pending in pending {
        assert_eq!(pending.response().await.text(), "slow");
    }
}

#[tokio::test]
async fn when_every_instance_is_at_max_conns_the_client_is_told_to_come_back() {
    let bus = bus::embedded().await;
    let router = router::with("balance = { max_conns = 2 }").on(&bus).await;
    let gate = answer::Gate::closed();
    let full = instance::serving("shop.test").answering(answer::status(200, "done").behind(&gate)).on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let (first, second) = (router.get("shop.test/").begin(), router.get("shop.test/").begin());
    full.until_begun(2).await;
    let refused = router.get("shop.test/").await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.header("X-Cf-RouterError"), Some("Connection Limit Reached"));
    assert_eq!(refused.header("X-Weighbridge-Error"), Some("connection_limit_reached"));
    assert_eq!(refused.header("Retry-After"), Some("1"));

    let other = instance::serving("shop.test").on(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    assert_eq!(router.get("shop.test/").await.text(), other.name());
    gate.open();
    assert_eq!((first.response().await.status(), second.response().await.status()), (200, 200));
    assert_eq!(router.get("shop.test/").await.status(), 200);
}

#[tokio::test]
async fn a_client_can_address_one_instance() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let mut instances = Vec::new();
    for index in 0..3 {
        let plan = instance::serving("shop.test").of_app("shop-guid").numbered(index).named(&format!("shop-{index}"));
        instances.push(plan.registered_with("tags", json!({"process_id": "process-guid"})).on(&bus).await);
    }
    router.until(|r| r.instances_of("shop.test") == 3).await;
    for _ in 0..5 {
        let by_app = router.get("shop.test/").header("X-CF-App-Instance", "shop-guid:2").await;
        assert_eq!(by_app.text(), "shop-2");
        let by_process = router.get("shop.test/").header("X-CF-Process-Instance", "process-guid:1").await;
        assert_eq!(by_process.text(), "shop-1");
    }
    for wrong in ["shop-guid:7", "other-guid:0", "shop-guid", "shop-guid:x", ":", ""] {
        let response = router.get("shop.test/").header("X-CF-App-Instance", wrong).await;
        assert_eq!(response.status(), 400, "{wrong:?}");
        assert!(response.header("X-Cf-RouterError").is_some(), "{wrong:?}");
    }
}

//! The bus is NATS, and NATS goes away.

use std::time::Instant;

use serde_json::json;

use crate::harness::{bus, in_time, instance, millis, router, secs};
use crate::nats;

/// Leases of three seconds, looked after ten times a second.
const SHORT_LEASES: &str = r#"table = { stale_after = "3s", prune_every = "100ms", advertise_interval = "500ms" }"#;

#[tokio::test]
async fn an_outage_longer_than_every_lease_costs_no_request_and_pruning_goes_on_after_a_full_lease() {
    let mut server = nats::server().await;
    let bus = bus::nats(&server.url()).await;
    let router = router::with(SHORT_LEASES).on(&bus).await;
    router.until_metric("weighbridge_bus_connected", |connected| connected == 1.0).await;
    let shop = instance::serving("shop.test").on(&bus).await;
    let agents = bus.say_again_every(millis(100));
    router.until(|r| r.knows("shop.test")).await;

    server.kill();
    router.until_metric("weighbridge_bus_connected", |connected| connected == 0.0).await;
    agents.abort();
    let begun = Instant::now();
    let mut answered = 0;
    while begun.elapsed() < secs(4) {
        assert_eq!(router.get("shop.test/").await.text(), shop.name());
        answered += 1;
    }
    assert!(answered > 10, "{answered} requests in more than a lease");

    // Nobody registers again: after the reconnect there is one full lease of grace, then the instance is pruned.
    server.start().await;
    router.until_metric("weighbridge_bus_connected", |connected| connected == 1.0).await;
    assert!(router.knows("shop.test"), "it must not be pruned before it had time to report");
    router.until(|r| r.knows_nobody_for("shop.test")).await;

    // And one that registers again after the outage is back.
    shop.register(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
}

#[tokio::test]
async fn a_router_starts_without_nats_and_serves_what_it_knows() {
    let mut server = nats::Server::prepare("");
    let static_one = instance::serving("static.test").alone().await;
    let settings = format!(
        "nats.servers = [{:?}]\n[[route]]\nhost = \"static.test\"\n\
         instances = [{{ host = \"127.0.0.1\", port = {} }}]\n",
        server.url(),
        static_one.address().port()
    );
    let nobody = bus::embedded().await;
    let router = router::with(&settings).on(&nobody).await;
    assert_eq!(router.get("static.test/").await.text(), static_one.name());

    server.start().await;
    let bus = bus::nats(&server.url()).await;
    router.until_metric("weighbridge_bus_connected", |connected| connected == 1.0).await;
    let shop = instance::serving("shop.test").on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    assert_eq!(router.get("shop.test/").await.text(), shop.name());
}

#[tokio::test]
async fn a_router_says_hello_when_it_starts_after_every_reconnect_and_when_it_is_greeted() {
    use futures_util::StreamExt;
    let mut server = nats::server().await;
    let client = async_nats::connect(server.url()).await.expect("the server is there");
    let mut starts = client.subscribe("router.start").await.expect("a good subject");
    client.flush().await.expect("the server is there");
    let bus = bus::nats(&server.url()).await;
    let _router = router::with(r#"table = { stale_after = "90s", advertise_interval = "15s" }"#).on(&bus).await;

    let first = in_time("router.start", starts.next()).await.expect("the subscription holds");
    let hello: serde_json::Value = serde_json::from_slice(&first.payload).expect("it is JSON");
    assert_eq!(hello["minimumRegisterIntervalInSeconds"], json!(15));
    assert_eq!(hello["pruneThresholdInSeconds"], json!(90));
    assert!(hello["hosts"].as_array().is_some_and(|hosts| !hosts.is_empty()), "{hello}");
    assert!(hello["id"].as_str().is_some_and(|id| id.starts_with("0-")), "{hello}");

    let answer = in_time("an answer", client.request("router.greet", "{}".into())).await.expect("it is greeted");
    assert_eq!(answer.payload, first.payload);

    // The router may be back before this test's own client listens again: then the next restart tells.
    let again = in_time("router.start after a reconnect", async {
        loop {
            server.restart().await;
            if let Ok(start) = tokio::time::timeout(secs(4), starts.next()).await {
                break start.expect("the subscription holds");
            }
        }
    })
    .await;
    assert_eq!(again.payload, first.payload, "the id stays the same");
}

#[tokio::test]
async fn registrations_over_nats_survive_malformed_ones_between_them() {
    let server = nats::server().await;
    let bus = bus::nats(&server.url()).await;
    let router = router::on(&bus).await;
    router.until_metric("weighbridge_bus_connected", |connected| connected == 1.0).await;
    let shop = instance::serving("shop.test").alone().await;
    for app in 0..1_000 {
        bus.publish_bytes("router.register", format!("{{\"broken\": {app}")).await;
        let mut message = shop.registration();
        message["uris"] = json!([format!("app-{app}.test")]);
        bus.publish("router.register", &message).await;
    }
    router.until(|r| (0..1_000).all(|app| r.knows(&format!("app-{app}.test")))).await;
    assert_eq!(router.get("app-777.test/").await.status(), 200);
    let refused = r#"weighbridge_bus_messages_rejected_total{subject="router.register"}"#;
    router.until_metric(refused, |count| count == 1_000.0).await;
}

//! What agents get wrong: each malformed message is refused whole, counted by its reason, and the next good one works.

use serde_json::json;

use crate::harness::{bus, instance, router};

#[tokio::test]
async fn a_malformed_message_is_counted_by_reason_and_the_next_good_one_works() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let good = instance::serving("shop.test").alone().await;
    let port = good.address().port();
    let corpus: &[(&str, &str, String)] = &[
        ("router.register", "not JSON", "{".into()),
        ("router.register", "nothing", String::new()),
        ("router.register", "not an object", "[1]".into()),
        ("router.register", "not UTF-8", "{\"host\":\"\u{fffd}".into()),
        ("router.register", "no host", format!(r#"{{"port":{port},"uris":["bad.test"]}}"#)),
        ("router.register", "no port", r#"{"host":"127.0.0.1","uris":["bad.test"]}"#.into()),
        ("router.register", "port 0", r#"{"host":"127.0.0.1","port":0,"uris":["bad.test"]}"#.into()),
        ("router.register", "port 65536", r#"{"host":"127.0.0.1","port":65536,"uris":["bad.test"]}"#.into()),
        ("router.register", "port as text", format!(r#"{{"host":"127.0.0.1","port":"{port}","uris":["bad.test"]}}"#)),
        ("router.register", "uris as text", format!(r#"{{"host":"127.0.0.1","port":{port},"uris":"bad.test"}}"#)),
        (
            "router.register",
            "index as number",
            format!(r#"{{"host":"127.0.0.1","port":{port},"uris":["bad.test"],"private_instance_index":1}}"#),
        ),
        (
            "router.register",
            "a plain route service",
            format!(r#"{{"host":"127.0.0.1","port":{port},"uris":["bad.test"],"route_service_url":"http://x"}}"#),
        ),
        (
            "router.register",
            "percent for a share",
            format!(r#"{{"host":"127.0.0.1","port":{port},"uris":["bad.test"],"load":{{"instance":{{"cpu":42}}}}}}"#),
        ),
        (
            "router.register",
            "an unknown protocol",
            format!(r#"{{"host":"127.0.0.1","port":{port},"uris":["bad.test"],"protocol":"gopher"}}"#),
        ),
        ("router.unregister", "not JSON", "nonsense".into()),
        ("dea.heartbeat", "no agent", r#"{"droplets":[]}"#.into()),
        ("dea.heartbeat", "droplets as object", r#"{"dea":"d","droplets":{}}"#.into()),
        ("dea.shutdown", "no agent", "{}".into()),
        ("droplet.exited", "not JSON", "x".into()),
    ];
    let mut counted = 0.0;
    for (number, (subject, what, payload)) in corpus.iter().enumerate() {
        bus.publish_bytes(subject, payload.clone()).await;
        let host = format!("good-{number}.test");
        let mut next = good.registration();
        next["uris"] = json!([host]);
        bus.publish("router.register", &next).await;
        router.until(|r| r.knows(&host)).await;
        let now = router.metric("weighbridge_bus_messages_rejected_total").await;
        assert!(now > counted, "{subject}: {what} was not refused");
        counted = now;
        assert!(router.knows_nobody_for("bad.test"), "{subject}: {what} changed the table");
        assert_eq!(router.get(&format!("{host}/")).await.status(), 200, "after {what}");
    }
    for reason in ["missing_host", "load_out_of_range"] {
        let series = format!(r#"weighbridge_bus_messages_rejected_total{{reason="{reason}"}}"#);
        assert!(router.metric(&series).await >= 1.0, "{reason}");
    }
}

#[tokio::test]
async fn a_message_with_no_uris_or_unknown_keys_is_not_wrong() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    bus.publish("router.register", &json!({"host": "127.0.0.1", "port": 1, "uris": []})).await;
    let shop = instance::serving("shop.test").registered_with("future", json!({"a": [null]})).on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    assert_eq!(router.get("shop.test/").await.text(), shop.name());
    assert_eq!(router.metric("weighbridge_bus_messages_rejected_total").await, 0.0);
}

#[tokio::test]
async fn an_operator_can_publish_over_the_admin_port_and_is_told_what_is_wrong() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let shop = instance::serving("shop.test").alone().await;
    let accepted = router.admin("POST", "/v1/bus/router.register", &shop.registration().to_string()).await;
    assert_eq!(accepted.status(), 202, "{}", accepted.text());
    router.until(|r| r.knows("shop.test")).await;
    let refused = router.admin("POST", "/v1/bus/router.register", r#"{"port":1,"uris":["a.test"]}"#).await;
    assert_eq!(refused.status(), 400);
    assert!(refused.text().contains("missing_host"), "{}", refused.text());
}

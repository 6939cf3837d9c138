//! From a registration to a request that arrives: which route is meant, and what is said when there is none.

use serde_json::json;

use crate::harness::{answer, bus, client, eventually, in_time, instance, router};

#[tokio::test]
async fn a_registered_instance_is_routable() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let shop = instance::serving("shop.test").on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let response = router.get("shop.test/cart").await;
    assert_eq!((response.status(), response.text().as_str()), (200, shop.name()));
    assert_eq!(shop.last().target(), "/cart");
}

#[tokio::test]
async fn a_registration_is_routable_with_the_next_publish_of_the_table() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let before = router.running.routes.get();
    let _shop = instance::serving("shop.test").on(&bus).await;
    let after = in_time("the next table", async {
        loop {
            let now = router.running.routes.get();
            if !std::sync::Arc::ptr_eq(&before, &now) {
                return now;
            }
            tokio::task::yield_now().await;
        }
    });
    let found = after.await;
    assert!(matches!(found.lookup("shop.test", "/"), weighbridge::domain::table::snapshot::Found::Pool(_)));
}

#[tokio::test]
async fn what_cloud_foundry_components_publish_is_understood_unchanged() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let shop = instance::serving("shop.test").alone().await;
    // As a route-emitter writes it, keys we do not know included.
    let message = json!({
        "host": "127.0.0.1", "port": shop.address().port(), "tls_port": null, "protocol": "http1",
        "uris": ["my_first_url.vcap.me", "my_second_url.vcap.me"],
        "tags": {"component": "route-emitter", "instance_id": "0", "process_type": "web"},
        "app": "some-app-guid", "stale_threshold_in_seconds": 120,
        "private_instance_id": "some-instance-id", "private_instance_index": "0",
        "server_cert_domain_san": "", "isolation_segment": "", "availability_zone": "z1",
        "endpoint_updated_at_ns": 1_700_000_000_000_000_000u64, "route_service_url": "",
        "options": {}, "something_new": {"a": [1, 2]},
    });
    bus.publish("router.register", &message).await;
    router.until(|r| r.knows("my_first_url.vcap.me") && r.knows("my_second_url.vcap.me")).await;
    assert_eq!(router.get("my_first_url.vcap.me/").await.status(), 200);
    assert_eq!(router.get("MY_second_url.VCAP.me:8080/").await.status(), 200);

    // Unregistering needs no more than the address and the routes.
    let leaving = json!({"host": "127.0.0.1", "port": shop.address().port(), "uris": ["my_first_url.vcap.me"]});
    bus.publish("router.unregister", &leaving).await;
    router.until(|r| r.knows_nobody_for("my_first_url.vcap.me")).await;
    assert_eq!(router.get("my_second_url.vcap.me/").await.status(), 200);
}

#[tokio::test]
async fn an_unknown_host_gets_a_404_that_says_so_twice() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let response = router.get("nobody.test/").await;
    assert_eq!(response.status(), 404);
    assert_eq!(response.header("X-Cf-RouterError"), Some("unknown_route"));
    assert_eq!(response.header("X-Weighbridge-Error"), Some("unknown_route"));
    let caching = response.header("Cache-Control").expect("it says how long it holds");
    assert!(caching.contains("no-cache") && caching.contains("no-store"), "{caching}");
    assert!(response.text().contains("no route"), "{}", response.text());
}

#[tokio::test]
async fn a_route_that_asks_for_a_route_service_is_refused_rather_than_served_past_it() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let guarded = instance::serving("shop.test").registered_with("route_service_url", json!("https://guard.test"));
    let guarded = guarded.on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let response = router.get("shop.test/").await;
    assert_eq!(response.status(), 502);
    assert_eq!(response.header("X-Cf-RouterError"), Some("route_service_unsupported"));
    assert_eq!(guarded.begun(), 0);
}

#[tokio::test]
async fn an_error_comes_as_json_to_those_who_prefer_it() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let response = router.get("nobody.test/").header("Accept", "application/json").await;
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    let body: serde_json::Value = serde_json::from_str(&response.text()).expect("the body is JSON");
    assert_eq!(body["error"], "unknown_route");
}

#[tokio::test]
async fn a_route_whose_last_instance_left_is_unavailable_first_and_unknown_later() {
    let bus = bus::embedded().await;
    let router = router::with(r#"table = { keep_empty = "4s", prune_every = "100ms" }"#).on(&bus).await;
    let shop = instance::serving("shop.test").on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    shop.unregister(&bus).await;
    router.until(|r| r.knows_nobody_for("shop.test")).await;

    let response = router.get("shop.test/").await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.header("X-Cf-RouterError"), Some("no_endpoints"));
    assert!(response.header("Retry-After").is_some());
    in_time("the route to be forgotten", async { while router.get("shop.test/").await.status() != 404 {} }).await;
}

#[tokio::test]
async fn an_instance_that_stops_reporting_is_pruned() {
    let bus = bus::embedded().await;
    let router = router::with(r#"table = { prune_every = "100ms" }"#).on(&bus).await;
    let quiet = instance::serving("shop.test").registered_with("stale_threshold_in_seconds", json!(1));
    let _quiet = quiet.on(&bus).await;
    router.until_metric("weighbridge_endpoints_removed_total{reason=\"pruned\"}", |count| count == 1.0).await;
    router.until(|r| r.knows_nobody_for("shop.test")).await;
}

#[tokio::test]
async fn an_exact_host_beats_a_wildcard_and_the_closest_wildcard_wins() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let _far = instance::serving("*.example.test").named("far").on(&bus).await;
    let _near = instance::serving("*.eu.example.test").named("near").on(&bus).await;
    let _exact = instance::serving("shop.eu.example.test").named("exact").on(&bus).await;
    router.until(|r| r.knows("shop.eu.example.test")).await;
    for (host, expected) in [
        ("shop.eu.example.test", "exact"),
        ("blog.eu.example.test", "near"),
        ("a.b.eu.example.test", "near"),
        ("blog.example.test", "far"),
        ("a.b.c.example.test", "far"),
    ] {
        assert_eq!(router.get(&format!("{host}/")).await.text(), expected, "{host}");
    }
    assert_eq!(router.get("example.test/").await.status(), 404, "a wildcard never means the domain itself");
}

#[tokio::test]
async fn the_longest_path_wins_by_whole_segments() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let _root = instance::serving("shop.test").named("root").on(&bus).await;
    let _api = instance::serving("shop.test/api").named("api").on(&bus).await;
    let _deep = instance::serving("shop.test/api/v2").named("deep").on(&bus).await;
    router.until(|r| r.knows("shop.test/api/v2") && r.knows("shop.test")).await;
    for (path, expected) in [
        ("", "root"),
        ("apix", "root"),
        ("api", "api"),
        ("api?x=/v2", "api"),
        ("api/", "api"),
        ("api/v1", "api"),
        ("API/v2", "deep"),
        ("api/v2/x", "deep"),
        ("api%2Fv2", "root"),
        ("api/v2%2Fx", "api"),
    ] {
        assert_eq!(router.get(&format!("shop.test/{path}")).await.text(), expected, "/{path}");
    }
}

#[tokio::test]
async fn a_path_without_instances_falls_back_to_its_parent() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let _root = instance::serving("shop.test").named("root").on(&bus).await;
    let api = instance::serving("shop.test/api").named("api").on(&bus).await;
    router.until(|r| r.knows("shop.test/api")).await;
    assert_eq!(router.get("shop.test/api/x").await.text(), "api");
    api.unregister(&bus).await;
    eventually("the parent serves", || {
        let routes = router.running.routes.get();
        let found = routes.lookup("shop.test", "/api/x");
        matches!(found, weighbridge::domain::table::snapshot::Found::Pool(pool) if &*pool.route == "shop.test")
    })
    .await;
    assert_eq!(router.get("shop.test/api/x").await.text(), "root");
}

#[tokio::test]
async fn a_request_for_no_host_is_refused() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    for request in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost:\r\n\r\n"] {
        let (response, _wire) = router.exchange(request).await;
        assert_eq!(response.status(), 400, "{request:?}");
        assert_eq!(response.header("X-Cf-RouterError"), Some("empty_host"), "{request:?}");
        assert_eq!(response.header("Cache-Control"), Some("public,max-age=2"), "{request:?}");
    }
}

#[tokio::test]
async fn a_target_in_absolute_form_names_the_host() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let shop = instance::serving("shop.test").on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let (response, _wire) = router.exchange("GET http://shop.test/cart?a=1 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(response.status(), 200);
    assert!(shop.last().target().ends_with("/cart?a=1"), "{}", shop.last().target());
}

#[tokio::test]
async fn a_static_route_needs_no_bus_and_outlives_its_instances() {
    let bus = bus::embedded().await;
    let shop = instance::serving("static.test").alone().await;
    let port = shop.address().port();
    let settings = format!(
        "[[route]]\nhost = \"static.test\"\ninstances = [{{ host = \"127.0.0.1\", port = {port} }}]\n
         [[route]]\nhost = \"empty.test\"\ninstances = []\n"
    );
    let router = router::with(&settings).on(&bus).await;
    assert_eq!(router.get("static.test/").await.text(), shop.name());
    let response = router.get("empty.test/").await;
    assert_eq!((response.status(), response.header("X-Cf-RouterError")), (503, Some("no_endpoints")));
}

#[tokio::test]
async fn ten_thousand_registrations_in_one_burst_are_all_routable() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let shop = instance::serving("shop.test").alone().await;
    let asked = [0, 1, 4_999, 9_999];
    for app in 0..10_000 {
        let mut message = shop.registration();
        message["uris"] = json!([format!("app-{app}.test")]);
        message["private_instance_id"] = json!(format!("instance-{app}"));
        if !asked.contains(&app) {
            message["host"] = json!(format!("10.0.{}.{}", app / 256, app % 256)); // somewhere that is never asked
        }
        bus.publish("router.register", &message).await;
    }
    router.until(|r| r.knows("app-9999.test")).await;
    let missing: Vec<_> = (0..10_000).filter(|app| router.knows_nobody_for(&format!("app-{app}.test"))).collect();
    assert!(missing.is_empty(), "{} are missing, the first is {:?}", missing.len(), missing.first());
    for app in asked {
        assert_eq!(router.get(&format!("app-{app}.test/")).await.text(), shop.name());
    }
}

#[tokio::test]
async fn a_refresh_moves_nothing_while_requests_are_in_flight() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let gate = answer::Gate::closed();
    let slow = instance::serving("shop.test").answering(answer::status(200, "done").behind(&gate)).on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let pending: Vec<client::Pending> = (0..4).map(|_| router.get("shop.test/").begin()).collect();
    slow.until_begun(4).await;
    for _ in 0..20 {
        slow.register(&bus).await;
    }
    gate.open();
    for pending in pending {
        assert_eq!(pending.response().await.text(), "done");
    }
    assert_eq!(router.instances_of("shop.test"), 1);
}

//! What operators see: metrics that move, access log lines, routes and health on the admin port.

use serde_json::Value;

use crate::harness::answer::{self, Answer, Step};
use crate::harness::{bus, in_time, instance, router};

#[tokio::test]
async fn every_metric_has_help_and_type_and_counters_move() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let _shop = instance::serving("shop.test").on(&bus).await;
    let _broken = instance::serving("broken.test").answering(Answer::new().then(Step::Close)).on(&bus).await;
    router.until(|r| r.knows("shop.test") && r.knows("broken.test")).await;
    for _ in 0..10 {
        router.get("shop.test/").await;
    }
    router.get("nobody.test/").await;
    router.get("broken.test/").await;

    router.until_metric("weighbridge_requests_total", |count| count == 12.0).await;
    let page = router.admin("GET", "/metrics", "").await;
    assert!(page.header("Content-Type").is_some_and(|kind| kind.starts_with("text/plain")), "{:?}", page.fields);
    let text = page.text();
    let mut names = std::collections::BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        names.insert(if text.contains(&format!("# TYPE {name} ")) { name } else { family });
    }
    for name in names {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no HELP");
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} has no TYPE");
        assert!(name.starts_with("weighbridge_") || name.starts_with("process_"), "{name}");
    }
}

#[tokio::test]
async fn each_request_is_one_line_of_json_in_the_access_log() {
    let bus = bus::embedded().await;
    let router = router::with("").logging("json").on(&bus).await;
    let shop = instance::serving("shop.test").answering(answer::status(201, "four")).on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let response =
        router.post("shop.test/cart?a=%20b").header("User-Agent", "test \"quoted\"\u{e9}").body("12345").await;
    router.get("nobody.test/").await;

    let lines = router.until_logged(2).await;
    let lines: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).expect("each line is a JSON object")).collect();
    assert_eq!(lines.len(), 2);
    // Two connections, perhaps of two workers: their lines come in any order.
    let line_of = |host| lines.iter().find(|line| line["host"] == host).expect("one line each").to_string();
    let (text, unknown) = (line_of("shop.test"), line_of("nobody.test"));
    for part in ["shop.test", "/cart?a=%20b", "POST", "201", shop.app(), "127.0.0.1"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(text.contains(&shop.address().port().to_string()), "the instance is missing in {text}");
    let id = response.header("X-Vcap-Request-Id").expect("it is always set");
    assert!(text.contains(id), "the request's id is missing in {text}");
    assert!(unknown.contains("unknown_route") && unknown.contains("404"), "{unknown}");
}

#[tokio::test]
async fn the_access_log_can_have_gorouters_layout() {
    let bus = bus::embedded().await;
    let router = router::with("").logging("gorouter").on(&bus).await;
    let shop = instance::serving("shop.test").on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    router.get("shop.test/cart").header("User-Agent", "curl").header("Referer", "there").await;
    let line = router.until_logged(1).await.remove(0);
    assert!(line.starts_with("shop.test - ["), "{line}");
    for part in
        ["\"GET /cart HTTP/1.1\" 200 0 ", "\"there\" \"curl\"", "x_forwarded_for:\"127.0.0.1\"", "response_time:"]
    {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
    assert!(line.contains(&format!("app_id:{:?}", shop.app())), "{line}");
}

#[tokio::test]
async fn a_client_that_leaves_is_logged_as_499() {
    let bus = bus::embedded().await;
    let router = router::with("").logging("json").on(&bus).await;
    let shop = instance::serving("shop.test").answering(Answer::new().then(Step::Hang)).on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let pending = router.get("shop.test/").begin();
    shop.until_begun(1).await;
    pending.abandon().await;
    let line = router.until_logged(1).await.remove(0);
    let line: Value = serde_json::from_str(&line).expect("a line is a JSON object");
    assert_eq!(line["status"], 499, "{line}");
}

#[tokio::test]
async fn health_is_good_while_serving_and_bad_while_leaving() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    in_time("good health", async { while router.admin("GET", "/health", "").await.status() != 200 {} }).await;
    router.running.conductor.enter(weighbridge::runtime::shutdown::Phase::Leaving);
    assert_eq!(router.admin("GET", "/health", "").await.status(), 503);
    assert_eq!(router.get("nobody.test/").await.status(), 404, "requests are still served");
}

#[tokio::test]
async fn routes_and_explanations_are_on_the_admin_port() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let shop = instance::serving("shop.test/api").on(&bus).await;
    router.until(|r| r.knows("shop.test/api")).await;
    let routes = router.admin("GET", "/routes", "").await.text();
    assert!(routes.contains("shop.test/api") && routes.contains(&shop.address().to_string()), "{routes}");
    let why = router.admin("GET", "/v1/explain?host=shop.test&path=/api/x", "").await.text();
    assert!(why.contains(&shop.address().to_string()), "{why}");
    assert!(serde_json::from_str::<Value>(&why).is_ok(), "{why}");
}

#[tokio::test]
async fn in_gorouters_place_a_load_balancer_may_ask_for_health_where_clients_ask() {
    let bus = bus::embedded().await;
    let router = router::with("compat = \"gorouter\"").logging("gorouter").on(&bus).await;
    let ask = || router.get("any.test/").header("User-Agent", "HTTP-Monitor/1.1");
    let well = ask().await;
    assert_eq!((well.status(), well.text().as_str(), well.says_close()), (200, "ok\n", true));
    assert_eq!((well.header("Cache-Control"), well.header("Expires")), (Some("private, max-age=0"), Some("0")));
    assert_eq!(router.get("any.test/").header("User-Agent", "HTTP-Monitor/1.2").await.status(), 404);
    router.running.conductor.enter(weighbridge::runtime::shutdown::Phase::Leaving);
    in_time("bad health", async { while ask().await.status() != 503 {} }).await;

    let other = router::on(&bus).await;
    assert_eq!(other.get("any.test/").header("User-Agent", "HTTP-Monitor/1.1").await.status(), 404);
}

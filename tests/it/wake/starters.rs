//! Who starts apps, through a router from the first visitor to the answer of the app: a web service, a program, and a Cloud
//! Controller with its UAA.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{BROWSER, POLL, is_asleep, stage, until_held};
use crate::harness::bus::{self, Bus};
use crate::harness::instance::{self, Instance, Received};
use crate::harness::process::Folder;
use crate::harness::router::{self, Router};
use crate::harness::{answer, eventually};
use crate::nats;

/// No start is ever taken on.
const ALWAYS: usize = 1_000_000;

/// A platform that is asked to start the app `shop`.
struct Platform {
    /// How the router asks it.
    settings: String,
    /// What visitors read when it refuses.
    reason: &'static str,
    kind: Kind,
}

enum Kind {
    /// A service, and the target of its requests that are asks.
    Service(Instance, &'static str),
    /// A program that writes a line for each ask.
    Program(Folder),
}

impl Platform {
    /// A web service that refuses so many asks.
    async fn webhook(refusals: usize) -> Platform {
        let script = move |seen: &Received| match seen.nth < refusals {
            true => answer::status(507, r#"{"message": "No machine has room."}"#),
            false => answer::status(202, ""),
        };
        let service = instance::serving("hook.test").answering_each(script).alone().await;
        let settings = format!(
            "[wake]\nstart = 'webhook'\nwebhook = {{ url = 'http://{}/start', token = 'secret' }}\n",
            service.address()
        );
        Platform { settings, reason: "No machine has room.", kind: Kind::Service(service, "/start") }
    }

    /// A program that fails so many times.
    fn command(refusals: usize) -> Platform {
        let folder = Folder::new();
        let asks = folder.path("asks");
        let script = format!(
            "echo \"$WEIGHBRIDGE_APP-$WEIGHBRIDGE_EPOCH-$WEIGHBRIDGE_ATTEMPT\" >> {asks:?}\n\
             [ $(wc -l < {asks:?}) -gt {refusals} ]\n"
        );
        let script = folder.write("start", &script);
        let settings = format!("[wake]\nstart = 'command'\ncommand.run = ['/bin/sh', {script:?}]\n");
        Platform { settings, reason: "The program that starts this app failed.", kind: Kind::Program(folder) }
    }

    /// A Cloud Controller that refuses so many asks of whoever shows a token of its UAA.
    async fn cloud_foundry(refusals: usize) -> Platform {
        const START: &str = "/v3/apps/shop/actions/start";
        let asked = Arc::new(AtomicUsize::new(0));
        let script = move |seen: &Received| match (seen.method(), seen.target()) {
            ("GET", "/") => {
                let uaa = format!("http://{}", seen.header("Host").unwrap_or_default());
                answer::status(200, &json!({"links": {"uaa": {"href": uaa}}}).to_string())
            }
            // `router:secret` in Base64.
            ("POST", "/oauth/token") if seen.header("Authorization") == Some("Basic cm91dGVyOnNlY3JldA==") => {
                answer::status(200, r#"{"access_token": "good", "expires_in": 600}"#)
            }
            ("POST", START) if seen.header("Authorization") == Some("Bearer good") => {
                match asked.fetch_add(1, Ordering::Relaxed) < refusals {
                    true => answer::status(422, r#"{"errors": [{"title": "CF-X", "detail": "Out of quota."}]}"#),
                    false => answer::status(200, "{}"),
                }
            }
            _ => answer::status(401, "{}"),
        };
        let service = instance::serving("api.test").answering_each(script).alone().await;
        let settings = format!(
            "[wake]\nstart = 'cloudfoundry'\n\
             cloudfoundry = {{ api = 'http://{}', client = 'router', client_secret = 'secret' }}\n",
            service.address()
        );
        let reason = "The platform cannot start this app: Out of quota.";
        Platform { settings, reason, kind: Kind::Service(service, START) }
    }

    /// How many starts it was asked for.
    fn asked(&self) -> usize {
        match &self.kind {
            Kind::Service(service, target) => service.requests().iter().filter(|seen| seen.target() == *target).count(),
            Kind::Program(folder) => std::fs::read_to_string(folder.path("asks")).unwrap_or_default().lines().count(),
        }
    }

    async fn until_asked(&self, count: usize) {
        eventually("starts are asked for", || self.asked() >= count).await;
    }

    /// A router that asks it, and on which the app sleeps.
    async fn router(&self, more: &str) -> (Bus, Router) {
        let bus = bus::embedded().await;
        let router = router::with(&format!("{}{more}", self.settings)).on(&bus).await;
        let sleep = json!({"app": "shop", "uris": ["shop.test"], "epoch": 1, "name": "The Shop"});
        bus.publish("app.sleep", &sleep).await;
        router.until(|router| is_asleep(router, "shop.test")).await;
        (bus, router)
    }
}

async fn start(bus: &Bus) -> Instance {
    instance::serving("shop.test").named("shop-1").of_app("shop").on(bus).await
}

/// A visitor comes, the platform is asked once, the instance comes, and everybody is answered by it.
async fn check_starts(platform: Platform) {
    let (bus, router) = platform.router("").await;
    let page = router.get("shop.test/").header("Accept", BROWSER).await;
    assert_eq!((page.status(), page.header("X-Weighbridge-Error")), (503, Some("app_waking")));
    let waits = router.post("shop.test/orders").body("order").begin();
    until_held(&router, 1).await;
    platform.until_asked(1).await;
    router.until_metric("weighbridge_wake_asks_total{outcome=\"started\"}", |asks| asks == 1.0).await;
    let _shop = start(&bus).await;
    let answer = waits.response().await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "shop-1"));
    let page = router.get("shop.test/").header("Accept", BROWSER).await;
    assert_eq!((page.status(), page.text().as_str()), (200, "shop-1"));
    assert_eq!(platform.asked(), 1);
}

/// Nothing ever starts: three tries, then everybody is told why, and the platform is left alone.
async fn check_gives_up(platform: Platform) {
    let (_bus, router) = platform.router("retry = '10ms'\n").await;
    let waits = router.get("shop.test/").begin();
    let answer = waits.response().await;
    assert_eq!((answer.status(), answer.header("X-Weighbridge-Error")), (503, Some("app_failed")));
    assert!(answer.text().contains(platform.reason), "{}", answer.text());
    let page = router.get("shop.test/").header("Accept", BROWSER).await;
    assert_eq!((page.status(), page.header("X-Weighbridge-Error")), (503, Some("app_failed")));
    assert!(page.text().contains(platform.reason), "{}", page.text());
    let told = router.get("shop.test/").header("Accept", POLL).await.text();
    assert!(told.contains("\"failed\"") && told.contains(platform.reason), "{told}");
    assert_eq!(platform.asked(), 3);
    assert_eq!(router.metric("weighbridge_wake_asks_total{outcome=\"refused\"}").await, 3.0);
    assert_eq!(router.metric("weighbridge_app_start_failures_total").await, 1.0);
    assert_eq!(router.metric("weighbridge_apps{state=\"failed\"}").await, 1.0);
    assert_eq!(router.metric("weighbridge_app_requests_waiting").await, 0.0);
}

/// Three tries fail; after a while a visitor has the app started after all.
async fn check_tries_again_later(platform: Platform) {
    let (bus, router) = platform.router("retry = '10ms'\nretry_failed_after = '10ms'\n").await;
    let answer = router.get("shop.test/").await;
    assert_eq!((answer.status(), answer.header("X-Weighbridge-Error")), (503, Some("app_failed")));
    assert_eq!(platform.asked(), 3, "nobody has come since");
    loop {
        let _somebody_comes = router.get("shop.test/").begin();
        let told = router.get("shop.test/").header("Accept", POLL).await.text();
        if !told.contains("\"failed\"") {
            break;
        }
    }
    let waits = router.get("shop.test/").begin();
    platform.until_asked(4).await;
    let _shop = start(&bus).await;
    let answer = waits.response().await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "shop-1"));
    assert_eq!(platform.asked(), 4);
    assert_eq!(router.metric("weighbridge_app_start_failures_total").await, 1.0);
}

#[tokio::test]
async fn a_webhook_starts_the_app_for_its_visitors() {
    check_starts(Platform::webhook(0).await).await;
}

#[tokio::test]
async fn a_program_starts_the_app_for_its_visitors() {
    check_starts(Platform::command(0)).await;
}

#[tokio::test]
async fn a_cloud_controller_starts_the_app_for_its_visitors() {
    check_starts(Platform::cloud_foundry(0).await).await;
}

#[tokio::test]
async fn an_app_that_no_webhook_starts_is_given_up_after_three_tries() {
    check_gives_up(Platform::webhook(ALWAYS).await).await;
}

#[tokio::test]
async fn an_app_that_no_program_starts_is_given_up_after_three_tries() {
    check_gives_up(Platform::command(ALWAYS)).await;
}

#[tokio::test]
async fn an_app_that_no_cloud_controller_starts_is_given_up_after_three_tries() {
    check_gives_up(Platform::cloud_foundry(ALWAYS).await).await;
}

#[tokio::test]
async fn a_later_visitor_has_the_webhook_asked_again() {
    check_tries_again_later(Platform::webhook(3).await).await;
}

#[tokio::test]
async fn a_later_visitor_has_the_program_run_again() {
    check_tries_again_later(Platform::command(3)).await;
}

#[tokio::test]
async fn a_later_visitor_has_the_cloud_controller_asked_again() {
    check_tries_again_later(Platform::cloud_foundry(3).await).await;
}

#[tokio::test]
async fn routers_that_share_a_bus_try_three_times_together_and_give_up_together() {
    let platform = Platform::webhook(ALWAYS).await;
    let server = nats::server_with_jetstream().await;
    let bus = bus::nats(&server.url()).await;
    let mut routers = Vec::new();
    for _ in 0..3 {
        let router = router::with(&format!("{}retry = '200ms'\n", platform.settings)).on(&bus).await;
        router.until_metric("weighbridge_memory_shared", |shared| shared == 1.0).await;
        routers.push(router);
    }
    bus.publish("app.sleep", &json!({"app": "shop", "uris": ["shop.test"], "epoch": 1})).await;
    for router in &routers {
        router.until(|router| is_asleep(router, "shop.test")).await;
    }
    // Visitors come to two of them; the third one only hears.
    let visitors = [&routers[0], &routers[1]].map(|router| router.get("shop.test/").begin());
    for visitor in visitors {
        let answer = visitor.response().await;
        assert_eq!((answer.status(), answer.header("X-Weighbridge-Error")), (503, Some("app_failed")));
        assert!(answer.text().contains(platform.reason), "{}", answer.text());
    }
    for router in &routers {
        router.until(|router| stage(router) == "failed").await;
        let page = router.get("shop.test/").header("Accept", BROWSER).await;
        assert!(page.text().contains(platform.reason), "{}", page.text());
    }
    assert_eq!(platform.asked(), 3);
}

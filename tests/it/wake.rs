//! Sleeping apps, with a real NATS server, two routers, and a controller of our own.

mod controller;
mod jetstream;
mod starters;

use serde_json::json;
use weighbridge::config::Config;

use crate::harness::bus::{self, Bus};
use crate::harness::instance::{self, Instance};
use crate::harness::process::Folder;
use crate::harness::router::{self, Router};
use crate::harness::{answer, eventually, in_time, pattern};
use crate::nats::{self, Server};
use controller::Controller;

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
const POLL: &str = "application/vnd.weighbridge.wake+json";

/// An app called `shop` at `shop.test`, with its platform.
pub struct World {
    server: Server,
    bus: Bus,
    controller: Controller,
    /// Those that serve it.
    pub routers: Vec<Router>,
}

impl World {
    async fn with(routers: usize, settings: &str) -> World {
        World::on(nats::server().await, routers, settings).await
    }

    async fn on(server: Server, routers: usize, settings: &str) -> World {
        let bus = bus::nats(&server.url()).await;
        let controller = Controller::of("shop", &server).await;
        let mut world = World { server, bus, controller, routers: Vec::new() };
        for _ in 0..routers {
            let router = router::with(settings).logging("json").on(&world.bus).await;
            router.until_metric("weighbridge_bus_connected", |connected| connected == 1.0).await;
            world.routers.push(router);
        }
        world
    }

    /// All routers know that the app sleeps.
    pub async fn asleep(routers: usize, settings: &str) -> World {
        let world = World::with(routers, settings).await;
        world.sleep(1).await;
        world
    }

    async fn sleep(&self, epoch: u64) {
        self.controller.sleep(epoch, &["shop.test"]).await;
        for router in &self.routers {
            router.until(|router| is_asleep(router, "shop.test")).await;
        }
    }

    /// An instance of it, registered.
    pub async fn start(&self, plan: instance::Plan) -> Instance {
        plan.of_app("shop").on(&self.bus).await
    }
}

fn is_asleep(router: &Router, host: &str) -> bool {
    use weighbridge::domain::table::snapshot::Found;
    matches!(router.running.routes.get().lookup(host, "/"), Found::Pool(pool) if pool.asleep().is_some())
}

/// Waits until so many requests wait for apps.
pub async fn until_held(router: &Router, count: usize) {
    router.until_metric("weighbridge_app_requests_waiting", |waiting| waiting == count as f64).await;
}

#[tokio::test]
async fn whoever_asks_for_a_sleeping_app_is_answered_by_the_app_itself() {
    let world = World::asleep(2, "").await;
    let [one, two] = &world.routers[..] else { panic!("two routers") };
    let upload = pattern::bytes(1 << 20);
    let api = one.get("shop.test/api?x=1").header("Accept", "application/json").begin();
    let post = two.post("shop.test/orders").body(&upload).begin();
    until_held(one, 1).await;
    until_held(two, 1).await;
    world.controller.until_asked(2).await;
    assert_eq!(world.controller.asks().len(), 2, "one start for each router: {:?}", world.controller.asks());
    let shop = world.start(instance::serving("shop.test").named("shop-1")).await;
    let (api, post) = (api.response().await, post.response().await);
    assert_eq!((api.status(), api.text().as_str()), (200, "shop-1"));
    assert_eq!((post.status(), post.text().as_str()), (200, "shop-1"));
    let seen = shop.requests();
    assert_eq!(seen.len(), 2);
    let order = seen.iter().find(|request| request.message.method() == "POST").expect("it came");
    assert!(order.message.body_bytes == 1 << 20 && order.message.follows_pattern);
    assert_eq!(world.controller.asks().len(), 2);
}

#[tokio::test]
async fn two_hundred_requests_at_once_are_each_answered_once_by_the_app() {
    let world = World::asleep(1, "wake.release_concurrency = 4").await;
    let router = &world.routers[0];
    let waiting: Vec<_> = (0..200).map(|n| router.get(&format!("shop.test/{n}")).begin()).collect();
    until_held(router, 200).await;
    let shop = world.start(instance::serving("shop.test").named("shop-1")).await;
    for response in waiting {
        assert_eq!(response.response().await.text(), "shop-1");
    }
    let mut targets: Vec<String> = shop.requests().iter().map(|seen| seen.message.target().to_owned()).collect();
    targets.sort();
    targets.dedup();
    assert_eq!((targets.len(), shop.requests().len()), (200, 200));
}

#[tokio::test]
async fn a_thousand_wait_and_the_next_is_told_to_come_again() {
    let world = World::asleep(1, "").await;
    let router = &world.routers[0];
    let waiting: Vec<_> = (0..1000).map(|_| router.get("shop.test/").begin()).collect();
    until_held(router, 1000).await;
    let refused = router.get("shop.test/").await;
    assert_eq!((refused.status(), refused.header("X-Weighbridge-Error")), (503, Some("app_waking")));
    assert!(refused.header("Retry-After").is_some_and(|seconds| seconds.parse::<u64>().is_ok()));
    assert_eq!(router.metric("weighbridge_app_requests_refused_total{reason=\"too_many\"}").await, 1.0);
    let mut waiting = waiting.into_iter();
    waiting.next().expect("the first").abandon().await;
    until_held(router, 999).await;
    let late = router.get("shop.test/").begin();
    until_held(router, 1000).await;
    let _shop = world.start(instance::serving("shop.test").named("shop-1")).await;
    assert_eq!(late.response().await.text(), "shop-1");
    for response in waiting {
        assert_eq!(response.response().await.status(), 200);
    }
    let gone = router.until_logged(1).await;
    assert!(gone.iter().any(|line| line.contains("499")), "who gave up is in the log");
}

#[tokio::test]
async fn a_client_that_gives_up_amid_an_upload_that_waits_frees_its_place() {
    let world = World::asleep(1, "wake.hold = \"1h\"").await;
    let upload = world.routers[0].post("shop.test/").body(pattern::bytes(1 << 20)).begin();
    until_held(&world.routers[0], 1).await;
    upload.abandon().await;
    until_held(&world.routers[0], 0).await;
}

#[tokio::test]
async fn a_request_that_has_waited_long_enough_is_told_to_come_again() {
    let world = World::asleep(1, "wake.hold = \"50ms\"").await;
    let answer = world.routers[0].post("shop.test/").body("order").await;
    assert_eq!((answer.status(), answer.header("X-Weighbridge-Error")), (503, Some("app_waking")));
    assert!(answer.header("Retry-After").is_some());
    assert_eq!(world.routers[0].metric("weighbridge_app_requests_waiting").await, 0.0);
}

#[tokio::test]
async fn a_browser_sees_a_page_that_follows_the_start() {
    let world = World::asleep(1, "").await;
    let router = &world.routers[0];
    let page = router.get("shop.test/cart?x=1").header("Accept", BROWSER).await;
    assert_eq!((page.status(), page.header("Cache-Control")), (503, Some("no-store")));
    assert_eq!((page.header("Vary"), page.header("X-Weighbridge-Error")), (Some("Accept"), Some("app_waking")));
    assert!(page.header("Retry-After").is_some() && page.text().contains("The Shop"));
    let head = router.request("HEAD", "shop.test/").header("Accept", BROWSER).await;
    assert_eq!((head.status(), head.body_bytes), (503, 0));
    world.controller.until_asked(1).await;
    world.controller.say("app.starting", json!({"epoch": 1, "progress": 0.5, "message": "Unpacking"})).await;
    let news = || async { router.get("shop.test/cart?x=1").header("Accept", POLL).await };
    in_time("the news", async {
        loop {
            let told = news().await;
            assert_eq!((told.status(), told.header("Content-Type")), (200, Some(POLL)));
            if told.text().contains("Unpacking") && told.text().contains("0.5") {
                return;
            }
        }
    })
    .await;
    let _shop = world.start(instance::serving("shop.test").named("shop-1")).await;
    router.until(|router| router.knows("shop.test")).await;
    let page = router.get("shop.test/cart?x=1").header("Accept", BROWSER).await;
    assert_eq!((page.status(), page.text().as_str()), (200, "shop-1"));
    assert_eq!(world.controller.asks().len(), 1);
}

#[tokio::test]
async fn an_app_that_never_comes_is_given_up_after_three_tries() {
    let world = World::asleep(1, "wake.retry = \"10ms\"\nwake.retry_max = \"10ms\"").await;
    let router = &world.routers[0];
    let waits = router.get("shop.test/").begin();
    until_held(router, 1).await;
    for attempt in 1..=3 {
        world.controller.until_asked(attempt).await;
        world.controller.say("app.failed", json!({"epoch": 1, "message": format!("no room {attempt}")})).await;
    }
    let answer = waits.response().await;
    assert_eq!((answer.status(), answer.header("X-Weighbridge-Error")), (503, Some("app_failed")));
    assert!(answer.text().contains("no room 3"), "{}", answer.text());
    assert_eq!(world.controller.asks().len(), 3);
    let page = router.get("shop.test/").header("Accept", BROWSER).await;
    assert_eq!((page.status(), page.header("X-Weighbridge-Error")), (503, Some("app_failed")));
    assert!(page.text().contains("no room 3"));
    let told = router.get("shop.test/").header("Accept", POLL).await;
    assert!(told.text().contains("\"failed\""), "{}", told.text());
    assert_eq!(world.controller.asks().len(), 3, "it is left alone for a minute");
    assert_eq!(router.metric("weighbridge_app_start_failures_total").await, 1.0);
    let _shop = world.start(instance::serving("shop.test").named("shop-1")).await;
    router.until(|router| router.knows("shop.test")).await;
    assert_eq!(router.get("shop.test/").await.text(), "shop-1", "an instance that comes after all is welcome");
}

#[tokio::test]
async fn an_app_that_takes_too_long_has_failed() {
    let world = World::asleep(1, "wake.deadline = \"100ms\"").await;
    let answer = world.routers[0].get("shop.test/").await;
    assert_eq!((answer.status(), answer.header("X-Weighbridge-Error")), (503, Some("app_failed")));
}

#[tokio::test]
async fn a_request_while_parking_calls_the_sleep_off_everywhere_and_is_served() {
    let world = World::with(2, "").await;
    let _shop = world.start(instance::serving("shop.test").named("shop-1")).await;
    for router in &world.routers {
        router.until(|router| router.knows("shop.test")).await;
    }
    let answers = world.controller.park(1, 2).await;
    assert!(answers.iter().all(|answer| answer["in_flight"] == 0), "{answers:?}");
    assert_eq!(world.routers[0].get("shop.test/").await.text(), "shop-1");
    eventually("the sleep is called off", || world.controller.heard("app.unpark").len() == 1).await;
    for router in &world.routers {
        router.until(|router| stage(router) == "awake").await;
    }
    // The controller asks again later and finds nobody: now it sleeps.
    assert_eq!(world.controller.park(2, 2).await.len(), 2);
    world.sleep(2).await;
}

fn stage(router: &Router) -> &'static str {
    use weighbridge::domain::identity::AppId;
    let live = router.running.apps.find(&AppId::new("shop"));
    live.map_or("unknown", |live| live.stage().label())
}

#[tokio::test]
async fn who_is_ignored_neither_wakes_nor_counts() {
    let world = World::with(
        1,
        "wake.ignore_agents = [\"kube-probe\"]\nwake.ignore_paths = [\"/health\"]\nstats.interval = \"50ms\"",
    )
    .await;
    let router = &world.routers[0];
    let shop = world.start(instance::serving("shop.test").named("shop-1")).await;
    router.until(|router| router.knows("shop.test")).await;
    let checks = || [router.get("shop.test/").header("User-Agent", "kube-probe/1.30"), router.get("shop.test/health")];
    for check in checks() {
        assert_eq!(check.await.text(), "shop-1");
    }
    let answers = world.controller.park(1, 1).await;
    assert!(answers[0].get("last_request_ms_ago").is_none(), "{answers:?}");
    for check in checks() {
        assert_eq!(check.await.text(), "shop-1", "even while it parks");
    }
    world.sleep(1).await;
    for check in checks() {
        let answer = check.await;
        assert_eq!((answer.status(), answer.header("X-Weighbridge-Error")), (503, Some("app_waking")));
    }
    assert_eq!(shop.requests().len(), 4);
    let wakes = router.get("shop.test/").begin();
    world.controller.until_asked(1).await; // what was asked for before would have been heard by now
    wakes.abandon().await;
    assert_eq!(world.controller.asks().len(), 1);
    assert!(world.controller.heard("app.unpark").is_empty() && world.controller.stats().is_empty());
}

#[tokio::test]
async fn a_router_that_is_started_while_the_app_sleeps_wakes_it() {
    let mut world = World::asleep(2, "").await;
    drop(world.routers.remove(0));
    let fresh = router::with("").on(&world.bus).await;
    fresh.until(|router| is_asleep(router, "shop.test")).await; // the other one told
    let waits = fresh.get("shop.test/").begin();
    world.controller.until_asked(1).await;
    let _shop = world.start(instance::serving("shop.test").named("shop-1")).await;
    assert_eq!(waits.response().await.text(), "shop-1");
}

#[tokio::test]
async fn while_the_platform_cannot_be_reached_visitors_are_told_and_the_app_wakes_when_it_is_back() {
    let mut world = World::asleep(1, "").await;
    world.server.kill();
    let router = &world.routers[0];
    router.until_metric("weighbridge_bus_connected", |connected| connected == 0.0).await;
    let page = router.get("shop.test/").header("Accept", BROWSER).await;
    assert_eq!(page.status(), 503);
    assert!(page.text().contains("cannot be reached"), "{}", page.text());
    let waits = router.get("shop.test/").begin();
    until_held(router, 1).await;
    world.server.start().await;
    let world = World {
        controller: Controller::of("shop", &world.server).await,
        bus: bus::nats(&world.server.url()).await,
        ..world
    };
    world.controller.until_asked(1).await;
    let _shop = world.start(instance::serving("shop.test").named("shop-1")).await;
    assert_eq!(waits.response().await.text(), "shop-1");
}

#[tokio::test]
async fn an_instance_is_not_asked_before_it_answers_its_probe() {
    let world = World::asleep(1, "wake.probe_path = \"/ready\"").await;
    let router = &world.routers[0];
    let waits = router.get("shop.test/page").begin();
    until_held(router, 1).await;
    let booting = |seen: &instance::Received| match (seen.message.target(), seen.nth) {
        ("/ready", 0..2) => answer::status(503, "booting"),
        _ => answer::status(200, "up"),
    };
    let shop = world.start(instance::serving("shop.test").answering_each(booting)).await;
    assert_eq!(waits.response().await.text(), "up");
    let targets: Vec<String> = shop.requests().iter().map(|seen| seen.message.target().to_owned()).collect();
    assert_eq!(targets, ["/ready", "/ready", "/ready", "/page"]);
}

#[tokio::test]
async fn a_forgotten_app_is_not_found_and_whoever_waits_for_it_is_told() {
    let world = World::asleep(1, "").await;
    let router = &world.routers[0];
    let waits = router.get("shop.test/").begin();
    until_held(router, 1).await;
    world.controller.say("app.forget", json!({})).await;
    assert_eq!(waits.response().await.status(), 404);
    assert_eq!(router.get("shop.test/").await.status(), 404);
}

#[tokio::test]
async fn a_page_of_the_operator_that_cannot_be_meant_is_refused_and_changes_nothing() {
    let folder = Folder::new();
    let page = folder.write("wake.html", "<p>{{nmae}}</p>");
    let config = || {
        let ports = "http.listen = [\"127.0.0.1:0\"]\nadmin.listen = \"127.0.0.1:0\"\naccess_log.path = \"\"";
        Config::from_toml(&format!("workers = 2\n{ports}\nwake.page = {page:?}")).expect("valid")
    };
    let refused = |why: String| {
        assert!(why.starts_with("wake.page: ") && why.contains("line 1: no variable is called \"nmae\""), "{why}");
    };
    refused(weighbridge::roles::router::start(config()).await.expect_err("there is no such variable").to_string());

    folder.write("wake.html", "<p>{{name}}</p>");
    let bus = bus::embedded().await;
    let mut router = router::with(&format!("wake.page = {page:?}")).on(&bus).await;
    let sleep = json!({"app": "shop", "uris": ["shop.test"], "epoch": 1, "name": "The Shop"});
    bus.publish("app.sleep", &sleep).await;
    router.until(|router| is_asleep(router, "shop.test")).await;
    let shown = async |router: &Router| router.get("shop.test/").header("Accept", BROWSER).await.text();
    assert_eq!(shown(&router).await, "<p>The Shop</p>");
    folder.write("wake.html", "<p>{{nmae}}</p>");
    refused(router.running.reload(config(), None).await.expect_err("there is no such variable").to_string());
    assert_eq!(shown(&router).await, "<p>The Shop</p>");
    folder.write("wake.html", "<b>{{name}}</b>");
    router.running.reload(config(), None).await.expect("it is well now");
    assert_eq!(shown(&router).await, "<b>The Shop</b>");
}

#[tokio::test]
async fn use_is_reported_exactly() {
    let world = World::with(1, "stats.interval = \"50ms\"").await;
    let router = &world.routers[0];
    let scripted = |seen: &instance::Received| match seen.message.target() {
        "/bad" => answer::status(404, "no"),
        _ => answer::status(200, "yes!"),
    };
    let _shop = world.start(instance::serving("shop.test").answering_each(scripted)).await;
    router.until(|router| router.knows("shop.test")).await;
    let mut client = router.client().await;
    for _ in 0..20 {
        client.send(router.post("shop.test/").body("0123456789")).await;
    }
    client.send(router.get("shop.test/bad")).await;
    let sum = |key: &[&str]| {
        let of = |report: &serde_json::Value| key.iter().fold(report, |at, key| &at[*key]).as_u64().unwrap_or_default();
        world.controller.stats().iter().map(of).sum::<u64>()
    };
    eventually("all are reported", || sum(&["requests"]) >= 21).await;
    assert_eq!((sum(&["requests"]), sum(&["status", "2xx"]), sum(&["status", "4xx"])), (21, 20, 1));
    eventually("their bytes too", || sum(&["bytes_out"]) >= 82).await;
    assert_eq!((sum(&["bytes_in"]), sum(&["bytes_out"])), (200, 82));
    let last = world.controller.stats().pop().expect("there were some");
    assert_eq!((last["in_flight"].as_u64(), last["tunnels"].as_u64()), (Some(0), Some(0)));
}

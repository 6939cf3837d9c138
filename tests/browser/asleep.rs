//! What a visitor of a sleeping app sees, with and without JavaScript: a real NATS server with JetStream, two routers, and a
//! controller of our own.

use std::path::Path;

use serde_json::json;
use weighbridge::domain::table::snapshot::Found;

use crate::controller::Controller;
use crate::harness::bus::{self, Bus};
use crate::harness::instance::{self, Instance};
use crate::harness::router::{self, Router};
use crate::harness::{answer, eventually};
use crate::nats;
use crate::webdriver::Browser;

/// An app called `shop` at `shop.localhost`, which sleeps, with its platform.
struct World {
    _server: nats::Server,
    bus: Bus,
    controller: Controller,
    routers: Vec<Router>,
    instance: Option<Instance>,
}

const HOST: &str = "shop.localhost";

impl World {
    /// The app has run, was put to sleep, and its instance is gone.
    async fn asleep(settings: &str) -> World {
        let server = nats::server_with_jetstream().await;
        let bus = bus::nats(&server.url()).await;
        let controller = Controller::of("shop", &server).await;
        let mut routers = Vec::new();
        for _ in 0..2 {
            let router = router::with(settings).on(&bus).await;
            router.until_metric("weighbridge_memory_shared", |shared| shared == 1.0).await;
            routers.push(router);
        }
        let instance = instance::serving(HOST).of_app("shop").on(&bus).await;
        for router in &routers {
            router.until(|router| router.knows(HOST)).await;
        }
        let sleep = json!({"uris": [HOST], "epoch": 1, "name": "The Shop", "ready_after_ms": 20_000});
        controller.say("app.sleep", sleep).await;
        instance.unregister(&bus).await;
        drop(instance);
        let world = World { _server: server, bus, controller, routers, instance: None };
        for router in &world.routers {
            router.until(is_asleep).await;
        }
        world
    }

    /// Where the browser goes.
    fn url(&self, router: usize, rest: &str) -> String {
        format!("http://{HOST}:{}{rest}", self.routers[router].address().port())
    }

    /// The controller has started it.
    async fn start(&mut self) {
        let page = |received: &instance::Received| {
            let page =
                format!("<!doctype html><title>Shop</title><h1>Welcome to the shop</h1><p>{}</p>", received.target());
            answer::with_fields(200, &[("Content-Type", "text/html; charset=utf-8")], &page)
        };
        self.instance = Some(instance::serving(HOST).of_app("shop").answering_each(page).on(&self.bus).await);
    }
}

fn is_asleep(router: &Router) -> bool {
    matches!(router.running.routes.get().lookup(HOST, "/"), Found::Pool(pool) if pool.asleep().is_some())
}

/// The app's own page, for this target.
fn own_page(target: &str) -> String {
    format!("<h1>Welcome to the shop</h1><p>{}</p>", target.replace('&', "&amp;"))
}

#[tokio::test]
async fn a_visitor_waits_on_the_loading_page_and_arrives_where_she_wanted_to_go() {
    let mut world = World::asleep("").await;
    let browser = Browser::open(&[]).await;
    let target = "/cart?item=7&colour=red";
    let url = world.url(0, target);
    browser.go(&url).await;
    browser.until_it_shows("The Shop").await;
    let navigation = browser
        .ask_page("const seen = performance.getEntriesByType('navigation')[0]; arguments[0](seen.responseStatus)")
        .await;
    assert_eq!(navigation, 503);
    let head = world.routers[0].get(&format!("{HOST}/")).header("Accept", "text/html").sent().await;
    assert_eq!((head.status(), head.header("Cache-Control")), (503, Some("no-store")));

    world.controller.until_asked(1).await;
    let starting = json!({"epoch": 1, "instances": 1, "progress": 0.4, "message": "Unpacking 3 of 7"});
    world.controller.say("app.starting", starting).await;
    let page = browser.until_it_shows("Unpacking 3 of 7").await;
    assert!(page.contains("data-state=\"starting\""), "{page}");
    // Somebody else comes by way of the other router: it is being started already.
    let second = Browser::open(&[]).await;
    second.go(&world.url(1, "/")).await;
    second.until_it_shows("data-state=\"starting\"").await;
    world.routers[1].until_metric("weighbridge_wake_asks_total{outcome=\"elsewhere\"}", |asks| asks >= 1.0).await;

    world.start().await;
    browser.until_it_shows(&own_page(target)).await;
    assert_eq!(browser.url().await, url);
    second.until_it_shows(&own_page("/")).await;
    assert_eq!(world.controller.asks().len(), 1, "one start: {:?}", world.controller.asks());
}

#[tokio::test]
async fn without_javascript_the_page_comes_again_by_itself() {
    let mut world = World::asleep("").await;
    let browser = Browser::open(&[]).await;
    browser.without_scripts().await;
    let url = world.url(0, "/cart?item=7");
    browser.go(&url).await;
    browser.until_it_shows("http-equiv=\"refresh\"").await;
    world.controller.until_asked(1).await;
    world.controller.say("app.starting", json!({"epoch": 1, "instances": 1, "message": "Unpacking"})).await;
    browser.until_it_shows("Unpacking").await;
    world.start().await;
    browser.until_it_shows(&own_page("/cart?item=7")).await;
    assert_eq!(browser.url().await, url);
    assert_eq!(world.controller.asks().len(), 1);
}

#[tokio::test]
async fn a_start_that_fails_says_why_on_the_page() {
    let world = World::asleep("wake.tries = 1").await;
    let browser = Browser::open(&[]).await;
    browser.go(&world.url(0, "/")).await;
    world.controller.until_asked(1).await;
    world.controller.say("app.failed", json!({"epoch": 1, "message": "No machine has 512 MB left."})).await;
    browser.until_it_shows("No machine has 512 MB left.").await;
    browser.until_it_shows("data-state=\"failed\"").await;
}

/// The pictures of the README, by the real thing. Without `SCREENSHOTS` only that the pages come and are pictures.
#[tokio::test]
async fn pictures_of_the_page_are_as_it_is() {
    let world = World::asleep("wake.tries = 1").await;
    let open = async |name: &str, arguments: &[&str], scheme: &str, is_phone: bool, shows: &str| {
        let browser = Browser::open(arguments).await;
        browser.prefer(scheme).await;
        browser.show_at(if is_phone { (390, 780) } else { (1000, 640) }, is_phone).await;
        browser.go(&world.url(0, "/cart?item=7")).await;
        browser.until_it_shows(shows).await;
        let picture = browser.screenshot().await;
        assert!(picture.starts_with(b"\x89PNG"), "{name}");
        if let Ok(folder) = std::env::var("SCREENSHOTS") {
            std::fs::write(Path::new(&folder).join(format!("loading-{name}.png")), picture).expect("it can be written");
        }
    };
    world.routers[0].get(&format!("{HOST}/")).header("Accept", "text/html").sent().await;
    world.controller.until_asked(1).await;
    let message = "Copying the files to a machine in the north";
    world
        .controller
        .say("app.starting", json!({"epoch": 1, "instances": 1, "progress": 0.6, "message": message}))
        .await;
    open("light", &[], "light", false, message).await;
    open("dark", &[], "dark", false, message).await;
    open("phone", &[], "light", true, message).await;
    let chinese = "正在把文件复制到北方的一台机器";
    world
        .controller
        .say("app.starting", json!({"epoch": 1, "instances": 1, "progress": 0.7, "message": chinese}))
        .await;
    open("chinese", &["--lang=zh-CN", "--accept-lang=zh-CN"], "light", false, chinese).await;
    world.controller.say("app.failed", json!({"epoch": 1, "message": "No machine has 512 MB left."})).await;
    open("failed", &[], "light", false, "No machine has 512 MB left.").await;
    eventually("no further start was asked for", || world.controller.asks().len() == 1).await;
}

//! The same with JetStream: routers share starts, and what sleeps outlives all of them.

use super::*;
use crate::harness::client::Request;
use crate::harness::in_time;
use crate::harness::process::{Folder, Process, free_port};

/// Routers that share what they know, and an app that sleeps.
async fn sharing(routers: usize, settings: &str) -> World {
    let world = World::on(nats::server_with_jetstream().await, routers, settings).await;
    for router in &world.routers {
        router.until_metric("weighbridge_memory_shared", |shared| shared == 1.0).await;
    }
    world.sleep(1).await;
    world
}

/// Waits until all routers have a visitor waiting, and one of them knows that another is at the start.
async fn until_one_leaves_it_to_the_other(world: &World) {
    let left = async {
        loop {
            let mut left = 0.0;
            for router in &world.routers {
                until_held(router, 1).await;
                left += router.metric("weighbridge_wake_asks_total{outcome=\"elsewhere\"}").await;
            }
            if left >= 1.0 {
                return;
            }
        }
    };
    in_time("one start", left).await;
}

#[tokio::test]
async fn visitors_of_two_routers_have_an_app_started_once() {
    let world = sharing(2, "wake.retry = \"1m\"\nwake.retry_max = \"1m\"").await;
    let waiting: Vec<_> = world.routers.iter().map(|router| router.get("shop.test/").begin()).collect();
    until_one_leaves_it_to_the_other(&world).await;
    world.controller.until_asked(1).await;
    let _shop = world.start(instance::serving("shop.test").named("shop-1")).await;
    for response in waiting {
        assert_eq!(response.response().await.text(), "shop-1");
    }
    let wakes = world.controller.heard("app.wake");
    assert_eq!(wakes.len(), 1, "{wakes:?}");
}

#[tokio::test]
async fn an_app_that_slept_while_the_only_router_was_killed_is_woken_by_the_next() {
    let world = World::on(nats::server_with_jetstream().await, 0, "").await;
    let (folder, port, admin) = (Folder::new(), free_port(), free_port());
    let file = folder.write(
        "router.toml",
        &format!(
            "workers = 1\nhttp.listen = [\"127.0.0.1:{port}\"]\nadmin.listen = \"127.0.0.1:{admin}\"\n\
             access_log.path = \"\"\nnats.servers = [{:?}]\n",
            world.server.url()
        ),
    );
    let first = Process::serving(&file, folder.path("log")).await;
    let shows = async |line: &str| {
        let metrics = || Request::new(([127, 0, 0, 1], admin).into(), "GET", "admin/metrics").sent();
        let shown = async { while !metrics().await.text().lines().any(|shown| shown == line) {} };
        in_time(line, shown).await;
    };
    shows("weighbridge_memory_shared 1").await;
    world.sleep(1).await;
    shows("weighbridge_memory_writes_total{result=\"done\"} 1").await;
    drop(first); // by SIGKILL

    let next = router::with("").on(&world.bus).await;
    next.until(|router| is_asleep(router, "shop.test")).await;
    let waits = next.get("shop.test/").begin();
    world.controller.until_asked(1).await;
    let _shop = world.start(instance::serving("shop.test").named("shop-1")).await;
    assert_eq!(waits.response().await.text(), "shop-1");
    assert_eq!(world.controller.asks().len(), 1);
}

#[tokio::test]
async fn an_app_that_sleeps_through_an_outage_is_started_once_when_the_server_is_back() {
    let mut world = sharing(2, "wake.retry = \"1m\"\nwake.retry_max = \"1m\"").await;
    world.server.kill();
    let mut waiting = Vec::new();
    for router in &world.routers {
        router.until_metric("weighbridge_bus_connected", |connected| connected == 0.0).await;
        let page = router.get("shop.test/").header("Accept", BROWSER).await;
        assert_eq!(page.status(), 503);
        assert!(page.text().contains("cannot be reached"), "{}", page.text());
        waiting.push(router.get("shop.test/").begin());
        until_held(router, 1).await;
    }
    world.server.start().await;
    let world = World {
        controller: Controller::of("shop", &world.server).await,
        bus: bus::nats(&world.server.url()).await,
        ..world
    };
    for router in &world.routers {
        router.until_metric("weighbridge_bus_connected", |connected| connected == 1.0).await;
    }
    until_one_leaves_it_to_the_other(&world).await;
    world.controller.until_asked(1).await;
    let _shop = world.start(instance::serving("shop.test").named("shop-1")).await;
    for response in waiting {
        assert_eq!(response.response().await.text(), "shop-1");
    }
    assert_eq!(world.controller.asks().len(), 1);
}

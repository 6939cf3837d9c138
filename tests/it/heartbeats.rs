//! Host agents report their instances; a heartbeat alone registers, loads, drains and removes.

use serde_json::json;

use crate::harness::{agent, bus, instance, router};

#[tokio::test]
async fn a_heartbeat_alone_registers_an_instance() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let shop = instance::serving("shop.test/api").alone().await;
    agent::called("dea-1").reports(&[(&shop, 0.2, 0.3)], &bus).await;
    router.until(|r| r.knows("shop.test/api")).await;
    let response = router.get("shop.test/api/x").await;
    assert_eq!(response.text(), shop.name());
    assert_eq!(shop.last().header("X-CF-InstanceID"), Some(shop.name()));
}

#[tokio::test]
async fn an_instance_left_out_of_the_next_heartbeat_is_gone_at_once() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let (a, b) = (instance::serving("shop.test").alone().await, instance::serving("shop.test").alone().await);
    let mut dea = agent::called("dea-1");
    dea.reports(&[(&a, 0.1, 0.1), (&b, 0.1, 0.1)], &bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    dea.reports(&[(&b, 0.1, 0.1)], &bus).await;
    router.until(|r| r.instances_of("shop.test") == 1).await;
    assert_eq!(router.get("shop.test/").await.text(), b.name());
}

#[tokio::test]
async fn a_crashed_instance_is_gone_at_once() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let shop = instance::serving("shop.test").alone().await;
    let mut dea = agent::called("dea-1");
    dea.reports(&[(&shop, 0.1, 0.1)], &bus).await;
    router.until(|r| r.knows("shop.test")).await;
    dea.says(vec![shop.droplet("CRASHED", &json!({}))], &bus).await;
    router.until(|r| r.knows_nobody_for("shop.test")).await;
}

#[tokio::test]
async fn a_starting_instance_gets_nothing_until_it_runs() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let (ready, starting) =
        (instance::serving("shop.test").alone().await, instance::serving("shop.test").alone().await);
    let mut dea = agent::called("dea-1");
    dea.says(vec![ready.droplet("RUNNING", &json!({})), starting.droplet("STARTING", &json!({}))], &bus).await;
    router.until(|r| r.knows("shop.test")).await;
    for _ in 0..20 {
        assert_eq!(router.get("shop.test/").await.text(), ready.name());
    }
    dea.reports(&[(&starting, 0.1, 0.1)], &bus).await;
    router.until(|r| r.instances_of("shop.test") == 1).await;
    assert_eq!(router.get("shop.test/").await.text(), starting.name());
}

#[tokio::test]
async fn a_draining_instance_gets_no_new_client_and_keeps_its_own() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let session = || crate::harness::answer::with_fields(200, &[("Set-Cookie", "JSESSIONID=1")], "hello");
    let leaving = instance::serving("shop.test").named("leaving").answering(session()).alone().await;
    let staying = instance::serving("shop.test").named("staying").answering(session()).alone().await;
    let mut dea = agent::called("dea-1");
    dea.reports(&[(&leaving, 0.1, 0.1), (&staying, 0.1, 0.1)], &bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;

    let load = json!({"cpu": 0.1});
    dea.says(vec![leaving.droplet("DRAINING", &load), staying.droplet("RUNNING", &load)], &bus).await;
    router.until_metric(r#"weighbridge_endpoints{state="draining"}"#, |count| count == 1.0).await;
    let before = leaving.begun();
    for _ in 0..30 {
        assert_eq!(router.get("shop.test/").await.status(), 200);
    }
    assert_eq!(leaving.begun(), before, "no new client may come");
    for _ in 0..5 {
        router.get("shop.test/").cookie("JSESSIONID=1; __VCAP_ID__=leaving").await;
    }
    assert_eq!(leaving.begun(), before + 5, "pinned clients stay");
}

#[tokio::test]
async fn an_agent_that_shuts_down_drains_all_its_instances() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let (a, b) = (instance::serving("shop.test").alone().await, instance::serving("shop.test").alone().await);
    agent::called("dea-1").reports(&[(&a, 0.1, 0.1)], &bus).await;
    agent::called("dea-2").reports(&[(&b, 0.1, 0.1)], &bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    bus.publish("dea.shutdown", &json!({"dea": "dea-1"})).await;
    router.until_metric(r#"weighbridge_endpoints{state="draining"}"#, |count| count == 1.0).await;
    for _ in 0..20 {
        assert_eq!(router.get("shop.test/").await.text(), b.name());
    }
}

#[tokio::test]
async fn an_exited_droplet_is_gone_at_once() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let (a, b) = (
        instance::serving("shop.test").numbered(0).alone().await,
        instance::serving("shop.test").numbered(1).alone().await,
    );
    agent::called("dea-1").reports(&[(&a, 0.1, 0.1), (&b, 0.1, 0.1)], &bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    let exited = json!({"droplet": a.app(), "instance": a.name(), "index": 0, "reason": "CRASHED"});
    bus.publish("droplet.exited", &exited).await;
    router.until(|r| r.instances_of("shop.test") == 1).await;
    assert_eq!(router.get("shop.test/").await.text(), b.name());
}

#[tokio::test]
async fn an_old_heartbeat_that_arrives_late_changes_nothing() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let (a, b) = (instance::serving("shop.test").alone().await, instance::serving("shop.test").alone().await);
    let mut late = agent::called("dea-1");
    let mut dea = agent::called("dea-1");
    dea.reports(&[(&a, 0.1, 0.1)], &bus).await;
    dea.reports(&[(&a, 0.1, 0.1), (&b, 0.1, 0.1)], &bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    late.reports(&[(&a, 0.1, 0.1)], &bus).await; // seq 1 again, without b
    let _marker = instance::serving("marker.test").on(&bus).await; // messages are taken in order
    router.until(|r| r.knows("marker.test")).await;
    assert_eq!(router.instances_of("shop.test"), 2);
}

//! Instances: who they are, what they ask of us, what becomes of those that fail.

use rustls::version::{TLS12, TLS13};

use super::*;
use crate::harness::answer;

/// `[upstream_tls]` that trusts `authority`.
fn trusting(authority: &Authority) -> String {
    format!("[upstream_tls]\nca = {:?}\n", authority.ca())
}

/// The status and `X-Cf-RouterError` of a request for `shop.test`.
async fn outcome(router: &Router) -> (u16, String) {
    router.until(|r| r.knows("shop.test")).await;
    let response = router.get("shop.test/").await;
    (response.status(), response.header("x-cf-routererror").unwrap_or_default().to_owned())
}

#[tokio::test]
async fn the_certificate_must_carry_the_name_that_was_registered() {
    let authority = Authority::new();
    let guid = "5e0a7a2c-6f5b-4c53-5a1d-7d2e";
    let wrong = || (503, "endpoint_failure (tls: certificate is for another name)".to_owned());
    let fine = || (200, String::new());
    for (names, registered, expected) in [
        (&[guid][..], Some(guid), fine()),
        (&["other", guid], Some(guid), fine()),
        (&["127.0.0.1"], None, fine()),
        (&["127.0.0.1"], Some(guid), wrong()),
        (&["other"], Some(guid), wrong()),
        (&[guid], None, wrong()),
        (&[guid], Some("not a name"), wrong()),
    ] {
        let bus = bus::embedded().await;
        let pair = authority.issue("shop", names);
        let mut shop = instance::serving("shop.test").over_tls(authority.instance(&pair));
        if let Some(name) = registered {
            shop = shop.registered_with("server_cert_domain_san", json!(name));
        }
        let _shop = shop.on(&bus).await;
        let router = router::with(&trusting(&authority)).on(&bus).await;
        assert_eq!(outcome(&router).await, expected, "{names:?} for {registered:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_is_told() {
    let (authority, others) = (Authority::new(), Authority::new());
    let names = &["127.0.0.1"];
    for pair in [others.issue("stranger", names), authority.issue_expired("expired", names)] {
        let bus = bus::embedded().await;
        let _shop = instance::serving("shop.test").over_tls(authority.instance(&pair)).on(&bus).await;
        let router = router::with(&trusting(&authority)).on(&bus).await;
        assert_eq!(outcome(&router).await, (526, "endpoint_failure (tls: bad certificate)".to_owned()));
        let failed = "weighbridge_upstream_connects_failed_total{cause=\"tls_bad_certificate\"}";
        router.until_metric(failed, |count| count > 0.0).await;
    }
}

#[tokio::test]
async fn an_instance_that_does_not_speak_tls_is_told() {
    let authority = Authority::new();
    let bus = bus::embedded().await;
    let plain = instance::serving("shop.test").answering(answer::status(400, "what?")).alone().await;
    let mut registration = plain.registration();
    registration["tls_port"] = registration["port"].take();
    bus.publish("router.register", &registration).await;
    let router = router::with(&format!("timeouts.tls_handshake = \"300ms\"\n{}", trusting(&authority))).on(&bus).await;
    let (status, error) = outcome(&router).await;
    // It may wait for the end of what it takes for a request.
    let expected = [(525, "endpoint_failure (tls: not spoken)"), (502, "endpoint_failure (tls: timed out)")];
    assert!(expected.contains(&(status, error.as_str())), "{status} {error}");
}

#[tokio::test]
async fn an_instance_that_wants_a_certificate_gets_ours_if_we_have_one() {
    let authority = Authority::new();
    let pair = authority.issue("shop", &["127.0.0.1"]);
    let ours = authority.issue("router", &["router.test"]);
    let showing = format!("{}cert = {:?}\nkey = {:?}\n", trusting(&authority), ours.cert, ours.key);
    for version in [&TLS12, &TLS13] {
        let bus = bus::embedded().await;
        let shop = instance::serving("shop.test").over_tls(authority.suspicious_instance(&pair, version));
        let _shop = shop.on(&bus).await;
        let without = router::with(&trusting(&authority)).on(&bus).await;
        let wanted = (496, "endpoint_failure (tls: wants our certificate)".to_owned());
        assert_eq!(outcome(&without).await, wanted, "{version:?}");
        let with = router::with(&showing).on(&bus).await;
        assert_eq!(outcome(&with).await, (200, String::new()), "{version:?}");
    }
}

#[tokio::test]
async fn a_request_goes_to_another_instance_if_one_is_not_who_it_should_be() {
    let authority = Authority::new();
    let bus = bus::embedded().await;
    let good = authority.issue("good", &["127.0.0.1"]);
    let bad = authority.issue("bad", &["somebody.else"]);
    let _impostor = instance::serving("shop.test").over_tls(authority.instance(&bad)).on(&bus).await;
    let shop = instance::serving("shop.test").named("good").over_tls(authority.instance(&good)).on(&bus).await;
    let router = router::with(&trusting(&authority)).on(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    for _ in 0..10 {
        let response = router.post("shop.test/").body("x").await;
        assert_eq!((response.status(), response.text().as_str()), (200, "good"));
    }
    assert_eq!(shop.answered(), 10);
    assert!(router.metric("weighbridge_retries_total{reason=\"tls_wrong_name\"}").await >= 1.0);
}

#[tokio::test]
async fn sessions_go_on_with_each_instance_though_all_share_a_name() {
    let authority = Authority::new();
    let bus = bus::embedded().await;
    let mut shops = Vec::new();
    for _ in 0..2 {
        // A certificate and keys for tickets of its own, and no kept connections.
        let pair = authority.issue("shop", &["shop.internal"]);
        let closing = answer::with_fields(200, &[("Connection", "close")], "").then(answer::Step::Close);
        let shop = instance::serving("shop.test").answering(closing).over_tls(authority.instance(&pair));
        shops.push(shop.registered_with("server_cert_domain_san", json!("shop.internal")).on(&bus).await);
    }
    let router = router::with(&format!("balance.strategy = \"round-robin\"\n{}", trusting(&authority))).on(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    for _ in 0..12 {
        assert_eq!(router.get("shop.test/").await.status(), 200);
    }
    for shop in &shops {
        assert_eq!(shop.connections(), 6);
        assert!(shop.resumed() >= 5, "{} of 6 connections went on with a session", shop.resumed());
    }
}

#[tokio::test]
async fn connections_are_kept_and_carry_large_bodies() {
    const LENGTH: u64 = 3_000_000;
    let authority = Authority::new();
    let bus = bus::embedded().await;
    let pair = authority.issue("shop", &["127.0.0.1"]);
    let plan = instance::serving("shop.test").answering(answer::pattern(LENGTH)).over_tls(authority.instance(&pair));
    let shop = plan.on(&bus).await;
    let router = router::with(&format!("workers = 1\n{}", trusting(&authority))).on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    for _ in 0..3 {
        let request = router.post("shop.test/").body(crate::harness::pattern::bytes(1_000_000));
        let response = request.await;
        assert_eq!((response.status(), response.body_bytes, response.follows_pattern), (200, LENGTH, true));
        assert_eq!((shop.last().body_bytes, shop.last().follows_pattern), (1_000_000, true));
    }
    assert_eq!(shop.connections(), 1);
}

#[tokio::test]
async fn an_authority_that_is_exchanged_counts_for_new_connections() {
    let (old, new) = (Authority::new(), Authority::new());
    let bundle = old.folder().join("bundle.pem");
    std::fs::copy(old.ca(), &bundle).expect("the folder is ours");
    let bus = bus::embedded().await;
    let pair = new.issue("shop", &["127.0.0.1"]);
    let _shop = instance::serving("shop.test").over_tls(new.instance(&pair)).on(&bus).await;
    let router = router::with(&format!("[upstream_tls]\nca = {bundle:?}\n")).on(&bus).await;
    assert_eq!(outcome(&router).await.0, 526);
    crate::harness::tls::put(&bundle, &std::fs::read_to_string(new.ca()).expect("it is there"));
    router.until_metric("weighbridge_tls_loads_total", |count| count == 1.0).await;
    assert_eq!(outcome(&router).await.0, 200);
}

#[tokio::test]
async fn a_static_instance_may_speak_tls() {
    let authority = Authority::new();
    let bus = bus::embedded().await;
    let pair = authority.issue("shop", &["shop.internal"]);
    let shop = instance::serving("shop.test").over_tls(authority.instance(&pair)).alone().await;
    let route = format!(
        "[[route]]\nhost = \"shop.test\"\ninstances = [{{ host = \"127.0.0.1\", port = {}, tls = true, \
         server_cert_domain_san = \"shop.internal\" }}]",
        shop.address().port()
    );
    let router = router::with(&format!("{}{route}", trusting(&authority))).on(&bus).await;
    assert_eq!(outcome(&router).await, (200, String::new()));
}

//! Files of TLS that change while the router runs.

use weighbridge::config::Config;

use super::*;
use crate::harness::answer::{self, Gate};
use crate::harness::in_time;
use crate::harness::tls::put;

const REJECTED: &str = "weighbridge_tls_files_rejected_total";
const LOADED: &str = "weighbridge_tls_loads_total";

/// Waits until new connections are shown `pair`.
async fn until_shown(router: &Router, authority: &Authority, name: &str, pair: &Pair) {
    in_time("the new certificate", async {
        loop {
            let connected = authority.client().connect(router.tls_address(), name).await;
            if connected.is_ok_and(|(_, agreed)| agreed.certificate == pair.certificate) {
                return;
            }
            tokio::time::sleep(crate::harness::millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_and_connections_from_before_live_on() {
    let authority = Authority::new();
    let bus = bus::embedded().await;
    let gate = Gate::closed();
    let shop = instance::serving("shop.test").answering(answer::status(200, "x").behind(&gate)).on(&bus).await;
    let old = authority.issue("shop", &["shop.test"]);
    let router = router::with(&https(&[&old], "")).on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let (stream, agreed) = authority.client().connect(router.tls_address(), "shop.test").await.expect("a connection");
    assert!(agreed.certificate == old.certificate);
    let mut client = Client::over(stream);
    let request = router.get("shop.test/");
    let mut pending = Box::pin(client.send(request.clone()));
    tokio::select! {
        biased;
        _early = &mut pending => panic!("the gate is closed"),
        () = shop.until_begun(1) => {}
    }
    let new = authority.issue("shop", &["shop.test"]);
    until_shown(&router, &authority, "shop.test", &new).await;
    gate.open();
    assert_eq!(pending.await.status(), 200);
    assert_eq!(client.send(request).await.status(), 200);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_leaves_the_old_one_in_force() {
    let authority = Authority::new();
    let (shop_pair, other) = (authority.issue("shop", &["shop.test"]), authority.issue("other", &["other.test"]));
    let (router, _shop, _bus) = shop(&https(&[&shop_pair, &other], "")).await;
    put(&shop_pair.cert, "-----BEGIN CERTIFICATE-----\nnonsense\n");
    router.until_metric(REJECTED, |count| count == 1.0).await;
    until_shown(&router, &authority, "shop.test", &shop_pair).await;
    // The others follow all the same.
    let newer = authority.issue("other", &["other.test"]);
    until_shown(&router, &authority, "other.test", &newer).await;
    until_shown(&router, &authority, "shop.test", &shop_pair).await;
    std::fs::remove_file(&shop_pair.key).expect("it is there");
    router.until_metric(REJECTED, |count| count >= 3.0).await;
    until_shown(&router, &authority, "shop.test", &shop_pair).await;
    let mended = authority.issue("shop", &["shop.test"]);
    until_shown(&router, &authority, "shop.test", &mended).await;
    assert!(router.metric(LOADED).await >= 1.0);
}

#[tokio::test]
async fn a_directory_of_certificates_is_followed() {
    let authority = Authority::new();
    let first = authority.issue("a", &["a.test"]);
    let settings =
        format!("[https]\nlisten = [\"127.0.0.1:0\"]\ncertificate_dir = {:?}\n", authority.folder().display());
    let (router, _shop, _bus) = shop(&settings).await;
    until_shown(&router, &authority, "a.test", &first).await;
    let second = authority.issue("b", &["b.test"]);
    until_shown(&router, &authority, "b.test", &second).await;
    until_shown(&router, &authority, "a.test", &first).await;
    std::fs::remove_file(&second.cert).expect("it is there");
    in_time("the certificate is gone", async {
        while authority.client().connect(router.tls_address(), "b.test").await.is_ok() {
            tokio::time::sleep(crate::harness::millis(20)).await;
        }
    })
    .await;
    assert_eq!(router.metric(REJECTED).await, 0.0);
}

#[tokio::test]
async fn a_reload_takes_all_or_nothing() {
    let authority = Authority::new();
    let old = authority.issue("old", &["shop.test"]);
    let (mut router, _shop, _bus) = shop(&https(&[&old], "")).await;
    let new = authority.issue("new", &["shop.test"]);
    let config = |pair: &Pair| {
        let text = format!("rewrite.add_response_headers = {{ X-New = \"yes\" }}\n{}", https(&[pair], ""));
        Config::from_toml(&text).expect("a valid configuration")
    };
    let half = authority.issue("half", &["shop.test"]);
    std::fs::remove_file(&half.key).expect("it is there");
    let refused = router.running.reload(config(&half), None).await.expect_err("a file is missing").to_string();
    assert!(refused.starts_with("TLS: cannot read") && refused.contains("half.key"), "{refused}");
    let response = get(&router, &authority.client().ready()).await.expect("a response");
    assert_eq!(response.header("x-new"), None);
    until_shown(&router, &authority, "shop.test", &old).await;
    router.running.reload(config(&new), None).await.expect("everything is there");
    until_shown(&router, &authority, "shop.test", &new).await;
    let response = get(&router, &authority.client().ready()).await.expect("a response");
    assert_eq!(response.header("x-new"), Some("yes"));
}

#[tokio::test]
async fn sessions_from_before_do_not_evade_a_new_demand_for_certificates() {
    let authority = Authority::new();
    let pair = authority.issue("shop", &["shop.test"]);
    let (mut router, _shop, _bus) = shop(&https(&[&pair], "")).await;
    let speaker = authority.client().ready();
    let resumes = async |router: &Router| {
        let (stream, agreed) = speaker.connect(router.tls_address(), "shop.test").await.expect("a connection");
        assert_eq!(Client::over(stream).send(router.get("shop.test/")).await.status(), 200);
        agreed.resumed
    };
    assert!(!resumes(&router).await && resumes(&router).await);
    let same = Config::from_toml(&https(&[&authority.issue("other", &["shop.test"])], "")).expect("valid");
    router.running.reload(same, None).await.expect("everything is there");
    assert!(resumes(&router).await, "a new certificate ends no session");
    let more = format!("client_certificates = \"require\"\nclient_ca = {:?}", authority.ca());
    let strict = Config::from_toml(&https(&[&pair], &more)).expect("valid");
    router.running.reload(strict, None).await.expect("everything is there");
    assert!(get(&router, &speaker).await.is_err());
}

#[tokio::test]
async fn no_request_fails_while_certificates_change() {
    let authority = Authority::new();
    let (router, _shop, _bus) = shop(&https(&[&authority.issue("shop", &["shop.test"])], "")).await;
    let done = std::sync::atomic::AtomicBool::new(false);
    let client = async || {
        let speaker = authority.client().ready();
        let mut answered = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let response = get(&router, &speaker).await.unwrap_or_else(|error| panic!("after {answered}: {error}"));
            assert_eq!(response.status(), 200);
            answered += 1;
        }
        answered
    };
    let changes = async {
        for _ in 0..3 {
            let newer = authority.issue("shop", &["shop.test"]);
            until_shown(&router, &authority, "shop.test", &newer).await;
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (one, two, ()) = tokio::join!(client(), client(), changes);
    assert!(one > 0 && two > 0);
}

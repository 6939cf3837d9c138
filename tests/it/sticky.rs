//! Sessions stay on their instance by cookie.

use crate::harness::answer::{self, Answer};
use crate::harness::instance::{Instance, Plan};
use crate::harness::message::Message;
use crate::harness::{bus, in_time, instance, router};

/// An instance that begins a session with each request that has none.
fn with_sessions(route: &str, cookie: &'static str) -> Plan {
    instance::serving(route).answering_each(move |request| {
        if request.header("cookie").is_some_and(|cookies| cookies.contains("JSESSIONID")) {
            answer::status(200, "welcome back")
        } else {
            answer::with_fields(200, &[("Set-Cookie", cookie)], "hello")
        }
    })
}

/// The router's cookie in a response.
#[track_caller]
fn pin(response: &Message) -> &str {
    let cookies = response.headers("set-cookie");
    cookies.into_iter().find(|cookie| cookie.starts_with("__VCAP_ID__=")).expect("the session was pinned")
}

fn has_pin(response: &Message) -> bool {
    response.headers("set-cookie").iter().any(|cookie| cookie.starts_with("__VCAP_ID__="))
}

/// Everything of a set-cookie before its first attribute.
fn pair(cookie: &str) -> &str {
    cookie.split(';').next().unwrap_or_default().trim()
}

fn begun(instances: &[Instance]) -> Vec<usize> {
    instances.iter().map(Instance::begun).collect()
}

#[tokio::test]
async fn a_session_stays_on_its_instance_over_a_thousand_requests_and_several_connections() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let mut instances = Vec::new();
    for _ in 0..4 {
        instances.push(with_sessions("shop.test", "JSESSIONID=abc; Path=/").on(&bus).await);
    }
    router.until(|r| r.instances_of("shop.test") == 4).await;
    let first = router.get("shop.test/").await;
    let cookies = format!("JSESSIONID=abc; {}", pair(pin(&first)));
    let home = instances.iter().position(|instance| instance.begun() == 1).expect("one of them answered");

    let before = begun(&instances);
    for _connection in 0..5 {
        let mut client = router.client().await;
        for _ in 0..200 {
            let response = client.send(router.get("shop.test/cart").cookie(&cookies)).await;
            assert_eq!(response.status(), 200);
            assert!(!has_pin(&response), "a session that stays needs no new cookie");
        }
    }
    let mut expected = before;
    expected[home] += 1_000;
    assert_eq!(begun(&instances), expected);
}

#[tokio::test]
async fn a_session_whose_instance_is_gone_moves_and_is_pinned_again() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(with_sessions("shop.test", "JSESSIONID=abc").on(&bus).await);
    }
    router.until(|r| r.instances_of("shop.test") == 3).await;
    let first = router.get("shop.test/").await;
    let cookies = format!("JSESSIONID=abc; {}", pair(pin(&first)));
    let home = instances.iter().position(|instance| instance.begun() == 1).expect("one of them answered");
    let gone = instances.remove(home);
    gone.unregister(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;

    let moved = router.get("shop.test/").cookie(&cookies).await;
    assert_eq!(moved.status(), 200);
    let new_cookies = format!("JSESSIONID=abc; {}", pair(pin(&moved)));
    assert_ne!(new_cookies, cookies);
    let new_home = instances.iter().position(|instance| instance.begun() == 1).expect("one of the others answered");
    for _ in 0..20 {
        router.get("shop.test/").cookie(&new_cookies).await;
    }
    assert_eq!(instances[new_home].begun(), 21);
}

#[tokio::test]
async fn a_session_whose_instance_died_unannounced_moves_without_the_client_noticing() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let dead = with_sessions("shop.test", "JSESSIONID=abc").named("dead").on(&bus).await;
    let alive = with_sessions("shop.test", "JSESSIONID=abc").named("alive").on(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    dead.kill().await;
    let response = router.get("shop.test/").cookie("JSESSIONID=abc; __VCAP_ID__=dead").await;
    assert_eq!(response.status(), 200);
    assert_eq!(pair(pin(&response)), "__VCAP_ID__=alive");
    assert_eq!(alive.begun(), 1);
}

#[tokio::test]
async fn a_session_goes_elsewhere_while_its_instance_is_full() {
    let bus = bus::embedded().await;
    let router = router::with("balance = { max_conns = 1 }").on(&bus).await;
    let gate = answer::Gate::closed();
    let full = instance::serving("shop.test").named("full").answering(answer::status(200, "full").behind(&gate));
    let full = full.on(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 1).await;
    let pending = router.get("shop.test/").begin();
    full.until_begun(1).await;
    let _free = instance::serving("shop.test").named("free").on(&bus).await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    let response = router.get("shop.test/").cookie("JSESSIONID=1; __VCAP_ID__=full").await;
    assert_eq!(response.text(), "free");
    gate.open();
    assert_eq!(pending.response().await.text(), "full");
    router.until_metric("weighbridge_requests_in_flight", |count| count == 0.0).await;
    let response = router.get("shop.test/").cookie("JSESSIONID=1; __VCAP_ID__=full").await;
    assert_eq!(response.text(), "full");
}

#[tokio::test]
async fn the_pin_takes_its_attributes_from_the_session_cookie() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("JSESSIONID=1", &["HttpOnly", "Path=/"], &["Secure", "SameSite", "Partitioned", "Expires", "Max-Age"]),
        ("JSESSIONID=1; Path=/x; Secure; HttpOnly", &["Secure", "HttpOnly", "Path=/"], &["Path=/x"]),
        ("JSESSIONID=1; SameSite=Strict", &["SameSite=Strict"], &[]),
        ("JSESSIONID=1; SameSite=None; Secure; Partitioned", &["SameSite=None", "Secure", "Partitioned"], &[]),
        (
            "JSESSIONID=1; Expires=Wed, 21 Oct 2065 07:28:00 GMT",
            &["Expires=Wed, 21 Oct 2065 07:28:00 GMT"],
            &["Max-Age"],
        ),
        ("JSESSIONID=; Max-Age=0", &["Max-Age=0"], &[]),
        ("JSESSIONID=1; Max-Age=3600", &[], &["Max-Age"]),
    ];
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    for (number, (cookie, expected, unexpected)) in cases.iter().enumerate() {
        let host = format!("case-{number}.test");
        let _shop = with_sessions(&host, cookie).on(&bus).await;
        router.until(|r| r.knows(&host)).await;
        let response = router.get(&format!("{host}/")).await;
        let attributes: Vec<_> = pin(&response).split(';').map(str::trim).collect();
        for attribute in *expected {
            assert!(attributes.contains(attribute), "{cookie:?} gives {attributes:?}, not {attribute:?}");
        }
        for name in *unexpected {
            assert!(!attributes.iter().any(|attribute| attribute.starts_with(name)), "{cookie:?} gives {attributes:?}");
        }
    }
}

#[tokio::test]
async fn the_pin_holds_for_the_route_in_the_case_it_was_registered() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let _shop = with_sessions("shop.test/Admin/V1", "JSESSIONID=1").on(&bus).await;
    router.until(|r| r.knows("shop.test/admin/v1")).await;
    let response = router.get("shop.test/admin/v1/x").await;
    assert!(pin(&response).contains("Path=/Admin/V1"), "{}", pin(&response));
}

#[tokio::test]
async fn without_a_session_cookie_nothing_is_pinned_and_a_lone_pin_is_not_honoured() {
    let bus = bus::embedded().await;
    let router = router::on(&bus).await;
    let (a, b) = (instance::serving("shop.test").on(&bus).await, instance::serving("shop.test").on(&bus).await);
    router.until(|r| r.instances_of("shop.test") == 2).await;
    assert!(!has_pin(&router.get("shop.test/").await));
    in_time("the other instance to be picked", async {
        while a.begun() == 0 || b.begun() == 0 {
            router.get("shop.test/").cookie(&format!("__VCAP_ID__={}", a.name())).await;
        }
    })
    .await;
}

#[tokio::test]
async fn always_mode_pins_the_first_response_and_off_mode_never_pins() {
    let bus = bus::embedded().await;
    let always = router::with(r#"sticky = { mode = "always" }"#).on(&bus).await;
    let off = router::with(r#"sticky = { mode = "off" }"#).on(&bus).await;
    let (_a, _b) = (
        with_sessions("shop.test", "JSESSIONID=1").on(&bus).await,
        with_sessions("shop.test", "JSESSIONID=1").on(&bus).await,
    );
    always.until(|r| r.instances_of("shop.test") == 2).await;
    off.until(|r| r.instances_of("shop.test") == 2).await;

    assert!(has_pin(&always.get("shop.test/").await));
    assert!(!has_pin(&off.get("shop.test/").await));

    let (c, _d) = (instance::serving("plain.test").on(&bus).await, instance::serving("plain.test").on(&bus).await);
    always.until(|r| r.instances_of("plain.test") == 2).await;
    assert!(has_pin(&always.get("plain.test/").await), "without any session cookie");
    let before = c.begun();
    for _ in 0..20 {
        let response = always.get("plain.test/").cookie(&format!("__VCAP_ID__={}", c.name())).await;
        assert!(!has_pin(&response), "it stays where it is");
    }
    assert_eq!(c.begun(), before + 20);
}

#[tokio::test]
async fn the_names_of_session_cookies_can_be_set() {
    let bus = bus::embedded().await;
    let router = router::with(r#"sticky = { session_cookies = ["PHPSESSID", "sid"] }"#).on(&bus).await;
    for (host, cookie, is_pinned) in
        [("php.test", "PHPSESSID=1", true), ("sid.test", "sid=1", true), ("java.test", "JSESSIONID=1", false)]
    {
        let answer: Answer = answer::with_fields(200, &[("Set-Cookie", cookie)], "");
        let _app = instance::serving(host).answering(answer).on(&bus).await;
        router.until(|r| r.knows(host)).await;
        assert_eq!(has_pin(&router.get(&format!("{host}/")).await), is_pinned, "{host}");
    }
}

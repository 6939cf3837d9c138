//! Limits on what clients may hold and ask for, what those beyond them are told, and what is left of them afterwards.

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use weighbridge::config::Config;

use crate::harness::answer::{self, Answer, Gate, Step};
use crate::harness::client::{Client, Request};
use crate::harness::instance::{self, Instance, Plan};
use crate::harness::message::Stream;
use crate::harness::process::{Folder, Process, free_port};
use crate::harness::router::{self, Router};
use crate::harness::{bus, in_time};

async fn shop(settings: &str, plan: Plan) -> (Router, Instance) {
    let bus = bus::embedded().await;
    let router = router::with(settings).logging("json").on(&bus).await;
    let shop = plan.on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    (router, shop)
}

/// A client that has had an answer and keeps its connection.
async fn guest(router: &Router) -> Client {
    let mut client = router.client().await;
    assert_eq!(client.send(router.get("shop.test/")).await.status(), 200);
    client
}

const CONNECT: &str = "weighbridge_refused_total{reason=\"too_many_connections\"}";
const CONNECT_ALONE: &str = "weighbridge_refused_total{reason=\"too_many_connections_of_client\"}";

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so_and_there_is_room_again_when_others_leave() {
    let (router, _shop) = shop("limits.connections = 2", instance::serving("shop.test")).await;
    let (one, _two) = (guest(&router).await, guest(&router).await);
    let mut third = router.wire().await;
    let refused = in_time("the refusal", third.response_to("GET")).await.expect("an answer");
    assert_eq!((refused.status(), refused.header("Retry-After")), (503, Some("1")));
    assert_eq!(refused.header("X-Weighbridge-Error"), Some("too_many_connections"));
    third.closed().await;
    router.until_metric(CONNECT, |count| count == 1.0).await;
    let lines = router.until_logged(3).await;
    assert!(lines.iter().any(|line| line.contains("too_many_connections") && line.contains("\"ending\":\"refused\"")));
    drop(one);
    router.until_metric("weighbridge_connections_open", |open| open == 1.0).await;
    guest(&router).await;
}

#[tokio::test]
async fn a_client_may_hold_so_many_connections_and_trusted_proxies_any_number() {
    let (router, _shop) = shop("limits.connections_per_client = 2", instance::serving("shop.test")).await;
    let _held = (guest(&router).await, guest(&router).await);
    assert_eq!(router.get("shop.test/").await.header("X-Weighbridge-Error"), Some("too_many_connections_of_client"));
    router.until_metric(CONNECT_ALONE, |count| count == 1.0).await;

    let settings = "limits.connections_per_client = 2\nhttp.trusted_proxies = [\"127.0.0.0/8\"]";
    let (router, _shop) = shop(settings, instance::serving("shop.test")).await;
    let _held = (guest(&router).await, guest(&router).await, guest(&router).await);
}

#[tokio::test]
async fn clients_behind_a_load_balancer_are_counted_by_who_it_says_they_are() {
    let settings = "limits.connections_per_client = 1\nhttp.proxy_protocol_from = [\"127.0.0.0/8\"]";
    let (router, _shop) = shop(settings, instance::serving("shop.test")).await;
    let introduced = async |who: &str| {
        let mut wire = router.wire().await;
        let preamble = format!("PROXY TCP4 {who} 127.0.0.1 1000 80\r\nGET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        wire.send(preamble).await.expect("sending");
        let response = in_time("an answer", wire.response_to("GET")).await.expect("an answer");
        (response.status(), wire)
    };
    let (one, first) = introduced("192.0.2.1").await;
    let (other, _second) = introduced("192.0.2.2").await;
    let (again, _third) = introduced("192.0.2.1").await;
    assert_eq!((one, other, again), (200, 200, 503));
    drop(first);
    router.until_metric("weighbridge_connections_open", |open| open <= 1.0).await;
    assert_eq!(introduced("192.0.2.1").await.0, 200);
}

#[tokio::test]
async fn a_malformed_preamble_has_a_reason_of_its_own() {
    let settings = "http.proxy_protocol_from = [\"127.0.0.0/8\"]";
    let (router, shop) = shop(settings, instance::serving("shop.test")).await;
    let (response, mut wire) =
        router.exchange("PROXY TCP4 nonsense\r\nGET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(response.status(), 400);
    wire.closed().await;
    router.until_metric("weighbridge_refused_total{reason=\"proxy_preamble\"}", |count| count == 1.0).await;
    assert_eq!(shop.begun(), 0);
}

#[tokio::test]
async fn a_connection_carries_so_many_requests_and_says_which_is_the_last() {
    let (router, _shop) = shop("limits.requests_per_connection = 3", instance::serving("shop.test")).await;
    let mut client = router.client().await;
    for last in [false, false, true] {
        let response = client.send(router.get("shop.test/")).await;
        assert_eq!((response.status(), response.says_close()), (200, last));
    }
    client.into_stream().closed().await;
}

#[tokio::test]
async fn a_target_longer_than_its_limit_is_refused() {
    let (router, shop) = shop("limits.uri_bytes = 100", instance::serving("shop.test")).await;
    assert_eq!(router.get(&format!("shop.test/{}", "a".repeat(99))).await.status(), 200);
    assert_eq!(router.get(&format!("shop.test/{}", "a".repeat(100))).await.status(), 414);
    router.until_metric("weighbridge_refused_total{reason=\"target_too_long\"}", |count| count == 1.0).await;
    assert_eq!(shop.begun(), 1);
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: chat/1\r\n\r\n";

fn chatting(route: &str) -> Plan {
    let accepts = Answer::new()
        .write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat/1\r\n\r\n")
        .then(Step::EchoBytes);
    instance::serving(route).answering_each(move |request| match request.target() {
        "/chat" => accepts.clone(),
        _ => answer::status(200, "page"),
    })
}

async fn chat(router: &Router) -> (u16, Stream) {
    let mut wire = router.wire().await;
    wire.send(UPGRADE).await.expect("sending");
    let response = in_time("an answer", wire.response_to("GET")).await.expect("an answer");
    (response.status(), wire)
}

#[tokio::test]
async fn tunnels_are_limited_and_pages_are_not_tunnels() {
    let (router, _shop) = shop("limits.tunnels = 1", chatting("shop.test")).await;
    let (first, open) = chat(&router).await;
    let (second, mut refused) = chat(&router).await;
    assert_eq!((first, second), (101, 503));
    refused.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.expect("the connection was kept");
    assert_eq!(refused.response_to("GET").await.expect("an answer").text(), "page");
    router.until_metric("weighbridge_refused_total{reason=\"too_many_tunnels\"}", |count| count == 1.0).await;
    drop(open);
    router.until_metric("weighbridge_tunnels_open", |open| open == 0.0).await;
    assert_eq!(chat(&router).await.0, 101);
}

#[tokio::test]
async fn a_tunnel_takes_its_place_among_the_requests_of_an_instance() {
    let plan = chatting("shop.test");
    let (router, _shop) = shop("balance.max_conns = 1", plan).await;
    let (status, mut open) = chat(&router).await;
    assert_eq!(status, 101);
    let page = router.get("shop.test/").await;
    assert_eq!((page.status(), page.header("X-Cf-RouterError")), (503, Some("Connection Limit Reached")));
    open.finish_sending().await;
    open.closed().await;
    router.until_metric("weighbridge_tunnels_open", |open| open == 0.0).await;
    assert_eq!(router.get("shop.test/").await.status(), 200);
}

#[tokio::test]
async fn a_tunnel_that_stands_still_is_closed() {
    let (router, _shop) = shop(r#"timeouts.tunnel_idle = "200ms""#, chatting("shop.test")).await;
    let (status, mut open) = chat(&router).await;
    assert_eq!(status, 101);
    open.closed().await;
    let lines = router.until_logged(1).await;
    assert!(lines[0].contains("\"ending\":\"timed_out\""), "{lines:?}");
}

#[tokio::test]
async fn a_router_that_leaves_lets_tunnels_be_until_its_patience_ends() {
    let (mut router, _shop) = shop("", chatting("shop.test")).await;
    let (_, mut open) = chat(&router).await;
    router.drain().await;
    open.send("still here").await.expect("sending");
    assert_eq!(in_time("the echo", open.some()).await.expect("the tunnel holds"), b"still here");
    router.running.conductor.enter(weighbridge::runtime::shutdown::Phase::Stopped);
    open.closed().await;
}

#[tokio::test]
async fn who_asks_with_a_browser_sees_the_operators_page_and_others_what_they_prefer() {
    let folder = Folder::new();
    let page =
        folder.write("error.html", "<h1>{{status}} {{reason}}</h1><p>{{message}} ({{error}}, {{request_id}})</p>");
    let settings = format!("pages.error = {page:?}");
    let (mut router, _shop) = shop(&settings, instance::serving("shop.test")).await;
    let ask = |router: &Router, accept: &str| router.get("nobody.test/").header("Accept", accept).sent();
    let html = ask(&router, "text/html,application/xhtml+xml,*/*;q=0.8").await;
    assert_eq!((html.status(), html.header("Content-Type")), (404, Some("text/html; charset=utf-8")));
    assert!(html.text().starts_with("<h1>404 Not Found</h1><p>no route"), "{}", html.text());
    assert_eq!((html.header("Vary"), html.header("X-Cf-RouterError")), (Some("Accept"), Some("unknown_route")));
    assert_eq!(ask(&router, "*/*").await.header("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(ask(&router, "application/json").await.header("Content-Type"), Some("application/json"));

    // A page that cannot be meant changes nothing.
    let wanted = || Config::from_toml(&format!("workers = 2\nlimits.head_count = 5\n{settings}")).expect("valid");
    folder.write("error.html", "<h1>{{stauts}}</h1>");
    let why = router.running.reload(wanted(), None).await.expect_err("there is no such variable").to_string();
    assert!(why.starts_with("pages.error: ") && why.contains("line 1: no variable is called \"stauts\""), "{why}");
    let many: String = (0..10).map(|n| format!("X-{n}: 1\r\n")).collect();
    let (response, _wire) = router.exchange(format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{many}\r\n")).await;
    assert_eq!(response.status(), 200, "the old limits are still in force");
    folder.write("error.html", "<h1>new {{status}}</h1>");
    router.running.reload(wanted(), None).await.expect("it is well now");
    assert_eq!(ask(&router, "text/html").await.text(), "<h1>new 404</h1>");
}

#[tokio::test]
async fn a_thousand_connections_that_come_and_go_leave_nothing_behind() {
    let (router, _shop) = shop("", instance::serving("shop.test")).await;
    for round in 0..10 {
        let pending: Vec<_> = (0..100).map(|_| router.get("shop.test/").begin()).collect();
        for (n, pending) in pending.into_iter().enumerate() {
            // Some wait for their answer, some do not.
            if n % 3 == round % 3 {
                pending.abandon().await
            } else {
                assert_eq!(pending.response().await.status(), 200)
            }
        }
    }
    router.until_metric("weighbridge_connections_open", |open| open == 0.0).await;
    router.until_metric("weighbridge_requests_in_flight", |count| count == 0.0).await;
}

#[tokio::test]
async fn those_who_hang_on_by_the_hundred_do_not_keep_others_from_their_answers() {
    let gate = Gate::closed();
    let waits = gate.clone();
    let plan = instance::serving("shop.test").answering_each(move |request| match request.target() {
        "/large" => answer::pattern(8 << 20),
        "/late" => answer::status(200, "late").behind(&waits),
        _ => answer::status(200, "page"),
    });
    let (router, _shop) = shop("", plan).await;
    let mut hanging = Vec::new();
    for begin in [
        "GET / HTTP/1.1\r\nHost: shop.test\r\nX-Slow: ",
        "GET /large HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1000\r\n\r\nx",
        "GET /late HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        "",
    ] {
        for _ in 0..60 {
            let mut wire = router.wire().await;
            wire.send(begin).await.expect("sending");
            hanging.push(wire);
        }
    }
    router.until_metric("weighbridge_connections_open", |open| open == 300.0).await;
    router.until_metric("weighbridge_requests_in_flight", |count| count == 180.0).await;
    for _ in 0..50 {
        assert_eq!(in_time("a page", router.get("shop.test/").sent()).await.text(), "page");
    }
    drop(hanging);
    gate.open();
    router.until_metric("weighbridge_connections_open", |open| open == 0.0).await;
    router.until_metric("weighbridge_requests_in_flight", |count| count == 0.0).await;
}

#[tokio::test]
async fn a_router_out_of_file_descriptors_recovers_when_there_are_some_again() {
    let shop = instance::serving("shop.test").alone().await;
    let (folder, port, admin) = (Folder::new(), free_port(), free_port());
    let route = format!("instances = [{{ host = \"127.0.0.1\", port = {} }}]", shop.address().port());
    let file = folder.write(
        "router.toml",
        &format!(
            "workers = 1\nhttp.listen = [\"127.0.0.1:{port}\"]\nadmin.listen = \"127.0.0.1:{admin}\"\naccess_log.path = \"\"\n\
             timeouts.client_idle = \"1h\"\n[[route]]\nhost = \"shop.test\"\n{route}\n"
        ),
    );
    let process = Process::serving(&file, folder.path("log")).await;
    let to = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let ask = || Request::new(to(port), "GET", "shop.test/");
    assert_eq!(ask().await.status(), 200);
    let open = std::fs::read_dir(format!("/proc/{}/fd", process.id())).expect("it runs").count() as u64;
    let limited = |current| {
        let pid = Pid::from_raw(process.id() as i32);
        prlimit(pid, Resource::Nofile, Rlimit { current: Some(current), ..getrlimit(Resource::Nofile) }).map(drop)
    };
    limited(open + 20).expect("limits of a child can be set");
    let mut hanging = Vec::new();
    for _ in 0..100 {
        hanging.push(Stream::connect(to(port)).await); // the kernel accepts what the router cannot
    }
    process.until_it_says("connections cannot be accepted").await;
    drop(hanging);
    assert_eq!(in_time("an answer", ask().sent()).await.status(), 200);
    let metrics = Request::new(to(admin), "GET", "admin/metrics").await.text();
    let failed =
        metrics.lines().find(|line| line.starts_with("weighbridge_accepts_failed_total{reason=\"no_descriptor\"}"));
    assert!(failed.is_some(), "{metrics}");
    assert!(metrics.contains("weighbridge_ejections_total 0"), "nobody is to blame for it");
}

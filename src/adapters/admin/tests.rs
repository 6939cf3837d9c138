//! The operator's port over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::client::{Client, ClientError};
use super::*;
use crate::config::Secret;
use crate::domain::moment::Moment;
use crate::domain::protocol::heartbeat::Heartbeat;
use crate::domain::protocol::register::Registration;
use crate::domain::table::settings::TableSettings;
use crate::domain::table::{Changes, RouteTable};
use crate::runtime::shutdown::{self, Conductor};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A router's operator's port, without a router behind it.
struct Port {
    address: SocketAddr,
    admin: Admin,
    conductor: Conductor,
    bus: mpsc::Receiver<Outgoing>,
}

impl Port {
    async fn open() -> Port {
        Port::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Admin)) -> Port {
        let (conductor, phase) = shutdown::channel();
        let (outgoing, bus) = mpsc::channel(1);
        let settings = Settings { score: ScoreConfig::default(), zone: None };
        let mut admin = Admin {
            metrics: Metrics::new(10),
            routes: Published::new(table(&[], &[])),
            apps: Arc::default(),
            happenings: mpsc::channel(1).0,
            settings: Published::new(settings),
            bus: outgoing,
            bus_state: Arc::default(),
            health: Health::new(phase),
            successors: watch::channel(0).1,
            clock: Clock::new(),
            login: None,
        };
        change(&mut admin);
        let (socket, address) = free_socket();
        tokio::spawn(serve(socket, admin.clone()));
        Port { address, admin, conductor, bus }
    }

    async fn knowing(registrations: &[Value]) -> Port {
        let port = Port::open().await;
        port.admin.routes.publish(Arc::new(table(registrations, &[])));
        port
    }

    fn client(&self) -> Client {
        Client::new(&self.address.to_string(), None)
    }

    /// Sends a request written as `line`, `\n` and a field if there is one, `\n\n` and a body if there is one; reads the
    /// answer's status, head and body.
    async fn ask(&self, request: &str) -> (u16, String, String) {
        let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
        let (line, field) =
            head.split_once('\n').map_or((head, String::new()), |(line, field)| (line, format!("{field}\r\n")));
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await?;
            let request = format!("{line} HTTP/1.1\r\nHost: router\r\nConnection: close\r\n{field}{length}\r\n{body}");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = timeout(PATIENCE, exchange).await.expect("in time").expect("the connection holds");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    async fn check(&self, request: &str, status: u16, label: &str) {
        let (found, head, body) = self.ask(request).await;
        assert_eq!(found, status, "{request}: {body}");
        assert!(head.contains("cache-control: no-store"), "{head}");
        if !label.is_empty() {
            let problem: Value = serde_json::from_str(&body).expect("a problem is told in JSON");
            assert_eq!(problem["error"], label, "{request}");
            assert!(problem["message"].is_string());
        }
    }
}

/// The table after these messages.
fn table(registrations: &[Value], heartbeats: &[Value]) -> Snapshot {
    let mut table = RouteTable::new(TableSettings::default(), 1);
    let mut changes = Changes::default();
    for message in registrations {
        let registration = Registration::decode(message.to_string().as_bytes()).expect("the fixture is right");
        table.register(&registration, Moment::START, &mut changes);
    }
    for message in heartbeats {
        let heartbeat = Heartbeat::decode(message.to_string().as_bytes()).expect("the fixture is right");
        table.heartbeat(&heartbeat, Moment::START, &mut changes);
    }
    Snapshot::clone(&table.snapshot(Moment::START).expect("the first one is always published"))
}

/// An instance of `shop` that serves `uri`.
fn instance(uri: &str, port: u16) -> Value {
    json!({"host": "10.0.0.5", "port": port, "uris": [uri], "app": "shop", "private_instance_id": format!("shop-{port}")})
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("an answer is JSON")
}

#[track_caller]
fn check_documented(object: &Value) {
    let page = include_str!("../../../docs/ADMIN.md");
    let keys = object.as_object().expect("it is an object").keys();
    let missing: Vec<_> = keys.filter(|key| !page.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "{missing:?} are not in docs/ADMIN.md");
}

#[tokio::test]
async fn health_follows_the_life_of_the_router() {
    let port = Port::open().await;
    port.check("GET /health", 503, "").await;
    port.admin.health.primed();
    let (status, head, body) = port.ask("GET /health").await;
    assert_eq!((status, &*body), (200, "ok\n"));
    assert!(head.contains("content-type: text/plain"));
    port.check("HEAD /health", 200, "").await;
    port.conductor.enter(Phase::Leaving);
    port.check("GET /health", 503, "").await;
    port.conductor.enter(Phase::Draining);
    port.check("GET /health", 503, "").await;
}

#[tokio::test]
async fn without_the_password_there_is_only_health() {
    let login = Login { user: "admin".into(), password: Secret::new("secret".into()) };
    let port = Port::with(|admin| admin.login = Some(login.clone())).await;
    port.admin.health.primed();
    port.check("GET /health", 200, "").await;
    for request in
        ["GET /metrics", "GET /routes", "GET /v1/explain?host=a.test", "POST /v1/bus/app.wake\n\n{}", "GET /nothing"]
    {
        port.check(request, 401, "unauthorized").await;
    }
    let (_, head, _) = port.ask("GET /metrics").await;
    assert!(head.contains("www-authenticate: basic realm="));
    let somebody = Client::new(&port.address.to_string(), Some(login));
    assert_eq!(parsed(&somebody.routes().await.expect("the password is right")), json!({}));
    let refused = port.client().routes().await.expect_err("there is no password");
    assert!(
        matches!(&refused, ClientError::Refused { status: 401, label, .. } if label == "unauthorized"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_possible_are_told_in_json() {
    let port = Port::open().await;
    port.check("GET /", 404, "not_found").await;
    port.check("GET /v1/", 404, "not_found").await;
    for request in
        ["POST /health", "DELETE /metrics", "PUT /routes", "POST /v1/explain?host=a.test", "GET /v1/bus/app.wake"]
    {
        port.check(request, 405, "method_not_allowed").await;
    }
    let (_, head, _) = port.ask("GET /v1/bus/app.wake").await;
    assert!(head.contains("allow: post"), "{head}");
}

#[tokio::test]
async fn a_page_from_elsewhere_cannot_use_the_operators_browser() {
    let port = Port::open().await;
    port.check("GET /routes\nOrigin: http://evil.test", 403, "foreign_origin").await;
    port.check("POST /v1/bus/app.wake\nOrigin: null\n\n{}", 403, "foreign_origin").await;
    port.check("GET /metrics\nOrigin: http://router", 200, "").await;
}

#[tokio::test]
async fn metrics_are_in_the_text_format_of_prometheus_and_tell_of_the_routes() {
    let served = table(&[instance("shop.test", 1), instance("shop.test", 2), instance("blog.test", 1)], &[]);
    for pool in served.pools().filter(|pool| &*pool.route == "shop.test") {
        [200, 204, 404].into_iter().for_each(|status| pool.fleet.count_response(status));
    }
    let port = Port::open().await;
    port.admin.routes.publish(Arc::new(served));
    let (status, head, body) = port.ask("GET /metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    port.admin.bus_state.note_connected("here");
    let (_, _, connected) = port.ask("GET /metrics").await;
    assert!(connected.contains("\nweighbridge_bus_connected 1\n") && body.contains("\nweighbridge_bus_connected 0\n"));
    let expected = [
        "weighbridge_routes 2",
        r#"weighbridge_endpoints{state="running"} 3"#,
        r#"weighbridge_route_requests_total{route="shop.test",class="2xx"} 2"#,
        r#"weighbridge_route_requests_total{route="shop.test",class="4xx"} 1"#,
    ];
    for line in expected {
        assert!(body.lines().any(|known| known == line), "{line} is missing in {body}");
    }
    assert!(!body.contains("blog.test"), "a route without requests has no series");
    port.admin.routes.publish(Arc::new(table(&[], &[])));
    let (_, _, body) = port.ask("GET /metrics").await;
    assert!(!body.contains("shop.test"), "the series go with the route");
}

#[tokio::test]
async fn routes_are_listed_in_gorouters_layout_and_more() {
    let mut message = instance("Shop.test/Cart", 61001);
    let more = json!({
        "tls_port": 61443, "server_cert_domain_san": "shop-1", "availability_zone": "z1", "dea": "dea-3",
        "isolation_segment": "blue", "private_instance_index": "7", "tags": {"component": "app"}, "options": {"weight": 2},
        "stale_threshold_in_seconds": 90,
    });
    message.as_object_mut().expect("it is one").append(&mut more.as_object().expect("it is one").clone());
    let heartbeat = json!({
        "dea": "dea-3", "schema": 2, "seq": 1, "boot_id": "b", "interval_ms": 5000,
        "host": {"ip": "10.0.0.5", "load": {"cpu": 0.5, "mem": 0.4}},
        "droplets": [{"droplet": "shop", "instance": "i", "index": 7, "state": "RUNNING",
            "private_instance_id": "shop-61001", "load": {"cpu": 0.2, "mem": 0.3}}],
    });
    let port = Port::open().await;
    port.admin.routes.publish(Arc::new(table(&[message], &[heartbeat])));
    let mut routes = parsed(&port.client().routes().await.expect("it answers"));
    check_documented(&routes["shop.test/cart"][0]);
    let listed = routes["shop.test/cart"][0].as_object_mut().expect("the endpoint is there");
    assert!(listed.remove("heartbeat_age_ms").is_some_and(|age| age.is_u64()));
    let score = listed.remove("score").and_then(|score| score.as_f64()).expect("it has a score");
    assert!((score - 0.186).abs() < 1e-6, "{score}");
    for share in ["cpu", "mem"] {
        assert!(listed["load"]["host"][share].is_f64() && listed["load"]["instance"][share].is_f64());
    }
    listed.remove("load");
    let expected = json!({
        "address": "10.0.0.5:61443", "availability_zone": "z1", "protocol": "http1", "tls": true, "ttl": 90,
        "tags": {"component": "app"}, "isolation_segment": "blue", "private_instance_id": "shop-61001",
        "server_cert_domain_san": "shop-1", "app": "shop", "index": "7", "dea": "dea-3", "state": "running",
        "weight": 162.0, "static_weight": 2.0, "chance": 1.0, "in_flight": 0, "waiting": 0, "failure_rate": 0.0,
        "relative_latency": 1.0,
    });
    assert_eq!(routes, json!({"shop.test/cart": [expected]}));
}

#[tokio::test]
async fn a_large_table_arrives_whole_and_in_order() {
    let registrations: Vec<_> = (0..2_000).map(|n| instance(&format!("app-{n:04}.test"), 1000 + n)).collect();
    let port = Port::knowing(&registrations).await;
    let answer = port.client().routes().await.expect("it answers");
    let routes = parsed(&answer);
    let routes = routes.as_object().expect("it is a map");
    assert_eq!(routes.len(), 2_000);
    assert_eq!(routes["app-1999.test"][0]["address"], "10.0.0.5:2999");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.find("app-0001.test") < text.find("app-0002.test"));
}

#[tokio::test]
async fn an_explanation_tells_route_session_and_chances() {
    let port =
        Port::knowing(&[instance("shop.test", 1), instance("shop.test", 2), instance("*.wild.test/a/b", 3)]).await;
    let client = port.client();
    let told = parsed(&client.explain("Shop.test:8080", "/cart?x=1", Some("shop-2")).await.expect("it answers"));
    assert_eq!(
        (&told["result"], &told["route"], &told["strategy"]),
        (&json!("found"), &json!("shop.test"), &json!("adaptive"))
    );
    assert_eq!(told["why"], "shop.test matches: the host as it is");
    check_documented(&told["endpoints"][0]);
    assert_eq!(told["session"]["pinned_to"], "10.0.0.5:2");
    let endpoints = told["endpoints"].as_array().expect("they are listed");
    let chances: Vec<_> = endpoints.iter().map(|endpoint| endpoint["chance"].as_f64()).collect();
    assert_eq!(chances, [Some(0.5), Some(0.5)]);
    assert!(endpoints.iter().all(|endpoint| endpoint["eligible"] == true && endpoint["why"] == "can be picked"));

    let told = parsed(&client.explain("x.y.wild.test", "/a/b/c", Some("gone")).await.expect("it answers"));
    assert_eq!(
        told["why"],
        "*.wild.test/a/b matches: the most specific wildcard, and /a/b is the longest path of whole segments"
    );
    assert_eq!(told["session"].get("pinned_to"), None);

    let told = parsed(&client.explain("nobody.test", "/", None).await.expect("it answers"));
    assert_eq!((&told["result"], &told["endpoints"]), (&json!("unknown_route"), &json!([])));
    port.check("GET /v1/explain?path=/", 400, "missing_host").await;
}

#[tokio::test]
async fn an_explanation_tells_why_somebody_is_left_out() {
    let registered = table(&[instance("shop.test", 1), instance("shop.test", 2)], &[]);
    let Some(pool) = registered.pools().next() else { panic!("the route is there") };
    pool.endpoints[0].live.set_state(crate::domain::balance::State::Draining, Moment::START);
    let port = Port::open().await;
    port.admin.routes.publish(Arc::new(registered.clone()));
    let told = parsed(&port.client().explain("shop.test", "/", None).await.expect("it answers"));
    let first = &told["endpoints"][0];
    assert_eq!(
        (&first["state"], &first["eligible"], &first["chance"]),
        (&json!("draining"), &json!(false), &json!(0.0))
    );
    assert_eq!(first["why"], "draining: only sessions pinned to it go there");
    assert_eq!(told["endpoints"][1]["chance"], 1.0);
}

#[tokio::test]
async fn a_message_for_the_bus_is_taken_over_or_refused_with_the_reason() {
    let mut port = Port::open().await;
    let client = port.client();
    client.publish("router.register", instance("shop.test", 1).to_string()).await.expect("the message is right");
    let message = port.bus.recv().await.expect("it was handed over");
    assert_eq!(
        (&*message.subject, &*message.payload),
        ("router.register", instance("shop.test", 1).to_string().as_bytes())
    );

    let refused = client.publish("router.register", r#"{"port": 1, "uris": ["a.test"]}"#).await.expect_err("no host");
    assert!(
        matches!(&refused, ClientError::Refused { status: 400, label, .. } if label == "missing_host"),
        "{refused}"
    );
    let refused = client.publish("dea.heartbeat", "42").await.expect_err("no heartbeat");
    assert!(matches!(&refused, ClientError::Refused { status: 400, label, .. } if label == "not_json"), "{refused}");
    port.check("POST /v1/bus/a..b\n\n{}", 400, "bad_subject").await;

    client.publish("app.note", "anything").await.expect("not ours to judge");
    let refused = client.publish("app.note", "more").await.expect_err("nobody takes messages from the queue of one");
    assert!(matches!(&refused, ClientError::Refused { status: 503, label, .. } if label == "bus_busy"), "{refused}");
    port.bus.close();
    port.check("POST /v1/bus/app.note\n\n{}", 503, "bus_gone").await;
}

#[tokio::test]
async fn a_message_larger_than_the_bus_takes_is_refused_unread() {
    let port = Port::open().await;
    port.check(&format!("POST /v1/bus/app.note\nContent-Length: {}", 2 << 20), 413, "too_large").await;
}

#[tokio::test]
async fn nobody_at_home_is_told_as_such() {
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .and_then(|listener| listener.local_addr())
        .expect("loopback has free ports");
    let error = Client::new(&free.to_string(), None).routes().await.expect_err("nobody listens");
    assert!(matches!(&error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&free.to_string()));
}

#[tokio::test]
async fn the_port_closes_when_the_process_has_stopped() {
    let (conductor, phase) = shutdown::channel();
    let port = Port::open().await;
    let admin = Admin { health: Health::new(phase), ..port.admin.clone() };
    let serving = tokio::spawn(serve(free_socket().0, admin));
    conductor.enter(Phase::Draining);
    conductor.enter(Phase::Stopped);
    timeout(PATIENCE, serving).await.expect("it ends").expect("it does not panic");
}

#[tokio::test]
async fn a_process_with_a_successor_leaves_the_port_to_it_at_once() {
    let (conductor, phase) = shutdown::channel();
    let (arrival, successors) = watch::channel(0);
    let port = Port::open().await;
    let admin = Admin { health: Health::new(phase), successors, ..port.admin.clone() };
    let serving = tokio::spawn(serve(free_socket().0, admin));
    arrival.send_replace(1);
    conductor.enter(Phase::Leaving);
    timeout(PATIENCE, serving).await.expect("it ends").expect("it does not panic");
}

fn free_socket() -> (AdminSocket, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    AdminSocket::new(listener).expect("it is bound")
}

#[tokio::test]
async fn an_app_is_listed_with_its_use_and_put_to_sleep_by_a_message_to_all_routers() {
    use crate::domain::identity::AppId;
    use crate::domain::wake::LiveApp;

    let mut port = Port::open().await;
    let live = port.admin.apps.of(&AppId::new("shop"));
    let mut request = LiveApp::begin(&*live, port.admin.clock.now());
    request.answered(200, Duration::from_millis(4));
    let (status, _, body) = port.ask("GET /v1/apps").await;
    let apps: Value = serde_json::from_str(&body).expect("JSON");
    let shop = &apps["shop"];
    assert_eq!(
        (status, &shop["state"], &shop["requests"], &shop["in_flight"]),
        (200, &"awake".into(), &1.into(), &1.into())
    );
    let _reported = live.take();
    assert_eq!(live.so_far().requests, 1, "a report takes nothing away from here");

    port.check("POST /v1/apps/shop/sleep", 400, "bad_sleep").await; // no route of it is known
    port.check("POST /v1/apps/shop/sleep\n\n{\"uris\":[\"shop.test\"]}", 202, "").await;
    let message = port.bus.recv().await.expect("it was handed over");
    let sleep = r#"{"app":"shop","uris":["shop.test"],"epoch":1}"#;
    assert_eq!((message.subject.as_str(), &message.payload[..]), ("app.sleep", sleep.as_bytes()));
    port.check("POST /v1/apps/shop/wake", 409, "not_asleep").await;
    port.check("POST /v1/apps/nobody/wake", 404, "unknown_app").await;
    port.check("GET /v1/apps/shop/wake", 405, "method_not_allowed").await;
    port.check("POST /v1/apps/shop/dream", 404, "not_found").await;
}

//! Instances that speak HTTP/2.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Request, Response};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::h2c::{self, Caller};
use crate::harness::answer::{self, Gate};
use crate::harness::bus::{self, Bus};
use crate::harness::router::{self, Router};
use crate::harness::tls::Authority;
use crate::harness::{eventually, in_time, instance, pattern};

type Served = Pin<Box<dyn Future<Output = ()> + Send>>;
type Script = Arc<dyn Fn(Request<RecvStream>, SendResponse<Bytes>) -> Served + Send + Sync>;

/// An instance that speaks HTTP/2 and nothing else.
pub struct Shop {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
    _serving: tokio::task::JoinSet<()>,
}

impl Shop {
    /// One that does what `script` says to each request.
    pub async fn open<F>(script: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static) -> Shop
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Shop::speaking(Builder::new(), None, script).await
    }

    /// The same, as `builder` says and over TLS.
    pub async fn speaking<F>(
        builder: Builder,
        tls: Option<ServerConfig>,
        script: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
    ) -> Shop
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let script: Script = Arc::new(move |request, answer| Box::pin(script(request, answer)));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (connections, begun) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut serving = tokio::task::JoinSet::new();
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        serving.spawn(accept(listener, tls, builder, script, connections.clone(), begun.clone()));
        Shop { address, connections, begun, _serving: serving }
    }

    /// Makes it one of those that serve `shop.test`.
    pub async fn register(&self, bus: &Bus, id: &str) {
        self.register_with(bus, id, "port").await;
    }

    async fn register_with(&self, bus: &Bus, id: &str, port: &str) {
        let mut registration: Value = json!({
            "host": self.address.ip().to_string(), "uris": ["shop.test"], "app": "shop",
            "private_instance_id": id, "protocol": "http2",
        });
        registration[port] = self.address.port().into();
        bus.publish("router.register", &registration).await;
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    async fn until_begun(&self, count: usize) {
        eventually("requests reach the instance", || self.begun.load(Ordering::SeqCst) >= count).await;
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    builder: Builder,
    script: Script,
    connections: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
) {
    let mut serving = tokio::task::JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.expect("the listener lives");
        connections.fetch_add(1, Ordering::SeqCst);
        let (tls, builder, script, begun) = (tls.clone(), builder.clone(), script.clone(), begun.clone());
        serving.spawn(async move {
            match tls {
                None => serve(socket, builder, script, begun).await,
                Some(tls) => {
                    if let Ok(socket) = tls.accept(socket).await {
                        serve(socket, builder, script, begun).await;
                    }
                }
            }
        });
    }
}

async fn serve(
    socket: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    builder: Builder,
    script: Script,
    begun: Arc<AtomicUsize>,
) {
    let Ok(mut connection) = builder.handshake(socket).await else { return };
    let mut streams = tokio::task::JoinSet::new();
    while let Some(Ok((request, answer))) = connection.accept().await {
        begun.fetch_add(1, Ordering::SeqCst);
        if request.uri().path() == "/goodbye" {
            connection.graceful_shutdown();
        }
        if request.uri().path() == "/fury" {
            connection.abrupt_shutdown(Reason::INTERNAL_ERROR);
        }
        streams.spawn(script(request, answer));
    }
}

fn ok() -> Response<()> {
    Response::new(())
}

/// Says `text`, whatever is asked.
async fn say(answer: SendResponse<Bytes>, text: &'static str) {
    let mut answer = answer;
    let mut body = answer.send_response(ok(), false).expect("nobody has left");
    body.send_data(Bytes::from(text), true).expect("nobody has left");
}

/// Sends back what comes, as it comes, and trailers if there are.
pub async fn echo(request: Request<RecvStream>, mut answer: SendResponse<Bytes>) {
    let mut coming = request.into_body();
    let mut going = answer.send_response(ok(), false).expect("nobody has left");
    while let Some(Ok(data)) = coming.data().await {
        coming.flow_control().release_capacity(data.len()).expect("it was counted");
        h2c::send(&mut going, data).await;
    }
    match coming.trailers().await {
        Ok(Some(trailers)) => going.send_trailers(trailers).expect("nobody has left"),
        _ => going.send_data(Bytes::new(), true).expect("nobody has left"),
    }
}

/// A router that knows `shop.test` already.
pub async fn router_for(bus: &Bus, settings: &str) -> Router {
    let router = router::with(&format!("http.h2c = true\n{settings}")).logging("json").on(bus).await;
    router.until(|r| r.knows("shop.test")).await;
    router
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let bus = bus::embedded().await;
    let gate = Gate::closed();
    let waiting = gate.clone();
    let shop = Shop::open(move |_, answer| {
        let waiting = waiting.clone();
        async move {
            waiting.passed().await;
            say(answer, "hello").await;
        }
    })
    .await;
    shop.register(&bus, "one").await;
    let router = router_for(&bus, "workers = 1").await;
    let asked: Vec<_> = (0..32).map(|_| tokio::spawn(router.get("shop.test/").sent())).collect();
    shop.until_begun(32).await;
    gate.open();
    for response in asked {
        let response = in_time("a response", response).await.expect("no panic");
        assert_eq!((response.status(), response.text().as_str()), (200, "hello"));
    }
    assert_eq!(shop.connections(), 1);
    assert_eq!(router.metric("weighbridge_upstream_connections_open").await, 1.0);
    assert_eq!(router.metric("weighbridge_upstream_reuses_total").await, 31.0);
}

#[tokio::test]
async fn what_is_asked_over_http1_is_asked_over_http2() {
    let bus = bus::embedded().await;
    let shop = Shop::open(|request, answer| async move {
        let (head, body) = (request.method().clone(), request.uri().clone());
        assert_eq!((head.as_str(), body.to_string().as_str()), ("POST", "http://shop.test/cart?x=1"));
        assert!(!request.headers().contains_key("host") && !request.headers().contains_key("connection"));
        assert_eq!(request.headers()["x-forwarded-for"], "127.0.0.1");
        echo(request, answer).await;
    })
    .await;
    shop.register(&bus, "one").await;
    let router = router_for(&bus, "").await;
    let sent = pattern::bytes(1_000_000);
    let response = router.post("shop.test/cart?x=1").body(&sent).await;
    assert_eq!(response.status(), 200);
    assert_eq!((response.body_bytes, response.follows_pattern), (1_000_000, true));
    let response =
        router.post("shop.test/cart?x=1").header("te", "trailers").chunked(&["one", "two"], &[("X-Sum", "6")]).await;
    assert_eq!((response.text().as_str(), response.header("transfer-encoding")), ("onetwo", Some("chunked")));
    assert_eq!(response.trailers.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["6"]);
}

#[tokio::test]
async fn both_sides_speak_at_once_and_end_with_trailers() {
    let bus = bus::embedded().await;
    let shop = Shop::open(echo).await;
    shop.register(&bus, "one").await;
    let router = router_for(&bus, "").await;
    let mut caller = Caller::connect(router.address()).await;
    let (answer, mut sending) = caller.ask("POST", "/shop.Cart/Watch", &[("te", "trailers")], false).await;
    let answer = in_time("a head before the request has ended", answer).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let mut coming = answer.into_body();
    for message in ["one", "two", "three"] {
        h2c::send(&mut sending, Bytes::from(message)).await;
        let echoed = in_time("the echo", coming.data()).await.expect("not the end").expect("no reset");
        coming.flow_control().release_capacity(echoed.len()).expect("it was counted");
        assert_eq!(echoed, message);
    }
    let status = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
    sending.send_trailers(status.clone()).expect("the router listens");
    assert!(in_time("the end", coming.data()).await.is_none());
    assert_eq!(in_time("trailers", coming.trailers()).await.expect("no reset"), Some(status));
}

#[tokio::test]
async fn an_answer_of_nothing_but_trailers_ends_with_its_head() {
    let bus = bus::embedded().await;
    let shop = Shop::open(|_, mut answer| async move {
        let head = Response::builder().header("grpc-status", "12").body(()).expect("a head");
        answer.send_response(head, true).expect("nobody has left");
    })
    .await;
    shop.register(&bus, "one").await;
    let router = router_for(&bus, "").await;
    let mut caller = Caller::connect(router.address()).await;
    let (answer, _) = caller.ask("POST", "/", &[], true).await;
    let answer = in_time("an answer", answer).await.expect("an answer");
    assert_eq!(answer.headers()["grpc-status"], "12");
    assert!(answer.body().is_end_stream(), "the head was the end");
}

#[tokio::test]
async fn a_refused_stream_is_tried_elsewhere_whatever_the_method() {
    let bus = bus::embedded().await;
    let busy = Shop::open(|_, mut answer| async move { answer.send_reset(Reason::REFUSED_STREAM) }).await;
    let free = Shop::open(|_, answer| say(answer, "free")).await;
    busy.register(&bus, "busy").await;
    free.register(&bus, "free").await;
    let router = router_for(&bus, "").await;
    router.until(|r| r.instances_of("shop.test") == 2).await;
    for _ in 0..10 {
        let response = router.post("shop.test/").body("x").await;
        assert_eq!((response.status(), response.text().as_str()), (200, "free"));
    }
    assert!(router.metric("weighbridge_retries_total{reason=\"http2_stream_refused\"}").await >= 1.0);
}

#[tokio::test]
async fn a_goodbye_costs_nobody_a_request() {
    let bus = bus::embedded().await;
    let shop = Shop::open(|_, answer| say(answer, "hello")).await;
    shop.register(&bus, "one").await;
    let router = router_for(&bus, "workers = 1").await;
    for path in ["/", "/goodbye", "/", "/goodbye", "/"] {
        let response = router.post(&format!("shop.test{path}")).body("x").await;
        assert_eq!((response.status(), response.text().as_str()), (200, "hello"), "{path}");
    }
    assert!(shop.connections() >= 2);
    router.until_metric("weighbridge_upstream_connections_open", |open| open == 1.0).await;
}

#[tokio::test]
async fn a_connection_that_fails_fails_what_was_on_it_and_nothing_else() {
    let bus = bus::embedded().await;
    let shop = Shop::open(|request, answer| async move {
        if request.uri().path() == "/hang" {
            std::future::pending::<()>().await;
        }
        say(answer, "hello").await;
    })
    .await;
    shop.register(&bus, "one").await;
    let router = router_for(&bus, "workers = 1").await;
    let hanging = tokio::spawn(router.post("shop.test/hang").body("x").sent());
    shop.until_begun(1).await;
    let furious = in_time("an answer", router.post("shop.test/fury").body("x").sent()).await;
    assert_eq!(furious.status(), 502);
    assert_eq!(in_time("an answer", hanging).await.expect("no panic").status(), 502);
    assert_eq!(router.get("shop.test/").await.status(), 200);
}

#[tokio::test]
async fn a_static_instance_may_speak_http2() {
    let bus = bus::embedded().await;
    let shop = Shop::open(|_, answer| say(answer, "hello")).await;
    let route = format!(
        "[[route]]\nhost = \"shop.test\"\ninstances = [{{ host = \"127.0.0.1\", port = {}, protocol = \"http2\" }}]",
        shop.address.port()
    );
    let router = router_for(&bus, &route).await;
    let response = router.get("shop.test/").await;
    assert_eq!((response.status(), response.text().as_str()), (200, "hello"));
}

#[tokio::test]
async fn no_more_is_asked_at_once_than_the_instance_takes() {
    let bus = bus::embedded().await;
    let gate = Gate::closed();
    let waiting = gate.clone();
    let mut builder = Builder::new();
    builder.max_concurrent_streams(2);
    let shop = Shop::speaking(builder, None, move |_, answer| {
        let waiting = waiting.clone();
        async move {
            waiting.passed().await;
            say(answer, "hello").await;
        }
    })
    .await;
    shop.register(&bus, "one").await;
    let router = router_for(&bus, "workers = 1").await;
    let asked: Vec<_> = (0..5).map(|_| tokio::spawn(router.get("shop.test/").sent())).collect();
    shop.until_begun(5).await;
    assert_eq!(shop.connections(), 3);
    gate.open();
    for response in asked {
        assert_eq!(in_time("a response", response).await.expect("no panic").status(), 200);
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_back() {
    let bus = bus::embedded().await;
    let left = Arc::new(AtomicUsize::new(0));
    let noticed = left.clone();
    let shop = Shop::open(move |_, mut answer| {
        let noticed = noticed.clone();
        async move {
            let reason = std::future::poll_fn(|cx| answer.poll_reset(cx)).await.expect("the connection goes on");
            assert_eq!(reason, Reason::CANCEL);
            noticed.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    shop.register(&bus, "one").await;
    let router = router_for(&bus, "").await;
    let mut caller = Caller::connect(router.address()).await;
    let (answer, mut sending) = caller.ask("POST", "/", &[], false).await;
    shop.until_begun(1).await;
    sending.send_reset(Reason::CANCEL);
    drop(answer);
    eventually("the instance hears of it", || left.load(Ordering::SeqCst) == 1).await;
    let logged = &router.until_logged(1).await[0];
    assert!(logged.contains(r#""status":499"#), "{logged}");
}

#[tokio::test]
async fn an_answer_that_is_reset_is_reset_for_the_client() {
    let bus = bus::embedded().await;
    let gate = Gate::closed();
    let waiting = gate.clone();
    let shop = Shop::open(move |_, mut answer| {
        let waiting = waiting.clone();
        async move {
            let mut body = answer.send_response(ok(), false).expect("nobody has left");
            body.send_data(Bytes::from("half"), false).expect("nobody has left");
            waiting.passed().await;
            body.send_reset(Reason::INTERNAL_ERROR);
        }
    })
    .await;
    shop.register(&bus, "one").await;
    let router = router_for(&bus, "").await;
    let mut caller = Caller::connect(router.address()).await;
    let (answer, _) = caller.ask("GET", "/", &[], true).await;
    let mut body = in_time("an answer", answer).await.expect("an answer").into_body();
    assert_eq!(in_time("one half", body.data()).await.expect("not the end").expect("no reset"), "half");
    gate.open();
    let error = in_time("the reset", body.data()).await.expect("no proper end").expect_err("a reset");
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    router.until_metric("weighbridge_http2_resets_total{code=\"internal_error\"}", |count| count >= 1.0).await;
}

#[tokio::test]
async fn an_instance_that_speaks_something_else_is_told() {
    let bus = bus::embedded().await;
    let plan = instance::serving("shop.test").registered_with("protocol", json!("http2"));
    let _shop = plan.answering(answer::status(400, "what?")).on(&bus).await;
    let router = router_for(&bus, "timeouts.connect = \"500ms\"").await;
    let response = router.get("shop.test/").await;
    let error = response.header("x-cf-routererror").unwrap_or_default();
    assert_eq!((response.status(), error), (502, "endpoint_failure (http2: not spoken)"));
}

#[tokio::test]
async fn over_tls_http2_is_agreed_upon() {
    let authority = Authority::new();
    let pair = authority.issue("shop", &["127.0.0.1"]);
    let trusting = format!("[upstream_tls]\nca = {:?}\n", authority.ca());
    for (offers, expected) in [(true, (200, "")), (false, (502, "endpoint_failure (http2: not spoken)"))] {
        let bus = bus::embedded().await;
        let mut config = authority.instance(&pair);
        if offers {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        let shop = Shop::speaking(Builder::new(), Some(config), |request, answer| async move {
            assert_eq!(request.uri().scheme_str(), Some("https"));
            say(answer, "hello").await;
        })
        .await;
        shop.register_with(&bus, "one", "tls_port").await;
        let router = router_for(&bus, &trusting).await;
        let response = router.get("shop.test/").await;
        let error = response.header("x-cf-routererror").unwrap_or_default();
        assert_eq!((response.status(), error), expected);
    }
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed() {
    let bus = bus::embedded().await;
    let shop = Shop::open(|_, answer| say(answer, "hello")).await;
    shop.register(&bus, "one").await;
    let router = router_for(&bus, "timeouts.upstream_idle = \"50ms\"").await;
    assert_eq!(router.get("shop.test/").await.status(), 200);
    router.until_metric("weighbridge_upstream_connections_open", |open| open == 0.0).await;
}

#[tokio::test]
async fn interim_answers_pass() {
    let bus = bus::embedded().await;
    let shop = Shop::open(|_, mut answer| async move {
        let hints = Response::builder().status(103).header("link", "</a>").body(()).expect("a head");
        answer.send_informational(hints).expect("nobody has left");
        say(answer, "hello").await;
    })
    .await;
    shop.register(&bus, "one").await;
    let router = router_for(&bus, "").await;
    let mut wire = router.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.expect("the router listens");
    let hints = wire.head().await.expect("a head").expect("not the end");
    assert_eq!((hints.status(), hints.header("link")), (103, Some("</a>")));
    assert_eq!(wire.response_to("GET").await.expect("a response").text(), "hello");

    let mut caller = Caller::connect(router.address()).await;
    let (mut answer, _) = caller.ask("GET", "/", &[], true).await;
    let hints = std::future::poll_fn(|cx| answer.poll_informational(cx));
    let hints = in_time("hints", hints).await.expect("there are some").expect("no reset");
    assert_eq!((hints.status().as_u16(), &hints.headers()["link"]), (103, &HeaderValue::from_static("</a>")));
    assert_eq!(in_time("an answer", answer).await.expect("an answer").status(), 200);
}

/// An answer that comes before the request has ended stays, and the client may say the rest.
#[tokio::test]
async fn an_early_answer_is_not_taken_away_by_a_reset() {
    let bus = bus::embedded().await;
    let early = |_: &instance::Received| answer::status(403, "no");
    let _shop = instance::serving("shop.test").answering_early(early).on(&bus).await;
    let router = router_for(&bus, "").await;
    let mut caller = Caller::connect(router.address()).await;
    let (answer, mut sending) = caller.ask("POST", "/", &[], false).await;
    let answer = in_time("an answer", answer).await.expect("an answer");
    assert_eq!(answer.status(), 403);
    let mut body = answer.into_body();
    while let Some(data) = in_time("the body", body.data()).await {
        data.expect("no reset");
    }
    h2c::send(&mut sending, Bytes::from(pattern::bytes(200_000))).await;
    sending.send_data(Bytes::new(), true).expect("the stream lives");
}

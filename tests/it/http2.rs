//! HTTP/2 with clients, over TLS and in clear text, in front of instances that speak HTTP/1.1.

mod floods;
mod h2c;
mod held;
mod instances;
mod raw;
mod refusals;
mod rogues;
mod strict;
mod tunnels;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::harness::answer::{self, Answer, Gate, Step};
use crate::harness::bus::{self, Bus};
use crate::harness::instance::{self, Instance};
use crate::harness::router::{self, Router};
use crate::harness::tls::Authority;
use crate::harness::{in_time, pattern};
use weighbridge::domain::balance::Outcome;
use weighbridge::domain::table::snapshot::Found;

const H2C: &str = "http.h2c = true";

type Sending = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

/// One connection of HTTP/2.
struct Client {
    requests: SendRequest<Sending>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Client {
    async fn over(socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Client {
        let shaken = handshake(TokioExecutor::new(), TokioIo::new(socket)).await;
        let (requests, connection) = shaken.expect("the router speaks HTTP/2");
        Client { requests, connection: tokio::spawn(connection) }
    }

    async fn clear(router: &Router) -> Client {
        Client::over(TcpStream::connect(router.address()).await.expect("the router listens")).await
    }

    /// The response, once its head is there.
    fn send(
        &self,
        request: Request<Sending>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + Send + use<> {
        let mut requests = self.requests.clone();
        async move {
            requests.ready().await?;
            requests.send_request(request).await
        }
    }

    async fn get(&self, path: &str) -> Response<Incoming> {
        let response = in_time("a response", self.send(get(path))).await;
        response.expect("a response and not a reset")
    }
}

/// A request body that the test feeds.
struct Fed(mpsc::UnboundedReceiver<Frame<Bytes>>);

impl Body for Fed {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

fn get(path: &str) -> Request<Sending> {
    request("GET", path, Empty::new().boxed())
}

fn request(method: &str, path: &str, body: Sending) -> Request<Sending> {
    let request = Request::builder().method(method).uri(format!("http://shop.test{path}"));
    request.body(body).expect("a request that can be sent")
}

async fn whole(response: Response<Incoming>) -> (Bytes, Option<HeaderMap>) {
    let collected = in_time("the body", response.into_body().collect()).await.expect("a whole body");
    let trailers = collected.trailers().cloned();
    (collected.to_bytes(), trailers)
}

async fn shop(settings: &str, answer: Answer) -> (Router, Instance, Bus) {
    shop_of(settings, instance::serving("shop.test").answering(answer)).await
}

async fn shop_of(settings: &str, plan: instance::Plan) -> (Router, Instance, Bus) {
    let bus = bus::embedded().await;
    let instance = plan.on(&bus).await;
    let router = router::with(settings).logging("json").on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    (router, instance, bus)
}

#[tokio::test]
async fn a_client_that_begins_with_http2_is_served_and_logged_as_such() {
    let (router, shop, _bus) = shop(H2C, answer::status(200, "hello")).await;
    let client = Client::clear(&router).await;
    let mut asking = get("/cart?item=1");
    for crumb in ["a=1", "b=2"] {
        asking.headers_mut().append("cookie", HeaderValue::from_static(crumb));
    }
    let response = in_time("a response", client.send(asking)).await.expect("a response");
    assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 200));
    assert!(response.headers().contains_key("x-vcap-request-id"));
    assert_eq!(whole(response).await.0, "hello");
    let seen = shop.last();
    assert_eq!((seen.method(), seen.target()), ("GET", "/cart?item=1"));
    assert_eq!(seen.headers("host"), ["shop.test"]);
    assert_eq!(seen.headers("cookie"), ["a=1; b=2"]);
    assert_eq!(seen.headers("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.headers("x-forwarded-proto"), ["http"]);
    let logged = &router.until_logged(1).await[0];
    assert!(logged.contains(r#""version":"HTTP/2.0""#), "{logged}");
}

#[tokio::test]
async fn a_panic_costs_the_stream_it_happens_on_and_no_other() {
    if !cfg!(debug_assertions) {
        return; // the fault is one that only debug builds notice
    }
    let gates = [Gate::closed(), Gate::closed()];
    let answer = |gate: &Gate| answer::status(200, "well").behind(gate);
    let settings = format!("workers = 1\n{H2C}");
    let (router, shop, bus) = shop(&settings, answer(&gates[0])).await;
    let broken = instance::serving("broken.test").answering(answer(&gates[1])).on(&bus).await;
    router.until(|r| r.knows("broken.test")).await;
    let client = Client::clear(&router).await;
    let ask_broken = || {
        let asking = Request::builder().uri("http://broken.test/").body(Empty::new().boxed());
        tokio::spawn(client.send(asking.expect("a request that can be sent")))
    };
    let pending = tokio::spawn(client.send(get("/")));
    let lost = ask_broken();
    shop.until_begun(1).await;
    broken.until_begun(1).await;

    // A request that is counted off twice: no message and no client can bring that about.
    let routes = router.running.routes.get();
    let Found::Pool(pool) = routes.lookup("broken.test", "/") else { panic!("it is known") };
    pool.endpoints[0].live.answered(&pool.fleet, Outcome::Cancelled, router.running.clock.now());
    gates[1].open();
    for lost in [lost, ask_broken(), ask_broken()] {
        assert!(in_time("the end", lost).await.expect("no panic here").is_err(), "its stream is reset");
    }

    gates[0].open();
    let response = in_time("a response", pending).await.expect("no panic here").expect("no reset");
    assert_eq!(whole(response).await.0, "well");
    assert_eq!(whole(client.get("/").await).await.0, "well");
    router.until_metric("weighbridge_router_errors_total{error=\"internal\"}", |count| count == 3.0).await;
}

#[tokio::test]
async fn http2_in_clear_text_is_refused_unless_it_is_wanted_and_http1_goes_on_where_it_is() {
    let (off, _shop, _bus) = shop("", answer::status(200, "")).await;
    let (response, _) = off.exchange("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(response.status(), 505);
    let (on, _shop, _bus) = shop(H2C, answer::status(200, "")).await;
    assert_eq!(on.get("shop.test/").await.status(), 200);
    assert_eq!(on.request("PUT", "shop.test/").body("P").await.status(), 200);
}

#[tokio::test]
async fn over_tls_the_client_chooses_unless_http2_is_off() {
    let authority = Authority::new();
    let pair = authority.issue("shop", &["shop.test"]);
    let https = |more: &str| {
        let certificates = format!("[{{ cert = {:?}, key = {:?} }}]", pair.cert, pair.key);
        format!("[https]\nlisten = [\"127.0.0.1:0\"]\ncertificates = {certificates}\n{more}\n")
    };
    let (router, shop_one, _bus) = shop(&https(""), answer::status(200, "hello")).await;
    let speaker = authority.client().offering_http2().ready();
    let socket = speaker.handshake(router.tls_address(), "shop.test").await.expect("TLS");
    assert_eq!(socket.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    assert_eq!(whole(Client::over(socket).await.get("/").await).await.0, "hello");
    assert_eq!(shop_one.last().headers("x-forwarded-proto"), ["https"]);

    let (router, _shop, _bus) = shop(&https("http2 = false"), answer::status(200, "")).await;
    let (_, agreed) = speaker.connect(router.tls_address(), "shop.test").await.expect("TLS");
    assert_eq!(agreed.alpn, Some(b"http/1.1".to_vec()));
}

#[tokio::test]
async fn large_bodies_pass_unchanged_in_both_directions() {
    const LENGTH: u64 = 3_000_000;
    let (router, shop, _bus) = shop(H2C, answer::pattern(LENGTH)).await;
    let client = Client::clear(&router).await;
    for fed in [false, true] {
        let bytes = Bytes::from(pattern::bytes(1_000_000));
        let body = if fed {
            let (feed, fed) = mpsc::unbounded_channel();
            feed.send(Frame::data(bytes)).expect("it is read");
            Fed(fed).boxed()
        } else {
            Full::new(bytes).boxed()
        };
        let response = in_time("a response", client.send(request("POST", "/", body))).await.expect("a response");
        let (body, _) = whole(response).await;
        assert!(body == pattern::bytes(LENGTH as usize), "{} bytes came, fed: {fed}", body.len());
        assert_eq!((shop.last().body_bytes, shop.last().follows_pattern), (1_000_000, true));
        let length = shop.last().header("content-length").map(str::to_owned);
        assert_eq!(length, (!fed).then(|| "1000000".to_owned()));
    }
}

#[tokio::test]
async fn both_directions_stream_at_once_and_both_have_trailers() {
    // What the instance reads (chunks, trailers) is what it answers.
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n";
    let echo = move |_: &instance::Received| Answer::new().write(head).then(Step::EchoBytes);
    let (router, shop, _bus) = shop_of(H2C, instance::serving("shop.test").answering_early(echo)).await;
    let client = Client::clear(&router).await;
    let (feed, fed) = mpsc::unbounded_channel();
    let mut call = request("POST", "/shop.Cart/Watch", Fed(fed).boxed());
    call.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let response = in_time("a response before the request has ended", client.send(call)).await.expect("a response");
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let mut answer = response.into_body();
    for message in ["one", "two", "three"] {
        feed.send(Frame::data(Bytes::from(message))).expect("it is read");
        let echoed = in_time("the echo", answer.frame()).await.expect("not the end").expect("no reset");
        assert_eq!(echoed.into_data().expect("data"), message);
    }
    let status = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
    feed.send(Frame::trailers(status.clone())).expect("it is read");
    drop(feed);
    let last = in_time("the trailers", answer.frame()).await.expect("not the end").expect("no reset");
    assert_eq!(last.into_trailers().expect("trailers"), status);
    assert!(in_time("the end", answer.frame()).await.is_none());
    assert_eq!(shop.last().headers("te"), ["trailers"]);
}

#[tokio::test]
async fn many_requests_run_side_by_side_on_one_connection() {
    let gate = Gate::closed();
    let (router, shop, _bus) = shop(H2C, answer::status(200, "hello").behind(&gate)).await;
    let client = Client::clear(&router).await;
    let asked: Vec<_> = (0..32).map(|nth| tokio::spawn(client.send(get(&format!("/{nth}"))))).collect();
    shop.until_begun(32).await;
    gate.open();
    for response in asked {
        let response = in_time("a response", response).await.expect("no panic").expect("a response");
        assert_eq!(whole(response).await.0, "hello");
    }
}

#[tokio::test]
async fn a_request_that_the_client_takes_back_is_taken_back_from_the_instance() {
    let gate = Gate::closed();
    let (router, shop, _bus) = shop(H2C, answer::status(200, "").behind(&gate)).await;
    let client = Client::clear(&router).await;
    let asked = tokio::spawn(client.send(get("/")));
    shop.until_begun(1).await;
    asked.abort();
    let logged = &router.until_logged(1).await[0];
    assert!(logged.contains(r#""status":499"#), "{logged}");
    gate.open();
    assert_eq!(client.get("/").await.status(), 200, "the connection goes on");
}

#[tokio::test]
async fn what_could_not_have_come_over_http1_never_reaches_an_instance() {
    let (router, shop, _bus) = shop(H2C, answer::status(200, "")).await;
    let client = Client::clear(&router).await;
    let mut two_hosts = get("/");
    two_hosts.headers_mut().insert("host", HeaderValue::from_static("other.test"));
    let mut crowded = get("/");
    for nth in 0..200 {
        crowded.headers_mut().append("x-many", HeaderValue::from(nth));
    }
    let mut somebody = get("/");
    *somebody.uri_mut() = "http://me@shop.test/".parse().expect("a URI");
    for (request, status, label) in
        [(two_hosts, 400, "host_mismatch"), (crowded, 431, "too_many_fields"), (somebody, 400, "malformed_host")]
    {
        let refused = in_time("a refusal", client.send(request)).await.expect("an answer");
        assert_eq!(refused.status().as_u16(), status, "{label}");
        assert!(refused.headers().contains_key("x-cf-routererror") && !refused.headers().contains_key("connection"));
        assert!(!whole(refused).await.0.is_empty(), "the answer says why");
        let series = format!("weighbridge_refused_total{{reason=\"{label}\"}}");
        router.until_metric(&series, |count| count == 1.0).await;
    }
    assert_eq!(shop.begun(), 0);
    assert_eq!(client.get("/").await.status(), 200, "the connection goes on");
}

#[tokio::test]
async fn names_that_an_app_could_take_for_those_of_the_router_do_not_reach_it() {
    let (router, shop, _bus) = shop(H2C, answer::status(200, "")).await;
    let client = Client::clear(&router).await;
    let mut asking = get("/");
    for name in ["x_forwarded_for", "x-forwarded_proto", "x_cf_instanceid", "x_api_key"] {
        asking.headers_mut().append(name, HeaderValue::from_static("theirs"));
    }
    assert_eq!(in_time("a response", client.send(asking)).await.expect("a response").status(), 200);
    let seen = shop.last();
    assert_eq!(seen.headers("x-forwarded-for"), ["127.0.0.1"]);
    for name in ["x_forwarded_for", "x-forwarded_proto", "x_cf_instanceid"] {
        assert!(seen.headers(name).is_empty(), "{name}");
    }
    assert_eq!(seen.headers("x_api_key"), ["theirs"]);
}

#[tokio::test]
async fn options_and_trace_that_may_not_go_on_end_at_the_router() {
    let (router, shop, _bus) = shop(H2C, answer::status(200, "")).await;
    let client = Client::clear(&router).await;
    for (method, status) in [("OPTIONS", 200), ("TRACE", 405)] {
        let mut asking = get("/");
        *asking.method_mut() = method.parse().expect("a method");
        asking.headers_mut().append("max-forwards", HeaderValue::from_static("0"));
        let response = in_time("a response", client.send(asking)).await.expect("a response");
        assert_eq!(response.status(), status, "{method}");
        assert!(response.headers().contains_key("allow"), "{method}");
    }
    assert!(shop.requests().is_empty());
}

#[tokio::test]
async fn an_answer_that_is_cut_short_resets_its_stream_and_no_other() {
    let gate = Gate::closed();
    let cut = Answer::new().write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").until(&gate).then(Step::Close);
    let script = move |request: &instance::Received| match request.target() {
        "/cut" => cut.clone(),
        _ => answer::status(200, "whole"),
    };
    let (router, _shop, _bus) = shop_of(H2C, instance::serving("shop.test").answering_each(script)).await;
    let client = Client::clear(&router).await;
    let mut cut = client.get("/cut").await.into_body();
    let half = in_time("one half", cut.frame()).await.expect("not the end").expect("no reset");
    assert_eq!(half.into_data().expect("data"), "half");
    gate.open();
    assert!(in_time("the end", cut.collect()).await.is_err());
    assert_eq!(whole(client.get("/").await).await.0, "whole");
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let script = |request: &instance::Received| match (request.method(), request.target()) {
        ("HEAD", _) => Answer::new().write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        (_, "/204") => Answer::new().write("HTTP/1.1 204 No Content\r\n\r\n"),
        (_, "/304") => Answer::new().write("HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n"),
        _ => Answer::new()
            .write("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\nend")
            .then(Step::Close),
    };
    let (router, _shop, _bus) = shop_of(H2C, instance::serving("shop.test").answering_each(script)).await;
    let client = Client::clear(&router).await;
    for (method, path, status, length, body) in [
        ("HEAD", "/", 200, Some("10"), ""),
        ("GET", "/204", 204, None, ""),
        ("GET", "/304", 304, Some("10"), ""),
        ("GET", "/until-close", 200, None, "end"),
    ] {
        let asked = client.send(request(method, path, Empty::new().boxed()));
        let response = in_time("a response", asked).await.expect("a response");
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        let said = response.headers().get("content-length").map(|value| value.to_str().expect("text").to_owned());
        assert_eq!(said.as_deref(), length, "{method} {path}");
        assert_eq!(whole(response).await.0, body, "{method} {path}");
    }
}

#[tokio::test]
async fn a_name_whose_value_differs_each_time_is_spelt_out_once() {
    let (router, _shop, _bus) = shop(H2C, answer::status(200, "hello")).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/")];
    let mut raw = raw::Raw::connect(router.address()).await;
    let mut sizes = Vec::new();
    for stream in [1, 3, 5] {
        raw.send(raw::frame(raw::HEADERS, raw::END_STREAM | raw::END_HEADERS, stream, raw::block(&fields))).await;
        let head = in_time("a response", async {
            loop {
                match raw.frame().await.expect("the connection goes on") {
                    frame if frame.kind == raw::HEADERS => break frame,
                    _ => {}
                }
            }
        });
        sizes.push(head.await.payload.len());
    }
    // An id of 36 characters is 23 to 27 bytes in the code of Huffman, its name 13.
    assert!(sizes[0] > 40 && sizes[1] < 40 && sizes[2] < 40, "{sizes:?}");
}

#[tokio::test]
async fn a_router_that_drains_says_goodbye_and_finishes_what_it_has_begun() {
    let gate = Gate::closed();
    let (mut router, shop, _bus) = shop(H2C, answer::status(200, "hello").behind(&gate)).await;
    let (busy, idle) = (Client::clear(&router).await, Client::clear(&router).await);
    let asked = tokio::spawn(busy.send(get("/")));
    shop.until_begun(1).await;
    router.drain().await;
    in_time("the goodbye", idle.connection).await.expect("no panic").expect("a proper end");
    gate.open();
    let response = in_time("the response", asked).await.expect("no panic").expect("a response");
    assert_eq!(whole(response).await.0, "hello");
    in_time("the goodbye", busy.connection).await.expect("no panic").expect("a proper end");
}

#[tokio::test]
async fn a_connection_without_requests_ends_after_a_while() {
    let (router, _shop, _bus) = shop(&format!("{H2C}\ntimeouts.client_idle = \"50ms\""), answer::status(200, "")).await;
    let client = Client::clear(&router).await;
    assert_eq!(client.get("/").await.status(), 200);
    in_time("the goodbye", client.connection).await.expect("no panic").expect("a proper end");
}

// On one thread: on several, this client may call a request that it has just sent one that it has not.
#[tokio::test]
async fn every_request_that_reaches_an_instance_while_the_router_drains_is_answered() {
    const STREAMS: usize = 4;
    for _ in 0..10 {
        let (mut router, shop, _bus) = shop(H2C, answer::status(200, "hello")).await;
        let client = Arc::new(Client::clear(&router).await);
        let asking = (0..STREAMS).map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut answered = 0;
                // An error is the goodbye: this stream was not begun any more.
                while let Ok(response) = client.send(get("/")).await {
                    assert_eq!(whole(response).await.0, "hello");
                    answered += 1;
                }
                answered
            })
        });
        let asking: Vec<_> = asking.collect();
        shop.until_begun(10 * STREAMS).await;
        router.drain().await;
        let mut answered = 0;
        for asked in asking {
            answered += in_time("the goodbye", asked).await.expect("no answer is cut");
        }
        assert_eq!(answered, shop.begun());
    }
}

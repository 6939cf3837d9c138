//! The bus over real NATS servers: what arrives, what survives an outage, who is let in, and what happens at the limits.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use weighbridge::adapters::bus::{self, Attached, Bus, Limits};
use weighbridge::config::{NatsAuth, NatsConfig};
use weighbridge::domain::dice::Dice;
use weighbridge::domain::protocol::envelope::{BusEvent, Incoming, Outgoing};
use weighbridge::runtime::bus_state::Dropped;

use crate::harness::{eventually, in_time, millis};
use crate::nats;

mod access;
mod memory;

const SUBJECTS: &[&str] =
    &["router.register", "router.unregister", "router.greet", "dea.heartbeat", "dea.shutdown", "droplet.exited"];

/// A configuration with nothing but servers in it.
fn config(servers: &[&nats::Server]) -> NatsConfig {
    NatsConfig {
        servers: servers.iter().map(|server| server.url()).collect(),
        auth: NatsAuth::None,
        ca: None,
        identity: None,
        ping_interval: Duration::from_secs(20),
        server_cache: None,
    }
}

/// The router's side of the bus.
struct Router {
    attached: Attached,
}

fn router(config: NatsConfig) -> Router {
    router_with(config, Limits::default())
}

fn router_with(config: NatsConfig, limits: Limits) -> Router {
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    Router { attached: bus::start(Bus::Nats(config), SUBJECTS, limits, Dice::seeded(seed)) }
}

impl Router {
    #[track_caller]
    fn event(&mut self) -> impl Future<Output = BusEvent> {
        let next = in_time("the next event of the bus", self.attached.events.recv());
        async { next.await.expect("the bus runs") }
    }

    async fn is_connected(&mut self) {
        assert_eq!(self.event().await, BusEvent::Connected);
        assert!(self.attached.state.is_connected());
    }

    async fn is_disconnected(&mut self) {
        assert_eq!(self.event().await, BusEvent::Disconnected);
    }

    async fn hears(&mut self) -> (String, String) {
        match self.event().await {
            BusEvent::Message(Incoming { subject, payload, .. }) => {
                (subject, String::from_utf8(payload.to_vec()).expect("tests send text"))
            }
            other => panic!("a message was expected, not {other:?}"),
        }
    }

    async fn hears_exactly(&mut self, subject: &str, payload: &str) {
        assert_eq!(self.hears().await, (subject.to_owned(), payload.to_owned()));
    }

    async fn says(&self, subject: &str, payload: impl Into<Bytes>) {
        let message = Outgoing { subject: subject.to_owned(), payload: payload.into(), reply: None };
        self.attached.outgoing.send(message).await.expect("the bus runs");
    }

    fn dropped(&self, reason: Dropped) -> u64 {
        self.attached.state.dropped(reason)
    }

    fn last_error(&self) -> String {
        self.attached.state.last_error().unwrap_or_default()
    }
}

/// Somebody else on the bus.
async fn peer(server: &nats::Server) -> async_nats::Client {
    async_nats::connect(server.url()).await.expect("the server lets everybody in")
}

async fn publish(peer: &async_nats::Client, subject: &str, payload: &str) {
    peer.publish(subject.to_owned(), Bytes::copy_from_slice(payload.as_bytes())).await.expect("the peer is connected");
    peer.flush().await.expect("the peer is connected");
}

async fn subscribe(peer: &async_nats::Client, subject: &str) -> async_nats::Subscriber {
    let subscriber = peer.subscribe(subject.to_owned()).await.expect("the peer is connected");
    // An answer from the server shows that it has the subscription.
    let nobody = peer.request("nobody.is.here", Bytes::new()).await;
    assert!(nobody.is_err());
    subscriber
}

#[tokio::test]
async fn messages_come_in_and_go_out() {
    let server = nats::server().await;
    let peer = peer(&server).await;
    let mut started = subscribe(&peer, "router.start").await;
    let mut router = router(config(&[&server]));
    router.is_connected().await;
    assert_eq!(router.attached.state.server(), server.address());
    router.says("router.start", "hello").await;
    assert_eq!(in_time("router.start", started.next()).await.expect("the peer is connected").payload, "hello");

    publish(&peer, "router.stats", "not for us").await;
    publish(&peer, "router.register", "1").await;
    router.hears_exactly("router.register", "1").await;
    publish(&peer, "droplet.exited", "2").await;
    router.hears_exactly("droplet.exited", "2").await;
    assert_eq!((router.attached.state.received(), router.attached.state.sent()), (2, 1));
    assert_eq!(router.attached.state.dropped_in_all(), 0);
}

#[tokio::test]
async fn a_question_is_answered_to_whoever_asked() {
    let server = nats::server().await;
    let mut router = router(config(&[&server]));
    router.is_connected().await;
    let peer = peer(&server).await;
    let asking = tokio::spawn(async move { peer.request("router.greet", "who?".into()).await });
    let BusEvent::Message(question) = router.event().await else { panic!("no question came") };
    assert_eq!((&*question.subject, &question.payload[..]), ("router.greet", &b"who?"[..]));
    router.says(&question.reply.expect("the peer waits for an answer"), "0-2c1e").await;
    let answer = in_time("the answer", asking).await.expect("the peer did not panic").expect("there is an answer");
    assert_eq!(answer.payload, "0-2c1e");
}

#[tokio::test]
async fn an_unregistration_never_overtakes_its_registration() {
    const PAIRS: usize = 2_000;
    let server = nats::server().await;
    let mut router = router(config(&[&server]));
    router.is_connected().await;
    let peer = peer(&server).await;
    for n in 0..PAIRS {
        peer.publish("router.register", n.to_string().into()).await.expect("the peer is connected");
        peer.publish("router.unregister", n.to_string().into()).await.expect("the peer is connected");
    }
    for n in 0..PAIRS {
        router.hears_exactly("router.register", &n.to_string()).await;
        router.hears_exactly("router.unregister", &n.to_string()).await;
    }
}

#[tokio::test]
async fn a_hundred_thousand_registrations_at_once_all_arrive() {
    const BURST: usize = 100_000;
    let server = nats::server().await;
    let mut router = router(config(&[&server]));
    router.is_connected().await;
    let registration = |n: usize| format!("{{\"host\": \"10.0.{}.{}\", \"pad\": \"{n:0>500}\"}}", n / 250, n % 250);
    // From a thread of its own, so that it never waits for the router.
    let burst = tokio::task::spawn_blocking({
        let url = server.url();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let peer = async_nats::connect(url).await.expect("the server lets everybody in");
                for n in 0..BURST {
                    peer.publish("router.register", registration(n).into()).await.expect("the peer is connected");
                }
                peer.flush().await.expect("the peer is connected");
            });
        }
    });
    in_time("the burst", burst).await.expect("nothing panicked");
    for n in 0..BURST {
        router.hears_exactly("router.register", &registration(n)).await;
    }
    assert_eq!((router.attached.state.received(), router.attached.state.dropped_in_all()), (BURST as u64, 0));
}

#[tokio::test]
async fn a_router_that_does_not_keep_up_loses_messages_and_counts_them() {
    let server = nats::server().await;
    let mut router = router_with(config(&[&server]), Limits { incoming: 10, ..Limits::default() });
    router.is_connected().await;
    let peer = peer(&server).await;
    for n in 0..100 {
        publish(&peer, "router.register", &n.to_string()).await;
    }
    let state = router.attached.state.clone();
    eventually("ninety messages are lost", || state.dropped(Dropped::QueueFull) == 90).await;
    for n in 0..10 {
        router.hears_exactly("router.register", &n.to_string()).await;
    }
    publish(&peer, "router.register", "after").await;
    router.hears_exactly("router.register", "after").await;
    assert_eq!((state.received(), state.dropped_in_all()), (11, 90));
}

#[tokio::test]
async fn a_message_larger_than_allowed_is_left_out_and_counted() {
    let server = nats::server().await;
    let mut router = router_with(config(&[&server]), Limits { message_bytes: 100, ..Limits::default() });
    router.is_connected().await;
    let peer = peer(&server).await;
    publish(&peer, "router.register", &"x".repeat(101)).await;
    publish(&peer, "router.register", &"y".repeat(100)).await;
    router.hears_exactly("router.register", &"y".repeat(100)).await;
    assert_eq!(router.dropped(Dropped::Oversized), 1);
}

#[tokio::test]
async fn a_message_the_server_would_not_take_is_refused_and_the_connection_stays() {
    let server = nats::server_with("max_payload: 1000").await;
    let peer = peer(&server).await;
    let mut all = subscribe(&peer, "app.*").await;
    let mut router = router(config(&[&server]));
    router.is_connected().await;
    router.says("app.wake", vec![b'x'; 1001]).await;
    router.says("not a subject", "").await;
    router.says("app.*", "").await;
    router.says("app.wake", vec![b'y'; 1000]).await;
    let arrived = in_time("the message that fits", all.next()).await.expect("the peer is connected");
    assert_eq!(arrived.payload, vec![b'y'; 1000]);
    assert_eq!((router.dropped(Dropped::Refused), router.attached.state.sent()), (3, 1));
    assert_eq!((router.attached.state.is_connected(), router.attached.state.connects()), (true, 1));
}

#[tokio::test]
async fn after_an_outage_the_router_is_subscribed_before_it_says_so_and_sends_nothing_stale() {
    let mut server = nats::server().await;
    let mut router = router(config(&[&server]));
    router.is_connected().await;
    server.kill();
    router.is_disconnected().await;
    let state = router.attached.state.clone();
    assert!(!state.is_connected());
    assert!(router.last_error().contains(&server.address()), "{}", router.last_error());
    router.says("router.start", "stale").await;
    eventually("what cannot go out is dropped", || state.dropped(Dropped::Disconnected) == 1).await;

    server.start().await;
    let peer = peer(&server).await;
    let mut started = subscribe(&peer, "router.start").await;
    router.is_connected().await;
    publish(&peer, "router.register", "right away").await;
    router.hears_exactly("router.register", "right away").await;
    router.says("router.start", "fresh").await;
    assert_eq!(in_time("router.start", started.next()).await.expect("the peer is connected").payload, "fresh");
    assert_eq!((state.connects(), state.last_error()), (2, None));
}

#[tokio::test]
async fn many_outages_in_a_row_are_each_told_once() {
    let mut server = nats::server().await;
    let mut router = router(config(&[&server]));
    router.is_connected().await;
    for outage in 1..=5 {
        server.restart().await;
        router.is_disconnected().await;
        router.is_connected().await;
        let peer = peer(&server).await;
        publish(&peer, "dea.heartbeat", &outage.to_string()).await;
        router.hears_exactly("dea.heartbeat", &outage.to_string()).await;
    }
    assert_eq!(router.attached.state.connects(), 6);
}

#[tokio::test]
async fn a_router_waits_for_a_server_that_comes_later() {
    let mut server = nats::Server::prepare("");
    let mut router = router(config(&[&server]));
    let state = router.attached.state.clone();
    eventually("several attempts failed", || state.failures() >= 3).await;
    assert!(router.last_error().starts_with(&format!("cannot connect to {}", server.address())));
    server.start().await;
    router.is_connected().await;
    let peer = peer(&server).await;
    publish(&peer, "router.register", "1").await;
    router.hears_exactly("router.register", "1").await;
}

#[tokio::test]
async fn a_server_that_falls_silent_counts_as_gone() {
    let server = nats::server().await;
    let mut router = router(NatsConfig { ping_interval: Duration::from_millis(400), ..config(&[&server]) });
    router.is_connected().await;
    server.freeze();
    router.is_disconnected().await;
    server.thaw();
    router.is_connected().await;
    let peer = peer(&server).await;
    publish(&peer, "router.register", "1").await;
    router.hears_exactly("router.register", "1").await;
}

#[tokio::test]
async fn a_stalled_connection_stalls_nothing_but_itself() {
    let server = nats::server().await;
    let mut router = router(NatsConfig { ping_interval: Duration::from_millis(400), ..config(&[&server]) });
    router.is_connected().await;
    server.freeze();
    // More than the sockets between us take, and more than may wait.
    let large = Outgoing { subject: "app.wake".into(), payload: vec![b'x'; 100_000].into(), reply: None };
    let waiting = (0..10_000).take_while(|_| router.attached.outgoing.try_send(large.clone()).is_ok()).count();
    assert!(waiting < 10_000, "the queue has an end");
    router.is_disconnected().await;
    let state = router.attached.state.clone();
    eventually("what is left is dropped", || state.sent() + state.dropped_in_all() == waiting as u64).await;
    assert!(state.dropped(Dropped::Disconnected) > 0);
    server.thaw();
    router.is_connected().await;
}

#[tokio::test]
async fn a_router_goes_to_another_server_when_its_own_dies() {
    let mut servers = nats::cluster(2, "").await;
    let mut router = router(config(&[&servers[0]]));
    router.is_connected().await;
    servers[0].kill();
    router.is_disconnected().await;
    router.is_connected().await;
    assert_eq!(router.attached.state.server(), servers[1].address(), "learnt from the first");
    let peer = peer(&servers[1]).await;
    publish(&peer, "router.register", "1").await;
    router.hears_exactly("router.register", "1").await;
}

#[tokio::test]
async fn a_server_that_joins_the_cluster_later_is_learnt() {
    let mut servers = [nats::Server::prepare(""), nats::Server::prepare("")];
    nats::introduce(&mut servers);
    let [first, second] = &mut servers;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let cache = folder.path().join("servers.json");
    first.start().await;
    let mut router = router(NatsConfig { server_cache: Some(cache.clone()), ..config(&[first]) });
    router.is_connected().await;
    second.start().await;
    let (cache, address) = (&cache, second.address());
    eventually("the second server is remembered", || remembers(cache, &address)).await;
    first.kill();
    router.is_disconnected().await;
    router.is_connected().await;
    assert_eq!(router.attached.state.server(), address);
}

#[tokio::test]
async fn a_router_that_starts_while_its_configured_server_is_down_finds_the_others() {
    let mut servers = nats::cluster(3, "").await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let cache = folder.path().join("servers.json");
    let config = NatsConfig { server_cache: Some(cache.clone()), ..config(&[&servers[0]]) };
    let mut first_life = router(config.clone());
    first_life.is_connected().await;
    for server in &servers[1..] {
        let address = server.address();
        eventually("the other servers are remembered", || remembers(&cache, &address)).await;
    }
    drop(first_life);
    servers[0].kill();
    servers[1].kill();

    let mut second_life = router(config);
    second_life.is_connected().await;
    assert_eq!(second_life.attached.state.server(), servers[2].address());
}

#[tokio::test]
async fn a_corrupt_cache_file_is_ignored_and_replaced() {
    let servers = nats::cluster(2, "").await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let cache = nats::write(folder.path(), "servers.json", "{\"servers\": [\"10.0.");
    let mut router = router(NatsConfig { server_cache: Some(cache.clone()), ..config(&[&servers[0]]) });
    router.is_connected().await;
    let address = servers[1].address();
    eventually("the file is good again", || remembers(&cache, &address)).await;
}

fn remembers(cache: &Path, address: &str) -> bool {
    let text = std::fs::read_to_string(cache).unwrap_or_default();
    serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|file| {
        file["servers"].as_array().is_some_and(|servers| servers.iter().any(|server| server == address))
    })
}

#[tokio::test]
async fn the_bus_ends_with_the_router_and_what_it_still_had_to_say_goes_out() {
    let server = nats::server().await;
    let peer = peer(&server).await;
    let mut all = subscribe(&peer, "app.*").await;
    let mut router = router(config(&[&server]));
    router.is_connected().await;
    for n in 0..100 {
        router.says("app.wake", n.to_string()).await;
    }
    let Attached { mut events, outgoing, .. } = router.attached;
    drop(outgoing);
    assert_eq!(in_time("the bus ends", events.recv()).await, None);
    for n in 0..100 {
        let arrived = in_time("the last words", all.next()).await.expect("the peer is connected");
        assert_eq!(arrived.payload, n.to_string());
    }
}

fn message(subject: &str, payload: impl Into<Bytes>) -> Outgoing {
    Outgoing { subject: subject.into(), payload: payload.into(), reply: None }
}

#[tokio::test]
async fn one_message_is_published_from_a_shell() {
    let mut server = nats::server_with("max_payload: 1000").await;
    let peer = peer(&server).await;
    let mut all = subscribe(&peer, "router.register").await;
    let config = config(&[&server]);
    let publish = async |subject: &str, payload: Bytes| {
        let result = in_time("publishing", bus::publish(&config, message(subject, payload), Dice::seeded(1))).await;
        result.map_err(|error| error.to_string())
    };
    assert_eq!(publish("router.register", "1".into()).await, Ok(server.address()));
    assert_eq!(in_time("the message", all.next()).await.expect("the peer is connected").payload, "1");
    let complaint = publish("router register", "1".into()).await.expect_err("no subject");
    assert!(complaint.contains("is not a subject"), "{complaint}");
    let complaint = publish("router.register", vec![b'x'; 1001].into()).await.expect_err("too large");
    assert!(complaint.contains("1001") && complaint.contains("exceed"), "{complaint}");
    server.kill();
    let complaint = publish("router.register", "1".into()).await.expect_err("no server");
    assert!(complaint.starts_with(&format!("cannot connect to {}", server.address())), "{complaint}");
}

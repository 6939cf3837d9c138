//! The life of the process: how it starts, what signals do, and how one takes the place of another.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpStream, UnixDatagram};
use tokio::task::JoinHandle;

use crate::harness::answer::{self, Gate};
use crate::harness::client::Request;
use crate::harness::message::Stream;
use crate::harness::process::{Folder, Process, free_port};
use crate::harness::tls::Speaker;
use crate::harness::{bus, eventually, in_time, instance, millis, router};
use weighbridge::domain::balance::Outcome;
use weighbridge::domain::table::snapshot::Found;

/// Clients that go on asking until they are told to stop, and remember everything that went wrong.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
}

/// How a client behaves.
#[derive(Clone, Copy, PartialEq)]
pub enum Manner {
    /// Each request on a connection of its own.
    Anew,
    /// All on one connection, as long as the router does not say otherwise. That it closes under a request, or unannounced,
    /// is a failure.
    Keeping,
}

impl Crowd {
    /// `count` clients; each asks `every` so often.
    pub fn of(count: usize, manner: Manner, every: Duration, to: SocketAddr) -> Crowd {
        Crowd::gather(count, every, &Client { to, manner, tls: None, kept: None })
    }

    /// The same over TLS.
    pub fn over_tls(count: usize, manner: Manner, every: Duration, to: SocketAddr, speaker: &Speaker) -> Crowd {
        Crowd::gather(count, every, &Client { to, manner, tls: Some(speaker.clone()), kept: None })
    }

    fn gather(count: usize, every: Duration, like: &Client) -> Crowd {
        let mut crowd =
            Crowd { stop: Arc::default(), answered: Arc::default(), failures: Arc::default(), clients: Vec::new() };
        for _ in 0..count {
            let (stop, answered, failures) = (crowd.stop.clone(), crowd.answered.clone(), crowd.failures.clone());
            let Client { to, manner, ref tls, .. } = *like;
            let mut client = Client { to, manner, tls: tls.clone(), kept: None };
            crowd.clients.push(tokio::spawn(async move {
                let mut ticks = tokio::time::interval(every);
                while !stop.load(Relaxed) {
                    ticks.tick().await;
                    match client.ask().await {
                        Ok(()) => _ = answered.fetch_add(1, Relaxed),
                        Err(error) => failures.lock().push(error.to_string()),
                    }
                }
            }));
        }
        crowd
    }

    /// Waits for some more answers.
    pub async fn answers(&self, more: usize) {
        let enough = self.answered.load(Relaxed) + more;
        eventually("answers go on", || self.answered.load(Relaxed) >= enough || !self.failures.lock().is_empty()).await;
    }

    /// Ends it; nothing must have gone wrong. How many requests were answered.
    pub async fn went_well(self) -> usize {
        self.stop.store(true, Relaxed);
        for client in self.clients {
            in_time("a client to end", client).await.expect("clients do not panic");
        }
        let failures = self.failures.lock();
        assert!(failures.is_empty(), "{} failed: {:?}", failures.len(), &failures[..failures.len().min(5)]);
        self.answered.load(Relaxed)
    }
}

struct Client {
    to: SocketAddr,
    manner: Manner,
    tls: Option<Speaker>,
    kept: Option<Stream>,
}

impl Client {
    async fn ask(&mut self) -> io::Result<()> {
        let mut stream = match (self.kept.take(), &self.tls) {
            (Some(kept), _) => kept,
            (None, None) => Stream::new(TcpStream::connect(self.to).await?),
            (None, Some(speaker)) => speaker.connect(self.to, "shop.test").await?.0,
        };
        let wish = if self.manner == Manner::Anew { "close" } else { "keep-alive" };
        stream.send(format!("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: {wish}\r\n\r\n")).await?;
        let answer = stream.response_to("GET").await?;
        if answer.status() != 200 {
            return Err(io::Error::other(format!("{} {}", answer.start, answer.text())));
        }
        self.kept = (!answer.says_close()).then_some(stream);
        Ok(())
    }
}

/// Settings of a router that serves `shop.test` from the start.
pub fn settings(port: u16, admin: u16, shop: &instance::Instance) -> String {
    format!(
        "workers = 2\nhttp.listen = [\"127.0.0.1:{port}\"]\nadmin.listen = \"127.0.0.1:{admin}\"\naccess_log.path = \"\"\n\
         [[route]]\nhost = \"shop.test\"\ninstances = [{{ host = \"127.0.0.1\", port = {} }}]\n",
        shop.address().port()
    )
}

/// Where that port is.
pub fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_takes_the_place_of_another_and_no_connection_is_lost() {
    const RESTARTS: usize = 20;
    let shop = instance::serving("shop.test").alone().await;
    let folder = Folder::new();
    let (port, admin) = (free_port(), free_port());
    let config = folder.write("router.toml", &settings(port, admin, &shop));
    let mut old = Process::serving(&config, folder.path("log-0")).await;
    let crowd = Crowd::of(8, Manner::Anew, Duration::from_nanos(1), at(port));
    let keeping = Crowd::of(8, Manner::Keeping, millis(10), at(port));
    for nth in 1..=RESTARTS {
        crowd.answers(50).await;
        keeping.answers(16).await;
        let new = Process::serving(&config, folder.path(&format!("log-{nth}"))).await;
        old.signal("USR1");
        assert!(old.ended().await.success(), "{}", old.log());
        assert!(new.log().contains("took over the listeners"), "{}", new.log());
        old = new;
    }
    crowd.answers(50).await;
    keeping.went_well().await;
    let answered = crowd.went_well().await;
    assert!(answered >= 50 * RESTARTS, "only {answered} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_to_leave_may_come_twice_and_a_second_one_to_end_ends_at_once() {
    let gate = Gate::closed();
    let shop = instance::serving("shop.test").answering(answer::status(200, "late").behind(&gate)).alone().await;
    let folder = Folder::new();
    for (first, again, last) in [("USR1", &["USR1", "TERM"][..], "INT"), ("TERM", &["USR1"], "INT")] {
        let port = free_port();
        let config = folder.write("router.toml", &settings(port, free_port(), &shop));
        let mut router = Process::serving(&config, folder.path("log")).await;
        let begun = shop.begun();
        let pending = Request::new(at(port), "GET", "shop.test/").begin();
        shop.until_begun(begun + 1).await;
        router.signal(first);
        router.until_it_says("leaving").await;
        again.iter().for_each(|signal| router.signal(signal));
        in_time("the port to close", async {
            while TcpStream::connect(at(port)).await.is_ok() {
                tokio::time::sleep(millis(5)).await;
            }
        })
        .await;
        assert!(router.is_running(), "a request is in flight: {}", router.log());
        router.signal(last);
        assert!(router.ended().await.success());
        pending.abandon().await;
    }
    gate.open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_manager_hears_when_it_serves_reloads_and_ends() {
    let shop = instance::serving("shop.test").alone().await;
    let folder = Folder::new();
    let manager = UnixDatagram::bind(folder.path("notify")).expect("a name of our own");
    let heard = async || {
        let mut bytes = [0; 256];
        let length = in_time("a word to the manager", manager.recv(&mut bytes)).await.expect("a datagram");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let (port, settings) = (free_port(), |port| settings(port, free_port(), &shop));
    let config = folder.write("router.toml", &format!("table.prime_for = \"3s\"\n{}", settings(port)));
    let name = folder.path("notify").to_string_lossy().into_owned();
    let mut router = Process::started(&config, folder.path("log"), &[("NOTIFY_SOCKET", &name)]);
    router.until_it_says("starting").await;
    assert!(TcpStream::connect(at(port)).await.is_err(), "the port is open before anybody is served");
    assert_eq!(heard().await, "READY=1");
    assert_eq!(Request::new(at(port), "GET", "shop.test/").await.status(), 200);
    for text in ["nonsense".to_owned(), settings(port)] {
        folder.write("router.toml", &text);
        router.signal("HUP");
        let reloading = heard().await;
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert_eq!(heard().await, "READY=1");
        assert_eq!(Request::new(at(port), "GET", "shop.test/").await.status(), 200);
    }
    assert!(router.log().contains("not reloaded") && router.log().contains("configuration reloaded"));
    router.signal("TERM");
    assert_eq!(heard().await, "STOPPING=1");
    assert!(router.ended().await.success());
}

#[tokio::test]
async fn a_panic_costs_the_request_it_happens_in_and_no_other() {
    if !cfg!(debug_assertions) {
        return; // the fault is one that only debug builds notice
    }
    let gates = [Gate::closed(), Gate::closed()];
    let bus = bus::embedded().await;
    let behind = |gate: &Gate| answer::status(200, "well").behind(gate);
    let shop = instance::serving("shop.test").answering(behind(&gates[0])).on(&bus).await;
    let broken = instance::serving("broken.test").answering(behind(&gates[1])).on(&bus).await;
    let router = router::with("workers = 1").logging("json").on(&bus).await;
    router.until(|r| r.knows("shop.test") && r.knows("broken.test")).await;
    let pending = router.get("shop.test/").begin();
    shop.until_begun(1).await;
    let ask = async || {
        let mut wire = router.wire().await;
        wire.send(router.get("broken.test/").bytes()).await.expect("it takes bytes");
        wire
    };
    let mut wire = ask().await;
    broken.until_begun(1).await;

    // A request that is counted off twice: no message and no client can bring that about.
    let routes = router.running.routes.get();
    let Found::Pool(pool) = routes.lookup("broken.test", "/") else { panic!("it is known") };
    pool.endpoints[0].live.answered(&pool.fleet, Outcome::Cancelled, router.running.clock.now());
    gates[1].open();
    wire.closed().await;
    for _ in 0..2 {
        ask().await.closed().await;
    }

    gates[0].open();
    assert_eq!(pending.response().await.text(), "well");
    assert_eq!(router.get("shop.test/").await.text(), "well");
    router.until_metric("weighbridge_connections_open", |count| count == 0.0).await;
    let failed = r#"weighbridge_router_errors_total{error="internal"}"#;
    router.until_metric(failed, |count| count == 3.0).await;
    let lines = router.until_logged(5).await;
    assert_eq!(lines.iter().filter(|line| line.contains(r#""ending":"failed""#)).count(), 3, "{lines:?}");
}

//! The life of the process: how it starts, what signals do, and how one takes the place of another.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::harness::answer::{self, Gate};
use crate::harness::client::Request;
use crate::harness::message::Stream;
use crate::harness::process::{Folder, Process, free_port};
use crate::harness::{eventually, in_time, instance, millis};

/// Clients that go on asking until they are told to stop, and remember everything that went wrong.
struct Crowd {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
}

/// How a client behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Each request on a connection of its own.
    Anew,
    /// All on one connection, as long as the router does not say otherwise. That it closes under a request, or unannounced,
    /// is a failure.
    Keeping,
}

impl Crowd {
    /// `count` clients; each asks `every` so often.
    fn of(count: usize, manner: Manner, every: Duration, to: SocketAddr) -> Crowd {
        let mut crowd =
            Crowd { stop: Arc::default(), answered: Arc::default(), failures: Arc::default(), clients: Vec::new() };
        for _ in 0..count {
            let (stop, answered, failures) = (crowd.stop.clone(), crowd.answered.clone(), crowd.failures.clone());
            crowd.clients.push(tokio::spawn(async move {
                let (mut client, mut ticks) = (Client { to, manner, kept: None }, tokio::time::interval(every));
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
    async fn answers(&self, more: usize) {
        let enough = self.answered.load(Relaxed) + more;
        eventually("answers go on", || self.answered.load(Relaxed) >= enough || !self.failures.lock().is_empty()).await;
    }

    /// Ends it; nothing must have gone wrong. How many requests were answered.
    async fn went_well(self) -> usize {
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
    kept: Option<Stream>,
}

impl Client {
    async fn ask(&mut self) -> io::Result<()> {
        let mut stream = match self.kept.take() {
            Some(kept) => kept,
            None => Stream::new(TcpStream::connect(self.to).await?),
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
fn settings(port: u16, admin: u16, shop: &instance::Instance) -> String {
    format!(
        "workers = 2\nhttp.listen = [\"127.0.0.1:{port}\"]\nadmin.listen = \"127.0.0.1:{admin}\"\naccess_log.path = \"\"\n\
         [[route]]\nhost = \"shop.test\"\ninstances = [{{ host = \"127.0.0.1\", port = {} }}]\n",
        shop.address().port()
    )
}

fn at(port: u16) -> SocketAddr {
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
    for (first, again, last) in [("USR1", "USR1", "TERM"), ("TERM", "USR1", "INT")] {
        let port = free_port();
        let config = folder.write("router.toml", &settings(port, free_port(), &shop));
        let mut router = Process::serving(&config, folder.path("log")).await;
        let begun = shop.begun();
        let pending = Request::new(at(port), "GET", "shop.test/").begin();
        shop.until_begun(begun + 1).await;
        router.signal(first);
        router.until_it_says("leaving").await;
        router.signal(again);
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

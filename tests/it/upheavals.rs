//! Everything that happens in the life of a router, one thing after the other, under steady traffic.

use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::bus::{self, Bus};
use crate::harness::client::Request;
use crate::harness::instance::{self, Instance};
use crate::harness::process::{Folder, Process, free_port};
use crate::harness::tls::{Authority, Pair, Speaker};
use crate::harness::{eventually, in_time, millis};
use crate::life::{Crowd, Manner, at};
use crate::nats;

/// Clients, and how often each asks: five hundred requests a second together.
const CLIENTS: usize = 40;
const EVERY: Duration = Duration::from_millis(80);

/// Requests that are answered before anything else happens.
const CALM: usize = 150;

struct Scene {
    folder: Folder,
    authority: Authority,
    pair: Pair,
    nats: nats::Server,
    bus: Bus,
    http: SocketAddr,
    https: SocketAddr,
    admin: SocketAddr,
    crowds: Vec<Crowd>,
}

impl Scene {
    async fn set() -> Scene {
        let nats = nats::server().await;
        let authority = Authority::new();
        let [http, https, admin] = [(); 3].map(|()| at(free_port()));
        Scene {
            folder: Folder::new(),
            pair: authority.issue("shop", &["shop.test"]),
            authority,
            bus: bus::nats(&nats.url()).await,
            nats,
            http,
            https,
            admin,
            crowds: Vec::new(),
        }
    }

    /// The file that the router reads, with whatever else it shall have.
    fn configure(&self, more: &str) -> std::path::PathBuf {
        let (Pair { cert, key, .. }, Scene { http, https, admin, .. }) = (&self.pair, self);
        let text = format!(
            "workers = 2\nhttp.listen = [\"{http}\"]\nadmin.listen = \"{admin}\"\naccess_log.path = \"\"\n\
             nats.servers = [{:?}]\ntable.prime_for = \"1s\"\n\
             [https]\nlisten = [\"{https}\"]\ncertificates = [{{ cert = {cert:?}, key = {key:?} }}]\n{more}",
            self.nats.url(),
        );
        self.folder.write("router.toml", &text)
    }

    fn speaker(&self) -> Speaker {
        self.authority.client().ready()
    }

    /// Three kinds of clients begin to ask, and never stop.
    fn traffic(&mut self) {
        let share = CLIENTS / 4;
        self.crowds = vec![
            Crowd::of(share, Manner::Anew, EVERY, self.http),
            Crowd::of(2 * share, Manner::Keeping, EVERY, self.http),
            Crowd::over_tls(share, Manner::Keeping, EVERY, self.https, &self.speaker()),
        ];
    }

    async fn calm(&self) {
        for crowd in &self.crowds {
            crowd.answers(CALM / self.crowds.len()).await;
        }
    }

    /// Whether the router's table has, or has not, this address.
    async fn until_routed(&self, instance: &Instance, is_routed: bool) {
        let address = instance.address().to_string();
        in_time("the table", async {
            loop {
                let table = Request::new(self.admin, "GET", &format!("{}/routes", self.admin)).await.text();
                if table.contains(&address) == is_routed {
                    return;
                }
                tokio::time::sleep(millis(10)).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_requests_a_second_run_through_every_upheaval() {
    let mut scene = Scene::set().await;
    let mut instances = vec![instance::serving("shop.test").on(&scene.bus).await];
    let agents = scene.bus.say_again_every(millis(100));
    let mut router = Process::serving(&scene.configure(""), scene.folder.path("log-0")).await;
    scene.until_routed(&instances[0], true).await;
    scene.traffic();
    scene.calm().await;

    // Another certificate.
    let before = scene.pair.certificate.clone();
    scene.pair = scene.authority.issue("shop", &["shop.test"]);
    router.signal("HUP");
    in_time("the new certificate", async {
        while scene.speaker().connect(scene.https, "shop.test").await.expect("TLS").1.certificate == before {}
    })
    .await;
    scene.calm().await;

    // Another configuration: first one that cannot be, then one with a new route.
    scene.configure("[tiemouts]\n");
    router.signal("HUP");
    router.until_it_says("was not reloaded").await;
    let more = format!(
        "[[route]]\nhost = \"new.test\"\ninstances = [{{ host = \"127.0.0.1\", port = {} }}]\n",
        instances[0].address().port()
    );
    scene.configure(&more);
    router.signal("HUP");
    in_time("the new route", async { while Request::new(scene.http, "GET", "new.test/").await.status() != 200 {} })
        .await;
    scene.calm().await;

    // Instances come and go; those that go say so, and finish what they have begun.
    for nth in 0..5 {
        let fresh = instance::serving("shop.test").on(&scene.bus).await;
        scene.until_routed(&fresh, true).await;
        instances.push(fresh);
        let old = instances.remove(0);
        old.unregister(&scene.bus).await;
        let is_static = nth == 0; // `new.test` keeps it
        if !is_static {
            scene.until_routed(&old, false).await;
        }
        eventually("the last answers", || old.answered() == old.begun()).await;
        old.kill().await;
        scene.calm().await;
    }

    // The bus goes, stays away, and comes back.
    scene.nats.kill();
    scene.calm().await;
    scene.nats.start().await;
    let fresh = instance::serving("shop.test").on(&scene.bus).await;
    scene.until_routed(&fresh, true).await;
    instances.push(fresh);
    scene.calm().await;

    // Another process takes over, three times.
    for nth in 1..=3 {
        let new = Process::serving(&scene.configure(&more), scene.folder.path(&format!("log-{nth}"))).await;
        scene.calm().await;
        router.signal("TERM");
        assert!(router.ended().await.success(), "{}", router.log());
        router = new;
        scene.calm().await;
    }

    let mut answered = 0;
    for crowd in scene.crowds {
        answered += crowd.went_well().await;
    }
    agents.abort();
    assert!(answered > 10 * CALM, "only {answered} requests");
}

//! What routers share through JetStream: sleeping apps, and who starts one.

use std::sync::Arc;

use async_nats::jetstream::{self, kv};
use tokio::sync::mpsc;
use weighbridge::adapters::bus::memory::{self, Ports, Times};
use weighbridge::domain::identity::AppId;
use weighbridge::domain::protocol::app::Sleep;
use weighbridge::domain::protocol::route_uri::RouteUri;
use weighbridge::domain::wake::{Ask, Effect, Happening, Order};
use weighbridge::telemetry::metrics::Metrics;

use super::*;

/// What of a router has to do with the memory.
struct Member {
    effects: mpsc::Sender<Effect>,
    asks: mpsc::Sender<Ask>,
    orders: mpsc::Receiver<Order>,
    happenings: mpsc::Receiver<Happening>,
    metrics: Arc<Metrics>,
    remembers: tokio::task::JoinHandle<()>,
    _events: mpsc::Receiver<BusEvent>,
    _outgoing: mpsc::Sender<Outgoing>,
}

/// A router whose bus is that server.
fn member(name: &str, server: &nats::Server) -> Member {
    member_with(name, server, Times::default(), true)
}

/// One whose asks are made once, with leases of these times.
fn patient_member(name: &str, server: &nats::Server, lease: u64, every: u64) -> Member {
    member_with(name, server, Times { lease: millis(lease), every: millis(every) }, false)
}

fn member_with(name: &str, server: &nats::Server, times: Times, asks_are_repeated: bool) -> Member {
    let Attached { events, outgoing, sessions, .. } = router(config(&[server])).attached;
    let (effects, effects_inbox) = mpsc::channel(64);
    let (asks, asks_inbox) = mpsc::channel(64);
    let (orders_sender, orders) = mpsc::channel(64);
    let (happenings_sender, happenings) = mpsc::channel(64);
    let metrics = Metrics::new(1);
    let ports = Ports {
        effects: effects_inbox,
        asks: asks_inbox,
        orders: orders_sender,
        happenings: happenings_sender,
        router: name.into(),
        asks_are_repeated,
        metrics: metrics.clone(),
    };
    let remembers = tokio::spawn(memory::run(sessions, times, ports));
    Member { effects, asks, orders, happenings, metrics, remembers, _events: events, _outgoing: outgoing }
}

impl Member {
    fn text(&self) -> String {
        use weighbridge::domain::{hash::Keyed, moment::Moment, table::snapshot::Snapshot};
        self.metrics.text(&Snapshot::empty(Keyed::new(1)), &Default::default(), &Default::default(), Moment::START)
    }

    fn shows(&self, line: &str) -> bool {
        self.text().lines().any(|shown| shown == line)
    }

    async fn until_it_shares(&self) {
        eventually("the memory is shared", || self.shows("weighbridge_memory_shared 1")).await;
    }

    async fn decides(&self, effect: Effect) {
        self.effects.send(effect).await.expect("the memory runs");
    }

    /// The epoch of the sleep it hears of.
    async fn hears_of_sleep(&mut self, app: &str) -> u64 {
        match in_time("a sleep", self.happenings.recv()).await.expect("the memory runs") {
            Happening::Sleep(sleep, instances) if sleep.app.as_str() == app && instances.is_empty() => sleep.epoch,
            other => panic!("{other:?}"),
        }
    }

    async fn hears_that_it_is_forgotten(&mut self, app: &str) {
        match in_time("the app is forgotten", self.happenings.recv()).await {
            Some(Happening::Forget(forget)) => assert_eq!(forget.app.as_str(), app),
            other => panic!("{other:?}"),
        }
    }

    async fn asks(&self, app: &str, epoch: u64, attempt: u32) {
        let ask = Ask { app: AppId::new(app), uri: "shop.test".into(), epoch, attempt };
        self.asks.send(ask).await.expect("the memory runs");
    }

    /// Whether the next order is for all; its attempt.
    async fn is_ordered(&mut self) -> (bool, u32) {
        let Order { ask, for_all } = in_time("an order", self.orders.recv()).await.expect("the memory runs");
        (for_all, ask.attempt)
    }

    /// How often it left a start to another router.
    fn kept_out(&self) -> u64 {
        let text = self.text();
        let line = "weighbridge_wake_asks_total{outcome=\"elsewhere\"} ";
        let times = text.lines().find_map(|shown| shown.strip_prefix(line));
        times.map_or(0, |times| times.parse().expect("a whole number"))
    }

    async fn is_kept_out(&self, times: u64) {
        let line = format!("weighbridge_wake_asks_total{{outcome=\"elsewhere\"}} {times}");
        eventually("another router is at it", || self.shows(&line)).await;
    }
}

fn asleep(app: &str, epoch: u64) -> Effect {
    let uris = [RouteUri::parse("shop.test").expect("a good route")].into();
    Effect::Asleep(Sleep { app: AppId::new(app), uris, epoch, ready_after: None, name: Some("The Shop".into()) })
}

fn awake(app: &str, epoch: u64) -> Effect {
    Effect::Awake { app: AppId::new(app), epoch, took: None }
}

fn forgotten(app: &str) -> Effect {
    Effect::Forgotten { app: AppId::new(app), uris: [].into() }
}

/// Two that share what they know.
async fn two(server: &nats::Server) -> (Member, Member) {
    let (a, b) = (member("a", server), member("b", server));
    a.until_it_shares().await;
    b.until_it_shares().await;
    (a, b)
}

/// The bucket of sleeping apps as anybody sees it.
async fn bucket(server: &nats::Server) -> kv::Store {
    let context = jetstream::new(peer(server).await);
    context.get_key_value("weighbridge_apps").await.expect("a router has made it")
}

/// Waits until the entry of `app` is of this epoch, or not there.
async fn until_stored(bucket: &kv::Store, app: &str, epoch: Option<u64>) {
    let holds = async {
        loop {
            let value = bucket.get(app).await.expect("JetStream answers");
            let stored = value.map(|value| Sleep::decode(&value).expect("the body of app.sleep").epoch);
            if stored == epoch {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time("the entry is as it should be", holds).await;
}

#[tokio::test]
async fn a_router_that_starts_later_learns_which_apps_sleep() {
    let server = nats::server_with_jetstream().await;
    let (a, mut b) = two(&server).await;
    a.decides(asleep("shop", 3)).await;
    assert_eq!(b.hears_of_sleep("shop").await, 3);
    let mut late = member("late", &server);
    assert_eq!(late.hears_of_sleep("shop").await, 3);
    // All of them know now; whoever writes what is there already changes nothing.
    for member in [&b, &late] {
        member.decides(asleep("shop", 3)).await;
    }
    let bucket = bucket(&server).await;
    until_stored(&bucket, "shop", Some(3)).await;
    a.decides(awake("shop", 3)).await;
    until_stored(&bucket, "shop", None).await;
    b.decides(asleep("shop", 4)).await;
    until_stored(&bucket, "shop", Some(4)).await;
    // This one hears late that the sleep before is over.
    late.decides(awake("shop", 3)).await;
    a.decides(asleep("other", 1)).await;
    until_stored(&bucket, "other", Some(1)).await;
    eventually("the late one has looked", || late.shows("weighbridge_memory_writes_total{result=\"done\"} 1")).await;
    until_stored(&bucket, "shop", Some(4)).await;
}

#[tokio::test]
async fn an_app_that_is_forgotten_by_one_is_forgotten_by_all() {
    let server = nats::server_with_jetstream().await;
    let (a, mut b) = two(&server).await;
    a.decides(asleep("shop", 3)).await;
    assert_eq!(b.hears_of_sleep("shop").await, 3);
    b.decides(asleep("shop", 3)).await;
    // It takes in one after the other, and of this one it can be seen.
    b.decides(asleep("other", 1)).await;
    let bucket = bucket(&server).await;
    until_stored(&bucket, "other", Some(1)).await;
    a.decides(forgotten("shop")).await;
    b.hears_that_it_is_forgotten("shop").await;
    until_stored(&bucket, "shop", None).await;
}

#[tokio::test]
async fn an_app_is_forgotten_also_by_a_router_that_has_just_heard_of_it() {
    let server = nats::server_with_jetstream().await;
    let (a, mut b) = two(&server).await;
    a.decides(asleep("shop", 3)).await;
    assert_eq!(b.hears_of_sleep("shop").await, 3);
    a.decides(forgotten("shop")).await;
    b.hears_that_it_is_forgotten("shop").await;
}

#[tokio::test]
async fn a_watch_that_got_lost_is_taken_up_again_and_misses_nothing() {
    let server = nats::server_with_jetstream().await;
    let [a, mut b] = ["a", "b"].map(|name| patient_member(name, &server, 60_000, 100));
    a.until_it_shares().await;
    b.until_it_shares().await;
    let stream = jetstream::new(peer(&server).await).get_stream("KV_weighbridge_apps").await.expect("it is there");
    let watches: Vec<_> = stream.consumer_names().map(|name| name.expect("JetStream answers")).collect().await;
    assert_eq!(watches.len(), 2);
    for watch in watches {
        stream.delete_consumer(&watch).await.expect("it was there just now");
    }
    a.decides(asleep("shop", 3)).await;
    let mut attempt = 0;
    let heard = async {
        loop {
            attempt += 1;
            b.asks("other", 1, attempt).await;
            // One that waits may be ordered twice.
            while {
                let (for_all, which) = b.is_ordered().await;
                assert!(for_all, "what it asks for waits until others can be told");
                which != attempt
            } {}
            match b.happenings.try_recv() {
                Ok(Happening::Sleep(sleep, _)) => return sleep.epoch,
                Ok(other) => panic!("{other:?}"),
                Err(_) => tokio::time::sleep(millis(50)).await,
            }
        }
    };
    assert_eq!(in_time("the sleep", heard).await, 3);
}

#[tokio::test]
async fn what_happens_while_jetstream_is_away_is_told_when_it_is_back() {
    let mut server = nats::server_with_jetstream().await;
    let a = member("a", &server);
    a.until_it_shares().await;
    a.decides(asleep("shop", 3)).await;
    until_stored(&bucket(&server).await, "shop", Some(3)).await;
    server.kill();
    eventually("it notices", || a.shows("weighbridge_memory_shared 0")).await;
    a.decides(awake("shop", 3)).await;
    a.decides(asleep("other", 1)).await;
    server.start().await;
    a.until_it_shares().await;
    let bucket = bucket(&server).await;
    until_stored(&bucket, "other", Some(1)).await;
    until_stored(&bucket, "shop", None).await;
    let mut late = member("late", &server);
    assert_eq!(late.hears_of_sleep("other").await, 1);
}

#[tokio::test]
async fn one_router_starts_an_app_and_the_others_leave_it_to_that_one() {
    let server = nats::server_with_jetstream().await;
    let (mut a, mut b) = two(&server).await;
    a.asks("shop", 1, 1).await;
    assert_eq!(a.is_ordered().await, (true, 1));
    b.asks("shop", 1, 1).await;
    b.is_kept_out(1).await;
    // The one that is at it may say so again; the other may not.
    a.asks("shop", 1, 1).await;
    assert_eq!(a.is_ordered().await, (true, 1));
    b.asks("shop", 1, 1).await;
    b.is_kept_out(2).await;
    // It has failed, and both know: whoever is first goes on.
    b.asks("shop", 1, 2).await;
    assert_eq!(b.is_ordered().await, (true, 2));
    a.asks("shop", 1, 2).await;
    a.is_kept_out(1).await;
    // The app is there, sleeps again, and is wanted again.
    b.decides(awake("shop", 1)).await;
    a.asks("shop", 2, 1).await;
    assert_eq!(a.is_ordered().await, (true, 1));
    assert!(b.orders.try_recv().is_err(), "no other start was ordered");
}

#[tokio::test]
async fn a_start_whose_router_has_died_is_taken_over_when_its_lease_runs_out() {
    let server = nats::server_with_jetstream().await;
    let [mut a, mut b] = ["a", "b"].map(|name| patient_member(name, &server, 2_000, 100));
    a.until_it_shares().await;
    b.until_it_shares().await;
    a.asks("shop", 1, 1).await;
    assert_eq!(a.is_ordered().await, (true, 1));
    b.asks("shop", 1, 1).await;
    eventually("it waits and looks again", || b.kept_out() >= 3).await;
    assert!(b.orders.try_recv().is_err(), "it waits as long as the other one lives");
    a.remembers.abort();
    assert_eq!(b.is_ordered().await, (true, 1));
}

#[tokio::test]
async fn a_start_that_takes_longer_than_a_lease_stays_with_its_router() {
    let server = nats::server_with_jetstream().await;
    let (lease, every) = (3_000, 250);
    let [mut a, mut b] = ["a", "b"].map(|name| patient_member(name, &server, lease, every));
    a.until_it_shares().await;
    b.until_it_shares().await;
    let context = jetstream::new(peer(&server).await);
    let starts = context.get_key_value("weighbridge_starts").await.expect("a router has made it");
    a.asks("shop", 1, 1).await;
    assert_eq!(a.is_ordered().await, (true, 1));
    b.asks("shop", 1, 1).await;
    let said_again_for_longer_than_a_lease = async {
        let mut revision = 0;
        while revision < 2 * lease / every {
            tokio::time::sleep(millis(every)).await;
            let entry = starts.entry("shop").await.expect("JetStream answers");
            revision = entry.expect("the start is always somebody's").revision;
        }
    };
    in_time("the start is said again and again", said_again_for_longer_than_a_lease).await;
    assert!(a.orders.try_recv().is_err() && b.orders.try_recv().is_err(), "nobody starts it a second time");
    assert!(b.kept_out() > lease / every, "{}", b.kept_out());
    // It has failed, and both know: the next try need not wait until the lease runs out.
    a.decides(Effect::Failed { app: AppId::new("shop") }).await;
    b.asks("shop", 1, 2).await;
    assert_eq!(b.is_ordered().await, (true, 2));
}

#[tokio::test]
async fn many_routers_that_ask_at_once_start_an_app_once() {
    let server = nats::server_with_jetstream().await;
    let mut members: Vec<Member> = (0..8).map(|n| member(&format!("r{n}"), &server)).collect();
    for member in &members {
        member.until_it_shares().await;
    }
    for member in &members {
        member.asks("shop", 1, 1).await;
    }
    let mut ordered = 0;
    for member in &mut members {
        let out = "weighbridge_wake_asks_total{outcome=\"elsewhere\"} 1";
        let mut got = false;
        eventually("the ask was judged", || {
            got |= member.orders.try_recv().is_ok();
            got || member.shows(out)
        })
        .await;
        ordered += usize::from(got);
    }
    assert_eq!(ordered, 1);
}

#[tokio::test]
async fn without_jetstream_every_router_starts_for_itself() {
    let server = nats::server().await;
    let mut a = member("a", &server);
    a.asks("shop", 1, 1).await;
    assert_eq!(a.is_ordered().await, (false, 1));
    a.decides(asleep("shop", 1)).await;
    assert!(a.shows("weighbridge_memory_shared 0"));
}

#[tokio::test]
async fn an_app_whose_id_is_no_key_is_not_shared_and_harms_nobody() {
    let server = nats::server_with_jetstream().await;
    let mut a = member("a", &server);
    a.until_it_shares().await;
    a.decides(asleep("my shop", 1)).await;
    eventually("it is refused", || a.shows("weighbridge_memory_writes_total{result=\"refused\"} 1")).await;
    a.asks("my shop", 1, 1).await;
    assert_eq!(a.is_ordered().await, (false, 1));
    a.decides(asleep("shop", 1)).await;
    until_stored(&bucket(&server).await, "shop", Some(1)).await;
}

#[tokio::test]
async fn entries_that_are_none_are_passed_over() {
    let server = nats::server_with_jetstream().await;
    let a = member("a", &server);
    a.until_it_shares().await;
    let bucket = bucket(&server).await;
    for (key, value) in [("junk", "{"), ("other", r#"{"app":"shop","uris":["a.test"],"epoch":1}"#)] {
        bucket.put(key, value.into()).await.expect("JetStream takes it");
    }
    a.decides(asleep("shop", 2)).await;
    until_stored(&bucket, "shop", Some(2)).await;
    let mut late = member("late", &server);
    assert_eq!(late.hears_of_sleep("shop").await, 2);
}

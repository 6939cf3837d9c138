//! Instance hosts that are names: resolved on the control side, again and again, so that no worker ever waits for DNS.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arcstr::ArcStr;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::domain::dice::Dice;
use crate::domain::endpoint::Endpoint;
use crate::domain::table::snapshot::Snapshot;
use crate::runtime::backoff::Backoff;
use crate::runtime::lookups::Lookups;
use crate::runtime::published::Published;

/// Endpoints that may wait to be taken on.
const QUEUE: usize = 65_536;
/// Look-ups at a time: each holds a thread while the system asks its name servers.
const AT_A_TIME: usize = 16;
/// How long an address is trusted.
const REFRESH: Duration = Duration::from_secs(30);
/// How soon a name that has no address yet is tried again.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(1), REFRESH);
/// How often one name may be complained about.
const COMPLAINT: Duration = Duration::from_secs(60);
/// How often names are looked over for those that are due.
const TICK: Duration = Duration::from_millis(500);

/// The resolver as its users see it.
#[derive(Clone, Debug)]
pub struct Resolver {
    endpoints: mpsc::Sender<Arc<Endpoint>>,
    /// Somebody could not be taken on: all are to be looked through.
    missed: Arc<AtomicBool>,
    /// How it is doing.
    pub lookups: Arc<Lookups>,
}

impl Resolver {
    /// Takes on an endpoint whose host is a name. Does not wait: one that finds the queue full is found in the table a
    /// little later.
    pub fn offer(&self, endpoint: &Arc<Endpoint>) {
        if self.endpoints.try_send(endpoint.clone()).is_err() {
            self.missed.store(true, Ordering::Release);
        }
    }
}

/// Starts the resolver on the present tokio runtime, with the system's way to look up names. It ends when nobody can offer
/// it anything any more. Endpoints are held weakly: one that leaves every table is no longer looked up.
pub fn start(routes: Arc<Published<Snapshot>>, dice: Dice) -> Resolver {
    let (endpoints, receiver) = mpsc::channel(QUEUE);
    let resolver = Resolver { endpoints, missed: Arc::default(), lookups: Arc::default() };
    let inbox = Inbox { endpoints: receiver, missed: resolver.missed.clone(), is_behind: false, routes };
    tokio::spawn(run(inbox, resolver.lookups.clone(), system_lookup, dice));
    resolver
}

/// Where endpoints come from.
struct Inbox {
    endpoints: mpsc::Receiver<Arc<Endpoint>>,
    missed: Arc<AtomicBool>,
    /// Somebody was missed before the last tick, and is in the published table by now.
    is_behind: bool,
    routes: Arc<Published<Snapshot>>,
}

impl Inbox {
    /// Takes on those who found the queue full.
    fn catch_up(&mut self, names: &mut Names) {
        let was_behind = std::mem::replace(&mut self.is_behind, self.missed.swap(false, Ordering::Acquire));
        if was_behind {
            let snapshot = self.routes.get();
            let named = snapshot.pools().flat_map(|pool| pool.endpoints.iter()).filter(|endpoint| endpoint.has_name());
            named.for_each(|endpoint| names.take_on(endpoint));
        }
    }
}

async fn system_lookup(host: ArcStr) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((&*host, 0)).await?;
    Ok(found.map(|address| address.ip()).collect())
}

async fn run<F, R>(mut inbox: Inbox, lookups: Arc<Lookups>, lookup: F, dice: Dice)
where
    F: Fn(ArcStr) -> R,
    R: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
{
    let mut names = Names { known: HashMap::new(), waiting: VecDeque::new(), lookups, dice };
    let mut running = JoinSet::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while running.len() < AT_A_TIME
            && let Some(host) = names.waiting.pop_front()
        {
            let answer = lookup(host.clone());
            running.spawn(async move { (host, answer.await) });
        }
        tokio::select! {
            endpoint = inbox.endpoints.recv() => match endpoint {
                Some(endpoint) => names.take_on(&endpoint),
                None => return,
            },
            Some(Ok((host, answer))) = running.join_next() => names.answered(&host, answer, Instant::now()),
            _ = tick.tick() => {
                inbox.catch_up(&mut names);
                names.queue_due(Instant::now());
            }
        }
    }
}

/// All names that instances have.
struct Names {
    known: HashMap<ArcStr, Name>,
    waiting: VecDeque<ArcStr>,
    lookups: Arc<Lookups>,
    dice: Dice,
}

/// One name, and who has it.
struct Name {
    /// By serial: a rebuilt endpoint takes the place of the one before.
    endpoints: HashMap<u64, Weak<Endpoint>>,
    address: Option<IpAddr>,
    failures: u32,
    /// When to look it up again; `None` while that is queued or running.
    due: Option<Instant>,
    complained: Option<Instant>,
}

impl Names {
    fn take_on(&mut self, endpoint: &Arc<Endpoint>) {
        if !endpoint.has_name() {
            return; // an address, not a name: resolved at birth
        }
        let host: ArcStr = endpoint.address.host().into();
        let waiting = &mut self.waiting;
        let name = self.known.entry(host.clone()).or_insert_with(|| {
            waiting.push_back(host);
            Name { endpoints: HashMap::new(), address: None, failures: 0, due: None, complained: None }
        });
        name.endpoints.insert(endpoint.serial, Arc::downgrade(endpoint));
        if let Some(ip) = name.address {
            endpoint.resolve(ip);
        }
        self.lookups.note_names(self.known.len());
    }

    fn answered(&mut self, host: &str, answer: io::Result<Vec<IpAddr>>, now: Instant) {
        let Some(name) = self.known.get_mut(host) else { return };
        let found = answer.and_then(|found| name.choose(&found).ok_or_else(|| io::ErrorKind::NotFound.into()));
        match found {
            Ok(ip) => {
                self.lookups.count_done();
                name.failures = 0;
                name.settle(ip);
                name.due = Some(now + REFRESH);
            }
            Err(error) => {
                self.lookups.count_failed();
                name.failures = name.failures.saturating_add(1);
                let pause = if name.address.is_some() { REFRESH } else { AGAIN.pause(name.failures, &mut self.dice) };
                name.due = Some(now + pause);
                if name.complained.is_none_or(|last| now - last >= COMPLAINT) {
                    name.complained = Some(now);
                    tracing::warn!(host, %error, failures = name.failures, kept = ?name.address, "cannot resolve the host of an instance");
                }
            }
        }
    }

    fn queue_due(&mut self, now: Instant) {
        let waiting = &mut self.waiting;
        self.known.retain(|host, name| {
            if name.due.is_none_or(|due| due > now) {
                return true;
            }
            name.endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
            let is_used = !name.endpoints.is_empty();
            if is_used {
                name.due = None;
                waiting.push_back(host.clone());
            }
            is_used
        });
        self.lookups.note_names(self.known.len());
    }
}

impl Name {
    /// Stays with the present address while the name still has it, so that connections are not spread without need.
    fn choose(&self, found: &[IpAddr]) -> Option<IpAddr> {
        self.address.filter(|ip| found.contains(ip)).or_else(|| found.first().copied())
    }

    fn settle(&mut self, ip: IpAddr) {
        self.address = Some(ip);
        for endpoint in self.endpoints.values().filter_map(Weak::upgrade) {
            endpoint.resolve(ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::domain::balance::live::Live;
    use crate::domain::endpoint::Facts;
    use crate::domain::hash::Keyed;
    use crate::domain::identity::Address;
    use crate::domain::moment::Moment;
    use crate::domain::protocol::register::Registration;
    use crate::domain::protocol::route_uri::RouteUri;
    use crate::domain::table::settings::TableSettings;
    use crate::domain::table::{Changes, RouteTable};

    fn endpoint(serial: u64, host: &str) -> Arc<Endpoint> {
        let facts = Facts::at(Address::new(host, 8000 + serial as u16));
        Arc::new(Endpoint::new(serial, facts, Arc::new(Live::new(Moment::START)), Arc::default()))
    }

    fn names() -> Names {
        Names { known: HashMap::new(), waiting: VecDeque::new(), lookups: Arc::default(), dice: Dice::seeded(1) }
    }

    fn ips(text: &str) -> io::Result<Vec<IpAddr>> {
        Ok(text.split_whitespace().map(|ip| ip.parse().expect("a good address")).collect())
    }

    fn failure() -> io::Result<Vec<IpAddr>> {
        Err(io::Error::other("no such name"))
    }

    impl Names {
        /// The names to look up now, in order.
        fn asked(&mut self) -> Vec<String> {
            self.waiting.drain(..).map(|host| host.to_string()).collect()
        }
    }

    #[track_caller]
    fn check_address(endpoint: &Endpoint, expected: &str) {
        assert_eq!(endpoint.socket_address().map(|address| address.to_string()).unwrap_or_default(), expected);
    }

    #[test]
    fn a_name_is_looked_up_once_for_all_who_have_it() {
        let (mut names, now) = (names(), Instant::now());
        let (a, b, c) = (endpoint(1, "one"), endpoint(2, "one"), endpoint(3, "10.0.0.9"));
        [&a, &b, &c].into_iter().for_each(|endpoint| names.take_on(endpoint));
        assert_eq!(names.asked(), ["one"]);
        names.answered("one", ips("10.0.0.1"), now);
        check_address(&a, "10.0.0.1:8001");
        check_address(&b, "10.0.0.1:8002");
        check_address(&c, "10.0.0.9:8003");
        let late = endpoint(4, "one");
        names.take_on(&late);
        check_address(&late, "10.0.0.1:8004");
        assert_eq!(names.asked(), [""; 0]);
        assert_eq!((names.lookups.names(), names.lookups.done()), (1, 1));
    }

    #[test]
    fn an_address_is_refreshed_while_somebody_has_the_name() {
        let (mut names, now) = (names(), Instant::now());
        let a = endpoint(1, "one");
        names.take_on(&a);
        names.asked();
        names.answered("one", ips("10.0.0.1 10.0.0.2"), now);
        names.queue_due(now + REFRESH - TICK);
        assert_eq!(names.asked(), [""; 0]);
        names.queue_due(now + REFRESH);
        assert_eq!(names.asked(), ["one"]);
        names.queue_due(now + REFRESH * 2);
        assert_eq!(names.asked(), [""; 0], "while it is being looked up");
        names.answered("one", ips("10.0.0.3 10.0.0.1"), now + REFRESH);
        check_address(&a, "10.0.0.1:8001");
        names.answered("one", ips("10.0.0.3"), now + REFRESH);
        check_address(&a, "10.0.0.3:8001");
        drop(a);
        names.queue_due(now + REFRESH * 2);
        assert_eq!((names.asked(), names.lookups.names()), (vec![], 0));
    }

    #[test]
    fn a_failed_refresh_keeps_the_last_address() {
        let (mut names, now) = (names(), Instant::now());
        let a = endpoint(1, "one");
        names.take_on(&a);
        names.asked();
        names.answered("one", ips("10.0.0.1"), now);
        names.answered("one", failure(), now);
        names.answered("one", ips(""), now);
        check_address(&a, "10.0.0.1:8001");
        assert_eq!((names.lookups.done(), names.lookups.failed()), (1, 2));
        names.queue_due(now + REFRESH);
        assert_eq!(names.asked(), ["one"]);
    }

    #[test]
    fn a_name_without_an_address_is_tried_again_soon_and_then_ever_later() {
        let (mut names, now) = (names(), Instant::now());
        let a = endpoint(1, "one");
        names.take_on(&a);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            names.answered("one", failure(), now);
            pauses.push(names.known["one"].due.expect("it will be tried again") - now);
        }
        assert!(pauses[0] <= Duration::from_secs(1), "{pauses:?}");
        assert!(pauses[7] > pauses[0] * 10 && pauses[7] <= REFRESH, "{pauses:?}");
        check_address(&a, "");
        names.answered("one", ips("10.0.0.1"), now);
        check_address(&a, "10.0.0.1:8001");
    }

    #[test]
    fn one_name_complains_once_a_minute() {
        let (mut names, now) = (names(), Instant::now());
        let a = endpoint(1, "one");
        names.take_on(&a);
        let mut complaints = Vec::new();
        for second in (0..150).step_by(10) {
            names.answered("one", failure(), now + Duration::from_secs(second));
            complaints.extend(names.known["one"].complained.filter(|at| *at == now + Duration::from_secs(second)));
        }
        assert_eq!(complaints, [0, 60, 120].map(|second| now + Duration::from_secs(second)));
    }

    #[test]
    fn a_rebuilt_endpoint_takes_the_place_of_the_one_before() {
        let (mut names, now) = (names(), Instant::now());
        let (old, new) = (endpoint(1, "one"), endpoint(1, "one"));
        names.take_on(&old);
        names.take_on(&new);
        names.answered("one", ips("10.0.0.1"), now);
        check_address(&new, "10.0.0.1:8001");
        assert_eq!(names.known["one"].endpoints.len(), 1);
    }

    #[tokio::test]
    async fn few_lookups_run_at_a_time_and_all_get_done() {
        const NAMES: u64 = 100;
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counted = (running.clone(), most.clone());
        let lookup = move |_host| {
            let (running, most) = counted.clone();
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
                ips("10.0.0.1")
            }
        };
        let (sender, endpoints) = mpsc::channel(QUEUE);
        let lookups = Arc::new(Lookups::default());
        let routes = Published::new(Snapshot::empty(Keyed::new(1)));
        let inbox = Inbox { endpoints, missed: Arc::default(), is_behind: false, routes };
        tokio::spawn(run(inbox, lookups.clone(), lookup, Dice::seeded(1)));
        let endpoints: Vec<_> = (0..NAMES).map(|n| endpoint(n, &format!("name-{n}"))).collect();
        for endpoint in &endpoints {
            sender.send(endpoint.clone()).await.expect("the resolver runs");
        }
        while lookups.done() < NAMES {
            tokio::task::yield_now().await;
        }
        assert!(endpoints.iter().all(|endpoint| endpoint.socket_address().is_some()));
        let most = most.load(Ordering::SeqCst);
        assert!((2..=AT_A_TIME).contains(&most), "{most}");
    }

    #[tokio::test]
    async fn the_system_knows_where_localhost_is() {
        let resolver = start(Published::new(Snapshot::empty(Keyed::new(1))), Dice::seeded(1));
        let here = endpoint(1, "localhost");
        resolver.endpoints.send(here.clone()).await.expect("the resolver runs");
        while resolver.lookups.done() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(here.socket_address().expect("it is resolved").ip().is_loopback());
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_the_queue_full_is_found_in_the_table() {
        const NAMES: usize = 20;
        let mut table = RouteTable::new(TableSettings::default(), 1);
        let mut changes = Changes::default();
        for n in 0..NAMES {
            let mut registration = Registration::at(Address::new(&format!("name-{n}"), 80));
            registration.uris = vec![RouteUri::parse("shop.test").expect("a route")];
            table.register(&registration, Moment::START, &mut changes);
        }
        let routes = Published::new(Snapshot::empty(Keyed::new(1)));
        let (endpoints, receiver) = mpsc::channel(1);
        let resolver = Resolver { endpoints, missed: Arc::default(), lookups: Arc::default() };
        let missed = resolver.missed.clone();
        let inbox = Inbox { endpoints: receiver, missed, is_behind: false, routes: routes.clone() };
        changes.arrived.iter().for_each(|endpoint| resolver.offer(endpoint));
        routes.publish(table.snapshot(Moment::START).expect("there are routes"));
        tokio::spawn(run(inbox, resolver.lookups.clone(), |_| async { ips("10.0.0.1") }, Dice::seeded(1)));
        while changes.arrived.iter().any(|endpoint| endpoint.socket_address().is_none()) {
            tokio::time::sleep(TICK).await;
        }
        assert_eq!((changes.arrived.len(), resolver.lookups.names()), (NAMES, NAMES as u64));
    }
}

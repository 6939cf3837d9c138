//! Instance hosts that are names: resolved on the control side, again and again, so that no worker ever waits for DNS.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::domain::dice::Dice;
use crate::domain::endpoint::Endpoint;
use crate::runtime::backoff::Backoff;
use crate::runtime::lookups::Lookups;

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
    /// Takes endpoints whose host is a name. Where it is full, offer the endpoint again at its next registration.
    pub endpoints: mpsc::Sender<Arc<Endpoint>>,
    /// How it is doing.
    pub lookups: Arc<Lookups>,
}

/// Starts the resolver on the present tokio runtime, with the system's way to look up names. It ends when all senders are
/// gone. Endpoints are held weakly: one that leaves every table is no longer looked up.
pub fn start(dice: Dice) -> Resolver {
    let (endpoints, receiver) = mpsc::channel(QUEUE);
    let lookups = Arc::new(Lookups::default());
    tokio::spawn(run(receiver, lookups.clone(), system_lookup, dice));
    Resolver { endpoints, lookups }
}

async fn system_lookup(host: Arc<str>) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((&*host, 0)).await?;
    Ok(found.map(|address| address.ip()).collect())
}

async fn run<F, R>(mut endpoints: mpsc::Receiver<Arc<Endpoint>>, lookups: Arc<Lookups>, lookup: F, dice: Dice)
where
    F: Fn(Arc<str>) -> R,
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
            endpoint = endpoints.recv() => match endpoint {
                Some(endpoint) => names.take_on(&endpoint),
                None => return,
            },
            Some(Ok((host, answer))) = running.join_next() => names.answered(&host, answer, Instant::now()),
            _ = tick.tick() => names.queue_due(Instant::now()),
        }
    }
}

/// All names that instances have.
struct Names {
    known: HashMap<Arc<str>, Name>,
    waiting: VecDeque<Arc<str>>,
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
        if endpoint.address.as_socket().is_some() {
            return; // an address, not a name: resolved at birth
        }
        let host: Arc<str> = endpoint.address.host().into();
        let waiting = &mut self.waiting;
        let name = self.known.entry(host.clone()).or_insert_with(|| {
            waiting.push_back(host);
            Name { endpoints: HashMap::new(), address: None, failures: 0, due: None, complained: None }
        });
        name.endpoints.insert(endpoint.serial, Arc::downgrade(endpoint));
        if let Some(ip) = name.address {
            *endpoint.resolved.lock() = Some(SocketAddr::new(ip, endpoint.address.port()));
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
            *endpoint.resolved.lock() = Some(SocketAddr::new(ip, endpoint.address.port()));
        }
    }
}

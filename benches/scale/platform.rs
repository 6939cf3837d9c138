//! A platform of many agents that send heartbeats over NATS, on a thread of its own.

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use weighbridge::domain::dice::Dice;

/// Instances an agent reports.
const PER_AGENT: usize = 50;
/// How often each agent reports.
pub const PERIOD: Duration = Duration::from_secs(5);
/// How often those whose turn it is are looked for.
const STEP: Duration = Duration::from_millis(1);

/// What the agents are to do.
#[derive(Clone, Copy, PartialEq)]
#[repr(u8)]
pub enum Orders {
    Rest,
    /// Report in turn, each every five seconds.
    Report,
    Leave,
}

/// The agents; they leave when dropped.
pub struct Platform {
    orders: Arc<AtomicU8>,
    /// Instance reports sent.
    pub reports: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Platform {
    /// Agents for so many routes, two and three instances in turn; all report at once when a router starts.
    pub fn of(routes: usize, nats: &str) -> Platform {
        let orders = Arc::new(AtomicU8::new(Orders::Rest as u8));
        let reports = Arc::new(AtomicU64::new(0));
        let (given, counted, nats) = (orders.clone(), reports.clone(), nats.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let done = step_back().and_then(|()| runtime.block_on(live(routes, &nats, &given, &counted)));
            if let Err(problem) = done {
                eprintln!("the platform: {problem}");
            }
        });
        Platform { orders, reports, thread: Some(thread) }
    }

    pub fn order(&self, orders: Orders) {
        self.orders.store(orders as u8, Ordering::Relaxed);
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.order(Orders::Leave);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed.
            let _panicked = thread.join();
        }
    }
}

/// Endpoints of so many routes.
pub fn endpoints(routes: usize) -> usize {
    routes * 5 / 2
}

async fn live(routes: usize, nats: &str, orders: &AtomicU8, reports: &AtomicU64) -> io::Result<()> {
    let bus = async_nats::connect(nats).await.map_err(io::Error::other)?;
    let mut starts = bus.subscribe("router.start").await.map_err(io::Error::other)?;
    bus.flush().await.map_err(io::Error::other)?;
    let mut agents: Vec<Agent> = (0..endpoints(routes).div_ceil(PER_AGENT)).map(|n| Agent::new(n, routes)).collect();
    starts.next().await;
    for agent in &mut agents {
        bus.publish("dea.heartbeat", agent.report(reports)).await.map_err(io::Error::other)?;
    }
    // When in its period each has its turn: agents do not know of each other.
    let mut dice = Dice::seeded(1);
    let mut turns: Vec<f64> = agents.iter().map(|_| dice.share()).collect();
    turns.sort_unstable_by(f64::total_cmp);
    let (mut next, mut at, mut ticks) = (0, 0.0, tokio::time::interval(STEP));
    loop {
        ticks.tick().await;
        match orders.load(Ordering::Relaxed) {
            leave if leave == Orders::Leave as u8 => return Ok(()),
            report if report == Orders::Report as u8 => at += STEP.div_duration_f64(PERIOD),
            _ => continue,
        }
        while turns[next] < at {
            let message = agents[next].report(reports);
            bus.publish("dea.heartbeat", message).await.map_err(io::Error::other)?;
            next = (next + 1) % agents.len();
            at -= if next == 0 { 1.0 } else { 0.0 };
        }
    }
}

/// Puts this thread behind all others of its core.
fn step_back() -> io::Result<()> {
    let me = std::fs::read_link("/proc/thread-self")?;
    let thread = me.file_name().unwrap_or_default();
    match Command::new("chrt").args(["--idle", "--pid", "0"]).arg(thread).output() {
        Ok(done) if done.status.success() => Ok(()),
        _ => Err(io::Error::other("this needs `chrt`")),
    }
}

/// What an agent says, but for the sequence number.
struct Agent {
    message: Vec<u8>,
    seq_at: usize,
    seq: u64,
    instances: u64,
}

impl Agent {
    fn new(n: usize, routes: usize) -> Agent {
        let ip = format!("10.{}.{}.{}", 1 + (n >> 16), n >> 8 & 255, n & 255);
        let its = (n * PER_AGENT..(n + 1) * PER_AGENT).filter(|instance| *instance < endpoints(routes));
        let droplets: Vec<String> = its.map(droplet).collect();
        let begin = format!(r#"{{"dea":"dea-{n}","schema":2,"boot_id":"6f3a","interval_ms":5000,"seq":"#);
        let end = format!(
            r#","host":{{"ip":"{ip}","zone":"z1","load":{{"cpu":0.{:02},"mem":0.55,"io":0.1,"net":0.02}}}},"droplets":[{}]}}"#,
            n % 100,
            droplets.join(",")
        );
        let seq_at = begin.len();
        Agent {
            message: format!("{begin}{:010}{end}", 0).into_bytes(),
            seq_at,
            seq: 1_000_000_000,
            instances: droplets.len() as u64,
        }
    }

    fn report(&mut self, reports: &AtomicU64) -> bytes::Bytes {
        self.seq += 1;
        self.message[self.seq_at..self.seq_at + 10].copy_from_slice(self.seq.to_string().as_bytes());
        reports.fetch_add(self.instances, Ordering::Relaxed);
        self.message.clone().into()
    }
}

fn droplet(instance: usize) -> String {
    let route = 2 * (instance / 5) + usize::from(instance % 5 >= 2);
    format!(
        r#"{{"droplet":"0b2c7d9e-41f5-4a57-0000-{route:012x}","version":"1","instance":"{instance:016x}","index":{},"state":"RUNNING","private_instance_id":"0b2c7d9e-41f5-4a57-1111-{instance:012x}","port":{},"uris":["{}"],"load":{{"cpu":0.{:02},"mem":0.61,"io":0.05,"net":0.02}},"tags":{{"component":"app"}}}}"#,
        instance % 3,
        61_000 + instance % PER_AGENT,
        route_uri(route),
        instance % 100,
    )
}

fn route_uri(route: usize) -> String {
    format!("app-{route}.apps.example.com")
}

/// To count its endpoints a full router walks over all of them: asked for more often, that would be what is measured.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits for a fact, at most so long.
pub async fn until(most: Duration, mut fact: impl AsyncFnMut() -> bool) -> io::Result<Duration> {
    let begun = Instant::now();
    while !fact().await {
        if begun.elapsed() > most {
            return Err(io::Error::other("it does not come true"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(begun.elapsed())
}

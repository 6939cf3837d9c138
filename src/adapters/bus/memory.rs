//! What routers tell each other through JetStream: which apps sleep, so that a router that starts later knows them, and which
//! router starts an app at present, so that the others do not. While JetStream is not there, everybody is on their own.
//!
//! Both are key-value buckets, changed by compare-and-set only. Every router that knows of a sleep writes it, and every one that
//! knows of its end takes it away; whoever is later finds that there is nothing left to do.

mod lease;
mod sleeps;
mod work;

use std::sync::Arc;
use std::time::Duration;

use arcstr::ArcStr;
use async_nats::Client;
use async_nats::jetstream::context::KeyValueErrorKind;
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::domain::wake::{Ask, Effect, Happening, Order};
use crate::telemetry::metrics::Metrics;

use lease::Leases;
use sleeps::Sleeps;

/// The bucket of sleeping apps: the key is the app, the value the last `app.sleep`.
const APPS: &str = "weighbridge_apps";
/// The bucket of starts: the key is the app, the value who starts it.
const STARTS: &str = "weighbridge_starts";
/// Copies of a bucket where there are so many servers; one where there are not.
const REPLICAS: usize = 3;
/// How long JetStream may take for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How soon to look again whether JetStream is there: at first, since a busy server leaves a request unanswered now and then.
const AGAIN: Duration = Duration::from_secs(1);
/// The same where it was not there again and again; the time doubles up to this.
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// The connection to the bus, while there is one.
#[derive(Clone, Debug)]
pub struct Sessions(pub(super) watch::Receiver<Option<Client>>);

/// How a start is kept by one router.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A start whose router does not say again that it is at it is free for others after this time. What the bucket has, if it
    /// is there already, holds.
    pub lease: Duration,
    /// How often starts are said again, and asks that wait are tried again; well below `lease`.
    pub every: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times { lease: Duration::from_secs(60), every: Duration::from_secs(10) }
    }
}

/// What the memory is joined to.
#[derive(Debug)]
pub struct Ports {
    /// What becomes of sleeping apps here; effects that are not about that are passed over.
    pub effects: mpsc::Receiver<Effect>,
    /// Apps that this router wants started.
    pub asks: mpsc::Receiver<Ask>,
    /// Those that it is to start.
    pub orders: mpsc::Sender<Order>,
    /// What others have remembered.
    pub happenings: mpsc::Sender<Happening>,
    /// The id that this router signs messages with.
    pub router: ArcStr,
    /// Whether asks are repeated until the app is there. Those that are not wait here until another router has given up.
    pub asks_are_repeated: bool,
    /// Where is counted.
    pub metrics: Arc<Metrics>,
}

/// All senders of effects or asks are gone, or whoever takes what comes out: the router is leaving.
struct Gone;

/// Remembers until the router leaves.
pub async fn run(sessions: Sessions, times: Times, ports: Ports) {
    let mut memory = Memory { sleeps: Sleeps::new(), leases: Leases::new(&ports), times, ports };
    let Gone = memory.run(sessions).await;
}

struct Memory {
    ports: Ports,
    times: Times,
    sleeps: Sleeps,
    leases: Leases,
}

/// Both buckets, on one connection.
#[derive(Clone)]
struct Buckets {
    apps: Store,
    starts: Store,
}

impl Memory {
    async fn run(&mut self, Sessions(mut sessions): Sessions) -> Gone {
        loop {
            let client = sessions.borrow_and_update().clone();
            let changed = async { sessions.changed().await.map_err(|_| Gone) };
            let mut changed = std::pin::pin!(changed);
            let ended = tokio::select! {
                biased; // or an ask that came after the connection would be taken for one without
                changed = &mut changed => changed,
                Err(gone) = self.connected(client) => Err(gone),
            };
            self.ports.metrics.control.memory_is_shared(false);
            if let Err(gone) = ended {
                return gone;
            }
        }
    }

    /// One connection. Returns only with the router; a connection that ends drops this.
    async fn connected(&mut self, client: Option<Client>) -> Result<std::convert::Infallible, Gone> {
        let Some(client) = client else { return self.alone(None).await.and(Err(Gone)) };
        let mut pause = AGAIN;
        loop {
            let opened = match self.meanwhile(Buckets::open(client.clone(), self.times.lease)).await? {
                Ok(buckets) => self.read(&buckets).await?.map(|watch| (buckets, watch)),
                Err(why) => Err(why),
            };
            match opened {
                Ok((buckets, watch)) => {
                    let why = self.together(&buckets, watch).await?;
                    self.ports.metrics.control.memory_is_shared(false);
                    tracing::warn!(why, "what routers share has to be read anew");
                    self.meanwhile(sleep(AGAIN)).await?;
                    pause = AGAIN;
                }
                Err(why) => {
                    tracing::info!(why, "without JetStream: sleeping apps are asked of other routers");
                    self.alone(Some(Instant::now() + pause)).await?;
                    pause = (2 * pause).min(AGAIN_MAX);
                }
            }
        }
    }

    /// Does `work` before anything can be shared. Asks wait: soon it will be known whether somebody else is at it.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Gone> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                effect = self.ports.effects.recv() => self.note(&effect.ok_or(Gone)?),
            }
        }
    }

    /// Without JetStream until then, or for ever. Two starts are better than none.
    async fn alone(&mut self, until: Option<Instant>) -> Result<(), Gone> {
        let end = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                effect = self.ports.effects.recv() => self.note(&effect.ok_or(Gone)?),
                ask = self.ports.asks.recv() => self.ports.order(ask.ok_or(Gone)?, false).await?,
            }
        }
    }

    fn note(&mut self, effect: &Effect) {
        self.sleeps.note(effect);
        self.leases.note(effect);
    }
}

impl Ports {
    async fn order(&self, ask: Ask, for_all: bool) -> Result<(), Gone> {
        self.orders.send(Order { ask, for_all }).await.map_err(|_| Gone)
    }
}

impl Buckets {
    async fn open(client: Client, lease: Duration) -> Result<Buckets, String> {
        let mut context = jetstream::new(client);
        context.set_timeout(ANSWER_WITHIN);
        let starts = Config { max_age: lease, storage: StorageType::Memory, ..Config::default() };
        Ok(Buckets {
            apps: bucket(&context, APPS, "Sleeping apps: the last app.sleep of each", Config::default()).await?,
            starts: bucket(&context, STARTS, "Which router starts an app", starts).await?,
        })
    }
}

/// The bucket as it is, or else a new one with these limits.
async fn bucket(context: &Context, name: &str, description: &str, limits: Config) -> Result<Store, String> {
    if let Some(store) = present(context, name).await? {
        return Ok(store);
    }
    // A bucket is a stream with these properties. The library's own way to make one asks for the account first, and does
    // not understand what older servers say about it.
    let stream = Config {
        name: format!("KV_{name}"),
        description: Some(description.to_owned()),
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..limits
    };
    let mut why = String::new();
    for num_replicas in [REPLICAS, 1] {
        let stream = Config { num_replicas, ..stream.clone() };
        match timeout(ANSWER_WITHIN, context.create_stream(stream)).await {
            Ok(Ok(_)) => break,
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => return Err("JetStream does not answer".to_owned()),
        }
    }
    // Another router may have been faster.
    present(context, name).await?.ok_or(why)
}

async fn present(context: &Context, name: &str) -> Result<Option<Store>, String> {
    match timeout(ANSWER_WITHIN, context.get_key_value(name)).await {
        Ok(Ok(store)) => Ok(Some(store)),
        Ok(Err(error)) if error.kind() == KeyValueErrorKind::GetBucket => Ok(None),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("JetStream does not answer".to_owned()),
    }
}

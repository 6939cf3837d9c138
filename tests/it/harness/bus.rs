//! Buses: what the agents of the platform say, and to whom. Agents say it again to every router that starts, as real
//! ones do when they hear `router.start`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;
use weighbridge::domain::protocol::envelope::Outgoing;

/// A bus inside this process: every router on it hears every message.
pub async fn embedded() -> Bus {
    Bus { inner: Arc::new(Inner { nats: None, said: Mutex::default(), routers: Mutex::default() }) }
}

/// A bus on a NATS server.
pub async fn nats(url: &str) -> Bus {
    let client = async_nats::connect(url).await.unwrap_or_else(|error| panic!("no NATS at {url}: {error}"));
    let nats = Nats { url: url.to_owned(), client };
    Bus { inner: Arc::new(Inner { nats: Some(nats), said: Mutex::default(), routers: Mutex::default() }) }
}

/// A bus; copies are the same bus.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    nats: Option<Nats>,
    /// What is said again to routers that start later: registrations not taken back.
    said: Mutex<Vec<(String, Value)>>,
    routers: Mutex<Vec<mpsc::Sender<Outgoing>>>,
}

struct Nats {
    url: String,
    client: async_nats::Client,
}

impl Bus {
    /// The URL of its server, if it has one.
    pub fn url(&self) -> Option<&str> {
        self.inner.nats.as_ref().map(|nats| nats.url.as_str())
    }

    /// Says `message` on `subject` to every router.
    pub async fn publish(&self, subject: &str, message: &Value) {
        self.remember(subject, message);
        self.publish_bytes(subject, message.to_string()).await;
    }

    /// Says any bytes.
    pub async fn publish_bytes(&self, subject: &str, payload: impl Into<Bytes>) {
        let payload = payload.into();
        if let Some(nats) = &self.inner.nats {
            nats.client.publish(subject.to_owned(), payload).await.expect("the client takes messages");
            nats.client.flush().await.expect("the server is there");
            return;
        }
        let routers = self.inner.routers.lock().clone();
        for router in routers {
            let message = Outgoing { subject: subject.to_owned(), payload: payload.clone(), reply: None };
            let _gone = router.send(message).await; // a router that stopped hears nothing
        }
    }

    /// A router joins: it hears what was said before.
    pub async fn join(&self, router: mpsc::Sender<Outgoing>) {
        self.inner.routers.lock().push(router.clone());
        self.say_again().await;
    }

    /// Says again what still holds.
    pub async fn say_again(&self) {
        let said = self.inner.said.lock().clone();
        for (subject, message) in said {
            self.publish_bytes(&subject, message.to_string()).await;
        }
    }

    /// Says it again and again, as agents do; nobody hears while the server is away.
    pub fn say_again_every(&self, pause: Duration) -> tokio::task::JoinHandle<()> {
        let bus = self.clone();
        tokio::spawn(async move {
            let nats = bus.inner.nats.as_ref().expect("only NATS goes away");
            loop {
                let said = bus.inner.said.lock().clone();
                for (subject, message) in said {
                    let _away = nats.client.publish(subject, message.to_string().into()).await;
                }
                tokio::time::sleep(pause).await;
            }
        })
    }

    fn remember(&self, subject: &str, message: &Value) {
        let mut said = self.inner.said.lock();
        let identity = |message: &Value| (message["host"].clone(), message["port"].clone(), message["uris"].clone());
        match subject {
            "router.register" => said.push((subject.to_owned(), message.clone())),
            "router.unregister" => said.retain(|(_, other)| identity(other) != identity(message)),
            _ => {}
        }
    }
}

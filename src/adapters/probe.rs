//! Finds out whether instances of sleeping apps answer this router: by a connection, or by a request if the operator named
//! a path. So many at a time, again and again with pauses, until one answers or nobody waits for it any more.

use std::collections::HashSet;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::domain::dice::Dice;
use crate::domain::endpoint::{Endpoint, Protocol};
use crate::domain::wake::{Happening, Instance};
use crate::runtime::backoff::Backoff;
use crate::runtime::published::Published;

/// Instances that may wait to be taken on. One that finds no place is offered again with its next heartbeat.
const QUEUE: usize = 1024;
/// Instances taken on at a time, most of them pausing.
const TAKEN_ON_MAX: usize = 4096;
/// Tries under way at a time.
const AT_A_TIME: usize = 128;
/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one sign of life of an instance is followed.
const FOLLOWED: Duration = Duration::from_secs(60);
/// Pauses between tries.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// What makes an instance ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// It answers `GET` of this path with a status below 500; `None`: it takes a connection. Those spoken to over TLS or
    /// HTTP/2 are only connected to.
    pub path: Option<String>,
}

/// Starts on the present tokio runtime; ends when all senders are gone. Tells by `Happening::Ready` who answers.
pub fn start(
    settings: Arc<Published<Settings>>,
    happenings: mpsc::Sender<Happening>,
    dice: Dice,
) -> mpsc::Sender<Arc<Endpoint>> {
    let (sender, inbox) = mpsc::channel(QUEUE);
    tokio::spawn(run(settings, happenings, inbox, dice));
    sender
}

async fn run(
    settings: Arc<Published<Settings>>,
    happenings: mpsc::Sender<Happening>,
    mut inbox: mpsc::Receiver<Arc<Endpoint>>,
    mut dice: Dice,
) {
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut taken_on = HashSet::new();
    let mut probes = JoinSet::new();
    loop {
        tokio::select! {
            endpoint = inbox.recv(), if taken_on.len() < TAKEN_ON_MAX => {
                let Some(endpoint) = endpoint else { return };
                if taken_on.insert(instance(&endpoint)) {
                    let probe = Probe { endpoint, settings: settings.clone(), places: places.clone() };
                    probes.spawn(probe.follow(Dice::seeded(dice.bits())));
                }
            }
            Some(over) = probes.join_next() => {
                let Ok((endpoint, answers)) = over else { continue };
                let instance = instance(&endpoint);
                taken_on.remove(&instance);
                let ready = Happening::Ready { app: endpoint.app.clone(), instance };
                if answers && happenings.send(ready).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn instance(endpoint: &Endpoint) -> Instance {
    Instance { address: endpoint.address.clone(), id: endpoint.instance.clone() }
}

struct Probe {
    endpoint: Arc<Endpoint>,
    settings: Arc<Published<Settings>>,
    places: Arc<Semaphore>,
}

impl Probe {
    /// Tries until the instance answers, its app is awake, or it was not heard of for long.
    async fn follow(self, mut dice: Dice) -> (Arc<Endpoint>, bool) {
        let until = Instant::now() + FOLLOWED;
        let mut failures = 0;
        let mut answers = false;
        while !answers && Instant::now() < until && self.endpoint.live_app.stage().is_asleep() {
            sleep(PAUSES.pause(failures, &mut dice)).await;
            failures += 1;
            answers = self.answers().await;
        }
        (self.endpoint, answers)
    }

    async fn answers(&self) -> bool {
        let Ok(_place) = self.places.acquire().await else { return false };
        let settings = self.settings.get();
        let is_plain = self.endpoint.tls.is_none() && self.endpoint.protocol == Protocol::Http1;
        let path = settings.path.as_deref().filter(|_| is_plain);
        match timeout(PATIENCE, attempt(&self.endpoint, path)).await {
            Ok(Ok(status)) => status.is_none_or(|status| status.as_u16() < 500),
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

/// The status of the answer, if a path is asked for.
async fn attempt(endpoint: &Endpoint, path: Option<&str>) -> io::Result<Option<StatusCode>> {
    let stream = match endpoint.socket_address() {
        Some(address) => TcpStream::connect(address).await?,
        None => TcpStream::connect((endpoint.address.host(), endpoint.address.port())).await?,
    };
    let Some(path) = path else { return Ok(None) };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::get(path)
        .header(HOST, endpoint.address.to_string())
        .header(USER_AGENT, concat!("weighbridge/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let mut answering = pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut answering => answer,
        // It may have ended with the answer.
        _ended = connection => answering.await,
    };
    Ok(Some(answer.map_err(io::Error::other)?.status()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::domain::balance::live::Live;
    use crate::domain::endpoint::Facts;
    use crate::domain::identity::{Address, AppId};
    use crate::domain::moment::Moment;
    use crate::domain::protocol::app::Sleep;
    use crate::domain::wake::{self, Apps, LiveApps};

    /// An instance at `port` of an app that sleeps.
    fn asleep(port: u16) -> Arc<Endpoint> {
        let lives = Arc::new(LiveApps::default());
        let app = AppId::new("shop");
        let mut apps = Apps::new("me", wake::Settings::default(), lives.clone());
        let sleep = Sleep { app: app.clone(), uris: [].into(), epoch: 1, ready_after: None, name: None };
        apps.handle(Happening::Sleep(sleep, Vec::new()), Moment::START).expect("a first sleep");
        let facts = Facts { app: app.clone(), ..Facts::at(Address::new("127.0.0.1", port)) };
        Arc::new(Endpoint::new(1, facts, Arc::new(Live::new(Moment::START)), lives.of(&app)))
    }

    fn probes(path: Option<&str>) -> (mpsc::Sender<Arc<Endpoint>>, mpsc::Receiver<Happening>) {
        let (happenings, told) = mpsc::channel(8);
        let settings = Published::new(Settings { path: path.map(str::to_owned) });
        (start(settings, happenings, Dice::seeded(1)), told)
    }

    #[tokio::test]
    async fn an_instance_is_ready_when_it_takes_a_connection() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("it is bound");
        drop(taken); // nobody is there yet
        let (probes, mut told) = probes(None);
        probes.send(asleep(address.port())).await.expect("it runs");
        probes.send(asleep(address.port())).await.expect("it runs"); // its next heartbeat
        let _late = TcpListener::bind(address).await.expect("still free");
        let Some(Happening::Ready { instance, .. }) = told.recv().await else { panic!("ready") };
        assert_eq!(instance.address.port(), address.port());
        drop(probes);
        assert!(told.recv().await.is_none(), "told once");
    }

    #[tokio::test]
    async fn a_named_path_has_to_answer_below_500() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (probes, mut told) = probes(Some("/ready?x"));
        probes.send(asleep(listener.local_addr().expect("it is bound").port())).await.expect("it runs");
        for status in ["503 No", "500 No", "404 Not Found"] {
            let (mut stream, _) = listener.accept().await.expect("a try");
            let mut asked = [0; 1024];
            let count = stream.read(&mut asked).await.expect("a request");
            assert!(asked[..count].starts_with(b"GET /ready?x HTTP/1.1\r\n"));
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.expect("it listens");
        }
        assert!(matches!(told.recv().await, Some(Happening::Ready { .. })));
    }
}

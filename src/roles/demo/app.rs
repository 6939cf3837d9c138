//! The apps of the demo: small real HTTP servers whose answers cost CPU of the machine they run on.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, COOKIE, SET_COOKIE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::machine::Machine;
use crate::domain::dice::Dice;

/// Seconds of CPU that an answer costs on average.
pub const MEAN_COST: f64 = 0.020;

/// What a visitor may ask for with `?cpu=`, in seconds.
const COST_MAX: f64 = 5.0;

/// How far back the figures of the table look.
pub const WINDOW: Duration = Duration::from_secs(10);

/// One running copy of an app.
#[derive(Debug)]
pub struct Instance {
    /// Its instance id, such as `shop-0`.
    pub name: String,
    /// Its app.
    pub app: &'static str,
    /// Its number in the app.
    pub index: usize,
    /// The machine it runs on.
    pub machine: Arc<Machine>,
    /// Which of the machine's slots it has.
    pub slot: usize,
    /// Where it listens.
    pub address: SocketAddr,
    serving: Mutex<Option<AbortHandle>>,
    dice: Mutex<Dice>,
    answers: Mutex<VecDeque<(Instant, Duration)>>,
}

/// What an instance did lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lately {
    /// Requests it answered within the window.
    pub answered: usize,
    /// The time under which 99 % of them were answered.
    pub p99: Option<Duration>,
}

impl Instance {
    /// Starts one on a free port of the loopback interface. It serves until it is stopped, or the runtime ends.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start(
        app: &'static str,
        index: usize,
        machine: &Arc<Machine>,
        slot: usize,
        seed: u64,
    ) -> std::io::Result<Arc<Instance>> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let instance = Arc::new(Instance {
            name: format!("{app}-{index}"),
            app,
            index,
            machine: machine.clone(),
            slot,
            address: listener.local_addr()?,
            serving: Mutex::default(),
            dice: Mutex::new(Dice::seeded(seed)),
            answers: Mutex::default(),
        });
        *instance.serving.lock() = Some(tokio::spawn(instance.clone().accept(listener)).abort_handle());
        Ok(instance)
    }

    /// Takes no new connections any more.
    pub fn stop(&self) {
        self.serving.lock().take().iter().for_each(AbortHandle::abort);
    }

    /// What a host agent writes about it in a heartbeat; `cpu` is its share of the machine.
    pub fn droplet(&self, cpu: f64) -> Value {
        json!({
            "droplet": self.app, "instance": self.name, "index": self.index, "state": "RUNNING",
            "private_instance_id": self.name, "port": self.address.port(),
            "uris": [format!("{}.localhost", self.app)],
            "load": {"cpu": cpu, "mem": 0.35},
        })
    }

    /// What it did within the window.
    pub fn lately(&self) -> Lately {
        let mut answers = self.answers.lock();
        let now = Instant::now();
        while answers.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            answers.pop_front();
        }
        let mut times: Vec<_> = answers.iter().map(|(_, time)| *time).collect();
        times.sort_unstable();
        let p99 = times.get((times.len() * 99 / 100).min(times.len().saturating_sub(1))).copied();
        Lately { answered: times.len(), p99 }
    }

    async fn accept(self: Arc<Instance>, listener: TcpListener) {
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors: some will come back
                continue;
            };
            let instance = self.clone();
            let service = service_fn(move |request| {
                let instance = instance.clone();
                async move { Ok::<_, Infallible>(instance.answer(&request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(socket), service);
            tokio::spawn(async move {
                let _client_gone = connection.await;
            });
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() == "/favicon.ico" {
            return response(StatusCode::NOT_FOUND, "text/plain", String::new());
        }
        let begun = Instant::now();
        self.machine.work(self.slot, self.cost(request.uri().query())).await;
        let took = begun.elapsed();
        self.answers.lock().push_back((Instant::now(), took));

        let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let sentence = self.sentence(request, took);
        let mut answer = if accept.contains("text/html") {
            response(StatusCode::OK, "text/html; charset=utf-8", self.page(&sentence))
        } else {
            response(StatusCode::OK, "text/plain; charset=utf-8", format!("{sentence}\n"))
        };
        if request.uri().path() == "/login" {
            let session = http::HeaderValue::from_static("JSESSIONID=demo; Path=/; HttpOnly");
            answer.headers_mut().insert(SET_COOKIE, session);
        }
        answer
    }

    /// Seconds of CPU: as asked for, else by chance.
    fn cost(&self, query: Option<&str>) -> f64 {
        let asked = query.and_then(|query| query.strip_prefix("cpu="));
        match asked.and_then(|seconds| seconds.parse::<f64>().ok()) {
            Some(seconds) if seconds.is_finite() => seconds.clamp(0.0, COST_MAX),
            _ => exponential(&mut self.dice.lock(), MEAN_COST).min(10.0 * MEAN_COST),
        }
    }

    fn sentence(&self, request: &Request<Incoming>, took: Duration) -> String {
        let cookies = request.headers().get(COOKIE).and_then(|cookies| cookies.to_str().ok()).unwrap_or_default();
        let session = if cookies.contains("__VCAP_ID__=") { " Your session is pinned to me." } else { "" };
        let (name, machine) = (&self.name, &self.machine);
        format!("{name} on {} ({} cores) answered in {} ms.{session}", machine.name, machine.cores(), took.as_millis())
    }

    fn page(&self, sentence: &str) -> String {
        let app = self.app;
        format!(
            "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{app}</title>\
             <style>:root{{color-scheme:light dark}}body{{font:18px/1.6 system-ui,sans-serif;max-width:34em;margin:12vh auto;\
             padding:0 1em}}a{{margin-right:1em}}</style><h1>{app}</h1><p>{sentence}\
             <p><a href='/'>Reload</a><a href='/login'>Begin a session</a><a href='/?cpu=1'>Ask for a second of CPU</a>"
        )
    }
}

/// A time by chance whose mean is `mean`: most are short, some are long.
pub fn exponential(dice: &mut Dice, mean: f64) -> f64 {
    -mean * (1.0 - dice.share()).ln()
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}

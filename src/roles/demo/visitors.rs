//! The background traffic: visitors who ask through the router, think, and ask again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::app::exponential;
use crate::domain::dice::Dice;

/// What all visitors saw since the demo began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Answers with status 200.
    pub good: u64,
    /// Everything else, broken connections included.
    pub bad: u64,
}

/// The counts of all visitors.
pub type Counts = Arc<Mutex<Seen>>;

/// Sends `count` visitors to `app`, each asking about every `think`, until the runtime ends.
pub fn send(count: u64, app: &'static str, think: Duration, router: SocketAddr, counts: &Counts) {
    for number in 0..count {
        let visitor = Visitor { app, think, router, counts: counts.clone(), dice: Dice::seeded(1_000 + number) };
        tokio::spawn(visitor.visit());
    }
}

struct Visitor {
    app: &'static str,
    think: Duration,
    router: SocketAddr,
    counts: Counts,
    dice: Dice,
}

impl Visitor {
    async fn visit(mut self) {
        let mut connection = None;
        loop {
            self.think().await;
            let is_good = self.ask(&mut connection).await.is_some_and(|status| status == 200);
            let mut seen = self.counts.lock();
            if is_good { seen.good += 1 } else { seen.bad += 1 }
        }
    }

    async fn think(&mut self) {
        let seconds = exponential(&mut self.dice, self.think.as_secs_f64());
        tokio::time::sleep_until((Instant::now() + Duration::from_secs_f64(seconds)).into()).await;
    }

    /// One request on the kept connection, or on a new one; the status, if there was an answer.
    async fn ask(&self, connection: &mut Option<SendRequest<Empty<Bytes>>>) -> Option<u16> {
        let mut sender = match connection.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        let request = Request::get("/").header(HOST, format!("{}.localhost", self.app)).body(Empty::new()).ok()?;
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        response.into_body().collect().await.ok()?;
        *connection = Some(sender);
        Some(status)
    }

    async fn connect(&self) -> Option<SendRequest<Empty<Bytes>>> {
        let socket = TcpStream::connect(self.router).await.ok()?;
        let (sender, connection) = handshake(TokioIo::new(socket)).await.ok()?;
        tokio::spawn(async move {
            let _router_gone = connection.await;
        });
        Some(sender)
    }
}

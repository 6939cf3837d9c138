//! TLS with clients and with instances.

mod clients;
mod files;
mod instances;

use serde_json::json;

use crate::harness::bus::{self, Bus};
use crate::harness::client::Client;
use crate::harness::instance::{self, Instance};
use crate::harness::message::Message;
use crate::harness::router::{self, Router};
use crate::harness::tls::{Authority, Pair, Speaker};

/// `[https]` on a free port with these certificates, and whatever else the section shall have.
fn https(pairs: &[&Pair], more: &str) -> String {
    let pairs: Vec<String> =
        pairs.iter().map(|pair| format!("{{ cert = {:?}, key = {:?} }}", pair.cert, pair.key)).collect();
    format!("[https]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [{}]\n{more}\n", pairs.join(", "))
}

/// A router with these settings and an instance of `shop.test` behind it.
async fn shop(settings: &str) -> (Router, Instance, Bus) {
    let bus = bus::embedded().await;
    let instance = instance::serving("shop.test").on(&bus).await;
    let router = router::with(settings).on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    (router, instance, bus)
}

/// A GET of `shop.test` on a new connection. With TLS 1.3 a refusal of the client's certificate comes instead of the
/// response.
async fn get(router: &Router, speaker: &Speaker) -> std::io::Result<Message> {
    let (mut stream, _) = speaker.connect(router.tls_address(), "shop.test").await?;
    stream.send(router.get("shop.test/").bytes()).await?;
    stream.response_to("GET").await
}

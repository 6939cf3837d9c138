//! A small controller: puts apps to sleep, hears who is wanted, starts instances. It speaks NATS as any program would.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::harness::{eventually, in_time};
use crate::nats::Server;

/// The controller of one app.
pub struct Controller {
    client: async_nats::Client,
    app: &'static str,
    heard: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Controller {
    /// Listens to what routers say about apps.
    pub async fn of(app: &'static str, server: &Server) -> Controller {
        let client = async_nats::connect(server.url()).await.expect("the server is there");
        let heard: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let mut messages = client.subscribe("*.*").await.expect("one may subscribe");
        client.flush().await.expect("the server is there");
        let notes = heard.clone();
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let body = serde_json::from_slice(&message.payload).unwrap_or_default();
                notes.lock().push((message.subject.to_string(), body));
            }
        });
        Controller { client, app, heard }
    }

    /// Says something about the app.
    pub async fn say(&self, subject: &str, mut body: Value) {
        body["app"] = self.app.into();
        self.client.publish(subject.to_owned(), body.to_string().into()).await.expect("the client takes messages");
        self.client.flush().await.expect("the server is there");
    }

    /// Asks so many routers whether the app may sleep; their answers.
    pub async fn park(&self, epoch: u64, routers: usize) -> Vec<Value> {
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.expect("one may subscribe");
        let body = json!({"app": self.app, "epoch": epoch}).to_string();
        self.client.publish_with_reply("app.park", inbox, body.into()).await.expect("the client takes messages");
        let mut found = Vec::new();
        while found.len() < routers {
            let answer = in_time("an answer to the park", answers.next()).await.expect("the inbox stays");
            found.push(serde_json::from_slice(&answer.payload).expect("JSON"));
        }
        found
    }

    /// Puts it to sleep.
    pub async fn sleep(&self, epoch: u64, uris: &[&str]) {
        self.say("app.sleep", json!({"uris": uris, "epoch": epoch, "name": "The Shop"})).await;
    }

    /// What was said on `subject` about the app.
    pub fn heard(&self, subject: &str) -> Vec<Value> {
        let heard = self.heard.lock();
        heard
            .iter()
            .filter(|(of, body)| of == subject && body["app"] == self.app)
            .map(|(_, body)| body.clone())
            .collect()
    }

    /// The reports on how the app was used.
    pub fn stats(&self) -> Vec<Value> {
        let heard = self.heard.lock();
        let reports = heard.iter().filter(|(of, _)| of == "router.stats").map(|(_, body)| &body["apps"][self.app]);
        reports.filter(|report| !report.is_null()).cloned().collect()
    }

    /// The starts that were asked for: router and number. Repeats of one ask are the same.
    pub fn asks(&self) -> BTreeSet<(String, u64)> {
        let wakes = self.heard("app.wake");
        let ask = |wake: &Value| (wake["router"].to_string(), wake["attempt"].as_u64().unwrap_or_default());
        wakes.iter().map(ask).collect()
    }

    /// Waits until so many starts were asked for.
    pub async fn until_asked(&self, count: usize) {
        eventually("starts were asked for", || self.asks().len() >= count).await;
    }
}

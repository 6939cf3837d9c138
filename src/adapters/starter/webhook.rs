//! A web service starts the app: one POST, and a status that says whether it does.

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde::Deserialize;

use super::call::{Answer, Caller, post};
use super::{NotStarted, Task};
use crate::config::WebhookConfig;

/// Repeats of one ask carry the same key, so that a service that took it on can tell.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The service.
#[derive(Clone)]
pub(super) struct Webhook {
    caller: Caller,
    url: String,
    authorization: Option<HeaderValue>,
}

impl Webhook {
    pub(super) fn new(config: &WebhookConfig) -> Result<Webhook, String> {
        let caller = Caller::new(config.ca.as_deref(), [config.url.as_str()], config.timeout)?;
        let authorization = config.token.as_ref().map(|token| bearer(token.expose()));
        Ok(Webhook { caller, url: config.url.clone(), authorization })
    }

    pub(super) async fn start(&self, task: &Task) -> Result<(), NotStarted> {
        let body: Bytes = task.wake().encode();
        let failed = |log: String| NotStarted::unreachable(log);
        let mut request =
            post(&self.url, "application/json", body).map_err(|error| failed(format!("{}: {error}", self.url)))?;
        let headers = request.headers_mut();
        headers.insert(IDEMPOTENCY_KEY, key(task));
        headers.extend(self.authorization.clone().map(|authorization| (AUTHORIZATION, authorization)));
        let answer = self.caller.call(request).await.map_err(|error| failed(error.to_string()))?;
        if answer.status.is_success() { Ok(()) } else { Err(refused(&answer)) }
    }
}

/// `APP-EPOCH-ATTEMPT`, as far as a header can carry it.
fn key(task: &Task) -> HeaderValue {
    let app: String = task.ask.app.as_str().chars().filter(char::is_ascii_graphic).collect();
    HeaderValue::from_str(&format!("{app}-{}-{}", task.ask.epoch, task.ask.attempt)).expect("printable ASCII")
}

/// What goes behind `Authorization` for a token (proven by the configuration, or by whoever gave it).
pub(super) fn bearer(token: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap_or(HeaderValue::from_static("Bearer"));
    value.set_sensitive(true);
    value
}

fn refused(answer: &Answer) -> NotStarted {
    #[derive(Deserialize)]
    struct Told {
        message: String,
    }
    let status = answer.status.as_u16();
    let told = answer.json().map(|Told { message }| message).filter(|message| !message.trim().is_empty());
    NotStarted {
        visitors: told.unwrap_or_else(|| format!("The service that starts this app answered with status {status}.")),
        log: format!("status {status}: {}", answer.shown()),
    }
}

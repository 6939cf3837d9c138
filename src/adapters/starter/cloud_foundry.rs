//! A Cloud Controller starts the app, if we show it a token: one from the configuration, or one that UAA gives.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use hyper::{Request, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::call::{Answer, Caller, post};
use super::webhook::bearer;
use super::{NotStarted, Task};
use crate::config::{CloudFoundryAuth, CloudFoundryConfig};

/// A token is renewed when this share of its life is over.
const RENEW_AT: f64 = 0.8;
/// Life of a token whose giver does not say.
const LIFE: Duration = Duration::from_secs(300);
/// The longest life that is believed.
const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A Cloud Controller, and what we know about getting in.
#[derive(Clone)]
pub(super) struct CloudFoundry {
    caller: Caller,
    config: CloudFoundryConfig,
    /// Held while a token is fetched, so that many asks fetch one.
    present: Arc<Mutex<Option<Token>>>,
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    /// `None`: never by itself.
    renew_at: Option<Instant>,
}

impl CloudFoundry {
    pub(super) fn new(config: &CloudFoundryConfig) -> Result<CloudFoundry, String> {
        let urls = [Some(config.api.as_str()), config.uaa.as_deref()];
        let caller = Caller::new(config.ca.as_deref(), urls.into_iter().flatten(), config.timeout)?;
        Ok(CloudFoundry { caller, config: config.clone(), present: Arc::default() })
    }

    pub(super) async fn start(&self, task: &Task) -> Result<(), NotStarted> {
        let token = self.token(None).await?;
        let mut answer = self.ask(task, &token).await?;
        if answer.status == StatusCode::UNAUTHORIZED && matches!(self.config.auth, CloudFoundryAuth::Client { .. }) {
            // It was revoked, or its keys were changed: another one may do.
            let token = self.token(Some(&token)).await?;
            answer = self.ask(task, &token).await?;
        }
        if answer.status.is_success() { Ok(()) } else { Err(refused(&answer)) }
    }

    async fn ask(&self, task: &Task, token: &Token) -> Result<Answer, NotStarted> {
        let url = format!("{}/v3/apps/{}/actions/start", self.config.api, segment(task.ask.app.as_str()));
        let request = post(&url, "application/json", Bytes::new());
        let mut request = request.map_err(|error| NotStarted::unreachable(format!("{url}: {error}")))?;
        request.headers_mut().insert(AUTHORIZATION, token.header.clone());
        self.caller.call(request).await.map_err(|error| NotStarted::unreachable(error.to_string()))
    }

    /// A token that is good for a while, and is not `refused`.
    async fn token(&self, refused: Option<&Token>) -> Result<Token, NotStarted> {
        let (id, secret) = match &self.config.auth {
            CloudFoundryAuth::Token(token) => return Ok(Token { header: bearer(token.expose()), renew_at: None }),
            CloudFoundryAuth::Client { id, secret } => (id, secret.expose()),
        };
        let mut present = self.present.lock().await;
        let is_good = |token: &&Token| {
            token.renew_at.is_none_or(|at| Instant::now() < at)
                && refused.is_none_or(|refused| refused.header != token.header)
        };
        if let Some(token) = present.as_ref().filter(is_good) {
            return Ok(token.clone());
        }
        *present = None;
        let token = self.fetch(id, secret).await.map_err(|log| NotStarted {
            visitors: "The router may not ask the platform to start this app.".into(),
            log,
        })?;
        *present = Some(token.clone());
        Ok(token)
    }

    async fn fetch(&self, id: &str, secret: &str) -> Result<Token, String> {
        #[derive(Deserialize)]
        struct Given {
            access_token: String,
            expires_in: Option<u64>,
        }
        let url = format!("{}/oauth/token", self.uaa().await?);
        let body = Bytes::from_static(b"grant_type=client_credentials");
        let mut request =
            post(&url, "application/x-www-form-urlencoded", body).map_err(|error| format!("{url}: {error}"))?;
        // Both parts are form-encoded first, says OAuth; UAA undoes it.
        let login = BASE64_STANDARD.encode(format!("{}:{}", segment(id), segment(secret)));
        let login = HeaderValue::from_str(&format!("Basic {login}")).expect("Base64 fits into a header");
        request.headers_mut().insert(AUTHORIZATION, login);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let asked = Instant::now();
        let answer = self.caller.call(request).await.map_err(|error| error.to_string())?;
        if !answer.status.is_success() {
            return Err(format!("UAA gives no token to client {id:?}: status {}: {}", answer.status, answer.shown()));
        }
        let given: Given = answer.json().ok_or_else(|| format!("what {url} answers holds no access_token"))?;
        if !given.access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("the token that {url} gives fits into no header"));
        }
        let life = given.expires_in.map_or(LIFE, Duration::from_secs).min(LIFE_MAX);
        Ok(Token { header: bearer(&given.access_token), renew_at: Some(asked + life.mul_f64(RENEW_AT)) })
    }

    /// Where tokens are given.
    async fn uaa(&self) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Root {
            links: Links,
        }
        #[derive(Deserialize)]
        struct Links {
            uaa: Option<Link>,
            login: Option<Link>,
        }
        #[derive(Deserialize)]
        struct Link {
            href: String,
        }
        if let Some(uaa) = &self.config.uaa {
            return Ok(uaa.clone());
        }
        let url = format!("{}/", self.config.api);
        let request = Request::get(&url).body(Bytes::new()).map_err(|error| format!("{url}: {error}"))?;
        let answer = self.caller.call(request).await.map_err(|error| error.to_string())?;
        let root: Root = answer.json().ok_or_else(|| format!("{url} does not answer like a Cloud Controller"))?;
        let link = root.links.uaa.or(root.links.login).ok_or_else(|| format!("{url} names no UAA; set `uaa`"))?;
        // Who may be asked in clear text is for the operator to say, not for what answers there.
        if self.config.api.starts_with("https:") && !link.href.starts_with("https:") {
            return Err(format!("{url} names a UAA without TLS ({}); set `uaa` if that is meant", link.href));
        }
        Ok(link.href.trim_end_matches('/').to_owned())
    }
}

/// What the Cloud Controller has against it. Only what the app's owner can mend is told in its own words.
fn refused(answer: &Answer) -> NotStarted {
    #[derive(Deserialize)]
    struct Told {
        errors: Vec<Told1>,
    }
    #[derive(Deserialize)]
    struct Told1 {
        #[serde(default)]
        title: String,
        #[serde(default)]
        detail: String,
    }
    let told = answer.json().and_then(|Told { errors }| errors.into_iter().next());
    let visitors = match (answer.status, &told) {
        (StatusCode::NOT_FOUND, _) => "The platform does not know this app.".to_owned(),
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
            "The router may not ask the platform to start this app.".to_owned()
        }
        (StatusCode::UNPROCESSABLE_ENTITY, Some(told)) if !told.detail.is_empty() => {
            format!("The platform cannot start this app: {}", told.detail)
        }
        (status, _) => format!("The platform answered with status {}.", status.as_u16()),
    };
    let log = match told {
        Some(told) => format!("status {}: {}: {}", answer.status.as_u16(), told.title, told.detail),
        None => format!("status {}: {}", answer.status.as_u16(), answer.shown()),
    };
    NotStarted { visitors, log }
}

/// As one segment of a path, or one value of a form.
fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => encoded.push(byte as char),
            b'.' if text.len() > 2 => encoded.push('.'), // `.` and `..` would leave the folder
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

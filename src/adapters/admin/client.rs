//! Asks a running router over its operator's port.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::query::encode;
use crate::config::Login;

/// For connecting, and for the whole of one answer.
const TIME_MAX: Duration = Duration::from_secs(30);

/// A router somewhere.
#[derive(Clone, Debug)]
pub struct Client {
    address: String,
    login: Option<Login>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody there.
    #[error("no router answers on {address}: {cause}")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// Why not.
        cause: String,
    },
    /// It did not do what was asked.
    #[error("the router refused ({label}): {message}")]
    Refused {
        /// Status of its answer.
        status: u16,
        /// The stable name of the reason.
        label: String,
        /// The reason as a sentence.
        message: String,
    },
}

/// How a problem is told.
#[derive(Deserialize)]
struct Told {
    error: String,
    message: String,
}

impl Client {
    /// A router whose operator's port is at `address` (`host:port`).
    pub fn new(address: &str, login: Option<Login>) -> Client {
        Client { address: address.to_owned(), login }
    }

    /// The route table, as JSON.
    ///
    /// # Errors
    /// The router is not there, or refuses.
    pub async fn routes(&self) -> Result<Bytes, ClientError> {
        self.ask(Method::GET, "/routes", Bytes::new()).await
    }

    /// Where a request for `host` and `path` would go, as JSON; `session` is the value of the sticky cookie.
    ///
    /// # Errors
    /// The router is not there, or refuses.
    pub async fn explain(&self, host: &str, path: &str, session: Option<&str>) -> Result<Bytes, ClientError> {
        let cookie = session.map(|session| format!("&cookie={}", encode(session))).unwrap_or_default();
        let question = format!("/v1/explain?host={}&path={}{cookie}", encode(host), encode(path));
        self.ask(Method::GET, &question, Bytes::new()).await
    }

    /// All apps, as JSON.
    ///
    /// # Errors
    /// The router is not there, or refuses.
    pub async fn apps(&self) -> Result<Bytes, ClientError> {
        self.ask(Method::GET, "/v1/apps", Bytes::new()).await
    }

    /// Puts an app to sleep; `wish` is the body of that order as JSON.
    ///
    /// # Errors
    /// The router is not there, or says why it cannot be.
    pub async fn sleep(&self, app: &str, wish: impl Into<Bytes>) -> Result<(), ClientError> {
        self.ask(Method::POST, &format!("/v1/apps/{}/sleep", encode(app)), wish.into()).await.map(drop)
    }

    /// Has a sleeping app started.
    ///
    /// # Errors
    /// The router is not there, does not know the app, or it is not asleep.
    pub async fn wake(&self, app: &str) -> Result<(), ClientError> {
        self.ask(Method::POST, &format!("/v1/apps/{}/wake", encode(app)), Bytes::new()).await.map(drop)
    }

    /// Publishes `payload` on the router's bus.
    ///
    /// # Errors
    /// The router is not there, or would drop the message itself and says why.
    pub async fn publish(&self, subject: &str, payload: impl Into<Bytes>) -> Result<(), ClientError> {
        self.ask(Method::POST, &format!("/v1/bus/{}", encode(subject)), payload.into()).await.map(drop)
    }

    async fn ask(&self, method: Method, target: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let answered = timeout(TIME_MAX, self.exchange(method, target, body)).await;
        let (status, content) = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.unreachable(&*error)),
            Err(late) => return Err(self.unreachable(&late)),
        };
        if status.is_success() {
            return Ok(content);
        }
        let told = serde_json::from_slice(&content).unwrap_or_else(|_| Told {
            error: status.as_u16().to_string(),
            message: "what answers there does not speak like a router".to_owned(),
        });
        Err(ClientError::Refused { status: status.as_u16(), label: told.error, message: told.message })
    }

    fn unreachable(&self, cause: &dyn std::error::Error) -> ClientError {
        ClientError::Unreachable { address: self.address.clone(), cause: cause.to_string() }
    }

    async fn exchange(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, &self.address)
            .header(CONTENT_TYPE, "application/json");
        if let Some(login) = &self.login {
            let plain = format!("{}:{}", login.user, login.password.expose());
            request = request.header(AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode(plain)));
        }
        let request = request.body(Full::new(body))?;
        let stream = TcpStream::connect(&self.address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status();
        let content = response.into_body().collect().await?.to_bytes();
        connection.abort(); // it has done its work
        Ok((status, content))
    }
}

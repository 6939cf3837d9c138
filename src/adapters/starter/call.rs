//! One HTTP call to a service that starts apps or gives tokens: a connection of its own, within limits of time and size.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::runtime::authorities;

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What calls have in common.
#[derive(Clone)]
pub(super) struct Caller {
    tls: Option<TlsConnector>,
    within: Duration,
}

/// What came back, whatever the status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// Why nothing came back. For the log: it may name addresses.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("cannot connect to {host}: {cause}")]
    Connect { host: String, cause: std::io::Error },
    #[error("cannot agree on TLS with {host}: {cause}")]
    Tls { host: String, cause: std::io::Error },
    #[error("{host} does not answer within {within:?}")]
    Late { host: String, within: Duration },
    #[error("{host} does not answer as HTTP/1.1 asks: {cause}")]
    Http { host: String, cause: hyper::Error },
    #[error("the answer of {host} cannot be read: {cause}")]
    Body { host: String, cause: Box<dyn Error + Send + Sync> },
}

impl Caller {
    /// Trusts `ca` (or the system's authorities); nobody is trusted where no URL needs TLS.
    ///
    /// # Errors
    /// The authorities cannot be read.
    pub(super) fn new<'a>(
        ca: Option<&Path>,
        urls: impl IntoIterator<Item = &'a str>,
        within: Duration,
    ) -> Result<Caller, String> {
        // A service that is found over clear text may still send us on to one that speaks TLS.
        let needs_tls = urls.into_iter().any(|url| url.starts_with("https:"));
        let tls = match authorities::read(ca) {
            Ok(roots) => Some(connector(roots)?),
            Err(error) if needs_tls || ca.is_some() => return Err(error.to_string()),
            Err(_) => None,
        };
        Ok(Caller { tls, within })
    }

    /// Sends one request. Its URI is absolute; `Host` and what frames the message are added here.
    pub(super) async fn call(&self, mut request: Request<Bytes>) -> Result<Answer, NoAnswer> {
        let uri = request.uri().clone();
        let host = uri.authority().map_or("", |authority| authority.as_str()).to_owned();
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        *request.uri_mut() = target.parse().unwrap_or_default(); // it was part of a URI
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(&host).expect("an authority fits into a header"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("weighbridge/", env!("CARGO_PKG_VERSION"))));
        let exchange = self.exchange(&uri, &host, request.map(Full::new));
        timeout(self.within, exchange).await.unwrap_or(Err(NoAnswer::Late { host: host.clone(), within: self.within }))
    }

    async fn exchange(&self, uri: &Uri, host: &str, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        let named = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let connect = |cause| NoAnswer::Connect { host: host.to_owned(), cause };
        let tcp = TcpStream::connect((named, port)).await.map_err(connect)?;
        if !is_tls {
            return exchange(tcp, host, request).await;
        }
        let failed = |cause| NoAnswer::Tls { host: host.to_owned(), cause };
        let tls = self.tls.as_ref().ok_or_else(|| failed(std::io::Error::other("nobody is trusted")))?;
        let name = ServerName::try_from(named.to_owned()).map_err(|error| failed(std::io::Error::other(error)))?;
        exchange(tls.connect(name, tcp).await.map_err(failed)?, host, request).await
    }
}

async fn exchange<S>(stream: S, host: &str, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |cause| NoAnswer::Http { host: host.to_owned(), cause };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let connection = AbortOnDrop(tokio::spawn(connection));
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|cause| NoAnswer::Body { host: host.to_owned(), cause })?.to_bytes();
    drop(connection);
    Ok(Answer { status, body })
}

/// The connection goes with the call, finished or given up.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn connector(roots: rustls::RootCertStore) -> Result<TlsConnector, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A request with a JSON body, if there is one.
pub(super) fn post(uri: &str, content_type: &'static str, body: Bytes) -> Result<Request<Bytes>, hyper::http::Error> {
    Request::post(uri).header(CONTENT_TYPE, content_type).body(body)
}

impl Answer {
    /// The body as JSON, if it is.
    pub(super) fn json<T: for<'a> Deserialize<'a>>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The beginning of the body, for the log.
    pub(super) fn shown(&self) -> String {
        const BYTES_MAX: usize = 512;
        String::from_utf8_lossy(&self.body[..self.body.len().min(BYTES_MAX)]).into_owned()
    }
}

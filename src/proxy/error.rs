//! Everything that can go wrong with a request, and what follows from it: status, header values, retry, label.

use std::io;
use std::time::Duration;

use arcstr::ArcStr;

use crate::domain::balance::Outcome;
use crate::domain::retry::Failure;
use crate::http1::Refusal;

/// Why a request was not answered by an instance, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// No Host that names a route.
    #[error("the request names no host")]
    EmptyHost,
    /// Malformed or ambiguous.
    #[error("{0}")]
    BadRequest(Refusal),
    /// The head is larger than `limits.head_bytes` or has more fields than `limits.head_count`.
    #[error("{0}")]
    HeadTooLarge(Refusal),
    /// The body is larger than `limits.body_bytes`.
    #[error("the request body is larger than allowed")]
    BodyTooLarge,
    /// The client did not finish its head in `timeouts.header_read`, or its body stood still.
    #[error("the client was too slow")]
    ClientTimeout,
    /// A method this proxy does not forward.
    #[error("CONNECT is not offered here")]
    ConnectMethod,
    /// TRACE that is to end here.
    #[error("TRACE is not answered here")]
    TraceMethod,
    /// No such route.
    #[error("no route is registered for this host and path")]
    UnknownRoute,
    /// The route is known, but nobody serves it.
    #[error("no instance serves this route at the moment")]
    NoEndpoints,
    /// The app is asleep or starting, and the request does not wait for it (any longer).
    #[error("the app is asleep and being woken")]
    AppWaking {
        /// Seconds until another try is worth while.
        retry_after: u64,
    },
    /// The app could not be started.
    #[error("the app could not be started: {why}")]
    AppFailed {
        /// In the words of whoever starts apps.
        why: ArcStr,
        /// Seconds until another try is worth while.
        retry_after: u64,
    },
    /// Every instance is at `max_conns`.
    #[error("every instance of this route is at its connection limit")]
    ConnectionLimit,
    /// A limit on what clients hold at one time is reached.
    #[error("{0}")]
    Crowded(Crowd),
    /// `X-CF-App-Instance` or `X-CF-Process-Instance` cannot be read.
    #[error("the header that names an instance is malformed")]
    MalformedInstanceHeader,
    /// The instance that a header names is not there.
    #[error("the instance that the request asks for is not registered for this route")]
    UnknownInstance,
    /// The route wants its requests to pass another service first, which this router cannot do: going straight to the
    /// instance could pass by what guards it.
    #[error("the route asks for a route service, which this router does not offer")]
    RouteService,
    /// The instance failed.
    #[error("the instance failed: {0}")]
    Endpoint(Cause),
    /// The instance did not answer in time.
    #[error("the instance did not answer in time")]
    EndpointTimeout,
    /// The client is gone.
    #[error("the client went away")]
    ClientGone,
}

/// The value of `Allow` where the router answers for itself: what it passes on to apps. TRACE is left out, since apps
/// that answer it show everybody's secrets, and CONNECT.
pub const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Crowd {
    /// `limits.connections`
    #[error("the router has as many connections as it may")]
    Connections,
    /// `limits.connections_per_client`
    #[error("this client has as many connections as it may")]
    Client,
    /// `limits.tunnels`
    #[error("the router has as many tunnels as it may")]
    Tunnels,
}

/// What an instance did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// Its name has no address (yet).
    #[error("name not resolved")]
    Unresolved,
    /// We have no file descriptor left for a connection: nothing is wrong with it.
    #[error("the router is out of file descriptors")]
    NoDescriptor,
    /// It could not be connected to.
    #[error("connect: {0}")]
    Connect(io::ErrorKind),
    /// It did not take the connection in time.
    #[error("connect: timed out")]
    ConnectTimeout,
    /// It does not speak TLS, or none that we speak.
    #[error("tls: not spoken")]
    NotTls,
    /// It did not agree on TLS in time.
    #[error("tls: timed out")]
    TlsTimeout,
    /// Its certificate is not to be trusted.
    #[error("tls: bad certificate")]
    BadCertificate,
    /// Its certificate is for somebody else.
    #[error("tls: certificate is for another name")]
    WrongName,
    /// It wants a certificate of us that we do not have.
    #[error("tls: wants our certificate")]
    CertificateWanted,
    /// It does not speak HTTP/2, though its registration says so.
    #[error("http2: not spoken")]
    NotHttp2,
    /// It has refused the request unseen, or said goodbye before it came to it.
    #[error("http2: stream refused")]
    RefusedStream,
    /// It broke the rules of HTTP/2.
    #[error("http2: protocol violated")]
    Http2Violated,
    /// The request cannot be made over HTTP/2, or not over the one that it speaks (upgrades need RFC 8441).
    #[error("http2: cannot be asked for")]
    NotInHttp2,
    /// There is nobody to verify its certificate by.
    #[error("tls: no authorities to verify by")]
    NoAuthorities,
    /// It closed or reset a kept-alive connection before a byte of the answer: nothing may be wrong with it.
    #[error("keep-alive connection closed")]
    StaleConnection,
    /// It closed the connection before a byte of the answer.
    #[error("closed early")]
    ClosedEarly,
    /// It reset the connection.
    #[error("reset")]
    Reset,
    /// What it answered is not HTTP.
    #[error("invalid response: {0}")]
    BadResponse(Refusal),
    /// It switched protocols without having been asked to.
    #[error("switched protocols unasked")]
    UnaskedUpgrade,
    /// It stopped in the middle of its answer.
    #[error("response cut off")]
    Truncated,
    /// It stood still in the middle of its answer.
    #[error("response stood still")]
    Stalled,
}

impl ProxyError {
    /// The status the client gets; for `ClientGone` the one that is logged. `timeout_status` is the configured one for
    /// an instance that did not answer in time.
    pub fn status(&self, timeout_status: u16) -> u16 {
        match self {
            Self::EmptyHost | Self::MalformedInstanceHeader | Self::UnknownInstance => 400,
            Self::BadRequest(refusal) | Self::HeadTooLarge(refusal) => refusal.status(),
            Self::UnknownRoute => 404,
            Self::ConnectMethod | Self::TraceMethod => 405,
            Self::ClientTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::ClientGone => 499,
            Self::RouteService => 502,
            Self::Endpoint(cause) => cause.status(),
            Self::NoEndpoints
            | Self::ConnectionLimit
            | Self::Crowded(_)
            | Self::AppWaking { .. }
            | Self::AppFailed { .. } => 503,
            Self::EndpointTimeout => timeout_status,
        }
    }

    /// The value of `X-Cf-RouterError`.
    pub fn router_error(&self) -> String {
        match self {
            Self::EmptyHost => "empty_host".into(),
            Self::BadRequest(_) | Self::ConnectMethod | Self::TraceMethod => "bad_request".into(),
            Self::HeadTooLarge(_) => "max-request-size-exceeded".into(),
            Self::BodyTooLarge => "max-body-size-exceeded".into(),
            Self::ClientTimeout => "client_timeout".into(),
            Self::UnknownRoute | Self::UnknownInstance => "unknown_route".into(),
            Self::RouteService => "route_service_unsupported".into(),
            Self::NoEndpoints => "no_endpoints".into(),
            Self::AppWaking { .. } => "app_waking".into(),
            Self::AppFailed { .. } => "app_failed".into(),
            Self::ConnectionLimit => "Connection Limit Reached".into(),
            Self::Crowded(_) => self.label().into(),
            Self::MalformedInstanceHeader => "invalid_cf_app_instance_header".into(),
            Self::Endpoint(cause) => format!("endpoint_failure ({cause})"),
            Self::EndpointTimeout => "endpoint_timeout".into(),
            Self::ClientGone => "client_gone".into(),
        }
    }

    /// The value of `X-Weighbridge-Error`, and the label of the metric.
    pub fn label(&self) -> &'static str {
        match self {
            Self::EmptyHost => "empty_host",
            Self::BadRequest(_) | Self::ConnectMethod | Self::TraceMethod => "bad_request",
            Self::HeadTooLarge(_) => "max_request_size_exceeded",
            Self::BodyTooLarge => "max_body_size_exceeded",
            Self::ClientTimeout => "client_timeout",
            Self::UnknownRoute => "unknown_route",
            Self::UnknownInstance => "unknown_instance",
            Self::RouteService => "route_service_unsupported",
            Self::NoEndpoints => "no_endpoints",
            Self::AppWaking { .. } => "app_waking",
            Self::AppFailed { .. } => "app_failed",
            Self::ConnectionLimit => "connection_limit_reached",
            Self::Crowded(Crowd::Connections) => "too_many_connections",
            Self::Crowded(Crowd::Client) => "too_many_connections_of_client",
            Self::Crowded(Crowd::Tunnels) => "too_many_tunnels",
            Self::MalformedInstanceHeader => "invalid_cf_app_instance_header",
            Self::Endpoint(_) => "endpoint_failure",
            Self::EndpointTimeout => "endpoint_timeout",
            Self::ClientGone => "client_gone",
        }
    }

    /// What the client did wrong, by the rule it broke; `None`: nothing, or nothing that we refuse.
    pub fn refused(&self) -> Option<&'static str> {
        match self {
            Self::BadRequest(refusal) | Self::HeadTooLarge(refusal) => Some(refusal.label()),
            Self::EmptyHost | Self::BodyTooLarge | Self::ClientTimeout | Self::Crowded(_) => Some(self.label()),
            Self::ConnectMethod => Some("connect"),
            Self::TraceMethod => Some("trace"),
            Self::UnknownRoute
            | Self::NoEndpoints
            | Self::AppWaking { .. }
            | Self::AppFailed { .. }
            | Self::ConnectionLimit
            | Self::MalformedInstanceHeader
            | Self::UnknownInstance
            | Self::RouteService
            | Self::Endpoint(_)
            | Self::EndpointTimeout
            | Self::ClientGone => None,
        }
    }

    /// What the retry rules shall make of it; `None`: nothing can be tried again.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Endpoint(cause) => Some(cause.failure()),
            Self::EndpointTimeout => Some(Failure::TimedOut),
            Self::EmptyHost
            | Self::BadRequest(_)
            | Self::HeadTooLarge(_)
            | Self::BodyTooLarge
            | Self::ClientTimeout
            | Self::ConnectMethod
            | Self::TraceMethod
            | Self::UnknownRoute
            | Self::NoEndpoints
            | Self::AppWaking { .. }
            | Self::AppFailed { .. }
            | Self::ConnectionLimit
            | Self::Crowded(_)
            | Self::MalformedInstanceHeader
            | Self::UnknownInstance
            | Self::RouteService
            | Self::ClientGone => None,
        }
    }

    /// What it says about the instance that was tried, `took` after the attempt began.
    pub fn outcome(&self, took: Duration) -> Outcome {
        match self {
            Self::Endpoint(cause) => cause.outcome(took),
            Self::EndpointTimeout => Outcome::TimedOut { timeout: took },
            Self::ClientGone => Outcome::Abandoned { waited: took },
            Self::EmptyHost
            | Self::BadRequest(_)
            | Self::HeadTooLarge(_)
            | Self::BodyTooLarge
            | Self::ClientTimeout
            | Self::ConnectMethod
            | Self::TraceMethod
            | Self::UnknownRoute
            | Self::NoEndpoints
            | Self::AppWaking { .. }
            | Self::AppFailed { .. }
            | Self::ConnectionLimit
            | Self::Crowded(_)
            | Self::MalformedInstanceHeader
            | Self::UnknownInstance
            | Self::RouteService => Outcome::Cancelled,
        }
    }

    /// The label of a failed attempt.
    pub fn cause_label(&self) -> &'static str {
        match self {
            Self::Endpoint(cause) => cause.label(),
            other => other.label(),
        }
    }

    /// Whether the bytes that follow on the connection cannot be trusted to be a request, so it must be closed.
    pub fn spoils_connection(&self) -> bool {
        match self {
            Self::EmptyHost
            | Self::BadRequest(_)
            | Self::HeadTooLarge(_)
            | Self::BodyTooLarge
            | Self::ClientTimeout
            | Self::ConnectMethod
            | Self::Crowded(Crowd::Connections | Crowd::Client)
            | Self::ClientGone => true,
            Self::Crowded(Crowd::Tunnels)
            | Self::TraceMethod
            | Self::UnknownRoute
            | Self::UnknownInstance
            | Self::RouteService
            | Self::NoEndpoints
            | Self::AppWaking { .. }
            | Self::AppFailed { .. }
            | Self::ConnectionLimit
            | Self::MalformedInstanceHeader
            | Self::Endpoint(_)
            | Self::EndpointTimeout => false,
        }
    }

    /// `Retry-After` in seconds, where it depends on the case.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::AppWaking { retry_after } | Self::AppFailed { retry_after, .. } => Some(*retry_after),
            _other => None,
        }
    }

    /// Fields that only this error's answer has.
    pub fn extra_fields(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::EmptyHost => &[("Cache-Control", "public,max-age=2")],
            Self::ConnectMethod | Self::TraceMethod => &[("Allow", ALLOWED)],
            Self::UnknownRoute => &[("Cache-Control", "no-cache, no-store")],
            Self::AppWaking { .. } | Self::AppFailed { .. } => &[("Cache-Control", "no-store")],
            Self::NoEndpoints => &[("Retry-After", "5"), ("Cache-Control", "no-cache, no-store")],
            Self::ConnectionLimit | Self::Crowded(_) | Self::Endpoint(Cause::NoDescriptor) => {
                &[("Retry-After", "1"), ("Cache-Control", "no-cache, no-store")]
            }
            _other => &[],
        }
    }
}

impl Cause {
    /// The status for the client.
    fn status(self) -> u16 {
        match self {
            Self::CertificateWanted => 496,
            Self::WrongName | Self::NoDescriptor => 503,
            Self::NotTls => 525,
            Self::BadCertificate | Self::NoAuthorities => 526,
            Self::Unresolved
            | Self::Connect(_)
            | Self::ConnectTimeout
            | Self::TlsTimeout
            | Self::StaleConnection
            | Self::ClosedEarly
            | Self::Reset
            | Self::BadResponse(_)
            | Self::UnaskedUpgrade
            | Self::NotHttp2
            | Self::RefusedStream
            | Self::Http2Violated
            | Self::NotInHttp2
            | Self::Truncated
            | Self::Stalled => 502,
        }
    }

    /// What the retry rules shall make of it.
    pub fn failure(self) -> Failure {
        match self {
            Self::Unresolved
            | Self::Connect(_)
            | Self::ConnectTimeout
            | Self::NotTls
            | Self::TlsTimeout
            | Self::BadCertificate
            | Self::WrongName
            | Self::CertificateWanted
            | Self::NoAuthorities
            | Self::NotHttp2
            | Self::RefusedStream
            | Self::NotInHttp2 => Failure::Connect,
            Self::StaleConnection => Failure::ReusedConnectionDead,
            Self::ClosedEarly | Self::Reset => Failure::ClosedEarly,
            Self::BadResponse(_)
            | Self::UnaskedUpgrade
            | Self::Http2Violated
            | Self::Truncated
            | Self::NoDescriptor => Failure::Broken,
            Self::Stalled => Failure::TimedOut,
        }
    }

    /// What it says about the instance.
    pub fn outcome(self, took: Duration) -> Outcome {
        match self {
            Self::Unresolved
            | Self::Connect(_)
            | Self::ConnectTimeout
            | Self::NotTls
            | Self::TlsTimeout
            | Self::BadCertificate
            | Self::WrongName
            | Self::CertificateWanted
            | Self::NotHttp2
            | Self::RefusedStream => Outcome::ConnectFailed,
            Self::StaleConnection | Self::NoAuthorities | Self::NotInHttp2 | Self::NoDescriptor => Outcome::Cancelled,
            Self::ClosedEarly | Self::Reset | Self::Truncated => Outcome::Reset,
            Self::BadResponse(_) | Self::UnaskedUpgrade | Self::Http2Violated => Outcome::Failed { latency: took },
            Self::Stalled => Outcome::TimedOut { timeout: took },
        }
    }

    /// The label of the metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::NoDescriptor => "no_descriptor",
            Self::Connect(io::ErrorKind::ConnectionRefused) => "connect_refused",
            Self::Connect(_) => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::NotTls => "tls_not_spoken",
            Self::TlsTimeout => "tls_timeout",
            Self::BadCertificate => "tls_bad_certificate",
            Self::WrongName => "tls_wrong_name",
            Self::CertificateWanted => "tls_certificate_wanted",
            Self::NoAuthorities => "tls_no_authorities",
            Self::NotHttp2 => "http2_not_spoken",
            Self::RefusedStream => "http2_stream_refused",
            Self::Http2Violated => "http2_violated",
            Self::NotInHttp2 => "http2_cannot_ask",
            Self::StaleConnection => "stale_connection",
            Self::ClosedEarly => "closed_early",
            Self::Reset => "reset",
            Self::BadResponse(_) => "bad_response",
            Self::UnaskedUpgrade => "unasked_upgrade",
            Self::Truncated => "truncated",
            Self::Stalled => "stalled",
        }
    }
}

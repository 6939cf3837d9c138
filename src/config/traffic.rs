//! What happens to a request and its response: retries, sessions, limits, headers.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::schema::{Key, Kind, MOST, Section, Shape, live, ms, restart};

/// Attempts a request may take.
pub(super) const ATTEMPTS: Kind = Kind::Integer { least: 1, most: 16 };
/// A size that 0 lifts.
pub(super) const UNLIMITED_AT_ZERO: Kind = Kind::Size { zero: "unlimited", least: 1, most: i64::MAX as u64 };
/// A time limit that 0 lifts.
pub(super) const NO_LIMIT_AT_ZERO: Kind = Kind::Duration { zero: "no limit", least: ms(1), most: MOST };

pub(super) const RETRY: Section = Section {
    path: "retry",
    shape: Shape::Always,
    doc: "Further attempts at other instances, where a failure left nothing behind: connect and TLS failures for any \
          method, an early close for idempotent ones.",
    keys: &[
        live("attempts", ATTEMPTS, "3", "Attempts per request, the first included. 1: no retry."),
        live(
            "body_bytes",
            Kind::Size { zero: "keep none", least: 1, most: 64 << 20 },
            "\"64KiB\"",
            "Request bodies up to this size (with Content-Length) are kept for another attempt.",
        ),
        restart(
            "budget_share",
            Kind::Number { least: 0.0, most: 1.0 },
            "0.2",
            "Retries may make up this share of recent requests, so that a failing app is not buried under them.",
        ),
        restart(
            "budget_per_second",
            Kind::Number { least: 0.0, most: 100_000.0 },
            "3",
            "Retries per second that are allowed whatever the share, as a mean over ten seconds: after quiet, ten times as many at \
             once, so that the one instance of a quiet router that goes costs nobody anything.",
        ),
    ],
};

/// Further attempts after a failure.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryConfig {
    /// At least 1, the first attempt included.
    pub attempts: u32,
    /// Bodies up to that many bytes are kept; 0 keeps none.
    pub body_bytes: u64,
    /// Share of recent requests that may be retries, 0 to 1.
    pub budget_share: f32,
    /// Retries per second that are always allowed.
    pub budget_per_second: f32,
}

pub(super) fn retry(section: &mut Reader<'_, '_>) -> RetryConfig {
    RetryConfig {
        attempts: section.integer("attempts") as u32,
        body_bytes: section.size("body_bytes"),
        budget_share: section.number("budget_share") as f32,
        budget_per_second: section.number("budget_per_second") as f32,
    }
}

pub(super) const STICKY: Section = Section {
    path: "sticky",
    shape: Shape::Always,
    doc: "Sessions stay on their instance by the cookie `__VCAP_ID__`.",
    keys: &[
        live(
            "mode",
            Kind::Choice(&["session", "always", "off"]),
            "\"session\"",
            "`session`: once the app sets one of `session_cookies`; `always`: from the first response; `off`: never.",
        ),
        live(
            "session_cookies",
            Kind::List("cookie names"),
            "[\"JSESSIONID\"]",
            "Cookies by which apps show that a session has begun.",
        ),
        live("secure", Kind::Flag, "false", "Whether the cookie is `Secure` even if the app's own is not."),
    ],
};

/// Session affinity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyConfig {
    /// When the cookie is set.
    pub mode: StickyMode,
    /// Cookies that mark a session.
    pub session_cookies: Vec<String>,
    /// Always `Secure`.
    pub secure: bool,
}

/// When the sticky cookie is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StickyMode {
    /// Once the app starts a session.
    #[default]
    Session,
    /// On every first response.
    Always,
    /// Never.
    Off,
}

pub(super) fn sticky(section: &mut Reader<'_, '_>) -> StickyConfig {
    let modes = [("session", StickyMode::Session), ("always", StickyMode::Always), ("off", StickyMode::Off)];
    StickyConfig {
        mode: section.choice("mode", &modes),
        session_cookies: section.list("session_cookies", |name| match is_token(name) {
            true => Ok(name.to_string()),
            false => Err("is not the name of a cookie".into()),
        }),
        secure: section.flag("secure"),
    }
}

const fn timeout(name: &'static str, default: &'static str, doc: &'static str) -> Key {
    live(name, NO_LIMIT_AT_ZERO, default, doc)
}

pub(super) const TIMEOUTS: Section = Section {
    path: "timeouts",
    shape: Shape::Always,
    doc: "Time limits. There is none on a whole request, so a long download or an event stream is never cut.",
    keys: &[
        timeout("connect", "\"2s\"", "To connect to an instance."),
        timeout("tls_handshake", "\"5s\"", "To agree on TLS with an instance or a client."),
        timeout("response_head", "\"60s\"", "From the request sent to the head of the response."),
        timeout("idle_body", "\"60s\"", "A body may stand still that long."),
        timeout("client_idle", "\"75s\"", "A client's connection is kept that long between two requests."),
        timeout("header_read", "\"15s\"", "To receive the head of a request, from its first byte."),
        timeout("upstream_idle", "\"55s\"", "A connection to an instance is kept that long between two requests."),
        timeout("tunnel_idle", "\"1h\"", "A tunnel (WebSocket) may stand still that long."),
    ],
};

/// Time limits of a request; off is `NEVER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeoutsConfig {
    /// To connect to an endpoint.
    pub connect: Duration,
    /// To agree on TLS.
    pub tls_handshake: Duration,
    /// From the request sent to the head of the response.
    pub response_head: Duration,
    /// A body standing still.
    pub idle_body: Duration,
    /// A client's connection between two requests.
    pub client_idle: Duration,
    /// To receive the head of a request.
    pub header_read: Duration,
    /// A connection to an endpoint between two requests.
    pub upstream_idle: Duration,
    /// A tunnel standing still.
    pub tunnel_idle: Duration,
}

pub(super) fn timeouts(section: &mut Reader<'_, '_>) -> TimeoutsConfig {
    TimeoutsConfig {
        connect: section.limit("connect"),
        tls_handshake: section.limit("tls_handshake"),
        response_head: section.limit("response_head"),
        idle_body: section.limit("idle_body"),
        client_idle: section.limit("client_idle"),
        header_read: section.limit("header_read"),
        upstream_idle: section.limit("upstream_idle"),
        tunnel_idle: section.limit("tunnel_idle"),
    }
}

pub(super) const LIMITS: Section = Section {
    path: "limits",
    shape: Shape::Always,
    doc: "What clients may ask for at most, and instances answer. Besides these there are limits nobody has to know: 64 trailers of \
          16 KiB together, 16 KiB of chunk extensions, 64 interim responses, 64 options in `Connection`. Whatever is refused \
          is counted in `weighbridge_refused_total` (`weighbridge_responses_refused_total`) by reason.",
    keys: &[
        live(
            "head_bytes",
            Kind::Size { zero: "", least: 1024, most: 16 << 20 },
            "\"64KiB\"",
            "Request line and headers; beyond it 431. The same for status line and headers of a response; beyond it 502.",
        ),
        live(
            "head_count",
            Kind::Integer { least: 1, most: 512 },
            "128",
            "Number of headers; beyond it 431, of a response 502.",
        ),
        live(
            "uri_bytes",
            Kind::Size { zero: "as much as `head_bytes`", least: 64, most: 65_534 },
            "0",
            "The request target, query included; beyond it 414.",
        ),
        live("body_bytes", UNLIMITED_AT_ZERO, "0", "Request body; beyond it 413."),
        live("connections", COUNT, "0", "Connections of clients, all together; beyond it 503. 0: any number."),
        live(
            "connections_per_client",
            COUNT,
            "0",
            "Connections of one address, or of one IPv6 network of 64 bits; beyond it 503. Trusted proxies are not counted. \
                  0: any number.",
        ),
        live(
            "requests_per_connection",
            COUNT,
            "0",
            "Requests that one connection of HTTP/1 may carry; the last answer says that it ends. 0: any number.",
        ),
        live("tunnels", COUNT, "0", "Upgrades (WebSocket and others) at one time; beyond it 503. 0: any number."),
    ],
};

/// How many, where 0 is any number.
const COUNT: Kind = Kind::Integer { least: 0, most: 10_000_000 };

/// What clients may ask for at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Request line and headers.
    pub head_bytes: u64,
    /// Number of headers.
    pub head_count: u32,
    /// The request target; 0 is as much as the head.
    pub uri_bytes: u64,
    /// Request body; 0 is unlimited.
    pub body_bytes: u64,
    /// Connections of clients; 0 is unlimited.
    pub connections: u32,
    /// Connections of one client; 0 is unlimited.
    pub connections_per_client: u32,
    /// Requests on one connection; 0 is unlimited.
    pub requests_per_connection: u32,
    /// Tunnels; 0 is unlimited.
    pub tunnels: u32,
}

pub(super) fn limits(section: &mut Reader<'_, '_>) -> LimitsConfig {
    LimitsConfig {
        head_bytes: section.size("head_bytes"),
        head_count: section.integer("head_count") as u32,
        uri_bytes: section.size("uri_bytes"),
        body_bytes: section.size("body_bytes"),
        connections: section.integer("connections") as u32,
        connections_per_client: section.integer("connections_per_client") as u32,
        requests_per_connection: section.integer("requests_per_connection") as u32,
        tunnels: section.integer("tunnels") as u32,
    }
}

pub(super) const FORWARDED: Section = Section {
    path: "forwarded",
    shape: Shape::Always,
    doc: "Headers that tell an instance who asked, and how.",
    keys: &[
        live(
            "proto",
            Kind::Choice(&["sanitize", "keep", "https"]),
            "\"sanitize\"",
            "`X-Forwarded-Proto`. `sanitize`: as the client spoke to us, unless a trusted proxy says otherwise; \
                  `keep`: as it came, if it came; `https`: always that.",
        ),
        live(
            "client_cert",
            Kind::Choice(&["sanitize_set", "forward", "always_forward"]),
            "\"sanitize_set\"",
            "`X-Forwarded-Client-Cert`. `sanitize_set`: the certificate that the client has shown to us, or nothing; \
                  `forward`: as it came, if the client has shown one; `always_forward`: as it came.",
        ),
        live("x_forwarded_host", Kind::Flag, "true", "Whether `X-Forwarded-Host` is set."),
        live("rfc7239", Kind::Flag, "false", "Whether the standard header `Forwarded` is set as well."),
        live(
            "protect",
            Kind::List("header names"),
            "[]",
            "Headers that a client cannot have removed by naming them in `Connection`, nor imitate with underscores, besides our own.",
        ),
    ],
};

/// Headers that tell an instance who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedConfig {
    /// What becomes of `X-Forwarded-Proto`.
    pub proto: ForwardedProto,
    /// What becomes of `X-Forwarded-Client-Cert`.
    pub client_cert: ClientCertHeader,
    /// Whether `X-Forwarded-Host` is set.
    pub x_forwarded_host: bool,
    /// Whether `Forwarded` is set.
    pub rfc7239: bool,
    /// Header names, lower case.
    pub protect: Vec<String>,
}

/// What becomes of `X-Forwarded-Proto`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedProto {
    /// As the client spoke to us, unless a trusted proxy says otherwise.
    #[default]
    Sanitize,
    /// As it came, if it came.
    Keep,
    /// `https`, always.
    Https,
}

/// What becomes of `X-Forwarded-Client-Cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertHeader {
    /// What came is removed; the certificate that the client has shown to us is set.
    #[default]
    SanitizeSet,
    /// As it came, if the client has shown a certificate.
    Forward,
    /// As it came, always.
    AlwaysForward,
}

pub(super) fn forwarded(section: &mut Reader<'_, '_>) -> ForwardedConfig {
    let protos =
        [("sanitize", ForwardedProto::Sanitize), ("keep", ForwardedProto::Keep), ("https", ForwardedProto::Https)];
    let client_certs = [
        ("sanitize_set", ClientCertHeader::SanitizeSet),
        ("forward", ClientCertHeader::Forward),
        ("always_forward", ClientCertHeader::AlwaysForward),
    ];
    ForwardedConfig {
        proto: section.choice("proto", &protos),
        client_cert: section.choice("client_cert", &client_certs),
        x_forwarded_host: section.flag("x_forwarded_host"),
        rfc7239: section.flag("rfc7239"),
        protect: section.list("protect", header_name),
    }
}

pub(super) const TRACING: Section = Section {
    path: "tracing",
    shape: Shape::Always,
    doc: "Headers that tie what many services do to one request. A trace that comes is kept, with a span of the router's \
          in between; else a new one begins.",
    keys: &[
        live("w3c", Kind::Flag, "true", "W3C Trace Context: `traceparent` and `tracestate`."),
        live("b3", Kind::Flag, "false", "B3, as Zipkin has it: `b3` and `X-B3-…`."),
    ],
};

/// Headers that tie what many services do to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracingConfig {
    /// `traceparent` and `tracestate`.
    pub w3c: bool,
    /// `b3` and `X-B3-…`.
    pub b3: bool,
}

pub(super) fn tracing(section: &mut Reader<'_, '_>) -> TracingConfig {
    TracingConfig { w3c: section.flag("w3c"), b3: section.flag("b3") }
}

pub(super) const REWRITE: Section = Section {
    path: "rewrite",
    shape: Shape::Always,
    doc: "Changes to the headers of every response.",
    keys: &[
        live("remove_response_headers", Kind::List("header names"), "[]", "Removed, in any spelling."),
        live(
            "add_response_headers",
            Kind::Map("header values"),
            "{}",
            "Added where the response does not have them (after removal).",
        ),
    ],
};

pub(super) const PAGES: Section = Section {
    path: "pages",
    shape: Shape::Always,
    doc: "What people see whom the router answers by itself; docs/PAGES.md says what may stand in a template.",
    keys: &[live(
        "error",
        Kind::Text("path"),
        "\"\"",
        "File with a template of the page for errors, for whoever prefers HTML. Empty: text, or JSON for those who prefer that.",
    )],
};

/// Templates of pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagesConfig {
    /// The page for errors.
    pub error: Option<PathBuf>,
}

pub(super) fn pages(section: &mut Reader<'_, '_>) -> PagesConfig {
    PagesConfig { error: section.path("error") }
}

/// Changes to responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteConfig {
    /// Header names, lower case.
    pub remove_response_headers: Vec<String>,
    /// Names as written and values.
    pub add_response_headers: Vec<(String, String)>,
}

pub(super) fn rewrite(section: &mut Reader<'_, '_>) -> RewriteConfig {
    RewriteConfig {
        remove_response_headers: section.list("remove_response_headers", |name| {
            free_to_change(name)?;
            header_name(name)
        }),
        add_response_headers: section.pairs("add_response_headers", |name, value| {
            header_name(name).map_err(|why| format!("{name:?} {why}"))?;
            free_to_change(name).map_err(|why| format!("{name:?} {why}"))?;
            let printable = |byte: u8| byte == b'\t' || byte == b' ' || byte.is_ascii_graphic();
            match value.bytes().all(printable) && value.trim() == value {
                true => Ok(()),
                false => Err("must be printable ASCII without spaces around it".into()),
            }
        }),
    }
}

/// Proves the name of a header and lower-cases it.
pub(super) fn header_name(text: &str) -> Result<String, String> {
    if is_token(text) { Ok(text.to_ascii_lowercase()) } else { Err("is not the name of a header".into()) }
}

/// Headers that frame a message belong to the router.
fn free_to_change(name: &str) -> Result<(), String> {
    const OURS: &[&str] =
        &["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];
    let ours = OURS.iter().any(|own| own.eq_ignore_ascii_case(name));
    if ours { Err("frames the message and cannot be changed".into()) } else { Ok(()) }
}

/// `token` of RFC 9110.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

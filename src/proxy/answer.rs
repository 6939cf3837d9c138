//! Answers that the router makes by itself: small, in the form the client prefers, never mistaken for the app's.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use httpdate::HttpDate;

use super::error::ProxyError;
use super::gorouter;
use super::pages::{self, ErrorFacts, TEXT};
use super::settings::Settings;
use crate::config::Compat;
use crate::http1::{Head, Method, Name, Version};

/// What is answered, and how.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// The request.
    pub request: &'a Head,
    /// Its id.
    pub request_id: &'a [u8; 36],
    /// What its sender speaks.
    pub version: Version,
    /// Whether the connection is kept.
    pub keep_alive: bool,
    /// Now, as time since the Unix epoch.
    pub unix: Duration,
}

impl Occasion<'_> {
    fn id(&self) -> &str {
        std::str::from_utf8(self.request_id).unwrap_or_default()
    }
}

/// A time since the Unix epoch as HTTP has it (RFC 9110 section 5.6.7).
pub fn date(unix: Duration) -> HttpDate {
    HttpDate::from(UNIX_EPOCH + unix)
}

/// Writes the whole answer for `error` to `out`; how many bytes of it are its head.
pub fn write(error: &ProxyError, settings: &Settings, occasion: &Occasion<'_>, out: &mut Vec<u8>) -> usize {
    let begin = out.len();
    let request = occasion.request;
    let status = error.status(settings.timeout_status);
    let facts = ErrorFacts {
        status,
        reason: reason(status),
        label: error.label(),
        message: &error.to_string(),
        request_id: occasion.id(),
    };
    let accept = request.values(Name::Accept).collect::<Vec<_>>().join(b", ".as_slice());
    let (content_type, body) = match (settings.compat, settings.error_page.body(&facts, &accept)) {
        (Compat::Gorouter, (kind, _)) if kind != pages::HTML => {
            (TEXT, gorouter::body(error, status, facts.reason, request))
        }
        (Compat::None | Compat::Gorouter, chosen) => chosen,
    };
    head(error, status, occasion, content_type, body.len(), out);
    end(begin, &body, occasion, out)
}

/// An answer that is no error, or one with a page of its own.
#[derive(Debug)]
pub struct Page<'a, V> {
    /// Its status.
    pub status: u16,
    /// Its fields but for the length, the request's id and the connection.
    pub fields: &'a [(&'static str, V)],
    /// Its body.
    pub body: &'a [u8],
}

/// Writes `page` to `out`; how many bytes of it are its head.
pub fn write_page(page: &Page<'_, impl AsRef<str>>, occasion: &Occasion<'_>, out: &mut Vec<u8>) -> usize {
    let begin = out.len();
    let (status, length, id, date) = (page.status, page.body.len(), occasion.id(), date(occasion.unix));
    write!(
        out,
        "HTTP/1.1 {status} {}\r\nDate: {date}\r\nContent-Length: {length}\r\nX-Vcap-Request-Id: {id}\r\n",
        reason(status)
    )
    .expect("a vector takes every write");
    for (name, value) in page.fields {
        write!(out, "{name}: {}\r\n", value.as_ref()).expect("a vector takes every write");
    }
    end(begin, page.body, occasion, out)
}

/// Ends the head that began at `begin`, and adds the body if there is to be one.
fn end(begin: usize, body: &[u8], occasion: &Occasion<'_>, out: &mut Vec<u8>) -> usize {
    match (occasion.version, occasion.keep_alive) {
        (_, false) => out.extend_from_slice(b"Connection: close\r\n"),
        (Version::Http10, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (Version::Http11, true) => {}
    }
    out.extend_from_slice(b"\r\n");
    let head_bytes = out.len() - begin;
    if occasion.request.method_kind() != Method::Head {
        out.extend_from_slice(body);
    }
    head_bytes
}

/// Writes the answer to a load balancer that asks whether requests may come; how many bytes of it are its head.
pub fn health(is_well: bool, request: &Head, unix: Duration, out: &mut Vec<u8>) -> usize {
    let begin = out.len();
    let (status, body) = if is_well { (200, "ok\n") } else { (503, "") };
    write!(
        out,
        "HTTP/1.1 {status} {}\r\nDate: {}\r\nContent-Type: {TEXT}\r\nContent-Length: {}\r\n\
         Cache-Control: private, max-age=0\r\nExpires: 0\r\nConnection: close\r\n\r\n",
        reason(status),
        date(unix),
        body.len()
    )
    .expect("a vector takes every write");
    let head_bytes = out.len() - begin;
    if request.method_kind() != Method::Head {
        out.extend_from_slice(body.as_bytes());
    }
    head_bytes
}

fn head(
    error: &ProxyError,
    status: u16,
    occasion: &Occasion<'_>,
    content_type: &str,
    length: usize,
    out: &mut Vec<u8>,
) {
    let (reason, cf, label) = (reason(status), error.router_error(), error.label());
    let (date, id) = (date(occasion.unix), occasion.id());
    write!(
        out,
        "HTTP/1.1 {status} {reason}\r\nDate: {date}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         X-Cf-RouterError: {cf}\r\nX-Weighbridge-Error: {label}\r\nX-Vcap-Request-Id: {id}\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Vary: Accept\r\n"
    )
    .expect("a vector takes every write");
    if let Some(seconds) = error.retry_after() {
        write!(out, "Retry-After: {seconds}\r\n").expect("a vector takes every write");
    }
    for (name, value) in error.extra_fields() {
        write!(out, "{name}: {value}\r\n").expect("a vector takes every write");
    }
}

/// The usual phrase.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        496 => "SSL Certificate Required",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        525 => "SSL Handshake Failed",
        526 => "Invalid SSL Certificate",
        _ => "Error",
    }
}

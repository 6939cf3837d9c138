//! Answers that the router makes by itself: small, in the form the client prefers, never mistaken for the app's.

use std::io::Write;

use super::error::ProxyError;
use super::gorouter;
use super::pages::{self, ErrorFacts, TEXT};
use super::settings::Settings;
use crate::config::Compat;
use crate::http1::{Head, Method, Name, Version};

/// Writes the whole answer for `error` to `out`; how many bytes of it are its head.
pub fn write(
    error: &ProxyError,
    settings: &Settings,
    request_id: &[u8; 36],
    request: &Head,
    version: Version,
    keep_alive: bool,
    out: &mut Vec<u8>,
) -> usize {
    let begin = out.len();
    let id = std::str::from_utf8(request_id).unwrap_or_default();
    let status = error.status(settings.timeout_status);
    let facts = ErrorFacts {
        status,
        reason: reason(status),
        label: error.label(),
        message: &error.to_string(),
        request_id: id,
    };
    let accept = request.values(Name::Accept).collect::<Vec<_>>().join(b", ".as_slice());
    let (content_type, body) = match (settings.compat, settings.error_page.body(&facts, &accept)) {
        (Compat::Gorouter, (kind, _)) if kind != pages::HTML => {
            (TEXT, gorouter::body(error, status, facts.reason, request))
        }
        (Compat::None | Compat::Gorouter, chosen) => chosen,
    };
    head(error, status, id, content_type, body.len(), out);
    end(begin, &body, request, version, keep_alive, out)
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
pub fn write_page(
    page: &Page<'_, impl AsRef<str>>,
    request_id: &[u8; 36],
    request: &Head,
    version: Version,
    keep_alive: bool,
    out: &mut Vec<u8>,
) -> usize {
    let begin = out.len();
    let id = std::str::from_utf8(request_id).unwrap_or_default();
    let (status, length) = (page.status, page.body.len());
    write!(out, "HTTP/1.1 {status} {}\r\nContent-Length: {length}\r\nX-Vcap-Request-Id: {id}\r\n", reason(status))
        .expect("a vector takes every write");
    for (name, value) in page.fields {
        write!(out, "{name}: {}\r\n", value.as_ref()).expect("a vector takes every write");
    }
    end(begin, page.body, request, version, keep_alive, out)
}

/// Ends the head that began at `begin`, and adds the body if there is to be one.
fn end(begin: usize, body: &[u8], request: &Head, version: Version, keep_alive: bool, out: &mut Vec<u8>) -> usize {
    match (version, keep_alive) {
        (_, false) => out.extend_from_slice(b"Connection: close\r\n"),
        (Version::Http10, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (Version::Http11, true) => {}
    }
    out.extend_from_slice(b"\r\n");
    let head_bytes = out.len() - begin;
    if request.method_kind() != Method::Head {
        out.extend_from_slice(body);
    }
    head_bytes
}

/// Writes the answer to a load balancer that asks whether requests may come; how many bytes of it are its head.
pub fn health(is_well: bool, request: &Head, out: &mut Vec<u8>) -> usize {
    let begin = out.len();
    let (status, body) = if is_well { (200, "ok\n") } else { (503, "") };
    write!(
        out,
        "HTTP/1.1 {status} {}\r\nContent-Type: {TEXT}\r\nContent-Length: {}\r\nCache-Control: private, max-age=0\r\n\
         Expires: 0\r\nConnection: close\r\n\r\n",
        reason(status),
        body.len()
    )
    .expect("a vector takes every write");
    let head_bytes = out.len() - begin;
    if request.method_kind() != Method::Head {
        out.extend_from_slice(body.as_bytes());
    }
    head_bytes
}

fn head(error: &ProxyError, status: u16, id: &str, content_type: &str, length: usize, out: &mut Vec<u8>) {
    let (reason, cf, label) = (reason(status), error.router_error(), error.label());
    write!(
        out,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
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

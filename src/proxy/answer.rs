//! Answers that the router makes by itself: small, in the form the client prefers, never mistaken for the app's.

use std::io::Write;

use super::error::ProxyError;
use super::gorouter;
use super::settings::Settings;
use crate::config::Compat;
use crate::http1::{Head, Method, Name, Version};

const TEXT: &str = "text/plain; charset=utf-8";

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
    let (content_type, body) = match settings.compat {
        Compat::None => body(error, status, id, prefers_json(request)),
        Compat::Gorouter => (TEXT, gorouter::body(error, status, reason(status), request)),
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
         X-Content-Type-Options: nosniff\r\n"
    )
    .expect("a vector takes every write");
    if let Some(seconds) = error.retry_after() {
        write!(out, "Retry-After: {seconds}\r\n").expect("a vector takes every write");
    }
    for (name, value) in error.extra_fields() {
        write!(out, "{name}: {value}\r\n").expect("a vector takes every write");
    }
}

fn body(error: &ProxyError, status: u16, id: &str, json: bool) -> (&'static str, Vec<u8>) {
    if json {
        let said = serde_json::json!({
            "status": status, "error": error.label(), "message": error.to_string(), "request_id": id,
        });
        return ("application/json", said.to_string().into_bytes());
    }
    let text = format!("{status} {}: {error}.\nRequest {id}.\n", reason(status));
    (TEXT, text.into_bytes())
}

/// Whether `Accept` likes JSON better than text (RFC 9110 section 12.5.1, as far as it matters between these two).
fn prefers_json(request: &Head) -> bool {
    let (mut json, mut text) = (0.0_f32, 0.0_f32);
    for element in request.values(Name::Accept).flat_map(|value| value.split(|&byte| byte == b',')) {
        let mut parts = element.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts
            .filter_map(|part| part.strip_prefix(b"q="))
            .find_map(|q| std::str::from_utf8(q).ok()?.parse::<f32>().ok())
            .unwrap_or(1.0);
        if kind == b"application/json" || kind.ends_with(b"+json") {
            json = json.max(quality);
        } else if kind.starts_with(b"text/") || kind == b"*/*" {
            text = text.max(quality);
        }
    }
    json > text
        || (json > 0.0 && json == text && !request.values(Name::Accept).any(|value| value.starts_with(b"text/")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_prefers_json(accept: &str, expected: bool) {
        let mut request = Head::new();
        request.push_known(Name::Accept, accept.as_bytes()).expect("a plain value");
        assert_eq!(prefers_json(&request), expected, "{accept}");
    }

    #[test]
    fn json_is_for_those_who_like_it_better_than_text() {
        check_prefers_json("application/json", true);
        check_prefers_json("application/problem+json", true);
        check_prefers_json("application/json, */*;q=0.5", true);
        check_prefers_json("application/json, text/plain, */*", true);
        check_prefers_json("text/html,application/xhtml+xml,*/*;q=0.8", false);
        check_prefers_json("text/html, application/json", false);
        check_prefers_json("*/*", false);
        check_prefers_json("text/plain, application/json;q=0.9", false);
        check_prefers_json("application/json;q=zero", true);
        check_prefers_json("", false);
    }
}

//! Heads in both forms. What could not stand on a line of HTTP/1.1 does not get in; what belongs to one connection of
//! HTTP/1.1 (RFC 9113 section 8.2.2) does not get out.

use std::sync::LazyLock;

use h2::ext::Protocol;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{HeaderMap, Request, Response, StatusCode, Uri};

use crate::http1::head::Field;
use crate::http1::{Framing, Head, Limits, Method, Name, NameSet, Refusal, check_request, framing};

/// What HTTP/2 says otherwise.
const OF_CONNECTION: NameSet = NameSet::of(&[
    Name::Connection,
    Name::Http2Settings,
    Name::KeepAlive,
    Name::ProxyConnection,
    Name::TransferEncoding,
    Name::Upgrade,
]);

/// What differs from message to message, or every second. Such values shall not take the place of others in the tables of
/// compression, where h2 would compare each new one with all that there are of its name; but once in a while one does, so that its
/// name is there and need not be spelt out.
const ONCE: NameSet =
    NameSet::of(&[Name::Date, Name::Traceparent, Name::XB3SpanId, Name::XRequestStart, Name::XVcapRequestId]);

/// Bytes that RFC 9113 section 6.5.2 counts per field on top of its name and value.
const FIELD_OVERHEAD: usize = 32;

/// Makes `head` the request of HTTP/1.1 that says the same, and tells how its body will be framed. An extended CONNECT
/// (RFC 8441) becomes an upgrade; `key` makes what a WebSocket's handshake needs then.
///
/// # Errors
/// What it has that a request of HTTP/1.1 could not have. `head` is then for the log only.
pub(super) fn request(
    parts: &Parts,
    ended: bool,
    limits: &Limits,
    key: impl FnOnce() -> [u8; 24],
    head: &mut Head,
) -> Result<Framing, Refusal> {
    let protocol = parts.extensions.get::<Protocol>();
    let is_connect = Method::of(parts.method.as_str().as_bytes()) == Method::Connect && protocol.is_none();
    let authority = parts.uri.authority().map(Authority::as_str);
    let target = match parts.uri.path_and_query().map(PathAndQuery::as_str) {
        _ if is_connect => authority.unwrap_or_default(),
        Some(path) if path.starts_with('/') || path == "*" => path,
        _ => return Err(Refusal::Target),
    };
    let method = if protocol.is_some() { "GET" } else { parts.method.as_str() };
    head.set_request(method, target)?;
    if parts.uri.path().is_empty() && !is_connect {
        return Err(Refusal::Target); // there was no `:path`
    }
    if parts.uri.scheme_str() == Some("") {
        return Err(Refusal::Target);
    }
    // It comes first, as clients of HTTP/1.1 send it, and once: `Host` may repeat what `:authority` says, no more.
    if let Some(authority) = authority {
        head.push_known(Name::Host, authority.as_bytes())?;
    }
    request_fields(&parts.headers, authority, limits, head)?;
    if head.names().meets(OF_CONNECTION) {
        return Err(Refusal::FieldName);
    }
    if head.values(Name::Te).any(|value| !value.eq_ignore_ascii_case(b"trailers")) {
        return Err(Refusal::FieldValue);
    }
    if head.target().len() > limits.target_bytes {
        return Err(Refusal::TargetTooLong);
    }
    check_request(head)?;
    match protocol {
        Some(protocol) => upgrade(protocol.as_str(), key, head)?,
        None if !is_connect && !ended && !head.has(Name::ContentLength) => {
            head.push_known(Name::TransferEncoding, b"chunked")?;
        }
        None => {}
    }
    framing::of_request(head)
}

fn upgrade(protocol: &str, key: impl FnOnce() -> [u8; 24], head: &mut Head) -> Result<(), Refusal> {
    if head.has(Name::ContentLength) {
        return Err(Refusal::LengthForbidden);
    }
    if protocol.eq_ignore_ascii_case("websocket") && head.value_of("sec-websocket-key").is_none() {
        head.push("Sec-WebSocket-Key", &key())?;
    }
    head.push_known(Name::Connection, b"Upgrade")?;
    head.push_known(Name::Upgrade, protocol.as_bytes())
}

fn request_fields(
    headers: &HeaderMap,
    authority: Option<&str>,
    limits: &Limits,
    head: &mut Head,
) -> Result<(), Refusal> {
    if headers.len() > limits.head_count {
        return Err(Refusal::TooManyFields);
    }
    let mut left = limits.head_bytes;
    let mut cookies: Vec<u8> = Vec::new();
    for (name, value) in headers {
        let size = name.as_str().len() + value.len() + FIELD_OVERHEAD;
        left = left.checked_sub(size).ok_or(Refusal::HeadTooLarge)?;
        match name.as_str() {
            // HTTP/2 splits it for its compression (RFC 9113 section 8.2.3).
            "cookie" => {
                let separator: &[u8] = if cookies.is_empty() { b"" } else { b"; " };
                cookies.extend_from_slice(separator);
                cookies.extend_from_slice(value.as_bytes());
            }
            "host"
                if authority.is_some_and(|authority| value.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) => {}
            "host" if authority.is_some() => return Err(Refusal::HostMismatch),
            name => push(name, value, head)?,
        }
    }
    if !cookies.is_empty() {
        head.push_known(Name::Cookie, &cookies)?;
    }
    Ok(())
}

/// A value does not begin or end with whitespace (RFC 9113 section 8.2.1).
fn push(name: &str, value: &HeaderValue, head: &mut Head) -> Result<(), Refusal> {
    if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value.as_bytes() {
        return Err(Refusal::FieldValue);
    }
    head.push(name, value.as_bytes())
}

/// The trailers of a message.
///
/// # Errors
/// What could not stand on a line.
pub(super) fn trailers(trailers: &HeaderMap) -> Result<Head, Refusal> {
    let mut head = Head::new();
    trailers.iter().try_for_each(|(name, value)| push(name.as_str(), value, &mut head))?;
    Ok(head)
}

/// Makes `head` the response of HTTP/1.1 to `asked` that says the same, and tells how its body will be framed. One
/// without a body says so by its length, so that it can end with its head again.
///
/// # Errors
/// What it has that a response of HTTP/1.1 could not have.
pub(super) fn response(
    status: StatusCode,
    headers: &HeaderMap,
    ended: bool,
    asked: Method,
    head: &mut Head,
) -> Result<Framing, Refusal> {
    head.clear();
    head.set_status(status.as_u16(), status.canonical_reason().unwrap_or_default().as_bytes())?;
    headers.iter().try_for_each(|(name, value)| push(name.as_str(), value, head))?;
    if head.names().meets(OF_CONNECTION) {
        return Err(Refusal::FieldName);
    }
    let bodiless = asked == Method::Head || matches!(status.as_u16(), 100..=199 | 204 | 304);
    if !bodiless && !head.has(Name::ContentLength) {
        match ended {
            true => head.push_known(Name::ContentLength, b"0")?,
            false => head.push_known(Name::TransferEncoding, b"chunked")?,
        }
    }
    framing::of_response(head, asked)
}

/// The request of HTTP/2 that says the same as `head`; `protocol`: as an extended CONNECT.
///
/// # Errors
/// What of it cannot be said so.
pub(super) fn as_request(head: &Head, secure: bool, protocol: Option<&str>) -> Result<Request<()>, hyper::http::Error> {
    let said: Uri = head.target().parse()?;
    let host = head.value(Name::Host).unwrap_or_default();
    let mut parts = said.into_parts();
    parts.authority = Some(Authority::try_from(host)?);
    parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    let method = if protocol.is_some() { "CONNECT" } else { head.method() };
    let mut request = Request::builder().method(method).uri(Uri::from_parts(parts)?).body(())?;
    *request.headers_mut() = fields(head, false)?;
    request.headers_mut().remove("host");
    if let Some(protocol) = protocol {
        request.headers_mut().remove("sec-websocket-key");
        request.extensions_mut().insert(Protocol::from(protocol));
    }
    Ok(request)
}

/// The response of HTTP/2 that says the same as `head`. A switch of protocols is a success there. `names`: for the names
/// of what differs each time to be remembered. `last`: of the same connection.
///
/// # Errors
/// What of it cannot be said so.
pub(super) fn as_response(head: &Head, names: bool, last: &mut Last) -> Result<Response<()>, hyper::http::Error> {
    let switches = head.status() == 101;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(if switches { 200 } else { head.status() })?;
    *response.headers_mut() = last.fields_of(head, names)?;
    if switches {
        response.headers_mut().remove("sec-websocket-accept");
    }
    Ok(response)
}

/// The fields of `head`, but those of the connection. `names`: see [`as_response`].
///
/// # Errors
/// What of them cannot be said in HTTP/2.
pub(super) fn fields(head: &Head, names: bool) -> Result<HeaderMap, hyper::http::Error> {
    let mut map = HeaderMap::with_capacity(head.fields().len());
    for field in said(head) {
        let mut value = HeaderValue::from_bytes(field.value)?;
        value.set_sensitive(!names && ONCE.contains(field.known));
        let name = match field.known {
            Name::Other => HeaderName::from_bytes(field.name)?,
            known => KNOWN[known as usize].clone(),
        };
        map.append(name, value);
    }
    Ok(map)
}

/// What is said in HTTP/2, too.
fn said(head: &Head) -> impl Iterator<Item = Field<'_>> {
    head.fields().filter(|field| match field.known {
        Name::Te => field.value.eq_ignore_ascii_case(b"trailers"),
        known => !OF_CONNECTION.contains(known),
    })
}

/// Heads of responses up to this size in bytes are remembered.
const REMEMBERED_BYTES_MAX: usize = 4 * 1024;

/// The fields of a connection's last response, but what differs each time. Most responses have the same ones again, and to
/// share them costs a fraction of making them. What differs from the last one is like what always does: it is not kept in the
/// table of compression before it has come twice.
#[derive(Debug, Default)]
pub(super) struct Last(HeaderMap);

impl Last {
    /// See [`fields`].
    fn fields_of(&mut self, head: &Head, names: bool) -> Result<HeaderMap, hyper::http::Error> {
        if head.size() > REMEMBERED_BYTES_MAX {
            return fields(head, names);
        }
        if !self.follow(head)? {
            self.0 = fields(head, names)?;
            // A name that comes again behind others has moved to its first place.
            if !self.follow(head)? {
                return Ok(std::mem::take(&mut self.0));
            }
        }
        let mut map = self.0.clone();
        for ((_, value), field) in map.iter_mut().zip(said(head)) {
            if ONCE.contains(field.known) {
                *value = HeaderValue::from_bytes(field.value)?;
                value.set_sensitive(true);
            }
            if names {
                value.set_sensitive(false);
            }
        }
        Ok(map)
    }

    /// Takes over what `head` says, if it has the same names in the same order.
    fn follow(&mut self, head: &Head) -> Result<bool, hyper::http::Error> {
        let mut fields = said(head);
        for (name, value) in &mut self.0 {
            let Some(field) = fields.next() else { return Ok(false) };
            let is_same = match field.known {
                Name::Other => field.name.eq_ignore_ascii_case(name.as_str().as_bytes()),
                known => *name == KNOWN[known as usize],
            };
            if !is_same {
                return Ok(false);
            }
            let differs = field.value != value.as_bytes();
            if ONCE.contains(field.known) {
                *value = HeaderValue::from_static("");
            } else if differs {
                *value = HeaderValue::from_bytes(field.value)?;
            }
            value.set_sensitive(differs);
        }
        Ok(fields.next().is_none())
    }
}

/// The names that are known, as http has them; the first stands for all others.
static KNOWN: LazyLock<Vec<HeaderName>> = LazyLock::new(|| {
    // Names that live for ever are not counted by those who have them.
    let name = |known: &Name| HeaderName::from_static(known.spelling().to_ascii_lowercase().leak());
    let others = HeaderName::from_static("other");
    std::iter::once(others).chain(Name::ALL[1..].iter().map(name)).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::new();
        head.set_status(200, b"OK").expect("a status");
        fields.iter().for_each(|(name, value)| head.push(name, value.as_bytes()).expect("a field"));
        head
    }

    #[test]
    fn a_response_says_the_same_whatever_went_before_it() {
        let long = "x".repeat(2 * REMEMBERED_BYTES_MAX);
        let heads = [
            head(&[("Server", "app"), ("X-Any", "1"), ("X-Vcap-Request-Id", "a")]),
            head(&[("Server", "app"), ("X-Any", "2"), ("X-Vcap-Request-Id", "b")]),
            head(&[("server", "app"), ("x-any", "2"), ("x-vcap-request-id", "c"), ("Connection", "close")]),
            head(&[("Server", "app"), ("X-Other", "2"), ("X-Vcap-Request-Id", "d")]),
            head(&[("Server", "app"), ("X-Any", "2")]),
            head(&[("X-Vcap-Request-Id", "e"), ("Server", "app")]),
            head(&[("Set-Cookie", "a"), ("Server", "app"), ("Set-Cookie", "b")]),
            head(&[("Set-Cookie", "a"), ("Set-Cookie", "b"), ("Server", "app"), ("X-Vcap-Request-Id", "f")]),
            head(&[("Set-Cookie", "a"), ("Set-Cookie", "c"), ("Server", "app"), ("X-Vcap-Request-Id", "g")]),
            head(&[("Server", &long), ("X-Vcap-Request-Id", "h")]),
            head(&[]),
        ];
        for (before, names) in heads.iter().flat_map(|head| [(head, true), (head, false)]) {
            for after in &heads {
                let mut last = Last::default();
                for head in [before, after, after] {
                    let response = as_response(head, names, &mut last).expect("it can be said");
                    assert_eq!(*response.headers(), fields(head, names).expect("it can be said"));
                }
            }
        }
    }

    #[test]
    fn what_differs_from_the_last_response_is_not_kept_for_the_next() {
        let mut last = Last::default();
        let mut check = |fields: &[(&str, &str)], names: bool, expected: &[bool]| {
            let response = as_response(&head(fields), names, &mut last).expect("it can be said");
            let sensitive: Vec<bool> = response.headers().values().map(HeaderValue::is_sensitive).collect();
            assert_eq!(sensitive, expected, "{fields:?}");
        };
        let at = |age: &'static str| [("Server", "app"), ("Date", "today"), ("X-Age", age)];
        check(&at("1"), true, &[false, false, false]);
        check(&at("1"), false, &[false, true, false]);
        check(&at("2"), false, &[false, true, true]);
        check(&at("2"), false, &[false, true, false]);
        check(&at("3"), true, &[false, false, false]);
        check(&at("4"), false, &[false, true, true]);
        check(&[("X-Age", "4"), ("Date", "today")], false, &[false, true]);
    }
}

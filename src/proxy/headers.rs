//! What the proxy changes in heads on their way: hop-by-hop fields go, the forwarded ones and ours come.

use std::io::{Cursor, Write};
use std::net::IpAddr;

use super::settings::Settings;
use crate::config::ForwardedProto;
use crate::domain::endpoint::Endpoint;
use crate::http1::{Head, Method, Name, NameSet, Refusal};

/// Fields that end at the next hop (RFC 9110 section 7.6.1). `Transfer-Encoding` is one too, but bodies keep their
/// framing from hop to hop; where they do not, the field is changed there.
const HOP_BY_HOP: NameSet = NameSet::of(&[
    Name::Connection,
    Name::KeepAlive,
    Name::ProxyConnection,
    Name::Te,
    Name::Upgrade,
    Name::Http2Settings,
]);

/// Fields that say which instance answers: ours to set, for each attempt anew.
const OF_INSTANCE: NameSet = NameSet::of(&[Name::XCfApplicationId, Name::XCfInstanceId, Name::XCfInstanceIndex]);

/// Fields that `Connection` must not name: without them a request would mean something else, or lose what this router or
/// one in front of it has said.
const PROTECTED: NameSet = NameSet::of(&[
    Name::Authorization,
    Name::B3,
    Name::ContentLength,
    Name::Cookie,
    Name::Forwarded,
    Name::Host,
    Name::SetCookie,
    Name::Traceparent,
    Name::Tracestate,
    Name::TransferEncoding,
    Name::XB3Flags,
    Name::XB3ParentSpanId,
    Name::XB3Sampled,
    Name::XB3SpanId,
    Name::XB3TraceId,
    Name::XCfAppInstance,
    Name::XCfProcessInstance,
    Name::XForwardedClientCert,
    Name::XForwardedFor,
    Name::XForwardedHost,
    Name::XForwardedProto,
    Name::XRequestStart,
    Name::XVcapRequestId,
])
.and(OF_INSTANCE);

/// What is known about the client's side of a request.
#[derive(Clone, Copy, Debug)]
pub struct ClientFacts {
    /// Where the connection comes from.
    pub address: IpAddr,
    /// Whether it came over TLS.
    pub secure: bool,
    /// The request's id: a UUID in its usual form.
    pub request_id: [u8; 36],
    /// When the request came, in milliseconds of the Unix epoch.
    pub unix_millis: u64,
}

/// Makes a client's head fit for any instance: done once per request, whatever the number of attempts.
///
/// # Errors
/// When `Connection` lists too many options, or the head becomes too large by what is added.
pub fn towards_instances(head: &mut Head, client: &ClientFacts, settings: &Settings) -> Result<(), Refusal> {
    drop_listed(head, settings)?;
    let believed = settings.trusts(client.address);
    if !believed && !settings.trusted_proxies.is_empty() {
        const CLAIMS: NameSet = NameSet::of(&[Name::XForwardedFor, Name::XForwardedHost, Name::Forwarded]);
        head.remove_all(CLAIMS);
    }
    let proto = forwarded_proto(head, client.secure, believed, settings.forwarded.proto);
    let wants_trailers = head.lists(Name::Te, "trailers");
    const REPLACED: NameSet = NameSet::of(&[Name::XForwardedProto, Name::XVcapRequestId]);
    head.remove_all(HOP_BY_HOP.and(OF_INSTANCE).and(REPLACED));

    let mut text = Text::default();
    head.append_to_list(Name::XForwardedFor, text.of(format_args!("{}", client.address)))?;
    head.push_known(Name::XForwardedProto, proto)?;
    if settings.forwarded.x_forwarded_host && !(believed && head.has(Name::XForwardedHost)) {
        let host = head.value(Name::Host).unwrap_or_default().to_vec();
        head.set(Name::XForwardedHost, &host)?;
    }
    if settings.forwarded.rfc7239 {
        let element = forwarded_element(head, client.address, proto);
        head.append_to_list(Name::Forwarded, &element)?;
    }
    if !head.has(Name::XRequestStart) {
        head.push_known(Name::XRequestStart, text.of(format_args!("{}", client.unix_millis)))?;
    }
    head.push_known(Name::XVcapRequestId, &client.request_id)?;
    if wants_trailers {
        head.push_known(Name::Te, b"trailers")?;
        head.push_known(Name::Connection, b"TE")?;
    }
    Ok(())
}

/// Tells one instance who it is; on a later attempt the next one is told instead. What a registration says and a header
/// cannot carry is left out.
pub fn towards_instance(head: &mut Head, endpoint: &Endpoint) {
    head.remove_all(OF_INSTANCE);
    let said = [
        (Name::XCfApplicationId, endpoint.app.as_str()),
        (Name::XCfInstanceId, endpoint.instance.as_str()),
        (Name::XCfInstanceIndex, &endpoint.index),
    ];
    for (name, value) in said.into_iter().filter(|(_, value)| !value.is_empty()) {
        let _left_out = head.push_known(name, value.as_bytes());
    }
}

/// Makes an instance's final head fit for the client.
///
/// # Errors
/// When `Connection` lists too many options, or the head becomes too large by what is added.
pub fn towards_client(head: &mut Head, request_id: &[u8; 36], settings: &Settings) -> Result<(), Refusal> {
    drop_listed(head, settings)?;
    head.remove_all(HOP_BY_HOP.and(NameSet::of(&[Name::XVcapRequestId])));
    for name in &settings.rewrite.remove_response_headers {
        head.remove_named(name.as_bytes());
    }
    for (name, value) in &settings.rewrite.add_response_headers {
        if head.value_of(name).is_none() {
            head.push(name, value.as_bytes())?;
        }
    }
    head.push_known(Name::XVcapRequestId, request_id)
}

/// Whether `head` carries a method that may be repeated without harm, or says so by `Idempotency-Key`.
pub fn is_idempotent(head: &Head) -> bool {
    match head.method_kind() {
        Method::Get | Method::Head | Method::Options | Method::Put | Method::Delete | Method::Trace => true,
        Method::Post | Method::Patch | Method::Connect | Method::Other => head.has(Name::IdempotencyKey),
    }
}

fn drop_listed(head: &mut Head, settings: &Settings) -> Result<(), Refusal> {
    head.remove_listed(|known, name| {
        PROTECTED.contains(known)
            || settings.forwarded.protect.iter().any(|protected| protected.as_bytes().eq_ignore_ascii_case(name))
    })
}

fn forwarded_proto(head: &Head, secure: bool, believed: bool, mode: ForwardedProto) -> &'static [u8] {
    let ours: &[u8] = if secure { b"https" } else { b"http" };
    let said = || match head.value(Name::XForwardedProto) {
        Some(said) if said.eq_ignore_ascii_case(b"https") => Some(b"https".as_slice()),
        Some(said) if said.eq_ignore_ascii_case(b"http") => Some(b"http".as_slice()),
        _ => None,
    };
    match mode {
        ForwardedProto::Https => b"https",
        ForwardedProto::Keep => said().unwrap_or(ours),
        ForwardedProto::Sanitize if believed => said().unwrap_or(ours),
        ForwardedProto::Sanitize => ours,
    }
}

/// Our element of `Forwarded` (RFC 7239 section 4).
fn forwarded_element(head: &Head, address: IpAddr, proto: &[u8]) -> Vec<u8> {
    let mut element = Vec::with_capacity(96);
    match address {
        IpAddr::V4(ip) => write!(element, "for={ip}"),
        IpAddr::V6(ip) => write!(element, "for=\"[{ip}]\""),
    }
    .expect("a vector takes every write");
    if let Some(host) = head.value(Name::Host)
        && !host.iter().any(|byte| matches!(byte, b'"' | b'\\'))
    {
        element.extend_from_slice(b";host=\"");
        element.extend_from_slice(host);
        element.push(b'"');
    }
    element.extend_from_slice(b";proto=");
    element.extend_from_slice(proto);
    element
}

/// Numbers and addresses as text, without memory from the heap.
struct Text([u8; 48]);

impl Default for Text {
    fn default() -> Text {
        Text([0; 48])
    }
}

impl Text {
    fn of(&mut self, value: std::fmt::Arguments<'_>) -> &[u8] {
        let mut cursor = Cursor::new(&mut self.0[..]);
        cursor.write_fmt(value).expect("48 bytes hold every address and every number");
        let written = cursor.position() as usize;
        &self.0[..written]
    }
}

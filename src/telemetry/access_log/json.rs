//! A record as one JSON object on a line. What is absent is left out.

use super::text::{ClockFace, TARGET_BYTES_MAX, VALUE_BYTES_MAX};
use super::{Record, text};

/// Appends `record` and a newline.
pub(super) fn write(record: &Record<'_>, clock_face: &mut ClockFace, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"time":""#);
    clock_face.push::<6>(record.started, out);
    out.push(b'"');
    if let Some(client) = record.client {
        out.extend_from_slice(br#","client":""#);
        text::push_socket(client, out);
        out.push(b'"');
    }
    string(br#","host":""#, record.host, VALUE_BYTES_MAX, out);
    string(br#","method":""#, record.method, VALUE_BYTES_MAX, out);
    string(br#","target":""#, record.target, TARGET_BYTES_MAX, out);
    plain(br#","version":""#, record.version, out);
    number(br#","status":"#, u64::from(record.status), out);
    number(br#","bytes_in":"#, record.bytes_in, out);
    number(br#","bytes_out":"#, record.bytes_out, out);
    millis(br#","duration_ms":"#, Some(record.duration), out);
    millis(br#","head_ms":"#, record.time_to_head, out);
    millis(br#","upstream_ms":"#, record.upstream, out);
    string(br#","referer":""#, record.referer, VALUE_BYTES_MAX, out);
    string(br#","user_agent":""#, record.user_agent, VALUE_BYTES_MAX, out);
    string(br#","forwarded_for":""#, record.forwarded_for, VALUE_BYTES_MAX, out);
    string(br#","forwarded_proto":""#, record.forwarded_proto, VALUE_BYTES_MAX, out);
    plain(br#","request_id":""#, record.request_id, out);
    string(br#","trace":""#, record.trace, VALUE_BYTES_MAX, out);
    string(br#","route":""#, record.route.as_bytes(), VALUE_BYTES_MAX, out);
    if record.attempts > 0 {
        number(br#","attempts":"#, u64::from(record.attempts), out);
    }
    if let Some(endpoint) = record.endpoint {
        let host = endpoint.address.host();
        out.extend_from_slice(if host.contains(':') { br#","endpoint":"["# } else { br#","endpoint":""# });
        text::push_json(text::cut(host.as_bytes(), VALUE_BYTES_MAX), out);
        out.extend_from_slice(if host.contains(':') { b"]:" } else { b":" });
        text::push_number(u64::from(endpoint.address.port()), out);
        out.push(b'"');
        string(br#","app":""#, endpoint.app.as_str().as_bytes(), VALUE_BYTES_MAX, out);
        string(br#","instance":""#, endpoint.instance.as_str().as_bytes(), VALUE_BYTES_MAX, out);
        string(br#","index":""#, endpoint.index.as_bytes(), VALUE_BYTES_MAX, out);
    }
    string(br#","error":""#, record.error.as_bytes(), VALUE_BYTES_MAX, out);
    plain(br#","ending":""#, record.ending.label(), out);
    out.extend_from_slice(b"}\n");
}

/// `begin` carries the key and the opening quote.
#[inline(always)] // it is a constant to whoever calls it
fn string(begin: &[u8], value: &[u8], max: usize, out: &mut Vec<u8>) {
    if !value.is_empty() {
        out.extend_from_slice(begin);
        text::push_json(text::cut(value, max), out);
        out.push(b'"');
    }
}

/// A value of ours in which nothing needs to be escaped.
#[inline(always)] // as `string`
fn plain(begin: &[u8], value: &str, out: &mut Vec<u8>) {
    debug_assert!(text::all_plain(value.as_bytes()));
    if !value.is_empty() {
        out.extend_from_slice(begin);
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
    }
}

#[inline(always)] // as `string`
fn number(begin: &[u8], value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(begin);
    text::push_number(value, out);
}

#[inline(always)] // as `string`
fn millis(begin: &[u8], value: Option<std::time::Duration>, out: &mut Vec<u8>) {
    if let Some(duration) = value {
        out.extend_from_slice(begin);
        text::push_millis(duration, out);
    }
}

//! A record in the layout of gorouter's access log, so that what reads those lines reads ours:
//!
//! ```text
//! host - [time] "method target version" status bytes_in bytes_out "referer" "user-agent" "client" "endpoint"
//! x_forwarded_for:"…" x_forwarded_proto:"…" vcap_request_id:"…" response_time:s gorouter_time:s app_id:"…"
//! app_index:"…" instance_id:"…" x_cf_routererror:"…"
//! ```
//! (on one line), quoted as Go quotes strings, `"-"` for what is absent.

use super::text::{ClockFace, TARGET_BYTES_MAX, VALUE_BYTES_MAX};
use super::{Record, text};

/// Appends `record` and a newline.
pub(super) fn write(record: &Record<'_>, clock_face: &mut ClockFace, out: &mut Vec<u8>) {
    text::push_word(text::cut(record.host, VALUE_BYTES_MAX), out);
    out.extend_from_slice(b" - [");
    clock_face.push::<9>(record.started, out);
    out.extend_from_slice(b"] ");
    request_line(record, out);
    match record.status {
        0 => out.extend_from_slice(br#" "-" "#),
        status => {
            out.push(b' ');
            text::push_number(u64::from(status), out);
            out.push(b' ');
        }
    }
    text::push_number(record.bytes_in, out);
    out.push(b' ');
    text::push_number(record.bytes_out, out);
    quoted(b" ", record.referer, out);
    quoted(b" ", record.user_agent, out);
    match record.client {
        Some(client) => {
            out.extend_from_slice(b" \"");
            text::push_socket(client, out);
            out.push(b'"');
        }
        None => quoted(b" ", b"", out),
    }
    endpoint_address(record, out);
    quoted(b" x_forwarded_for:", record.forwarded_for, out);
    quoted(b" x_forwarded_proto:", record.forwarded_proto, out);
    quoted(b" vcap_request_id:", record.request_id.as_bytes(), out);
    out.extend_from_slice(b" response_time:");
    text::push_seconds(record.duration, out);
    out.extend_from_slice(b" gorouter_time:");
    match record.upstream {
        Some(upstream) => text::push_seconds(record.duration.saturating_sub(upstream), out),
        None => out.extend_from_slice(br#""-""#),
    }
    let endpoint = record.endpoint;
    quoted(b" app_id:", endpoint.map_or("", |endpoint| endpoint.app.as_str()).as_bytes(), out);
    quoted(b" app_index:", endpoint.map_or("", |endpoint| &endpoint.index).as_bytes(), out);
    quoted(b" instance_id:", endpoint.map_or("", |endpoint| endpoint.instance.as_str()).as_bytes(), out);
    quoted(b" x_cf_routererror:", record.error.as_bytes(), out);
    out.push(b'\n');
}

fn request_line(record: &Record<'_>, out: &mut Vec<u8>) {
    if record.method.is_empty() && record.target.is_empty() {
        out.extend_from_slice(br#""-""#); // refused before there was one
        return;
    }
    out.push(b'"');
    text::push_go(text::cut(record.method, VALUE_BYTES_MAX), out);
    out.push(b' ');
    text::push_go(text::cut(record.target, TARGET_BYTES_MAX), out);
    out.push(b' ');
    text::push_go(record.version.as_bytes(), out);
    out.push(b'"');
}

fn endpoint_address(record: &Record<'_>, out: &mut Vec<u8>) {
    let Some(endpoint) = record.endpoint else { return quoted(b" ", b"", out) };
    let host = endpoint.address.host();
    out.extend_from_slice(if host.contains(':') { b" \"[" } else { b" \"" });
    text::push_go(text::cut(host.as_bytes(), VALUE_BYTES_MAX), out);
    out.extend_from_slice(if host.contains(':') { b"]:" } else { b":" });
    text::push_number(u64::from(endpoint.address.port()), out);
    out.push(b'"');
}

fn quoted(begin: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(begin);
    out.push(b'"');
    match value {
        b"" => out.push(b'-'),
        value => text::push_go(text::cut(value, VALUE_BYTES_MAX), out),
    }
    out.push(b'"');
}

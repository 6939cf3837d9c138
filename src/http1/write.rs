//! Heads and chunks as bytes. Nothing here can be made to end a line early: [`Head`] lets no such byte in.

use super::head::{Head, Version, is_text};
use super::name::Name;

/// Appends a request head, in the version that the head says.
pub fn request(head: &Head, out: &mut Vec<u8>) {
    request_saying(head, [], out);
}

/// Appends a request head that says more than `head` does, by fields behind the others. Their values have to be [`fit`];
/// where one is empty, the field is left off.
pub(crate) fn request_saying<const N: usize>(head: &Head, more: [(Name, &str); N], out: &mut Vec<u8>) {
    out.reserve(head.size());
    out.extend_from_slice(head.request_line());
    out.extend_from_slice(match head.version() {
        Version::Http10 => b" HTTP/1.0\r\n",
        Version::Http11 => b" HTTP/1.1\r\n",
    });
    head.write_fields(out);
    for (name, value) in more {
        debug_assert_eq!(fit(value), value);
        if !value.is_empty() {
            out.extend_from_slice(name.beginning().as_bytes());
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The value as it can stand on a line, without whitespace around it; empty if it cannot.
pub fn fit(value: &str) -> &str {
    if is_text(value.as_bytes()) { value.trim_matches([' ', '\t']) } else { "" }
}

/// Appends a response head, in the version that the head says.
pub fn response(head: &Head, out: &mut Vec<u8>) {
    out.reserve(head.size());
    let status = head.status();
    let digit = |value: u16| b'0' + (value % 10) as u8;
    out.extend_from_slice(match head.version() {
        Version::Http10 => b"HTTP/1.0 ",
        Version::Http11 => b"HTTP/1.1 ",
    });
    out.extend_from_slice(&[digit(status / 100), digit(status / 10), digit(status), b' ']);
    out.extend_from_slice(head.reason());
    out.extend_from_slice(b"\r\n");
    head.write_fields(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends what goes before `length` bytes of chunk data; with 0 it would end the body, so nothing is written then.
pub fn chunk_head(length: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(DIGITS[length >> (digit * 4) & 0xf]);
    }
    if length > 0 {
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends what goes behind the data of a chunk.
pub fn chunk_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk with the trailers, if any: the end of a chunked body.
pub fn last_chunk(trailers: Option<&Head>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.write_fields(out);
    }
    out.extend_from_slice(b"\r\n");
}

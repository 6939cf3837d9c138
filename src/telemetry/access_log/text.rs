//! Bytes, numbers and times as text, appended to a buffer without any allocation of their own.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use time::OffsetDateTime;

/// Longest part of a foreign value that is written; the rest is left away.
pub(super) const VALUE_BYTES_MAX: usize = 2 * 1024;
/// The same for request targets, which carry queries.
pub(super) const TARGET_BYTES_MAX: usize = 8 * 1024;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Characters that must not reach a terminal or a line reader as they are: control characters of ASCII and Latin-1, line
/// and paragraph separators, and those that turn the direction of writing.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether all bytes stand for themselves in both layouts: printable ASCII but quotes and backslash.
#[inline]
pub(super) fn all_plain(bytes: &[u8]) -> bool {
    // No early exit, since nearly all values are plain, and blocks that overlap instead of a rest: this way it takes a few
    // instructions for every block.
    fn are_plain<const N: usize>(block: &[u8; N]) -> bool {
        block.iter().fold(true, |plain, byte| plain & (0x20..0x7f).contains(byte) & (*byte != b'"') & (*byte != b'\\'))
    }
    if let Some(last) = bytes.last_chunk::<16>() {
        return bytes.as_chunks::<16>().0.iter().fold(are_plain(last), |plain, block| plain & are_plain(block));
    }
    match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>(), bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(first), Some(last), ..) => are_plain(first) & are_plain(last),
        (.., Some(first), Some(last)) => are_plain(first) & are_plain(last),
        _ => bytes.iter().all(|byte| are_plain(&[*byte])),
    }
}

/// The inside of a JSON string. What is no UTF-8 becomes U+FFFD.
pub(super) fn push_json(bytes: &[u8], out: &mut Vec<u8>) {
    if all_plain(bytes) {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                c if is_unsafe(c) => push_u_escape(c, out),
                c => push_char(c, out),
            }
        }
        if !chunk.invalid().is_empty() {
            push_char(char::REPLACEMENT_CHARACTER, out);
        }
    }
}

/// The inside of a string quoted as Go's `strconv.Quote` does it. What is no UTF-8 becomes `\xNN`.
pub(super) fn push_go(bytes: &[u8], out: &mut Vec<u8>) {
    if all_plain(bytes) {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\x07' => out.extend_from_slice(b"\\a"),
                '\x08' => out.extend_from_slice(b"\\b"),
                '\x0c' => out.extend_from_slice(b"\\f"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                '\x0b' => out.extend_from_slice(b"\\v"),
                c if c.is_ascii_control() => push_x_escape(c as u8, out),
                c if is_unsafe(c) => push_u_escape(c, out),
                c => push_char(c, out),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_x_escape(*byte, out));
    }
}

/// A word that stands without quotes: anything but printable ASCII, and quotes too, becomes `\xNN`; nothing becomes `-`.
pub(super) fn push_word(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.is_empty() {
        out.push(b'-');
    }
    for byte in bytes {
        match byte {
            b'"' | b'\\' => push_x_escape(*byte, out),
            byte if byte.is_ascii_graphic() => out.push(*byte),
            byte => push_x_escape(*byte, out),
        }
    }
}

/// At most `max` bytes of `bytes`.
pub(super) fn cut(bytes: &[u8], max: usize) -> &[u8] {
    bytes.get(..max).unwrap_or(bytes)
}

fn push_char(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// All characters for which `is_unsafe` are in the first plane, so four digits suffice.
fn push_u_escape(c: char, out: &mut Vec<u8>) {
    let code = c as u32;
    let digit = |shift: u32| HEX[((code >> shift) & 0xf) as usize];
    out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

fn push_x_escape(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
}

/// A number in decimal.
#[inline]
pub(super) fn push_number(number: u64, out: &mut Vec<u8>) {
    if number < 10 {
        out.push(b'0' + number as u8);
    } else {
        push_digits(number, out);
    }
}

fn push_digits(number: u64, out: &mut Vec<u8>) {
    match number {
        0..100 => push_padded::<2>(number, out),
        100..1_000 => push_padded::<3>(number, out),
        1_000..10_000 => push_padded::<4>(number, out),
        10_000..100_000 => push_padded::<5>(number, out),
        _ => push_large(number, out),
    }
}

fn push_large(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    while number > 0 {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[first..]);
}

/// The last `N` decimal digits of a number, with leading zeros.
pub(super) fn push_padded<const N: usize>(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; N];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits);
}

/// Milliseconds with microseconds behind the point.
pub(super) fn push_millis(duration: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    push_number(micros / 1_000, out);
    out.push(b'.');
    push_padded::<3>(micros, out);
}

/// Seconds with microseconds behind the point.
pub(super) fn push_seconds(duration: Duration, out: &mut Vec<u8>) {
    push_number(duration.as_secs(), out);
    out.push(b'.');
    push_padded::<6>(u64::from(duration.subsec_micros()), out);
}

/// `1.2.3.4:567` or `[::1]:567`.
pub(super) fn push_socket(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => {
            for (n, octet) in ip.octets().into_iter().enumerate() {
                if n > 0 {
                    out.push(b'.');
                }
                push_number(u64::from(octet), out);
            }
        }
        IpAddr::V6(ip) => {
            use std::io::Write;
            let _cannot_fail = write!(out, "[{ip}]");
        }
    }
    out.push(b':');
    push_number(u64::from(address.port()), out);
}

/// Date and time of the last second asked for, ready to be written again.
#[derive(Debug)]
pub(super) struct ClockFace {
    second: u64,
    text: [u8; 19],
}

impl Default for ClockFace {
    fn default() -> ClockFace {
        ClockFace { second: 0, text: *b"1970-01-01T00:00:00" }
    }
}

impl ClockFace {
    /// `2026-11-21T10:00:00.123456Z` with `N` digits of the second's fraction, for a time since 1970.
    pub(super) fn push<const N: usize>(&mut self, since_epoch: Duration, out: &mut Vec<u8>) {
        if since_epoch.as_secs() != self.second {
            self.turn_to(since_epoch.as_secs());
        }
        out.extend_from_slice(&self.text);
        out.push(b'.');
        push_padded::<N>(u64::from(since_epoch.subsec_nanos()) / 10_u64.pow(9 - N as u32), out);
        out.push(b'Z');
    }

    fn turn_to(&mut self, second: u64) {
        let seconds = i64::try_from(second).unwrap_or(i64::MAX);
        // Beyond the year 9999 there is no text for it; a clock set so wrong shows the epoch.
        let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let mut text = Vec::with_capacity(self.text.len());
        push_padded::<4>(u64::from(time.year().unsigned_abs()), &mut text);
        let parts = [u8::from(time.month()), time.day(), time.hour(), time.minute(), time.second()];
        for (separator, part) in b"--T::".iter().zip(parts) {
            text.push(*separator);
            push_padded::<2>(u64::from(part), &mut text);
        }
        self.text.copy_from_slice(&text);
        self.second = second;
    }
}

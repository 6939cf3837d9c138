//! The PROXY protocol, versions 1 and 2 (HAProxy's specification of 2020), as its receiver: a load balancer that passes
//! bytes on says in front of them whose they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What version 2 begins with. No HTTP request does, nor does TLS.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What version 1 begins with. `PROXY` is no method that anybody uses.
const WORD: &[u8; 6] = b"PROXY ";

/// The longest line of version 1, its end included (section 2.1).
const LINE_MAX: usize = 107;

/// The most that may follow the 16 bytes of version 2 that everybody sends: addresses and extensions. Senders that sign
/// or describe certificates stay far below.
pub const EXTENT_MAX: usize = 4096;

/// What the beginning of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preamble {
    /// Too short to say.
    Partial,
    /// No preamble: whoever connected is the client.
    None,
    /// A preamble of so many bytes, and who the client is by it; `None`: whoever connected (health checks of the load
    /// balancer, families of addresses that are none of ours).
    Complete(usize, Option<SocketAddr>),
}

/// What is wrong with a preamble. The connection cannot be used: nobody knows where HTTP begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Version 1: the line is longer than 107 bytes or has bytes that are no text.
    #[error("the line is too long or is none")]
    Line,
    /// Version 1: a protocol, an address or a port that is none.
    #[error("the line has a malformed address")]
    Address,
    /// Version 2: a version, command, family or transport that does not exist.
    #[error("the header has an unknown version, command or family")]
    Header,
    /// Version 2: shorter than its family needs, or longer than [`EXTENT_MAX`].
    #[error("the header has an impossible length")]
    Length,
}

/// Reads what a connection begins with.
///
/// # Errors
/// When it is a preamble, but none that can be understood.
pub fn parse(input: &[u8]) -> Result<Preamble, Malformed> {
    if begins(input, SIGNATURE) {
        return if input.len() < SIGNATURE.len() { Ok(Preamble::Partial) } else { binary(input) };
    }
    if begins(input, WORD) {
        return if input.len() < WORD.len() { Ok(Preamble::Partial) } else { line(input) };
    }
    Ok(Preamble::None)
}

/// Whether `input` is the beginning of `word` or begins with it.
fn begins(input: &[u8], word: &[u8]) -> bool {
    let common = input.len().min(word.len());
    input[..common] == word[..common]
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`.
fn line(input: &[u8]) -> Result<Preamble, Malformed> {
    let seen = &input[..input.len().min(LINE_MAX)];
    let Some(end) = seen.iter().position(|byte| *byte == b'\r' || *byte == b'\n') else {
        return if seen.len() == LINE_MAX { Err(Malformed::Line) } else { Ok(Preamble::Partial) };
    };
    match (seen[end], seen.get(end + 1)) {
        (b'\r', None) if end + 1 < LINE_MAX => return Ok(Preamble::Partial),
        (b'\r', Some(b'\n')) => {}
        _ => return Err(Malformed::Line),
    }
    let text = std::str::from_utf8(&seen[WORD.len()..end]).map_err(|_| Malformed::Line)?;
    let consumed = end + 2;
    // What else stands behind UNKNOWN is to be ignored.
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Ok(Preamble::Complete(consumed, None));
    }
    let client = addresses(text).ok_or(Malformed::Address)?;
    Ok(Preamble::Complete(consumed, Some(client)))
}

/// The client of `TCP4 source destination port port`.
fn addresses(text: &str) -> Option<SocketAddr> {
    let mut words = text.split(' ');
    let family = words.next()?;
    let address = |word: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => Some(IpAddr::V4(word.parse::<Ipv4Addr>().ok()?)),
            "TCP6" => Some(IpAddr::V6(word.parse::<Ipv6Addr>().ok()?)),
            _ => None,
        }
    };
    let (source, _destination) = (address(words.next()?)?, address(words.next()?)?);
    let (source_port, _destination_port) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then(|| SocketAddr::new(source, source_port))
}

/// A decimal number as the specification has it: digits only, no zeros in front.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    if plain { word.parse().ok() } else { None }
}

/// Version 2: signature, version and command, family and transport, length, addresses, extensions.
fn binary(input: &[u8]) -> Result<Preamble, Malformed> {
    let &[command, ref rest @ ..] = &input[SIGNATURE.len()..] else { return Ok(Preamble::Partial) };
    if !matches!(command, 0x20 | 0x21) {
        return Err(Malformed::Header);
    }
    let &[family, ref rest @ ..] = rest else { return Ok(Preamble::Partial) };
    if family >> 4 > 3 || family & 15 > 2 {
        return Err(Malformed::Header);
    }
    let &[high, low, ref rest @ ..] = rest else { return Ok(Preamble::Partial) };
    let extent = usize::from(u16::from_be_bytes([high, low]));
    // Without a proxy (command 0) and without a family the addresses are to be ignored, whatever they are.
    let needed = match (command, family >> 4) {
        (0x20, _) | (_, 0) => 0,
        (_, 1) => 12,
        (_, 2) => 36,
        _unix => 216,
    };
    if extent < needed || extent > EXTENT_MAX {
        return Err(Malformed::Length);
    }
    let Some(addresses) = rest.get(..extent) else { return Ok(Preamble::Partial) };
    let client = match (command, family, addresses) {
        (0x21, 0x11, &[a, b, c, d, _, _, _, _, high, low, ..]) => {
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])))
        }
        (0x21, 0x21, addresses) => {
            let (source, rest) = addresses.split_first_chunk::<16>().ok_or(Malformed::Length)?;
            let port = rest.get(16..18).and_then(|port| port.try_into().ok()).ok_or(Malformed::Length)?;
            Some(SocketAddr::new(Ipv6Addr::from(*source).into(), u16::from_be_bytes(port)))
        }
        _ => None,
    };
    Ok(Preamble::Complete(SIGNATURE.len() + 4 + extent, client))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(input: impl AsRef<[u8]>, expected: Result<Preamble, Malformed>) {
        let input = input.as_ref();
        assert_eq!(parse(input), expected, "{}", input.escape_ascii());
    }

    fn client(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect("an address"))
    }

    fn version_2(command: u8, family: u8, extent: &[u8]) -> Vec<u8> {
        let length = (extent.len() as u16).to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, extent].concat()
    }

    #[test]
    fn version_1_names_the_client() {
        check(
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET /",
            Ok(Preamble::Complete(45, client("192.0.2.1:56324"))),
        );
        check("PROXY TCP6 2001:db8::1 ::1 1 0\r\n", Ok(Preamble::Complete(32, client("[2001:db8::1]:1"))));
        check("PROXY UNKNOWN\r\n", Ok(Preamble::Complete(15, None)));
        check("PROXY UNKNOWN ffff:: what ever 1 2\r\n", Ok(Preamble::Complete(36, None)));
    }

    #[test]
    fn a_line_that_breaks_a_rule_of_version_1_is_refused() {
        for wrong in [
            "TCP4 192.0.2.1 198.51.100.1 56324",
            "TCP4 192.0.2.1 198.51.100.1 56324 443 1",
            "TCP4  192.0.2.1 198.51.100.1 56324 443",
            "TCP4 192.0.2.1 198.51.100.1 056324 443",
            "TCP4 192.0.2.1 198.51.100.1 +1 443",
            "TCP4 192.0.2.1 198.51.100.1 65536 443",
            "TCP4 192.0.2.01 198.51.100.1 1 443",
            "TCP4 ::1 ::1 1 443",
            "TCP6 192.0.2.1 ::1 1 443",
            "tcp4 192.0.2.1 198.51.100.1 1 443",
            "UNKNOWNS",
            "",
        ] {
            check(format!("PROXY {wrong}\r\n"), Err(Malformed::Address));
        }
        check("PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n", Err(Malformed::Line));
        check("PROXY TCP4 192.0.2.1 198.51.100.1 1 2\rX", Err(Malformed::Line));
        check(b"PROXY UNKNOWN \xff\r\n", Err(Malformed::Line));
        check(format!("PROXY UNKNOWN {}\r\n", "x".repeat(91)), Ok(Preamble::Complete(107, None)));
        check(format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)), Err(Malformed::Line));
    }

    #[test]
    fn version_2_names_the_client() {
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 187];
        check(version_2(0x21, 0x11, &four), Ok(Preamble::Complete(28, client("192.0.2.1:56324"))));
        let with_extensions = [&four[..], &[4, 0, 1, 0]].concat();
        check(version_2(0x21, 0x11, &with_extensions), Ok(Preamble::Complete(32, client("192.0.2.1:56324"))));
        let mut six = [0; 36];
        (six[0], six[1], six[15], six[33]) = (0x20, 1, 9, 80);
        check(version_2(0x21, 0x21, &six), Ok(Preamble::Complete(52, client("[2001::9]:80"))));
        check(version_2(0x20, 0x00, &[]), Ok(Preamble::Complete(16, None)));
        check(version_2(0x20, 0x11, &four), Ok(Preamble::Complete(28, None)));
        check(version_2(0x21, 0x00, &[7; 3]), Ok(Preamble::Complete(19, None)));
        check(version_2(0x21, 0x31, &[0; 216]), Ok(Preamble::Complete(232, None)));
    }

    #[test]
    fn a_header_that_breaks_a_rule_of_version_2_is_refused() {
        for (command, family) in [(0x11, 0x11), (0x22, 0x11), (0x21, 0x41), (0x21, 0x13)] {
            check(version_2(command, family, &[0; 216]), Err(Malformed::Header));
        }
        for (family, short) in [(0x11, 11), (0x21, 35), (0x31, 215)] {
            check(version_2(0x21, family, &vec![0; short]), Err(Malformed::Length));
        }
        check(version_2(0x21, 0x11, &[0; EXTENT_MAX + 1]), Err(Malformed::Length));
    }

    #[test]
    fn whatever_begins_otherwise_is_no_preamble() {
        for plain in [
            "GET / HTTP/1.1\r\n",
            "PROXYING / HTTP/1.1\r\n",
            "PUT /",
            "\r\nGET / HTTP/1.1",
            "\r\n\r\n\0\r\nQUIX",
            "\x16\x03\x01",
        ] {
            check(plain, Ok(Preamble::None));
        }
    }

    proptest! {
        #[test]
        fn a_preamble_reads_the_same_however_it_is_cut(
            v4 in any::<(u32, u16)>(),
            v6 in any::<(u128, u16)>(),
            extensions in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let source_4 = SocketAddr::new(Ipv4Addr::from(v4.0).into(), v4.1);
            let source_6 = SocketAddr::new(Ipv6Addr::from(v6.0).into(), v6.1);
            let extent_4 = [&v4.0.to_be_bytes()[..], &[0; 4], &v4.1.to_be_bytes(), &[0; 2], &extensions].concat();
            let extent_6 = [&v6.0.to_be_bytes()[..], &[0; 16], &v6.1.to_be_bytes(), &[0; 2], &extensions].concat();
            for (source, bytes) in [
                (source_4, format!("PROXY TCP4 {} 127.0.0.1 {} 80\r\n", source_4.ip(), v4.1).into_bytes()),
                (source_6, format!("PROXY TCP6 {} ::1 {} 80\r\n", source_6.ip(), v6.1).into_bytes()),
                (source_4, version_2(0x21, 0x11, &extent_4)),
                (source_6, version_2(0x21, 0x21, &extent_6)),
            ] {
                for end in 0..bytes.len() {
                    prop_assert_eq!(parse(&bytes[..end]), Ok(Preamble::Partial), "cut at {}", end);
                }
                let whole = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
                prop_assert_eq!(parse(&whole), Ok(Preamble::Complete(bytes.len(), Some(source))));
            }
        }
    }
}

//! Attacks the preamble of load balancers: what is understood does not depend on how it is cut or on what follows.

use weighbridge::proxy::proxy_protocol::{EXTENT_MAX, Preamble, parse};

/// See `tests/fuzz/main.rs`.
pub const TARGET: super::Target = super::Target {
    name: "proxy_protocol",
    seeds: &[
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\n",
        b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x09\x7f\0\0\x01\x10\0\0\x50GET /",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccdd",
        b"GET / HTTP/1.1\r\n",
    ],
    dictionary: &[
        b"PROXY ",
        b"TCP4",
        b"TCP6",
        b"UNKNOWN",
        b"\r\n",
        b" ",
        b"::",
        b"65536",
        b"\x21",
        b"\x11",
        b"\xff\xff",
    ],
    check,
};

/// Panics when a promise is broken.
pub fn check(input: &[u8]) -> super::Ending {
    let whole = parse(input);
    let cuts = (0..input.len()).map(|end| parse(&input[..end]));
    let first = cuts.chain([whole]).find(|found| *found != Ok(Preamble::Partial)).unwrap_or(Ok(Preamble::Partial));
    assert_eq!(first, whole, "the first answer is the last");
    let longer = parse(&[input, b"x".as_slice()].concat());
    match whole {
        Ok(Preamble::Partial) => {
            assert!(input.len() < 16 + EXTENT_MAX, "nobody has to be waited for without end");
            return "partial";
        }
        _ => assert_eq!(longer, whole, "what follows does not matter"),
    }
    match whole {
        Ok(Preamble::Complete(consumed, source)) => {
            assert!((15..=input.len()).contains(&consumed));
            if source.is_some() { "named" } else { "unnamed" }
        }
        Ok(Preamble::None) => "none",
        Ok(Preamble::Partial) => unreachable!("returned above"),
        Err(proxy) => match proxy {
            weighbridge::proxy::proxy_protocol::Malformed::Line => "line",
            weighbridge::proxy::proxy_protocol::Malformed::Address => "address",
            weighbridge::proxy::proxy_protocol::Malformed::Header => "header",
            weighbridge::proxy::proxy_protocol::Malformed::Length => "length",
        },
    }
}

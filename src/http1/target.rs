//! Where a request wants to go: the four forms of a request target, the host grammar, and what routing reads from both.

use std::net::Ipv6Addr;

use super::head::{Head, Method, TARGET_BYTES_MAX, Version};
use super::name::Name;
use super::refusal::Refusal;

/// What a request is routed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<'a> {
    /// The host as sent, without its port; an IPv6 address keeps its brackets.
    pub host: &'a str,
    /// The escaped path as sent, without the query; `*` for `OPTIONS *`, empty for `CONNECT`.
    pub path: &'a str,
}

impl Head {
    /// Host and path of a request that passed [`check_request`]; nothing if it names no host (HTTP/1.0 only).
    ///
    /// An absolute target's authority and `Host` are the same by then, so it does not matter which one is read.
    pub fn destination(&self) -> Option<Destination<'_>> {
        let (authority, path) = match split(self.method_kind(), self.target())? {
            (Some(authority), path) => (authority, path),
            (None, path) => (std::str::from_utf8(self.value(Name::Host)?).ok()?, path),
        };
        let host = if authority.starts_with('[') {
            &authority[..=authority.find(']')?]
        } else {
            authority.split_once(':').map_or(authority, |(host, _)| host)
        };
        Some(Destination { host, path: path.split_once('?').map_or(path, |(path, _)| path) })
    }
}

/// The rules that tie request line and `Host` together; every request passes here once, whichever protocol it came by.
///
/// # Errors
/// The rule that is broken.
pub fn check_request(head: &Head) -> Result<(), Refusal> {
    if head.repeats(Name::Host) {
        return Err(Refusal::RepeatedHost);
    }
    let (authority, _) = split(head.method_kind(), head.target()).ok_or(Refusal::Target)?;
    if let Some(authority) = authority {
        check_authority(authority.as_bytes())?;
        if head.method_kind() == Method::Connect && !authority.ends_with(|last: char| last.is_ascii_digit()) {
            return Err(Refusal::Target);
        }
    }
    match (head.value(Name::Host), authority) {
        (None, _) if head.version() == Version::Http10 => Ok(()),
        (None | Some(b""), _) => Err(Refusal::MissingHost),
        // RFC 9112 section 3.2.2 lets the target win; a client that names two hosts is refused instead.
        (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority.as_bytes()) => Err(Refusal::HostMismatch),
        (Some(host), None) => check_authority(host),
        (Some(_), Some(_)) => Ok(()),
    }
}

/// Whether the bytes may stand on a request line as the target.
pub(super) fn check_bytes(target: &[u8]) -> Result<(), Refusal> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(Refusal::TargetTooLong);
    }
    // No early exit: this way it is done sixteen bytes at a time.
    let (visible, fragment) = target.iter().fold((!target.is_empty(), false), |(visible, fragment), &byte| {
        (visible & (byte > b' ') & (byte < 0x7f), fragment | (byte == b'#'))
    });
    match (visible, fragment) {
        (true, false) => Ok(()),
        (true, true) => Err(Refusal::Fragment),
        (false, _) => Err(Refusal::Target),
    }
}

/// Splits a target into its authority, if the form has one, and the path with the query. `None`: no form for this method.
fn split(method: Method, target: &str) -> Option<(Option<&str>, &str)> {
    if method == Method::Connect {
        return (!target.contains('/')).then_some((Some(target), ""));
    }
    if target.starts_with('/') {
        return Some((None, target));
    }
    if target == "*" {
        return (method == Method::Options).then_some((None, target));
    }
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // An absent path means "/"; a query on an absent path is cut off by the caller, who then sees "" and means the same.
    Some((Some(authority), if path.starts_with('/') { path } else { "/" }))
}

/// Whether this is `host [":" port]` with a host name, an IPv4 address or a bracketed IPv6 address.
fn check_authority(authority: &[u8]) -> Result<(), Refusal> {
    let (host_is_valid, rest) = if let Some(bracketed) = authority.strip_prefix(b"[") {
        let end = bracketed.iter().position(|byte| *byte == b']').ok_or(Refusal::MalformedHost)?;
        let address = std::str::from_utf8(&bracketed[..end]).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
        (address.is_some(), &bracketed[end + 1..])
    } else {
        let end = authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len());
        let (host, rest) = authority.split_at(end);
        (!host.is_empty() && host.iter().all(|byte| HOST[usize::from(*byte)]), rest)
    };
    let port_is_valid = match rest {
        [] => true,
        [b':', port @ ..] => is_port(port),
        _ => false,
    };
    if host_is_valid && port_is_valid { Ok(()) } else { Err(Refusal::MalformedHost) }
}

fn is_port(digits: &[u8]) -> bool {
    // Five digits cannot overflow.
    let value = || digits.iter().fold(0u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) && value() <= u32::from(u16::MAX)
}

/// The unreserved characters of RFC 3986: what host names on the web consist of. Commas, percent signs and the other
/// sub-delimiters, which the grammar would allow too, are only ever seen in attacks.
static HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    table
};

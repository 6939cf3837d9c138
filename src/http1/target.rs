//! Where a request wants to go: the four forms of a request target, the host grammar, and what routing reads from both.

use std::net::Ipv6Addr;

use super::head::{Head, Method, TARGET_BYTES_MAX, Version};
use super::name::Name;
use super::refusal::Refusal;
use super::scan::{first, reserved, same};

/// What a request is routed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<'a> {
    /// The host as sent, without its port; an IPv6 address keeps its brackets.
    pub host: &'a [u8],
    /// The escaped path as sent, without the query; `*` for `OPTIONS *`, empty for `CONNECT`.
    pub path: &'a [u8],
}

impl Head {
    /// Host and path of a request that passed [`check_request`]; nothing if it names no host (HTTP/1.0 only).
    ///
    /// An absolute target's authority and `Host` are the same by then, so it does not matter which one is read.
    pub fn destination(&self) -> Option<Destination<'_>> {
        let (authority, path) = split(self.method_kind(), self.target_bytes())?;
        let authority = authority.or_else(|| self.value(Name::Host))?;
        let host_end =
            if authority.starts_with(b"[") { end_before(authority, b']') + 1 } else { end_before(authority, b':') };
        Some(Destination { host: authority.get(..host_end)?, path: &path[..end_before(path, b'?')] })
    }

    /// Makes the absolute target of a request that passed [`check_request`] the one that an origin is asked by: path and
    /// query, or `*` for `OPTIONS` without either (RFC 9112 sections 3.2.1 and 3.2.4). If nothing else named the host, `Host`
    /// does then. Other targets stay.
    ///
    /// # Errors
    /// `HeadTooLarge` if there is no room for `Host`.
    pub fn ask_as_origin(&mut self) -> Result<(), Refusal> {
        if self.target_bytes().starts_with(b"/") || self.method_kind() == Method::Connect {
            return Ok(());
        }
        let asked = self.target().to_owned();
        let Some((_, authority, rest)) = absolute(asked.as_bytes()) else { return Ok(()) };
        let target = match &asked[asked.len() - rest.len()..] {
            "" if self.method_kind() == Method::Options => "*".to_owned(),
            rest if rest.starts_with('/') => rest.to_owned(),
            rest => format!("/{rest}"),
        };
        if !self.has(Name::Host) {
            self.push_known(Name::Host, authority)?;
        }
        self.set_target(&target)
    }
}

/// Where the first such byte is, or the end.
fn end_before(bytes: &[u8], byte: u8) -> usize {
    first(bytes, 0, |bytes| same(bytes, byte))
}

/// The rules that tie request line and `Host` together; every request passes here once, whichever protocol it came by.
///
/// # Errors
/// The rule that is broken.
pub fn check_request(head: &Head) -> Result<(), Refusal> {
    if head.repeats(Name::Host) {
        return Err(Refusal::RepeatedHost);
    }
    let (authority, _) = split(head.method_kind(), head.target_bytes()).ok_or(Refusal::Target)?;
    if let Some(authority) = authority {
        let has_port = check_authority(authority)?;
        if head.method_kind() == Method::Connect && !has_port {
            return Err(Refusal::Target);
        }
    }
    match (head.value(Name::Host), authority) {
        (None, _) if head.version() == Version::Http10 => Ok(()),
        (None | Some(b""), _) => Err(Refusal::MissingHost),
        // RFC 9112 section 3.2.2 lets the target win; a client that names two hosts is refused instead.
        (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => Err(Refusal::HostMismatch),
        (Some(host), None) => check_authority(host).map(drop),
        (Some(_), Some(_)) => Ok(()),
    }
}

/// Whether the bytes may stand on a request line as the target.
pub(super) fn check_bytes(target: &[u8]) -> Result<(), Refusal> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(Refusal::TargetTooLong);
    }
    match target.iter().fold(u8::from(target.is_empty()), |found, byte| found | TARGET[usize::from(*byte)]) {
        0 => Ok(()),
        FRAGMENT => Err(Refusal::Fragment),
        _ => Err(Refusal::Target),
    }
}

/// Splits a target into its authority, if the form has one, and the path (a query may follow it). `None`: no form for this method.
fn split(method: Method, target: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    if method == Method::Connect {
        return (!target.contains(&b'/')).then_some((Some(target), b""));
    }
    if target.starts_with(b"/") {
        return Some((None, target));
    }
    if target == b"*" {
        return (method == Method::Options).then_some((None, target));
    }
    let (scheme, authority, path) = absolute(target)?;
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return None;
    }
    // An absent path means "/", also where a query follows; the query is of no interest here.
    Some((Some(authority), if path.starts_with(b"/") { path } else { b"/" }))
}

/// Scheme, authority, and what follows: nothing, a path, or a query.
fn absolute(target: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (scheme, rest) = target.split_at(end_before(target, b':'));
    let rest = rest.strip_prefix(b"://")?;
    let (authority, rest) = rest.split_at(rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len()));
    Some((scheme, authority, rest))
}

/// Refuses what is not `host [":" port]` with a host name, an IPv4 address or a bracketed IPv6 address; tells whether there
/// is a port.
fn check_authority(authority: &[u8]) -> Result<bool, Refusal> {
    let (host_is_valid, rest) = if let Some(bracketed) = authority.strip_prefix(b"[") {
        let end = bracketed.iter().position(|byte| *byte == b']').ok_or(Refusal::MalformedHost)?;
        let address = std::str::from_utf8(&bracketed[..end]).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
        (address.is_some(), &bracketed[end + 1..])
    } else {
        // What host names on the web consist of. Commas, percent signs and the other sub-delimiters, which the grammar would
        // allow too, are only ever seen in attacks.
        let end = first(authority, 0, reserved);
        (end > 0, &authority[end..])
    };
    let port_is_valid = match rest {
        [] => true,
        [b':', port @ ..] => is_port(port),
        _ => false,
    };
    if host_is_valid && port_is_valid { Ok(!rest.is_empty()) } else { Err(Refusal::MalformedHost) }
}

fn is_port(digits: &[u8]) -> bool {
    // Five digits cannot overflow.
    let value = || digits.iter().fold(0u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) && value() <= u32::from(u16::MAX)
}

const FRAGMENT: u8 = 2;

/// What is wrong with a byte in a target: 0 for nothing, 1 if it is not visible ASCII, `FRAGMENT` for `#`.
static TARGET: [u8; 256] = {
    let mut table = [1; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = if byte == b'#' as usize { FRAGMENT } else { 0 };
        byte += 1;
    }
    table
};

//! Where a body ends: RFC 9112 section 6 with every ambiguity refused.

use super::head::{Head, Method, Version};
use super::name::{Name, NameSet};
use super::refusal::Refusal;

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks, a last chunk, perhaps trailers.
    Chunked,
    /// Until the server closes; responses only.
    UntilClose,
}

/// The longest body that can be announced: beyond it some neighbour's signed counter would overflow.
pub const LENGTH_MAX: u64 = i64::MAX as u64;

/// As many digits as the longest length has.
const LENGTH_DIGITS_MAX: usize = 19;

/// The framing of a request's body.
///
/// # Errors
/// The rule of framing that the head breaks.
pub fn of_request(head: &Head) -> Result<Framing, Refusal> {
    let framing = match announced(head)? {
        Announced::Nothing => Framing::None,
        Announced::Length(0) => Framing::None,
        Announced::Length(length) => Framing::Length(length),
        Announced::Chunked => Framing::Chunked,
    };
    // What a neighbour makes of other expectations nobody knows: some wait, some take the body for the next request.
    if head.values(Name::Expect).any(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Refusal::Expectation);
    }
    match (head.method_kind(), framing) {
        // A tunnel begins behind the head: bytes of a "body" would be taken for either.
        (Method::Connect, Framing::Chunked) => Err(Refusal::EncodingForbidden),
        (Method::Connect, Framing::Length(_)) => Err(Refusal::LengthForbidden),
        _ => Ok(framing),
    }
}

/// The framing of a response's body, which depends on the method that was asked with.
///
/// `Content-Length: 0` is let through on 204 and 1xx, where it is wrong but harmless and common; whoever passes such a
/// response on should remove it.
///
/// # Errors
/// The rule of framing that the head breaks.
pub fn of_response(head: &Head, asked: Method) -> Result<Framing, Refusal> {
    let announced = announced(head)?;
    let (status, is_tunnel) = (head.status(), asked == Method::Connect && head.status() / 100 == 2);
    if status / 100 == 1 || status == 204 {
        return match announced {
            Announced::Nothing | Announced::Length(0) => Ok(Framing::None),
            Announced::Length(_) => Err(Refusal::LengthForbidden),
            Announced::Chunked => Err(Refusal::EncodingForbidden),
        };
    }
    if asked == Method::Head || status == 304 || is_tunnel {
        return Ok(Framing::None);
    }
    Ok(match announced {
        Announced::Nothing => Framing::UntilClose,
        Announced::Length(0) => Framing::None,
        Announced::Length(length) => Framing::Length(length),
        Announced::Chunked => Framing::Chunked,
    })
}

/// What the framing fields say.
enum Announced {
    Nothing,
    Length(u64),
    Chunked,
}

#[inline]
fn announced(head: &Head) -> Result<Announced, Refusal> {
    const SAY: NameSet = NameSet::of(&[Name::ContentLength, Name::TransferEncoding]);
    if !head.names().meets(SAY) {
        return Ok(Announced::Nothing);
    }
    match (head.value(Name::ContentLength), head.value(Name::TransferEncoding)) {
        (None, None) => Ok(Announced::Nothing),
        (Some(_), Some(_)) => Err(Refusal::LengthAndEncoding),
        (Some(_), None) if head.repeats(Name::ContentLength) => Err(Refusal::RepeatedLength),
        (Some(length), None) => parse_length(length).map(Announced::Length),
        (None, Some(_)) if head.version() == Version::Http10 => Err(Refusal::EncodingInHttp10),
        (None, Some(_)) if head.repeats(Name::TransferEncoding) => Err(Refusal::Encoding),
        (None, Some(encoding)) if encoding.eq_ignore_ascii_case(b"chunked") => Ok(Announced::Chunked),
        (None, Some(_)) => Err(Refusal::Encoding),
    }
}

fn parse_length(digits: &[u8]) -> Result<u64, Refusal> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::MalformedLength);
    }
    // Zeros in front change no number, but a neighbour's buffer for digits may be too small for them.
    if digits.len() > LENGTH_DIGITS_MAX {
        return Err(Refusal::LengthTooLarge);
    }
    // So many digits fit.
    let length = digits.iter().fold(0u64, |length, digit| length * 10 + u64::from(digit - b'0'));
    if length <= LENGTH_MAX { Ok(length) } else { Err(Refusal::LengthTooLarge) }
}

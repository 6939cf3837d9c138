//! Bytes into heads, in one pass that takes sixteen bytes at a time and goes on as long as all is well. The line that is not is
//! looked at again, slowly, to say what is wrong with it.
//!
//! There is no verdict before the empty line that ends a head (or the limit) has come, save on the very first byte; so
//! the result does not depend on how the input was cut into reads, and a head that drips in is parsed twice, not n times.

use super::body::TRAILER_COUNT_MAX;
use super::head::{
    Entry, HEAD_BYTES_MAX, Head, Method, TARGET_BYTES_MAX, Version, is_text, is_token, is_token_byte,
    without_spaces_before,
};
use super::name::Name;
use super::refusal::Refusal;
use super::scan::{DEL, at_least, below, control, first, same};
use super::target;

use wide::u8x16;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the first byte to the end of the empty line; at most [`HEAD_BYTES_MAX`].
    pub head_bytes: usize,
    /// Field lines; at most [`FIELDS_MAX`].
    pub head_count: usize,
    /// The target of a request; at most [`TARGET_BYTES_MAX`].
    pub target_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { head_bytes: 64 << 10, head_count: 128, target_bytes: TARGET_BYTES_MAX }
    }
}

/// No limit on field lines is higher than this.
pub const FIELDS_MAX: usize = 512;

/// No field name is longer than this.
const NAME_BYTES_MAX: usize = u16::MAX as usize;

/// How far a head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Come again with more of the same input.
    Partial,
    /// The head is parsed and was so many bytes long; the body begins there.
    Complete(usize),
}

/// Parses the head of a request from the beginning of `input`, which after `Partial` must be the same bytes and more.
///
/// # Errors
/// The first rule that the head breaks. The connection has no future then: nobody knows where the next message begins.
/// The `head` is empty, or holds what was read before the rule was seen broken: for the log, not to be passed on.
pub fn request(input: &[u8], limits: &Limits, head: &mut Head) -> Result<Progress, Refusal> {
    if head.searched == 0 {
        head.clear();
    }
    let result = try_request(input, limits, head);
    head.searched = if result == Ok(Progress::Partial) { input.len() } else { 0 };
    result
}

/// Parses the head of a response, like [`request`].
///
/// # Errors
/// As [`request`].
pub fn response(input: &[u8], limits: &Limits, head: &mut Head) -> Result<Progress, Refusal> {
    if head.searched == 0 {
        head.clear();
    }
    let result = try_response(input, limits, head);
    head.searched = if result == Ok(Progress::Partial) { input.len() } else { 0 };
    result
}

fn try_request(input: &[u8], limits: &Limits, head: &mut Head) -> Result<Progress, Refusal> {
    // Some old clients send one CR LF too much behind a body (RFC 9112 section 2.2).
    let begin = if input.starts_with(b"\r\n") { 2 } else { 0 };
    match &input[begin..] {
        [] | [b'\r'] => return Ok(Progress::Partial),
        [b'\r' | b'\n', ..] => return Err(Refusal::EmptyLines),
        [first, ..] if !is_token_byte(*first) => return Err(Refusal::Method),
        _ => {}
    }
    let limit = limits.head_bytes.min(HEAD_BYTES_MAX);
    let window = &input[..input.len().min(limit)];
    if head.searched > 0 && !has_empty_line(window, begin, head.searched) {
        return wait(window, limit, Kind::Request);
    }
    let read = request_line(window, begin).and_then(|line| {
        let block = line.target_end + VERSION_BYTES;
        let end = fields(window, block, block, limits.head_count.min(FIELDS_MAX), head)?;
        Ok((line, block, end))
    });
    let (line, block, end) = match read {
        Ok(read) => read,
        Err(broken) => return stop(window, begin, limit, &broken, head),
    };
    if line.target_end - line.method_end > limits.target_bytes.min(TARGET_BYTES_MAX) + 1 {
        head.clear();
        return Err(Refusal::TargetTooLong);
    }
    head.put_request(&window[begin..line.target_end], line.method, line.method_end - begin, line.version);
    head.put_block(&window[block..end - 2]);
    target::check_request(head)?;
    Ok(Progress::Complete(end))
}

fn try_response(input: &[u8], limits: &Limits, head: &mut Head) -> Result<Progress, Refusal> {
    match input {
        [] => return Ok(Progress::Partial),
        [b'H', ..] => {}
        _ => return Err(Refusal::Version),
    }
    let limit = limits.head_bytes.min(HEAD_BYTES_MAX);
    let window = &input[..input.len().min(limit)];
    if head.searched > 0 && !has_empty_line(window, 0, head.searched) {
        return wait(window, limit, Kind::Response);
    }
    let read = status_line(window).and_then(|line| {
        let end = fields(window, line.reason_end + 2, line.reason, limits.head_count.min(FIELDS_MAX), head)?;
        Ok((line, end))
    });
    let (line, end) = match read {
        Ok(read) => read,
        Err(broken) => return stop(window, 0, limit, &broken, head),
    };
    head.put_block(&window[line.reason..end - 2]);
    head.put_status(line.code, line.reason_end - line.reason, line.version);
    Ok(Progress::Complete(end))
}

/// Parses a trailer section with its final empty line.
pub(super) fn trailers(section: &[u8], head: &mut Head) -> Result<(), Refusal> {
    let end = fields(section, 0, 0, TRAILER_COUNT_MAX, head).map_err(|broken| diagnose(section, &broken))?;
    head.put_block(&section[..end - 2]);
    Ok(())
}

/// A line that is not as it should be, or has no end yet.
struct Broken {
    kind: Kind,
    at: usize,
}

/// What a line is, or should be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Response,
    Field,
}

/// What a request line says, and where its words end.
struct RequestLine {
    method: Method,
    method_end: usize,
    target_end: usize,
    version: Version,
}

/// What stands behind a target.
const VERSION_BYTES: usize = b" HTTP/1.1\r\n".len();

#[inline]
fn request_line(window: &[u8], begin: usize) -> Result<RequestLine, Broken> {
    let broken = || Broken { kind: Kind::Request, at: begin };
    let method_len = window[begin..].iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
    let (method_end, target) = (begin + method_len, begin + method_len + 1);
    let target_end =
        first(window, target, |bytes| at_least(bytes - u8x16::splat(b'!'), DEL - b'!') | same(bytes, b'#'));
    let version = match window[target_end..].first_chunk() {
        Some(b" HTTP/1.1\r\n") => Version::Http11,
        Some(b" HTTP/1.0\r\n") => Version::Http10,
        _ => return Err(broken()),
    };
    let method = Method::of(&window[begin..method_end]);
    if target_end == target || method == Method::Other && !is_token(&window[begin..method_end]) {
        return Err(broken());
    }
    Ok(RequestLine { method, method_end, target_end, version })
}

/// What a status line says, and where its reason lies.
struct StatusLine {
    version: Version,
    code: u16,
    reason: usize,
    reason_end: usize,
}

#[inline]
fn status_line(window: &[u8]) -> Result<StatusLine, Broken> {
    const CODE_END: usize = b"HTTP/1.1 200".len();
    let broken = Broken { kind: Kind::Response, at: 0 };
    let (minor, code, next) = match window {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'1', b' ', a @ b'1'..=b'9', b, c, next, ..]
            if b.is_ascii_digit() && c.is_ascii_digit() =>
        {
            let [a, b, c] = [a, b, c].map(|digit| u16::from(digit - b'0'));
            (*minor, a * 100 + b * 10 + c, *next)
        }
        _ => return Err(broken),
    };
    let version = if minor == b'0' { Version::Http10 } else { Version::Http11 };
    // Without a reason the space in front of it is often left out, too.
    let reason = match next {
        b' ' => CODE_END + 1,
        b'\r' => CODE_END,
        _ => return Err(broken),
    };
    let reason_end = first(window, reason, control);
    if !window[reason_end..].starts_with(b"\r\n") {
        return Err(broken);
    }
    Ok(StatusLine { version, code, reason, reason_end })
}

/// Enters the fields whose lines begin at `at` into the head, whose block begins at `block`. Returns where the empty line
/// behind them ends.
#[inline]
fn fields(window: &[u8], mut at: usize, block: usize, most: usize, head: &mut Head) -> Result<usize, Broken> {
    while !window[at..].starts_with(b"\r\n") {
        let broken = Broken { kind: Kind::Field, at };
        let name_end = first(window, at, |bytes| below(bytes, b' ') | same(bytes, b':'));
        let name_len = name_end - at;
        let known = Name::of_first(&window[at..], name_len);
        let is_valid = || (1..=NAME_BYTES_MAX).contains(&name_len) && is_token(&window[at..name_end]);
        if known == Name::Other && !is_valid() || head.fields.len() == most {
            return Err(broken);
        }
        // As nearly everybody writes it: one space, and something behind.
        let (value, mut is_plain) = match &window[name_end..] {
            [b':', b' ', first, ..] if *first > b' ' => (name_end + 2, true),
            [b':', rest @ ..] => (window.len() - without_spaces_before(rest).len(), false),
            _ => return Err(broken),
        };
        let line_end = first(window, value, control);
        if !window[line_end..].starts_with(b"\r\n") {
            return Err(broken);
        }
        let mut value_end = line_end;
        while value_end > value && matches!(window[value_end - 1], b' ' | b'\t') {
            (value_end, is_plain) = (value_end - 1, false);
        }
        head.put_entry(Entry {
            name_start: (at - block) as u32,
            name_len: name_len as u16,
            known,
            is_plain,
            value_start: (value - block) as u32,
            value_len: (value_end - value) as u32,
        });
        at = line_end + 2;
    }
    Ok(at + 2)
}

/// What follows from a broken line: a refusal if the head has its end, else more may have to come.
#[cold]
fn stop(window: &[u8], begin: usize, limit: usize, broken: &Broken, head: &mut Head) -> Result<Progress, Refusal> {
    head.clear();
    if has_empty_line(window, begin, begin) {
        return Err(diagnose(window, broken));
    }
    wait(window, limit, broken.kind)
}

/// The head has no end yet: fine, unless it has had all the room it gets.
fn wait(window: &[u8], limit: usize, kind: Kind) -> Result<Progress, Refusal> {
    if window.len() < limit {
        Ok(Progress::Partial)
    } else if kind == Kind::Request && !window[2.min(limit)..].contains(&b'\n') {
        Err(Refusal::TargetTooLong)
    } else {
        Err(Refusal::HeadTooLarge)
    }
}

/// Whether a line that begins at or after `from` is empty, given that nothing before `searched` was the end of one.
fn has_empty_line(window: &[u8], from: usize, searched: usize) -> bool {
    let mut at = from.max(searched.saturating_sub(3));
    while let Some(line_feed) = window.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
        at += line_feed + 1;
        if matches!(window[at..], [b'\n', ..] | [b'\r', b'\n', ..]) {
            return true;
        }
    }
    false
}

/// The rule that a broken line with an end has broken.
fn diagnose(window: &[u8], broken: &Broken) -> Refusal {
    let line = window[broken.at..].split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    match (line, broken.kind) {
        ([b' ' | b'\t', ..], Kind::Field) => Refusal::FoldedField,
        ([line @ .., b'\r', b'\n'], _) if line.contains(&b'\r') => Refusal::BareCarriageReturn,
        ([line @ .., b'\r', b'\n'], Kind::Request) => diagnose_request_line(line),
        ([line @ .., b'\r', b'\n'], Kind::Response) => diagnose_status_line(line),
        ([line @ .., b'\r', b'\n'], Kind::Field) => diagnose_field(line),
        _ => Refusal::BareLineFeed,
    }
}

fn diagnose_request_line(line: &[u8]) -> Refusal {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Refusal::Method };
    let (version, is_last) = (words.next(), words.next().is_none());
    if method.is_empty() || !is_token(method) {
        return Refusal::Method;
    }
    match (target::check_bytes(target), version) {
        (Err(refusal), _) => refusal,
        (Ok(()), None) => Refusal::Target,
        // A version that is none is malformed; one that exists, or will, is only not ours.
        (Ok(()), Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'])) if is_last => Refusal::Version,
        (Ok(()), Some(_)) => Refusal::MalformedVersion,
    }
}

fn diagnose_status_line(line: &[u8]) -> Refusal {
    let is_ours = line.starts_with(b"HTTP/1.1 ") || line.starts_with(b"HTTP/1.0 ");
    if is_ours { Refusal::Status } else { Refusal::Version }
}

fn diagnose_field(line: &[u8]) -> Refusal {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return Refusal::NoColon };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    match name {
        [] => Refusal::EmptyFieldName,
        [inner @ .., b' ' | b'\t'] if is_token(super::head::trimmed(inner)) => Refusal::SpaceBeforeColon,
        _ if !is_token(name) => Refusal::FieldName,
        _ if !is_text(value) => Refusal::FieldValue,
        _ if name.len() > NAME_BYTES_MAX => Refusal::HeadTooLarge,
        _ => Refusal::TooManyFields,
    }
}

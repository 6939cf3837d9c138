//! Bytes into heads. `httparse` knows the syntax; here are the limits and the rules it is too kind to enforce.
//!
//! There is no verdict before the empty line that ends a head (or the limit) has come, save on the very first byte; so
//! the result does not depend on how the input was cut into reads, and a head that drips in is parsed twice, not n times.

use std::mem::MaybeUninit;

use super::body::TRAILER_COUNT_MAX;
use super::head::{Entry, HEAD_BYTES_MAX, Head, TARGET_BYTES_MAX, Version, is_text, is_token};
use super::name::Name;
use super::refusal::Refusal;
use super::target;

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
    let empty_line = if input.starts_with(b"\r\n") { 2 } else { 0 };
    match &input[empty_line..] {
        [] | [b'\r'] => return Ok(Progress::Partial),
        [b'\r' | b'\n', ..] => return Err(Refusal::EmptyLines),
        [first, ..] if !is_token(&[*first]) => return Err(Refusal::Method),
        _ => {}
    }
    let limit = limits.head_bytes.min(HEAD_BYTES_MAX);
    let window = &input[..input.len().min(limit)];
    if head.searched > 0 && !has_empty_line(window, empty_line, head.searched) {
        return wait(window, limit, Start::Request);
    }
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let slots = &mut slots[..limits.head_count.min(FIELDS_MAX)];
    let end = match parsed.parse_with_uninit_headers(&window[empty_line..], slots) {
        Ok(httparse::Status::Complete(length)) => empty_line + length,
        Err(error) if has_empty_line(window, empty_line, empty_line) => {
            return Err(diagnose(&window[empty_line..], Start::Request, error));
        }
        Ok(httparse::Status::Partial) | Err(_) => return wait(window, limit, Start::Request),
    };
    let (Some(method), Some(path), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::Method); // httparse fills all three before it says Complete
    };
    target::check_bytes(path.as_bytes())?;
    if path.len() > limits.target_bytes {
        return Err(Refusal::TargetTooLong);
    }
    let line_end = empty_line + method.len() + 1 + path.len() + " HTTP/1.1".len();
    if !input[line_end..].starts_with(b"\r\n") || !input[..end].ends_with(b"\r\n\r\n") {
        return Err(Refusal::BareLineFeed);
    }
    head.put_request(method, path, version(minor));
    head.put_block(&input[line_end + 2..end - 2]);
    take_fields(&input[..end], line_end + 2, line_end + 2, parsed.headers, head)?;
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
        return wait(window, limit, Start::Response);
    }
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let slots = &mut slots[..limits.head_count.min(FIELDS_MAX)];
    let parser = httparse::ParserConfig::default();
    let end = match parser.parse_response_with_uninit_headers(&mut parsed, window, slots) {
        Ok(httparse::Status::Complete(length)) => length,
        Err(error) if has_empty_line(window, 0, 0) => return Err(diagnose(window, Start::Response, error)),
        Ok(httparse::Status::Partial) | Err(_) => return wait(window, limit, Start::Response),
    };
    let (Some(code @ 100..=999), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(Refusal::Status);
    };
    let code_end = "HTTP/1.1 200".len();
    let reason = code_end + usize::from(input[code_end] == b' ');
    let fields = parsed.headers.first().map_or(end - 2, |first| offset(input, first.name.as_bytes()));
    if !input[..fields].ends_with(b"\r\n") || !input[..end].ends_with(b"\r\n\r\n") {
        return Err(Refusal::BareLineFeed);
    }
    head.put_block(&input[reason..end - 2]);
    head.put_status(code, fields - 2 - reason, version(minor));
    take_fields(&input[..end], fields, reason, parsed.headers, head)?;
    Ok(Progress::Complete(end))
}

/// Parses a trailer section with its final empty line.
pub(super) fn trailers(section: &[u8], head: &mut Head) -> Result<(), Refusal> {
    let mut slots = [httparse::EMPTY_HEADER; TRAILER_COUNT_MAX];
    match httparse::parse_headers(section, &mut slots) {
        Ok(httparse::Status::Complete((end, parsed))) => {
            if !section[..end].ends_with(b"\r\n\r\n") {
                return Err(Refusal::BareLineFeed);
            }
            head.put_block(&section[..end - 2]);
            take_fields(&section[..end], 0, 0, parsed, head)
        }
        Ok(httparse::Status::Partial) => Err(Refusal::NoColon), // not with the empty line in it
        Err(error) => Err(diagnose(section, Start::Field, error)),
    }
}

/// Enters the parsed fields of the complete `head_bytes` into the head, whose block begins at `block`. The line before the
/// `first` field and the end have been looked at.
fn take_fields(
    head_bytes: &[u8],
    first: usize,
    block: usize,
    parsed: &[httparse::Header<'_>],
    head: &mut Head,
) -> Result<(), Refusal> {
    // One flag for all lines, looked at once: each line must end with CR LF, which httparse does not insist on.
    let mut lines_end_well = true;
    let mut names_fit = true;
    head.fields.reserve(parsed.len());
    for field in parsed {
        let name = offset(head_bytes, field.name.as_bytes());
        let value = offset(head_bytes, field.value);
        let (name_end, value_end) = (name + field.name.len(), value + field.value.len());
        lines_end_well &= name == first || head_bytes[..name].ends_with(b"\r\n");
        names_fit &= field.name.len() <= usize::from(u16::MAX);
        head.put_entry(Entry {
            name_start: (name - block) as u32,
            name_len: field.name.len() as u16,
            known: Name::of_token(field.name.as_bytes()),
            is_plain: value == name_end + 2 && head_bytes[name_end + 1] == b' ' && head_bytes[value_end] == b'\r',
            value_start: (value - block) as u32,
            value_len: field.value.len() as u32,
        });
    }
    match (lines_end_well, names_fit) {
        (true, true) => Ok(()),
        (false, _) => Err(Refusal::BareLineFeed),
        (true, false) => Err(Refusal::HeadTooLarge),
    }
}

/// Where a part of `whole`, as httparse returns them, begins in it.
fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

fn version(minor: u8) -> Version {
    if minor == 0 { Version::Http10 } else { Version::Http11 }
}

/// What a parser expects first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Request,
    Response,
    Field,
}

/// The head has no end yet: fine, unless it has had all the room it gets.
fn wait(window: &[u8], limit: usize, start: Start) -> Result<Progress, Refusal> {
    if window.len() < limit {
        Ok(Progress::Partial)
    } else if start == Start::Request && !window[2.min(limit)..].contains(&b'\n') {
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

/// Finds the rule that `httparse` saw broken, in a head that has its empty line. Slow and thorough: this head goes nowhere.
fn diagnose(input: &[u8], start: Start, error: httparse::Error) -> Refusal {
    let mut lines = input.split_inclusive(|byte| *byte == b'\n');
    if start != Start::Field {
        let line = lines.next().unwrap_or_default();
        if let Some(refusal) = diagnose_line_end(line).or(match error {
            httparse::Error::Version => Some(diagnose_version(line, start)),
            httparse::Error::Status => Some(Refusal::Status),
            httparse::Error::Token => Some(diagnose_request_line(line)),
            _ => None,
        }) {
            return refusal;
        }
    }
    for line in lines.take_while(|line| *line != b"\r\n" && *line != b"\n") {
        if let Some(refusal) = diagnose_field(line) {
            return refusal;
        }
    }
    match error {
        httparse::Error::TooManyHeaders => Refusal::TooManyFields,
        httparse::Error::HeaderName => Refusal::FieldName,
        httparse::Error::NewLine => Refusal::MalformedVersion, // every line ends well, so something stands behind it
        _ => Refusal::FieldValue,
    }
}

fn diagnose_line_end(line: &[u8]) -> Option<Refusal> {
    match line {
        [inner @ .., b'\r', b'\n'] => inner.contains(&b'\r').then_some(Refusal::BareCarriageReturn),
        _ => Some(Refusal::BareLineFeed),
    }
}

/// A version that is none is malformed; one that exists, or will, is only not ours.
fn diagnose_version(line: &[u8], start: Start) -> Refusal {
    let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
    let (version, is_last) = (words.nth(2), words.next().is_none());
    match version {
        Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']) if is_last => Refusal::Version,
        _ if start == Start::Request => Refusal::MalformedVersion,
        _ => Refusal::Version,
    }
}

fn diagnose_request_line(line: &[u8]) -> Refusal {
    let method_end = line.iter().position(|byte| *byte == b' ').unwrap_or(0);
    if method_end == 0 || !is_token(&line[..method_end]) { Refusal::Method } else { Refusal::Target }
}

fn diagnose_field(line: &[u8]) -> Option<Refusal> {
    if matches!(line, [b' ' | b'\t', ..]) {
        return Some(Refusal::FoldedField);
    }
    if let Some(refusal) = diagnose_line_end(line) {
        return Some(refusal);
    }
    let line = &line[..line.len() - 2];
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return Some(Refusal::NoColon);
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    match name {
        [] => Some(Refusal::EmptyFieldName),
        [inner @ .., b' ' | b'\t'] if is_token(super::head::trimmed(inner)) => Some(Refusal::SpaceBeforeColon),
        _ if !is_token(name) => Some(Refusal::FieldName),
        _ => (!is_text(value)).then_some(Refusal::FieldValue),
    }
}

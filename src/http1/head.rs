//! One head, of a request or a response: a flat list of fields over one byte buffer, reused from message to message.

use super::name::{Name, NameSet, is_same_text};
use super::refusal::Refusal;
use super::scan::{first, reserved};

/// What a method means to the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Connect,
    Trace,
    /// Any other token; [`Head::method`] spells it.
    Other,
}

impl Method {
    /// The kind of a method's name; methods are case-sensitive.
    pub fn of(name: &[u8]) -> Method {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"CONNECT" => Self::Connect,
            b"TRACE" => Self::Trace,
            _ => Self::Other,
        }
    }

    /// Whether doing it twice is as good as once (RFC 9110 section 9.2.2).
    pub const fn is_idempotent(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace)
    }
}

/// The version a head was sent with, or is to be written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// One field line as it stands in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Which known name it is.
    pub known: Name,
    /// The name as sent.
    pub name: &'a [u8],
    /// The value as sent, without whitespace around it.
    pub value: &'a [u8],
}

/// Where a field lies in the buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub name_start: u32,
    pub name_len: u16,
    pub known: Name,
    /// The bytes from `name_start` on are exactly `Name: value CR LF`, so the line can be copied as it is.
    pub is_plain: bool,
    pub value_start: u32,
    pub value_len: u32,
}

impl Entry {
    fn name(self) -> std::ops::Range<usize> {
        self.name_start as usize..self.name_start as usize + usize::from(self.name_len)
    }

    fn value(self) -> std::ops::Range<usize> {
        self.value_start as usize..self.value_start as usize + self.value_len as usize
    }
}

/// No head grows beyond this, whatever the limits are set to: 16 MiB.
pub const HEAD_BYTES_MAX: usize = 16 << 20;
/// No request target is longer (also the limit of `http::Uri`, which HTTP/2 requests come through).
pub const TARGET_BYTES_MAX: usize = 65_534;
/// `Connection` may list this many options.
pub const CONNECTION_OPTIONS_MAX: usize = 64;
/// No line that [`Head::push_fixed`] is given is longer.
const FIXED_LINE_MAX: usize = 96;
/// Memory that each buffer of a head keeps over `clear`: more than nearly all heads need.
const KEPT_BYTES: usize = 16 << 10;

/// A request or response head. Names keep their case and their order; whatever is in it can be written on a line.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// `METHOD target` of a request; ASCII.
    start: Vec<u8>,
    method_len: usize,
    method: Method,
    version: Version,
    status: u16,
    /// The reason phrase first, then field lines.
    bytes: Vec<u8>,
    reason_len: usize,
    pub(super) fields: Vec<Entry>,
    /// Some line is not where it belongs in `bytes`, or not as it is to be written: they cannot be copied as one.
    is_scattered: bool,
    present: NameSet,
    repeated: NameSet,
    /// How much of an incomplete head was already searched for its end; 0 when none is under way.
    pub(super) searched: usize,
}

impl Head {
    /// An empty head.
    pub const fn new() -> Head {
        Head {
            start: Vec::new(),
            method_len: 0,
            method: Method::Get,
            version: Version::Http11,
            status: 0,
            bytes: Vec::new(),
            reason_len: 0,
            fields: Vec::new(),
            is_scattered: false,
            present: NameSet::of(&[]),
            repeated: NameSet::of(&[]),
            searched: 0,
        }
    }

    /// Makes it empty, keeping its memory. Needed before parsing a new message only where an incomplete one was given up.
    pub fn clear(&mut self) {
        self.start.clear();
        self.start.shrink_to(KEPT_BYTES);
        self.method_len = 0;
        self.method = Method::Get;
        self.version = Version::Http11;
        self.status = 0;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.reason_len = 0;
        self.fields.clear();
        self.is_scattered = false;
        self.present = NameSet::default();
        self.repeated = NameSet::default();
        self.searched = 0;
    }

    /// The method as sent; empty in a response.
    pub fn method(&self) -> &str {
        std::str::from_utf8(self.method_bytes()).unwrap_or_default()
    }

    /// The same for whoever needs no text.
    pub fn method_bytes(&self) -> &[u8] {
        &self.start[..self.method_len]
    }

    /// The method's kind.
    pub fn method_kind(&self) -> Method {
        self.method
    }

    /// The request target, byte for byte as sent; empty in a response.
    pub fn target(&self) -> &str {
        std::str::from_utf8(self.target_bytes()).unwrap_or_default()
    }

    /// The same for whoever needs no text.
    pub fn target_bytes(&self) -> &[u8] {
        self.start.get(self.method_len + 1..).unwrap_or_default()
    }

    /// The version it came with, or will be written with.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The status code, 100 to 999; 0 in a request.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase, often empty.
    pub fn reason(&self) -> &[u8] {
        &self.bytes[..self.reason_len]
    }

    /// All fields in order.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = Field<'_>> + DoubleEndedIterator + Clone {
        self.fields.iter().map(|entry| self.field(*entry))
    }

    /// Whether a field of that name is there.
    #[inline]
    pub fn has(&self, name: Name) -> bool {
        self.present.contains(name)
    }

    /// Whether a field of that name is there more than once.
    #[inline]
    pub fn repeats(&self, name: Name) -> bool {
        self.repeated.contains(name)
    }

    /// The known names that are there.
    pub fn names(&self) -> NameSet {
        self.present
    }

    /// The first value of that name.
    pub fn value(&self, name: Name) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// The values of that name in order.
    pub fn values(&self, name: Name) -> impl Iterator<Item = &[u8]> + Clone {
        let entries = if self.has(name) { &self.fields[..] } else { &[] };
        entries.iter().filter(move |entry| entry.known == name).map(|entry| &self.bytes[entry.value()])
    }

    /// The first value of a name given as text, in any case.
    pub fn value_of(&self, name: &str) -> Option<&[u8]> {
        self.values_of(name).next()
    }

    /// The values of a name given as text, in any case, in order.
    pub fn values_of<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a, 'n> {
        let known = Name::of(name.as_bytes());
        let entries = if known == Name::Other || self.has(known) { &self.fields[..] } else { &[] };
        entries
            .iter()
            .filter(move |entry| self.is_named(**entry, known, name.as_bytes()))
            .map(|entry| &self.bytes[entry.value()])
    }

    /// Whether the comma-separated values of that name contain the token, in any case.
    #[inline]
    pub fn lists(&self, name: Name, token: &str) -> bool {
        self.has(name) && self.has_listed(name, token)
    }

    fn has_listed(&self, name: Name, token: &str) -> bool {
        self.values(name).any(|value| tokens(value).any(|listed| listed.eq_ignore_ascii_case(token.as_bytes())))
    }

    /// Whether the connection may be used again after this message (RFC 9112 section 9.3).
    pub fn keeps_alive(&self) -> bool {
        match self.version {
            Version::Http11 => self.says_keep_alive() || !self.lists(Name::Connection, "close"),
            Version::Http10 => self.lists(Name::Connection, "keep-alive") && !self.lists(Name::Connection, "close"),
        }
    }

    /// Whether `Connection` says that and nothing else, as with most instances that say anything.
    fn says_keep_alive(&self) -> bool {
        !self.repeats(Name::Connection)
            && self.value(Name::Connection).is_some_and(|value| is_same_text(b"keep-alive", value))
    }

    /// Makes it a request of HTTP/1.1, keeping the fields.
    ///
    /// # Errors
    /// `Method`, `Target`, `Fragment` or `TargetTooLong` if the words could not stand on a request line.
    pub fn set_request(&mut self, method: &str, target: &str) -> Result<(), Refusal> {
        if method.is_empty() || !is_token(method.as_bytes()) {
            return Err(Refusal::Method);
        }
        super::target::check_bytes(target.as_bytes())?;
        self.start.clear();
        self.start.extend_from_slice(method.as_bytes());
        self.start.push(b' ');
        self.start.extend_from_slice(target.as_bytes());
        self.became_request(Method::of(method.as_bytes()), method.len(), Version::Http11);
        Ok(())
    }

    /// Replaces the request target.
    ///
    /// # Errors
    /// As [`set_request`](Self::set_request).
    pub fn set_target(&mut self, target: &str) -> Result<(), Refusal> {
        super::target::check_bytes(target.as_bytes())?;
        self.start.truncate(self.method_len);
        self.start.push(b' ');
        self.start.extend_from_slice(target.as_bytes());
        Ok(())
    }

    /// Makes it a response, keeping the fields and their order. An empty reason is fine.
    ///
    /// # Errors
    /// `Status` if the code is not 100 to 999 or the reason has a control byte.
    pub fn set_status(&mut self, code: u16, reason: &[u8]) -> Result<(), Refusal> {
        if !(100..=999).contains(&code) || !is_text(reason) {
            return Err(Refusal::Status);
        }
        self.start.clear();
        self.method_len = 0;
        self.status = code;
        // The reason lies before the fields, which move with it.
        self.bytes.splice(..self.reason_len, reason.iter().copied());
        for entry in &mut self.fields {
            entry.name_start = entry.name_start - self.reason_len as u32 + reason.len() as u32;
            entry.value_start = entry.value_start - self.reason_len as u32 + reason.len() as u32;
        }
        self.reason_len = reason.len();
        Ok(())
    }

    /// Sets the version to write: whoever passes a message on writes its own.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Adds a field at the end. Whitespace around the value is left off.
    ///
    /// # Errors
    /// `EmptyFieldName`, `FieldName` or `FieldValue` if it could not stand on a line, `HeadTooLarge` beyond [`HEAD_BYTES_MAX`].
    pub fn push(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(Refusal::EmptyFieldName);
        }
        if !is_token(name.as_bytes()) {
            return Err(Refusal::FieldName);
        }
        let value = trimmed(value);
        self.check_line(name, value, value.len())?;
        let name_start = self.bytes.len();
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.finish_line(Name::of_text(name.as_bytes()), name.len(), name_start, value.len());
        Ok(())
    }

    /// Adds a field of a known name at the end, in our spelling. Whitespace around the value is left off.
    ///
    /// # Errors
    /// As [`push`](Self::push); `EmptyFieldName` for `Other`.
    #[inline(always)] // the name, and often the length of the value, are constants to whoever calls it
    pub fn push_known(&mut self, name: Name, value: &[u8]) -> Result<(), Refusal> {
        if name == Name::Other {
            return Err(Refusal::EmptyFieldName);
        }
        let value = trimmed(value);
        if !is_text(value) {
            return Err(Refusal::FieldValue);
        }
        self.push_ours(name, value)
    }

    /// Adds a field of a known name at the end, whose value is ours: made of nothing but bytes that may stand on a line, with no
    /// whitespace around it.
    ///
    /// # Errors
    /// `HeadTooLarge` beyond [`HEAD_BYTES_MAX`].
    #[inline(always)] // as `push_known`
    pub(crate) fn push_ours(&mut self, name: Name, value: &[u8]) -> Result<(), Refusal> {
        debug_assert!(name != Name::Other && is_text(value) && trimmed(value) == value);
        self.check_size(name.spelling(), value.len())?;
        let name_start = self.begin_line(name, value.len());
        self.bytes.extend_from_slice(value);
        self.finish_line(name, name.spelling().len(), name_start, value.len());
        Ok(())
    }

    /// The same for a value of a known length.
    ///
    /// # Errors
    /// As [`push_ours`](Self::push_ours).
    #[inline(always)] // as `push_known`
    pub(crate) fn push_fixed<const N: usize>(&mut self, name: Name, value: &[u8; N]) -> Result<(), Refusal> {
        debug_assert!(name != Name::Other && is_text(value) && trimmed(value) == value);
        self.check_size(name.spelling(), N)?;
        // Put together where it costs nothing, so that the buffer grows once.
        let (name_start, beginning, mut line) = (self.bytes.len(), name.beginning().as_bytes(), [0; FIXED_LINE_MAX]);
        line[..beginning.len()].copy_from_slice(beginning);
        line[beginning.len()..][..N].copy_from_slice(value);
        line[beginning.len() + N..][..2].copy_from_slice(b"\r\n");
        self.bytes.extend_from_slice(&line[..beginning.len() + N + 2]);
        self.enter_line(name, name.spelling().len(), name_start, N);
        Ok(())
    }

    /// Replaces all fields of that name by one, at the end.
    ///
    /// # Errors
    /// As [`push_known`](Self::push_known); the old fields are gone then.
    #[inline(always)] // as `push_known`
    pub fn set(&mut self, name: Name, value: &[u8]) -> Result<(), Refusal> {
        self.remove(name);
        self.push_known(name, value)
    }

    /// Replaces all fields of a name by one, at the end, with the first value that another name has, or an empty one.
    ///
    /// # Errors
    /// As [`push_known`](Self::push_known); the old fields are gone then.
    pub fn set_as(&mut self, name: Name, other: Name) -> Result<(), Refusal> {
        let value = self.fields.iter().find(|entry| entry.known == other).map_or(0..0, |entry| entry.value());
        self.check_size(name.spelling(), value.len())?;
        self.remove(name);
        let name_start = self.begin_line(name, value.len());
        let value_len = value.len();
        self.bytes.extend_from_within(value);
        self.finish_line(name, name.spelling().len(), name_start, value_len);
        Ok(())
    }

    /// Adds an element to a list field: its values become one, joined by commas, with the element last, at the end.
    ///
    /// # Errors
    /// As [`push_known`](Self::push_known).
    pub fn append_to_list(&mut self, name: Name, element: &[u8]) -> Result<(), Refusal> {
        if !self.has(name) {
            return self.push_known(name, element);
        }
        let element = trimmed(element);
        let size: usize = self.values(name).map(|value| value.len() + 2).sum::<usize>() + element.len();
        self.check_line(name.spelling(), element, size)?;
        let name_start = self.begin_line(name, size);
        let value_start = self.bytes.len();
        for index in 0..self.fields.len() {
            let entry = self.fields[index];
            if entry.known == name && entry.value_len > 0 {
                self.bytes.extend_from_within(entry.value());
                self.bytes.extend_from_slice(b", ");
            }
        }
        self.bytes.extend_from_slice(element);
        self.remove(name);
        self.finish_line(name, name.spelling().len(), name_start, self.bytes.len() - value_start);
        Ok(())
    }

    /// Removes all fields of that name.
    pub fn remove(&mut self, name: Name) {
        self.remove_all(NameSet::of(&[name]));
    }

    /// Removes all fields of these names.
    pub fn remove_all(&mut self, names: NameSet) {
        if self.present.meets(names) {
            self.retain(|_, entry| !names.contains(entry.known));
            self.present = self.present.without(names);
            self.repeated = self.repeated.without(names);
        }
    }

    /// Removes the fields that `keep` does not want, which is told the bytes that they lie in.
    fn retain(&mut self, keep: impl Fn(&[u8], &Entry) -> bool) {
        self.fields.retain(|entry| keep(&self.bytes, entry));
        self.is_scattered = true;
    }

    /// Removes all fields of a name given as bytes, in any case.
    pub fn remove_named(&mut self, name: &[u8]) {
        match Name::of(name) {
            Name::Other => self
                .retain(|bytes, entry| entry.known != Name::Other || !bytes[entry.name()].eq_ignore_ascii_case(name)),
            known => self.remove(known),
        }
    }

    /// Removes the fields whose name becomes one that `is_meant` knows when each `_` in it is read as `-`: the two are one
    /// and the same to an app that finds them as variables of CGI.
    pub fn remove_lookalikes(&mut self, is_meant: impl Fn(Name, &[u8]) -> bool) {
        // A known name has no underscore, and few others have.
        let has_underscore = |bytes: &[u8], entry: &Entry| {
            entry.known == Name::Other && memchr::memchr(b'_', &bytes[entry.name()]).is_some()
        };
        if !self.fields.iter().any(|entry| has_underscore(&self.bytes, entry)) {
            return;
        }
        self.retain(|bytes, entry| {
            if !has_underscore(bytes, entry) {
                return true;
            }
            let name = bytes[entry.name()].iter();
            let meant: Vec<u8> = name.map(|&byte| if byte == b'_' { b'-' } else { byte }).collect();
            !is_meant(Name::of_text(&meant), &meant)
        });
    }

    /// Removes the fields that `Connection` lists, except those for which `keep` says otherwise, but not `Connection` itself.
    ///
    /// # Errors
    /// `TooManyOptions` beyond [`CONNECTION_OPTIONS_MAX`].
    pub fn remove_listed(&mut self, keep: impl Fn(Name, &[u8]) -> bool) -> Result<(), Refusal> {
        if !self.has(Name::Connection) {
            return Ok(());
        }
        if self.says_keep_alive() {
            if !keep(Name::KeepAlive, b"keep-alive") {
                self.remove(Name::KeepAlive);
            }
            return Ok(());
        }
        let mut known = NameSet::default();
        let (mut count, mut any_unknown) = (0, false);
        for option in self.values(Name::Connection).flat_map(tokens) {
            count += 1;
            match Name::of(option) {
                Name::Other => any_unknown |= !option.eq_ignore_ascii_case(b"close"), // reserved: no field is named so
                Name::Connection => {}
                name if keep(name, option) => {}
                name => known = known.and(NameSet::of(&[name])),
            }
        }
        if count > CONNECTION_OPTIONS_MAX {
            return Err(Refusal::TooManyOptions);
        }
        self.remove_all(known);
        if any_unknown {
            self.remove_listed_unknown(keep);
        }
        Ok(())
    }

    fn remove_listed_unknown(&mut self, keep: impl Fn(Name, &[u8]) -> bool) {
        let lists: Vec<Entry> = self.fields.iter().filter(|entry| entry.known == Name::Connection).copied().collect();
        let bytes = &self.bytes;
        let options = lists.iter().flat_map(|entry| tokens(&bytes[entry.value()]));
        let is_listed = |name: &[u8]| options.clone().any(|option| option.eq_ignore_ascii_case(name));
        self.is_scattered = true;
        self.fields.retain(|entry| {
            let name = &bytes[entry.name()];
            entry.known != Name::Other || !is_listed(name) || keep(Name::Other, name)
        });
    }

    /// Appends all field lines to `out`, runs of untouched lines in one copy.
    pub(super) fn write_fields(&self, out: &mut Vec<u8>) {
        let Some(first) = self.fields.first() else { return };
        if self.is_scattered {
            self.write_scattered(out)
        } else {
            out.extend_from_slice(&self.bytes[first.name_start as usize..])
        }
    }

    fn write_scattered(&self, out: &mut Vec<u8>) {
        let mut run = 0..0;
        for entry in &self.fields {
            let (start, value) = (entry.name_start as usize, entry.value());
            if !entry.is_plain {
                out.extend_from_slice(&self.bytes[run]);
                run = 0..0;
                out.extend_from_slice(&self.bytes[entry.name()]);
                out.extend_from_slice(b": ");
                out.extend_from_slice(&self.bytes[value]);
                out.extend_from_slice(b"\r\n");
            } else if start == run.end {
                run.end = value.end + 2;
            } else {
                out.extend_from_slice(&self.bytes[run]);
                run = start..value.end + 2;
            }
        }
        out.extend_from_slice(&self.bytes[run]);
    }

    /// At least as many bytes as it takes when written, give or take removed fields.
    pub fn size(&self) -> usize {
        self.start.len() + self.bytes.len() + 2 * self.fields.len() + 32
    }

    /// The request line up to the version.
    pub(super) fn request_line(&self) -> &[u8] {
        &self.start
    }

    /// The parser's door: a checked `METHOD target`.
    pub(super) fn put_request(&mut self, words: &[u8], method: Method, method_len: usize, version: Version) {
        self.start.clear();
        self.start.extend_from_slice(words);
        self.became_request(method, method_len, version);
    }

    fn became_request(&mut self, method: Method, method_len: usize, version: Version) {
        self.method_len = method_len;
        self.method = method;
        self.version = version;
        self.status = 0;
    }

    /// The parser's door to an empty head: a checked status line whose reason is the beginning of the block to come.
    pub(super) fn put_status(&mut self, status: u16, reason_len: usize, version: Version) {
        self.version = version;
        self.status = status;
        self.reason_len = reason_len;
    }

    /// The parser's door to an empty head: the checked bytes that its entries will point into.
    pub(super) fn put_block(&mut self, block: &[u8]) {
        self.bytes.extend_from_slice(block);
    }

    /// The parser's door: one more field of the block.
    #[inline]
    pub(super) fn put_entry(&mut self, entry: Entry) {
        let name = NameSet::of(&[entry.known]);
        self.repeated = self.repeated.and(self.present.common(name));
        self.present = self.present.and(name);
        self.is_scattered |= !entry.is_plain;
        self.fields.push(entry);
    }

    fn field(&self, entry: Entry) -> Field<'_> {
        Field { known: entry.known, name: &self.bytes[entry.name()], value: &self.bytes[entry.value()] }
    }

    fn is_named(&self, entry: Entry, known: Name, name: &[u8]) -> bool {
        entry.known == known && (known != Name::Other || self.bytes[entry.name()].eq_ignore_ascii_case(name))
    }

    /// Begins a line of a known name, with memory for all of it; returns where.
    #[inline(always)] // as `push_known`
    fn begin_line(&mut self, name: Name, value_len: usize) -> usize {
        let (start, beginning) = (self.bytes.len(), name.beginning());
        self.bytes.reserve(beginning.len() + value_len + 2);
        self.bytes.extend_from_slice(beginning.as_bytes());
        start
    }

    #[inline]
    fn check_line(&self, name: &str, value: &[u8], value_size: usize) -> Result<(), Refusal> {
        if !is_text(value) {
            return Err(Refusal::FieldValue);
        }
        self.check_size(name, value_size)
    }

    #[inline]
    fn check_size(&self, name: &str, value_size: usize) -> Result<(), Refusal> {
        if name.len() > usize::from(u16::MAX) || self.bytes.len() + name.len() + value_size + 4 > HEAD_BYTES_MAX {
            return Err(Refusal::HeadTooLarge);
        }
        Ok(())
    }

    /// Ends the line that was just written into the buffer and enters it. Offsets fit: `check_line` was here.
    #[inline(always)] // as `push_known`
    fn finish_line(&mut self, known: Name, name_len: usize, name_start: usize, value_len: usize) {
        self.bytes.extend_from_slice(b"\r\n");
        self.enter_line(known, name_len, name_start, value_len);
    }

    /// Enters the line that now ends the buffer.
    #[inline(always)] // as `push_known`
    fn enter_line(&mut self, known: Name, name_len: usize, name_start: usize, value_len: usize) {
        self.put_entry(Entry {
            name_start: name_start as u32,
            name_len: name_len as u16,
            known,
            is_plain: true,
            value_start: (name_start + name_len + 2) as u32,
            value_len: value_len as u32,
        });
    }
}

/// The elements of a comma-separated list, without whitespace around them and without empty ones.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    value.split(|byte| *byte == b',').map(trimmed).filter(|token| !token.is_empty())
}

/// Without spaces and tabs at both ends.
pub(super) fn trimmed(value: &[u8]) -> &[u8] {
    without_spaces_behind(without_spaces_before(value))
}

/// Without spaces and tabs at the beginning.
pub(super) fn without_spaces_before(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    value
}

/// Without spaces and tabs at the end.
#[inline]
pub(super) fn without_spaces_behind(mut value: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether all bytes may stand in a name or method (tchar of RFC 9110 section 5.6.2).
pub(super) fn is_token(name: &[u8]) -> bool {
    let rare = first(name, 0, reserved);
    name[rare..].iter().all(|byte| is_token_byte(*byte))
}

/// The same for one byte.
pub(super) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Whether all bytes may stand in a value or a reason: no control bytes but tab.
pub(super) fn is_text(value: &[u8]) -> bool {
    // No early exit, and blocks that overlap instead of a rest: this way it takes a few instructions for every block.
    fn are_clean(block: &[u8]) -> bool {
        block.iter().fold(true, |clean, &byte| clean & ((byte >= b' ') & (byte != 0x7f) | (byte == b'\t')))
    }
    match (value.first_chunk::<8>(), value.last_chunk::<8>(), value.last_chunk::<16>()) {
        (_, _, Some(last)) => {
            value.as_chunks::<16>().0.iter().fold(are_clean(last), |clean, block| clean & are_clean(block))
        }
        (Some(first), Some(last), None) => are_clean(first) & are_clean(last),
        _ => are_clean(value),
    }
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

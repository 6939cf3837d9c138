//! Follows the bytes of a body to its end, either as they are on the wire (to pass them on) or as data (to re-frame them).

use std::ops::Range;

use super::framing::{Framing, LENGTH_MAX};
use super::head::Head;
use super::name::{Name, NameSet};
use super::parse;
use super::refusal::Refusal;

/// Bytes of chunk extensions that one body may have. Nobody uses them; each chunk may have some.
pub const EXTENSION_BYTES_MAX: usize = 16 << 10;
/// A trailer section has fewer bytes than this.
pub const TRAILER_BYTES_MAX: usize = 16 << 10;
/// Lines that a trailer section may have.
pub const TRAILER_COUNT_MAX: usize = 64;

/// What a recipient that merges trailers into the head must not be told by them: framing, routing, identity, what the
/// router itself vouches for.
const FORBIDDEN_IN_TRAILERS: NameSet = NameSet::of(&[
    Name::Authorization,
    Name::B3,
    Name::CacheControl,
    Name::Connection,
    Name::ContentLength,
    Name::ContentType,
    Name::Cookie,
    Name::Expect,
    Name::Forwarded,
    Name::Host,
    Name::Http2Settings,
    Name::KeepAlive,
    Name::Location,
    Name::ProxyAuthenticate,
    Name::ProxyAuthorization,
    Name::ProxyConnection,
    Name::SetCookie,
    Name::Te,
    Name::Traceparent,
    Name::Tracestate,
    Name::Trailer,
    Name::TransferEncoding,
    Name::Upgrade,
    Name::Vary,
    Name::Via,
    Name::XB3Flags,
    Name::XB3ParentSpanId,
    Name::XB3Sampled,
    Name::XB3SpanId,
    Name::XB3TraceId,
    Name::XCfAppInstance,
    Name::XCfApplicationId,
    Name::XCfInstanceId,
    Name::XCfInstanceIndex,
    Name::XCfProcessInstance,
    Name::XForwardedClientCert,
    Name::XForwardedFor,
    Name::XForwardedHost,
    Name::XForwardedProto,
    Name::XRequestStart,
    Name::XVcapRequestId,
]);

/// The same for names that mean nothing to the router: what changes how a message is processed (RFC 9110 section 6.5.1).
const FORBIDDEN_TOO: &[&str] = &[
    "Content-Encoding",
    "Content-Range",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "If-Unmodified-Since",
    "Max-Forwards",
    "Range",
];

/// The connection closed before the body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection closed before the body ended")]
pub struct Truncated;

/// What [`Body::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// So many leading bytes of the input are done with.
    pub consumed: usize,
    /// Where in the input the data lies; may be empty.
    pub data: Range<usize>,
}

/// A body on its way.
#[derive(Debug)]
pub struct Body {
    state: State,
    data_bytes: u64,
    extension_bytes: usize,
    trailers: Option<Box<Trailers>>,
}

#[derive(Debug, Default)]
struct Trailers {
    section: Vec<u8>,
    head: Head,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    Length(u64),
    UntilClose,
    /// At the next digit of a chunk size.
    Size {
        size: u64,
        digits: u8,
    },
    /// In the extensions of a chunk of that size.
    Extension(u64),
    /// At the LF that ends a chunk's first line.
    SizeLineFeed(u64),
    Data(u64),
    DataReturn,
    DataLineFeed,
    /// At the first byte behind the last chunk's line.
    AfterLast,
    /// At the LF of the empty line that ends a body without trailers.
    LastLineFeed,
    Trailers,
}

const CHUNK: State = State::Size { size: 0, digits: 0 };

impl Body {
    /// A body that is about to begin.
    pub fn new(framing: Framing) -> Body {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => CHUNK,
            Framing::UntilClose => State::UntilClose,
        };
        Body { state, data_bytes: 0, extension_bytes: 0, trailers: None }
    }

    /// Whether it has ended; what follows on the connection is not part of it.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of data that have gone by: what is left of a body when its framing is taken off.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Whether the next byte is data, and not framing.
    pub fn is_in_data(&self) -> bool {
        matches!(self.state, State::Length(_) | State::Data(_) | State::UntilClose)
    }

    /// How many leading bytes of `input` belong to the body as framed on the wire. They are validated and may be passed
    /// on as they are. Fewer than all only when the body is done.
    ///
    /// # Errors
    /// The rule of chunked coding that is broken. Both connections are beyond repair then.
    pub fn relay(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        let mut at = 0;
        while at < input.len() && !self.is_done() {
            at += self.decode(&input[at..])?.consumed;
        }
        Ok(at)
    }

    /// The next run of data in `input`. Without data all of `input` was consumed, or the body is done.
    ///
    /// # Errors
    /// As [`relay`](Self::relay).
    pub fn decode(&mut self, input: &[u8]) -> Result<Piece, Refusal> {
        let mut at = 0;
        while at < input.len() {
            match self.state {
                State::Done => break,
                State::UntilClose => {
                    self.data_bytes += input.len() as u64;
                    return Ok(Piece { consumed: input.len(), data: 0..input.len() });
                }
                State::Length(left) => {
                    let (data, left) = take(at, input, left);
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    self.data_bytes += data.len() as u64;
                    return Ok(Piece { consumed: data.end, data });
                }
                State::Data(left) => {
                    let (data, left) = take(at, input, left);
                    self.state = if left == 0 { State::DataReturn } else { State::Data(left) };
                    self.data_bytes += data.len() as u64;
                    return Ok(Piece { consumed: data.end, data });
                }
                State::Trailers => at += self.collect_trailers(&input[at..])?,
                _ => {
                    self.state = self.next(input[at])?;
                    // The first byte of a trailer is looked at again there.
                    at += usize::from(self.state != State::Trailers);
                }
            }
        }
        Ok(Piece { consumed: at, data: at..at })
    }

    /// The sender has closed its side.
    ///
    /// # Errors
    /// `Truncated` if the framing had promised more.
    pub fn close(&mut self) -> Result<(), Truncated> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(Truncated),
        }
    }

    /// The trailers of a chunked body that is done, if it had any.
    pub fn trailers(&self) -> Option<&Head> {
        self.trailers.as_ref().filter(|_| self.is_done()).map(|trailers| &trailers.head)
    }

    /// Where one byte of chunk framing leads.
    fn next(&mut self, byte: u8) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::Size { digits: 0, .. }, b'\r' | b';') => Err(Refusal::ChunkSize),
            (State::Size { size, .. }, b'\r') => Ok(State::SizeLineFeed(size)),
            (State::Size { size, .. }, b';') => self.count_extension(size),
            (State::Size { size, digits }, byte) => {
                let digit = char::from(byte).to_digit(16).ok_or(Refusal::ChunkSize)?;
                if digits == 16 || size << 4 > LENGTH_MAX {
                    return Err(Refusal::ChunkTooLarge);
                }
                Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
            }
            (State::Extension(size), b'\r') => Ok(State::SizeLineFeed(size)),
            (State::Extension(size), b'\t' | b' '..=0x7e | 0x80..) => self.count_extension(size),
            (State::Extension(_), b'\n') => Err(Refusal::BareLineFeed),
            (State::Extension(_), _) => Err(Refusal::ChunkExtension),
            (State::SizeLineFeed(0), b'\n') => Ok(State::AfterLast),
            (State::SizeLineFeed(size), b'\n') => Ok(State::Data(size)),
            (State::DataReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(CHUNK),
            (State::DataReturn | State::DataLineFeed, _) => Err(Refusal::ChunkEnd),
            (State::AfterLast, b'\r') => Ok(State::LastLineFeed),
            (State::AfterLast, b'\n') => Err(Refusal::BareLineFeed),
            (State::AfterLast, _) => Ok(State::Trailers),
            (State::LastLineFeed, b'\n') => Ok(State::Done),
            (State::SizeLineFeed(_) | State::LastLineFeed, _) => Err(Refusal::BareCarriageReturn),
            (State::Done | State::Length(_) | State::UntilClose | State::Data(_) | State::Trailers, _) => {
                Ok(self.state)
            }
        }
    }

    fn count_extension(&mut self, size: u64) -> Result<State, Refusal> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(Refusal::ChunkExtensionsTooLarge);
        }
        Ok(State::Extension(size))
    }

    /// Keeps trailer lines until the empty one, then judges them together. Tells how many bytes it took.
    fn collect_trailers(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        let trailers = self.trailers.get_or_insert_default();
        let mut taken = 0;
        for line in input.split_inclusive(|byte| *byte == b'\n') {
            if trailers.section.len() + line.len() >= TRAILER_BYTES_MAX {
                return Err(Refusal::TrailersTooLarge);
            }
            trailers.section.extend_from_slice(line);
            taken += line.len();
            if trailers.section.ends_with(b"\n\r\n") || trailers.section.ends_with(b"\n\n") {
                parse::trailers(&trailers.section, &mut trailers.head)?;
                let meant_for_heads = |name: &&str| trailers.head.value_of(name).is_some();
                if trailers.head.names().meets(FORBIDDEN_IN_TRAILERS) || FORBIDDEN_TOO.iter().any(meant_for_heads) {
                    return Err(Refusal::ForbiddenTrailer);
                }
                self.state = State::Done;
                break;
            }
        }
        Ok(taken)
    }
}

/// As much of `left` as there is behind `at`, and how much is left then.
fn take(at: usize, input: &[u8], left: u64) -> (Range<usize>, u64) {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
    (at..at + length, left - length as u64)
}

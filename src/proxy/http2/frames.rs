//! Frames as they pass by (RFC 9113 section 4.1): their heads, the codes of those that end something, and what h2 would
//! refuse for another reason than the specification names.

use h2::Reason;

/// What a connection begins with, from the client's side.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEAD: usize = 9;
/// Bytes of a setting, and how many of a frame are looked at.
const SETTING: usize = 6;
const SETTINGS_SEEN: usize = 16;

/// Bytes in front of a header block at most, of padding and priority, and how many of the block are looked at.
const PADDING: usize = 1;
const PRIORITY: usize = 5;
const BLOCK_SEEN: usize = 8;

const SEEN_MAX: usize = HEAD + SETTING * SETTINGS_SEEN;

/// The setting of a stream's first window, and the largest.
const INITIAL_WINDOW: u16 = 4;
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    ResetStream,
    Settings,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// Unknown, or one that has no business here.
    Other,
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    flags: u8,
    pub(super) length: usize,
    pub(super) stream: u32,
    /// Why it ends something; 0 if it does not, or for no reason.
    pub(super) code: u32,
    /// It sets a window beyond the largest.
    oversets: bool,
    /// The first field of its header block has a name that begins with a colon.
    pub(super) is_pseudo: bool,
}

impl Kind {
    fn of(byte: u8) -> Kind {
        match byte {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::ResetStream,
            4 => Kind::Settings,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            _ => Kind::Other,
        }
    }
}

impl Frame {
    pub(super) const ACK: u8 = 0x1;
    pub(super) const END_STREAM: u8 = 0x1;
    pub(super) const END_HEADERS: u8 = 0x4;
    const PADDED: u8 = 0x8;
    const PRIORITIZED: u8 = 0x20;

    /// The frame that begins like this; `seen` is all of it that is looked at.
    fn read(seen: &[u8]) -> Frame {
        let word = |at: usize| u32::from_be_bytes([seen[at], seen[at + 1], seen[at + 2], seen[at + 3]]);
        let (length, kind, flags, stream) = (word(0) >> 8, Kind::of(seen[3]), seen[4], word(5) & 0x7fff_ffff);
        let code = match (kind, seen.len() - HEAD) {
            (Kind::ResetStream, 4) => word(HEAD),
            (Kind::GoAway, 8) => word(HEAD + 4),
            _ => 0,
        };
        let settings = if kind == Kind::Settings { &seen[HEAD..] } else { &[] };
        let oversets = settings.chunks_exact(SETTING).any(|setting| {
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            u16::from_be_bytes([setting[0], setting[1]]) == INITIAL_WINDOW && value > WINDOW_MAX
        });
        let mut frame = Frame { kind, flags, length: length as usize, stream, code, oversets, is_pseudo: false };
        if kind == Kind::Headers {
            let padding = if frame.is_flagged(Frame::PADDED) { PADDING } else { 0 };
            let priority = if frame.is_flagged(Frame::PRIORITIZED) { PRIORITY } else { 0 };
            frame.is_pseudo = begins_with_pseudo_field(seen.get(HEAD + padding + priority..).unwrap_or_default());
        }
        frame
    }

    pub(super) fn is_flagged(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Why nothing behind it can be trusted, if it has the wrong size (RFC 9113 sections 6.3 to 6.9) or sets a window that
    /// cannot be (section 6.5.2).
    pub(super) fn violation(&self) -> Option<Reason> {
        let fits = match self.kind {
            Kind::Priority => self.length == 5,
            Kind::ResetStream | Kind::WindowUpdate => self.length == 4,
            Kind::Settings if self.is_flagged(Frame::ACK) => self.length == 0,
            Kind::Settings => self.length.is_multiple_of(SETTING),
            Kind::Ping => self.length == 8,
            Kind::GoAway => self.length >= 8,
            Kind::Data | Kind::Headers | Kind::Continuation | Kind::Other => true,
        };
        match (fits, self.oversets) {
            (false, _) => Some(Reason::FRAME_SIZE_ERROR),
            (true, true) => Some(Reason::FLOW_CONTROL_ERROR),
            (true, false) => None,
        }
    }

    /// The name of the code (RFC 9113 section 7).
    pub(super) fn code_name(&self) -> &'static str {
        const NAMES: [&str; 14] = [
            "no_error",
            "protocol_error",
            "internal_error",
            "flow_control_error",
            "settings_timeout",
            "stream_closed",
            "frame_size_error",
            "refused_stream",
            "cancel",
            "compression_error",
            "connect_error",
            "enhance_your_calm",
            "inadequate_security",
            "http_1_1_required",
        ];
        NAMES.get(self.code as usize).unwrap_or(&"unknown")
    }
}

/// Follows the frames in a stream of bytes, however it is cut.
#[derive(Debug)]
pub(super) struct Frames {
    seen: [u8; SEEN_MAX],
    filled: usize,
    /// Bytes to pass by before the next frame begins.
    skip: usize,
}

impl Frames {
    pub(super) fn new() -> Frames {
        Frames { seen: [0; SEEN_MAX], filled: 0, skip: 0 }
    }

    /// Frames that follow the client's preface.
    pub(super) fn behind_preface() -> Frames {
        Frames { skip: PREFACE.len(), ..Frames::new() }
    }

    /// Tells of each frame in `bytes`. Where `tell` objects, all from that frame on is to be dropped, and nothing more fed:
    /// gives how many bytes go before it, and the objection.
    pub(super) fn feed<E>(
        &mut self,
        all: &[u8],
        mut tell: impl FnMut(Frame) -> Result<(), E>,
    ) -> Result<(), (usize, E)> {
        let (mut at, mut begun) = (0, 0);
        while at < all.len() {
            let rest = &all[at..];
            if self.skip > 0 {
                let passed = self.skip.min(rest.len());
                self.skip -= passed;
                at += passed;
                continue;
            }
            if self.filled == 0 {
                begun = at;
            }
            let (frame, seen) = if self.filled == 0 && wanted(rest) <= rest.len() {
                let seen = &rest[..wanted(rest)]; // as nearly always
                at += seen.len();
                (Frame::read(seen), seen.len())
            } else {
                let taken = (wanted(&self.seen[..self.filled]) - self.filled).min(rest.len());
                self.seen[self.filled..self.filled + taken].copy_from_slice(&rest[..taken]);
                self.filled += taken;
                at += taken;
                let seen = &self.seen[..self.filled];
                if seen.len() < wanted(seen) {
                    continue;
                }
                (Frame::read(seen), std::mem::take(&mut self.filled))
            };
            self.skip = HEAD + frame.length - seen;
            tell(frame).map_err(|objection| (begun, objection))?;
        }
        Ok(())
    }
}

/// How many bytes of a frame that begins like this are looked at, as far as can be known.
fn wanted(seen: &[u8]) -> usize {
    let Some(&[a, b, c, kind, ..]) = seen.first_chunk::<HEAD>() else { return HEAD };
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    HEAD + match Kind::of(kind) {
        Kind::Headers => length.min(PADDING + PRIORITY + BLOCK_SEEN),
        Kind::ResetStream => length.min(4),
        Kind::GoAway => length.min(8),
        Kind::Settings => length.min(SETTING * SETTINGS_SEEN),
        _ => 0,
    }
}

/// Whether the first field of a header block has a name that begins with a colon, as far as that can be told without the
/// table that its encoder and its decoder share (RFC 7541 section 6).
fn begins_with_pseudo_field(block: &[u8]) -> bool {
    // Those are the first entries of the table that never changes.
    const ENTRIES: std::ops::RangeInclusive<u8> = 1..=14;
    match *block {
        // A size for the table: more bytes follow if its first five bits are all set.
        [0x3f, _, 0x80..=0xff, _, ref rest @ ..] | [0x3f, 0x80..=0xff, _, ref rest @ ..] => {
            begins_with_pseudo_field(rest)
        }
        [0x3f, _, ref rest @ ..] | [0x20..=0x3e, ref rest @ ..] => begins_with_pseudo_field(rest),
        [field @ 0x80..=0xff, ..] => ENTRIES.contains(&(field & 0x7f)),
        [field @ 0x41..=0x7f, ..] => ENTRIES.contains(&(field & 0x3f)),
        [field @ (0x01..=0x0f | 0x11..=0x1f), ..] => ENTRIES.contains(&(field & 0x0f)),
        // A name in full, as it is or in Huffman's code, where a colon is seven bits.
        [0x40 | 0x00 | 0x10, 0x00..=0x7f, first, ..] => first == b':',
        [0x40 | 0x00 | 0x10, _, first, ..] => first >> 1 == 0x5c,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_seen_whatever_the_pieces_are_they_come_in() {
        let mut bytes = PREFACE.to_vec();
        bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]); // settings
        bytes.extend([0, 0, 3, 0, 1, 0, 0, 0, 3, b'a', b'b', b'c']); // the end of stream 3
        bytes.extend([0, 0, 4, 3, 0, 0x80, 0, 0, 5, 0, 0, 0, 8]); // a reset, with the reserved bit
        bytes.extend([0, 0, 10, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 11, b'n', b'o']); // a goodbye
        bytes.extend([0, 0, 0, 0x77, 0, 0, 0, 0, 1]); // who knows
        for size in 1..bytes.len() {
            let (mut frames, mut seen) = (Frames::behind_preface(), Vec::new());
            for piece in bytes.chunks(size) {
                let fed = frames.feed(piece, |frame| {
                    seen.push((frame.kind, frame.length, frame.stream, frame.code_name()));
                    frame.violation().map_or(Ok(()), Err)
                });
                assert_eq!(fed, Ok(()));
            }
            let expected = [
                (Kind::Settings, 6, 0, "no_error"),
                (Kind::Data, 3, 3, "no_error"),
                (Kind::ResetStream, 4, 5, "cancel"),
                (Kind::GoAway, 10, 0, "enhance_your_calm"),
                (Kind::Other, 0, 1, "no_error"),
            ];
            assert_eq!(seen, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_pseudo_field_is_known_in_every_form() {
        for pseudo in [
            &[0x83][..],                     // :method POST
            &[0x44, 0x01, b'/'],             // :path, kept
            &[0x04, 0x01, b'/'],             // :path, not kept
            &[0x14, 0x01, b'/'],             // :path, never kept
            &[0x00, 0x05, b':', b'p'],       // any name, as it is
            &[0x40, 0x84, 0xb9, 0x58],       // :path in the code of Huffman
            &[0x20, 0x83],                   // behind a size of the table
            &[0x3f, 0x01, 0x83],             // a larger one
            &[0x3f, 0xe1, 0x1f, 0x83],       // and a still larger one
            &[0x20, 0x3f, 0xe1, 0x1f, 0x83], // and two
        ] {
            assert!(begins_with_pseudo_field(pseudo), "{pseudo:x?}");
        }
        for other in [&[][..], &[0x8f], &[0xbe], &[0x7e, 1, b'x'], &[0x0f, 0], &[0x00, 1, b'x'], &[0x3f, 0xe1]] {
            assert!(!begins_with_pseudo_field(other), "{other:x?}");
        }
    }

    /// What `bytes` violate, and how many bytes of the last piece go before it, when they come in pieces of `size`.
    fn violated(bytes: &[u8], size: usize) -> Option<(usize, Reason)> {
        let mut frames = Frames::new();
        let object = |frame: Frame| frame.violation().map_or(Ok(()), Err);
        bytes.chunks(size).find_map(|piece| frames.feed(piece, object).err())
    }

    #[test]
    fn what_goes_before_a_violation_may_pass() {
        let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let short = [0, 0, 3, 8, 0, 0, 0, 0, 0, 1, 2, 3];
        let mut window = vec![0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];
        window.extend([0, 4, 0x80, 0, 0, 0]);
        assert_eq!(violated(&ping, 100), None);
        assert_eq!(violated(&[&ping[..], &short].concat(), 100), Some((17, Reason::FRAME_SIZE_ERROR)));
        assert_eq!(violated(&[&ping[..], &window].concat(), 100), Some((17, Reason::FLOW_CONTROL_ERROR)));
        assert_eq!(violated(&[&ping[..], &short].concat(), 20), Some((0, Reason::FRAME_SIZE_ERROR)));
        for size in 1..20 {
            assert!(violated(&short, size).is_some() && violated(&window, size).is_some(), "{size}");
        }
    }
}

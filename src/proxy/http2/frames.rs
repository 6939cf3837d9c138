//! Frames as they pass by (RFC 9113 section 4.1): their heads, and the codes of those that end something.

/// What a connection begins with, from the client's side.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEAD: usize = 9;
const SEEN_MAX: usize = HEAD + 8;

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
}

impl Frame {
    pub(super) const ACK: u8 = 0x1;
    pub(super) const END_STREAM: u8 = 0x1;

    pub(super) fn is_flagged(&self, flag: u8) -> bool {
        self.flags & flag != 0
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

    pub(super) fn feed(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len());
                self.skip -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = (self.wanted() - self.filled).min(bytes.len());
            self.seen[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled >= HEAD && self.filled == self.wanted() {
                let frame = self.frame();
                self.skip = HEAD + frame.length - self.filled;
                self.filled = 0;
                tell(frame);
            }
        }
    }

    /// How many bytes of the present frame are looked at, as far as can be known.
    fn wanted(&self) -> usize {
        if self.filled < HEAD {
            return HEAD;
        }
        match self.kind() {
            Kind::ResetStream => HEAD + self.length().min(4),
            Kind::GoAway => HEAD + self.length().min(8),
            _ => HEAD,
        }
    }

    fn length(&self) -> usize {
        u32::from_be_bytes([0, self.seen[0], self.seen[1], self.seen[2]]) as usize
    }

    fn kind(&self) -> Kind {
        match self.seen[3] {
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

    fn frame(&self) -> Frame {
        let word =
            |at: usize| u32::from_be_bytes([self.seen[at], self.seen[at + 1], self.seen[at + 2], self.seen[at + 3]]);
        let code = match self.filled - HEAD {
            4 => word(HEAD),
            8 => word(HEAD + 4),
            _ => 0,
        };
        Frame { kind: self.kind(), flags: self.seen[4], length: self.length(), stream: word(5) & 0x7fff_ffff, code }
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
                frames.feed(piece, |frame| seen.push((frame.kind, frame.length, frame.stream, frame.code_name())));
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
}

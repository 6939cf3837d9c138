//! The streams that a client opens, as its frames say: which of them it has ended, and which h2 has kept to itself.

use std::collections::VecDeque;

use h2::Reason;

use super::frames::{Frame, Kind};

/// Requests whose end is waited for, and such as h2 has not handed over, that are remembered. There are never as many, but
/// for streams that were reset here and whose client does not end them.
const REMEMBERED_MAX: usize = 1024;

/// What is known of a client's streams.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The last one.
    highest: u32,
    /// From here to the last one, none was left out, and none forgotten.
    known_from: u32,
    /// Those whose request goes on, lowest first.
    unended: VecDeque<u32>,
    /// Those that h2 has not handed over, lowest first.
    withheld: VecDeque<u32>,
    /// A header block goes on in the next frame.
    in_block: bool,
}

impl Ledger {
    /// Takes note of a frame from the client.
    ///
    /// # Errors
    /// A rule that it breaks at this time and that h2 would not notice, or call by another name. Either ends the connection:
    /// nobody sends such a frame by mistake.
    pub(super) fn came(&mut self, frame: &Frame) -> Result<(), Reason> {
        let has_block = matches!(frame.kind, Kind::Headers | Kind::Continuation);
        if std::mem::replace(&mut self.in_block, has_block && !frame.is_flagged(Frame::END_HEADERS)) {
            return Ok(()); // more of the block, or what h2 does not let pass
        }
        match frame.kind {
            Kind::Headers if frame.stream > self.highest => {
                self.open(frame);
                Ok(())
            }
            Kind::Data | Kind::Headers => self.goes_on(frame),
            Kind::ResetStream => {
                remove(&mut self.unended, frame.stream);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, frame: &Frame) {
        if frame.stream != self.highest + 2 {
            self.known_from = frame.stream;
        }
        self.highest = frame.stream;
        self.withheld.push_back(frame.stream);
        if self.withheld.len() > REMEMBERED_MAX {
            self.withheld.pop_front();
        }
        if !frame.is_flagged(Frame::END_STREAM) {
            self.unended.push_back(frame.stream);
            if self.unended.len() > REMEMBERED_MAX
                && let Some(forgotten) = self.unended.pop_front()
            {
                self.known_from = self.known_from.max(forgotten + 2);
            }
        }
    }

    /// More of a request. What comes behind its end, or behind its own reset, is on a closed stream (RFC 9113 section 5.1);
    /// what follows a body has no pseudo fields (section 8.1).
    fn goes_on(&mut self, frame: &Frame) -> Result<(), Reason> {
        if self.unended.binary_search(&frame.stream).is_err() {
            let was_open = (self.known_from..=self.highest).contains(&frame.stream) && frame.stream % 2 == 1;
            return if was_open { Err(Reason::STREAM_CLOSED) } else { Ok(()) };
        }
        if frame.kind == Kind::Headers && frame.is_pseudo {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if frame.is_flagged(Frame::END_STREAM) {
            remove(&mut self.unended, frame.stream);
        }
        Ok(())
    }

    /// A request has been handed over by h2.
    pub(super) fn handed_over(&mut self, stream: u32) {
        remove(&mut self.withheld, stream);
    }

    /// Whether a stream that is answered or reset is one that h2 has kept to itself.
    pub(super) fn settle(&mut self, stream: u32) -> bool {
        !self.withheld.is_empty() && remove(&mut self.withheld, stream)
    }

    /// All that h2 has kept to itself.
    pub(super) fn settle_all(&mut self) -> VecDeque<u32> {
        std::mem::take(&mut self.withheld)
    }
}

/// Whether it was there.
fn remove(sorted: &mut VecDeque<u32>, stream: u32) -> bool {
    if sorted.front() == Some(&stream) {
        return sorted.pop_front().is_some();
    }
    sorted.binary_search(&stream).is_ok_and(|at| sorted.remove(at).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::http2::frames::Frames;

    const GET: (u8, u8) = (1, 0x5);
    const POST: (u8, u8) = (1, 0x4);
    const BEGUN: (u8, u8) = (1, 0x1);
    const REST: (u8, u8) = (9, 0x4);
    const DATA: (u8, u8) = (0, 0);
    const END: (u8, u8) = (0, 1);
    const RESET: (u8, u8) = (3, 0);
    const WINDOW: (u8, u8) = (8, 0);

    /// Where the frames of these kinds and flags, on these streams, first break a rule, and which.
    fn broken(frames: &[((u8, u8), u32)]) -> Option<(usize, Reason)> {
        let mut ledger = Ledger::default();
        frames.iter().enumerate().find_map(|(nth, &((kind, flags), stream))| {
            let mut bytes = vec![0, 0, 4, kind, flags];
            bytes.extend(stream.to_be_bytes());
            bytes.extend([0, 0, 0, 1]);
            let mut came = Ok(());
            let fed = Frames::new().feed(&bytes, |frame| {
                came = ledger.came(&frame);
                Ok::<(), ()>(())
            });
            assert_eq!(fed, Ok(()));
            came.err().map(|reason| (nth, reason))
        })
    }

    #[test]
    fn a_request_goes_on_until_its_end_or_its_reset() {
        assert_eq!(broken(&[(POST, 1), (GET, 3), (DATA, 1), (END, 1), (RESET, 3), (WINDOW, 3), (RESET, 1)]), None);
        for behind in [DATA, END, POST, GET] {
            for end in [END, GET, RESET] {
                assert_eq!(broken(&[(POST, 1), (end, 1), (behind, 1)]), Some((2, Reason::STREAM_CLOSED)));
            }
            assert_eq!(broken(&[(GET, 1), (behind, 1)]), Some((1, Reason::STREAM_CLOSED)));
            assert_eq!(broken(&[(BEGUN, 1), (behind, 1)]), None, "h2 sees that the block does not go on");
            assert_eq!(broken(&[(BEGUN, 1), (REST, 1), (behind, 1)]), Some((2, Reason::STREAM_CLOSED)));
        }
    }

    #[test]
    fn a_stream_that_never_was_is_left_to_h2() {
        for frame in [DATA, RESET, WINDOW, GET] {
            assert_eq!(broken(&[(GET, 5), (frame, 3), (frame, 2), (frame, 7)]), None);
        }
        assert_eq!(broken(&[(GET, 3), (GET, 5), (GET, 3)]), Some((2, Reason::STREAM_CLOSED)));
    }

    #[test]
    fn what_was_forgotten_is_left_to_h2() {
        let opened = (0..).map(|nth| (POST, 2 * nth + 1)).take(REMEMBERED_MAX + 1);
        let frames: Vec<_> = opened.chain([(DATA, 1), (END, 3), (DATA, 3)]).collect();
        assert_eq!(broken(&frames), Some((REMEMBERED_MAX + 3, Reason::STREAM_CLOSED)));
    }

    #[test]
    fn what_h2_kept_to_itself_is_known() {
        let mut ledger = Ledger { withheld: VecDeque::from([1, 3, 5, 7]), ..Ledger::default() };
        ledger.handed_over(1);
        ledger.handed_over(5);
        assert!(ledger.settle(3) && !ledger.settle(3) && !ledger.settle(1));
        assert_eq!(ledger.settle_all(), [7]);
    }
}

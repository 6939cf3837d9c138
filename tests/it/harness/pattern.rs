//! A body of any length that can be checked at any offset without keeping it.

use std::sync::LazyLock;

/// Not a power of two, so that buffers of usual sizes never line up with it.
const PERIOD: usize = 65_521;

/// Two periods, so that any piece of up to one period is a slice of it.
static TWO_PERIODS: LazyLock<Vec<u8>> = LazyLock::new(|| (0..2 * PERIOD).map(|i| (i % PERIOD % 251) as u8).collect());

/// The bytes the pattern has from `offset` on, as many as are at hand and at most `length`.
pub fn piece(offset: u64, length: usize) -> &'static [u8] {
    let begin = (offset % PERIOD as u64) as usize;
    &TWO_PERIODS[begin..begin + length.min(PERIOD)]
}

/// The first `length` bytes.
pub fn bytes(length: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(length);
    while all.len() < length {
        all.extend_from_slice(piece(all.len() as u64, length - all.len()));
    }
    all
}

/// Whether `bytes` are what the pattern has at `offset`.
pub fn matches(offset: u64, bytes: &[u8]) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        let expected = piece(offset + at as u64, bytes.len() - at);
        if bytes[at..at + expected.len()] != *expected {
            return false;
        }
        at += expected.len();
    }
    true
}

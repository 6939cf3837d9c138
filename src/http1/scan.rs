//! Finds the first byte of some kind in a text, sixteen bytes at a time.

use wide::u8x16;

const LANES: usize = 16;

/// Where the first byte at or after `at` is that `marks` sets all bits of; the end if there is none.
#[inline(always)] // the kinds are constants to whoever calls it
pub(super) fn first(text: &[u8], mut at: usize, marks: impl Fn(u8x16) -> u8x16) -> usize {
    while let Some(block) = text[at..].first_chunk() {
        let marked = marks(u8x16::new(*block)).to_bitmask();
        if marked != 0 {
            return at + marked.trailing_zeros() as usize;
        }
        at += LANES;
    }
    let left = text.len() - at;
    let marked = match text.last_chunk() {
        Some(last) => marks(u8x16::new(*last)).to_bitmask() >> (LANES - left),
        None => marks(u8x16::new(padded(text))).to_bitmask() >> at,
    };
    at + (marked | 1 << left).trailing_zeros() as usize
}

/// A text shorter than a block, with zeros behind it: made of two words that may overlap, if it is long enough.
fn padded(text: &[u8]) -> [u8; LANES] {
    let (low, high) = match (text.first_chunk(), text.last_chunk()) {
        (Some(first), Some(last)) => {
            let unused = 8 * (LANES - 1 - text.len());
            (u64::from_le_bytes(*first), u64::from_le_bytes(*last) >> unused >> 8)
        }
        _ => (text.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0),
    };
    (u128::from(low) | u128::from(high) << 64).to_le_bytes()
}

/// Marks the bytes below `limit`.
#[inline(always)] // as `first`
pub(super) fn below(bytes: u8x16, limit: u8) -> u8x16 {
    bytes.min(u8x16::splat(limit - 1)).simd_eq(bytes)
}

/// Marks the bytes that are `limit` or more.
#[inline(always)] // as `first`
pub(super) fn at_least(bytes: u8x16, limit: u8) -> u8x16 {
    bytes.max(u8x16::splat(limit)).simd_eq(bytes)
}

/// Marks the bytes that are this one.
#[inline(always)] // as `first`
pub(super) fn same(bytes: u8x16, byte: u8) -> u8x16 {
    bytes.simd_eq(u8x16::splat(byte))
}

/// Marks what may stand in no value and no reason: control bytes but tab.
#[inline(always)] // as `first`
pub(super) fn control(bytes: u8x16) -> u8x16 {
    below(bytes, b' ') & !same(bytes, b'\t') | same(bytes, DEL)
}

/// Marks what is not unreserved in RFC 3986: all but ASCII letters and digits, `-`, `.`, `_` and `~`.
#[inline(always)] // as `first`
pub(super) fn reserved(bytes: u8x16) -> u8x16 {
    let letter = below((bytes | u8x16::splat(0x20)) - u8x16::splat(b'a'), 26);
    let digit = below(bytes - u8x16::splat(b'0'), 10);
    let other = same(bytes, b'-') | same(bytes, b'.') | same(bytes, b'_') | same(bytes, b'~');
    !(letter | digit | other)
}

pub(super) const DEL: u8 = 0x7f;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_control(byte: u8) -> bool {
        byte < b' ' && byte != b'\t' || byte == DEL
    }

    fn is_reserved(byte: u8) -> bool {
        !(byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    }

    proptest! {
        #[test]
        fn the_first_is_found_wherever_it_is(text in "[a-z]{0,40}:?[a-z]{0,40}:?[a-z]{0,9}", at in 0_usize..100) {
            let at = at.min(text.len());
            let expected = text[at..].find(':').map_or(text.len(), |index| at + index);
            prop_assert_eq!(first(text.as_bytes(), at, |bytes| same(bytes, b':')), expected);
        }

        #[test]
        fn every_byte_is_what_it_is_wherever_it_is(byte: u8, before in 0_usize..20, behind in 0_usize..20) {
            let text = [vec![b'x'; before], vec![byte], vec![b'x'; behind]].concat();
            let found = |marks: fn(u8x16) -> u8x16| first(&text, 0, marks) == before;
            prop_assert_eq!(found(control), is_control(byte));
            prop_assert_eq!(found(reserved), is_reserved(byte));
            prop_assert_eq!(found(|bytes| below(bytes, b'!')), byte < b'!');
            prop_assert_eq!(found(|bytes| at_least(bytes, b'y')), byte >= b'y');
        }
    }
}

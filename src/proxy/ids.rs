//! Ids and times as text. Every request has some, so their digits are made eight at a time.

/// A number as sixteen hexadecimal digits, the highest first.
pub fn hex(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    digits[..8].copy_from_slice(&eight_digits((number >> 32) as u32));
    digits[8..].copy_from_slice(&eight_digits(number as u32));
    digits
}

fn eight_digits(number: u32) -> [u8; 8] {
    // Each nibble gets a byte of its own, in three steps that halve the distance.
    let mut nibbles = u64::from(number);
    nibbles = (nibbles << 16 | nibbles) & 0x0000_ffff_0000_ffff;
    nibbles = (nibbles << 8 | nibbles) & 0x00ff_00ff_00ff_00ff;
    nibbles = (nibbles << 4 | nibbles) & 0x0f0f_0f0f_0f0f_0f0f;
    // Adding 6 carries into the high half of just those bytes that are 10 or more: they become letters.
    let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (nibbles + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

/// Milliseconds of the Unix epoch in decimal: thirteen digits, as they are from 2001 to 2286. What is beyond is cut.
pub fn millis(number: u64) -> [u8; 13] {
    let mut digits = [0; 13];
    let number = number % 10_000_000_000_000;
    digits[..5].copy_from_slice(&eight_decimals((number / 100_000_000) as u32)[3..]);
    digits[5..].copy_from_slice(&eight_decimals((number % 100_000_000) as u32));
    digits
}

/// The digits of a number below a hundred million.
fn eight_decimals(number: u32) -> [u8; 8] {
    // Halves, quarters and eighths of the text side by side in one word, the first digits lowest; divisions are
    // multiplications that are exact for what fits.
    let fours = u64::from(number / 10_000) | u64::from(number % 10_000) << 32;
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | (fours - hundreds * 100) << 16;
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    let ones = tens | (twos - tens * 10) << 8;
    (ones + 0x3030_3030_3030_3030).to_le_bytes()
}

/// A UUID of version 4 (RFC 9562) in its usual form, from random bits.
pub fn uuid(random: [u64; 2]) -> [u8; 36] {
    let high = hex(random[0] & !0xf000 | 0x4000);
    let low = hex(random[1] >> 2 | 1 << 63);
    let mut text = [b'-'; 36];
    text[..8].copy_from_slice(&high[..8]);
    text[9..13].copy_from_slice(&high[8..12]);
    text[14..18].copy_from_slice(&high[12..]);
    text[19..23].copy_from_slice(&low[..4]);
    text[24..].copy_from_slice(&low[4..]);
    text
}

/// The digits of a UUID without its hyphens.
pub fn digits(uuid: &[u8; 36]) -> [u8; 32] {
    let mut digits = [0; 32];
    digits[..8].copy_from_slice(&uuid[..8]);
    digits[8..12].copy_from_slice(&uuid[9..13]);
    digits[12..16].copy_from_slice(&uuid[14..18]);
    digits[16..20].copy_from_slice(&uuid[19..23]);
    digits[20..].copy_from_slice(&uuid[24..]);
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn digits_are_those_of_the_standard_library(number: u64) {
            prop_assert_eq!(format!("{number:016x}").into_bytes(), hex(number));
        }

        #[test]
        fn milliseconds_have_thirteen_digits(number in 0..10_000_000_000_000_u64) {
            prop_assert_eq!(format!("{number:013}").into_bytes(), millis(number));
        }

        #[test]
        fn ids_are_valid_and_keep_their_digits(random: [u64; 2]) {
            let id = uuid(random);
            let text = std::str::from_utf8(&id).expect("an id is ASCII");
            let parsed = uuid::Uuid::parse_str(text).expect("an id is a UUID");
            prop_assert_eq!(parsed.get_version_num(), 4);
            prop_assert_eq!(parsed.get_variant(), uuid::Variant::RFC4122);
            prop_assert_eq!(&parsed.hyphenated().to_string(), text);
            prop_assert_eq!(parsed.simple().to_string().into_bytes(), digits(&id));
        }
    }
}

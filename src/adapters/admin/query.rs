//! The part of a URL behind the question mark, read and written.

/// The pairs of a query, decoded. What is encoded wrongly stays as it is.
pub(super) fn parse(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let split = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    split.map(|(key, value)| (decode(key), decode(value))).collect()
}

/// A value as it was before it was encoded; what is encoded wrongly stays as it is.
pub(super) fn decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |n: usize| after.get(n).and_then(|byte| char::from(*byte).to_digit(16));
        (rest, _) = match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => (&after[2..], decoded.push((high * 16 + low) as u8)),
            (b'+', ..) => (after, decoded.push(b' ')),
            (byte, ..) => (after, decoded.push(*byte)),
        };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A value made fit for a query.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                encoded.push(byte.into())
            }
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_pairs() {
        let pairs = parse("host=a.test&path=%2Fx%20y+z&&flag&odd=%zz%4");
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("host", "a.test"), ("path", "/x y z"), ("flag", ""), ("odd", "%zz%4")]);
        assert_eq!(parse(""), []);
    }

    proptest::proptest! {
        #[test]
        fn what_was_encoded_is_decoded(value in ".*") {
            let expected = [("v".to_owned(), value.clone())];
            proptest::prop_assert_eq!(parse(&format!("v={}", encode(&value))), expected);
        }
    }
}

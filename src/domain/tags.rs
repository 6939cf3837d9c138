//! Tags of an instance: a small map from text to text, packed into one piece of memory because there are so many of them.

use std::fmt;
use std::sync::Arc;

/// Free labels as sent, in order of their keys. Cloning is cheap.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Tags(Option<Arc<Packed>>);

#[derive(PartialEq, Eq, Hash)]
struct Packed {
    /// Key, value, key, value, …
    text: Box<str>,
    /// Where each of them ends in `text`.
    ends: Box<[u32]>,
}

impl Tags {
    /// Packs pairs in any order; of two pairs with the same key the later one counts.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Tags {
        let sorted: std::collections::BTreeMap<&str, &str> = pairs.into_iter().collect();
        if sorted.is_empty() {
            return Tags::default();
        }
        let mut text = String::with_capacity(sorted.iter().map(|(key, value)| key.len() + value.len()).sum());
        let mut ends = Vec::with_capacity(2 * sorted.len());
        for (key, value) in sorted {
            for part in [key, value] {
                text.push_str(part);
                // Messages are limited to far less than 4 GiB.
                ends.push(text.len() as u32);
            }
        }
        Tags(Some(Arc::new(Packed { text: text.into(), ends: ends.into() })))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// All pairs in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let (text, ends) = self.0.as_ref().map_or(("", &[][..]), |packed| (&*packed.text, &*packed.ends));
        let mut start = 0;
        ends.chunks_exact(2).map(move |pair| {
            let (key_end, value_end) = (pair[0] as usize, pair[1] as usize);
            let found = (&text[start..key_end], &text[key_end..value_end]);
            start = value_end;
            found
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |packed| packed.ends.len() / 2)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_by_key_and_listed_in_order() {
        let tags = Tags::new([("zebra", "z"), ("component", "app"), ("empty", "")]);
        assert_eq!(tags.get("component"), Some("app"));
        assert_eq!(tags.get("empty"), Some(""));
        assert_eq!(tags.get("comp"), None);
        assert_eq!(tags.iter().collect::<Vec<_>>(), [("component", "app"), ("empty", ""), ("zebra", "z")]);
        assert_eq!(tags.len(), 3);
        assert!(Tags::new([]).is_empty());
        assert_eq!(Tags::new([("a", "1"), ("a", "2")]), Tags::new([("a", "2")]));
        assert_ne!(Tags::new([("a", "bc")]), Tags::new([("ab", "c")]));
    }
}

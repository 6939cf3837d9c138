//! Tags of an instance: a small map from text to text, packed into one piece of memory because there are so many of them.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use arcstr::ArcStr;

/// Free labels as sent, in order of their keys. Cloning is cheap.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Tags(
    /// Key, value, key, value, …, each behind its length in bytes and a colon. `None` for no tags.
    Option<ArcStr>,
);

impl Tags {
    /// Packs pairs in any order; of two pairs with the same key the later one counts.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Tags {
        let sorted: BTreeMap<&str, &str> = pairs.into_iter().collect();
        let length = |(key, value): (&&str, &&str)| key.len() + value.len() + 8;
        let mut packed = String::with_capacity(sorted.iter().map(length).sum());
        for part in sorted.into_iter().flat_map(|(key, value)| [key, value]) {
            write!(packed, "{}:{part}", part.len()).expect("writing to a string does not fail");
        }
        Tags((!packed.is_empty()).then(|| packed.into()))
    }

    /// The same tags, with their text taken from `keep`, which gives an equal one.
    pub(super) fn kept(&self, keep: impl FnOnce(&ArcStr) -> ArcStr) -> Tags {
        Tags(self.0.as_ref().map(keep))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// All pairs in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = self.0.as_deref().unwrap_or_default();
        let mut part = move || {
            let (length, after) = rest.split_once(':')?;
            let (part, after) = after.split_at_checked(length.parse().ok()?)?;
            rest = after;
            Some(part)
        };
        std::iter::from_fn(move || Some((part()?, part()?)))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.iter().count()
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
        let tags = Tags::new([("zebra", "z"), ("component", "app"), ("empty", ""), ("12:x", "ü:")]);
        assert_eq!(tags.get("component"), Some("app"));
        assert_eq!(tags.get("empty"), Some(""));
        assert_eq!(tags.get("comp"), None);
        assert_eq!(
            tags.iter().collect::<Vec<_>>(),
            [("12:x", "ü:"), ("component", "app"), ("empty", ""), ("zebra", "z")]
        );
        assert_eq!(tags.len(), 4);
        assert!(Tags::new([]).is_empty());
        assert_eq!(Tags::new([("a", "1"), ("a", "2")]), Tags::new([("a", "2")]));
        assert_ne!(Tags::new([("a", "bc")]), Tags::new([("ab", "c")]));
    }
}

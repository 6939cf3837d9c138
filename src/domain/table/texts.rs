//! Texts that many instances have in common (their app, host, zone, tags), kept once.

use std::hash::BuildHasher;

use arcstr::ArcStr;
use hashbrown::HashTable;

use crate::domain::hash::Keyed;

/// All such texts. Those that nobody has any more are forgotten now and then.
#[derive(Debug)]
pub(super) struct Texts {
    hasher: Keyed,
    known: HashTable<ArcStr>,
    /// So many that it is time to look who is still needed.
    swept_at: usize,
}

/// While there are fewer, nobody is forgotten.
const SWEPT_FROM: usize = 1024;

impl Texts {
    pub(super) fn new(hasher: Keyed) -> Texts {
        Texts { hasher, known: HashTable::new(), swept_at: SWEPT_FROM }
    }

    /// The same text, perhaps in memory that others have as well.
    pub(super) fn keep(&mut self, text: &ArcStr) -> ArcStr {
        if text.is_empty() {
            return ArcStr::new();
        }
        let hash = self.hasher.hash_one(&**text);
        if let Some(known) = self.known.find(hash, |known| known == text) {
            return known.clone();
        }
        if self.known.len() >= self.swept_at {
            self.known.retain(|known| ArcStr::strong_count(known) != Some(1));
            // Twice as many: each text is looked at a few times in its life, however many there are.
            self.swept_at = (2 * self.known.len()).max(SWEPT_FROM);
        }
        let hasher = &self.hasher;
        self.known.insert_unique(hash, text.clone(), |known| hasher.hash_one(&**known));
        text.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_kept_once_while_somebody_has_them() {
        let mut texts = Texts::new(Keyed::new(1));
        let first = texts.keep(&"z1".into());
        assert!(ArcStr::ptr_eq(&first, &texts.keep(&"z1".into())));
        assert!(!ArcStr::ptr_eq(&first, &texts.keep(&"z2".into())));
        for n in 0..3 * SWEPT_FROM {
            texts.keep(&n.to_string().into());
        }
        assert!(texts.known.len() <= SWEPT_FROM, "{} are kept for nobody", texts.known.len());
        assert!(ArcStr::ptr_eq(&first, &texts.keep(&"z1".into())));
    }
}

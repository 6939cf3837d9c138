//! How the table finds its entries by what they are called.

use hashbrown::HashTable;

/// Numbers of entries by the hash of a key. The key is kept by the entry alone: whoever asks compares it there. Several
/// entries may have the same key.
#[derive(Debug, Default)]
pub(super) struct Join {
    entries: HashTable<Hashed>,
}

#[derive(Debug, PartialEq, Eq)]
struct Hashed {
    /// Half of the hash: so nobody else has to be looked at, neither in a search nor when the table grows.
    hash: u32,
    no: u32,
}

impl Join {
    /// The numbers of those whose keys have this hash, which nearly always means: this key.
    pub(super) fn with(&self, hash: u64) -> impl Iterator<Item = u32> {
        let hash = half(hash);
        self.entries.iter_hash(spread(hash)).filter(move |entry| entry.hash == hash).map(|entry| entry.no)
    }

    /// Adds a number, which must not be there for this key already.
    pub(super) fn insert(&mut self, hash: u64, no: u32) {
        let hash = half(hash);
        self.entries.insert_unique(spread(hash), Hashed { hash, no }, |entry| spread(entry.hash));
    }

    /// Takes a number out, if it is there for this key.
    pub(super) fn remove(&mut self, hash: u64, no: u32) {
        let hash = half(hash);
        if let Ok(found) = self.entries.find_entry(spread(hash), |entry| *entry == Hashed { hash, no }) {
            found.remove();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

fn half(hash: u64) -> u32 {
    hash as u32
}

/// The hash table looks at bits of both ends of 64.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_the_hash_of_their_key() {
        let mut join = Join::default();
        let numbers = |join: &Join, hash| {
            let mut found: Vec<u32> = join.with(hash).collect();
            found.sort_unstable();
            found
        };
        (0..1000).for_each(|no| join.insert(u64::from(no / 2) << 8, no));
        assert_eq!(numbers(&join, 7 << 8), [14, 15]);
        join.remove(7 << 8, 14);
        join.remove(8 << 8, 14);
        assert_eq!((numbers(&join, 7 << 8), numbers(&join, 8 << 8), join.len()), (vec![15], vec![16, 17], 999));
        assert!(numbers(&join, 1).is_empty());
    }
}

//! How the table finds its entries by what they are called.
//!
//! A search costs what it reads from memory, so a bucket is one line of the cache with all that a search wants to see: half
//! of each entry's hash, and its number. What does not fit goes to the next bucket with room (linear probing by buckets).

use std::iter;

/// Numbers of entries by the hash of a key. The key is kept by the entry alone: whoever asks compares it there. Several
/// entries may have the same key; very many of them make searches in the same part longer (12 µs beside 50,000).
#[derive(Debug)]
pub(super) struct Join {
    /// By the first bits of the hash. Each grows on its own, so no growth is long, nor doubles the memory of all.
    parts: Box<[Part]>,
}

const PARTS_BITS: u32 = 8;

impl Default for Join {
    fn default() -> Join {
        Join { parts: iter::repeat_with(Part::default).take(1 << PARTS_BITS).collect() }
    }
}

impl Join {
    /// The numbers of those whose keys have this hash, which nearly always means: this key.
    pub(super) fn with(&self, hash: u64) -> impl Iterator<Item = u32> {
        let hash = half(hash);
        self.parts[part(hash)].with(hash)
    }

    /// Adds a number, which must not be there for this key already.
    pub(super) fn insert(&mut self, hash: u64, no: u32) {
        let hash = half(hash);
        self.parts[part(hash)].insert(hash, no);
    }

    /// Takes a number out, if it is there for this key.
    pub(super) fn remove(&mut self, hash: u64, no: u32) {
        let hash = half(hash);
        self.parts[part(hash)].remove(hash, no);
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len).sum()
    }
}

/// So much of a hash is kept that nearly nobody else has to be looked at, neither in a search nor when a part grows.
fn half(hash: u64) -> u32 {
    hash as u32
}

fn part(hash: u32) -> usize {
    (hash >> (u32::BITS - PARTS_BITS)) as usize
}

#[derive(Debug, Default)]
struct Part {
    buckets: Vec<Bucket>,
    len: usize,
}

impl Part {
    /// Where the search for a hash begins, if there are any buckets: the bits after the part's, scaled.
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash << PARTS_BITS) * self.buckets.len() as u64) >> u32::BITS) as usize
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() { 0 } else { at + 1 }
    }

    /// How many buckets behind another one a bucket is.
    fn behind(&self, at: usize, other: usize) -> usize {
        if at >= other { at - other } else { at + self.buckets.len() - other }
    }

    fn with(&self, hash: u32) -> impl Iterator<Item = u32> {
        let first = if self.buckets.is_empty() { None } else { Some(self.home(hash)) };
        // Somewhere there is one with room.
        let buckets = iter::successors(first, |at| self.buckets[*at].is_full().then(|| self.next(*at)));
        buckets.flat_map(move |at| self.buckets[at].with(hash).map(move |slot| self.buckets[at].numbers[slot]))
    }

    fn insert(&mut self, hash: u32, no: u32) {
        // Four fifths full at most: a search that finds somebody looks at 1.1 buckets, one in vain at 1.8.
        if (self.len + 1) * 5 > self.buckets.len() * SLOTS * 4 {
            self.grow();
        }
        self.len += 1;
        self.put(self.home(hash), hash, no);
    }

    /// Puts an entry into the first bucket with room, and says which: those from its home up to `at` have none.
    fn put(&mut self, mut at: usize, hash: u32, no: u32) -> usize {
        while self.buckets[at].is_full() {
            at = self.next(at);
        }
        self.buckets[at].push(hash, no);
        at
    }

    /// By a quarter of a power of two, as sizes of memory go; where blocks are aligned, a bucket's worth less fits into one.
    fn grow(&mut self) {
        let len = self.buckets.len();
        let more = ((1 << (len + 1).ilog2()) / 4).max(1);
        let before = std::mem::replace(&mut self.buckets, vec![Bucket::EMPTY; len + more]);
        let mut last = None;
        for (hash, no) in before.iter().flat_map(Bucket::entries) {
            // Thousands may share a hash: the instances of one app.
            let from = last.filter(|(of, _)| *of == hash).map_or_else(|| self.home(hash), |(_, at)| at);
            last = Some((hash, self.put(from, hash, no)));
        }
    }

    fn remove(&mut self, hash: u32, no: u32) {
        if self.buckets.is_empty() {
            return;
        }
        let mut at = self.home(hash);
        let slot = loop {
            let bucket = &self.buckets[at];
            if let Some(slot) = bucket.with(hash).find(|slot| bucket.numbers[*slot] == no) {
                break slot;
            }
            if !bucket.is_full() {
                return;
            }
            at = self.next(at);
        };
        self.len -= 1;
        let mut has_more = self.buckets[at].is_full();
        self.buckets[at].remove(slot);
        // A bucket with room ends searches: who had found none there comes back, and leaves room in turn.
        let mut from = at;
        while has_more {
            from = self.next(from);
            has_more = self.buckets[from].is_full();
            let belongs = |hash: u32| self.behind(from, self.home(hash)) >= self.behind(from, at);
            let Some(slot) = self.buckets[from].entries().position(|(hash, _)| belongs(hash)) else { continue };
            let (hash, no) = self.buckets[from].remove(slot);
            self.buckets[at].push(hash, no);
            at = from;
        }
    }
}

const SLOTS: usize = 8;

/// No entry has this number: as many do not fit into memory.
const NOBODY: u32 = u32::MAX;

/// One line of the cache. Its entries come first, then empty slots.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Bucket {
    hashes: [u32; SLOTS],
    numbers: [u32; SLOTS],
}

impl Bucket {
    const EMPTY: Bucket = Bucket { hashes: [0; SLOTS], numbers: [NOBODY; SLOTS] };

    fn is_full(&self) -> bool {
        self.numbers[SLOTS - 1] != NOBODY
    }

    fn len(&self) -> usize {
        self.numbers.iter().position(|no| *no == NOBODY).unwrap_or(SLOTS)
    }

    fn entries(&self) -> impl Iterator<Item = (u32, u32)> {
        iter::zip(self.hashes, self.numbers).take_while(|(_, no)| *no != NOBODY)
    }

    /// The slots of those with this hash.
    fn with(&self, hash: u32) -> impl Iterator<Item = usize> {
        // All at once, without a branch for each.
        let is_it = |slot: usize| self.hashes[slot] == hash && self.numbers[slot] != NOBODY;
        let mut found = (0..SLOTS).fold(0_u32, |found, slot| found | (u32::from(is_it(slot)) << slot));
        iter::from_fn(move || {
            let slot = (found != 0).then(|| found.trailing_zeros() as usize)?;
            found &= found - 1;
            Some(slot)
        })
    }

    /// There must be room.
    fn push(&mut self, hash: u32, no: u32) {
        let slot = self.len();
        (self.hashes[slot], self.numbers[slot]) = (hash, no);
    }

    fn remove(&mut self, slot: usize) -> (u32, u32) {
        let removed = (self.hashes[slot], self.numbers[slot]);
        let last = self.len() - 1;
        (self.hashes[slot], self.numbers[slot]) = (self.hashes[last], self.numbers[last]);
        (self.hashes[last], self.numbers[last]) = (0, NOBODY);
        removed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::dice::Dice;

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

    /// Many under few hashes, so that buckets overflow, around the end of a part, too.
    #[test]
    fn what_comes_and_goes_is_found_while_it_is_there() {
        let mut dice = Dice::seeded(11);
        let mut join = Join::default();
        let mut known: BTreeSet<(u64, u32)> = BTreeSet::new();
        let hashes: Vec<u64> =
            (0..60).map(|_| 0x7fff_ffff - dice.below(1 << 23) as u64 * 2).chain([0x7f00_0000]).collect();
        for round in 0..20_000 {
            let entry = (hashes[dice.below(hashes.len())], dice.below(40) as u32);
            // It fills up, and empties again.
            let is_to_be_there = dice.below(20_000) > round;
            match (is_to_be_there, known.contains(&entry)) {
                (true, false) => join.insert(entry.0, entry.1),
                (false, _) => join.remove(entry.0, entry.1),
                (true, true) => continue,
            }
            if is_to_be_there {
                known.insert(entry)
            } else {
                known.remove(&entry)
            };
            assert_eq!(join.len(), known.len());
            let hash = hashes[dice.below(hashes.len())];
            let mut found: Vec<u32> = join.with(hash).collect();
            found.sort_unstable();
            let expected: Vec<u32> = known.range((hash, 0)..=(hash, u32::MAX)).map(|(_, no)| *no).collect();
            assert_eq!(found, expected);
        }
    }
}

//! Numbered entries: small numbers stand for instances and routes wherever the table refers to them.

use std::ops::{Index, IndexMut};

/// Entries by number. The number of an entry that was removed is given to another one later.
#[derive(Debug)]
pub(super) struct Slab<T> {
    /// Pieces of one size: a slab that grows moves nobody, and has little room to spare.
    pieces: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
}

/// Entries of a piece.
const PIECE: usize = 1024;

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { pieces: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, entry: T) -> u32 {
        if let Some(no) = self.free.pop() {
            *self.place(no).expect("it was an entry's") = Some(entry);
            return no;
        }
        let no = self.bound();
        if (no as usize).is_multiple_of(PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        self.pieces[no as usize / PIECE].push(Some(entry));
        no
    }

    fn place(&mut self, no: u32) -> Option<&mut Option<T>> {
        self.pieces.get_mut(no as usize / PIECE)?.get_mut(no as usize % PIECE)
    }

    pub(super) fn remove(&mut self, no: u32) -> Option<T> {
        let entry = self.place(no)?.take()?;
        self.free.push(no);
        Some(entry)
    }

    pub(super) fn get(&self, no: u32) -> Option<&T> {
        self.pieces.get(no as usize / PIECE)?.get(no as usize % PIECE)?.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.bound() as usize - self.free.len()
    }

    /// Numbers are below this.
    pub(super) fn bound(&self) -> u32 {
        let full = self.pieces.len().saturating_sub(1) * PIECE;
        // Four billion entries do not fit into memory.
        (full + self.pieces.last().map_or(0, Vec::len)) as u32
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let all = self.pieces.iter().flatten().zip(0..);
        all.filter_map(|(entry, no)| Some((no, entry.as_ref()?)))
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, no: u32) -> &T {
        self.get(no).expect("the table keeps no number of an entry that it removed")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, no: u32) -> &mut T {
        let entry = self.place(no).and_then(Option::as_mut);
        entry.expect("the table keeps no number of an entry that it removed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_for_entries_and_are_given_out_again() {
        let mut slab = Slab::default();
        let all = 3 * PIECE as u32 + 1;
        (0..all).for_each(|n| assert_eq!(slab.insert(n), n));
        assert_eq!((slab.len(), slab.bound()), (all as usize, all));
        assert_eq!((slab.remove(300), slab.remove(300), slab.remove(all)), (Some(300), None, None));
        assert!(
            slab.get(300).is_none()
                && slab.iter().map(|(no, entry)| (no, *entry)).eq((0..all).filter(|n| *n != 300).map(|n| (n, n)))
        );
        assert_eq!((slab.insert(7), slab[300], slab.len()), (300, 7, all as usize));
    }
}

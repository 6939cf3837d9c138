//! Numbered entries: small numbers stand for instances and routes wherever the table refers to them.

use std::ops::{Index, IndexMut};

/// Entries by number. The number of an entry that was removed is given to another one later.
#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, entry: T) -> u32 {
        match self.free.pop() {
            Some(no) => {
                self.entries[no as usize] = Some(entry);
                no
            }
            None => {
                self.entries.push(Some(entry));
                // Four billion entries do not fit into memory.
                (self.entries.len() - 1) as u32
            }
        }
    }

    pub(super) fn remove(&mut self, no: u32) -> Option<T> {
        let entry = self.entries.get_mut(no as usize)?.take()?;
        self.free.push(no);
        Some(entry)
    }

    pub(super) fn get(&self, no: u32) -> Option<&T> {
        self.entries.get(no as usize)?.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Numbers are below this.
    pub(super) fn bound(&self) -> u32 {
        self.entries.len() as u32
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.entries.iter().enumerate().filter_map(|(no, entry)| Some((no as u32, entry.as_ref()?)))
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
        let entry = self.entries.get_mut(no as usize).and_then(Option::as_mut);
        entry.expect("the table keeps no number of an entry that it removed")
    }
}

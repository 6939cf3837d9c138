//! Lists that are short nearly always.

use std::ops::{Deref, DerefMut};

/// A list whose only entry needs no memory of its own.
#[derive(Debug)]
pub(super) enum Few<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> Few<T> {
    pub(super) fn push(&mut self, entry: T) {
        *self = match std::mem::take(self) {
            Few::One(first) => Few::Many(vec![first, entry]),
            Few::Many(entries) if entries.is_empty() => Few::One(entry),
            Few::Many(mut entries) => {
                push_tightly(&mut entries, entry);
                Few::Many(entries)
            }
        };
    }

    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(&T) -> bool) {
        *self = match std::mem::take(self) {
            Few::One(only) if is_kept(&only) => Few::One(only),
            Few::One(_) => Few::default(),
            Few::Many(mut entries) => {
                entries.retain(is_kept);
                if entries.len() == 1 { entries.pop().map_or_else(Few::default, Few::One) } else { Few::Many(entries) }
            }
        };
    }
}

impl<T> Default for Few<T> {
    fn default() -> Few<T> {
        Few::Many(Vec::new())
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Few::One(only) => std::slice::from_ref(only),
            Few::Many(entries) => entries,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Few::One(only) => std::slice::from_mut(only),
            Few::Many(entries) => entries,
        }
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Few<T> {
        let mut few = Few::default();
        entries.into_iter().for_each(|entry| few.push(entry));
        few
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Adds to a list of which there are many: it has no room to spare while it is short, and an eighth when it is long.
pub(super) fn push_tightly<T>(entries: &mut Vec<T>, entry: T) {
    if entries.len() == entries.capacity() {
        entries.reserve_exact(1 + entries.len() / 8);
    }
    entries.push(entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_and_go_in_order() {
        let mut few = Few::default();
        assert!(few.is_empty());
        for n in 0..4 {
            few.push(n);
            assert_eq!(*few, (0..=n).collect::<Vec<_>>()[..]);
        }
        few.retain(|n| n % 2 == 1);
        few[0] = 5;
        assert_eq!(*few, [5, 3]);
        few.retain(|n| *n == 3);
        assert!(matches!(few, Few::One(3)));
        few.retain(|_| false);
        assert!(few.is_empty());
        assert_eq!(*(7..9).collect::<Few<_>>(), [7, 8]);
    }

    #[test]
    fn short_lists_have_nothing_to_spare() {
        let mut entries = Vec::new();
        for n in 0..5 {
            push_tightly(&mut entries, n);
            assert_eq!(entries.capacity(), n + 1);
        }
    }
}

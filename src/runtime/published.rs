//! A value one writer replaces whole and many threads read without ever waiting for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The writer's side: the present value and its generation.
#[derive(Debug)]
pub struct Published<T> {
    generation: AtomicU64,
    value: Mutex<Arc<T>>,
}

impl<T> Published<T> {
    /// Starts with `value`.
    pub fn new(value: T) -> Arc<Published<T>> {
        Arc::new(Published { generation: AtomicU64::new(0), value: Mutex::new(Arc::new(value)) })
    }

    /// Replaces the value; readers see it at their next `latest`.
    pub fn publish(&self, value: Arc<T>) {
        let previous = std::mem::replace(&mut *self.value.lock(), value);
        self.generation.fetch_add(1, Ordering::Release);
        drop(previous); // may be the last owner of much memory: not under the lock
    }

    /// The present value, by taking the lock: for occasional readers.
    pub fn get(&self) -> Arc<T> {
        self.value.lock().clone()
    }
}

/// One thread's side: a cached value, checked against the generation with one load per read.
#[derive(Debug)]
pub struct Reader<T> {
    source: Arc<Published<T>>,
    seen: u64,
    cached: Arc<T>,
}

impl<T> Reader<T> {
    /// Reads from `source`.
    pub fn new(source: Arc<Published<T>>) -> Reader<T> {
        let seen = source.generation.load(Ordering::Acquire);
        let cached = source.get();
        Reader { source, seen, cached }
    }

    /// The newest value.
    pub fn latest(&mut self) -> &Arc<T> {
        let generation = self.source.generation.load(Ordering::Acquire);
        if generation != self.seen {
            self.seen = generation;
            self.cached = self.source.get();
        }
        &self.cached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_what_was_published_and_keeps_it_cheaply() {
        let cell = Published::new(1);
        let mut reader = Reader::new(cell.clone());
        assert_eq!(**reader.latest(), 1);
        cell.publish(Arc::new(2));
        assert_eq!(**reader.latest(), 2);
        let first = Arc::as_ptr(reader.latest());
        assert_eq!(first, Arc::as_ptr(reader.latest()));
        assert_eq!(*cell.get(), 2);
    }
}

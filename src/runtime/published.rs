//! A value one writer replaces whole and many threads read without ever waiting for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The writer's side: the present value and its generation.
#[derive(Debug)]
pub struct Published<T> {
    generation: AtomicU64,
    value: Mutex<Arc<T>>,
    /// Former values that readers may still have. The writer takes them down once it is their only owner: they may be large,
    /// and readers have better things to do. Each reader has one at most, so there are few.
    former: Mutex<Vec<Arc<T>>>,
}

impl<T> Published<T> {
    /// Starts with `value`.
    pub fn new(value: T) -> Arc<Published<T>> {
        let (generation, value) = (AtomicU64::new(0), Mutex::new(Arc::new(value)));
        Arc::new(Published { generation, value, former: Mutex::default() })
    }

    /// Replaces the value; readers see it at their next `latest`. Former values that nobody reads any more go.
    pub fn publish(&self, value: Arc<T>) {
        let previous = std::mem::replace(&mut *self.value.lock(), value);
        self.generation.fetch_add(1, Ordering::Release);
        let mut former = self.former.lock();
        former.push(previous);
        // Nobody can get hold of them any more, so a count of one stays one.
        former.retain(|value| Arc::strong_count(value) > 1);
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

    #[test]
    fn former_values_go_with_the_writer_once_nobody_reads_them() {
        let cell = Published::new(0);
        let mut reader = Reader::new(cell.clone());
        let first = Arc::downgrade(reader.latest());
        cell.publish(Arc::new(1));
        reader.latest();
        assert!(first.upgrade().is_some(), "the reader took it down");
        cell.publish(Arc::new(2));
        assert!(first.upgrade().is_none());
        let third = Arc::downgrade(&cell.get());
        cell.publish(Arc::new(3));
        assert!(third.upgrade().is_none(), "nobody reads it");
    }
}

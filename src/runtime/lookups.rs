//! What the resolver of instance names has done, for metrics: the resolver writes, everybody may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the process began.
#[derive(Debug, Default)]
pub struct Lookups {
    names: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
}

impl Lookups {
    /// Names that instances have now.
    pub fn names(&self) -> u64 {
        self.names.load(Ordering::Relaxed)
    }

    /// Look-ups that gave an address.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Look-ups that failed; the address known before stays in use.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Notes how many names there are.
    pub fn note_names(&self, names: usize) {
        self.names.store(names as u64, Ordering::Relaxed);
    }

    /// Counts a look-up that gave an address.
    pub fn count_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a look-up that failed.
    pub fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

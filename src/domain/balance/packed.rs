//! Small values in one atomic word, so that what belongs together changes together without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::domain::moment::Moment;

/// An `f32` that threads share.
#[derive(Debug, Default)]
pub(super) struct AtomicF32(AtomicU32);

impl AtomicF32 {
    pub(super) fn new(value: f32) -> AtomicF32 {
        AtomicF32(AtomicU32::new(value.to_bits()))
    }

    pub(super) fn load(&self) -> f32 {
        f32::from_bits(self.0.load(Relaxed))
    }

    pub(super) fn store(&self, value: f32) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Moves the value by `alpha` of the way towards `sample`; returns where it is now.
    pub(super) fn lean(&self, sample: f32, alpha: f32) -> f32 {
        let mut before = self.0.load(Relaxed);
        loop {
            let value = f32::from_bits(before);
            let next = value + alpha * (sample - value);
            match self.0.compare_exchange_weak(before, next.to_bits(), Relaxed, Relaxed) {
                Ok(_) => return next,
                Err(now) => before = now,
            }
        }
    }
}

/// Two 32-bit halves that change together: an `f32` and a number.
#[derive(Debug)]
pub(super) struct AtomicPair(AtomicU64);

impl AtomicPair {
    pub(super) fn new(value: f32, number: u32) -> AtomicPair {
        AtomicPair(AtomicU64::new(pack(value, number)))
    }

    pub(super) fn load(&self) -> (f32, u32) {
        unpack(self.0.load(Relaxed))
    }

    /// Replaces the pair by what `next` makes of it; returns the new pair.
    pub(super) fn update(&self, mut next: impl FnMut(f32, u32) -> (f32, u32)) -> (f32, u32) {
        let mut before = self.0.load(Relaxed);
        loop {
            let (value, number) = unpack(before);
            let after = next(value, number);
            match self.0.compare_exchange_weak(before, pack(after.0, after.1), Relaxed, Relaxed) {
                Ok(_) => return after,
                Err(now) => before = now,
            }
        }
    }
}

fn pack(value: f32, number: u32) -> u64 {
    u64::from(value.to_bits()) | u64::from(number) << 32
}

fn unpack(word: u64) -> (f32, u32) {
    (f32::from_bits(word as u32), (word >> 32) as u32)
}

/// A coarse clock that fits 32 bits: ticks of 2^22 ns (4.2 ms), round once in 208 days.
pub(super) fn ticks(now: Moment) -> u32 {
    (now.as_nanos() >> 22) as u32
}

/// Seconds between two readings of [`ticks`]; 0 if the second is earlier (clocks of two threads may be read out of
/// order).
pub(super) fn seconds_between(earlier: u32, later: u32) -> f32 {
    let passed = later.wrapping_sub(earlier);
    if passed > u32::MAX / 2 { 0.0 } else { passed as f32 * (1u64 << 22) as f32 * 1e-9 }
}

//! Long work goes on in strides, so that whoever shares a core with it does not have to wait for all of it. What happens
//! between two strides is not decided here.

use std::fmt;

/// Steps of a stride: some ten microseconds.
const STRIDE: u32 = 16;

/// Counts the steps of long work.
pub struct Pace {
    steps: u32,
    hurries: bool,
    between: Box<dyn FnMut() + Send>,
}

impl Pace {
    /// Calls `between` after every stride.
    pub fn new(between: impl FnMut() + Send + 'static) -> Pace {
        Pace { steps: 0, hurries: false, between: Box::new(between) }
    }

    /// Another step is done: what is done for one instance or one route, about a microsecond.
    pub fn step(&mut self) {
        self.steps += 1;
        if self.steps >= STRIDE {
            self.rest();
        }
    }

    /// Ends the stride: what was done is worth many steps, or what comes is.
    pub fn rest(&mut self) {
        self.steps = 0;
        if !self.hurries {
            (self.between)();
        }
    }

    /// Whether too much is left to do for rests.
    pub fn hurry(&mut self, hurries: bool) {
        self.hurries = hurries;
    }
}

impl Default for Pace {
    /// Never rests.
    fn default() -> Pace {
        Pace::new(|| {})
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace").field("steps", &self.steps).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[test]
    fn a_stride_has_many_steps_and_who_hurries_does_not_rest() {
        let rests = Arc::new(AtomicU32::new(0));
        let counted = rests.clone();
        let mut pace = Pace::new(move || _ = counted.fetch_add(1, Relaxed));
        (0..3 * STRIDE - 1).for_each(|_| pace.step());
        assert_eq!(rests.load(Relaxed), 2);
        pace.rest();
        (0..STRIDE - 1).for_each(|_| pace.step());
        assert_eq!(rests.load(Relaxed), 3, "a rest begins another stride");
        pace.hurry(true);
        (0..3 * STRIDE).for_each(|_| pace.step());
        pace.rest();
        assert_eq!(rests.load(Relaxed), 3);
        pace.hurry(false);
        pace.rest();
        assert_eq!(rests.load(Relaxed), 4);
    }
}

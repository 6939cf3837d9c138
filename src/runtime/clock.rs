//! The one place where monotonic time is read.

use std::time::Instant;

use crate::domain::moment::Moment;

/// Turns the machine's monotonic clock into `Moment`s; copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that reads `Moment::START` now. Make one per process and copy it.
    #[expect(clippy::new_without_default, reason = "reading the clock is not a default value")]
    pub fn new() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The present.
    pub fn now(&self) -> Moment {
        self.at(Instant::now())
    }

    /// What `now` said, or would have said, at `instant`.
    pub fn at(&self, instant: Instant) -> Moment {
        let passed = instant.saturating_duration_since(self.start);
        Moment::from_nanos(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX))
    }
}

//! Time as the rules see it: an argument, never read from a clock.

use std::ops::Add;
use std::time::Duration;

/// A point in monotonic time: nanoseconds since the process began (584 years fit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// When the process began.
    pub const START: Moment = Moment(0);

    /// The moment `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Moment {
        Moment(nanos)
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero if `earlier` is later (clocks of two threads may be read out of order).
    pub const fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        let seconds = duration.as_secs().saturating_mul(1_000_000_000);
        Moment(self.0.saturating_add(seconds).saturating_add(duration.subsec_nanos().into()))
    }
}

//! Load as reported: shares of CPU, memory, I/O and network, each known or unknown.

use std::num::NonZeroU32;

/// A share from 0.0 (idle) to 1.0 (full), never NaN. An unknown one takes no more room: there are many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(
    /// The bits of the number, which grow as it grows, and one more.
    NonZeroU32,
);

impl Share {
    /// Nothing used.
    pub const ZERO: Share = Share(NonZeroU32::MIN);
    /// All used.
    pub const FULL: Share = Share(NonZeroU32::MIN.saturating_add(1.0f32.to_bits()));

    /// A reported number as a share: agents overshoot a little, in both directions, so what is below 1.5 is clamped to
    /// `0..=1`; 1.5 and more, and NaN, is `None` (somebody is sending percent).
    pub fn reported(number: f64) -> Option<Share> {
        // Adding nothing turns -0.0 into 0.0.
        let share = (number as f32).clamp(0.0, 1.0) + 0.0;
        (number < 1.5).then_some(Share(NonZeroU32::MIN.saturating_add(share.to_bits())))
    }

    /// The bare number.
    pub fn get(self) -> f32 {
        f32::from_bits(self.0.get() - 1)
    }
}

/// What one reporter (a host or an instance) says it uses. Absent is unknown, not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Share of the CPU time it may use.
    pub cpu: Option<Share>,
    /// Share of its memory limit.
    pub mem: Option<Share>,
    /// Share of its disk allowance.
    pub io: Option<Share>,
    /// Share of its network allowance.
    pub net: Option<Share>,
}

impl Usage {
    /// Whether nothing at all is known.
    pub fn is_unknown(&self) -> bool {
        *self == Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_the_numbers_they_were_made_of() {
        let share = |number: f64| Share::reported(number).map(Share::get);
        assert_eq!([0.0, 0.25, 1.0].map(share), [Some(0.0), Some(0.25), Some(1.0)]);
        assert_eq!([-0.0, -3.0, 1.4].map(share), [Some(0.0), Some(0.0), Some(1.0)]);
        assert_eq!([1.5, 70.0, f64::NAN, f64::INFINITY].map(share), [None; 4]);
        assert_eq!((Share::ZERO.get(), Share::FULL.get()), (0.0, 1.0));
        assert_eq!(Share::reported(-0.0), Some(Share::ZERO));
        assert!(Share::reported(0.2) < Share::reported(0.3) && Share::ZERO < Share::FULL);
    }

    #[test]
    fn what_is_unknown_takes_no_room() {
        assert_eq!(size_of::<Usage>(), 4 * size_of::<f32>());
    }
}

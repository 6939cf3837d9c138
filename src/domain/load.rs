//! Load as reported: shares of CPU, memory, I/O and network, each known or unknown.

/// A share from 0.0 (idle) to 1.0 (full), never NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Share(f32);

impl Share {
    /// Nothing used.
    pub const ZERO: Share = Share(0.0);
    /// All used.
    pub const FULL: Share = Share(1.0);

    /// A reported number as a share: agents overshoot a little, in both directions, so what is below 1.5 is clamped to
    /// `0..=1`; 1.5 and more, and NaN, is `None` (somebody is sending percent).
    pub fn reported(number: f64) -> Option<Share> {
        (number < 1.5).then_some(Share((number as f32).clamp(0.0, 1.0)))
    }

    /// The bare number.
    pub fn get(self) -> f32 {
        self.0
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

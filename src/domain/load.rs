//! Load as reported: shares of CPU, memory, I/O and network, each known or unknown.

/// A share from 0.0 (idle) to 1.0 (full), never NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Share(f32);

impl Share {
    /// Nothing used.
    pub const ZERO: Share = Share(0.0);
    /// All used.
    pub const FULL: Share = Share(1.0);

    /// A reported number as a share: agents overshoot, so up to 1.5 is clamped to 1; anything else outside `0..=1`, and
    /// NaN, is `None` (somebody is sending percent).
    pub fn reported(number: f64) -> Option<Share> {
        (0.0..1.5).contains(&number).then_some(Share((number as f32).min(1.0)))
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

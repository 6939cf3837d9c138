//! How long to wait before trying again: pure maths, the chance is an argument.

use std::time::Duration;

use crate::domain::dice::Dice;

/// Exponential pauses up to a cap, half of each by chance so that many clients do not come back in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
}

impl Backoff {
    /// Pauses that begin with `first`, double with every failure, and never exceed `cap`.
    pub const fn new(first: Duration, cap: Duration) -> Backoff {
        Backoff { first, cap }
    }

    /// The pause after `failures` failures in a row: between half of and the full `min(cap, first · 2^(failures - 1))`;
    /// none before the first failure.
    pub fn pause(&self, failures: u32, dice: &mut Dice) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let full = self.first.saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(self.cap);
        full / 2 + (full / 2).mul_f64(dice.share())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(4));

    #[track_caller]
    fn check_pause(failures: u32, at_least_ms: u64, at_most_ms: u64) {
        let mut dice = Dice::seeded(u64::from(failures));
        for _ in 0..100 {
            let pause = BACKOFF.pause(failures, &mut dice);
            assert!(
                (Duration::from_millis(at_least_ms)..=Duration::from_millis(at_most_ms)).contains(&pause),
                "{pause:?} after {failures} failures"
            );
        }
    }

    #[test]
    fn pauses_double_up_to_the_cap_and_stay_there() {
        check_pause(0, 0, 0);
        check_pause(1, 50, 100);
        check_pause(2, 100, 200);
        check_pause(6, 1_600, 3_200);
        check_pause(7, 2_000, 4_000);
        check_pause(33, 2_000, 4_000);
        check_pause(u32::MAX, 2_000, 4_000);
    }

    #[test]
    fn two_clients_do_not_come_back_in_step() {
        let (mut a, mut b) = (Dice::seeded(1), Dice::seeded(2));
        assert_ne!(BACKOFF.pause(5, &mut a), BACKOFF.pause(5, &mut b));
    }

    #[test]
    fn the_largest_durations_do_not_overflow() {
        let endless = Backoff::new(Duration::MAX, Duration::MAX);
        assert!(endless.pause(9, &mut Dice::seeded(1)) >= Duration::MAX / 2);
    }
}

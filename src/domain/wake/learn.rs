//! How long an app takes to start, learnt from its earlier starts.

use std::time::Duration;

/// Starts that are remembered: enough to shrug off one odd start, few enough to follow a new version of the app.
const STARTS: usize = 5;

/// The last starts of one app.
#[derive(Clone, Debug, Default)]
pub(super) struct Starts {
    /// The latest last.
    took: Vec<Duration>,
}

impl Starts {
    /// One more start took this long, from the first visit to the first answer.
    pub(super) fn learn(&mut self, took: Duration) {
        if self.took.len() == STARTS {
            self.took.remove(0);
        }
        self.took.push(took);
    }

    /// The median of the remembered starts: one start on a busy host does not spoil the next visitor's expectation.
    pub(super) fn expected(&self) -> Option<Duration> {
        let mut sorted = self.took.clone();
        sorted.sort_unstable();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            length if length % 2 == 1 => Some(sorted[middle]),
            _ => Some((sorted[middle - 1] + sorted[middle]) / 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_expected(took: &[u64], expected: Option<u64>) {
        let mut starts = Starts::default();
        took.iter().for_each(|took| starts.learn(Duration::from_secs(*took)));
        assert_eq!(starts.expected(), expected.map(Duration::from_secs), "{took:?}");
    }

    #[test]
    fn the_median_of_the_last_five_starts_is_expected() {
        check_expected(&[], None);
        check_expected(&[8], Some(8));
        check_expected(&[8, 4], Some(6));
        check_expected(&[8, 300, 9], Some(9));
        check_expected(&[100, 100, 1, 9, 3, 2], Some(3));
        check_expected(&[100, 100, 1, 9, 3, 2, 2], Some(2));
    }
}

//! Which failures may be tried again, where, and within which budget.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::moment::Moment;

/// How an attempt failed, as far as another try is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No connection, no TLS, or a connection on which the request was refused unseen: nobody has looked at it.
    Connect,
    /// A kept connection turned out to be dead when it was used again: closed or reset before the first byte of a
    /// response.
    ReusedConnectionDead,
    /// A fresh connection closed before the first byte of a response.
    ClosedEarly,
    /// Broken after bytes of the response came.
    Broken,
    /// No response in time: the instance may still be at work on it.
    TimedOut,
}

/// What matters of a request for another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Whether doing it twice is as good as once: an idempotent method, or an `Idempotency-Key`.
    pub idempotent: bool,
    /// Whether its body can be sent again: none, not yet read, or kept.
    pub replayable: bool,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Tell the client.
    Never,
    /// Again to the same endpoint on a fresh connection; it is no attempt and costs no budget.
    FreshConnection,
    /// Another attempt, if there is one left and the budget allows; to another endpoint if there is one.
    OtherEndpoint,
}

/// Whether another try is harmless.
pub fn judge(failure: Failure, replay: Replay) -> Retry {
    match failure {
        Failure::Connect if replay.replayable => Retry::OtherEndpoint,
        Failure::ReusedConnectionDead if replay.replayable => Retry::FreshConnection,
        Failure::ClosedEarly if replay.replayable && replay.idempotent => Retry::OtherEndpoint,
        Failure::Connect
        | Failure::ReusedConnectionDead
        | Failure::ClosedEarly
        | Failure::Broken
        | Failure::TimedOut => Retry::Never,
    }
}

/// Methods whose repetition is as good as once (RFC 9110, 9.2.2).
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Keeps retries from multiplying an outage: by default a fifth of the recent requests, and at least three a second.
/// One for all workers.
#[derive(Debug)]
pub struct Budget {
    /// Retries allowed per request.
    share: f32,
    /// Retries allowed per second however few requests there are.
    per_second: f32,
    requests: Recent,
    retries: Recent,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget::new(0.2, 3.0)
    }
}

/// "Recent" fades with this time constant.
const RECENT_SECONDS: f32 = 10.0;

impl Budget {
    /// Allows `share` (0 to 1) of the recent requests to be retries, and at least `per_second` a second.
    pub fn new(share: f32, per_second: f32) -> Budget {
        Budget { share, per_second, requests: Recent::default(), retries: Recent::default() }
    }

    /// Counts a request (not its retries).
    pub fn request(&self, now: Moment) {
        self.requests.add(now);
    }

    /// Takes one retry out of the budget; `false` if there is none left.
    pub fn take(&self, now: Moment) -> bool {
        let allowed = (self.share * self.requests.count(now)).max(self.per_second * RECENT_SECONDS);
        self.retries.add_below(allowed, now)
    }
}

/// A count that fades: the number and the millisecond of its last change in one word, so that both change together.
#[derive(Debug, Default)]
struct Recent(AtomicU64);

impl Recent {
    fn count(&self, now: Moment) -> f32 {
        faded(self.0.load(Relaxed), millis(now))
    }

    fn add(&self, now: Moment) {
        self.add_below(f32::INFINITY, now);
    }

    /// Adds one if that keeps the count at or below `limit`.
    fn add_below(&self, limit: f32, now: Moment) -> bool {
        let now = millis(now);
        let next = |word| {
            let count = faded(word, now) + 1.0;
            (count <= limit).then(|| u64::from(count.to_bits()) | u64::from(now) << 32)
        };
        self.0.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

fn millis(now: Moment) -> u32 {
    (now.as_nanos() / 1_000_000) as u32
}

fn faded(word: u64, now: u32) -> f32 {
    let (count, at) = (f32::from_bits(word as u32), (word >> 32) as u32);
    let passed = now.wrapping_sub(at);
    // Clocks of two threads may be read out of order: then no time has passed.
    if passed == 0 || passed > u32::MAX / 2 {
        return count;
    }
    count * (-(passed as f32) / (1e3 * RECENT_SECONDS)).exp()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// For `(idempotent, replayable)` = yes yes, no yes, yes no, no no.
    #[track_caller]
    fn check(failure: Failure, expected: [Retry; 4]) {
        let all = [(true, true), (false, true), (true, false), (false, false)];
        let judged = all.map(|(idempotent, replayable)| judge(failure, Replay { idempotent, replayable }));
        assert_eq!(judged, expected, "{failure:?}");
    }

    #[test]
    fn only_what_is_harmless_is_tried_again() {
        use Retry::{FreshConnection, Never, OtherEndpoint};
        check(Failure::Connect, [OtherEndpoint, OtherEndpoint, Never, Never]);
        check(Failure::ReusedConnectionDead, [FreshConnection, FreshConnection, Never, Never]);
        check(Failure::ClosedEarly, [OtherEndpoint, Never, Never, Never]);
        check(Failure::Broken, [Never; 4]);
        check(Failure::TimedOut, [Never; 4]);
    }

    #[test]
    fn methods_are_idempotent_by_the_book() {
        let safe: Vec<&str> = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "get", "CONNECT"]
            .into_iter()
            .filter(|method| is_idempotent(method))
            .collect();
        assert_eq!(safe, ["GET", "PUT", "DELETE", "HEAD"]);
    }

    fn second(n: f64) -> Moment {
        Moment::from_nanos(1 << 40) + Duration::from_secs_f64(n)
    }

    /// Retries granted while as many are asked for as there are requests, after a minute of getting used to it.
    fn granted(requests_per_second: usize, seconds: usize) -> f64 {
        let budget = Budget::default();
        let mut granted = 0;
        for step in 0..(60 + seconds) * requests_per_second {
            let now = second(step as f64 / requests_per_second as f64);
            budget.request(now);
            granted += usize::from(budget.take(now) && step >= 60 * requests_per_second);
        }
        granted as f64 / seconds as f64
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_tried_again() {
        let per_second = granted(1_000, 10);
        assert!((190.0..210.0).contains(&per_second), "{per_second} a second");
    }

    #[test]
    fn three_a_second_are_always_allowed() {
        let per_second = granted(5, 100);
        assert!((2.8..3.2).contains(&per_second), "{per_second} a second");
        assert!(Budget::default().take(second(0.0)));
    }

    #[test]
    fn a_storm_is_cut_off() {
        let budget = Budget::default();
        let granted = (0..1_000).filter(|_| budget.take(second(0.0))).count();
        assert_eq!(granted, 30);
        assert!(!budget.take(second(0.1)));
        assert!(budget.take(second(1.0)));
    }

    #[test]
    fn a_clock_read_out_of_order_is_harmless() {
        let budget = Budget::default();
        (0..30).for_each(|_| assert!(budget.take(second(5.0))));
        assert!(!budget.take(second(4.9)));
    }
}

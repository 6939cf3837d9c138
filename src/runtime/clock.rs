//! The one place where clocks are read.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
        let passed = self.start.elapsed();
        Moment::from_nanos(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The instant that is called `moment` here.
    pub fn instant(&self, moment: Moment) -> Instant {
        self.start + moment.since(Moment::START)
    }
}

/// One thread's clock. Reading a clock costs as much as picking an instance, so it is read once whenever a task is
/// woken, and all that the task does until it waits again happens at that time. Clones stay together.
#[derive(Clone, Debug)]
pub struct Present(Rc<Now>);

#[derive(Debug)]
struct Now {
    clock: Clock,
    moment: Cell<Moment>,
    /// Time from the Unix epoch to `Moment::START`.
    epoch: Cell<Duration>,
}

impl Present {
    /// Begins to follow `clock`.
    pub fn of(clock: Clock) -> Present {
        let present = Present(Rc::new(Now { clock, moment: Cell::default(), epoch: Cell::default() }));
        present.set_calendar();
        present
    }

    /// When the present task was woken.
    pub fn now(&self) -> Moment {
        self.0.moment.get()
    }

    /// The same as time since the Unix epoch.
    pub fn unix(&self) -> Duration {
        self.0.epoch.get() + self.now().since(Moment::START)
    }

    /// The instant that is called `moment` here.
    pub fn instant(&self, moment: Moment) -> Instant {
        self.0.clock.instant(moment)
    }

    /// Reads the clock and returns what it says.
    pub fn tick(&self) -> Moment {
        let now = self.0.clock.now();
        self.0.moment.set(now);
        now
    }

    /// Asks the system what time of the day it is; to be called every now and then, since somebody may set that clock.
    pub fn set_calendar(&self) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.epoch.set(unix.saturating_sub(self.tick().since(Moment::START)));
    }

    /// `task`, with a look at the clock whenever it is woken.
    pub fn ticking<F: Future>(&self, task: Pin<Box<F>>) -> Ticking<F> {
        Ticking { present: self.clone(), task }
    }
}

/// See [`Present::ticking`].
#[derive(Debug)]
#[must_use = "a future does nothing before it is polled"]
pub struct Ticking<F> {
    present: Present,
    task: Pin<Box<F>>,
}

impl<F: Future> Future for Ticking<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.present.tick();
        self.task.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn all_that_a_task_does_until_it_waits_happens_at_one_time() {
        let present = Present::of(Clock::new());
        let clone = present.clone();
        let mut times = Vec::new();
        let mut task = std::pin::pin!(present.ticking(Box::pin(poll_fn(move |_| {
            let (at, before) = (clone.now(), clone.0.clock.now());
            assert_eq!(clone.now(), at);
            assert!(at <= before);
            times.push(at);
            if times.len() == 2 { Poll::Ready(std::mem::take(&mut times)) } else { Poll::Pending }
        }))));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(task.as_mut().poll(&mut cx).is_pending());
        let between = present.0.clock.now();
        while present.0.clock.now() == between {}
        let Poll::Ready(times) = task.as_mut().poll(&mut cx) else { panic!("it was to end") };
        assert!(times[0] <= between && between < times[1]);
    }

    #[test]
    fn the_calendar_is_the_systems() {
        let present = Present::of(Clock::new());
        let before = SystemTime::now().duration_since(UNIX_EPOCH).expect("the system's clock is set");
        present.set_calendar();
        let difference = present.unix().abs_diff(before);
        assert!(difference < Duration::from_secs(60), "{difference:?}");
    }

    #[test]
    fn moments_and_instants_are_the_same_times() {
        let clock = Clock::new();
        let now = clock.now();
        assert!(clock.instant(now) <= Instant::now());
        assert_eq!(clock.instant(now + Duration::from_secs(1)) - clock.instant(now), Duration::from_secs(1));
    }
}

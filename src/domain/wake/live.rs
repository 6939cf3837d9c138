//! What the workers share about one app: at which stage of sleep it is, and how much it is used. Plain atomics: every
//! request of an app touches them, nothing waits, nothing is sampled.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use arcstr::ArcStr;
use parking_lot::Mutex;

use super::digest::{Digest, Percentiles};
use super::gate::Gate;
use crate::domain::identity::AppId;
use crate::domain::load::Share;
use crate::domain::moment::Moment;

/// Where an app is between awake and asleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Served by its instances, like every app that never slept.
    #[default]
    Awake,
    /// Still served; a controller asks whether it may be put to sleep. A request calls that off.
    Parking,
    /// No instance, and nobody asked for it since.
    Sleeping,
    /// Asked to start; not yet registered and answering.
    Starting,
    /// Could not be started.
    Failed,
}

impl Stage {
    /// All of them, in the order of a sleep.
    pub const ALL: [Stage; 5] = [Stage::Awake, Stage::Parking, Stage::Sleeping, Stage::Starting, Stage::Failed];

    /// As metrics, the admin API and the loading page call it.
    pub fn label(self) -> &'static str {
        match self {
            Stage::Awake => "awake",
            Stage::Parking => "parking",
            Stage::Sleeping => "sleeping",
            Stage::Starting => "starting",
            Stage::Failed => "failed",
        }
    }

    /// Whether requests have to wait for an instance.
    pub fn is_asleep(self) -> bool {
        match self {
            Stage::Awake | Stage::Parking => false,
            Stage::Sleeping | Stage::Starting | Stage::Failed => true,
        }
    }

    fn from_code(code: u8) -> Stage {
        match code {
            1 => Stage::Parking,
            2 => Stage::Sleeping,
            3 => Stage::Starting,
            4 => Stage::Failed,
            _ => Stage::Awake,
        }
    }
}

/// Why a start failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// In the words of whoever starts apps.
    Told(ArcStr),
    /// No instance came within `wake.deadline`.
    TooLate,
}

/// What a visitor of a sleeping app may know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The stage this is the view of.
    pub stage: Stage,
    /// The highest epoch heard of; 0 if it never slept.
    pub epoch: u64,
    /// What the app wants to be called; `None`: call it by its host.
    pub name: Option<ArcStr>,
    /// When the present start was asked for, or when it failed.
    pub since: Moment,
    /// How long this app usually takes from the first visit until it answers.
    pub expected: Option<Duration>,
    /// How far the start is, if the platform says so.
    pub progress: Option<Share>,
    /// What the platform says about the start.
    pub message: Option<ArcStr>,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// From when on a visit makes the router try again.
    pub retry_at: Option<Moment>,
    /// Whether whoever starts apps cannot be reached at present.
    pub unreachable: bool,
}

/// What has become of the requests of an app that was ever asked.
#[derive(Debug, Default)]
struct Tally {
    answered: [AtomicU64; 5],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    latency: Digest,
    /// What the reports so far have taken.
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    answered: [u64; 5],
    bytes_in: u64,
    bytes_out: u64,
    latency: Option<Percentiles>,
}

/// Who stands before a sleeping app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// A new request.
    Visit,
    /// The loading page of somebody who came before. It wakes (another router may have served the page), but a page
    /// forgotten in some tab does not start a failed app over and over.
    Poll,
}

/// One app, shared by all workers and by the control plane.
#[derive(Debug, Default)]
pub struct LiveApp {
    app: AppId,
    stage: AtomicU8,
    /// The control plane has been told of a knock at this stage.
    knocked: AtomicBool,
    /// Nanoseconds; only meaningful at `Stage::Failed`.
    retry_at: AtomicU64,
    /// Made by the first request that waits.
    gate: OnceLock<Box<Gate>>,
    /// Nanoseconds plus one; 0 is never.
    last_request: AtomicU64,
    in_flight: AtomicU64,
    tunnels: AtomicU64,
    /// Made by the first request that moves or ends: most apps of a large platform are idle.
    tally: OnceLock<Box<Tally>>,
    /// The last report showed something in flight, so the next one must tell how that ended.
    reported_busy: AtomicBool,
    /// Made when it first leaves the first stage: most apps never do.
    view: Mutex<Option<Arc<View>>>,
}

impl LiveApp {
    /// An app that is awake and was never used.
    pub fn new(app: AppId) -> LiveApp {
        LiveApp { app, ..LiveApp::default() }
    }

    /// Which app this is.
    pub fn app(&self) -> &AppId {
        &self.app
    }

    /// The present stage.
    pub fn stage(&self) -> Stage {
        Stage::from_code(self.stage.load(Ordering::SeqCst))
    }

    /// What a visitor may know; takes a lock.
    pub fn view(&self) -> Arc<View> {
        self.view.lock().clone().unwrap_or_default()
    }

    /// Enters the stage of `view`. Only the control plane does this.
    pub(super) fn show(&self, view: View) {
        let stage = view.stage;
        if let Some(retry_at) = view.retry_at {
            self.retry_at.store(retry_at.as_nanos(), Ordering::SeqCst);
        }
        *self.view.lock() = Some(Arc::new(view));
        self.stage.store(stage as u8, Ordering::SeqCst);
        if let Some(gate) = self.gate.get().filter(|_| stage.is_asleep()) {
            gate.close();
        }
        self.knocked.store(false, Ordering::SeqCst);
    }

    /// Whether the control plane must now be told that somebody wants this app: yes at most once per stage entered, so that
    /// message must not get lost.
    pub fn knock(&self, knock: Knock, now: Moment) -> bool {
        let matters = match (self.stage(), knock) {
            (Stage::Awake, _) | (Stage::Parking | Stage::Failed, Knock::Poll) => false,
            (Stage::Failed, Knock::Visit) => now.as_nanos() >= self.retry_at.load(Ordering::SeqCst),
            (Stage::Parking, Knock::Visit) | (Stage::Sleeping | Stage::Starting, _) => true,
        };
        matters && !self.knocked.load(Ordering::Relaxed) && !self.knocked.swap(true, Ordering::SeqCst)
    }

    /// Takes a place among the requests that wait for this app, unless `held_max` do already. Dropping it gives it back.
    pub fn hold<P: Deref<Target = LiveApp>>(this: P, held_max: usize) -> Option<Held<P>> {
        let ticket = this.gate.get_or_init(Box::default).join(held_max)?;
        Some(Held { app: this, ticket })
    }

    /// Requests that wait for this app on this router.
    pub fn held(&self) -> usize {
        self.gate.get().map_or(0, |gate| gate.waiting())
    }

    /// What the waiting requests wait for has been decided and published: they look again, if the app is awake `at_a_time` at
    /// a time, in the order they came. Does nothing while it sleeps or starts (again).
    pub fn let_go(&self, at_a_time: usize) {
        match self.stage() {
            // Made if need be: who looked into the snapshot before is only coming.
            Stage::Awake | Stage::Parking => self.gate.get_or_init(Box::default).open(at_a_time),
            Stage::Failed => self.gate.get().into_iter().for_each(|gate| gate.clear()),
            Stage::Sleeping | Stage::Starting => {}
        }
    }

    /// A request for this app goes to an instance now: it is in flight until the guard is dropped.
    ///
    /// The guard's `stage` was read after the request was counted, and `park` reads the counts after it entered the
    /// stage. So either the request sees the parking, or the answer to the park counts the request: none slips between.
    pub fn begin<P: Deref<Target = LiveApp>>(this: P, now: Moment) -> InFlight<P> {
        let nanos = now.as_nanos() + 1;
        // Once a millisecond is enough for a figure in milliseconds, and spares a busy app the contention.
        if nanos > this.last_request.load(Ordering::Relaxed).saturating_add(1_000_000) {
            this.last_request.fetch_max(nanos, Ordering::Relaxed);
        }
        this.in_flight.fetch_add(1, Ordering::SeqCst);
        let stage = this.stage();
        InFlight { app: this, stage, answered: false, tunnel: false }
    }

    /// When the last request began, within a millisecond; `None` if there was none since the router began.
    pub fn last_request(&self) -> Option<Moment> {
        self.last_request.load(Ordering::Relaxed).checked_sub(1).map(Moment::from_nanos)
    }

    /// Requests in flight to the end of their body, tunnels included.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Those of them that have become tunnels.
    pub fn tunnels(&self) -> u64 {
        self.tunnels.load(Ordering::Relaxed)
    }

    /// What happened since the last time somebody took it; `None` if nothing did. There is one taker, the report; what
    /// happens while it reads is in its next one.
    pub fn take(&self) -> Option<Happened> {
        let tally = self.tally.get();
        let mut taken = tally.map(|tally| tally.taken.lock());
        let answered =
            tally.map_or([0; 5], |tally| tally.answered.each_ref().map(|class| class.swap(0, Ordering::Relaxed)));
        let now = self.at_present();
        let busy = now.in_flight > 0;
        let was_busy = self.reported_busy.swap(busy, Ordering::Relaxed);
        let requests: u64 = answered.iter().sum();
        if requests == 0 && !busy && !was_busy {
            return None;
        }
        let (Some(tally), Some(taken)) = (tally, &mut taken) else { return Some(now) };
        let happened = Happened {
            requests,
            answered,
            bytes_in: tally.bytes_in.swap(0, Ordering::Relaxed),
            bytes_out: tally.bytes_out.swap(0, Ordering::Relaxed),
            latency: tally.latency.take(),
            ..now
        };
        taken.answered.iter_mut().zip(answered).for_each(|(all, more)| *all += more);
        taken.bytes_in += happened.bytes_in;
        taken.bytes_out += happened.bytes_out;
        taken.latency = happened.latency;
        Some(happened)
    }

    /// What happened since the router began; the latencies are those of the last report.
    pub fn so_far(&self) -> Happened {
        let Some(tally) = self.tally.get() else { return self.at_present() };
        let taken = tally.taken.lock();
        let answered =
            [0, 1, 2, 3, 4].map(|class: usize| taken.answered[class] + tally.answered[class].load(Ordering::Relaxed));
        Happened {
            requests: answered.iter().sum(),
            answered,
            bytes_in: taken.bytes_in + tally.bytes_in.load(Ordering::Relaxed),
            bytes_out: taken.bytes_out + tally.bytes_out.load(Ordering::Relaxed),
            latency: taken.latency,
            ..self.at_present()
        }
    }

    /// How it is used now, as if nothing had happened.
    fn at_present(&self) -> Happened {
        let (in_flight, tunnels, last_request) = (self.in_flight(), self.tunnels(), self.last_request());
        Happened { in_flight, tunnels, last_request, ..Happened::default() }
    }

    fn tally(&self) -> &Tally {
        self.tally.get_or_init(Box::default)
    }
}

/// What happened with one app between two reports, and how it is used now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Happened {
    /// Requests answered or given up by their client.
    pub requests: u64,
    /// The same by class of status, `1xx` to `5xx`.
    pub answered: [u64; 5],
    /// In flight at the time of the report.
    pub in_flight: u64,
    /// Those of them that are tunnels.
    pub tunnels: u64,
    /// When the last one began.
    pub last_request: Option<Moment>,
    /// Bytes of requests.
    pub bytes_in: u64,
    /// Bytes of answers.
    pub bytes_out: u64,
    /// Time to the response head.
    pub latency: Option<Percentiles>,
}

/// A place among the waiting requests of an app, then among those on their way to it.
#[derive(Debug)]
pub struct Held<P: Deref<Target = LiveApp>> {
    app: P,
    ticket: u64,
}

impl<P: Deref<Target = LiveApp>> Held<P> {
    /// Ready once it is time to look again, into a new snapshot.
    pub fn poll_let_go(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.app.gate.get().map_or(Poll::Ready(()), |gate| gate.poll(self.ticket, cx))
    }
}

impl<P: Deref<Target = LiveApp>> Drop for Held<P> {
    fn drop(&mut self) {
        self.app.gate.get().into_iter().for_each(|gate| gate.leave(self.ticket));
    }
}

/// A request on its way to an instance; counted until dropped, so one that is cancelled counts as well.
#[derive(Debug)]
pub struct InFlight<P: Deref<Target = LiveApp>> {
    app: P,
    stage: Stage,
    answered: bool,
    tunnel: bool,
}

impl<P: Deref<Target = LiveApp>> InFlight<P> {
    /// The stage when the request began. `Parking`: serve it, and `knock`. Asleep: the snapshot was older than the sleep;
    /// drop this guard and treat the app as asleep, its instances are being stopped.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The head of the answer has come, with this status, this long after the request was sent.
    pub fn answered(&mut self, status: u16, latency: Duration) {
        self.count(status);
        self.app.tally().latency.add(latency);
    }

    /// The router itself answers: it could not get one from an instance. No latency of the app is known.
    pub fn failed(&mut self, status: u16) {
        self.count(status);
    }

    /// It does not go to an instance after all.
    pub fn withdraw(mut self) {
        self.answered = true;
    }

    /// The connection has become a tunnel.
    pub fn became_tunnel(&mut self) {
        if !std::mem::replace(&mut self.tunnel, true) {
            self.app.tunnels.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Bytes of the request and of its answer have passed.
    pub fn moved(&self, bytes_in: u64, bytes_out: u64) {
        let tally = self.app.tally();
        for (counter, bytes) in [(&tally.bytes_in, bytes_in), (&tally.bytes_out, bytes_out)] {
            if bytes > 0 {
                counter.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }

    fn count(&mut self, status: u16) {
        if !std::mem::replace(&mut self.answered, true) {
            let class = usize::from(status / 100).clamp(1, 5) - 1;
            self.app.tally().answered[class].fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<P: Deref<Target = LiveApp>> Drop for InFlight<P> {
    fn drop(&mut self) {
        self.count(499); // the client went away before there was an answer
        if self.tunnel {
            self.app.tunnels.fetch_sub(1, Ordering::Relaxed);
        }
        // Who sees that it is over sees when it began, too: a park asks for both, in this order.
        self.app.in_flight.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at_millis(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn at_stage(stage: Stage) -> LiveApp {
        let app = LiveApp::new(AppId::new("shop"));
        app.show(View { stage, retry_at: Some(at_millis(1000)), ..View::default() });
        app
    }

    #[test]
    fn a_request_counts_until_its_guard_is_dropped() {
        let app = LiveApp::new(AppId::new("shop"));
        assert_eq!((app.take(), app.last_request()), (None, None));
        let mut request = LiveApp::begin(&app, at_millis(5));
        assert_eq!((app.in_flight(), request.stage(), app.last_request()), (1, Stage::Awake, Some(at_millis(5))));
        request.answered(200, Duration::from_millis(4));
        request.answered(500, Duration::from_millis(4)); // a second head is not a second request
        request.moved(10, 200);
        drop(request);
        let happened = app.take().expect("one request");
        assert_eq!((happened.requests, happened.answered), (1, [0, 1, 0, 0, 0]));
        assert_eq!((happened.in_flight, happened.bytes_in, happened.bytes_out), (0, 10, 200));
        assert!(happened.latency.is_some());
        assert_eq!(app.take(), None);
    }

    #[test]
    fn a_client_that_goes_away_counts_as_one_request() {
        let app = LiveApp::new(AppId::new("shop"));
        drop(LiveApp::begin(&app, at_millis(1)));
        let happened = app.take().expect("one request");
        assert_eq!((happened.requests, happened.answered, happened.latency), (1, [0, 0, 0, 1, 0], None));
    }

    #[test]
    fn the_end_of_a_long_tunnel_is_reported() {
        let app = LiveApp::new(AppId::new("shop"));
        let mut tunnel = LiveApp::begin(&app, at_millis(1));
        tunnel.answered(101, Duration::from_millis(1));
        tunnel.became_tunnel();
        tunnel.became_tunnel();
        let happened = app.take().expect("a tunnel");
        assert_eq!((happened.requests, happened.in_flight, happened.tunnels), (1, 1, 1));
        assert_eq!(app.take().expect("still there").requests, 0);
        drop(tunnel);
        assert_eq!(app.take().expect("its end").tunnels, 0);
        assert_eq!(app.take(), None);
    }

    #[test]
    fn the_last_request_is_the_latest_not_the_last_to_be_counted() {
        let app = LiveApp::new(AppId::new("shop"));
        drop(LiveApp::begin(&app, at_millis(9)));
        drop(LiveApp::begin(&app, at_millis(7)));
        assert_eq!(app.last_request(), Some(at_millis(9)));
    }

    #[test]
    fn only_the_first_knock_at_a_stage_is_passed_on() {
        let app = at_stage(Stage::Sleeping);
        assert!(app.knock(Knock::Visit, at_millis(0)));
        assert!(!app.knock(Knock::Visit, at_millis(0)));
        app.show(View { stage: Stage::Starting, ..View::default() });
        assert!(app.knock(Knock::Visit, at_millis(0)));
    }

    #[test]
    fn who_knocks_and_when_decides_whether_it_matters() {
        for (stage, knock, millis, expected) in [
            (Stage::Awake, Knock::Visit, 0, false),
            (Stage::Parking, Knock::Visit, 0, true),
            (Stage::Parking, Knock::Poll, 0, false),
            (Stage::Sleeping, Knock::Poll, 0, true),
            (Stage::Failed, Knock::Visit, 999, false),
            (Stage::Failed, Knock::Visit, 1000, true),
            (Stage::Failed, Knock::Poll, 1000, false),
        ] {
            assert_eq!(at_stage(stage).knock(knock, at_millis(millis)), expected, "{stage:?} {knock:?} {millis}");
        }
    }

    #[test]
    fn places_to_wait_are_limited_and_given_back() {
        let app = LiveApp::new(AppId::new("shop"));
        let first = LiveApp::hold(&app, 2).expect("a place");
        let _second = LiveApp::hold(&app, 2).expect("a place");
        assert!(LiveApp::hold(&app, 2).is_none());
        drop(first);
        assert_eq!(app.held(), 1);
        assert!(LiveApp::hold(&app, 2).is_some());
    }
}

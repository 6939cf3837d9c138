//! One app between awake and asleep: what each message, visit and failure does to it. Every rule about epochs, tries and
//! deadlines is here; `Apps` only finds the app and keeps its timer.

use std::sync::Arc;
use std::time::Duration;

use arcstr::ArcStr;

use super::effect::{Ask, Effect, Ignored, Instance, Settings};
use super::learn::Starts;
use super::live::{Failure, LiveApp, Stage, View};
use crate::domain::load::Share;
use crate::domain::moment::Moment;
use crate::domain::protocol::app::{Failed, Park, Sleep, Starting, Unpark};
use crate::domain::protocol::route_uri::RouteUri;

/// How long an app that is awake is remembered, for what was learnt about it and so that late messages lose.
const AWAKE_MEMORY: Duration = Duration::from_secs(7 * 24 * 3600);
/// The same for an app that was forgotten or never slept.
const SHORT_MEMORY: Duration = Duration::from_secs(3600);
/// Instances of one sleep that are remembered as leaving.
const LEAVING_MAX: usize = 1024;

/// What one step of an app needs from around it.
pub(super) struct Turn<'a> {
    pub(super) settings: &'a Settings,
    /// The bus is there.
    pub(super) connected: bool,
    pub(super) now: Moment,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    fn can_ask(&self) -> bool {
        self.connected || !self.settings.asks_over_bus
    }
}

/// One app that sleeps, has slept, or was asked to.
#[derive(Debug)]
pub(super) struct Episode {
    live: Arc<LiveApp>,
    phase: Phase,
    /// Highest epoch heard of.
    epoch: u64,
    /// Epoch of the last sleep; one sleep is entered once.
    slept: Option<u64>,
    /// Epoch of a park that was neither called off nor followed by its sleep.
    parked: Option<u64>,
    /// Highest epoch whose park was called off.
    called_off: Option<u64>,
    /// The same, if it was this router that did so.
    called_off_here: Option<u64>,
    name: Option<ArcStr>,
    uris: Arc<[RouteUri]>,
    ready_after: Option<Duration>,
    starts: Starts,
    leaving: Vec<Instance>,
    leaving_until: Moment,
    /// Starts asked for since the app fell asleep.
    asked: u32,
}

#[derive(Debug)]
enum Phase {
    Awake { forget_at: Moment },
    Sleeping,
    Starting(Start),
    Failed { since: Moment, failure: Failure, attempt: u32, retry_at: Moment },
}

#[derive(Debug)]
struct Start {
    since: Moment,
    deadline: Moment,
    progress: Option<Share>,
    message: Option<ArcStr>,
    /// `None`: it is other routers' visitors who want the app.
    ours: Option<Ours>,
}

/// A start that this router asks for.
#[derive(Debug)]
struct Ours {
    uri: ArcStr,
    /// Of this episode, from 1.
    attempt: u32,
    /// That attempt has failed; `next_ask` begins another.
    backing_off: bool,
    last_ask: Option<Moment>,
    /// `None`: whoever carries the ask has it and will tell if it failed.
    next_ask: Option<Moment>,
    period: Duration,
}

impl Episode {
    pub(super) fn new(live: Arc<LiveApp>, now: Moment) -> Episode {
        Episode {
            live,
            phase: Phase::Awake { forget_at: now + SHORT_MEMORY },
            epoch: 0,
            slept: None,
            parked: None,
            called_off: None,
            called_off_here: None,
            name: None,
            uris: Arc::new([]),
            ready_after: None,
            starts: Starts::default(),
            leaving: Vec::new(),
            leaving_until: now,
            asked: 0,
        }
    }

    /// Where the app is.
    pub(super) fn stage(&self) -> Stage {
        match self.phase {
            Phase::Awake { .. } if self.parked.is_some() => Stage::Parking,
            Phase::Awake { .. } => Stage::Awake,
            Phase::Sleeping => Stage::Sleeping,
            Phase::Starting(_) => Stage::Starting,
            Phase::Failed { .. } => Stage::Failed,
        }
    }

    /// The message that made the app sleep, for those who missed it.
    pub(super) fn as_message(&self) -> Option<Sleep> {
        let epoch = self.slept.filter(|_| self.stage().is_asleep())?;
        Some(Sleep {
            app: self.live.app().clone(),
            uris: self.uris.clone(),
            epoch,
            ready_after: self.expected(),
            name: self.name.clone(),
        })
    }

    /// When `tick` has something to do.
    pub(super) fn due(&self, connected: bool, settings: &Settings) -> Option<Moment> {
        match &self.phase {
            Phase::Awake { .. } if self.parked.is_some() => None,
            Phase::Awake { forget_at } => Some(*forget_at),
            Phase::Sleeping | Phase::Failed { .. } => None,
            Phase::Starting(start) => {
                let next_ask = start.ours.as_ref().and_then(|ours| ours.next_ask);
                let next_ask = next_ask.filter(|_| connected || !settings.asks_over_bus);
                // No instance can register while the bus is away, so that time does not count.
                let deadline = connected.then_some(start.deadline);
                next_ask.into_iter().chain(deadline).min()
            }
        }
    }

    /// Time has passed. `true`: there is nothing left worth remembering.
    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) -> bool {
        match &mut self.phase {
            Phase::Awake { forget_at } => return self.parked.is_none() && turn.now >= *forget_at,
            Phase::Sleeping | Phase::Failed { .. } => {}
            Phase::Starting(start) if turn.connected && turn.now >= start.deadline => {
                if start.ours.is_some() {
                    let _wait = self.fail(Failure::TooLate, None, turn);
                } else {
                    self.enter(Phase::Sleeping, turn);
                }
            }
            Phase::Starting(_) => self.ask_if_due(turn),
        }
        false
    }

    /// A controller asks whether the app is used.
    pub(super) fn park(&mut self, park: &Park, turn: &mut Turn<'_>) -> Result<(), Ignored> {
        if park.epoch < self.epoch {
            return Err(Ignored::Stale);
        }
        self.epoch = park.epoch;
        // A repeat of what was called off or has been slept since parks nothing, but is answered: the figures are true.
        if self.called_off < Some(park.epoch) && self.slept < Some(park.epoch) {
            self.parked = Some(park.epoch);
            self.tell_workers(turn);
        }
        if self.is_wanted_here() {
            self.call_off(turn);
        }
        // Read only now, after the workers can see the stage: `LiveApp::begin` says why.
        let answer = Effect::AnswerPark {
            app: self.live.app().clone(),
            in_flight: self.live.in_flight() + self.live.held() as u64,
            last_request_ago: self.live.last_request().map(|last| turn.now.since(last)),
        };
        turn.effects.push(answer);
        Ok(())
    }

    /// Another router has called a sleep off.
    pub(super) fn unpark(&mut self, unpark: &Unpark, turn: &mut Turn<'_>) -> Result<(), Ignored> {
        if unpark.epoch < self.epoch {
            return Err(Ignored::Stale);
        }
        if self.called_off >= Some(unpark.epoch) {
            return Err(Ignored::Repeated); // our own, as the bus brings it back
        }
        self.epoch = unpark.epoch;
        self.called_off = Some(unpark.epoch);
        if self.parked.take().is_some() {
            self.tell_workers(turn);
        }
        Ok(())
    }

    /// The controller has decided: the app sleeps. This wins over an `app.unpark` of the same epoch, in whichever order
    /// they come, since a controller sends it only if it did not hear of the other in time; and its instances go.
    pub(super) fn sleep(
        &mut self,
        sleep: &Sleep,
        instances: Vec<Instance>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Ignored> {
        if sleep.epoch < self.epoch {
            return Err(Ignored::Stale);
        }
        if self.slept >= Some(sleep.epoch) {
            return Err(Ignored::Repeated);
        }
        self.epoch = sleep.epoch;
        self.slept = Some(sleep.epoch);
        self.parked = None;
        self.name = sleep.name.clone();
        self.uris = sleep.uris.clone();
        self.ready_after = sleep.ready_after;
        self.leaving = instances;
        self.leaving.truncate(LEAVING_MAX);
        self.leaving_until = turn.now + turn.settings.leaving;
        self.asked = 0;
        self.enter(Phase::Sleeping, turn);
        turn.effects.extend(self.as_message().map(Effect::Asleep));
        // Somebody waits, or the controller never heard that the sleep was called off here.
        if self.live.held() > 0 || self.called_off_here == Some(sleep.epoch) {
            let uri = self.uris.first().map_or_else(ArcStr::new, |uri| uri.shared().clone());
            return self.want(uri, turn);
        }
        Ok(())
    }

    /// Somebody stands at the door and asks for `uri`.
    pub(super) fn want(&mut self, uri: ArcStr, turn: &mut Turn<'_>) -> Result<(), Ignored> {
        let was_parked = self.parked.is_some();
        self.call_off(turn);
        let now = turn.now;
        let ours = |next_ask: Moment| Ours {
            uri,
            attempt: 1,
            backing_off: false,
            last_ask: None,
            next_ask: Some(next_ask),
            period: turn.settings.retry,
        };
        match &mut self.phase {
            Phase::Awake { .. } if was_parked => return Ok(()),
            Phase::Awake { .. } => return Err(Ignored::OutOfPlace),
            Phase::Failed { retry_at, .. } if now < *retry_at => return Err(Ignored::OutOfPlace),
            Phase::Sleeping | Phase::Failed { .. } => {
                let deadline = now + turn.settings.deadline;
                let ours = Some(ours(now));
                self.phase = Phase::Starting(Start { since: now, deadline, progress: None, message: None, ours });
            }
            Phase::Starting(start) if start.ours.is_none() => {
                // Somebody is at it already: ask only if that comes to nothing.
                start.ours = Some(ours(now + turn.settings.retry));
                start.deadline = now + turn.settings.deadline;
            }
            Phase::Starting(_) => return Err(Ignored::Repeated),
        }
        self.tell_workers(turn);
        self.ask_if_due(turn);
        Ok(())
    }

    /// Whoever starts apps says that it is at it.
    pub(super) fn starting(&mut self, starting: &Starting, turn: &mut Turn<'_>) -> Result<(), Ignored> {
        self.must_be_asleep_at(starting.epoch)?;
        if !matches!(self.phase, Phase::Starting(_)) {
            let (since, deadline) = (turn.now, turn.now + turn.settings.deadline);
            self.phase = Phase::Starting(Start { since, deadline, progress: None, message: None, ours: None });
        }
        if let Phase::Starting(start) = &mut self.phase {
            start.progress = starting.progress.or(start.progress);
            start.message = starting.message.clone().or(start.message.take());
        }
        self.tell_workers(turn);
        Ok(())
    }

    /// Whoever starts apps says that this start failed. `retry_in`: it knows itself when another try is worth while.
    pub(super) fn failed(
        &mut self,
        failed: &Failed,
        retry_in: Option<Duration>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Ignored> {
        self.must_be_asleep_at(failed.epoch)?;
        if let Some(attempt) = failed.attempt {
            if attempt < self.asked {
                return Err(Ignored::Stale); // about a start before the last one
            }
            // The routers count on together: what is asked for next has the same number whoever asks.
            let is_another = attempt > std::mem::replace(&mut self.asked, attempt);
            if is_another
                && let Phase::Starting(Start { ours: Some(ours), .. }) = &mut self.phase
                && ours.backing_off
            {
                // Another router did not wait as long as this one, and that try has failed as well.
                ours.backing_off = false;
                ours.attempt += 1;
            }
        }
        match &self.phase {
            Phase::Sleeping if retry_in.is_some_and(|wait| !wait.is_zero()) => {
                self.fail(Failure::Told(failed.message.clone()), retry_in, turn);
                Ok(())
            }
            Phase::Awake { .. } | Phase::Sleeping => Err(Ignored::OutOfPlace),
            Phase::Failed { .. } => Err(Ignored::Repeated),
            Phase::Starting(_) => {
                let is_of_all = failed.attempt.is_some() || turn.settings.asks_over_bus;
                self.try_failed(failed.message.clone(), retry_in, is_of_all, turn)
            }
        }
    }

    /// The ask with this number could not be delivered, or was refused.
    pub(super) fn refused(
        &mut self,
        epoch: u64,
        attempt: u32,
        message: ArcStr,
        for_all: bool,
        turn: &mut Turn<'_>,
    ) -> Result<(), Ignored> {
        self.must_be_asleep_at(epoch)?;
        match &self.phase {
            Phase::Starting(Start { ours: Some(_), .. }) if self.asked == attempt => {
                self.try_failed(message, None, for_all, turn)
            }
            _ => Err(Ignored::Stale),
        }
    }

    /// One try of a start failed: try again after a while, or give up. `is_of_all`: it was not for this router alone.
    fn try_failed(
        &mut self,
        message: ArcStr,
        retry_in: Option<Duration>,
        is_of_all: bool,
        turn: &mut Turn<'_>,
    ) -> Result<(), Ignored> {
        let Phase::Starting(start) = &mut self.phase else { return Err(Ignored::OutOfPlace) };
        let gives_up = retry_in.is_some_and(|wait| !wait.is_zero());
        match &mut start.ours {
            // Before the first ask, or between two: this is about a start that was known to have failed.
            Some(ours) if !gives_up && (ours.backing_off || ours.last_ask.is_none()) => return Err(Ignored::Repeated),
            Some(ours) if ours.attempt < turn.settings.tries && retry_in.is_none() => {
                let settings = turn.settings;
                let wait = settings.retry.saturating_mul(1 << ours.attempt.min(16)).min(settings.retry_max);
                let earliest = ours.last_ask.map_or(turn.now, |last| last + ours.period);
                ours.backing_off = true;
                ours.next_ask = Some(earliest.max(turn.now + wait));
                ours.period = settings.retry;
                start.progress = None;
                start.message = Some(message);
                self.tell_workers(turn);
            }
            Some(_) if retry_in.is_none() && is_of_all => {
                let wait = self.fail(Failure::Told(message.clone()), None, turn);
                let (app, epoch, attempt) = (self.live.app().clone(), self.epoch, self.asked);
                turn.effects.push(Effect::GaveUp { app, epoch, attempt, message, retry_in: wait });
            }
            Some(_) | None => {
                self.fail(Failure::Told(message), retry_in, turn);
            }
        }
        Ok(())
    }

    /// An instance of this app gave a sign of life. While the app sleeps that is a reason to probe it.
    pub(super) fn registered(&mut self, instance: Instance, turn: &mut Turn<'_>) -> Result<(), Ignored> {
        if !self.stage().is_asleep() {
            return Ok(());
        }
        if self.is_leaving(&instance, turn.now) {
            return Err(Ignored::Leaving);
        }
        turn.effects.push(Effect::Probe { app: self.live.app().clone(), instance });
        Ok(())
    }

    /// An instance is gone for good; what registers at its address from now on is another.
    pub(super) fn gone(&mut self, instance: &Instance) {
        self.leaving.retain(|leaving| leaving != instance);
    }

    /// An instance of this app answers this router.
    pub(super) fn ready(&mut self, instance: &Instance, turn: &mut Turn<'_>) -> Result<(), Ignored> {
        if !self.stage().is_asleep() {
            return Err(Ignored::Repeated);
        }
        if self.is_leaving(instance, turn.now) {
            return Err(Ignored::Leaving);
        }
        let took = match &self.phase {
            Phase::Starting(start) => Some((turn.now.since(start.since), start)),
            Phase::Awake { .. } | Phase::Sleeping | Phase::Failed { .. } => None,
        };
        // What failed first says little about how long a start takes.
        if let Some((took, start)) = took
            && start.ours.as_ref().is_none_or(|ours| ours.attempt == 1)
        {
            self.starts.learn(took);
        }
        let took = took.map(|(took, _)| took);
        self.leaving = Vec::new();
        self.enter(Phase::Awake { forget_at: turn.now + AWAKE_MEMORY }, turn);
        turn.effects.push(Effect::Awake { app: self.live.app().clone(), epoch: self.epoch, took });
        Ok(())
    }

    /// The app is no more. What is known about epochs stays a while, so that late messages do not bring it back.
    pub(super) fn forget(&mut self, turn: &mut Turn<'_>) {
        let was_asleep = self.stage().is_asleep();
        let uris = std::mem::replace(&mut self.uris, Arc::new([]));
        self.parked = None;
        self.starts = Starts::default();
        self.enter(Phase::Awake { forget_at: turn.now + SHORT_MEMORY }, turn);
        if was_asleep {
            turn.effects.push(Effect::Forgotten { app: self.live.app().clone(), uris });
        }
    }

    /// The bus came back or went away.
    pub(super) fn bus_changed(&mut self, turn: &mut Turn<'_>) {
        let Phase::Starting(start) = &mut self.phase else {
            if self.stage().is_asleep() {
                self.tell_workers(turn);
            }
            return;
        };
        if turn.connected {
            start.deadline = turn.now + turn.settings.deadline;
            if let Some(ours) = start.ours.as_mut().filter(|ours| turn.settings.asks_over_bus && !ours.backing_off) {
                ours.period = turn.settings.retry;
                ours.next_ask = Some(ours.last_ask.map_or(turn.now, |last| (last + ours.period).max(turn.now)));
            }
        }
        self.tell_workers(turn);
        self.ask_if_due(turn);
    }

    fn ask_if_due(&mut self, turn: &mut Turn<'_>) {
        let can_ask = turn.can_ask();
        let Phase::Starting(Start { ours: Some(ours), .. }) = &mut self.phase else { return };
        if !can_ask || ours.next_ask.is_none_or(|next| turn.now < next) {
            return;
        }
        let begins_anew = ours.backing_off;
        if begins_anew {
            ours.backing_off = false;
            ours.attempt += 1;
        }
        if begins_anew || ours.last_ask.is_none() {
            self.asked = self.asked.saturating_add(1);
        }
        ours.last_ask = Some(turn.now);
        ours.next_ask = turn.settings.asks_over_bus.then(|| turn.now + ours.period);
        let (uri, attempt) = (ours.uri.clone(), self.asked);
        ours.period = (ours.period * 2).min(turn.settings.retry_max);
        turn.effects.push(Effect::Ask(Ask { app: self.live.app().clone(), uri, epoch: self.epoch, attempt }));
        if begins_anew {
            self.tell_workers(turn);
        }
    }

    /// The time until it may be tried again.
    fn fail(&mut self, failure: Failure, retry_in: Option<Duration>, turn: &mut Turn<'_>) -> Duration {
        // Not even a start that fails at once is asked for faster than that.
        let wait = retry_in.unwrap_or(turn.settings.retry_failed_after).max(turn.settings.retry);
        let (retry_at, attempt) = (turn.now + wait, self.attempt());
        self.enter(Phase::Failed { since: turn.now, failure, attempt, retry_at }, turn);
        turn.effects.push(Effect::Failed { app: self.live.app().clone() });
        wait
    }

    /// Calls the park off, if there is one.
    fn call_off(&mut self, turn: &mut Turn<'_>) {
        let Some(epoch) = self.parked.take() else { return };
        self.called_off = Some(epoch);
        self.called_off_here = Some(epoch);
        self.tell_workers(turn);
        turn.effects.push(Effect::Unpark { app: self.live.app().clone(), epoch });
    }

    /// Only an app that sleeps can start or fail, and only from the sleep it is in (or a later one that we missed).
    fn must_be_asleep_at(&mut self, epoch: u64) -> Result<(), Ignored> {
        if self.slept > Some(epoch) {
            return Err(Ignored::Stale);
        }
        if !self.stage().is_asleep() {
            return Err(Ignored::OutOfPlace);
        }
        self.slept = Some(epoch);
        self.epoch = self.epoch.max(epoch);
        Ok(())
    }

    fn is_wanted_here(&self) -> bool {
        self.live.held() > 0 || matches!(&self.phase, Phase::Starting(start) if start.ours.is_some())
    }

    fn is_leaving(&self, instance: &Instance, now: Moment) -> bool {
        now < self.leaving_until && self.leaving.contains(instance)
    }

    fn attempt(&self) -> u32 {
        match &self.phase {
            Phase::Starting(Start { ours: Some(ours), .. }) => ours.attempt,
            Phase::Failed { attempt, .. } => *attempt,
            Phase::Awake { .. } | Phase::Sleeping | Phase::Starting(_) => 0,
        }
    }

    fn expected(&self) -> Option<Duration> {
        self.starts.expected().or(self.ready_after)
    }

    fn enter(&mut self, phase: Phase, turn: &Turn<'_>) {
        self.phase = phase;
        self.tell_workers(turn);
    }

    /// Publishes the stage and what visitors may know of it.
    fn tell_workers(&self, turn: &Turn<'_>) {
        let mut view = View {
            stage: self.stage(),
            epoch: self.epoch,
            name: self.name.clone(),
            since: turn.now,
            expected: self.expected(),
            attempt: self.attempt(),
            unreachable: !turn.can_ask(),
            ..View::default()
        };
        match &self.phase {
            Phase::Awake { .. } | Phase::Sleeping => {}
            Phase::Starting(start) => {
                view.since = start.since;
                view.progress = start.progress;
                view.message = start.message.clone();
            }
            Phase::Failed { since, failure, retry_at, .. } => {
                view.since = *since;
                view.failure = Some(failure.clone());
                view.retry_at = Some(*retry_at);
            }
        }
        self.live.show(view);
    }
}

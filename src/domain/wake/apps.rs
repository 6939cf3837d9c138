//! All apps of a router: which of them sleep, and what the workers share about each. Owned by the control plane.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arcstr::ArcStr;

use super::effect::{Effect, Ignored, Instance, Settings};
use super::episode::{Episode, Turn};
use super::live::{LiveApp, Stage};
use super::lives::LiveApps;
use crate::domain::identity::AppId;
use crate::domain::moment::Moment;
use crate::domain::protocol::app::{Failed, Forget, Park, Sleep, Starting, Unpark};

/// Everything that can happen to a sleeping app, or to one that is asked to sleep.
#[derive(Clone, Debug)]
pub enum Happening {
    /// `app.park` came.
    Park(Park),
    /// `app.unpark` came.
    Unpark(Unpark),
    /// `app.sleep` came, or was found in the bucket or in the answer to `app.list`; with the instances that the app has
    /// in the table at this time.
    Sleep(Sleep, Vec<Instance>),
    /// `app.starting` came.
    Starting(Starting),
    /// `app.failed` came; with the time until its `retry_at`, if it has one.
    Failed(Failed, Option<Duration>),
    /// `app.forget` came.
    Forget(Forget),
    /// A worker was told by `LiveApp::knock` that somebody wants this app.
    Wanted {
        /// The app.
        app: AppId,
        /// The route that was asked for.
        uri: ArcStr,
    },
    /// The start that `Effect::Ask` asked for failed, or could not be asked for (not for asks over the bus).
    Refused {
        /// The app.
        app: AppId,
        /// As in the ask.
        epoch: u64,
        /// As in the ask.
        attempt: u32,
        /// Why, for the visitor.
        message: ArcStr,
        /// The other routers left the start to this one.
        for_all: bool,
    },
    /// An instance registered, or its heartbeat came.
    Registered {
        /// The app.
        app: AppId,
        /// Its instance.
        instance: Instance,
    },
    /// An instance left: unregistered, exited, or its lease ran out.
    Gone {
        /// The app.
        app: AppId,
        /// Its instance.
        instance: Instance,
    },
    /// A probed instance answers.
    Ready {
        /// The app.
        app: AppId,
        /// Its instance.
        instance: Instance,
    },
    /// The bus is connected.
    BusUp,
    /// The bus is not connected (as at the beginning).
    BusDown,
    /// Time has passed: `Apps::due` has come.
    Tick,
}

/// The apps of one router.
#[derive(Debug)]
pub struct Apps {
    settings: Settings,
    /// As it signs its messages.
    router: ArcStr,
    connected: bool,
    lives: Arc<LiveApps>,
    episodes: HashMap<AppId, Timed>,
    due: BTreeSet<(Moment, AppId)>,
}

#[derive(Debug)]
struct Timed {
    episode: Episode,
    due: Option<Moment>,
}

impl Apps {
    /// Nobody sleeps yet and the bus is not there. `router`: the id it signs messages with.
    pub fn new(router: &str, settings: Settings, lives: Arc<LiveApps>) -> Apps {
        Apps {
            settings,
            router: router.into(),
            connected: false,
            lives,
            episodes: HashMap::new(),
            due: BTreeSet::new(),
        }
    }

    /// New settings hold from the next step of each app on.
    pub fn reconfigure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// What the workers share about `app`.
    pub fn live(&self, app: &AppId) -> Arc<LiveApp> {
        self.lives.of(app)
    }

    /// What the workers share about all of them.
    pub fn lives(&self) -> &Arc<LiveApps> {
        &self.lives
    }

    /// Where `app` is between awake and asleep.
    pub fn stage(&self, app: &AppId) -> Stage {
        self.episodes.get(app).map_or(Stage::Awake, |timed| timed.episode.stage())
    }

    /// The sleeping apps as the messages that made them sleep: the answer to `app.list`.
    pub fn sleeping(&self) -> impl Iterator<Item = Sleep> {
        self.episodes.values().filter_map(|timed| timed.episode.as_message())
    }

    /// When `Happening::Tick` is due next.
    pub fn due(&self) -> Option<Moment> {
        self.due.first().map(|(moment, _)| *moment)
    }

    /// Takes in what happened and returns what is to be done.
    ///
    /// # Errors
    /// Why it had no effect, which is ordinary (messages are late, repeated, or about nothing known) but worth counting.
    pub fn handle(&mut self, happening: Happening, now: Moment) -> Result<Vec<Effect>, Ignored> {
        let mut effects = Vec::new();
        match happening {
            Happening::Park(park) => {
                self.known_or_new(&park.app, now)?;
                self.step(&park.app, now, &mut effects, |episode, turn| episode.park(&park, turn))?;
            }
            Happening::Unpark(unpark) => {
                if unpark.router == self.router {
                    return Err(Ignored::Repeated); // the bus brings back what we publish
                }
                self.known_or_new(&unpark.app, now)?;
                self.step(&unpark.app, now, &mut effects, |episode, turn| episode.unpark(&unpark, turn))?;
            }
            Happening::Sleep(sleep, instances) => {
                self.known_or_new(&sleep.app, now)?;
                self.step(&sleep.app, now, &mut effects, |episode, turn| episode.sleep(&sleep, instances, turn))?;
            }
            Happening::Starting(starting) => {
                self.step(&starting.app, now, &mut effects, |episode, turn| episode.starting(&starting, turn))?;
            }
            Happening::Failed(failed, retry_in) => {
                self.step(&failed.app, now, &mut effects, |episode, turn| episode.failed(&failed, retry_in, turn))?;
            }
            Happening::Forget(forget) => self.step(&forget.app, now, &mut effects, |episode, turn| {
                episode.forget(turn);
                Ok(())
            })?,
            Happening::Wanted { app, uri } => {
                self.step(&app, now, &mut effects, |episode, turn| episode.want(uri, turn))?;
            }
            Happening::Refused { app, epoch, attempt, message, for_all } => {
                let refuse = |episode: &mut Episode, turn: &mut Turn<'_>| {
                    episode.refused(epoch, attempt, message, for_all, turn)
                };
                self.step(&app, now, &mut effects, refuse)?;
            }
            // Of the heartbeats of a large platform nearly all are about apps that never slept: they end here.
            Happening::Registered { app, instance } if self.episodes.contains_key(&app) => {
                self.step(&app, now, &mut effects, |episode, turn| episode.registered(instance, turn))?;
            }
            Happening::Registered { .. } => {}
            Happening::Gone { app, instance } => {
                if let Some(timed) = self.episodes.get_mut(&app) {
                    timed.episode.gone(&instance);
                }
            }
            Happening::Ready { app, instance } => {
                self.step(&app, now, &mut effects, |episode, turn| episode.ready(&instance, turn))?;
            }
            Happening::BusUp => self.bus_is(true, now, &mut effects),
            Happening::BusDown => self.bus_is(false, now, &mut effects),
            Happening::Tick => self.tick(now, &mut effects),
        }
        Ok(effects)
    }

    fn known_or_new(&mut self, app: &AppId, now: Moment) -> Result<(), Ignored> {
        if self.episodes.contains_key(app) {
            return Ok(());
        }
        if self.episodes.len() >= self.settings.apps_max {
            return Err(Ignored::TooMany);
        }
        let episode = Episode::new(self.live(app), now);
        self.episodes.insert(app.clone(), Timed { episode, due: None });
        Ok(())
    }

    fn step(
        &mut self,
        app: &AppId,
        now: Moment,
        effects: &mut Vec<Effect>,
        step: impl FnOnce(&mut Episode, &mut Turn<'_>) -> Result<(), Ignored>,
    ) -> Result<(), Ignored> {
        let Some(timed) = self.episodes.get_mut(app) else { return Err(Ignored::OutOfPlace) };
        let mut turn = Turn { settings: &self.settings, connected: self.connected, now, effects };
        let outcome = step(&mut timed.episode, &mut turn);
        let due = timed.episode.due(self.connected, &self.settings);
        if due != timed.due {
            if let Some(before) = std::mem::replace(&mut timed.due, due) {
                self.due.remove(&(before, app.clone()));
            }
            self.due.extend(due.map(|due| (due, app.clone())));
        }
        outcome
    }

    fn tick(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let due: Vec<AppId> = self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, app)| app.clone()).collect();
        for app in due {
            let mut is_over = false;
            let ticked = self.step(&app, now, effects, |episode, turn| {
                is_over = episode.tick(turn);
                Ok(())
            });
            debug_assert_eq!(ticked, Ok(()), "a timer outlived its app");
            if is_over
                && let Some(timed) = self.episodes.remove(&app)
                && let Some(due) = timed.due
            {
                self.due.remove(&(due, app));
            }
        }
    }

    fn bus_is(&mut self, connected: bool, now: Moment, effects: &mut Vec<Effect>) {
        if std::mem::replace(&mut self.connected, connected) == connected {
            return;
        }
        let asleep = |timed: &Timed| timed.episode.stage().is_asleep();
        let apps: Vec<AppId> =
            self.episodes.iter().filter(|(_, timed)| asleep(timed)).map(|(app, _)| app.clone()).collect();
        for app in apps {
            let changed = self.step(&app, now, effects, |episode, turn| {
                episode.bus_changed(turn);
                Ok(())
            });
            debug_assert_eq!(changed, Ok(()), "the app was found a line above");
        }
    }
}

//! A controller as docs/PROTOCOL.md describes it: it parks idle apps, puts them to sleep, and starts them when asked to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arcstr::ArcStr;
use weighbridge::domain::identity::AppId;
use weighbridge::domain::load::Share;
use weighbridge::domain::moment::Moment;
use weighbridge::domain::protocol::app::{self, Failed, Park, ParkAnswer, Sleep, Starting, Unpark, Wake};
use weighbridge::domain::protocol::route_uri::RouteUri;
use weighbridge::domain::wake::Stage;

use super::router::Router;
use super::world::{APPS, Around, Letter, ROUTERS, app_name};
use super::{Weather, chance};

const HEARTBEAT: Duration = Duration::from_secs(2);

pub struct Controller {
    apps: Vec<App>,
    /// It tells repeats of an ask from new ones, and does not start again what failed when only a late repeat comes.
    careful: bool,
}

struct App {
    id: AppId,
    epoch: u64,
    state: State,
    instances: Vec<Instance>,
    born: u32,
    /// Of the present sleep: the highest ask of each router that came to nothing.
    failed: BTreeMap<ArcStr, u32>,
    answers: BTreeSet<ArcStr>,
    /// Starts of the present sleep.
    starts: u32,
    last_park: Moment,
    last_sleep: Moment,
    last_heartbeat: Moment,
    /// When it fell asleep or woke up.
    changed: Moment,
    /// A request called a park off at this time.
    called_off: Option<(u64, Moment)>,
}

#[derive(Debug, PartialEq)]
enum State {
    Running,
    Parking { until: Moment, unused: bool },
    Asleep,
    Starting { until: Moment, by: ArcStr, attempt: u32 },
}

struct Instance {
    name: String,
    stops_at: Option<Moment>,
}

impl Controller {
    pub fn new(careful: bool) -> Controller {
        let app = |app| App {
            id: AppId::new(&app_name(app)),
            epoch: 0,
            state: State::Running,
            instances: Vec::new(),
            born: 0,
            failed: BTreeMap::new(),
            answers: BTreeSet::new(),
            starts: 0,
            last_park: Moment::START,
            last_sleep: Moment::START,
            last_heartbeat: Moment::START,
            changed: Moment::START,
            called_off: None,
        };
        Controller { apps: (0..APPS).map(app).collect(), careful }
    }

    pub fn step(&mut self, around: &mut Around) {
        for app in &mut self.apps {
            app.step(around);
        }
    }

    pub fn receive(&mut self, letter: &Letter, around: &mut Around) {
        match letter.subject {
            "answer" => {
                if let Ok(answer) = ParkAnswer::decode(&letter.payload) {
                    self.app(&answer.app).answered(&answer);
                }
            }
            app::UNPARK => {
                if let Ok(unpark) = Unpark::decode(&letter.payload) {
                    self.app(&unpark.app).unparked(&unpark, around);
                }
            }
            app::WAKE => {
                if let Ok(wake) = Wake::decode(&letter.payload) {
                    let careful = self.careful;
                    self.app(&wake.app).asked(&wake, careful, around);
                }
            }
            other => panic!("{other}?"),
        }
    }

    fn app(&mut self, id: &AppId) -> &mut App {
        self.apps.iter_mut().find(|app| app.id == *id).expect("nobody invents apps")
    }

    /// `None`: on its way from one to the other, or so short a time ago that not everybody can have heard of it.
    pub fn is_asleep(&self, app: usize, now: Moment) -> Option<bool> {
        let app = &self.apps[app];
        match app.state {
            _ if now.since(app.changed) < Duration::from_secs(4) => None,
            State::Running => Some(false),
            State::Asleep => Some(true),
            State::Parking { .. } | State::Starting { .. } => None,
        }
    }

    /// A park that was called off two seconds ago is known to be so on every router.
    pub fn check_calls_off(&self, routers: &[Router], around: &Around) {
        for (index, app) in self.apps.iter().enumerate().filter(|_| around.strict) {
            let Some((epoch, at)) = app.called_off else { continue };
            let over = around.now.since(at) > Duration::from_secs(2) && epoch == app.epoch;
            if over && let Some(router) = routers.iter().find(|router| router.stage(index) == Stage::Parking) {
                around.wrong(&format!("{} still parks {} at {epoch}", router.name, app.id));
            }
        }
    }
}

impl App {
    fn step(&mut self, around: &mut Around) {
        let now = around.now;
        if self.born == 0 {
            self.give_birth(around);
        }
        self.instances.retain(|instance| instance.stops_at.is_none_or(|stops_at| now < stops_at));
        around.alive.retain(|name| !name.starts_with(self.id.as_str()));
        around.alive.extend(self.instances.iter().map(|instance| instance.name.clone()));
        if now.since(self.last_heartbeat) >= HEARTBEAT {
            self.last_heartbeat = now;
            for instance in &self.instances {
                around.send_to_routers("heartbeat", format!("{} {}", self.id, instance.name).as_bytes());
            }
        }
        match &self.state {
            State::Running if now.since(self.last_park) > Duration::from_secs(10) && chance(&mut around.dice, 0.02) => {
                self.park(around);
            }
            State::Parking { until, .. } if now >= *until => self.decide(around),
            // Repeats are free, and reach whom the first did not.
            State::Asleep | State::Starting { .. } if now.since(self.last_sleep) > Duration::from_secs(5) => {
                self.tell_sleep(around);
            }
            _ => {}
        }
        if matches!(&self.state, State::Starting { until, .. } if now >= *until) {
            self.end_start(around);
        }
    }

    fn give_birth(&mut self, around: &mut Around) {
        self.born += 1;
        self.instances.push(Instance { name: format!("{}/{}", self.id, self.born), stops_at: None });
        self.last_heartbeat = around.now;
        around.send_to_routers("heartbeat", format!("{} {}/{}", self.id, self.id, self.born).as_bytes());
    }

    fn park(&mut self, around: &mut Around) {
        self.epoch += 1;
        self.last_park = around.now;
        self.answers.clear();
        self.called_off = None;
        self.state = State::Parking { until: around.now + Duration::from_secs(2), unused: true };
        let park = Park { app: self.id.clone(), uris: [].into(), epoch: self.epoch };
        around.send_to_routers(app::PARK, &park.encode());
    }

    fn answered(&mut self, answer: &ParkAnswer) {
        if let State::Parking { unused, .. } = &mut self.state {
            // An answer says nothing of the epoch: a late one can only make the controller more careful.
            let idle = answer.in_flight == 0 && answer.last_request_ms_ago.is_none_or(|ago| ago > 4_000);
            *unused &= idle;
            self.answers.insert(answer.router.clone());
        }
    }

    fn unparked(&mut self, unpark: &Unpark, around: &mut Around) {
        if unpark.epoch != self.epoch {
            return;
        }
        match &mut self.state {
            State::Parking { .. } => {
                around.tally.unparks += 1;
                self.called_off = Some((self.epoch, around.now));
                self.state = State::Running;
            }
            // Too late to call it off: somebody wants it.
            State::Asleep => self.start(unpark.router.clone(), 0, around),
            State::Running | State::Starting { .. } => {}
        }
    }

    fn decide(&mut self, around: &mut Around) {
        let State::Parking { unused, .. } = self.state else { return };
        if !unused || self.answers.len() < ROUTERS {
            self.state = State::Running;
            return;
        }
        around.tally.sleeps += 1;
        self.state = State::Asleep;
        self.changed = around.now;
        self.starts = 0;
        self.failed.clear();
        for instance in &mut self.instances {
            instance.stops_at = instance.stops_at.or(Some(around.now + Duration::from_secs(5)));
        }
        self.tell_sleep(around);
    }

    fn tell_sleep(&mut self, around: &mut Around) {
        self.last_sleep = around.now;
        let uri = RouteUri::parse(&format!("{}.test", self.id)).expect("a good route");
        let sleep =
            Sleep { app: self.id.clone(), uris: [uri].into(), epoch: self.epoch, ready_after: None, name: None };
        around.send_to_routers(app::SLEEP, &sleep.encode());
    }

    fn asked(&mut self, wake: &Wake, careful: bool, around: &mut Around) {
        if wake.epoch != self.epoch || self.state != State::Asleep {
            return;
        }
        if careful && self.failed.get(&wake.router) >= Some(&wake.attempt) {
            return self.tell_failure(around); // it did not hear of that, or this is a late repeat
        }
        self.start(wake.router.clone(), wake.attempt, around);
    }

    fn start(&mut self, by: ArcStr, attempt: u32, around: &mut Around) {
        around.tally.starts += 1;
        self.starts += 1;
        if around.strict && self.starts > 1 && around.now.since(self.last_park) < Duration::from_secs(100) {
            around.wrong(&format!("{} is started for the {}. time in one sleep", self.id, self.starts));
        }
        let until = around.now + around.seconds(1.0, 8.0);
        self.state = State::Starting { until, by, attempt };
        let progress = Share::reported(around.dice.share());
        let starting = Starting { app: self.id.clone(), epoch: self.epoch, instances: 1, progress, message: None };
        around.send_to_routers(app::STARTING, &starting.encode());
    }

    fn end_start(&mut self, around: &mut Around) {
        let fails = around.weather == Weather::Storm && chance(&mut around.dice, 0.6);
        if !fails {
            self.state = State::Running;
            self.last_park = around.now;
            self.changed = around.now;
            self.give_birth(around);
            return;
        }
        let State::Starting { by, attempt, .. } = std::mem::replace(&mut self.state, State::Asleep) else { return };
        around.tally.failures += 1;
        self.failed.insert(by, attempt);
        self.tell_failure(around);
    }

    fn tell_failure(&mut self, around: &mut Around) {
        let failed = Failed {
            app: self.id.clone(),
            epoch: self.epoch,
            message: "no room".into(),
            retry_at_unix_ms: None,
            attempt: None,
        };
        around.send_to_routers(app::FAILED, &failed.encode());
    }
}

//! A router as it will be wired: its apps, a table of instances, probes, and the requests it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use weighbridge::domain::identity::{Address, AppId, InstanceId};
use weighbridge::domain::moment::Moment;
use weighbridge::domain::protocol::app::{
    self, Failed, List, ListAnswer, Park, ParkAnswer, Sleep, Starting, Unpark, Wake,
};
use weighbridge::domain::wake::{
    Apps, Ask, Effect, Happening, Held, InFlight, Instance, Knock, LiveApp, Settings, Stage,
};

use super::chance;
use super::world::{Around, Letter, ROUTERS, To, app_name};

const LEASE: Duration = Duration::from_secs(15);
const HOLD: Duration = Duration::from_secs(30);

pub struct Router {
    index: usize,
    /// How often it was started.
    life: u32,
    pub name: String,
    apps: Apps,
    connected: bool,
    comes_back_at: Moment,
    /// Until when an instance of an app is known.
    table: BTreeMap<(AppId, String), Moment>,
    probes: Vec<(Moment, AppId, Instance)>,
    held: Vec<Waiting>,
    running: Vec<(Moment, InFlight<Arc<LiveApp>>)>,
    /// Of each app and sleep: the last ask.
    asked_at: BTreeMap<(AppId, u64), Moment>,
    /// Of each app: the asks since it last slept, woke or failed.
    attempts: BTreeMap<AppId, BTreeSet<u32>>,
    slept: BTreeMap<AppId, u64>,
}

struct Waiting {
    app: AppId,
    since: Moment,
    _place: Held<Arc<LiveApp>>,
}

fn id(app: usize) -> AppId {
    AppId::new(&app_name(app))
}

fn instance(name: &str) -> Instance {
    // All at one address: a new instance must not be taken for the one that was there before it.
    Instance { address: Address::new("10.0.0.1", 61001), id: InstanceId::new(name) }
}

impl Router {
    pub fn new(index: usize, life: u32, now: Moment) -> Router {
        let name = format!("router-{index}.{life}");
        let mut apps = Apps::new(&name, Settings::default(), Arc::default());
        apps.handle(Happening::BusUp, now).expect("the bus is new");
        Router {
            index,
            life,
            name,
            apps,
            connected: true,
            comes_back_at: now,
            table: BTreeMap::new(),
            probes: Vec::new(),
            held: Vec::new(),
            running: Vec::new(),
            asked_at: BTreeMap::new(),
            attempts: BTreeMap::new(),
            slept: BTreeMap::new(),
        }
    }

    pub fn stage(&self, app: usize) -> Stage {
        self.apps.stage(&id(app))
    }

    /// What a router may have to bear: its bus goes away for a while, or it is started anew.
    pub fn suffer(&mut self, around: &mut Around) {
        if self.connected && chance(&mut around.dice, 0.002) {
            self.connected = false;
            self.comes_back_at = around.now + around.seconds(1.0, 20.0);
            self.happened(Happening::BusDown, around);
        } else if !self.connected && around.now >= self.comes_back_at {
            self.connect(around);
        }
        if chance(&mut around.dice, 0.0005) {
            *self = Router::new(self.index, self.life + 1, around.now);
            self.ask_for_the_list(around);
        }
    }

    pub fn connect(&mut self, around: &mut Around) {
        if !std::mem::replace(&mut self.connected, true) {
            self.happened(Happening::BusUp, around);
            self.ask_for_the_list(around);
        }
    }

    fn ask_for_the_list(&mut self, around: &mut Around) {
        let list = List { router: self.name.as_str().into() };
        around.send_to_routers(app::LIST, &list.encode());
    }

    pub fn step(&mut self, around: &mut Around) {
        let now = around.now;
        self.table.retain(|_, until| now < *until);
        self.running.retain(|(until, _)| now < *until);
        for (_, app, instance) in self.probes.extract_if(.., |(at, _, _)| *at <= now).collect::<Vec<_>>() {
            if around.alive.iter().any(|name| name == instance.id.as_str()) {
                self.happened(Happening::Ready { app, instance }, around);
            }
        }
        if self.apps.due().is_some_and(|due| due <= now) {
            self.happened(Happening::Tick, around);
        }
        let before = self.held.len();
        self.held.retain(|waiting| now.since(waiting.since) < HOLD);
        if around.strict && self.held.len() < before {
            around.wrong(&format!("{} held a request in vain", self.name));
        }
    }

    pub fn request(&mut self, app: usize, around: &mut Around) {
        let (app, now) = (id(app), around.now);
        let live = self.apps.live(&app);
        if live.stage().is_asleep() {
            return self.hold(live, around);
        }
        let request = LiveApp::begin(live.clone(), now);
        if request.stage() == Stage::Parking && live.knock(Knock::Visit, now) {
            self.happened(Happening::Wanted { app: app.clone(), uri: "x.test".into() }, around);
        }
        if self.pick(&app, around).is_none() && around.strict {
            around.wrong(&format!("{} has nobody for {app}, which is {:?}", self.name, live.stage()));
        }
        let until = now + around.seconds(0.0, 3.0);
        around.tally.served += 1;
        self.running.push((until, request));
    }

    fn hold(&mut self, live: Arc<LiveApp>, around: &mut Around) {
        let app = live.app().clone();
        let failed = live.stage() == Stage::Failed;
        if live.knock(Knock::Visit, around.now) {
            self.happened(Happening::Wanted { app: app.clone(), uri: "x.test".into() }, around);
        }
        if failed && live.stage() == Stage::Failed {
            if around.strict {
                around.wrong(&format!("{app} has failed for good on {}", self.name));
            }
            return;
        }
        around.tally.held += 1;
        let place = LiveApp::hold(live, 1000).expect("fewer than a thousand visitors");
        self.held.push(Waiting { app, since: around.now, _place: place });
    }

    /// An instance that is known and up.
    fn pick(&self, app: &AppId, around: &Around) -> Option<&str> {
        let known = self.table.keys().filter(|(of, _)| of == app).map(|(_, name)| name.as_str());
        known.into_iter().find(|name| around.alive.iter().any(|alive| alive == name))
    }

    pub fn receive(&mut self, letter: &Letter, around: &mut Around) {
        if !self.connected {
            return;
        }
        let payload = &letter.payload;
        let happening = match letter.subject {
            "heartbeat" => return self.heartbeat(payload, around),
            app::LIST => return self.answer_list(payload, around),
            "list-answer" => {
                for sleep in ListAnswer::decode(payload).map(|answer| answer.apps).unwrap_or_default() {
                    self.sleep(sleep, around);
                }
                return;
            }
            app::SLEEP => {
                if let Ok(sleep) = Sleep::decode(payload) {
                    self.sleep(sleep, around);
                }
                return;
            }
            app::PARK => Park::decode(payload).map(Happening::Park),
            app::UNPARK => Unpark::decode(payload).map(Happening::Unpark),
            app::STARTING => Starting::decode(payload).map(Happening::Starting),
            app::FAILED => Failed::decode(payload).map(|failed| {
                let retry_in = failed.retry_in(unix_ms(around.now));
                Happening::Failed(failed, retry_in)
            }),
            other => panic!("{other}?"),
        };
        if let Ok(happening) = happening {
            self.happened(happening, around);
        }
    }

    fn sleep(&mut self, sleep: Sleep, around: &mut Around) {
        let instances =
            self.table.keys().filter(|(app, _)| *app == sleep.app).map(|(_, name)| instance(name)).collect();
        self.happened(Happening::Sleep(sleep, instances), around);
    }

    fn answer_list(&mut self, payload: &[u8], around: &mut Around) {
        let Ok(list) = List::decode(payload) else { return };
        let asker = (0..ROUTERS).find(|index| list.router.starts_with(&format!("router-{index}.")));
        let Some(asker) = asker.filter(|asker| *asker != self.index) else { return };
        for answer in ListAnswer::encode_all(&self.name, self.apps.sleeping()) {
            around.send(To::Router(asker), "list-answer", &answer);
        }
    }

    fn heartbeat(&mut self, payload: &[u8], around: &mut Around) {
        let text = String::from_utf8_lossy(payload);
        let Some((app, name)) = text.split_once(' ') else { return };
        let (app, known) = (AppId::new(app), instance(name));
        if !around.alive.iter().any(|alive| alive == name) {
            return; // a late one: an agent's numbers would tell
        }
        self.table.insert((app.clone(), name.to_owned()), around.now + LEASE);
        self.happened(Happening::Registered { app, instance: known }, around);
    }

    fn happened(&mut self, happening: Happening, around: &mut Around) {
        match self.apps.handle(happening, around.now) {
            Ok(effects) => effects.into_iter().for_each(|effect| self.effect(effect, around)),
            Err(_ignored) => around.tally.ignored += 1,
        }
    }

    fn effect(&mut self, effect: Effect, around: &mut Around) {
        match effect {
            Effect::Ask(Ask { app, uri, epoch, attempt }) => {
                self.check_ask(&app, epoch, attempt, around);
                let router = self.name.as_str().into();
                let wake = Wake { app, uri, epoch, router, at_unix_ms: 0, attempt };
                around.send(To::Controller, app::WAKE, &wake.encode());
            }
            Effect::Unpark { app, epoch } => {
                let unpark = Unpark { app, epoch, router: self.name.as_str().into() }.encode();
                around.send(To::Controller, app::UNPARK, &unpark);
                around.send_to_routers(app::UNPARK, &unpark);
            }
            Effect::AnswerPark { app, in_flight, last_request_ago } => {
                let last_request_ms_ago = last_request_ago.map(|ago| ago.as_millis() as u64);
                let answer = ParkAnswer { router: self.name.as_str().into(), app, in_flight, last_request_ms_ago };
                around.send(To::Controller, "answer", &answer.encode());
            }
            Effect::Asleep(Sleep { app, .. }) => {
                self.check_epoch(&app, around);
                self.table.retain(|(of, _), _| *of != app);
                self.attempts.remove(&app);
            }
            Effect::Probe { app, instance } => {
                let at = around.now + around.seconds(0.0, 0.5);
                self.probes.push((at, app, instance));
            }
            Effect::Awake { app, .. } => {
                self.attempts.remove(&app);
                let released = self.held.extract_if(.., |waiting| waiting.app == app).count();
                if released > 0 && around.strict && self.pick(&app, around).is_none() {
                    around.wrong(&format!("{} released {released} requests of {app} to nobody", self.name));
                }
            }
            Effect::Failed { app } => {
                self.attempts.remove(&app);
                let ended = self.held.extract_if(.., |waiting| waiting.app == app).count();
                if around.strict {
                    around.wrong(&format!("{} gave {app} up, with {ended} requests", self.name));
                }
            }
            Effect::GaveUp { app, epoch, attempt, message, retry_in } => {
                let retry_at_unix_ms = Some(unix_ms(around.now + retry_in));
                let failed = Failed { app, epoch, message, retry_at_unix_ms, attempt: Some(attempt) };
                around.send_to_routers(app::FAILED, &failed.encode());
            }
            Effect::Forgotten { .. } => around.wrong("nobody forgets in this world"),
        }
    }

    /// Never more than three starts for one failure, never two asks within the retry, never an older epoch.
    fn check_ask(&mut self, app: &AppId, epoch: u64, attempt: u32, around: &Around) {
        let attempts = self.attempts.entry(app.clone()).or_default();
        attempts.insert(attempt);
        if attempts.len() > 3 {
            around.wrong(&format!("{} asks for {app} once more: {attempts:?}", self.name));
        }
        let before = self.asked_at.insert((app.clone(), epoch), around.now);
        if before.is_some_and(|before| around.now.since(before) < Duration::from_secs(2)) {
            around.wrong(&format!("{} asks for {app} again too soon", self.name));
        }
        let newest = self.asked_at.keys().filter(|(of, _)| of == app).map(|(_, epoch)| *epoch).max();
        if newest > Some(epoch) {
            around.wrong(&format!("{} asks for {app} at {epoch} after {newest:?}", self.name));
        }
    }

    /// A sleep is entered once, and never one before the last.
    fn check_epoch(&mut self, app: &AppId, around: &Around) {
        let sleep = self.apps.sleeping().find(|sleep| sleep.app == *app).expect("it sleeps");
        let before = self.slept.insert(app.clone(), sleep.epoch);
        if before >= Some(sleep.epoch) {
            around.wrong(&format!("{} lets {app} sleep at {} after {before:?}", self.name, sleep.epoch));
        }
    }
}

/// The clocks of all routers agree.
fn unix_ms(now: Moment) -> u64 {
    now.as_nanos() / 1_000_000
}

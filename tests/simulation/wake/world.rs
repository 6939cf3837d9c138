//! The bus between routers and controller, the visitors, and the passing of time.

use std::ops::AddAssign;
use std::time::Duration;

use weighbridge::domain::dice::Dice;
use weighbridge::domain::moment::Moment;

use super::controller::Controller;
use super::router::Router;
use super::{Weather, chance};

pub const ROUTERS: usize = 3;
pub const APPS: usize = 3;
const STEP: Duration = Duration::from_millis(100);

/// Who gets a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Router(usize),
    Controller,
}

#[derive(Clone, Debug)]
pub struct Letter {
    pub to: To,
    pub subject: &'static str,
    pub payload: Vec<u8>,
}

/// What happened, to be sure that something did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub sleeps: u64,
    pub starts: u64,
    pub unparks: u64,
    pub failures: u64,
    pub held: u64,
    pub served: u64,
    pub ignored: u64,
    pub lost: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Tally) {
        self.sleeps += more.sleeps;
        self.starts += more.starts;
        self.unparks += more.unparks;
        self.failures += more.failures;
        self.held += more.held;
        self.served += more.served;
        self.ignored += more.ignored;
        self.lost += more.lost;
    }
}

/// What everybody in the world can see and use.
pub struct Around {
    pub now: Moment,
    pub dice: Dice,
    pub tally: Tally,
    pub weather: Weather,
    /// Nothing may go wrong any more.
    pub strict: bool,
    /// Whether an instance is up, by name.
    pub alive: Vec<String>,
    pub outbox: Vec<Letter>,
    /// For the message of a panic.
    pub seed: u64,
}

impl Around {
    pub fn send(&mut self, to: To, subject: &'static str, payload: &[u8]) {
        self.outbox.push(Letter { to, subject, payload: payload.to_vec() });
    }

    pub fn send_to_routers(&mut self, subject: &'static str, payload: &[u8]) {
        for router in 0..ROUTERS {
            self.send(To::Router(router), subject, payload);
        }
    }

    pub fn wrong(&self, what: &str) -> ! {
        let at = self.now.as_nanos() as f64 / 1e9;
        panic!("SIM_SEED={} at {at:.1} s: {what}", self.seed);
    }

    pub fn seconds(&mut self, from: f64, to: f64) -> Duration {
        Duration::from_secs_f64(from + (to - from) * self.dice.share())
    }
}

pub struct World {
    around: Around,
    routers: Vec<Router>,
    controller: Controller,
    /// On their way: when they arrive, and whether they are real (a lost one is not).
    letters: Vec<(Moment, Letter)>,
    pub tally: Tally,
}

pub fn app_name(app: usize) -> String {
    format!("app-{app}")
}

impl World {
    pub fn new(seed: u64) -> World {
        let around = Around {
            now: Moment::from_nanos(1_000_000_000),
            dice: Dice::seeded(seed),
            tally: Tally::default(),
            weather: Weather::Calm,
            strict: false,
            alive: Vec::new(),
            outbox: Vec::new(),
            seed,
        };
        let routers = (0..ROUTERS).map(|index| Router::new(index, 1, around.now)).collect();
        let controller = Controller::new(seed % 2 == 1);
        World { around, routers, controller, letters: Vec::new(), tally: Tally::default() }
    }

    pub fn run_for(&mut self, seconds: u64, weather: Weather) {
        self.around.weather = weather;
        if weather == Weather::Calm {
            for router in &mut self.routers {
                router.connect(&mut self.around);
            }
        }
        let end = self.around.now + Duration::from_secs(seconds);
        while self.around.now < end {
            self.step();
        }
        self.tally = self.around.tally;
    }

    pub fn be_strict(&mut self) {
        self.around.strict = true;
    }

    fn step(&mut self) {
        self.around.now = self.around.now + STEP;
        self.controller.step(&mut self.around);
        for router in &mut self.routers {
            if self.around.weather == Weather::Storm {
                router.suffer(&mut self.around);
            }
            router.step(&mut self.around);
        }
        self.visit();
        self.post();
        self.deliver();
        self.controller.check_calls_off(&self.routers, &self.around);
    }

    /// Every app has its times of being loved and of being left alone.
    fn visit(&mut self) {
        let minute = self.around.now.as_nanos() / 40_000_000_000;
        for app in 0..APPS {
            let loved = (minute + app as u64).is_multiple_of(3);
            let rate = if loved { 0.08 } else { 0.004 };
            if chance(&mut self.around.dice, rate) {
                let router = self.around.dice.below(ROUTERS);
                self.routers[router].request(app, &mut self.around);
            }
        }
    }

    /// The bus takes what was sent.
    fn post(&mut self) {
        for letter in std::mem::take(&mut self.around.outbox) {
            let around = &mut self.around;
            let storm = around.weather == Weather::Storm;
            let copies = if storm && chance(&mut around.dice, 0.1) { 2 } else { 1 };
            for _ in 0..copies {
                let late = match around.dice.share() {
                    share if storm && share < 0.02 => around.seconds(5.0, 60.0),
                    share if storm && share < 0.12 => around.seconds(0.3, 5.0),
                    _ => around.seconds(0.0, 0.3),
                };
                let lost = storm && chance(&mut around.dice, 0.1);
                let cut = storm && chance(&mut around.dice, 0.01);
                let mut letter = letter.clone();
                if cut {
                    letter.payload.pop();
                }
                if lost {
                    around.tally.lost += 1;
                } else {
                    self.letters.push((around.now + late, letter));
                }
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.around.now;
        let mut due: Vec<(Moment, Letter)> = self.letters.extract_if(.., |(at, _)| *at <= now).collect();
        due.sort_by_key(|(at, _)| *at);
        for (_, letter) in due {
            match letter.to {
                To::Router(index) => self.routers[index].receive(&letter, &mut self.around),
                To::Controller => self.controller.receive(&letter, &mut self.around),
            }
        }
    }

    /// Everybody knows of every app what is true.
    pub fn check_agreement(&mut self) {
        for app in 0..APPS {
            let truth = self.controller.is_asleep(app, self.around.now);
            let Some(truth) = truth else { continue }; // between two states
            for router in &self.routers {
                if router.stage(app).is_asleep() != truth {
                    self.around.wrong(&format!(
                        "app {app}: asleep is {truth}, but {} says {:?}",
                        router.name,
                        router.stage(app)
                    ));
                }
            }
        }
    }
}

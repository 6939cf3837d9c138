//! A discrete-event model of hosts, instances, heartbeats and several routers that drives the product's own `pick`,
//! `answered` and `recompute`. Hosts share their processors among the requests at work (processor sharing), antagonists
//! take part of them, heartbeats are stale, routers know nothing of each other. The same seed gives the same run.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use weighbridge::domain::balance::score::{ScoreConfig, recompute};
use weighbridge::domain::balance::{Fleet, Live, Outcome, State, Strategy, Wish, pick};
use weighbridge::domain::dice::Dice;
use weighbridge::domain::endpoint::{Endpoint, Facts};
use weighbridge::domain::identity::{Address, AgentId, InstanceId};
use weighbridge::domain::load::{Share, Usage};
use weighbridge::domain::moment::Moment;
use weighbridge::domain::table::snapshot::Pool;

/// Mean work of a request in CPU seconds of a host of speed 1.
pub const MEAN_WORK: f64 = 0.02;
/// From a router to an instance and back.
const ROUND_TRIP: f64 = 0.0005;
/// A response head that took longer is a failure.
const TIMEOUT: f64 = 10.0;
/// How long a host that is gone keeps a router waiting for a connection.
const CONNECT_TIMEOUT: f64 = 2.0;
/// A heartbeat on its way.
const HEARTBEAT_DELAY: f64 = 0.05;
const ATTEMPTS: usize = 3;
/// Host load is looked at so often.
const SAMPLING: f64 = 0.1;

/// A machine.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    pub cores: f64,
    pub speed: f64,
    /// Memory in use, a share.
    pub mem: f64,
    pub antagonist: Option<Antagonist>,
}

/// Somebody else's work on a host: this share of its cores for a while, then none for a while (means of exponential
/// times).
#[derive(Clone, Copy, Debug)]
pub struct Antagonist {
    pub share: f64,
    pub on: f64,
    pub off: f64,
}

/// One running copy of an app.
#[derive(Clone, Copy, Debug)]
pub struct Instance {
    pub host: usize,
    pub app: usize,
    /// What a request costs here, against the mean.
    pub cost: f64,
}

/// How much the work of requests differs, around the same mean.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    Exponential,
    /// Sigma of the logarithm.
    LogNormal(f64),
}

/// What happens to an instance or to the world in the course of a run.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// Connections are refused, requests at work are lost.
    Dies(usize),
    /// The whole machine is silent: connections time out.
    Vanishes(usize),
    /// Answers 503 at once.
    TurnsBlackHole(usize),
    /// Takes requests and never answers.
    Hangs(usize),
    /// Works again.
    Recovers(usize),
    /// A request costs this much there from now on.
    Costs(usize, f64),
    /// Takes no new requests (announced), but finishes what it has.
    Drains(usize),
    /// Announced as running after a restart.
    Starts(usize),
    /// No heartbeat is sent any more.
    HeartbeatsStop,
}

/// Arrivals come `factor` times as fast for `on` seconds, then rest at the rate that keeps the mean for `off` seconds.
#[derive(Clone, Copy, Debug)]
pub struct Bursts {
    pub factor: f64,
    pub on: f64,
    pub off: f64,
}

/// A world to balance in.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub hosts: Vec<Host>,
    pub instances: Vec<Instance>,
    pub routers: usize,
    /// Work asked for against what all hosts can do at cost 1.
    pub utilisation: f64,
    pub work: Work,
    pub bursts: Option<Bursts>,
    /// Share of the responses whose body goes on for a while after the head, and for how long, at no cost.
    pub streams: Option<(f64, f64)>,
    pub heartbeat: f64,
    /// Seconds after which clients give up, if they are less patient than the router.
    pub patience: Option<f64>,
    /// In order of time (seconds).
    pub changes: Vec<(f64, Change)>,
    /// Seconds that are not measured, then seconds that are.
    pub warm_up: f64,
    pub measured: f64,
}

impl Host {
    pub fn of_speed(speed: f64) -> Host {
        Host { cores: 4.0, speed, mem: 0.5, antagonist: None }
    }
}

impl Scenario {
    /// Hosts with one instance each of one app, three quarters used, two routers, heartbeats every five seconds.
    pub fn new(name: &'static str, hosts: Vec<Host>) -> Scenario {
        let instances = (0..hosts.len()).map(|host| Instance { host, app: 0, cost: 1.0 }).collect();
        Scenario {
            name,
            hosts,
            instances,
            routers: 2,
            utilisation: 0.75,
            work: Work::Exponential,
            bursts: None,
            streams: None,
            heartbeat: 5.0,
            patience: None,
            changes: Vec::new(),
            warm_up: 20.0,
            measured: 40.0,
        }
    }

    fn apps(&self) -> usize {
        self.instances.iter().map(|i| i.app + 1).max().unwrap_or(0)
    }

    fn arrival_rate(&self) -> f64 {
        self.utilisation * self.hosts.iter().map(|h| h.cores * h.speed).sum::<f64>() / MEAN_WORK
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Seconds to the response head as the client saw them, sorted; failures have theirs too.
    pub latencies: Vec<f64>,
    pub failures: usize,
    /// Attempts still counted as waiting for a response head, over those that really are: 0 unless a count leaks.
    pub miscounted: i64,
    /// Coefficient of variation of load (requests at work per core and speed) over the hosts, mean over time.
    pub unevenness: f64,
}

impl Measured {
    /// The latency that this share of the requests stayed within.
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((share * last as f64).round() as usize).copied().unwrap_or(0.0)
    }

    pub fn failure_rate(&self) -> f64 {
        self.failures as f64 / self.latencies.len().max(1) as f64
    }
}

/// Lives through the scenario once.
pub fn run(scenario: &Scenario, strategy: Strategy, seed: u64) -> Measured {
    World::new(scenario, strategy, seed).live()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    /// The next request at work on this host is done, if the host is still at this version.
    Done {
        host: usize,
        version: u64,
    },
    /// The instance answers without work.
    Answer503 {
        request: usize,
    },
    ConnectTimeout {
        request: usize,
    },
    TimeoutsDue,
    StreamEnds {
        router: usize,
        instance: usize,
    },
    AntagonistTurns {
        host: usize,
    },
    Measure {
        host: usize,
    },
    Reported {
        host: usize,
    },
    Change {
        index: usize,
    },
    BurstTurns,
    Sample,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Well,
    BlackHole,
    Hanging,
    Refusing,
    Silent,
}

struct Request {
    since: f64,
    /// When this attempt was sent.
    sent: f64,
    router: usize,
    app: usize,
    instance: usize,
    tried: Vec<u64>,
    /// The router has its answer (or has given up); the instance may still be at work.
    over: bool,
}

struct HostState {
    spec: Host,
    instances: Vec<usize>,
    antagonist_share: f64,
    /// Work done so far by a request that was here from the beginning: all at work progress alike.
    progress: f64,
    at: f64,
    version: u64,
    /// Progress at which each request at work is done.
    working: BinaryHeap<Reverse<(Progress, usize)>>,
    /// Since the last measurement: CPU seconds in all.
    used: f64,
    reported: Usage,
}

#[derive(Clone, Copy, PartialEq)]
struct Progress(f64);

impl Eq for Progress {}

impl PartialOrd for Progress {
    fn partial_cmp(&self, other: &Progress) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Progress {
    fn cmp(&self, other: &Progress) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

struct InstanceState {
    spec: Instance,
    condition: Condition,
    working: usize,
    /// Since the last measurement: CPU seconds of its own.
    used: f64,
    reported: Usage,
}

/// One router process: its own picture of everybody, shared with nobody.
struct Router {
    pools: Vec<Pool>,
    /// The live part of each instance, by instance.
    lives: Vec<Arc<Live>>,
}

struct World<'a> {
    scenario: &'a Scenario,
    dice: Dice,
    now: f64,
    end: f64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    queued: u64,
    hosts: Vec<HostState>,
    instances: Vec<InstanceState>,
    by_app: Vec<f64>,
    routers: Vec<Router>,
    requests: Vec<Request>,
    deadlines: VecDeque<(f64, usize)>,
    rate: f64,
    bursting: bool,
    heartbeats: bool,
    measured: Measured,
    samples: usize,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, strategy: Strategy, seed: u64) -> World<'a> {
        let hosts = (scenario.hosts.iter().enumerate())
            .map(|(host, &spec)| HostState {
                spec,
                instances: (0..scenario.instances.len()).filter(|&i| scenario.instances[i].host == host).collect(),
                antagonist_share: 0.0,
                progress: 0.0,
                at: 0.0,
                version: 0,
                working: BinaryHeap::new(),
                used: 0.0,
                reported: Usage::default(),
            })
            .collect();
        let instances = (scenario.instances.iter())
            .map(|&spec| InstanceState {
                spec,
                condition: Condition::Well,
                working: 0,
                used: 0.0,
                reported: Usage::default(),
            })
            .collect();
        // Traffic of an app in proportion to its instances.
        let mut by_app = vec![0.0; scenario.apps()];
        scenario.instances.iter().for_each(|i| by_app[i.app] += 1.0 / scenario.instances.len() as f64);
        let mut world = World {
            scenario,
            dice: Dice::seeded(seed),
            now: 0.0,
            end: scenario.warm_up + scenario.measured,
            queue: BinaryHeap::new(),
            queued: 0,
            hosts,
            instances,
            by_app,
            routers: (0..scenario.routers).map(|_| Router::new(scenario, strategy)).collect(),
            requests: Vec::new(),
            deadlines: VecDeque::new(),
            rate: scenario.arrival_rate(),
            bursting: false,
            heartbeats: true,
            measured: Measured::default(),
            samples: 0,
        };
        world.set_the_stage();
        world
    }

    fn set_the_stage(&mut self) {
        self.after(0.0, Event::Arrival);
        self.after(self.scenario.warm_up, Event::Sample);
        self.after(self.patience(), Event::TimeoutsDue);
        for host in 0..self.hosts.len() {
            let phase = self.dice.share() * self.scenario.heartbeat;
            self.after(phase, Event::Measure { host });
            if let Some(antagonist) = self.hosts[host].spec.antagonist {
                let first = self.exponential(antagonist.off);
                self.after(first, Event::AntagonistTurns { host });
            }
        }
        for (index, &(at, _)) in self.scenario.changes.iter().enumerate() {
            self.after(at, Event::Change { index });
        }
        if self.scenario.bursts.is_some() {
            self.after(0.0, Event::BurstTurns);
            self.bursting = true;
        }
    }

    fn live(mut self) -> Measured {
        while let Some(Reverse((at, _, event))) = self.queue.pop() {
            self.now = at as f64 * 1e-9;
            if self.now > self.end {
                break;
            }
            self.handle(event);
        }
        let counted: i64 = self.routers.iter().flat_map(|r| &r.lives).map(|live| i64::from(live.waiting())).sum();
        let waiting = self.requests.iter().filter(|request| !request.over).count() as i64;
        self.measured.miscounted = counted - waiting;
        self.measured.latencies.sort_unstable_by(f64::total_cmp);
        self.measured.unevenness /= self.samples.max(1) as f64;
        self.measured
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrival => self.arrive(),
            Event::Done { host, version } if self.hosts[host].version == version => self.one_is_done(host),
            Event::Done { .. } => {}
            Event::Answer503 { request } => {
                let latency = self.since_sent(request);
                self.answered(request, Outcome::of_status(503, latency));
                self.client_got(request, Err(()));
            }
            Event::ConnectTimeout { request } => self.connect_failed(request),
            Event::TimeoutsDue => self.time_out(),
            Event::StreamEnds { router, instance } => self.routers[router].lives[instance].finished(),
            Event::AntagonistTurns { host } => self.turn_antagonist(host),
            Event::Measure { host } => self.measure(host),
            Event::Reported { host } => self.report(host),
            Event::Change { index } => self.change(self.scenario.changes[index].1),
            Event::BurstTurns => self.turn_burst(),
            Event::Sample => self.sample_load(),
        }
    }

    fn after(&mut self, seconds: f64, event: Event) {
        self.queued += 1;
        let at = ((self.now + seconds) * 1e9).ceil() as u64;
        self.queue.push(Reverse((at, self.queued, event)));
    }

    fn moment(&self) -> Moment {
        Moment::from_nanos((self.now * 1e9) as u64)
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.dice.share()).ln()
    }

    fn work(&mut self) -> f64 {
        match self.scenario.work {
            Work::Exponential => self.exponential(MEAN_WORK),
            Work::LogNormal(sigma) => {
                let radius = (-2.0 * (1.0 - self.dice.share()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * self.dice.share()).cos();
                MEAN_WORK * (sigma * normal - sigma * sigma / 2.0).exp()
            }
        }
    }

    // --- a request ---

    fn arrive(&mut self) {
        let gap = self.exponential(1.0 / self.rate);
        self.after(gap, Event::Arrival);
        let mut roll = self.dice.share();
        let app = self.by_app.iter().position(|share| {
            roll -= share;
            roll < 0.0
        });
        let request = Request {
            since: self.now,
            sent: self.now,
            router: self.dice.below(self.routers.len()),
            app: app.unwrap_or(0),
            instance: 0,
            tried: Vec::new(),
            over: false,
        };
        self.requests.push(request);
        self.attempt(self.requests.len() - 1);
    }

    fn attempt(&mut self, id: usize) {
        let now = self.moment();
        let request = &mut self.requests[id];
        let pool = &self.routers[request.router].pools[request.app];
        let wish = Wish { first_attempt: request.tried.is_empty(), tried: &request.tried, ..Wish::default() };
        let Ok(endpoint) = pick(pool, &wish, now, &mut self.dice) else {
            request.over = true;
            return self.client_got(id, Err(()));
        };
        endpoint.live.begin();
        request.instance = endpoint.serial as usize;
        request.sent = self.now;
        request.tried.push(endpoint.serial);
        match self.instances[request.instance].condition {
            Condition::Well => self.start_work(id),
            Condition::Hanging => self.deadlines.push_back((self.now + self.patience(), id)),
            Condition::BlackHole => self.after(2.0 * ROUND_TRIP, Event::Answer503 { request: id }),
            Condition::Refusing => self.after(ROUND_TRIP, Event::ConnectTimeout { request: id }),
            Condition::Silent => self.after(CONNECT_TIMEOUT, Event::ConnectTimeout { request: id }),
        }
    }

    fn start_work(&mut self, id: usize) {
        let instance = self.requests[id].instance;
        let host = self.instances[instance].spec.host;
        let work = self.work() * self.instances[instance].spec.cost;
        self.catch_up(host);
        let done = Progress(self.hosts[host].progress + work);
        self.hosts[host].working.push(Reverse((done, id)));
        self.instances[instance].working += 1;
        self.schedule(host);
        self.deadlines.push_back((self.now + self.patience(), id));
    }

    fn one_is_done(&mut self, host: usize) {
        self.catch_up(host);
        if let Some(Reverse((_, id))) = self.hosts[host].working.pop() {
            self.instances[self.requests[id].instance].working -= 1;
            if !self.requests[id].over {
                self.deliver(id);
            }
        }
        self.schedule(host);
    }

    fn deliver(&mut self, id: usize) {
        let latency = self.since_sent(id) + Duration::from_secs_f64(ROUND_TRIP);
        let streams = self.scenario.streams.filter(|&(share, _)| self.dice.share() < share);
        self.head_came(id, Outcome::Ok { latency });
        let (router, instance) = (self.requests[id].router, self.requests[id].instance);
        match streams {
            Some((_, seconds)) => self.after(seconds, Event::StreamEnds { router, instance }),
            None => self.routers[router].lives[instance].finished(),
        }
        self.client_got(id, Ok(()));
    }

    fn since_sent(&self, id: usize) -> Duration {
        Duration::from_secs_f64(self.now - self.requests[id].sent)
    }

    fn head_came(&mut self, id: usize, outcome: Outcome) {
        let request = &mut self.requests[id];
        request.over = true;
        let router = &self.routers[request.router];
        router.lives[request.instance].answered(&router.pools[request.app].fleet, outcome, self.moment());
    }

    fn answered(&mut self, id: usize, outcome: Outcome) {
        self.head_came(id, outcome);
        self.routers[self.requests[id].router].lives[self.requests[id].instance].finished();
    }

    fn connect_failed(&mut self, id: usize) {
        self.answered(id, Outcome::ConnectFailed);
        if self.requests[id].tried.len() < ATTEMPTS {
            self.requests[id].over = false;
            self.attempt(id);
        } else {
            self.client_got(id, Err(()));
        }
    }

    fn patience(&self) -> f64 {
        self.scenario.patience.unwrap_or(TIMEOUT)
    }

    fn time_out(&mut self) {
        while let Some(&(_, id)) = self.deadlines.front().filter(|(at, _)| *at <= self.now + 1e-6) {
            self.deadlines.pop_front();
            if !self.requests[id].over {
                let waited = Duration::from_secs_f64(self.patience());
                let outcome = match self.scenario.patience {
                    Some(_) => Outcome::Abandoned { waited },
                    None => Outcome::TimedOut { timeout: waited },
                };
                self.answered(id, outcome);
                self.client_got(id, Err(()));
            }
        }
        let next = self.deadlines.front().map_or(self.patience(), |(at, _)| at - self.now);
        self.after(next, Event::TimeoutsDue);
    }

    fn client_got(&mut self, id: usize, result: Result<(), ()>) {
        if self.requests[id].since >= self.scenario.warm_up {
            self.measured.latencies.push(self.now - self.requests[id].since + ROUND_TRIP);
            self.measured.failures += usize::from(result.is_err());
        }
    }

    // --- hosts ---

    /// Brings a host's progress up to now.
    fn catch_up(&mut self, host: usize) {
        let state = &mut self.hosts[host];
        let passed = self.now - state.at;
        let of_each = state.core_share();
        state.progress += passed * of_each * state.spec.speed;
        state.used += passed * (of_each * state.working.len() as f64 + state.antagonist_share * state.spec.cores);
        state.at = self.now;
        for &instance in &state.instances {
            let instance = &mut self.instances[instance];
            instance.used += passed * of_each * instance.working as f64;
        }
    }

    /// Plans the next completion on a host whose requests at work have changed.
    fn schedule(&mut self, host: usize) {
        let state = &mut self.hosts[host];
        state.version += 1;
        let version = state.version;
        if let Some(Reverse((done, _))) = state.working.peek() {
            let left = (done.0 - state.progress).max(0.0) / (state.core_share() * state.spec.speed);
            self.after(left, Event::Done { host, version });
        }
    }

    fn turn_antagonist(&mut self, host: usize) {
        let Some(antagonist) = self.hosts[host].spec.antagonist else { return };
        self.catch_up(host);
        let turns_on = self.hosts[host].antagonist_share == 0.0;
        self.hosts[host].antagonist_share = if turns_on { antagonist.share } else { 0.0 };
        self.schedule(host);
        let stays = self.exponential(if turns_on { antagonist.on } else { antagonist.off });
        self.after(stays, Event::AntagonistTurns { host });
    }

    fn measure(&mut self, host: usize) {
        self.catch_up(host);
        let available = self.hosts[host].spec.cores * self.scenario.heartbeat;
        let mem = Share::reported(self.hosts[host].spec.mem);
        let share = |used: f64| Share::reported((used / available).min(1.0));
        self.hosts[host].reported = Usage { cpu: share(self.hosts[host].used), mem, ..Usage::default() };
        self.hosts[host].used = 0.0;
        for &instance in &self.hosts[host].instances {
            let instance = &mut self.instances[instance];
            instance.reported = Usage { cpu: share(instance.used), mem: Share::reported(0.5), ..Usage::default() };
            instance.used = 0.0;
        }
        self.after(HEARTBEAT_DELAY, Event::Reported { host });
        self.after(self.scenario.heartbeat, Event::Measure { host });
    }

    fn report(&mut self, host: usize) {
        let now = self.moment();
        let interval = Duration::from_secs_f64(self.scenario.heartbeat);
        let state = &self.hosts[host];
        let arrives = self.heartbeats && state.is_heard(&self.instances);
        let apps: BTreeSet<usize> = state.instances.iter().map(|&i| self.instances[i].spec.app).collect();
        for router in &self.routers {
            for &instance in state.instances.iter().filter(|_| arrives) {
                router.lives[instance].reported(self.instances[instance].reported, state.reported, interval, now);
            }
            // Also without a report, as the control plane does now and then: somebody's may have become late.
            apps.iter().for_each(|&app| recompute(&router.pools[app], &ScoreConfig::default(), now));
        }
    }

    // --- the course of things ---

    fn change(&mut self, change: Change) {
        match change {
            Change::Dies(instance) => self.stop(instance, Condition::Refusing),
            Change::Vanishes(instance) => self.stop(instance, Condition::Silent),
            Change::Hangs(instance) => self.instances[instance].condition = Condition::Hanging,
            Change::TurnsBlackHole(instance) => self.instances[instance].condition = Condition::BlackHole,
            Change::Recovers(instance) => self.instances[instance].condition = Condition::Well,
            Change::Costs(instance, cost) => self.instances[instance].spec.cost = cost,
            Change::Drains(instance) => self.announce(instance, State::Draining),
            Change::Starts(instance) => {
                self.instances[instance].condition = Condition::Well;
                self.announce(instance, State::Starting);
                self.announce(instance, State::Running);
            }
            Change::HeartbeatsStop => self.heartbeats = false,
        }
    }

    fn announce(&mut self, instance: usize, state: State) {
        let now = self.moment();
        self.routers.iter().for_each(|r| r.lives[instance].set_state(state, now));
    }

    fn stop(&mut self, instance: usize, condition: Condition) {
        self.instances[instance].condition = condition;
        let host = self.instances[instance].spec.host;
        self.catch_up(host);
        let working = std::mem::take(&mut self.hosts[host].working).into_vec();
        let (lost, kept): (Vec<_>, Vec<_>) =
            working.into_iter().partition(|Reverse((_, id))| self.requests[*id].instance == instance);
        self.hosts[host].working = kept.into();
        self.instances[instance].working = 0;
        self.schedule(host);
        if condition == Condition::Silent {
            return; // Nobody tells the routers: their requests run into the timeout.
        }
        for Reverse((_, id)) in lost {
            if !self.requests[id].over {
                self.answered(id, Outcome::Reset);
                self.client_got(id, Err(()));
            }
        }
    }

    fn turn_burst(&mut self) {
        let Some(Bursts { factor, on, off }) = self.scenario.bursts else { return };
        let mean = self.scenario.arrival_rate();
        let (rate, stays) =
            if self.bursting { (mean * factor, on) } else { (mean * ((on + off) - factor * on).max(0.0) / off, off) };
        self.rate = rate;
        self.bursting = !self.bursting;
        self.after(stays, Event::BurstTurns);
    }

    fn sample_load(&mut self) {
        let load = |h: &HostState| h.working.len() as f64 / (h.spec.cores * h.spec.speed);
        let loads: Vec<f64> = self.hosts.iter().map(load).collect();
        let mean = loads.iter().sum::<f64>() / loads.len() as f64;
        if mean > 0.0 {
            let variance = loads.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / loads.len() as f64;
            self.measured.unevenness += variance.sqrt() / mean;
            self.samples += 1;
        }
        self.after(SAMPLING, Event::Sample);
    }
}

impl HostState {
    /// The part of a core that each request at work gets.
    fn core_share(&self) -> f64 {
        let left = self.spec.cores * (1.0 - self.antagonist_share);
        (left / self.working.len() as f64).min(1.0)
    }

    /// A machine that is silent sends no heartbeats either.
    fn is_heard(&self, instances: &[InstanceState]) -> bool {
        self.instances.iter().all(|&i| instances[i].condition != Condition::Silent)
    }
}

impl Router {
    fn new(scenario: &Scenario, strategy: Strategy) -> Router {
        let lives: Vec<Arc<Live>> = scenario.instances.iter().map(|_| Arc::new(Live::new(Moment::START))).collect();
        let endpoint = |(id, spec): (usize, &Instance)| {
            let facts = Facts {
                instance: InstanceId::new(&format!("instance-{id}")),
                agent: Some(AgentId::new(&format!("host-{}", spec.host))),
                ..Facts::at(Address::new("10.0.0.1", 1024 + id as u16))
            };
            Arc::new(Endpoint::new(id as u64, facts, Arc::clone(&lives[id]), Arc::default()))
        };
        let endpoints: Vec<Arc<Endpoint>> = scenario.instances.iter().enumerate().map(endpoint).collect();
        let pool = |app: usize| Pool {
            route: "app.test".into(),
            context_path: "/".into(),
            endpoints: endpoints.iter().filter(|e| scenario.instances[e.serial as usize].app == app).cloned().collect(),
            strategy,
            hash_header: None,
            max_conns: 0,
            settings: Arc::default(),
            fleet: Arc::new(Fleet::default()),
            sleeper: None,
            derived: Default::default(),
        };
        Router { pools: (0..scenario.apps()).map(pool).collect(), lives }
    }
}

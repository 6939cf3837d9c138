//! A seeded world of agents, registrars and a bad bus drives `ControlPlane::handle`: messages are lost, repeated, late,
//! reordered and garbled, the bus goes away, clocks jump. After every step what is published must be what a naive model
//! makes of the same messages, and once everything is well again it must be the truth.
//!
//! `SIM_SEED=17 cargo test --test simulation` replays one seed; `SIM_SEEDS=100000` runs more of them.

mod model;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arcstr::ArcStr;
use bytes::Bytes;
use model::Model;
use weighbridge::control::event::{AppSettings, Event};
use weighbridge::control::plane::{ControlPlane, Outcome};
use weighbridge::domain::balance::Live;
use weighbridge::domain::dice::Dice;
use weighbridge::domain::endpoint::{Facts, Tls};
use weighbridge::domain::identity::{Address, AgentId, AppId, InstanceId};
use weighbridge::domain::load::{Share, Usage};
use weighbridge::domain::moment::Moment;
use weighbridge::domain::protocol::envelope::Incoming;
use weighbridge::domain::protocol::heartbeat::{Entry, EntryState, Exited, Heartbeat, Serves, Shutdown};
use weighbridge::domain::protocol::life::RouterStart;
use weighbridge::domain::protocol::register::Registration;
use weighbridge::domain::protocol::route_uri::RouteUri;
use weighbridge::domain::protocol::subject;
use weighbridge::domain::table::settings::{ConfiguredRoute, TableSettings};
use weighbridge::domain::table::snapshot::Pool;

const SEEDS: u64 = 256;
const STEPS: usize = 150;
const AGENTS: usize = 3;
const ROUTES: [&str; 6] = ["a.test", "a.test/x", "*.test", "b.test", "B.test/Deep/Path", "*.a.test/y"];
const APPS: [&str; 3] = ["alpha", "beta", ""];
const INTERVAL: Duration = Duration::from_secs(5);
/// The loop ticks more often, but a little less shows the same.
const TICK_EVERY: Duration = Duration::from_secs(4);

/// An instance that really runs.
#[derive(Clone)]
struct Running {
    facts: Facts,
    local: InstanceId,
    uris: Vec<RouteUri>,
    state: EntryState,
    /// The agent it runs on; others register themselves.
    agent: Option<usize>,
    /// Whether the agent's heartbeats register it.
    by_heartbeat: bool,
}

/// A host agent that really runs.
struct Agent {
    boot: u64,
    seq: u64,
    leaving: bool,
}

struct World {
    seed: u64,
    step: usize,
    dice: Dice,
    now: Moment,
    plane: ControlPlane,
    /// What workers see.
    published: BTreeMap<ArcStr, Arc<Pool>>,
    model: Model,
    settings: TableSettings,
    agents: Vec<Agent>,
    running: Vec<Running>,
    configured: Vec<ConfiguredRoute>,
    /// On their way: when they arrive, and what.
    flying: Vec<(Moment, &'static str, Bytes)>,
    connected: bool,
    /// Nothing goes wrong any more.
    well: bool,
    ticked_at: Moment,
    ids: u64,
    /// Which `Live` each instance of the model was published with.
    lives: HashMap<u64, Arc<Live>>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice::seeded(seed);
        let settings = TableSettings {
            stale_after: Duration::from_secs([20, 120][dice.below(2)]),
            keep_empty: Duration::from_secs([0, 30][dice.below(2)]),
            expire_tls_endpoints: dice.below(4) > 0,
            ..TableSettings::default()
        };
        let me = RouterStart {
            id: "0-sim".into(),
            hosts: vec!["127.0.0.1".into()],
            register_interval: Duration::from_secs(20),
            prune_threshold: settings.stale_after,
        };
        let now = Moment::START + Duration::from_secs(1);
        World {
            seed,
            step: 0,
            now,
            plane: ControlPlane::new(me, settings.clone(), u128::from(dice.bits()), now),
            published: BTreeMap::new(),
            model: Model::new(settings.clone(), now),
            settings,
            agents: (0..AGENTS).map(|_| Agent { boot: 1, seq: 0, leaving: false }).collect(),
            running: Vec::new(),
            configured: Vec::new(),
            flying: Vec::new(),
            connected: false,
            well: false,
            ticked_at: now,
            ids: 0,
            lives: HashMap::new(),
            dice,
        }
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.dice.below(n) == 0
    }

    // What happens in the world

    fn act(&mut self) {
        match self.dice.below(100) {
            0..20 => self.some_agent_beats(),
            20..40 => self.somebody_registers(),
            40..48 => self.somebody_starts(),
            48..53 => self.somebody_stops(),
            53..58 => self.somebody_changes(),
            58..60 => self.an_agent_reboots(),
            60..61 => self.an_agent_leaves(),
            61..63 => self.the_bus_comes_or_goes(),
            63..65 => self.the_configuration_is_reloaded(),
            65..67 => self.time_stands_still(),
            67..69 => {
                let long = self.dice.below(200) as u64;
                self.pass(Duration::from_secs(long));
            }
            _ => {
                let short = self.dice.below(4000) as u64;
                self.pass(Duration::from_millis(short));
            }
        }
    }

    fn somebody_starts(&mut self) {
        self.ids += 1;
        let agent = if self.one_in(3) { None } else { Some(self.dice.below(AGENTS)) };
        let host = agent.map_or("10.0.9.9".to_owned(), |agent| format!("10.0.0.{agent}"));
        let port = 1000 + self.dice.below(4) as u16;
        // Two processes cannot have the same port: whoever had it is gone, perhaps without a word.
        let address = Address::new(&host, port);
        self.running.retain(|other| other.facts.address != address);
        let id = if self.one_in(4) { String::new() } else { format!("id{}", self.ids) };
        let by_heartbeat = agent.is_some() && self.dice.below(2) == 0;
        let facts = Facts {
            tls: (!by_heartbeat && self.one_in(4)).then(Tls::default),
            app: AppId::new(APPS[self.dice.below(APPS.len())]),
            instance: InstanceId::new(&id),
            index: self.dice.below(3).to_string().into(),
            agent: agent.filter(|_| by_heartbeat || self.dice.below(2) == 0).map(agent_id),
            ..Facts::at(address)
        };
        let uris = self.some_uris();
        let state = if by_heartbeat && self.one_in(3) { EntryState::Starting } else { EntryState::Running };
        let local = InstanceId::new(&format!("local{}", self.ids));
        self.running.push(Running { facts, local, uris, state, agent, by_heartbeat });
        self.register(self.running.len() - 1);
    }

    fn some_uris(&mut self) -> Vec<RouteUri> {
        let first = self.dice.below(ROUTES.len());
        let count = 1 + self.dice.below(3);
        (first..first + count).map(|at| uri(ROUTES[at % ROUTES.len()])).collect()
    }

    fn some_running(&mut self) -> Option<usize> {
        (!self.running.is_empty()).then(|| self.dice.below(self.running.len()))
    }

    fn somebody_stops(&mut self) {
        let Some(at) = self.some_running() else { return };
        let gone = self.running.remove(at);
        if gone.by_heartbeat || gone.agent.is_some() {
            let index = gone.facts.index.parse().ok();
            let instance = if self.one_in(3) { InstanceId::default() } else { gone.local.clone() };
            let exited = Exited { app: gone.facts.app.clone(), instance, index, reason: "STOPPED".into() };
            if !exited.instance.is_empty() || !exited.app.is_empty() {
                self.send(subject::EXITED, exited.encode());
            }
        }
        if !gone.by_heartbeat {
            let message = Registration { uris: gone.uris.clone(), ..Registration::at(gone.facts.address.clone()) };
            self.send(subject::UNREGISTER, message.encode());
        }
    }

    fn somebody_changes(&mut self) {
        let Some(at) = self.some_running() else { return };
        match self.dice.below(3) {
            0 => self.running[at].facts.weight = 1.0 + self.dice.below(3) as f32,
            1 => self.running[at].uris = self.some_uris(),
            _ if self.running[at].agent.is_some() => {
                let states = [EntryState::Running, EntryState::Starting, EntryState::Leaving];
                self.running[at].state = states[self.dice.below(3)];
            }
            _ => {}
        }
        self.register(at);
    }

    fn somebody_registers(&mut self) {
        if let Some(at) = self.some_running() {
            self.register(at);
        }
    }

    fn register(&mut self, at: usize) {
        let running = self.running[at].clone();
        if running.by_heartbeat {
            return;
        }
        let load = Usage { cpu: Share::reported(self.dice.share()), ..Usage::default() };
        let message = Registration {
            uris: running.uris.clone(),
            load,
            lease: (!self.well && self.one_in(3)).then(|| Duration::from_secs(10)),
            ..Registration { facts: running.facts, ..Registration::at(Address::new("x", 1)) }
        };
        self.send(subject::REGISTER, message.encode());
    }

    fn some_agent_beats(&mut self) {
        let agent = self.dice.below(AGENTS);
        self.beat(agent);
    }

    fn beat(&mut self, agent: usize) {
        self.agents[agent].seq += 1;
        let entries: Vec<Entry> =
            self.running.iter().filter(|running| running.agent == Some(agent)).map(Running::entry).collect();
        let host_load = Usage { cpu: Share::reported(self.dice.share()), ..Usage::default() };
        let message = Heartbeat {
            agent: agent_id(agent),
            complete: true,
            seq: Some(self.agents[agent].seq),
            boot: format!("boot{}", self.agents[agent].boot).into(),
            sent_at_ns: None,
            interval: Some(INTERVAL),
            host: format!("10.0.0.{agent}").into(),
            zone: "".into(),
            load: host_load,
            entries,
        };
        self.send(subject::HEARTBEAT, message.encode());
    }

    fn an_agent_reboots(&mut self) {
        let agent = self.dice.below(AGENTS);
        self.agents[agent] = Agent { boot: self.agents[agent].boot + 1, seq: 0, leaving: false };
        if self.one_in(2) {
            self.running.retain(|running| running.agent != Some(agent));
        }
    }

    fn an_agent_leaves(&mut self) {
        let agent = self.dice.below(AGENTS);
        self.agents[agent].leaving = true;
        self.send(subject::SHUTDOWN, Shutdown { agent: agent_id(agent) }.encode());
    }

    fn the_bus_comes_or_goes(&mut self) {
        self.connected = !self.connected;
        if self.connected {
            let effects = self.handle(Event::Connected);
            let start = effects.outgoing.first().map(|message| message.subject.as_str());
            assert_eq!(start, Some(subject::START), "seed {} step {}", self.seed, self.step);
        } else {
            self.flying.clear();
            self.handle(Event::Disconnected);
        }
    }

    fn the_configuration_is_reloaded(&mut self) {
        let routes = (0..self.dice.below(3)).map(|_| {
            let at = self.dice.below(ROUTES.len());
            let port = 1000 + self.dice.below(4) as u16;
            let uri = uri(ROUTES[at]);
            let instances = vec![Registration::at(Address::new("10.0.9.9", port))];
            ConfiguredRoute { uri, settings: Arc::default(), instances }
        });
        let mut routes: Vec<ConfiguredRoute> = routes.collect();
        routes.sort_by(|a, b| a.uri.as_str().cmp(b.uri.as_str()));
        routes.dedup_by(|a, b| a.uri == b.uri);
        self.configured = routes.clone();
        self.handle(Event::Configured { settings: self.settings.clone(), routes, apps: AppSettings::default() });
        self.handle(Event::Tick);
    }

    fn time_stands_still(&mut self) {
        let still = 11 + self.dice.below(600) as u64;
        self.now = self.now + Duration::from_secs(still);
        // What arrived meanwhile is read before the clock is looked at.
        self.deliver_what_is_due();
    }

    // The bus

    fn send(&mut self, subject: &'static str, payload: Vec<u8>) {
        if !self.connected || (!self.well && self.one_in(20)) {
            return;
        }
        let copies = if !self.well && self.one_in(20) { 2 } else { 1 };
        for _ in 0..copies {
            let mut payload = payload.clone();
            if !self.well && self.one_in(30) {
                let at = self.dice.below(payload.len());
                payload[at] = self.dice.bits() as u8;
            }
            let delay = if !self.well && self.one_in(4) { self.dice.below(3000) } else { 1 };
            let at = self.now + Duration::from_millis(delay as u64);
            self.flying.push((at, subject, payload.into()));
        }
    }

    fn deliver_what_is_due(&mut self) {
        // The sort is stable: what was sent first and arrives at the same time is first.
        self.flying.sort_by_key(|(at, ..)| *at);
        while let Some((at, subject, payload)) = self.flying.first().cloned() {
            if at > self.now {
                return;
            }
            self.flying.remove(0);
            self.deliver(subject, payload);
        }
    }

    fn deliver(&mut self, subject: &'static str, payload: Bytes) {
        let incoming = Incoming { subject: subject.to_owned(), payload: payload.clone(), reply: None };
        let effects = self.handle(Event::Message(incoming));
        let refused = matches!(effects.message, Some((_, Outcome::Rejected(_))));
        match subject {
            _ if refused => {
                let changed = !effects.changes.arrived.is_empty() || !effects.changes.left.is_empty();
                assert!(
                    !changed,
                    "seed {} step {}: a message that was refused changed the table",
                    self.seed, self.step
                );
            }
            subject::REGISTER => self.model.register(&Registration::decode(&payload).expect("taken"), self.now),
            subject::UNREGISTER => self.model.unregister(&Registration::decode(&payload).expect("taken"), self.now),
            subject::HEARTBEAT => self.model.heartbeat(&Heartbeat::decode(&payload).expect("taken"), self.now),
            subject::SHUTDOWN => self.model.shutdown(&Shutdown::decode(&payload).expect("taken")),
            subject::EXITED => self.model.exited(&Exited::decode(&payload).expect("taken"), self.now),
            other => panic!("nobody sends {other}"),
        }
        self.check();
    }

    /// Time passes, with the ticks of the loop.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            let next_message = self.flying.iter().map(|(at, ..)| *at).min();
            let next_tick = self.ticked_at.max(self.now) + TICK_EVERY;
            let next_due = self.plane.next_due().filter(|due| *due > self.now);
            let next = [next_message, Some(next_tick), next_due, Some(until)].into_iter().flatten().min();
            self.now = next.expect("until is one").max(self.now);
            self.deliver_what_is_due();
            self.ticked_at = self.now;
            self.handle(Event::Tick);
            self.check();
        }
    }

    /// Hands an event to the plane and, unless it is a message, to the model.
    fn handle(&mut self, event: Event) -> weighbridge::control::plane::Effects {
        self.model.begin_step(self.now);
        match &event {
            Event::Connected => self.model.connect(self.now),
            Event::Disconnected => self.model.disconnect(),
            Event::Configured { settings, routes, .. } => self.model.configure(settings, routes, self.now),
            Event::Tick => self.model.tick(self.now),
            Event::Message(_) | Event::App(_) => {}
        }
        self.plane.handle(event, self.now)
    }

    // What must hold

    fn check(&mut self) {
        if let Some(snapshot) = self.plane.snapshot(self.now) {
            self.published = snapshot.pools().map(|pool| (pool.route.clone(), pool.clone())).collect();
        }
        let agents: Vec<AgentId> = self.plane.table().agents().cloned().collect();
        self.model.forget_agents_but(&agents, self.now);
        let expected = self.model.expected();
        let whence = || format!("seed {} step {} at {:?}", self.seed, self.step, self.now);
        let routes = self.published.keys().map(|route| &**route);
        assert!(routes.clone().eq(expected.keys().copied()), "{}: {:?}", whence(), routes.collect::<Vec<_>>());
        for (pool, wanted) in self.published.values().zip(expected.values()) {
            let found = pool.endpoints.iter().map(|endpoint| (&endpoint.facts, endpoint.live.state()));
            let as_wanted = found.clone().eq(wanted.iter().map(|wanted| (wanted.facts, wanted.state)));
            let wanted_shown = || wanted.iter().map(|wanted| (wanted.facts, wanted.state)).collect::<Vec<_>>();
            assert!(as_wanted, "{}: {}\n{:#?}\n{:#?}", whence(), pool.route, found.collect::<Vec<_>>(), wanted_shown());
            for (wanted, endpoint) in wanted.iter().zip(&pool.endpoints) {
                let known = self.lives.entry(wanted.no).or_insert_with(|| endpoint.live.clone());
                assert!(Arc::ptr_eq(known, &endpoint.live), "{}: {} was reset", whence(), endpoint.address);
            }
        }
    }

    fn check_that_instances_are_apart(&self) {
        let distinct: HashSet<*const Live> = self.lives.values().map(Arc::as_ptr).collect();
        assert_eq!(distinct.len(), self.lives.len(), "seed {}: two instances share what changes", self.seed);
    }

    /// Lets all faults end and everybody say what is true for a while: then the table must be the truth.
    fn heal(&mut self) {
        self.well = true;
        if !self.connected {
            self.the_bus_comes_or_goes();
        }
        for agent in 0..AGENTS {
            // Leaving agents have left; their successors report.
            let Agent { boot, leaving, .. } = self.agents[agent];
            self.agents[agent] = Agent { boot: boot + 10, seq: 0, leaving: false };
            if leaving {
                self.running.retain(|running| running.agent != Some(agent));
            }
        }
        // What is named no more may be renewed by heartbeats for one lease, and then has one to go.
        for round in 0..30 {
            (0..AGENTS).for_each(|agent| self.beat(agent));
            if round % 2 == 0 {
                (0..self.running.len()).for_each(|at| self.register(at));
            }
            self.pass(2 * INTERVAL);
        }
        let mut truth: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for route in &self.configured {
            let addresses = route.instances.iter().map(|instance| instance.facts.address.to_string());
            truth.entry(route.uri.as_str().to_owned()).or_default().extend(addresses);
        }
        for running in &self.running {
            for uri in &running.uris {
                let there = truth.entry(uri.as_str().to_owned()).or_default();
                let address = running.facts.address.to_string();
                if !there.contains(&address) {
                    there.push(address);
                }
            }
        }
        truth.values_mut().for_each(|addresses| addresses.sort());
        let mut published: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pool in self.published.values() {
            let endpoints =
                pool.endpoints.iter().filter(|endpoint| self.settings.expire_tls_endpoints || endpoint.tls.is_none());
            let mut addresses: Vec<String> = endpoints.map(|endpoint| endpoint.address.to_string()).collect();
            addresses.sort();
            published.insert(pool.route.to_string(), addresses);
        }
        if self.settings.expire_tls_endpoints {
            assert_eq!(published, truth, "seed {}: after everything was well for a while", self.seed);
        }
    }
}

impl Running {
    fn entry(&self) -> Entry {
        let serves = match self.by_heartbeat {
            true => Serves::Routes(self.facts.clone(), self.uris.clone()),
            false => Serves::Unsaid,
        };
        Entry {
            app: self.facts.app.clone(),
            instance: self.facts.instance.clone(),
            local: self.local.clone(),
            index: self.facts.index.parse().ok(),
            state: self.state,
            load: Usage::default(),
            serves,
        }
    }
}

fn agent_id(agent: usize) -> AgentId {
    AgentId::new(&format!("dea-{agent}"))
}

fn uri(written: &str) -> RouteUri {
    RouteUri::parse(written).expect("a good route")
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn the_table_is_what_the_messages_say_and_becomes_the_truth() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let mut world = World::new(seed);
        world.the_bus_comes_or_goes();
        for step in 0..STEPS {
            world.step = step;
            world.act();
            world.check();
        }
        world.heal();
        world.check_that_instances_are_apart();
    }
}

//! The rules of registration, heartbeats and leases once more, as naively as they can be written: lists that are searched
//! from the front. What the control plane publishes must agree with it after every step.

use std::collections::BTreeMap;
use std::time::Duration;

use weighbridge::domain::balance::State;
use weighbridge::domain::endpoint::Facts;
use weighbridge::domain::identity::{AgentId, AppId, InstanceId};
use weighbridge::domain::moment::Moment;
use weighbridge::domain::protocol::heartbeat::{Entry, EntryState, Exited, Heartbeat, Serves, Shutdown};
use weighbridge::domain::protocol::register::Registration;
use weighbridge::domain::protocol::route_uri::RouteUri;
use weighbridge::domain::table::settings::{ConfiguredRoute, TableSettings};

const HEARTBEAT: u8 = 0;
const REGISTRATION: u8 = 1;
const CONFIGURATION: u8 = 2;
/// After such a silence the plane takes itself for having stood still.
const STANDSTILL: Duration = Duration::from_secs(10);
/// An agent without instances is known at least for so long after its last heartbeat.
const AGENT_KEPT: Duration = Duration::from_secs(600);

struct Place {
    route: String,
    instance: u64,
    origin: u8,
    lease: Option<Duration>,
    renewed: Moment,
    named: Moment,
    facts: Facts,
}

struct Instance {
    no: u64,
    address: String,
    app: AppId,
    id: InstanceId,
    local: InstanceId,
    index: String,
    agent: Option<AgentId>,
    /// The heartbeat of that agent that had it last.
    beat: Option<u64>,
    state: State,
}

#[derive(Default)]
struct Agent {
    boot: String,
    former_boot: String,
    seq: Option<u64>,
    beat: u64,
    heard_at: Option<Moment>,
    leaving: bool,
}

#[derive(Default)]
struct Route {
    empty_since: Option<Moment>,
    configured: bool,
}

/// One endpoint as it should be published.
pub struct Expected<'a> {
    pub facts: &'a Facts,
    pub state: State,
    /// Which instance it is: equal numbers share what changes, different ones do not.
    pub no: u64,
}

pub struct Model {
    settings: TableSettings,
    places: Vec<Place>,
    instances: Vec<Instance>,
    agents: BTreeMap<AgentId, Agent>,
    routes: BTreeMap<String, Route>,
    born: u64,
    connected: bool,
    grace_from: Moment,
    handled_at: Moment,
}

impl Model {
    pub fn new(settings: TableSettings, now: Moment) -> Model {
        Model {
            settings,
            places: Vec::new(),
            instances: Vec::new(),
            agents: BTreeMap::new(),
            routes: BTreeMap::new(),
            born: 0,
            connected: false,
            grace_from: Moment::START,
            handled_at: now,
        }
    }

    /// Every route with its endpoints in order.
    pub fn expected(&self) -> BTreeMap<&str, Vec<Expected<'_>>> {
        let is_known =
            |route: &Route| route.empty_since.is_none() || route.configured || !self.settings.keep_empty.is_zero();
        let known = self.routes.iter().filter(|(_, route)| is_known(route));
        let mut all: BTreeMap<&str, Vec<Expected>> = known.map(|(name, _)| (&**name, Vec::new())).collect();
        for place in &self.places {
            let instance = self.instance(place.instance);
            let expected = Expected { facts: &place.facts, state: instance.state, no: instance.no };
            all.get_mut(&*place.route).expect("a place is on a route").push(expected);
        }
        all
    }

    pub fn begin_step(&mut self, now: Moment) {
        if self.connected && now.since(self.handled_at) > STANDSTILL {
            self.grace_from = now;
        }
        self.handled_at = now;
    }

    pub fn connect(&mut self, now: Moment) {
        (self.connected, self.grace_from) = (true, now);
    }

    pub fn disconnect(&mut self) {
        self.connected = false;
    }

    pub fn tick(&mut self, now: Moment) {
        if !self.connected {
            return;
        }
        let grace = self.grace_from;
        let over = |place: &Place| place.lease.is_some_and(|lease| place.renewed.max(grace) + lease <= now);
        self.remove(over, now);
        let keep = self.settings.keep_empty;
        self.routes.retain(|_, route| {
            let since = route.empty_since.filter(|_| !route.configured);
            since.is_none_or(|since| since.max(grace) + keep > now)
        });
    }

    pub fn register(&mut self, registration: &Registration, now: Moment) {
        if registration.uris.is_empty() {
            return;
        }
        let asked = registration.lease.unwrap_or(self.settings.stale_after).min(self.settings.stale_after);
        let lease = self.lease(&registration.facts, asked);
        self.enrol(&registration.facts, &registration.uris, REGISTRATION, lease, now);
    }

    pub fn unregister(&mut self, registration: &Registration, now: Moment) {
        let gone: Vec<&str> = registration.uris.iter().map(RouteUri::as_str).collect();
        let address = &registration.facts.address;
        let leaves = |place: &Place| {
            place.facts.address == *address && place.origin != CONFIGURATION && gone.contains(&place.route.as_str())
        };
        self.remove(leaves, now);
    }

    pub fn configure(&mut self, settings: &TableSettings, routes: &[ConfiguredRoute], now: Moment) {
        self.settings = settings.clone();
        let mut kept: Vec<(String, u64)> = Vec::new();
        let before: Vec<String> =
            self.routes.iter().filter(|(_, route)| route.configured).map(|(name, _)| name.clone()).collect();
        for route in routes {
            let uri = std::slice::from_ref(&route.uri);
            self.route(&route.uri, now).configured = true;
            for instance in &route.instances {
                let no = self.enrol(&instance.facts, uri, CONFIGURATION, None, now);
                kept.extend(no.map(|no| (route.uri.as_str().to_owned(), no)));
            }
        }
        let unnamed = |place: &Place| {
            place.origin == CONFIGURATION
                && !kept.iter().any(|(route, no)| *route == place.route && *no == place.instance)
        };
        self.remove(unnamed, now);
        for name in before.into_iter().filter(|name| !routes.iter().any(|route| route.uri.as_str() == name)) {
            let is_empty = !self.places.iter().any(|place| place.route == name);
            let route = self.routes.get_mut(&name).expect("a configured route is known");
            route.configured = false;
            if is_empty {
                route.empty_since = Some(now);
            }
        }
    }

    pub fn heartbeat(&mut self, beat: &Heartbeat, now: Moment) {
        let agent = self.agents.entry(beat.agent.clone()).or_default();
        let other_life = !beat.boot.is_empty() && *beat.boot != *agent.boot;
        match beat.seq {
            Some(_) if other_life && *beat.boot == *agent.former_boot => return,
            Some(seq) if !other_life && agent.seq.is_some_and(|last| seq <= last) => return,
            _ => {}
        }
        let new_life = other_life && !agent.boot.is_empty();
        if other_life {
            agent.former_boot = std::mem::replace(&mut agent.boot, beat.boot.to_string());
            agent.seq = None;
        }
        if new_life {
            agent.leaving = false;
        }
        agent.seq = beat.seq.or(agent.seq);
        agent.beat += 1;
        agent.heard_at = Some(now);
        let (this_beat, leaving) = (agent.beat, agent.leaving);
        for entry in &beat.entries {
            self.entry(beat, entry, this_beat, leaving, now);
        }
        if new_life || (beat.complete && beat.seq.is_some()) {
            let is_left_out = |instance: &Instance| {
                instance.agent.as_ref() == Some(&beat.agent) && instance.beat.is_some_and(|last| last != this_beat)
            };
            let left_out: Vec<u64> = self.instances.iter().filter(|i| is_left_out(i)).map(|i| i.no).collect();
            self.remove(|place| place.origin != CONFIGURATION && left_out.contains(&place.instance), now);
        }
    }

    fn entry(&mut self, beat: &Heartbeat, entry: &Entry, this_beat: u64, leaving: bool, now: Moment) {
        if entry.state == EntryState::Gone {
            let mut gone = self.meant(&beat.agent, entry);
            if let (true, Serves::Routes(facts, _)) = (gone.is_empty(), &entry.serves) {
                gone.extend(self.find(facts));
            }
            self.remove(|place| place.origin != CONFIGURATION && gone.contains(&place.instance), now);
            return;
        }
        let found = match &entry.serves {
            Serves::Routes(facts, uris) => {
                let asked = beat.interval.map_or(self.settings.stale_after, |interval| interval * 3);
                let lease = self.lease(facts, asked.max(Duration::from_secs(5)).min(self.settings.stale_after));
                self.enrol(facts, uris, HEARTBEAT, lease, now).into_iter().collect()
            }
            Serves::Unsaid | Serves::Nothing => self.meant(&beat.agent, entry),
        };
        for no in found {
            if entry.serves == Serves::Unsaid {
                self.renew_all(no, now);
            }
            let instance = self.instance_mut(no);
            if !entry.local.is_empty() {
                instance.local = entry.local.clone();
            }
            instance.agent = Some(beat.agent.clone());
            instance.beat = Some(this_beat);
            instance.state = match entry.state {
                EntryState::Running if !leaving => State::Running,
                EntryState::Starting if !leaving => State::Starting,
                _ => State::Draining,
            };
        }
    }

    /// A route that is named no more while others are is not renewed by a heartbeat that names none.
    fn renew_all(&mut self, no: u64, now: Moment) {
        let last = self.places.iter().filter(|place| place.instance == no).map(|place| place.named).max();
        for place in self.places.iter_mut().filter(|place| place.instance == no) {
            if last.is_some_and(|last| place.lease.is_none_or(|lease| place.named + lease > last)) {
                place.renewed = now;
            }
        }
    }

    fn meant(&self, agent: &AgentId, entry: &Entry) -> Vec<u64> {
        let differs = |a: &InstanceId, b: &InstanceId| !a.is_empty() && !b.is_empty() && a != b;
        let all = |is_it: &dyn Fn(&Instance) -> bool| -> Vec<u64> {
            self.instances.iter().filter(|instance| is_it(instance)).map(|instance| instance.no).collect()
        };
        let by_id = all(&|known| !entry.instance.is_empty() && known.id == entry.instance);
        if !by_id.is_empty() {
            return by_id;
        }
        let by_local = all(&|known| {
            let named = !entry.local.is_empty() && (known.local == entry.local || known.id == entry.local);
            named && !differs(&known.id, &entry.instance)
        });
        let Some(index) = entry.index.filter(|_| by_local.is_empty() && !entry.app.is_empty()) else { return by_local };
        let index = index.to_string();
        let in_slot = all(&|known| {
            let is_there = known.agent.as_ref() == Some(agent) && known.app == entry.app && known.index == index;
            is_there && !differs(&known.id, &entry.instance) && !differs(&known.local, &entry.local)
        });
        if in_slot.len() == 1 { in_slot } else { Vec::new() }
    }

    /// Agents are forgotten some time after they have nothing left to be known for.
    pub fn forget_agents_but(&mut self, known: &[AgentId], now: Moment) {
        for agent in self.agents.keys().filter(|agent| !known.contains(agent)) {
            let has_instances = self.instances.iter().any(|instance| instance.agent.as_ref() == Some(agent));
            let silent = self.agents[agent].heard_at.is_none_or(|at| now.since(at) > AGENT_KEPT);
            assert!(silent && !has_instances, "{agent} was forgotten too early");
        }
        self.agents.retain(|agent, _| known.contains(agent));
    }

    pub fn shutdown(&mut self, shutdown: &Shutdown) {
        let Some(agent) = self.agents.get_mut(&shutdown.agent) else { return };
        agent.leaving = true;
        let its = |instance: &&mut Instance| instance.agent.as_ref() == Some(&shutdown.agent);
        self.instances.iter_mut().filter(its).for_each(|instance| instance.state = State::Draining);
    }

    pub fn exited(&mut self, exited: &Exited, now: Moment) {
        let named = |known: &&Instance| {
            !exited.instance.is_empty() && (known.id == exited.instance || known.local == exited.instance)
        };
        let mut gone: Vec<u64> = self.instances.iter().filter(named).map(|known| known.no).collect();
        if gone.is_empty() {
            let in_slot = |known: &&Instance| {
                let has_other_id = !exited.instance.is_empty() && !known.local.is_empty();
                let is_app = !exited.app.is_empty() && known.app == exited.app;
                is_app && !has_other_id && exited.index.is_some_and(|index| index.to_string() == known.index)
            };
            let candidates: Vec<u64> = self.instances.iter().filter(in_slot).map(|known| known.no).collect();
            if let [only] = candidates[..] {
                gone.push(only);
            }
        }
        self.remove(|place| place.origin != CONFIGURATION && gone.contains(&place.instance), now);
    }

    fn lease(&self, facts: &Facts, lease: Duration) -> Option<Duration> {
        (facts.tls.is_none() || self.settings.expire_tls_endpoints).then_some(lease)
    }

    fn find(&self, facts: &Facts) -> Option<u64> {
        let address = facts.address.to_string();
        let fits = |known: &str, said: &str| known == said || known.is_empty() || said.is_empty();
        let there = || self.instances.iter().filter(|known| known.address == address);
        let same = there().find(|known| known.app == facts.app && known.id == facts.instance);
        let maybe = || {
            there().find(|known| {
                fits(known.app.as_str(), facts.app.as_str()) && fits(known.id.as_str(), facts.instance.as_str())
            })
        };
        same.or_else(maybe).map(|known| known.no)
    }

    fn enrol(
        &mut self,
        facts: &Facts,
        uris: &[RouteUri],
        origin: u8,
        lease: Option<Duration>,
        now: Moment,
    ) -> Option<u64> {
        let no = self.find(facts).unwrap_or_else(|| self.bear(facts));
        let known = self.instance_mut(no);
        if known.app.is_empty() {
            known.app = facts.app.clone();
        }
        if known.id.is_empty() {
            known.id = facts.instance.clone();
        }
        for uri in uris {
            self.enrol_on(no, facts, uri, origin, lease, now);
        }
        if !self.places.iter().any(|place| place.instance == no) {
            self.instances.retain(|instance| instance.no != no);
            return None;
        }
        if let Some(agent) = &facts.agent {
            let leaving = self.agents.entry(agent.clone()).or_default().leaving;
            let instance = self.instance_mut(no);
            if instance.agent.as_ref() != Some(agent) {
                (instance.agent, instance.beat) = (Some(agent.clone()), None);
                if leaving {
                    instance.state = State::Draining;
                }
            }
        }
        Some(no)
    }

    fn enrol_on(&mut self, no: u64, facts: &Facts, uri: &RouteUri, origin: u8, lease: Option<Duration>, now: Moment) {
        let route = uri.as_str().to_owned();
        self.route(uri, now);
        if let Some(place) = self.places.iter_mut().find(|place| place.route == route && place.instance == no) {
            if place.origin == CONFIGURATION && origin != CONFIGURATION {
                return;
            }
            (place.renewed, place.named) = (now, now);
            if origin >= place.origin {
                (place.lease, place.origin, place.facts) = (lease, origin, facts.clone());
                self.instance_mut(no).index = facts.index.to_string();
            }
            return;
        }
        let same_address = |place: &&Place| place.route == route && place.facts.address == facts.address;
        if let Some(other) = self.places.iter().find(same_address) {
            if other.origin == CONFIGURATION && origin != CONFIGURATION {
                return;
            }
            let other = other.instance;
            self.remove(|place| place.route == route && place.instance == other, now);
        }
        self.places.push(Place {
            route: route.clone(),
            instance: no,
            origin,
            lease,
            renewed: now,
            named: now,
            facts: facts.clone(),
        });
        self.instance_mut(no).index = facts.index.to_string();
        self.routes.get_mut(&route).expect("it was made above").empty_since = None;
    }

    fn bear(&mut self, facts: &Facts) -> u64 {
        self.born += 1;
        self.instances.push(Instance {
            no: self.born,
            address: facts.address.to_string(),
            app: AppId::default(),
            id: InstanceId::default(),
            local: InstanceId::default(),
            index: facts.index.to_string(),
            agent: None,
            beat: None,
            state: State::Running,
        });
        self.born
    }

    fn route(&mut self, uri: &RouteUri, now: Moment) -> &mut Route {
        let unknown = || Route { empty_since: Some(now), configured: false };
        self.routes.entry(uri.as_str().to_owned()).or_insert_with(unknown)
    }

    fn remove(&mut self, leaves: impl Fn(&Place) -> bool, now: Moment) {
        let leaving = self.places.iter().filter(|place| leaves(place));
        let gone: Vec<(String, u64)> = leaving.map(|place| (place.route.clone(), place.instance)).collect();
        self.places.retain(|place| !leaves(place));
        for (route, instance) in gone {
            if !self.places.iter().any(|place| place.route == route) {
                self.routes.get_mut(&route).expect("a place is on a route").empty_since = Some(now);
            }
            if !self.places.iter().any(|place| place.instance == instance) {
                self.instances.retain(|known| known.no != instance);
            }
        }
    }

    fn instance(&self, no: u64) -> &Instance {
        self.instances.iter().find(|instance| instance.no == no).expect("a place is an instance's")
    }

    fn instance_mut(&mut self, no: u64) -> &mut Instance {
        self.instances.iter_mut().find(|instance| instance.no == no).expect("a place is an instance's")
    }
}

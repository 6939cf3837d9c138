//! The route table: routes, their endpoints and leases. Owned by the control plane alone; workers read snapshots of it.
//!
//! An **instance** is known once however many routes it serves: one `Live`, one host agent, one list of memberships. A
//! **membership** is its place on one route, with a lease of its own, since each route is registered on its own. What is
//! refreshed unchanged is recognised by a hash of what was said, so that a refresh costs a few memory accesses.

mod agents;
mod enrol;
mod few;
mod host;
mod invariants;
mod join;
mod lease;
mod publish;
mod records;
mod rules;
mod slab;
mod sleep;
mod texts;

pub mod settings;
pub mod snapshot;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arcstr::ArcStr;

use self::agents::Agent;
use self::enrol::{Origin, Wish};
use self::join::Join;
use self::lease::{Agenda, Bucket, Due, Lease, NEVER, bucket};
use self::records::{Instance, Place, Route};
use self::settings::{ConfiguredRoute, TableSettings};
use self::slab::Slab;
use self::snapshot::{RouteSettings, Snapshot};
use self::texts::Texts;
use super::endpoint::{Endpoint, Facts};
use super::hash::Keyed;
use super::identity::{AgentId, AppId};
use super::moment::Moment;
use super::pace::Pace;
use super::protocol::register::Registration;
use super::protocol::route_uri::RouteUri;
use super::wake::LiveApps;

/// Why an endpoint left a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Departure {
    /// Its lease ran out.
    Pruned,
    /// Somebody said so.
    Unregistered,
    /// It crashed, stopped or exited.
    Exited,
    /// Its agent reported it before and does so no more.
    LeftOut,
    /// Another instance registered at its address.
    Replaced,
    /// The configuration names it no more.
    Unconfigured,
}

impl Departure {
    /// The label of the metric.
    pub fn label(self) -> &'static str {
        match self {
            Departure::Pruned => "pruned",
            Departure::Unregistered => "unregistered",
            Departure::Exited => "exited",
            Departure::LeftOut => "left_out",
            Departure::Replaced => "replaced",
            Departure::Unconfigured => "unconfigured",
        }
    }
}

/// What a change of the table brought about. An endpoint with several routes is named once for each that it joined or left.
#[derive(Debug, Default)]
pub struct Changes {
    /// Endpoints that serve a route they did not serve before, or whose facts changed.
    pub arrived: Vec<Arc<Endpoint>>,
    /// Endpoints that were starting and now run, once for each instance.
    pub started: Vec<Arc<Endpoint>>,
    /// Endpoints that left a route.
    pub left: Vec<(Departure, Arc<Endpoint>)>,
    /// Instances of sleeping apps that gave a sign of life and say that they run.
    pub stirred: Vec<Arc<Endpoint>>,
}

/// Whether a message had something to say to this router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It was applied.
    Applied,
    /// It was not: no routes, another isolation segment, older than what is known, or about nobody known.
    Ignored,
    /// It was not: it would have brought more than the table takes.
    Full,
}

/// All routes, instances and agents.
#[derive(Debug)]
pub struct RouteTable {
    settings: TableSettings,
    hasher: Keyed,
    serial: u64,

    routes: Slab<Route>,
    instances: Slab<Instance>,
    agents: Slab<Agent>,
    /// How many instances there have been; it may begin anew.
    instances_ever: u32,
    agent_of: HashMap<AgentId, u32, Keyed>,
    /// Routes by their names.
    route_of: Join,
    /// Instances by their addresses.
    by_address: Join,
    /// Instances by `private_instance_id` and by the agent's own id.
    by_id: Join,
    /// Instances by app, if that is known.
    by_app: Join,
    texts: Texts,
    /// Endpoints of all routes together.
    endpoints: usize,
    lives: Arc<LiveApps>,
    /// The routes that each sleeping app keeps known.
    asleep: HashMap<AppId, Vec<u32>, Keyed>,
    /// Those of all of them together.
    kept: usize,

    agenda: Agenda,
    /// Nobody is pruned: the bus is away.
    suspended: bool,
    /// Leases count from here at the earliest: the bus came back then.
    grace_from: Moment,
    /// Memberships that the configuration names.
    configured: Vec<(u32, u32)>,

    /// Routes whose pool is to be built afresh.
    dirty: Vec<u32>,
    /// Routes whose endpoints reported load.
    reported: Vec<u32>,
    /// Where the sweep over all routes goes on.
    swept: u32,
    /// What the next snapshot is a copy of.
    picture: Snapshot,
    never_published: bool,
    root_path: ArcStr,
    no_settings: Arc<RouteSettings>,
    pace: Pace,
}

impl RouteTable {
    /// An empty table. `secret` keys all its hashes: random in a router, fixed in a test. Until [`RouteTable::resume`] is
    /// called, nobody is pruned.
    pub fn new(settings: TableSettings, secret: u128) -> RouteTable {
        let hasher = Keyed::new(secret);
        RouteTable {
            settings,
            serial: 0,
            routes: Slab::default(),
            instances: Slab::default(),
            agents: Slab::default(),
            instances_ever: 0,
            agent_of: HashMap::with_hasher(hasher.clone()),
            route_of: Join::default(),
            by_address: Join::default(),
            by_id: Join::default(),
            by_app: Join::default(),
            texts: Texts::new(hasher.clone()),
            endpoints: 0,
            lives: Arc::default(),
            asleep: HashMap::with_hasher(hasher.clone()),
            kept: 0,
            agenda: Agenda::default(),
            suspended: true,
            grace_from: Moment::START,
            configured: Vec::new(),
            dirty: Vec::new(),
            reported: Vec::new(),
            swept: 0,
            picture: Snapshot::empty(hasher.clone()),
            never_published: true,
            root_path: "/".into(),
            no_settings: Arc::default(),
            hasher,
            pace: Pace::default(),
        }
    }

    /// The pace of whatever is long: heartbeats, snapshots, sweeps, pruning.
    pub fn pace(&mut self) -> &mut Pace {
        &mut self.pace
    }

    /// An instance serves routes (still). One that is known keeps its in-flight count and its health.
    pub fn register(&mut self, registration: &Registration, now: Moment, changes: &mut Changes) -> Heard {
        let facts = &registration.facts;
        if registration.uris.is_empty() || !self.settings.isolation.admits(&facts.isolation_segment) {
            return Heard::Ignored;
        }
        if !self.has_room_for(std::iter::once((facts, &registration.uris[..]))) {
            return Heard::Full;
        }
        let asked = registration.lease.unwrap_or(self.settings.stale_after).min(self.settings.stale_after);
        let lease = self.lease_of(facts.tls.is_some(), asked);
        let wish = Wish { strategy: registration.strategy, hash_header: registration.hash_header.as_ref() };
        let enrolled = self.enrol(facts, &registration.uris, wish, Origin::Registration, lease, now, changes);
        if let Some(no) = enrolled {
            self.report_registration(no, registration, now);
            self.note_if_stirred(no, changes);
        }
        self.check_invariants(enrolled);
        Heard::Applied
    }

    /// The instance at this address serves these routes no more.
    pub fn unregister(&mut self, registration: &Registration, now: Moment, changes: &mut Changes) -> Heard {
        let mut heard = Heard::Ignored;
        for uri in &registration.uris {
            let Some(route) = self.route_no(uri) else { continue };
            let member =
                |no: &u32| self.instances[*no].place(route).is_some_and(|place| place.origin != Origin::Configuration);
            let found = self.instances_at(&registration.facts.address).find(member);
            if let Some(no) = found {
                self.leave(no, route, Departure::Unregistered, now, changes);
                heard = Heard::Applied;
            }
        }
        self.check_invariants(None);
        heard
    }

    /// The configuration was (re)loaded: all its routes, and the settings of the table.
    pub fn configure(
        &mut self,
        settings: TableSettings,
        routes: &[ConfiguredRoute],
        now: Moment,
        changes: &mut Changes,
    ) {
        let all_pools_change =
            (settings.strategy, settings.max_conns) != (self.settings.strategy, self.settings.max_conns);
        self.settings = settings;
        let before = std::mem::take(&mut self.configured);
        let routes_before: Vec<u32> =
            self.routes.iter().filter(|(_, route)| route.configured.is_some()).map(|(no, _)| no).collect();
        let mut routes_now = Vec::with_capacity(routes.len());
        for wanted in routes {
            let route = self.route(&wanted.uri, now);
            routes_now.push(route);
            if self.routes[route].configured.as_ref() != Some(&wanted.settings) {
                self.routes[route].configured = Some(wanted.settings.clone());
                self.touch(route);
            }
            for instance in &wanted.instances {
                let wish = Wish { strategy: instance.strategy, hash_header: instance.hash_header.as_ref() };
                let uri = std::slice::from_ref(&wanted.uri);
                let enrolled =
                    self.enrol(&instance.facts, uri, wish, Origin::Configuration, Lease::FOREVER, now, changes);
                self.configured.extend(enrolled.map(|no| (route, no)));
            }
        }
        let still: HashSet<(u32, u32)> = self.configured.iter().copied().collect();
        for (route, no) in before.into_iter().filter(|place| !still.contains(place)) {
            let place = self.instances.get(no).and_then(|instance| instance.place(route));
            if place.is_some_and(|place| place.origin == Origin::Configuration) {
                self.leave(no, route, Departure::Unconfigured, now, changes);
            }
        }
        let still: HashSet<u32> = routes_now.into_iter().collect();
        for route in routes_before.into_iter().filter(|route| !still.contains(route)) {
            self.routes[route].configured = None;
            self.touch(route);
            if self.routes[route].members.is_empty() {
                self.emptied(route, now);
            }
        }
        if all_pools_change {
            let all: Vec<u32> = self.routes.iter().map(|(no, _)| no).collect();
            all.into_iter().for_each(|no| self.touch(no));
        }
        self.check_invariants(None);
    }

    /// The bus is away: nobody can renew a lease, so none runs out.
    pub fn suspend(&mut self) {
        self.suspended = true;
    }

    /// The bus is back: everybody has one full lease to be heard of.
    pub fn resume(&mut self, now: Moment) {
        self.suspended = false;
        self.grace_from = now;
    }

    /// Forgets instances whose leases have run out, and routes that have been without instances for long enough.
    pub fn prune(&mut self, now: Moment, changes: &mut Changes) {
        if self.suspended {
            return;
        }
        let mut put_off = Vec::new();
        while let Some((bucket, due)) = self.agenda.take(now) {
            for due in due {
                let later = match due {
                    Due::Instance(no) => self.prune_instance(no, bucket, now, changes),
                    Due::Route(no) => self.prune_route(no, bucket, now),
                };
                put_off.extend(later.map(|later| (later, due)));
                self.pace.step();
            }
        }
        for (bucket, due) in put_off {
            self.agenda.add(bucket, due);
        }
        self.check_invariants(None);
    }

    /// When [`RouteTable::prune`] has something to do, as far as is known now.
    pub fn next_due(&self) -> Option<Moment> {
        if self.suspended { None } else { self.agenda.next() }
    }

    /// Returns when to look again.
    fn prune_instance(&mut self, no: u32, at: Bucket, now: Moment, changes: &mut Changes) -> Option<Bucket> {
        // Another bucket: it was put forward since, or the number is another instance's now.
        let instance = self.instances.get(no).filter(|instance| instance.due == at)?;
        let grace = self.grace_from;
        let is_over = |place: &&Place| place.lease_end(grace).is_some_and(|end| end <= now);
        let over: Vec<u32> = instance.places.iter().filter(is_over).map(|place| place.route).collect();
        let leaves_all = over.len() == instance.places.len();
        for route in over {
            self.leave(no, route, Departure::Pruned, now, changes);
        }
        if leaves_all {
            return None;
        }
        let instance = &mut self.instances[no];
        instance.due = instance.next_end(grace).map_or(NEVER, bucket);
        (instance.due != NEVER).then_some(instance.due)
    }

    /// Returns when to look again.
    fn prune_route(&mut self, no: u32, at: Bucket, now: Moment) -> Option<Bucket> {
        self.routes.get(no).filter(|route| route.due == at)?;
        self.routes[no].due = NEVER;
        let forgotten = self.forgotten_at(no)?;
        if forgotten <= now {
            self.touch(no);
            return None;
        }
        self.routes[no].due = bucket(forgotten);
        Some(bucket(forgotten))
    }

    /// A route has no instance any more.
    fn emptied(&mut self, no: u32, now: Moment) {
        let keep_empty = self.settings.keep_empty;
        let route = &mut self.routes[no];
        route.empty_since = Some(now);
        if route.configured.is_none() && route.due == NEVER && !keep_empty.is_zero() {
            route.due = bucket(now + keep_empty);
            self.agenda.add(route.due, Due::Route(no));
        }
    }

    /// When a route without instances is to be forgotten; `None` for any other.
    fn forgotten_at(&self, no: u32) -> Option<Moment> {
        let route = self.routes.get(no)?;
        let since = route.empty_since.filter(|_| route.configured.is_none() && route.sleepers.is_empty())?;
        if route.is_no_more {
            return Some(Moment::START);
        }
        // What was empty when the bus went away is remembered longer, as everything is.
        Some(since.max(self.grace_from) + self.settings.keep_empty)
    }

    /// Whether a route without instances has been known for long enough. While the bus is away it may be that nobody can
    /// register, unless such routes are not to be known at all.
    fn is_forgotten(&self, no: u32, now: Moment) -> bool {
        let is_over = self.forgotten_at(no).is_some_and(|at| at <= now);
        let is_no_more = self.routes.get(no).is_some_and(|route| route.is_no_more);
        is_over && (!self.suspended || self.settings.keep_empty.is_zero() || is_no_more)
    }

    fn lease_of(&self, is_tls: bool, lease: Duration) -> Lease {
        if is_tls && !self.settings.expire_tls_endpoints { Lease::FOREVER } else { Lease::of(lease) }
    }

    /// Marks a route's pool to be built afresh.
    fn touch(&mut self, no: u32) {
        let route = &mut self.routes[no];
        if !route.dirty {
            route.dirty = true;
            self.dirty.push(no);
        }
    }

    /// Whether these instances can be put on these routes. Where they are already takes no more room.
    fn has_room_for<'a>(&self, coming: impl Iterator<Item = (&'a Facts, &'a [RouteUri])> + Clone) -> bool {
        let room = self.settings.endpoints_max.saturating_sub(self.endpoints + self.kept);
        let named: usize = coming.clone().map(|(_, uris)| uris.len()).sum();
        // Nearly always there is plenty, and nobody has to be looked up.
        named <= room || coming.map(|(facts, uris)| self.new_places(facts, uris)).sum::<usize>() <= room
    }

    fn new_places(&self, facts: &Facts, uris: &[RouteUri]) -> usize {
        let Some(no) = self.instance_at(facts) else { return uris.len() };
        let place = |uri: &RouteUri| self.instances[no].place(self.route_no(uri)?);
        uris.iter().filter(|uri| place(uri).is_none()).count()
    }

    /// How many routes are known, those without instances included.
    pub fn routes(&self) -> usize {
        self.routes.len()
    }

    /// How many instances are known.
    pub fn instances(&self) -> usize {
        self.instances.len()
    }

    /// The agents that are known.
    pub fn agents(&self) -> impl ExactSizeIterator<Item = &AgentId> {
        self.agent_of.keys()
    }
}

//! How instances join routes and leave them.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use super::lease::{Due, Lease, NEVER, bucket};
use super::records::{Instance, Member, Place, Route};
use super::slab::Few;
use super::{Changes, Departure, RouteTable};
use crate::domain::balance::fleet::Fleet;
use crate::domain::balance::live::{Live, State};
use crate::domain::balance::strategy::Strategy;
use crate::domain::endpoint::{Endpoint, Facts};
use crate::domain::identity::InstanceId;
use crate::domain::moment::Moment;
use crate::domain::protocol::route_uri::RouteUri;

/// Who put an instance on a route. What a heartbeat says does not change the facts of a registration (it can say less), and
/// nothing changes those of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Origin {
    Heartbeat,
    Registration,
    Configuration,
}

/// How an instance wants its routes to be balanced.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish<'a> {
    pub(super) strategy: Option<Strategy>,
    pub(super) hash_header: Option<&'a Arc<str>>,
}

/// What is said about an instance and its routes, with everything needed to take it in.
struct Saying<'a> {
    facts: &'a Facts,
    wish: Wish<'a>,
    origin: Origin,
    lease: Lease,
    now: Moment,
}

impl RouteTable {
    /// Puts an instance on routes, or renews its leases there. Returns its number, unless it could get on none of them.
    #[expect(clippy::too_many_arguments, reason = "they are what a registration is made of")]
    pub(super) fn enrol(
        &mut self,
        facts: &Facts,
        uris: &[RouteUri],
        wish: Wish,
        origin: Origin,
        lease: Lease,
        now: Moment,
        changes: &mut Changes,
    ) -> Option<u32> {
        let no = self.instance_of(facts, now);
        let saying = Saying { facts, wish, origin, lease, now };
        let common_print = self.print(&saying);
        for (places_before, uri) in uris.iter().enumerate() {
            let print = self.hasher.hash_one((common_print, uri));
            // Routes come in the same order every time, so the place is mostly the next one.
            let places = &mut self.instances[no].places;
            let next = places_before.min(places.len());
            let (before, after) = places.split_at_mut(next);
            match after.iter_mut().chain(before).find(|place| place.print == print) {
                Some(place) => (place.renewed, place.named, place.lease) = (now, now, lease),
                None => self.join(no, uri, print, &saying, changes),
            }
        }
        if self.instances[no].places.is_empty() {
            self.drop_instance(no);
            return None;
        }
        self.join_agent(no, facts.agent.as_ref());
        self.schedule(no);
        Some(no)
    }

    /// The hash of all that is said but for the route.
    fn print(&self, saying: &Saying) -> u64 {
        let facts = saying.facts;
        let mut hasher = self.hasher.build_hasher();
        saying.origin.hash(&mut hasher);
        (&facts.address, &facts.tls, facts.protocol, &facts.app, &facts.instance, &facts.index).hash(&mut hasher);
        (&facts.agent, &facts.tags, &facts.zone, &facts.isolation_segment, &facts.route_service).hash(&mut hasher);
        (facts.weight.to_bits(), saying.wish.strategy, saying.wish.hash_header).hash(&mut hasher);
        hasher.finish()
    }

    fn instance_of(&mut self, facts: &Facts, now: Moment) -> u32 {
        match self.instance_at(facts) {
            None => self.new_instance(facts, now),
            Some(no) => {
                self.learn_identity(no, facts);
                no
            }
        }
    }

    /// The known instance that is meant: the one at this address with the same app and id, else one of which less is known
    /// but nothing else.
    pub(super) fn instance_at(&self, facts: &Facts) -> Option<u32> {
        let there = self.by_address.get(&facts.address)?.as_slice();
        let is_same = |no: &&u32| {
            let known = &self.instances[**no];
            known.app == facts.app && known.id == facts.instance
        };
        let may_be = |no: &&u32| {
            let known = &self.instances[**no];
            let app_fits = known.app == facts.app || known.app.is_empty() || facts.app.is_empty();
            app_fits && (known.id == facts.instance || known.id.is_empty() || facts.instance.is_empty())
        };
        there.iter().find(is_same).or_else(|| there.iter().find(may_be)).copied()
    }

    fn new_instance(&mut self, facts: &Facts, now: Moment) -> u32 {
        self.serial += 1;
        let live_app = self.lives.of(&facts.app);
        let endpoint = Arc::new(Endpoint::new(self.serial, facts.clone(), Arc::new(Live::new(now)), live_app));
        let no = self.instances.insert(Instance {
            endpoint,
            app: Default::default(),
            id: Default::default(),
            local: Default::default(),
            agent: None,
            beat: 0,
            due: NEVER,
            places: Vec::new(),
        });
        index(&mut self.by_address, &facts.address, no);
        self.learn_identity(no, facts);
        no
    }

    /// Takes down the app and the id if they were not known.
    fn learn_identity(&mut self, no: u32, facts: &Facts) {
        let instance = &mut self.instances[no];
        if instance.app.is_empty() && !facts.app.is_empty() {
            instance.app = facts.app.clone();
            index(&mut self.by_app, &facts.app, no);
        }
        if instance.id.is_empty() && !facts.instance.is_empty() {
            instance.id = facts.instance.clone();
            index(&mut self.by_id, &facts.instance, no);
        }
    }

    /// Takes down its agent's own id of it.
    pub(super) fn learn_local_id(&mut self, no: u32, local: &InstanceId) {
        let instance = &mut self.instances[no];
        if local.is_empty() || instance.local == *local {
            return;
        }
        let before = std::mem::replace(&mut instance.local, local.clone());
        if before != instance.id {
            unindex(&mut self.by_id, &before, no);
        }
        index(&mut self.by_id, local, no);
    }

    /// Puts an instance on one route, or changes what is known about it there.
    fn join(&mut self, no: u32, uri: &RouteUri, print: u64, saying: &Saying, changes: &mut Changes) {
        let route = self.route(uri, saying.now);
        if let Some(place) = self.instances[no].place_mut(route) {
            if place.origin == Origin::Configuration && saying.origin != Origin::Configuration {
                return;
            }
            (place.renewed, place.named) = (saying.now, saying.now);
            if place.origin > saying.origin {
                return;
            }
            (place.lease, place.print, place.origin) = (saying.lease, print, saying.origin);
            self.change_member(no, route, saying, changes);
            return;
        }
        if self.is_taken(no, route, saying, changes) {
            return;
        }
        let endpoint = self.endpoint_of(no, saying.facts);
        changes.arrived.push(endpoint.clone());
        let (lease, origin, now) = (saying.lease, saying.origin, saying.now);
        self.endpoints += 1;
        self.instances[no].places.push(Place { route, lease, renewed: now, named: now, print, origin });
        let member = Member {
            instance: no,
            endpoint,
            strategy: saying.wish.strategy,
            hash_header: saying.wish.hash_header.cloned(),
        };
        self.routes[route].members.push(member);
        self.routes[route].empty_since = None;
        self.routes[route].is_no_more = false;
        self.touch(route);
    }

    fn change_member(&mut self, no: u32, route: u32, saying: &Saying, changes: &mut Changes) {
        let at = self.routes[route].members.iter().position(|member| member.instance == no);
        let at = at.expect("an instance with a place on a route is one of its members");
        let (strategy, hash_header) = (saying.wish.strategy, saying.wish.hash_header.cloned());
        let has_same_facts = self.routes[route].members[at].endpoint.facts == *saying.facts;
        let endpoint = if has_same_facts { None } else { Some(self.endpoint_of(no, saying.facts)) };
        let member = &mut self.routes[route].members[at];
        if endpoint.is_none() && member.strategy == strategy && member.hash_header == hash_header {
            return;
        }
        (member.strategy, member.hash_header) = (strategy, hash_header);
        if let Some(endpoint) = endpoint {
            changes.arrived.push(endpoint.clone());
            member.endpoint = endpoint;
        }
        self.touch(route);
    }

    /// At one address there is one instance of a route: the newer one takes the place of the other, unless the configuration
    /// put that one there.
    fn is_taken(&mut self, no: u32, route: u32, saying: &Saying, changes: &mut Changes) -> bool {
        let there = self.by_address.get(&saying.facts.address).map_or(&[][..], Few::as_slice);
        let other = there.iter().copied().find(|other| *other != no && self.instances[*other].place(route).is_some());
        let Some(other) = other else { return false };
        let origin = self.instances[other].place(route).map(|place| place.origin);
        if origin == Some(Origin::Configuration) && saying.origin != Origin::Configuration {
            return true;
        }
        self.leave(other, route, Departure::Replaced, saying.now, changes);
        false
    }

    /// The endpoint with these facts: the instance's own, or a new one that shares what changes.
    fn endpoint_of(&mut self, no: u32, facts: &Facts) -> Arc<Endpoint> {
        let known = &self.instances[no].endpoint;
        if known.facts == *facts {
            return known.clone();
        }
        let is_spoken_to_alike = known.tls == facts.tls && known.protocol == facts.protocol;
        let serial = if is_spoken_to_alike {
            known.serial
        } else {
            self.serial += 1;
            self.serial
        };
        let same_app = known.app == facts.app;
        let live_app = if same_app { known.live_app.clone() } else { self.lives.of(&facts.app) };
        let endpoint = Endpoint::new(serial, facts.clone(), known.live.clone(), live_app);
        *endpoint.resolved.lock() = known.socket_address();
        let endpoint = Arc::new(endpoint);
        self.instances[no].endpoint = endpoint.clone();
        endpoint
    }

    /// The number of a route, which becomes known by it.
    pub(super) fn route(&mut self, uri: &RouteUri, now: Moment) -> u32 {
        if let Some(&no) = self.route_of.get(uri.as_str()) {
            return no;
        }
        let context_path = if uri.context_path() == "/" { self.root_path.clone() } else { uri.context_path().into() };
        let no = self.routes.insert(Route {
            uri: uri.clone(),
            context_path,
            members: Vec::new(),
            configured: None,
            fleet: Arc::new(Fleet::default()),
            empty_since: Some(now),
            sleepers: Vec::new(),
            is_no_more: false,
            due: NEVER,
            pool: None,
            dirty: false,
            reported: false,
            has_loads: false,
        });
        self.route_of.insert(uri.shared().clone(), no);
        no
    }

    /// Makes sure that an instance is looked at when the first of its leases runs out.
    pub(super) fn schedule(&mut self, no: u32) {
        let instance = &mut self.instances[no];
        let Some(end) = instance.next_end(self.grace_from) else { return };
        // A later end is no reason to move the entry: it is put off when it comes due.
        if bucket(end) < instance.due {
            instance.due = bucket(end);
            self.agenda.add(instance.due, Due::Instance(no));
        }
    }

    /// Takes an instance off a route, and out of the table with the last one.
    pub(super) fn leave(&mut self, no: u32, route: u32, why: Departure, now: Moment, changes: &mut Changes) {
        let instance = &mut self.instances[no];
        instance.places.retain(|place| place.route != route);
        let is_gone = instance.places.is_empty();
        let members = &mut self.routes[route].members;
        if let Some(at) = members.iter().position(|member| member.instance == no) {
            changes.left.push((why, members.remove(at).endpoint));
            self.endpoints -= 1;
        }
        if members.is_empty() {
            self.emptied(route, now);
        }
        self.touch(route);
        if is_gone {
            self.drop_instance(no);
        }
    }

    /// Takes an instance off all its routes that the configuration does not name it on.
    pub(super) fn remove_instance(&mut self, no: u32, why: Departure, now: Moment, changes: &mut Changes) {
        let registered = |place: &&Place| place.origin != Origin::Configuration;
        let routes: Vec<u32> = self.instances[no].places.iter().filter(registered).map(|place| place.route).collect();
        for route in routes {
            self.leave(no, route, why, now, changes);
        }
    }

    fn drop_instance(&mut self, no: u32) {
        self.leave_agent(no);
        let Some(instance) = self.instances.remove(no) else { return };
        unindex(&mut self.by_address, &instance.endpoint.address, no);
        unindex(&mut self.by_app, &instance.app, no);
        unindex(&mut self.by_id, &instance.id, no);
        unindex(&mut self.by_id, &instance.local, no);
    }

    /// Sets what an instance does.
    pub(super) fn set_state(&mut self, no: u32, state: State, now: Moment, changes: &mut Changes) {
        let instance = &self.instances[no];
        let live = &instance.endpoint.live;
        let before = live.state();
        if before == state {
            return;
        }
        live.set_state(state, now);
        if before == State::Starting && state == State::Running {
            changes.started.push(instance.endpoint.clone());
        }
    }
}

type Index<K> = std::collections::HashMap<K, Few, crate::domain::hash::Keyed>;

fn index<K: Clone + Eq + Hash>(index: &mut Index<K>, key: &K, no: u32) {
    match index.get_mut(key) {
        Some(few) => few.insert(no),
        None => {
            index.insert(key.clone(), Few::One(no));
        }
    }
}

fn unindex<K: Eq + Hash>(index: &mut Index<K>, key: &K, no: u32) {
    if index.get_mut(key).is_some_and(|few| few.remove(no)) {
        index.remove(key);
    }
}

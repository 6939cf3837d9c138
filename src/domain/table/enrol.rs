//! How instances join routes and leave them.

use std::hash::{BuildHasher, Hash, Hasher};
use std::num::NonZeroU64;
use std::sync::Arc;

use arcstr::ArcStr;
use rustc_hash::FxHasher;

use super::few::{Few, push_tightly};
use super::lease::{Due, Lease, NEVER, bucket};
use super::records::{Instance, Member, Place, Route};
use super::{Changes, Departure, RouteTable};
use crate::domain::balance::fleet::Fleet;
use crate::domain::balance::live::{Live, State};
use crate::domain::balance::strategy::Strategy;
use crate::domain::endpoint::{Endpoint, Facts};
use crate::domain::identity::{Address, AppId, InstanceId};
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
    pub(super) hash_header: Option<&'a ArcStr>,
}

/// What is said about an instance and its routes, with everything needed to take it in.
struct Saying<'a> {
    facts: &'a Facts,
    wish: Wish<'a>,
    origin: Origin,
    lease: Lease,
    now: Moment,
}

/// What is said about who an instance is, as hashes.
struct Name {
    /// Of its address: as if hashed alone.
    address: u64,
    /// Of address, app and id.
    who: u64,
}

/// Takes in all that is said but for the route. It is compared with what the same instance said before and with nothing
/// else, so nobody gains by hitting it: the fast hash will do.
fn print(name: &Name, saying: &Saying) -> FxHasher {
    let (facts, mut hasher) = (saying.facts, FxHasher::default());
    (name.who, saying.origin, &facts.tls, facts.protocol, &facts.index, &facts.agent, &facts.tags).hash(&mut hasher);
    (&facts.zone, &facts.isolation_segment, &facts.route_service, facts.weight.to_bits()).hash(&mut hasher);
    (saying.wish.strategy, saying.wish.hash_header, saying.lease).hash(&mut hasher);
    hasher
}

impl Saying<'_> {
    /// Whether it says of an endpoint what is known of it.
    fn is_of(&self, known: &Endpoint) -> bool {
        known.facts == *self.facts && known.lease_s == self.lease.seconds()
    }
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
        let saying = Saying { facts, wish, origin, lease, now };
        let name = self.name(facts);
        let no = self.instance_of(&saying, &name);
        let common_print = print(&name, &saying);
        for (places_before, uri) in uris.iter().enumerate() {
            let mut print = common_print.clone();
            uri.hash(&mut print);
            let print = print.finish();
            // Routes come in the same order every time, so the place is mostly the next one.
            let places = &mut self.instances[no].places;
            let next = places_before.min(places.len());
            let (before, after) = places.split_at_mut(next);
            match after.iter_mut().chain(before).find(|place| place.print == print) {
                Some(place) => (place.renewed, place.named) = (now, now),
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

    /// What these facts call an instance, hashed.
    fn name(&self, facts: &Facts) -> Name {
        let mut hasher = self.hasher.build_hasher();
        facts.address.hash(&mut hasher);
        let address = hasher.finish();
        (&facts.app, &facts.instance).hash(&mut hasher);
        Name { address, who: hasher.finish() }
    }

    fn instance_of(&mut self, saying: &Saying, name: &Name) -> u32 {
        match self.instance_named(saying.facts, name) {
            None => self.new_instance(saying),
            Some(no) => {
                // Known by all it says, it has nothing new to say, and its texts need not be fetched to see that.
                if self.instances[no].who != name.who {
                    self.learn_identity(no, saying.facts);
                }
                no
            }
        }
    }

    /// The known instance that is meant: the one at this address with the same app and id, else one of which less is known
    /// but nothing else.
    pub(super) fn instance_at(&self, facts: &Facts) -> Option<u32> {
        self.instance_named(facts, &self.name(facts))
    }

    fn instance_named(&self, facts: &Facts, name: &Name) -> Option<u32> {
        let Name { address, who } = *name;
        let there = self.by_address.with(address);
        let older = |no: &u32| self.instances[*no].nth;
        // Texts are compared only if the hash of them all is not known.
        there.filter(|no| self.instances[*no].who == who).min_by_key(older).or_else(|| {
            let says_all = !facts.app.is_empty() && !facts.instance.is_empty();
            let may_be = |no: &u32| {
                let known = &self.instances[*no];
                if says_all && !known.app.is_empty() && !known.id.is_empty() {
                    return false;
                }
                let app_fits = known.app == facts.app || known.app.is_empty() || facts.app.is_empty();
                let id_fits = known.id == facts.instance || known.id.is_empty() || facts.instance.is_empty();
                app_fits && id_fits && known.endpoint.address == facts.address
            };
            self.by_address.with(address).filter(may_be).min_by_key(older)
        })
    }

    pub(super) fn who(&self, address: &Address, app: &AppId, id: &InstanceId) -> u64 {
        self.hasher.hash_one((address, app, id))
    }

    /// The number of a route, if it is known.
    pub(super) fn route_no(&self, uri: &RouteUri) -> Option<u32> {
        let named = |no: &u32| self.routes[*no].uri == *uri;
        self.route_of.with(self.hasher.hash_one(uri.as_str())).find(named)
    }

    /// The instances at an address.
    pub(super) fn instances_at(&self, address: &Address) -> impl Iterator<Item = u32> {
        let is_there = move |no: &u32| self.instances[*no].endpoint.address == *address;
        self.by_address.with(self.hasher.hash_one(address)).filter(is_there)
    }

    /// The instances that have this id, of themselves or from their agent. Nobody has the empty one.
    pub(super) fn instances_with(&self, id: &InstanceId) -> impl Iterator<Item = u32> {
        let hash = self.hash_of_id(id);
        let has_it = move |no: &u32| self.instances[*no].local == hash || self.instances[*no].id == *id;
        hash.into_iter().flat_map(|hash| self.by_id.with(hash.get())).filter(has_it)
    }

    /// The instances of an app. The empty one has none.
    pub(super) fn instances_in(&self, app: &AppId) -> impl Iterator<Item = u32> {
        let is_of_it = move |no: &u32| self.instances[*no].app == *app;
        self.by_app.with(self.hasher.hash_one(app)).filter(is_of_it)
    }

    fn new_instance(&mut self, saying: &Saying) -> u32 {
        self.serial += 1;
        self.instances_ever = self.instances_ever.wrapping_add(1);
        let facts = saying.facts.kept(|text| self.texts.keep(text));
        let live_app = self.lives.of(&facts.app);
        let live = Arc::new(Live::new(saying.now));
        let endpoint = Endpoint::new(self.serial, facts, live.clone(), live_app);
        let endpoint = Arc::new(Endpoint { lease_s: saying.lease.seconds(), ..endpoint });
        let no = self.instances.insert(Instance {
            who: 0,
            live,
            app: endpoint.app.clone(),
            id: endpoint.instance.clone(),
            local: None,
            endpoint: endpoint.clone(),
            agent: None,
            nth: self.instances_ever,
            beat: 0,
            due: NEVER,
            places: Few::default(),
        });
        self.by_address.insert(self.hasher.hash_one(&endpoint.address), no);
        self.index_names(no);
        no
    }

    /// Takes down the app and the id if they were not known.
    fn learn_identity(&mut self, no: u32, facts: &Facts) {
        let instance = &self.instances[no];
        let learns_app = instance.app.is_empty() && !facts.app.is_empty();
        let learns_id = instance.id.is_empty() && !facts.instance.is_empty();
        if !learns_app && !learns_id {
            return;
        }
        self.unindex_names(no);
        let instance = &mut self.instances[no];
        if learns_app {
            instance.app = facts.app.kept(|text| self.texts.keep(text));
        }
        if learns_id {
            instance.id = facts.instance.clone();
        }
        self.index_names(no);
    }

    /// Makes an instance known by its ids and its app.
    fn index_names(&mut self, no: u32) {
        let instance = &self.instances[no];
        for hash in self.hashes_of_ids(instance).into_iter().flatten() {
            self.by_id.insert(hash, no);
        }
        if !instance.app.is_empty() {
            self.by_app.insert(self.hasher.hash_one(&instance.app), no);
        }
        let who = self.who(&instance.endpoint.address, &instance.app, &instance.id);
        self.instances[no].who = who;
    }

    fn unindex_names(&mut self, no: u32) {
        let instance = &self.instances[no];
        for hash in self.hashes_of_ids(instance).into_iter().flatten() {
            self.by_id.remove(hash, no);
        }
        if !instance.app.is_empty() {
            self.by_app.remove(self.hasher.hash_one(&instance.app), no);
        }
    }

    pub(super) fn hashes_of_ids(&self, instance: &Instance) -> [Option<u64>; 2] {
        let id = self.hash_of_id(&instance.id);
        [id, instance.local.filter(|local| id != Some(*local))].map(|hash| hash.map(NonZeroU64::get))
    }

    /// Agents' own ids are kept as this: nobody ever wants to read one.
    pub(super) fn hash_of_id(&self, id: &InstanceId) -> Option<NonZeroU64> {
        if id.is_empty() { None } else { NonZeroU64::new(self.hasher.hash_one(id).max(1)) }
    }

    /// Takes down its agent's own id of it.
    pub(super) fn learn_local_id(&mut self, no: u32, local: &InstanceId) {
        let local = self.hash_of_id(local);
        if local.is_none() || self.instances[no].local == local {
            return;
        }
        self.unindex_names(no);
        self.instances[no].local = local;
        self.index_names(no);
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
        let endpoint = self.endpoint_of(no, saying);
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
        push_tightly(&mut self.routes[route].members, member);
        self.routes[route].empty_since = None;
        self.routes[route].is_no_more = false;
        self.touch(route);
    }

    fn change_member(&mut self, no: u32, route: u32, saying: &Saying, changes: &mut Changes) {
        let at = self.routes[route].members.iter().position(|member| member.instance == no);
        let at = at.expect("an instance with a place on a route is one of its members");
        let (strategy, hash_header) = (saying.wish.strategy, saying.wish.hash_header.cloned());
        let is_as_said = saying.is_of(&self.routes[route].members[at].endpoint);
        let endpoint = if is_as_said { None } else { Some(self.endpoint_of(no, saying)) };
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
        let address = &saying.facts.address;
        let is_other = |other: &u32| {
            let known = &self.instances[*other];
            *other != no && known.place(route).is_some() && known.endpoint.address == *address
        };
        let other = self.by_address.with(self.hasher.hash_one(address)).find(is_other);
        let Some(other) = other else { return false };
        let origin = self.instances[other].place(route).map(|place| place.origin);
        if origin == Some(Origin::Configuration) && saying.origin != Origin::Configuration {
            return true;
        }
        self.leave(other, route, Departure::Replaced, saying.now, changes);
        false
    }

    /// The endpoint as it is said to be: the instance's own, or a new one that shares what changes.
    fn endpoint_of(&mut self, no: u32, saying: &Saying) -> Arc<Endpoint> {
        let known = &self.instances[no].endpoint;
        if saying.is_of(known) {
            return known.clone();
        }
        let facts = saying.facts;
        let is_spoken_to_alike = known.tls == facts.tls && known.protocol == facts.protocol;
        let serial = if is_spoken_to_alike {
            known.serial
        } else {
            self.serial += 1;
            self.serial
        };
        let facts = facts.kept(|text| self.texts.keep(text));
        let same_app = known.app == facts.app;
        let live_app = if same_app { known.live_app.clone() } else { self.lives.of(&facts.app) };
        let endpoint = Endpoint::new(serial, facts, known.live.clone(), live_app);
        known.socket_address().into_iter().for_each(|socket| endpoint.resolve(socket.ip()));
        let endpoint = Arc::new(Endpoint { lease_s: saying.lease.seconds(), ..endpoint });
        self.instances[no].endpoint = endpoint.clone();
        endpoint
    }

    /// The number of a route, which becomes known by it.
    pub(super) fn route(&mut self, uri: &RouteUri, now: Moment) -> u32 {
        if let Some(no) = self.route_no(uri) {
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
        self.route_of.insert(self.hasher.hash_one(uri.as_str()), no);
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
        self.unindex_names(no);
        let Some(instance) = self.instances.remove(no) else { return };
        self.by_address.remove(self.hasher.hash_one(&instance.endpoint.address), no);
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

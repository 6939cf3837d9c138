//! Sleeping apps in the table: their routes outlive their instances, and no instance is picked before its app is awake.

use std::sync::Arc;

use super::{Changes, Departure, RouteTable};
use crate::domain::balance::live::State;
use crate::domain::endpoint::Endpoint;
use crate::domain::identity::AppId;
use crate::domain::moment::Moment;
use crate::domain::protocol::route_uri::RouteUri;
use crate::domain::wake::{Instance, LiveApps};

impl RouteTable {
    /// What the workers share about each app.
    pub fn live_apps(&self) -> &Arc<LiveApps> {
        &self.lives
    }

    /// Whether so many routes more can be kept for sleeping apps.
    pub fn has_room_to_sleep(&self, uris: &[RouteUri]) -> bool {
        self.endpoints + self.kept + uris.len() <= self.settings.endpoints_max
    }

    /// An app has fallen asleep: these routes stay known.
    pub fn sleep(&mut self, app: &AppId, uris: &[RouteUri], now: Moment) {
        self.let_go(app, false, now); // an earlier sleep may have had other routes
        let live = self.lives.of(app);
        let mut kept = Vec::with_capacity(uris.len());
        for uri in uris {
            let no = self.route(uri, now);
            let route = &mut self.routes[no];
            if !route.sleepers.iter().any(|known| Arc::ptr_eq(known, &live)) {
                route.sleepers.push(live.clone());
                route.is_no_more = false;
                kept.push(no);
                self.touch(no);
            }
        }
        self.kept += kept.len();
        self.asleep.insert(app.clone(), kept);
        self.check_invariants(None);
    }

    /// An app is awake: its routes depend on its instances again.
    pub fn wake(&mut self, app: &AppId, now: Moment) {
        self.let_go(app, false, now);
        for no in self.instances_in(app) {
            self.instances[no].live.begin_slowly(now);
        }
    }

    /// A sleeping app is no more: routes that were kept for it are forgotten at once, unless somebody else serves them. Those
    /// of its instances whose leases have not run out yet were stopped, or never answered: they go with it.
    pub fn forget(&mut self, app: &AppId, now: Moment, changes: &mut Changes) {
        let instances: Vec<u32> = self.instances_in(app).collect();
        for no in instances {
            self.remove_instance(no, Departure::Unregistered, now, changes);
        }
        self.let_go(app, true, now);
    }

    fn let_go(&mut self, app: &AppId, is_no_more: bool, now: Moment) {
        let kept = self.asleep.remove(app).unwrap_or_default();
        self.kept -= kept.len();
        for no in kept {
            let route = &mut self.routes[no];
            route.sleepers.retain(|known| known.app() != app);
            if route.members.is_empty() && route.sleepers.is_empty() {
                route.is_no_more = is_no_more;
                self.emptied(no, now);
            }
            self.touch(no);
        }
        // Whether or not these routes were named: their instances may be picked now, or may not be any more.
        let places = self.instances_in(app).flat_map(|no| &self.instances[no].places);
        let routes: Vec<u32> = places.map(|place| place.route).collect();
        routes.into_iter().for_each(|no| self.touch(no));
    }

    /// The instances of an app.
    pub fn instances_of(&self, app: &AppId) -> Vec<Instance> {
        let instance = |no: u32| {
            let known = &self.instances[no];
            Instance { address: known.endpoint.address.clone(), id: known.endpoint.instance.clone() }
        };
        self.instances_in(app).map(instance).collect()
    }

    /// This instance, if it is known.
    pub fn instance(&self, wanted: &Instance) -> Option<&Arc<Endpoint>> {
        let mut there = self.instances_at(&wanted.address).map(|no| &self.instances[no].endpoint);
        there.find(|endpoint| endpoint.instance == wanted.id)
    }

    /// Notes an instance of a sleeping app that was just heard of and says that it runs.
    pub(super) fn note_if_stirred(&self, no: u32, changes: &mut Changes) {
        if self.asleep.is_empty() {
            return; // and nothing of the instance need be looked at
        }
        let endpoint = &self.instances[no].endpoint;
        if endpoint.live_app.stage().is_asleep() && endpoint.live.state() == State::Running {
            changes.stirred.push(endpoint.clone());
        }
    }
}

//! What must hold after every change of the table, and what must not. Checked in builds for development only.

use std::sync::Arc;

use super::RouteTable;
use super::lease::bucket;
use super::records::Instance;

/// Beyond so many instances only what was touched is checked: a whole check costs as much as the table is large.
const CHECKED_WHOLE: usize = 256;

impl RouteTable {
    /// Panics if the table contradicts itself.
    pub(super) fn check_invariants(&self, touched: Option<u32>) {
        if !cfg!(debug_assertions) {
            return;
        }
        if let Some(no) = touched {
            self.check_instance(no);
        }
        if self.instances.len() + self.routes.len() <= CHECKED_WHOLE {
            self.check_whole();
        }
    }

    fn check_instance(&self, no: u32) {
        let instance = &self.instances[no];
        assert!(!instance.places.is_empty(), "an instance without a route is forgotten");
        for place in &instance.places {
            let members = &self.routes[place.route].members;
            let places = members.iter().filter(|member| member.instance == no).count();
            assert_eq!(places, 1, "an instance with a place is a member of its route once");
        }
        if let Some(end) = instance.next_end(self.grace_from) {
            assert!(instance.due <= bucket(end), "every lease is on the agenda");
        }
        let at_its_address = self.instances_at(&instance.endpoint.address).filter(|found| *found == no).count();
        assert_eq!(at_its_address, 1, "every instance is found by its address once");
        for hash in self.hashes_of_ids(instance).into_iter().flatten() {
            let with_its_id = self.by_id.with(hash).filter(|found| *found == no).count();
            assert_eq!(with_its_id, 1, "every instance is found by its ids once");
        }
        let in_its_app = self.instances_in(&instance.app).filter(|found| *found == no).count();
        assert_eq!(in_its_app, usize::from(!instance.app.is_empty()), "and by its app");
        assert_eq!(instance.who, self.who(&instance.endpoint.address, &instance.app, &instance.id));
        assert!(Arc::ptr_eq(&instance.live, &instance.endpoint.live), "an instance has one life");
        if let Some((agent, at)) = instance.agent {
            assert_eq!(self.agents[agent].instances[at as usize], no, "an agent and its instances know each other");
        }
    }

    fn check_whole(&self) {
        self.instances.iter().for_each(|(no, _)| self.check_instance(no));
        for (no, route) in self.routes.iter() {
            assert_eq!(self.route_no(&route.uri), Some(no), "every route is found by its name");
            let empty = route.members.is_empty();
            assert_eq!(route.empty_since.is_some(), empty, "it is known since when a route has been empty");
            let mut addresses: Vec<_> = route.members.iter().map(|member| &member.endpoint.address).collect();
            addresses.sort_unstable();
            addresses.dedup();
            assert_eq!(addresses.len(), route.members.len(), "an address is on a route once");
            let is_as_published = route
                .pool
                .as_ref()
                .is_some_and(|pool| pool.endpoints.iter().map(Arc::as_ptr).eq(route.awake().map(Arc::as_ptr)));
            assert!(route.dirty || is_as_published, "a route that differs from its pool is to be built afresh");
        }
        assert_eq!(self.route_of.len(), self.routes.len());
        assert_eq!(self.by_address.len(), self.instances.len(), "no address leads to an instance that is gone");
        let of_apps = self.instances.iter().filter(|(_, instance)| !instance.app.is_empty()).count();
        assert_eq!(self.by_app.len(), of_apps, "and no app");
        let ids = |(_, instance): (u32, &Instance)| self.hashes_of_ids(instance).into_iter().flatten().count();
        assert_eq!(self.by_id.len(), self.instances.iter().map(ids).sum::<usize>(), "and no id");
        let places: usize = self.instances.iter().map(|(_, instance)| instance.places.len()).sum();
        assert_eq!(places, self.endpoints, "endpoints are counted as they come and go");
        let listed: usize = self.agents.iter().map(|(_, agent)| agent.instances.len()).sum();
        assert_eq!(listed, self.instances.iter().filter(|(_, instance)| instance.agent.is_some()).count());
    }
}

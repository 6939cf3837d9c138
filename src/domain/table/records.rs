//! What the table keeps about each instance and each route.

use std::num::NonZeroU64;
use std::sync::Arc;

use arcstr::ArcStr;

use super::enrol::Origin;
use super::few::Few;
use super::lease::{Bucket, Lease};
use super::snapshot::{Pool, RouteSettings};
use crate::domain::balance::fleet::Fleet;
use crate::domain::balance::live::Live;
use crate::domain::balance::strategy::Strategy;
use crate::domain::endpoint::Endpoint;
use crate::domain::identity::{AppId, InstanceId};
use crate::domain::moment::Moment;
use crate::domain::protocol::route_uri::RouteUri;
use crate::domain::wake::LiveApp;

/// One instance, whatever it serves. It has at least one place.
#[derive(Debug)]
pub(super) struct Instance {
    /// Hash of its address, app and id as known: who says all three is recognised by it.
    pub(super) who: u64,
    /// Its endpoint's, at hand for reports.
    pub(super) live: Arc<Live>,
    /// Its endpoint as last registered. Those on its routes are the same, unless it registered routes with different facts:
    /// then they share `live`.
    pub(super) endpoint: Arc<Endpoint>,
    /// Its app; empty if nobody has said.
    pub(super) app: AppId,
    /// Its `private_instance_id`; empty if nobody has said.
    pub(super) id: InstanceId,
    /// Hash of its agent's own id of it; `None` if nobody has said.
    pub(super) local: Option<NonZeroU64>,
    /// The agent that reports it, and where it is in that agent's list.
    pub(super) agent: Option<(u32, u32)>,
    /// Instances that became known before it; the older one is meant where there is doubt.
    pub(super) nth: u32,
    /// The last heartbeat of that agent that had it (counted by the agent); 0 for none.
    pub(super) beat: u32,
    /// Its entry in the agenda.
    pub(super) due: Bucket,
    /// The routes it serves.
    pub(super) places: Few<Place>,
}

/// The place of an instance on one route.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) route: u32,
    pub(super) lease: Lease,
    pub(super) renewed: Moment,
    /// When it was last named, rather than renewed by a heartbeat that names no routes.
    pub(super) named: Moment,
    /// Hash of what was last said about this place.
    pub(super) print: u64,
    pub(super) origin: Origin,
}

impl Place {
    /// When the lease runs out, if leases count from `grace_from` at the earliest.
    pub(super) fn lease_end(&self, grace_from: Moment) -> Option<Moment> {
        self.lease.end(self.renewed.max(grace_from))
    }
}

impl Instance {
    pub(super) fn place(&self, route: u32) -> Option<&Place> {
        self.places.iter().find(|place| place.route == route)
    }

    pub(super) fn place_mut(&mut self, route: u32) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.route == route)
    }

    /// Renews all leases at the word of somebody who names no routes, but for those of routes that whoever does name them has
    /// not named for a whole lease: they would never run out.
    pub(super) fn renew_all(&mut self, now: Moment) {
        let last_named = self.places.iter().map(|place| place.named).max().unwrap_or(now);
        let is_dropped = |place: &Place| place.lease.end(place.named).is_some_and(|end| end <= last_named);
        self.places.iter_mut().filter(|place| !is_dropped(place)).for_each(|place| place.renewed = now);
    }

    /// When the first of its leases runs out.
    pub(super) fn next_end(&self, grace_from: Moment) -> Option<Moment> {
        self.places.iter().filter_map(|place| place.lease_end(grace_from)).min()
    }
}

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    /// As first registered.
    pub(super) uri: RouteUri,
    pub(super) context_path: ArcStr,
    /// In order of registration.
    pub(super) members: Vec<Member>,
    /// Set if the configuration names it.
    pub(super) configured: Option<Arc<RouteSettings>>,
    pub(super) fleet: Arc<Fleet>,
    /// Set while it has no members.
    pub(super) empty_since: Option<Moment>,
    /// Apps that sleep and keep it known meanwhile.
    pub(super) sleepers: Vec<Arc<LiveApp>>,
    /// It is to be forgotten at once, unless somebody serves it or sleeps on it.
    pub(super) is_no_more: bool,
    /// Its entry in the agenda.
    pub(super) due: Bucket,
    /// As in the newest picture.
    pub(super) pool: Option<Arc<Pool>>,
    /// Whether it is in the list of those whose pool is to be built afresh.
    pub(super) dirty: bool,
    /// Whether it is in the list of those with new loads.
    pub(super) reported: bool,
    /// Whether load was ever reported.
    pub(super) has_loads: bool,
}

impl Route {
    /// The endpoints whose app does not sleep.
    pub(super) fn awake(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.members.iter().map(|member| &member.endpoint).filter(|endpoint| !endpoint.live_app.stage().is_asleep())
    }

    /// An app that sleeps and would serve this route: one that was told to, or one with an instance here that is not ready.
    pub(super) fn sleeper(&self) -> Option<&Arc<LiveApp>> {
        let members = self.members.iter().map(|member| &member.endpoint.live_app);
        self.sleepers.iter().chain(members).find(|app| app.stage().is_asleep())
    }
}

/// An instance on a route, as workers are to see it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) instance: u32,
    pub(super) endpoint: Arc<Endpoint>,
    /// The strategy it asked for.
    pub(super) strategy: Option<Strategy>,
    pub(super) hash_header: Option<ArcStr>,
}

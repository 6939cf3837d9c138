//! From the table to the picture that workers read: only what changed is built afresh.

use std::hash::BuildHasher;
use std::sync::Arc;

use super::RouteTable;
use super::records::Route;
use super::settings::TableSettings;
use super::snapshot::{Pool, RouteSettings, Snapshot};
use crate::domain::balance::derived::Derived;
use crate::domain::balance::score;
use crate::domain::moment::Moment;

/// A sweep over all routes takes so many steps.
const SWEEP_STEPS: u32 = 16;

impl RouteTable {
    /// The routes as workers are to see them, if that changed since the last call. New loads are worked into the weights.
    pub fn snapshot(&mut self, now: Moment) -> Option<Arc<Snapshot>> {
        let changed = !self.dirty.is_empty() || self.never_published;
        for no in std::mem::take(&mut self.dirty) {
            self.rebuild(no, now);
            self.pace.step();
        }
        let mut reported = std::mem::take(&mut self.reported);
        for no in reported.drain(..) {
            let Some(route) = self.routes.get(no) else { continue };
            if let Some(pool) = &route.pool {
                score::recompute(pool, &self.settings.score, now);
            }
            self.routes[no].reported = false;
            self.pace.step();
        }
        self.reported = reported; // empty, with its room
        self.never_published = false;
        self.check_invariants(None);
        changed.then(|| Arc::new(self.picture.clone()))
    }

    /// Looks after what nobody reports: a step of the sweep over all routes notices loads that have become late, and agents
    /// that are long gone are forgotten. To be called about once a second.
    pub fn sweep(&mut self, now: Moment) {
        let bound = self.routes.bound();
        let step = bound.div_ceil(SWEEP_STEPS);
        for no in self.swept..(self.swept + step).min(bound) {
            let Some(route) = self.routes.get(no).filter(|route| route.has_loads) else { continue };
            if let Some(pool) = &route.pool {
                score::recompute(pool, &self.settings.score, now);
            }
            self.pace.step();
        }
        self.swept += step;
        if self.swept >= bound {
            self.swept = 0;
            self.forget_agents(now);
        }
    }

    fn rebuild(&mut self, no: u32, now: Moment) {
        if self.is_forgotten(no, now) {
            let Some(route) = self.routes.remove(no) else { return };
            self.route_of.remove(self.hasher.hash_one(route.uri.as_str()), no);
            self.picture.set(&route.uri, None);
            return;
        }
        let route = &mut self.routes[no];
        route.dirty = false;
        let pool = Arc::new(pool(route, &self.settings, &self.no_settings));
        route.pool = Some(pool.clone());
        self.picture.set(&route.uri, Some(pool));
        if route.has_loads && !route.reported {
            route.reported = true;
            self.reported.push(no);
        }
    }
}

fn pool(route: &Route, settings: &TableSettings, none: &Arc<RouteSettings>) -> Pool {
    let own = route.configured.as_ref().unwrap_or(none);
    // Whoever registered last and has a wish decides.
    let asking = || route.members.iter().rev().filter(|member| member.strategy.is_some());
    Pool {
        route: route.uri.shared().clone(),
        context_path: route.context_path.clone(),
        endpoints: route.awake().cloned().collect(),
        sleeper: route.sleeper().cloned(),
        strategy: own.strategy.or_else(|| asking().next()?.strategy).unwrap_or(settings.strategy),
        hash_header: own.hash_header.clone().or_else(|| asking().find_map(|member| member.hash_header.clone())),
        max_conns: own.max_conns.unwrap_or(settings.max_conns),
        settings: own.clone(),
        fleet: route.fleet.clone(),
        derived: Derived::default(),
    }
}

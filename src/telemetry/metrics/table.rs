//! What is counted by route: read from the snapshot, for a limited number of routes.

use std::collections::{HashMap, HashSet};

use arcstr::ArcStr;

use super::count::OTHER;
use super::exposition::Exposition;
use super::shard::CLASSES;
use super::{ENDPOINTS, ROUTE_REQUESTS, ROUTES};
use crate::domain::balance::State;
use crate::domain::balance::live::Live;
use crate::domain::endpoint::Endpoint;
use crate::domain::moment::Moment;
use crate::domain::table::snapshot::{Pool, Snapshot};

/// A walk takes one kind of record after the other of so many routes. A route, its endpoint and its life are found through
/// one another, so reads of them wait in turn; those of many routes come from memory together.
const STRIDE: usize = 256;

/// Responses by class of status, as a `Fleet` counts them.
type Responses = [u64; 5];

/// Which routes have series of their own. A route that has them keeps them until it is gone, so that they never jump.
#[derive(Debug, Default)]
pub(super) struct Named {
    routes: HashSet<ArcStr>,
    /// Routes beyond the limit, with what of them is in `together` already.
    beyond: HashMap<ArcStr, Responses>,
    /// What all routes beyond the limit ever had: it must not shrink when one of them goes.
    together: Responses,
}

impl Named {
    /// Takes over the counts of all routes that had requests; at most `routes_max` of them get series of their own.
    fn update(&mut self, routes: Vec<(ArcStr, Responses)>, routes_max: usize) -> Vec<(ArcStr, Responses)> {
        let present: HashSet<_> = routes.iter().map(|(route, _)| route.clone()).collect();
        self.routes.retain(|route| present.contains(route));
        self.beyond.retain(|route, _| present.contains(route));
        let mut named = Vec::with_capacity(routes.len().min(routes_max));
        for (route, counts) in routes {
            // A host called "other" would clash with the series of that name.
            let fits = self.routes.contains(&route) || (self.routes.len() < routes_max && *route != *OTHER);
            if fits {
                self.beyond.remove(&route);
                self.routes.insert(route.clone());
                named.push((route, counts));
            } else {
                let before = self.beyond.insert(route, counts).unwrap_or_default();
                for ((sum, now), before) in self.together.iter_mut().zip(counts).zip(before) {
                    // Less than before: the route went and came back between two looks, and began anew.
                    *sum += if now >= before { now - before } else { now };
                }
            }
        }
        if self.together != Responses::default() {
            named.push((OTHER.into(), self.together));
        }
        named
    }

    /// Walks the table.
    pub(super) fn gather(&mut self, snapshot: &Snapshot, routes_max: usize, now: Moment, out: &mut Exposition) {
        let mut states = [("running", 0_u64), ("starting", 0), ("draining", 0), ("ejected", 0)];
        let mut routes = Vec::new();
        let pools: Vec<&Pool> = snapshot.pools().map(|pool| &**pool).collect();
        let (mut endpoints, mut lives): (Vec<&Endpoint>, Vec<&Live>) = Default::default();
        for pools in pools.chunks(STRIDE) {
            endpoints.clear();
            endpoints.extend(pools.iter().flat_map(|pool| &pool.endpoints).map(|endpoint| &**endpoint));
            lives.clear();
            lives.extend(endpoints.iter().map(|endpoint| &*endpoint.live));
            for live in &lives {
                let state = match live.state() {
                    State::Running if live.ejected_until(now).is_some() => 3,
                    State::Running => 0,
                    State::Starting => 1,
                    State::Draining => 2,
                };
                states[state].1 += 1;
            }
            for pool in pools {
                let responses = pool.fleet.responses();
                if responses.iter().any(|count| *count > 0) {
                    routes.push((pool.route.clone(), responses));
                }
            }
        }
        out.number(ROUTES, snapshot.routes() as f64);
        out.numbers(ENDPOINTS, states.map(|(state, count)| ([state], count as f64)));
        let mut named = self.update(routes, routes_max);
        named.sort_unstable();
        let series = named.iter().flat_map(|(route, counts)| {
            let counted = CLASSES.iter().zip(counts).filter(|(_, count)| **count > 0);
            counted.map(move |(class, count)| ([&**route, class], *count as f64))
        });
        out.numbers(ROUTE_REQUESTS, series);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Routes written as text: `route count`, one a line; all of the class 2xx.
    #[track_caller]
    fn check(named: &mut Named, routes: &str, expected: &str) {
        let parse = |line: &str| {
            let (route, count) = line.trim().split_once(' ').expect("a route and a count");
            (route.into(), [0, count.parse().expect("a number"), 0, 0, 0])
        };
        let seen = named.update(routes.lines().map(parse).collect(), 2);
        let seen: Vec<_> = seen.iter().map(|(route, counts)| format!("{route} {}", counts[1])).collect();
        assert_eq!(seen.join("\n"), expected);
    }

    #[test]
    fn a_route_beyond_the_limit_is_counted_with_the_others() {
        let mut named = Named::default();
        check(&mut named, "a 1\nb 2\nc 3\nd 4", "a 1\nb 2\nother 7");
        check(&mut named, "d 5\nc 3\nb 3\na 1", "b 3\na 1\nother 8");
    }

    #[test]
    fn a_route_that_goes_makes_room_and_the_others_never_shrink() {
        let mut named = Named::default();
        check(&mut named, "a 1\nb 2\nc 3\nd 4", "a 1\nb 2\nother 7");
        check(&mut named, "b 2\nc 4\nd 4", "b 2\nc 4\nother 7");
        check(&mut named, "b 2\nc 4", "b 2\nc 4\nother 7");
        check(&mut named, "b 2\nc 4\nd 1", "b 2\nc 4\nother 8");
    }

    #[test]
    fn a_host_called_other_is_among_the_others() {
        check(&mut Named::default(), "other 5\na 1", "a 1\nother 5");
    }
}

//! What workers read: an immutable picture of all routes that shares its parts with the pictures before and after.
//!
//! Hosts are spread over shards by a keyed hash. A shard is shared by all snapshots since it last changed; the table
//! changes it in place when no snapshot holds it and copies it otherwise, so a change costs one shard, not the world.

use std::sync::Arc;
use std::time::Duration;

use arcstr::ArcStr;
use hashbrown::HashTable;
use memchr::memchr;

use super::host::Host;
use crate::domain::balance::derived::Derived;
use crate::domain::balance::fleet::Fleet;
use crate::domain::balance::strategy::Strategy;
use crate::domain::endpoint::Endpoint;
use crate::domain::hash::Keyed;
use crate::domain::protocol::rejection::HOST_BYTES_MAX;
use crate::domain::protocol::route_uri::RouteUri;
use crate::domain::wake::LiveApp;

/// Shards of hosts: at 100,000 hosts a changed one costs a copy of about a hundred entries.
const SHARDS: usize = 1024;

/// Settings of one route that the configuration may override; `None`: the router's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteSettings {
    /// Strategy for this route.
    pub strategy: Option<Strategy>,
    /// Header whose value is hashed, for `hash`.
    pub hash_header: Option<ArcStr>,
    /// Requests in flight per endpoint, to the end of the body or tunnel; 0 is unlimited.
    pub max_conns: Option<u32>,
    /// Attempts per request, at least 1.
    pub retry_attempts: Option<u32>,
    /// Time to connect.
    pub connect_timeout: Option<Duration>,
    /// Time from the request sent to the response head.
    pub response_head_timeout: Option<Duration>,
    /// Time a body may stand still.
    pub idle_body_timeout: Option<Duration>,
    /// Largest request body in bytes; 0 is unlimited.
    pub body_bytes_max: Option<u64>,
}

/// The endpoints of one route and how one of them is picked.
#[derive(Debug)]
pub struct Pool {
    /// Lower-cased `host[/path]`, as an operator would write it (`*.example.com/api`).
    pub route: ArcStr,
    /// Path of the sticky cookie: the route's path in the case first registered, `/` for none.
    pub context_path: ArcStr,
    /// In order of registration, without those whose app sleeps. May be empty: the route is known, but has no instance (503,
    /// not 404).
    pub endpoints: Box<[Arc<Endpoint>]>,
    /// An app that sleeps and belongs here: if there is no endpoint, a request has to wait for it.
    pub sleeper: Option<Arc<LiveApp>>,
    /// How to pick: configured for the route, else asked for by a registration, else the router's default.
    pub strategy: Strategy,
    /// Header whose value is hashed, for `hash`.
    pub hash_header: Option<ArcStr>,
    /// Requests in flight per endpoint, to the end of the body or tunnel; 0 is unlimited. The route's own or the router's.
    pub max_conns: u32,
    /// Overrides for this route.
    pub settings: Arc<RouteSettings>,
    /// What the endpoints of this route share: latency mean, failure rate, round-robin position. Outlives this snapshot.
    pub fleet: Arc<Fleet>,
    /// What the balance works out from the endpoints above when first asked: `Derived::default()` for each new pool.
    pub derived: Derived,
}

impl Pool {
    /// Whether nobody serves it, and nobody would after having been woken.
    pub(super) fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.sleeper.is_none()
    }

    /// The app to wait for, if there is nobody else.
    pub fn asleep(&self) -> Option<&Arc<LiveApp>> {
        self.sleeper.as_ref().filter(|_| self.endpoints.is_empty())
    }

    /// The route's host in lower case, without `*.`.
    pub(super) fn name(&self) -> &str {
        let host = self.route.split_once('/').map_or(&*self.route, |(host, _)| host);
        host.strip_prefix("*.").unwrap_or(host)
    }

    /// The route's path in lower case, empty for none.
    pub(super) fn path(&self) -> &str {
        self.route.find('/').map_or("", |at| &self.route[at..])
    }
}

/// The answer of a look-up.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// A pool with at least one endpoint, or with an app that is asleep.
    Pool(&'a Arc<Pool>),
    /// The route is known but nobody serves it (and no wildcard or parent path does).
    Empty(&'a Arc<Pool>),
    /// No such route.
    Nothing,
}

impl<'a> Found<'a> {
    /// This, or what was found elsewhere if that is better: somebody who serves before nobody.
    pub(super) fn or(self, other: Found<'a>) -> Found<'a> {
        match (self, other) {
            (Found::Nothing, other) | (Found::Empty(_), other @ Found::Pool(_)) => other,
            (found, _) => found,
        }
    }
}

/// All routes at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    hasher: Keyed,
    shards: Box<[Arc<Shard>]>,
    /// Routes with a leading `*.`: without any, the walk over parent domains is saved.
    wildcards: usize,
    routes: usize,
    endpoints: usize,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    hosts: HashTable<Host>,
}

impl Snapshot {
    /// No routes at all, with the hash that all snapshots after it will use.
    pub fn empty(hasher: Keyed) -> Snapshot {
        let shards = vec![Arc::<Shard>::default(); SHARDS].into();
        Snapshot { hasher, shards, wildcards: 0, routes: 0, endpoints: 0 }
    }

    /// The pool for a request to `host` (without port, in any case) and `path` (escaped, as sent; from `?` on it is
    /// ignored): an exact host before the most specific wildcard, then the longest path of whole segments. A pool without
    /// endpoints gives way to its parent path and to wildcards.
    pub fn lookup<H, P>(&self, host: &H, path: &P) -> Found<'_>
    where
        H: AsRef<[u8]> + ?Sized,
        P: AsRef<[u8]> + ?Sized,
    {
        let (host, path) = (host.as_ref(), path.as_ref());
        if host.len() > HOST_BYTES_MAX {
            return Found::Nothing;
        }
        if !host.iter().any(u8::is_ascii_uppercase) {
            return self.lookup_lower_case(host, path);
        }
        let mut lower = [0; HOST_BYTES_MAX];
        let lower = &mut lower[..host.len()];
        lower.copy_from_slice(host);
        lower.make_ascii_lowercase();
        self.lookup_lower_case(lower, path)
    }

    fn lookup_lower_case(&self, host: &[u8], path: &[u8]) -> Found<'_> {
        let exact = match self.host(host) {
            Some(found) => found.exact(path),
            None => Found::Nothing,
        };
        if self.wildcards == 0 || matches!(exact, Found::Pool(_)) {
            return exact;
        }
        let mut best = exact;
        let mut rest = host;
        while let Some(dot) = memchr(b'.', rest) {
            let parent = &rest[dot + 1..];
            best = self.host(parent).map_or(best, |found| best.or(found.wildcard(path)));
            if let Found::Pool(_) = best {
                break;
            }
            rest = parent;
        }
        best
    }

    fn host(&self, name: &[u8]) -> Option<&Host> {
        let hash = self.hasher.hash(name);
        self.shards[shard_of(hash)].hosts.find(hash, |host| host.is(name))
    }

    /// Every route with its pool, in no order.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.shards.iter().flat_map(|shard| shard.hosts.iter()).flat_map(Host::pools)
    }

    /// How many routes there are, those without an endpoint included.
    pub fn routes(&self) -> usize {
        self.routes
    }

    /// How many endpoints all routes have together; one that serves two routes counts twice.
    pub fn endpoints(&self) -> usize {
        self.endpoints
    }

    /// Puts `pool` in the place of the route's present one (`None` removes the route).
    pub(super) fn set(&mut self, uri: &RouteUri, pool: Option<Arc<Pool>>) {
        let hash = self.hasher.hash(uri.name().as_bytes());
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        let hasher = &self.hasher;
        let is_it = |host: &Host| host.is(uri.name().as_bytes());
        let entry = shard.hosts.entry(hash, is_it, |host| hasher.hash(host.name().as_bytes()));
        let mut entry = entry.or_insert_with(|| Host::new(uri.name()));
        let coming = pool.as_ref().map(|pool| pool.endpoints.len());
        let leaving = entry.get_mut().set(uri, pool).map(|pool| pool.endpoints.len());
        if entry.get().pools().next().is_none() {
            entry.remove();
        }
        self.routes = self.routes + usize::from(coming.is_some()) - usize::from(leaving.is_some());
        self.endpoints = self.endpoints + coming.unwrap_or(0) - leaving.unwrap_or(0);
        if uri.is_wildcard() {
            self.wildcards = self.wildcards + usize::from(coming.is_some()) - usize::from(leaving.is_some());
        }
    }
}

/// The bits in the middle: the table inside the shard uses those at both ends.
fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

//! What workers read: an immutable picture of all routes that shares its parts with the pictures before and after.
//!
//! Hosts are spread over shards by a keyed hash. A shard is shared by all snapshots since it last changed; the table
//! changes it in place when no snapshot holds it and copies it otherwise, so a change costs one shard, not the world.

use std::cmp::Ordering;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;

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
    pub hash_header: Option<Arc<str>>,
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
    pub route: Arc<str>,
    /// Path of the sticky cookie: the route's path in the case first registered, `/` for none.
    pub context_path: Arc<str>,
    /// In order of registration, without those whose app sleeps. May be empty: the route is known, but has no instance (503,
    /// not 404).
    pub endpoints: Box<[Arc<Endpoint>]>,
    /// An app that sleeps and belongs here: if there is no endpoint, a request has to wait for it.
    pub sleeper: Option<Arc<LiveApp>>,
    /// How to pick: configured for the route, else asked for by a registration, else the router's default.
    pub strategy: Strategy,
    /// Header whose value is hashed, for `hash`.
    pub hash_header: Option<Arc<str>>,
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
    fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.sleeper.is_none()
    }

    /// The app to wait for, if there is nobody else.
    pub fn asleep(&self) -> Option<&Arc<LiveApp>> {
        self.sleeper.as_ref().filter(|_| self.endpoints.is_empty())
    }

    /// The route's path in lower case, empty for none.
    fn path(&self) -> &str {
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
    /// What is found with the pool of a longer path at hand.
    fn or_deeper(self, pool: Option<&'a Arc<Pool>>) -> Found<'a> {
        match (pool, self) {
            (Some(pool), _) if !pool.is_empty() => Found::Pool(pool),
            (Some(pool), Found::Empty(_) | Found::Nothing) => Found::Empty(pool),
            (_, found) => found,
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

/// The routes of `name` and of `*.name`. What most look-ups need fits one cache line, so that they wait for memory once.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Host {
    name: Name,
    /// The route of `name` without a path.
    root: Option<Arc<Pool>>,
    /// Whether somebody serves it: to find it nobody need look into it.
    root_serves: bool,
    /// All others; most hosts have none.
    others: Option<Arc<Others>>,
}

/// A name, in place if it is short.
#[derive(Clone, Debug)]
enum Name {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Arc<str>),
}

/// Bytes of a name that is kept in place.
const SHORT: usize = 38;

/// The routes of a host that most hosts do not have.
#[derive(Clone, Debug, Default)]
struct Others {
    /// Of `name`, with a path.
    deeper: Deeper,
    /// Of `*.name`, without a path.
    wildcard_root: Option<Arc<Pool>>,
    /// Of `*.name`, with a path.
    wildcard_deeper: Deeper,
}

/// Routes with a path, of one host.
#[derive(Clone, Debug, Default)]
struct Deeper {
    /// Slashes in the longest of them: a request's path need not be looked at any deeper.
    slashes: usize,
    /// In order of their paths.
    sorted: Vec<Arc<Pool>>,
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
    pub fn lookup(&self, host: &str, path: &str) -> Found<'_> {
        if !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.lookup_lower_case(host, path);
        }
        let mut lower = [0; HOST_BYTES_MAX];
        let Some(lower) = lower.get_mut(..host.len()) else { return Found::Nothing };
        lower.copy_from_slice(host.as_bytes());
        lower.make_ascii_lowercase();
        str::from_utf8(lower).map_or(Found::Nothing, |host| self.lookup_lower_case(host, path))
    }

    fn lookup_lower_case(&self, host: &str, path: &str) -> Found<'_> {
        if host.len() > HOST_BYTES_MAX {
            return Found::Nothing;
        }
        let exact = match self.host(host) {
            Some(found) => found.exact(path),
            None => Found::Nothing,
        };
        if self.wildcards == 0 || matches!(exact, Found::Pool(_)) {
            return exact;
        }
        let mut best = exact;
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            match (self.host(parent).map(|found| found.wildcard(path)), best) {
                (Some(found @ Found::Pool(_)), _) => return found,
                (Some(found @ Found::Empty(_)), Found::Nothing) => best = found,
                _ => {}
            }
            rest = parent;
        }
        best
    }

    fn host(&self, name: &str) -> Option<&Host> {
        let hash = self.hasher.hash_one(name);
        self.shards[shard_of(hash)].hosts.find(hash, |host| host.name.is(name))
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
        let hash = self.hasher.hash_one(uri.name());
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        let hasher = &self.hasher;
        let is_it = |host: &Host| host.name.is(uri.name());
        let entry = shard.hosts.entry(hash, is_it, |host| hasher.hash_one(host.name.as_str()));
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

impl Name {
    fn new(name: &str) -> Name {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..name.len()) {
            None => Name::Long(name.into()),
            Some(place) => {
                place.copy_from_slice(name.as_bytes());
                Name::Short { length: name.len() as u8, bytes }
            }
        }
    }

    fn is(&self, name: &str) -> bool {
        match self {
            Name::Short { length, bytes } => bytes[..usize::from(*length)] == *name.as_bytes(),
            Name::Long(long) => **long == *name,
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Name::Short { length, bytes } => {
                str::from_utf8(&bytes[..usize::from(*length)]).expect("it was copied from a string")
            }
            Name::Long(long) => long,
        }
    }
}

impl Host {
    fn new(name: &str) -> Host {
        Host { name: Name::new(name), root: None, root_serves: false, others: None }
    }

    /// The longest path of `name` that `path` begins with and that is served; else the longest that is not.
    fn exact(&self, path: &str) -> Found<'_> {
        let root = match &self.root {
            Some(pool) if self.root_serves => Found::Pool(pool),
            Some(pool) => Found::Empty(pool),
            None => Found::Nothing,
        };
        self.others.as_ref().map_or(root, |others| others.deeper.longest(root, path))
    }

    /// The same of `*.name`.
    fn wildcard(&self, path: &str) -> Found<'_> {
        let Some(others) = &self.others else { return Found::Nothing };
        others.wildcard_deeper.longest(Found::Nothing.or_deeper(others.wildcard_root.as_ref()), path)
    }

    fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        let others = self.others.iter().flat_map(|others| {
            others.wildcard_root.iter().chain(&others.deeper.sorted).chain(&others.wildcard_deeper.sorted)
        });
        self.root.iter().chain(others)
    }

    /// Puts `pool` in the place of the route's present one, and returns that.
    fn set(&mut self, uri: &RouteUri, pool: Option<Arc<Pool>>) -> Option<Arc<Pool>> {
        if !uri.is_wildcard() && uri.path().is_empty() {
            self.root_serves = pool.as_ref().is_some_and(|pool| !pool.is_empty());
            return std::mem::replace(&mut self.root, pool);
        }
        let others = Arc::make_mut(self.others.get_or_insert_default());
        let leaving = match (uri.is_wildcard(), uri.path()) {
            (true, "") => std::mem::replace(&mut others.wildcard_root, pool),
            (true, path) => others.wildcard_deeper.set(path, pool),
            (false, path) => others.deeper.set(path, pool),
        };
        if others.wildcard_root.is_none() && others.deeper.sorted.is_empty() && others.wildcard_deeper.sorted.is_empty()
        {
            self.others = None;
        }
        leaving
    }
}

impl Deeper {
    /// The longest path that `path` begins with and that is served; else the longest that is not, `root` included.
    fn longest<'a>(&'a self, root: Found<'a>, path: &str) -> Found<'a> {
        prefixes(path, self.slashes).fold(root, |found, path| found.or_deeper(self.get(path)))
    }

    fn set(&mut self, path: &str, pool: Option<Arc<Pool>>) -> Option<Arc<Pool>> {
        let found = self.sorted.binary_search_by(|known| known.path().cmp(path));
        let leaving = match (found, pool) {
            (Ok(at), Some(pool)) => Some(std::mem::replace(&mut self.sorted[at], pool)),
            (Ok(at), None) => Some(self.sorted.remove(at)),
            (Err(at), Some(pool)) => {
                self.sorted.insert(at, pool);
                None
            }
            (Err(_), None) => None,
        };
        self.slashes = self.sorted.iter().map(|pool| slashes(pool.path())).max().unwrap_or(0);
        leaving
    }

    /// The pool whose path is `path` but for case.
    fn get(&self, path: &str) -> Option<&Arc<Pool>> {
        let found = self.sorted.binary_search_by(|pool| compare_lower(pool.path(), path)).ok()?;
        Some(&self.sorted[found])
    }
}

/// Orders a text in lower case against one in any case as if both were lower.
fn compare_lower(lower: &str, any: &str) -> Ordering {
    lower.bytes().cmp(any.bytes().map(|byte| byte.to_ascii_lowercase()))
}

/// What of `path` up to the end of a segment (`/a`, then `/a/b`), shortest first, with at most `slashes` slashes.
fn prefixes(path: &str, slashes: usize) -> impl Iterator<Item = &str> {
    let path = path.split_once('?').map_or(path, |(before, _)| before);
    let ends = path.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
    ends.chain(Some(path.len())).take(slashes).map(|end| &path[..end])
}

fn slashes(path: &str) -> usize {
    path.bytes().filter(|byte| *byte == b'/').count()
}

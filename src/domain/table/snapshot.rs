//! What workers read: an immutable picture of all routes that shares its parts with the pictures before and after.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::balance::derived::Derived;
use crate::domain::balance::fleet::Fleet;
use crate::domain::balance::strategy::Strategy;
use crate::domain::endpoint::Endpoint;

/// Settings of one route that the configuration may override; `None`: the router's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteSettings {
    /// Strategy for this route.
    pub strategy: Option<Strategy>,
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
    /// In order of registration. May be empty: the route is known, but has no instance (503, not 404).
    pub endpoints: Box<[Arc<Endpoint>]>,
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

/// The answer of a look-up.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// A pool with at least one endpoint.
    Pool(&'a Arc<Pool>),
    /// The route is known but nobody serves it (and no wildcard or parent path does).
    Empty(&'a Arc<Pool>),
    /// No such route.
    Nothing,
}

//! The routes of one host as workers read them, laid out so that a look-up waits for memory as seldom as can be: once for
//! the host, once more for routes with a path and for wildcards.

use std::sync::Arc;

use super::rules::Rules;
use super::snapshot::{Found, Pool};
use crate::domain::protocol::route_uri::RouteUri;

/// The routes of `name` and of `*.name`. What most look-ups need fits one cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Host {
    /// The route of `name` without a path.
    root: Option<Arc<Pool>>,
    /// All others: most hosts have none.
    rules: Option<Rules>,
    /// Whether somebody serves `root`: to find it nobody need look into it.
    root_serves: bool,
    /// Bytes of the name.
    length: u8,
    /// The name, or where it begins; then the rest is read from any of the routes.
    begin: [u8; NAME_IN_PLACE],
}

/// Bytes of a name that are kept in place.
const NAME_IN_PLACE: usize = 38;

impl Host {
    pub(super) fn new(name: &str) -> Host {
        let mut begin = [0; NAME_IN_PLACE];
        let kept = name.len().min(NAME_IN_PLACE);
        begin[..kept].copy_from_slice(&name.as_bytes()[..kept]);
        // A route is refused if its host is longer than 255 bytes.
        Host { root: None, rules: None, root_serves: false, length: name.len() as u8, begin }
    }

    /// Whether this is its name.
    pub(super) fn is(&self, name: &[u8]) -> bool {
        match name.split_at_checked(NAME_IN_PLACE) {
            _ if name.len() != usize::from(self.length) => false,
            Some((begin, rest)) if !rest.is_empty() => self.begin == *begin && self.name().as_bytes() == name,
            _ => self.begin[..name.len()] == *name,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.pools().next().expect("a host without a route is forgotten").name()
    }

    /// The longest path of `name` that `path` begins with and that is served; else the longest that is not.
    pub(super) fn exact(&self, path: &[u8]) -> Found<'_> {
        let root = match &self.root {
            Some(pool) if self.root_serves => Found::Pool(pool),
            Some(pool) => Found::Empty(pool),
            None => Found::Nothing,
        };
        match &self.rules {
            None => root,
            Some(rules) => rules.longest(false, path).or(root),
        }
    }

    /// The same of `*.name`.
    pub(super) fn wildcard(&self, path: &[u8]) -> Found<'_> {
        self.rules.as_ref().map_or(Found::Nothing, |rules| rules.longest(true, path))
    }

    pub(super) fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.root.iter().chain(self.rules.iter().flat_map(Rules::pools))
    }

    /// Puts `pool` in the place of the route's present one, and returns that.
    pub(super) fn set(&mut self, uri: &RouteUri, pool: Option<Arc<Pool>>) -> Option<Arc<Pool>> {
        if !uri.is_wildcard() && uri.path().is_empty() {
            self.root_serves = pool.as_ref().is_some_and(|pool| !pool.is_empty());
            return std::mem::replace(&mut self.root, pool);
        }
        let Some(rules) = &mut self.rules else {
            self.rules = pool.map(|pool| Rules::new(uri, pool));
            return None;
        };
        let (leaving, is_any_left) = rules.set(uri, pool);
        if !is_any_left {
            self.rules = None;
        }
        leaving
    }
}

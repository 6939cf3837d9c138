//! The routes of one host as workers read them, laid out so that a look-up waits for memory as seldom as can be: once for
//! the host, once more for routes with a path and for wildcards.

use std::sync::Arc;

use memchr::memchr;

use super::snapshot::{Found, Pool};
use crate::domain::protocol::route_uri::RouteUri;

/// The routes of `name` and of `*.name`. What most look-ups need fits one cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Host {
    /// The route of `name` without a path.
    root: Option<Arc<Pool>>,
    /// All others, in order: most hosts have none.
    rules: Option<Arc<[Rule]>>,
    /// Whether somebody serves `root`: to find it nobody need look into it.
    root_serves: bool,
    /// Bytes of the name.
    length: u8,
    /// The name, or where it begins; then the rest is read from any of the routes.
    begin: [u8; NAME_IN_PLACE],
}

/// Bytes of a name that are kept in place.
const NAME_IN_PLACE: usize = 38;

/// One route of a host that most hosts do not have: of `*.name`, or with a path.
#[derive(Clone, Debug)]
struct Rule {
    pool: Arc<Pool>,
    /// Bytes of the path.
    length: u16,
    is_wildcard: bool,
    /// Whether somebody serves it.
    serves: bool,
    /// The path, unless it is too long: then it is read from the route.
    path: [u8; PATH_IN_PLACE],
}

/// Bytes of a path that is kept in place.
const PATH_IN_PLACE: usize = 36;

impl Host {
    pub(super) fn new(name: &str) -> Host {
        let mut begin = [0; NAME_IN_PLACE];
        let kept = name.len().min(NAME_IN_PLACE);
        begin[..kept].copy_from_slice(&name.as_bytes()[..kept]);
        // A route is refused if its host is longer than 255 bytes.
        Host { root: None, rules: None, root_serves: false, length: name.len() as u8, begin }
    }

    /// Whether this is its name.
    pub(super) fn is(&self, name: &str) -> bool {
        match name.as_bytes().split_at_checked(NAME_IN_PLACE) {
            _ if name.len() != usize::from(self.length) => false,
            Some((begin, rest)) if !rest.is_empty() => self.begin == *begin && self.name() == name,
            _ => self.begin[..name.len()] == *name.as_bytes(),
        }
    }

    pub(super) fn name(&self) -> &str {
        self.pools().next().expect("a host without a route is forgotten").name()
    }

    /// The longest path of `name` that `path` begins with and that is served; else the longest that is not.
    pub(super) fn exact(&self, path: &str) -> Found<'_> {
        let root = match &self.root {
            Some(pool) if self.root_serves => Found::Pool(pool),
            Some(pool) => Found::Empty(pool),
            None => Found::Nothing,
        };
        match &self.rules {
            None => root,
            Some(rules) => longest(&rules[..wildcards_at(rules)], path).or(root),
        }
    }

    /// The same of `*.name`.
    pub(super) fn wildcard(&self, path: &str) -> Found<'_> {
        self.rules.as_ref().map_or(Found::Nothing, |rules| longest(&rules[wildcards_at(rules)..], path))
    }

    pub(super) fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.root.iter().chain(self.rules.iter().flat_map(|rules| rules.iter().map(|rule| &rule.pool)))
    }

    /// Puts `pool` in the place of the route's present one, and returns that.
    pub(super) fn set(&mut self, uri: &RouteUri, pool: Option<Arc<Pool>>) -> Option<Arc<Pool>> {
        if !uri.is_wildcard() && uri.path().is_empty() {
            self.root_serves = pool.as_ref().is_some_and(|pool| !pool.is_empty());
            return std::mem::replace(&mut self.root, pool);
        }
        let rules = self.rules.get_or_insert_default();
        let wanted = (uri.is_wildcard(), uri.path().as_bytes());
        let found = rules.binary_search_by(|rule| (rule.is_wildcard, rule.path()).cmp(&wanted));
        let leaving = match (found, pool) {
            (Ok(at), Some(pool)) => Some(std::mem::replace(&mut Arc::make_mut(rules)[at], Rule::new(uri, pool)).pool),
            (Ok(at), None) => {
                let leaving = rules[at].pool.clone();
                *rules = [&rules[..at], &rules[at + 1..]].concat().into();
                Some(leaving)
            }
            (Err(at), Some(pool)) => {
                *rules = [&rules[..at], &[Rule::new(uri, pool)], &rules[at..]].concat().into();
                None
            }
            (Err(_), None) => None,
        };
        if rules.is_empty() {
            self.rules = None;
        }
        leaving
    }
}

impl Rule {
    fn new(uri: &RouteUri, pool: Arc<Pool>) -> Rule {
        let mut path = [0; PATH_IN_PLACE];
        if let Some(place) = path.get_mut(..uri.path().len()) {
            place.copy_from_slice(uri.path().as_bytes());
        }
        // A route is refused if it is longer than 4096 bytes.
        let length = uri.path().len() as u16;
        Rule { length, is_wildcard: uri.is_wildcard(), serves: !pool.is_empty(), path, pool }
    }

    fn found(&self) -> Found<'_> {
        if self.serves { Found::Pool(&self.pool) } else { Found::Empty(&self.pool) }
    }

    /// In lower case, empty for none.
    fn path(&self) -> &[u8] {
        self.path.get(..usize::from(self.length)).unwrap_or_else(|| self.pool.path().as_bytes())
    }

    /// How many bytes it has in common with the beginning of a path in any case, and whether it comes before it or is it.
    fn compare(&self, path: &[u8]) -> (usize, bool) {
        let own = self.path();
        let both = own.iter().zip(path);
        let shared = both.take_while(|(own, other)| **own == other.to_ascii_lowercase()).count();
        let is_at_most = match (own.get(shared), path.get(shared)) {
            (None, _) => true,
            (Some(own), Some(other)) => *own < other.to_ascii_lowercase(),
            (Some(_), None) => false,
        };
        (shared, is_at_most)
    }
}

/// Where the wildcards begin among the rules of a host.
fn wildcards_at(rules: &[Rule]) -> usize {
    rules.partition_point(|rule| !rule.is_wildcard)
}

/// The longest rule that `path` begins with and that is served; else the longest that is not. The rules are in order of
/// their paths, and so whatever `path` begins with is also the beginning of the last rule that is not beyond `path`.
fn longest<'a>(rules: &'a [Rule], path: &str) -> Found<'a> {
    if let [rule] = rules
        && rule.length == 0
    {
        return rule.found(); // as most wildcards are
    }
    let path = path.as_bytes();
    let mut path = memchr(b'?', path).map_or(path, |end| &path[..end]);
    let mut best = Found::Nothing;
    while let Some((rule, shared)) = last_at_most(rules, path) {
        path = segments(path, shared);
        if path.len() == usize::from(rule.length) {
            best = best.or(rule.found());
            if rule.serves || path.is_empty() {
                break;
            }
            path = segments(path, path.len() - 1);
        }
    }
    best
}

/// The last rule that is not beyond `path`, and how many bytes they have in common.
fn last_at_most<'a>(rules: &'a [Rule], path: &[u8]) -> Option<(&'a Rule, usize)> {
    let (mut last, mut rest) = (None, rules);
    while let Some(rule) = rest.get(rest.len() / 2) {
        let (shared, is_at_most) = rule.compare(path);
        if is_at_most {
            last = Some((rule, shared));
            rest = &rest[rest.len() / 2 + 1..];
        } else {
            rest = &rest[..rest.len() / 2];
        }
    }
    last
}

/// The longest beginning of a path that ends with a segment (`/a/b`, then `/a`, then nothing) and has at most so many bytes.
fn segments(path: &[u8], most: usize) -> &[u8] {
    if most >= path.len() {
        return path;
    }
    let end = path[..=most].iter().rposition(|byte| *byte == b'/');
    &path[..end.unwrap_or(0)]
}

//! The routes of one host that have a path or are wildcards, in order. Few are one list, so that a look-up waits for memory
//! once; many are a tree of short lists, so that a change copies a few of those, however many routes there are.

use std::sync::Arc;

use memchr::memchr;

use super::snapshot::{Found, Pool};
use crate::domain::protocol::route_uri::RouteUri;

/// At least one route. A list holds routes or branches, and all that hold routes are equally deep.
#[derive(Clone, Debug)]
pub(super) struct Rules(Arc<[Entry]>);

/// A list that would become longer is split.
const LIST_MAX: usize = 32;

/// A list of one takes a cache line.
#[derive(Clone, Debug)]
enum Entry {
    Rule(Rule),
    Branch(Branch),
}

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

/// The entries from one on, up to those of the next branch.
#[derive(Clone, Debug)]
struct Branch {
    entries: Arc<[Entry]>,
    /// Bytes of the path of the first.
    length: u16,
    is_wildcard: bool,
    /// That path, unless it is too long: then it is read from the entry.
    path: [u8; FIRST_IN_PLACE],
}

/// As many bytes as there is room for where a branch takes the place of a rule.
const FIRST_IN_PLACE: usize = 20;

/// What entries are ordered by: wildcards come last, then the path counts.
type Key<'a> = (bool, &'a [u8]);

impl Rules {
    pub(super) fn new(uri: &RouteUri, pool: Arc<Pool>) -> Rules {
        Rules([Entry::Rule(Rule::new(uri, pool))].into())
    }

    /// The longest path that `path` begins with and that is served, of `*.name` or of `name`; else the longest that is not.
    pub(super) fn longest(&self, is_wildcard: bool, path: &[u8]) -> Found<'_> {
        if let [Entry::Rule(rule)] = &*self.0
            && rule.length == 0
        {
            // As most wildcards are.
            return if is_wildcard { rule.found() } else { Found::Nothing };
        }
        let mut path = memchr(b'?', path).map_or(path, |end| &path[..end]);
        let mut best = Found::Nothing;
        // Whatever `path` begins with is also the beginning of the last rule that is not beyond `path`.
        while let Some((rule, shared)) = self.last_at_most(is_wildcard, path) {
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
    fn last_at_most(&self, is_wildcard: bool, path: &[u8]) -> Option<(&Rule, usize)> {
        let mut rest = &*self.0;
        let mut last = None;
        loop {
            while let Some(entry) = rest.get(rest.len() / 2) {
                let (shared, is_at_most) = compare(entry.key(), is_wildcard, path);
                if is_at_most {
                    last = Some((entry, shared));
                    rest = &rest[rest.len() / 2 + 1..];
                } else {
                    rest = &rest[..rest.len() / 2];
                }
            }
            match last? {
                (Entry::Rule(rule), shared) => return (rule.is_wildcard == is_wildcard).then_some((rule, shared)),
                (Entry::Branch(branch), _) => (rest, last) = (&branch.entries, None),
            }
        }
    }

    pub(super) fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        let (mut entries, mut above) = (self.0.iter(), Vec::new());
        std::iter::from_fn(move || {
            loop {
                match entries.next() {
                    Some(Entry::Rule(rule)) => return Some(&rule.pool),
                    Some(Entry::Branch(branch)) => above.push(std::mem::replace(&mut entries, branch.entries.iter())),
                    None => entries = above.pop()?,
                }
            }
        })
    }

    /// Puts `pool` in the place of the route's present one. Returns that, and whether any route is left.
    pub(super) fn set(&mut self, uri: &RouteUri, pool: Option<Arc<Pool>>) -> (Option<Arc<Pool>>, bool) {
        let leaving = set(&mut self.0, uri, pool);
        if self.0.len() > LIST_MAX {
            self.0 = halves(&self.0).into();
        }
        while let [Entry::Branch(only)] = &*self.0 {
            self.0 = only.entries.clone();
        }
        (leaving, !self.0.is_empty())
    }
}

/// Puts `pool` in the place of a route's present one, and returns that. The list may be too long then, or empty.
fn set(list: &mut Arc<[Entry]>, uri: &RouteUri, pool: Option<Arc<Pool>>) -> Option<Arc<Pool>> {
    let found = list.binary_search_by(|entry| entry.key().cmp(&(uri.is_wildcard(), uri.path().as_bytes())));
    let belongs_to = found.unwrap_or_else(|after| after.saturating_sub(1));
    if let Some(Entry::Branch(_)) = list.get(belongs_to) {
        return set_below(list, belongs_to, uri, pool);
    }
    match (found, pool) {
        (Ok(at), Some(pool)) => {
            let before = std::mem::replace(&mut Arc::make_mut(list)[at], Entry::Rule(Rule::new(uri, pool)));
            before.pool()
        }
        (Ok(at), None) => {
            let before = list[at].pool();
            put(list, at, 1, []);
            before
        }
        (Err(at), Some(pool)) => {
            put(list, at, 0, [Entry::Rule(Rule::new(uri, pool))]);
            None
        }
        (Err(_), None) => None,
    }
}

/// The same where the route belongs to the branch at `at`.
fn set_below(list: &mut Arc<[Entry]>, at: usize, uri: &RouteUri, pool: Option<Arc<Pool>>) -> Option<Arc<Pool>> {
    let Entry::Branch(branch) = &mut Arc::make_mut(list)[at] else { unreachable!("its kind was just looked at") };
    let leaving = set(&mut branch.entries, uri, pool);
    match branch.entries.len() {
        0 => put(list, at, 1, []),
        1..=LIST_MAX => *branch = Branch::new(std::mem::take(&mut branch.entries)),
        _ => {
            let halves = halves(&branch.entries);
            put(list, at, 1, halves);
        }
    }
    leaving
}

/// Puts entries in the place of as many as `instead_of` says.
fn put<const N: usize>(list: &mut Arc<[Entry]>, at: usize, instead_of: usize, entries: [Entry; N]) {
    let (before, after) = (&list[..at], &list[at + instead_of..]);
    *list = before.iter().cloned().chain(entries).chain(after.iter().cloned()).collect();
}

fn halves(list: &[Entry]) -> [Entry; 2] {
    let (begin, end) = list.split_at(list.len() / 2);
    [begin, end].map(|half| Entry::Branch(Branch::new(half.into())))
}

impl Entry {
    fn key(&self) -> Key<'_> {
        match self {
            Entry::Rule(rule) => (rule.is_wildcard, rule.path()),
            Entry::Branch(branch) => (branch.is_wildcard, branch.path()),
        }
    }

    fn pool(&self) -> Option<Arc<Pool>> {
        match self {
            Entry::Rule(rule) => Some(rule.pool.clone()),
            Entry::Branch(_) => None,
        }
    }
}

impl Rule {
    fn new(uri: &RouteUri, pool: Arc<Pool>) -> Rule {
        let (length, path) = in_place(uri.path().as_bytes());
        Rule { length, is_wildcard: uri.is_wildcard(), serves: !pool.is_empty(), path, pool }
    }

    fn found(&self) -> Found<'_> {
        if self.serves { Found::Pool(&self.pool) } else { Found::Empty(&self.pool) }
    }

    /// In lower case, empty for none.
    fn path(&self) -> &[u8] {
        self.path.get(..usize::from(self.length)).unwrap_or_else(|| self.pool.path().as_bytes())
    }
}

impl Branch {
    fn new(entries: Arc<[Entry]>) -> Branch {
        let (is_wildcard, path) = entries[0].key();
        let (length, path) = in_place(path);
        Branch { length, is_wildcard, path, entries }
    }

    fn path(&self) -> &[u8] {
        self.path.get(..usize::from(self.length)).unwrap_or_else(|| self.entries[0].key().1)
    }
}

/// The length of a path, and the path itself if there is room for it.
fn in_place<const ROOM: usize>(path: &[u8]) -> (u16, [u8; ROOM]) {
    let mut kept = [0; ROOM];
    if let Some(place) = kept.get_mut(..path.len()) {
        place.copy_from_slice(path);
    }
    // A route is refused if it is longer than 4096 bytes.
    (path.len() as u16, kept)
}

/// How many bytes an entry has in common with the beginning of a path in any case, and whether it comes before it or is it.
fn compare((own_is_wildcard, own): Key<'_>, is_wildcard: bool, path: &[u8]) -> (usize, bool) {
    if own_is_wildcard != is_wildcard {
        return (0, is_wildcard);
    }
    let both = own.iter().zip(path);
    let shared = both.take_while(|(own, other)| **own == other.to_ascii_lowercase()).count();
    let is_at_most = match (own.get(shared), path.get(shared)) {
        (None, _) => true,
        (Some(own), Some(other)) => *own < other.to_ascii_lowercase(),
        (Some(_), None) => false,
    };
    (shared, is_at_most)
}

/// The longest beginning of a path that ends with a segment (`/a/b`, then `/a`, then nothing) and has at most so many bytes.
fn segments(path: &[u8], most: usize) -> &[u8] {
    if most >= path.len() {
        return path;
    }
    let end = path[..=most].iter().rposition(|byte| *byte == b'/');
    &path[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests;

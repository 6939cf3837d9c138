//! The table of all keys: the one source for reading, for the reference, for the example and for "did you mean".

use std::time::Duration;

use super::problem::Problems;
use super::tree::{Node, Table, Value};
use super::{balance, http, nats, process, route, table, tls, traffic, wake, wake_start};

/// One `[section]`, or the top of the file (`path` is empty).
#[derive(Debug)]
pub(super) struct Section {
    /// Dotted, as in its header.
    pub(super) path: &'static str,
    pub(super) shape: Shape,
    /// One paragraph for operators.
    pub(super) doc: &'static str,
    pub(super) keys: &'static [Key],
}

/// How a section is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `[section]`; leaving it out means its defaults.
    Always,
    /// `[section]`; leaving it out means that what it configures does not exist.
    Optional,
    /// `[[section]]`, any number of times.
    List,
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) fallback: Fallback,
    pub(super) reload: Reload,
    /// For operators.
    pub(super) doc: &'static str,
}

/// What a key means where it is not written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fallback {
    /// This TOML.
    Is(&'static str),
    /// Nothing; this TOML is what it could look like.
    Unset(&'static str),
}

/// A key that takes effect on SIGHUP.
pub(super) const fn live(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, fallback: Fallback::Is(default), reload: Reload::Live, doc }
}

/// A key that takes effect at the next start.
pub(super) const fn restart(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, fallback: Fallback::Is(default), reload: Reload::Restart, doc }
}

/// A key without a default that takes effect on SIGHUP.
pub(super) const fn unset(name: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Key {
    Key { name, kind, fallback: Fallback::Unset(example), reload: Reload::Live, doc }
}

/// Whether a change of a key needs a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Takes effect on SIGHUP.
    Live,
    /// Takes effect at the next start.
    Restart,
}

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Flag,
    Integer {
        least: u64,
        most: u64,
    },
    Number {
        least: f64,
        most: f64,
    },
    /// `zero`: what 0 means; empty if 0 is refused.
    Duration {
        zero: &'static str,
        least: Duration,
        most: Duration,
    },
    /// `zero` as above.
    Size {
        zero: &'static str,
        least: u64,
        most: u64,
    },
    /// A text; the word says of what kind.
    Text(&'static str),
    /// A text that is never shown.
    Secret,
    Choice(&'static [&'static str]),
    /// A list of texts; the word says of what kind.
    List(&'static str),
    /// A table of texts by name; the word says of what kind.
    Map(&'static str),
}

/// All sections, in the order of the reference.
pub(super) const SECTIONS: &[&Section] = &[
    &process::TOP,
    &http::HTTP,
    &tls::HTTPS,
    &tls::CERTIFICATES,
    &process::ADMIN,
    &nats::NATS,
    &table::TABLE,
    &balance::BALANCE,
    &balance::HOST_VECTOR,
    &balance::INSTANCE_VECTOR,
    &balance::MIX,
    &traffic::RETRY,
    &traffic::STICKY,
    &traffic::TIMEOUTS,
    &traffic::LIMITS,
    &traffic::FORWARDED,
    &traffic::TRACING,
    &traffic::REWRITE,
    &traffic::PAGES,
    &tls::UPSTREAM_TLS,
    &wake::WAKE,
    &wake_start::WEBHOOK,
    &wake_start::COMMAND,
    &wake_start::CLOUD_FOUNDRY,
    &wake::STATS,
    &process::DRAIN,
    &process::ACCESS_LOG,
    &process::LOG,
    &route::ROUTE,
    &route::ROUTE_TIMEOUTS,
    &route::ROUTE_LIMITS,
    &route::ROUTE_RETRY,
    &route::INSTANCES,
];

/// The section of that path.
pub(super) fn section(path: &str) -> Option<&'static Section> {
    SECTIONS.iter().copied().find(|section| section.path == path)
}

/// `a` and `b` with a dot between, or whichever is not empty.
pub(super) fn join(a: &str, b: &str) -> String {
    if a.is_empty() { b.into() } else { format!("{a}.{b}") }
}

impl Section {
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// Finds keys that do not exist, and sections that are not tables. `at` is the path as displayed.
pub(super) fn check_names(table: &Table, section: &Section, at: &str, problems: &mut Problems) {
    for (name, node) in table {
        let path = join(section.path, name);
        let shown = join(at, name);
        if section.key(name).is_some() {
            // Its value is checked when it is read.
        } else if let Some(inner) = self::section(&path).filter(|inner| !inner.path.is_empty()) {
            check_section(node, inner, &shown, problems);
        } else {
            problems.add(&node.origin, shown, unknown(section, name, node));
        }
    }
}

fn check_section(node: &Node, section: &Section, at: &str, problems: &mut Problems) {
    let path = section.path;
    match (&node.value, section.shape) {
        (Value::Table(inner), Shape::Always | Shape::Optional) => check_names(inner, section, at, problems),
        (Value::List(items), Shape::List) => {
            for (n, item) in items.iter().enumerate() {
                match &item.value {
                    Value::Table(inner) => check_names(inner, section, &format!("{at}[{n}]"), problems),
                    _ => problems.add(&item.origin, format!("{at}[{n}]"), "must be a table"),
                }
            }
        }
        (_, Shape::List) => {
            problems.add(&node.origin, at, format!("must be a list of tables; write [[{path}]] with double brackets"));
        }
        _ => problems.add(&node.origin, at, format!("must be a section: write [{path}] above its keys")),
    }
}

/// The sentence for a key that does not exist, with the one that was probably meant.
fn unknown(section: &Section, name: &str, node: &Node) -> String {
    let is_table = matches!(node.value, Value::Table(_));
    let what = if is_table { "there is no such section" } else { "there is no such key" };
    match suggestion(section.path, name) {
        Some(meant) => format!("{what}; did you mean {meant}?"),
        None => what.into(),
    }
}

/// The key or section that `name`, written in the section `path`, was probably meant to be, as a full path.
pub(super) fn suggestion(path: &str, name: &str) -> Option<String> {
    let elsewhere = SECTIONS
        .iter()
        .filter(|section| section.key(name).is_some() && !section.path.starts_with("route"))
        .map(|section| join(section.path, name));
    let inner = SECTIONS.iter().filter_map(|section| {
        let (parent, last) = section.path.rsplit_once('.').unwrap_or(("", section.path));
        (parent == path && !last.is_empty()).then_some(last)
    });
    let keys = section(path).map_or(&[][..], |section| section.keys).iter().map(|key| key.name);
    let near = keys
        .chain(inner)
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| join(path, candidate));
    near.or_else(|| elsewhere.into_iter().next())
}

/// Shorthand of the sections' tables.
pub(super) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Longest duration a key takes unless it says otherwise: longer ones are mistakes.
pub(super) const MOST: Duration = Duration::from_secs(30 * 86_400);

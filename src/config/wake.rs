//! Sleeping apps: how they are woken, who waits for them and how long; and the statistics that tell who is idle.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::schema::{Kind, MOST, Section, Shape, live, ms, unset};
use super::wake_start::{self, WakeStart};
use crate::domain::wake::Ignore;

/// A time span of a second to an hour.
const SPAN: Kind = Kind::Duration { zero: "", least: ms(10), most: ms(3_600_000) };

pub(super) const WAKE: Section = Section {
    path: "wake",
    shape: Shape::Always,
    doc: "Sleeping apps. Who opens one in a browser sees a loading page, every other request is held and then answered by \
          the app itself.",
    keys: &[
        wake_start::START,
        live(
            "hold",
            Kind::Duration { zero: "not at all", least: ms(1), most: ms(3_600_000) },
            "\"30s\"",
            "A request waits that long for its app, then it is answered 503 with `Retry-After`.",
        ),
        live(
            "held_max",
            Kind::Integer { least: 0, most: 100_000 },
            "1000",
            "So many requests wait for one app; more are answered 503 with `Retry-After`.",
        ),
        live(
            "deadline",
            Kind::Duration { zero: "", least: ms(100), most: MOST },
            "\"5m\"",
            "A start that takes longer has failed.",
        ),
        live("retry", SPAN, "\"2s\"", "Time between two asks to start the same app; it doubles with each."),
        live("retry_max", SPAN, "\"30s\"", "What it doubles to; not below `retry`."),
        live("tries", Kind::Integer { least: 1, most: 100 }, "3", "Failed tries in a row that make a failed start."),
        live(
            "retry_failed_after",
            SPAN,
            "\"60s\"",
            "A visitor of an app that could not be started has it tried again after that time.",
        ),
        live(
            "release_concurrency",
            Kind::Integer { least: 1, most: 10_000 },
            "32",
            "Requests that waited go to a new instance in the order they came, so many at a time.",
        ),
        unset(
            "probe_path",
            Kind::Text("path"),
            "\"/health\"",
            "An instance is ready when it answers `GET` of this path with a status below 500. Unset: when it takes a connection. \
             Instances spoken to over TLS or HTTP/2 are only connected to.",
        ),
        live(
            "ignore_agents",
            Kind::List("parts of user agents"),
            "[]",
            "Whose requests neither wake an app nor count as its use: health checkers, crawlers. In any case.",
        ),
        live(
            "ignore_paths",
            Kind::List("paths"),
            "[]",
            "The same by path: `/health` is that path alone, `/health/*` everything below it.",
        ),
        unset(
            "page",
            Kind::Text("file"),
            "\"/etc/weighbridge/loading.html\"",
            "A loading page of your own, see PAGES.md. A bad one is refused when it is loaded.",
        ),
    ],
};

pub(super) const STATS: Section = Section {
    path: "stats",
    shape: Shape::Always,
    doc: "What each app was used, for autoscaling and to tell who is idle.",
    keys: &[live("interval", SPAN, "\"10s\"", "How often `router.stats` is published.")],
};

/// Sleeping apps.
#[derive(Clone, Debug, PartialEq)]
pub struct WakeConfig {
    /// Who starts an app that somebody wants.
    pub start: WakeStart,
    /// How long a request waits.
    pub hold: Duration,
    /// How many wait for one app.
    pub held_max: usize,
    /// A start that takes longer has failed.
    pub deadline: Duration,
    /// Time between two asks, at first.
    pub retry: Duration,
    /// The same, at last; at least `retry`.
    pub retry_max: Duration,
    /// Failed tries in a row that make a failed start, at least 1.
    pub tries: u32,
    /// How long a failed app is left alone.
    pub retry_failed_after: Duration,
    /// Released requests on their way to one instance at a time, at least 1.
    pub release_concurrency: usize,
    /// What an instance has to answer to be ready; begins with a slash. `None`: it has to take a connection.
    pub probe_path: Option<String>,
    /// Who neither wakes nor counts.
    pub ignore: Ignore,
    /// The operator's own loading page.
    pub page: Option<PathBuf>,
}

/// Statistics on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsConfig {
    /// How often they are published.
    pub interval: Duration,
}

pub(super) fn wake(section: &mut Reader<'_, '_>) -> WakeConfig {
    let one = |text: &str| Ok(text.to_string());
    let agents =
        section.list("ignore_agents", |agent| Ignore::new(&[agent], &[]).map_err(|e| e.to_string()).and(one(agent)));
    let paths =
        section.list("ignore_paths", |path| Ignore::new(&[], &[path]).map_err(|e| e.to_string()).and(one(path)));
    let ignore = Ignore::new(&agents, &paths).unwrap_or_else(|error| {
        section.complain("ignore_agents", error.to_string());
        Ignore::default()
    });
    let config = WakeConfig {
        hold: section.duration("hold"),
        held_max: section.integer("held_max") as usize,
        deadline: section.duration("deadline"),
        retry: section.duration("retry"),
        retry_max: section.duration("retry_max"),
        tries: section.integer("tries") as u32,
        retry_failed_after: section.duration("retry_failed_after"),
        release_concurrency: section.integer("release_concurrency") as usize,
        probe_path: section.parsed("probe_path", |path| {
            match path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()) {
                true => Ok(path.to_string()),
                false => Err("is not a path: it begins with a slash and has no blanks".into()),
            }
        }),
        ignore,
        page: section.path("page"),
        start: wake_start::read(section), // last: it reads sections within this one
    };
    if config.retry_max < config.retry {
        section.complain("retry_max", "must not be below wake.retry");
    }
    config
}

pub(super) fn stats(section: &mut Reader<'_, '_>) -> StatsConfig {
    StatsConfig { interval: section.duration("interval") }
}

//! Leases and the life of routes.

use std::time::Duration;

use super::reader::Reader;
use super::schema::{Kind, MOST, Section, Shape, live, ms, restart};
use super::units;

pub(super) const TABLE: Section = Section {
    path: "table",
    shape: Shape::Always,
    doc: "How long what was registered stays known.",
    keys: &[
        live(
            "stale_after",
            Kind::Duration { zero: "", least: ms(100), most: MOST },
            "\"120s\"",
            "An instance that is not registered again for that long is pruned. A registration may ask for less.",
        ),
        restart(
            "prune_every",
            Kind::Duration { zero: "", least: ms(10), most: ms(3_600_000) },
            "\"30s\"",
            "A bound that is always kept: an instance is pruned within a second of the end of its lease, whatever is written \
             here. The key is known for the sake of files that have it.",
        ),
        restart(
            "advertise_interval",
            Kind::Duration { zero: "", least: ms(10), most: MOST },
            "\"20s\"",
            "How often clients are asked to register again (`minimumRegisterIntervalInSeconds`). Not above \
                  `stale_after`; left out, it is at most a sixth of it.",
        ),
        live(
            "keep_empty",
            Kind::Duration { zero: "404 at once", least: ms(1), most: MOST },
            "\"30s\"",
            "A route whose last instance left answers 503 that long, then 404.",
        ),
        restart(
            "prime_for",
            Kind::Duration { zero: "not at all", least: ms(1), most: ms(600_000) },
            "\"0s\"",
            "Gather registrations this long before the port opens and the first request is accepted, counted from when the bus \
             is there; a bus that does not come is waited for as long. What is queued by then comes first, unless that takes 30 s more.",
        ),
        live(
            "expire_tls_endpoints",
            Kind::Flag,
            "true",
            "Whether instances spoken to over TLS are pruned as well. `false` is Cloud Foundry's rule.",
        ),
        live(
            "isolation",
            Kind::Choice(&["all", "segments", "shared-and-segments"]),
            "\"all\"",
            "Which registrations count: all, those of `isolation_segments`, or those and the ones without a segment.",
        ),
        live("isolation_segments", Kind::List("names"), "[]", "The isolation segments that this router serves."),
    ],
};

/// Leases and the life of routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableConfig {
    /// Longest lease.
    pub stale_after: Duration,
    /// A stale instance is pruned at most this much later; it is always kept, since leases are looked after as they end.
    pub prune_every: Duration,
    /// How often clients are asked to register again; at most `stale_after`.
    pub advertise_interval: Duration,
    /// A route without instances answers 503 that long, then 404; zero: at once.
    pub keep_empty: Duration,
    /// Registrations are gathered that long before serving.
    pub prime_for: Duration,
    /// Whether TLS endpoints live by lease too.
    pub expire_tls_endpoints: bool,
    /// Which registrations count.
    pub isolation: Isolation,
    /// The segments served; not empty unless `isolation` is `All` or `SharedAndSegments`.
    pub isolation_segments: Vec<String>,
}

/// Which registrations count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All of them.
    #[default]
    All,
    /// Those of the segments served.
    Segments,
    /// Those of the segments served and those without a segment.
    SharedAndSegments,
}

pub(super) fn read(section: &mut Reader<'_, '_>) -> TableConfig {
    let isolations = [
        ("all", Isolation::All),
        ("segments", Isolation::Segments),
        ("shared-and-segments", Isolation::SharedAndSegments),
    ];
    let mut config = TableConfig {
        stale_after: section.duration("stale_after"),
        prune_every: section.duration("prune_every"),
        advertise_interval: section.duration("advertise_interval"),
        keep_empty: section.duration("keep_empty"),
        prime_for: section.duration("prime_for"),
        expire_tls_endpoints: section.flag("expire_tls_endpoints"),
        isolation: section.choice("isolation", &isolations),
        isolation_segments: section.list("isolation_segments", |name| match name {
            "" => Err("must not be empty".into()),
            name => Ok(name.to_string()),
        }),
    };
    if !section.has("advertise_interval") {
        config.advertise_interval = config.advertise_interval.min(config.stale_after / 6);
    } else if config.advertise_interval > config.stale_after {
        let stale_after = config.stale_after;
        section.complain(
            "advertise_interval",
            format!("must not be above table.stale_after ({})", units::spoken(stale_after)),
        );
    }
    if config.isolation == Isolation::Segments && config.isolation_segments.is_empty() {
        section.complain("isolation", "\"segments\" needs isolation_segments: without them no route would be served");
    }
    config
}

//! How instances are picked.

use super::reader::Reader;
use super::schema::{Key, Kind, Section, Shape, live};
use crate::domain::balance::score::{ScoreConfig, Vector};
use crate::domain::balance::strategy::Strategy;

/// One of the strategies, by the names that registrations use as well.
pub(super) const STRATEGY: Kind = Kind::Choice(&{
    let mut names = [""; Strategy::ALL.len()];
    let mut n = 0;
    while n < names.len() {
        names[n] = Strategy::ALL[n].name();
        n += 1;
    }
    names
});

/// The strategies with their names.
pub(super) fn strategies() -> [(&'static str, Strategy); Strategy::ALL.len()] {
    Strategy::ALL.map(|strategy| (strategy.name(), strategy))
}

/// Most requests in flight that a limit may name.
pub(super) const MAX_CONNS: Kind = Kind::Integer { least: 0, most: 1_000_000 };

pub(super) const BALANCE: Section = Section {
    path: "balance",
    shape: Shape::Always,
    doc: "How one of a route's instances is picked.",
    keys: &[
        live(
            "strategy",
            STRATEGY,
            "\"adaptive\"",
            "For routes that ask for nothing else. `adaptive`: least expected cost from requests in flight, latency \
                  and heartbeats; `weight`: smooth weighted round robin over the load in heartbeats; `least-connection`: \
                  fewest requests in flight; `p2c`: the better of two random ones; `round-robin`; `random`; `hash`: by \
                  a header's value.",
        ),
        live(
            "max_conns",
            MAX_CONNS,
            "0",
            "Requests in flight per instance, to the end of the body or tunnel. 0: unlimited.",
        ),
        live("zone", Kind::Text("name"), "\"\"", "Availability zone of this router. Empty: unknown."),
        live(
            "prefer_zone",
            Kind::Flag,
            "false",
            "Whether the first attempt goes to an instance of the router's own zone, if there is one.",
        ),
        live(
            "normalise",
            Kind::Flag,
            "false",
            "Strategy `weight`: divide each vector below by its sum (as published, the sums are 0.6).",
        ),
    ],
};

const SHARE: Kind = Kind::Number { least: 0.0, most: 1.0 };

const fn share(name: &'static str, default: &'static str, doc: &'static str) -> Key {
    live(name, SHARE, default, doc)
}

const VECTOR: &[Key] = &[
    share("cpu", "0.3", "Weight of the share of CPU time."),
    share("mem", "0.3", "Weight of the share of memory."),
    share("io", "0.0", "Weight of the share of disk input and output."),
    share("net", "0.0", "Weight of the share of network traffic."),
];

pub(super) const HOST_VECTOR: Section = Section {
    path: "balance.host_vector",
    shape: Shape::Always,
    doc: "Strategy `weight`: what makes up the load of a host.",
    keys: VECTOR,
};

pub(super) const INSTANCE_VECTOR: Section = Section {
    path: "balance.instance_vector",
    shape: Shape::Always,
    doc: "Strategy `weight`: what makes up the load of an instance.",
    keys: VECTOR,
};

pub(super) const MIX: Section = Section {
    path: "balance.mix",
    shape: Shape::Always,
    doc: "Strategy `weight`: how the two loads are added up.",
    keys: &[
        share("host", "0.3", "Weight of the host's load."),
        share("instance", "0.7", "Weight of the instance's load."),
    ],
};

/// How instances are picked.
#[derive(Clone, Debug, PartialEq)]
pub struct BalanceConfig {
    /// For routes that ask for nothing else.
    pub strategy: Strategy,
    /// Requests in flight per endpoint; 0 is unlimited.
    pub max_conns: u32,
    /// The router's own availability zone; empty if unknown.
    pub zone: String,
    /// Whether first attempts stay in that zone; only if it is known.
    pub prefer_zone: bool,
    /// Strategy `weight`: `normalise`, `host_vector`, `instance_vector` and `mix`. No vector is all 0.
    pub score: ScoreConfig,
}

pub(super) fn read(section: &mut Reader<'_, '_>) -> BalanceConfig {
    let mut config = BalanceConfig {
        strategy: section.choice("strategy", &strategies()),
        max_conns: section.integer("max_conns") as u32,
        zone: section.text("zone"),
        prefer_zone: section.flag("prefer_zone"),
        score: ScoreConfig { normalise: section.flag("normalise"), ..ScoreConfig::default() },
    };
    config.score.host = vector(&mut section.section("host_vector"));
    config.score.instance = vector(&mut section.section("instance_vector"));
    (config.score.host_share, config.score.instance_share) = mix(&mut section.section("mix"));
    if config.prefer_zone && config.zone.is_empty() {
        section.complain("prefer_zone", "needs balance.zone, the zone to prefer");
    }
    config
}

fn vector(section: &mut Reader<'_, '_>) -> Vector {
    let vector = Vector {
        cpu: section.number("cpu") as f32,
        mem: section.number("mem") as f32,
        io: section.number("io") as f32,
        net: section.number("net") as f32,
    };
    if vector.cpu + vector.mem + vector.io + vector.net == 0.0 {
        section.complain("", "at least one weight must be above 0");
    }
    vector
}

fn mix(section: &mut Reader<'_, '_>) -> (f32, f32) {
    let (host, instance) = (section.number("host") as f32, section.number("instance") as f32);
    if host + instance == 0.0 {
        section.complain("", "at least one weight must be above 0");
    }
    (host, instance)
}

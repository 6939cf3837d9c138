//! How instances are picked.

use super::reader::Reader;
use super::schema::{Key, Kind, Reload, Section, Shape};
use crate::domain::balance::strategy::Strategy;

/// The names of the strategies, as in `options.loadbalancing` of a registration.
pub(super) const STRATEGIES: &[(&str, Strategy)] = &[
    ("adaptive", Strategy::Adaptive),
    ("weight", Strategy::Weight),
    ("least-connection", Strategy::LeastConnection),
    ("p2c", Strategy::P2c),
    ("round-robin", Strategy::RoundRobin),
    ("random", Strategy::Random),
    ("hash", Strategy::Hash),
];

/// The same for the schema.
pub(super) const STRATEGY: Kind =
    Kind::Choice(&["adaptive", "weight", "least-connection", "p2c", "round-robin", "random", "hash"]);

/// Most requests in flight that a limit may name.
pub(super) const MAX_CONNS: Kind = Kind::Integer { least: 0, most: 1_000_000 };

pub(super) const BALANCE: Section = Section {
    path: "balance",
    shape: Shape::Always,
    doc: "How one of a route's instances is picked.",
    keys: &[
        Key {
            name: "strategy",
            kind: STRATEGY,
            default: "\"adaptive\"",
            reload: Reload::Live,
            doc: "For routes that ask for nothing else. `adaptive`: least expected cost from requests in flight, latency \
                  and heartbeats; `weight`: smooth weighted round robin over the load in heartbeats; `least-connection`: \
                  fewest requests in flight; `p2c`: the better of two random ones; `round-robin`; `random`; `hash`: by \
                  a header's value.",
        },
        Key {
            name: "max_conns",
            kind: MAX_CONNS,
            default: "0",
            reload: Reload::Live,
            doc: "Requests in flight per instance, to the end of the body or tunnel. 0: unlimited.",
        },
        Key {
            name: "zone",
            kind: Kind::Text("name"),
            default: "\"\"",
            reload: Reload::Restart,
            doc: "Availability zone of this router. Empty: unknown.",
        },
        Key {
            name: "prefer_zone",
            kind: Kind::Flag,
            default: "false",
            reload: Reload::Restart,
            doc: "Whether the first attempt goes to an instance of the router's own zone, if there is one.",
        },
        Key {
            name: "normalise",
            kind: Kind::Flag,
            default: "false",
            reload: Reload::Live,
            doc: "Strategy `weight`: divide each vector below by its sum (as published, the sums are 0.6).",
        },
    ],
};

const SHARE: Kind = Kind::Number { least: 0.0, most: 1.0 };

const fn share(name: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind: SHARE, default, reload: Reload::Live, doc }
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
    /// Strategy `weight`: whether each vector is divided by its sum (never 0 then).
    pub normalise: bool,
    /// Strategy `weight`: load of a host.
    pub host_vector: LoadVector,
    /// Strategy `weight`: load of an instance.
    pub instance_vector: LoadVector,
    /// Strategy `weight`: how the two add up.
    pub mix: LoadMix,
}

/// Weights of the four usages, each 0 to 1, not all 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadVector {
    /// Of CPU.
    pub cpu: f32,
    /// Of memory.
    pub mem: f32,
    /// Of disk input and output.
    pub io: f32,
    /// Of the network.
    pub net: f32,
}

/// Weights of the two loads, each 0 to 1, not both 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadMix {
    /// Of the host's.
    pub host: f32,
    /// Of the instance's.
    pub instance: f32,
}

pub(super) fn read(section: &mut Reader<'_, '_>) -> BalanceConfig {
    let config = BalanceConfig {
        strategy: section.choice("strategy", STRATEGIES),
        max_conns: section.integer("max_conns") as u32,
        zone: section.text("zone"),
        prefer_zone: section.flag("prefer_zone"),
        normalise: section.flag("normalise"),
        host_vector: vector(&mut section.section("host_vector")),
        instance_vector: vector(&mut section.section("instance_vector")),
        mix: mix(&mut section.section("mix")),
    };
    if config.prefer_zone && config.zone.is_empty() {
        section.complain("prefer_zone", "needs balance.zone, the zone to prefer");
    }
    config
}

fn vector(section: &mut Reader<'_, '_>) -> LoadVector {
    let vector = LoadVector {
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

fn mix(section: &mut Reader<'_, '_>) -> LoadMix {
    let mix = LoadMix { host: section.number("host") as f32, instance: section.number("instance") as f32 };
    if mix.host + mix.instance == 0.0 {
        section.complain("", "at least one weight must be above 0");
    }
    mix
}

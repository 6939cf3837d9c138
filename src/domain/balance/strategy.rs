//! The named strategies.

/// How an endpoint of a pool is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Least expected cost from in-flight, latency and heartbeats (DESIGN 4.2).
    #[default]
    Adaptive,
    /// Smooth weighted round robin over the heartbeat's weight (the JAE article's formula).
    Weight,
    /// Fewest requests in flight.
    LeastConnection,
    /// The better of two random ones by requests in flight.
    P2c,
    /// In turn.
    RoundRobin,
    /// By chance.
    Random,
    /// By a header's value (Maglev).
    Hash,
}

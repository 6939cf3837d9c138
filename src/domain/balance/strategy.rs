//! The named strategies, and the pick: who is eligible, and who of them gets the request.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::live::State;
use crate::domain::dice::Dice;
use crate::domain::endpoint::Endpoint;
use crate::domain::moment::Moment;
use crate::domain::table::snapshot::Pool;

/// A pool of more endpoints than this is not scanned whole: a sample of [`SAMPLE`] random ones is.
pub const SCANNED_WHOLE: usize = 64;
/// Distinct random candidates out of a big pool.
pub const SAMPLE: usize = 32;
/// Draws for a sample before it is taken as it is (or, if nobody eligible was drawn, the pool is scanned whole).
const DRAWS_MAX: usize = 64;

/// How an endpoint of a pool is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Least expected cost from in-flight, latency and heartbeats.
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
    /// By a header's value (Maglev); `adaptive` for requests without it.
    Hash,
}

impl Strategy {
    /// All of them, in the order in which they are documented.
    pub const ALL: [Strategy; 7] = [
        Strategy::Adaptive,
        Strategy::Weight,
        Strategy::LeastConnection,
        Strategy::P2c,
        Strategy::RoundRobin,
        Strategy::Random,
        Strategy::Hash,
    ];

    /// Its name on the wire and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Strategy::Adaptive => "adaptive",
            Strategy::Weight => "weight",
            Strategy::LeastConnection => "least-connection",
            Strategy::P2c => "p2c",
            Strategy::RoundRobin => "round-robin",
            Strategy::Random => "random",
            Strategy::Hash => "hash",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No strategy has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no balancing strategy; there are adaptive, weight, least-connection, p2c, round-robin, random and hash"
)]
pub struct UnknownStrategy(String);

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(name: &str) -> Result<Strategy, UnknownStrategy> {
        Strategy::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| UnknownStrategy(name.to_owned()))
    }
}

/// What a request asks of the pick.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// The value of the pool's hash header, if the request has it.
    pub hash_key: Option<&'a [u8]>,
    /// The availability zone to stay in, if zone preference is on. Only the first attempt heeds it.
    pub zone: Option<&'a str>,
    /// Whether this is the first attempt of the request.
    pub first_attempt: bool,
    /// Serials of the endpoints that earlier attempts of this request went to.
    pub tried: &'a [u64],
}

/// Why nobody was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPick {
    /// No instance takes requests.
    #[error("no instance takes requests")]
    Empty,
    /// Every instance that takes requests has as many in flight as it may.
    #[error("every instance is at its limit of requests in flight")]
    AllFull,
}

/// Who gets the request. Eligible are, in this order: those running, in the right zone (first attempt),
/// not ejected, below `max_conns`, not tried before. If nobody is left, ejection is ignored, then the zone, then that
/// they were tried; `max_conns` never.
pub fn pick<'a>(pool: &'a Pool, wish: &Wish, now: Moment, dice: &mut Dice) -> Result<&'a Arc<Endpoint>, NoPick> {
    if pool.endpoints.is_empty() {
        return Err(NoPick::Empty);
    }
    take_census(pool, now);
    let strict = Rules::strict(pool, wish, now);
    match choose(pool, wish, &strict, dice) {
        Some(endpoint) => Ok(endpoint),
        None => pick_relaxed(pool, wish, &strict, dice),
    }
}

#[cold]
fn pick_relaxed<'a>(pool: &'a Pool, wish: &Wish, strict: &Rules, dice: &mut Dice) -> Result<&'a Arc<Endpoint>, NoPick> {
    if let Some(endpoint) = strict.relaxed().find_map(|rules| choose(pool, wish, &rules, dice)) {
        return Ok(endpoint);
    }
    let anyone = pool.endpoints.iter().any(|e| e.live.state() == State::Running);
    Err(if anyone { NoPick::AllFull } else { NoPick::Empty })
}

/// Who may be picked, at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rules<'a> {
    pub(super) now: Moment,
    zone: Option<&'a str>,
    heed_ejection: bool,
    /// 0 is unlimited.
    max_conns: u32,
    tried: &'a [u64],
}

/// Whether an endpoint may be picked, and if not, the first reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligibility {
    /// It may.
    Eligible,
    /// It is starting or draining.
    NotRunning,
    /// Another zone is preferred.
    OtherZone,
    /// It is ejected, or on probation with all its trial requests under way.
    LeftOut,
    /// It has `max_conns` requests in flight.
    Full,
    /// This request has been there.
    Tried,
}

impl<'a> Rules<'a> {
    pub(super) fn strict(pool: &Pool, wish: &Wish<'a>, now: Moment) -> Rules<'a> {
        Rules {
            now,
            zone: wish.zone.filter(|_| wish.first_attempt),
            // Most of the pool failing says more about us or the app than about them.
            heed_ejection: pool.fleet.ejected() as usize * 2 <= pool.endpoints.len(),
            max_conns: pool.max_conns,
            tried: wish.tried,
        }
    }

    /// What may be ignored, step by step, while nobody is left; steps that ignore nothing new are left out.
    pub(super) fn relaxed(self) -> impl Iterator<Item = Rules<'a>> {
        let steps = [
            self,
            Rules { heed_ejection: false, ..self },
            Rules { heed_ejection: false, zone: None, ..self },
            Rules { tried: &[], ..self },
            Rules { heed_ejection: false, zone: None, tried: &[], ..self },
        ];
        (1..steps.len()).filter(move |&step| !steps[..step].contains(&steps[step])).map(move |step| steps[step])
    }

    pub(super) fn judge(&self, endpoint: &Endpoint) -> Eligibility {
        let live = &endpoint.live;
        if live.state() != State::Running {
            Eligibility::NotRunning
        } else if self.zone.is_some_and(|zone| *zone != *endpoint.zone) {
            Eligibility::OtherZone
        } else if self.heed_ejection && live.is_left_out(self.now) {
            Eligibility::LeftOut
        } else if self.max_conns > 0 && live.open() >= self.max_conns {
            Eligibility::Full
        } else if self.tried.contains(&endpoint.serial) {
            Eligibility::Tried
        } else {
            Eligibility::Eligible
        }
    }

    pub(super) fn admit(&self, endpoint: &Endpoint) -> bool {
        self.judge(endpoint) == Eligibility::Eligible
    }
}

/// Tells the fleet how many endpoints there are and how many of them are ejected: at each pick of a small pool that has
/// ejected ones, and else once a second.
fn take_census(pool: &Pool, now: Moment) {
    let size = pool.endpoints.len();
    if pool.fleet.wants_census(size, now) {
        let ejected = pool.endpoints.iter().filter(|e| e.live.ejected_until(now).is_some()).count();
        pool.fleet.census(size, ejected, now);
    }
}

fn choose<'a>(pool: &'a Pool, wish: &Wish, rules: &Rules, dice: &mut Dice) -> Option<&'a Arc<Endpoint>> {
    match (pool.strategy, wish.hash_key) {
        (Strategy::Hash, Some(key)) => by_hash(pool, key, rules),
        (Strategy::Adaptive | Strategy::Hash, _) => {
            let view = FleetView::of(pool);
            best_of(pool, scanned(pool), rules, dice, |e, best| view.cost_within(e, best, rules.now))
        }
        (Strategy::LeastConnection, _) => best_of(pool, scanned(pool), rules, dice, |e, _| in_flight(e)),
        (Strategy::P2c, _) => best_of(pool, 2, rules, dice, |e, _| in_flight(e)),
        (Strategy::Random, _) => best_of(pool, 1, rules, dice, |_, _| 0.0),
        (Strategy::RoundRobin, _) => in_turn(pool, rules, dice),
        (Strategy::Weight, _) => by_weight(pool, rules, dice),
    }
}

/// How many candidates are looked at.
pub(super) fn scanned(pool: &Pool) -> usize {
    if pool.endpoints.len() > SCANNED_WHOLE { SAMPLE } else { pool.endpoints.len() }
}

/// What `adaptive` must know of the fleet, read once per pick.
pub(super) struct FleetView {
    knows_latency: bool,
    capacity_mean: f32,
}

impl FleetView {
    pub(super) fn of(pool: &Pool) -> FleetView {
        FleetView { knows_latency: pool.fleet.knows_latency(), capacity_mean: pool.fleet.capacity_mean() }
    }

    /// The expected cost of sending one more request there (the formula is in the parent module). Only comparisons have a meaning.
    pub(super) fn cost(&self, endpoint: &Endpoint, now: Moment) -> f32 {
        self.cost_within(endpoint, f32::INFINITY, now)
    }

    /// The same, or infinity if it is above `limit` and that is plain before the exponentials are worked out.
    fn cost_within(&self, endpoint: &Endpoint, limit: f32, now: Moment) -> f32 {
        let live = &endpoint.live;
        let capacity = live.capacity().unwrap_or(self.capacity_mean) * live.slow_start(now) * endpoint.weight;
        let load = (live.waiting() + 1) as f32 / capacity;
        if !self.knows_latency {
            load
        } else if load * live.slowness_at_least() > limit {
            f32::INFINITY
        } else {
            load * live.slowness(now)
        }
    }
}

/// Requests in flight, for the strategies that count only them; an endpoint of weight 2 may have twice as many.
pub(super) fn in_flight(endpoint: &Endpoint) -> f32 {
    (endpoint.live.open() + 1) as f32 / endpoint.weight
}

/// The cheapest of `candidates` distinct random eligible endpoints; of all if that is as many. Ties go by chance.
/// `cost` is told the least cost so far: what is above may be told as infinity.
fn best_of<'a>(
    pool: &'a Pool,
    candidates: usize,
    rules: &Rules,
    dice: &mut Dice,
    cost: impl Fn(&Endpoint, f32) -> f32,
) -> Option<&'a Arc<Endpoint>> {
    let all = &pool.endpoints;
    let mut best = Best { endpoint: None, cost: f32::INFINITY, ties: 0 };
    if candidates < all.len() {
        let mut drawn = [0u32; DRAWS_MAX];
        let (mut distinct, mut eligible) = (0, 0);
        for _ in 0..2 * DRAWS_MAX {
            if eligible == candidates || distinct == DRAWS_MAX {
                break;
            }
            let index = dice.below(all.len());
            if drawn[..distinct].contains(&(index as u32)) {
                continue;
            }
            drawn[distinct] = index as u32;
            distinct += 1;
            if rules.admit(&all[index]) {
                eligible += 1;
                best.consider(&all[index], cost(&all[index], best.cost), dice);
            }
        }
        if best.endpoint.is_some() {
            return best.endpoint;
        }
    }
    for endpoint in all.iter().filter(|e| rules.admit(e)) {
        best.consider(endpoint, cost(endpoint, best.cost), dice);
    }
    best.endpoint
}

struct Best<'a> {
    endpoint: Option<&'a Arc<Endpoint>>,
    cost: f32,
    ties: usize,
}

impl<'a> Best<'a> {
    fn consider(&mut self, endpoint: &'a Arc<Endpoint>, cost: f32, dice: &mut Dice) {
        if cost < self.cost || self.endpoint.is_none() {
            *self = Best { endpoint: Some(endpoint), cost, ties: 1 };
        } else if cost == self.cost {
            // The k-th of k equals replaces the one kept with chance 1/k: each ends up with the same chance.
            self.ties += 1;
            if dice.below(self.ties) == 0 {
                self.endpoint = Some(endpoint);
            }
        }
    }
}

/// Plain round robin. Positions of those who may not be picked are used up, so that who follows them gets no more than
/// its turn.
fn in_turn<'a>(pool: &'a Pool, rules: &Rules, dice: &mut Dice) -> Option<&'a Arc<Endpoint>> {
    let all = &pool.endpoints;
    // Others take positions between ours: two rounds are enough to meet everybody, unless they come by in step with us.
    for _ in 0..2 * all.len() {
        let position = pool.fleet.next_position(dice);
        let endpoint = &all[(position % all.len() as u64) as usize];
        if rules.admit(endpoint) {
            return Some(endpoint);
        }
    }
    best_of(pool, all.len(), rules, dice, |_, _| 0.0)
}

/// Smooth weighted round robin without state but a position: round after round, an endpoint takes part in just the
/// rounds that its weight entitles it to, evenly spread (Bresenham's line). After any number of rounds each is within
/// one request of its exact share, whoever shares the position.
fn by_weight<'a>(pool: &'a Pool, rules: &Rules, dice: &mut Dice) -> Option<&'a Arc<Endpoint>> {
    let all = &pool.endpoints;
    let heaviest = 100.0 * pool.derived.heaviest(pool);
    let mean = pool.fleet.article_mean();
    let mut met = false;
    for step in 0..4 * all.len() + 64 {
        // A whole round without anybody eligible: leave the positions to others.
        if step == all.len() && !met {
            break;
        }
        let position = pool.fleet.next_position(dice);
        let (round, index) = (position / all.len() as u64, position % all.len() as u64);
        let endpoint = &all[index as usize];
        if rules.admit(endpoint) {
            met = true;
            if takes_part(article_weight(endpoint, mean) / heaviest, round, index) {
                return Some(endpoint);
            }
        }
    }
    // Only light ones are eligible, if any: by chance then, in proportion.
    let weight_of = |e: &Arc<Endpoint>| if rules.admit(e) { article_weight(e, mean) } else { 0.0 };
    let mut left = dice.share() as f32 * all.iter().map(weight_of).sum::<f32>();
    all.iter().find(|e| {
        left -= weight_of(e);
        left < 0.0
    })
}

/// The article's weight times the static weight.
pub(super) fn article_weight(endpoint: &Endpoint, mean: f32) -> f32 {
    endpoint.live.article().unwrap_or(mean) * endpoint.weight
}

/// Whether an endpoint with this share (of the heaviest) takes part in this round: in `share` of all rounds, as evenly
/// as whole rounds allow. Each index begins elsewhere in the pattern.
fn takes_part(share: f32, round: u64, index: u64) -> bool {
    const ONE: u64 = 1 << 32;
    let step = ((share * ONE as f32) as u64).clamp(1, ONE);
    let begin = index.wrapping_mul(0x9E37_79B9);
    // It takes part when this round's step passes a whole number.
    (round.wrapping_mul(step).wrapping_add(begin) & (ONE - 1)) >= ONE - step
}

/// Maglev: the table's endpoint for this key, or the next in the table that may be picked. If many in a row may not,
/// the next in the pool that may: walking the whole table would take long where everybody is full.
pub(super) fn by_hash<'a>(pool: &'a Pool, key: &[u8], rules: &Rules) -> Option<&'a Arc<Endpoint>> {
    let all = &pool.endpoints;
    let table = pool.derived.maglev(pool);
    let begin = (super::derived::hash(key) % table.len() as u64) as usize;
    let (before, after) = table.split_at(begin);
    let next = after.iter().chain(before).take(DRAWS_MAX).map(|&index| &all[index as usize]).find(|e| rules.admit(e));
    next.or_else(|| {
        let (before, after) = all.split_at(begin % all.len());
        after.iter().chain(before).find(|e| rules.admit(e))
    })
}

#[cfg(test)]
mod tests;

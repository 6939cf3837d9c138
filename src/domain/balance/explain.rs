//! What a pick would do, told beforehand: who is eligible, what each costs, and with which probability each is picked.

use std::sync::Arc;

use super::score::{Loads, ScoreConfig};
use super::strategy::{self, Eligibility, FleetView, Rules, Strategy, Wish};
use crate::domain::endpoint::Endpoint;
use crate::domain::moment::Moment;
use crate::domain::table::snapshot::Pool;

/// One endpoint of a pool as the pick sees it.
#[derive(Clone, Debug)]
pub struct Explained<'a> {
    /// Who.
    pub endpoint: &'a Arc<Endpoint>,
    /// Whether it may be picked, and if not, why.
    pub eligibility: Eligibility,
    /// What the article's formula makes of its last report, however old.
    pub loads: Option<Loads>,
    /// The article's weight times the static weight; the pool's mean weight without a report in time.
    pub weight: f32,
    /// How much it could do for us against the mean of its pool, as `adaptive` sees it (w^0.3).
    pub capacity: f32,
    /// How slow it is against its pool: 2 is twice as slow.
    pub relative_latency: f32,
    /// The share of its traffic that it gets while it is new or just back.
    pub slow_start: f32,
    /// What the pool's strategy compares, the least wins; `None` for strategies that compare nothing.
    pub cost: Option<f32>,
    /// The chance that the next request goes there.
    pub probability: f64,
}

/// Explains the next pick for `wish`, in the order of the pool. Changes nothing.
pub fn explain<'a>(pool: &'a Pool, wish: &Wish, config: &ScoreConfig, now: Moment) -> Vec<Explained<'a>> {
    if pool.endpoints.is_empty() {
        return Vec::new();
    }
    let strict = Rules::strict(pool, wish, now);
    let rules = std::iter::once(strict)
        .chain(strict.relaxed())
        .find(|rules| pool.endpoints.iter().any(|e| rules.admit(e)))
        .unwrap_or(strict);
    let costs = costs(pool, wish, now);
    let probabilities = probabilities(pool, wish, &rules, costs.as_deref());
    let fleet = &pool.fleet;
    let explained = |(endpoint, (index, probability)): (&'a Arc<Endpoint>, (usize, f64))| {
        let live = &endpoint.live;
        Explained {
            endpoint,
            eligibility: strict.judge(endpoint),
            loads: live.heard().and_then(|heard| config.loads(&heard.host, &heard.instance)),
            weight: strategy::article_weight(endpoint, fleet.article_mean()),
            capacity: live.capacity().unwrap_or(fleet.capacity_mean()) / fleet.capacity_mean(),
            relative_latency: live.relative_latency(fleet, now),
            slow_start: live.slow_start(now),
            cost: costs.as_ref().map(|costs| costs[index]),
            probability,
        }
    };
    pool.endpoints.iter().zip(probabilities.into_iter().enumerate()).map(explained).collect()
}

/// What each endpoint costs in the eyes of a strategy that takes the cheapest of some candidates.
fn costs(pool: &Pool, wish: &Wish, now: Moment) -> Option<Vec<f32>> {
    let each = |cost: &dyn Fn(&Endpoint) -> f32| Some(pool.endpoints.iter().map(|e| cost(e)).collect());
    match (pool.strategy, wish.hash_key) {
        (Strategy::Adaptive, _) | (Strategy::Hash, None) => {
            let view = FleetView::of(pool);
            each(&|e| view.cost(e, now))
        }
        (Strategy::LeastConnection | Strategy::P2c, _) => each(&strategy::in_flight),
        (Strategy::Weight | Strategy::RoundRobin | Strategy::Random, _) | (Strategy::Hash, Some(_)) => None,
    }
}

fn probabilities(pool: &Pool, wish: &Wish, rules: &Rules, costs: Option<&[f32]>) -> Vec<f64> {
    let all = &pool.endpoints;
    let mut shares = vec![0.0; all.len()];
    if let Some(costs) = costs {
        let eligible: Vec<usize> = (0..all.len()).filter(|&i| rules.admit(&all[i])).collect();
        let candidates = if pool.strategy == Strategy::P2c { 2 } else { strategy::scanned(pool) };
        // A pool that is scanned whole compares all that are eligible.
        let candidates = if candidates < all.len() { candidates.min(eligible.len()) } else { eligible.len() };
        cheapest_of(candidates, &eligible, costs, &mut shares);
        return shares;
    }
    if let (Strategy::Hash, Some(key)) = (pool.strategy, wish.hash_key) {
        let picked = strategy::by_hash(pool, key, rules);
        all.iter()
            .zip(&mut shares)
            .filter(|(e, _)| picked.is_some_and(|p| Arc::ptr_eq(p, e)))
            .for_each(|(_, s)| *s = 1.0);
        return shares;
    }
    let mean = pool.fleet.article_mean();
    for (share, endpoint) in shares.iter_mut().zip(all).filter(|(_, e)| rules.admit(e)) {
        *share =
            if pool.strategy == Strategy::Weight { f64::from(strategy::article_weight(endpoint, mean)) } else { 1.0 };
    }
    let sum: f64 = shares.iter().sum();
    shares.iter_mut().filter(|_| sum > 0.0).for_each(|share| *share /= sum);
    shares
}

/// The chance of each eligible endpoint to be the cheapest of so many distinct random ones; equals share theirs.
fn cheapest_of(candidates: usize, eligible: &[usize], costs: &[f32], shares: &mut [f64]) {
    let mut order = eligible.to_vec();
    order.sort_unstable_by(|&a, &b| costs[a].total_cmp(&costs[b]));
    let count = order.len();
    // The chance that none of the `cheaper` cheapest is among the candidates (hypergeometric).
    let nobody_of = |cheaper: usize| -> f64 {
        (0..candidates).map(|drawn| (count - cheaper).saturating_sub(drawn) as f64 / (count - drawn) as f64).product()
    };
    let mut cheaper = 0;
    for equals in order.chunk_by(|&a, &b| costs[a] == costs[b]) {
        let one_of_them = nobody_of(cheaper) - nobody_of(cheaper + equals.len());
        equals.iter().for_each(|&index| shares[index] = one_of_them / equals.len() as f64);
        cheaper += equals.len();
    }
}

#[cfg(test)]
mod tests;

//! From reported load to weights: the JAE article's formula for `weight`, and for `adaptive` what a host could still do
//! for us. Worked out when a heartbeat lands, never on the way of a request.
//!
//! The article: a vector turns usage into load (0.3 CPU + 0.3 memory, for host and instance alike), `load = 0.3 host +
//! 0.7 instance`, `weight = max(1, round(100 (1 - load)))`.
//!
//! Capacity: `a = u + (1 / n - u) / 2` of the host is attainable for one of our `n` instances there, where `u = own CPU +
//! free CPU / n` is what nobody disputes; a request costs `c = (A + 10 C) / (B + 10)`, with A the CPU time spent and B the
//! requests served lately, C the same over the fleet; `w = a / c`, within a twentieth and twenty times the mean, less
//! where memory runs out.

use std::num::NonZeroU32;
use std::time::Duration;

use super::live::{Heard, Live};
use crate::domain::load::{Share, Usage};
use crate::domain::moment::Moment;
use crate::domain::table::snapshot::Pool;

/// How sharply `adaptive` follows capacity.
const CAPACITY_EXPONENT: f64 = 0.3;
/// Of the CPU that others use, so much would be ours if we asked for it: schedulers share fairly and prefer who has slept.
const YIELDED: f64 = 0.5;
/// No capacity counts as less than a twentieth of the mean, or more than twenty times it.
const CAPACITY_SPREAD: f64 = 20.0;
/// Requests as costly as the fleet's mean that each instance is credited with before its own are trusted.
const COST_PRIOR: f64 = 10.0;
/// CPU spent and requests served are forgotten with this time constant.
const COST_FORGETTING_SECONDS: f64 = 50.0;
/// Reported CPU is smoothed with this time constant.
const CPU_SMOOTHING_SECONDS: f64 = 5.0;
/// A cost below this is no measurement.
const COST_MIN: f64 = 1e-9;
/// A report is good for so many of its intervals.
const INTERVALS: u32 = 3;
/// Above this share of memory the weight falls, down to [`MEMORY_WEIGHT_MIN`] of itself when all is used.
const MEMORY_GUARD: f64 = 0.9;
const MEMORY_WEIGHT_MIN: f64 = 0.05;

/// What each kind of usage counts in a load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vector {
    /// Of CPU.
    pub cpu: f32,
    /// Of memory.
    pub mem: f32,
    /// Of disk.
    pub io: f32,
    /// Of network.
    pub net: f32,
}

impl Vector {
    /// As published in the article: they sum to 0.6, I/O and network were to come.
    pub const ARTICLE: Vector = Vector { cpu: 0.3, mem: 0.3, io: 0.0, net: 0.0 };

    fn sum(&self) -> f64 {
        f64::from(self.cpu) + f64::from(self.mem) + f64::from(self.io) + f64::from(self.net)
    }

    /// The load that a usage amounts to; `None` if nothing that counts is known. What is unknown is taken to be as the
    /// weighted mean of what is known.
    fn load(&self, usage: &Usage, normalise: bool) -> Option<f64> {
        let parts = [(self.cpu, usage.cpu), (self.mem, usage.mem), (self.io, usage.io), (self.net, usage.net)];
        let (mut load, mut known) = (0.0, 0.0);
        for (weight, share) in parts {
            if let Some(share) = share {
                load += f64::from(weight) * f64::from(share.get());
                known += f64::from(weight);
            }
        }
        let scale = if normalise { 1.0 } else { self.sum() };
        (known > 0.0).then(|| load * scale / known)
    }
}

/// The weights of the article's formula.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreConfig {
    /// Of the host's usage.
    pub host: Vector,
    /// Of the instance's usage.
    pub instance: Vector,
    /// What the host's load counts in the whole.
    pub host_share: f32,
    /// What the instance's load counts in the whole.
    pub instance_share: f32,
    /// Divide each vector by its sum, so that a full host has load 1.
    pub normalise: bool,
}

impl Default for ScoreConfig {
    fn default() -> ScoreConfig {
        ScoreConfig {
            host: Vector::ARTICLE,
            instance: Vector::ARTICLE,
            host_share: 0.3,
            instance_share: 0.7,
            normalise: false,
        }
    }
}

/// The loads that the article's formula makes of two usages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loads {
    /// Of the host, if anything that counts is known.
    pub host: Option<f64>,
    /// Of the instance, if anything that counts is known.
    pub instance: Option<f64>,
    /// Of both together. If only one is known it stands for both.
    pub load: f64,
}

impl ScoreConfig {
    /// Host load, instance load, and both together; `None` if nothing that counts is known.
    pub fn loads(&self, host: &Usage, instance: &Usage) -> Option<Loads> {
        let host = self.host.load(host, self.normalise);
        let instance = self.instance.load(instance, self.normalise);
        let (host_share, instance_share) = (f64::from(self.host_share), f64::from(self.instance_share));
        let load = match (host, instance) {
            (Some(host), Some(instance)) => host_share * host + instance_share * instance,
            (Some(only), None) | (None, Some(only)) => (host_share + instance_share) * only,
            (None, None) => return None,
        };
        Some(Loads { host, instance, load })
    }

    /// The article's weight: `max(1, round(100 (1 - load)))`.
    pub fn weight(&self, load: f64) -> f32 {
        // Shares are kept as f32: what is 80.5 in decimal must not be rounded down as 80.499999.
        let percent = (1e6 * (1.0 - load)).round() / 1e4;
        percent.round().max(1.0) as f32
    }
}

/// What is learnt from the reports of one endpoint, one after another. Packed, as there is one for every instance.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(4))]
pub(super) struct Learnt {
    instance: Usage,
    host: Usage,
    at: Moment,
    /// At most 49 days.
    interval_ms: NonZeroU32,
    /// CPU of the instance and free CPU of its host, as shares of the host, smoothed; NaN while unknown.
    own: f32,
    free: f32,
    /// A: CPU-seconds of the host spent, B: requests served, both forgetting.
    spent: f32,
    served: f32,
}

#[derive(Clone, Copy, Debug)]
struct Cpu {
    own: f64,
    free: f64,
}

impl Learnt {
    /// Takes one report in. `served`: requests answered since the last one.
    pub(super) fn next(before: Option<&Learnt>, heard: Heard, served: u32) -> Learnt {
        let passed = before.map_or(heard.interval, |b| heard.at.since(b.at)).as_secs_f64();
        let known = heard.instance.cpu.zip(heard.host.cpu);
        let reported = known.map(|(own, host)| Cpu { own: share(own), free: 1.0 - share(host) });
        let cpu = match (before.and_then(Learnt::cpu), reported) {
            (Some(before), Some(reported)) => {
                let alpha = 1.0 - (-passed / CPU_SMOOTHING_SECONDS).exp();
                Some(Cpu {
                    own: before.own + alpha * (reported.own - before.own),
                    free: before.free + alpha * (reported.free - before.free),
                })
            }
            (None, reported) => reported,
            (Some(_), None) => None,
        };
        let kept = (-passed / COST_FORGETTING_SECONDS).exp();
        let (spent, served_before) = before.map_or((0.0, 0.0), |b| (f64::from(b.spent), f64::from(b.served)));
        let own = reported.map_or(0.0, |cpu| cpu.own);
        let interval_ms = u32::try_from(heard.interval.as_millis()).unwrap_or(u32::MAX);
        Learnt {
            instance: heard.instance,
            host: heard.host,
            at: heard.at,
            interval_ms: NonZeroU32::new(interval_ms).unwrap_or(NonZeroU32::MIN),
            own: cpu.map_or(f32::NAN, |cpu| cpu.own as f32),
            free: cpu.map_or(f32::NAN, |cpu| cpu.free as f32),
            spent: (kept * spent + own * passed) as f32,
            served: (kept * served_before + f64::from(served)) as f32,
        }
    }

    pub(super) fn heard(&self) -> Heard {
        let interval = Duration::from_millis(self.interval_ms.get().into());
        Heard { instance: self.instance, host: self.host, at: self.at, interval }
    }

    fn cpu(&self) -> Option<Cpu> {
        (!self.own.is_nan()).then_some(Cpu { own: self.own.into(), free: self.free.into() })
    }

    fn is_late(&self, now: Moment) -> bool {
        let heard = self.heard();
        now.since(heard.at) > heard.interval * INTERVALS
    }

    /// The share of the weight that is left when memory runs out, on the host or in the instance.
    fn memory_guard(&self) -> f64 {
        let used = [self.host.mem, self.instance.mem].into_iter().flatten().map(share).fold(0.0, f64::max);
        ((1.0 - used) / (1.0 - MEMORY_GUARD)).clamp(MEMORY_WEIGHT_MIN, 1.0)
    }
}

fn share(share: Share) -> f64 {
    f64::from(share.get())
}

/// Works all weights of a pool out afresh, against one mean. The control plane calls it after reports of any of its
/// endpoints, and now and then for pools whose reports may have stopped: a report is late after three of its intervals,
/// and from then on its endpoint counts as the mean. Costs well under a microsecond an endpoint.
pub fn recompute(pool: &Pool, config: &ScoreConfig, now: Moment) {
    let learnt = move |live: &Live| live.learnt().filter(|learnt| !learnt.is_late(now));
    // Asked for again where it is needed again: that is cheaper than to find memory for it.
    let known = pool.endpoints.iter().map(move |e| (&*e.live, learnt(&e.live)));
    recompute_capacity(pool, known.clone());
    recompute_article(pool, known, config);
}

fn recompute_capacity<'a>(pool: &Pool, known: impl Iterator<Item = (&'a Live, Option<Learnt>)> + Clone) {
    let add = |(spent, served), learnt: Learnt| (spent + f64::from(learnt.spent), served + f64::from(learnt.served));
    let (spent, served) = known.clone().filter_map(|(_, learnt)| learnt).fold((0.0, 0.0), add);
    // Before the first request is answered, nobody knows what one costs: then capacity is CPU.
    let fleet_cost = if served > 0.0 { spent / served } else { 1.0 };
    let neighbours = pool.derived.neighbours(pool);
    let capacity = |learnt: Option<&Learnt>, on_host: u32| {
        let learnt = learnt?;
        let cpu = learnt.cpu()?;
        let on_host = f64::from(on_host);
        // What our own use takes from the free share it adds here: capacity does not react to our own picks.
        let undisputed = cpu.own + cpu.free / on_host;
        let attainable = undisputed + YIELDED * (1.0 / on_host - undisputed);
        let cost = if served > 0.0 {
            (f64::from(learnt.spent) + COST_PRIOR * fleet_cost) / (f64::from(learnt.served) + COST_PRIOR)
        } else {
            fleet_cost
        };
        Some(attainable / cost.max(COST_MIN))
    };
    let capacities =
        known.clone().zip(neighbours).filter_map(|((_, learnt), on_host)| capacity(learnt.as_ref(), *on_host));
    let (sum, measured) = capacities.fold((0.0, 0.0), |(sum, n), capacity| (sum + capacity, n + 1.0));
    let mean = if sum > 0.0 { sum / measured } else { 1.0 };
    for ((live, learnt), on_host) in known.zip(neighbours) {
        let capacity = capacity(learnt.as_ref(), *on_host)
            .map_or(mean, |capacity| capacity.clamp(mean / CAPACITY_SPREAD, mean * CAPACITY_SPREAD));
        let guard = learnt.as_ref().map_or(1.0, Learnt::memory_guard);
        live.set_capacity((capacity * guard).powf(CAPACITY_EXPONENT) as f32);
    }
    pool.fleet.set_capacity_mean(mean.powf(CAPACITY_EXPONENT) as f32);
}

fn recompute_article<'a>(
    pool: &Pool,
    known: impl Iterator<Item = (&'a Live, Option<Learnt>)> + Clone,
    config: &ScoreConfig,
) {
    let weight = |learnt: Option<Learnt>| {
        let learnt = learnt?;
        config.loads(&learnt.host, &learnt.instance).map(|loads| config.weight(loads.load))
    };
    let weights = known.clone().filter_map(|(_, learnt)| weight(learnt));
    let (sum, measured) = weights.fold((0.0, 0.0), |(sum, n), weight| (sum + weight, n + 1.0));
    let mean = if measured > 0.0 { sum / measured } else { 100.0 };
    for (live, learnt) in known {
        live.set_article(weight(learnt).unwrap_or(mean));
    }
    pool.fleet.set_article_mean(mean);
}

impl Live {
    /// A heartbeat or registration brought load: of the instance, and of its host. `interval`: how often such reports
    /// come. Weights follow at the next [`recompute`].
    pub fn reported(&self, instance: Usage, host: Usage, interval: Duration, now: Moment) {
        self.learn(Heard { instance, host, at: now, interval });
    }
}

#[cfg(test)]
mod tests;

//! What follows from who is in a pool and is costly to work out again: built when first asked for, gone with the pool.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::domain::table::snapshot::Pool;

/// Belongs to one `Pool` and must never be moved to another.
#[derive(Debug, Default)]
pub struct Derived {
    neighbours: OnceLock<Box<[u32]>>,
    rest: OnceLock<Box<Rest>>,
}

/// What few pools are ever asked for.
#[derive(Debug, Default)]
struct Rest {
    maglev: OnceLock<Box<[u32]>>,
    by_instance: OnceLock<Box<[(u64, u32)]>>,
    heaviest: OnceLock<f32>,
}

/// Table sizes for Maglev: primes, each about twice the one before.
const PRIMES: [usize; 14] =
    [251, 509, 1_021, 2_039, 4_093, 8_191, 16_381, 32_749, 65_521, 131_071, 262_139, 524_287, 1_048_573, 16_777_213];
/// Table entries per endpoint: shares then differ by a few percent.
const ENTRIES_PER_ENDPOINT: usize = 64;

impl Derived {
    fn rest(&self) -> &Rest {
        self.rest.get_or_init(Box::default)
    }

    /// The largest static weight.
    pub(super) fn heaviest(&self, pool: &Pool) -> f32 {
        let heaviest = || pool.endpoints.iter().fold(f32::MIN_POSITIVE, |most, e| most.max(e.weight));
        *self.rest().heaviest.get_or_init(heaviest)
    }

    /// For each endpoint, how many of the pool's endpoints share its host, itself included.
    pub(super) fn neighbours(&self, pool: &Pool) -> &[u32] {
        self.neighbours.get_or_init(|| {
            // Who registered without its agent shares the host of those who did and have its address.
            let of_agents = pool.endpoints.iter().filter_map(|e| Some((e.address.host(), e.agent.as_ref()?.as_str())));
            let agents: HashMap<&str, &str> = of_agents.collect();
            let host_of = |i: usize| {
                let endpoint = &pool.endpoints[i];
                let address = endpoint.address.host();
                let agent =
                    endpoint.agent.as_ref().map(|agent| agent.as_str()).or_else(|| agents.get(address).copied());
                (agent.is_some(), agent.unwrap_or(address))
            };
            let mut order: Vec<usize> = (0..pool.endpoints.len()).collect();
            order.sort_unstable_by_key(|&i| host_of(i));
            let mut counts = vec![0; order.len()];
            for same_host in order.chunk_by(|&a, &b| host_of(a) == host_of(b)) {
                same_host.iter().for_each(|&i| counts[i] = same_host.len() as u32);
            }
            counts.into()
        })
    }

    /// Indices of the endpoints by hash of their instance id, sorted; 12 to 16 bytes an endpoint.
    pub(super) fn by_instance(&self, pool: &Pool) -> &[(u64, u32)] {
        self.rest().by_instance.get_or_init(|| {
            let hashed = |(i, e): (usize, &std::sync::Arc<crate::domain::endpoint::Endpoint>)| {
                (hash(e.instance.as_str().as_bytes()), i as u32)
            };
            let mut index: Vec<_> =
                pool.endpoints.iter().enumerate().filter(|(_, e)| !e.instance.is_empty()).map(hashed).collect();
            index.sort_unstable();
            index.into()
        })
    }

    /// Maglev's table (Eisenbud et al. 2016): endpoints by slot. The same endpoints give the same table in every
    /// router, in whatever order they registered. Building it costs about 64 to 128 steps per endpoint, once per change
    /// of the pool: microseconds for a small pool, some milliseconds for a thousand; 256 to 512 bytes an endpoint.
    pub(super) fn maglev(&self, pool: &Pool) -> &[u32] {
        self.rest().maglev.get_or_init(|| maglev_table(pool))
    }
}

fn maglev_table(pool: &Pool) -> Box<[u32]> {
    const FREE: u32 = u32::MAX;
    let mut turns: Vec<(u64, u32)> =
        (pool.endpoints.iter().enumerate()).map(|(i, e)| (hash(e.address.to_string().as_bytes()), i as u32)).collect();
    if turns.is_empty() {
        return Box::default();
    }
    turns.sort_unstable();
    let wanted = turns.len() * ENTRIES_PER_ENDPOINT;
    let size = PRIMES.into_iter().find(|&prime| prime >= wanted).unwrap_or(PRIMES[PRIMES.len() - 1]);
    let mut table = vec![FREE; size];
    let mut cursors: Vec<(usize, usize)> =
        turns.iter().map(|&(hash, _)| (hash as usize % size, (hash >> 32) as usize % (size - 1) + 1)).collect();
    let mut filled = 0;
    'fill: loop {
        for (turn, (slot, skip)) in cursors.iter_mut().enumerate() {
            while table[*slot] != FREE {
                *slot = (*slot + *skip) % size;
            }
            table[*slot] = turns[turn].1;
            filled += 1;
            if filled == size {
                break 'fill table.into();
            }
        }
    }
}

/// FNV-1a, mixed once more: the same in every process, which a seeded hash is not. Keys that collide on purpose only
/// end up on one instance, as equal keys do.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

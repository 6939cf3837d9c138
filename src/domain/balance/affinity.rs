//! Requests that name their instance: by sticky cookie, or by the headers that address one instance of an app or process.

use std::sync::Arc;

use super::derived;
use super::live::State;
use crate::domain::dice::Dice;
use crate::domain::endpoint::Endpoint;
use crate::domain::moment::Moment;
use crate::domain::table::snapshot::Pool;

/// Up to this many endpoints a scan is faster than an index.
const SCANNED: usize = 16;

/// The instance that a session is pinned to, whatever its load; `None` if it is gone, starting, ejected or at `max_conns`.
/// A draining instance keeps its sessions.
pub fn pinned<'a>(pool: &'a Pool, instance: &str, now: Moment) -> Option<&'a Arc<Endpoint>> {
    let takes_it = |endpoint: &&Arc<Endpoint>| {
        let live = &endpoint.live;
        live.state() != State::Starting
            && live.ejected_until(now).is_none()
            && (pool.max_conns == 0 || live.open() < pool.max_conns)
    };
    find_instance(pool, instance).filter(takes_it)
}

fn find_instance<'a>(pool: &'a Pool, instance: &str) -> Option<&'a Arc<Endpoint>> {
    if instance.is_empty() {
        return None;
    }
    if pool.endpoints.len() <= SCANNED {
        return pool.endpoints.iter().find(|e| e.instance.as_str() == instance);
    }
    let index = pool.derived.by_instance(pool);
    let hash = derived::hash(instance.as_bytes());
    let first = index.partition_point(|entry| entry.0 < hash);
    index[first..]
        .iter()
        .take_while(|entry| entry.0 == hash)
        .map(|entry| &pool.endpoints[entry.1 as usize])
        .find(|e| e.instance.as_str() == instance)
}

/// The instance with this number of this app (`X-CF-App-Instance`), whatever its health: who names an instance wants it.
pub fn of_app<'a>(pool: &'a Pool, app: &str, index: &str) -> Option<&'a Arc<Endpoint>> {
    let named = |e: &&Arc<Endpoint>| e.app.as_str() == app && *e.index == *index;
    pool.endpoints.iter().find(named)
}

/// An instance of this process (tag `process_id`): the one with this number, whatever its health; without a number, of
/// those running the one with the fewest requests in flight.
pub fn of_process<'a>(
    pool: &'a Pool,
    process: &str,
    index: Option<&str>,
    dice: &mut Dice,
) -> Option<&'a Arc<Endpoint>> {
    let of_it = |e: &&Arc<Endpoint>| e.tags.get("process_id").is_some_and(|id| *id == *process);
    match index {
        Some(index) => pool.endpoints.iter().filter(of_it).find(|e| *e.index == *index),
        None => {
            let running = pool.endpoints.iter().filter(of_it).filter(|e| e.live.state() == State::Running);
            running.min_by_key(|e| (e.live.open(), dice.bits()))
        }
    }
}

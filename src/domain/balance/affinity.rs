//! Requests that name their instance: by sticky cookie, or by the headers that address one instance of an app or
//! process.

use std::sync::Arc;

use super::derived;
use super::live::State;
use crate::domain::dice::Dice;
use crate::domain::endpoint::Endpoint;
use crate::domain::moment::Moment;
use crate::domain::table::snapshot::Pool;

/// Up to this many endpoints a scan is faster than an index.
const SCANNED: usize = 16;

/// The instance that a session is pinned to, whatever its load; `None` if it is gone, starting, ejected or at
/// `max_conns`. A draining instance keeps its sessions.
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

/// The instance with this number of this app (`X-CF-App-Instance`), whatever its health: who names an instance wants
/// it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::balance::fixture::{NOW, attempt, counted, of, pool};
    use crate::domain::balance::{Live, Outcome, Strategy};
    use crate::domain::endpoint::Facts;
    use crate::domain::identity::{Address, AppId, InstanceId};
    use crate::domain::tags::Tags;

    #[track_caller]
    fn check_pinned(pool: &Pool, instance: &str, expected: Option<&str>) {
        assert_eq!(pinned(pool, instance, NOW).map(|e| e.address.host()), expected);
    }

    fn big(first: &str) -> Pool {
        let rest: String = (0..100).map(|i| format!("e{i}\n")).collect();
        pool(Strategy::Adaptive, &format!("{first}\n{rest}"))
    }

    #[test]
    fn a_session_stays_whatever_the_load() {
        for pool in [pool(Strategy::Adaptive, "a waiting=99\nb"), big("a waiting=99")] {
            check_pinned(&pool, "a", Some("a"));
            check_pinned(&pool, "nobody", None);
            check_pinned(&pool, "", None);
        }
    }

    #[test]
    fn everybody_in_a_big_pool_is_found() {
        let pool = big("a");
        pool.endpoints.iter().for_each(|e| check_pinned(&pool, e.instance.as_str(), Some(e.address.host())));
    }

    #[test]
    fn draining_keeps_sessions_and_starting_has_none() {
        let pool = pool(Strategy::Adaptive, "leaving state=draining\ncoming state=starting\nb");
        check_pinned(&pool, "leaving", Some("leaving"));
        check_pinned(&pool, "coming", None);
    }

    #[test]
    fn ejected_and_full_instances_lose_sessions() {
        let pool = counted(Pool { max_conns: 2, ..pool(Strategy::Adaptive, "a\nfull open=1 waiting=1\nc") });
        check_pinned(&pool, "full", None);
        check_pinned(&pool, "a", Some("a"));
        (0..5).for_each(|_| _ = attempt(&pool, "a", Outcome::ConnectFailed, NOW));
        check_pinned(&pool, "a", None);
    }

    #[test]
    fn an_instance_without_an_id_is_never_pinned_to() {
        let nameless =
            Arc::new(Endpoint::new(0, Facts::at(Address::new("a", 80)), Arc::new(Live::new(NOW)), Arc::default()));
        check_pinned(&of(Strategy::Adaptive, Box::new([nameless])), "", None);
    }

    fn numbered(app: &str, index: &str, process: Option<&str>, serial: u64) -> Arc<Endpoint> {
        let facts = Facts {
            app: AppId::new(app),
            index: index.into(),
            instance: InstanceId::new("i"),
            tags: Tags::new(process.map(|id| ("process_id", id))),
            ..Facts::at(Address::new(&format!("{app}-{index}"), 80))
        };
        Arc::new(Endpoint::new(serial, facts, Arc::new(Live::new(NOW)), Arc::default()))
    }

    #[test]
    fn instances_are_addressed_by_app_or_process_and_number() {
        let endpoints = [
            numbered("app", "0", Some("web"), 0),
            numbered("app", "1", Some("web"), 1),
            numbered("other", "1", Some("worker"), 2),
        ];
        endpoints[0].live.begin();
        let pool = of(Strategy::Adaptive, Box::new(endpoints));
        let mut dice = Dice::seeded(1);
        assert_eq!(of_app(&pool, "app", "1").map(|e| e.serial), Some(1));
        assert_eq!(of_app(&pool, "app", "2").map(|e| e.serial), None);
        assert_eq!(of_process(&pool, "worker", Some("1"), &mut dice).map(|e| e.serial), Some(2));
        assert_eq!(of_process(&pool, "worker", Some("0"), &mut dice).map(|e| e.serial), None);
        assert_eq!(of_process(&pool, "web", None, &mut dice).map(|e| e.serial), Some(1), "the idle one");
        assert_eq!(of_process(&pool, "none", None, &mut dice).map(|e| e.serial), None);
    }
}

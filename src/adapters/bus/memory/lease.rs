//! One start per app across all routers: whoever starts an app says so in a bucket whose entries run out, and says it again
//! while it waits for the app. An ask that finds another router at the same start, or at a later one, waits.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Ports;
use super::sleeps::is_bad_key;
use crate::domain::identity::AppId;
use crate::domain::wake::{Ask, Effect};

/// Rounds of compare-and-set before one counts as unsure.
const ROUNDS: usize = 5;
/// How long a router goes on saying that it is at it. An app that took longer has failed by then.
const HELD_MAX: Duration = Duration::from_secs(900);
/// Apps that one router starts or waits for at a time; beyond them starts are not shared.
const APPS_MAX: usize = 65_536;

/// An entry.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    router: String,
    epoch: u64,
    attempt: u32,
}

/// What a router that asks may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Start it: the others do not.
    Granted,
    /// Another router is at it.
    Elsewhere,
    /// Nobody can say: start it.
    Unsure,
}

/// The starts that this router is at, and those that it waits for.
pub(super) struct Leases {
    held: HashMap<AppId, (Ask, Instant)>,
    waiting: HashMap<AppId, Ask>,
    may_wait: bool,
}

impl Leases {
    pub(super) fn new(ports: &Ports) -> Leases {
        Leases { held: HashMap::new(), waiting: HashMap::new(), may_wait: !ports.asks_are_repeated }
    }

    /// Something was decided about an app. `true`: the start is over, others need not wait for the entry to run out.
    pub(super) fn note(&mut self, effect: &Effect) -> Option<AppId> {
        let app = match effect {
            Effect::Awake { app, .. } | Effect::Forgotten { app, .. } => app,
            // An ask of another router may be under way, with the same number: that the entry stays keeps it out. What is asked
            // for later has a higher number.
            Effect::Failed { app } => {
                self.held.remove(app);
                self.waiting.remove(app);
                return None;
            }
            _ => return None,
        };
        self.waiting.remove(app);
        self.held.remove(app).map(|_| app.clone())
    }

    /// An ask is about to be judged. Should the connection break meanwhile, it is not forgotten.
    pub(super) fn asked(&mut self, ask: &Ask) {
        if self.may_wait && self.waiting.len() < APPS_MAX {
            self.waiting.insert(ask.app.clone(), ask.clone());
        }
    }

    /// An ask was judged.
    pub(super) fn judged(&mut self, ask: &Ask, verdict: Verdict, now: Instant) {
        if verdict == Verdict::Elsewhere {
            return;
        }
        self.waiting.remove(&ask.app);
        if verdict == Verdict::Granted && self.held.len() < APPS_MAX {
            self.held.insert(ask.app.clone(), (ask.clone(), now + HELD_MAX));
        }
    }

    /// Another router is at the start that this one said again.
    pub(super) fn lost(&mut self, ask: &Ask) {
        if self.held.get(&ask.app).is_some_and(|(held, _)| held == ask) {
            self.held.remove(&ask.app);
        }
    }

    /// Starts to say again, and asks to try again.
    pub(super) fn due(&mut self, now: Instant) -> (Vec<Ask>, Vec<Ask>) {
        self.held.retain(|_, (_, until)| now < *until);
        let held = self.held.values().map(|(ask, _)| ask.clone()).collect();
        (held, self.waiting.values().cloned().collect())
    }
}

/// Whether this router may start what it asks for, and says so to the others if it may.
pub(super) async fn judge(store: &Store, router: &str, ask: &Ask) -> Verdict {
    let key = ask.app.as_str();
    if is_bad_key(key) {
        return Verdict::Unsure;
    }
    let lease = Lease { router: router.to_owned(), epoch: ask.epoch, attempt: ask.attempt };
    let value = Bytes::from(serde_json::to_vec(&lease).expect("a text and two numbers"));
    for _ in 0..ROUNDS {
        let Ok(entry) = store.entry(key).await else { return Verdict::Unsure };
        let revision = entry.as_ref().map_or(0, |entry| entry.revision);
        let present = entry.filter(|entry| entry.operation == Operation::Put);
        let present = present.and_then(|entry| serde_json::from_slice::<Lease>(&entry.value).ok());
        if present.is_some_and(|present| present.keeps_out(&lease)) {
            return Verdict::Elsewhere;
        }
        match store.update(key, value.clone(), revision).await {
            Ok(_) => return Verdict::Granted,
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {}
            Err(_) => return Verdict::Unsure,
        }
    }
    Verdict::Unsure
}

/// Others need not wait any longer.
pub(super) async fn release(store: &Store, router: &str, app: &AppId) {
    let Ok(Some(entry)) = store.entry(app.as_str()).await else { return };
    let is_ours = serde_json::from_slice::<Lease>(&entry.value).is_ok_and(|lease| lease.router == router);
    if entry.operation == Operation::Put && is_ours {
        let _it_runs_out = store.delete_expect_revision(app.as_str(), Some(entry.revision)).await;
    }
}

impl Lease {
    /// A later start may go ahead: that it is asked for means that the one before is known to have failed.
    fn keeps_out(&self, other: &Lease) -> bool {
        self.router != other.router && (self.epoch, self.attempt) >= (other.epoch, other.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(text: &str) -> Lease {
        let mut words = text.split(' ');
        let mut word = || words.next().expect("ROUTER EPOCH ATTEMPT");
        Lease {
            router: word().to_owned(),
            epoch: word().parse().expect("a number"),
            attempt: word().parse().expect("a number"),
        }
    }

    #[track_caller]
    fn check_keeps_out(present: &str, other: &str, expected: bool) {
        assert_eq!(lease(present).keeps_out(&lease(other)), expected, "{present} / {other}");
    }

    #[test]
    fn only_a_start_that_another_router_does_not_know_of_is_kept_out() {
        check_keeps_out("a 1 1", "b 1 1", true);
        check_keeps_out("a 1 2", "b 1 1", true);
        check_keeps_out("a 2 1", "b 1 3", true);
        check_keeps_out("a 1 1", "b 1 2", false);
        check_keeps_out("a 1 3", "b 2 1", false);
        check_keeps_out("a 1 1", "a 1 1", false);
    }
}

//! What is done while both buckets are there: reading, watching, writing, judging, many at a time but one per app.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use arcstr::ArcStr;
use async_nats::jetstream::kv::Watch;
use futures_util::StreamExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::lease::{self, Verdict};
use super::sleeps::{self, Stepped, Wanted};
use super::{Buckets, Gone, Memory};
use crate::domain::identity::AppId;
use crate::domain::wake::{Ask, Effect};

/// Steps at a time.
const AT_A_TIME: usize = 64;
/// A step that failed is tried again after a while, all of them together.
const AGAIN: Duration = Duration::from_secs(2);

/// One exchange with JetStream, ended.
enum Ended {
    Stepped(AppId, Wanted, Stepped),
    Judged(Ask, Verdict),
    Renewed(Ask, Verdict),
    Released,
}

impl Memory {
    /// Shares until the buckets cannot be used any more; why.
    pub(super) async fn together(&mut self, buckets: &Buckets, mut watch: Watch) -> Result<String, Gone> {
        self.ports.metrics.control.memory_is_shared(true);
        let mut work =
            Work { buckets, router: self.ports.router.clone(), running: JoinSet::new(), busy: HashSet::new() };
        let every = self.times.every;
        let mut lease_tick = interval_at(Instant::now() + every, every);
        lease_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failed = Vec::new();
        let mut again = interval_at(Instant::now() + AGAIN, AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while work.has_room()
                && let Some((app, wanted)) = self.sleeps.next(|app| work.busy.contains(app))
            {
                work.step(app, wanted);
            }
            tokio::select! {
                entry = watch.next() => match entry {
                    Some(Ok(entry)) => {
                        if let Some(happening) = self.sleeps.seen(&entry) {
                            self.ports.happenings.send(happening).await.map_err(|_| Gone)?;
                        }
                    }
                    Some(Err(error)) => return Ok(error.to_string()),
                    None => return Ok("the watch has ended".to_owned()),
                },
                effect = self.ports.effects.recv() => self.hear(&effect.ok_or(Gone)?, &mut work),
                ask = self.ports.asks.recv(), if work.has_room() => {
                    let ask = ask.ok_or(Gone)?;
                    self.leases.asked(&ask);
                    work.judge(ask);
                }
                Some(ended) = work.running.join_next() => if let Ok(ended) = ended {
                    self.ended(ended, &mut work, &mut failed).await?;
                },
                _ = lease_tick.tick() => {
                    let (held, waiting) = self.leases.due(Instant::now());
                    held.into_iter().for_each(|ask| work.renew(ask));
                    waiting.into_iter().for_each(|ask| work.judge(ask));
                }
                _ = again.tick(), if !failed.is_empty() => failed.drain(..).for_each(|app| self.sleeps.again(app)),
            }
        }
    }

    /// Reads what is in the bucket of sleeping apps, and goes on watching it; or why that cannot be.
    pub(super) async fn read(&mut self, buckets: &Buckets) -> Result<Result<Watch, String>, Gone> {
        let mut watch = match self.meanwhile(buckets.apps.watch_with_history(">")).await? {
            Ok(watch) => watch,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let mut seen = BTreeSet::new();
        let mut is_complete = buckets.apps.stream.cached_info().state.messages == 0;
        while !is_complete {
            let entry = match self.meanwhile(watch.next()).await? {
                Some(Ok(entry)) => entry,
                Some(Err(error)) => return Ok(Err(error.to_string())),
                None => return Ok(Err("the watch has ended".to_owned())),
            };
            is_complete = entry.seen_current || entry.delta == 0;
            seen.insert(AppId::new(&entry.key));
            if let Some(happening) = self.sleeps.seen(&entry) {
                self.ports.happenings.send(happening).await.map_err(|_| Gone)?;
            }
        }
        self.sleeps.all_seen(&seen);
        Ok(Ok(watch))
    }

    fn hear(&mut self, effect: &Effect, work: &mut Work<'_>) {
        self.sleeps.note(effect);
        if let Some(app) = self.leases.note(effect) {
            work.release(app);
        }
    }

    async fn ended(&mut self, ended: Ended, work: &mut Work<'_>, failed: &mut Vec<AppId>) -> Result<(), Gone> {
        let metrics = self.ports.metrics.clone();
        match ended {
            Ended::Stepped(app, wanted, stepped) => {
                work.busy.remove(&app);
                match stepped {
                    Stepped::Done(stored) => {
                        metrics.control.memory_written("done");
                        self.sleeps.stepped(&app, &wanted, stored);
                    }
                    Stepped::Refused(why) => {
                        metrics.control.memory_written("refused");
                        tracing::warn!(%app, why, "the bucket of sleeping apps does not take this one");
                        self.sleeps.stepped(&app, &wanted, None);
                    }
                    Stepped::Failed(why) => {
                        metrics.control.memory_written("failed");
                        tracing::debug!(%app, why, "the bucket of sleeping apps is tried again");
                        failed.push(app);
                    }
                }
            }
            Ended::Judged(ask, verdict) => {
                self.leases.judged(&ask, verdict, Instant::now());
                match verdict {
                    Verdict::Granted => self.ports.order(ask, true).await?,
                    Verdict::Unsure => self.ports.order(ask, false).await?,
                    Verdict::Elsewhere => metrics.control.ask_ended("elsewhere"),
                }
            }
            Ended::Renewed(ask, Verdict::Elsewhere) => {
                self.leases.lost(&ask);
                tracing::info!(app = %ask.app, "another router has taken over the start of an app");
            }
            Ended::Renewed(..) | Ended::Released => {}
        }
        Ok(())
    }
}

/// Exchanges under way.
struct Work<'a> {
    buckets: &'a Buckets,
    router: ArcStr,
    running: JoinSet<Ended>,
    /// Apps whose entry somebody is at.
    busy: HashSet<AppId>,
}

impl Work<'_> {
    fn has_room(&self) -> bool {
        self.running.len() < AT_A_TIME
    }

    fn step(&mut self, app: AppId, wanted: Wanted) {
        let store = self.buckets.apps.clone();
        self.busy.insert(app.clone());
        self.running.spawn(async move {
            let stepped = sleeps::step(&store, &app, &wanted).await;
            Ended::Stepped(app, wanted, stepped)
        });
    }

    fn judge(&mut self, ask: Ask) {
        let (store, router) = (self.buckets.starts.clone(), self.router.clone());
        self.running.spawn(async move {
            let verdict = lease::judge(&store, &router, &ask).await;
            Ended::Judged(ask, verdict)
        });
    }

    fn renew(&mut self, ask: Ask) {
        let (store, router) = (self.buckets.starts.clone(), self.router.clone());
        self.running.spawn(async move {
            let verdict = lease::judge(&store, &router, &ask).await;
            Ended::Renewed(ask, verdict)
        });
    }

    fn release(&mut self, app: AppId) {
        let (store, router) = (self.buckets.starts.clone(), self.router.clone());
        self.running.spawn(async move {
            lease::release(&store, &router, &app).await;
            Ended::Released
        });
    }
}

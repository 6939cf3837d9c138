//! Sleeping apps in their bucket: what is to be there, as far as this router knows, and the steps that bring it about.

use std::collections::{BTreeSet, HashMap};

use async_nats::jetstream::kv::{Entry, Operation, Store, UpdateErrorKind};

use crate::domain::identity::AppId;
use crate::domain::protocol::app::{Forget, Sleep};
use crate::domain::wake::{Effect, Happening};

/// Rounds of compare-and-set before somebody else is let through.
const ROUNDS: usize = 5;

/// What this router knows of sleeping apps.
pub(super) struct Sleeps {
    known: HashMap<AppId, Known>,
    /// Apps whose entry is to be looked at.
    due: BTreeSet<AppId>,
}

#[derive(Default)]
struct Known {
    /// What the control plane has decided; `None`: nothing, somebody else's entry was seen.
    here: Option<Wanted>,
    /// Epoch and revision of the entry as last seen.
    stored: Option<(u64, u64)>,
}

/// What the entry of an app should be.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Asleep(Sleep),
    /// Woken from the sleep with this epoch: later ones are left alone.
    Awake {
        epoch: u64,
    },
    /// There is no such app any more; others should forget it as well.
    Forgotten {
        epoch: u64,
    },
}

/// What became of one step.
pub(super) enum Stepped {
    /// The entry is as wanted; its epoch and revision, if there is one.
    Done(Option<(u64, u64)>),
    /// JetStream refuses this one for good.
    Refused(String),
    /// Later.
    Failed(String),
}

impl Sleeps {
    pub(super) fn new() -> Sleeps {
        Sleeps { known: HashMap::new(), due: BTreeSet::new() }
    }

    /// Something was decided here.
    pub(super) fn note(&mut self, effect: &Effect) {
        let (app, wanted) = match effect {
            Effect::Asleep(sleep) => (&sleep.app, Wanted::Asleep(sleep.clone())),
            Effect::Awake { app, epoch, .. } => (app, Wanted::Awake { epoch: *epoch }),
            Effect::Forgotten { app, .. } => {
                let epoch = self.known.get(app).and_then(Known::epoch_here).unwrap_or(u64::MAX);
                (app, Wanted::Forgotten { epoch })
            }
            _ => return,
        };
        let known = self.known.entry(app.clone()).or_default();
        let is_stored = |sleep: &Sleep| known.stored.is_some_and(|(epoch, _)| epoch >= sleep.epoch);
        let is_done = matches!(&wanted, Wanted::Asleep(sleep) if is_stored(sleep));
        known.here = Some(wanted);
        if !is_done {
            self.due.insert(app.clone());
        }
    }

    /// An entry as JetStream tells it: what there was when the watch began, then every change.
    pub(super) fn seen(&mut self, entry: &Entry) -> Option<Happening> {
        let app = AppId::new(&entry.key);
        match entry.operation {
            Operation::Put => match Sleep::decode(&entry.value) {
                Ok(sleep) if sleep.app == app => {
                    let known = self.known.entry(app).or_default();
                    known.stored = Some((sleep.epoch, entry.revision));
                    let is_news = known.epoch_here().is_none_or(|epoch| epoch < sleep.epoch);
                    is_news.then(|| Happening::Sleep(sleep, Vec::new()))
                }
                Ok(_) => None,
                Err(rejection) => {
                    tracing::warn!(key = entry.key, why = rejection.sentence, "an entry of the bucket is none");
                    None
                }
            },
            Operation::Delete | Operation::Purge => {
                let known = self.known.get_mut(&app)?;
                let before = known.stored.take();
                let asleep = match &known.here {
                    Some(Wanted::Asleep(sleep)) => Some(sleep.epoch),
                    // The control plane was told of it and has not answered yet: it is to hear how that ended.
                    None => before.map(|(epoch, _)| epoch),
                    Some(Wanted::Awake { .. } | Wanted::Forgotten { .. }) => None,
                };
                if known.here.is_none() {
                    self.known.remove(&app);
                }
                // What was taken away must be what we hold, and not a sleep before it.
                let is_ours =
                    before.is_some_and(|(epoch, revision)| asleep == Some(epoch) && entry.revision > revision);
                (is_ours && entry.operation == Operation::Purge).then_some(Happening::Forget(Forget { app }))
            }
        }
    }

    /// The bucket has been read; it may be a new one. What is not as it should be is due, whatever was under way on the
    /// connection before.
    pub(super) fn all_seen(&mut self, seen: &BTreeSet<AppId>) {
        for (app, known) in &mut self.known {
            known.stored = known.stored.filter(|_| seen.contains(app));
            let is_as_wanted = match &known.here {
                Some(Wanted::Asleep(sleep)) => known.stored.is_some_and(|(epoch, _)| epoch >= sleep.epoch),
                Some(Wanted::Awake { .. } | Wanted::Forgotten { .. }) => false,
                None => true,
            };
            if !is_as_wanted {
                self.due.insert(app.clone());
            }
        }
    }

    /// The next app whose entry is to be brought in order, with what it should be. `is_busy`: somebody is at it.
    pub(super) fn next(&mut self, is_busy: impl Fn(&AppId) -> bool) -> Option<(AppId, Wanted)> {
        let app = self.due.iter().find(|app| !is_busy(app))?.clone();
        self.due.remove(&app);
        let wanted = self.known.get(&app)?.here.clone()?;
        Some((app, wanted))
    }

    /// A step has ended that wanted this.
    pub(super) fn stepped(&mut self, app: &AppId, wanted: &Wanted, stored: Option<(u64, u64)>) {
        let Some(known) = self.known.get_mut(app) else { return };
        if let Some((_, revision)) = stored
            && known.stored.is_none_or(|(_, last)| last < revision)
        {
            known.stored = stored;
        }
        // What is gone need not be remembered, unless it slept again meanwhile.
        let is_gone = matches!(wanted, Wanted::Awake { .. } | Wanted::Forgotten { .. });
        if is_gone && !matches!(known.here, Some(Wanted::Asleep(_))) {
            self.known.remove(app);
        }
    }

    /// A step came to nothing: it is due again.
    pub(super) fn again(&mut self, app: AppId) {
        self.due.insert(app);
    }
}

impl Known {
    fn epoch_here(&self) -> Option<u64> {
        match self.here.as_ref()? {
            Wanted::Asleep(sleep) => Some(sleep.epoch),
            Wanted::Awake { epoch } | Wanted::Forgotten { epoch } => Some(*epoch),
        }
    }
}

/// Makes the entry of `app` what it should be, unless somebody who knew more was here first.
pub(super) async fn step(store: &Store, app: &AppId, wanted: &Wanted) -> Stepped {
    let key = app.as_str();
    for _ in 0..ROUNDS {
        let entry = match store.entry(key).await {
            Ok(entry) => entry,
            Err(error) if is_bad_key(key) => return Stepped::Refused(error.to_string()),
            Err(error) => return Stepped::Failed(error.to_string()),
        };
        let revision = entry.as_ref().map_or(0, |entry| entry.revision);
        let put = entry.filter(|entry| entry.operation == Operation::Put);
        let epoch = put.and_then(|entry| Sleep::decode(&entry.value).ok()).map(|sleep| sleep.epoch);
        let stored = epoch.map(|epoch| (epoch, revision));
        let (changed, after) = match wanted {
            Wanted::Asleep(sleep) if epoch >= Some(sleep.epoch) => return Stepped::Done(stored),
            Wanted::Asleep(sleep) => match store.update(key, sleep.encode(), revision).await {
                Ok(revision) => (Ok(()), Some((sleep.epoch, revision))),
                Err(error) => (Err(error), None),
            },
            Wanted::Awake { epoch: woken } | Wanted::Forgotten { epoch: woken }
                if epoch.is_none_or(|it| it > *woken) =>
            {
                return Stepped::Done(stored);
            }
            Wanted::Awake { .. } => (store.delete_expect_revision(key, Some(revision)).await, None),
            Wanted::Forgotten { .. } => (store.purge_expect_revision(key, Some(revision)).await, None),
        };
        match changed {
            Ok(()) => return Stepped::Done(after),
            Err(error) => match error.kind() {
                UpdateErrorKind::WrongLastRevision => {}
                UpdateErrorKind::InvalidKey => return Stepped::Refused(error.to_string()),
                UpdateErrorKind::TimedOut | UpdateErrorKind::Other => return Stepped::Failed(error.to_string()),
            },
        }
    }
    Stepped::Failed("others keep changing the entry".to_owned())
}

/// Keys of JetStream are parts of subjects.
pub(super) fn is_bad_key(key: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_=.".contains(&byte);
    key.is_empty() || key.starts_with('.') || key.ends_with('.') || !key.bytes().all(is_allowed)
}

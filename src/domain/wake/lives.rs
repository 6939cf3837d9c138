//! Every app of the process by its id: the table hangs them on endpoints, `Apps` moves them from stage to stage, whoever
//! reports reads them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::live::LiveApp;
use crate::domain::identity::AppId;

/// The apps that have an endpoint, a sleeping route, or an episode.
#[derive(Debug, Default)]
pub struct LiveApps {
    by_id: Mutex<HashMap<AppId, Arc<LiveApp>>>,
}

impl LiveApps {
    /// What is shared about `app`; made at the first call. Without an id nobody can ask for it again: then it is the
    /// caller's alone.
    pub fn of(&self, app: &AppId) -> Arc<LiveApp> {
        if app.is_empty() {
            return Arc::new(LiveApp::new(app.clone()));
        }
        let mut by_id = self.by_id.lock();
        if let Some(known) = by_id.get(app) {
            return known.clone();
        }
        by_id.entry(app.clone()).or_insert_with(|| Arc::new(LiveApp::new(app.clone()))).clone()
    }

    /// The one with this id, if it is known.
    pub fn find(&self, app: &AppId) -> Option<Arc<LiveApp>> {
        self.by_id.lock().get(app).cloned()
    }

    /// All of them at this time, in no order.
    pub fn all(&self) -> Vec<Arc<LiveApp>> {
        self.by_id.lock().values().cloned().collect()
    }

    /// How many there are at each stage (in the order of `Stage::ALL`), and how many requests wait for them.
    pub fn count(&self) -> ([usize; 5], usize) {
        let (mut stages, mut waiting) = ([0; 5], 0);
        for live in self.by_id.lock().values() {
            stages[live.stage() as usize] += 1;
            waiting += live.held();
        }
        (stages, waiting)
    }

    /// Lets go of those that nobody holds any more.
    pub fn sweep(&self) {
        self.by_id.lock().retain(|_, live| Arc::strong_count(live) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_one_for_everybody_until_nobody_holds_it() {
        let lives = LiveApps::default();
        let shop = AppId::new("shop");
        let live = lives.of(&shop);
        assert!(Arc::ptr_eq(&live, &lives.of(&shop)));
        lives.sweep();
        assert_eq!(lives.all().len(), 1);
        drop(live);
        lives.sweep();
        assert!(lives.all().is_empty() && lives.find(&shop).is_none());
    }

    #[test]
    fn apps_without_an_id_are_not_one_app() {
        let lives = LiveApps::default();
        assert!(!Arc::ptr_eq(&lives.of(&AppId::default()), &lives.of(&AppId::default())));
        assert!(lives.all().is_empty());
    }
}

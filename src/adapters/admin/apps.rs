//! `/v1/apps`: how much each app is used and which of them sleep; an operator can put one to sleep and wake it.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::answer::{Answer, Problem, json};
use crate::domain::identity::AppId;
use crate::domain::moment::Moment;
use crate::domain::protocol::app::{self, AppStats, Sleep};
use crate::domain::protocol::envelope::Outgoing;
use crate::domain::protocol::route_uri::RouteUri;
use crate::domain::wake::{Failure, Happening, LiveApp, stats_of};

/// One app.
#[derive(Debug, Serialize)]
struct Listed {
    state: &'static str,
    /// What it wants to be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Counts its sleeps; 0 if it never slept.
    epoch: u64,
    /// Requests that wait for it.
    waiting: usize,
    /// Why it could not be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// Since the router began; latencies of the last interval of `router.stats`.
    #[serde(flatten)]
    usage: AppStats,
}

impl Listed {
    fn of(live: &LiveApp, now: Moment) -> Listed {
        let view = live.view();
        Listed {
            state: live.stage().label(),
            name: view.name.as_deref().map(str::to_owned),
            epoch: view.epoch,
            waiting: live.held(),
            failure: view.failure.as_ref().map(|failure| match failure {
                Failure::Told(why) => why.to_string(),
                Failure::TooLate => "it did not come up in time".to_owned(),
            }),
            usage: stats_of(&live.so_far(), now),
        }
    }
}

/// All apps by id.
pub(super) fn list(admin: &Admin) -> Answer {
    let now = admin.clock.now();
    let lives = admin.apps.all();
    let apps: BTreeMap<&str, Listed> = lives.iter().map(|live| (live.app().as_str(), Listed::of(live, now))).collect();
    json(StatusCode::OK, &apps)
}

/// What an operator may say about a sleep.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// Routes that stay; left out: those that the app has now.
    #[serde(default)]
    uris: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Accepted<'a> {
    accepted: bool,
    app: &'a str,
    epoch: u64,
}

/// Publishes `app.sleep`, so that every router hears it.
pub(super) fn sleep(admin: &Admin, app: &str, body: &[u8]) -> Result<Answer, Problem> {
    let bad = |why: String| Problem::new(StatusCode::BAD_REQUEST, "bad_sleep", why);
    let wish: Wish = match body.trim_ascii() {
        [] => Wish::default(),
        body => serde_json::from_slice(body).map_err(|error| bad(format!("the body is not understood: {error}")))?,
    };
    let named: Result<Vec<RouteUri>, _> = wish.uris.iter().map(|uri| RouteUri::parse(uri)).collect();
    let named = named.map_err(|rejection| bad(rejection.sentence))?;
    let uris = if named.is_empty() { routes_of(admin, app) } else { named };
    if uris.is_empty() {
        return Err(bad(format!("no route of {app:?} is known here; name them")));
    }
    let app = AppId::new(app);
    let epoch = admin.apps.find(&app).map_or(0, |live| live.view().epoch) + 1;
    let sleep = Sleep { app: app.clone(), uris: uris.into(), epoch, ready_after: None, name: None };
    let payload = sleep.encode();
    Sleep::decode(&payload).map_err(|rejection| bad(rejection.sentence))?;
    let message = Outgoing { subject: app::SLEEP.to_owned(), payload, reply: None };
    admin.bus.try_send(message).map_err(|_| busy())?;
    Ok(json(StatusCode::ACCEPTED, &Accepted { accepted: true, app: app.as_str(), epoch }))
}

fn routes_of(admin: &Admin, app: &str) -> Vec<RouteUri> {
    let snapshot = admin.routes.get();
    let serves = |pool: &&Arc<_>| {
        let pool: &crate::domain::table::snapshot::Pool = pool;
        pool.endpoints.iter().any(|endpoint| endpoint.app.as_str() == app)
    };
    snapshot.pools().filter(serves).filter_map(|pool| RouteUri::parse(&pool.route).ok()).collect()
}

/// Has a sleeping app started, as a visitor would.
pub(super) fn wake(admin: &Admin, app: &str) -> Result<Answer, Problem> {
    let Some(live) = admin.apps.find(&AppId::new(app)) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown_app", "this router knows no such app"));
    };
    if !live.stage().is_asleep() {
        return Err(Problem::new(StatusCode::CONFLICT, "not_asleep", "the app is not asleep"));
    }
    let wanted = Happening::Wanted { app: live.app().clone(), uri: "".into() };
    admin.happenings.try_send(wanted).map_err(|_| busy())?;
    Ok(json(StatusCode::ACCEPTED, &Accepted { accepted: true, app, epoch: live.view().epoch }))
}

fn busy() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "the router cannot keep up; try again in a moment")
}

//! What a request meets whose app is asleep: a person gets the loading page, that page its news, and everybody else waits at
//! the door until the app itself answers. Bodies wait in the socket.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use arcstr::ArcStr;

use super::answer;
use super::connection::{After, Client};
use super::error::ProxyError;
use super::forward::Watch;
use super::pages::{Language, PageFacts, loading};
use super::request::{self, Trip};
use super::settings::Settings;
use super::worker::Worker;
use crate::domain::moment::Moment;
use crate::domain::wake::{Asking, Failure, Held, Knock, LiveApp, Stage, View, Visitor};
use crate::http1::{Head, Name};

/// One request before sleeping apps, however often it looks.
#[derive(Debug, Default)]
pub struct Door {
    /// How long it waits, counted from the first time on.
    until: Option<Moment>,
    /// Its place in the queue, kept until an instance has answered: so many and no more are on their way at a time.
    place: Option<Held<Arc<LiveApp>>>,
}

impl Door {
    /// Meets `app`, which is asleep or was a moment ago, and was asked for by the route `uri`. `Some`: the request has been
    /// answered. `None`: there is something new, look again.
    ///
    /// # Errors
    /// Why it does not wait (any longer).
    #[expect(clippy::too_many_arguments, reason = "who asks, for what, and where it is written down")]
    pub async fn meet(
        &mut self,
        worker: &Worker,
        client: &mut Client,
        request: &Head,
        settings: &Settings,
        trip: &mut Trip,
        app: &Arc<LiveApp>,
        uri: &ArcStr,
    ) -> Result<Option<After>, ProxyError> {
        self.place = None;
        match asking(request).visitor(&settings.wake.ignore) {
            Visitor::Ignored => {
                worker.metrics.not_held("ignored");
                Err(refusal(app, worker.now()))
            }
            Visitor::Navigation if app.stage().is_asleep() => {
                worker.knock(app, uri, Knock::Visit);
                Ok(Some(show_page(worker, client, request, settings, trip, app).await))
            }
            Visitor::Poll => {
                worker.knock(app, uri, Knock::Poll);
                Ok(Some(tell_news(worker, client, request, trip, app).await))
            }
            Visitor::Navigation | Visitor::Program => {
                self.wait(worker, client, settings, app, uri).await.map(|()| None)
            }
        }
    }

    /// An instance has answered: the next one may come.
    pub fn passed(&mut self) {
        self.place = None;
    }

    async fn wait(
        &mut self,
        worker: &Worker,
        client: &mut Client,
        settings: &Settings,
        app: &Arc<LiveApp>,
        uri: &ArcStr,
    ) -> Result<(), ProxyError> {
        let has_waited = self.until.is_some();
        if !has_waited {
            worker.metrics.held();
        }
        let until = *self.until.get_or_insert_with(|| worker.now() + settings.wake.hold);
        let Some(place) = LiveApp::hold(app.clone(), settings.wake.held_max) else {
            worker.metrics.not_held("too_many");
            return Err(refusal(app, worker.now()));
        };
        // Who has waited for a start that failed is told so, however soon another visitor may have it tried again.
        let is_told = has_waited && app.stage() == Stage::Failed;
        if !is_told {
            worker.knock(app, uri, Knock::Visit);
        }
        // Only now: whoever fails it after this sees us waiting.
        if is_told || has_failed(&app.view(), worker.now()) {
            worker.metrics.not_held("failed");
            return Err(refusal(app, worker.now()));
        }
        let patience = until.since(worker.now());
        if patience.is_zero() {
            worker.metrics.not_held("too_long");
            return Err(refusal(app, worker.now()));
        }
        client.patience.set(patience);
        let mut watch = Watch::default();
        poll_fn(|cx| {
            if place.poll_let_go(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if watch.poll_gone(cx, &mut client.link, client.version).is_ready() {
                return Poll::Ready(Err(ProxyError::ClientGone));
            }
            client.patience.poll_elapsed(cx).map(|_| {
                worker.metrics.not_held("too_long");
                Err(refusal(app, worker.now()))
            })
        })
        .await?;
        self.place = Some(place);
        Ok(())
    }
}

/// Whether the app failed to start, and it is too early to try again.
fn has_failed(view: &View, now: Moment) -> bool {
    view.stage == Stage::Failed && view.retry_at.is_some_and(|retry_at| now < retry_at)
}

/// What somebody is told who does not wait.
fn refusal(app: &LiveApp, now: Moment) -> ProxyError {
    let view = app.view();
    let facts = PageFacts { view: &view, host: "", target: "", language: Language::English, now, nonce: "" };
    let retry_after = loading::retry_seconds(&facts);
    match view.stage {
        Stage::Failed => ProxyError::AppFailed { why: why_failed(&view), retry_after },
        Stage::Awake | Stage::Parking | Stage::Sleeping | Stage::Starting => ProxyError::AppWaking { retry_after },
    }
}

fn why_failed(view: &View) -> ArcStr {
    match &view.failure {
        Some(Failure::Told(message)) if !message.is_empty() => message.clone(),
        Some(Failure::Told(_)) | None => "no reason was given".into(),
        Some(Failure::TooLate) => "it did not come up in time".into(),
    }
}

fn asking(request: &Head) -> Asking<'_> {
    Asking {
        method: request.method(),
        path: request.destination().map_or("/", |to| text(to.path)),
        accept: request.value(Name::Accept),
        fetch_mode: request.value(Name::SecFetchMode),
        requested_with: request.has(Name::XRequestedWith),
        user_agent: request.value(Name::UserAgent),
    }
}

/// Hosts and paths of requests are ASCII.
fn text(ascii: &[u8]) -> &str {
    std::str::from_utf8(ascii).unwrap_or_default()
}

/// Whether this request neither wakes an app nor counts as its use.
pub fn is_ignored(request: &Head, settings: &Settings) -> bool {
    let ignore = &settings.wake.ignore;
    !ignore.is_empty() && {
        let asking = asking(request);
        ignore.covers(asking.user_agent, asking.path)
    }
}

async fn show_page(
    worker: &Worker,
    client: &mut Client,
    request: &Head,
    settings: &Settings,
    trip: &mut Trip,
    app: &LiveApp,
) -> After {
    let (view, nonce) = (app.view(), worker.request_id());
    let facts = facts(&view, request, worker.now(), &nonce);
    let page = settings.wake.page.render(&facts);
    let error = refusal(app, worker.now());
    trip.status = error.status(settings.timeout_status);
    let mut fields = loading::headers(&facts);
    fields.push(("X-Cf-RouterError", error.router_error()));
    fields.push(("X-Weighbridge-Error", error.label().to_owned()));
    trip.error = Some(error);
    trip.pool.iter().for_each(|pool| request::count(pool, trip.status));
    write(worker, client, request, trip, &fields, page.as_bytes()).await
}

async fn tell_news(worker: &Worker, client: &mut Client, request: &Head, trip: &mut Trip, app: &LiveApp) -> After {
    let view = app.view();
    let news = loading::poll_answer(&facts(&view, request, worker.now(), &[b'0'; 36]));
    trip.status = 200;
    trip.pool.iter().for_each(|pool| request::count(pool, trip.status));
    write(worker, client, request, trip, &loading::poll_headers(), &news).await
}

fn facts<'a>(view: &'a View, request: &'a Head, now: Moment, nonce: &'a [u8; 36]) -> PageFacts<'a> {
    PageFacts {
        view,
        host: request.destination().map_or("", |to| text(to.host)),
        target: request.target(),
        language: Language::of(request.value(Name::AcceptLanguage)),
        now,
        nonce: std::str::from_utf8(nonce).unwrap_or_default(),
    }
}

async fn write(
    worker: &Worker,
    client: &mut Client,
    request: &Head,
    trip: &mut Trip,
    fields: &[(&'static str, impl AsRef<str>)],
    body: &[u8],
) -> After {
    let keep_alive = request::may_stay(worker, client, request);
    let page = answer::Page { status: trip.status, fields, body };
    let occasion = request::occasion(worker, client, request, trip, keep_alive);
    trip.head_bytes = answer::write_page(&page, &occasion, client.link.out()) as u64;
    request::deliver(client, trip, &worker.settings(), keep_alive).await
}

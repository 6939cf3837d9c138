//! Sleep and wake in the control plane: what the messages of `app.*` and everybody else say goes to `Apps`; what follows
//! from it for the table and the bus is done here, the rest is handed on.

use super::{ControlPlane, Effects};
use crate::domain::endpoint::Endpoint;
use crate::domain::identity::AppId;
use crate::domain::moment::Moment;
use crate::domain::protocol::app::{self, Failed, Forget, List, ListAnswer, Park, ParkAnswer, Sleep, Starting, Unpark};
use crate::domain::protocol::envelope::{Incoming, Outgoing};
use crate::domain::protocol::rejection::Rejection;
use crate::domain::table::Heard;
use crate::domain::wake::{Effect, Happening, Instance};

/// The label of answers to `app.list`, which come on a subject of the router's own.
const LISTED: &str = "app.list answer";

impl ControlPlane {
    /// The subject as a label, if it is about apps.
    pub(super) fn app_subject(&self, subject: &str) -> Option<&'static str> {
        let known = [app::PARK, app::UNPARK, app::SLEEP, app::STARTING, app::FAILED, app::FORGET, app::LIST];
        let known = known.into_iter().find(|known| *known == subject);
        known.or_else(|| (subject == self.inbox).then_some(LISTED))
    }

    pub(super) fn on_app_message(
        &mut self,
        subject: &'static str,
        incoming: &Incoming,
        now: Moment,
        effects: &mut Effects,
    ) -> Result<Heard, Rejection> {
        let payload = &incoming.payload[..];
        let reply = incoming.reply.as_deref();
        let happening = match subject {
            app::PARK => Happening::Park(Park::decode(payload)?),
            app::UNPARK => Happening::Unpark(Unpark::decode(payload)?),
            app::SLEEP => Happening::Sleep(Sleep::decode(payload)?, Vec::new()),
            app::STARTING => Happening::Starting(Starting::decode(payload)?),
            app::FAILED => {
                let failed = Failed::decode(payload)?;
                let retry_in = failed.retry_in(self.unix_ms(now));
                Happening::Failed(failed, retry_in)
            }
            app::FORGET => Happening::Forget(Forget::decode(payload)?),
            app::LIST => {
                let list = List::decode(payload)?;
                return Ok(self.answer_list(&list, reply, effects));
            }
            _ => {
                for sleep in ListAnswer::decode(payload)?.apps {
                    self.happen(Happening::Sleep(sleep, Vec::new()), None, now, effects);
                }
                return Ok(Heard::Applied);
            }
        };
        Ok(self.happen(happening, reply, now, effects))
    }

    /// Something happened to an app. `reply`: where the answer to a park goes.
    pub(super) fn happen(
        &mut self,
        happening: Happening,
        reply: Option<&str>,
        now: Moment,
        effects: &mut Effects,
    ) -> Heard {
        let happening = match happening {
            Happening::Sleep(sleep, _) if !self.table.has_room_to_sleep(&sleep.uris) => return Heard::Full,
            Happening::Sleep(sleep, _) => {
                let instances = self.table.instances_of(&sleep.app);
                Happening::Sleep(sleep, instances)
            }
            // It has gone since it answered: the app would be awake without anybody to serve it.
            Happening::Ready { instance, .. } if self.table.instance(&instance).is_none() => return Heard::Ignored,
            other => other,
        };
        match self.apps.handle(happening, now) {
            Ok(follows) => {
                follows.into_iter().for_each(|effect| self.carry_out(effect, reply, now, effects));
                Heard::Applied
            }
            Err(ignored) => {
                effects.ignored = Some(ignored);
                Heard::Ignored
            }
        }
    }

    fn carry_out(&mut self, effect: Effect, reply: Option<&str>, now: Moment, effects: &mut Effects) {
        match &effect {
            Effect::Asleep(Sleep { app, uris, .. }) => self.table.sleep(app, uris, now),
            Effect::Awake { app, .. } => self.table.wake(app, now),
            Effect::Forgotten { app, .. } => self.table.forget(app, now, &mut effects.changes),
            Effect::Ask(_)
            | Effect::Failed { .. }
            | Effect::GaveUp { .. }
            | Effect::Probe { .. }
            | Effect::Unpark { .. }
            | Effect::AnswerPark { .. } => {}
        }
        if let Effect::Awake { app, .. } | Effect::Failed { app } | Effect::Forgotten { app, .. } = &effect {
            self.settle(app, effects);
        }
        let router = || self.me.id.as_str().into();
        match effect {
            Effect::Unpark { app, epoch } => {
                effects.outgoing.push(message(app::UNPARK, Unpark { app, epoch, router: router() }.encode()));
            }
            Effect::GaveUp { app, epoch, attempt, message: why, retry_in } => {
                let retry_at = self.unix_ms(now) + retry_in.as_millis() as u64;
                let (retry_at_unix_ms, attempt) = (Some(retry_at), Some(attempt));
                let failed = Failed { app, epoch, message: why, retry_at_unix_ms, attempt };
                effects.outgoing.push(message(app::FAILED, failed.encode()));
            }
            Effect::AnswerPark { app, in_flight, last_request_ago } => {
                let last_request_ms_ago = last_request_ago.map(|ago| ago.as_millis() as u64);
                let answer = ParkAnswer { router: router(), app, in_flight, last_request_ms_ago };
                effects.outgoing.extend(reply.map(|reply| message(reply, answer.encode())));
            }
            Effect::Probe { instance, .. } => effects.probes.extend(self.table.instance(&instance).cloned()),
            Effect::Ask(_)
            | Effect::Asleep(_)
            | Effect::Awake { .. }
            | Effect::Failed { .. }
            | Effect::Forgotten { .. } => effects.apps.push(effect),
        }
    }

    /// The instances that the table heard of, and those that it lost: sleeping apps are about them.
    pub(super) fn follow_instances(&mut self, now: Moment, effects: &mut Effects) {
        for endpoint in std::mem::take(&mut effects.changes.stirred) {
            self.happen(
                Happening::Registered { app: endpoint.app.clone(), instance: instance(&endpoint) },
                None,
                now,
                effects,
            );
        }
        for at in 0..effects.changes.left.len() {
            let endpoint = effects.changes.left[at].1.clone();
            let gone = instance(&endpoint);
            if endpoint.live_app.stage().is_asleep() && self.table.instance(&gone).is_none() {
                self.happen(Happening::Gone { app: endpoint.app.clone(), instance: gone }, None, now, effects);
            }
        }
        for at in 0..effects.changes.arrived.len() {
            let live = &effects.changes.arrived[at].live_app;
            if live.held() > 0 && !live.stage().is_asleep() {
                let app = live.app().clone();
                self.settle(&app, effects);
            }
        }
    }

    fn unix_ms(&self, now: Moment) -> u64 {
        (self.born + now.since(Moment::START)).as_millis() as u64
    }

    fn settle(&self, app: &AppId, effects: &mut Effects) {
        let live = self.apps.live(app);
        let instances = self.table.instances_of(app).len().max(1);
        effects.settled.push((live, instances.saturating_mul(self.release_concurrency)));
    }

    /// Other routers may know of apps that fell asleep while this one was away.
    pub(super) fn ask_for_the_list(&self) -> Outgoing {
        let list = List { router: self.me.id.as_str().into() };
        Outgoing { reply: Some(self.inbox.clone()), ..message(app::LIST, list.encode()) }
    }

    fn answer_list(&self, list: &List, reply: Option<&str>, effects: &mut Effects) -> Heard {
        let Some(reply) = reply.filter(|_| *list.router != *self.me.id) else { return Heard::Ignored };
        let answers = ListAnswer::encode_all(&self.me.id, self.apps.sleeping());
        effects.outgoing.extend(answers.into_iter().map(|answer| message(reply, answer)));
        Heard::Applied
    }

    /// `router.stats`, while there is a bus: the first report after an outage covers all of it.
    pub(super) fn report_if_due(&mut self, now: Moment, effects: &mut Effects) {
        if !self.is_connected || now.since(self.reported_at) < self.stats_every {
            return;
        }
        self.reported_at = now;
        let lives = self.apps.lives();
        let pace = self.table.pace();
        let reports = self.reporter.report(lives.all().iter().inspect(|_| pace.step()), now);
        lives.sweep();
        effects.outgoing.extend(reports.into_iter().map(|report| message(app::STATS, report)));
    }
}

fn instance(endpoint: &Endpoint) -> Instance {
    Instance { address: endpoint.address.clone(), id: endpoint.instance.clone() }
}

fn message(subject: &str, payload: bytes::Bytes) -> Outgoing {
    Outgoing { subject: subject.to_owned(), payload, reply: None }
}

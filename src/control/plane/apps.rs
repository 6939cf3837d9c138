//! Sleep and wake in the control plane: what the messages of `app.*` and everybody else say goes to `Apps`; what follows
//! from it for the table and the bus is done here, the rest is handed on.

use super::{ControlPlane, Effects};
use crate::domain::moment::Moment;
use crate::domain::protocol::app::{self, Failed, Forget, List, ListAnswer, Park, ParkAnswer, Sleep, Starting, Unpark};
use crate::domain::protocol::envelope::{Incoming, Outgoing};
use crate::domain::protocol::rejection::Rejection;
use crate::domain::table::Heard;
use crate::domain::wake::{Effect, Happening};

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
                let unix_ms = (self.born + now.since(Moment::START)).as_millis() as u64;
                let retry_in = failed.retry_in(unix_ms);
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
        match self.apps.handle(happening, now) {
            Ok(follows) => {
                follows.into_iter().for_each(|effect| self.carry_out(effect, reply, effects));
                Heard::Applied
            }
            Err(ignored) => {
                effects.ignored = Some(ignored);
                Heard::Ignored
            }
        }
    }

    fn carry_out(&mut self, effect: Effect, reply: Option<&str>, effects: &mut Effects) {
        let router = || self.me.id.as_str().into();
        match effect {
            Effect::Unpark { app, epoch } => {
                effects.outgoing.push(message(app::UNPARK, Unpark { app, epoch, router: router() }.encode()));
            }
            Effect::AnswerPark { app, in_flight, last_request_ago } => {
                let last_request_ms_ago = last_request_ago.map(|ago| ago.as_millis() as u64);
                let answer = ParkAnswer { router: router(), app, in_flight, last_request_ms_ago };
                effects.outgoing.extend(reply.map(|reply| message(reply, answer.encode())));
            }
            other => effects.apps.push(other),
        }
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
        let reports = self.reporter.report(lives.all().iter(), now);
        lives.sweep();
        effects.outgoing.extend(reports.into_iter().map(|report| message(app::STATS, report)));
    }
}

fn message(subject: &str, payload: bytes::Bytes) -> Outgoing {
    Outgoing { subject: subject.to_owned(), payload, reply: None }
}

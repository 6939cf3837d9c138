//! What sleep and wake are told by the configuration, and what they ask of the world.

use std::sync::Arc;
use std::time::Duration;

use arcstr::ArcStr;

use crate::domain::identity::{Address, AppId, InstanceId};
use crate::domain::protocol::app::Sleep;
use crate::domain::protocol::route_uri::RouteUri;

/// How patient the router is.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Time between two asks to start the same app; doubles with each.
    pub retry: Duration,
    /// What it doubles to.
    pub retry_max: Duration,
    /// From the first ask until the start has failed.
    pub deadline: Duration,
    /// Failed tries in a row that make a failed start.
    pub tries: u32,
    /// How long a failed app is left alone.
    pub retry_failed_after: Duration,
    /// How long after the sleep a sign of life of an instance that was there before it is taken for its last.
    pub leaving: Duration,
    /// Whether asks travel over the bus. Then they are repeated (a message may get lost) and wait for the bus to be back.
    /// Otherwise whoever carries them tells when one failed.
    pub asks_over_bus: bool,
    /// Apps whose sleep is remembered; a message about one more is ignored.
    pub apps_max: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        let secs = Duration::from_secs;
        Settings {
            retry: secs(2),
            retry_max: secs(30),
            deadline: secs(300),
            tries: 3,
            retry_failed_after: secs(60),
            leaving: secs(15),
            asks_over_bus: true,
            apps_max: 200_000,
        }
    }
}

/// What the caller must now do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Have the app started: publish `app.wake`, or call whoever starts apps.
    Ask(Ask),
    /// Publish `app.unpark`.
    Unpark {
        /// The app.
        app: AppId,
        /// The sleep that is called off.
        epoch: u64,
    },
    /// Answer the `app.park` that was handled.
    AnswerPark {
        /// The app.
        app: AppId,
        /// Requests in flight and waiting on this router.
        in_flight: u64,
        /// How long ago the last one began.
        last_request_ago: Option<Duration>,
    },
    /// The app sleeps: its routes stay, its endpoints are not picked any more, and the sleep is to be remembered for routers
    /// that start later, as the message that other routers get.
    Asleep(Sleep),
    /// Find out whether this instance of a sleeping app answers, and tell by `Happening::Ready` when it does.
    Probe {
        /// The app.
        app: AppId,
        /// Its instance.
        instance: Instance,
    },
    /// The app answers: its endpoints may be picked, held requests go to them.
    Awake {
        /// The app.
        app: AppId,
        /// The sleep it has woken from.
        epoch: u64,
        /// From the first visit; `None` if nobody had asked for it.
        took: Option<Duration>,
    },
    /// The start has failed: held requests end.
    Failed {
        /// The app.
        app: AppId,
    },
    /// This router has given up a start that others took part in, after all tries: publish `app.failed` with `retry_at`, so that no other router goes
    /// on trying on its own.
    GaveUp {
        /// The app.
        app: AppId,
        /// The sleep it should have been woken from.
        epoch: u64,
        /// The last start that was asked for.
        attempt: u32,
        /// Why it failed.
        message: ArcStr,
        /// When a visitor may have it tried again.
        retry_in: Duration,
    },
    /// The routes of this sleeping app go, and its held requests end.
    Forgotten {
        /// The app.
        app: AppId,
        /// Its routes.
        uris: Arc<[RouteUri]>,
    },
}

/// A start that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The app.
    pub app: AppId,
    /// The route somebody asked for.
    pub uri: ArcStr,
    /// The sleep it is to be woken from.
    pub epoch: u64,
    /// Which start of this sleep it is, as counted by this router from 1. Equal numbers are repeats of one ask.
    pub attempt: u32,
}

/// A start that this router is to bring about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What was asked.
    pub ask: Ask,
    /// The other routers leave it to this one, so they must hear if it comes to nothing.
    pub for_all: bool,
}

/// Why something that happened had no effect; for a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// About an earlier sleep than the last one known.
    Stale,
    /// Known already.
    Repeated,
    /// The app is not in a state to which this could happen.
    OutOfPlace,
    /// An instance that is being stopped showed a last sign of life.
    Leaving,
    /// `Settings::apps_max` apps are remembered.
    TooMany,
}

impl Ignored {
    /// As metrics call it.
    pub fn label(self) -> &'static str {
        match self {
            Ignored::Stale => "stale",
            Ignored::Repeated => "repeated",
            Ignored::OutOfPlace => "out_of_place",
            Ignored::Leaving => "leaving",
            Ignored::TooMany => "too_many",
        }
    }
}

/// One instance: its address alone would confuse a new one with the one that had the port before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instance {
    /// Where it is.
    pub address: Address,
    /// Which it is; may be empty.
    pub id: InstanceId,
}

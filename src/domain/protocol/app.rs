//! `app.*` and `router.stats`: how apps are put to sleep, woken, and how much they are used
//! (docs/PROTOCOL.md, sections 4 and 5).

use std::sync::Arc;
use std::time::Duration;

use arcstr::ArcStr;
use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::rejection::{MESSAGE_BYTES_MAX, Reason, Rejection, TEXT_BYTES_MAX, URIS_MAX};
use super::route_uri::RouteUri;
use super::wire;
use crate::domain::identity::AppId;
use crate::domain::load::Share;

/// Subject of `Park`; a request.
pub const PARK: &str = "app.park";
/// Subject of `Unpark`.
pub const UNPARK: &str = "app.unpark";
/// Subject of `Sleep`.
pub const SLEEP: &str = "app.sleep";
/// Subject of `Wake`.
pub const WAKE: &str = "app.wake";
/// Subject of `Starting`.
pub const STARTING: &str = "app.starting";
/// Subject of `Failed`.
pub const FAILED: &str = "app.failed";
/// Subject of `Forget`.
pub const FORGET: &str = "app.forget";
/// Subject of `List`; a request.
pub const LIST: &str = "app.list";
/// Subject of `Stats`.
pub const STATS: &str = "router.stats";

/// Characters of a message to visitors; what is longer is cut, for a failure untold would be worse.
const MESSAGE_CHARS_MAX: usize = 500;
/// Characters of an app's name; longer ones are cut.
const NAME_CHARS_MAX: usize = 80;
/// The longest that a controller may announce: a day.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
/// Apps in one answer to `app.list`.
const LISTED_MAX: usize = 100_000;

/// A controller asks whether an app may be put to sleep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Park {
    /// The app.
    pub app: AppId,
    /// Its routes, if told.
    pub uris: Arc<[RouteUri]>,
    /// The sleep this is about.
    pub epoch: u64,
}

/// The answer to `Park`: how much this router uses the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkAnswer {
    /// Who answers.
    pub router: ArcStr,
    /// The app.
    pub app: AppId,
    /// Requests in flight and waiting, tunnels included.
    pub in_flight: u64,
    /// How long ago the last one began; `None`: there was none since the router began.
    pub last_request_ms_ago: Option<u64>,
}

/// A router calls a sleep off: there was a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpark {
    /// The app.
    pub app: AppId,
    /// The sleep that is called off.
    pub epoch: u64,
    /// Whose visitor it was.
    pub router: ArcStr,
}

/// An app sleeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sleep {
    /// The app.
    pub app: AppId,
    /// The routes that stay.
    pub uris: Arc<[RouteUri]>,
    /// Grows with every sleep of the app.
    pub epoch: u64,
    /// How long its start usually takes, as far as the sender knows.
    pub ready_after: Option<Duration>,
    /// What visitors call it.
    pub name: Option<ArcStr>,
}

/// A router wants an app started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wake {
    /// The app.
    pub app: AppId,
    /// The route somebody asked for.
    pub uri: ArcStr,
    /// The sleep it is to be woken from.
    pub epoch: u64,
    /// Whose visitor it is.
    pub router: ArcStr,
    /// When this was sent, in whole milliseconds of Unix time.
    pub at_unix_ms: u64,
    /// Counts the starts that this router asked for in this sleep, from 1. Equal numbers are repeats of one ask, a higher one
    /// means that the start before is known to have failed. 0: the sender does not count.
    pub attempt: u32,
}

/// A controller starts an app.
#[derive(Clone, Debug, PartialEq)]
pub struct Starting {
    /// The app.
    pub app: AppId,
    /// The sleep it is woken from.
    pub epoch: u64,
    /// How many instances are being started.
    pub instances: u32,
    /// How far that is.
    pub progress: Option<Share>,
    /// For the visitor.
    pub message: Option<ArcStr>,
}

/// A start failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The app.
    pub app: AppId,
    /// The sleep it should have been woken from.
    pub epoch: u64,
    /// Why, for the visitor.
    pub message: ArcStr,
    /// When another try is worth while, in whole milliseconds of Unix time.
    pub retry_at_unix_ms: Option<u64>,
    /// Which start of this sleep it was, if a router says so: the `attempt` of its ask.
    pub attempt: Option<u32>,
}

/// An app is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forget {
    /// The app.
    pub app: AppId,
}

/// A router asks the others which apps sleep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Who asks; it does not answer itself. Empty if it did not say.
    pub router: ArcStr,
}

/// An answer to `List`: some of the sleeping apps that a router knows of (there may be several answers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListAnswer {
    /// Who answers.
    pub router: ArcStr,
    /// As the messages that made them sleep.
    pub apps: Vec<Sleep>,
}

#[derive(Deserialize)]
struct RawPark {
    app: Option<String>,
    #[serde(default)]
    uris: Vec<String>,
    epoch: u64,
}

#[derive(Deserialize, Serialize)]
struct RawParkAnswer {
    #[serde(default)]
    router: String,
    app: Option<String>,
    in_flight: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_request_ms_ago: Option<u64>,
}

#[derive(Deserialize, Serialize)]
struct RawUnpark {
    app: Option<String>,
    epoch: u64,
    #[serde(default)]
    router: String,
}

#[derive(Deserialize, Serialize)]
struct RawSleep {
    app: Option<String>,
    uris: Vec<String>,
    epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ready_after_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct RawWake {
    app: Option<String>,
    #[serde(default)]
    uri: String,
    epoch: u64,
    #[serde(default)]
    router: String,
    at: Option<String>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    attempt: u32,
}

#[derive(Deserialize, Serialize)]
struct RawStarting {
    app: Option<String>,
    epoch: u64,
    #[serde(default)]
    instances: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct RawFailed {
    app: Option<String>,
    epoch: u64,
    #[serde(default)]
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
}

#[derive(Deserialize, Serialize)]
struct RawForget {
    app: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct RawList {
    #[serde(default)]
    router: String,
}

#[derive(Deserialize, Serialize)]
struct RawListAnswer {
    #[serde(default)]
    router: String,
    apps: Vec<RawSleep>,
}

impl Park {
    /// Reads the body of `app.park`.
    ///
    /// # Errors
    /// What is wrong with it, for all messages of this file: `too_large`, `not_utf8`, `not_json`, `wrong_type`,
    /// `duplicate_key`, `missing_id`, `bad_text`, `bad_uri`; where such values are, `bad_time` and `load_out_of_range`.
    pub fn decode(payload: &[u8]) -> Result<Park, Rejection> {
        let raw: RawPark = wire::read(payload)?;
        Ok(Park { app: app_id(raw.app)?, uris: routes(&raw.uris)?, epoch: raw.epoch })
    }

    /// Writes it, as a controller does.
    pub fn encode(&self) -> Bytes {
        let uris: Vec<String> = self.uris.iter().map(RouteUri::to_string).collect();
        wire::write(&serde_json::json!({"app": self.app.as_str(), "uris": uris, "epoch": self.epoch})).into()
    }
}

impl ParkAnswer {
    /// Reads an answer to `app.park`, as a controller does.
    ///
    /// # Errors
    /// As `Park::decode`.
    pub fn decode(payload: &[u8]) -> Result<ParkAnswer, Rejection> {
        let raw: RawParkAnswer = wire::read(payload)?;
        Ok(ParkAnswer {
            router: short_text("router", &raw.router)?,
            app: app_id(raw.app)?,
            in_flight: raw.in_flight,
            last_request_ms_ago: raw.last_request_ms_ago,
        })
    }

    /// Writes it.
    pub fn encode(&self) -> Bytes {
        wire::write(&RawParkAnswer {
            router: self.router.to_string(),
            app: Some(self.app.to_string()),
            in_flight: self.in_flight,
            last_request_ms_ago: self.last_request_ms_ago,
        })
        .into()
    }
}

impl Unpark {
    /// Reads the body of `app.unpark`.
    ///
    /// # Errors
    /// As `Park::decode`.
    pub fn decode(payload: &[u8]) -> Result<Unpark, Rejection> {
        let raw: RawUnpark = wire::read(payload)?;
        Ok(Unpark { app: app_id(raw.app)?, epoch: raw.epoch, router: short_text("router", &raw.router)? })
    }

    /// Writes it.
    pub fn encode(&self) -> Bytes {
        wire::write(&RawUnpark { app: Some(self.app.to_string()), epoch: self.epoch, router: self.router.to_string() })
            .into()
    }
}

impl Sleep {
    /// Reads the body of `app.sleep`, or a value of the bucket.
    ///
    /// # Errors
    /// As `Park::decode`.
    pub fn decode(payload: &[u8]) -> Result<Sleep, Rejection> {
        Sleep::from_raw(wire::read(payload)?)
    }

    /// Writes it.
    pub fn encode(&self) -> Bytes {
        wire::write(&self.to_raw()).into()
    }

    fn from_raw(raw: RawSleep) -> Result<Sleep, Rejection> {
        let name = raw.name.map(|name| shown_text(&name, NAME_CHARS_MAX)).filter(|name| !name.is_empty());
        let ready_after = raw.ready_after_ms.map(|millis| Duration::from_millis(millis).min(DURATION_MAX));
        Ok(Sleep { app: app_id(raw.app)?, uris: routes(&raw.uris)?, epoch: raw.epoch, ready_after, name })
    }

    fn to_raw(&self) -> RawSleep {
        RawSleep {
            app: Some(self.app.to_string()),
            uris: self.uris.iter().map(RouteUri::to_string).collect(),
            epoch: self.epoch,
            ready_after_ms: self.ready_after.map(|after| after.as_millis() as u64),
            name: self.name.as_deref().map(str::to_owned),
        }
    }
}

impl Wake {
    /// Reads the body of `app.wake`, as a controller does.
    ///
    /// # Errors
    /// As `Park::decode`.
    pub fn decode(payload: &[u8]) -> Result<Wake, Rejection> {
        let raw: RawWake = wire::read(payload)?;
        Ok(Wake {
            app: app_id(raw.app)?,
            uri: short_text("uri", &raw.uri)?,
            epoch: raw.epoch,
            router: short_text("router", &raw.router)?,
            at_unix_ms: raw.at.map_or(Ok(0), |at| unix_ms(&at))?,
            attempt: raw.attempt,
        })
    }

    /// Writes it.
    pub fn encode(&self) -> Bytes {
        wire::write(&RawWake {
            app: Some(self.app.to_string()),
            uri: self.uri.to_string(),
            epoch: self.epoch,
            router: self.router.to_string(),
            at: rfc3339(self.at_unix_ms),
            reason: "request".to_owned(),
            attempt: self.attempt,
        })
        .into()
    }
}

impl Starting {
    /// Reads the body of `app.starting`.
    ///
    /// # Errors
    /// As `Park::decode`.
    pub fn decode(payload: &[u8]) -> Result<Starting, Rejection> {
        let raw: RawStarting = wire::read(payload)?;
        let progress = raw.progress.map(|progress| {
            Share::reported(progress).ok_or_else(|| {
                Rejection::new(Reason::LoadOutOfRange, format!("progress {progress} is no share from 0 to 1"))
            })
        });
        Ok(Starting {
            app: app_id(raw.app)?,
            epoch: raw.epoch,
            instances: raw.instances,
            progress: progress.transpose()?,
            message: raw
                .message
                .map(|message| shown_text(&message, MESSAGE_CHARS_MAX))
                .filter(|message| !message.is_empty()),
        })
    }

    /// Writes it, as a controller does.
    pub fn encode(&self) -> Bytes {
        wire::write(&RawStarting {
            app: Some(self.app.to_string()),
            epoch: self.epoch,
            instances: self.instances,
            progress: self.progress.map(|progress| f64::from(progress.get())),
            message: self.message.as_deref().map(str::to_owned),
        })
        .into()
    }
}

impl Failed {
    /// Reads the body of `app.failed`.
    ///
    /// # Errors
    /// As `Park::decode`.
    pub fn decode(payload: &[u8]) -> Result<Failed, Rejection> {
        let raw: RawFailed = wire::read(payload)?;
        Ok(Failed {
            app: app_id(raw.app)?,
            epoch: raw.epoch,
            message: shown_text(&raw.message, MESSAGE_CHARS_MAX),
            retry_at_unix_ms: raw.retry_at.map(|at| unix_ms(&at)).transpose()?,
            attempt: raw.attempt,
        })
    }

    /// Writes it, as a controller does.
    pub fn encode(&self) -> Bytes {
        wire::write(&RawFailed {
            app: Some(self.app.to_string()),
            epoch: self.epoch,
            message: self.message.to_string(),
            retry_at: self.retry_at_unix_ms.and_then(rfc3339),
            attempt: self.attempt,
        })
        .into()
    }

    /// How long after `now_unix_ms` another try is worth while: at most a day, zero if that is past.
    pub fn retry_in(&self, now_unix_ms: u64) -> Option<Duration> {
        let millis = self.retry_at_unix_ms?.saturating_sub(now_unix_ms);
        Some(Duration::from_millis(millis).min(DURATION_MAX))
    }
}

impl Forget {
    /// Reads the body of `app.forget`.
    ///
    /// # Errors
    /// As `Park::decode`.
    pub fn decode(payload: &[u8]) -> Result<Forget, Rejection> {
        let raw: RawForget = wire::read(payload)?;
        Ok(Forget { app: app_id(raw.app)? })
    }

    /// Writes it, as a controller does.
    pub fn encode(&self) -> Bytes {
        wire::write(&RawForget { app: Some(self.app.to_string()) }).into()
    }
}

impl List {
    /// Reads the body of `app.list`; an empty one is fine.
    ///
    /// # Errors
    /// As `Park::decode`.
    pub fn decode(payload: &[u8]) -> Result<List, Rejection> {
        if payload.is_empty() {
            return Ok(List { router: "".into() });
        }
        let raw: RawList = wire::read(payload)?;
        Ok(List { router: short_text("router", &raw.router)? })
    }

    /// Writes it.
    pub fn encode(&self) -> Bytes {
        wire::write(&RawList { router: self.router.to_string() }).into()
    }
}

impl ListAnswer {
    /// Reads an answer to `app.list`.
    ///
    /// # Errors
    /// As `Park::decode`; one bad app refuses the whole answer.
    pub fn decode(payload: &[u8]) -> Result<ListAnswer, Rejection> {
        let raw: RawListAnswer = wire::read(payload)?;
        if raw.apps.len() > LISTED_MAX {
            return Err(Rejection::new(Reason::TooLarge, format!("more than {LISTED_MAX} apps in one answer")));
        }
        let apps = raw.apps.into_iter().map(Sleep::from_raw).collect::<Result<_, _>>()?;
        Ok(ListAnswer { router: short_text("router", &raw.router)?, apps })
    }

    /// Writes the answers of `router`: as many messages as `apps` need, at least one.
    pub fn encode_all(router: &str, apps: impl Iterator<Item = Sleep>) -> Vec<Bytes> {
        let mut answers = Vec::new();
        let mut part = RawListAnswer { router: router.to_owned(), apps: Vec::new() };
        let mut bytes = 0;
        for app in apps.map(|app| app.to_raw()) {
            let size = wire::write(&app).len() + 1;
            if bytes + size > MESSAGE_BYTES_MAX / 2 && !part.apps.is_empty() {
                answers.push(wire::write(&part).into());
                part.apps.clear();
                bytes = 0;
            }
            bytes += size;
            part.apps.push(app);
        }
        if answers.is_empty() || !part.apps.is_empty() {
            answers.push(wire::write(&part).into());
        }
        answers
    }
}

/// The body of `router.stats`.
#[derive(Debug, Serialize)]
pub struct Stats<'a> {
    /// Who reports.
    pub router: &'a str,
    /// Numbers the reports of this router, from 1.
    pub seq: u64,
    /// The time it covers.
    pub interval_ms: u64,
    /// App by app.
    #[serde(serialize_with = "as_map")]
    pub apps: &'a [(&'a str, AppStats)],
}

/// How much one app was used.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AppStats {
    /// Requests answered, or given up by their client.
    pub requests: u64,
    /// In flight now, tunnels included.
    pub in_flight: u64,
    /// Tunnels now.
    pub tunnels: u64,
    /// Left out if there was none since the router began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_request_ms_ago: Option<u64>,
    /// Requests by class, `1xx` to `5xx`; classes without any are left out.
    #[serde(serialize_with = "by_class")]
    pub status: [u64; 5],
    /// Left out if no instance answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<LatencyStats>,
    /// Bytes of requests.
    pub bytes_in: u64,
    /// Bytes of answers.
    pub bytes_out: u64,
}

/// Time to the response head in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LatencyStats {
    /// The median.
    pub p50: f64,
    /// 95 %.
    pub p95: f64,
    /// 99 %.
    pub p99: f64,
}

impl Stats<'_> {
    /// Writes it.
    pub fn encode(&self) -> Bytes {
        wire::write(self).into()
    }
}

fn as_map<S: Serializer>(apps: &[(&str, AppStats)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(apps.iter().map(|(app, stats)| (app, stats)))
}

fn by_class<S: Serializer>(status: &[u64; 5], serializer: S) -> Result<S::Ok, S::Error> {
    let used = status.iter().zip(["1xx", "2xx", "3xx", "4xx", "5xx"]).filter(|(count, _)| **count > 0);
    let mut map = serializer.serialize_map(None)?;
    for (count, class) in used {
        map.serialize_entry(class, count)?;
    }
    map.end()
}

fn app_id(app: Option<String>) -> Result<AppId, Rejection> {
    let app = app.unwrap_or_default();
    if app.is_empty() {
        return Err(Rejection::new(Reason::MissingId, "no app"));
    }
    short_text("app", &app).map(|app| AppId::new(&app))
}

fn routes(uris: &[String]) -> Result<Arc<[RouteUri]>, Rejection> {
    if uris.len() > URIS_MAX {
        return Err(Rejection::new(Reason::TooLarge, format!("{} routes are more than {URIS_MAX}", uris.len())));
    }
    uris.iter().map(|uri| RouteUri::parse(uri)).collect()
}

/// Text by which something is known.
fn short_text(key: &str, text: &str) -> Result<ArcStr, Rejection> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Rejection::new(Reason::TooLarge, format!("{key} has more than {TEXT_BYTES_MAX} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Rejection::new(Reason::BadText, format!("{key} {text:?} has control characters in it")));
    }
    Ok(text.into())
}

/// Text for people: on one line, and cut where it is too long.
/// A message to visitors as `app.failed` would carry it: one line, cut where it is too long.
pub fn shown_message(text: &str) -> ArcStr {
    shown_text(text, MESSAGE_CHARS_MAX)
}

fn shown_text(text: &str, chars_max: usize) -> ArcStr {
    let one_line = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    let one_line = one_line.collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(chars_max) {
        Some((cut, _)) => format!("{}…", one_line[..cut].trim_end()).into(),
        None => one_line.into(),
    }
}

fn unix_ms(text: &str) -> Result<u64, Rejection> {
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|error| Rejection::new(Reason::BadTime, format!("time {text:?}: {error}")))?;
    Ok(u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)) // before 1970 is long past
}

/// `None` after the year 9999.
fn rfc3339(unix_ms: u64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).ok()?;
    time.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests;

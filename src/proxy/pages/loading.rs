//! The page a visitor sees while an app wakes up, and the JSON by which that page hears how far it is. Pure: facts in,
//! text out. One self-contained file; it works without JavaScript, without colour, without motion and without sight.

use std::fmt::Write;
use std::sync::LazyLock;
use std::time::Duration;

use super::template::{BadTemplate, Kind, Template, Variable, escape};
use super::words::{Language, Now};
use crate::domain::moment::Moment;
use crate::domain::wake::{POLL_TYPE, Stage, View};

const HTML: &str = include_str!("loading.html");
const CSS: &str = include_str!("loading.css");
const SCALE: &str = include_str!("scale.svg");
const SCRIPT: &str = include_str!("loading.js");

/// What a template of the loading page may use.
pub const VARIABLES: &[Variable] = &[
    Variable { name: "lang", kind: Kind::Text, doc: "`en` or `zh-Hans`, for the attribute of that name" },
    Variable { name: "state", kind: Kind::Text, doc: "`starting`, `unreachable` or `failed`" },
    Variable { name: "name", kind: Kind::Text, doc: "what the app wants to be called, else its host" },
    Variable { name: "host", kind: Kind::Text, doc: "the host that was asked for" },
    Variable { name: "title", kind: Kind::Text, doc: "the title of the page" },
    Variable { name: "heading", kind: Kind::Text, doc: "what happens, in a few words" },
    Variable { name: "text", kind: Kind::Text, doc: "what happens, in a sentence or two; why it failed" },
    Variable { name: "status", kind: Kind::Text, doc: "how far it is: the platform's own message, if there is one" },
    Variable { name: "elapsed", kind: Kind::Text, doc: "time since the first visit, `0:12`" },
    Variable { name: "elapsed_seconds", kind: Kind::Text, doc: "the same as a number" },
    Variable { name: "expected", kind: Kind::Text, doc: "how long it usually takes, in words; empty if unknown" },
    Variable { name: "expected_seconds", kind: Kind::Text, doc: "the same as a number; empty if unknown" },
    Variable { name: "progress", kind: Kind::Text, doc: "percent of the way, a whole number; empty if unknown" },
    Variable { name: "retry_seconds", kind: Kind::Text, doc: "seconds until the page is worth another look" },
    Variable { name: "again", kind: Kind::Text, doc: "the label of a link that tries again" },
    Variable {
        name: "nonce",
        kind: Kind::Text,
        doc: "for `<style nonce=\"…\">` and `<script nonce=\"…\">` of your own",
    },
    Variable {
        name: "refresh",
        kind: Kind::Markup,
        doc: "reloads the page where there is no JavaScript; belongs in `<head>`",
    },
    Variable {
        name: "script",
        kind: Kind::Markup,
        doc: "asks how far the start is and opens the app when it is awake; belongs at the end",
    },
    Variable { name: "style", kind: Kind::Markup, doc: "the look of the built-in page" },
    Variable { name: "scale", kind: Kind::Markup, doc: "the picture of the built-in page" },
    Variable { name: "bar", kind: Kind::Markup, doc: "the progress bar of the built-in page" },
];

/// The loading page, built in or the operator's own.
#[derive(Clone, Debug)]
pub struct LoadingPage {
    template: Template,
}

/// What one page says.
#[derive(Clone, Debug)]
pub struct PageFacts<'a> {
    /// What is known of the app.
    pub view: &'a View,
    /// The host that was asked for.
    pub host: &'a str,
    /// The target of the request, as sent: path and query.
    pub target: &'a str,
    /// The reader's language.
    pub language: Language,
    /// The present.
    pub now: Moment,
    /// Unguessable and new for each page (a UUID will do): what the browser may run is marked with it.
    pub nonce: &'a str,
}

/// What the page is about to the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Awake,
    Starting,
    Unreachable,
    Failed,
}

static BUILT_IN: LazyLock<Template> =
    LazyLock::new(|| Template::parse(HTML.as_bytes(), VARIABLES).expect("a test renders the built-in page"));

impl Default for LoadingPage {
    fn default() -> LoadingPage {
        LoadingPage { template: BUILT_IN.clone() }
    }
}

impl LoadingPage {
    /// The operator's own page.
    ///
    /// # Errors
    /// What is wrong with the template.
    pub fn from_template(source: &[u8]) -> Result<LoadingPage, BadTemplate> {
        Template::parse(source, VARIABLES).map(|template| LoadingPage { template })
    }

    /// The page. Status 503, with `headers`.
    pub fn render(&self, facts: &PageFacts<'_>) -> String {
        let said = Said::of(facts);
        self.template.render(|name, page| said.write(name, facts, page))
    }
}

/// The header fields that go with a page.
pub fn headers(facts: &PageFacts<'_>) -> Vec<(&'static str, String)> {
    let nonce = facts.nonce;
    vec![
        ("Content-Type", "text/html; charset=utf-8".to_owned()),
        ("Content-Language", facts.language.tag().to_owned()),
        ("Cache-Control", "no-store".to_owned()),
        ("Vary", "Accept".to_owned()),
        ("Retry-After", retry_seconds(facts).to_string()),
        ("X-Content-Type-Options", "nosniff".to_owned()),
        (
            "Content-Security-Policy",
            format!(
                "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src data:; \
                 connect-src 'self'; base-uri 'none'; form-action 'none'"
            ),
        ),
    ]
}

/// The header fields that go with `poll_answer`. Status 200: the page asked how far it is, and is told.
pub fn poll_headers() -> [(&'static str, &'static str); 4] {
    [
        ("Content-Type", POLL_TYPE),
        ("Cache-Control", "no-store"),
        ("Vary", "Accept"),
        ("X-Content-Type-Options", "nosniff"),
    ]
}

/// What a poll of the page is answered: `state` (`awake`: reload now), the words of the page, and its figures.
pub fn poll_answer(facts: &PageFacts<'_>) -> Vec<u8> {
    let said = Said::of(facts);
    let view = facts.view;
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let answer = serde_json::json!({
        "state": said.state.label(),
        "name": said.name,
        "title": said.title,
        "heading": said.heading,
        "text": said.text,
        "status": said.status,
        "expected": said.expected,
        "elapsed_ms": millis(elapsed(facts)),
        "expected_ms": view.expected.map(millis),
        "progress": view.progress.map(|progress| f64::from(progress.get())),
        "attempt": view.attempt,
        "retry_after_ms": retry_in(facts).map(millis),
    });
    answer.to_string().into_bytes()
}

/// Seconds until another look is worth while: for `Retry-After`, of the page and of requests that are not held.
pub fn retry_seconds(facts: &PageFacts<'_>) -> u64 {
    let view = facts.view;
    let wait = match State::of(view) {
        State::Failed => retry_in(facts),
        State::Unreachable => Some(Duration::from_secs(10)),
        State::Awake | State::Starting => view.expected.map(|expected| expected.saturating_sub(elapsed(facts))),
    };
    wait.map_or(5, |wait| wait.as_secs_f64().ceil() as u64).clamp(2, 3600)
}

/// Since the first visit. Before the control plane has heard of that, the visit is now.
fn elapsed(facts: &PageFacts<'_>) -> Duration {
    match facts.view.stage {
        Stage::Sleeping => Duration::ZERO,
        Stage::Awake | Stage::Parking | Stage::Starting | Stage::Failed => facts.now.since(facts.view.since),
    }
}

fn retry_in(facts: &PageFacts<'_>) -> Option<Duration> {
    facts.view.retry_at.map(|retry_at| retry_at.since(facts.now))
}

/// How much of the way is behind: told by the platform, else nine tenths when the expected time is over, and never quite
/// there. The script of the page draws the same curve.
fn way(facts: &PageFacts<'_>) -> Option<f64> {
    let view = facts.view;
    if let Some(progress) = view.progress {
        return Some(f64::from(progress.get()));
    }
    let expected = view.expected.filter(|expected| !expected.is_zero())?;
    let past = elapsed(facts).as_secs_f64() / expected.as_secs_f64();
    Some(if past <= 1.0 { 0.9 * past } else { 1.0 - 0.1 / past })
}

impl State {
    fn of(view: &View) -> State {
        match view.stage {
            Stage::Awake | Stage::Parking => State::Awake,
            Stage::Failed => State::Failed,
            Stage::Sleeping | Stage::Starting if view.unreachable => State::Unreachable,
            Stage::Sleeping | Stage::Starting => State::Starting,
        }
    }

    fn label(self) -> &'static str {
        match self {
            State::Awake => "awake",
            State::Starting => "starting",
            State::Unreachable => "unreachable",
            State::Failed => "failed",
        }
    }
}

/// The words of one page.
struct Said {
    state: State,
    name: String,
    title: String,
    heading: String,
    text: String,
    status: String,
    expected: String,
}

impl Said {
    fn of(facts: &PageFacts<'_>) -> Said {
        let (view, language) = (facts.view, facts.language);
        let state = State::of(view);
        let name = view.name.as_deref().unwrap_or(facts.host).to_owned();
        let (heading, text, status) = match state {
            State::Failed => (
                language.failed(&name),
                language.why_failed(view.failure.as_ref()),
                language.retry(retry_in(facts).unwrap_or_default()),
            ),
            State::Unreachable => {
                (language.waking(&name), language.unreachable().to_owned(), language.now(Now::Waiting))
            }
            State::Awake | State::Starting => {
                (language.waking(&name), language.why_waiting().to_owned(), progress_in_words(facts))
            }
        };
        let title = if state == State::Failed { heading.clone() } else { format!("{heading}…") };
        let expected = view.expected.map(|expected| language.usually(expected)).unwrap_or_default();
        Said { state, name, title, heading, text, status, expected }
    }

    /// Writes the value of one of `VARIABLES`.
    fn write(&self, variable: &'static str, facts: &PageFacts<'_>, page: &mut String) {
        let elapsed = elapsed(facts).as_secs();
        let way = way(facts);
        let written = match variable {
            "lang" => write!(page, "{}", facts.language.tag()),
            "state" => write!(page, "{}", self.state.label()),
            "name" => write!(page, "{}", self.name),
            "host" => write!(page, "{}", facts.host),
            "title" => write!(page, "{}", self.title),
            "heading" => write!(page, "{}", self.heading),
            "text" => write!(page, "{}", self.text),
            "status" => write!(page, "{}", self.status),
            "elapsed" => write!(page, "{}:{:02}", elapsed / 60, elapsed % 60),
            "elapsed_seconds" => write!(page, "{elapsed}"),
            "expected" => write!(page, "{}", self.expected),
            "expected_seconds" => {
                facts.view.expected.map_or(Ok(()), |expected| write!(page, "{:.0}", expected.as_secs_f64().ceil()))
            }
            "progress" => way.map_or(Ok(()), |way| write!(page, "{:.0}", way * 100.0)),
            "retry_seconds" => write!(page, "{}", retry_seconds(facts)),
            "again" => write!(page, "{}", facts.language.again()),
            "nonce" => write!(page, "{}", facts.nonce),
            "refresh" => self.write_refresh(facts.target, page),
            "script" => self.write_script(facts, page),
            "style" => {
                let (tilt, day) = self.tilt_and_day(way);
                let nonce = escaped(facts.nonce);
                write!(page, "<style nonce=\"{nonce}\">\n:root{{--tilt:{tilt:.2}deg;--day:{day:.3}}}\n{CSS}</style>")
            }
            "scale" => write!(page, "{}", SCALE.trim_end()),
            "bar" => {
                let value = way.map(|way| format!(" value=\"{:.1}\"", way * 100.0)).unwrap_or_default();
                let label = escaped(facts.language.bar());
                write!(page, "<progress max=\"100\"{value} aria-label=\"{label}\" data-wake=\"progress\"></progress>")
            }
            unknown => unreachable!("{unknown} is none of VARIABLES, which a test renders one by one"),
        };
        written.expect("a String takes every write");
    }

    /// A failed page stays: each reload would be a visit, and start the app over and over.
    fn write_refresh(&self, target: &str, page: &mut String) -> std::fmt::Result {
        let seconds = match self.state {
            State::Failed => return Ok(()),
            State::Awake | State::Starting => 3,
            State::Unreachable => 10,
        };
        let again = escaped(&same_address(target));
        write!(page, "<noscript><meta http-equiv=\"refresh\" content=\"{seconds}; url={again}\"></noscript>")
    }

    fn write_script(&self, facts: &PageFacts<'_>, page: &mut String) -> std::fmt::Result {
        let view = facts.view;
        let seconds = |duration: Duration| format!("{:.3}", duration.as_secs_f64());
        let attributes = [
            ("nonce", facts.nonce.to_owned()),
            ("data-state", self.state.label().to_owned()),
            ("data-elapsed", seconds(elapsed(facts))),
            ("data-expected", view.expected.map(seconds).unwrap_or_default()),
            ("data-progress", view.progress.map(|progress| progress.get().to_string()).unwrap_or_default()),
            ("data-lost", facts.language.lost().to_owned()),
        ];
        page.push_str("<script");
        for (name, value) in attributes {
            write!(page, " {name}=\"{}\"", escaped(&value))?;
        }
        write!(page, ">\n{SCRIPT}</script>")
    }

    /// How the scale stands: night down at the beginning, day down at the end.
    fn tilt_and_day(&self, way: Option<f64>) -> (f64, f64) {
        let day = if self.state == State::Starting { way.unwrap_or(0.5) } else { 0.0 };
        let tilt = if self.state == State::Failed { 0.0 } else { -13.0 + 26.0 * day };
        (tilt, day)
    }
}

/// The address of the page relative to itself. Without any address a refresh of `/cart#top` would only scroll to the
/// top; the path as it is might begin with `//` and lead to another host.
fn same_address(target: &str) -> String {
    let (path, query) = target.find('?').map_or((target, ""), |at| target.split_at(at));
    let file = path.rsplit(['/', '\\']).next().unwrap_or_default();
    format!("./{file}{query}")
}

fn progress_in_words(facts: &PageFacts<'_>) -> String {
    let (view, language) = (facts.view, facts.language);
    let elapsed = elapsed(facts);
    let now = match (view.attempt, way(facts)) {
        (attempt, _) if attempt > 1 => Now::Again(attempt),
        _ if view.expected.is_some_and(|expected| elapsed > expected * 5 / 4 + Duration::from_secs(2)) => Now::Late,
        (_, Some(way)) if way >= 0.85 => Now::AlmostThere,
        _ => Now::Starting,
    };
    match (&view.message, now) {
        (Some(message), Now::Again(_)) => format!("{} · {message}", language.now(now)),
        (Some(message), _) => message.to_string(),
        (None, _) => language.now(now),
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    escape(text, &mut escaped);
    escaped
}

#[cfg(test)]
mod tests;

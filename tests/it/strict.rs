//! Every line of RFC 9112, and of RFC 9110 where a proxy matters, that a proxy can get wrong: what is sent, what comes
//! back, and what reaches the instance. The cases are texts, read by `case`; this runs them.

mod case;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use weighbridge::http1::Refusal;

use self::case::{Answers, Case, Ending, Expected, Seen};
use crate::harness::answer::{self, Answer, Step};
use crate::harness::instance::{self, Instance, Received};
use crate::harness::message::{Message, Stream};
use crate::harness::router::{self, Router};
use crate::harness::{bus, in_time};

#[tokio::test]
async fn request_lines() {
    run(include_str!("strict/request_line.cases")).await;
}

#[tokio::test]
async fn fields() {
    run(include_str!("strict/fields.cases")).await;
}

#[tokio::test]
async fn hosts() {
    run(include_str!("strict/host.cases")).await;
}

#[tokio::test]
async fn framing() {
    run(include_str!("strict/framing.cases")).await;
}

#[tokio::test]
async fn chunks() {
    run(include_str!("strict/chunks.cases")).await;
}

#[tokio::test]
async fn connections() {
    run(include_str!("strict/connection.cases")).await;
}

#[tokio::test]
async fn responses() {
    run(include_str!("strict/responses.cases")).await;
}

#[tokio::test]
async fn response_bodies() {
    run(include_str!("strict/response_bodies.cases")).await;
}

/// One worker, so that a connection that was spoilt would be used again; small limits, so that they can be reached.
const SETTINGS: &str = r#"
workers = 1
limits = { head_bytes = "8KiB", head_count = 32, body_bytes = "1KiB" }
tracing.w3c = false
"#;

/// What every request gets on its way; not part of a case.
const OURS: &[&str] = &[
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Request-Start",
    "X-Vcap-Request-Id",
    "X-CF-ApplicationID",
    "X-CF-InstanceID",
    "X-CF-InstanceIndex",
];

const PROBE: &str = "GET /probe HTTP/1.1\r\nHost: shop.test\r\n\r\n";

struct Range {
    router: Router,
    shop: Instance,
    answers: Arc<Mutex<Answers>>,
    /// Requests of clients so far that have come to a head.
    requests: usize,
    /// How often each rule must have been counted, by metric and label.
    counted: BTreeMap<String, usize>,
    refused: usize,
}

async fn run(text: &str) {
    let bus = bus::embedded().await;
    let router = router::with(SETTINGS).logging("json").on(&bus).await;
    let answers = Arc::new(Mutex::new(Answers::default()));
    let script = answers.clone();
    let plan = instance::serving("shop.test").answering_early(move |request| performed(&script.lock(), request));
    let shop = plan.on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let mut range = Range { router, shop, answers, requests: 0, counted: BTreeMap::new(), refused: 0 };
    let mut failed = Vec::new();
    let cases = case::parse(text);
    for case in &cases {
        if let Err(why) = range.check(case).await {
            failed.push(format!("{}: {why}", case.name));
        }
    }
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), cases.len(), failed.join("\n"));
    range.check_what_operators_see().await;
}

fn performed(answers: &Answers, request: &Received) -> Answer {
    if request.target() == "/probe" {
        return answer::status(200, "probe");
    }
    let bytes = Answer::new().write(&answers.bytes);
    let mut answer = if answers.early { bytes.then(Step::ReadBody) } else { Answer::new().then(Step::ReadBody) };
    if !answers.early {
        answer = answer.write(&answers.bytes);
    }
    if answers.closes { answer.then(Step::Close) } else { answer }
}

impl Range {
    /// Sends what the case sends and compares what comes out at both sides.
    async fn check(&mut self, case: &Case) -> Result<(), String> {
        *self.answers.lock() = case.answers.clone();
        let (seen_before, answered_before) = (self.shop.begun(), self.shop.answered());
        let mut wire = self.router.wire().await;
        let _refused_early = wire.send(&case.sent).await;
        if case.half_closes {
            wire.finish_sending().await;
        }
        let mut ending = Ending::Kept;
        for expected in &case.expected {
            ending = expected.ending;
            // Of a head that was never finished there is nothing to tell.
            self.requests += usize::from(ending != Ending::Silent || matches!(case.seen, Seen::NothingWhole));
            check_response(&mut wire, expected).await?;
            self.note(expected);
        }
        match &case.seen {
            Seen::Any => {}
            Seen::NothingWhole if self.shop.answered() == answered_before => {}
            Seen::NothingWhole => return Err("the instance saw a whole request".into()),
            Seen::Requests(expected) => {
                let seen = self.shop.requests();
                let seen: Vec<String> = seen[seen_before..].iter().map(|request| canonical(&request.message)).collect();
                let seen = seen.join("\r\n--\r\n");
                if seen != *expected {
                    return Err(format!("the instance saw\n{seen:?}, not\n{expected:?}"));
                }
            }
        }
        if ending == Ending::Kept && !case.half_closes {
            self.check_probe(&mut wire).await.map_err(|why| format!("the connection was not kept: {why}"))?;
        }
        for _ in 0..2 {
            let mut another = self.router.wire().await;
            self.check_probe(&mut another).await.map_err(|why| format!("the next one's answer: {why}"))?;
        }
        Ok(())
    }

    /// Whether a request that has nothing to do with the case gets its own answer.
    async fn check_probe(&mut self, wire: &mut Stream) -> Result<(), String> {
        self.requests += 1;
        wire.send(PROBE).await.map_err(|error| error.to_string())?;
        let answer = in_time("the answer to a probe", wire.response_to("GET")).await.map_err(|e| e.to_string())?;
        let text = answer.text();
        if (answer.status(), text.as_str()) == (200, "probe") {
            Ok(())
        } else {
            Err(format!("{} {text:?}", answer.start))
        }
    }

    fn note(&mut self, expected: &Expected) {
        let Some(label) = &expected.label else { return };
        let metric = match expected.status {
            _ if sentence_of(label).is_none() => return,
            400..500 | 505 => "weighbridge_refused_total",
            _ => "weighbridge_responses_refused_total",
        };
        self.refused += usize::from(metric == "weighbridge_refused_total");
        *self.counted.entry(format!("{metric}{{reason=\"{label}\"}}")).or_default() += 1;
    }

    /// Each refusal has its count, and each request its line in the log.
    async fn check_what_operators_see(&self) {
        for (series, count) in &self.counted {
            self.router.until_metric(series, |value| value == *count as f64).await;
        }
        let lines = self.router.until_logged(self.requests).await;
        assert_eq!(lines.len(), self.requests, "lines in the access log");
        let refused = lines.iter().filter(|line| line.contains("\"ending\":\"refused\"")).count();
        assert!(refused >= self.refused, "{refused} lines of {} refused requests", self.refused);
    }
}

async fn check_response(wire: &mut Stream, expected: &Expected) -> Result<(), String> {
    if expected.ending == Ending::Silent {
        let rest = wire.rest().await;
        return if rest.is_empty() { Ok(()) } else { Err(format!("heard {:?}", String::from_utf8_lossy(&rest))) };
    }
    let method = if expected.is_bodiless { "HEAD" } else { "GET" };
    let read = in_time("a response", wire.response_to(method)).await;
    let response = match (read, expected.ending) {
        (Err(_), Ending::Cut) => return Ok(()),
        (Ok(response), Ending::Cut) => return Err(format!("a whole response: {response:?}")),
        (Err(error), _) => return Err(format!("no response: {error}")),
        (Ok(response), _) => response,
    };
    if response.status() != expected.status {
        return Err(format!("{} {:?}", response.start, response.text()));
    }
    if let Some(label) = expected.label.as_ref().filter(|_| !expected.is_bodiless) {
        check_label(&response, label)?;
    }
    for (name, value) in &expected.fields {
        if response.headers(name) != [value.as_str()] {
            return Err(format!("{name} is {:?}", response.headers(name)));
        }
    }
    if let Some(name) = expected.absent.iter().find(|name| response.header(name).is_some()) {
        return Err(format!("there is a {name}"));
    }
    if let Some(body) = &expected.body
        && *body != response.body
    {
        return Err(format!("the body is {:?}", response.text()));
    }
    if let Some(interim) = expected.interim
        && interim != response.informational.len()
    {
        return Err(format!("{} interim responses", response.informational.len()));
    }
    match expected.ending {
        Ending::Closed => {
            let rest = wire.rest().await;
            let says = response.says_close() || expected.ends_unsaid;
            if rest.is_empty() && says { Ok(()) } else { Err(format!("says close: {says}, then {rest:?}")) }
        }
        _ if response.says_close() => Err("it says close".into()),
        _ => Ok(()),
    }
}

/// The rule that was broken is told in a sentence; other errors by name.
fn check_label(response: &Message, label: &str) -> Result<(), String> {
    let said = response.text();
    let is_meant = match sentence_of(label) {
        Some(sentence) => said.contains(&sentence),
        None => response.header("X-Weighbridge-Error") == Some(label),
    };
    if is_meant { Ok(()) } else { Err(format!("refused by {said:?}")) }
}

fn sentence_of(label: &str) -> Option<String> {
    Refusal::ALL.iter().find(|refusal| refusal.label() == label).map(ToString::to_string)
}

/// A request as an instance saw it, without what every request is given by the router.
fn canonical(request: &Message) -> String {
    let fields = request.fields.iter().filter(|(name, _)| !OURS.contains(&name.as_str()));
    let mut text = fields.fold(request.start.clone(), |text, (name, value)| format!("{text}\r\n{name}: {value}"));
    if !request.body.is_empty() {
        text += "\r\n\r\n";
        text.extend(request.body.iter().map(|byte| *byte as char));
    }
    request.trailers.iter().fold(text, |text, (name, value)| format!("{text}\r\n~{name}: {value}"))
}

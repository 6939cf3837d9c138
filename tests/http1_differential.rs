//! Our HTTP/1.1 codec against others, on valid messages and what mutation makes of them: requests against hyper's server,
//! heads of responses against `httparse`. What both accept means the same to both, and what they refuse we refuse, with the
//! exceptions listed here (and explained in `http1`).
//!
//! `DIFFERENTIAL_CASES` sets how many inputs (default 60,000), `DIFFERENTIAL_SEED` where chance begins.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weighbridge::domain::dice::Dice;
use weighbridge::http1::{Body, Framing, Head, Limits, Progress, Refusal, Version, framing, parse};

const LIMITS: Limits = Limits { head_bytes: 8192, head_count: 100, target_bytes: 8192 };

/// Rules for heads that hyper does not have, or applies more kindly.
const STRICTER_HEADS: &[Refusal] = &[
    Refusal::BareLineFeed,
    Refusal::EmptyLines,
    Refusal::Target,
    Refusal::Fragment,
    Refusal::MissingHost,
    Refusal::RepeatedHost,
    Refusal::MalformedHost,
    Refusal::HostMismatch,
    Refusal::LengthAndEncoding,
    Refusal::RepeatedLength,
    Refusal::LengthTooLarge,
    Refusal::LengthForbidden,
    Refusal::Encoding,
    Refusal::EncodingForbidden,
    Refusal::Expectation,
];

/// The same for bodies.
const STRICTER_BODIES: &[Refusal] = &[
    Refusal::BareLineFeed,
    Refusal::ChunkSize,
    Refusal::ChunkTooLarge,
    Refusal::ChunkExtension,
    Refusal::ForbiddenTrailer,
];

/// Bytes of a target that hyper refuses as no part of a URI, while we pass them through.
fn is_kinder_than_hyper(request: &Seen) -> bool {
    request.target.contains(['<', '>', '`', '"'])
}

type Fields = Vec<(String, Vec<u8>)>;

/// Data and trailers of a body.
type Content = (Vec<u8>, Fields);

/// Why there is no head or no body to compare.
#[derive(Debug, PartialEq)]
enum Broken {
    /// The input ends before it does.
    Truncated,
    /// We refuse it, and why.
    Refused(Refusal),
    /// hyper does not want it, whatever the reason.
    Unwanted,
}

impl From<Refusal> for Broken {
    fn from(refusal: Refusal) -> Broken {
        Broken::Refused(refusal)
    }
}

/// A request as one of the two saw it.
#[derive(Debug)]
struct Seen {
    method: String,
    target: String,
    version: Version,
    /// Names in lower case, sorted by name, values in order.
    fields: Fields,
    body: Result<Content, Broken>,
}

/// How many inputs, and where chance begins.
fn cases_and_seed() -> (u64, u64) {
    let number = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    (number("DIFFERENTIAL_CASES", 60_000), number("DIFFERENTIAL_SEED", 1))
}

#[test]
fn we_agree_with_hyper() {
    let (cases, seed) = cases_and_seed();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O or timers");
    let mut dice = Dice::seeded(seed);
    let (mut both, mut neither) = (0, 0);
    for case in 0..cases {
        let mut input = valid_request(&mut dice);
        for _ in 0..dice.below(4) {
            spoil(&mut input, &mut dice);
        }
        let (ours, theirs) = (seen_by_us(&input), runtime.block_on(seen_by_hyper(&input)));
        let shown = input.escape_ascii();
        let replay =
            || format!("case {case} of DIFFERENTIAL_SEED={seed}:\nb\"{shown}\"\nours {ours:?}\ntheirs {theirs:?}");
        match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => {
                both += 1;
                check_same(ours, theirs, &replay);
            }
            (Ok(ours), Err(_)) => assert!(is_kinder_than_hyper(ours), "hyper refuses what we accept, {}", replay()),
            (Err(_), Err(_)) => neither += 1,
            (Err(ours), Ok(_)) => check_stricter(ours, STRICTER_HEADS, &replay),
        }
    }
    assert!(both > cases / 5 && neither > cases / 10, "{both} accepted and {neither} refused of {cases} by both");
}

#[test]
fn we_read_heads_of_responses_as_httparse_does() {
    let (cases, seed) = cases_and_seed();
    let mut dice = Dice::seeded(seed);
    let (mut both, mut neither) = (0, 0);
    for case in 0..cases {
        let request = valid_request(&mut dice);
        let fields = request.iter().position(|byte| *byte == b'\n').expect("a request has a line") + 1;
        let line = pick(&mut dice, &["HTTP/1.1 200 OK\r\n", "HTTP/1.0 404 Not  found \r\n", "HTTP/1.1 204\r\n"]);
        let mut input = [line.as_bytes(), &request[fields..]].concat();
        for _ in 0..dice.below(3) {
            spoil(&mut input, &mut dice);
        }
        let mut head = Head::new();
        let ours = parse::response(&input, &LIMITS, &mut head);
        let mut slots = [httparse::EMPTY_HEADER; LIMITS.head_count];
        let mut parsed = httparse::Response::new(&mut slots);
        let theirs = parsed.parse(&input);
        let shown = input.escape_ascii();
        let replay =
            || format!("case {case} of DIFFERENTIAL_SEED={seed}:\nb\"{shown}\"\nours {ours:?}\ntheirs {theirs:?}");
        match (ours, theirs) {
            (Ok(Progress::Complete(length)), Ok(httparse::Status::Complete(their_length))) => {
                both += 1;
                assert_eq!((length, Some(head.status())), (their_length, parsed.code), "{}", replay());
                let ours = head.fields().map(|field| (field.name, field.value));
                let theirs = parsed.headers.iter().map(|field| (field.name.as_bytes(), field.value));
                assert!(ours.eq(theirs), "{}", replay());
            }
            // Codes begin at 100, and the first line is the first.
            (Err(Refusal::BareLineFeed | Refusal::Status), Ok(_)) => {}
            (Err(Refusal::Version), Ok(_)) if !input.starts_with(b"H") => {}
            // We wait for the end before we judge; httparse sees the first bytes that are wrong.
            (Ok(Progress::Partial), _) => assert!(!ends(&input), "{}", replay()),
            (Err(_), Err(_)) => neither += 1,
            _ => panic!("{}", replay()),
        }
    }
    assert!(both > cases / 5 && neither > cases / 10, "{both} accepted and {neither} refused of {cases} by both");
}

/// Whether a line is empty.
fn ends(input: &[u8]) -> bool {
    input.windows(2).any(|two| two == b"\n\n") || input.windows(3).any(|three| three == b"\n\r\n")
}

fn check_same(ours: &Seen, theirs: &Seen, replay: &dyn Fn() -> String) {
    assert_eq!(
        (&ours.method, ours.version, &ours.fields),
        (&theirs.method, theirs.version, &theirs.fields),
        "{}",
        replay()
    );
    assert!(is_same_target(&ours.target, &theirs.target), "{}", replay());
    match (&ours.body, &theirs.body) {
        (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs, "{}", replay()),
        (Ok(_), Err(_)) => panic!("hyper refuses a body that we accept, {}", replay()),
        (Err(_), Err(_)) => {}
        (Err(ours), Ok(_)) => check_stricter(ours, STRICTER_BODIES, replay),
    }
}

/// hyper's `Uri` prints an absolute target with its scheme in lower case and an absent path filled in.
fn is_same_target(ours: &str, theirs: &str) -> bool {
    if ours.starts_with('/') || ours == "*" {
        return ours == theirs;
    }
    let (scheme, rest) = ours.split_once("://").expect("the parser let it through as absolute");
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let slash = if path.starts_with('/') { "" } else { "/" };
    theirs == format!("{}://{authority}{slash}{path}", scheme.to_ascii_lowercase())
}

fn check_stricter(ours: &Broken, rules: &[Refusal], replay: &dyn Fn() -> String) {
    let is_meant = matches!(ours, Broken::Refused(refusal) if rules.contains(refusal));
    assert!(is_meant, "we do not take what hyper accepts, {}", replay());
}

fn seen_by_us(input: &[u8]) -> Result<Seen, Broken> {
    let mut head = Head::new();
    let Progress::Complete(length) = parse::request(input, &LIMITS, &mut head)? else {
        return Err(Broken::Truncated);
    };
    let framing = framing::of_request(&head)?;
    Ok(Seen {
        method: head.method().to_owned(),
        target: head.target().to_owned(),
        version: head.version(),
        fields: sorted(&head),
        body: body_seen_by_us(framing, &input[length..]),
    })
}

fn body_seen_by_us(framing: Framing, input: &[u8]) -> Result<Content, Broken> {
    let mut body = Body::new(framing);
    let (mut at, mut data) = (0, Vec::new());
    while at < input.len() && !body.is_done() {
        let piece = body.decode(&input[at..])?;
        data.extend_from_slice(&input[at..][piece.data]);
        at += piece.consumed;
    }
    let trailers = body.trailers().map(sorted).unwrap_or_default();
    body.close().map_err(|_| Broken::Truncated)?;
    Ok((data, trailers))
}

fn sorted(head: &Head) -> Fields {
    let mut fields: Vec<_> = head
        .fields()
        .map(|field| (String::from_utf8_lossy(field.name).to_ascii_lowercase(), field.value.to_vec()))
        .collect();
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

/// The first request that hyper's server makes of the input.
async fn seen_by_hyper(input: &[u8]) -> Result<Seen, Broken> {
    let seen = Rc::new(RefCell::new(None));
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let service = service_fn(|request| record(request, seen.clone()));
    let serving = http1::Builder::new()
        .max_headers(LIMITS.head_count)
        .half_close(true)
        .serve_connection(TokioIo::new(server), service);
    let asking = async {
        let _ = client.write_all(input).await;
        let _ = client.shutdown().await;
        let _ = client.read_to_end(&mut Vec::new()).await;
    };
    let _ = tokio::join!(serving, asking);
    seen.take().ok_or(Broken::Unwanted)
}

async fn record(
    request: hyper::Request<Incoming>,
    seen: Rc<RefCell<Option<Seen>>>,
) -> Result<hyper::Response<Empty<Bytes>>, Infallible> {
    if seen.borrow().is_none() {
        let (head, body) = request.into_parts();
        let first = Seen {
            method: head.method.as_str().to_owned(),
            target: head.uri.to_string(),
            version: if head.version == hyper::Version::HTTP_11 { Version::Http11 } else { Version::Http10 },
            fields: sorted_map(&head.headers),
            body: Err(Broken::Unwanted),
        };
        seen.replace(Some(first));
        if let Ok(collected) = body.collect().await {
            let trailers = collected.trailers().map(sorted_map).unwrap_or_default();
            let content = (collected.to_bytes().to_vec(), trailers);
            seen.borrow_mut().as_mut().expect("it was put there above").body = Ok(content);
        }
    }
    Ok(hyper::Response::new(Empty::new()))
}

fn sorted_map(fields: &hyper::HeaderMap) -> Fields {
    let mut fields: Vec<_> =
        fields.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

// Inputs.

fn pick<'a>(dice: &mut Dice, choices: &[&'a str]) -> &'a str {
    choices[dice.below(choices.len())]
}

fn valid_request(dice: &mut Dice) -> Vec<u8> {
    let method = pick(dice, &["GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "REPORT", "x!"]);
    let path =
        pick(dice, &["/", "/a/b?c=d", "/%2F%00", "/?", "//x", "/a;b=c", "/\"{}", "http://a.test/x", "http://a.test?y"]);
    let version = if dice.below(8) == 0 { "1.0" } else { "1.1" };
    let mut text = format!("{method} {path} HTTP/{version}\r\nHost: a.test\r\n");
    for _ in 0..dice.below(5) {
        let name = pick(
            dice,
            &["Accept", "x-y", "Cookie", "COOKIE", "Connection", "Expect", "X_1", "If-None-Match", "Te", "Date"],
        );
        let value = pick(
            dice,
            &["", "a", "close", "keep-alive", "a, b;q=0.1", "\"x\" y", "100-continue", "\u{e9}", "a\tb", "trailers"],
        );
        text += &format!("{name}:{}{value}{}\r\n", pick(dice, &["", " ", "\t ", "  "]), pick(dice, &["", "", " "]));
    }
    match dice.below(4) {
        0 => text += "Content-Length: 5\r\n\r\nhello",
        1 if version == "1.1" => {
            text += "Transfer-Encoding: chunked\r\n\r\n";
            for _ in 0..dice.below(3) {
                text += pick(dice, &["5\r\nhello\r\n", "A;x=y\r\n0123456789\r\n", "001\r\n\n\r\n", "2\r\n\r\n\r\n"]);
            }
            text += pick(dice, &["0\r\n\r\n", "0\r\nX-Sum: 1\r\n\r\n", "00;z\r\nX-Sum:1\r\nx-sum: 2\r\n\r\n", ""]);
        }
        _ => text += "\r\n",
    }
    if dice.below(4) == 0 {
        text += pick(dice, &["GET /next HTTP/1.1\r\nHost: b.test\r\n\r\n", "\r\n", "rest", "\0"]);
    }
    text.into_bytes()
}

/// One of the things that go wrong on purpose: a nasty byte, a nasty word, something lost, doubled or cut.
fn spoil(input: &mut Vec<u8>, dice: &mut Dice) {
    const BYTES: &[u8] = b"\r\n\0\t ,;:=\"/?#%@[]()<>\\^`{|}*_-+\x0b\x1b\x7f\x80\xff09aZ";
    const WORDS: &[&str] = &[
        "\r\n",
        "\n",
        "\r",
        "\r\n ",
        " :",
        ": ",
        "Host: a.test\r\n",
        "Host: b\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 4\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 18446744073709551615\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding:\tchunked \r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Upgrade: x\r\n",
        "Connection: upgrade\r\n",
        "CONNECT ",
        "*",
        "http://",
        "u@",
        ":80",
        " HTTP/1.0",
        "HTTP/1.2",
        "0\r\n\r\n",
        "0",
        "fffffffffffffffff",
        "  ",
        "\u{e9}",
        ";x=\u{0}",
        "X: y\r\n",
        "X:\r\n y\r\n",
    ];
    let at = dice.below(input.len() + 1);
    // Half of the time at the start of a line, where it matters most.
    let at = if dice.below(2) == 0 {
        input[..at].iter().rposition(|b| *b == b'\n').map_or(0, |line_feed| line_feed + 1)
    } else {
        at
    };
    let end = at + dice.below((input.len() - at).min(24) + 1);
    match dice.below(8) {
        0 | 1 => input.insert(at, BYTES[dice.below(BYTES.len())]),
        2 if at < input.len() => input[at] = BYTES[dice.below(BYTES.len())],
        3 => drop(input.drain(at..end)),
        4 => {
            let copy = input[at..end].to_vec();
            input.splice(at..at, copy);
        }
        5 if dice.below(4) == 0 => input.truncate(at),
        _ => {
            input.splice(at..at, pick(dice, WORDS).bytes());
        }
    }
}

//! Cases as text:
//!
//! ```text
//! --- 9112 6.3: both framings
//! > POST / HTTP/1.1              the client sends this line and CR LF (or, after >>, the bytes alone)
//! >end                           and ends its side
//! = HTTP/1.1 200 OK              the instance answers that (== likewise); without it: 200 with the body "ok"
//! =early                         before it has read the body
//! =end                           and closes then
//! < 400 length_and_encoding close
//!                                the client gets that status, for that reason, and the connection is then closed (close),
//!                                closed without having said so (ends), good for another request (keep) or broken in the
//!                                middle (cut); `head`: no body is to follow; `silence`: the connection just ends
//! <+ Name: value                 with that field, once
//! <- Name                        without such a field
//! <| text                        with that body
//! <1 3                           after so many interim responses
//! | GET / HTTP/1.1               the instance has seen exactly this head (without what the router adds), behind an empty
//!                                line this body, and trailers with ~; `--` stands between requests
//! | nothing                      it has seen nothing: the default where the client is refused
//! | cut                          it has seen no whole request
//! | any                          this is not about requests: the default where there is an answer of its own
//! ```
//!
//! Escapes are `\r`, `\n`, `\t`, `\s` (space), `\0`, `\\`, `\xHH`, and `\{12*text}` for repetition.

/// One case.
#[derive(Debug, Default)]
pub struct Case {
    /// Section and sentence.
    pub name: String,
    /// What the client sends.
    pub sent: Vec<u8>,
    /// Whether it ends its side then.
    pub half_closes: bool,
    /// What the instance does.
    pub answers: Answers,
    /// What the client gets.
    pub expected: Vec<Expected>,
    /// What the instance gets.
    pub seen: Seen,
}

/// What the instance does.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The answer to every request.
    pub bytes: Vec<u8>,
    /// Given before the body is read.
    pub early: bool,
    /// Closes then.
    pub closes: bool,
}

impl Default for Answers {
    fn default() -> Answers {
        Answers { bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(), early: false, closes: false }
    }
}

/// What the client gets.
#[derive(Debug)]
pub struct Expected {
    /// Status.
    pub status: u16,
    /// Why it is refused: the rule, or the error.
    pub label: Option<String>,
    /// What becomes of the connection.
    pub ending: Ending,
    /// Whether it may end without the response having said so.
    pub ends_unsaid: bool,
    /// Whether a body cannot follow.
    pub is_bodiless: bool,
    /// Fields that must be there once.
    pub fields: Vec<(String, String)>,
    /// Names that must not be there.
    pub absent: Vec<String>,
    /// The body.
    pub body: Option<Vec<u8>>,
    /// Interim responses before it.
    pub interim: Option<usize>,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is good for another request.
    Kept,
    /// It is closed.
    Closed,
    /// It is closed in the middle of the response.
    Cut,
    /// It is closed instead of a response.
    Silent,
}

/// What the instance gets.
#[derive(Debug, Default)]
pub enum Seen {
    /// This is not about requests.
    #[default]
    Any,
    /// No whole request.
    NothingWhole,
    /// These.
    Requests(String),
}

/// Reads a file of cases.
pub fn parse(text: &str) -> Vec<Case> {
    let chunks = text.split("\n--- ").skip(1);
    chunks.map(|chunk| read(chunk).unwrap_or_else(|line| panic!("a case has the line {line:?}\nin {chunk}"))).collect()
}

fn read(chunk: &str) -> Result<Case, String> {
    let (name, lines) = chunk.split_once('\n').ok_or(chunk)?;
    let mut case = Case { name: name.to_owned(), ..Case::default() };
    let mut answer: Option<Vec<u8>> = None;
    let mut seen: Vec<String> = Vec::new();
    for line in lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        let raw = || unescaped(rest);
        match mark {
            ">" => case.sent.extend([raw(), b"\r\n".to_vec()].concat()),
            ">>" => case.sent.extend(raw()),
            ">end" => case.half_closes = true,
            "=" => answer.get_or_insert_default().extend([raw(), b"\r\n".to_vec()].concat()),
            "==" => answer.get_or_insert_default().extend(raw()),
            "=early" => case.answers.early = true,
            "=end" => case.answers.closes = true,
            "<" => case.expected.push(expected(rest).ok_or(line)?),
            "|" => seen.push(raw().into_iter().map(char::from).collect()),
            _ => detail(case.expected.last_mut().ok_or(line)?, mark, rest).ok_or(line)?,
        }
    }
    let has_own_answer = answer.is_some();
    case.answers.bytes = answer.unwrap_or(case.answers.bytes);
    let is_refused = case.expected.first().is_some_and(|first| first.label.is_some());
    case.seen = match seen.first().map(String::as_str) {
        None if has_own_answer => Seen::Any,
        None if is_refused => Seen::Requests(String::new()),
        None => return Err("no |".into()),
        Some("nothing") => Seen::Requests(String::new()),
        Some("cut") => Seen::NothingWhole,
        Some("any") => Seen::Any,
        Some(_) => Seen::Requests(seen.join("\r\n")),
    };
    Ok(case)
}

/// `status [label] keep|close|ends|cut [head]`, or `silence`.
fn expected(text: &str) -> Option<Expected> {
    let mut words: Vec<&str> = text.split(' ').collect();
    let is_bodiless = words.last() == Some(&"head");
    if is_bodiless {
        words.pop();
    }
    let ending = match words.pop()? {
        "keep" => Ending::Kept,
        "close" | "ends" => Ending::Closed,
        "cut" => Ending::Cut,
        "silence" => Ending::Silent,
        _ => return None,
    };
    let status = if ending == Ending::Silent { 0 } else { words.first()?.parse().ok()? };
    Some(Expected {
        status,
        label: words.get(1).map(|label| (*label).to_owned()),
        ending,
        ends_unsaid: text.contains(" ends"),
        is_bodiless,
        fields: Vec::new(),
        absent: Vec::new(),
        body: None,
        interim: None,
    })
}

fn detail(expected: &mut Expected, mark: &str, rest: &str) -> Option<()> {
    match mark {
        "<+" => {
            let (name, value) = rest.split_once(": ")?;
            expected.fields.push((name.to_owned(), value.to_owned()));
        }
        "<-" => expected.absent.push(rest.to_owned()),
        "<|" => expected.body = Some(unescaped(rest)),
        "<1" => expected.interim = Some(rest.parse().ok()?),
        _ => return None,
    }
    Some(())
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let kind = escape.chars().next().unwrap_or_else(|| panic!("nothing is escaped at the end of {text:?}"));
        rest = &escape[1..];
        match kind {
            'r' => bytes.push(b'\r'),
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            's' => bytes.push(b' '),
            '0' => bytes.push(0),
            '\\' => bytes.push(b'\\'),
            'x' => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).unwrap_or_else(|_| panic!("no byte: {text:?}")));
                rest = &rest[2..];
            }
            '{' => {
                let (repetition, after) = rest.split_once('}').expect("a repetition is closed");
                let (count, repeated) = repetition.split_once('*').expect("a repetition has a count");
                bytes.extend(unescaped(repeated).repeat(count.parse().expect("a count is a number")));
                rest = after;
            }
            other => panic!("nobody knows \\{other} in {text:?}"),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

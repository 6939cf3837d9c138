//! Reads one section: takes each key from what was written or from the schema's default, proves it, and notes what is
//! wrong. A wrong value is replaced by its default, so that one mistake does not hide the next.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::compat::Compat;
use super::effective::Effective;
use super::problem::{Origin, Problems};
use super::schema::{self, Fallback, Key, Kind, Section};
use super::tree::{self, Node, Table, Value};
use super::{NEVER, Secret, Surroundings, units};

/// What all readers of one configuration share.
pub(super) struct Context<'a> {
    pub(super) around: &'a Surroundings<'a>,
    pub(super) problems: Problems,
    pub(super) effective: Effective,
    /// Whose defaults hold.
    pub(super) compat: Compat,
}

/// One section as written (or not), with its schema.
pub(super) struct Reader<'r, 'a> {
    pub(super) context: &'r mut Context<'a>,
    section: &'static Section,
    table: Option<&'r Table>,
    /// Where the section begins.
    origin: Origin,
    /// Path as displayed: `route[0].timeouts`.
    at: String,
}

impl<'r, 'a> Reader<'r, 'a> {
    /// The top of a file.
    pub(super) fn top(context: &'r mut Context<'a>, table: &'r Table) -> Reader<'r, 'a> {
        let section = schema::section("").expect("the schema has a top");
        Reader { context, section, table: Some(table), origin: Origin::Default, at: String::new() }
    }

    /// The `[section]` of that name inside this one.
    pub(super) fn section(&mut self, name: &str) -> Reader<'_, 'a> {
        let written = self.table.and_then(|table| table.get(name));
        let table = written.and_then(|node| if let Value::Table(inner) = &node.value { Some(inner) } else { None });
        let origin = written.map_or(Origin::Default, |node| node.origin.clone());
        let section = self.inner(name);
        Reader { context: self.context, section, table, origin, at: schema::join(&self.at, name) }
    }

    /// Every `[[section]]` of that name inside this one.
    pub(super) fn each<T>(&mut self, name: &str, mut read: impl FnMut(Reader<'_, 'a>) -> T) -> Vec<T> {
        let Some(Value::List(items)) = self.table.and_then(|table| table.get(name)).map(|node| &node.value) else {
            return Vec::new();
        };
        let section = self.inner(name);
        let mut found = Vec::new();
        for (n, item) in items.iter().enumerate() {
            // Anything but a table has been noted while the names were checked.
            let Value::Table(table) = &item.value else { continue };
            let at = format!("{}[{n}]", schema::join(&self.at, name));
            let origin = item.origin.clone();
            found.push(read(Reader { context: self.context, section, table: Some(table), origin, at }));
        }
        found
    }

    fn inner(&self, name: &str) -> &'static Section {
        schema::section(&schema::join(self.section.path, name)).expect("the schema has every section that is read")
    }

    /// Whether the section is written at all.
    pub(super) fn is_written(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the key is written here.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(name))
    }

    /// Where the key is written, else where the section begins.
    pub(super) fn origin(&self, name: &str) -> Origin {
        self.table.and_then(|table| table.get(name)).map_or(&self.origin, |node| &node.origin).clone()
    }

    /// Notes a problem with a key. `name` may be empty: the section as a whole.
    pub(super) fn complain(&mut self, name: &str, what: impl Into<String>) {
        let origin = self.origin(name);
        self.context.problems.add(&origin, self.shown(name), what);
    }

    fn shown(&self, name: &str) -> String {
        if name.is_empty() { self.at.clone() } else { schema::join(&self.at, name) }
    }

    fn key(&self, name: &str) -> &'static Key {
        self.section.key(name).expect("the schema has every key that is read")
    }

    /// The value of a key as `parse` understands it; `None` if it is not written and has no default, or is wrong and
    /// has no default.
    pub(super) fn find<T>(&mut self, name: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        let key = self.key(name);
        let default = match key.fallback {
            Fallback::Is(toml) => {
                let path = schema::join(self.section.path, name);
                tree::parse_value(self.context.compat.default_of(&path).unwrap_or(toml), &Origin::Default)
            }
            Fallback::Unset(_) => None,
        };
        let written = self.table.and_then(|table| table.get(name));
        if let Some(value) = written.map(|node| &node.value).or(default.as_ref()) {
            self.note(key, value);
        }
        match written.map(|node| parse(&node.value)) {
            Some(Ok(value)) => return Some(value),
            Some(Err(what)) => self.complain(name, what),
            None => {}
        }
        default.map(|value| parse(&value).expect("the schema's defaults are valid"))
    }

    fn note(&mut self, key: &'static Key, value: &Value) {
        let compared = value.to_string();
        let empty = matches!(value, Value::Text(text) if text.is_empty());
        let shown = match key.kind {
            Kind::Secret if !empty => "\"***\"".to_string(),
            Kind::List("NATS URLs") => without_bare_logins(value).to_string(),
            _ => without_logins(&compared),
        };
        self.context.effective.note(&self.at, key, shown, compared);
    }

    fn must<T>(&mut self, name: &str, parse: impl Fn(&Value) -> Result<T, String>) -> T {
        self.find(name, parse).expect("the schema has a default for this key")
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.must(name, flag)
    }

    /// `None` if not set.
    pub(super) fn find_flag(&mut self, name: &str) -> Option<bool> {
        self.find(name, flag)
    }

    pub(super) fn integer(&mut self, name: &str) -> u64 {
        let kind = self.key(name).kind;
        self.must(name, |value| integer(kind, value))
    }

    pub(super) fn find_integer(&mut self, name: &str) -> Option<u64> {
        let kind = self.key(name).kind;
        self.find(name, |value| integer(kind, value))
    }

    /// A number within the schema's range; an integer will do.
    pub(super) fn number(&mut self, name: &str) -> f64 {
        let Kind::Number { least, most } = self.key(name).kind else { panic!("{name} is not a number in the schema") };
        self.must(name, |value| {
            let number = match value {
                Value::Integer(number) => *number as f64,
                Value::Number(number) => *number,
                other => return Err(format!("must be a number, not {}", quoted(other))),
            };
            let fits = (least..=most).contains(&number);
            if fits { Ok(number) } else { Err(format!("must be from {least} to {most}, not {}", quoted(value))) }
        })
    }

    /// A duration; zero is zero.
    pub(super) fn duration(&mut self, name: &str) -> Duration {
        let kind = self.key(name).kind;
        self.must(name, |value| duration(kind, value))
    }

    /// A time limit; zero is `NEVER`.
    pub(super) fn limit(&mut self, name: &str) -> Duration {
        never_if_zero(self.duration(name))
    }

    /// A time limit that need not be set; zero is `NEVER`.
    pub(super) fn find_limit(&mut self, name: &str) -> Option<Duration> {
        let kind = self.key(name).kind;
        self.find(name, |value| duration(kind, value)).map(never_if_zero)
    }

    /// Bytes.
    pub(super) fn size(&mut self, name: &str) -> u64 {
        let kind = self.key(name).kind;
        self.must(name, |value| size(kind, value))
    }

    /// Bytes, if set.
    pub(super) fn find_size(&mut self, name: &str) -> Option<u64> {
        let kind = self.key(name).kind;
        self.find(name, |value| size(kind, value))
    }

    /// A text, empty if neither written nor given a default.
    pub(super) fn text(&mut self, name: &str) -> String {
        self.find(name, text).unwrap_or_default()
    }

    /// A text that means something: `parse` gives the end of a sentence about why it does not.
    pub(super) fn parsed<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.find(name, |value| {
            text(value).and_then(|text| parse(&text).map_err(|why| format!("{} {why}", quoted(value))))
        })
    }

    /// A path; `None` if empty.
    pub(super) fn path(&mut self, name: &str) -> Option<PathBuf> {
        let text = self.text(name);
        (!text.is_empty()).then(|| text.into())
    }

    /// A socket address.
    pub(super) fn address(&mut self, name: &str) -> SocketAddr {
        self.parsed(name, address).expect("the schema has a default for this key")
    }

    /// One of several names.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, of: &[(&str, T)]) -> T {
        self.find_choice(name, of).expect("the schema has a default for this key")
    }

    /// One of several names, if set.
    pub(super) fn find_choice<T: Copy>(&mut self, name: &str, of: &[(&str, T)]) -> Option<T> {
        let Kind::Choice(names) = self.key(name).kind else { panic!("{name} is not a choice in the schema") };
        debug_assert!(names.iter().eq(of.iter().map(|(name, _)| name)), "schema and reader agree on {name}");
        self.find(name, |value| {
            let text = text(value)?;
            if let Some((_, meant)) = of.iter().find(|(name, _)| *name == text) {
                return Ok(*meant);
            }
            Err(format!("must be one of {}, not {}", names.join(", "), quoted(value)))
        })
    }

    /// A list of texts, each as `parse` understands it; every item that is wrong is a problem of its own. A single
    /// text stands for a list of one.
    pub(super) fn list<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let key = self.key(name);
        let Kind::List(what) = key.kind else { panic!("{name} is not a list in the schema") };
        let items = self.must(name, |value| match value {
            Value::List(items) => Ok(items.clone()),
            Value::Text(_) => Ok(vec![Node { origin: Origin::Default, value: value.clone() }]),
            other => Err(format!("must be a list of {what}, not {}", quoted(other))),
        });
        let mut found = Vec::new();
        for (n, item) in items.iter().enumerate() {
            match text(&item.value).and_then(|t| parse(&t).map_err(|why| format!("{} {why}", quoted(&item.value)))) {
                Ok(item) => found.push(item),
                Err(why) => {
                    let at = format!("{}[{n}]", self.shown(name));
                    let origin = if item.origin == Origin::Default { self.origin(name) } else { item.origin.clone() };
                    self.context.problems.add(&origin, at, why);
                }
            }
        }
        found
    }

    /// A table of texts; `check` gives the end of a sentence about what is wrong with a pair.
    pub(super) fn pairs(
        &mut self,
        name: &str,
        check: impl Fn(&str, &str) -> Result<(), String>,
    ) -> Vec<(String, String)> {
        let table = self.must(name, |value| match value {
            Value::Table(table) => Ok(table.clone()),
            other => Err(format!("must be a table, such as {{ \"x-name\" = \"value\" }}, not {}", quoted(other))),
        });
        let mut found = Vec::new();
        for (left, node) in table {
            match text(&node.value).and_then(|right| check(&left, &right).map(|()| right)) {
                Ok(right) => found.push((left, right)),
                Err(why) => self.context.problems.add(&node.origin, format!("{}.{left}", self.shown(name)), why),
            }
        }
        found
    }

    /// A secret, written as such or in a file of its own (a newline at its end is cut); not both.
    pub(super) fn secret(&mut self, name: &str, file_key: &str) -> Option<Secret> {
        let written =
            self.find(name, |value| text(value).map_err(|_| "must be a text".to_string())).unwrap_or_default();
        let file = self.path(file_key);
        match (written.is_empty(), file) {
            (true, None) => None,
            (false, None) => Some(Secret::new(written)),
            (false, Some(_)) => {
                self.complain(file_key, format!("{name} is given as well; keep one of the two"));
                Some(Secret::new(written))
            }
            (true, Some(path)) => match (self.context.around.read_file)(&path) {
                Ok(content) => {
                    let content = content.strip_suffix('\n').unwrap_or(&content);
                    let content = content.strip_suffix('\r').unwrap_or(content);
                    if content.is_empty() {
                        self.complain(file_key, format!("{} is empty", path.display()));
                    }
                    self.context.effective.amend_last(content);
                    Some(Secret::new(content.into()))
                }
                Err(error) => {
                    self.complain(file_key, format!("cannot read {}: {error}", path.display()));
                    Some(Secret::new(String::new())) // given, so that nobody complains of a user without password
                }
            },
        }
    }
}

fn flag(value: &Value) -> Result<bool, String> {
    match value {
        Value::Flag(flag) => Ok(*flag),
        other => Err(format!("must be true or false, not {}", quoted(other))),
    }
}

fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        other => Err(format!("must be a text in quotes, not {}", quoted(other))),
    }
}

/// Reads a socket address.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "is not an address; write an IP address and a port, such as \"0.0.0.0:8080\" or \"[::1]:8080\"".to_string()
    })
}

fn integer(kind: Kind, value: &Value) -> Result<u64, String> {
    let Kind::Integer { least, most } = kind else { panic!("{kind:?} is not an integer") };
    match value {
        Value::Integer(number) => u64::try_from(*number)
            .ok()
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| format!("must be from {least} to {most}, not {number}")),
        other => Err(format!("must be a whole number, not {}", quoted(other))),
    }
}

fn duration(kind: Kind, value: &Value) -> Result<Duration, String> {
    let Kind::Duration { zero, least, most } = kind else { panic!("{kind:?} is not a duration") };
    let found = match value {
        Value::Text(text) => units::duration(text).map_err(|why| format!("{} {why}", quoted(value)))?,
        Value::Integer(0) => Duration::ZERO,
        Value::Integer(number) => return Err(format!("{number} has no unit; write \"{number}s\" or \"{number}ms\"")),
        other => return Err(format!("must be a duration such as \"30s\", not {}", quoted(other))),
    };
    match found.is_zero() && !zero.is_empty() || (least..=most).contains(&found) {
        true => Ok(found),
        false => {
            Err(format!("must be from {} to {}, not {}", units::spoken(least), units::spoken(most), quoted(value)))
        }
    }
}

fn size(kind: Kind, value: &Value) -> Result<u64, String> {
    let Kind::Size { zero, least, most } = kind else { panic!("{kind:?} is not a size") };
    let found = match value {
        Value::Text(text) => units::size(text).map_err(|why| format!("{} {why}", quoted(value)))?,
        Value::Integer(number) => {
            u64::try_from(*number).map_err(|_| format!("must not be negative, as {number} is"))?
        }
        other => return Err(format!("must be a size such as \"64KiB\", not {}", quoted(other))),
    };
    match found == 0 && !zero.is_empty() || (least..=most).contains(&found) {
        true => Ok(found),
        false => Err(format!("must be from {least} to {most} bytes, not {}", quoted(value))),
    }
}

fn never_if_zero(limit: Duration) -> Duration {
    if limit.is_zero() { NEVER } else { limit }
}

/// A foreign value as part of a sentence: as TOML, cut if long, without logins.
pub(super) fn quoted(value: &Value) -> String {
    const LONGEST: usize = 80;
    match value {
        Value::List(_) => "a list".into(),
        Value::Table(_) => "a table".into(),
        other => {
            let whole = without_bare_logins(other).to_string();
            match whole.char_indices().nth(LONGEST) {
                Some((end, _)) => format!("{}…", &whole[..end]),
                None => whole,
            }
        }
    }
}

/// The same with `***` for whatever stands before an `@` in its texts; a scheme in front stays.
fn without_bare_logins(value: &Value) -> Value {
    match value {
        Value::Text(text) => {
            let (scheme, rest) = text
                .split_once("://")
                .map_or(("", text.as_str()), |(_, rest)| (&text[..text.len() - rest.len()], rest));
            let shown = rest.rsplit_once('@').map(|(_, address)| format!("{scheme}***@{address}"));
            Value::Text(shown.unwrap_or_else(|| text.clone()))
        }
        Value::List(items) => {
            let masked = |item: &Node| Node { value: without_bare_logins(&item.value), ..item.clone() };
            Value::List(items.iter().map(masked).collect())
        }
        other => other.clone(),
    }
}

/// Masks `user:password@` behind every `://`. A password may hold anything but a quote, so what stands before the last `@` of a
/// text is masked: rather too much than too little.
fn without_logins(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after.find(['"', '\'', ' ']).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(login) => {
                shown.push_str("***");
                &after[login..]
            }
            None => after,
        };
    }
    shown + rest
}

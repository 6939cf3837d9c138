//! A configuration as written: a tree of values that remember where they come from, whether file or environment.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::problem::{Origin, Problems};

/// One table: its keys in alphabetical order.
pub(super) type Table = BTreeMap<String, Node>;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// The values TOML knows. Integers outside 64 bits are saturated; no range of ours reaches that far.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Flag(bool),
    Integer(i64),
    Number(f64),
    Text(String),
    Date(String),
    List(Vec<Node>),
    Table(Table),
}

/// Reads TOML text; what cannot be read is a problem, the rest is still returned so that it can be checked too.
pub(super) fn parse(text: &str, problems: &mut Problems) -> Table {
    let lines = Lines::of(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let origin = error.span().map_or(Origin::Default, |span| lines.origin(&span));
        problems.add(&origin, "", error.message());
    }
    table(document.into_inner(), &|span| lines.origin(span))
}

/// Reads one TOML value, all of it from `origin`; `None` if it is not one.
pub(super) fn parse_value(text: &str, origin: &Origin) -> Option<Value> {
    let parsed = DeValue::parse(text).ok()?;
    Some(value(parsed.into_inner(), &|_| origin.clone()))
}

fn table(table: DeTable<'_>, origin: &dyn Fn(&Range<usize>) -> Origin) -> Table {
    let entry = |(key, node): (toml::Spanned<_>, toml::Spanned<_>)| {
        let at = origin(&key.span());
        let key: std::borrow::Cow<'_, str> = key.into_inner();
        (key.into_owned(), Node { origin: at, value: value(node.into_inner(), origin) })
    };
    table.into_iter().map(entry).collect()
}

fn value(value_: DeValue<'_>, origin: &dyn Fn(&Range<usize>) -> Origin) -> Value {
    match value_ {
        DeValue::Boolean(flag) => Value::Flag(flag),
        DeValue::Integer(number) => {
            let saturated = if number.as_str().starts_with('-') { i64::MIN } else { i64::MAX };
            Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(saturated))
        }
        DeValue::Float(number) => Value::Number(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(items) => Value::List(
            items
                .into_iter()
                .map(|item| Node { origin: origin(&item.span()), value: value(item.into_inner(), origin) })
                .collect(),
        ),
        DeValue::Table(inner) => Value::Table(table(inner, origin)),
    }
}

/// As TOML, on one line.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::Integer(number) => write!(f, "{number}"),
            Value::Number(number) => write!(f, "{number:?}"),
            Value::Text(text) => write!(f, "{}", toml::Value::String(text.clone())),
            Value::Date(date) => f.write_str(date),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(|item| item.value.to_string()).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Value::Table(entries) if entries.is_empty() => f.write_str("{}"),
            Value::Table(entries) => {
                let key = |key: &str| toml::Value::String(key.into()).to_string();
                let entries: Vec<String> =
                    entries.iter().map(|(name, node)| format!("{} = {}", key(name), node.value)).collect();
                write!(f, "{{ {} }}", entries.join(", "))
            }
        }
    }
}

/// Where each line of a text begins.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Lines {
        Lines(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    fn origin(&self, span: &Range<usize>) -> Origin {
        Origin::Line(self.0.partition_point(|newline| *newline < span.start) + 1)
    }
}

//! Environment variables over the file: `WEIGHBRIDGE__NATS__SERVERS` is `servers` in `[nats]`.

use std::sync::Arc;

use super::problem::{Origin, Problems};
use super::schema::{self, Kind};
use super::tree::{self, Node, Table, Value};

/// What the names of overriding variables begin with.
const PREFIX: &str = "WEIGHBRIDGE__";

/// Writes the variables into the table as if the file had said so. Names are checked with the file's.
pub(super) fn overlay(table: &mut Table, variables: &[(String, String)], problems: &mut Problems) {
    for (variable, text) in variables {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        let origin = Origin::Variable(Arc::from(variable.as_str()));
        let path = name.to_ascii_lowercase().replace("__", ".");
        let (section, key) = path.rsplit_once('.').unwrap_or(("", &path));
        let node = Node { value: read(section, key, text, &origin), origin };
        if let Err(node) = insert(table, section, key, node) {
            problems.add(&node.origin, &path, format!("{section} is a list; override it as a whole, in TOML"));
        }
    }
}

/// Lists are comma-separated or TOML, numbers and tables TOML, texts as they are.
fn read(section: &str, key: &str, text: &str, origin: &Origin) -> Value {
    let kind = schema::section(section).and_then(|section| section.key(key)).map(|key| key.kind);
    let toml = || tree::parse_value(text.trim(), origin).unwrap_or_else(|| Value::Text(text.into()));
    match kind {
        Some(Kind::List(_)) if !text.trim_start().starts_with('[') => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            let node = |item: &str| Node { origin: origin.clone(), value: Value::Text(item.into()) };
            Value::List(items.map(node).collect())
        }
        Some(Kind::Text(_) | Kind::Secret | Kind::Choice(_) | Kind::Duration { .. } | Kind::Size { .. }) => {
            Value::Text(text.into())
        }
        // A key that does not exist is read like a section: it is refused by its name, whatever it holds.
        Some(Kind::List(_) | Kind::Map(_) | Kind::Flag | Kind::Integer { .. } | Kind::Number { .. }) | None => toml(),
    }
}

/// Puts the node into the section, which is made if there is none; gives it back if a list stands in the way.
fn insert(mut table: &mut Table, section: &str, key: &str, node: Node) -> Result<(), Node> {
    for name in section.split('.').filter(|name| !name.is_empty()) {
        let empty = || Node { origin: node.origin.clone(), value: Value::Table(Table::new()) };
        let inner = table.entry(name.to_string()).or_insert_with(empty);
        match &mut inner.value {
            Value::Table(inner) => table = inner,
            _ => return Err(node),
        }
    }
    table.insert(key.to_string(), node);
    Ok(())
}

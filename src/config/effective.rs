//! The values in force, key by key as TOML: to print them and to tell what a reload would change.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::schema::{self, Reload};

/// Every key with the value in force. `Display` is TOML with secrets masked.
#[derive(Clone, Default, PartialEq)]
pub struct Effective {
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq)]
struct Entry {
    /// `route[0].timeouts`; empty at the top.
    section: String,
    key: &'static str,
    /// TOML, secrets masked.
    shown: String,
    /// What two configurations are compared by; holds secrets, is never shown.
    compared: String,
    reload: Reload,
}

/// What differs between two configurations, as dotted keys; all static routes together are `route`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Can take effect now.
    pub live: Vec<String>,
    /// Waits for a restart.
    pub restart: Vec<String>,
}

impl Effective {
    pub(super) fn note(&mut self, section: &str, key: &schema::Key, shown: String, compared: String) {
        self.entries.push(Entry { section: section.into(), key: key.name, shown, compared, reload: key.reload });
    }

    /// Makes hidden content (of a file that the last key names) part of the comparison.
    pub(super) fn amend_last(&mut self, hidden: &str) {
        if let Some(last) = self.entries.last_mut() {
            last.compared.push_str(hidden);
        }
    }

    /// What the step from `self` to `newer` changes.
    pub fn changes(&self, newer: &Effective) -> Changes {
        let (old, new) = (self.by_key(), newer.by_key());
        let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let mut changes = Changes::default();
        for key in keys.into_iter().filter(|key| old.get(*key) != new.get(*key)) {
            let reload = [&old, &new].into_iter().filter_map(|side| side.get(key)).map(|(reload, _)| *reload).next();
            match reload {
                Some(Reload::Live) => changes.live.push(key.clone()),
                _ => changes.restart.push(key.clone()),
            }
        }
        changes
    }

    /// All values of one key, in order; the keys inside a list count as one.
    fn by_key(&self) -> BTreeMap<String, (Reload, Vec<String>)> {
        let mut found: BTreeMap<String, (Reload, Vec<String>)> = BTreeMap::new();
        for entry in &self.entries {
            let path = schema::join(&entry.section, entry.key);
            let (name, value) = match path.split_once('[') {
                Some((list, _)) => (list.to_string(), format!("{path}={}", entry.compared)),
                None => (path, entry.compared.clone()),
            };
            found.entry(name).or_insert((entry.reload, Vec::new())).1.push(value);
        }
        found
    }

    /// The dotted keys, for tests of completeness.
    #[cfg(test)]
    pub(super) fn keys(&self) -> Vec<String> {
        self.entries.iter().map(|entry| schema::join(&entry.section, entry.key)).collect()
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = "";
        for entry in &self.entries {
            if entry.section != section {
                section = &entry.section;
                write!(f, "\n{}\n", header(section))?;
            }
            writeln!(f, "{} = {}", entry.key, entry.shown)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Effective({self})")
    }
}

/// `route[0].timeouts` as the header `[route.timeouts]`, `route[0]` as `[[route]]`.
fn header(section: &str) -> String {
    let mut path = String::new();
    for part in section.split('.') {
        let name = part.split('[').next().unwrap_or(part);
        let _infallible = write!(path, "{}{name}", if path.is_empty() { "" } else { "." });
    }
    if section.ends_with(']') { format!("[[{path}]]") } else { format!("[{path}]") }
}

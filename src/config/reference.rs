//! The pages that are made of the table of keys: the reference for operators and the commented example.

use std::fmt::{self, Display, Write};

use super::compat;
use super::schema::{self, Fallback, Key, Kind, Reload, SECTIONS, Section, Shape};

/// Width of the comments in the example.
const WIDTH: usize = 110;

const PREAMBLE: &str = "\
Every key there is, with its default; what begins with #key = … is not set by default. A file holds only what \
differs. `weighbridge check FILE` tells everything that is wrong with one, or shows the configuration in force.

Durations are texts with units (\"500ms\", \"30s\", \"1m30s\", \"1h\"), sizes are bytes or texts with units (65536, \
\"64KiB\", \"10MB\").";

/// The commented example: parses to exactly the defaults.
pub fn example() -> String {
    let mut page = String::new();
    for paragraph in PREAMBLE.split("\n\n") {
        comment(&mut page, paragraph);
        page.push_str("#\n");
    }
    comment(&mut page, "Generated from the program's own table of keys; docs/CONFIG.md is the same as a reference.");
    for section in SECTIONS {
        let is_off = section.shape != Shape::Always || section.path.starts_with("route.");
        page.push('\n');
        comment(&mut page, section.doc);
        if !section.path.is_empty() {
            line(&mut page, if is_off { "#" } else { "" }, &header(section));
        }
        for key in section.keys {
            let facts = facts(key);
            comment(&mut page, &format!("{} ({facts})", key.doc));
            let (mark, value) = match key.fallback {
                Fallback::Is(toml) => (if is_off { "#" } else { "" }, toml),
                Fallback::Unset(example) => ("#", example),
            };
            line(&mut page, mark, &format!("{} = {value}", key.name));
        }
    }
    page
}

/// The reference as Markdown.
pub fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    for section in SECTIONS {
        let title = if section.path.is_empty() { "Top of the file".into() } else { format!("`{}`", header(section)) };
        let _infallible = write!(page, "\n## {title}\n\n{}\n\n", section.doc);
        page.push_str("| key | type | default | change | meaning |\n|---|---|---|---|---|\n");
        for key in section.keys {
            let default = match key.fallback {
                Fallback::Is(toml) => format!("`{toml}`"),
                Fallback::Unset(_) => "".into(),
            };
            let change = change(key);
            let row = format!("| `{}` | {} | {default} | {change} | {} |", key.name, key.kind, key.doc);
            line(&mut page, "", &row);
        }
    }
    differences(&mut page);
    page
}

/// What `compat` changes.
fn differences(page: &mut String) {
    page.push_str("\n## Differences from gorouter\n\nWith `compat = \"gorouter\"` these keys have gorouter's behaviour as \
                   their default, so that routers can be exchanged one at a time behind one address. What is written wins.\n\n");
    page.push_str("| key | `none` | `gorouter` | why Weighbridge differs |\n|---|---|---|---|\n");
    for difference in compat::DIFFERENCES {
        let (section, name) = difference.key.rsplit_once('.').unwrap_or(("", difference.key));
        let key = schema::section(section).and_then(|section| section.key(name));
        let Some(Fallback::Is(own)) = key.map(|key| key.fallback) else { panic!("{} has no default", difference.key) };
        let row = format!("| `{}` | `{own}` | `{}` | {} |", difference.key, difference.gorouter, difference.reason);
        line(page, "", &row);
    }
    let _infallible = write!(page, "\n{}\n", compat::WORDS);
}

const INTRODUCTION: &str = r#"# Configuration

Weighbridge reads one TOML file: `weighbridge run --config FILE`. Every key has a default, so the file holds only what
differs; `routes.example.toml` is a complete one with comments. `weighbridge check FILE` tells everything that is wrong
with a file, each problem with line and key, or shows the configuration in force. Unknown keys are refused.

**Durations** are texts with units: `"500ms"`, `"30s"`, `"1m30s"`, `"1h"`, `"1d"`. **Sizes** are bytes or texts with units:
`65536`, `"64KiB"`, `"10MB"`. Where 0 has a meaning of its own, the type says which.

**Environment variables** override the file. The name is `WEIGHBRIDGE__`, the section and the key in capitals, with two
underscores between: `WEIGHBRIDGE__WORKERS=4`, `WEIGHBRIDGE__NATS__SERVERS=nats://10.0.0.1:4222,nats://10.0.0.2:4222`.
Lists are comma-separated or TOML (`[…]`), tables are TOML; `WEIGHBRIDGE__ROUTE='[{ host = "a.example.com" }]'` replaces all
`[[route]]`.

**Secrets** can stay out of the file: each has a `…_file` beside it that names a file with the secret in it. Relative paths
start at the working directory of the process.

**Changes**: on SIGHUP the file is read again. A file with problems changes nothing. Keys marked *reload* take effect at
once; those marked *restart* are logged and wait for the next start.

This page is generated from the program's own table of keys.
"#;

/// `[section]`, or `[[section]]` for lists.
fn header(section: &Section) -> String {
    if section.shape == Shape::List { format!("[[{}]]", section.path) } else { format!("[{}]", section.path) }
}

fn change(key: &Key) -> &'static str {
    match key.reload {
        Reload::Live => "reload",
        Reload::Restart => "restart",
    }
}

/// What stands in parentheses behind a key's text in the example.
fn facts(key: &Key) -> String {
    format!("{}; {}", key.kind.to_string().replace('`', ""), change(key))
}

/// The type of a key as a phrase.
impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Flag => f.write_str("`true` or `false`"),
            Kind::Integer { least, most } => write!(f, "integer, {least} to {most}"),
            Kind::Number { least, most } => write!(f, "number, {least} to {most}"),
            Kind::Duration { zero: "", .. } => f.write_str("duration"),
            Kind::Duration { zero, .. } => write!(f, "duration; 0: {zero}"),
            Kind::Size { zero: "", .. } => f.write_str("size"),
            Kind::Size { zero, .. } => write!(f, "size; 0: {zero}"),
            Kind::Text(what) => f.write_str(what),
            Kind::Secret => f.write_str("secret"),
            Kind::Choice(names) => {
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                f.write_str(&names.join(", "))
            }
            Kind::List(what) => write!(f, "list of {what}"),
            Kind::Map(what) => write!(f, "table of {what}"),
        }
    }
}

fn line(page: &mut String, mark: &str, text: &str) {
    let _infallible = writeln!(page, "{mark}{text}");
}

/// Adds a paragraph as comment lines.
fn comment(page: &mut String, paragraph: &str) {
    let mut written = String::new();
    for word in paragraph.split_whitespace() {
        if !written.is_empty() && written.chars().count() + 1 + word.chars().count() > WIDTH {
            line(page, "# ", &written);
            written.clear();
        }
        if !written.is_empty() {
            written.push(' ');
        }
        written.push_str(word);
    }
    line(page, "# ", &written);
}

//! The shape of the code, held by a test instead of by reviewers: who may import whom, where no clock ticks, how long a
//! file may grow. It reads the sources as text; comments and string literals do not count.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which layers each layer may import. A layer may always import itself; siblings never import each other.
const ALLOWED: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("http1", &[]),
    ("config", &["domain"]),
    ("telemetry", &["domain"]),
    ("runtime", &["domain"]),
    ("control", &["domain", "http1", "config", "telemetry", "runtime"]),
    ("proxy", &["domain", "http1", "config", "telemetry", "runtime"]),
    ("adapters", &["domain", "http1", "config", "telemetry", "runtime"]),
    ("roles", &["domain", "http1", "config", "telemetry", "runtime", "control", "proxy", "adapters"]),
    ("cli", &["domain", "http1", "config", "telemetry", "runtime", "control", "proxy", "adapters", "roles"]),
];

/// Pure and synchronous: time, chance and bytes are arguments here, and what happened is returned, not logged.
const PURE: &[&str] = &["domain", "http1", "control/plane.rs", "control/plane", "control/event.rs"];

/// What a pure file must not name.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "UtcDateTime",
    "OffsetDateTime::now",
    "tokio::",
    "hyper::",
    "hyper_util::",
    "tracing::",
    "async_nats::",
    "std::net::Tcp",
    "std::fs",
    "std::thread",
    "std::env",
    "rand::",
    "getrandom",
    "new_v4",
    "println!",
    "eprintln!",
];

/// The length a file may have.
const LINES_MAX: usize = 800;

/// Files that are longer, with the length they may have. The list only shrinks: cut a file and lower its number.
const LONGER: &[(&str, usize)] = &[];

#[test]
fn imports_point_down_and_never_sideways() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        let home = module_path(&file.path);
        let Some(layer) = home.first() else { continue }; // lib.rs and main.rs name everybody
        let allowed = ALLOWED.iter().find(|(name, _)| name == layer).map(|(_, allowed)| *allowed);
        let Some(allowed) = allowed else {
            wrong.push(format!("{}: `{layer}` is no layer; add it to ALLOWED if it is meant to be one", file.path));
            continue;
        };
        for target in paths_into_this_crate(&file.code, &home) {
            let Some(theirs) = target.first() else { continue };
            let is_sibling_adapter = layer == "adapters"
                && theirs == "adapters"
                && home.len() > 1
                && target.len() > 1
                && target[1] != home[1]
                && Path::new("src/adapters").join(&target[1]).exists_as_module();
            let is_a_layer = ALLOWED.iter().any(|(name, _)| name == theirs);
            if is_a_layer && (is_sibling_adapter || (theirs != layer && !allowed.contains(&theirs.as_str()))) {
                wrong.push(format!("{} imports `{}`", file.path, target.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "imports must point down:\n  {}", wrong.join("\n  "));
}

#[test]
fn rules_know_no_clock_no_chance_and_no_sockets() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        let inside = file.path.strip_prefix("src/").unwrap_or(&file.path);
        if !PURE.iter().any(|pure| inside == *pure || inside.starts_with(&format!("{pure}/"))) {
            continue;
        }
        for (number, line) in without_tests(&file).lines().enumerate() {
            wrong.extend(
                IMPURE
                    .iter()
                    .filter(|word| contains_word(line, word))
                    .map(|word| format!("{}:{} names `{word}`", file.path, number + 1)),
            );
        }
    }
    assert!(wrong.is_empty(), "rules take time, chance and bytes as arguments:\n  {}", wrong.join("\n  "));
}

#[test]
fn every_file_says_what_lives_in_it() {
    let silent: Vec<_> = all_sources().filter(|file| !file.text.starts_with("//!")).map(|file| file.path).collect();
    assert!(silent.is_empty(), "files must open with `//!`: {silent:?}");
}

#[test]
fn no_file_outgrows_a_readers_patience() {
    let allowed: BTreeMap<_, _> = LONGER.iter().copied().collect();
    let mut wrong = Vec::new();
    for file in all_sources() {
        let lines = file.text.lines().count();
        match allowed.get(file.path.as_str()) {
            None if lines > LINES_MAX => wrong.push(format!("{} has {lines} lines: look for a better cut", file.path)),
            Some(max) if lines > *max => wrong.push(format!("{} grew to {lines} lines: it may only shrink", file.path)),
            Some(_) if lines <= LINES_MAX => wrong.push(format!("{} is short now: take it off LONGER", file.path)),
            _ => {}
        }
    }
    let gone = LONGER.iter().filter(|(path, _)| !Path::new(path).exists());
    wrong.extend(gone.map(|(path, _)| format!("{path} is gone: take it off LONGER")));
    assert!(wrong.is_empty(), "files of up to {LINES_MAX} lines:\n  {}", wrong.join("\n  "));
}

#[test]
fn every_dependency_says_why_it_is_here() {
    let manifest = fs::read_to_string("Cargo.toml").expect("tests run in the package's folder");
    let mut in_dependencies = false;
    let mut silent = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if in_dependencies && line.contains('=') && !line.trim_start().starts_with('#') && !line.contains(" # ")
        {
            silent.push(line);
        }
    }
    assert!(silent.is_empty(), "each dependency ends with `# why`: {silent:#?}");
}

/// The code up to its unit tests, which come last. They may use threads; the rules they test may not.
fn without_tests(file: &Source) -> &str {
    if file.path.ends_with("/tests.rs") || file.path.contains("/tests/") {
        return "";
    }
    file.code.find("#[cfg(test)]\nmod tests {").map_or(&file.code, |tests| &file.code[..tests])
}

/// A source file: as it is, and with comments and literals blanked out (same lines, same columns).
struct Source {
    path: String,
    text: String,
    code: String,
}

trait ModulePath {
    fn exists_as_module(&self) -> bool;
}

impl ModulePath for PathBuf {
    fn exists_as_module(&self) -> bool {
        self.is_dir() || self.with_extension("rs").exists()
    }
}

fn all_sources() -> impl Iterator<Item = Source> {
    ["src", "tests", "benches", "fuzz", "examples"].into_iter().flat_map(sources)
}

fn sources(root: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(root)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder that can be opened can be listed").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                let code = without_comments_and_literals(&text);
                found.push(Source { path: path.to_string_lossy().replace('\\', "/"), text, code });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// `src/adapters/bus/nats.rs` lives in `adapters::bus::nats`.
fn module_path(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Vec<_> = inside.split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// Every path that begins with `crate::` or climbs with `super::`, resolved from the crate's root, as far as it names
/// modules (two steps). Groups (`crate::{a, b::c}`) are opened.
fn paths_into_this_crate(code: &str, home: &[String]) -> Vec<Vec<String>> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut here = home.to_vec();
    let mut depth = 0usize;
    let mut opened_at = Vec::new(); // brace depths at which an inline module began
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at] {
            "mod" if tokens.get(at + 2) == Some(&"{") => {
                here.push(tokens[at + 1].to_owned());
                opened_at.push(depth);
                depth += 1;
                at += 3;
                continue;
            }
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if opened_at.last() == Some(&depth) {
                    opened_at.pop();
                    here.pop();
                }
            }
            "crate" | "super" if tokens.get(at + 1) == Some(&"::") && (at == 0 || tokens[at - 1] != "::") => {
                let mut base =
                    if tokens[at] == "crate" { Vec::new() } else { here[..here.len().saturating_sub(1)].to_vec() };
                let mut next = at + 2;
                while tokens.get(next) == Some(&"super") && tokens.get(next + 1) == Some(&"::") {
                    base.pop();
                    next += 2;
                }
                tree(&tokens, next, &base, &mut found);
                // The group's braces are counted by the walk itself: it goes on right behind `::`.
                at = next;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Reads one use tree from `at`; returns the index behind it.
fn tree(tokens: &[&str], mut at: usize, base: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = base.to_vec();
    loop {
        match tokens.get(at) {
            Some(&"{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    let behind = tree(tokens, at, &path, found);
                    at = if tokens.get(behind) == Some(&",") { behind + 1 } else { behind.max(at + 1) };
                }
                return at + 1;
            }
            Some(name) if name.chars().all(|c| c.is_alphanumeric() || c == '_') => {
                path.push((*name).to_owned());
                at += 1;
                if tokens.get(at) == Some(&"as") {
                    at += 2;
                }
                if tokens.get(at) == Some(&"::") {
                    at += 1;
                    continue;
                }
            }
            _ => {}
        }
        found.push(path);
        return at;
    }
}

fn tokens(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, behind) = rest.split_at(length);
        found.push(token);
        rest = behind.trim_start();
    }
    found
}

/// Whether `line` names `word` as a whole path segment: `tokio::` in `tokio::spawn`, not in `mytokio::`.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Blanks comments, strings and characters, keeping every line where it is.
fn without_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_or_comment_end(text, at);
        if end > at {
            code.extend(text[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            let c = text[at..].chars().next().expect("`at` is inside and on a character");
            code.push(c);
            at += c.len_utf8();
        }
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` if none begins there.
fn literal_or_comment_end(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let bytes = rest.as_bytes();
    let is_inside_a_word = text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return at + rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return at + rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    if bytes[0] == b'"' {
        return at + quoted_length(bytes, 1);
    }
    if bytes[0] == b'\'' {
        // A lifetime has no closing quote right behind one (perhaps escaped) character.
        let mut chars = rest[1..].char_indices();
        return match chars.next() {
            Some((_, '\\')) => {
                at + 2 + rest[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(0, |(i, _)| i + 1)
            }
            Some((_, c)) if rest[1 + c.len_utf8()..].starts_with('\'') => at + 2 + c.len_utf8(),
            _ => at,
        };
    }
    let raw = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - raw.len();
    if !is_inside_a_word && prefix <= 1 && raw.starts_with('r') {
        let hashes = raw[1..].bytes().take_while(|b| *b == b'#').count();
        if raw[1 + hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = prefix + 2 + hashes;
            return at + rest[body..].find(&close).map_or(rest.len(), |end| body + end + close.len());
        }
    }
    at
}

/// Length of a quoted literal whose body begins at `body`.
fn quoted_length(bytes: &[u8], body: usize) -> usize {
    let mut at = body;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The reader of sources is itself worth a test: if it went blind, the rules above could not fail.
mod reader {
    use super::*;

    #[track_caller]
    fn check_paths(home: &str, code: &str, expected: &[&str]) {
        let home: Vec<_> = home.split("::").map(str::to_owned).collect();
        let found = paths_into_this_crate(&without_comments_and_literals(code), &home);
        let found: Vec<_> = found.iter().map(|path| path.join("::")).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn finds_plain_and_grouped_imports() {
        check_paths("control::plane", "use crate::proxy::worker::Worker;", &["proxy::worker::Worker"]);
        let grouped = "use crate::{domain::{dice::Dice, load}, proxy as p};";
        check_paths("control::plane", grouped, &["domain::dice::Dice", "domain::load", "proxy"]);
        check_paths("control::plane", "fn f() { crate::proxy::go(1) }", &["proxy::go"]);
    }

    #[test]
    fn climbs_with_super_even_from_an_inline_module() {
        check_paths("adapters::bus", "use super::admin;", &["adapters::admin"]);
        check_paths("adapters::bus::nats", "use super::super::admin::x;", &["adapters::admin::x"]);
        check_paths(
            "adapters::bus",
            "mod tests { use super::*; } use super::admin;",
            &["adapters::bus", "adapters::admin"],
        );
    }

    #[test]
    fn is_blind_to_comments_strings_and_lifetimes() {
        check_paths("domain", "// use crate::proxy;\n/* crate::proxy::x */", &[]);
        check_paths("domain", r##"let a = "crate::proxy\" crate::proxy"; let b = r#"crate::proxy"#;"##, &[]);
        check_paths("domain", "fn f<'a>(c: &'a str) { c == '\"' } use crate::proxy; // '\"'", &["proxy"]);
    }

    #[test]
    fn knows_words_from_parts_of_words() {
        assert!(contains_word("let t = Instant::now();", "Instant::now"));
        assert!(contains_word("std::time::SystemTime", "SystemTime"));
        assert!(!contains_word("operand::value", "rand::"));
    }
}

//! Pages as text with `{{variables}}`: enough for an operator's own loading page, too little to hurt anybody.

use std::fmt::Write;

/// Bytes of a template file.
pub const TEMPLATE_BYTES_MAX: usize = 256 * 1024;

/// A name that a template may use.
#[derive(Debug, PartialEq, Eq)]
pub struct Variable {
    /// As written between the braces.
    pub name: &'static str,
    /// What becomes of its value.
    pub kind: Kind,
    /// One line of documentation.
    pub doc: &'static str,
}

/// What becomes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is escaped: fit for text and for attributes in quotes.
    Text,
    /// It is markup of our own, put in as it is.
    Markup,
}

/// Why a template is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// It would be sent to every visitor.
    #[error("the template has {0} bytes, more than {TEMPLATE_BYTES_MAX}")]
    TooLarge(usize),
    /// Pages are sent as UTF-8.
    #[error("the template is not UTF-8, from byte {0} on")]
    NotUtf8(usize),
    /// Nothing is known by this name.
    #[error("line {line}: no variable is called {name:?}; there are {known}")]
    UnknownVariable {
        /// Where, from 1.
        line: usize,
        /// As written, cut.
        name: String,
        /// What could have been meant.
        known: String,
    },
    /// Two opening braces without the closing ones.
    #[error("line {0}: \"{{{{\" is never closed by \"}}}}\"")]
    Unclosed(usize),
}

/// A page with gaps.
#[derive(Clone, Debug)]
pub struct Template {
    /// Text, then the variable that follows it.
    pieces: Vec<(String, &'static Variable)>,
    rest: String,
}

impl Template {
    /// Reads a template that may use `variables`.
    ///
    /// # Errors
    /// If it cannot be meant, so that an operator hears of it before a visitor does.
    pub fn parse(source: &[u8], variables: &'static [Variable]) -> Result<Template, BadTemplate> {
        if source.len() > TEMPLATE_BYTES_MAX {
            return Err(BadTemplate::TooLarge(source.len()));
        }
        let source = std::str::from_utf8(source).map_err(|error| BadTemplate::NotUtf8(error.valid_up_to()))?;
        let mut pieces = Vec::new();
        let mut rest = source;
        while let Some((text, opened)) = rest.split_once("{{") {
            let line = 1 + source[..source.len() - opened.len()].matches('\n').count();
            let (name, after) = opened.split_once("}}").ok_or(BadTemplate::Unclosed(line))?;
            let name = name.trim();
            let variable = variables.iter().find(|variable| variable.name == name).ok_or_else(|| {
                let known = variables.iter().map(|variable| variable.name).collect::<Vec<_>>().join(", ");
                BadTemplate::UnknownVariable { line, name: name.chars().take(40).collect(), known }
            })?;
            pieces.push((text.to_owned(), variable));
            rest = after;
        }
        Ok(Template { pieces, rest: rest.to_owned() })
    }

    /// Fills the gaps with what `write_value` writes for the name of a variable.
    pub fn render(&self, mut write_value: impl FnMut(&'static str, &mut String)) -> String {
        let mut page = String::with_capacity(self.rest.len() + 1024);
        let mut value = String::new();
        for (text, variable) in &self.pieces {
            page.push_str(text);
            match variable.kind {
                Kind::Markup => write_value(variable.name, &mut page),
                Kind::Text => {
                    value.clear();
                    write_value(variable.name, &mut value);
                    escape(&value, &mut page);
                }
            }
        }
        page.push_str(&self.rest);
        page
    }
}

/// Appends `text` so that HTML takes it for nothing but text, between tags and in attributes in either kind of quotes.
pub fn escape(text: &str, page: &mut String) {
    for character in text.chars() {
        match character {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            // Not allowed in HTML, even as a reference.
            control if control.is_control() && !matches!(control, '\n' | '\t') => page.push('\u{fffd}'),
            plain => page.push(plain),
        }
    }
}

/// The variables as a Markdown table, for the documentation.
pub fn as_markdown(variables: &[Variable]) -> String {
    let mut table = String::from("| variable | value |\n|---|---|\n");
    for Variable { name, kind, doc } in variables {
        let markup = if *kind == Kind::Markup { " (markup)" } else { "" };
        let _ = writeln!(table, "| `{{{{{name}}}}}` | {doc}{markup} |"); // a String takes every write
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARIABLES: &[Variable] = &[
        Variable { name: "name", kind: Kind::Text, doc: "" },
        Variable { name: "script", kind: Kind::Markup, doc: "" },
    ];

    #[track_caller]
    fn check_rendered(template: &str, expected: &str) {
        let template = Template::parse(template.as_bytes(), VARIABLES).expect("a good template");
        let write_value =
            |name: &str, page: &mut String| page.push_str(if name == "name" { "<O'Neil & \"Co\">" } else { "<b>" });
        assert_eq!(template.render(write_value), expected);
    }

    #[test]
    fn gaps_are_filled_and_text_is_escaped() {
        check_rendered("", "");
        check_rendered("{ name } }} {", "{ name } }} {");
        check_rendered("a{{name}}b", "a&lt;O&#39;Neil &amp; &quot;Co&quot;&gt;b");
        check_rendered("{{ script }}{{script}}é", "<b><b>é");
    }

    #[test]
    fn bad_templates_are_refused_where_they_are_bad() {
        let refused = |source: &[u8]| Template::parse(source, VARIABLES).expect_err("bad").to_string();
        assert_eq!(refused(b"a\nb {{nmae}}"), "line 2: no variable is called \"nmae\"; there are name, script");
        assert_eq!(refused(b"\n\n{{name}} {{name"), "line 3: \"{{\" is never closed by \"}}\"");
        assert_eq!(refused(b"ab\xff"), "the template is not UTF-8, from byte 2 on");
        assert_eq!(refused(&vec![b' '; TEMPLATE_BYTES_MAX + 1]), "the template has 262145 bytes, more than 262144");
    }
}

//! What is wrong with a configuration: every problem at once, each with its place and its key.

use std::fmt;
use std::sync::Arc;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// In the file, on this line (from 1).
    Line(usize),
    /// In this environment variable.
    Variable(Arc<str>),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it is written.
    pub origin: Origin,
    /// Dotted key, `route[0].host` inside lists; empty if the file cannot be read as TOML there.
    pub key: String,
    /// A sentence without its key.
    pub what: String,
}

/// All that is wrong, in the order of the file. Displayed one problem a line: `file:line: key: sentence`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// Name of the file; empty if there is none.
    pub file: String,
    /// At least one, once returned as an error.
    pub list: Vec<Problem>,
}

impl Problems {
    pub(super) fn add(&mut self, origin: &Origin, key: impl Into<String>, what: impl Into<String>) {
        self.list.push(Problem { origin: origin.clone(), key: key.into(), what: what.into() });
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.list.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            match &problem.origin {
                Origin::Line(line) if self.file.is_empty() => write!(f, "line {line}: ")?,
                Origin::Line(line) => write!(f, "{}:{line}: ", self.file)?,
                Origin::Variable(name) => write!(f, "{name}: ")?,
                Origin::Default if self.file.is_empty() => {}
                Origin::Default => write!(f, "{}: ", self.file)?,
            }
            if !problem.key.is_empty() {
                write!(f, "{}: ", problem.key)?;
            }
            f.write_str(&problem.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

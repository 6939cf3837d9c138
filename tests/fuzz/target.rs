//! What a fuzz target is; shared by `cargo test` and cargo-fuzz.

/// How an input ended, in a word: what makes it worth keeping.
pub type Ending = &'static str;

/// One parser under attack.
#[allow(dead_code, reason = "cargo-fuzz finds seeds and words by itself")]
pub struct Target {
    /// What it attacks; also the name of the module and of the cargo-fuzz target.
    pub name: &'static str,
    /// Inputs to begin with, the more different the better.
    pub seeds: &'static [&'static [u8]],
    /// Byte strings that mean something to the parser.
    pub dictionary: &'static [&'static [u8]],
    /// Panics when a promise is broken.
    pub check: fn(&[u8]) -> Ending,
}

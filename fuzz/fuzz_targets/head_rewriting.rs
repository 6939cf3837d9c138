//! `cargo +nightly fuzz run head_rewriting`: the check of `tests/fuzz`, steered by coverage.
#![no_main]

#[path = "../../tests/fuzz/target.rs"]
mod target;
use target::{Ending, Target};
#[path = "../../tests/fuzz/head_rewriting.rs"]
mod head_rewriting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _: Ending = (head_rewriting::TARGET.check)(input);
});

//! `cargo +nightly fuzz run config`: the check of `tests/fuzz`, steered by coverage.
#![no_main]

#[path = "../../tests/fuzz/target.rs"]
mod target;
use target::{Ending, Target};
#[path = "../../tests/fuzz/config.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _: Ending = (config::TARGET.check)(input);
});

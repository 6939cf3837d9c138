//! `cargo +nightly fuzz run cookies`: the check of `tests/fuzz`, steered by coverage.
#![no_main]

#[path = "../../tests/fuzz/target.rs"]
mod target;
use target::{Ending, Target};
#[path = "../../tests/fuzz/cookies.rs"]
mod cookies;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _: Ending = (cookies::TARGET.check)(input);
});

//! `cargo +nightly fuzz run sni`: the check of `tests/fuzz`, steered by coverage.
#![no_main]

#[path = "../../tests/fuzz/target.rs"]
mod target;
use target::{Ending, Target};
#[path = "../../tests/fuzz/sni.rs"]
mod sni;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _: Ending = (sni::TARGET.check)(input);
});

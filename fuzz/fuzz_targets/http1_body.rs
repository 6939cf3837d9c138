//! `cargo +nightly fuzz run http1_body`: the check of `tests/fuzz`, steered by coverage.
#![no_main]

#[path = "../../tests/fuzz/target.rs"]
mod target;
use target::{Ending, Target};
#[path = "../../tests/fuzz/http1_body.rs"]
mod http1_body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _: Ending = (http1_body::TARGET.check)(input);
});

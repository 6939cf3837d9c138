//! `cargo +nightly fuzz run http1_response_head`: the check of `tests/fuzz`, steered by coverage.
#![no_main]

#[path = "../../tests/fuzz/target.rs"]
mod target;
use target::{Ending, Target};
#[path = "../../tests/fuzz/http1_response_head.rs"]
mod http1_response_head;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _: Ending = (http1_response_head::TARGET.check)(input);
});

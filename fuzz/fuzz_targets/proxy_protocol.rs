//! `cargo +nightly fuzz run proxy_protocol`: the check of `tests/fuzz`, steered by coverage.
#![no_main]

#[path = "../../tests/fuzz/target.rs"]
mod target;
use target::{Ending, Target};
#[path = "../../tests/fuzz/proxy_protocol.rs"]
mod proxy_protocol;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _: Ending = (proxy_protocol::TARGET.check)(input);
});

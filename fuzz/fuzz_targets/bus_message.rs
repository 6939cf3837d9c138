//! `cargo +nightly fuzz run bus_message`: the check of `tests/fuzz`, steered by coverage.
#![no_main]

#[path = "../../tests/fuzz/target.rs"]
mod target;
use target::{Ending, Target};
#[path = "../../tests/fuzz/bus_message.rs"]
mod bus_message;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _: Ending = (bus_message::TARGET.check)(input);
});

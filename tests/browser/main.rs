//! In a real browser: what a visitor of a sleeping app sees, and that what a page keeps open passes. Apart from the other
//! tests because it needs Chromium; where that is missing it fails.
//!
//! `SCREENSHOTS=docs/screenshots cargo test --test browser pictures` makes the pictures of the README anew.

mod asleep;
#[path = "../it/wake/controller.rs"]
#[allow(dead_code)]
mod controller;
#[path = "../it/harness/mod.rs"]
#[allow(dead_code)]
mod harness;
#[path = "../it/nats.rs"]
#[allow(dead_code)]
mod nats;
mod streams;
mod webdriver;

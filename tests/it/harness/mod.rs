//! What the sentences are made of: instances, buses, routers, clients, and a way to wait for facts.

pub mod agent;
pub mod answer;
pub mod bus;
pub mod client;
pub mod instance;
pub mod message;
pub mod pattern;
pub mod process;
pub mod router;
pub mod tls;

use std::time::{Duration, Instant};

/// How long a fact may take to come true before the test gives up. Long, because it is never waited for in full unless
/// the test fails anyway.
const PATIENCE: Duration = Duration::from_secs(60);

/// Seconds.
pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Milliseconds.
pub fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Waits until `fact` holds; panics with `what` when patience ends.
#[track_caller]
pub fn eventually<'a>(what: &'a str, mut fact: impl FnMut() -> bool + 'a) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        while !fact() {
            assert!(begun.elapsed() < PATIENCE, "{caller}: never came true: {what}");
            tokio::time::sleep(millis(2)).await;
        }
    }
}

/// Lets `work` take as long as patience lasts.
#[track_caller]
pub fn in_time<T>(what: &str, work: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(done) => done,
            Err(_) => panic!("{caller}: took for ever: {what}"),
        }
    }
}

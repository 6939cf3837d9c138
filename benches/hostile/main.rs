//! Two thousand clients that hang on (silent ones, slow heads, slow readers) while others ask as usual: what the others
//! notice, and what each who hangs on costs. `cargo bench --bench hostile`; the router is a process of its own.

mod clients;
mod router;

use std::time::Duration;

use clients::{Hanging, Kind, visit};
use router::Router;
use tokio::time::sleep;

/// Clients that hang on at once.
const HANGING: usize = 2_000;
/// Requests per second of the others, all together.
const RATE: u32 = 500;
/// How long each measurement takes.
const PHASE: Duration = Duration::from_secs(8);
/// Quiet and disturbed take turns that often, so that whatever else the machine does hits both.
const ROUNDS: usize = 3;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // As a test binary it is asked to list or run tests; there are none.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return;
    }
    router::raise_descriptors();
    let instance = clients::instance().await;
    let router = Router::start(instance);
    router.ready().await;
    visit(router.address, RATE, Duration::from_secs(2)).await; // warm
    println!("{HANGING} hanging clients, {RATE} requests/s beside them, {ROUNDS} rounds of {PHASE:?} each\n");
    println!(
        "| clients that hang on | p50 quiet | p50 disturbed | p99 quiet | p99 disturbed | failed | KiB each | descriptors |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    let begin = router.memory_kib();
    for kind in [Kind::Silent, Kind::SlowHead, Kind::SlowRead, Kind::SlowBody] {
        round(&router, kind).await;
    }
    router.until_connections_are_few().await;
    visit(router.address, RATE, Duration::from_secs(2)).await;
    println!(
        "\nmemory {} MiB at the beginning, {} MiB afterwards; open descriptors {}; connections of clients {}",
        begin / 1024,
        router.memory_kib() / 1024,
        router.descriptors(),
        router.metric("weighbridge_connections_open").await,
    );
}

/// Measures one kind and prints its line.
async fn round(router: &Router, kind: Kind) {
    let (mut quiet, mut disturbed, mut failed) = (Vec::new(), Vec::new(), 0);
    let (mut each_kib, mut descriptors) = (0, 0);
    for _ in 0..ROUNDS {
        let calm = visit(router.address, RATE, PHASE).await;
        let before = router.memory_kib();
        let hanging = Hanging::begin(kind, router.address, HANGING).await;
        let busy = visit(router.address, RATE, PHASE).await;
        each_kib = each_kib.max(router.memory_kib().saturating_sub(before) * 10 / HANGING as u64);
        descriptors = descriptors.max(router.descriptors());
        assert!(hanging.holding() > HANGING / 2, "{} of {HANGING} hang on", hanging.holding());
        hanging.end().await;
        router.until_connections_are_few().await;
        sleep(Duration::from_secs(1)).await;
        failed += calm.failed + busy.failed;
        quiet.push((calm.p50, calm.p99));
        disturbed.push((busy.p50, busy.p99));
    }
    let median = |mut of: Vec<Duration>| {
        of.sort_unstable();
        of[of.len() / 2].as_micros()
    };
    let (q50, q99): (Vec<_>, Vec<_>) = quiet.into_iter().unzip();
    let (d50, d99): (Vec<_>, Vec<_>) = disturbed.into_iter().unzip();
    println!(
        "| {} | {} µs | {} µs | {} µs | {} µs | {failed} | {}.{} | {descriptors} |",
        kind.name(),
        median(q50),
        median(d50),
        median(q99),
        median(d99),
        each_kib / 10,
        each_kib % 10,
    );
}

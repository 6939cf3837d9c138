//! What it costs a worker to count and log a request.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use weighbridge::domain::balance::Live;
use weighbridge::domain::endpoint::{Endpoint, Facts};
use weighbridge::domain::identity::{Address, AppId, InstanceId};
use weighbridge::domain::moment::Moment;
use weighbridge::telemetry::access_log::{AccessLog, Destination, Ending, Format, Record};
use weighbridge::telemetry::metrics::{Finished, Metrics, Sticky};

/// Budgets: counting a request 100 ns, logging it 1 µs.
pub fn telemetry(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("telemetry");
    let metrics = Metrics::new(1_000);
    let shard = metrics.shard();
    let finished = Finished {
        status: 200,
        duration: Duration::from_micros(2_345),
        time_to_head: Some(Duration::from_micros(2_300)),
        upstream: Some(Duration::from_micros(2_200)),
        error: None,
        bytes_in: 0,
        bytes_out: 64,
    };
    group.bench_function("count a request", |bencher| {
        bencher.iter(|| {
            shard.request_started();
            shard.upstream_reused();
            shard.sticky(Sticky::Hit);
            shard.request(black_box(&finished));
        });
    });
    group.bench_function("count an error", |bencher| {
        let failed = Finished { status: 503, error: Some("no_endpoints"), upstream: None, ..finished };
        bencher.iter(|| shard.request(black_box(&failed)));
    });
    let facts = Facts {
        app: AppId::new("8c1f9a52-3c5d-4a55-9c5e-0f4d0c5b7a11"),
        instance: InstanceId::new("0b2c7d9e-41f5-4a57-6d3e-1c2b"),
        index: "0".into(),
        ..Facts::at(Address::new("10.0.16.5", 61_001))
    };
    let endpoint = Endpoint::new(1, facts, Arc::new(Live::new(Moment::START)), Arc::default());
    for (name, format) in [("json", Format::Json), ("gorouter", Format::Gorouter)] {
        // Records that the writer cannot keep up with are dropped: what is measured is the worker's part.
        let log = AccessLog::start(Destination::File("/dev/null".into()), format, Arc::default()).expect("it is there");
        let mut buffer = log.buffer();
        let mut record = record(&endpoint);
        group.bench_function(format!("log a request as {name}"), |bencher| {
            bencher.iter(|| {
                record.started += Duration::from_micros(50);
                buffer.record(black_box(&record));
            });
        });
        drop(buffer);
        log.close(Duration::from_secs(5));
    }
    group.finish();
}

/// What a browser's request amounts to.
fn record(endpoint: &Endpoint) -> Record<'_> {
    Record {
        started: Duration::from_secs(1_795_255_200),
        host: b"shop.example.com",
        method: b"GET",
        target: b"/cart/items?page=2&sort=price",
        version: "HTTP/1.1",
        status: 200,
        bytes_in: 0,
        bytes_out: 18_204,
        referer: b"https://shop.example.com/cart",
        user_agent:
            b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
        forwarded_for: b"203.0.113.9, 10.0.0.1",
        forwarded_proto: b"https",
        client: Some(SocketAddr::from(([10, 0, 0, 1], 50_123))),
        request_id: "3c2b7d9e-41f5-4a57-6d3e-1c2b0a9f8e7d",
        trace: b"0af7651916cd43dd8448eb211c80319c",
        route: "shop.example.com",
        endpoint: Some(endpoint),
        attempts: 1,
        duration: Duration::from_micros(2_345),
        time_to_head: Some(Duration::from_micros(2_300)),
        upstream: Some(Duration::from_micros(2_200)),
        error: "",
        ending: Ending::Complete,
    }
}

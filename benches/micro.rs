//! What the steps of a request cost on their own. A group per module; a budget stands beside each where there is one.

#[path = "micro/balance.rs"]
mod balance;
#[path = "peers/callgrind.rs"]
mod callgrind;
#[path = "micro/control.rs"]
mod control;
#[path = "micro/decision.rs"]
mod decision;
#[path = "micro/routing.rs"]
mod routing;
#[path = "micro/telemetry.rs"]
mod telemetry;

use std::hint::black_box;
use std::process::ExitCode;

use criterion::{Criterion, Throughput, criterion_group};
use weighbridge::http1::{Body, Framing, Head, Limits, Method, Name, Version, framing, parse, write};

/// The router's own: where it puts things is part of what a look-up costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a load generator sends.
const SMALL_REQUEST: &[u8] =
    b"GET /index.html HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: wrk/4.2\r\nAccept: */*\r\n\r\n";

/// What a browser sends.
const BROWSER_REQUEST: &[u8] = b"GET /cart/items?page=2&sort=price HTTP/1.1\r\nHost: shop.example.com\r\nConnection: keep-alive\r\n\
Cache-Control: max-age=0\r\nsec-ch-ua: \"Chromium\";v=\"142\", \"Not A(Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\n\
Upgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\nSec-Fetch-Site: same-origin\r\n\
Sec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\nReferer: https://shop.example.com/cart\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
Cookie: JSESSIONID=6F1A0C9E5B7D4E2A8C3B1D0F9E8A7B6C; __VCAP_ID__=0b2c7d9e-41f5-4a57-6d3e-1c2b\r\n\r\n";

const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 10:00:00 GMT\r\nContent-Type: text/plain; charset=utf-8\r\n\
Content-Length: 64\r\nServer: app\r\nCache-Control: no-cache\r\n\r\n";

fn http1(criterion: &mut Criterion) {
    let limits = Limits::default();
    let mut group = criterion.benchmark_group("http1");
    for (name, text) in [("small", SMALL_REQUEST), ("browser", BROWSER_REQUEST)] {
        let (mut head, mut out) = (Head::new(), Vec::new());
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("parse {name} request"), |bencher| {
            bencher.iter(|| parse::request(black_box(text), &limits, &mut head).is_ok());
        });
        group.bench_function(format!("write {name} request"), |bencher| {
            bencher.iter(|| {
                out.clear();
                write::request(black_box(&head), &mut out);
                out.len()
            });
        });
        group.bench_function(format!("pass on {name} request"), |bencher| {
            bencher.iter(|| {
                out.clear();
                pass_on(black_box(text), &limits, &mut head, &mut out)
            });
        });
    }
    let (mut head, mut out) = (Head::new(), Vec::new());
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("parse response", |bencher| {
        bencher.iter(|| parse::response(black_box(RESPONSE), &limits, &mut head).is_ok());
    });
    group.bench_function("pass on response", |bencher| {
        bencher.iter(|| {
            out.clear();
            let complete = parse::response(black_box(RESPONSE), &limits, &mut head);
            let framing = framing::of_response(&head, Method::Get);
            write::response(&head, &mut out);
            (complete.is_ok(), framing.is_ok(), out.len())
        });
    });
    let chunks = [&b"1000\r\n"[..], &[b'x'; 0x1000], b"\r\n"].concat().repeat(4);
    group.throughput(Throughput::Bytes(chunks.len() as u64));
    group.bench_function("relay chunks", |bencher| {
        let mut body = Body::new(Framing::Chunked);
        bencher.iter(|| body.relay(black_box(&chunks)).is_ok());
    });
    group.finish();
}

/// What every request goes through, with the edits a proxy makes. Budget of request and response together: 2,500 instructions.
fn pass_on(text: &[u8], limits: &Limits, head: &mut Head, out: &mut Vec<u8>) -> bool {
    let complete = parse::request(text, limits, head).is_ok();
    let framing = framing::of_request(head).is_ok();
    let found = head.destination().is_some() && head.keeps_alive();
    head.remove(Name::Connection);
    head.set_version(Version::Http11);
    let added = head.append_to_list(Name::XForwardedFor, b"10.0.0.1").is_ok()
        && head.set(Name::XForwardedProto, b"https").is_ok()
        && head.set(Name::XVcapRequestId, b"3c2b7d9e-41f5-4a57-6d3e-1c2b0a9f8e7d").is_ok();
    write::request(head, out);
    complete && framing && found && added
}

criterion_group!(benches, http1, telemetry::telemetry, balance::balance, routing::routing, control::control);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--perform", step, rounds] => {
            decision::perform(step, rounds.parse().unwrap_or(0));
            ExitCode::SUCCESS
        }
        ["--decision", ..] => decision::report(),
        _ => {
            benches();
            Criterion::default().configure_from_args().final_summary();
            ExitCode::SUCCESS
        }
    }
}

//! Instances that flood the router with frames: they lose their connection, and others answer.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::instances::router_for;
use super::raw::*;
use crate::harness::bus::Bus;
use crate::harness::{bus, in_time};

/// Frames that are sent at once.
const BATCH: usize = 1_000;

/// No router takes as many batches.
const BATCHES_MAX: usize = 1_000;

/// An instance that greets, waits for the first request, and then sends `piece` until it is no longer taken. Tells by the
/// channel when that is.
async fn rogue(bus: &Bus, piece: impl Fn(u32) -> Vec<u8> + Send + 'static) -> mpsc::UnboundedReceiver<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
    let address: SocketAddr = listener.local_addr().expect("a bound socket has an address");
    let (told, tells) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("the listener lives");
        drop(listener);
        socket.write_all(&frame(SETTINGS, 0, 0, [])).await.expect("the router greets");
        let (mut seen, mut room) = (Vec::new(), [0; 4096]);
        while !seen.windows(9).any(|head| head[3] == HEADERS && head[4] & END_HEADERS != 0 && head[8] == 1) {
            let count = socket.read(&mut room).await.expect("the router asks");
            assert!(count > 0, "the router has left");
            seen.extend_from_slice(&room[..count]);
        }
        for nth in 0..BATCHES_MAX {
            let batch: Vec<u8> = (0..BATCH).flat_map(|in_batch| piece((nth * BATCH + in_batch) as u32)).collect();
            if socket.write_all(&batch).await.is_err() {
                let _nobody_waits = told.send(());
                return;
            }
            while let Ok(1..) = socket.try_read(&mut room) {} // so that no window is shut
        }
    });
    let registration = json!({
        "host": "127.0.0.1", "port": address.port(), "uris": ["shop.test"], "app": "shop",
        "private_instance_id": "rogue", "protocol": "http2",
    });
    bus.publish("router.register", &registration).await;
    tells
}

/// Its connection is ended, the request that was on it fails, and the router goes on.
async fn check(piece: impl Fn(u32) -> Vec<u8> + Send + 'static) {
    let bus = bus::embedded().await;
    let mut ended = rogue(&bus, piece).await;
    let router = router_for(&bus, "").await;
    let asked = router.get("shop.test/").begin();
    in_time("the end of the flood", ended.recv()).await.expect("the router took all of it");
    asked.abandon().await;
    let line = router.until_logged(1).await.swap_remove(0);
    assert!(line.contains(r#""status":502"#) || line.contains("instance_cut"), "{line}");
    router.until_metric("weighbridge_upstream_connections_open", |open| open == 0.0).await;
}

#[tokio::test]
async fn settings() {
    check(|_| frame(SETTINGS, 0, 0, [])).await;
}

#[tokio::test]
async fn pings() {
    check(|_| frame(PING, 0, 0, [1; 8])).await;
}

#[tokio::test]
async fn windows() {
    check(|_| frame(WINDOW_UPDATE, 0, 0, 1_u32.to_be_bytes())).await;
}

#[tokio::test]
async fn frames_nobody_knows() {
    check(|_| frame(0x42, 0, 0, "????")).await;
}

/// Of streams that are long gone.
#[tokio::test]
async fn resets() {
    check(|_| frame(RST_STREAM, 0, 1, 8_u32.to_be_bytes())).await;
}

#[tokio::test]
async fn data_without_data() {
    check(|nth| {
        let head = if nth == 0 { frame(HEADERS, END_HEADERS, 1, [0x88]) } else { Vec::new() };
        [head, frame(DATA, 0, 1, [])].concat()
    })
    .await;
}

#[tokio::test]
async fn heads_without_an_end() {
    check(|nth| if nth == 0 { frame(HEADERS, 0, 1, [0x88]) } else { frame(CONTINUATION, 0, 1, []) }).await;
}

//! What stays open: WebSockets and event streams of a page, in clear text and over TLS.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::webdriver::Browser;
use crate::harness::bus::{self, Bus};
use crate::harness::router;
use crate::harness::tls::Authority;

/// The host of the app; its instance serves a page, `/events` and `/socket`.
const HOST: &str = "live.localhost";

/// Opens both from the page, and tells what came by each.
const SCRIPT: &str = r#"
const done = arguments[0];
const told = {events: [], echoes: []};
const source = new EventSource("/events");
source.onmessage = event => {
  told.events.push(event.data);
  if (told.events.length === 3) { source.close(); finish(); }
};
const socket = new WebSocket(location.origin.replace("http", "ws") + "/socket?room=1");
socket.onopen = () => ["one", "two", "x".repeat(60000)].forEach(text => socket.send(text));
socket.onmessage = event => {
  told.echoes.push(event.data.length > 10 ? event.data.length : event.data);
  if (told.echoes.length === 3) { socket.close(); finish(); }
};
socket.onerror = () => done("the socket failed");
function finish() {
  if (told.events.length === 3 && told.echoes.length === 3) done(told);
}
"#;

async fn check(scheme: &str, settings: &str) {
    let bus = bus::embedded().await;
    let router = router::with(settings).on(&bus).await;
    instance(&bus).await;
    router.until(|router| router.knows(HOST)).await;
    let port = if scheme == "https" { router.tls_address().port() } else { router.address().port() };
    let browser = Browser::open(&["--ignore-certificate-errors"]).await;
    browser.go(&format!("{scheme}://{HOST}:{port}/")).await;
    browser.until_it_shows("Live").await;
    let told = browser.ask_page(SCRIPT).await;
    assert_eq!(told, json!({"events": ["1", "2", "3"], "echoes": ["one", "two", 60000]}), "{scheme}");
}

#[tokio::test]
async fn sockets_and_events_of_a_page_pass_in_clear_text() {
    check("http", "").await;
}

#[tokio::test]
async fn sockets_and_events_of_a_page_pass_over_tls() {
    let authority = Authority::new();
    let pair = authority.issue("live", &[HOST]);
    let https = format!(
        "[https]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [{{ cert = {:?}, key = {:?} }}]\n",
        pair.cert, pair.key
    );
    check("https", &https).await;
}

/// An instance that ends with the test.
async fn instance(bus: &Bus) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    let registration: Value =
        json!({"host": "127.0.0.1", "port": port, "uris": [HOST], "private_instance_id": "live-0"});
    bus.publish("router.register", &registration).await;
}

async fn serve(mut stream: TcpStream) -> Option<()> {
    loop {
        let head = head(&mut stream).await?;
        match head.split(' ').nth(1)?.split('?').next()? {
            "/events" => return events(&mut stream).await,
            "/socket" => return socket(&mut stream, &head).await,
            _ => {
                let page = "<!doctype html><title>Live</title><h1>Live</h1>";
                let length = page.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{page}");
                stream.write_all(answer.as_bytes()).await.ok()?;
            }
        }
    }
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// Three events, with time between them: each must pass before the next is there.
async fn events(stream: &mut TcpStream) -> Option<()> {
    let begin = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    stream.write_all(begin.as_bytes()).await.ok()?;
    for n in 1..=3 {
        stream.write_all(format!("data: {n}\n\n").as_bytes()).await.ok()?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let _until_the_page_closes_it = stream.read_u8().await;
    Some(())
}

/// Sends back what comes, frame by frame, without its mask.
async fn socket(stream: &mut TcpStream, head: &str) -> Option<()> {
    let is_key = |line: &&str| line.to_ascii_lowercase().starts_with("sec-websocket-key:");
    let key = head.lines().find(is_key)?.split_once(':')?.1.trim();
    let accepted = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accepted = BASE64_STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, accepted.as_bytes()));
    let begin = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accepted}\r\n\r\n"
    );
    stream.write_all(begin.as_bytes()).await.ok()?;
    loop {
        let (first, second) = (stream.read_u8().await.ok()?, stream.read_u8().await.ok()?);
        let length = match second & 0x7f {
            126 => usize::from(stream.read_u16().await.ok()?),
            127 => stream.read_u64().await.ok()? as usize,
            short => usize::from(short),
        };
        let mut mask = [0; 4];
        stream.read_exact(&mut mask).await.ok()?;
        let mut data = vec![0; length];
        stream.read_exact(&mut data).await.ok()?;
        data.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        stream.write_u8(first).await.ok()?;
        match length {
            ..126 => stream.write_u8(length as u8).await.ok()?,
            126..65_536 => {
                stream.write_u8(126).await.ok()?;
                stream.write_u16(length as u16).await.ok()?;
            }
            _ => return None,
        }
        stream.write_all(&data).await.ok()?;
        if first & 0x0f == 8 {
            return Some(()); // a close was answered by a close
        }
    }
}

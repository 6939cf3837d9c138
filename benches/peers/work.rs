//! The works: what is asked of every proxy.

use super::instance::LARGE;
use super::load::HOST;
use super::peer::Features;

/// Something to do for a proxy.
#[derive(Clone, Debug)]
pub struct Work {
    pub name: &'static str,
    pub title: &'static str,
    pub ask: Ask,
    pub tls: bool,
    /// Of the load, at a time.
    pub connections: usize,
    /// Of the response.
    pub bytes: usize,
    pub features: Features,
    /// As a browser sends them, instead of a load generator's few.
    pub many_headers: bool,
    /// Whether sessions of TLS may be resumed.
    pub resume: bool,
    /// Whether user-space instructions are counted for it on demand.
    pub countable: bool,
}

/// How clients use their connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ask {
    /// Request after request.
    Repeatedly,
    /// Request after request, 1 MiB each.
    Upload,
    /// A connection for each request.
    Once,
    /// HTTP/2 with so many requests at a time.
    Streams(usize),
    /// Message after message.
    Socket,
    /// One request, then nothing.
    Idle,
}

/// All of them, in the order of the report.
pub fn all() -> Vec<Work> {
    let small = Work {
        name: "small",
        title: "Small responses (64 bytes) on 64 kept connections",
        ask: Ask::Repeatedly,
        tls: false,
        connections: 64,
        bytes: 64,
        features: Features::default(),
        many_headers: false,
        resume: false,
        countable: true,
    };
    let other = |name, title| Work { name, title, countable: false, ..small.clone() };
    let tls = |name, title| Work { tls: true, ..other(name, title) };
    let logged = Features { log: true, ..Features::default() };
    let sticky = Features { sticky: true, ..Features::default() };
    vec![
        small.clone(),
        Work { features: logged, countable: true, ..other("log", "The same with a JSON access log") },
        Work {
            features: sticky,
            many_headers: true,
            countable: true,
            ..other("headers", "20 headers with cookies, and a sticky session")
        },
        Work { bytes: 10_240, ..other("10k", "Responses of 10 KiB") },
        Work { bytes: LARGE, connections: 8, ..other("down", "Responses of 1 MiB on 8 connections") },
        Work {
            ask: Ask::Once,
            bytes: LARGE,
            connections: 8,
            ..other("first", "Responses of 1 MiB, each on a new connection")
        },
        Work { ask: Ask::Upload, connections: 8, ..other("up", "Requests of 1 MiB on 8 connections") },
        Work { ask: Ask::Once, ..other("connect", "A new connection per request") },
        tls("tls", "Small responses over TLS 1.3 on 64 kept connections"),
        Work { ask: Ask::Once, connections: 16, ..tls("handshake", "A full TLS 1.3 handshake per request") },
        Work {
            ask: Ask::Once,
            connections: 16,
            resume: true,
            ..tls("resume", "A resumed TLS 1.3 session per request")
        },
        Work {
            ask: Ask::Streams(32),
            connections: 4,
            ..tls("h2", "HTTP/2 over TLS, 4 connections with 32 streams each")
        },
        Work {
            ask: Ask::Socket,
            ..other("websocket", "WebSocket echo (64 bytes) on 64 connections; a message is a request")
        },
        Work { ask: Ask::Idle, connections: 10_000, ..other("idle", "10,000 idle connections") },
    ]
}

impl Work {
    /// What client `n` sends, with cookies that the proxy has set.
    pub fn request(&self, n: usize, cookies: &[String]) -> Vec<u8> {
        let mut text = match self.ask {
            Ask::Upload => format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {LARGE}\r\n"),
            _ => format!("GET /bytes/{} HTTP/1.1\r\nHost: {HOST}\r\n", self.bytes),
        };
        if self.many_headers {
            text += BROWSER;
            text += &format!(
                "Cookie: _ga=GA1.2.1093410278.1763712000; theme=dark; JSESSIONID=6F1A0C9E5B7D4E2A8C3B1D0F{n:08X}"
            );
            cookies.iter().for_each(|cookie| text += &format!("; {cookie}"));
            text += "\r\n";
        } else {
            text += "User-Agent: peers/1\r\nAccept: */*\r\n";
        }
        if self.ask == Ask::Once {
            text += "Connection: close\r\n";
        }
        (text + "\r\n").into_bytes()
    }
}

/// With `Host` and `Cookie` they are 20.
const BROWSER: &str = "Connection: keep-alive\r\nCache-Control: max-age=0\r\nPragma: no-cache\r\n\
sec-ch-ua: \"Chromium\";v=\"142\", \"Not A(Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\n\
Upgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\nSec-Fetch-Site: same-origin\r\n\
Sec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\nReferer: https://app.test/cart\r\nDNT: 1\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\nPriority: u=0, i\r\n";

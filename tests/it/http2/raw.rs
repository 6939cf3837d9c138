//! HTTP/2 byte for byte: frames and header blocks as no library would send them, and what comes back.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const PRIORITIZED: u8 = 0x20;

/// One frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals that enter no table.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            string(text.as_bytes(), &mut bytes);
        }
    }
    bytes
}

/// A string without Huffman coding (RFC 7541 section 5.2).
fn string(text: &[u8], out: &mut Vec<u8>) {
    let mut left = text.len();
    if left < 127 {
        out.push(left as u8);
    } else {
        out.push(127);
        left -= 127;
        while left >= 128 {
            out.push((left % 128) as u8 | 128);
            left /= 128;
        }
        out.push(left as u8);
    }
    out.extend(text);
}

/// A frame that came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The four bytes at `at`.
    pub fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }

    /// The status of a response head: the first field of its block, in any form an encoder may choose for the first
    /// response of a connection.
    pub fn status(&self) -> u16 {
        let block = &self.payload[..];
        match block[0] {
            0x20..=0x3f => Frame { payload: block[1..].to_vec(), ..*self }.status(), // a table size first
            indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
            _ if block[1] & 0x80 == 0 => text(&block[2..5]),
            _ => huffman_digits(&block[2..2 + usize::from(block[1] & 0x7f)]),
        }
    }
}

fn text(digits: &[u8]) -> u16 {
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).expect("a status")
}

/// Digits in the code of RFC 7541 appendix B: 0 to 2 take five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let mut bits: VecDeque<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let mut status = 0;
    for _ in 0..3 {
        let mut take = |count: usize| bits.drain(..count).fold(0, |number, bit| number << 1 | u16::from(bit));
        let five = take(5);
        let digit = if five < 3 { five } else { (five << 1 | take(1)) - 0x19 + 3 };
        status = status * 10 + digit;
    }
    status
}

/// A connection that says what it is told to.
pub struct Raw {
    socket: TcpStream,
    refused: bool,
}

impl Raw {
    /// Connects, and says nothing.
    pub async fn silent(to: SocketAddr) -> Raw {
        Raw { socket: TcpStream::connect(to).await.expect("the router listens"), refused: false }
    }

    /// Connects, and begins as every client does.
    pub async fn connect(to: SocketAddr) -> Raw {
        let mut raw = Raw::silent(to).await;
        raw.send(PREFACE).await;
        raw.send(frame(SETTINGS, 0, 0, [])).await;
        raw
    }

    /// Sends what the other side still takes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.refused |= self.socket.write_all(bytes.as_ref()).await.is_err();
    }

    /// The next frame; `None` at the end, proper or not.
    pub async fn frame(&mut self) -> Option<Frame> {
        self.read().await.ok()
    }

    /// Whether the other side takes nothing more.
    pub fn is_closing(&self) -> bool {
        self.refused
    }

    async fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.socket.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes(head[5..].try_into().expect("four bytes"));
        Ok(Frame { kind: head[3], stream, payload })
    }
}

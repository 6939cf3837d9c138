//! HTTP/1 as the tests see it: a reader of its own, so that the codec under test is not judged by itself, and a stream
//! that hands out messages with their heads as the very bytes that came.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::in_time;
use super::pattern;

/// How much of a body is kept; the rest is counted and compared with the pattern, but not stored.
const KEPT_BYTES: usize = 1 << 20;

/// A request or response as it was received.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The head byte for byte, with the empty line.
    pub raw_head: Vec<u8>,
    /// Request or status line.
    pub start: String,
    /// Fields in order, names as sent.
    pub fields: Vec<(String, String)>,
    /// The first bytes of the body.
    pub body: Vec<u8>,
    /// Length of the whole body.
    pub body_bytes: u64,
    /// Whether every byte of the body was the one the test pattern has there.
    pub follows_pattern: bool,
    /// Data of each chunk as framed on the wire; empty if not chunked.
    pub chunks: Vec<usize>,
    /// Trailers of a chunked body.
    pub trailers: Vec<(String, String)>,
    /// Whether the body ended as its framing promised.
    pub complete: bool,
    /// The 1xx heads that came before.
    pub informational: Vec<Message>,
}

impl Message {
    fn of(raw_head: Vec<u8>) -> Message {
        let text: String = raw_head.iter().map(|byte| *byte as char).collect();
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.take_while(|line| !line.is_empty()).map(field).collect();
        Message { raw_head, start, fields, follows_pattern: true, complete: true, ..Message::default() }
    }

    /// Status code of a response.
    pub fn status(&self) -> u16 {
        let code = self.start.split(' ').nth(1).and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("no status line: {:?}", self.start))
    }

    /// Method of a request.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// Target of a request, byte for byte.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The first field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).into_iter().next()
    }

    /// All fields of that name, in order.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let same = |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the connection ends after this message.
    pub fn says_close(&self) -> bool {
        self.headers("connection").iter().any(|value| value.to_ascii_lowercase().contains("close"))
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().ends_with("chunked"))
    }

    fn length(&self) -> Option<u64> {
        self.header("content-length").and_then(|value| value.parse().ok())
    }

    fn take(&mut self, piece: &[u8]) {
        self.follows_pattern &= pattern::matches(self.body_bytes, piece);
        self.body_bytes += piece.len() as u64;
        let room = KEPT_BYTES.saturating_sub(self.body.len()).min(piece.len());
        self.body.extend_from_slice(&piece[..room]);
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim().to_owned())
}

/// What messages go over: TCP, or TLS over TCP.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {
    /// The connection at the bottom.
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for tokio_rustls::client::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl Socket for tokio_rustls::server::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// A connection that reads and writes messages, or any bytes.
pub struct Stream {
    socket: Box<dyn Socket>,
    unread: Vec<u8>,
}

impl Stream {
    /// Takes a connected socket.
    pub fn new(socket: impl Socket + 'static) -> Stream {
        socket.tcp().set_nodelay(true).expect("a connected socket takes options");
        Stream { socket: Box::new(socket), unread: Vec::new() }
    }

    /// Connects to `address`.
    pub async fn connect(address: SocketAddr) -> Stream {
        let connecting = in_time("connecting", TcpStream::connect(address));
        Stream::new(connecting.await.unwrap_or_else(|error| panic!("cannot connect to {address}: {error}")))
    }

    /// Writes all bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket.write_all(bytes.as_ref()).await?;
        self.socket.flush().await
    }

    /// Writes as many bytes as the socket takes now, at least one, waiting for that; how many.
    pub async fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes).await
    }

    /// Says that no more bytes will follow, and keeps reading.
    pub async fn finish_sending(&mut self) {
        self.socket.shutdown().await.expect("a connected socket can be half closed");
    }

    /// Closes with a reset instead of a farewell.
    #[expect(deprecated, reason = "lingering for no time does not block, which is what the deprecation is about")]
    pub fn reset(self) {
        self.socket.tcp().set_linger(Some(std::time::Duration::ZERO)).expect("a connected socket takes options");
    }

    /// Reads a response to a request with `method`, with the 1xx heads before it.
    pub async fn response_to(&mut self, method: &str) -> io::Result<Message> {
        let mut informational = Vec::new();
        loop {
            let head = self.head().await?.ok_or_else(|| io::Error::other("closed instead of a response"))?;
            let status = head.status();
            if (100..200).contains(&status) && status != 101 {
                informational.push(head);
                continue;
            }
            let mut response = Message { informational, ..head };
            if method != "HEAD" && status != 204 && status != 304 && status != 101 {
                self.body_into(&mut response).await?;
            }
            return Ok(response);
        }
    }

    /// Reads a request's head; `None` if the connection was closed before one began.
    pub async fn head(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                let raw: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Ok(Some(Message::of(raw)));
            }
            if self.fill().await? == 0 {
                return if self.unread.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Reads the body that `message`'s head announces. Requests without a framing header have none.
    pub async fn request_body_into(&mut self, message: &mut Message) -> io::Result<()> {
        if message.is_chunked() || message.length().is_some() { self.body_into(message).await } else { Ok(()) }
    }

    async fn body_into(&mut self, message: &mut Message) -> io::Result<()> {
        message.complete = false;
        if message.is_chunked() {
            self.chunks_into(message).await?;
        } else if let Some(length) = message.length() {
            self.bytes_into(message, length).await?;
        } else {
            while !self.unread.is_empty() || self.fill().await? > 0 {
                message.take(&std::mem::take(&mut self.unread));
            }
        }
        message.complete = true;
        Ok(())
    }

    async fn bytes_into(&mut self, message: &mut Message, length: u64) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            if self.unread.is_empty() && self.fill().await? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{left} of {length} body bytes missing"),
                ));
            }
            let now = self.unread.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            message.take(&self.unread[..now]);
            self.unread.drain(..now);
            left -= now as u64;
        }
        Ok(())
    }

    async fn chunks_into(&mut self, message: &mut Message) -> io::Result<()> {
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| io::Error::other(format!("chunk size {line:?}")))?;
            if size == 0 {
                break;
            }
            self.bytes_into(message, size as u64).await?;
            message.chunks.push(size);
            let behind = self.line().await?;
            if !behind.is_empty() {
                return Err(io::Error::other(format!("{behind:?} behind a chunk")));
            }
        }
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(());
            }
            message.trailers.push(field(&line));
        }
    }

    /// Reads up to CR LF, which is not part of the answer.
    pub async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Ok(line[..end].iter().map(|byte| *byte as char).collect());
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Whatever comes next, at least one byte; empty at the end of the connection.
    pub async fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.unread.is_empty() {
            self.fill().await?;
        }
        Ok(std::mem::take(&mut self.unread))
    }

    /// Everything up to the end of the connection, however it ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.unread);
        loop {
            match in_time("the end of the connection", self.some()).await {
                Ok(piece) if !piece.is_empty() => all.extend_from_slice(&piece),
                _ => return all,
            }
        }
    }

    /// Resolves when the other end closes or resets; panics if it says something first.
    pub async fn closed(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "expected the end, got {:?}", String::from_utf8_lossy(&rest));
    }

    /// Resolves when the other end is gone; what it says until then is kept for later.
    pub async fn gone(&mut self) {
        while let Ok(1..) = self.fill().await {}
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let count = self.socket.read(&mut buffer).await?;
        self.unread.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

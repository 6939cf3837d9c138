//! Clients: requests written as they would be read aloud, on connections of their own or kept.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::pin::Pin;

use super::in_time;
use super::message::{Message, Stream};

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    to: SocketAddr,
    method: String,
    host: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// `method` on `url` (`host[/path]`), sent to the address.
    pub fn new(to: SocketAddr, method: &str, url: &str) -> Request {
        let (host, path) = url.split_once('/').unwrap_or((url, ""));
        let target = format!("/{path}");
        Request { to, method: method.to_owned(), host: host.to_owned(), target, fields: Vec::new(), body: Vec::new() }
    }

    /// One more field.
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A cookie.
    pub fn cookie(self, pair: &str) -> Request {
        self.header("Cookie", pair)
    }

    /// A body with its length.
    pub fn body(mut self, bytes: impl AsRef<[u8]>) -> Request {
        self.body = bytes.as_ref().to_vec();
        let length = self.body.len().to_string();
        self.header("Content-Length", &length)
    }

    /// A body in chunks, with trailers.
    pub fn chunked(mut self, chunks: &[&str], trailers: &[(&str, &str)]) -> Request {
        for chunk in chunks {
            self.body.extend_from_slice(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes());
        }
        self.body.extend_from_slice(b"0\r\n");
        for (name, value) in trailers {
            self.body.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        self.body.extend_from_slice(b"\r\n");
        self.header("Transfer-Encoding", "chunked")
    }

    /// The request as it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let fields: String = self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", self.method, self.target, self.host);
        [head.as_bytes(), &self.body].concat()
    }

    /// Sends it on a new connection and reads the response.
    pub async fn sent(self) -> Message {
        Client::connect(self.to).await.send(self).await
    }

    /// Sends it now, while the test goes on.
    pub fn begin(self) -> Pending {
        Pending(tokio::spawn(self.sent()))
    }
}

impl IntoFuture for Request {
    type Output = Message;
    type IntoFuture = Pin<Box<dyn Future<Output = Message> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.sent())
    }
}

/// A request on its way.
pub struct Pending(tokio::task::JoinHandle<Message>);

impl Pending {
    /// The response.
    pub async fn response(self) -> Message {
        self.0.await.expect("a client does not panic")
    }

    /// Closes the connection without waiting for the response.
    pub async fn abandon(self) {
        self.0.abort();
        let _cancelled = self.0.await;
    }
}

/// A client that keeps its connection.
pub struct Client {
    stream: Stream,
}

impl Client {
    /// Connects.
    pub async fn connect(to: SocketAddr) -> Client {
        Client { stream: Stream::connect(to).await }
    }

    /// A client on a connection that stands.
    pub fn over(stream: Stream) -> Client {
        Client { stream }
    }

    /// Sends `request` on this connection and reads the response.
    #[track_caller]
    pub fn send(&mut self, request: Request) -> impl Future<Output = Message> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            // A router that refuses a request may answer before it has read it all: then writing fails, reading does not.
            let _refused = self.stream.send(request.bytes()).await;
            let response = in_time("a response", self.stream.response_to(&request.method)).await;
            response.unwrap_or_else(|error| panic!("{caller}: {} {}: {error}", request.method, request.target))
        }
    }

    /// The bare connection.
    pub fn into_stream(self) -> Stream {
        self.stream
    }
}

//! A client of HTTP/2 that sees more than a friendly one does.

use std::future::poll_fn;
use std::net::SocketAddr;

use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{SendStream, client};
use hyper::Request;
use hyper::body::Bytes;
use tokio::net::TcpStream;

use crate::harness::in_time;

/// One connection.
pub struct Caller {
    requests: SendRequest<Bytes>,
}

impl Caller {
    /// Connects in clear text.
    pub async fn connect(to: SocketAddr) -> Caller {
        let socket = TcpStream::connect(to).await.expect("the router listens");
        let (requests, connection): (_, client::Connection<_, _>) =
            Builder::new().handshake(socket).await.expect("the router speaks HTTP/2");
        tokio::spawn(connection);
        Caller { requests }
    }

    /// Asks `shop.test`; `ended`: without a body.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        ended: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut request = Request::builder().method(method).uri(format!("http://shop.test{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        in_time("a free stream", poll_fn(|cx| self.requests.poll_ready(cx))).await.expect("the connection lives");
        self.requests.send_request(request, ended).expect("the connection lives")
    }

    /// Asks `shop.test` for a tunnel of another protocol.
    pub async fn ask_tunnel(&mut self, protocol: &'static str) -> (ResponseFuture, SendStream<Bytes>) {
        let settled = poll_fn(|cx| {
            if self.requests.is_extended_connect_protocol_enabled() {
                return std::task::Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        });
        in_time("leave to ask for other protocols", tokio::task::unconstrained(settled)).await;
        let request = Request::builder().method("CONNECT").uri("http://shop.test/chat");
        let mut request = request.header("sec-websocket-version", "13").body(()).expect("a request");
        request.extensions_mut().insert(Protocol::from_static(protocol));
        self.requests.send_request(request, false).expect("the connection lives")
    }
}

/// Sends all of `data`, as the window allows.
pub async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        if stream.capacity() == 0 {
            let granted = poll_fn(|cx| stream.poll_capacity(cx)).await;
            granted.expect("the stream lives").expect("the stream lives");
        }
        let piece = data.split_to(stream.capacity().min(data.len()));
        stream.send_data(piece, false).expect("the stream lives");
    }
}

//! The load: clients that ask again as soon as they have their answer, in all the ways of the works.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::head::{self, Head};
use super::instance::{LARGE, SOCKET_KEY};
use super::work::{Ask, Work};

/// The host of the one route there is.
pub const HOST: &str = "app.test";

/// What the clients of a round share.
#[derive(Default)]
pub struct Tally {
    /// Nobody asks again once this is set.
    pub stopped: Cell<bool>,
    /// Whether answers count.
    pub recording: Cell<bool>,
    /// How many may still be asked for, if that is limited.
    pub budget: Cell<Option<u64>>,
    /// Nanoseconds from question to the end of the answer.
    pub latencies: RefCell<Vec<u32>>,
    pub errors: Cell<u64>,
    pub resumed: Cell<u64>,
    pub full_handshakes: Cell<u64>,
    pub last_error: RefCell<String>,
}

impl Tally {
    fn may_ask(&self) -> bool {
        match self.budget.get() {
            Some(0) => false,
            Some(left) => {
                self.budget.set(Some(left - 1));
                !self.stopped.get()
            }
            None => !self.stopped.get(),
        }
    }

    fn answered(&self, asked: Instant) {
        if self.recording.get() {
            self.latencies.borrow_mut().push(asked.elapsed().as_nanos().try_into().unwrap_or(u32::MAX));
        }
    }

    async fn failed(&self, error: io::Error) {
        if !self.stopped.get() {
            self.errors.set(self.errors.get() + 1);
            *self.last_error.borrow_mut() = error.to_string();
        }
        // Whoever refuses at once shall not be asked in a tight loop.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Where and how clients connect.
#[derive(Clone)]
pub struct Target {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub tls: Arc<ClientConfig>,
}

/// Starts the clients of a work; they end when the tally says so.
pub fn start(work: &Work, target: &Target, tally: &Rc<Tally>) -> Vec<JoinHandle<()>> {
    let client = |n| {
        let (work, mut target, tally) = (work.clone(), target.clone(), tally.clone());
        if work.resume {
            // A ticket is good for one connection, so each client keeps its own.
            Arc::make_mut(&mut target.tls).resumption = Resumption::in_memory_sessions(8);
        }
        spawn_local(async move { client(n, &work, &target, &tally).await })
    };
    (0..work.connections).map(client).collect()
}

async fn client(n: usize, work: &Work, target: &Target, tally: &Rc<Tally>) {
    while !tally.stopped.get() && tally.budget.get() != Some(0) {
        let lived = match work.ask {
            Ask::Once => once(work, target, tally).await,
            Ask::Streams(count) => streams(count, target, tally).await,
            Ask::Socket => socket(target, tally).await,
            Ask::Repeatedly | Ask::Upload | Ask::Idle => match work.tls {
                true => repeatedly(n, work, connect_tls(target, tally).await, tally).await,
                false => repeatedly(n, work, connect(target.http).await, tally).await,
            },
        };
        if let Err(error) = lived {
            tally.failed(error).await;
        }
    }
}

/// Many requests on one connection.
async fn repeatedly<S>(n: usize, work: &Work, stream: io::Result<S>, tally: &Tally) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = Connection { stream: stream?, buffer: vec![0; 65_536], filled: 0 };
    let mut request = work.request(n, &[]);
    while tally.may_ask() {
        let asked = Instant::now();
        let upload = if work.ask == Ask::Upload { LARGE } else { 0 };
        let head = connection.exchange(&request, upload).await?;
        tally.answered(asked);
        if work.features.sticky && !head.cookies.is_empty() {
            request = work.request(n, &head.cookies);
        }
    }
    Ok(())
}

/// A connection for one request.
async fn once(work: &Work, target: &Target, tally: &Tally) -> io::Result<()> {
    let request = work.request(0, &[]);
    let buffer = vec![0; 16_384];
    if !tally.may_ask() {
        return Ok(());
    }
    let asked = Instant::now();
    if work.tls {
        let stream = connect_tls(target, tally).await?;
        Connection { stream, buffer, filled: 0 }.exchange(&request, 0).await?;
    } else {
        let stream = connect(target.http).await?;
        Connection { stream, buffer, filled: 0 }.exchange(&request, 0).await?;
    }
    tally.answered(asked);
    Ok(())
}

/// One connection of HTTP/2 with requests on `count` streams at any time.
async fn streams(count: usize, target: &Target, tally: &Rc<Tally>) -> io::Result<()> {
    let mut alpn = (*target.tls).clone();
    alpn.alpn_protocols = vec![b"h2".to_vec()];
    let stream = connect_tls(&Target { tls: Arc::new(alpn), ..target.clone() }, tally).await?;
    let (sender, connection) =
        http2::Builder::new(Local).handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let connection = spawn_local(connection);
    let stream = |_| {
        let (mut sender, tally) = (sender.clone(), tally.clone());
        spawn_local(async move {
            while tally.may_ask() {
                let asked = Instant::now();
                let request = http::Request::get(format!("https://{HOST}/bytes/64")).header("user-agent", "peers");
                let request = request.header("accept", "*/*").body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
                sender.ready().await.map_err(io::Error::other)?;
                let response = sender.send_request(request).await.map_err(io::Error::other)?;
                if response.status() != 200 {
                    return Err(io::Error::other(response.status().to_string()));
                }
                response.into_body().collect().await.map_err(io::Error::other)?;
                tally.answered(asked);
            }
            Ok(())
        })
    };
    let streams: Vec<JoinHandle<io::Result<()>>> = (0..count).map(stream).collect();
    let mut lived = Ok(());
    for stream in streams {
        lived = lived.and(stream.await.map_err(io::Error::other)?);
    }
    connection.abort();
    lived
}

/// Runs hyper's tasks on this thread.
#[derive(Clone)]
struct Local;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}

/// A WebSocket: a message goes out as soon as the one before has come back.
async fn socket(target: &Target, tally: &Tally) -> io::Result<()> {
    let mut stream = connect(target.http).await?;
    let upgrade = format!(
        "GET /socket HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {SOCKET_KEY}\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await?;
    let (mut buffer, mut filled) = (vec![0; 4096], 0);
    let head = head::read(&mut stream, &mut buffer, &mut filled).await?;
    match head.map_or(0, |head| head.status) {
        101 => {}
        status => return Err(io::Error::other(format!("status {status} instead of 101"))),
    }
    // A masked text of 64 bytes; the mask is 0.
    let frame = [&[0x81, 0x80 | 64, 0, 0, 0, 0][..], &[b'x'; 64]].concat();
    let mut back = vec![0; frame.len()];
    while tally.may_ask() {
        let asked = Instant::now();
        stream.write_all(&frame).await?;
        stream.read_exact(&mut back).await?;
        tally.answered(asked);
    }
    Ok(())
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connect_tls(target: &Target, tally: &Tally) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
    let stream = TlsConnector::from(target.tls.clone()).connect(name, connect(target.https).await?).await?;
    let count = match stream.get_ref().1.handshake_kind() {
        Some(HandshakeKind::Resumed) => &tally.resumed,
        _ => &tally.full_handshakes,
    };
    count.set(count.get() + u64::from(tally.recording.get()));
    Ok(stream)
}

/// A connection of HTTP/1 as a client holds it.
pub struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
    filled: usize,
}

impl Connection<TcpStream> {
    /// One with small buffers, for many of them.
    pub async fn open(address: SocketAddr) -> io::Result<Connection<TcpStream>> {
        Ok(Connection { stream: connect(address).await?, buffer: vec![0; 2048], filled: 0 })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A request and its whole answer, which must be 200.
    pub async fn exchange(&mut self, request: &[u8], upload: usize) -> io::Result<Head> {
        let head = self.ask(request, upload).await?;
        self.skip(head.body).await?;
        Ok(head)
    }

    /// A request and its answer with the body.
    pub async fn fetch(&mut self, request: &[u8]) -> io::Result<String> {
        let head = self.ask(request, 0).await?;
        while self.filled < head.body {
            match self.stream.read(&mut self.buffer[self.filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.filled += read,
            }
        }
        let body = String::from_utf8_lossy(&self.buffer[..head.body]).into_owned();
        self.skip(head.body).await?;
        Ok(body)
    }

    async fn ask(&mut self, request: &[u8], upload: usize) -> io::Result<Head> {
        static ZEROS: [u8; LARGE] = [b'0'; LARGE];
        self.stream.write_all(request).await?;
        self.stream.write_all(&ZEROS[..upload]).await?;
        self.stream.flush().await?;
        let head = head::read(&mut self.stream, &mut self.buffer, &mut self.filled).await?;
        let head = head.ok_or(io::ErrorKind::UnexpectedEof)?;
        if !matches!(head.status, 200 | 202) || head.chunked {
            return Err(io::Error::other(format!("status {}, chunked: {}", head.status, head.chunked)));
        }
        self.buffer.copy_within(head.length..self.filled, 0);
        self.filled -= head.length;
        Ok(head)
    }

    async fn skip(&mut self, body: usize) -> io::Result<()> {
        let here = self.filled.min(body);
        self.buffer.copy_within(here..self.filled, 0);
        self.filled -= here;
        let mut left = body - here;
        while left > 0 {
            let most = left.min(self.buffer.len());
            match self.stream.read(&mut self.buffer[..most]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => left -= read,
            }
        }
        Ok(())
    }
}

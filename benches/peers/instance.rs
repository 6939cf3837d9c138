//! The instance behind the proxies. It answers at once and shares its thread with the load.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::head::{self, Head};

/// The largest body that is served.
pub const LARGE: usize = 1 << 20;
/// Where an instance shows the request as it came.
pub const ECHO: &str = "/echo";
/// What RFC 6455 wants as the answer to `SOCKET_KEY`.
const SOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The key of the example in RFC 6455.
pub const SOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Instances on ports of their own; they end with the runtime.
pub struct Instances {
    pub addresses: Vec<SocketAddr>,
    /// Connections that proxies made.
    pub accepted: Rc<Cell<u64>>,
}

impl Instances {
    /// Listens on `count` free ports.
    pub async fn start(count: usize) -> io::Result<Instances> {
        let accepted = Rc::new(Cell::new(0));
        let mut addresses = Vec::new();
        for _ in 0..count {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            addresses.push(listener.local_addr()?);
            let accepted = accepted.clone();
            spawn_local(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    accepted.set(accepted.get() + 1);
                    // A proxy that breaks a connection shows in the load's count of errors.
                    spawn_local(async move { serve(stream).await.ok() });
                }
            });
        }
        Ok(Instances { addresses, accepted })
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 65_536];
    let mut filled = 0;
    loop {
        let Some(head) = head::read(&mut stream, &mut buffer, &mut filled).await? else { return Ok(()) };
        let target = head.target.as_str();
        if target == "/socket" {
            return echo(stream, &buffer[head.length..filled]).await;
        }
        let shown = (target == ECHO).then(|| buffer[..head.length].to_vec());
        discard_body(&mut stream, &mut buffer, &mut filled, &head).await?;
        match shown {
            Some(shown) => answer(&mut stream, &shown).await?,
            None => {
                let size = target.strip_prefix("/bytes/").and_then(|size| size.parse().ok()).unwrap_or(64);
                answer(&mut stream, &ZEROS[..LARGE.min(size)]).await?;
            }
        }
    }
}

static ZEROS: [u8; LARGE] = [b'0'; LARGE];

async fn answer(stream: &mut TcpStream, body: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(256 + body.len().min(16_384));
    bytes.extend_from_slice(
        b"HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 10:00:00 GMT\r\nServer: app\r\nCache-Control: no-cache\r\n\
        Content-Type: text/plain; charset=utf-8\r\nContent-Length: ",
    );
    bytes.extend_from_slice(body.len().to_string().as_bytes());
    bytes.extend_from_slice(b"\r\n\r\n");
    let (with_head, rest) = body.split_at(body.len().min(16_384));
    bytes.extend_from_slice(with_head);
    stream.write_all(&bytes).await?;
    stream.write_all(rest).await
}

/// Reads past the body and leaves in the buffer what came behind it.
async fn discard_body(stream: &mut TcpStream, buffer: &mut [u8], filled: &mut usize, head: &Head) -> io::Result<()> {
    if head.chunked {
        return Err(io::Error::other("the load sends no chunks, so no proxy should"));
    }
    let here = (*filled - head.length).min(head.body);
    buffer.copy_within(head.length + here..*filled, 0);
    *filled -= head.length + here;
    let mut left = head.body - here;
    while left > 0 {
        let most = left.min(buffer.len());
        match stream.read(&mut buffer[..most]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left -= read,
        }
    }
    Ok(())
}

/// A WebSocket to the proxies: frames come back as they are.
async fn echo(mut stream: TcpStream, first: &[u8]) -> io::Result<()> {
    let switching = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {SOCKET_ACCEPT}\r\n\r\n"
    );
    stream.write_all(switching.as_bytes()).await?;
    stream.write_all(first).await?;
    let mut buffer = vec![0; 4096];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read]).await?,
        }
    }
}

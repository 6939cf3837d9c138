//! Those who hang on, in a process of their own.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::spawn_local;
use tokio::time::{interval, sleep};

/// How a client hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connects and says nothing after its first request.
    Silent,
    /// Sends its head byte by byte.
    SlowHead,
    /// Reads a large answer byte by byte.
    SlowRead,
    /// Sends its body byte by byte.
    SlowBody,
}

impl Kind {
    /// All there are.
    pub const ALL: [Kind; 4] = [Kind::Silent, Kind::SlowHead, Kind::SlowRead, Kind::SlowBody];

    /// For the table, and as `FromStr` understands it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Silent => "idle after a request",
            Kind::SlowHead => "a head, one byte a second",
            Kind::SlowRead => "reading 8 MiB, 16 bytes a second",
            Kind::SlowBody => "a body, one byte a second",
        }
    }
}

impl FromStr for Kind {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Kind> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        kind.ok_or_else(|| io::Error::other(format!("{text} is no kind of client")))
    }
}

/// `count` of them, until it is killed. Prints a line once most hold on.
pub async fn hang_on(kind: Kind, to: SocketAddr, count: usize) -> io::Result<()> {
    let holding = Rc::new(Cell::new(0));
    for n in 0..count {
        let holding = holding.clone();
        spawn_local(async move {
            sleep(Duration::from_micros(500) * n as u32).await; // not all in one instant
            loop {
                let _ended = hang(kind, to, &holding).await; // and again, as attackers do
                sleep(Duration::from_millis(100)).await;
            }
        });
    }
    while holding.get() < count * 9 / 10 {
        sleep(Duration::from_millis(5)).await;
    }
    println!("{} hold on", holding.get());
    io::stdout().flush()?;
    std::future::pending().await
}

struct Held<'a>(&'a Cell<usize>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn hang(kind: Kind, to: SocketAddr, holding: &Cell<usize>) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    if kind == Kind::SlowRead {
        socket.set_recv_buffer_size(4096)?;
    }
    let mut wire = socket.connect(to).await?;
    holding.set(holding.get() + 1);
    let _held = Held(holding);
    let mut tick = interval(Duration::from_secs(1));
    match kind {
        Kind::Silent => {
            wire.write_all(b"GET / HTTP/1.1\r\nHost: hung.test\r\n\r\n").await?;
            while wire.read(&mut [0; 4096]).await? > 0 {}
        }
        Kind::SlowHead => {
            wire.write_all(b"GET / HTTP/1.1\r\nHost: hung.test\r\nX-Slow: ").await?;
            loop {
                tick.tick().await;
                wire.write_all(b"x").await?;
            }
        }
        Kind::SlowBody => {
            wire.write_all(b"POST / HTTP/1.1\r\nHost: hung.test\r\nContent-Length: 100000\r\n\r\n").await?;
            loop {
                tick.tick().await;
                wire.write_all(b"x").await?;
            }
        }
        Kind::SlowRead => {
            wire.write_all(b"GET /large HTTP/1.1\r\nHost: hung.test\r\n\r\n").await?;
            loop {
                tick.tick().await;
                if wire.read(&mut [0; 16]).await? == 0 {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

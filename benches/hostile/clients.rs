//! Those who ask, those who hang on, and who answers them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

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
    /// For the table.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Silent => "idle after a request",
            Kind::SlowHead => "a head, one byte a second",
            Kind::SlowRead => "reading 8 MiB, 16 bytes a second",
            Kind::SlowBody => "a body, one byte a second",
        }
    }
}

/// Clients that hang on.
pub struct Hanging {
    tasks: JoinSet<()>,
    holding: Arc<AtomicUsize>,
}

impl Hanging {
    /// Begins with `count` of them; returns when most hold on.
    pub async fn begin(kind: Kind, to: SocketAddr, count: usize) -> Hanging {
        let mut hanging = Hanging { tasks: JoinSet::new(), holding: Arc::default() };
        for n in 0..count {
            let holding = hanging.holding.clone();
            hanging.tasks.spawn(async move {
                sleep(Duration::from_micros(500) * n as u32).await; // not all in one instant
                loop {
                    let _ended = hang(kind, to, &holding).await; // and again, as attackers do
                    sleep(Duration::from_millis(100)).await;
                }
            });
        }
        while hanging.holding() < count * 9 / 10 {
            sleep(Duration::from_millis(20)).await;
        }
        hanging
    }

    /// How many have a connection.
    pub fn holding(&self) -> usize {
        self.holding.load(Ordering::Relaxed)
    }

    /// Ends them all.
    pub async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

struct Held<'a>(&'a AtomicUsize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn hang(kind: Kind, to: SocketAddr, holding: &AtomicUsize) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    if kind == Kind::SlowRead {
        socket.set_recv_buffer_size(4096)?;
    }
    let mut wire = socket.connect(to).await?;
    holding.fetch_add(1, Ordering::Relaxed);
    let _held = Held(holding);
    let mut tick = interval(Duration::from_secs(1));
    match kind {
        Kind::Silent => {
            wire.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await?;
            while wire.read(&mut [0; 4096]).await? > 0 {}
        }
        Kind::SlowHead => {
            wire.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nX-Slow: ").await?;
            loop {
                tick.tick().await;
                wire.write_all(b"x").await?;
            }
        }
        Kind::SlowBody => {
            wire.write_all(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100000\r\n\r\n").await?;
            loop {
                tick.tick().await;
                wire.write_all(b"x").await?;
            }
        }
        Kind::SlowRead => {
            wire.write_all(b"GET /large HTTP/1.1\r\nHost: shop.test\r\n\r\n").await?;
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

/// What ordinary clients noticed.
pub struct Noticed {
    /// Median.
    pub p50: Duration,
    /// One of a hundred took longer.
    pub p99: Duration,
    /// Without the right answer.
    pub failed: usize,
}

/// Asks `rate` times a second for `time`, from 20 clients, each answer timed from when it should have been asked for.
pub async fn visit(to: SocketAddr, rate: u32, time: Duration) -> Noticed {
    const CLIENTS: u32 = 20;
    let mut visitors = JoinSet::new();
    for n in 0..CLIENTS {
        visitors.spawn(async move {
            let mut wire = TcpStream::connect(to).await.expect("the router accepts");
            wire.set_nodelay(true).expect("a socket takes options");
            let mut tick = interval(Duration::from_secs(1) * CLIENTS / rate);
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            sleep(Duration::from_millis(u64::from(n))).await;
            let (end, mut took, mut failed) = (Instant::now() + time, Vec::new(), 0);
            while Instant::now() < end {
                let due = tick.tick().await;
                match ask(&mut wire).await {
                    Ok(true) => took.push(due.elapsed()),
                    _ => {
                        failed += 1;
                        wire = TcpStream::connect(to).await.expect("the router accepts");
                    }
                }
            }
            (took, failed)
        });
    }
    let (mut all, mut failed) = (Vec::new(), 0);
    while let Some(visitor) = visitors.join_next().await {
        let (took, missed) = visitor.expect("a visitor does not panic");
        all.extend(took);
        failed += missed;
    }
    all.sort_unstable();
    let at = |share: usize| all[all.len() * share / 100];
    Noticed { p50: at(50), p99: at(99), failed }
}

async fn ask(wire: &mut TcpStream) -> std::io::Result<bool> {
    wire.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        if wire.read_buf(&mut answer).await? == 0 {
            return Ok(false);
        }
    }
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

/// An instance that answers at once, with 8 MiB where `/large` is asked for.
pub async fn instance() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        loop {
            let Ok((wire, _)) = listener.accept().await else { continue };
            tokio::spawn(answer(wire));
        }
    });
    address
}

async fn answer(mut wire: TcpStream) -> std::io::Result<()> {
    let mut input = Vec::new();
    loop {
        while !input.windows(4).any(|end| end == b"\r\n\r\n") {
            if wire.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        }
        if input.starts_with(b"GET /large") {
            wire.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n").await?;
            for _ in 0..512 {
                wire.write_all(&[b'x'; 16 * 1024]).await?;
            }
        } else if input.starts_with(b"POST") {
            while wire.read(&mut [0; 1024]).await? > 0 {} // it will never come to its end
            return Ok(());
        } else {
            wire.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?;
        }
        input.clear();
    }
}

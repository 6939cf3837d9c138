//! Those who ask as usual.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// What they noticed.
pub struct Noticed {
    /// Median.
    pub p50: Duration,
    /// One of a hundred took longer.
    pub p99: Duration,
    /// Without the right answer.
    pub failed: usize,
}

/// Asks `rate` times a second for `time`, from 20 clients. An answer is timed from when it was asked for; and from when it
/// should have been, if the one before was late.
pub async fn visit(to: SocketAddr, rate: u32, time: Duration) -> Noticed {
    const CLIENTS: u32 = 20;
    let gap = Duration::from_secs(1) * CLIENTS / rate;
    let begun = Instant::now();
    let mut visitors = JoinSet::new();
    for n in 0..CLIENTS {
        visitors.spawn_local(async move {
            let mut wire = connect(to).await;
            let (mut due, mut took, mut failed) = (begun + gap * n / CLIENTS, Vec::new(), 0);
            while due < begun + time {
                let mut asked = due;
                if Instant::now() < due {
                    sleep_until(due).await;
                    asked = Instant::now();
                }
                due += gap;
                match ask(&mut wire).await {
                    Ok(true) => took.push(asked.elapsed()),
                    _ => {
                        failed += 1;
                        wire = connect(to).await;
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

async fn connect(to: SocketAddr) -> TcpStream {
    let wire = TcpStream::connect(to).await.expect("the router accepts");
    wire.set_nodelay(true).expect("a socket takes options");
    wire
}

async fn ask(wire: &mut TcpStream) -> io::Result<bool> {
    wire.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        if wire.read_buf(&mut answer).await? == 0 {
            return Ok(false);
        }
    }
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

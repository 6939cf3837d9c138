//! An instance as a process of its own: it serves one request after the other and takes its time.

use std::cell::Cell;
use std::hint::black_box;
use std::io::{self, Write};
use std::rc::Rc;
use std::str::FromStr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use weighbridge::domain::dice::Dice;

/// What a request costs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Service {
    /// Time, exponentially distributed around so many microseconds; no CPU, so nobody else feels it.
    Takes(u64),
    /// CPU, exponentially distributed around so many turns of a loop.
    Burns(u64),
    /// Nothing: it answers 503 at once.
    Refuses,
}

impl Service {
    /// As `FromStr` understands it.
    pub fn argument(self) -> String {
        match self {
            Service::Takes(micros) => format!("takes:{micros}"),
            Service::Burns(turns) => format!("burns:{turns}"),
            Service::Refuses => "refuses:0".into(),
        }
    }
}

impl FromStr for Service {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Service> {
        match text.split_once(':') {
            Some(("takes", micros)) => Ok(Service::Takes(micros.parse().map_err(io::Error::other)?)),
            Some(("burns", turns)) => Ok(Service::Burns(turns.parse().map_err(io::Error::other)?)),
            Some(("refuses", _)) => Ok(Service::Refuses),
            _ => Err(io::Error::other(format!("{text} is no service"))),
        }
    }
}

/// Prints its port and serves until it is killed.
pub async fn serve(service: Service) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    let free_at = Rc::new(Cell::new(Instant::now()));
    let dice = Rc::new(Cell::new(0));
    loop {
        let (stream, _) = listener.accept().await?;
        let (free_at, dice) = (free_at.clone(), dice.clone());
        // Whoever leaves is not missed.
        spawn_local(async move { answer(stream, service, &free_at, &dice).await.ok() });
    }
}

async fn answer(mut stream: TcpStream, service: Service, free_at: &Cell<Instant>, seed: &Cell<u64>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    // The router sends a small head in one piece and waits for its answer.
    while stream.read(&mut buffer).await? > 0 {
        seed.set(seed.get() + 1);
        let factor = -(1.0 - Dice::seeded(seed.get()).share()).ln();
        match service {
            Service::Takes(micros) => {
                let takes = Duration::from_secs_f64(micros as f64 * factor / 1e6);
                free_at.set(free_at.get().max(Instant::now()) + takes);
                tokio::time::sleep_until(free_at.get().into()).await;
            }
            Service::Burns(turns) => burn((turns as f64 * factor) as u64),
            Service::Refuses => {}
        }
        let status = if service == Service::Refuses { "503 Service Unavailable" } else { "200 OK" };
        stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").as_bytes()).await?;
    }
    Ok(())
}

/// Keeps the CPU busy for so many turns.
pub fn burn(turns: u64) {
    for turn in 0..turns {
        black_box(turn);
    }
}

/// How many turns a millisecond has here; the best of some, as others may have the CPU meanwhile.
pub fn turns_per_millisecond() -> u64 {
    const TURNS: u64 = 1_000_000;
    let fastest = (0..50).map(|_| {
        let begun = Instant::now();
        burn(TURNS);
        begun.elapsed()
    });
    let fastest = fastest.min().unwrap_or(Duration::from_millis(1));
    (TURNS as f64 * 1e-3 / fastest.as_secs_f64()) as u64
}

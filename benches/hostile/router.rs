//! What the system says about the router and about all sockets together.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::process::Router;

impl Router {
    /// Waits until it serves.
    pub async fn ready(&self) {
        while TcpStream::connect(self.http).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Memory in RAM.
    pub fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).expect("the router runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory is known");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.0.id())).expect("the router runs").count()
    }

    /// A metric without labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let mut admin = TcpStream::connect(self.admin).await.expect("the admin port is open");
        admin.write_all(b"GET /metrics HTTP/1.0\r\nHost: a\r\n\r\n").await.expect("it reads");
        let mut page = String::new();
        admin.read_to_string(&mut page).await.expect("it answers");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.expect("the metric is there").parse().expect("a number")
    }

    /// Connections of clients.
    pub async fn connections(&self) -> usize {
        self.metric("weighbridge_connections_open").await as usize
    }

    /// Waits until nobody hangs on any more.
    pub async fn until_connections_are_few(&self) {
        while self.connections().await > 100 {
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Memory that the kernel holds for all connections of this machine, both ends.
pub fn kernel_kib() -> u64 {
    const PAGE_KIB: u64 = 4;
    let text = fs::read_to_string("/proc/net/sockstat").expect("Linux tells");
    let line = text.lines().find(|line| line.starts_with("TCP:")).expect("it counts TCP");
    let pages = line.rsplit(' ').next().and_then(|pages| pages.parse::<u64>().ok()).expect("memory comes last");
    pages * PAGE_KIB
}

/// As many as the system allows.
pub fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("up to the hard limit");
}

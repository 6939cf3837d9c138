//! The router as a process, and what the system says about it.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// A running router; it ends with this.
pub struct Router {
    /// Where clients connect.
    pub address: SocketAddr,
    admin: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Router {
    /// Starts one that sends `shop.test` to `instance`.
    pub fn start(instance: SocketAddr) -> Router {
        let [address, admin] = [free(), free()];
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let file = folder.path().join("weighbridge.toml");
        let text = format!(
            "workers = 2\nhttp.listen = [\"{address}\"]\nadmin.listen = \"{admin}\"\naccess_log.path = \"\"\nlog.level = \"error\"\n\
             [[route]]\nhost = \"shop.test\"\ninstances = [{{ host = \"{}\", port = {} }}]\n",
            instance.ip(),
            instance.port()
        );
        fs::write(&file, text).expect("a temporary file can be written");
        let child = Command::new(env!("CARGO_BIN_EXE_weighbridge"))
            .args(["run", "--config"])
            .arg(&file)
            .stdout(Stdio::null())
            .spawn()
            .expect("the router can be started");
        Router { address, admin, child, _folder: folder }
    }

    /// Waits until it serves.
    pub async fn ready(&self) {
        while TcpStream::connect(self.address).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Memory in RAM.
    pub fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the router runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory is known");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the router runs").count()
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

    /// Waits until nobody hangs on any more.
    pub async fn until_connections_are_few(&self) {
        while self.metric("weighbridge_connections_open").await > 100.0 {
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address")
}

/// As many as the system allows: this process holds both ends of everything but the router.
pub fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("up to the hard limit");
}

//! Real NATS servers for tests: each on a port of its own, in a folder of its own, gone with its handle.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

use crate::harness::process::free_port;

/// How long a server may take to come up, or a cluster to form. Never waited for in full unless the test fails anyway.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that lets everybody in.
pub async fn server() -> Server {
    server_with("").await
}

/// A server with more in its configuration file, e.g. `authorization { token: t }`; `FOLDER` is its own.
pub async fn server_with(config: &str) -> Server {
    let mut server = Server::prepare(config);
    server.start().await;
    server
}

/// A server with JetStream, which keeps what it stores when it is started again.
pub async fn server_with_jetstream() -> Server {
    server_with("jetstream { store_dir: \"FOLDER/jetstream\" }").await
}

/// `size` servers that know each other, each with `config` in its file.
pub async fn cluster(size: usize, config: &str) -> Vec<Server> {
    let mut servers: Vec<_> = (0..size).map(|_| Server::prepare(config)).collect();
    introduce(&mut servers);
    for server in &mut servers {
        server.start().await;
    }
    for server in &servers {
        server.until_it_knows(size).await;
    }
    servers
}

/// Puts servers that have not been started into one cluster.
pub fn introduce(servers: &mut [Server]) {
    let routes: Vec<_> = servers.iter().map(|server| format!("nats://127.0.0.1:{}", server.cluster_port)).collect();
    for server in servers {
        server.routes = Some(routes.join(", "));
    }
}

/// One server.
pub struct Server {
    folder: TempDir,
    port: u16,
    cluster_port: u16,
    config: String,
    routes: Option<String>,
    process: Option<Child>,
}

impl Server {
    /// A server that does not run yet.
    pub fn prepare(config: &str) -> Server {
        Server {
            folder: tempfile::tempdir().expect("a folder for the server"),
            port: free_port(),
            cluster_port: free_port(),
            config: config.to_owned(),
            routes: None,
            process: None,
        }
    }

    /// Where clients find it, started or not.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Gives it another configuration, from its next start on.
    pub fn configure(&mut self, config: &str) {
        self.config = config.to_owned();
    }

    /// Starts it and waits until it greets.
    pub async fn start(&mut self) {
        assert!(self.process.is_none(), "already running");
        let begun = Instant::now();
        loop {
            self.spawn();
            match self.until_it_greets(begun).await {
                Ok(()) => return,
                // Somebody else may have had the port just now.
                Err(why) => assert!(begun.elapsed() < PATIENCE, "{why}\n{}", self.log()),
            }
        }
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _already_gone = process.kill();
            let _status = process.wait();
        }
    }

    /// Kills it and starts it again on the same port.
    pub async fn restart(&mut self) {
        self.kill();
        self.start().await;
    }

    /// Makes it neither answer nor hang up, as a machine does that lost its network.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Ends a freeze.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until it tells its clients of `size` servers.
    pub async fn until_it_knows(&self, size: usize) {
        let begun = Instant::now();
        loop {
            let known = self.greeting().await.map_or(0, |info| info["connect_urls"].as_array().map_or(0, Vec::len));
            if known >= size {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "knows {known} of {size} servers\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("it runs");
        let sent = Command::new("kill").args([signal, &process.id().to_string()]).status().expect("kill is installed");
        assert!(sent.success());
    }

    fn spawn(&mut self) {
        let config = self.config.replace("FOLDER", &self.folder.path().display().to_string());
        let mut text = format!("listen: \"{}\"\n{}\n", self.address(), config);
        if let Some(routes) = &self.routes {
            text += &format!(
                "cluster {{ name: test, listen: \"127.0.0.1:{}\", routes: [{routes}], connect_retries: 600 }}\n",
                self.cluster_port
            );
        }
        let config = write(self.folder.path(), "server.conf", &text);
        let log =
            File::options().append(true).create(true).open(self.folder.path().join("log")).expect("the folder is ours");
        let process = Command::new(program())
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server can be started");
        self.process = Some(process);
    }

    async fn until_it_greets(&mut self, begun: Instant) -> Result<(), String> {
        loop {
            if let Some(status) = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten()) {
                self.process = None;
                return Err(format!("nats-server ended: {status}"));
            }
            if self.greeting().await.is_some() {
                return Ok(());
            }
            if begun.elapsed() >= PATIENCE {
                return Err("nats-server does not greet".into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The first line a client gets.
    async fn greeting(&self) -> Option<Value> {
        let stream = TcpStream::connect(self.address()).await.ok()?;
        let mut line = String::new();
        tokio::time::timeout(Duration::from_secs(5), BufReader::new(stream).read_line(&mut line)).await.ok()?.ok()?;
        serde_json::from_str(line.strip_prefix("INFO ")?).ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Writes a file for a test; its path.
pub fn write(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    let mut file = File::create(&path).expect("the folder is ours");
    file.write_all(content.as_bytes()).expect("there is room");
    path
}

/// `nats-server` from the PATH, or from where Debian puts it when the PATH is a user's.
fn program() -> &'static str {
    let debian = "/usr/sbin/nats-server";
    if Path::new(debian).exists() { debian } else { "nats-server" }
}

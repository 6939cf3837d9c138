//! The router under test: the real one, in this process, on free ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::{Table, Value};
use weighbridge::config::Config;
use weighbridge::domain::table::snapshot::Found;
use weighbridge::roles::router::{self, Running};
use weighbridge::runtime::shutdown::Phase;

use super::bus::Bus;
use super::client::{Client, Request};
use super::message::{Message, Stream};
use super::{eventually, in_time};

/// What every router of a test has, unless the test says otherwise.
const DEFAULTS: &str = r#"
workers = 2
http.listen = ["127.0.0.1:0"]
admin.listen = "127.0.0.1:0"
access_log.path = ""
"#;

/// A router with default settings on `bus`, serving.
pub async fn on(bus: &Bus) -> Router {
    with("").on(bus).await
}

/// A router with these settings, as an operator would write them.
pub fn with(settings: &str) -> Plan {
    Plan { settings: settings.to_owned(), folder: None }
}

/// A router before it runs.
pub struct Plan {
    settings: String,
    folder: Option<tempfile::TempDir>,
}

impl Plan {
    /// Writes its access log to a file, for `Router::log_lines`.
    pub fn logging(mut self, format: &str) -> Plan {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let path = folder.path().join("access.log");
        self.settings += &format!("\n[access_log]\npath = {path:?}\nformat = {format:?}\n");
        self.folder = Some(folder);
        self
    }

    /// Runs it on `bus`.
    pub async fn on(self, bus: &Bus) -> Router {
        // As the program does: all routers, clients and instances of all tests are this process.
        weighbridge::runtime::descriptors::raise_limit();
        let mut settings: Table = DEFAULTS.parse().expect("the defaults are valid TOML");
        merge(&mut settings, self.settings.parse().unwrap_or_else(|error| panic!("settings of the test: {error}")));
        if let Some(url) = bus.url() {
            let nats = Value::Table(Table::from_iter([("servers".to_owned(), Value::from(vec![url]))]));
            merge(&mut settings, Table::from_iter([("nats".to_owned(), nats)]));
        }
        let text = toml::to_string(&settings).expect("a table can be written");
        let config = Config::from_toml(&text).unwrap_or_else(|problems| panic!("settings of the test: {problems:?}"));
        let running = router::start(config).await.unwrap_or_else(|error| panic!("the router does not start: {error}"));
        if bus.url().is_none() {
            bus.join(running.bus.clone()).await;
        }
        Router { running, folder: self.folder }
    }
}

/// Lays `over` over `under`, table by table.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// A running router; it ends with the test.
pub struct Router {
    /// The handles production code has, too.
    pub running: Running,
    folder: Option<tempfile::TempDir>,
}

impl Drop for Router {
    fn drop(&mut self) {
        self.running.conductor.enter(Phase::Stopped);
    }
}

impl Router {
    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.running.http[0]
    }

    /// Where they connect for TLS.
    pub fn tls_address(&self) -> SocketAddr {
        self.running.https[0]
    }

    /// Begins to drain: no new connections, the present ones end as soon as they can.
    pub async fn drain(&mut self) {
        self.running.close_ports().await;
    }

    /// A GET of `url` (`host[/path]`).
    pub fn get(&self, url: &str) -> Request {
        self.request("GET", url)
    }

    /// A POST to `url`.
    pub fn post(&self, url: &str) -> Request {
        self.request("POST", url)
    }

    /// Any request.
    pub fn request(&self, method: &str, url: &str) -> Request {
        Request::new(self.address(), method, url)
    }

    /// A client with a connection of its own.
    pub async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// A bare connection, to send any bytes.
    pub async fn wire(&self) -> Stream {
        Stream::connect(self.address()).await
    }

    /// Sends these bytes on a new connection and reads one response; the connection comes back with it.
    pub async fn exchange(&self, bytes: impl AsRef<[u8]>) -> (Message, Stream) {
        let mut wire = self.wire().await;
        let _refused = wire.send(bytes).await; // an early refusal may close while we still write
        let response = in_time("a response", wire.response_to("GET")).await;
        (response.expect("a response and not the end"), wire)
    }

    /// Waits for a fact about the router.
    #[track_caller]
    pub fn until<'a>(&'a self, mut fact: impl FnMut(&Router) -> bool + 'a) -> impl Future<Output = ()> + 'a {
        eventually("a fact about the router", move || fact(self))
    }

    /// How many instances the route of `url` has in what workers read now.
    pub fn instances_of(&self, url: &str) -> usize {
        let (host, path) = url.split_once('/').unwrap_or((url, ""));
        match self.running.routes.get().lookup(host, &format!("/{path}")) {
            Found::Pool(pool) => pool.endpoints.len(),
            Found::Empty(_) | Found::Nothing => 0,
        }
    }

    /// Whether `url` has a route with an instance.
    pub fn knows(&self, url: &str) -> bool {
        self.instances_of(url) > 0
    }

    /// Whether nobody serves `url`.
    pub fn knows_nobody_for(&self, url: &str) -> bool {
        !self.knows(url)
    }

    /// Asks the admin port.
    pub async fn admin(&self, method: &str, path: &str, body: &str) -> Message {
        let url = format!("{}{path}", self.running.admin);
        Request::new(self.running.admin, method, &url).body(body).sent().await
    }

    /// The value of the metric whose line begins with `series` (name, perhaps with labels); 0 if there is none. Several
    /// series of one name are added up.
    pub async fn metric(&self, series: &str) -> f64 {
        let page = self.admin("GET", "/metrics", "").await;
        let name = series.trim_end_matches('}');
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let is_meant = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && labels.split(',').all(|label| rest.contains(label)))
        };
        let lines = page.text();
        lines.lines().filter(is_meant).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until the metric has that value.
    #[track_caller]
    pub fn until_metric<'a>(
        &'a self,
        series: &'a str,
        fact: impl Fn(f64) -> bool + 'a,
    ) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let begun = std::time::Instant::now();
            loop {
                let value = self.metric(series).await;
                if fact(value) {
                    return;
                }
                assert!(begun.elapsed() < super::PATIENCE, "{caller}: {series} stays at {value}");
                tokio::time::sleep(super::millis(10)).await;
            }
        }
    }

    /// The lines of its access log so far.
    pub fn log_lines(&self) -> Vec<String> {
        let path: PathBuf = self.folder.as_ref().map_or_else(PathBuf::new, |folder| folder.path().join("access.log"));
        std::fs::read_to_string(Path::new(&path)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Waits until the access log has `count` lines, and returns them.
    pub async fn until_logged(&self, count: usize) -> Vec<String> {
        eventually("lines in the access log", || self.log_lines().len() >= count).await;
        self.log_lines()
    }
}

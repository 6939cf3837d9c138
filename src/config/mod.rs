//! The configuration: from TOML text and environment, as written, to a `Config`, as meant. Every problem is reported at
//! once, unknown keys are refused. Reads neither clock, environment nor machine: those are arguments.

mod balance;
mod compat;
mod effective;
mod environment;
mod http;
mod nats;
mod problem;
mod process;
mod reader;
pub mod reference;
mod route;
mod schema;
mod table;
#[cfg(test)]
mod tests;
mod tls;
mod traffic;
mod tree;
mod units;
mod wake;
mod wake_start;

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

pub use balance::BalanceConfig;
pub use compat::Compat;
pub use effective::{Changes, Effective};
pub use http::HttpConfig;
pub use nats::{NatsAuth, NatsConfig};
pub use problem::{Origin, Problem, Problems};
pub use process::{AccessLogConfig, AccessLogFormat, AccessLogPath, AdminConfig, DrainConfig, LogConfig};
pub use process::{LogFormat, LogLevel};
pub use route::{StaticInstance, StaticRoute};
pub use schema::Reload;
pub use table::{Isolation, TableConfig};
pub use tls::{ClientCertificates, HttpsConfig, KeyPair, MinTls, UpstreamTlsConfig};
pub use traffic::{
    ClientCertHeader, ForwardedConfig, ForwardedProto, LimitsConfig, PagesConfig, RetryConfig, RewriteConfig,
};
pub use traffic::{StickyConfig, StickyMode, TimeoutsConfig, TracingConfig};
pub use wake::{StatsConfig, WakeConfig};
pub use wake_start::{CloudFoundryAuth, CloudFoundryConfig, CommandConfig, WakeStart, WebhookConfig};

/// A hundred years: what a time limit of 0 (off) becomes, so that no reader needs a special case.
pub const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The whole configuration, valid. Field paths are the keys of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Data-plane threads, at least 1 (0 in the file has become the number of cores).
    pub workers: usize,
    /// Whose behaviour to keep where Weighbridge differs on purpose.
    pub compat: Compat,
    /// The status where an instance did not answer in time: 502, 503 or 504.
    pub timeout_status: u16,
    /// Clear-text listeners.
    pub http: HttpConfig,
    /// TLS listeners.
    pub https: HttpsConfig,
    /// The admin port.
    pub admin: AdminConfig,
    /// The message bus; `None`: the embedded one.
    pub nats: Option<NatsConfig>,
    /// Leases and the life of routes.
    pub table: TableConfig,
    /// How instances are picked.
    pub balance: BalanceConfig,
    /// Further attempts after a failure.
    pub retry: RetryConfig,
    /// Session affinity.
    pub sticky: StickyConfig,
    /// Time limits of a request.
    pub timeouts: TimeoutsConfig,
    /// Size limits of a request.
    pub limits: LimitsConfig,
    /// Headers that tell an instance who asked.
    pub forwarded: ForwardedConfig,
    /// Headers that tie what many services do to one request.
    pub tracing: TracingConfig,
    /// Changes to responses.
    pub rewrite: RewriteConfig,
    /// Templates of pages.
    pub pages: PagesConfig,
    /// TLS towards instances.
    pub upstream_tls: UpstreamTlsConfig,
    /// Sleeping apps.
    pub wake: WakeConfig,
    /// Statistics on the bus.
    pub stats: StatsConfig,
    /// Leaving without breaking what is in flight.
    pub drain: DrainConfig,
    /// One line per request.
    pub access_log: AccessLogConfig,
    /// What the router says about itself.
    pub log: LogConfig,
    /// Static routes and settings of routes.
    pub route: Vec<StaticRoute>,
    /// Every key with its value as written or by default, for printing and comparing.
    pub effective: Effective,
}

/// A text that never appears in logs or output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The text, for the one place that must send or compare it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Who one is and how to prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Not empty.
    pub user: String,
    /// Not empty.
    pub password: Secret,
}

/// What the configuration needs to know of the machine and the environment.
pub struct Surroundings<'a> {
    /// Cores of this machine.
    pub cores: usize,
    /// Environment variables; those that begin with `WEIGHBRIDGE__` override the file.
    pub variables: &'a [(String, String)],
    /// Reads a file that holds a secret.
    pub read_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

impl Surroundings<'static> {
    /// One core, no variables, no files: for defaults and tests.
    pub fn none() -> Surroundings<'static> {
        Surroundings { cores: 1, variables: &[], read_file: &|_| Err(io::ErrorKind::NotFound.into()) }
    }
}

/// Reads a configuration. `file` is the name of the file in problems, `text` its content; both are empty if there is
/// none.
///
/// # Errors
/// All problems at once, in the order of the file.
pub fn load(file: &str, text: &str, around: &Surroundings<'_>) -> Result<Config, Problems> {
    let problems = Problems { file: file.into(), list: Vec::new() };
    let mut context = reader::Context { around, problems, effective: Effective::default(), compat: Compat::None };
    let mut table = tree::parse(text, &mut context.problems);
    environment::overlay(&mut table, around.variables, &mut context.problems);
    let top = schema::section("").expect("the schema has a top");
    schema::check_names(&table, top, "", &mut context.problems);
    let config = read(&mut reader::Reader::top(&mut context, &table));
    if context.problems.list.is_empty() {
        Ok(Config { effective: context.effective, ..config })
    } else {
        context.problems.list.sort();
        Err(context.problems)
    }
}

/// Reads every section; wrong values are noted and replaced by defaults.
fn read(top: &mut reader::Reader<'_, '_>) -> Config {
    Config {
        workers: process::workers(top),
        compat: compat::read(top), // before everything whose default depends on it
        timeout_status: process::timeout_status(top),
        http: http::read(&mut top.section("http")),
        https: tls::https(&mut top.section("https")),
        admin: process::admin(&mut top.section("admin")),
        nats: nats::read(&mut top.section("nats")),
        table: table::read(&mut top.section("table")),
        balance: balance::read(&mut top.section("balance")),
        retry: traffic::retry(&mut top.section("retry")),
        sticky: traffic::sticky(&mut top.section("sticky")),
        timeouts: traffic::timeouts(&mut top.section("timeouts")),
        limits: traffic::limits(&mut top.section("limits")),
        forwarded: traffic::forwarded(&mut top.section("forwarded")),
        tracing: traffic::tracing(&mut top.section("tracing")),
        rewrite: traffic::rewrite(&mut top.section("rewrite")),
        pages: traffic::pages(&mut top.section("pages")),
        upstream_tls: tls::upstream(&mut top.section("upstream_tls")),
        wake: wake::wake(&mut top.section("wake")),
        stats: wake::stats(&mut top.section("stats")),
        drain: process::drain(&mut top.section("drain")),
        access_log: process::access_log(&mut top.section("access_log")),
        log: process::log(&mut top.section("log")),
        route: route::read(top),
        effective: Effective::default(),
    }
}

impl Config {
    /// Reads TOML text with nothing around it: one core, no environment.
    ///
    /// # Errors
    /// All problems at once.
    pub fn from_toml(text: &str) -> Result<Config, Problems> {
        load("", text, &Surroundings::none())
    }

    /// What a change from this configuration to `newer` changes.
    pub fn changes(&self, newer: &Config) -> Changes {
        self.effective.changes(&newer.effective)
    }
}

/// What an empty file means on a machine with one core.
impl Default for Config {
    fn default() -> Config {
        Config::from_toml("").expect("the defaults are valid")
    }
}

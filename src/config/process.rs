//! Sections about the process itself: workers, admin port, drain, logs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::schema::{Kind, MOST, Section, Shape, live, ms, restart};
use super::{Login, Secret};

pub(super) const TOP: Section = Section {
    path: "",
    shape: Shape::Always,
    doc: "At the top of the file, before the first section.",
    keys: &[
        restart("workers", Kind::Integer { least: 0, most: 1024 }, "0", "Data-plane threads. 0: one per core."),
        live(
            "compat",
            Kind::Choice(&["none", "gorouter"]),
            "\"none\"",
            "Whose behaviour to keep where Weighbridge differs on purpose: what is not written has the defaults of `none` \
                  or of `gorouter`.",
        ),
        live(
            "timeout_status",
            Kind::Integer { least: 502, most: 504 },
            "504",
            "The status where an instance did not answer in time.",
        ),
    ],
};

pub(super) fn workers(top: &mut Reader<'_, '_>) -> usize {
    match top.integer("workers") {
        0 => top.context.around.cores.max(1),
        n => n as usize,
    }
}

pub(super) fn timeout_status(top: &mut Reader<'_, '_>) -> u16 {
    top.integer("timeout_status") as u16
}

pub(super) const ADMIN: Section = Section {
    path: "admin",
    shape: Shape::Always,
    doc: "The port for operators: `/health`, `/metrics`, `/routes`, `/v1/…`. Off loopback it needs a user and a password.",
    keys: &[
        restart("listen", Kind::Text("address"), "\"127.0.0.1:8081\"", "Where to listen. Port 0: any free port."),
        restart(
            "user",
            Kind::Text("user name"),
            "\"\"",
            "Basic authentication for everything but `/health`. Empty: none.",
        ),
        restart("password", Kind::Secret, "\"\"", "Belongs to `user`."),
        restart(
            "password_file",
            Kind::Text("path"),
            "\"\"",
            "A file that holds the password, instead of `password`. A newline at its end is cut.",
        ),
        restart(
            "routes_in_metrics",
            Kind::Integer { least: 0, most: 100_000 },
            "1000",
            "Routes that have series of their own in `/metrics`, the first that get requests; the others are counted together \
             as `other`.",
        ),
    ],
};

/// The admin port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Needed for everything but `/health`; `None` only on loopback.
    pub login: Option<Login>,
    /// How many routes have series of their own.
    pub routes_in_metrics: usize,
}

pub(super) fn admin(section: &mut Reader<'_, '_>) -> AdminConfig {
    let listen = section.address("listen");
    let user = section.text("user");
    let password = section.secret("password", "password_file");
    let login = login(section, user, password);
    if login.is_none() && !listen.ip().is_loopback() {
        section.complain("listen", format!("{listen} can be reached by others; give a user and a password as well"));
    }
    AdminConfig { listen, login, routes_in_metrics: section.integer("routes_in_metrics") as usize }
}

/// Joins `user` and `password`: both or none.
pub(super) fn login(section: &mut Reader<'_, '_>, user: String, password: Option<Secret>) -> Option<Login> {
    match (user.is_empty(), password) {
        (false, Some(password)) => return Some(Login { user, password }),
        (false, None) => section.complain("user", "a user needs a password (or password_file)"),
        (true, Some(_)) => {
            let key = if section.has("password") { "password" } else { "password_file" };
            section.complain(key, "a password needs a user");
        }
        (true, None) => {}
    }
    None
}

pub(super) const DRAIN: Section = Section {
    path: "drain",
    shape: Shape::Always,
    doc: "What happens on SIGTERM and SIGUSR1, so that nothing in flight is broken.",
    keys: &[
        live(
            "wait",
            Kind::Duration { zero: "at once", least: ms(1), most: MOST },
            "\"0s\"",
            "How long `/health` answers 503, and every answer says `Connection: close`, before the listeners close, so that a load \
                  balancer can look away.",
        ),
        live(
            "timeout",
            Kind::Duration { zero: "at once", least: ms(1), most: MOST },
            "\"60s\"",
            "How long requests and tunnels in flight may take to finish then.",
        ),
    ],
};

/// Leaving without breaking what is in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainConfig {
    /// Health says 503 that long before listeners close.
    pub wait: Duration,
    /// What is in flight may take that long; zero ends it at once.
    pub timeout: Duration,
}

pub(super) fn drain(section: &mut Reader<'_, '_>) -> DrainConfig {
    DrainConfig { wait: section.duration("wait"), timeout: section.duration("timeout") }
}

pub(super) const ACCESS_LOG: Section = Section {
    path: "access_log",
    shape: Shape::Always,
    doc: "One line per request.",
    keys: &[
        restart(
            "path",
            Kind::Text("path"),
            "\"stdout\"",
            "`stdout` or a file, which is opened again on SIGHUP. Empty: off.",
        ),
        restart(
            "format",
            Kind::Choice(&["json", "gorouter"]),
            "\"json\"",
            "JSON lines, or the layout of gorouter's access log.",
        ),
    ],
};

/// One line per request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// Where it goes.
    pub path: AccessLogPath,
    /// Its layout.
    pub format: AccessLogFormat,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogPath {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

/// Layout of the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// As gorouter writes it.
    Gorouter,
}

pub(super) fn access_log(section: &mut Reader<'_, '_>) -> AccessLogConfig {
    let path = match section.text("path").as_str() {
        "" => AccessLogPath::Off,
        "stdout" => AccessLogPath::Stdout,
        file => AccessLogPath::File(file.into()),
    };
    let formats = [("json", AccessLogFormat::Json), ("gorouter", AccessLogFormat::Gorouter)];
    AccessLogConfig { path, format: section.choice("format", &formats) }
}

pub(super) const LOG: Section = Section {
    path: "log",
    shape: Shape::Always,
    doc: "What the router says about itself, on standard error.",
    keys: &[
        live(
            "level",
            Kind::Choice(&["error", "warn", "info", "debug"]),
            "\"info\"",
            "Least severe level that is written.",
        ),
        restart("format", Kind::Choice(&["text", "json"]), "\"text\"", "Lines for people or JSON lines for machines."),
    ],
};

/// What the router says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Least severe level.
    pub level: LogLevel,
    /// Layout.
    pub format: LogFormat,
}

/// How severe a log line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Something is broken.
    Error,
    /// Something may break.
    Warn,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What a developer wants to know.
    Debug,
}

impl LogLevel {
    /// As written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
        }
    }
}

/// Layout of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

pub(super) fn log(section: &mut Reader<'_, '_>) -> LogConfig {
    use LogLevel::{Debug, Error, Info, Warn};
    let levels = [Error, Warn, Info, Debug].map(|level| (level.as_str(), level));
    LogConfig {
        level: section.choice("level", &levels),
        format: section.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
    }
}

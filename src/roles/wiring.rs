//! From the configuration to what each part of the router needs of it.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::adapters::probe;
use crate::config::{AccessLogConfig, AccessLogFormat, AccessLogPath, Config, StaticRoute};
use crate::config::{Isolation as Segments, TableConfig, WakeConfig, WakeStart};
use crate::control::event::{AppSettings, Event};
use crate::domain::protocol::life::RouterStart;
use crate::domain::protocol::register::Registration;
use crate::domain::protocol::rejection::Rejection;
use crate::domain::protocol::route_uri::RouteUri;
use crate::domain::table::settings::{ConfiguredRoute, Isolation, TableSettings};
use crate::domain::wake;
use crate::proxy::pages::{BadTemplate, ErrorPage, LoadingPage, Pages};
use crate::telemetry::access_log::{Destination, Format};

/// What the router says about itself on the bus: a new id for every process.
pub fn introduction<'a>(table: &TableConfig, listens: impl Iterator<Item = &'a SocketAddr>) -> RouterStart {
    let mut hosts: Vec<String> = listens.map(|address| reachable(address.ip()).to_string()).collect();
    hosts.dedup();
    RouterStart {
        id: format!("0-{}", uuid::Uuid::new_v4()),
        hosts,
        register_interval: table.advertise_interval,
        prune_threshold: table.stale_after,
    }
}

/// The address under which others reach a listener: for one that listens everywhere, the one this machine would use to
/// go out (nothing is sent to find that out).
fn reachable(listens: IpAddr) -> IpAddr {
    if !listens.is_unspecified() {
        return listens;
    }
    let (any, outside) = match listens {
        IpAddr::V4(_) => ("0.0.0.0:0", "192.0.2.1:9"),
        IpAddr::V6(_) => ("[::]:0", "[2001:db8::1]:9"),
    };
    let route = std::net::UdpSocket::bind(any).and_then(|socket| {
        socket.connect(outside)?;
        socket.local_addr()
    });
    route.map_or(listens, |address| address.ip())
}

/// Leases, isolation, balance.
pub fn table(config: &Config) -> TableSettings {
    let segments = config.table.isolation_segments.clone();
    TableSettings {
        stale_after: config.table.stale_after,
        advertise_interval: config.table.advertise_interval,
        keep_empty: config.table.keep_empty,
        expire_tls_endpoints: config.table.expire_tls_endpoints,
        isolation: match config.table.isolation {
            Segments::All => Isolation::All,
            Segments::Segments => Isolation::Segments(segments),
            Segments::SharedAndSegments => Isolation::SharedAndSegments(segments),
        },
        strategy: config.balance.strategy,
        max_conns: config.balance.max_conns,
        score: config.balance.score,
        ..TableSettings::default()
    }
}

/// All that the control plane is told of the configuration.
///
/// # Errors
/// A static route is none.
pub fn configured(config: &Config) -> Result<Event, Rejection> {
    Ok(Event::Configured { settings: table(config), routes: routes(&config.route)?, apps: apps(config) })
}

/// Sleep and wake.
fn apps(config: &Config) -> AppSettings {
    let asks_over_bus = config.wake.start == WakeStart::Nats;
    let WakeConfig { retry, retry_max, deadline, tries, retry_failed_after, release_concurrency, .. } = config.wake;
    AppSettings {
        wake: wake::Settings {
            retry,
            retry_max,
            deadline,
            tries,
            retry_failed_after,
            asks_over_bus,
            ..wake::Settings::default()
        },
        stats_every: config.stats.interval,
        release_concurrency,
    }
}

/// What makes an instance of a sleeping app ready.
pub fn probe(config: &Config) -> probe::Settings {
    probe::Settings { path: config.wake.probe_path.clone() }
}

/// Why a page of the operator cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadPage {
    /// It cannot be read.
    #[error("{key}: cannot read {path}: {cause}", path = path.display())]
    Unreadable {
        /// The key that names it.
        key: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// It is no template.
    #[error("{key}: {path}: {cause}", path = path.display())]
    Bad {
        /// The key that names it.
        key: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        cause: BadTemplate,
    },
}

/// The operator's own pages, else those that are built in.
///
/// # Errors
/// One cannot be read, or is no template.
pub fn pages(config: &Config) -> Result<Pages, BadPage> {
    Ok(Pages {
        loading: page("wake.page", config.wake.page.as_deref(), LoadingPage::from_template)?,
        error: page("pages.error", config.pages.error.as_deref(), ErrorPage::from_template)?,
    })
}

fn page<P: Default>(
    key: &'static str,
    path: Option<&Path>,
    parse: fn(&[u8]) -> Result<P, BadTemplate>,
) -> Result<P, BadPage> {
    let Some(path) = path else { return Ok(P::default()) };
    match std::fs::read(path) {
        Ok(source) => parse(&source).map_err(|cause| BadPage::Bad { key, path: path.into(), cause }),
        Err(cause) => Err(BadPage::Unreadable { key, path: path.into(), cause }),
    }
}

/// Static routes.
///
/// # Errors
/// A host or path that is no route after all.
fn routes(routes: &[StaticRoute]) -> Result<Vec<ConfiguredRoute>, Rejection> {
    routes.iter().map(route).collect()
}

fn route(route: &StaticRoute) -> Result<ConfiguredRoute, Rejection> {
    let instances = route.instances.iter().map(|instance| {
        let mut registration = Registration::at(instance.address.clone());
        registration.facts.tls = instance.tls.clone();
        registration.facts.protocol = instance.protocol;
        registration.facts.weight = instance.weight;
        registration
    });
    Ok(ConfiguredRoute {
        uri: RouteUri::parse(&format!("{}{}", route.host, route.path))?,
        settings: Arc::new(route.settings.clone()),
        instances: instances.collect(),
    })
}

/// Where the access log goes, and how it looks.
pub fn access_log(config: &AccessLogConfig) -> (Destination, Format) {
    let destination = match &config.path {
        AccessLogPath::Off => Destination::Off,
        AccessLogPath::Stdout => Destination::Stdout,
        AccessLogPath::File(path) => Destination::File(path.clone()),
    };
    let format = match config.format {
        AccessLogFormat::Json => Format::Json,
        AccessLogFormat::Gorouter => Format::Gorouter,
    };
    (destination, format)
}

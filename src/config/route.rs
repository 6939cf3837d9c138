//! Static routes, and settings of single routes.

use super::balance::{MAX_CONNS, STRATEGY, strategies};
use super::reader::Reader;
use super::schema::{Kind, Section, Shape, live, unset};
use super::traffic::{ATTEMPTS, NO_LIMIT_AT_ZERO, UNLIMITED_AT_ZERO, header_name};
use crate::domain::endpoint::{Protocol, Tls};
use crate::domain::identity::Address;
use crate::domain::table::snapshot::RouteSettings;

pub(super) const ROUTE: Section = Section {
    path: "route",
    shape: Shape::List,
    doc: "A static route. Without instances it only carries settings for the route of that host and path, whoever \
          registers it.",
    keys: &[
        unset(
            "host",
            Kind::Text("host name"),
            "\"static.example.com\"",
            "Host as clients ask for it, without port; may begin with `*.`. Required.",
        ),
        live("path", Kind::Text("path"), "\"/\"", "Path prefix, matched by whole segments."),
        unset("strategy", STRATEGY, "\"round-robin\"", "As `balance.strategy`, for this route."),
        unset(
            "hash_header",
            Kind::Text("header name"),
            "\"X-Tenant\"",
            "Strategy `hash`: the header whose value is hashed.",
        ),
        unset("max_conns", MAX_CONNS, "100", "As `balance.max_conns`, for this route."),
    ],
};

pub(super) const ROUTE_TIMEOUTS: Section = Section {
    path: "route.timeouts",
    shape: Shape::Always,
    doc: "As `[timeouts]`, for the route above.",
    keys: &[
        unset("connect", NO_LIMIT_AT_ZERO, "\"2s\"", "To connect to an instance."),
        unset("response_head", NO_LIMIT_AT_ZERO, "\"60s\"", "From the request sent to the head of the response."),
        unset("idle_body", NO_LIMIT_AT_ZERO, "\"60s\"", "A body may stand still that long."),
    ],
};

pub(super) const ROUTE_LIMITS: Section = Section {
    path: "route.limits",
    shape: Shape::Always,
    doc: "As `[limits]`, for the route above.",
    keys: &[unset("body_bytes", UNLIMITED_AT_ZERO, "\"10MB\"", "Request body; beyond it 413.")],
};

pub(super) const ROUTE_RETRY: Section = Section {
    path: "route.retry",
    shape: Shape::Always,
    doc: "As `[retry]`, for the route above.",
    keys: &[unset("attempts", ATTEMPTS, "3", "Attempts per request, the first included. 1: no retry.")],
};

pub(super) const INSTANCES: Section = Section {
    path: "route.instances",
    shape: Shape::List,
    doc: "An instance of the route above; inside a `[[route]]` also `instances = [{ host = \"…\", port = … }]`.",
    keys: &[
        unset("host", Kind::Text("host"), "\"127.0.0.1\"", "IP address or name. Required."),
        unset("port", Kind::Integer { least: 1, most: 65_535 }, "9001", "Required."),
        unset(
            "tls",
            Kind::Flag,
            "true",
            "Whether it is spoken to over TLS, see `upstream_tls`; if not set, it is not.",
        ),
        unset(
            "server_cert_domain_san",
            Kind::Text("name"),
            "\"shop-0.internal\"",
            "The name that its certificate must carry, if that is not its host.",
        ),
        live(
            "protocol",
            Kind::Choice(&["http1", "http2"]),
            "\"http1\"",
            "What it speaks: `http2` over TLS is agreed upon by ALPN, in clear text it is taken for granted.",
        ),
        live("weight", Kind::Number { least: 0.001, most: 1000.0 }, "1", "Capacity compared with the others."),
    ],
};

/// A static route, or settings of a route that others register.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticRoute {
    /// Lower case, without port; may begin with `*.`.
    pub host: String,
    /// Begins with `/`; no `/` at its end unless it is the root. In the case written.
    pub path: String,
    /// What differs from the router's own.
    pub settings: RouteSettings,
    /// Empty: only the settings count.
    pub instances: Vec<StaticInstance>,
}

/// An instance that never expires.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticInstance {
    /// Where it is.
    pub address: Address,
    /// How, if over TLS.
    pub tls: Option<Tls>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Capacity, above 0.
    pub weight: f32,
}

/// All routes; incomplete ones are left out, as they have been noted.
pub(super) fn read(top: &mut Reader<'_, '_>) -> Vec<StaticRoute> {
    let mut seen: Vec<(String, String)> = Vec::new();
    let routes = top.each("route", |mut section| {
        let route = one(&mut section)?;
        let identity = (route.host.clone(), route.path.to_ascii_lowercase());
        match seen.iter().position(|other| *other == identity) {
            Some(n) => section.complain("host", format!("is the same route as route[{n}]")),
            None => seen.push(identity),
        }
        Some(route)
    });
    routes.into_iter().flatten().collect()
}

fn one(section: &mut Reader<'_, '_>) -> Option<StaticRoute> {
    let host = required(section, "host", host);
    let path = section.parsed("path", path);
    let strategy = section.find_choice("strategy", &strategies());
    let hash_header = section.parsed("hash_header", header_name);
    let max_conns = section.find_integer("max_conns").map(|n| n as u32);
    let mut timeouts = section.section("timeouts");
    let connect_timeout = timeouts.find_limit("connect");
    let response_head_timeout = timeouts.find_limit("response_head");
    let idle_body_timeout = timeouts.find_limit("idle_body");
    let settings = RouteSettings {
        strategy,
        hash_header: hash_header.map(|name| name.as_str().into()),
        max_conns,
        connect_timeout,
        response_head_timeout,
        idle_body_timeout,
        body_bytes_max: section.section("limits").find_size("body_bytes"),
        retry_attempts: section.section("retry").find_integer("attempts").map(|n| n as u32),
    };
    let mut seen: Vec<Address> = Vec::new();
    let instances = section.each("instances", |mut section| {
        let instance = instance(&mut section)?;
        match seen.contains(&instance.address) {
            true => section.complain("host", format!("{} is listed twice", instance.address)),
            false => seen.push(instance.address.clone()),
        }
        Some(instance)
    });
    Some(StaticRoute { host: host?, path: path?, settings, instances: instances.into_iter().flatten().collect() })
}

fn instance(section: &mut Reader<'_, '_>) -> Option<StaticInstance> {
    let host = required(section, "host", |text| match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(bare) => instance_host(bare),
        None => instance_host(text),
    });
    let port = section.find_integer("port");
    if !section.has("port") {
        section.complain("port", "is missing");
    }
    let is_tls = section.find_flag("tls").unwrap_or(false);
    let server_name = section.text("server_cert_domain_san");
    if !server_name.is_empty() && !is_tls {
        section.complain("server_cert_domain_san", "means nothing without tls = true");
    }
    let tls = is_tls.then(|| Tls { server_name: server_name.into() });
    let protocol = section.choice("protocol", &[("http1", Protocol::Http1), ("http2", Protocol::Http2)]);
    let weight = section.number("weight") as f32;
    Some(StaticInstance { address: Address::new(&host?, port? as u16), tls, protocol, weight })
}

fn required<T>(section: &mut Reader<'_, '_>, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
    if !section.has(name) {
        section.complain(name, "is missing");
    }
    section.parsed(name, parse)
}

/// Proves a host as clients ask for it.
fn host(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if text.contains("://") || name.contains('/') {
        return Err("must be a host alone, without scheme and path".into());
    }
    if name.parse::<std::net::Ipv6Addr>().is_err() && name.contains(':') {
        return Err("must be a host alone, without port".into());
    }
    is_name(name).then(|| text.to_ascii_lowercase()).ok_or_else(|| "is not a host name".to_string())
}

fn instance_host(text: &str) -> Result<String, String> {
    let fine = text.parse::<std::net::IpAddr>().is_ok() || is_name(text);
    fine.then(|| text.to_ascii_lowercase()).ok_or_else(|| "is neither an IP address nor a host name".to_string())
}

/// Labels of letters, digits, hyphens and underscores, as platforms use them.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Proves a path prefix; one slash at its end goes.
fn path(text: &str) -> Result<String, String> {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !text.starts_with('/') || !printable || text.contains(['?', '#']) {
        return Err("is not a path; it begins with / and is escaped as in a URL, without ? and #".into());
    }
    let cut = text.strip_suffix('/').unwrap_or(text);
    Ok(if cut.is_empty() { "/".into() } else { cut.into() })
}

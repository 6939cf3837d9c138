//! What the data plane needs of the configuration, in the form it needs it. Replaced whole on reload.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::pages::{ErrorPage, LoadingPage, Pages};
use crate::config::{Compat, Config, ForwardedConfig, RewriteConfig, StickyConfig, TimeoutsConfig, TracingConfig};
use crate::domain::table::snapshot::RouteSettings;
use crate::domain::wake::Ignore;
use crate::http1::Limits;
use crate::http1::head::TARGET_BYTES_MAX;

/// Settings of the data plane.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Largest heads, of requests and of responses.
    pub head_limits: Limits,
    /// Largest request body in bytes; 0 is unlimited.
    pub body_bytes_max: u64,
    /// Connections of clients, all together; 0 is any number.
    pub connections_max: u32,
    /// Connections of one client; 0 is any number.
    pub connections_per_client_max: u32,
    /// Requests on one connection of HTTP/1; 0 is any number.
    pub requests_per_connection_max: u32,
    /// Tunnels; 0 is any number.
    pub tunnels_max: u32,
    /// Whether clients may speak HTTP/2 in clear text, if they know beforehand that we do.
    pub h2c: bool,
    /// The `User-Agent` of the load balancer's question whether requests may come; empty: none.
    pub health_check_agent: Box<str>,
    /// Patience with everybody.
    pub timeouts: TimeoutsConfig,
    /// Attempts per request.
    pub attempts: u32,
    /// Request bodies up to this many bytes are kept for another attempt.
    pub kept_body_bytes: usize,
    /// Status for an instance that does not answer in time.
    pub timeout_status: u16,
    /// Whose words errors are told in.
    pub compat: Compat,
    /// Sticky sessions.
    pub sticky: StickyConfig,
    /// Zone to stay in, if zone preference is on.
    pub zone: Option<String>,
    /// Networks whose connections may begin with the PROXY protocol.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Networks whose forwarding fields are believed. Empty: nobody is believed, but `X-Forwarded-For` is appended to, as
    /// every client of gorouter knows it, and not replaced.
    pub trusted_proxies: Vec<IpNet>,
    /// Headers that tell an instance who asked.
    pub forwarded: ForwardedConfig,
    /// Which traces are passed on.
    pub tracing: TracingConfig,
    /// Changes to responses.
    pub rewrite: RewriteConfig,
    /// Visitors of sleeping apps.
    pub wake: WakeSettings,
    /// What errors look like.
    pub error_page: ErrorPage,
}

/// What visitors of sleeping apps get.
#[derive(Clone, Debug)]
pub struct WakeSettings {
    /// How long a request waits.
    pub hold: Duration,
    /// How many wait for one app.
    pub held_max: usize,
    /// Whose requests neither wake an app nor count as its use.
    pub ignore: Ignore,
    /// What people see meanwhile.
    pub page: LoadingPage,
}

/// The limits that hold for one request, those of its route taken into account.
#[derive(Clone, Copy, Debug)]
pub struct RouteLimits {
    /// To connect to an instance.
    pub connect: Duration,
    /// From the request sent to the response head.
    pub response_head: Duration,
    /// While a body stands still.
    pub idle_body: Duration,
    /// Attempts, at least 1.
    pub attempts: u32,
    /// Largest request body in bytes; 0 is unlimited.
    pub body_bytes_max: u64,
}

impl Settings {
    /// As configured, with the pages that the configuration names.
    pub fn of(config: &Config, pages: Pages) -> Settings {
        Settings {
            head_limits: Limits {
                head_bytes: config.limits.head_bytes as usize,
                head_count: config.limits.head_count as usize,
                target_bytes: match config.limits.uri_bytes {
                    0 => TARGET_BYTES_MAX,
                    bytes => bytes as usize,
                },
            },
            connections_max: config.limits.connections,
            connections_per_client_max: config.limits.connections_per_client,
            requests_per_connection_max: config.limits.requests_per_connection,
            tunnels_max: config.limits.tunnels,
            body_bytes_max: config.limits.body_bytes,
            h2c: config.http.h2c,
            health_check_agent: config.http.health_check_agent.as_str().into(),
            timeouts: config.timeouts.clone(),
            attempts: config.retry.attempts,
            kept_body_bytes: config.retry.body_bytes as usize,
            timeout_status: config.timeout_status,
            compat: config.compat,
            sticky: config.sticky.clone(),
            zone: config.balance.prefer_zone.then(|| config.balance.zone.clone()),
            proxy_protocol_from: config.http.proxy_protocol_from.clone(),
            trusted_proxies: config.http.trusted_proxies.clone(),
            forwarded: config.forwarded.clone(),
            tracing: config.tracing,
            rewrite: config.rewrite.clone(),
            wake: WakeSettings {
                hold: config.wake.hold,
                held_max: config.wake.held_max,
                ignore: config.wake.ignore.clone(),
                page: pages.loading,
            },
            error_page: pages.error,
        }
    }

    /// Whether forwarding fields from there are believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }

    /// Whether a connection from there may begin with the PROXY protocol.
    pub fn may_be_introduced(&self, address: IpAddr) -> bool {
        self.proxy_protocol_from.iter().any(|network| network.contains(&address))
    }

    /// With the overrides of a route.
    pub fn for_route(&self, route: &RouteSettings) -> RouteLimits {
        RouteLimits {
            connect: route.connect_timeout.unwrap_or(self.timeouts.connect),
            response_head: route.response_head_timeout.unwrap_or(self.timeouts.response_head),
            idle_body: route.idle_body_timeout.unwrap_or(self.timeouts.idle_body),
            attempts: route.retry_attempts.unwrap_or(self.attempts),
            body_bytes_max: route.body_bytes_max.unwrap_or(self.body_bytes_max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::parse::FIELDS_MAX;

    #[test]
    fn what_can_be_configured_is_what_the_codec_can_do() {
        let allowed = |key: &str, most: usize| {
            let with = |value: usize| Config::from_toml(&format!("limits.{key} = {value}"));
            with(most).is_ok() && with(most + 1).is_err()
        };
        assert!(allowed("head_count", FIELDS_MAX));
        assert!(allowed("uri_bytes", TARGET_BYTES_MAX));
    }
}

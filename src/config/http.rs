//! The listeners for clients.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::reader::{self, Reader};
use super::schema::{Kind, Section, Shape, live, restart};

pub(super) const HTTP: Section = Section {
    path: "http",
    shape: Shape::Always,
    doc: "Clear-text HTTP from clients.",
    keys: &[
        restart("listen", Kind::List("addresses"), "[\"0.0.0.0:8080\"]", "Where to listen. Port 0: any free port."),
        live(
            "proxy_protocol_from",
            Kind::List("networks"),
            "[]",
            "Networks whose connections may (not must) begin with the PROXY protocol, version 1 or 2; who it names is the \
                  client then. Clear text only.",
        ),
        live(
            "trusted_proxies",
            Kind::List("networks"),
            "[]",
            "Networks whose `X-Forwarded-*` and `Forwarded` headers are believed; from anywhere else they are \
                  replaced. While none are named, `X-Forwarded-For` grows by every client's address and keeps what it \
                  held, as with gorouter.",
        ),
        live(
            "h2c",
            Kind::Flag,
            "false",
            "Whether HTTP/2 is spoken in clear text with clients that begin with it (prior knowledge).",
        ),
        live(
            "health_check_agent",
            Kind::Text("user agent"),
            "\"\"",
            "Requests with this `User-Agent` are asked by a load balancer: they are answered here, 200 `ok` or, while leaving, \
             503, whatever their host. Empty: there are none.",
        ),
    ],
};

/// Clear-text HTTP from clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where to listen; empty: nowhere.
    pub listen: Vec<SocketAddr>,
    /// Whose connections may begin with the PROXY protocol.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Whose forwarded headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether clear-text HTTP/2 is spoken.
    pub h2c: bool,
    /// Who asks on these ports whether requests may come; empty: nobody.
    pub health_check_agent: String,
}

pub(super) fn read(section: &mut Reader<'_, '_>) -> HttpConfig {
    HttpConfig {
        listen: addresses(section),
        proxy_protocol_from: section.list("proxy_protocol_from", network),
        trusted_proxies: section.list("trusted_proxies", network),
        h2c: section.flag("h2c"),
        health_check_agent: section.text("health_check_agent"),
    }
}

/// Reads `listen`.
pub(super) fn addresses(section: &mut Reader<'_, '_>) -> Vec<SocketAddr> {
    let listen = section.list("listen", reader::address);
    for (n, address) in listen.iter().enumerate() {
        if address.port() != 0 && listen[..n].contains(address) {
            section.complain("listen", format!("{address} is listed twice"));
        }
    }
    listen
}

/// Reads `10.0.0.0/8` or a single address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let single = |_| text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(single).map_err(|_| {
        "is not a network; write an address and a prefix length, such as \"10.0.0.0/8\" or \"::1\"".to_string()
    })
}

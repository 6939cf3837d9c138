//! The message bus.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::schema::{Kind, Section, Shape, ms, restart};
use super::{Login, Secret, process, tls};

pub(super) const NATS: Section = Section {
    path: "nats",
    shape: Shape::Optional,
    doc: "The message bus. Without this section the router runs on its embedded bus: messages come in by `weighbridge \
          publish` or `POST /v1/bus/SUBJECT`.",
    keys: &[
        restart(
            "servers",
            Kind::List("NATS URLs"),
            "[\"nats://127.0.0.1:4222\"]",
            "The first is chosen at random; further ones are learnt from the servers.",
        ),
        restart("user", Kind::Text("user name"), "\"\"", "Authentication by user and password. Empty: none."),
        restart("password", Kind::Secret, "\"\"", "Belongs to `user`."),
        restart(
            "password_file",
            Kind::Text("path"),
            "\"\"",
            "A file that holds the password, instead of `password`. A newline at its end is cut.",
        ),
        restart("token", Kind::Secret, "\"\"", "Authentication by token. Empty: none."),
        restart(
            "token_file",
            Kind::Text("path"),
            "\"\"",
            "A file that holds the token, instead of `token`. A newline at its end is cut.",
        ),
        restart(
            "credentials_file",
            Kind::Text("path"),
            "\"\"",
            "Authentication by a `.creds` file (JWT and nkey) or a file that holds an nkey seed. Read anew for every \
             connection. Empty: none.",
        ),
        restart(
            "ca",
            Kind::Text("path"),
            "\"\"",
            "PEM file of certificate authorities to trust; turns TLS on. Empty: TLS only for `tls://` servers, with \
                  the system's authorities.",
        ),
        restart("cert", Kind::Text("path"), "\"\"", "PEM file of the certificate we show; turns TLS on, needs `key`."),
        restart("key", Kind::Text("path"), "\"\"", "PEM file of the private key that belongs to `cert`."),
        restart(
            "ping_interval",
            Kind::Duration { zero: "", least: ms(100), most: ms(3_600_000) },
            "\"20s\"",
            "How often the connection is probed; two missing answers mean that it is gone.",
        ),
        restart(
            "server_cache",
            Kind::Text("path"),
            "\"\"",
            "File that remembers learnt servers, so that a restart while the configured ones are down still finds \
                  the others. Empty: none.",
        ),
    ],
};

/// The message bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsConfig {
    /// URLs (`nats://` or `tls://`, host, port), at least one.
    pub servers: Vec<String>,
    /// How to prove who we are.
    pub auth: NatsAuth,
    /// Certificate authorities to trust; turns TLS on.
    pub ca: Option<PathBuf>,
    /// Our certificate and its private key; turns TLS on.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// How often the connection is probed.
    pub ping_interval: Duration,
    /// Remembers learnt servers.
    pub server_cache: Option<PathBuf>,
}

/// How to prove who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsAuth {
    /// Not at all (or by a login in the URL).
    None,
    /// User and password.
    Login(Login),
    /// A token.
    Token(Secret),
    /// A `.creds` file, or a file that holds an nkey seed.
    CredentialsFile(PathBuf),
}

pub(super) fn read(section: &mut Reader<'_, '_>) -> Option<NatsConfig> {
    if !section.is_written() {
        return None;
    }
    let problems = section.context.problems.list.len();
    let servers = section.list("servers", server);
    if servers.is_empty() && section.context.problems.list.len() == problems {
        section.complain("servers", "needs at least one server; leave out [nats] to use the embedded bus");
    }
    let auth = auth(section);
    let identity = tls::identity(section).map(|pair| (pair.cert, pair.key));
    Some(NatsConfig {
        servers,
        auth,
        ca: section.path("ca"),
        identity,
        ping_interval: section.duration("ping_interval"),
        server_cache: section.path("server_cache"),
    })
}

fn auth(section: &mut Reader<'_, '_>) -> NatsAuth {
    let user = section.text("user");
    let password = section.secret("password", "password_file");
    let login = process::login(section, user, password).map(NatsAuth::Login);
    let token = section.secret("token", "token_file").map(NatsAuth::Token);
    let file = section.path("credentials_file").map(NatsAuth::CredentialsFile);
    let mut ways: Vec<NatsAuth> = [login, token, file].into_iter().flatten().collect();
    if ways.len() > 1 {
        section.complain("", "give one way to authenticate: user and password, a token, or a credentials_file");
    }
    ways.pop().unwrap_or(NatsAuth::None)
}

/// Proves a NATS URL; a bare `host:port` gets its scheme.
fn server(text: &str) -> Result<String, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("nats", text));
    let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
    // A bare IPv6 address has brackets, so a colon outside of them begins the port.
    let (host, port) = match address.rfind(':') {
        Some(colon) if !address[colon..].contains(']') => (&address[..colon], &address[colon + 1..]),
        _ => (address, "4222"),
    };
    let host_is_fine = !host.is_empty() && !host.contains(['/', '?', '#', ' ', '@']);
    let port_is_fine = port.parse::<u16>().is_ok_and(|port| port > 0);
    if !matches!(scheme, "nats" | "tls") || !host_is_fine || !port_is_fine {
        return Err("is not a NATS server; write \"nats://host:4222\" or \"tls://host:4222\"".into());
    }
    Ok(format!("{scheme}://{rest}"))
}

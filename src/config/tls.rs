//! TLS: towards clients, and towards instances.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::http;
use super::reader::Reader;
use super::schema::{Kind, Section, Shape, live, restart, unset};

pub(super) const HTTPS: Section = Section {
    path: "https",
    shape: Shape::Always,
    doc: "HTTP over TLS from clients. Certificates and other files are read again on SIGHUP and when they change; one \
          that cannot be used leaves the old one in force.",
    keys: &[
        restart(
            "listen",
            Kind::List("addresses"),
            "[]",
            "Where to listen, which needs a certificate. Port 0: any free port.",
        ),
        live(
            "certificate_dir",
            Kind::Text("path"),
            "\"\"",
            "A directory in which every `NAME.crt` or `NAME.pem` with a `NAME.key` beside it is a certificate, in the \
                  order of names, behind those listed below. Empty: none.",
        ),
        live("min_tls", Kind::Choice(&["1.2", "1.3"]), "\"1.2\"", "The oldest version of TLS that clients may speak."),
        live("http2", Kind::Flag, "true", "Whether HTTP/2 is offered."),
        live(
            "client_certificates",
            Kind::Choice(&["none", "request", "require"]),
            "\"none\"",
            "Certificates of clients. `request`: one that is shown must be good; `require`: and there must be one.",
        ),
        live(
            "client_ca",
            Kind::Text("path"),
            "\"\"",
            "PEM file of the authorities whose client certificates are good.",
        ),
    ],
};

pub(super) const CERTIFICATES: Section = Section {
    path: "https.certificates",
    shape: Shape::List,
    doc: "A certificate for clients; inside `[https]` also `certificates = [{ cert = \"…\", key = \"…\" }]`. Clients get \
          the one that carries the name they ask for, exactly or by wildcard, and the first where none does. There may be \
          an ECDSA and an RSA one for the same name.",
    keys: &[
        unset(
            "cert",
            Kind::Text("path"),
            "\"/etc/weighbridge/shop.crt\"",
            "PEM file of the certificate, followed by those of its authorities. Required.",
        ),
        unset("key", Kind::Text("path"), "\"/etc/weighbridge/shop.key\"", "PEM file of its private key. Required."),
    ],
};

pub(super) const UPSTREAM_TLS: Section = Section {
    path: "upstream_tls",
    shape: Shape::Always,
    doc: "TLS towards instances that registered a `tls_port`, and static ones with `tls = true`. Files are read again as \
          those of `[https]`.",
    keys: &[
        live(
            "ca",
            Kind::Text("path"),
            "\"\"",
            "PEM file of the authorities whose instances are trusted. Empty: the system's bundle.",
        ),
        live("cert", Kind::Text("path"), "\"\"", "PEM file of the certificate we show; needs `key`. Empty: none."),
        live("key", Kind::Text("path"), "\"\"", "PEM file of the private key that belongs to `cert`."),
    ],
};

/// A certificate with its private key, as files.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPair {
    /// PEM, the certificate first and its authorities behind it.
    pub cert: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// HTTP over TLS from clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsConfig {
    /// Where to listen; empty: nowhere.
    pub listen: Vec<SocketAddr>,
    /// The first one is for clients that ask for no name we know.
    pub certificates: Vec<KeyPair>,
    /// More of them.
    pub certificate_dir: Option<PathBuf>,
    /// The oldest version allowed.
    pub min_tls: MinTls,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// Certificates of clients.
    pub client_certificates: ClientCertificates,
    /// Their authorities; set unless they are not asked for.
    pub client_ca: Option<PathBuf>,
}

/// The oldest version of TLS that is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinTls {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// What is asked of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// No certificate.
    #[default]
    None,
    /// A good one, or none.
    Request,
    /// A good one.
    Require,
}

/// TLS towards instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTlsConfig {
    /// Whom to trust; `None`: whom the system trusts.
    pub ca: Option<PathBuf>,
    /// What we show when asked.
    pub identity: Option<KeyPair>,
}

pub(super) fn https(section: &mut Reader<'_, '_>) -> HttpsConfig {
    let listen = http::addresses(section);
    let mut seen: Vec<KeyPair> = Vec::new();
    let certificates = section.each("certificates", |mut section| {
        let pair = certificate(&mut section)?;
        match seen.contains(&pair) {
            true => section.complain("cert", "is listed twice"),
            false => seen.push(pair.clone()),
        }
        Some(pair)
    });
    let certificates: Vec<KeyPair> = certificates.into_iter().flatten().collect();
    let certificate_dir = section.path("certificate_dir");
    if !listen.is_empty() && certificates.is_empty() && certificate_dir.is_none() && !section.has("certificates") {
        section.complain("listen", "needs a certificate: give certificates or a certificate_dir");
    }
    let wishes = [
        ("none", ClientCertificates::None),
        ("request", ClientCertificates::Request),
        ("require", ClientCertificates::Require),
    ];
    let client_certificates = section.choice("client_certificates", &wishes);
    let client_ca = section.path("client_ca");
    if client_certificates != ClientCertificates::None && client_ca.is_none() {
        section.complain("client_certificates", "needs a client_ca to judge certificates by");
    }
    HttpsConfig {
        listen,
        certificates,
        certificate_dir,
        min_tls: section.choice("min_tls", &[("1.2", MinTls::Tls12), ("1.3", MinTls::Tls13)]),
        http2: section.flag("http2"),
        client_certificates,
        client_ca,
    }
}

fn certificate(section: &mut Reader<'_, '_>) -> Option<KeyPair> {
    let mut file = |name| {
        let path = section.path(name);
        if path.is_none() {
            section.complain(name, "is missing");
        }
        path
    };
    let (cert, key) = (file("cert"), file("key"));
    Some(KeyPair { cert: cert?, key: key? })
}

pub(super) fn upstream(section: &mut Reader<'_, '_>) -> UpstreamTlsConfig {
    UpstreamTlsConfig { identity: identity(section), ca: section.path("ca") }
}

/// Joins `cert` and `key`: both or none.
pub(super) fn identity(section: &mut Reader<'_, '_>) -> Option<KeyPair> {
    match (section.path("cert"), section.path("key")) {
        (Some(cert), Some(key)) => return Some(KeyPair { cert, key }),
        (Some(_), None) => section.complain("cert", "a certificate needs its key"),
        (None, Some(_)) => section.complain("key", "a key needs its certificate (cert)"),
        (None, None) => {}
    }
    None
}

//! TLS towards clients: which certificate they get, what is asked of them, and the handshake.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::CertificateDer;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, VerifierBuilderError,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{Error, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::names::Names;
use super::{files, provider};
use crate::config::{ClientCertificates, HttpsConfig, MinTls};

/// HTTP/1.1 in the negotiation of protocols (RFC 7301).
pub const HTTP1: &[u8] = b"http/1.1";

/// HTTP/2 likewise.
pub const HTTP2: &[u8] = b"h2";

/// What is offered to clients, the best first.
fn protocols(http2: bool) -> Vec<Vec<u8>> {
    let offered: &[&[u8]] = if http2 { &[HTTP2, HTTP1] } else { &[HTTP1] };
    offered.iter().map(|name| name.to_vec()).collect()
}

/// What remembers sessions: keys that change every six hours and are shared by all workers. They outlive certificates,
/// but not a change in what is asked of clients: a session from before would evade it.
#[derive(Clone, Debug)]
pub(super) struct Tickets {
    producer: Arc<dyn ProducesTickets>,
    asked: ClientCertificates,
    authorities: Vec<CertificateDer<'static>>,
}

impl Tickets {
    /// `self` if sessions may go on under these demands, else new keys.
    pub(super) fn under(
        this: Option<Tickets>,
        asked: ClientCertificates,
        authorities: &[CertificateDer<'static>],
    ) -> Result<Tickets, Error> {
        match this.filter(|tickets| tickets.asked == asked && tickets.authorities == authorities) {
            Some(same) => Ok(same),
            None => Ok(Tickets { producer: Ticketer::new()?, asked, authorities: authorities.to_vec() }),
        }
    }
}

/// Chooses by name, then by what the client can verify.
#[derive(Debug)]
struct Choice(Names<Arc<CertifiedKey>>);

impl Choice {
    fn of(certificates: &[Arc<CertifiedKey>]) -> Choice {
        let mut names = Names::default();
        for certificate in certificates {
            let found = certificate.end_entity_cert().map(files::names).unwrap_or_default();
            names.add(certificate.clone(), found.iter().map(String::as_str));
        }
        Choice(names)
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |certified: &&Arc<CertifiedKey>| certified.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.candidates(hello.server_name()).find(usable).cloned()
    }
}

/// Everything the listeners need. `authorities` are those of `https.client_ca`.
pub(super) fn config(
    https: &HttpsConfig,
    certificates: &[Arc<CertifiedKey>],
    authorities: &[CertificateDer<'static>],
    tickets: &Tickets,
) -> Result<ServerConfig, String> {
    const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    let versions = match https.min_tls {
        MinTls::Tls12 => BOTH,
        MinTls::Tls13 => &BOTH[..1],
    };
    let builder = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let builder = match https.client_certificates {
        ClientCertificates::None => builder.with_no_client_auth(),
        asked => {
            let verifier = verifier(authorities, asked).map_err(|error| error.to_string())?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Choice::of(certificates)));
    config.alpn_protocols = protocols(https.http2);
    config.ticketer = tickets.producer.clone();
    // Tickets do the same without memory and without a lock.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn verifier(
    authorities: &[CertificateDer<'static>],
    asked: ClientCertificates,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, VerifierBuilderError> {
    let mut roots = RootCertStore::empty();
    let (_added, _ignored) = roots.add_parsable_certificates(authorities.iter().cloned());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider().clone());
    match asked {
        ClientCertificates::Require => builder.build(),
        ClientCertificates::None | ClientCertificates::Request => builder.allow_unauthenticated().build(),
    }
}

/// Agrees on TLS with a client.
///
/// # Errors
/// The label of the metric.
pub async fn accept(
    config: Arc<ServerConfig>,
    tcp: TcpStream,
    limit: Duration,
) -> Result<TlsStream<TcpStream>, &'static str> {
    match timeout(limit, TlsAcceptor::from(config).accept(tcp)).await {
        Ok(Ok(agreed)) => Ok(agreed.into()),
        Ok(Err(error)) => Err(reason(&error)),
        Err(_elapsed) => Err("timeout"),
    }
}

/// Why a handshake failed, in one word.
fn reason(error: &io::Error) -> &'static str {
    match super::cause(error) {
        None => "closed",
        Some(Error::InvalidMessage(_)) => "not_tls",
        Some(Error::NoCertificatesPresented) => "no_client_certificate",
        Some(Error::InvalidCertificate(_)) => "bad_client_certificate",
        Some(Error::AlertReceived(_)) => "alert",
        Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => "incompatible",
        Some(Error::General(_)) => "no_certificate",
        Some(_) => "misbehaved",
    }
}

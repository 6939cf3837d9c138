//! TLS towards instances: they must prove who they are, and may ask who we are.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue, WebPkiServerVerifier,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, NamedGroup, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client};

use super::clients::HTTP2;
use super::provider;
use crate::domain::endpoint::{Endpoint, Protocol, Tls};
use crate::proxy::error::Cause;

/// Sessions kept per instance: one for each of the connections that are opened at once, mostly.
const SESSIONS_PER_INSTANCE: usize = 4;

/// Instances with kept sessions, at most twice as many.
const INSTANCES_MAX: usize = 8_192;

/// How to speak TLS to instances.
#[derive(Debug)]
pub struct Instances {
    config: ClientConfig,
    sessions: Mutex<Sessions>,
}

impl Instances {
    /// Trusts `authorities`, and shows `identity` when asked.
    ///
    /// # Errors
    /// When none of the authorities can be used.
    pub(super) fn new(
        authorities: &[CertificateDer<'static>],
        identity: Option<Arc<CertifiedKey>>,
    ) -> Result<Instances, String> {
        let mut roots = RootCertStore::empty();
        let (_added, _ignored) = roots.add_parsable_certificates(authorities.iter().cloned());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider().clone())
            .build()
            .map_err(|error| error.to_string())?;
        let builder = ClientConfig::builder_with_provider(provider().clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_webpki_verifier(verifier);
        let config = match identity {
            Some(certified) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::unwrap_or_clone(certified))))
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Instances { config, sessions: Mutex::default() })
    }

    /// Begins to agree on TLS with an endpoint over `tcp`.
    ///
    /// # Errors
    /// `WrongName` where no certificate could carry the name it must.
    pub fn connect(
        &self,
        endpoint: &Endpoint,
        tls: &Tls,
        tcp: TcpStream,
    ) -> Result<impl Future<Output = io::Result<client::TlsStream<TcpStream>>> + use<>, Cause> {
        let name = if tls.server_name.is_empty() { endpoint.address.host() } else { &*tls.server_name };
        let name = ServerName::try_from(name.to_owned()).map_err(|_| Cause::WrongName)?;
        let mut config = self.config.clone();
        if endpoint.protocol == Protocol::Http2 {
            config.alpn_protocols = vec![HTTP2.to_vec()];
        }
        // By endpoint and not by name: instances on one machine, or of one app, may share a name, but not their tickets.
        config.resumption = Resumption::store(self.sessions.lock().of(endpoint.serial));
        Ok(TlsConnector::from(Arc::new(config)).connect(name, tcp))
    }
}

/// What a failure of TLS with an instance is, be it in the handshake or (TLS 1.3 has clients read the verdict on their
/// certificate there) at the first read behind it. `None`: it was not TLS that failed.
pub fn failure(error: &io::Error) -> Option<Cause> {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked, CertificateUnknown,
        UnknownCA, UnsupportedCertificate,
    };
    Some(match super::cause(error)? {
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Cause::WrongName,
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented => Cause::BadCertificate,
        Error::AlertReceived(
            AccessDenied
            | BadCertificate
            | CertificateExpired
            | CertificateRequired
            | CertificateRevoked
            | CertificateUnknown
            | UnknownCA
            | UnsupportedCertificate,
        ) => Cause::CertificateWanted,
        _ => Cause::NotTls,
    })
}

/// What a handshake that failed was about.
pub fn handshake_failure(error: &io::Error) -> Cause {
    match (failure(error), error.kind()) {
        (Some(cause), _) => cause,
        // A server that knows nothing of TLS hangs up on us.
        (None, io::ErrorKind::UnexpectedEof) => Cause::NotTls,
        (None, kind) => Cause::Connect(kind),
    }
}

/// Sessions by serial of the endpoint. Those not asked for in a while are forgotten: when the young are too many they
/// become the old, and the old before them go.
#[derive(Debug, Default)]
struct Sessions {
    young: HashMap<u64, Arc<Kept>>,
    old: HashMap<u64, Arc<Kept>>,
}

impl Sessions {
    fn of(&mut self, serial: u64) -> Arc<Kept> {
        if let Some(kept) = self.young.get(&serial) {
            return kept.clone();
        }
        let kept = self.old.remove(&serial).unwrap_or_default();
        if self.young.len() >= INSTANCES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(serial, kept.clone());
        kept
    }
}

/// The sessions of one endpoint. It has one name, so that names need not be told apart here.
#[derive(Debug, Default)]
struct Kept(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: Vec<Tls13ClientSessionValue>,
}

impl ClientSessionStore for Kept {
    fn set_kx_hint(&self, _name: ServerName<'static>, group: NamedGroup) {
        self.0.lock().group = Some(group);
    }

    fn kx_hint(&self, _name: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.lock().group
    }

    fn set_tls12_session(&self, _name: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.0.lock().tls12 = Some(session);
    }

    fn tls12_session(&self, _name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.lock().tls12.clone()
    }

    fn remove_tls12_session(&self, _name: &ServerName<'static>) {
        self.0.lock().tls12 = None;
    }

    fn insert_tls13_ticket(&self, _name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut inner = self.0.lock();
        if inner.tls13.len() >= SESSIONS_PER_INSTANCE {
            inner.tls13.remove(0);
        }
        inner.tls13.push(ticket);
    }

    fn take_tls13_ticket(&self, _name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().tls13.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_endpoints_in_use_stay_and_those_of_others_go() {
        let mut sessions = Sessions::default();
        let used = sessions.of(0);
        let forgotten = Arc::downgrade(&sessions.of(1));
        for serial in 2..4 * INSTANCES_MAX as u64 {
            assert!(Arc::ptr_eq(&used, &sessions.of(0)));
            sessions.of(serial);
        }
        assert!(forgotten.upgrade().is_none());
        assert!(sessions.young.len() + sessions.old.len() <= 2 * INSTANCES_MAX);
    }
}

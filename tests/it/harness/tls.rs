//! TLS as the tests see it: authorities and certificates made on the spot, clients that tell what they were shown, and what
//! instances need to speak it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm, date_time_ymd};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::in_time;
use super::message::Stream;

/// An authority, with a folder for the files of its certificates.
pub struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, in files and at hand.
pub struct Pair {
    /// PEM.
    pub cert: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    private: PrivateKeyDer<'static>,
}

impl Authority {
    /// One that nobody has heard of.
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names, no trouble");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("keys can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority can be made");
        let folder = tempfile::tempdir().expect("a folder for the test");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("the folder is ours");
        Authority { folder, issuer }
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder().join("ca.pem")
    }

    /// A certificate for `names`, in `TITLE.crt` and `TITLE.key`.
    pub fn issue(&self, title: &str, names: &[&str]) -> Pair {
        self.make(title, names, &PKCS_ECDSA_P256_SHA256, |_| {})
    }

    /// The same with an RSA key.
    pub fn issue_rsa(&self, title: &str, names: &[&str]) -> Pair {
        self.make(title, names, &PKCS_RSA_SHA256, |_| {})
    }

    /// One that was good once.
    pub fn issue_expired(&self, title: &str, names: &[&str]) -> Pair {
        self.make(title, names, &PKCS_ECDSA_P256_SHA256, |params| {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        })
    }

    fn make(
        &self,
        title: &str,
        names: &[&str],
        algorithm: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let key = KeyPair::generate_for(algorithm).expect("keys can be made");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("good names");
        change(&mut params);
        let made = params.signed_by(&key, &self.issuer).expect("the authority signs");
        let file = |ending: &str| self.folder().join(format!("{title}.{ending}"));
        let pair = Pair {
            cert: file("crt"),
            key: file("key"),
            certificate: made.der().clone(),
            private: PrivateKeyDer::try_from(key.serialize_der()).expect("a key that was just made"),
        };
        // The key first, and each by renaming: a router that looks in between finds a pair that does not match at worst.
        put(&pair.key, &key.serialize_pem());
        put(&pair.cert, &made.pem());
        pair
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority that was just made");
        roots
    }

    /// What an instance needs that shows `pair`.
    pub fn instance(&self, pair: &Pair) -> ServerConfig {
        self.instance_speaking(pair, &[&TLS13, &TLS12], false)
    }

    /// The same, which also wants a certificate of its clients.
    pub fn suspicious_instance(&self, pair: &Pair, version: &'static SupportedProtocolVersion) -> ServerConfig {
        self.instance_speaking(pair, &[version], true)
    }

    fn instance_speaking(
        &self,
        pair: &Pair,
        versions: &[&'static SupportedProtocolVersion],
        wants_certificate: bool,
    ) -> ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(versions).expect("known versions");
        let builder = if wants_certificate {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider).build();
            builder.with_client_cert_verifier(verifier.expect("there is an authority"))
        } else {
            builder.with_no_client_auth()
        };
        let (chain, key) = (vec![pair.certificate.clone()], pair.private.clone_key());
        builder.with_single_cert(chain, key).expect("the key belongs to the certificate")
    }

    /// A client that trusts this authority.
    pub fn client(&self) -> TlsClient<'_> {
        TlsClient {
            authority: self,
            versions: vec![&TLS13, &TLS12],
            shown: None,
            only_rsa: false,
            protocols: vec![b"http/1.1".to_vec()],
        }
    }
}

/// Puts a file in place of another, whole.
pub fn put(path: &Path, content: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).expect("the folder is ours");
    std::fs::rename(&beside, path).expect("the folder is ours");
}

/// A client before it connects.
pub struct TlsClient<'a> {
    authority: &'a Authority,
    versions: Vec<&'static SupportedProtocolVersion>,
    shown: Option<&'a Pair>,
    only_rsa: bool,
    protocols: Vec<Vec<u8>>,
}

/// A client with a memory for sessions.
#[derive(Clone)]
pub struct Speaker(Arc<ClientConfig>);

/// What came of a handshake.
#[derive(Debug)]
pub struct Agreed {
    /// What the router has shown.
    pub certificate: CertificateDer<'static>,
    /// TLS 1.2 or 1.3.
    pub version: ProtocolVersion,
    /// Whether a session from before went on.
    pub resumed: bool,
    /// The protocol above.
    pub alpn: Option<Vec<u8>>,
}

impl<'a> TlsClient<'a> {
    /// Speaks nothing but TLS 1.2.
    pub fn only_tls12(self) -> TlsClient<'a> {
        TlsClient { versions: vec![&TLS12], ..self }
    }

    /// Speaks nothing but TLS 1.3.
    pub fn only_tls13(self) -> TlsClient<'a> {
        TlsClient { versions: vec![&TLS13], ..self }
    }

    /// Shows a certificate.
    pub fn showing(self, pair: &'a Pair) -> TlsClient<'a> {
        TlsClient { shown: Some(pair), ..self }
    }

    /// Offers HTTP/2, and HTTP/1.1 after it.
    pub fn offering_http2(self) -> TlsClient<'a> {
        TlsClient { protocols: vec![b"h2".to_vec(), b"http/1.1".to_vec()], ..self }
    }

    /// Knows no signatures but RSA.
    pub fn only_rsa(self) -> TlsClient<'a> {
        TlsClient { only_rsa: true, ..self }
    }

    /// Ready to connect, any number of times.
    pub fn ready(self) -> Speaker {
        let mut provider = aws_lc_rs::default_provider();
        if self.only_rsa {
            rsa_only(&mut provider);
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&self.versions)
            .expect("known versions")
            .with_root_certificates(self.authority.roots());
        let mut config = match self.shown {
            None => builder.with_no_client_auth(),
            Some(pair) => builder
                .with_client_auth_cert(vec![pair.certificate.clone()], pair.private.clone_key())
                .expect("the key belongs to the certificate"),
        };
        config.alpn_protocols = self.protocols;
        Speaker(Arc::new(config))
    }

    /// Connects once.
    pub async fn connect(self, to: SocketAddr, name: &str) -> io::Result<(Stream, Agreed)> {
        self.ready().connect(to, name).await
    }
}

/// Certificates may still be signed by others.
fn rsa_only(provider: &mut CryptoProvider) {
    let all = provider.signature_verification_algorithms;
    let rsa = all.mapping.iter().filter(|(scheme, _)| scheme.as_str().is_some_and(|name| name.starts_with("RSA")));
    let mapping: Vec<_> = rsa.copied().collect();
    provider.signature_verification_algorithms =
        WebPkiSupportedAlgorithms { all: all.all, mapping: Box::leak(mapping.into_boxed_slice()) };
}

impl Speaker {
    /// Connects and asks for `name`.
    pub async fn connect(&self, to: SocketAddr, name: &str) -> io::Result<(Stream, Agreed)> {
        let agreed = self.handshake(to, name).await?;
        let session = agreed.get_ref().1;
        let shown = session.peer_certificates().and_then(|chain| chain.first()).expect("servers show certificates");
        let facts = Agreed {
            certificate: shown.clone().into_owned(),
            version: session.protocol_version().expect("the handshake is over"),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        };
        Ok((Stream::new(agreed), facts))
    }

    /// The same for those who speak something else than HTTP/1.1 over it.
    pub async fn handshake(&self, to: SocketAddr, name: &str) -> io::Result<TlsStream<TcpStream>> {
        let tcp = in_time("connecting", TcpStream::connect(to)).await?;
        let name = ServerName::try_from(name.to_owned()).expect("a good name");
        in_time("the handshake", TlsConnector::from(self.0.clone()).connect(name, tcp)).await
    }
}

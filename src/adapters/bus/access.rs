//! How we get in: login, token, credentials and TLS, from the configuration to what the client library takes. Files are
//! read anew for every connection, so that credentials and certificates can be replaced while the router runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::rustls::client::WebPkiServerVerifier;
use async_nats::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use async_nats::rustls::crypto::{CryptoProvider, aws_lc_rs};
use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use async_nats::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::servers::Server;
use crate::config::{Login, NatsAuth, NatsConfig, Secret};

/// How long one server may take to let us in.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// Everything about getting in that does not depend on the server.
#[derive(Clone, Debug)]
pub(super) struct Access {
    auth: NatsAuth,
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    ping_interval: Duration,
    /// Host names of the configured servers.
    names: Vec<ServerName<'static>>,
}

/// Why we could not even try.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAccess {
    #[error("cannot read {path}: {cause}", path = path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("{path} {what}", path = path.display())]
    Content { path: PathBuf, what: String },
    #[error("TLS: {0}")]
    Tls(#[from] Error),
}

impl Access {
    /// Splits the configuration into who we are and whom to ask. A login in a URL counts where the configuration has none.
    pub(super) fn new(config: &NatsConfig) -> (Access, Vec<Server>) {
        let mut auth = config.auth.clone();
        let mut servers = Vec::new();
        for url in &config.servers {
            let (url, login) = without_login(url);
            match (&auth, login) {
                (NatsAuth::None, Some(login)) => auth = login,
                (known, Some(login)) if *known != login => {
                    tracing::warn!("[nats] servers: only one login can be used; the one in {url:?} is not");
                }
                _ => {}
            }
            match Server::parse(&url) {
                Some(server) => servers.push(server),
                None => tracing::error!("[nats] servers: {url:?} is not a NATS server"),
            }
        }
        let names = servers.iter().filter_map(|server| ServerName::try_from(server.host().to_owned()).ok());
        let names = names.filter(|name| matches!(name, ServerName::DnsName(_))).collect();
        let access = Access {
            auth,
            ca: config.ca.clone(),
            identity: config.identity.clone(),
            ping_interval: config.ping_interval,
            names,
        };
        (access, servers)
    }

    /// Options for one connection.
    pub(super) async fn options(&self) -> Result<ConnectOptions, NoAccess> {
        let options = ConnectOptions::new()
            .name("weighbridge")
            .ping_interval(self.ping_interval)
            .connection_timeout(CONNECT_WITHIN)
            .ignore_discovered_servers()
            .require_tls(self.ca.is_some() || self.identity.is_some());
        let options = match (&self.ca, &self.identity) {
            (Some(ca), identity) => options.tls_client_config(self.tls(ca, identity.as_ref()).await?),
            (None, Some((cert, key))) => options.add_client_certificate(cert.clone(), key.clone()),
            (None, None) => options,
        };
        Ok(match &self.auth {
            NatsAuth::None => options,
            NatsAuth::Login(Login { user, password }) => {
                options.user_and_password(user.clone(), password.expose().to_owned())
            }
            NatsAuth::Token(token) => options.token(token.expose().to_owned()),
            NatsAuth::CredentialsFile(path) => with_credentials(options, path).await?,
        })
    }

    async fn tls(&self, ca: &Path, identity: Option<&(PathBuf, PathBuf)>) -> Result<ClientConfig, NoAccess> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca).await? {
            roots.add(certificate)?;
        }
        let verifier = ClusterVerifier::new(roots, &provider, self.names.clone())?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous() // the verifier below is the usual one, asked perhaps a second time
            .with_custom_certificate_verifier(Arc::new(verifier));
        let Some((cert, key)) = identity else { return Ok(config.with_no_client_auth()) };
        let private = PrivateKeyDer::from_pem_slice(&read(key).await?)
            .map_err(|error| NoAccess::Content { path: key.clone(), what: format!("holds no private key: {error}") })?;
        Ok(config.with_client_auth_cert(certificates(cert).await?, private)?)
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, NoAccess> {
    tokio::fs::read(path).await.map_err(|cause| NoAccess::Read { path: path.to_owned(), cause })
}

async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, NoAccess> {
    let bytes = read(path).await?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(NoAccess::Content { path: path.to_owned(), what: "holds no certificate".into() }),
        Err(error) => {
            Err(NoAccess::Content { path: path.to_owned(), what: format!("holds a broken certificate: {error}") })
        }
    }
}

/// A `.creds` file holds a JWT and a seed; a file with nothing but a seed is an nkey.
async fn with_credentials(options: ConnectOptions, path: &Path) -> Result<ConnectOptions, NoAccess> {
    let content = |what: String| NoAccess::Content { path: path.to_owned(), what };
    let text = String::from_utf8(read(path).await?).map_err(|_| content("is not text".into()))?;
    if text.contains("NATS USER JWT") {
        return options.credentials(&text).map_err(|error| content(format!("is not a credentials file: {error}")));
    }
    // User seeds begin with SU and have 58 letters and digits.
    let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU") && line.len() == 58);
    seed.map(|seed| options.nkey(seed.to_owned())).ok_or_else(|| content("holds no JWT and no nkey seed".into()))
}

/// Cuts the login out of a URL: `user:password@` or `token@`, percent-encoded where needed.
fn without_login(url: &str) -> (String, Option<NatsAuth>) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    let Some((login, place)) = rest.rsplit_once('@') else { return (url.to_owned(), None) };
    let auth = match login.split_once(':') {
        Some((user, password)) => {
            NatsAuth::Login(Login { user: decoded(user), password: Secret::new(decoded(password)) })
        }
        None => NatsAuth::Token(Secret::new(decoded(login))),
    };
    (format!("{scheme}://{place}"), Some(auth))
}

/// Undoes percent-encoding; what is not encoded properly stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |at: usize| tail.get(at).and_then(|digit| (*digit as char).to_digit(16));
        rest = match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                &tail[2..]
            }
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// The usual verification of a server certificate, with one allowance that NATS clients make: servers tell each other's
/// addresses as IPs, which certificates seldom carry, so a server reached by IP may also show a certificate for the host
/// name of a configured server.
#[derive(Debug)]
struct ClusterVerifier {
    usual: Arc<WebPkiServerVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ClusterVerifier {
    fn new(
        roots: RootCertStore,
        provider: &Arc<CryptoProvider>,
        names: Vec<ServerName<'static>>,
    ) -> Result<ClusterVerifier, Error> {
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(ClusterVerifier { usual, names })
    }
}

impl ServerCertVerifier for ClusterVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify =
            |name: &ServerName<'_>| self.usual.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        let verdict = verify(server_name);
        let is_for_another_name = matches!(
            verdict,
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            ))
        );
        if is_for_another_name && matches!(server_name, ServerName::IpAddress(_)) {
            return self.names.iter().find_map(|name| verify(name).ok()).map_or(verdict, Ok);
        }
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(servers: &[&str], auth: NatsAuth) -> NatsConfig {
        NatsConfig {
            servers: servers.iter().map(|server| (*server).to_owned()).collect(),
            auth,
            ca: None,
            identity: None,
            ping_interval: Duration::from_secs(20),
            server_cache: None,
        }
    }

    fn login(user: &str, password: &str) -> NatsAuth {
        NatsAuth::Login(Login { user: user.into(), password: Secret::new(password.into()) })
    }

    #[track_caller]
    fn check_login(url: &str, auth: NatsAuth, place: &str) {
        let (access, servers) = Access::new(&config(&[url], NatsAuth::None));
        assert_eq!(access.auth, auth);
        assert_eq!(servers.iter().map(ToString::to_string).collect::<Vec<_>>(), [place]);
    }

    #[test]
    fn a_login_may_be_part_of_the_address() {
        check_login("nats://a:1", NatsAuth::None, "a:1");
        check_login("nats://ann:secret@a:1", login("ann", "secret"), "a:1");
        check_login("tls://ann:p%40ss%3a%zz@a:1", login("ann", "p@ss:%zz"), "a:1");
        check_login("nats://t0ken@[::1]:1", NatsAuth::Token(Secret::new("t0ken".into())), "[::1]:1");
    }

    #[test]
    fn a_configured_login_wins_over_the_one_in_the_address() {
        let (access, _) = Access::new(&config(&["nats://bob:x@a", "nats://cid:y@b"], login("ann", "secret")));
        assert_eq!(access.auth, login("ann", "secret"));
    }

    #[test]
    fn only_names_of_configured_servers_vouch_for_an_ip() {
        let (access, _) = Access::new(&config(&["tls://nats.example", "10.0.0.1", "nats://[::1]:1"], NatsAuth::None));
        assert_eq!(access.names, [ServerName::try_from("nats.example").expect("a good name")]);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let file = folder.path().join("some.file");
        let complaint = async |auth: NatsAuth, ca: Option<&Path>| {
            let (access, _) = Access::new(&NatsConfig { ca: ca.map(Path::to_owned), ..config(&["a"], auth) });
            access.options().await.expect_err("the file is no good").to_string()
        };
        let credentials = NatsAuth::CredentialsFile(file.clone());
        assert!(complaint(credentials.clone(), None).await.starts_with(&format!("cannot read {}", file.display())));
        std::fs::write(&file, "hello").expect("the folder is ours");
        let what = complaint(credentials.clone(), None).await;
        assert_eq!(what, format!("{} holds no JWT and no nkey seed", file.display()));
        std::fs::write(&file, "-----BEGIN NATS USER JWT-----\nx").expect("the folder is ours");
        assert!(complaint(credentials, None).await.contains("is not a credentials file"));
        assert!(complaint(NatsAuth::None, Some(&file)).await.contains("holds a broken certificate"));
        std::fs::write(&file, "hello").expect("the folder is ours");
        assert!(complaint(NatsAuth::None, Some(&file)).await.ends_with("holds no certificate"));
    }
}

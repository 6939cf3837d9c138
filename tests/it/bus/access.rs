//! Who is let in: logins, tokens, keys, credentials, certificates; and what a router says that is not.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair as TlsKey};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weighbridge::config::{Login, NatsAuth, NatsConfig, Secret};

use super::*;

fn login(user: &str, password: &str) -> NatsAuth {
    NatsAuth::Login(Login { user: user.into(), password: Secret::new(password.into()) })
}

/// The router gets in, and what comes and goes does so.
async fn check_is_let_in(config: NatsConfig) {
    let mut router = router(config);
    router.is_connected().await;
    router.says("dea.heartbeat", "to myself").await;
    router.hears_exactly("dea.heartbeat", "to myself").await;
}

/// The router stays out, says why, and keeps trying.
async fn check_stays_out(config: NatsConfig, why: &str) {
    let router = router(config);
    let state = router.attached.state.clone();
    eventually("several attempts failed", || state.failures() >= 3).await;
    assert!(router.last_error().contains(why), "{:?} does not say {why:?}", router.last_error());
    assert!(!state.is_connected());
}

const ANN: &str = "authorization { user: ann, password: secret }";

#[tokio::test]
async fn by_user_and_password() {
    let server = nats::server_with(ANN).await;
    check_is_let_in(NatsConfig { auth: login("ann", "secret"), ..config(&[&server]) }).await;
    let in_the_url = vec![format!("nats://ann:secret@{}", server.address())];
    check_is_let_in(NatsConfig { servers: in_the_url, ..config(&[&server]) }).await;
    check_stays_out(config(&[&server]), "does not let us in").await;
}

#[tokio::test]
async fn a_wrong_password_is_named_and_forgiven_once_it_is_right() {
    let mut server = nats::server_with(ANN).await;
    let mut router = router(NatsConfig { auth: login("ann", "new"), ..config(&[&server]) });
    let state = router.attached.state.clone();
    eventually("several attempts failed", || state.failures() >= 3).await;
    let complaint = router.last_error();
    assert!(complaint.starts_with(&format!("{} does not let us in: authorization violation", server.address())));
    assert!(!complaint.contains("new"), "secrets stay secret: {complaint}");
    server.configure("authorization { user: ann, password: new }");
    server.restart().await;
    router.is_connected().await;
    assert_eq!(router.last_error(), "");
}

#[tokio::test]
async fn by_token() {
    let server = nats::server_with("authorization { token: t0ken }").await;
    let token = |token: &str| NatsAuth::Token(Secret::new(token.into()));
    check_is_let_in(NatsConfig { auth: token("t0ken"), ..config(&[&server]) }).await;
    let in_the_url = vec![format!("nats://t0ken@{}", server.address())];
    check_is_let_in(NatsConfig { servers: in_the_url, ..config(&[&server]) }).await;
    check_stays_out(NatsConfig { auth: token("other"), ..config(&[&server]) }, "does not let us in").await;
}

#[tokio::test]
async fn by_a_key_that_is_replaced_while_the_router_runs() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (old, new) = (KeyPair::new_user(), KeyPair::new_user());
    let allow = |key: &KeyPair| format!("authorization {{ users: [ {{ nkey: {} }} ] }}", key.public_key());
    let seed = |key: &KeyPair| format!("{}\n", key.seed().expect("it was made with its seed"));
    let mut server = nats::server_with(&allow(&old)).await;
    let file = nats::write(folder.path(), "router.nk", &seed(&old));
    let mut router = router(NatsConfig { auth: NatsAuth::CredentialsFile(file.clone()), ..config(&[&server]) });
    router.is_connected().await;
    server.configure(&allow(&new));
    server.restart().await;
    router.is_disconnected().await;
    nats::write(folder.path(), "router.nk", &seed(&new));
    router.is_connected().await;
}

#[tokio::test]
async fn by_a_credentials_file() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let operator_jwt = jwt(&operator, &operator, json!({"type": "operator", "version": 2}));
    let limits = json!({"subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1,
        "wildcards": true});
    let account_jwt = jwt(&operator, &account, json!({"type": "account", "version": 2, "limits": limits}));
    let user_jwt = jwt(&account, &user, json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}));
    let server = nats::server_with(&format!(
        "operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {}: {account_jwt} }}",
        account.public_key()
    ))
    .await;
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().expect("it was made with its seed")
    );
    let file = nats::write(folder.path(), "router.creds", &creds);
    check_is_let_in(NatsConfig { auth: NatsAuth::CredentialsFile(file), ..config(&[&server]) }).await;
    check_stays_out(config(&[&server]), "does not let us in").await;
    let missing = folder.path().join("no.creds");
    let complaint = format!("cannot read {}", missing.display());
    check_stays_out(NatsConfig { auth: NatsAuth::CredentialsFile(missing), ..config(&[&server]) }, &complaint).await;
}

/// A token as NATS servers in operator mode want it: `issuer` vouches for `subject`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let head = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let claims = json!({"jti": "test", "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(),
        "name": "test", "nats": nats});
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = issuer.sign(signed.as_bytes()).expect("it was made with its seed");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// An authority with the files that servers and clients want.
struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, TlsKey>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names, no trouble");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, TlsKey::generate().expect("keys can be made"))
            .expect("an authority can be made");
        let folder = tempfile::tempdir().expect("a folder for the test");
        nats::write(folder.path(), "ca.pem", &issuer.pem());
        Authority { folder, issuer }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for `name` and its key.
    fn certify(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = TlsKey::generate().expect("keys can be made");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a good name");
        let certificate = params.signed_by(&key, &self.issuer).expect("the authority signs");
        let cert = nats::write(self.folder.path(), &format!("{name}.pem"), &certificate.pem());
        (cert, nats::write(self.folder.path(), &format!("{name}.key"), &key.serialize_pem()))
    }

    /// What a server needs to show a certificate for `name`, with more settings of its `tls` section.
    fn server(&self, name: &str, more: &str) -> String {
        let (cert, key) = self.certify(name);
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        format!(
            "tls {{ cert_file: {}, key_file: {}, ca_file: {}, {more} }}",
            quoted(&cert),
            quoted(&key),
            quoted(&self.ca())
        )
    }
}

#[tokio::test]
async fn by_a_certificate() {
    let authority = Authority::new();
    let server = nats::server_with(&authority.server("127.0.0.1", "verify: true")).await;
    let identity = authority.certify("router.test");
    let tls = NatsConfig { ca: Some(authority.ca()), ..config(&[&server]) };
    check_is_let_in(NatsConfig { identity: Some(identity.clone()), ..tls.clone() }).await;
    check_stays_out(tls.clone(), "cannot connect").await;
    let (_, key) = authority.certify("somebody.else");
    let mixed_up = NatsConfig { identity: Some((identity.0, key)), ..tls };
    check_stays_out(mixed_up, "TLS").await;
}

#[tokio::test]
async fn a_server_whose_authority_is_unknown_is_not_trusted() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = nats::server_with(&theirs.server("127.0.0.1", "")).await;
    check_stays_out(NatsConfig { ca: Some(ours.ca()), ..config(&[&server]) }, "certificate").await;
    check_is_let_in(NatsConfig { ca: Some(theirs.ca()), ..config(&[&server]) }).await;
}

#[tokio::test]
async fn a_server_that_does_not_offer_tls_hears_no_password() {
    let authority = Authority::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let place = listener.local_addr().expect("it is bound");
    let tls = NatsConfig {
        servers: vec![format!("nats://{place}")],
        ca: Some(authority.ca()),
        auth: login("ann", "secret"),
        ..config(&[])
    };
    let _router = router(tls);
    let (mut stream, _) = in_time("an attempt", listener.accept()).await.expect("the listener listens");
    stream.write_all(b"INFO {\"tls_required\": false}\r\n").await.expect("the router reads");
    let mut first = [0; 1];
    in_time("the first byte", stream.read_exact(&mut first)).await.expect("the router speaks");
    assert_eq!(first, [0x16], "a TLS handshake and not CONNECT");
}

#[tokio::test]
async fn a_learnt_server_may_show_a_certificate_for_the_name_of_a_configured_one() {
    let authority = Authority::new();
    let mut servers = nats::cluster(2, &authority.server("localhost", "")).await;
    let by_name = |server: &nats::Server| vec![format!("tls://localhost:{}", server.port())];
    let tls = NatsConfig { ca: Some(authority.ca()), servers: by_name(&servers[0]), ..config(&[]) };
    let mut router = router(tls.clone());
    router.is_connected().await;
    let address = servers[1].address();
    check_stays_out(NatsConfig { servers: vec![format!("tls://{address}")], ..tls }, "certificate").await;
    servers[0].kill();
    router.is_disconnected().await;
    router.is_connected().await;
    assert_eq!(router.attached.state.server(), address);
}

const NARROW: &str = r#"authorization { users: [ { user: ann, password: secret, permissions: {
    publish: ["router.>", "_INBOX.>"], subscribe: ["router.>", "_INBOX.>"] } } ] }"#;

#[tokio::test]
async fn what_the_server_forbids_is_told() {
    let server = nats::server_with(NARROW).await;
    let allowed = NatsConfig { auth: login("ann", "secret"), ..config(&[&server]) };
    let mut router = router(allowed.clone());
    router.is_connected().await;
    let state = router.attached.state.clone();
    let forbidden = || state.last_error().is_some_and(|error| error.contains("Permissions Violation"));
    eventually("the forbidden subscription is told", forbidden).await;
    router.says("router.register", "still works").await;
    router.hears_exactly("router.register", "still works").await;

    let seed = Dice::seeded(1);
    let sent = in_time("publishing", bus::publish(&allowed, message("router.register", "1"), seed.clone())).await;
    assert_eq!(sent, Ok(server.address()));
    let sent = in_time("publishing", bus::publish(&allowed, message("app.wake", "1"), seed.clone())).await;
    let complaint = sent.expect_err("it is forbidden").to_string();
    assert!(complaint.contains("Permissions Violation for Publish to \"app.wake\""), "{complaint}");
    let stranger = NatsConfig { auth: login("bob", "guess"), ..allowed };
    let sent = in_time("publishing", bus::publish(&stranger, message("app.wake", "1"), seed)).await;
    assert!(sent.expect_err("nobody knows bob").to_string().contains("does not let us in"));
}

//! Starters against small services: a web hook, a program, a Cloud Controller with its UAA.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::Config;
use crate::domain::identity::AppId;

const PATIENCE: Duration = Duration::from_secs(20);

/// A starter at work, as this part of a configuration file says.
struct Rig {
    orders: mpsc::Sender<Order>,
    happenings: mpsc::Receiver<Happening>,
    outgoing: mpsc::Receiver<Outgoing>,
    metrics: Arc<Metrics>,
}

fn starting(wake: &str) -> Rig {
    let config = Config::from_toml(&format!("[wake]\n{wake}")).unwrap_or_else(|problems| panic!("{problems}"));
    let starter = Starter::new(&config.wake.start).unwrap_or_else(|error| panic!("{error}"));
    let (orders, orders_inbox) = mpsc::channel(8);
    let (happenings_sender, happenings) = mpsc::channel(8);
    let (outgoing_sender, outgoing) = mpsc::channel(8);
    let metrics = Metrics::new(10);
    let ports = Ports {
        orders: orders_inbox,
        happenings: happenings_sender,
        outgoing: outgoing_sender,
        router: "0-me".into(),
        metrics: metrics.clone(),
    };
    tokio::spawn(starter.serve(ports));
    Rig { orders, happenings, outgoing, metrics }
}

impl Rig {
    async fn ask(&self, app: &str, attempt: u32) {
        let ask = Ask { app: AppId::new(app), uri: "shop.test/a".into(), epoch: 7, attempt };
        self.orders.send(Order { ask, for_all: false }).await.expect("the starter runs");
    }

    /// An ask that other routers leave to this one.
    async fn ask_for_all(&self, app: &str, attempt: u32) {
        let ask = Ask { app: AppId::new(app), uri: "shop.test/a".into(), epoch: 7, attempt };
        self.orders.send(Order { ask, for_all: true }).await.expect("the starter runs");
    }

    /// The next refusal: its attempt and message.
    async fn refused(&mut self) -> (u32, String) {
        let happening = tokio::time::timeout(PATIENCE, self.happenings.recv()).await.expect("in time");
        match happening.expect("the starter runs") {
            Happening::Refused { epoch: 7, attempt, message, .. } => (attempt, message.to_string()),
            other => panic!("{other:?}"),
        }
    }

    fn ended(&self, outcome: &str) -> bool {
        let text = self.metrics.text(
            &crate::domain::table::snapshot::Snapshot::empty(crate::domain::hash::Keyed::new(1)),
            &Default::default(),
            &Default::default(),
            crate::domain::moment::Moment::START,
        );
        text.contains(&format!("weighbridge_wake_asks_total{{outcome=\"{outcome}\"}}"))
    }

    /// Until an ask was taken on.
    async fn started(&self) {
        let ended = async {
            while !self.ended("started") {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("in time");
    }
}

/// A request as a service sees it.
#[derive(Clone, Debug)]
struct Seen {
    /// Method and target.
    line: String,
    /// All lines of the head, lower-cased.
    head: String,
    body: String,
}

/// A service of one answer per request, which may depend on all requests so far.
struct Service {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

type Answering = dyn Fn(&[Seen]) -> (u16, serde_json::Value) + Send + Sync;

impl Service {
    async fn over_tcp(answer: impl Fn(&[Seen]) -> (u16, serde_json::Value) + Send + Sync + 'static) -> Service {
        Service::new(None, Arc::new(answer)).await
    }

    async fn new(tls: Option<TlsAcceptor>, answer: Arc<Answering>) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer, tls) = (shared.clone(), answer.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &seen, &*answer).await;
                            }
                        }
                        None => serve(stream, &seen, &*answer).await,
                    }
                });
            }
        });
        Service { address, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Mutex<Vec<Seen>>, answer: &Answering) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).await.expect("a head") > 0, "the head ends early: {head:?}");
    }
    let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("a body");
    let (status, body) = {
        let mut seen = seen.lock();
        seen.push(Seen { line, head, body: String::from_utf8(body).expect("text") });
        answer(&seen)
    };
    let body = body.to_string();
    let response = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(response.as_bytes()).await.expect("the client is there");
}

/// A certificate for `localhost` and its authority, as what a server needs and the file a client needs.
fn authority(folder: &Path) -> (TlsAcceptor, PathBuf) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names, no trouble");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, issuer.pem()).expect("the folder is ours");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a good name");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the versions of the provider")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .expect("they belong together");
    (TlsAcceptor::from(Arc::new(config)), ca)
}

#[tokio::test]
async fn the_bus_is_asked_by_a_message() {
    let mut rig = starting("start = \"nats\"");
    rig.ask("shop", 2).await;
    let Outgoing { subject, payload, reply } = rig.outgoing.recv().await.expect("the starter runs");
    let wake = Wake::decode(&payload).expect("a good message");
    assert_eq!((subject.as_str(), reply, wake.app.as_str(), &*wake.uri), ("app.wake", None, "shop", "shop.test/a"));
    assert_eq!((wake.epoch, wake.attempt, &*wake.router), (7, 2, "0-me"));
    assert!(wake.at_unix_ms > 1_700_000_000_000);
    rig.started().await;
}

#[tokio::test]
async fn a_webhook_is_told_what_the_bus_would_be_told_and_says_why_not() {
    let service = Service::over_tcp(|seen| match seen.len() {
        1 => (503, json!("busy")),
        2 => (409, json!({"message": "No machine has\n room. "})),
        _ => (202, json!({})),
    })
    .await;
    let mut rig = starting(&format!(
        "start = 'webhook'\nwebhook = {{ url = 'http://{}/start?x=1', token = 'abc' }}",
        service.address
    ));
    rig.ask("shop", 1).await;
    assert_eq!(rig.refused().await, (1, "The service that starts this app answered with status 503.".to_owned()));
    rig.ask("shop", 2).await;
    assert_eq!(rig.refused().await, (2, "No machine has room.".to_owned()));
    rig.ask("shop", 3).await;
    rig.started().await;
    let seen = service.seen();
    assert_eq!(seen.len(), 3);
    let last = &seen[2];
    assert_eq!(last.line, "POST /start?x=1");
    for field in ["authorization: bearer abc", "idempotency-key: shop-7-3", "content-type: application/json"] {
        assert!(last.head.lines().any(|line| line == field), "{field}: {}", last.head);
    }
    let wake = Wake::decode(last.body.as_bytes()).expect("the body of app.wake");
    assert_eq!((wake.app.as_str(), wake.epoch, wake.attempt), ("shop", 7, 3));
}

#[tokio::test]
async fn a_webhook_is_reached_over_tls_by_those_who_trust_it() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (acceptor, ca) = authority(folder.path());
    let service = Service::new(Some(acceptor), Arc::new(|_: &[Seen]| (200, json!({})))).await;
    let port = service.address.port();
    let url = format!("start = 'webhook'\nwebhook.url = 'https://localhost:{port}/'");
    let rig = starting(&format!("{url}\nwebhook.ca = {ca:?}"));
    rig.ask("shop", 1).await;
    rig.started().await;
    assert_eq!(service.seen()[0].line, "POST /");
    let stranger = tempfile::tempdir().expect("a folder for the test");
    let (_, other_ca) = authority(stranger.path());
    let mut rig = starting(&format!("{url}\nwebhook.ca = {other_ca:?}"));
    rig.ask("shop", 1).await;
    assert_eq!(rig.refused().await, (1, "The service that starts this app cannot be reached.".to_owned()));
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn a_webhook_that_is_not_there_or_never_answers_refuses_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let mut rig = starting(&format!("start = 'webhook'\nwebhook = {{ url = 'http://{address}', timeout = '100ms' }}"));
    rig.ask("shop", 1).await;
    let unreachable = "The service that starts this app cannot be reached.";
    assert_eq!(rig.refused().await, (1, unreachable.to_owned()));
    drop(silent);
    rig.ask("shop", 2).await;
    assert_eq!(rig.refused().await, (2, unreachable.to_owned()));
}

#[test]
fn authorities_that_cannot_be_read_are_named_before_anybody_needs_them() {
    let config = Config::from_toml("[wake]\nstart = 'webhook'\nwebhook = { url = 'https://a.test', ca = '/no.pem' }");
    let error = Starter::new(&config.expect("valid").wake.start).err().expect("the file is not there");
    assert!(error.starts_with("wake.webhook.ca: cannot read /no.pem"), "{error}");
}

#[tokio::test]
async fn routers_that_leave_a_start_to_this_one_hear_if_it_comes_to_nothing() {
    let service = Service::over_tcp(|_| (503, json!({"message": "No room."}))).await;
    let mut rig = starting(&format!("start = 'webhook'\nwebhook.url = 'http://{}'", service.address));
    rig.ask("shop", 1).await;
    assert_eq!(rig.refused().await, (1, "No room.".to_owned()));
    assert!(rig.outgoing.try_recv().is_err(), "nobody else waits for it");
    rig.ask_for_all("shop", 2).await;
    assert_eq!(rig.refused().await, (2, "No room.".to_owned()));
    let told = rig.outgoing.recv().await.expect("the starter runs");
    let failed = Failed::decode(&told.payload).expect("a good message");
    assert_eq!(
        (told.subject.as_str(), failed.epoch, failed.attempt, &*failed.message),
        ("app.failed", 7, Some(2), "No room.")
    );
}

/// A program for `wake.command`; its path.
fn program(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("start");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("the folder is ours");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
    path
}

/// A starter that runs `script`.
fn running(folder: &Path, script: &str, more: &str) -> Rig {
    // By way of the shell: a file that was just written may still be open in a child of another test.
    let path = program(folder, script);
    starting(&format!(
        "start = 'command'\ncommand = {{ run = ['/bin/sh', {path:?}, '{{app}}', '-{{epoch}}'], {more} }}"
    ))
}

#[tokio::test]
async fn a_program_finds_the_facts_in_its_arguments_and_its_environment() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let into = folder.path().join("facts");
    let facts = "$1 $2 $WEIGHBRIDGE_APP $WEIGHBRIDGE_URI $WEIGHBRIDGE_EPOCH $WEIGHBRIDGE_ATTEMPT $WEIGHBRIDGE_ROUTER";
    let rig = running(folder.path(), &format!("printf '%s|' \"{facts}\" > {}", into.display()), "");
    rig.ask("; rm -rf $HOME", 1).await;
    rig.started().await;
    let told = std::fs::read_to_string(into).expect("the program ran");
    assert_eq!(told, "; rm -rf $HOME -7 ; rm -rf $HOME shop.test/a 7 1 0-me|");
}

#[tokio::test]
async fn a_program_that_fails_or_takes_too_long_refuses() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mut rig = running(folder.path(), "echo no machine >&2; exit 3", "");
    rig.ask("shop", 1).await;
    assert_eq!(rig.refused().await, (1, "The program that starts this app failed.".to_owned()));
    let mut rig = running(folder.path(), "exec sleep 600", "timeout = '100ms'");
    rig.ask("shop", 2).await;
    assert_eq!(rig.refused().await, (2, "The program that starts this app took too long.".to_owned()));
    let mut rig = starting("start = 'command'\ncommand.run = '/no/such/program'");
    rig.ask("shop", 3).await;
    assert_eq!(rig.refused().await, (3, "The program that starts this app failed.".to_owned()));
}

#[tokio::test]
async fn a_program_may_leave_the_app_running_and_write_more_than_anybody_reads() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let rig = running(folder.path(), "head -c 1000000 /dev/zero; sleep 30 & exit 0", "");
    rig.ask("shop", 1).await;
    rig.started().await;
}

#[tokio::test]
async fn few_programs_run_at_a_time_and_all_get_their_turn() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    // Makes a folder that must not be there yet: two at a time would fail.
    let alone = folder.path().join("alone");
    let script = format!("mkdir {0} && sleep 0.02 && rmdir {0} && echo $1 >> {0}.done", alone.display());
    let mut rig = running(folder.path(), &script, "concurrency = 1");
    for app in ["a", "b", "c", "d"] {
        rig.ask(app, 1).await;
    }
    let done = folder.path().join("alone.done");
    let all = async {
        while std::fs::read_to_string(&done).unwrap_or_default().lines().count() < 4 {
            assert!(rig.happenings.try_recv().is_err(), "one was refused");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("in time");
}

/// A Cloud Controller and its UAA in one: `tokens` are good for so many seconds; those in `revoked` are refused.
async fn cloud(expires_in: u64, revoked: &'static [&'static str]) -> Service {
    Service::over_tcp(move |seen| {
        let last = seen.last().expect("there is a request");
        let given = seen.iter().filter(|seen| seen.line.ends_with("/oauth/token")).count();
        match last.line.as_str() {
            "GET /" => {
                let host = last.head.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
                (200, json!({"links": {"uaa": {"href": format!("http://{host}/uaa/")}, "login": null}}))
            }
            "POST /uaa/oauth/token" if last.head.contains("authorization: basic cm91dgvyonmlm0fjcmv0") => {
                (200, json!({"access_token": format!("t{given}"), "expires_in": expires_in, "token_type": "bearer"}))
            }
            "POST /uaa/oauth/token" => (401, json!({"error": "unauthorized"})),
            line => {
                let token = last.head.lines().find_map(|line| line.strip_prefix("authorization: bearer "));
                if token.is_none_or(|token| revoked.contains(&token)) {
                    return (
                        401,
                        json!({"errors": [{"title": "CF-InvalidAuthToken", "detail": "Invalid Auth Token"}]}),
                    );
                }
                match line {
                    "POST /v3/apps/shop/actions/start" => (200, json!({"guid": "shop", "state": "STARTED"})),
                    "POST /v3/apps/full/actions/start" => (
                        422,
                        json!({"errors": [{"title": "CF-UnprocessableEntity", "detail": "memory quota_exceeded"}]}),
                    ),
                    "POST /v3/apps/locked/actions/start" => (403, json!({"errors": []})),
                    "POST /v3/apps/ill/actions/start" => (500, json!("oh")),
                    _ => (404, json!({"errors": [{"title": "CF-ResourceNotFound", "detail": "App not found"}]})),
                }
            }
        }
    })
    .await
}

fn asking(service: &Service, auth: &str) -> Rig {
    starting(&format!("start = 'cloudfoundry'\ncloudfoundry = {{ api = 'http://{}/', {auth} }}", service.address))
}

const CLIENT: &str = "client = 'router', client_secret = 's:cret'";

fn lines(service: &Service) -> Vec<String> {
    service.seen().into_iter().map(|seen| seen.line).collect()
}

#[tokio::test]
async fn a_cloud_controller_starts_the_app_for_a_client_of_its_uaa() {
    let service = cloud(600, &[]).await;
    let mut rig = asking(&service, CLIENT);
    rig.ask("shop", 1).await;
    rig.started().await;
    rig.ask("full", 2).await;
    assert_eq!(rig.refused().await, (2, "The platform cannot start this app: memory quota_exceeded".to_owned()));
    let expected = [
        "GET /",
        "POST /uaa/oauth/token",
        "POST /v3/apps/shop/actions/start",
        "POST /v3/apps/full/actions/start", // with the token that is there
    ];
    assert_eq!(lines(&service), expected);
    assert_eq!(service.seen()[1].body, "grant_type=client_credentials");
}

#[tokio::test]
async fn a_token_is_fetched_anew_before_it_expires_and_when_it_is_refused() {
    let service = cloud(0, &[]).await; // expired as soon as it is given
    let mut rig = asking(&service, CLIENT);
    for attempt in 1..=2 {
        rig.ask("gone", attempt).await;
        assert_eq!(rig.refused().await, (attempt, "The platform does not know this app.".to_owned()));
    }
    assert_eq!(lines(&service).iter().filter(|line| line.ends_with("token")).count(), 2);
    let service = cloud(600, &["t1"]).await;
    let rig = asking(&service, CLIENT);
    rig.ask("shop", 1).await;
    rig.started().await;
    assert_eq!(lines(&service).iter().filter(|line| line.ends_with("start")).count(), 2);
    let service = cloud(600, &["t1", "t2", "t3"]).await;
    let mut rig = asking(&service, CLIENT);
    rig.ask("shop", 1).await;
    let may_not = "The router may not ask the platform to start this app.".to_owned();
    assert_eq!(rig.refused().await, (1, may_not));
    assert_eq!(lines(&service).iter().filter(|line| line.ends_with("start")).count(), 2, "one more try, not for ever");
}

#[tokio::test]
async fn a_client_that_uaa_does_not_know_is_refused_without_asking_the_controller() {
    let service = cloud(600, &[]).await;
    let uaa = format!("client = 'router', client_secret = 'wrong', uaa = 'http://{}/uaa/'", service.address);
    let mut rig = asking(&service, &uaa);
    rig.ask("shop", 1).await;
    assert_eq!(rig.refused().await, (1, "The router may not ask the platform to start this app.".to_owned()));
    assert_eq!(lines(&service), ["POST /uaa/oauth/token"]);
}

#[tokio::test]
async fn a_token_of_ones_own_is_used_as_it_is() {
    let service = cloud(600, &["old"]).await;
    let mut rig = asking(&service, "token = 'mine'");
    for (app, expected) in [
        ("locked", "The router may not ask the platform to start this app."),
        ("ill", "The platform answered with status 500."),
        ("../shop", "The platform does not know this app."),
        ("..", "The platform does not know this app."),
    ] {
        rig.ask(app, 1).await;
        assert_eq!(rig.refused().await, (1, expected.to_owned()), "{app}");
    }
    let targets = lines(&service);
    assert_eq!(targets[2..], ["POST /v3/apps/..%2Fshop/actions/start", "POST /v3/apps/%2E%2E/actions/start"]);
    let mut rig = asking(&service, "token = 'old'");
    rig.ask("shop", 1).await;
    assert_eq!(rig.refused().await, (1, "The router may not ask the platform to start this app.".to_owned()));
    assert_eq!(service.seen().len(), 5);
}

//! Accepts connections and finds out what is asked.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{AUTHORIZATION, HOST, ORIGIN};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use socket2::Socket;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{sleep, timeout};

use super::answer::{Answer, Problem, json, not_modified_by_caches, stream, text};
use super::{Admin, apps, explain, query, routes};
use crate::config::Login;
use crate::domain::protocol;
use crate::domain::protocol::envelope::Outgoing;
use crate::runtime::shutdown::Phase;
use crate::telemetry::metrics::CONTENT_TYPE;

/// Connections at a time; more wait in the backlog.
const CONNECTIONS_MAX: usize = 256;
/// Time for a request head, and for the next one on the same connection.
const HEAD_TIME_MAX: Duration = Duration::from_secs(15);
/// Time for a request body.
const BODY_TIME_MAX: Duration = Duration::from_secs(15);
/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a request body: some more than a message of the bus may have, so that the bus's own refusal is the answer.
const BODY_BYTES_MAX: usize = (1 << 20) + (64 << 10);

/// The socket of the operator's port.
#[derive(Debug)]
pub struct AdminSocket {
    socket: Socket,
    is_inherited: bool,
}

impl AdminSocket {
    /// One of our own, and its address.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new(listener: std::net::TcpListener) -> io::Result<(AdminSocket, SocketAddr)> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((AdminSocket { socket: listener.into(), is_inherited: false }, address))
    }

    /// That of a predecessor, who answers until we are ready to serve.
    ///
    /// # Errors
    /// Those of the system.
    pub fn inherited(socket: Socket) -> io::Result<(AdminSocket, SocketAddr)> {
        let (socket, address) = AdminSocket::new(socket.into())?;
        Ok((AdminSocket { is_inherited: true, ..socket }, address))
    }

    /// One more handle of the socket.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn handle(&self) -> io::Result<Socket> {
        self.socket.try_clone()
    }
}

/// Serves the operator's port until the process has stopped; if a successor has the port as well, until we leave: who
/// asks whether requests may come shall hear it from the one who takes them.
pub async fn serve(socket: AdminSocket, admin: Admin) {
    if socket.is_inherited {
        let mut primed = admin.health.primed.subscribe();
        let _gone = primed.wait_for(|primed| *primed).await;
    }
    let listener = match TcpListener::from_std(socket.socket.into()) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin port could not be registered with the reactor");
            return;
        }
    };
    let admin = Arc::new(admin);
    tokio::select! {
        () = accept(&listener, &admin) => {}
        () = ends(&admin) => {}
    }
}

/// Returns when this process shall not speak for the port any more.
async fn ends(admin: &Admin) {
    let (mut leaving, mut stopped) = (admin.health.phase.clone(), admin.health.phase.clone());
    let mut successors = admin.successors.clone();
    let succeeded = async {
        leaving.reached(Phase::Leaving).await;
        if successors.wait_for(|count| *count > 0).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = succeeded => {}
        () = stopped.reached(Phase::Stopped) => {}
    }
}

async fn accept(listener: &TcpListener, admin: &Arc<Admin>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = admin.clone();
                tokio::spawn(async move {
                    converse(stream, admin).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: trying again at once would only burn CPU.
                tracing::warn!(%error, "the admin port cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, admin: Arc<Admin>) {
    let service = service_fn(|request| {
        let admin = admin.clone();
        async move { Ok::<_, io::Error>(not_modified_by_caches(answer(&admin, request).await)) }
    });
    let conversation = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut conversation = pin!(conversation);
    let ended = tokio::select! {
        ended = &mut conversation => ended,
        () = ends(&admin) => {
            conversation.as_mut().graceful_shutdown();
            conversation.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin port broke off");
    }
}

async fn answer(admin: &Arc<Admin>, request: Request<Incoming>) -> Answer {
    let result = match request.uri().path() {
        "/health" => only_get(&request).map(|()| health(admin)),
        path => match allow(admin, &request) {
            Err(refused) => Err(refused),
            Ok(()) => match path {
                "/metrics" => of_get(&request, metrics(admin)).await,
                "/routes" => of_get(&request, table(admin)).await,
                "/v1/explain" => only_get(&request).and_then(|()| explanation(admin, request.uri().query())),
                "/v1/apps" => only_get(&request).map(|()| apps::list(admin)),
                path if path.starts_with("/v1/apps/") => {
                    let path = path.to_owned();
                    app(admin, &path["/v1/apps/".len()..], request).await
                }
                path => match path.strip_prefix("/v1/bus/") {
                    Some(subject) => {
                        let subject = subject.to_owned();
                        publish(admin, &subject, request).await
                    }
                    None => Err(Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")),
                },
            },
        },
    };
    result.unwrap_or_else(Problem::into_answer)
}

/// Whether the request may be made: by somebody who knows the password, and not by a web page from elsewhere in the
/// operator's browser.
fn allow(admin: &Admin, request: &Request<Incoming>) -> Result<(), Problem> {
    if let Some(login) = &admin.login {
        let given = request.headers().get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Basic "));
        let given = given.and_then(|encoded| BASE64_STANDARD.decode(encoded.trim_ascii()).ok()).unwrap_or_default();
        if !is_login(login, &given) {
            let problem = "user and password are needed, by basic authentication";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", problem));
        }
    }
    if let Some(origin) = request.headers().get(ORIGIN) {
        let own = origin.as_bytes().rsplit(|byte| *byte == b'/').next();
        if own != request.headers().get(HOST).map(|host| host.as_bytes()) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "foreign_origin", "a page from elsewhere may not ask"));
        }
    }
    Ok(())
}

/// Compares in a time that tells nothing about how much of it was right.
fn is_login(login: &Login, given: &[u8]) -> bool {
    let expected = format!("{}:{}", login.user, login.password.expose());
    let mut difference = given.len() ^ expected.len();
    for (n, byte) in expected.bytes().enumerate() {
        difference |= usize::from(byte ^ given.get(n).copied().unwrap_or(0));
    }
    std::hint::black_box(difference) == 0
}

fn only_get(request: &Request<Incoming>) -> Result<(), Problem> {
    match *request.method() {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Problem::method("GET, HEAD")),
    }
}

async fn of_get(
    request: &Request<Incoming>,
    answer: impl Future<Output = Result<Answer, Problem>>,
) -> Result<Answer, Problem> {
    only_get(request)?;
    answer.await
}

fn health(admin: &Admin) -> Answer {
    if admin.health.is_well() {
        text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", "unavailable\n")
    }
}

async fn metrics(admin: &Arc<Admin>) -> Result<Answer, Problem> {
    let admin = admin.clone();
    // A large table takes a while to walk; the control plane must not wait for that.
    let exposition = off_thread(move || admin.exposition()).await?;
    Ok(text(StatusCode::OK, CONTENT_TYPE, exposition))
}

async fn table(admin: &Arc<Admin>) -> Result<Answer, Problem> {
    let admin = admin.clone();
    let listing =
        off_thread(move || routes::Listing::of(&admin.routes.get(), admin.settings.get(), admin.clock.now())).await?;
    Ok(stream(listing))
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "this is a mistake of the router's"))
}

fn explanation(admin: &Admin, asked: Option<&str>) -> Result<Answer, Problem> {
    let asked = query::parse(asked.unwrap_or_default());
    let of = |key| asked.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let Some(host) = of("host").filter(|host| !host.is_empty()) else {
        let problem = "say which host: /v1/explain?host=shop.example.com&path=/cart";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "missing_host", problem));
    };
    let question = explain::Question {
        host,
        path: of("path").unwrap_or("/"),
        session: of("cookie").filter(|session| !session.is_empty()),
        hash_key: of("hash"),
    };
    let (snapshot, settings) = (admin.routes.get(), admin.settings.get());
    Ok(json(StatusCode::OK, &explain::explain(&snapshot, &question, &settings, admin.clock.now())))
}

/// An operator's order about one app: `<app>/sleep` or `<app>/wake`.
async fn app(admin: &Admin, order: &str, request: Request<Incoming>) -> Result<Answer, Problem> {
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path");
    let (app, order) = order.rsplit_once('/').ok_or_else(unknown)?;
    let app = query::decode(app);
    if !matches!(order, "sleep" | "wake") || app.is_empty() {
        return Err(unknown());
    }
    if request.method() != Method::POST {
        return Err(Problem::method("POST"));
    }
    let body = payload(request).await?;
    if order == "sleep" { apps::sleep(admin, &app, &body) } else { apps::wake(admin, &app) }
}

/// A message was taken over.
#[derive(Serialize)]
struct Accepted<'a> {
    accepted: bool,
    subject: &'a str,
}

async fn publish(admin: &Admin, subject: &str, request: Request<Incoming>) -> Result<Answer, Problem> {
    if request.method() != Method::POST {
        return Err(Problem::method("POST"));
    }
    if !is_subject(subject) {
        let problem = "a subject is words joined by dots, without blanks and wildcards";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_subject", problem));
    }
    let payload = payload(request).await?;
    protocol::check(subject, &payload)
        .map_err(|rejection| Problem::new(StatusCode::BAD_REQUEST, rejection.reason.label(), rejection.sentence))?;
    let message = Outgoing { subject: subject.to_owned(), payload, reply: None };
    admin.bus.try_send(message).map_err(|error| match error {
        TrySendError::Full(_) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "bus_busy", "the bus cannot keep up; try again in a moment")
        }
        TrySendError::Closed(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "bus_gone", "the router is stopping"),
    })?;
    Ok(json(StatusCode::ACCEPTED, &Accepted { accepted: true, subject }))
}

/// As NATS has it: words of printable ASCII joined by dots; wildcards are for those who subscribe.
fn is_subject(subject: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic() && !b"*>%/".contains(&b));
    subject.len() <= 255 && subject.split('.').all(is_word)
}

async fn payload(request: Request<Incoming>) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the message is larger than the bus takes");
    if request.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    match timeout(BODY_TIME_MAX, Limited::new(request.into_body(), BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "broken_body", "the request body broke off")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the request body came too slowly")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn a_login_is_right_only_as_a_whole() {
        let login = Login { user: "admin".into(), password: Secret::new("s3cret:x".into()) };
        assert!(is_login(&login, b"admin:s3cret:x"));
        for wrong in [
            "",
            "admin",
            "admin:",
            "admin:s3cret",
            "admin:s3cret:y",
            "admin:s3cret:x ",
            "admin:s3cret:x\0",
            "a:s3cret:x",
        ] {
            assert!(!is_login(&login, wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn a_subject_is_words_joined_by_dots() {
        for good in ["router.register", "dea.heartbeat", "app.wake", "x"] {
            assert!(is_subject(good), "{good}");
        }
        let long = "a".repeat(256);
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a.*", ">", "a/b", "a%20b", "ä", &long] {
            assert!(!is_subject(bad), "{bad}");
        }
    }
}

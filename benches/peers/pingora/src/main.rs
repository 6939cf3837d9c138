//! The reverse proxy that a pingora user would write for the works of `benches/peers`: forwarded headers, a request id,
//! kept connections to the instances, sticky sessions by cookie and a JSON access log.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::*;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::configuration::ServerConf;

struct Proxy {
    instances: Vec<String>,
    next: AtomicUsize,
    sticky: bool,
    log: Option<Mutex<BufWriter<File>>>,
}

struct Context {
    began: Instant,
    id: String,
    instance: usize,
    pinned: bool,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context { began: Instant::now(), id: uuid::Uuid::new_v4().to_string(), instance: 0, pinned: false }
    }

    async fn upstream_peer(&self, session: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>> {
        let pinned = self.sticky.then(|| pinned(session.req_header())).flatten();
        context.pinned = pinned.is_some();
        context.instance = pinned.unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed)) % self.instances.len();
        let mut peer = HttpPeer::new(&*self.instances[context.instance], false, String::new());
        peer.options.connection_timeout = Some(Duration::from_secs(2));
        peer.options.idle_timeout = Some(Duration::from_secs(55));
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        if let Some(SocketAddr::Inet(client)) = session.client_addr() {
            let client = client.ip().to_string();
            let list = match upstream.headers.get("x-forwarded-for").and_then(|list| list.to_str().ok()) {
                Some(list) => format!("{list}, {client}"),
                None => client,
            };
            upstream.insert_header("X-Forwarded-For", list)?;
        }
        let is_tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        upstream.insert_header("X-Forwarded-Proto", if is_tls { "https" } else { "http" })?;
        if let Some(host) = session.req_header().headers.get("host") {
            upstream.insert_header("X-Forwarded-Host", host.clone())?;
        }
        upstream.insert_header("X-Request-Id", &*context.id)
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        if self.sticky && !context.pinned {
            response.append_header("Set-Cookie", format!("peer={}; Path=/; HttpOnly", context.instance))?;
        }
        Ok(())
    }

    async fn logging(&self, session: &mut Session, _: Option<&pingora::Error>, context: &mut Context) {
        let Some(log) = &self.log else { return };
        let request = session.req_header();
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        let text = |name| request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let line = format!(
            "{{\"id\":\"{}\",\"method\":\"{}\",\"host\":{:?},\"uri\":{:?},\"status\":{status},\"bytes\":{},\
             \"agent\":{:?},\"upstream\":\"{}\",\"seconds\":{}}}\n",
            context.id,
            request.method,
            text("host"),
            request.uri.to_string(),
            session.body_bytes_sent(),
            text("user-agent"),
            self.instances[context.instance],
            context.began.elapsed().as_secs_f64(),
        );
        let _ = log.lock().map(|mut log| log.write_all(line.as_bytes()));
    }
}

/// The instance that the cookie `peer` names.
fn pinned(request: &RequestHeader) -> Option<usize> {
    let cookies = request.headers.get_all("cookie").iter().filter_map(|line| line.to_str().ok());
    cookies.flat_map(|line| line.split("; ")).find_map(|cookie| cookie.strip_prefix("peer=")?.parse().ok())
}

/// `peer-pingora HTTP HTTPS CERTIFICATE KEY INSTANCE,INSTANCE… [--sticky] [--log FILE]`
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [http, https, certificate, key, instances, options @ ..] = &arguments[..] else {
        panic!("usage: peer-pingora HTTP HTTPS CERTIFICATE KEY INSTANCES [--sticky] [--log FILE]");
    };
    let log = options.iter().position(|option| option == "--log").map(|at| &options[at + 1]);
    let log = log.map(|path| Mutex::new(BufWriter::with_capacity(65_536, File::create(path).expect("a log"))));
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 512, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let proxy = Proxy {
        instances: instances.split(',').map(str::to_owned).collect(),
        next: AtomicUsize::new(0),
        sticky: options.iter().any(|option| option == "--sticky"),
        log,
    };
    let mut service = http_proxy_service(&server.configuration, proxy);
    service.add_tcp(http);
    let mut tls = TlsSettings::intermediate(certificate, key).expect("a certificate");
    tls.enable_h2();
    service.add_tls_with_settings(https, None, tls);
    server.add_service(service);
    server.run_forever();
}

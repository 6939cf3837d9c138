//! One measurement: a proxy, a work, a while.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore};

use super::PROXY_CORE;
use super::callgrind;
use super::instance::{ECHO, Instances};
use super::load::{self, Connection, HOST, Tally, Target};
use super::peer::{Certificate, Peer, Running, Under};
use super::process::{self, Cpu, Memory};
use super::work::Work;

/// Before a round counts.
const WARM_UP: Duration = Duration::from_millis(300);
/// A round is prolonged, at most so many times over, until the proxy has had this share of its core: on a busy machine it
/// would have done too little for the kernel's clock.
const LONGEST: usize = 5;
const ENOUGH: f64 = 0.3;
/// How long clients may take to have their last answers.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests of the two runs under callgrind.
const COUNTED: [u64; 2] = [500, 10_500];
/// Idle connections are opened so many at a time: no backlog shall overflow.
const OPENED_AT_ONCE: usize = 100;

/// What all measurements share.
pub struct Bench {
    pub instances: Instances,
    pub certificate: Certificate,
    pub seconds: f64,
}

/// What a round came to.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// CPU µs per request in user space and in the kernel.
    pub user: f64,
    pub system: f64,
    pub per_second: f64,
    /// Milliseconds.
    pub p50: f64,
    pub p99: f64,
    /// Bytes; of idle connections, of each.
    pub memory: Memory,
    pub requests: usize,
    pub errors: u64,
    pub last_error: String,
    /// Share of the handshakes that resumed a session.
    pub resumed: f64,
    /// New connections to instances per request.
    pub upstream_connections: f64,
}

/// A certificate for the one host, trusted by the load alone, in the folder.
pub fn certificate(dir: &Path) -> io::Result<Certificate> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let params = CertificateParams::new(vec![HOST.to_owned()]).map_err(io::Error::other)?;
    let cert = params.self_signed(&key).map_err(io::Error::other)?;
    let files = Certificate { cert: dir.join("app.crt"), key: dir.join("app.key"), pem: dir.join("app.pem") };
    std::fs::write(&files.cert, cert.pem())?;
    std::fs::write(&files.key, key.serialize_pem())?;
    std::fs::write(&files.pem, cert.pem() + &key.serialize_pem())?;
    Ok(files)
}

impl Bench {
    /// Starts a proxy and makes sure that it does what all have to do; tells what it lacks.
    pub async fn start(&self, peer: &Peer, work: &Work, dir: &Path) -> io::Result<(Running, Option<String>)> {
        let running = self.start_under(peer, work, Under::Core(PROXY_CORE), dir).await?;
        let lacks = self.check(&running).await?;
        Ok((running, lacks))
    }

    async fn start_under(&self, peer: &Peer, work: &Work, under: Under, dir: &Path) -> io::Result<Running> {
        let running = peer.start(work.features, under, &self.instances.addresses, &self.certificate, dir)?;
        if let Some(admin) = running.admin {
            self.register(admin).await?;
        }
        Ok(running)
    }

    /// Tells Weighbridge about the instances, as a platform does.
    async fn register(&self, admin: SocketAddr) -> io::Result<()> {
        for (n, instance) in self.instances.addresses.iter().enumerate() {
            let message = format!(
                r#"{{"host":"127.0.0.1","port":{},"uris":["{HOST}"],"app":"8c1f9a52-3c5d-4a55-9c5e-0f4d0c5b7a11",
                "private_instance_id":"0b2c7d9e-41f5-4a57-6d3e-00000000000{n}","private_instance_index":"{n}",
                "stale_threshold_in_seconds":3600}}"#,
                instance.port()
            );
            let request = format!(
                "POST /v1/bus/router.register HTTP/1.1\r\nHost: {admin}\r\nContent-Length: {}\r\n\r\n{message}",
                message.len()
            );
            Connection::open(admin).await?.fetch(request.as_bytes()).await?;
        }
        Ok(())
    }

    /// Waits until requests come through and looks at how they arrive.
    async fn check(&self, running: &Running) -> io::Result<Option<String>> {
        let request = format!("GET {ECHO} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: peers/1\r\n\r\n");
        let begun = Instant::now();
        let seen = loop {
            let answer = async { Connection::open(running.http).await?.fetch(request.as_bytes()).await };
            match answer.await {
                Ok(seen) => break seen.to_ascii_lowercase(),
                Err(problem) if begun.elapsed() > PATIENCE => return Err(problem),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let lacking = |names: &[&str]| !names.iter().any(|name| seen.contains(&format!("\n{name}:")));
        let wanted: [&[&str]; 4] = [
            &["x-forwarded-for"],
            &["x-forwarded-proto"],
            &["x-forwarded-host"],
            &["x-request-id", "x-vcap-request-id"],
        ];
        let lacks: Vec<&str> = wanted.into_iter().filter(|names| lacking(names)).map(|names| names[0]).collect();
        Ok((!lacks.is_empty()).then(|| format!("adds no {}", lacks.join(", "))))
    }

    fn target(&self, running: &Running) -> io::Result<Target> {
        Ok(Target { http: running.http, https: running.https, tls: Arc::new(self.tls()?) })
    }

    /// The same key exchange and cipher with everybody.
    fn tls(&self) -> io::Result<ClientConfig> {
        let provider = CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            ..aws_lc_rs::default_provider()
        };
        let mut roots = RootCertStore::empty();
        let pem = std::fs::read(&self.certificate.cert)?;
        for cert in rustls::pki_types::pem::PemObject::pem_slice_iter(&pem) {
            roots.add(cert.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
        let mut config = config.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// Asks for a while and sees what it costs.
    pub async fn round(&self, work: &Work, running: &Running) -> io::Result<Sample> {
        let tally = Rc::new(Tally::default());
        let clients = load::start(work, &self.target(running)?, &tally);
        tokio::time::sleep(WARM_UP).await;
        let family = running.family();
        let (connections, errors) = (self.instances.accepted.get(), tally.errors.get());
        tally.recording.set(true);
        let (begun, before) = (Instant::now(), process::cpu(&family));
        let mut cpu = Cpu::default();
        for _ in 0..LONGEST {
            tokio::time::sleep(Duration::from_secs_f64(self.seconds)).await;
            cpu = process::cpu(&family) - before;
            if cpu.user + cpu.system > ENOUGH * self.seconds {
                break;
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        tally.recording.set(false);
        let memory = process::memory(&family);
        tally.stopped.set(true);
        let connections = self.instances.accepted.get() - connections;
        for client in clients {
            if tokio::time::timeout(PATIENCE, client).await.is_err() {
                return Err(io::Error::other("a client waits in vain"));
            }
        }
        let mut latencies = tally.latencies.take();
        latencies.sort_unstable();
        let requests = latencies.len();
        if requests == 0 {
            return Err(io::Error::other(format!("no answer: {}", tally.last_error.borrow())));
        }
        let quantile = |share: f64| f64::from(latencies[(share * (requests - 1) as f64) as usize]) / 1e6;
        let handshakes = tally.resumed.get() + tally.full_handshakes.get();
        Ok(Sample {
            user: cpu.user * 1e6 / requests as f64,
            system: cpu.system * 1e6 / requests as f64,
            per_second: requests as f64 / seconds,
            p50: quantile(0.5),
            p99: quantile(0.99),
            memory,
            requests,
            errors: tally.errors.get() - errors,
            last_error: tally.last_error.take(),
            resumed: tally.resumed.get() as f64 / handshakes.max(1) as f64,
            upstream_connections: connections as f64 / requests as f64,
        })
    }

    /// Opens connections that ask once and sees what each costs in memory.
    pub async fn idle(&self, peer: &Peer, work: &Work, dir: &Path) -> io::Result<Sample> {
        let (running, _) = self.start(peer, work, dir).await?;
        let few = Work { ask: super::Ask::Repeatedly, connections: 64, ..work.clone() };
        self.round(&few, &running).await?;
        let family = running.family();
        let before = process::memory(&family);
        let request = work.request(0, &[]);
        let mut connections = Vec::new();
        while connections.len() < work.connections {
            let opening: Vec<_> = (0..OPENED_AT_ONCE)
                .map(|_| {
                    let request = request.clone();
                    tokio::task::spawn_local(async move {
                        let mut connection = Connection::open(running.http).await?;
                        connection.exchange(&request, 0).await?;
                        Ok::<_, io::Error>(connection)
                    })
                })
                .collect();
            for opened in opening {
                connections.push(opened.await.map_err(io::Error::other)??);
            }
        }
        let after = process::memory(&family);
        let each = |before: f64, after: f64| (after - before) / connections.len() as f64;
        let memory = Memory {
            resident: each(before.resident, after.resident),
            proportional: each(before.proportional, after.proportional),
        };
        // They are all still there: a proxy that closes early would look thrifty.
        for connection in connections.iter_mut().step_by(97) {
            connection.exchange(&request, 0).await?;
        }
        Ok(Sample { memory, ..Sample::default() })
    }

    /// User-space instructions per request.
    pub async fn instructions(&self, peer: &Peer, work: &Work, dir: &Path) -> io::Result<f64> {
        let mut totals = [0, 0];
        for (requests, total) in COUNTED.into_iter().zip(&mut totals) {
            let dir = dir.join(format!("callgrind-{requests}"));
            std::fs::create_dir_all(&dir)?;
            let running = self.start_under(peer, work, Under::Callgrind, &dir).await?;
            self.check(&running).await?;
            let tally = Rc::new(Tally::default());
            tally.budget.set(Some(requests));
            let work = Work { connections: 8, ..work.clone() };
            for client in load::start(&work, &self.target(&running)?, &tally) {
                client.await.map_err(io::Error::other)?;
            }
            if tally.errors.get() > 0 {
                return Err(io::Error::other(tally.last_error.take()));
            }
            running.stop()?;
            *total = callgrind::total(&dir)?;
            std::fs::remove_dir_all(&dir)?;
        }
        Ok((totals[1] as f64 - totals[0] as f64) / (COUNTED[1] - COUNTED[0]) as f64)
    }
}

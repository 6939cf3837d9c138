//! Keeps TLS as its files say. At the start and when the operator asks for it, every file must be good; when files change
//! by themselves, each that is not leaves what was read of it before in force.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use tokio::time::{MissedTickBehavior, interval};

use super::Tls;
use super::clients::{self, Tickets};
use super::files::{self, Problem, Stamp};
use super::instances::Instances;
use crate::config::{Config, HttpsConfig, KeyPair, UpstreamTlsConfig};
use crate::runtime::authorities;
use crate::runtime::published::Published;
use crate::telemetry::metrics::Metrics;

/// Everything that is wrong with the files.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentences: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&sentences.join("; "))
    }
}

/// Reads the files and publishes what they say.
#[derive(Debug)]
pub struct Keeper {
    published: Arc<Published<Tls>>,
    metrics: Arc<Metrics>,
    present: Mutex<Present>,
}

/// What is in force, and where it came from.
#[derive(Clone, Debug)]
struct Present {
    wanted: Wanted,
    stamps: BTreeMap<PathBuf, Stamp>,
    material: Material,
    tickets: Option<Tickets>,
    tls: Tls,
}

/// The keys of the configuration that matter here.
#[derive(Clone, Debug)]
struct Wanted {
    https: HttpsConfig,
    upstream: UpstreamTlsConfig,
}

/// What was read from files.
#[derive(Clone, Debug, Default)]
struct Material {
    certificates: Vec<(KeyPair, Arc<CertifiedKey>)>,
    client_authorities: Vec<CertificateDer<'static>>,
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<Arc<CertifiedKey>>,
}

impl Keeper {
    /// Reads all files for the first time.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load(config: &Config, metrics: &Arc<Metrics>) -> Result<Arc<Keeper>, Problems> {
        let present = Present::first(Wanted::of(config))?;
        if present.tls.instances.is_none() {
            tracing::warn!(
                "no authorities to verify instances by: those with a tls_port cannot be used before upstream_tls.ca is set"
            );
        }
        let published = Published::new(present.tls.clone());
        Ok(Arc::new(Keeper { published, metrics: metrics.clone(), present: Mutex::new(present) }))
    }

    /// Whether the files that `config` names can be used.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn check(config: &Config) -> Result<(), Problems> {
        Present::first(Wanted::of(config)).map(drop)
    }

    /// What workers read.
    pub fn published(&self) -> &Arc<Published<Tls>> {
        &self.published
    }

    /// Reads all files as `config` wants it. Reads from disk: not for a thread that must not wait.
    ///
    /// # Errors
    /// Everything that is wrong with them; nothing has changed then.
    pub fn replace(&self, config: &Config) -> Result<(), Problems> {
        let mut present = self.present.lock();
        let mut wanted = Wanted::of(config);
        // Listeners stay as they are until a restart, and so does their need for certificates.
        if wanted.https.listen.is_empty() != present.wanted.https.listen.is_empty() {
            wanted.https = present.wanted.https.clone();
        }
        let (next, problems) = present.read(wanted);
        if !problems.is_empty() {
            self.metrics.control.tls_rejected();
            return Err(Problems(problems));
        }
        self.metrics.control.tls_loaded();
        self.take_over(&mut present, next);
        Ok(())
    }

    /// Reads the files again if any has changed. What cannot be used is named in the log and counted, and stays as it
    /// was. Reads from disk: not for a thread that must not wait.
    pub fn refresh(&self) {
        let mut present = self.present.lock();
        if present.wanted.stamps() == present.stamps {
            return;
        }
        let wanted = present.wanted.clone();
        let (next, problems) = present.read(wanted);
        for problem in &problems {
            self.metrics.control.tls_rejected();
            tracing::error!(%problem, "a changed file of TLS cannot be used; what was read before stays in force");
        }
        if problems.is_empty() {
            self.metrics.control.tls_loaded();
            tracing::info!(certificates = next.material.certificates.len(), "changed files of TLS are in force");
        }
        self.take_over(&mut present, next);
    }

    fn take_over(&self, present: &mut Present, next: Present) {
        *present = next;
        self.published.publish(Arc::new(present.tls.clone()));
    }

    /// Looks for changes, again and again.
    pub async fn watch(self: Arc<Keeper>, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let keeper = self.clone();
            let _panicked = tokio::task::spawn_blocking(move || keeper.refresh()).await;
        }
    }
}

impl Wanted {
    fn of(config: &Config) -> Wanted {
        Wanted { https: config.https.clone(), upstream: config.upstream_tls.clone() }
    }

    /// Which certificates there are to be for clients; those of the directory only if it can be listed.
    fn pairs(&self) -> (Vec<KeyPair>, Option<Problem>) {
        if self.https.listen.is_empty() {
            return (Vec::new(), None);
        }
        let mut pairs = self.https.certificates.clone();
        match self.https.certificate_dir.as_deref().map(files::pairs_in) {
            Some(Ok(found)) => pairs.extend(found),
            Some(Err(problem)) => return (pairs, Some(problem)),
            None => {}
        }
        (pairs, None)
    }

    fn client_ca(&self) -> Option<&Path> {
        self.https.client_ca.as_deref().filter(|_| !self.https.listen.is_empty())
    }

    /// The authorities for instances; `None` where the system has none either.
    fn authorities(&self) -> Option<&Path> {
        authorities::file(self.upstream.ca.as_deref())
    }

    /// The state of every file that counts.
    fn stamps(&self) -> BTreeMap<PathBuf, Stamp> {
        let (pairs, _unlisted) = self.pairs();
        let pairs = pairs.iter().chain(&self.upstream.identity);
        let files = pairs.flat_map(|pair| [pair.cert.as_path(), pair.key.as_path()]);
        let files = files.chain(self.client_ca()).chain(self.authorities());
        files.map(|path| (path.to_owned(), files::stamp(path))).collect()
    }
}

impl Present {
    fn first(wanted: Wanted) -> Result<Present, Problems> {
        let nothing = Present {
            wanted: wanted.clone(),
            stamps: BTreeMap::new(),
            material: Material::default(),
            tickets: None,
            tls: Tls::default(),
        };
        let (present, problems) = nothing.read(wanted);
        if problems.is_empty() { Ok(present) } else { Err(Problems(problems)) }
    }

    /// What follows on this, as far as files can be used, and what is wrong with the others.
    fn read(&self, wanted: Wanted) -> (Present, Vec<Problem>) {
        let mut problems = Vec::new();
        // Before the files are read: one that changes meanwhile is read again next time.
        let stamps = wanted.stamps();
        let material = self.material.follow(&wanted, &mut problems);
        let mut next = Present { wanted, stamps, material, tickets: self.tickets.clone(), tls: Tls::default() };
        next.tls.clients = match next.clients() {
            Ok(clients) => clients,
            Err(what) => {
                problems.push(Problem::content(next.wanted.client_ca().unwrap_or(Path::new("https")), what));
                self.tls.clients.clone()
            }
        };
        next.tls.instances = match self.instances(&next) {
            Ok(instances) => instances,
            Err(what) => {
                problems.push(Problem::content(next.wanted.authorities().unwrap_or(Path::new("upstream_tls")), what));
                self.tls.instances.clone()
            }
        };
        (next, problems)
    }

    fn clients(&mut self) -> Result<Option<Arc<rustls::ServerConfig>>, String> {
        let https = &self.wanted.https;
        if https.listen.is_empty() {
            return Ok(None);
        }
        let authorities = &self.material.client_authorities;
        let tickets = Tickets::under(self.tickets.take(), https.client_certificates, authorities)
            .map_err(|error| error.to_string())?;
        let certificates: Vec<_> = self.material.certificates.iter().map(|(_, certified)| certified.clone()).collect();
        let config = clients::config(https, &certificates, authorities, &tickets)?;
        self.tickets = Some(tickets);
        Ok(Some(Arc::new(config)))
    }

    /// Those of `next`: the present ones with their sessions if nothing has changed for them.
    fn instances(&self, next: &Present) -> Result<Option<Arc<Instances>>, String> {
        let (old, new) = (&self.material, &next.material);
        if new.authorities.is_empty() {
            return Ok(None);
        }
        let chain = |material: &Material| material.identity.as_ref().map(|certified| certified.cert.clone());
        let same = old.authorities == new.authorities && chain(old) == chain(new);
        match &self.tls.instances {
            Some(present) if same => Ok(Some(present.clone())),
            _ => Ok(Some(Arc::new(Instances::new(&new.authorities, new.identity.clone())?))),
        }
    }
}

impl Material {
    /// Reads what is `wanted`; where that fails, what `self` has stays.
    fn follow(&self, wanted: &Wanted, problems: &mut Vec<Problem>) -> Material {
        let authorities = wanted.authorities().map(files::certificates);
        Material {
            certificates: self.follow_certificates(wanted, problems),
            client_authorities: match wanted.client_ca().map(files::certificates) {
                Some(read) => kept(read, &self.client_authorities, problems),
                None => Vec::new(),
            },
            authorities: match authorities {
                Some(Err(_)) if wanted.upstream.ca.is_none() => self.authorities.clone(),
                Some(read) => kept(read, &self.authorities, problems),
                None => Vec::new(),
            },
            identity: match wanted.upstream.identity.as_ref().map(files::certified_key) {
                Some(read) => kept(read.map(Some), &self.identity, problems),
                None => None,
            },
        }
    }

    fn follow_certificates(&self, wanted: &Wanted, problems: &mut Vec<Problem>) -> Vec<(KeyPair, Arc<CertifiedKey>)> {
        let (mut pairs, unlisted) = wanted.pairs();
        if let Some(problem) = unlisted {
            problems.push(problem);
            let listed: Vec<&KeyPair> = pairs.iter().collect();
            let before = self.certificates.iter().map(|(pair, _)| pair);
            let others: Vec<KeyPair> = before.filter(|pair| !listed.contains(pair)).cloned().collect();
            pairs.extend(others);
        }
        let mut found = Vec::new();
        for pair in pairs {
            let before = self.certificates.iter().find(|(other, _)| *other == pair);
            match files::certified_key(&pair) {
                Ok(certified) => found.push((pair, certified)),
                Err(problem) => {
                    problems.push(problem);
                    found.extend(before.cloned());
                }
            }
        }
        if found.is_empty()
            && let Some(directory) = &wanted.https.certificate_dir
            && !wanted.https.listen.is_empty()
        {
            problems.push(Problem::content(directory, "holds no certificate with its key"));
            return self.certificates.clone();
        }
        found
    }
}

fn kept<T: Clone>(read: Result<T, Problem>, before: &T, problems: &mut Vec<Problem>) -> T {
    read.unwrap_or_else(|problem| {
        problems.push(problem);
        before.clone()
    })
}

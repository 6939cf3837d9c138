//! Where NATS may be found: the configured servers and those they told us about, which of them to try next, and the file
//! that remembers the learnt ones.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use async_nats::ServerAddr;
use serde::{Deserialize, Serialize};

use crate::domain::dice::Dice;

/// Learnt servers that are kept: more than any cluster has.
const LEARNT_MAX: usize = 64;

/// One server. Never holds a login.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Server {
    /// `host:port`, an IPv6 host in brackets.
    place: String,
    /// Whether it must be spoken to over TLS, whatever it says itself.
    tls: bool,
}

impl Server {
    /// Reads `host:port`, `nats://host:port` or `tls://host:port`, without a login; the port is 4222 unless given.
    pub(super) fn parse(text: &str) -> Option<Server> {
        let address: ServerAddr = text.parse().ok()?;
        let host = address.host();
        if host.is_empty() || address.has_user_pass() || address.is_websocket() {
            return None;
        }
        let place = match host.contains(':') {
            true => format!("[{host}]:{}", address.port()),
            false => format!("{host}:{}", address.port()),
        };
        Some(Server { place, tls: address.tls_required() })
    }

    /// The host without port and brackets.
    pub(super) fn host(&self) -> &str {
        let host = self.place.rsplit_once(':').map_or(&*self.place, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// What the client library connects to.
    pub(super) fn address(&self) -> io::Result<ServerAddr> {
        format!("{}://{}", if self.tls { "tls" } else { "nats" }, self.place).parse()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

/// All servers, with how often each was tried in vain since the last connection.
#[derive(Debug)]
pub(super) struct Servers {
    configured: Vec<Server>,
    learnt: Vec<Server>,
    tried: HashMap<Server, u32>,
    failures: u32,
}

impl Servers {
    /// Knows `configured` so far.
    pub(super) fn new(configured: Vec<Server>) -> Servers {
        Servers { configured, learnt: Vec::new(), tried: HashMap::new(), failures: 0 }
    }

    /// How many servers are known.
    pub(super) fn count(&self) -> usize {
        self.configured.len() + self.learnt.len()
    }

    /// Takes over what servers say about their cluster (`host:port` each), in place of what was learnt before; an empty
    /// list says nothing. Whether anything is new.
    pub(super) fn learn<'a>(&mut self, places: impl IntoIterator<Item = &'a str>) -> bool {
        // A learnt address comes without a scheme: it gets no less protection than the server that told us.
        let tls = self.configured.iter().any(|server| server.tls);
        let mut learnt: Vec<Server> = Vec::new();
        for place in places {
            let Some(server) = Server::parse(place).map(|server| Server { tls, ..server }) else { continue };
            let is_known = learnt.contains(&server) || self.configured.iter().any(|known| known.place == server.place);
            if !is_known && learnt.len() < LEARNT_MAX {
                learnt.push(server);
            }
        }
        learnt.sort_by(|a, b| a.place.cmp(&b.place));
        if learnt.is_empty() || learnt == self.learnt {
            return false;
        }
        self.learnt = learnt;
        true
    }

    /// The server to try next; it counts as tried in vain until `connected`. Configured and learnt ones take turns,
    /// configured first: learnt addresses may only be reachable from inside their cluster, and waiting for many of
    /// those must not keep us from a configured server that is back. Of each kind the one tried least, ties by chance.
    pub(super) fn next(&mut self, dice: &mut Dice) -> Option<Server> {
        let turns = [&self.configured, &self.learnt];
        let first = self.failures as usize % 2;
        let kind = [turns[first], turns[1 - first]].into_iter().find(|kind| !kind.is_empty())?;
        let tries = |server: &Server| self.tried.get(server).copied().unwrap_or(0);
        let least = kind.iter().map(tries).min()?;
        let open: Vec<&Server> = kind.iter().filter(|server| tries(server) == least).collect();
        let chosen = open[dice.below(open.len())].clone();
        *self.tried.entry(chosen.clone()).or_default() += 1;
        self.failures = self.failures.saturating_add(1);
        Some(chosen)
    }

    /// Forgets what was tried in vain.
    pub(super) fn connected(&mut self) {
        self.tried.clear();
        self.failures = 0;
    }

    /// A connection broke soon after it was made: the next one is not worth more haste than after a failure to connect.
    pub(super) fn broke(&mut self) {
        self.failures = self.failures.max(1);
    }

    /// How many times all servers have been tried in vain; the first attempt of all is in round 0.
    pub(super) fn rounds(&self) -> u32 {
        let servers = u32::try_from(self.count()).unwrap_or(u32::MAX);
        self.failures.div_ceil(servers.max(1))
    }

    /// What the cache file should hold.
    pub(super) fn remembered(&self) -> Remembered {
        Remembered { servers: self.learnt.iter().map(|server| server.place.clone()).collect() }
    }
}

/// The cache file: learnt servers as JSON.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) servers: Vec<String>,
}

impl Remembered {
    /// Reads the file; a missing one holds nothing.
    ///
    /// # Errors
    /// The file cannot be read, or is not what `write` writes.
    pub(super) async fn read(path: &Path) -> io::Result<Remembered> {
        match tokio::fs::read(path).await {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Remembered { servers: Vec::new() }),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file at once and whole, so that a crash leaves the old one or the new one.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub(super) async fn write(&self, path: &Path) -> io::Result<()> {
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}", std::process::id()));
        let draft = PathBuf::from(draft);
        let written = async {
            let mut file = tokio::fs::File::create(&draft).await?;
            tokio::io::AsyncWriteExt::write_all(&mut file, &serde_json::to_vec(self)?).await?;
            file.sync_all().await?;
            tokio::fs::rename(&draft, path).await
        };
        let result = written.await;
        if result.is_err() {
            let _best_effort = tokio::fs::remove_file(&draft).await;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(configured: &[&str], learnt: &[&str]) -> Servers {
        let mut servers =
            Servers::new(configured.iter().map(|text| Server::parse(text).expect("a good server")).collect());
        servers.learn(learnt.iter().copied());
        servers
    }

    fn order(servers: &mut Servers, seed: u64, attempts: usize) -> Vec<String> {
        let mut dice = Dice::seeded(seed);
        (0..attempts).map(|_| servers.next(&mut dice).expect("there are servers").to_string()).collect()
    }

    #[track_caller]
    fn check_server(text: &str, place: &str, host: &str, url: &str) {
        let server = Server::parse(text).expect("a good server");
        assert_eq!((server.place.as_str(), server.host()), (place, host));
        assert_eq!(server.address().expect("a good server").as_url_str(), url);
    }

    #[test]
    fn a_server_is_a_host_and_a_port() {
        check_server("a", "a:4222", "a", "nats://a:4222");
        check_server("nats://10.0.0.1:1", "10.0.0.1:1", "10.0.0.1", "nats://10.0.0.1:1");
        check_server("tls://a.b:9", "a.b:9", "a.b", "tls://a.b:9");
        check_server("nats://[::1]:5", "[::1]:5", "::1", "nats://[::1]:5");
        for bad in ["", "http://a", "ws://a:1", "nats://u:p@a", "a:99999", "nats://"] {
            assert_eq!(Server::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_first_server_is_any_of_the_configured_ones() {
        let mut seen: Vec<_> = (0..50).map(|seed| order(&mut servers(&["a", "b", "c"], &["d"]), seed, 1)).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, [["a:4222"], ["b:4222"], ["c:4222"]]);
    }

    #[test]
    fn learnt_servers_take_turns_with_configured_ones() {
        let mut servers = servers(&["seed"], &["x:1", "y:1"]);
        let order = order(&mut servers, 3, 6);
        assert_eq!([&*order[0], &order[2], &order[4]], ["seed:4222"; 3]);
        let mut learnt = [&*order[1], &order[3]];
        learnt.sort();
        assert_eq!(learnt, ["x:1", "y:1"]);
    }

    #[test]
    fn nobody_is_tried_twice_before_everybody_of_a_kind_was_tried_once() {
        for seed in 0..20 {
            let mut first = order(&mut servers(&["a", "b", "c", "d"], &[]), seed, 8);
            let mut second = first.split_off(4);
            first.sort();
            second.sort();
            assert_eq!(first, second);
        }
    }

    #[test]
    fn rounds_count_how_often_all_were_tried() {
        let mut servers = servers(&["a", "b"], &["c"]);
        assert_eq!(servers.rounds(), 0);
        order(&mut servers, 1, 3);
        assert_eq!(servers.rounds(), 1);
        order(&mut servers, 1, 1);
        assert_eq!(servers.rounds(), 2);
        servers.connected();
        assert_eq!(servers.rounds(), 0);
        servers.broke();
        assert_eq!(servers.rounds(), 1);
    }

    #[test]
    fn the_newest_list_replaces_the_one_before_and_garbage_is_left_out() {
        let mut servers = servers(&["a"], &["b:1", "c:1"]);
        assert!(!servers.learn([]), "an empty list says nothing");
        assert!(!servers.learn(["c:1", "b:1"]), "the same again");
        assert!(servers.learn(["d:1", "a:4222", "d:1", "http://evil", ""]));
        assert_eq!(servers.remembered().servers, ["d:1"]);
        let many: Vec<_> = (0..1000).map(|n| format!("h{n}:1")).collect();
        assert!(servers.learn(many.iter().map(String::as_str)));
        assert_eq!(servers.remembered().servers.len(), LEARNT_MAX);
    }

    #[test]
    fn what_a_protected_server_tells_is_protected_as_well() {
        let mut servers = servers(&["tls://a:1"], &["b:1"]);
        let mut dice = Dice::seeded(1);
        let tried: Vec<_> = (0..2).filter_map(|_| servers.next(&mut dice)).map(|server| server.tls).collect();
        assert_eq!(tried, [true, true]);
    }

    #[tokio::test]
    async fn the_cache_file_is_written_whole_and_read_back() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("servers.json");
        assert_eq!(Remembered::read(&path).await.expect("missing is empty").servers, [""; 0]);
        let remembered = Remembered { servers: vec!["a:1".into(), "[::1]:2".into()] };
        remembered.write(&path).await.expect("the folder is ours");
        assert_eq!(Remembered::read(&path).await.expect("just written"), remembered);
        let files = std::fs::read_dir(folder.path()).expect("the folder is there").count();
        assert_eq!(files, 1, "no draft is left behind");
    }

    #[tokio::test]
    async fn a_corrupt_cache_file_is_an_error_and_no_panic() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("servers.json");
        for bad in [&b"{\"servers\": [\"a"[..], b"", b"\xff\xfe", b"[]", b"{\"servers\": 7}"] {
            std::fs::write(&path, bad).expect("the folder is ours");
            assert!(Remembered::read(&path).await.is_err(), "{bad:?}");
        }
        assert!(Remembered::read(folder.path()).await.is_err(), "a folder is no file");
        assert!(Remembered { servers: vec![] }.write(&folder.path().join("no/such/folder")).await.is_err());
    }
}

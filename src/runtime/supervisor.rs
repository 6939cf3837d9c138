//! What a service manager hears of us, by the protocol of systemd's `sd_notify`: datagrams to the socket that it names in
//! `NOTIFY_SOCKET`. Where nobody supervises, nothing is said.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// As the environment says, read by `variable`. What is wrong with it goes to the log.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Supervisor {
        let socket = variable("NOTIFY_SOCKET").and_then(|name| match connect(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(name, %error, "NOTIFY_SOCKET cannot be used: the service manager hears nothing");
                None
            }
        });
        let is_for_us = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let micros = variable("WATCHDOG_USEC").filter(|_| is_for_us && socket.is_some());
        let watchdog = micros.and_then(|micros| micros.parse().ok()).filter(|micros| *micros > 1);
        Supervisor { socket, watchdog: watchdog.map(|micros: u64| Duration::from_micros(micros / 2)) }
    }

    /// Requests are served, or served again after `reloading`.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// A reload begins.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The end begins.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// We are alive.
    pub fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    /// How often `alive` is to be said, if at all.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    fn say(&self, what: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(what.as_bytes())
        {
            tracing::warn!(what, %error, "the service manager does not hear");
        }
    }
}

/// `name` is a path, or begins with `@` for the abstract name space.
fn connect(name: &str) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None if name.starts_with('/') => SocketAddr::from_pathname(name)?,
        None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is heard of `speak` at `name` with these variables.
    fn heard(name: &str, more: &[(&str, String)], speak: impl FnOnce(&Supervisor)) -> Vec<String> {
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(name),
        };
        let manager = UnixDatagram::bind_addr(&address.expect("a name")).expect("a name of our own");
        let variable = |wanted: &str| match wanted {
            "NOTIFY_SOCKET" => Some(name.to_owned()),
            _ => more.iter().find(|(key, _)| *key == wanted).map(|(_, value)| value.clone()),
        };
        speak(&Supervisor::of(variable));
        manager.set_nonblocking(true).expect("a socket of ours");
        let mut bytes = [0; 256];
        std::iter::from_fn(|| manager.recv(&mut bytes).ok().map(|n| String::from_utf8_lossy(&bytes[..n]).into()))
            .collect()
    }

    #[test]
    fn the_manager_hears_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let abstract_name = format!("@weighbridge-test-{}", std::process::id());
        for name in [path.to_str().expect("a path of ours"), &abstract_name] {
            let heard = heard(name, &[], |supervisor| {
                supervisor.ready();
                supervisor.reloading();
                supervisor.stopping();
            });
            assert_eq!((heard[0].as_str(), heard[2].as_str()), ("READY=1", "STOPPING=1"));
            let micros = heard[1].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("both in one datagram");
            assert!(micros.parse::<u64>().expect("a number") > 0);
        }
    }

    #[test]
    fn a_watchdog_is_fed_twice_in_its_time_if_it_is_ours() {
        let name = format!("@weighbridge-watchdog-{}", std::process::id());
        let pid = std::process::id();
        for (pid, expected) in [(pid, Some(Duration::from_secs(1))), (pid + 1, None)] {
            let variables = [("WATCHDOG_USEC", "2000000".to_owned()), ("WATCHDOG_PID", pid.to_string())];
            heard(&name, &variables, |supervisor| assert_eq!(supervisor.watchdog(), expected));
        }
    }

    #[test]
    fn nobody_hears_where_nobody_supervises() {
        for name in [None, Some("vsock:2:1"), Some("/nowhere/notify")] {
            let supervisor = Supervisor::of(|key| (key == "NOTIFY_SOCKET").then_some(name?.to_owned()));
            supervisor.ready();
            assert!(supervisor.socket.is_none() && supervisor.watchdog().is_none());
        }
    }
}

//! How many connections clients hold, in all and each, and how many tunnels: counted by all workers together.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::error::{Crowd, ProxyError};

/// Who has come in.
#[derive(Debug, Default)]
pub struct Admission {
    connections: AtomicU32,
    tunnels: AtomicU32,
    /// Connections by client, while they are limited. Clients choose the keys: hence no fast hash.
    clients: Mutex<HashMap<IpAddr, u32>>,
}

/// A place that was taken; it is free again when this is dropped.
#[derive(Debug)]
#[must_use = "the place is free again when this is dropped"]
pub struct Place {
    admission: Arc<Admission>,
    of: Of,
}

#[derive(Debug)]
enum Of {
    Connection,
    Client(IpAddr),
    Tunnel,
}

impl Admission {
    /// A place for one more connection, of `most` (0: any number).
    ///
    /// # Errors
    /// `Crowded` if there is none.
    pub fn connection(self: &Arc<Self>, most: u32) -> Result<Place, ProxyError> {
        take(&self.connections, most).ok_or(ProxyError::Crowded(Crowd::Connections))?;
        Ok(Place { admission: self.clone(), of: Of::Connection })
    }

    /// A place for one more connection of the client at `address`, of `most` (0: any number, and nobody counts).
    ///
    /// # Errors
    /// `Crowded` if there is none.
    pub fn client(self: &Arc<Self>, address: IpAddr, most: u32) -> Result<Option<Place>, ProxyError> {
        if most == 0 {
            return Ok(None);
        }
        let who = who(address);
        let mut clients = self.clients.lock();
        let held = clients.entry(who).or_default();
        if *held >= most {
            return Err(ProxyError::Crowded(Crowd::Client));
        }
        *held += 1;
        drop(clients);
        Ok(Some(Place { admission: self.clone(), of: Of::Client(who) }))
    }

    /// A place for one more tunnel, of `most` (0: any number).
    ///
    /// # Errors
    /// `Crowded` if there is none.
    pub fn tunnel(self: &Arc<Self>, most: u32) -> Result<Place, ProxyError> {
        take(&self.tunnels, most).ok_or(ProxyError::Crowded(Crowd::Tunnels))?;
        Ok(Place { admission: self.clone(), of: Of::Tunnel })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match self.of {
            Of::Connection => drop(self.admission.connections.fetch_sub(1, Ordering::Relaxed)),
            Of::Tunnel => drop(self.admission.tunnels.fetch_sub(1, Ordering::Relaxed)),
            Of::Client(who) => {
                let mut clients = self.admission.clients.lock();
                if let Some(held) = clients.get_mut(&who) {
                    *held -= 1;
                    if *held == 0 {
                        clients.remove(&who);
                    }
                }
            }
        }
    }
}

fn take(taken: &AtomicU32, most: u32) -> Option<()> {
    let before = taken.fetch_add(1, Ordering::Relaxed);
    if most > 0 && before >= most {
        taken.fetch_sub(1, Ordering::Relaxed);
        return None;
    }
    Some(())
}

/// Whoever has one address of IPv6 has 2^64 of them: they count as one.
fn who(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn places_are_limited_and_come_back() {
        let admission = Arc::new(Admission::default());
        let first = admission.connection(2).expect("a place");
        let _second = admission.connection(2).expect("a place");
        assert!(admission.connection(2).is_err() && admission.connection(0).is_ok());
        drop(first);
        assert!(admission.connection(2).is_ok());
        let tunnel = admission.tunnel(1).expect("a place");
        assert!(admission.tunnel(1).is_err());
        drop(tunnel);
        assert!(admission.tunnel(1).is_ok());
    }

    #[test]
    fn each_client_has_places_of_its_own_and_leaves_nothing_behind() {
        let admission = Arc::new(Admission::default());
        let one = admission.client(address("10.0.0.1"), 1).expect("a place");
        assert!(one.is_some() && admission.client(address("10.0.0.1"), 1).is_err());
        let six = admission.client(address("2001:db8::1"), 1).expect("a place");
        assert!(admission.client(address("2001:db8::2"), 1).is_err(), "the same network");
        assert!(admission.client(address("2001:db8:0:1::1"), 1).is_ok(), "another one");
        assert!(admission.client(address("10.0.0.1"), 0).expect("nobody counts").is_none());
        drop((one, six));
        assert!(admission.clients.lock().is_empty());
    }
}

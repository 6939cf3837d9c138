//! A worker's connections to instances: opened when needed, kept alive between requests, dropped when old or spoilt.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use rustc_hash::FxHashMap;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::buffers::BufferPool;
use super::error::{Cause, ProxyError};
use super::http2::Sessions;
use super::link::{Link, Patience};
use super::stream::{self, Stream};
use super::tls::{Tls, instances};
use crate::domain::endpoint::{self, Endpoint};
use crate::domain::moment::Moment;
use crate::runtime::descriptors;

/// Idle connections kept per endpoint and worker.
const IDLE_PER_ENDPOINT_MAX: usize = 128;

/// Idle connections kept per worker.
const IDLE_MAX: usize = 16_384;

/// Idle keep-alive connections by endpoint serial, newest last.
#[derive(Debug)]
pub struct Upstreams {
    idle: RefCell<FxHashMap<u64, Vec<Idle>>>,
    count: Cell<usize>,
    sessions: Sessions,
    buffers: BufferPool,
}

/// How long a connection may take to come about.
#[derive(Clone, Copy, Debug)]
pub struct ConnectLimits {
    /// To connect.
    pub connect: Duration,
    /// To agree on TLS then.
    pub tls_handshake: Duration,
}

#[derive(Debug)]
struct Idle {
    link: Box<Link>,
    since: Moment,
}

impl Upstreams {
    /// No connections yet.
    pub fn new(buffers: &BufferPool) -> Upstreams {
        Upstreams {
            idle: RefCell::default(),
            count: Cell::new(0),
            sessions: Sessions::default(),
            buffers: buffers.clone(),
        }
    }

    /// The connection to `endpoint` that was used last, if one is still good and rested for less than `idle_max`.
    pub fn checkout(&self, endpoint: &Endpoint, now: Moment, idle_max: Duration) -> Option<Box<Link>> {
        let mut idle = self.idle.borrow_mut();
        let links = idle.get_mut(&endpoint.serial)?;
        while let Some(mut candidate) = links.pop() {
            self.count.set(self.count.get() - 1);
            if !candidate.link.is_spoilt() && now.since(candidate.since) < idle_max {
                return Some(candidate.link);
            }
        }
        None
    }

    /// Keeps a connection whose response has ended for the next request.
    pub fn give_back(&self, endpoint: &Endpoint, mut link: Box<Link>, now: Moment) {
        if !link.is_between_messages() || self.count.get() >= IDLE_MAX {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let links = idle.entry(endpoint.serial).or_default();
        if links.len() < IDLE_PER_ENDPOINT_MAX {
            link.rest();
            link.forget_task();
            links.push(Idle { link, since: now });
            self.count.set(self.count.get() + 1);
        }
    }

    /// Drops what has rested for too long or was closed by the instance.
    pub fn sweep(&self, now: Moment, idle_max: Duration) {
        let mut left = 0;
        self.idle.borrow_mut().retain(|_, links| {
            links.retain_mut(|idle| now.since(idle.since) < idle_max && !idle.link.is_spoilt());
            left += links.len();
            !links.is_empty()
        });
        self.count.set(left);
        self.sessions.sweep(now, idle_max);
    }

    /// Drops them all: somebody needs the file descriptors.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.count.set(0);
    }

    /// Idle connections held.
    pub fn idle_count(&self) -> usize {
        self.count.get()
    }

    /// Connections of HTTP/2.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// A link over `stream` to the instance at `address`.
    pub fn link(&self, stream: Stream, address: SocketAddr) -> Box<Link> {
        Box::new(Link::new(stream, address, &self.buffers))
    }

    /// Opens a connection to `endpoint`, over TLS if it wants that.
    ///
    /// # Errors
    /// `ProxyError::Endpoint` when the name is not resolved, the endpoint refuses, it is not who it should be, or time
    /// runs out.
    pub async fn connect(
        &self,
        endpoint: &Endpoint,
        patience: &mut Patience,
        limits: ConnectLimits,
        tls: &Tls,
    ) -> Result<(Stream, SocketAddr), ProxyError> {
        let address = endpoint.socket_address().ok_or(ProxyError::Endpoint(Cause::Unresolved))?;
        patience.set(limits.connect);
        let mut connecting = std::pin::pin!(TcpStream::connect(address));
        let connected = patience.limit(|cx| -> Poll<io::Result<TcpStream>> { connecting.as_mut().poll(cx) }).await;
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if descriptors::are_exhausted(&error) => {
                self.clear();
                return Err(ProxyError::Endpoint(Cause::NoDescriptor));
            }
            Ok(Err(error)) => return Err(ProxyError::Endpoint(Cause::Connect(error.kind()))),
            Err(_elapsed) => return Err(ProxyError::Endpoint(Cause::ConnectTimeout)),
        };
        stream::tune(&SockRef::from(&stream));
        let stream = match &endpoint.tls {
            None => Stream::Plain(stream),
            Some(wanted) => {
                patience.set(limits.tls_handshake);
                secure(endpoint, wanted, stream, patience, tls).await.map_err(ProxyError::Endpoint)?
            }
        };
        Ok((stream, address))
    }
}

/// Puts TLS over `stream`.
async fn secure(
    endpoint: &Endpoint,
    wanted: &endpoint::Tls,
    stream: TcpStream,
    patience: &mut Patience,
    tls: &Tls,
) -> Result<Stream, Cause> {
    let ours = tls.instances.as_ref().ok_or(Cause::NoAuthorities)?;
    let mut agreeing = std::pin::pin!(ours.connect(endpoint, wanted, stream)?);
    match patience.limit(|cx| agreeing.as_mut().poll(cx)).await {
        Ok(Ok(agreed)) => Ok(Stream::Tls(Box::new(agreed.into()))),
        Ok(Err(error)) => {
            tracing::debug!(endpoint = %endpoint.address, %error, "no TLS with an instance");
            Err(instances::handshake_failure(&error))
        }
        Err(_elapsed) => Err(Cause::TlsTimeout),
    }
}

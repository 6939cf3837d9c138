//! How listening sockets pass from a process to the one that takes its place. A listener that closes resets the connections
//! nobody has accepted yet; one that another process holds as well does not. So a process that starts asks whoever listens to its
//! addresses for the very sockets, and both hold them until the elder leaves.
//!
//! They meet at an abstract Unix address that is named after the address listened to. Only processes of one user hand sockets
//! to each other: that is also the kernel's rule for `SO_REUSEPORT`.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use socket2::{Domain, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// Sockets in one message; the kernel takes 253.
const SOCKETS_PER_MESSAGE: usize = 64;

/// Sockets that are taken over.
const SOCKETS_MAX: usize = 16 * 1024;

/// How long the other side may take for all of it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where those who listen to `address` are asked for their sockets.
fn door_of(address: SocketAddr) -> io::Result<UnixAddr> {
    UnixAddr::from_abstract_name(format!("weighbridge/{address}"))
}

/// What the predecessor has handed over.
#[derive(Debug, Default)]
pub struct Inheritance {
    sockets: Vec<Socket>,
    doors: Vec<StdUnixListener>,
    /// As long as they are open, their other ends know that we are here.
    predecessors: Vec<UnixStream>,
}

impl Inheritance {
    /// Asks those who listen to `addresses` now. Nobody there, or nobody that answers: nothing is inherited.
    pub async fn ask(addresses: impl IntoIterator<Item = SocketAddr>) -> Inheritance {
        let mut inheritance = Inheritance::default();
        for address in addresses {
            if address.port() == 0 || inheritance.sockets.iter().any(|socket| listens_to(socket, address)) {
                continue;
            }
            match timeout(PATIENCE, inheritance.ask_one(address)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {} // nobody there
                Ok(Err(error)) => tracing::warn!(%address, %error, "the listeners of a predecessor could not be had"),
                Err(_elapsed) => tracing::warn!(%address, "a predecessor does not hand over its listeners"),
            }
        }
        inheritance
    }

    async fn ask_one(&mut self, address: SocketAddr) -> io::Result<()> {
        // A Unix socket connects at once or not at all.
        let stream = StdUnixStream::connect_addr(&door_of(address)?)?;
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        let pid = check_peer(&stream)?;
        let found = receive(&stream).await?;
        tracing::info!(%address, pid, sockets = found.len(), "took over the listeners of a predecessor");
        for socket in found {
            match socket.domain()? {
                Domain::UNIX => self.doors.push(StdUnixListener::from(OwnedFd::from(socket))),
                _ => self.sockets.push(socket),
            }
        }
        self.predecessors.push(stream);
        Ok(())
    }

    /// The sockets that listen to `address`.
    pub fn take(&mut self, address: SocketAddr) -> Vec<Socket> {
        let (taken, rest) = self.sockets.drain(..).partition(|socket| listens_to(socket, address));
        self.sockets = rest;
        taken
    }

    /// Whether there is a predecessor.
    pub fn is_some(&self) -> bool {
        !self.predecessors.is_empty()
    }
}

fn listens_to(socket: &Socket, address: SocketAddr) -> bool {
    socket.local_addr().is_ok_and(|bound| bound.as_socket() == Some(address))
}

/// Only a process of our own user is heard.
fn check_peer(stream: &UnixStream) -> io::Result<Option<i32>> {
    let other = stream.peer_cred()?;
    if other.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it runs as another user"));
    }
    Ok(other.pid())
}

async fn receive(stream: &UnixStream) -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    while found.len() < SOCKETS_MAX {
        let received = stream.async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_MESSAGE))];
            let mut rights = RecvAncillaryBuffer::new(&mut space);
            let got = recvmsg(stream, &mut [IoSliceMut::new(&mut [0])], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
            let sockets = rights.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(sockets) => Some(sockets.map(Socket::from)),
                _ => None,
            });
            Ok((got.bytes, sockets.flatten().collect::<Vec<_>>()))
        });
        let (bytes, sockets) = received.await?;
        if bytes == 0 {
            break;
        }
        found.extend(sockets);
    }
    Ok(found)
}

/// Offers the listening sockets of this process to whoever takes its place.
#[derive(Debug)]
pub struct Offer {
    sockets: Arc<Vec<OwnedFd>>,
    doors: Vec<UnixListener>,
    successors: watch::Sender<usize>,
    _predecessors: Vec<UnixStream>,
}

impl Offer {
    /// Offers `sockets`, which listen to `addresses` among others. Without a door nothing is offered there: the log says
    /// why.
    pub fn new(addresses: &[SocketAddr], sockets: Vec<Socket>, inheritance: Inheritance) -> Offer {
        let mut doors = inheritance.doors;
        for &address in addresses {
            let opened = door_of(address).and_then(|door| {
                let name = door.as_abstract_name();
                let is_inherited =
                    |other: &StdUnixListener| other.local_addr().is_ok_and(|other| other.as_abstract_name() == name);
                if doors.iter().any(is_inherited) { Ok(None) } else { StdUnixListener::bind_addr(&door).map(Some) }
            });
            match opened {
                Ok(door) => doors.extend(door),
                Err(error) => tracing::warn!(
                    %address, %error,
                    "listeners cannot be handed to a successor: a restart may lose connections that nobody has accepted yet"
                ),
            }
        }
        let mut offered: Vec<OwnedFd> = sockets.into_iter().map(OwnedFd::from).collect();
        let mut open = Vec::new();
        for door in doors {
            let registered = door.try_clone().and_then(|copy| {
                door.set_nonblocking(true)?;
                Ok((copy, UnixListener::from_std(door)?))
            });
            if let Ok((copy, door)) = registered {
                offered.push(copy.into());
                open.push(door);
            }
        }
        Offer {
            sockets: Arc::new(offered),
            doors: open,
            successors: watch::Sender::new(0),
            _predecessors: inheritance.predecessors,
        }
    }

    /// How many successors hold the sockets now.
    pub fn successors(&self) -> watch::Receiver<usize> {
        self.successors.subscribe()
    }

    /// Hands the sockets to everybody entitled who asks. Holds them itself until it is dropped.
    pub async fn serve(self) {
        loop {
            let accepted = poll_fn(|cx| {
                let ready = self.doors.iter().find_map(|door| match door.poll_accept(cx) {
                    Poll::Ready(accepted) => Some(accepted),
                    Poll::Pending => None,
                });
                ready.map_or(Poll::Pending, Poll::Ready)
            })
            .await;
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(PATIENCE).await; // out of file descriptors, most likely
                continue;
            };
            let (sockets, successors) = (self.sockets.clone(), self.successors.clone());
            tokio::spawn(async move {
                if let Err(error) = hand_over(stream, sockets, &successors).await {
                    tracing::warn!(%error, "the listeners could not be handed over");
                }
            });
        }
    }
}

async fn hand_over(
    mut stream: UnixStream,
    sockets: Arc<Vec<OwnedFd>>,
    successors: &watch::Sender<usize>,
) -> io::Result<()> {
    let pid = check_peer(&stream)?;
    for some in sockets.chunks(SOCKETS_PER_MESSAGE) {
        let sent = stream.async_io(Interest::WRITABLE, || {
            let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_MESSAGE))];
            let mut rights = SendAncillaryBuffer::new(&mut space);
            let fits = rights.push(SendAncillaryMessage::ScmRights(&some));
            debug_assert!(fits, "the space is for that many");
            Ok(sendmsg(&stream, &[IoSlice::new(&[0])], &mut rights, SendFlags::NOSIGNAL)?)
        });
        timeout(PATIENCE, sent).await??;
    }
    drop(sockets);
    stream.shutdown().await?;
    successors.send_modify(|count| *count += 1);
    tracing::info!(pid, "handed the listeners to a successor");
    // It says nothing more; it ends, sooner or later.
    let _ended = stream.read(&mut [0]).await;
    successors.send_modify(|count| *count -= 1);
    Ok(())
}

//! What a link runs over: TCP, TLS over TCP, or a stream of HTTP/2 on either side. An enum, since these are all there are.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::pki_types::CertificateDer;
use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::http2::{ClientStream, InstanceStream};
use crate::http1::Head;

/// Bytes that the kernel takes for a peer beyond those on their way to it. Without a limit it takes megabytes for each who
/// does not read, and once all sockets together have taken what the machine allows, packets of everybody are dropped.
pub const UNSENT_MAX: u32 = 64 * 1024;

/// Sets up a socket to either side. What a listener is set to, its connections are.
pub fn tune(socket: &Socket) {
    // Small messages would wait for acknowledgements. A socket that cannot be tuned still works.
    let _untuned = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_notsent_lowat(UNSENT_MAX));
}

/// An open byte stream.
#[derive(Debug)]
pub enum Stream {
    /// Clear text.
    Plain(TcpStream),
    /// TLS, of either side.
    Tls(Box<TlsStream<TcpStream>>),
    /// One request of a client that speaks HTTP/2.
    Http2Client(Box<ClientStream>),
    /// One request to an instance that speaks HTTP/2.
    Http2Instance(Box<InstanceStream>),
}

impl Stream {
    /// Ready when a read may bring something (or the end, or an error): asked before memory is taken to read into.
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(tcp) => tcp.poll_read_ready(cx),
            Stream::Tls(tls) => {
                let (tcp, state) = tls.get_ref();
                // While it wants to read it holds no plaintext that we could have.
                if state.wants_read() { tcp.poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
            }
            Stream::Http2Client(stream) => stream.poll_read_ready(cx),
            Stream::Http2Instance(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Reads once if something is known to be there, and tells how much; 0 at the end. Otherwise wait for `poll_read_ready`,
    /// which is how tasks share the thread, too, so not all reads may be like this.
    pub fn read_at_once<'a>(&self, room: impl FnOnce() -> &'a mut [u8]) -> AtOnce {
        let Stream::Plain(tcp) = self else { return AtOnce::InVain };
        at_once(tcp, Interest::READABLE, || {
            let room = room();
            Ok((recv(tcp, &mut *room, RecvFlags::empty())?.1, room.len()))
        })
    }

    /// Reads once; ready with 0 at the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        if let AtOnce::Moved(received) = self.read_at_once(|| &mut *room) {
            return Poll::Ready(received);
        }
        let mut buffer = ReadBuf::new(room);
        ready!(self.poll_read_into(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Reads once, into memory that may hold nothing yet; nothing is added at the end.
    pub fn poll_read_into(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(tcp) => ready!(Pin::new(tcp).poll_read(cx, buffer))?,
            Stream::Tls(tls) => match ready!(Pin::new(tls).poll_read(cx, buffer)) {
                // Many peers close without the goodbye of TLS. Where that could cut a message short its framing tells.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                read => read?,
            },
            Stream::Http2Client(stream) => {
                let count = ready!(stream.poll_read(cx, buffer.initialize_unfilled()))?;
                buffer.advance(count);
            }
            Stream::Http2Instance(stream) => {
                let count = ready!(stream.poll_read(cx, buffer.initialize_unfilled()))?;
                buffer.advance(count);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a read would bring something now (or the end, or an error), as far as the reactor knows; what it brings is
    /// lost. To be asked where nothing should come.
    pub fn has_news(&mut self) -> bool {
        if let Stream::Plain(tcp) = self {
            return !matches!(tcp.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        }
        let mut cx = Context::from_waker(Waker::noop());
        // A read tells bytes of the protocol from those of TLS itself, which sends new tickets to idle connections.
        self.poll_read_ready(&mut cx).is_ready() && self.poll_read(&mut cx, &mut [0]).is_ready()
    }

    /// Writes once.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(tcp) => {
                match at_once(tcp, Interest::WRITABLE, || Ok((send(&*tcp, bytes, SendFlags::NOSIGNAL)?, bytes.len()))) {
                    AtOnce::Moved(sent) => Poll::Ready(sent),
                    AtOnce::NotReady | AtOnce::InVain => Pin::new(tcp).poll_write(cx, bytes),
                }
            }
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
            Stream::Http2Client(stream) => stream.poll_write(cx, bytes),
            Stream::Http2Instance(stream) => stream.poll_write(cx, bytes),
        }
    }

    /// Says a response head, where heads are not text.
    ///
    /// # Errors
    /// When the client is gone. `None`: it is to be written.
    pub fn answer(&mut self, head: &Head) -> Option<io::Result<()>> {
        match self {
            Stream::Http2Client(stream) => Some(stream.answer(head)),
            Stream::Plain(_) | Stream::Tls(_) | Stream::Http2Instance(_) => None,
        }
    }

    /// Writes once, from several places.
    pub fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bytes),
            Stream::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bytes),
            Stream::Http2Client(_) | Stream::Http2Instance(_) => {
                let first = bytes.iter().find(|slice| !slice.is_empty());
                self.poll_write(cx, first.map_or(&[], |slice| &**slice))
            }
        }
    }

    /// Hands what TLS holds back to the kernel; the others hold nothing back.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(_) | Stream::Http2Client(_) | Stream::Http2Instance(_) => Poll::Ready(Ok(())),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    /// Says that nothing more will be written.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Stream::Http2Client(stream) => Poll::Ready(stream.finish()),
            Stream::Http2Instance(stream) => Poll::Ready(stream.finish()),
        }
    }

    /// Whether it is TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// The protocol above that was negotiated (RFC 7301), such as `h2`.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Stream::Plain(_) | Stream::Http2Client(_) | Stream::Http2Instance(_) => None,
            Stream::Tls(tls) => tls.get_ref().1.alpn_protocol(),
        }
    }

    /// The certificate that the other side has shown.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Stream::Plain(_) | Stream::Http2Client(_) | Stream::Http2Instance(_) => None,
            Stream::Tls(tls) => tls.get_ref().1.peer_certificates()?.first(),
        }
    }

    /// See [`Link::poll_reset`](super::link::Link::poll_reset).
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Stream::Http2Client(stream) => stream.poll_reset(cx),
            Stream::Plain(_) | Stream::Tls(_) | Stream::Http2Instance(_) => Poll::Pending,
        }
    }

    /// Whether an error on the connection is known, such as a reset.
    pub fn is_broken(&self) -> bool {
        let tcp = match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref().0,
            // What happens to them is told by reading.
            Stream::Http2Client(_) | Stream::Http2Instance(_) => return false,
        };
        !matches!(tcp.take_error(), Ok(None))
    }
}

/// What came of reading or writing without being told first that it is time.
#[derive(Debug)]
pub enum AtOnce {
    /// So many bytes have moved, or none ever will.
    Moved(io::Result<usize>),
    /// The reactor knew that it was too early.
    NotReady,
    /// The reactor did not know, or is not asked; it has to be.
    InVain,
}

/// Reads or writes once if the reactor knows that `tcp` is ready, which is cheaper than to be told by it. `moves` tells how
/// much has moved, and how much could have.
fn at_once(tcp: &TcpStream, interest: Interest, moves: impl FnOnce() -> io::Result<(usize, usize)>) -> AtOnce {
    let mut came = AtOnce::NotReady;
    // What it says to the reactor it says here, too.
    let _said = tcp.try_io(interest, || {
        let again = || Err(io::ErrorKind::WouldBlock.into());
        match moves() {
            // What moves less than it could has come to the end of what the kernel holds: the next time would be in vain, so
            // the readiness is taken back until the reactor hears more.
            Ok((count, size)) => {
                came = AtOnce::Moved(Ok(count));
                if (1..size).contains(&count) { again() } else { Ok(()) }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                came = AtOnce::InVain;
                again()
            }
            Err(error) => {
                came = AtOnce::Moved(Err(error));
                Ok(())
            }
        }
    });
    came
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, SockAddr, Type};

    use super::*;

    #[test]
    fn what_a_listener_is_set_to_its_connections_are() {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("there are sockets");
        let anywhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        listener.bind(&SockAddr::from(anywhere)).and_then(|()| listener.listen(1)).expect("loopback has a free port");
        tune(&listener);
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("there are sockets");
        client.connect(&listener.local_addr().expect("it is bound")).expect("it listens");
        let (accepted, _) = listener.accept().expect("somebody has connected");
        assert!(accepted.tcp_nodelay().expect("it can be asked"));
        assert_eq!(accepted.tcp_notsent_lowat().expect("it can be asked"), UNSENT_MAX);
    }
}

//! What a link runs over: TCP, TLS over TCP, or a pipe to a translator. An enum, since these are all there are.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::pipe::PipeEnd;

/// An open byte stream.
#[derive(Debug)]
pub enum Stream {
    /// Clear text.
    Plain(TcpStream),
    /// TLS, of either side.
    Tls(Box<TlsStream<TcpStream>>),
    /// HTTP/1.1 that is translated to another protocol at the other end.
    Pipe(PipeEnd),
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
            Stream::Pipe(pipe) => pipe.reader.poll_ready(cx).map(Ok),
        }
    }

    /// Reads once; ready with 0 at the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(room);
        match self {
            Stream::Plain(tcp) => ready!(Pin::new(tcp).poll_read(cx, &mut buffer))?,
            Stream::Tls(tls) => match ready!(Pin::new(tls).poll_read(cx, &mut buffer)) {
                // Many peers close without the goodbye of TLS. Where that could cut a message short its framing tells.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                read => read?,
            },
            Stream::Pipe(pipe) => return pipe.reader.poll_read(cx, buffer.initialize_unfilled()),
        }
        Poll::Ready(Ok(buffer.filled().len()))
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
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
            Stream::Pipe(pipe) => pipe.writer.poll_write(cx, bytes),
        }
    }

    /// Writes once, from several places.
    pub fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bytes),
            Stream::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bytes),
            Stream::Pipe(pipe) => {
                let first = bytes.iter().find(|slice| !slice.is_empty());
                pipe.writer.poll_write(cx, first.map_or(&[], |slice| &**slice))
            }
        }
    }

    /// Hands what TLS holds back to the kernel; the others hold nothing back.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(_) | Stream::Pipe(_) => Poll::Ready(Ok(())),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    /// Says that nothing more will be written.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Stream::Pipe(pipe) => {
                pipe.writer.finish();
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Whether it is TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// The protocol above that was negotiated (RFC 7301), such as `h2`.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Stream::Plain(_) | Stream::Pipe(_) => None,
            Stream::Tls(tls) => tls.get_ref().1.alpn_protocol(),
        }
    }

    /// The certificate that the other side has shown.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Stream::Plain(_) | Stream::Pipe(_) => None,
            Stream::Tls(tls) => tls.get_ref().1.peer_certificates()?.first(),
        }
    }

    /// Whether an error on the connection is known, such as a reset.
    pub fn is_broken(&self) -> bool {
        let tcp = match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref().0,
            Stream::Pipe(pipe) => return pipe.writer.is_broken(),
        };
        !matches!(tcp.take_error(), Ok(None))
    }
}

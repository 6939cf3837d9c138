//! From HTTP/1.1 to HTTP/2: what the relay answers.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body as HyperBody, Bytes, Frame};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};

use super::Counted;
use super::request::Upload;
use crate::http1::head::HEAD_BYTES_MAX;
use crate::http1::{Body, Head, Method, Name, NameSet, Progress, framing, parse};
use crate::proxy::buffers::Buffer;
use crate::proxy::pipe::Reader;
use crate::proxy::worker::Worker;

/// What HTTP/2 says otherwise.
const OF_CONNECTION: NameSet = NameSet::of(&[
    Name::Connection,
    Name::KeepAlive,
    Name::ProxyConnection,
    Name::Te,
    Name::TransferEncoding,
    Name::Upgrade,
]);

/// An answer on its way to the client. Dropping it ends the work for the request.
#[derive(Debug)]
pub(super) struct Answer {
    input: Buffer,
    reader: Reader,
    body: Body,
    trailers_sent: bool,
    _upload: Option<Upload>,
    _counted: Counted,
}

impl Answer {
    /// Waits for the head of the answer. Interim ones are left out: hyper has no way to send them.
    pub(super) async fn arrival(
        reader: Reader,
        upload: Option<Upload>,
        counted: Counted,
        asked: Method,
        worker: Rc<Worker>,
    ) -> io::Result<Response<Answer>> {
        let mut answer = Answer {
            input: Buffer::new(&worker.buffers),
            reader,
            body: Body::new(framing::Framing::None),
            trailers_sent: false,
            _upload: upload,
            _counted: counted,
        };
        let mut head = worker.heads.lend();
        let limits = parse::Limits { head_bytes: HEAD_BYTES_MAX, head_count: parse::FIELDS_MAX };
        loop {
            match parse::response(answer.input.filled(), &limits, &mut head).map_err(io::Error::other)? {
                Progress::Complete(consumed) => {
                    answer.input.consume(consumed);
                    if head.status() >= 200 {
                        break;
                    }
                    continue;
                }
                Progress::Partial if answer.input.is_full() => answer.input.grow(),
                Progress::Partial => {}
            }
            if poll_fn(|cx| answer.poll_fill(cx)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        answer.body = Body::new(framing::of_response(&head, asked).map_err(io::Error::other)?);
        let mut response = Response::new(answer);
        *response.status_mut() = StatusCode::from_u16(head.status()).map_err(io::Error::other)?;
        *response.headers_mut() = fields(&head)?;
        Ok(response)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Memory is taken only when there is something to put there.
        ready!(self.reader.poll_ready(cx));
        let count = ready!(self.reader.poll_read(cx, self.input.room()))?;
        self.input.fill(count);
        Poll::Ready(Ok(count))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if self.body.is_done() {
                self.input.release();
                let trailers = self.body.trailers().filter(|_| !self.trailers_sent);
                let frame = trailers.map(|trailers| fields(trailers).map(Frame::trailers));
                self.trailers_sent = true;
                return Poll::Ready(frame);
            }
            if !self.input.is_empty() {
                let piece = self.body.decode(self.input.filled()).map_err(io::Error::other)?;
                let data = Bytes::copy_from_slice(&self.input.filled()[piece.data]);
                self.input.consume(piece.consumed);
                if !data.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                continue;
            }
            self.input.release();
            if ready!(self.poll_fill(cx))? == 0 {
                self.body.close().map_err(|_| io::ErrorKind::UnexpectedEof)?;
            }
        }
    }
}

impl HyperBody for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.poll_piece(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_done() && (self.trailers_sent || self.body.trailers().is_none())
    }
}

fn fields(head: &Head) -> io::Result<HeaderMap> {
    let mut map = HeaderMap::with_capacity(head.fields().len());
    for field in head.fields().filter(|field| !OF_CONNECTION.contains(field.known)) {
        let name = HeaderName::from_bytes(field.name).map_err(io::Error::other)?;
        let value = HeaderValue::from_bytes(field.value).map_err(io::Error::other)?;
        map.append(name, value);
    }
    Ok(map)
}

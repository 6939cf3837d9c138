//! From HTTP/2 to HTTP/1.1: a request's head, refused where it could not have come over HTTP/1.1, and its body.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use hyper::HeaderMap;
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use tokio::task::JoinHandle;

use crate::http1::{Framing, Head, Limits, Method, Name, NameSet, Refusal, check_request, framing, write};
use crate::proxy::pipe::Writer;

/// Fields that belong to one connection of HTTP/1.1 and have no meaning here (RFC 9113 section 8.2.2).
const OF_CONNECTION: NameSet = NameSet::of(&[
    Name::Connection,
    Name::Http2Settings,
    Name::KeepAlive,
    Name::ProxyConnection,
    Name::TransferEncoding,
    Name::Upgrade,
]);

/// Makes `head` the request of HTTP/1.1 that says the same, and tells how its body will be framed.
///
/// # Errors
/// What it has that a request of HTTP/1.1 could not have. `head` is then for the log only.
pub(super) fn translate(parts: &Parts, body: &Incoming, limits: &Limits, head: &mut Head) -> Result<Framing, Refusal> {
    let is_connect = Method::of(parts.method.as_str().as_bytes()) == Method::Connect;
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let target = if is_connect { authority.unwrap_or_default() } else { path };
    head.set_request(parts.method.as_str(), target)?;
    // It comes first, as clients of HTTP/1.1 send it, and once: `Host` may repeat what `:authority` says, no more.
    if let Some(authority) = authority {
        head.push_known(Name::Host, authority.as_bytes())?;
    }
    if parts.headers.len() > limits.head_count {
        return Err(Refusal::TooManyFields);
    }
    fields(&parts.headers, authority, head)?;
    if head.names().meets(OF_CONNECTION) {
        return Err(Refusal::FieldName);
    }
    if head.values(Name::Te).any(|value| !value.eq_ignore_ascii_case(b"trailers")) {
        return Err(Refusal::FieldValue);
    }
    check_request(head)?;
    if !is_connect && !body.is_end_stream() && !head.has(Name::ContentLength) {
        head.push_known(Name::TransferEncoding, b"chunked")?;
    }
    framing::of_request(head)
}

fn fields(headers: &HeaderMap, authority: Option<&str>, head: &mut Head) -> Result<(), Refusal> {
    let mut cookies: Vec<u8> = Vec::new();
    for (name, value) in headers {
        match name.as_str() {
            // HTTP/2 splits it for its compression (RFC 9113 section 8.2.3).
            "cookie" => {
                let separator: &[u8] = if cookies.is_empty() { b"" } else { b"; " };
                cookies.extend_from_slice(separator);
                cookies.extend_from_slice(value.as_bytes());
            }
            "host"
                if authority.is_some_and(|authority| value.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) => {}
            "host" if authority.is_some() => return Err(Refusal::HostMismatch),
            // The body is read for the instance anyhow, and nobody would pass its leave on.
            "expect" => {}
            name => head.push(name, value.as_bytes())?,
        }
    }
    if !cookies.is_empty() {
        head.push_known(Name::Cookie, &cookies)?;
    }
    Ok(())
}

/// A request body on its way into the pipe, by a task of its own: a client that reads nothing may still send. It stops
/// when this is dropped.
#[derive(Debug)]
pub(super) struct Upload(JoinHandle<io::Result<Writer>>);

impl Upload {
    pub(super) fn start(body: Incoming, framing: Framing, writer: Writer) -> Upload {
        Upload(tokio::task::spawn_local(send(body, framing, writer)))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Hands the writer back, so that the pipe is not broken before the answer has come; whatever cuts the body short breaks it.
async fn send(mut body: Incoming, framing: Framing, mut writer: Writer) -> io::Result<Writer> {
    let mut left = match framing {
        Framing::Length(length) => length,
        Framing::Chunked => u64::MAX,
        Framing::None | Framing::UntilClose => return Ok(writer),
    };
    let chunked = framing == Framing::Chunked;
    let mut lines = Vec::new();
    let mut trailers = None;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.map_err(io::Error::other)?.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                left = left.checked_sub(data.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
                if chunked {
                    lines.clear();
                    write::chunk_head(data.len(), &mut lines);
                    write_all(&mut writer, &lines).await?;
                }
                write_all(&mut writer, &data).await?;
                if chunked {
                    write_all(&mut writer, b"\r\n").await?;
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    if chunked {
        lines.clear();
        let trailers = trailers.as_ref().map(trailer_section).transpose().map_err(io::Error::other)?;
        write::last_chunk(trailers.as_ref(), &mut lines);
        write_all(&mut writer, &lines).await?;
    } else if left > 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(writer)
}

fn trailer_section(trailers: &HeaderMap) -> Result<Head, Refusal> {
    let mut head = Head::new();
    for (name, value) in trailers {
        head.push(name.as_str(), value.as_bytes())?;
    }
    Ok(head)
}

async fn write_all(writer: &mut Writer, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = poll_fn(|cx| writer.poll_write(cx, bytes)).await?;
        bytes = &bytes[count..];
    }
    Ok(())
}

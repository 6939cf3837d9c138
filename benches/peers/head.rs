//! Heads of HTTP/1, read by the load and by the instance: only what they need.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// What matters of a head.
pub struct Head {
    /// Of a request; else empty.
    pub target: String,
    /// Of a response; else 0.
    pub status: u16,
    /// Bytes of the head itself.
    pub length: usize,
    /// Bytes that follow.
    pub body: usize,
    pub chunked: bool,
    /// `name=value` of each cookie that is set.
    pub cookies: Vec<String>,
}

/// Reads until a whole head is at the beginning of the buffer; `None` if the peer left between two messages.
pub async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
    filled: &mut usize,
) -> io::Result<Option<Head>> {
    loop {
        if *filled > 0
            && let Some(head) = parse(&buffer[..*filled])?
        {
            return Ok(Some(head));
        }
        match stream.read(&mut buffer[*filled..]).await? {
            0 if *filled == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => *filled += read,
        }
    }
}

fn parse(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut fields = [httparse::EMPTY_HEADER; 96];
    let is_response = bytes.starts_with(b"HTTP/");
    let (length, status, target) = if is_response {
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response.parse(bytes).map_err(io::Error::other)?;
        (parsed, response.code.unwrap_or(0), "")
    } else {
        let mut request = httparse::Request::new(&mut fields);
        let parsed = request.parse(bytes).map_err(io::Error::other)?;
        (parsed, 0, request.path.unwrap_or(""))
    };
    let httparse::Status::Complete(length) = length else { return Ok(None) };
    let mut head = Head { target: target.into(), status, length, body: 0, chunked: false, cookies: Vec::new() };
    for field in fields.iter().take_while(|field| !field.name.is_empty()) {
        let text = || String::from_utf8_lossy(field.value);
        if field.name.eq_ignore_ascii_case("content-length") {
            head.body = text().trim().parse().map_err(io::Error::other)?;
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            head.chunked = true;
        } else if field.name.eq_ignore_ascii_case("set-cookie") {
            head.cookies.extend(text().split(';').next().map(str::to_owned));
        }
    }
    Ok(Some(head))
}

//! Attacks chunked bodies: however they are cut into reads, relayed or decoded, they say the same.

use weighbridge::http1::{Body, Framing, Refusal, write};

/// See `tests/fuzz/main.rs`.
pub const TARGET: super::Target = super::Target {
    name: "http1_body",
    seeds: &[
        b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
        b"3;name=value\r\nabc\r\n00a\r\n0123456789\r\n0;x\r\n\r\n",
        b"1\r\na\r\n0\r\nX-Sum: 1\r\nX-Other:2\r\n\r\nnext",
        b"0\r\n\r\n",
        b"FFFFFFFFFFFFFFFF\r\nno end of it",
    ],
    dictionary: &[
        b"\r\n",
        b"\n",
        b"\r",
        b"0\r\n\r\n",
        b"0\r\n",
        b"1\r\nx\r\n",
        b";",
        b";a=\"b\"",
        b" ",
        b"\r\n\r\n",
        b"X: y\r\n",
        b"Host: a\r\n",
        b"Content-Length: 1\r\n",
        b"ffffffffffffffff",
        b"0000000000000000",
        b"0x",
    ],
    check,
};

/// All there is to know about a body: how much of the input it was, its data, its trailers; or why it was refused.
type Followed = Result<(usize, Vec<u8>, Option<Vec<u8>>, bool), Refusal>;

/// Panics when a promise is broken.
pub fn check(input: &[u8]) -> super::Ending {
    let whole = decoded(input, input.len().max(1));
    for step in [1, 2, 5] {
        assert_eq!(decoded(input, step), whole, "decoded in reads of {step}");
    }
    for step in [1, 3, input.len().max(1)] {
        let relayed = relayed(input, step);
        assert_eq!(
            relayed,
            whole.as_ref().map(|(length, ..)| *length).map_err(|refusal| *refusal),
            "relayed in reads of {step}"
        );
    }
    let (length, data, trailers, is_done) = match whole {
        Err(refusal) => return refusal.label(),
        Ok(followed) => followed,
    };
    if !is_done {
        assert_eq!(length, input.len(), "a body that goes on takes everything");
        return "goes on";
    }
    assert_eq!(
        decoded(&input[..length], length),
        Ok((length, data.clone(), trailers.clone(), true)),
        "what follows does not matter"
    );
    check_written(&data, &input[..length], trailers.is_some());
    if trailers.is_some() { "has trailers" } else { "done" }
}

/// What we would write for the same data is read as the same data.
fn check_written(data: &[u8], wire: &[u8], has_trailers: bool) {
    let mut body = Body::new(Framing::Chunked);
    body.relay(wire).expect("it was valid before");
    assert_eq!(body.trailers().is_some(), has_trailers);
    let mut written = Vec::new();
    for piece in data.chunks(7) {
        write::chunk_head(piece.len(), &mut written);
        written.extend_from_slice(piece);
        write::chunk_end(&mut written);
    }
    write::last_chunk(body.trailers(), &mut written);
    let (length, again, trailers, is_done) = decoded(&written, written.len()).expect("what we write can be read");
    assert_eq!((length, again.as_slice(), is_done), (written.len(), data, true));
    assert_eq!(trailers.is_some(), has_trailers);
}

fn decoded(input: &[u8], step: usize) -> Followed {
    let mut body = Body::new(Framing::Chunked);
    let (mut at, mut data) = (0, Vec::new());
    for end in (step..input.len()).step_by(step).chain([input.len()]) {
        while at < end && !body.is_done() {
            let piece = body.decode(&input[at..end])?;
            assert!(piece.consumed > 0 && piece.data.end <= piece.consumed, "decoding gets on");
            data.extend_from_slice(&input[at..][piece.data]);
            at += piece.consumed;
        }
    }
    let trailers = body.trailers().map(|head| {
        let mut lines = Vec::new();
        write::last_chunk(Some(head), &mut lines);
        lines
    });
    Ok((at, data, trailers, body.is_done()))
}

fn relayed(input: &[u8], step: usize) -> Result<usize, Refusal> {
    let mut body = Body::new(Framing::Chunked);
    let mut at = 0;
    for end in (step..input.len()).step_by(step).chain([input.len()]) {
        let length = body.relay(&input[at..end])?;
        assert!(body.is_done() || at + length == end, "only the end of the body stops it");
        at += length;
    }
    Ok(at)
}

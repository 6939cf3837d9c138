//! Attacks the response head that an instance sends.

use weighbridge::http1::{Framing, Head, Limits, Method, Progress, Refusal, framing, parse, write};

/// See `tests/fuzz/main.rs`.
pub const TARGET: super::Target = super::Target {
    name: "http1_response_head",
    seeds: &[
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nSet-Cookie: JSESSIONID=x; Path=/\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 404 Not Found\r\nServer:x\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 204\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 304 \r\nDate: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
    dictionary: &[
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\n\n",
        b"\r\n\t",
        b": ",
        b" :",
        b"HTTP/1.1 ",
        b"HTTP/1.0 ",
        b"HTTP/2 ",
        b" 200 ",
        b" 99 ",
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"gzip, ",
        b"\xc3\xa9",
    ],
    check,
};

const LIMITS: Limits = Limits { head_bytes: 2000, head_count: 12, target_bytes: 1000 };

/// Panics when a promise is broken.
pub fn check(input: &[u8]) -> super::Ending {
    let whole = in_reads(input, [input.len()]);
    for step in [1, 3, 10] {
        let split = in_reads(input, (step..input.len()).step_by(step).chain([input.len()]));
        assert_eq!(
            split.map(|head| head.0),
            whole.as_ref().map(|head| head.0).map_err(|refusal| *refusal),
            "in reads of {step}"
        );
    }
    let (length, head) = match whole {
        Err(refusal) => return refusal.label(),
        Ok((Progress::Partial, _)) => return "partial",
        Ok((Progress::Complete(length), head)) => (length, head),
    };
    assert!((100..=999).contains(&head.status()));
    let first_line = input.split(|b| *b == b'\r').next().expect("there is a first line");
    assert!(first_line.ends_with(head.reason()), "the reason is the end of the first line");
    assert!(input[..length].ends_with(b"\r\n\r\n"));
    for field in head.fields() {
        assert!(
            !field.name.iter().chain(field.value).any(|b| b"\r\n\0".contains(b)),
            "no byte that could break a line"
        );
    }
    let mut written = Vec::new();
    write::response(&head, &mut written);
    let mut again = Head::new();
    let limits = Limits { head_bytes: 5000, ..LIMITS };
    assert_eq!(parse::response(&written, &limits, &mut again), Ok(Progress::Complete(written.len())));
    assert_eq!((head.status(), head.reason(), head.version()), (again.status(), again.reason(), again.version()));
    assert!(head.fields().eq(again.fields()), "all fields come back");
    check_framing(&head)
}

fn check_framing(head: &Head) -> super::Ending {
    if let Ok(framing) = framing::of_response(head, Method::Head) {
        assert_eq!(framing, Framing::None, "nothing follows the answer to HEAD");
    }
    match framing::of_response(head, Method::Get) {
        Err(refusal) => refusal.label(),
        Ok(Framing::None) => "no body",
        Ok(Framing::Length(_)) => "counted body",
        Ok(Framing::Chunked) => "chunked body",
        Ok(Framing::UntilClose) => "until close",
    }
}

fn in_reads(input: &[u8], ends: impl IntoIterator<Item = usize>) -> Result<(Progress, Head), Refusal> {
    let mut head = Head::new();
    for end in ends {
        let progress = parse::response(&input[..end], &LIMITS, &mut head)?;
        if progress != Progress::Partial {
            return Ok((progress, head));
        }
    }
    Ok((Progress::Partial, head))
}

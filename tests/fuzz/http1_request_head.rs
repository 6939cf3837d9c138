//! Attacks the request head: what is accepted must be well-formed by rules stated here a second time, independently.

use weighbridge::http1::{Framing, Head, Limits, Name, Progress, Refusal, Version, framing, parse, write};

/// See `tests/fuzz/main.rs`.
pub const TARGET: super::Target = super::Target {
    name: "http1_request_head",
    seeds: &[
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"\r\nGET /a?b=c HTTP/1.1\r\nhost:a.test:80 \r\nCookie: x=y\r\nX-Empty:\r\n\r\nrest",
        b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 12\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: [::1]:8080\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close, x-y\r\nX-Y: z\r\n\r\n",
        b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
        b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ],
    dictionary: &[
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\n\n",
        b"\r\n ",
        b": ",
        b" :",
        b"Host: a.test\r\n",
        b"Host: b.test\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: +5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b" HTTP/1.0",
        b" HTTP/1.1",
        b" HTTP/2.0",
        b"http://",
        b"https://a.test",
        b"u@",
        b":80",
        b":99999",
        b"#x",
        b"%2F",
        b"[::1]",
        b"Connection: ",
        b"chunked",
        b"GET ",
        b"CONNECT ",
        b"99999999999999999999",
    ],
    check,
};

const LIMITS: Limits = Limits { head_bytes: 2000, head_count: 12, target_bytes: 1000 };

/// Panics when a promise is broken.
pub fn check(input: &[u8]) -> super::Ending {
    let whole = in_reads(input, [input.len()]);
    for step in [1, 2, 7] {
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
    check_lines(&input[..length], &head);
    assert!(head.destination().is_some() || head.version() == Version::Http10, "HTTP/1.1 names a host");
    let mut written = Vec::new();
    write::request(&head, &mut written);
    // The line may have grown by the spaces behind colons that were not there.
    let again = in_reads_of(&written, [written.len()], Limits { head_bytes: 5000, ..LIMITS })
        .expect("what we write can be read")
        .1;
    assert_eq!((head.method(), head.target(), head.version()), (again.method(), again.target(), again.version()));
    assert!(head.fields().eq(again.fields()), "all fields come back");
    match framing::of_request(&head) {
        Err(refusal) => refusal.label(),
        Ok(Framing::None) => "no body",
        Ok(Framing::Length(_)) => "counted body",
        Ok(Framing::Chunked) => "chunked body",
        Ok(Framing::UntilClose) => panic!("a request cannot last until the close"),
    }
}

fn in_reads(input: &[u8], ends: impl IntoIterator<Item = usize>) -> Result<(Progress, Head), Refusal> {
    in_reads_of(input, ends, LIMITS)
}

fn in_reads_of(
    input: &[u8],
    ends: impl IntoIterator<Item = usize>,
    limits: Limits,
) -> Result<(Progress, Head), Refusal> {
    let mut head = Head::new();
    for end in ends {
        let progress = parse::request(&input[..end], &limits, &mut head)?;
        if progress != Progress::Partial {
            return Ok((progress, head));
        }
    }
    Ok((Progress::Partial, head))
}

/// An accepted head, read the naive way, says the same.
fn check_lines(text: &[u8], head: &Head) {
    let text = text.strip_prefix(b"\r\n").unwrap_or(text);
    let lines: Vec<&[u8]> =
        text.strip_suffix(b"\r\n\r\n").expect("ends with an empty line").split(|b| *b == b'\n').collect();
    let lines: Vec<&[u8]> = lines.iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    let version = if head.version() == Version::Http11 { "HTTP/1.1" } else { "HTTP/1.0" };
    assert_eq!(lines[0], format!("{} {} {version}", head.method(), head.target()).as_bytes());
    assert_eq!(lines.len() - 1, head.fields().len());
    for (line, field) in lines[1..].iter().zip(head.fields()) {
        let colon = line.iter().position(|b| *b == b':').expect("a field has a colon");
        assert_eq!((&line[..colon], line[colon + 1..].trim_ascii()), (field.name, field.value.trim_ascii()));
        assert!(!line.iter().any(|b| b"\r\n\0".contains(b)), "no byte that could break a line");
        assert!(!matches!(field.value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']), "no space around a value");
        assert_eq!(field.known, Name::of(field.name));
        let values = head.values_of(std::str::from_utf8(field.name).expect("names are ASCII"));
        assert!(values.into_iter().any(|value| value == field.value), "each field can be looked up");
    }
}

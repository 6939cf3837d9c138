//! The algebra of the HTTP/1.1 codec: any cut into reads gives the same result, and what is written is read as it was.

use proptest::collection::vec;
use proptest::prelude::*;
use weighbridge::http1::{Body, Framing, Head, Limits, Progress, Refusal, parse, write};

/// A valid request head as text, with whitespace around the values.
fn request_text() -> impl Strategy<Value = String> {
    let method =
        "[A-Z!#$%&'*+.^_`|~0-9-]{1,9}".prop_filter("its target has another form", |method| method != "CONNECT");
    let field = ("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,20}", "[ \t]{0,2}", "([!-~\u{e9}]([ -~\t]{0,30}[!-~])?)?", "[ \t]{0,2}");
    let others = field.prop_filter("there is one already", |field| !field.0.eq_ignore_ascii_case("host"));
    (method, "/[!-\"$-~]{0,40}", "1\\.[01]", "[a-z0-9.-]{1,20}(:[0-9]{1,4})?", vec(others, 0..20)).prop_map(
        |(method, target, version, host, fields)| {
            let mut text = format!("{method} {target} HTTP/{version}\r\nHost: {host}\r\n");
            fields.iter().for_each(|(name, left, value, right)| text += &format!("{name}:{left}{value}{right}\r\n"));
            text + "\r\n"
        },
    )
}

/// A valid chunked body as text, with extensions and trailers.
fn chunked_text() -> impl Strategy<Value = Vec<u8>> {
    let chunk = (vec(any::<u8>(), 1..80), "(;[!-:<-~]{0,10}){0,2}", any::<bool>());
    let trailer = "X-[A-Za-z0-9]{1,8}: ?[!-~]{0,12}\r\n";
    (vec(chunk, 0..8), "0{1,3}(;[a-z=]{0,5})?", vec(trailer, 0..4)).prop_map(|(chunks, last, trailers)| {
        let mut text = Vec::new();
        for (data, extension, is_upper) in chunks {
            let size = if is_upper { format!("{:X}", data.len()) } else { format!("{:04x}", data.len()) };
            text.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
            text.extend_from_slice(&data);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(format!("{last}\r\n{}\r\n", trailers.concat()).as_bytes());
        text
    })
}

/// Parses what has come after each read, as a connection does.
fn in_reads(text: &[u8], cuts: &[prop::sample::Index]) -> Result<(Progress, Head), Refusal> {
    let mut head = Head::new();
    for end in ends(text, cuts) {
        let progress = parse::request(&text[..end], &Limits::default(), &mut head)?;
        if progress != Progress::Partial {
            return Ok((progress, head));
        }
    }
    Ok((Progress::Partial, head))
}

fn ends(text: &[u8], cuts: &[prop::sample::Index]) -> Vec<usize> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).chain([text.len()]).collect();
    ends.sort_unstable();
    ends
}

fn assert_same(one: &Head, other: &Head) {
    assert_eq!((one.method(), one.target(), one.version()), (other.method(), other.target(), other.version()));
    assert!(one.fields().eq(other.fields()));
}

proptest! {
    #[test]
    fn a_valid_head_is_accepted_however_it_is_cut(text in request_text(), cuts in vec(any::<prop::sample::Index>(), 0..6)) {
        let (progress, whole) = in_reads(text.as_bytes(), &[]).expect("a valid head");
        prop_assert_eq!(progress, Progress::Complete(text.len()));
        let (progress, split) = in_reads(text.as_bytes(), &cuts).expect("a valid head");
        prop_assert_eq!(progress, Progress::Complete(text.len()));
        assert_same(&whole, &split);
    }

    #[test]
    fn a_spoilt_head_ends_the_same_however_it_is_cut(
        text in request_text(),
        at in any::<prop::sample::Index>(),
        byte in prop::sample::select(b"\r\n\0 \t:;,\x7f\xff/H".to_vec()),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut text = text.into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        let (whole, split) = (in_reads(&text, &[]), in_reads(&text, &cuts));
        prop_assert_eq!(whole.as_ref().map(|(progress, _)| progress), split.as_ref().map(|(progress, _)| progress));
        if let (Ok((_, whole)), Ok((_, split))) = (&whole, &split) {
            assert_same(whole, split);
        }
    }

    #[test]
    fn what_is_written_is_read_as_it_was(text in request_text()) {
        let (_, head) = in_reads(text.as_bytes(), &[]).expect("a valid head");
        let mut written = Vec::new();
        write::request(&head, &mut written);
        let (progress, again) = in_reads(&written, &[]).expect("what we write can be read");
        prop_assert_eq!(progress, Progress::Complete(written.len()));
        assert_same(&head, &again);
        let mut twice = Vec::new();
        write::request(&again, &mut twice);
        prop_assert_eq!(written, twice);
    }

    #[test]
    fn a_built_head_is_read_as_it_was_meant(
        fields in vec(("\\PC{0,12}", "\\PC{0,20}|[ -~\t\r\n]{0,20}"), 0..12),
        target in "/[ -~]{0,12}",
    ) {
        let mut head = Head::new();
        let is_target = head.set_request("GET", &target).is_ok();
        prop_assert_eq!(is_target, !target.contains([' ', '#']));
        head.push("Host", b"a.test").expect("a valid field");
        for (name, value) in &fields {
            let name = format!("X{name}");
            let _ = head.push(&name, value.as_bytes());
        }
        if is_target {
            let mut written = Vec::new();
            write::request(&head, &mut written);
            let (_, again) = in_reads(&written, &[]).expect("what we write can be read");
            assert_same(&head, &again);
        }
    }

    #[test]
    fn a_valid_body_is_followed_to_its_end_however_it_is_cut(
        text in chunked_text(),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let (mut relayed, mut decoded) = (Body::new(Framing::Chunked), Body::new(Framing::Chunked));
        let (mut at, mut data, mut start) = (0, Vec::new(), 0);
        for end in ends(&text, &cuts) {
            prop_assert_eq!(relayed.relay(&text[start..end]), Ok(end - start));
            start = end;
            while at < end {
                let piece = decoded.decode(&text[at..end]).expect("a valid body");
                data.extend_from_slice(&text[at..][piece.data]);
                at += piece.consumed;
            }
        }
        prop_assert!(relayed.is_done() && decoded.is_done());
        let mut written = Vec::new();
        if !data.is_empty() {
            write::chunk_head(data.len(), &mut written);
            written.extend_from_slice(&data);
            write::chunk_end(&mut written);
        }
        write::last_chunk(decoded.trailers(), &mut written);
        let mut again = Body::new(Framing::Chunked);
        prop_assert_eq!(again.relay(&written), Ok(written.len()));
        prop_assert!(again.is_done());
        prop_assert_eq!(again.trailers().is_some(), decoded.trailers().is_some());
        if let (Some(again), Some(before)) = (again.trailers(), decoded.trailers()) {
            assert_same(again, before);
        }
    }

    #[test]
    fn a_counted_body_takes_its_length_and_no_more(length in 1u64..50, input in vec(any::<u8>(), 0..100)) {
        let mut body = Body::new(Framing::Length(length));
        let taken = body.relay(&input).expect("any byte will do");
        prop_assert_eq!(taken as u64, length.min(input.len() as u64));
        prop_assert_eq!(body.is_done(), taken as u64 == length);
        prop_assert_eq!(body.close().is_ok(), body.is_done());
    }
}

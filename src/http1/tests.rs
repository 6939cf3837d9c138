//! What is accepted, what is refused and why, as sentences.

use super::head::Field;
use super::*;

fn parse_request(text: impl AsRef<[u8]>) -> Result<Head, Refusal> {
    let mut head = Head::new();
    match parse::request(text.as_ref(), &Limits::default(), &mut head)? {
        Progress::Complete(length) => assert_eq!(length, text.as_ref().len(), "the head ends where the text ends"),
        Progress::Partial => panic!("the head has no end"),
    }
    Ok(head)
}

fn parse_response(text: impl AsRef<[u8]>) -> Result<Head, Refusal> {
    let mut head = Head::new();
    match parse::response(text.as_ref(), &Limits::default(), &mut head)? {
        Progress::Complete(length) => assert_eq!(length, text.as_ref().len(), "the head ends where the text ends"),
        Progress::Partial => panic!("the head has no end"),
    }
    Ok(head)
}

#[track_caller]
fn check_refused(text: impl AsRef<[u8]>, refusal: Refusal) {
    let shown = String::from_utf8_lossy(text.as_ref()).into_owned();
    assert_eq!(parse_request(text).map(|head| head.target().to_owned()), Err(refusal), "{shown:?}");
}

/// A request whose fields are these lines.
fn with_fields(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n")
}

fn with_target(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

fn with_host(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn fields_of(head: &Head) -> Vec<(&str, &str)> {
    let text = |bytes| std::str::from_utf8(bytes).expect("these tests write text");
    head.fields().map(|Field { name, value, .. }| (text(name), text(value))).collect()
}

fn written(head: &Head) -> String {
    let mut out = Vec::new();
    if head.status() == 0 {
        write::request(head, &mut out)
    } else {
        write::response(head, &mut out)
    }
    String::from_utf8(out).expect("these tests write text")
}

// Heads that are fine.

#[test]
fn a_request_keeps_the_case_and_order_of_its_fields() {
    let text =
        "POST /a?b=%2F HTTP/1.1\r\nhOST: a.test:80\r\nX-Second: 2\r\nx-first:1\r\nx-Empty:\r\nX-Second: \t3 \t\r\n\r\n";
    let head = parse_request(text).expect("a valid head");
    assert_eq!((head.method(), head.method_kind(), head.target()), ("POST", Method::Post, "/a?b=%2F"));
    assert_eq!(head.version(), Version::Http11);
    let expected = [("hOST", "a.test:80"), ("X-Second", "2"), ("x-first", "1"), ("x-Empty", ""), ("X-Second", "3")];
    assert_eq!(fields_of(&head), expected);
    assert_eq!(head.value(Name::Host), Some(&b"a.test:80"[..]));
    assert_eq!(head.values_of("x-sEcond").collect::<Vec<_>>(), [b"2", b"3"]);
    let lines = "hOST: a.test:80\r\nX-Second: 2\r\nx-first: 1\r\nx-Empty: \r\nX-Second: 3\r\n\r\n";
    assert_eq!(written(&head), format!("POST /a?b=%2F HTTP/1.1\r\n{lines}"));
}

#[test]
fn a_response_keeps_its_code_and_reason() {
    for (line, code, reason) in [
        ("HTTP/1.1 200 OK", 200, &b"OK"[..]),
        ("HTTP/1.0 404 Not  found ", 404, b"Not  found "),
        ("HTTP/1.1 999 ", 999, b""),
        ("HTTP/1.1 204", 204, b""),
        ("HTTP/1.1 200 caf\u{e9}", 200, "caf\u{e9}".as_bytes()),
    ] {
        for fields in ["", "Server: x\r\n", "a:\r\nb: c\r\n"] {
            let head = parse_response(format!("{line}\r\n{fields}\r\n")).expect(line);
            assert_eq!((head.status(), head.reason()), (code, reason), "{line:?}");
            assert_eq!(head.fields().len(), fields.matches(':').count());
            let again = parse_response(written(&head)).expect("what we write can be read");
            assert_eq!((again.status(), again.reason(), fields_of(&again)), (code, reason, fields_of(&head)));
        }
    }
}

#[test]
fn one_empty_line_before_a_request_is_forgiven() {
    assert!(parse_request("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    check_refused("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::EmptyLines);
    check_refused("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::EmptyLines);
    assert_eq!(parse_response("\r\nHTTP/1.1 200 OK\r\n\r\n").map(drop), Err(Refusal::Version));
}

#[test]
fn what_follows_the_head_is_left_alone() {
    let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\nnot a field\n\n";
    let mut head = Head::new();
    assert_eq!(parse::request(text, &Limits::default(), &mut head), Ok(Progress::Complete(27)));
}

#[test]
fn values_may_be_in_any_encoding() {
    let head = parse_request(b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\xf6\t\xfc\r\n\r\n").expect("obs-text is allowed");
    assert_eq!(head.value_of("x"), Some(&b"\xe4\xf6\t\xfc"[..]));
}

#[test]
fn a_head_is_reused_without_leftovers() {
    let mut head = Head::new();
    let limits = Limits::default();
    parse::request(b"GET /long/target HTTP/1.0\r\nA: 1\r\nCookie: c\r\n\r\n", &limits, &mut head).expect("valid");
    parse::response(b"HTTP/1.1 200 Fine\r\nDate: d\r\n\r\n", &limits, &mut head).expect("valid");
    assert_eq!((head.method(), head.target(), head.status()), ("", "", 200));
    assert_eq!(fields_of(&head), [("Date", "d")]);
    assert!(!head.has(Name::Cookie));
    parse::request(b"PUT /x HTTP/1.1\r\nHost: b\r\n\r\n", &limits, &mut head).expect("valid");
    assert_eq!((head.method(), head.target(), head.status(), head.reason()), ("PUT", "/x", 0, &b""[..]));
    assert_eq!(written(&head), "PUT /x HTTP/1.1\r\nHost: b\r\n\r\n");
    head.clear();
    assert_eq!((head.method(), head.target(), head.fields().len()), ("", "", 0));
}

// Heads that are refused.

#[test]
fn every_line_ends_with_carriage_return_and_line_feed() {
    for text in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.0\n\n",
        "GET / HTTP/1.0\n\r\n",
        "GET / HTTP/1.0\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\nX: y\r\n\r\n",
    ] {
        check_refused(text, Refusal::BareLineFeed);
    }
    for text in [
        "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\rY: z\r\n\r\n",
        "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        check_refused(text, Refusal::BareCarriageReturn);
    }
    for text in
        ["HTTP/1.1 200\n\r\n", "HTTP/1.1 200 OK\n\n", "HTTP/1.1 200 OK\nA: b\r\n\r\n", "HTTP/1.1 200\r\nA: b\n\n"]
    {
        assert_eq!(parse_response(text).map(drop), Err(Refusal::BareLineFeed), "{text:?}");
    }
}

#[test]
fn fields_are_never_repaired() {
    check_refused(with_fields("A: b\r\n c\r\n"), Refusal::FoldedField);
    check_refused(with_fields("A: b\r\n\tc: d\r\n"), Refusal::FoldedField);
    check_refused("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refusal::FoldedField);
    check_refused(with_fields("A : b\r\n"), Refusal::SpaceBeforeColon);
    check_refused(with_fields("A\t: b\r\n"), Refusal::SpaceBeforeColon);
    check_refused(with_fields("A B: c\r\n"), Refusal::FieldName);
    check_refused(with_fields("A(B): c\r\n"), Refusal::FieldName);
    check_refused(with_fields("\u{e4}: c\r\n"), Refusal::FieldName);
    check_refused(with_fields("A\0: c\r\n"), Refusal::FieldName);
    check_refused(with_fields(": c\r\n"), Refusal::EmptyFieldName);
    check_refused(with_fields("A\r\n"), Refusal::NoColon);
    check_refused(with_fields("A: b\0c\r\n"), Refusal::FieldValue);
    check_refused(with_fields("A: b\u{1b}c\r\n"), Refusal::FieldValue);
    check_refused(with_fields("A: b\u{7f}c\r\n"), Refusal::FieldValue);
}

#[test]
fn a_request_line_has_three_words_and_single_spaces() {
    for (line, refusal) in [
        (" / HTTP/1.1", Refusal::Method),
        ("G(T / HTTP/1.1", Refusal::Method),
        ("GET", Refusal::Method),
        ("GET  / HTTP/1.1", Refusal::Target),
        ("GET /", Refusal::Target),
        ("GET /a b HTTP/1.1", Refusal::MalformedVersion),
        ("GET /  HTTP/1.1", Refusal::MalformedVersion),
        ("GET /\tHTTP/1.1", Refusal::Target),
        ("GET / HTTP/1.1 ", Refusal::MalformedVersion),
        ("GET / HTTP/1.2", Refusal::Version),
        ("GET / HTTP/2.0", Refusal::Version),
        ("GET / HTTP/0.9", Refusal::Version),
        ("GET / http/1.1", Refusal::MalformedVersion),
        ("GET / HTTP/1.10", Refusal::MalformedVersion),
        ("PRI * HTTP/2.0", Refusal::Version),
    ] {
        check_refused(format!("{line}\r\nHost: a.test\r\n\r\n"), refusal);
    }
}

#[test]
fn bytes_that_cannot_begin_a_request_are_refused_at_once() {
    for first in [&b"\x16\x03\x01"[..], b" GET", b"\0", b"\x80", b":"] {
        assert_eq!(parse::request(first, &Limits::default(), &mut Head::new()), Err(Refusal::Method), "{first:?}");
    }
    assert_eq!(parse::response(b"SSH-2.0", &Limits::default(), &mut Head::new()), Err(Refusal::Version));
}

#[test]
fn a_status_line_has_a_three_digit_code() {
    for line in
        ["HTTP/1.1 099 x", "HTTP/1.1 20 x", "HTTP/1.1 2000", "HTTP/1.1 -20", "HTTP/1.1 200OK", "HTTP/1.1 200 \0"]
    {
        assert_eq!(parse_response(format!("{line}\r\n\r\n")).map(drop), Err(Refusal::Status), "{line:?}");
    }
    for line in ["HTTP/1.2 200 x", "HTTP/2 200", "HTTP/1.1  200", "HTP/1.1 200 OK"] {
        assert!(parse_response(format!("{line}\r\n\r\n")).is_err(), "{line:?}");
    }
}

#[test]
fn targets_have_one_of_four_forms() {
    for target in
        ["/", "/a?b=c", "//x", "/%00", "/<>\"^`{|}\\", "http://a.test", "HTTPS://A.test/x?y", "http://a.test?q"]
    {
        assert!(parse_request(with_target(target)).is_ok(), "{target}");
    }
    for target in
        ["a", "*", "?", "a.test:80", "ftp://a.test/", "http:/a.test", "ws://a.test/", "http//a", "/\u{e9}", "/\u{7f}"]
    {
        check_refused(with_target(target), Refusal::Target);
    }
    check_refused(with_target("/a#b"), Refusal::Fragment);
    check_refused(with_target("http://a.test/#"), Refusal::Fragment);
    assert!(parse_request("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    assert!(parse_request("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n").is_ok());
    check_refused("CONNECT a.test HTTP/1.1\r\nHost: a.test\r\n\r\n", Refusal::Target);
    check_refused("CONNECT a1 HTTP/1.1\r\nHost: a1\r\n\r\n", Refusal::Target);
    check_refused("CONNECT / HTTP/1.1\r\nHost: a.test\r\n\r\n", Refusal::Target);
    check_refused("CONNECT http://a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", Refusal::Target);
    check_refused("CONNECT [::1] HTTP/1.1\r\nHost: [::1]\r\n\r\n", Refusal::Target);
}

#[test]
fn a_request_names_exactly_one_host() {
    check_refused("GET / HTTP/1.1\r\n\r\n", Refusal::MissingHost);
    check_refused("GET / HTTP/1.1\r\nHost: \r\n\r\n", Refusal::MissingHost);
    check_refused("GET / HTTP/1.0\r\nHost:\r\n\r\n", Refusal::MissingHost);
    check_refused("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", Refusal::RepeatedHost);
    check_refused("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Refusal::RepeatedHost);
    let old = parse_request("GET /x HTTP/1.0\r\n\r\n").expect("HTTP/1.0 had no Host");
    assert_eq!(old.destination(), None);
}

#[test]
fn a_host_is_a_name_or_an_address_with_an_optional_port() {
    for host in
        ["a", "a.test:80", "A-b_c~.test.", "127.0.0.1:65535", "[::1]", "[2001:db8::1.2.3.4]:0", "xn--bcher-kva.test"]
    {
        assert!(parse_request(with_host(host)).is_ok(), "{host}");
    }
    for host in [
        "a,b",
        "a, b",
        "a b",
        "u@a",
        "u:p@a",
        "a:",
        "a:b",
        "a:-1",
        "a:65536",
        "a:99999999999",
        "a:000080",
        "a:8 0",
        ":80",
        "a/b",
        "a?b",
        "a%41",
        "[::1",
        "::1",
        "[::1]x",
        "[::1]:",
        "[a.test]",
        "[]",
        "[::1%25eth0]",
        "\u{e9}.test",
        "a\\b",
        "<a>",
        "*.a.test",
        "a;b",
    ] {
        check_refused(with_host(host), Refusal::MalformedHost);
    }
}

#[test]
fn an_absolute_target_and_host_agree() {
    assert!(parse_request("GET http://A.test:80/ HTTP/1.1\r\nHost: a.TEST:80\r\n\r\n").is_ok());
    assert!(parse_request("GET http://a.test/ HTTP/1.0\r\n\r\n").is_ok());
    check_refused("GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refusal::HostMismatch);
    check_refused("GET http://a.test:80/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refusal::HostMismatch);
    check_refused("GET http://u@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", Refusal::MalformedHost);
    check_refused("GET http:///x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refusal::MalformedHost);
    check_refused("GET http://a.test/ HTTP/1.1\r\n\r\n", Refusal::MissingHost);
    check_refused("CONNECT b.test:1 HTTP/1.1\r\nHost: a.test:1\r\n\r\n", Refusal::HostMismatch);
}

#[test]
fn routing_sees_host_and_path() {
    for (line, host, path) in [
        ("GET /a/b?c=/d", "a.test:80", ("a.test", "/a/b")),
        ("GET /?", "[::1]:80", ("[::1]", "/")),
        ("GET http://a.test:8/x?y", "a.test:8", ("a.test", "/x")),
        ("GET http://a.test", "a.test", ("a.test", "/")),
        ("GET http://a.test?x/y", "a.test", ("a.test", "/")),
        ("OPTIONS *", "a.test", ("a.test", "*")),
        ("CONNECT a.test:443", "a.test:443", ("a.test", "")),
    ] {
        let head = parse_request(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n")).expect(line);
        let found = head.destination().expect("a host was named");
        assert_eq!((found.host, found.path), (path.0.as_bytes(), path.1.as_bytes()), "{line}");
    }
}

// Limits and partial input.

#[track_caller]
fn check_limited(text: &str, limits: Limits, expected: Result<Progress, Refusal>) {
    assert_eq!(parse::request(text.as_bytes(), &limits, &mut Head::new()), expected, "{text:?}");
}

#[test]
fn a_head_may_be_as_large_as_the_limit_and_no_larger() {
    let text = with_fields("A: b\r\n");
    let limits = |head_bytes| Limits { head_bytes, head_count: 10, ..Limits::default() };
    check_limited(&text, limits(text.len()), Ok(Progress::Complete(text.len())));
    check_limited(&text, limits(text.len() - 1), Err(Refusal::HeadTooLarge));
    check_limited(&text[..text.len() - 1], limits(text.len()), Ok(Progress::Partial));
    check_limited(&text[..text.len() - 1], limits(text.len() - 1), Err(Refusal::HeadTooLarge));
    check_limited("GET /aaaaaaaaaaaa", limits(10), Err(Refusal::TargetTooLong));
    check_limited("\r\nGET /aaaaaaaaa", limits(10), Err(Refusal::TargetTooLong));
    let long = with_target(&format!("/{}", "a".repeat(70_000)));
    check_limited(&long, limits(100_000), Err(Refusal::TargetTooLong));
}

#[test]
fn a_head_may_have_as_many_fields_as_the_limit_and_no_more() {
    let limits = |head_count| Limits { head_bytes: 1000, head_count, ..Limits::default() };
    let text = with_fields("A: b\r\n");
    check_limited(&text, limits(2), Ok(Progress::Complete(text.len())));
    check_limited(&text, limits(1), Err(Refusal::TooManyFields));
    let many = with_fields(&"A: b\r\n".repeat(parse::FIELDS_MAX));
    check_limited(
        &many,
        Limits { head_bytes: 1 << 20, head_count: usize::MAX, ..Limits::default() },
        Err(Refusal::TooManyFields),
    );
}

#[test]
fn there_is_no_verdict_before_the_empty_line() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nbad\r\nA: b\r\n\r\n";
    let (mut head, limits) = (Head::new(), Limits::default());
    for length in 0..text.len() {
        assert_eq!(parse::request(&text.as_bytes()[..length], &limits, &mut head), Ok(Progress::Partial), "{length}");
    }
    assert_eq!(parse::request(text.as_bytes(), &limits, &mut head), Err(Refusal::NoColon));
}

#[test]
fn a_refused_head_shows_nothing_of_the_one_before() {
    let (mut head, limits) = (Head::new(), Limits::default());
    for (text, refusal, target) in [
        ("GET /second HTTP/1.1\r\nHost: a\r\nbad\r\n\r\n", Refusal::NoColon, ""),
        ("GET /second HTTP/1.1\r\nHost: a,b\r\n\r\n", Refusal::MalformedHost, "/second"),
    ] {
        let first = b"GET /first HTTP/1.1\r\nHost: a\r\nCookie: b\r\n\r\n";
        assert!(parse::request(first, &limits, &mut head).is_ok());
        assert_eq!(parse::request(text.as_bytes(), &limits, &mut head), Err(refusal));
        assert_eq!(head.target(), target);
        assert!(!head.has(Name::Cookie));
    }
}

// Building and changing heads.

#[test]
fn setters_refuse_what_could_break_a_line() {
    let mut head = Head::new();
    for name in ["", "A B", "A:", "A\r\nB", "A\n", "\u{e9}"] {
        assert!(head.push(name, b"x").is_err(), "{name:?}");
    }
    for value in ["a\r\nb: c", "a\n", "\0", "\r", "a\u{7f}"] {
        assert_eq!(head.push("A", value.as_bytes()), Err(Refusal::FieldValue), "{value:?}");
        assert_eq!(head.set(Name::Cookie, value.as_bytes()), Err(Refusal::FieldValue), "{value:?}");
        assert_eq!(head.append_to_list(Name::Via, value.as_bytes()), Err(Refusal::FieldValue), "{value:?}");
        assert_eq!(head.set_status(200, value.as_bytes()), Err(Refusal::Status), "{value:?}");
        assert!(head.set_request("GET", &format!("/{value}")).is_err(), "{value:?}");
        assert!(head.set_request(value, "/").is_err(), "{value:?}");
        assert!(head.set_target(value).is_err(), "{value:?}");
    }
    assert_eq!(head.set_request("GET", "/ HTTP/1.1"), Err(Refusal::Target));
    assert_eq!(head.set_request("GET /x", "/"), Err(Refusal::Method));
    assert_eq!(head.set_request("GET", ""), Err(Refusal::Target));
    assert_eq!(head.push_known(Name::Other, b"x"), Err(Refusal::EmptyFieldName));
    assert_eq!(head.set_status(99, b""), Err(Refusal::Status));
    assert_eq!(head.set_status(1000, b""), Err(Refusal::Status));
    assert_eq!((head.fields().len(), head.target(), head.status()), (0, "", 0), "nothing of it got in");
}

#[test]
fn a_head_can_be_built_from_parts() {
    let mut head = Head::new();
    head.push("Host", b"a.test").expect("valid");
    head.push("x-odd", b"  spaces around \t").expect("valid");
    head.set_request("REPORT", "/r").expect("valid");
    assert_eq!(check_request(&head), Ok(()));
    assert_eq!(head.method_kind(), Method::Other);
    assert_eq!(written(&head), "REPORT /r HTTP/1.1\r\nHost: a.test\r\nx-odd: spaces around\r\n\r\n");
    head.set_status(503, b"Sleeping").expect("valid");
    head.set_status(503, b"Zzz").expect("valid");
    head.set_version(Version::Http10);
    assert_eq!(written(&head), "HTTP/1.0 503 Zzz\r\nHost: a.test\r\nx-odd: spaces around\r\n\r\n");
}

#[test]
fn fields_are_removed_replaced_and_extended() {
    let mut head =
        parse_request(with_fields("Cookie: a\r\nX-One: 1\r\nVia: 1.0 p\r\nCookie: b\r\nx-one: 2\r\nVia:\r\n"))
            .expect("valid");
    assert!(head.repeats(Name::Cookie) && !head.repeats(Name::Host));
    head.remove(Name::Cookie);
    head.remove_named(b"X-ONE");
    head.remove_named(b"absent");
    head.remove(Name::Te);
    assert!(!head.has(Name::Cookie) && !head.repeats(Name::Cookie));
    head.append_to_list(Name::Via, b"1.1 w").expect("valid");
    head.append_to_list(Name::XForwardedFor, b" 10.0.0.1").expect("valid");
    head.append_to_list(Name::XForwardedFor, b"10.0.0.2 ").expect("valid");
    head.set(Name::Host, b"b.test").expect("valid");
    let expected = [("Via", "1.0 p, 1.1 w"), ("X-Forwarded-For", "10.0.0.1, 10.0.0.2"), ("Host", "b.test")];
    assert_eq!(fields_of(&head), expected);
    assert_eq!(head.value_of("HOST"), Some(&b"b.test"[..]));
}

#[test]
fn connection_options_take_their_fields_along() {
    let lines = "Connection: keep-alive, x-one\r\nKeep-Alive: 5\r\nX-One: 1\r\nConnection: X-Vcap-Request-Id,,connection , x-two\r\n\
                 X-Vcap-Request-Id: 7\r\nX-Two: 2\r\nX-Three: 3\r\n";
    let mut head = parse_request(with_fields(lines)).expect("valid");
    assert!(head.lists(Name::Connection, "X-TWO") && !head.lists(Name::Connection, "x-three"));
    head.remove_listed(|name, _| name == Name::XVcapRequestId).expect("few options");
    let left: Vec<_> = fields_of(&head).into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["Host", "Connection", "Connection", "X-Vcap-Request-Id", "X-Three"]);
    assert!(!head.has(Name::KeepAlive) && head.repeats(Name::Connection));

    let mut greedy = parse_request(with_fields(&format!("Connection: {}\r\n", "x,".repeat(65)))).expect("valid");
    assert_eq!(greedy.remove_listed(|_, _| false), Err(Refusal::TooManyOptions));
}

#[test]
fn connections_are_kept_by_default_since_http_11() {
    for (version, connection, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: y , close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let head = parse_request(format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n")).expect("valid");
        assert_eq!(head.keeps_alive(), kept, "{version} {connection:?}");
    }
}

// Framing.

#[track_caller]
fn check_request_framing(text: &str, expected: Result<Framing, Refusal>) {
    let head = parse_request(text).expect("a valid head");
    assert_eq!(framing::of_request(&head), expected, "{text:?}");
}

#[test]
fn a_request_has_the_body_it_announces() {
    for (lines, expected) in [
        ("", Framing::None),
        ("Content-Length: 0\r\n", Framing::None),
        ("content-length: 0042\r\n", Framing::Length(42)),
        ("Content-Length: 9223372036854775807\r\n", Framing::Length(framing::LENGTH_MAX)),
        ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
        ("transfer-encoding:CHUNKed \r\n", Framing::Chunked),
    ] {
        check_request_framing(&with_fields(lines), Ok(expected));
    }
}

#[test]
fn ambiguous_framing_is_refused() {
    for (lines, refusal) in [
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Refusal::LengthAndEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", Refusal::LengthAndEncoding),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Refusal::RepeatedLength),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", Refusal::RepeatedLength),
        ("Content-Length: 5, 5\r\n", Refusal::MalformedLength),
        ("Content-Length: +5\r\n", Refusal::MalformedLength),
        ("Content-Length: -5\r\n", Refusal::MalformedLength),
        ("Content-Length: 5 6\r\n", Refusal::MalformedLength),
        ("Content-Length: 0x5\r\n", Refusal::MalformedLength),
        ("Content-Length: 5.0\r\n", Refusal::MalformedLength),
        ("Content-Length:\r\n", Refusal::MalformedLength),
        ("Content-Length: 9223372036854775808\r\n", Refusal::LengthTooLarge),
        ("Content-Length: 00000000000000000005\r\n", Refusal::LengthTooLarge),
        ("Content-Length: 18446744073709551617\r\n", Refusal::LengthTooLarge),
        ("Transfer-Encoding: identity\r\n", Refusal::Encoding),
        ("Transfer-Encoding: gzip, chunked\r\n", Refusal::Encoding),
        ("Transfer-Encoding: chunked, chunked\r\n", Refusal::Encoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Refusal::Encoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", Refusal::Encoding),
        ("Transfer-Encoding: chunked;q=1\r\n", Refusal::Encoding),
        ("Transfer-Encoding: \"chunked\"\r\n", Refusal::Encoding),
        ("Transfer-Encoding: xchunked\r\n", Refusal::Encoding),
        ("Transfer-Encoding: chunked,\r\n", Refusal::Encoding),
        ("Transfer-Encoding:\r\n", Refusal::Encoding),
    ] {
        check_request_framing(&with_fields(lines), Err(refusal));
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    check_request_framing(old, Err(Refusal::EncodingInHttp10));
    let tunnel = "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n";
    check_request_framing(&format!("{tunnel}Content-Length: 1\r\n\r\n"), Err(Refusal::LengthForbidden));
    check_request_framing(&format!("{tunnel}Transfer-Encoding: chunked\r\n\r\n"), Err(Refusal::EncodingForbidden));
}

#[test]
fn a_response_has_the_body_its_request_allows() {
    use Framing::{Chunked, Length, None, UntilClose};
    for (asked, status, lines, expected) in [
        (Method::Get, 200, "", Ok(UntilClose)),
        (Method::Get, 200, "Content-Length: 7\r\n", Ok(Length(7))),
        (Method::Get, 200, "Content-Length: 0\r\n", Ok(None)),
        (Method::Get, 200, "Transfer-Encoding: Chunked\r\n", Ok(Chunked)),
        (Method::Head, 200, "Content-Length: 7\r\n", Ok(None)),
        (Method::Head, 200, "Transfer-Encoding: chunked\r\n", Ok(None)),
        (Method::Head, 200, "", Ok(None)),
        (Method::Get, 304, "Content-Length: 7\r\n", Ok(None)),
        (Method::Get, 204, "", Ok(None)),
        (Method::Get, 204, "Content-Length: 0\r\n", Ok(None)),
        (Method::Get, 204, "Content-Length: 1\r\n", Err(Refusal::LengthForbidden)),
        (Method::Get, 204, "Transfer-Encoding: chunked\r\n", Err(Refusal::EncodingForbidden)),
        (Method::Get, 103, "Link: x\r\n", Ok(None)),
        (Method::Get, 100, "Content-Length: 2\r\n", Err(Refusal::LengthForbidden)),
        (Method::Get, 101, "Upgrade: x\r\n", Ok(None)),
        (Method::Connect, 200, "Content-Length: 7\r\n", Ok(None)),
        (Method::Connect, 407, "Content-Length: 7\r\n", Ok(Length(7))),
        (Method::Head, 200, "Content-Length: x\r\n", Err(Refusal::MalformedLength)),
        (Method::Get, 304, "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Err(Refusal::LengthAndEncoding)),
        (Method::Get, 200, "Content-Length: 1\r\nContent-Length: 1\r\n", Err(Refusal::RepeatedLength)),
        (Method::Get, 200, "Transfer-Encoding: gzip\r\n", Err(Refusal::Encoding)),
    ] {
        let head = parse_response(format!("HTTP/1.1 {status} x\r\n{lines}\r\n")).expect("a valid head");
        assert_eq!(framing::of_response(&head, asked), expected, "{asked:?} {status} {lines:?}");
    }
    let old = parse_response("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").expect("a valid head");
    assert_eq!(framing::of_response(&old, Method::Get), Err(Refusal::EncodingInHttp10));
}

// Bodies.

/// Follows a chunked body to its end: what was data, how many bytes were the body's, which trailers it had.
fn follow(wire: &[u8]) -> Result<(Vec<u8>, usize, Body), Refusal> {
    let mut decoded = Body::new(Framing::Chunked);
    let (mut data, mut at) = (Vec::new(), 0);
    while at < wire.len() && !decoded.is_done() {
        let piece = decoded.decode(&wire[at..])?;
        data.extend_from_slice(&wire[at..][piece.data]);
        at += piece.consumed;
    }
    let mut relayed = Body::new(Framing::Chunked);
    assert_eq!(relayed.relay(wire), Ok(at), "both ways see the same end");
    assert_eq!(relayed.is_done(), decoded.is_done());
    Ok((data, at, decoded))
}

#[track_caller]
fn check_chunks(wire: &str, expected: Result<&str, Refusal>) {
    let result = follow(wire.as_bytes()).map(|(data, length, body)| {
        assert!(body.is_done(), "{wire:?} ends");
        assert_eq!(length, wire.len(), "{wire:?} is all body");
        String::from_utf8(data).expect("these tests write text")
    });
    assert_eq!(result.as_deref(), expected.as_ref().map(|data| *data), "{wire:?}");
}

#[test]
fn chunks_become_data() {
    check_chunks("0\r\n\r\n", Ok(""));
    check_chunks("000\r\n\r\n", Ok(""));
    check_chunks("3\r\nabc\r\n0\r\n\r\n", Ok("abc"));
    check_chunks("3;x=\"y; z\"\r\nabc\r\n1;\r\nd\r\n0;last\r\n\r\n", Ok("abcd"));
    check_chunks(
        "A\r\n0123456789\r\n000000000000000b\r\n0\r\n\r\n1\r\n1\r\n\r\n0\r\n\r\n",
        Ok("01234567890\r\n\r\n1\r\n1\r\n"),
    );
}

#[test]
fn chunk_framing_is_never_repaired() {
    for (wire, refusal) in [
        ("\r\n", Refusal::ChunkSize),
        (";x\r\n", Refusal::ChunkSize),
        ("g\r\n", Refusal::ChunkSize),
        ("-1\r\n", Refusal::ChunkSize),
        ("0x1\r\n", Refusal::ChunkSize),
        (" 1\r\n", Refusal::ChunkSize),
        ("1 \r\n", Refusal::ChunkSize),
        ("1 ;x\r\n", Refusal::ChunkSize),
        ("1\na", Refusal::ChunkSize),
        ("00000000000000001\r\n", Refusal::ChunkTooLarge),
        ("8000000000000000\r\n", Refusal::ChunkTooLarge),
        ("ffffffffffffffff\r\n", Refusal::ChunkTooLarge),
        ("1\r\r\n", Refusal::BareCarriageReturn),
        ("1;x\ny\r\n", Refusal::BareLineFeed),
        ("1;x\ry\r\n", Refusal::BareCarriageReturn),
        ("1;x\0\r\n", Refusal::ChunkExtension),
        ("1\r\nab\r\n", Refusal::ChunkEnd),
        ("1\r\na\n", Refusal::ChunkEnd),
        ("1\r\na\r\r\n", Refusal::ChunkEnd),
        ("0\r\n\n", Refusal::BareLineFeed),
        ("0\r\n\r\r", Refusal::BareCarriageReturn),
        ("0\r\nA: b\n\r\n", Refusal::BareLineFeed),
        ("0\r\nA: b\r\n\n", Refusal::BareLineFeed),
        ("0\r\n A: b\r\n\r\n", Refusal::FoldedField),
        ("0\r\nA : b\r\n\r\n", Refusal::SpaceBeforeColon),
        ("0\r\nA\r\n\r\n", Refusal::NoColon),
        ("0\r\nA: \0\r\n\r\n", Refusal::FieldValue),
        ("0\r\nX: y\r\nContent-Length: 5\r\n\r\n", Refusal::ForbiddenTrailer),
        ("0\r\ntransfer-encoding: chunked\r\n\r\n", Refusal::ForbiddenTrailer),
        ("0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", Refusal::ForbiddenTrailer),
    ] {
        check_chunks(wire, Err(refusal));
    }
}

#[test]
fn trailers_are_read_and_what_follows_is_left_alone() {
    let (data, length, body) = follow(b"1\r\na\r\n0\r\nX-Sum: 1\r\nx-Two:2\r\n\r\nGET / HTTP/1.1").expect("valid");
    assert_eq!((data.as_slice(), length), (&b"a"[..], 30));
    let trailers = body.trailers().expect("there were trailers");
    assert_eq!(fields_of(trailers), [("X-Sum", "1"), ("x-Two", "2")]);
    let mut out = Vec::new();
    write::last_chunk(Some(trailers), &mut out);
    assert_eq!(out, b"0\r\nX-Sum: 1\r\nx-Two: 2\r\n\r\n");
    assert!(follow(b"0\r\n\r\n").expect("valid").2.trailers().is_none());
}

#[test]
fn extensions_and_trailers_have_limits() {
    let padded = |length: usize| format!("0;{}\r\n\r\n", "x".repeat(length - 1));
    check_chunks(&padded(body::EXTENSION_BYTES_MAX), Ok(""));
    check_chunks(&padded(body::EXTENSION_BYTES_MAX + 1), Err(Refusal::ChunkExtensionsTooLarge));
    let drop_by_drop = "1;xxxxxxx\r\na\r\n".repeat(body::EXTENSION_BYTES_MAX / 8 + 1);
    check_chunks(&drop_by_drop, Err(Refusal::ChunkExtensionsTooLarge));
    let large = |length: usize| format!("0\r\nX: {}\r\n\r\n", "x".repeat(length - 7));
    check_chunks(&large(body::TRAILER_BYTES_MAX - 1), Ok(""));
    check_chunks(&large(body::TRAILER_BYTES_MAX), Err(Refusal::TrailersTooLarge));
    let endless = format!("0\r\nX: {}", "x".repeat(body::TRAILER_BYTES_MAX));
    check_chunks(&endless, Err(Refusal::TrailersTooLarge));
    let many = |count: usize| format!("0\r\n{}\r\n", "X: y\r\n".repeat(count));
    check_chunks(&many(body::TRAILER_COUNT_MAX), Ok(""));
    check_chunks(&many(body::TRAILER_COUNT_MAX + 1), Err(Refusal::TooManyFields));
}

#[test]
fn a_counted_body_ends_after_its_length() {
    let mut body = Body::new(Framing::Length(5));
    assert_eq!(body.decode(b"abc"), Ok(Piece { consumed: 3, data: 0..3 }));
    assert_eq!(body.close(), Err(Truncated));
    assert_eq!(body.relay(b"deGET"), Ok(2));
    assert!(body.is_done());
    assert_eq!(body.relay(b"GET"), Ok(0));
    assert_eq!(body.close(), Ok(()));
    assert!(Body::new(Framing::Length(0)).is_done() && Body::new(Framing::None).is_done());
}

#[test]
fn a_close_ends_only_what_may_be_ended_by_it() {
    let mut until_close = Body::new(Framing::UntilClose);
    assert_eq!(until_close.relay(b"abc"), Ok(3));
    assert!(!until_close.is_done());
    assert_eq!(until_close.close(), Ok(()));
    assert!(until_close.is_done());
    for wire in ["", "1", "1\r\n", "1\r\na", "1\r\na\r\n", "0", "0\r\n", "0\r\n\r", "0\r\nA: b\r\n"] {
        let mut chunked = Body::new(Framing::Chunked);
        assert_eq!(chunked.relay(wire.as_bytes()), Ok(wire.len()));
        assert_eq!(chunked.close(), Err(Truncated), "{wire:?}");
    }
}

#[test]
fn data_becomes_chunks() {
    let mut out = Vec::new();
    for size in [1usize, 15, 16, 255, 4096, 70_000] {
        write::chunk_head(size, &mut out);
        out.resize(out.len() + size, b'x');
        write::chunk_end(&mut out);
    }
    write::chunk_head(0, &mut out);
    write::last_chunk(None, &mut out);
    assert!(out.starts_with(b"1\r\nx\r\nf\r\n"));
    let (data, length, body) = follow(&out).expect("what we write can be read");
    assert_eq!((data.len(), length), (1 + 15 + 16 + 255 + 4096 + 70_000, out.len()));
    assert!(body.is_done());
}

#[test]
fn a_control_byte_is_noticed_wherever_it_hides() {
    for length in 1..70 {
        let mut value = vec![b'x'; length];
        assert_eq!(Head::new().push("X", &value), Ok(()));
        for place in 0..length {
            value[place] = 0x7f;
            assert_eq!(Head::new().push("X", &value), Err(Refusal::FieldValue), "{place} of {length}");
            value[place] = b'x';
        }
    }
}

#[test]
fn every_refusal_has_a_label_of_its_own() {
    let mut labels: Vec<&str> = Refusal::ALL.iter().map(|refusal| refusal.label()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), Refusal::ALL.len());
}

#[test]
fn a_refused_request_is_answered_by_what_was_wrong() {
    for (refusal, status) in [
        (Refusal::TargetTooLong, 414),
        (Refusal::HeadTooLarge, 431),
        (Refusal::TooManyFields, 431),
        (Refusal::Version, 505),
        (Refusal::LengthAndEncoding, 400),
    ] {
        assert_eq!(refusal.status(), status, "{refusal}");
    }
}

//! One case per line of RFC 9113 and RFC 7541 that a proxy can get wrong: what is sent behind the preface, and what must
//! come of it. The list is the documentation.

use super::instances::router_for;
use super::raw::*;
use crate::harness::instance::{self, Instance};
use crate::harness::router::Router;
use crate::harness::{answer, bus, in_time};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;

/// What must come.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// This answer on this stream; the connection goes on.
    Status(u32, u16),
    /// The connection ends for this reason.
    GoAway(u32),
    /// This stream is reset for this reason and the connection goes on, or ends for the same reason: both are right.
    ResetOrGoAway(u32, u32),
    /// The connection ends because its blocks cannot be read. (The specification calls that COMPRESSION_ERROR, h2 a
    /// PROTOCOL_ERROR, as it calls a name in upper case, which ends the connection as well: from outside the two cannot be
    /// told apart. The end is what counts, and both names are accepted.)
    Uncompressible,
    /// Stream 1 is reset as malformed, or answered with 400.
    Refused,
    /// Nothing but an answer to the ping at the end.
    Nothing,
}
use Expected::{GoAway, Nothing, Refused, ResetOrGoAway, Status, Uncompressible};

/// Where it is said, what is sent, what must come.
struct Case(&'static str, Vec<u8>, Expected);

const ENDS: u8 = END_STREAM | END_HEADERS;

/// The fields of an ordinary request.
const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/")];
const POST: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/")];

fn headers(flags: u8, stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags, stream, block(fields))
}

fn get(stream: u32) -> Vec<u8> {
    headers(ENDS, stream, &GET)
}

/// A request whose body is to come.
fn post(stream: u32) -> Vec<u8> {
    headers(END_HEADERS, stream, &POST)
}

/// An ordinary request with more fields.
fn with(more: &[(&str, &str)]) -> Vec<u8> {
    headers(ENDS, 1, &[&GET[..], more].concat())
}

/// The head of a request with these fields only.
fn only(fields: &[(&str, &str)]) -> Vec<u8> {
    headers(ENDS, 1, fields)
}

/// The pseudo fields of an ordinary request, one of them different.
fn but(name: &str, value: &str) -> Vec<u8> {
    let fields: Vec<_> = GET.iter().map(|field| if field.0 == name { (field.0, value) } else { *field }).collect();
    only(&fields)
}

/// The pseudo fields of an ordinary request without one of them.
fn without(name: &str) -> Vec<u8> {
    let fields: Vec<_> = GET.iter().filter(|field| field.0 != name).copied().collect();
    only(&fields)
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, by.to_be_bytes())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, 8_u32.to_be_bytes())
}

/// A request head with these bytes at the end of its block.
fn encoded(more: &[u8]) -> Vec<u8> {
    frame(HEADERS, ENDS, 1, [&block(&GET)[..], more].concat())
}

fn frames() -> Vec<Case> {
    let whole = block(&GET);
    let (half, rest) = whole.split_at(20);
    let opened = frame(HEADERS, END_STREAM, 1, half);
    let large = vec![b'x'; 16_384];
    vec![
        Case(
            "9113 4.1: a frame of unknown type is ignored",
            [frame(0x16, 0, 0, "????"), get(1)].concat(),
            Status(1, 200),
        ),
        Case(
            "9113 4.1: flags without meaning are ignored",
            frame(HEADERS, ENDS | 0x82, 1, block(&GET)),
            Status(1, 200),
        ),
        Case("9113 4.1: the reserved bit is ignored", frame(HEADERS, ENDS, 1 | 1 << 31, block(&GET)), Status(1, 200)),
        Case("9113 4.2: a frame as large as allowed", [post(1), frame(DATA, 1, 1, &large)].concat(), Status(1, 200)),
        Case(
            "9113 4.2: data larger than allowed",
            [post(1), frame(DATA, 1, 1, [&large[..], b"x"].concat())].concat(),
            GoAway(FRAME_SIZE_ERROR),
        ),
        Case(
            "9113 4.2: a head larger than allowed",
            frame(HEADERS, ENDS, 1, [&large[..], b"x"].concat()),
            GoAway(FRAME_SIZE_ERROR),
        ),
        Case(
            "9113 4.3: a block that is none",
            frame(HEADERS, ENDS, 1, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Uncompressible,
        ),
        Case("9113 4.3: a block that stops in a field", frame(HEADERS, ENDS, 1, &block(&GET)[..20]), Uncompressible),
        Case(
            "9113 4.3: a priority inside a block",
            [opened.clone(), frame(PRIORITY, 0, 1, [0; 5])].concat(),
            GoAway(PROTOCOL_ERROR),
        ),
        Case("9113 4.3: another head inside a block", [opened.clone(), get(3)].concat(), GoAway(PROTOCOL_ERROR)),
        Case(
            "9113 5.5: an unknown frame inside a block",
            [opened.clone(), frame(0x16, 0, 0, "")].concat(),
            GoAway(PROTOCOL_ERROR),
        ),
        Case(
            "9113 6.10: a block in pieces",
            [opened.clone(), frame(CONTINUATION, 0, 1, &rest[..3]), frame(CONTINUATION, END_HEADERS, 1, &rest[3..])]
                .concat(),
            Status(1, 200),
        ),
        Case(
            "9113 6.10: a block in empty pieces",
            [
                opened.clone(),
                frame(CONTINUATION, 0, 1, []),
                frame(CONTINUATION, 0, 1, rest),
                frame(CONTINUATION, END_HEADERS, 1, []),
            ]
            .concat(),
            Status(1, 200),
        ),
        Case(
            "9113 6.10: a piece without a beginning",
            frame(CONTINUATION, END_HEADERS, 1, &whole),
            GoAway(PROTOCOL_ERROR),
        ),
        Case(
            "9113 6.10: a piece behind the end",
            [get(1), frame(CONTINUATION, END_HEADERS, 1, &whole)].concat(),
            GoAway(PROTOCOL_ERROR),
        ),
        Case(
            "9113 6.10: a piece for another stream",
            [opened.clone(), frame(CONTINUATION, END_HEADERS, 3, rest)].concat(),
            GoAway(PROTOCOL_ERROR),
        ),
        Case(
            "9113 6.10: a piece for no stream",
            [opened.clone(), frame(CONTINUATION, END_HEADERS, 0, rest)].concat(),
            GoAway(PROTOCOL_ERROR),
        ),
        Case(
            "9113 6.10: data inside a block",
            [opened.clone(), frame(DATA, 1, 1, "x")].concat(),
            GoAway(PROTOCOL_ERROR),
        ),
        Case("9113 6.1: data for no stream", frame(DATA, 1, 0, "x"), GoAway(PROTOCOL_ERROR)),
        Case(
            "9113 6.1: more padding than data",
            [post(1), frame(DATA, PADDED | 1, 1, [6, b'x', 0, 0, 0])].concat(),
            GoAway(PROTOCOL_ERROR),
        ),
        Case(
            "9113 6.1: padding is no data",
            [post(1), frame(DATA, PADDED | 1, 1, [2, b'x', 0, 0])].concat(),
            Status(1, 200),
        ),
        Case("9113 6.2: a head for no stream", get(0), GoAway(PROTOCOL_ERROR)),
        Case(
            "9113 6.2: more padding than head",
            frame(HEADERS, ENDS | PADDED, 1, [&[255][..], &whole].concat()),
            GoAway(PROTOCOL_ERROR),
        ),
        Case(
            "9113 6.2: a head with padding and priority",
            frame(HEADERS, ENDS | PADDED | PRIORITIZED, 1, [&[2, 0, 0, 0, 0, 9][..], &whole, &[0, 0]].concat()),
            Status(1, 200),
        ),
        Case("9113 6.3: a priority for no stream", frame(PRIORITY, 0, 0, [0; 5]), GoAway(PROTOCOL_ERROR)),
        Case(
            "9113 6.3: a priority of the wrong size",
            [post(1), frame(PRIORITY, 0, 1, [0; 4])].concat(),
            ResetOrGoAway(1, FRAME_SIZE_ERROR),
        ),
        Case(
            "9113 6.3: a priority for an idle stream",
            [frame(PRIORITY, 0, 7, [0, 0, 0, 0, 16]), get(1)].concat(),
            Status(1, 200),
        ),
        Case(
            "7540 5.3.1: a stream that depends on itself",
            frame(HEADERS, ENDS | PRIORITIZED, 1, [&[0, 0, 0, 1, 9][..], &whole].concat()),
            ResetOrGoAway(1, PROTOCOL_ERROR),
        ),
        Case("9113 6.4: a reset for no stream", reset(0), GoAway(PROTOCOL_ERROR)),
        Case("9113 6.4: a reset for an idle stream", reset(1), GoAway(PROTOCOL_ERROR)),
        Case(
            "9113 6.4: a reset of the wrong size",
            [post(1), frame(RST_STREAM, 0, 1, [0; 3])].concat(),
            GoAway(FRAME_SIZE_ERROR),
        ),
        Case(
            "9113 6.5: an acknowledgement that says something",
            frame(SETTINGS, ACK, 0, [0; 6]),
            GoAway(FRAME_SIZE_ERROR),
        ),
        Case("9113 6.5: settings for a stream", frame(SETTINGS, 0, 1, [0; 6]), GoAway(PROTOCOL_ERROR)),
        Case("9113 6.5: settings of the wrong size", frame(SETTINGS, 0, 0, [0; 5]), GoAway(FRAME_SIZE_ERROR)),
        Case("9113 6.5.2: push that is neither on nor off", setting(2, 2), GoAway(PROTOCOL_ERROR)),
        Case("9113 6.5.2: a window beyond the largest", setting(4, 1 << 31), GoAway(FLOW_CONTROL_ERROR)),
        Case("9113 6.5.2: frames below the smallest", setting(5, 16_383), GoAway(PROTOCOL_ERROR)),
        Case("9113 6.5.2: frames beyond the largest", setting(5, 1 << 24), GoAway(PROTOCOL_ERROR)),
        Case("9113 6.5.2: an unknown setting is ignored", [setting(0xff, 1), get(1)].concat(), Status(1, 200)),
        Case("8441 3: leave to ask for protocols that is neither", setting(8, 2), GoAway(PROTOCOL_ERROR)),
        Case(
            "9113 6.6: a promise by a client",
            frame(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2][..], &whole].concat()),
            GoAway(PROTOCOL_ERROR),
        ),
        Case("9113 6.7: a ping of the wrong size", frame(PING, 0, 0, [0; 6]), GoAway(FRAME_SIZE_ERROR)),
        Case("9113 6.7: a ping for a stream", frame(PING, 0, 1, [0; 8]), GoAway(PROTOCOL_ERROR)),
        Case("9113 6.7: an answer to a ping that nobody sent", frame(PING, ACK, 0, [7; 8]), Nothing),
        Case("9113 6.8: a goodbye for a stream", frame(GOAWAY, 0, 1, [0; 8]), GoAway(PROTOCOL_ERROR)),
        Case("9113 6.9: a window that opens by nothing", window(0, 0), GoAway(PROTOCOL_ERROR)),
        Case(
            "9113 6.9: a stream's window that opens by nothing",
            [post(1), window(1, 0)].concat(),
            ResetOrGoAway(1, PROTOCOL_ERROR),
        ),
        Case("9113 6.9: a window of the wrong size", frame(WINDOW_UPDATE, 0, 0, [0; 3]), GoAway(FRAME_SIZE_ERROR)),
        Case("9113 6.9: a window of an idle stream", window(1, 1), GoAway(PROTOCOL_ERROR)),
        Case(
            "9113 6.9.1: the connection's window beyond the largest",
            [window(0, i32::MAX as u32), window(0, i32::MAX as u32)].concat(),
            GoAway(FLOW_CONTROL_ERROR),
        ),
        Case(
            "9113 6.9.1: a stream's window beyond the largest",
            [post(1), window(1, i32::MAX as u32)].concat(),
            ResetOrGoAway(1, FLOW_CONTROL_ERROR),
        ),
        Case(
            "9113 6.9.1: more data than the window lets through",
            [vec![post(1)], vec![frame(DATA, 0, 1, &large); 5]].concat().concat(),
            ResetOrGoAway(1, FLOW_CONTROL_ERROR),
        ),
        Case(
            "9113 6.9.2: settings that overflow a window",
            [post(1), window(1, 1 << 20), setting(4, i32::MAX as u32)].concat(),
            GoAway(FLOW_CONTROL_ERROR),
        ),
        Case(
            "9113 7: an unknown code resets a stream all the same",
            [post(1), frame(RST_STREAM, 0, 1, [0, 0, 0, 0xff]), get(3)].concat(),
            Status(3, 200),
        ),
    ]
}

fn streams() -> Vec<Case> {
    let answered = |more: Vec<u8>| [get(1), more].concat();
    let trailing = |fields: &[(&str, &str)]| [post(1), frame(DATA, 0, 1, "x"), headers(ENDS, 1, fields)].concat();
    let malformed = ResetOrGoAway(1, PROTOCOL_ERROR);
    vec![
        Case("9113 5.1: data on an idle stream", frame(DATA, 1, 1, "x"), GoAway(PROTOCOL_ERROR)),
        Case("9113 5.1: data behind the end", answered(frame(DATA, 1, 1, "x")), GoAway(STREAM_CLOSED)),
        Case("9113 5.1: a head behind the end", answered(get(1)), GoAway(STREAM_CLOSED)),
        Case(
            "9113 5.1: data behind a reset",
            [post(1), reset(1), frame(DATA, 1, 1, "x")].concat(),
            GoAway(STREAM_CLOSED),
        ),
        Case("9113 5.1: a head behind a reset", [post(1), reset(1), get(1)].concat(), GoAway(STREAM_CLOSED)),
        Case(
            "9113 5.1: data behind a whole exchange",
            [post(1), frame(DATA, 1, 1, "x"), frame(DATA, 1, 1, "x")].concat(),
            GoAway(STREAM_CLOSED),
        ),
        Case(
            "9113 5.1: trailers behind a reset",
            [post(1), reset(1), headers(ENDS, 1, &[("x", "1")])].concat(),
            GoAway(STREAM_CLOSED),
        ),
        Case("9113 5.1: a window behind the end", answered([window(1, 1), get(3)].concat()), Status(3, 200)),
        Case(
            "9113 5.1: a priority behind the end",
            answered([frame(PRIORITY, 0, 1, [0, 0, 0, 0, 16]), get(3)].concat()),
            Status(3, 200),
        ),
        Case("9113 5.1: a reset behind the end", answered([reset(1), get(3)].concat()), Status(3, 200)),
        Case("9113 5.1.1: an even number", get(2), GoAway(PROTOCOL_ERROR)),
        Case("9113 5.1.1: a number below the last", [get(5), get(3)].concat(), GoAway(PROTOCOL_ERROR)),
        Case(
            "9113 5.1.2: more streams than allowed",
            (0..129).flat_map(|n| post(2 * n + 1)).collect(),
            ResetOrGoAway(257, REFUSED_STREAM),
        ),
        Case(
            "9113 8.1: a second head that does not end it",
            [post(1), post(1)].concat(),
            ResetOrGoAway(1, PROTOCOL_ERROR),
        ),
        Case(
            "9113 8.1: a pseudo field in trailers",
            [post(1), frame(DATA, 0, 1, "x"), headers(ENDS, 1, &[(":path", "/")])].concat(),
            ResetOrGoAway(1, PROTOCOL_ERROR),
        ),
        Case(
            "9113 8.1: an indexed pseudo field in trailers",
            [post(1), frame(DATA, 0, 1, "x"), frame(HEADERS, ENDS, 1, [0x83])].concat(),
            ResetOrGoAway(1, PROTOCOL_ERROR),
        ),
        Case(
            "9113 8.1: trailers end a request",
            [post(1), frame(DATA, 0, 1, "x"), headers(ENDS, 1, &[("x-sum", "1")])].concat(),
            Status(1, 200),
        ),
        Case("9113 8.1: trailers with a name in upper case", trailing(&[("X-Sum", "1")]), malformed),
        Case("9113 8.1: trailers with a line break in a value", trailing(&[("x-sum", "1\r\nx: y")]), malformed),
        Case("9113 8.1: trailers with a value that begins with a space", trailing(&[("x-sum", " 1")]), malformed),
        Case("9113 8.1: trailers with Connection", trailing(&[("connection", "close")]), malformed),
        Case("9113 8.1: trailers with Transfer-Encoding", trailing(&[("transfer-encoding", "chunked")]), malformed),
        Case("9110 6.5.1: trailers with a length", trailing(&[("content-length", "1")]), Refused),
        Case("9110 6.5.1: trailers with a host", trailing(&[("host", "other.test")]), Refused),
        Case("9110 6.5.1: trailers with who asks", trailing(&[("x-forwarded-for", "10.0.0.1")]), Refused),
        Case("9110 6.5.1: trailers with a cookie", trailing(&[("cookie", "a=b")]), Refused),
        Case(
            "9113 8.1.1: trailers before all that was announced",
            [
                headers(END_HEADERS, 1, &[&POST[..], &[("content-length", "2")]].concat()),
                frame(DATA, 0, 1, "x"),
                headers(ENDS, 1, &[("x-sum", "1")]),
            ]
            .concat(),
            malformed,
        ),
        Case(
            "9113 8.1.1: as much data as announced, in pieces and padded",
            [
                headers(END_HEADERS, 1, &[&POST[..], &[("content-length", "2")]].concat()),
                frame(DATA, PADDED, 1, [3, b'x', 0, 0, 0]),
                frame(DATA, PADDED | 1, 1, [1, b'y', 0]),
            ]
            .concat(),
            Status(1, 200),
        ),
        Case(
            "9113 8.1.1: data where a length of nothing was announced",
            [headers(END_HEADERS, 1, &[&POST[..], &[("content-length", "0")]].concat()), frame(DATA, 1, 1, "x")]
                .concat(),
            malformed,
        ),
        Case(
            "9113 8.1.1: no data where none was announced",
            [headers(END_HEADERS, 1, &[&POST[..], &[("content-length", "0")]].concat()), frame(DATA, 1, 1, [])]
                .concat(),
            Status(1, 200),
        ),
        Case(
            "9113 8.1.1: less data than announced",
            [headers(END_HEADERS, 1, &[&POST[..], &[("content-length", "2")]].concat()), frame(DATA, 1, 1, "x")]
                .concat(),
            ResetOrGoAway(1, PROTOCOL_ERROR),
        ),
        Case(
            "9113 8.1.1: more data than announced",
            [headers(END_HEADERS, 1, &[&POST[..], &[("content-length", "2")]].concat()), frame(DATA, 1, 1, "xxx")]
                .concat(),
            ResetOrGoAway(1, PROTOCOL_ERROR),
        ),
        Case(
            "9113 8.1.1: more data than announced, in pieces",
            [
                headers(END_HEADERS, 1, &[&POST[..], &[("content-length", "2")]].concat()),
                frame(DATA, 0, 1, "xx"),
                frame(DATA, 1, 1, "x"),
            ]
            .concat(),
            ResetOrGoAway(1, PROTOCOL_ERROR),
        ),
        Case(
            "9113 8.1.1: no data where some was announced",
            with(&[("content-length", "2")]),
            ResetOrGoAway(1, PROTOCOL_ERROR),
        ),
    ]
}

fn fields() -> Vec<Case> {
    let malformed = ResetOrGoAway(1, PROTOCOL_ERROR);
    let refused = Status(1, 400);
    vec![
        Case("9113 8.2: a name in upper case", with(&[("X-Loud", "1")]), malformed),
        Case("9113 8.2.1: an empty name", with(&[("", "1")]), malformed),
        Case("9113 8.2.1: a name with a space", with(&[("x y", "1")]), malformed),
        Case("9113 8.2.1: a name with a colon inside", with(&[("x:y", "1")]), malformed),
        Case("9113 8.2.1: a name with a line break", with(&[("x\r\ny", "1")]), malformed),
        Case("9113 8.2.1: a name beyond ASCII", with(&[("x\u{e9}", "1")]), malformed),
        Case("9113 8.2.1: a value with CR LF", with(&[("x", "1\r\nHost: other.test")]), malformed),
        Case("9113 8.2.1: a value with LF", with(&[("x", "1\nHost: other.test")]), malformed),
        Case("9113 8.2.1: a value with CR", with(&[("x", "1\r")]), malformed),
        Case("9113 8.2.1: a value with NUL", with(&[("x", "1\0")]), malformed),
        Case("9113 8.2.1: a value that begins with a space", with(&[("x", " 1")]), refused),
        Case("9113 8.2.1: a value that ends with a tab", with(&[("x", "1\t")]), refused),
        Case("9113 8.2.2: Connection", with(&[("connection", "keep-alive")]), malformed),
        Case("9113 8.2.2: Keep-Alive", with(&[("keep-alive", "5")]), malformed),
        Case("9113 8.2.2: Proxy-Connection", with(&[("proxy-connection", "close")]), malformed),
        Case("9113 8.2.2: Transfer-Encoding", with(&[("transfer-encoding", "chunked")]), malformed),
        Case("9113 8.2.2: Upgrade", with(&[("upgrade", "websocket")]), malformed),
        Case("9113 8.2.2: TE that wants more than trailers", with(&[("te", "trailers, gzip")]), malformed),
        Case("9113 8.2.2: TE that wants trailers", with(&[("te", "trailers")]), Status(1, 200)),
        Case("9113 8.2.2: TE that wants nothing", with(&[("te", "")]), malformed),
        Case("9113 8.2.2: TE twice, once for more", with(&[("te", "trailers"), ("te", "gzip")]), malformed),
        Case("9113 8.2.1: an empty value", with(&[("x", "")]), Status(1, 200)),
        Case("9113 8.2.1: a value with DEL", with(&[("x", "1\u{7f}")]), malformed),
        Case("9113 8.2.1: a value with a control byte", with(&[("x", "1\u{1}")]), malformed),
        Case("9113 8.2.1: a value beyond ASCII", with(&[("x", "\u{e9}")]), Status(1, 200)),
        Case("9113 8.2.1: a name with DEL", with(&[("x\u{7f}", "1")]), malformed),
        Case("9110 10.1.1: an expectation of something else", with(&[("expect", "200-ok")]), Status(1, 417)),
        Case("9113 8.3: an unknown pseudo field", with(&[(":x", "1")]), malformed),
        Case("9113 8.3: a pseudo field of responses", only(&[&GET[..], &[(":status", "200")]].concat()), malformed),
        Case("9113 8.3: a pseudo field behind others", only(&[&GET[..3], &[("x", "1"), GET[3]]].concat()), malformed),
        Case("9113 8.3.1: two methods", only(&[&GET[..], &[GET[0]]].concat()), malformed),
        Case("9113 8.3.1: two schemes", only(&[&GET[..], &[GET[1]]].concat()), malformed),
        Case("9113 8.3.1: two authorities", only(&[&GET[..], &[GET[2]]].concat()), malformed),
        Case("9113 8.3.1: two paths", only(&[&GET[..], &[GET[3]]].concat()), malformed),
        Case("9113 8.3.1: no method", without(":method"), malformed),
        Case("9113 8.3.1: no scheme", without(":scheme"), malformed),
        Case("9113 8.3.1: no path", without(":path"), malformed),
        Case("9113 8.3.1: neither path nor authority", only(&[GET[0], GET[1], ("host", "shop.test")]), refused),
        Case("9113 8.3.1: an empty path", but(":path", ""), malformed),
        Case("9113 8.3.1: a path without a slash", but(":path", "cart"), Refused),
        Case("9113 8.3.1: an absolute target as path", but(":path", "http://other.test/"), Refused),
        Case("9113 8.3.1: two slashes are a path", but(":path", "//other.test/"), Status(1, 200)),
        Case("9113 8.3.1: a query for a path", but(":path", "?a"), Refused),
        Case("9113 8.3.1: a path with a tab", but(":path", "/\ta"), malformed),
        Case("9113 8.3.1: a path with DEL", but(":path", "/\u{7f}"), Refused),
        Case("9113 8.3.1: a path beyond ASCII", but(":path", "/\u{e9}"), Refused),
        Case("9113 8.3.1: a path with a space", but(":path", "/ HTTP/1.1"), malformed),
        Case("9113 8.3.1: a path with CR LF", but(":path", "/ HTTP/1.1\r\nHost: other.test\r\n\r\n"), malformed),
        Case("9113 8.3.1: a path with NUL", but(":path", "/\0"), malformed),
        Case("9113 8.3.1: a method with a space", but(":method", "GET /admin"), malformed),
        Case("9113 8.3.1: a method with CR LF", but(":method", "GET / HTTP/1.1\r\nx:"), malformed),
        Case("9113 8.3.1: a method in lower case is another method", but(":method", "get"), Status(1, 200)),
        Case("9113 8.3.1: an empty method", but(":method", ""), malformed),
        Case("9113 8.3.1: a scheme with a line break", but(":scheme", "http\r\nx: y"), malformed),
        Case("9113 8.3.1: an empty scheme", but(":scheme", ""), Refused),
        Case("9113 8.3.1: the scheme of whoever ends TLS before us", but(":scheme", "https"), Status(1, 200)),
        Case(
            "9113 8.3.1: an authority in other letters, with a port",
            but(":authority", "SHOP.test:80"),
            Status(1, 200),
        ),
        Case("9113 8.3.1: an authority with a port beyond all ports", but(":authority", "shop.test:65536"), Refused),
        Case("9113 8.3.1: an authority with a port of letters", but(":authority", "shop.test:http"), Refused),
        Case("9113 8.3.1: an authority with an escape", but(":authority", "shop%2etest"), Refused),
        Case("9113 8.3.1: a list of authorities", but(":authority", "shop.test,other.test"), Refused),
        Case("9113 8.3.1: half an address as authority", but(":authority", "[::1"), Refused),
        Case("9113 8.3.1: an authority with a space", but(":authority", "shop.test other"), malformed),
        Case("9113 8.3.1: an authority with CR LF", but(":authority", "shop.test\r\nx: y"), malformed),
        Case("9113 8.3.1: an authority with a path", but(":authority", "shop.test/x"), malformed),
        Case("9113 8.3.1: an authority with a user", but(":authority", "me@shop.test"), refused),
        Case("9113 8.3.1: an empty authority", but(":authority", ""), Refused),
        Case("9113 8.3.1: Host that repeats the authority", with(&[("host", "shop.test")]), Status(1, 200)),
        Case("9113 8.3.1: Host that repeats it in other letters", with(&[("host", "Shop.TEST")]), Status(1, 200)),
        Case("9113 8.3.1: Host that repeats it with a port", with(&[("host", "shop.test:80")]), refused),
        Case("9113 8.3.1: Host that repeats it and more", with(&[("host", "shop.test,other.test")]), refused),
        Case("9113 8.3.1: an empty Host", with(&[("host", "")]), refused),
        Case("9113 8.3.1: Host and an authority that differ", with(&[("host", "other.test")]), refused),
        Case("9113 8.3.1: Host twice", with(&[("host", "shop.test"), ("host", "other.test")]), refused),
        Case(
            "9113 8.3.1: Host instead of an authority",
            only(&[GET[0], GET[1], GET[3], ("host", "shop.test")]),
            Status(1, 200),
        ),
        Case("9113 8.3.1: neither", without(":authority"), refused),
        Case("9113 8.3.1: * for something else than OPTIONS", but(":path", "*"), refused),
        Case(
            "9112 3.2.4: * for OPTIONS",
            only(&[(":method", "OPTIONS"), GET[1], GET[2], (":path", "*")]),
            Status(1, 200),
        ),
        Case("9113 8.5: CONNECT without an authority", only(&[(":method", "CONNECT")]), Refused),
        Case(
            "9113 8.5: CONNECT with a scheme",
            only(&[(":method", "CONNECT"), (":scheme", "http"), (":authority", "shop.test:443")]),
            malformed,
        ),
        Case("9113 8.5: CONNECT without a port", only(&[(":method", "CONNECT"), (":authority", "shop.test")]), Refused),
        Case(
            "9113 8.5: CONNECT with a user",
            only(&[(":method", "CONNECT"), (":authority", "me@shop.test:443")]),
            Refused,
        ),
        Case("9113 8.5: CONNECT", only(&[(":method", "CONNECT"), (":authority", "shop.test:443")]), Status(1, 405)),
        Case(
            "9113 8.5: CONNECT with a path",
            only(&[(":method", "CONNECT"), (":authority", "shop.test:443"), (":path", "/")]),
            malformed,
        ),
        Case(
            "8441 4: a protocol without CONNECT",
            only(&[&GET[..], &[(":protocol", "websocket")]].concat()),
            malformed,
        ),
        Case(
            "8441 4: a protocol without a path",
            only(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":authority", "shop.test"),
            ]),
            malformed,
        ),
        Case("9112 6.2: a length that is no number", with(&[("content-length", "1x")]), Refused),
        Case("9112 6.2: a length with a sign", with(&[("content-length", "+0")]), Refused),
        Case("9112 6.2: two lengths", with(&[("content-length", "0"), ("content-length", "1")]), Refused),
        Case("9112 6.2: no length", with(&[("content-length", "")]), Refused),
        Case("9112 6.2: a length of 2^64", with(&[("content-length", "18446744073709551616")]), Refused),
        Case("9112 6.2: a hexadecimal length", with(&[("content-length", "0x0")]), Refused),
        Case("9112 6.2: the same length twice", with(&[("content-length", "0"), ("content-length", "0")]), Refused),
        Case("9112 6.2: two lengths in one", with(&[("content-length", "0, 0")]), Refused),
        Case("9113 8.2.3: cookies in crumbs", with(&[("cookie", "a=1"), ("cookie", "b=2")]), Status(1, 200)),
    ]
}

/// A request with `x-test: test`, the value encoded so.
fn test(value: &[u8]) -> Vec<u8> {
    encoded(&[&[0x00, 0x06][..], b"x-test", value].concat())
}

fn compression() -> Vec<Case> {
    vec![
        Case("7541 2.3.3: an index beyond the tables", encoded(&[0xff, 0x00]), Uncompressible),
        Case("7541 2.3.3: a name's index beyond the tables", encoded(&[0x7f, 0x00, 0x01, b'1']), Uncompressible),
        Case("7541 4.2: a table size in the middle of a block", encoded(&[0x20]), Uncompressible),
        Case(
            "7541 5.1: a number without an end",
            encoded(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            Uncompressible,
        ),
        Case("7541 5.2: a string longer than its block", encoded(&[0x00, 0x7f, 0x7f, b'x']), Uncompressible),
        Case("7541 5.2: Huffman coding", test(&[0x83, 0x49, 0x50, 0x9f]), Status(1, 200)),
        Case(
            "7541 5.2: Huffman padding of more than seven bits",
            test(&[0x84, 0x49, 0x50, 0x9f, 0xff]),
            Uncompressible,
        ),
        Case("7541 5.2: Huffman padding of zeros", test(&[0x83, 0x49, 0x50, 0x90]), Uncompressible),
        Case(
            "7541 5.2: the end of strings within one",
            test(&[0x87, 0x49, 0x50, 0x9f, 0xff, 0xff, 0xff, 0xff]),
            Uncompressible,
        ),
        Case("7541 6.1: index 0", encoded(&[0x80]), Uncompressible),
        Case(
            "7541 6.3: a table larger than allowed",
            frame(HEADERS, ENDS, 1, [&[0x3f, 0xe2, 0x1f][..], &block(&GET)].concat()),
            Uncompressible,
        ),
        Case(
            "7541 6.3: a table of no size",
            frame(HEADERS, ENDS, 1, [&[0x20][..], &block(&GET)].concat()),
            Status(1, 200),
        ),
    ]
}

/// Pings that a router may answer before it does what it must: its tasks take turns with them.
const ROUNDS: u8 = 20;

/// Plays a case; says what was wrong.
async fn play(router: &Router, Case(title, sent, expected): &Case) -> Result<(), String> {
    let mut raw = Raw::connect(router.address()).await;
    raw.send(sent).await;
    raw.send(frame(PING, 0, 0, [0; 8])).await;
    let (mut alive, mut came) = (false, matches!(expected, Nothing));
    let mut answered = None;
    while !(alive && came) {
        let Some(frame) = in_time(title, raw.frame()).await else {
            return Err(format!("{title}: the connection ended"));
        };
        match (frame.kind, *expected) {
            (PING, _) if frame.payload[..7] == [0; 7] => {
                alive = true;
                let round = frame.payload[7];
                if round == ROUNDS && !came && !matches!(expected, Status(..) | Refused) {
                    return Err(format!("{title}: nothing came of it, but {answered:?}"));
                }
                raw.send(self::frame(PING, 0, 0, [0, 0, 0, 0, 0, 0, 0, (round + 1).min(ROUNDS)])).await;
            }
            (GOAWAY, GoAway(code) | ResetOrGoAway(_, code)) if frame.word(4) == code => return ended(raw, title).await,
            (GOAWAY, Uncompressible) if [PROTOCOL_ERROR, COMPRESSION_ERROR].contains(&frame.word(4)) => {
                return ended(raw, title).await;
            }
            (RST_STREAM, ResetOrGoAway(stream, code)) if (frame.stream, frame.word(0)) == (stream, code) => came = true,
            (RST_STREAM, Refused) if frame.word(0) == PROTOCOL_ERROR => came = true,
            (HEADERS, Refused) if frame.status() == 400 => came = true,
            (HEADERS, Status(stream, status)) if (frame.stream, frame.status()) == (stream, status) => came = true,
            (HEADERS, Status(stream, _)) if frame.stream == stream => {
                return Err(format!("{title}: answered {}", frame.status()));
            }
            (HEADERS, Refused) => return Err(format!("{title}: answered {}", frame.status())),
            (HEADERS, _) => answered = Some(frame.status()),
            (GOAWAY, _) => return Err(format!("{title}: goodbye, code {}", frame.word(4))),
            (RST_STREAM, _) if !came => {
                return Err(format!("{title}: reset of {}, code {}", frame.stream, frame.word(0)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Behind a goodbye for a reason the connection ends.
async fn ended(mut raw: Raw, title: &str) -> Result<(), String> {
    while in_time(title, raw.frame()).await.is_some() {}
    Ok(())
}

async fn all(cases: Vec<Case>) {
    let bus = bus::embedded().await;
    let shop: Instance = instance::serving("shop.test").answering(answer::status(200, "hello")).on(&bus).await;
    let router = router_for(&bus, "").await;
    let mut wrong = Vec::new();
    for case in &cases {
        let before = shop.answered();
        if let Err(what) = play(&router, case).await {
            wrong.push(what);
        }
        if matches!(case.2, Refused | Status(_, 400..)) && shop.answered() > before {
            wrong.push(format!("{}: reached the instance", case.0));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test]
async fn frames_keep_the_rules() {
    all(frames()).await;
}

#[tokio::test]
async fn streams_keep_the_rules() {
    all(streams()).await;
}

#[tokio::test]
async fn fields_keep_the_rules_and_nothing_is_smuggled() {
    all(fields()).await;
}

#[tokio::test]
async fn compression_keeps_the_rules() {
    all(compression()).await;
}

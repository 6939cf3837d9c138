//! Attacks what the proxy changes in heads: whatever a client or an instance says, framing and host stay what they were,
//! and what only the router may say is said by it alone.

use std::sync::OnceLock;
use std::time::Duration;

use weighbridge::config::Config;
use weighbridge::http1::{Head, Limits, Method, Name, Progress, framing, parse, write};
use weighbridge::proxy::headers::{ClientFacts, interim_towards_client, towards_client, towards_instances};
use weighbridge::proxy::pages::Pages;
use weighbridge::proxy::settings::Settings;

/// See `tests/fuzz/main.rs`. Whatever begins with `HTTP/` is a response.
pub const TARGET: super::Target = super::Target {
    name: "head_rewriting",
    seeds: &[
        b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: X-Forwarded-For, keep-alive\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade, content-length\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nX-Forwarded-Proto: https\r\nForwarded: for=\"[::1]\"\r\nExpect: 100-continue\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nX-CF-InstanceID: x\r\nX-Vcap-Request-Id: y\r\nTraceparent: 00-0-0-0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: Set-Cookie\r\nX-Vcap-Request-Id: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nKeep-Alive: 5\r\n\r\n",
    ],
    dictionary: &[
        b"Connection: ",
        b"X-Forwarded-For: ",
        b"X-Forwarded-Proto: ",
        b"X-Forwarded-Host: ",
        b"X-Forwarded-Client-Cert: x\r\n",
        b"Forwarded: for=",
        b"X-Vcap-Request-Id: ",
        b"X-CF-InstanceID: x\r\n",
        b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
        b"b3: ",
        b"TE: trailers\r\n",
        b"Upgrade: h2c\r\n",
        b"Keep-Alive: 5\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n",
        b", ",
        b"close",
        b"host",
    ],
    check,
};

const ID: &[u8; 36] = b"00000000-0000-4000-8000-000000000000";

fn settings() -> &'static [Settings; 3] {
    static SETTINGS: OnceLock<[Settings; 3]> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        [
            "",
            "http.trusted_proxies = [\"192.0.2.0/24\"]\nforwarded.rfc7239 = true\ntracing.b3 = true",
            "http.trusted_proxies = [\"10.0.0.0/8\"]\nforwarded = { proto = \"keep\", rfc7239 = true, protect = [\"x-mine\"] }\n\
             rewrite = { remove_response_headers = [\"Server\"], add_response_headers = { \"X-Frame-Options\" = \"DENY\" } }",
        ]
        .map(|text| Settings::of(&Config::from_toml(text).expect("the settings of a target are valid"), Pages::default()))
    })
}

/// Panics when a promise is broken.
pub fn check(input: &[u8]) -> super::Ending {
    let ending = settings().each_ref().map(|settings| match input.starts_with(b"HTTP/") {
        true => check_response(input, settings),
        false => check_request(input, settings),
    });
    ending[0]
}

fn check_request(input: &[u8], settings: &Settings) -> super::Ending {
    let mut head = Head::new();
    let Ok(Progress::Complete(_)) = parse::request(input, &Limits::default(), &mut head) else { return "no head" };
    let Ok(framed) = framing::of_request(&head) else { return "no framing" };
    if head.destination().is_none_or(|to| to.host.is_empty()) {
        return "no host"; // it is not routed
    }
    let before = head.clone();
    let facts = ClientFacts {
        address: [10, 0, 0, 9].into(),
        address_text: "10.0.0.9",
        secure: false,
        certificate: None,
        request_id: *ID,
        span: 1,
        unix_millis: 1_700_000_000_123,
    };
    if let Err(refusal) = towards_instances(&mut head, &facts, settings) {
        return refusal.label();
    }
    let mut out = Vec::new();
    write::request(&head, &mut out);
    let mut after = Head::new();
    let limits = Limits { head_bytes: 1 << 20, head_count: 512, ..Limits::default() };
    assert_eq!(
        parse::request(&out, &limits, &mut after),
        Ok(Progress::Complete(out.len())),
        "what we write is a request"
    );
    assert_eq!(framing::of_request(&after), Ok(framed), "its body ends where it did");
    assert_eq!((after.method(), after.target()), (before.method(), before.target()));
    assert_eq!(after.destination(), before.destination());
    assert!(after.has(Name::Host));
    assert!(after.values(Name::XVcapRequestId).eq([ID.as_slice()]), "the id is ours alone");
    let protos: Vec<_> = after.values(Name::XForwardedProto).collect();
    assert!(matches!(protos[..], [b"http" | b"https"]), "{protos:?}");
    let chain = after.value(Name::XForwardedFor).expect("it is always told");
    assert!(chain.ends_with(b"10.0.0.9") && !after.repeats(Name::XForwardedFor));
    let strangers = !settings.trusted_proxies.is_empty() && !settings.trusts(facts.address);
    assert!(!strangers || chain == b"10.0.0.9", "strangers are not believed");
    for name in [Name::KeepAlive, Name::ProxyConnection, Name::Http2Settings, Name::XForwardedClientCert] {
        assert!(!after.has(name), "{name:?} ends here");
    }
    for name in [Name::XCfApplicationId, Name::XCfInstanceId, Name::XCfInstanceIndex] {
        assert!(!after.has(name), "{name:?} is ours to say");
    }
    match after.value(Name::Connection) {
        None => "plain",
        Some(b"TE") => "trailers",
        Some(b"Upgrade" | b"TE, Upgrade") => {
            assert!(!after.lists(Name::Upgrade, "h2c"));
            "upgrade"
        }
        Some(other) => panic!("Connection: {:?}", String::from_utf8_lossy(other)),
    }
}

fn check_response(input: &[u8], settings: &Settings) -> super::Ending {
    let mut head = Head::new();
    let Ok(Progress::Complete(_)) = parse::response(input, &Limits::default(), &mut head) else { return "no response" };
    let Ok(framed) = framing::of_response(&head, Method::Get) else { return "no framing of a response" };
    let is_interim = head.status() < 200 && head.status() != 101;
    let changed = match is_interim {
        true => interim_towards_client(&mut head, settings),
        false => towards_client(&mut head, ID, Duration::from_secs(784_111_777), settings),
    };
    if let Err(refusal) = changed {
        return refusal.label();
    }
    let mut out = Vec::new();
    write::response(&head, &mut out);
    let mut after = Head::new();
    let limits = Limits { head_bytes: 1 << 20, head_count: 512, ..Limits::default() };
    assert_eq!(
        parse::response(&out, &limits, &mut after),
        Ok(Progress::Complete(out.len())),
        "what we write is a response"
    );
    // An instance of HTTP/1.0 cannot have sent chunks, so the framing means the same in ours.
    assert_eq!(framing::of_response(&after, Method::Get), Ok(framed), "its body ends where it did");
    assert!(is_interim || after.values(Name::XVcapRequestId).eq([ID.as_slice()]), "the id is ours alone");
    assert!(!after.has(Name::KeepAlive) && !after.has(Name::ProxyConnection));
    assert!(after.status() >= 200 || !after.has(Name::ContentLength));
    match (is_interim, after.value(Name::Connection)) {
        (true, None) => "interim",
        (false, None) => "final",
        (false, Some(b"Upgrade")) => "switched",
        (_, Some(other)) => panic!("Connection: {:?}", String::from_utf8_lossy(other)),
    }
}

//! Clients: which certificate they get, what they must show, what instances learn of it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ProtocolVersion;

use super::*;
use crate::harness::answer::{self, Answer, Step};
use crate::harness::in_time;
use crate::harness::message::Stream;
use crate::harness::tls::TlsClient;

/// The certificate that a client gets which asks for `name`.
async fn check_shown(router: &Router, speaker: &Speaker, name: &str, expected: &Pair) {
    let connected = speaker.connect(router.tls_address(), name).await;
    let (_, agreed) = connected.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(agreed.certificate == expected.certificate, "{name} got another certificate than {:?}", expected.cert);
}

#[tokio::test]
async fn the_name_asked_for_chooses_the_certificate() {
    let authority = Authority::new();
    let first = authority.issue("first", &["first.test", "other.test"]);
    let wild = authority.issue("wild", &["*.wild.test"]);
    let exact = authority.issue("exact", &["www.wild.test"]);
    let (router, _shop, _bus) = shop(&https(&[&first, &wild, &exact], "")).await;
    for (name, expected) in [("first.test", &first), ("a.wild.test", &wild), ("www.wild.test", &exact)] {
        check_shown(&router, &authority.client().ready(), name, expected).await;
    }
    // The first is for those who ask for nobody we know; this client then finds that it is not who it asked for.
    let refused = authority.client().connect(router.tls_address(), "unknown.test").await;
    let error = refused.err().expect("a certificate for somebody else").to_string();
    assert!(error.contains("first.test"), "{error}");
}

#[tokio::test]
async fn a_client_that_only_knows_rsa_gets_the_rsa_certificate_of_the_same_name() {
    let authority = Authority::new();
    let (ecdsa, rsa) =
        (authority.issue("ecdsa", &["shop.test"]), authority.issue_rsa("rsa", &["shop.test", "*.rsa.test"]));
    let (router, _shop, _bus) = shop(&https(&[&ecdsa, &rsa], "")).await;
    check_shown(&router, &authority.client().ready(), "shop.test", &ecdsa).await;
    check_shown(&router, &authority.client().only_rsa().ready(), "shop.test", &rsa).await;
    check_shown(&router, &authority.client().only_rsa().only_tls12().ready(), "shop.test", &rsa).await;
    check_shown(&router, &authority.client().only_tls12().ready(), "a.rsa.test", &rsa).await;
}

#[tokio::test]
async fn both_versions_are_spoken_unless_the_older_one_is_ruled_out() {
    let authority = Authority::new();
    let pair = authority.issue("shop", &["shop.test"]);
    let (both, ..) = shop(&https(&[&pair], "")).await;
    let (newer, ..) = shop(&https(&[&pair], "min_tls = \"1.3\"")).await;
    let version = async |router: &Router, speaker: Speaker| {
        let agreed = speaker.connect(router.tls_address(), "shop.test").await;
        agreed.ok().map(|(_, agreed)| (agreed.version, agreed.alpn))
    };
    let http1 = || Some(b"http/1.1".to_vec());
    let (old, new) = (|| authority.client().only_tls12().ready(), || authority.client().ready());
    assert_eq!(version(&both, old()).await, Some((ProtocolVersion::TLSv1_2, http1())));
    assert_eq!(version(&both, new()).await, Some((ProtocolVersion::TLSv1_3, http1())));
    assert_eq!(version(&newer, new()).await, Some((ProtocolVersion::TLSv1_3, http1())));
    assert_eq!(version(&newer, old()).await, None);
    newer.until_metric("weighbridge_tls_handshakes_failed_total{reason=\"incompatible\"}", |count| count == 1.0).await;
}

#[tokio::test]
async fn sessions_go_on_whichever_worker_takes_the_connection() {
    let authority = Authority::new();
    let (router, _shop, _bus) =
        shop(&format!("workers = 4\n{}", https(&[&authority.issue("shop", &["shop.test"])], ""))).await;
    for speaker in [authority.client().only_tls12().ready(), authority.client().only_tls13().ready()] {
        for nth in 0..12 {
            let (stream, agreed) = speaker.connect(router.tls_address(), "shop.test").await.expect("a connection");
            assert_eq!(agreed.resumed, nth > 0, "connection {nth} over {:?}", agreed.version);
            // With TLS 1.3 the ticket comes with the first bytes.
            assert_eq!(Client::over(stream).send(router.get("shop.test/")).await.status(), 200);
        }
    }
}

#[tokio::test]
async fn instances_learn_that_the_client_came_over_tls() {
    let authority = Authority::new();
    let (router, instance, _bus) = shop(&https(&[&authority.issue("shop", &["shop.test"])], "")).await;
    assert_eq!(get(&router, &authority.client().ready()).await.expect("a response").status(), 200);
    assert_eq!(instance.last().header("x-forwarded-proto"), Some("https"));
    assert_eq!(router.get("shop.test/").await.status(), 200);
    assert_eq!(instance.last().header("x-forwarded-proto"), Some("http"));
}

#[tokio::test]
async fn a_client_must_show_a_good_certificate_where_one_is_required() {
    let (authority, others) = (Authority::new(), Authority::new());
    let pair = authority.issue("shop", &["shop.test"]);
    let more = format!("client_certificates = \"require\"\nclient_ca = {:?}", authority.ca());
    let (router, instance, _bus) = shop(&https(&[&pair], &more)).await;
    let good = authority.issue("client", &["client.test"]);
    let (stranger, expired) =
        (others.issue("client", &["client.test"]), authority.issue_expired("old", &["client.test"]));
    for old in [false, true] {
        let client = || if old { authority.client().only_tls12() } else { authority.client() };
        let response = get(&router, &client().showing(&good).ready()).await.expect("a response");
        assert_eq!(response.status(), 200);
        let shown = instance.last().header("x-forwarded-client-cert").map(str::to_owned);
        assert_eq!(shown.expect("it is told"), STANDARD.encode(&good.certificate));
        assert!(get(&router, &client().ready()).await.is_err());
        assert!(get(&router, &client().showing(&stranger).ready()).await.is_err());
        assert!(get(&router, &client().showing(&expired).ready()).await.is_err());
    }
    let failed = |reason: &str| format!("weighbridge_tls_handshakes_failed_total{{reason=\"{reason}\"}}");
    router.until_metric(&failed("no_client_certificate"), |count| count == 2.0).await;
    router.until_metric(&failed("bad_client_certificate"), |count| count == 4.0).await;
    assert_eq!(instance.begun(), 2);
}

#[tokio::test]
async fn a_certificate_that_is_only_asked_for_may_be_missing_and_cannot_be_claimed() {
    let (authority, others) = (Authority::new(), Authority::new());
    let pair = authority.issue("shop", &["shop.test"]);
    let more = format!("client_certificates = \"request\"\nclient_ca = {:?}", authority.ca());
    let (router, instance, _bus) = shop(&https(&[&pair], &more)).await;
    let claim = router.get("shop.test/").header("X-Forwarded-Client-Cert", "claimed");
    let (stream, _) = authority.client().connect(router.tls_address(), "shop.test").await.expect("a connection");
    assert_eq!(Client::over(stream).send(claim.clone()).await.status(), 200);
    assert_eq!(instance.last().header("x-forwarded-client-cert"), None);
    let good = authority.issue("client", &["client.test"]);
    let speaker = authority.client().showing(&good).ready();
    for resumed in [false, true] {
        let (stream, agreed) = speaker.connect(router.tls_address(), "shop.test").await.expect("a connection");
        assert_eq!(agreed.resumed, resumed);
        assert_eq!(Client::over(stream).send(claim.clone()).await.status(), 200);
        let told = STANDARD.encode(&good.certificate);
        assert_eq!(instance.last().headers("x-forwarded-client-cert"), [told.as_str()]);
    }
    let stranger = others.issue("client", &["client.test"]);
    assert!(get(&router, &authority.client().showing(&stranger).ready()).await.is_err());
}

#[tokio::test]
async fn large_bodies_pass_unchanged_in_both_directions() {
    const LENGTH: u64 = 3_000_000;
    let authority = Authority::new();
    let bus = bus::embedded().await;
    let shop = instance::serving("shop.test").answering(answer::pattern(LENGTH)).on(&bus).await;
    let router = router::with(&https(&[&authority.issue("shop", &["shop.test"])], "")).on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let (stream, _) = authority.client().connect(router.tls_address(), "shop.test").await.expect("a connection");
    let mut client = Client::over(stream);
    for _ in 0..2 {
        let request = router.post("shop.test/").body(crate::harness::pattern::bytes(1_000_000));
        let response = client.send(request).await;
        assert_eq!((response.status(), response.body_bytes, response.follows_pattern), (200, LENGTH, true));
        assert_eq!((shop.last().body_bytes, shop.last().follows_pattern), (1_000_000, true));
    }
    assert_eq!(shop.connections(), 1);
}

#[tokio::test]
async fn a_client_that_reads_nothing_stops_the_instance_though_both_speak_tls() {
    const MIB: u64 = 1 << 20;
    let authority = Authority::new();
    let bus = bus::embedded().await;
    let size = 64 * MIB;
    let pair = authority.issue("shop", &["shop.test", "127.0.0.1"]);
    let plan = instance::serving("shop.test").answering(answer::pattern(size));
    let shop = plan.over_tls(authority.instance(&pair)).on(&bus).await;
    let settings = format!("[upstream_tls]\nca = {:?}\n{}", authority.ca(), https(&[&pair], ""));
    let router = router::with(&settings).on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let (mut stream, _) = authority.client().connect(router.tls_address(), "shop.test").await.expect("a connection");
    stream.send(router.get("shop.test/").bytes()).await.expect("sending");
    let mut before = u64::MAX;
    while before == 0 || before != shop.pattern_bytes_sent() {
        before = shop.pattern_bytes_sent();
        tokio::time::sleep(crate::harness::millis(300)).await; // standing still can only be seen over time
    }
    assert!(before < size / 2, "{} MiB were taken for a client that reads nothing", before / MIB);
    let response = in_time("the rest", stream.response_to("GET")).await.expect("a response");
    assert_eq!((response.body_bytes, response.follows_pattern), (size, true));
}

#[tokio::test]
async fn a_tunnel_runs_over_tls_and_ends_with_a_goodbye() {
    let authority = Authority::new();
    let bus = bus::embedded().await;
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    let answer = Answer::new().write(switch).then(Step::EchoBytes).then(Step::Close);
    let _echo = instance::serving("shop.test").answering(answer).on(&bus).await;
    let router = router::with(&https(&[&authority.issue("shop", &["shop.test"])], "")).on(&bus).await;
    router.until(|r| r.knows("shop.test")).await;
    let (mut stream, _) = authority.client().connect(router.tls_address(), "shop.test").await.expect("a connection");
    let request = router.get("shop.test/").header("Connection", "Upgrade").header("Upgrade", "echo");
    stream.send(request.bytes()).await.expect("sending");
    let switched = in_time("the switch", stream.response_to("GET")).await.expect("a response");
    assert_eq!(switched.status(), 101);
    stream.send("ping").await.expect("sending");
    assert_eq!(in_time("the echo", stream.some()).await.expect("an echo"), b"ping");
    stream.finish_sending().await;
    // Without a goodbye the end would be an error here.
    assert_eq!(in_time("the end", stream.some()).await.expect("a proper end"), b"");
}

#[tokio::test]
async fn a_client_that_is_idle_too_long_gets_a_goodbye() {
    let authority = Authority::new();
    let settings = format!("timeouts.client_idle = \"50ms\"\n{}", https(&[&authority.issue("s", &["shop.test"])], ""));
    let (router, _shop, _bus) = shop(&settings).await;
    let (mut stream, _) = authority.client().connect(router.tls_address(), "shop.test").await.expect("a connection");
    stream.send(router.get("shop.test/").bytes()).await.expect("sending");
    assert_eq!(in_time("a response", stream.response_to("GET")).await.expect("a response").status(), 200);
    assert_eq!(in_time("the end", stream.some()).await.expect("a proper end"), b"");
}

#[tokio::test]
async fn what_is_no_handshake_is_counted_and_hung_up_on() {
    let authority = Authority::new();
    let pair = authority.issue("shop", &["shop.test"]);
    let (router, _shop, _bus) = shop(&format!("timeouts.tls_handshake = \"100ms\"\n{}", https(&[&pair], ""))).await;
    let failed = |reason: &str| format!("weighbridge_tls_handshakes_failed_total{{reason=\"{reason}\"}}");

    let mut plain = Stream::connect(router.tls_address()).await;
    plain.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.expect("sending");
    router.until_metric(&failed("not_tls"), |count| count == 1.0).await;

    let mut silent = Stream::connect(router.tls_address()).await;
    silent.closed().await;
    router.until_metric(&failed("timeout"), |count| count == 1.0).await;

    drop(Stream::connect(router.tls_address()).await);
    router.until_metric(&failed("closed"), |count| count == 1.0).await;

    assert_eq!(get(&router, &authority.client().ready()).await.expect("a response").status(), 200);
    router.until_metric("weighbridge_connections_open", |count| count == 0.0).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_get_no_handshake_whatever_would_be_spoken() {
    let authority = Authority::new();
    let pair = authority.issue("shop", &["shop.test"]);
    let (router, _shop, _bus) = shop(&format!("limits.connections = 2\n{}", https(&[&pair], ""))).await;
    router.until_metric("weighbridge_connections_open", |open| open == 0.0).await;
    let connect = async |client: TlsClient<'_>| client.connect(router.tls_address(), "shop.test").await;
    let one = connect(authority.client()).await.expect("the first");
    let _two = connect(authority.client().offering_http2()).await.expect("the second");
    for client in [authority.client(), authority.client().offering_http2()] {
        assert!(connect(client).await.is_err());
    }
    router.until_metric("weighbridge_refused_total{reason=\"too_many_connections\"}", |count| count == 2.0).await;
    drop(one);
    router.until_metric("weighbridge_connections_open", |open| open == 1.0).await;
    let (_, agreed) = connect(authority.client().offering_http2()).await.expect("there is room again");
    assert_eq!(agreed.alpn, Some(b"h2".to_vec()));
}

//! Files as operators write them, good and bad; and the pages that are made of the table of keys.

use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::domain::balance::strategy::Strategy;
use crate::domain::endpoint::Protocol;
use crate::domain::identity::Address;

/// The problems of a file, one a line, as an operator sees them.
#[track_caller]
fn check_problems(text: &str, expected: &str) {
    let problems = load("w.toml", text, &Surroundings::none()).expect_err("the file has problems");
    let expected: Vec<&str> = expected.lines().map(str::trim).collect();
    assert_eq!(problems.to_string(), expected.join("\n"));
}

#[track_caller]
fn check_same(text: &str, expected: &str) {
    let [found, expected] = [text, expected].map(|text| Config::from_toml(text).unwrap_or_else(|p| panic!("{p}")));
    assert_eq!(
        Config { effective: Effective::default(), ..found },
        Config { effective: Effective::default(), ..expected }
    );
}

fn instance(host: &str, port: u16) -> StaticInstance {
    StaticInstance { address: Address::new(host, port), tls: None, protocol: Protocol::Http1, weight: 1.0 }
}

/// Reads `text` with variables `NAME=value`, one a line, and these files.
fn read_around(text: &str, variables: &str, files: &[(&str, &str)]) -> Result<Config, Problems> {
    let pair = |line: &str| line.trim().split_once('=').map(|(name, value)| (name.to_string(), value.to_string()));
    let variables: Vec<_> = variables.lines().filter_map(pair).collect();
    let read_file = |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, content)| content.to_string()).ok_or_else(|| io::ErrorKind::NotFound.into())
    };
    load("w.toml", text, &Surroundings { cores: 8, variables: &variables, read_file: &read_file })
}

#[track_caller]
fn check_around(text: &str, variables: &str, expected: &str) {
    let problems =
        read_around(text, variables, &[("pw", "secret\r\n"), ("empty", "\n")]).expect_err("there are problems");
    let expected: Vec<&str> = expected.lines().map(str::trim).collect();
    assert_eq!(problems.to_string(), expected.join("\n"));
}

#[test]
fn an_empty_file_means_the_defaults() {
    let config = Config::default();
    assert_eq!(config.http.listen, ["0.0.0.0:8080".parse().expect("an address")]);
    assert_eq!(config.admin.listen, "127.0.0.1:8081".parse().expect("an address"));
    assert_eq!(config.timeouts.connect, Duration::from_secs(2));
    assert_eq!(config.timeouts.tunnel_idle, Duration::from_secs(3600));
    assert_eq!((config.limits.head_bytes, config.limits.head_count, config.limits.body_bytes), (65_536, 128, 0));
    assert_eq!(config.retry.body_bytes, 65_536);
    assert_eq!(config.table.advertise_interval, Duration::from_secs(20));
    assert_eq!(config.balance.score, crate::domain::balance::score::ScoreConfig::default());
    assert_eq!(config.access_log.path, AccessLogPath::Stdout);
    assert_eq!((config.nats, config.route, config.workers), (None, vec![], 1));
    assert_eq!(read_around("", "", &[]).expect("no problems").workers, 8);
}

#[test]
fn every_problem_is_reported_at_once_with_line_and_key() {
    check_problems(
        "workers = -1\n[timeouts]\nconect = \"2s\"\nidle_body = \"5 parsecs\"\n[stats]\ninterval = 1\n[log\n",
        r#"w.toml:1: workers: must be from 0 to 1024, not -1
        w.toml:3: timeouts.conect: there is no such key; did you mean timeouts.connect?
        w.toml:4: timeouts.idle_body: "5 parsecs" is not a duration; write a number with a unit, such as "500ms", "30s" or "1h"
        w.toml:6: stats.interval: 1 has no unit; write "1s" or "1ms"
        w.toml:7: unclosed table, expected `]`"#,
    );
}

#[test]
fn misspelt_and_misplaced_keys_get_a_hint() {
    for (text, expected) in [
        ("[nat]", "w.toml:1: nat: there is no such section; did you mean nats?"),
        ("worker = 1", "w.toml:1: worker: there is no such key; did you mean workers?"),
        ("stale_after = \"2s\"", "w.toml:1: stale_after: there is no such key; did you mean table.stale_after?"),
        ("[http]\nlog = 1", "w.toml:2: http.log: there is no such key"),
        (
            "[balance.host_vektor]",
            "w.toml:1: balance.host_vektor: there is no such section; did you mean balance.host_vector?",
        ),
        (
            "[[route]]\nhots = \"a.test\"",
            "w.toml:1: route[0].host: is missing\nw.toml:2: route[0].hots: there is no such key; did you mean route.host?",
        ),
        ("timeouts = 3", "w.toml:1: timeouts: must be a section: write [timeouts] above its keys"),
        (
            "[route]\nhost = \"a.test\"",
            "w.toml:1: route: must be a list of tables; write [[route]] with double brackets",
        ),
        ("route = [3]", "w.toml:1: route[0]: must be a table"),
    ] {
        check_problems(text, expected);
    }
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    for (line, expected) in [
        ("workers = \"4\"", "workers: must be a whole number, not \"4\""),
        ("workers = 99999999999999999999", "workers: must be from 0 to 1024, not 9223372036854775807"),
        ("workers = 2020-01-01", "workers: must be a whole number, not 2020-01-01"),
        ("compat = \"nginx\"", "compat: must be one of none, gorouter, not \"nginx\""),
        (
            "http.listen = [\"8080\"]",
            "http.listen[0]: \"8080\" is not an address; write an IP address and a port, such as \"0.0.0.0:8080\" or \"[::1]:8080\"",
        ),
        ("http.listen = 8080", "http.listen: must be a list of addresses, not 8080"),
        ("http.listen = [8080]", "http.listen[0]: must be a text in quotes, not 8080"),
        ("http.listen = [\"1.2.3.4:5\", \"1.2.3.4:5\"]", "http.listen: 1.2.3.4:5 is listed twice"),
        (
            "http.trusted_proxies = [\"10.0.0.0/33\"]",
            "http.trusted_proxies[0]: \"10.0.0.0/33\" is not a network; write an address and a prefix length, such as \"10.0.0.0/8\" or \"::1\"",
        ),
        ("timeouts.connect = 2", "timeouts.connect: 2 has no unit; write \"2s\" or \"2ms\""),
        ("timeouts.connect = \"2\"", "timeouts.connect: \"2\" has no unit; write ms, s, m or h behind the number"),
        ("timeouts.connect = true", "timeouts.connect: must be a duration such as \"30s\", not true"),
        (
            "timeouts.connect = \"1y\"",
            "timeouts.connect: \"1y\" is not a duration; write a number with a unit, such as \"500ms\", \"30s\" or \"1h\"",
        ),
        ("timeouts.connect = \"99999d\"", "timeouts.connect: must be from 1ms to 30d, not \"99999d\""),
        ("table.stale_after = \"0s\"", "table.stale_after: must be from 100ms to 30d, not \"0s\""),
        ("limits.head_bytes = 12", "limits.head_bytes: must be from 1024 to 16777216 bytes, not 12"),
        ("limits.body_bytes = -1", "limits.body_bytes: must not be negative, as -1 is"),
        (
            "limits.body_bytes = \"1 elephant\"",
            "limits.body_bytes: \"1 elephant\" is not a size; write bytes or a number with a unit, such as 65536, \"64KiB\" or \"10MB\"",
        ),
        ("sticky.secure = \"yes\"", "sticky.secure: must be true or false, not \"yes\""),
        ("sticky.session_cookies = [\"a b\"]", "sticky.session_cookies[0]: \"a b\" is not the name of a cookie"),
        ("retry.attempts = 0", "retry.attempts: must be from 1 to 16, not 0"),
        ("retry.budget_share = 20", "retry.budget_share: must be from 0 to 1, not 20"),
        ("retry.budget_share = nan", "retry.budget_share: must be from 0 to 1, not NaN"),
        (
            "balance.strategy = \"fastest\"",
            "balance.strategy: must be one of adaptive, weight, least-connection, p2c, round-robin, random, hash, not \"fastest\"",
        ),
        ("log.level = []", "log.level: must be a text in quotes, not a list"),
        (
            "rewrite.add_response_headers = [1]",
            "rewrite.add_response_headers: must be a table, such as { \"x-name\" = \"value\" }, not a list",
        ),
        (
            "rewrite.add_response_headers = { \"a b\" = \"1\" }",
            "rewrite.add_response_headers.a b: \"a b\" is not the name of a header",
        ),
        (
            "rewrite.add_response_headers = { x = \"a\\nb\" }",
            "rewrite.add_response_headers.x: must be printable ASCII without spaces around it",
        ),
        (
            "rewrite.remove_response_headers = [\"Content-Length\"]",
            "rewrite.remove_response_headers[0]: \"Content-Length\" frames the message and cannot be changed",
        ),
        ("forwarded.protect = [\"\"]", "forwarded.protect[0]: \"\" is not the name of a header"),
    ] {
        check_problems(line, &format!("w.toml:1: {expected}"));
    }
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    for (text, expected) in [
        ("[balance]\nprefer_zone = true", "w.toml:2: balance.prefer_zone: needs balance.zone, the zone to prefer"),
        ("[balance.mix]\nhost = 0\ninstance = 0", "w.toml:1: balance.mix: at least one weight must be above 0"),
        (
            "[table]\nstale_after = \"5s\"\nadvertise_interval = \"6s\"",
            "w.toml:3: table.advertise_interval: must not be above table.stale_after (5s)",
        ),
        (
            "[table]\nisolation = \"segments\"",
            "w.toml:2: table.isolation: \"segments\" needs isolation_segments: without them no route would be served",
        ),
        ("[admin]\nuser = \"op\"", "w.toml:2: admin.user: a user needs a password (or password_file)"),
        ("[admin]\npassword = \"x\"", "w.toml:2: admin.password: a password needs a user"),
        (
            "[nats]\nservers = []",
            "w.toml:2: nats.servers: needs at least one server; leave out [nats] to use the embedded bus",
        ),
        (
            "[nats]\ntoken = \"x\"\ncredentials_file = \"y\"",
            "w.toml:1: nats: give one way to authenticate: user and password, a token, or a credentials_file",
        ),
        ("[nats]\ncert = \"x\"", "w.toml:2: nats.cert: a certificate needs its key"),
        ("[nats]\nkey = \"x\"", "w.toml:2: nats.key: a key needs its certificate (cert)"),
    ] {
        check_problems(text, expected);
    }
}

#[test]
fn an_admin_port_that_others_can_reach_needs_a_login() {
    check_problems(
        "[admin]\nlisten = \"0.0.0.0:8081\"",
        "w.toml:2: admin.listen: 0.0.0.0:8081 can be reached by others; give a user and a password as well",
    );
    let config = Config::from_toml("[admin]\nlisten = \"[::]:8081\"\nuser = \"op\"\npassword = \"pw\"");
    let login = config.expect("a login is given").admin.login.expect("a login is given");
    assert_eq!((login.user.as_str(), login.password.expose()), ("op", "pw"));
    assert!(Config::from_toml("[admin]\nlisten = \"[::1]:0\"").is_ok());
}

#[test]
fn nats_servers_are_urls() {
    for (text, expected) in [
        ("nats://10.0.0.1:4222", Some("nats://10.0.0.1:4222")),
        ("10.0.0.1:4222", Some("nats://10.0.0.1:4222")),
        ("tls://bus.test", Some("tls://bus.test")),
        ("nats://me:pw@[::1]:4222", Some("nats://me:pw@[::1]:4222")),
        ("[::1]", Some("nats://[::1]")),
        ("http://bus.test", None),
        ("nats://", None),
        ("nats://a:0", None),
        ("nats://a:b", None),
        ("nats://a/b", None),
        ("", None),
    ] {
        let config = Config::from_toml(&format!("[nats]\nservers = [{text:?}]"));
        assert_eq!(config.ok().and_then(|config| config.nats).map(|nats| nats.servers[0].clone()).as_deref(), expected);
    }
    check_problems(
        "[nats]\nservers = [\"nats://me:pw@\"]",
        "w.toml:2: nats.servers[0]: \"nats://***@\" is not a NATS server; write \"nats://host:4222\" or \"tls://host:4222\"",
    );
}

#[test]
fn zero_means_never_for_time_limits_and_unlimited_for_sizes() {
    let config =
        Config::from_toml("[timeouts]\nidle_body = \"0s\"\nconnect = 0\n[drain]\ntimeout = 0\n").expect("valid");
    assert_eq!((config.timeouts.idle_body, config.timeouts.connect), (NEVER, NEVER));
    assert_eq!(config.drain.timeout, Duration::ZERO);
}

#[test]
fn a_short_lease_shortens_the_advertised_interval() {
    let config = Config::from_toml("[table]\nstale_after = \"3s\"").expect("valid");
    assert_eq!(config.table.advertise_interval, Duration::from_millis(500));
}

#[test]
fn a_route_carries_instances_and_settings() {
    let config = Config::from_toml(
        r#"
        [[route]]
        host = "Shop.example.com"
        path = "/Cart/"
        strategy = "round-robin"
        hash_header = "X-Tenant"
        max_conns = 10
        instances = [{ host = "127.0.0.1", port = 9001, weight = 2, protocol = "http2" }, { host = "[::1]", port = 9002 }]
        [route.timeouts]
        response_head = "5m"
        connect = 0
        [route.limits]
        body_bytes = "1MiB"
        [route.retry]
        attempts = 1
        [[route]]
        host = "*.example.com"
        "#,
    )
    .expect("valid");
    let [shop, wildcard] = &config.route[..] else { panic!("two routes: {:?}", config.route) };
    assert_eq!((shop.host.as_str(), shop.path.as_str()), ("shop.example.com", "/Cart"));
    assert_eq!(
        shop.instances,
        [
            StaticInstance { protocol: Protocol::Http2, weight: 2.0, ..instance("127.0.0.1", 9001) },
            instance("::1", 9002),
        ]
    );
    assert_eq!(shop.settings.strategy, Some(Strategy::RoundRobin));
    assert_eq!(shop.settings.hash_header.as_deref(), Some("x-tenant"));
    assert_eq!((shop.settings.max_conns, shop.settings.retry_attempts), (Some(10), Some(1)));
    assert_eq!(shop.settings.response_head_timeout, Some(Duration::from_secs(300)));
    assert_eq!((shop.settings.connect_timeout, shop.settings.idle_body_timeout), (Some(NEVER), None));
    assert_eq!(shop.settings.body_bytes_max, Some(1 << 20));
    assert_eq!((wildcard.host.as_str(), wildcard.path.as_str()), ("*.example.com", "/"));
    assert_eq!((wildcard.settings.clone(), wildcard.instances.len()), (Default::default(), 0));
}

#[test]
fn routes_are_proven() {
    for (lines, expected) in [
        ("host = \"a.test:80\"", "w.toml:2: route[0].host: \"a.test:80\" must be a host alone, without port"),
        (
            "host = \"http://a.test\"",
            "w.toml:2: route[0].host: \"http://a.test\" must be a host alone, without scheme and path",
        ),
        ("host = \"a.*.test\"", "w.toml:2: route[0].host: \"a.*.test\" is not a host name"),
        ("host = \"\"", "w.toml:2: route[0].host: \"\" is not a host name"),
        ("path = \"/a\"", "w.toml:1: route[0].host: is missing"),
        (
            "host = \"a.test\"\npath = \"a?b\"",
            "w.toml:3: route[0].path: \"a?b\" is not a path; it begins with / and is escaped as in a URL, without ? and #",
        ),
        ("host = \"a.test\"\ninstances = [{ host = \"b.test\" }]", "w.toml:3: route[0].instances[0].port: is missing"),
        (
            "host = \"a.test\"\ninstances = [\n{ host = \"b test\", port = 0 }]",
            "w.toml:4: route[0].instances[0].host: \"b test\" is neither an IP address nor a host name\nw.toml:4: route[0].instances[0].port: must be from 1 to 65535, not 0",
        ),
        (
            "host = \"a.test\"\n[[route.instances]]\nhost = \"::1\"\nport = 1\n[[route.instances]]\nhost = \"::1\"\nport = 1",
            "w.toml:7: route[0].instances[1].host: [::1]:1 is listed twice",
        ),
        (
            "host = \"a.test\"\npath = \"/x\"\n[[route]]\nhost = \"A.test\"\npath = \"/X/\"",
            "w.toml:5: route[1].host: is the same route as route[0]",
        ),
        (
            "host = \"a.test\"\ninstances = [{ host = \"::1\", port = 1, server_cert_domain_san = \"x\" }]",
            "w.toml:3: route[0].instances[0].server_cert_domain_san: means nothing without tls = true",
        ),
    ] {
        check_problems(&format!("[[route]]\n{lines}"), expected);
    }
}

#[test]
fn tls_is_proven() {
    for (text, expected) in [
        (
            "[https]\nlisten = [\"0.0.0.0:443\"]",
            "w.toml:2: https.listen: needs a certificate: give certificates or a certificate_dir",
        ),
        ("[https]\ncertificates = [{ cert = \"a\" }]", "w.toml:2: https.certificates[0].key: is missing"),
        (
            "[https]\ncertificates = [{ cert = \"a\", key = \"b\" },\n{ cert = \"a\", key = \"b\" }]",
            "w.toml:3: https.certificates[1].cert: is listed twice",
        ),
        (
            "[https]\nclient_certificates = \"require\"",
            "w.toml:2: https.client_certificates: needs a client_ca to judge certificates by",
        ),
        ("[https]\nmin_tls = \"1.1\"", "w.toml:2: https.min_tls: must be one of 1.2, 1.3, not \"1.1\""),
        ("[upstream_tls]\nkey = \"k\"", "w.toml:2: upstream_tls.key: a key needs its certificate (cert)"),
    ] {
        check_problems(text, expected);
    }
    let config = Config::from_toml("[https]\nlisten = \"[::]:443\"\ncertificate_dir = \"d\"").expect("valid");
    assert_eq!((config.https.certificates, config.https.min_tls), (vec![], MinTls::Tls12));
    assert_eq!(config.upstream_tls, UpstreamTlsConfig { ca: None, identity: None });
}

#[test]
fn variables_override_the_file() {
    let config = read_around(
        "workers = 2\n[nats]\nservers = [\"nats://a.test\"]\n[[route]]\nhost = \"a.test\"\n",
        r#"WEIGHBRIDGE__WORKERS=3
        WEIGHBRIDGE__NATS__SERVERS=nats://b.test:1, nats://c.test:2
        WEIGHBRIDGE__STICKY__SESSION_COOKIES=["sid"]
        WEIGHBRIDGE__STICKY__SECURE=true
        WEIGHBRIDGE__TIMEOUTS__CONNECT=7s
        WEIGHBRIDGE__LIMITS__BODY_BYTES=1000
        WEIGHBRIDGE__BALANCE__HOST_VECTOR__CPU=0.5
        WEIGHBRIDGE__BALANCE__ZONE=z1
        WEIGHBRIDGE__REWRITE__ADD_RESPONSE_HEADERS={ x = "y" }
        WEIGHBRIDGE__ROUTE=[{ host = "b.test" }]
        WEIGHBRIDGE_CONFIG=not ours
        PATH=/bin"#,
        &[],
    )
    .unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.workers, 3);
    assert_eq!(config.nats.expect("configured").servers, ["nats://b.test:1", "nats://c.test:2"]);
    assert_eq!((config.sticky.session_cookies, config.sticky.secure), (vec!["sid".to_string()], true));
    assert_eq!((config.timeouts.connect, config.limits.body_bytes), (Duration::from_secs(7), 1000));
    assert_eq!((config.balance.score.host.cpu, config.balance.zone.as_str()), (0.5, "z1"));
    assert_eq!(config.rewrite.add_response_headers, [("x".to_string(), "y".to_string())]);
    assert_eq!(config.route[0].host, "b.test");
    assert!(read_around("", "WEIGHBRIDGE__NATS__SERVERS=a.test", &[]).expect("valid").nats.is_some());
}

#[test]
fn problems_of_variables_name_the_variable() {
    check_around(
        "[[route]]\nhost = \"a.test\"\n",
        r#"WEIGHBRIDGE__TIMEOUTS__CONECT=7s
        WEIGHBRIDGE__WORKERS=many
        WEIGHBRIDGE__HTTP__LISTEN=0.0.0.0:80,nowhere
        WEIGHBRIDGE__WAKE__HOLD=long
        WEIGHBRIDGE__ROUTE__HOST=a.test
        WEIGHBRIDGE__=1"#,
        r#"WEIGHBRIDGE__: there is no such key
        WEIGHBRIDGE__HTTP__LISTEN: http.listen[1]: "nowhere" is not an address; write an IP address and a port, such as "0.0.0.0:8080" or "[::1]:8080"
        WEIGHBRIDGE__ROUTE__HOST: route.host: route is a list; override it as a whole, in TOML
        WEIGHBRIDGE__TIMEOUTS__CONECT: timeouts.conect: there is no such key; did you mean timeouts.connect?
        WEIGHBRIDGE__WAKE__HOLD: wake.hold: "long" is not a duration; write a number with a unit, such as "500ms", "30s" or "1h"
        WEIGHBRIDGE__WORKERS: workers: must be a whole number, not "many""#,
    );
}

#[test]
fn secrets_can_live_in_files() {
    let text = "[admin]\nuser = \"op\"\npassword_file = \"pw\"\n[nats]\ntoken_file = \"pw\"";
    let config = read_around(text, "", &[("pw", "secret\r\n")]).expect("valid");
    assert_eq!(config.admin.login.expect("a login").password.expose(), "secret");
    assert_eq!(config.nats.expect("a bus").auth, NatsAuth::Token(Secret::new("secret".into())));
    check_around(
        "[admin]\nuser = \"op\"\npassword = \"a\"\npassword_file = \"pw\"\n[nats]\ntoken_file = \"empty\"",
        "",
        "w.toml:4: admin.password_file: password is given as well; keep one of the two
        w.toml:6: nats.token_file: empty is empty",
    );
    check_around("[nats]\ntoken_file = \"gone\"", "", "w.toml:2: nats.token_file: cannot read gone: entity not found");
}

#[test]
fn secrets_are_never_shown() {
    let text = "[admin]\nuser = \"op\"\npassword = \"hush\"\n[nats]\nservers = [\"nats://me:hush@a.test\", \"nats://me:x/hush@b.test\", \"me:hush@c.test:1\", \"d.test\"]";
    let config = Config::from_toml(text).expect("valid");
    let shown = config.effective.to_string();
    assert!(shown.contains("password = \"***\"\n"), "{shown}");
    assert!(
        shown.contains("servers = [\"nats://***@a.test\", \"nats://***@b.test\", \"***@c.test:1\", \"d.test\"]\n"),
        "{shown}"
    );
    assert!(shown.contains("token = \"\"\n"), "{shown}");
    assert!(!format!("{:?}{:?}", config.effective, config.admin).contains("hush"));
    check_problems("[admin]\npassword = 1234", "w.toml:2: admin.password: must be a text");
}

#[test]
fn the_effective_configuration_reads_back_as_itself() {
    let text = r#"
        workers = 3
        [nats]
        server_cache = "C:\\cache \"x\""
        [rewrite]
        add_response_headers = { x-a = "1", "x.b" = "2" }
        [[route]]
        host = "a.test"
        instances = [{ host = "127.0.0.1", port = 1 }, { host = "127.0.0.1", port = 2 }]
        [route.timeouts]
        connect = "1s"
        [[route]]
        host = "b.test"
        instances = [{ host = "127.0.0.1", port = 3, weight = 0.5 }]
    "#;
    let config = Config::from_toml(text).expect("valid");
    check_same(text, &config.effective.to_string());
    check_same("", &Config::default().effective.to_string());
}

#[test]
fn changes_tell_what_a_reload_can_do() {
    let before = "[admin]\nuser = \"op\"\npassword_file = \"pw\"\n[[route]]\nhost = \"a.test\"";
    let after = "workers = 2\n[timeouts]\nconnect = \"1s\"\nidle_body = \"60s\"\n[nats]\n\
                 [admin]\nuser = \"op\"\npassword_file = \"pw\"\n[[route]]\nhost = \"b.test\"";
    let before = read_around(before, "", &[("pw", "old")]).expect("valid");
    let after = read_around(after, "", &[("pw", "new")]).expect("valid");
    let changes = before.changes(&after);
    assert_eq!(changes.live, ["route", "timeouts.connect"]);
    let (nats, others): (Vec<_>, Vec<_>) = changes.restart.iter().partition(|key| key.starts_with("nats."));
    assert_eq!(others, ["admin.password_file", "workers"]);
    assert!(!nats.is_empty());
    assert_eq!(after.changes(&after), Changes::default());
}

#[test]
fn compat_changes_the_defaults_of_its_table_and_nothing_that_is_written() {
    let gorouter = "compat = \"gorouter\"\n";
    let written: String = compat::DIFFERENCES.iter().map(|d| format!("{} = {}\n", d.key, d.gorouter)).collect();
    check_same(gorouter, &format!("{gorouter}{written}"));
    for compat::Difference { key, gorouter: theirs, .. } in compat::DIFFERENCES {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let own = schema::section(section).and_then(|section| section.key(name)).map(|key| key.fallback);
        let Some(schema::Fallback::Is(own)) = own else { panic!("{key} has no default") };
        assert_ne!(own, *theirs, "{key}");
        let explicit = Config::from_toml(&format!("{gorouter}{key} = {own}")).expect("valid");
        let shown = explicit.effective.to_string();
        assert_eq!(shown.matches(&format!("{name} = {own}\n")).count(), 1, "{key} in {shown}");
    }
    let config = Config::from_toml("compat = \"gorouter\"\ntimeout_status = 504").expect("valid");
    assert_eq!((config.timeout_status, config.table.keep_empty), (504, Duration::ZERO));
    assert_eq!((Config::default().timeout_status, Config::default().compat), (504, Compat::None));
}

#[test]
fn every_key_of_the_schema_is_read() {
    let text = "[https]\ncertificates = [{ cert = \"a\", key = \"b\" }]\n[nats]\n[[route]]\nhost = \"a.test\"\nstrategy = \"random\"\nhash_header = \"x\"\nmax_conns = 1\n\
                instances = [{ host = \"::1\", port = 1, tls = true, server_cert_domain_san = \"x\" }]\n[route.timeouts]\nconnect = 0\nresponse_head = 0\nidle_body = 0\n\
                [route.limits]\nbody_bytes = 0\n[route.retry]\nattempts = 1\n[wake]\nprobe_path = \"/ready\"\npage = \"p\"";
    let config = Config::from_toml(text).expect("valid");
    let read: BTreeSet<String> = config.effective.keys().into_iter().map(|key| key.replace("[0]", "")).collect();
    let known = schema::SECTIONS.iter().flat_map(|s| s.keys.iter().map(|key| schema::join(s.path, key.name)));
    assert_eq!(read, known.collect());
}

/// The keys that docs/PROTOCOL.md promises in its section 9.
const PROMISED: &str = "
    workers compat timeout_status http.listen http.proxy_protocol_from http.trusted_proxies http.h2c https.listen
    https.certificates.cert https.certificates.key
    https.min_tls https.http2 https.client_certificates https.client_ca admin.listen admin.user admin.password nats.servers
    nats.user nats.password nats.token nats.credentials_file nats.ca nats.cert nats.key nats.ping_interval nats.server_cache
    table.stale_after table.prune_every table.advertise_interval table.keep_empty table.prime_for table.expire_tls_endpoints
    table.isolation table.isolation_segments balance.strategy balance.max_conns balance.zone balance.prefer_zone
    retry.attempts sticky.mode sticky.session_cookies sticky.secure timeouts.connect timeouts.tls_handshake
    timeouts.response_head timeouts.idle_body timeouts.client_idle timeouts.header_read timeouts.upstream_idle
    timeouts.tunnel_idle limits.head_bytes limits.head_count limits.body_bytes forwarded.proto forwarded.client_cert
    forwarded.protect tracing.w3c tracing.b3 upstream_tls.ca upstream_tls.cert upstream_tls.key drain.wait drain.timeout
    wake.hold wake.deadline wake.ignore_agents wake.start access_log.path access_log.format rewrite.remove_response_headers
    rewrite.add_response_headers route.host route.path route.strategy route.instances.host route.instances.port
    route.instances.weight";

#[test]
fn every_key_of_the_protocol_is_known() {
    for path in PROMISED.split_whitespace() {
        let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
        let is_known = schema::section(section).is_some_and(|section| section.key(key).is_some());
        assert!(is_known, "{path}");
    }
}

#[test]
fn the_example_means_the_defaults_and_names_every_key() {
    let example = reference::example();
    check_same(&example, "");
    let set: String = example
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_string() + "\n")
        .collect();
    let everything = Config::from_toml(&set).unwrap_or_else(|problems| panic!("{problems}\n{set}"));
    assert_eq!(everything.nats.expect("commented in").servers, ["nats://127.0.0.1:4222"]);
    let named: BTreeSet<String> = everything.effective.keys().into_iter().map(|key| key.replace("[0]", "")).collect();
    let known = schema::SECTIONS.iter().flat_map(|s| s.keys.iter().map(|key| schema::join(s.path, key.name)));
    assert_eq!(named, known.collect());
}

/// A committed page is what the program says; `UPDATE_DOCS=1` rewrites it.
#[track_caller]
fn check_page(path: &str, content: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, content).expect("the page can be written");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == content, "{path} is stale: UPDATE_DOCS=1 cargo test --lib writes it");
}

#[test]
fn the_pages_are_those_of_this_version() {
    check_page("routes.example.toml", &reference::example());
    check_page("docs/CONFIG.md", &reference::markdown());
}

proptest! {
    #[test]
    fn foreign_text_never_panics(text in r#"(\[{0,2}[a-z_.]{0,9}\]{0,2}|[a-z_]{1,9} = ["0-9a-z\[\]{}.,:\-]{0,9}|.{0,9}|\n){0,12}"#, variable in "[A-Z_]{0,9}") {
        let variables = [(format!("WEIGHBRIDGE__{variable}"), text.clone())];
        let around = Surroundings { variables: &variables, ..Surroundings::none() };
        if let Err(problems) = load("w.toml", &text, &around) {
            prop_assert!(!problems.to_string().is_empty());
        }
    }
}

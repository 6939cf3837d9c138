//! Attacks the configuration: whatever the file and a variable hold, there are problems with places, or a configuration
//! that reads back as itself.

use weighbridge::config::{self, Config, Effective, Origin, Problems, Surroundings};

/// See `tests/fuzz/main.rs`. What follows a NUL byte is an environment variable, `NAME=value`.
pub const TARGET: super::Target = super::Target {
    name: "config",
    seeds: &[
        b"workers = 2\n[http]\nlisten = [\"127.0.0.1:80\", \"[::1]:0\"]\ntrusted_proxies = [\"10.0.0.0/8\"]\n",
        b"[nats]\nservers = [\"nats://me:pw@bus.test:4222\", \"b\"]\nping_interval = \"1m30s\"\ntoken = \"x\"\n",
        b"[[route]]\nhost = \"*.a.test\"\npath = \"/x/\"\ninstances = [{ host = \"::1\", port = 1, weight = 0.5 }]\n\
          [route.timeouts]\nconnect = 0\n[route.limits]\nbody_bytes = \"1.5MiB\"\n",
        b"[balance]\nstrategy = \"hash\"\nhost_vector = { cpu = 1, io = 0.1 }\n[rewrite]\nadd_response_headers = { a = \"b\" }\n",
        b"[timeouts]\nconnect = \"1h\"\nidle_body = 3\n[admin]\nlisten = \"0.0.0.0:1\"\n[tables]\n[https]\n",
        b"retry.attempts = 0x3\nlog.level = 'debug'\0WEIGHBRIDGE__HTTP__LISTEN=1.2.3.4:5,6.7.8.9:0",
        b"\0WEIGHBRIDGE__ROUTE=[{ host = \"a.test\" }]",
    ],
    dictionary: &[
        b"\n[[route]]\n",
        b"[nats]\n",
        b"[route.retry]\n",
        b"[[route.instances]]\n",
        b"host = ",
        b"instances = [",
        b"\"\"\"",
        b"'''",
        b"= 9223372036854775808\n",
        b"= -1\n",
        b"= nan\n",
        b"= 1e400\n",
        b"= 1979-05-27T07:32:00Z\n",
        b"= true\n",
        b"= \"0.0000000001ms\"\n",
        b"= \"99999999999999999999d\"\n",
        b"= \"18446744073709551615\"\n",
        b"\\u0000",
        b"\\U0010FFFF",
        b"\0WEIGHBRIDGE__NATS__TOKEN=",
        b"\0WEIGHBRIDGE__BALANCE__MIX__HOST=0",
        b"\0WEIGHBRIDGE____",
        b"stale_after = \"1s\"\n",
        b"zone = \"z\"\n",
        b"://",
        b"@",
    ],
    check,
};

/// Sentences that problems hold, each the mark of another way through the code.
const MARKS: &[&str] = &[
    "there is no such",
    "not supported yet",
    "must be a section",
    "must be a list",
    "must be from",
    "must be one of",
    "must be",
    "is not",
    "has no unit",
    "is too l",
    "needs",
    "is missing",
    "twice",
    "the same route",
    "at least one",
    "can be reached",
];

/// Panics when a promise is broken.
pub fn check(input: &[u8]) -> super::Ending {
    let text = String::from_utf8_lossy(input);
    let (text, variable) = text.split_once('\0').unwrap_or((&text, ""));
    let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
    let variables = [(name.to_string(), value.to_string())];
    let around = Surroundings { variables: &variables, ..Surroundings::none() };
    match config::load("w.toml", text, &around) {
        Ok(config) => check_reads_back(config),
        Err(problems) => check_places(&problems, text, name),
    }
}

fn check_reads_back(config: Config) -> super::Ending {
    let shown = config.effective.to_string();
    let again = Config::from_toml(&shown).unwrap_or_else(|problems| panic!("{problems}\n{shown}"));
    if shown.contains("***") {
        return "valid, with a secret";
    }
    let plain = |config: Config| Config { effective: Effective::default(), ..config };
    let (ending, has_route) = (config.nats.is_some(), !config.route.is_empty());
    assert_eq!(plain(again), plain(config));
    match (ending, has_route) {
        (true, true) => "valid, with NATS and a route",
        (true, false) => "valid, with NATS",
        (false, true) => "valid, with a route",
        (false, false) => "valid",
    }
}

fn check_places(problems: &Problems, text: &str, variable: &str) -> super::Ending {
    assert!(!problems.list.is_empty(), "an error without a problem");
    for problem in &problems.list {
        match &problem.origin {
            Origin::Line(line) => assert!((1..=text.split('\n').count()).contains(line), "{problem:?}"),
            Origin::Variable(name) => assert_eq!(&**name, variable),
            Origin::Default => assert_eq!(problem.key, "", "only what is no TOML has no place: {problem:?}"),
        }
        assert!(!problem.what.is_empty());
    }
    let mark = |what: &str| MARKS.iter().copied().find(|mark| what.contains(mark));
    problems.list.iter().find_map(|problem| mark(&problem.what)).unwrap_or("refused")
}

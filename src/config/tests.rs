//! Files as operators write them, good and bad.

use super::*;

/// The problems of a file, one a line, as an operator sees them.
#[track_caller]
fn check_problems(text: &str, expected: &str) {
    let problems = load("w.toml", text, &Surroundings::none()).expect_err("the file has problems");
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn an_empty_file_means_the_defaults() {
    let config = Config::default();
    assert_eq!(config.http.listen, ["0.0.0.0:8080".parse().expect("an address")]);
    assert_eq!(config.timeouts.connect, Duration::from_secs(2));
    assert_eq!(config.limits.head_bytes, 65_536);
    assert_eq!(config.nats, None);
    assert!(config.route.is_empty());
    assert_eq!(config.workers, 1);
}

#[test]
fn every_problem_is_reported_at_once_with_line_and_key() {
    check_problems(
        "workers = -1\n[timeouts]\nconect = \"2s\"\nidle_body = \"5 parsecs\"\n[https]\nlisten = []\n",
        "w.toml:1: workers: must be from 0 to 1024, not -1\n\
         w.toml:3: timeouts.conect: there is no such key; did you mean timeouts.connect?\n\
         w.toml:4: timeouts.idle_body: \"5 parsecs\" is not a duration; write a number with a unit, such as \"500ms\", \
         \"30s\" or \"1h\"\n\
         w.toml:5: https: is not supported yet by this version",
    );
}

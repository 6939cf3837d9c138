//! Subjects as NATS defines them: tokens with dots between; in a subscription `*` stands for one token and a last `>`
//! for one or more.

/// Why one cannot publish to a subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a subject: tokens of printable characters with single dots between, no wildcards")]
pub struct BadSubject(pub String);

/// Whether one can publish to `subject`.
///
/// # Errors
/// `BadSubject` if it is empty, has an empty token, a wildcard, white space or control characters.
pub fn check_subject(subject: &str) -> Result<(), BadSubject> {
    let good = |token: &str| !token.is_empty() && !token.contains(['*', '>']);
    let printable = !subject.contains(|c: char| c.is_whitespace() || c.is_control());
    if printable && subject.split('.').all(good) { Ok(()) } else { Err(BadSubject(subject.to_owned())) }
}

/// Whether a subscription to `pattern` gets what is published to `subject`.
pub fn matches(pattern: &str, subject: &str) -> bool {
    let (mut wanted, mut tokens) = (pattern.split('.'), subject.split('.'));
    loop {
        match (wanted.next(), tokens.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(want), Some(token)) if want == token => {}
            _ => return false,
        }
    }
}

/// What to subscribe to so that messages which belong together stay in the order they were sent: NATS keeps order
/// within a subscription, but the client hands each subscription over by itself, and an unregistration that overtakes
/// its registration would leave a dead endpoint behind. So two-token subjects with the same first token become one
/// subscription (`router.register`, `router.greet` → `router.*`); what it brings besides is left out by `matches`.
pub(super) fn subscriptions(subjects: &[String]) -> Vec<String> {
    let first_of_two = |subject: &str| match subject.split_once('.') {
        Some((first, rest)) if first != "*" && rest != ">" && !rest.contains('.') => Some(first.to_owned()),
        _ => None,
    };
    let mut found = Vec::new();
    for subject in subjects {
        let first = first_of_two(subject);
        let kin = subjects.iter().filter(|other| first.is_some() && first_of_two(other) == first).count();
        let subscription = match first {
            Some(first) if kin > 1 => format!("{first}.*"),
            _ => subject.clone(),
        };
        if !found.contains(&subscription) {
            found.push(subscription);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_matches(pattern: &str, subject: &str, expected: bool) {
        assert_eq!(matches(pattern, subject), expected, "{pattern} against {subject}");
    }

    #[test]
    fn a_star_is_one_token_and_a_last_arrow_is_the_rest() {
        check_matches("router.register", "router.register", true);
        check_matches("router.register", "router.registers", false);
        check_matches("router.*", "router.register", true);
        check_matches("router.*", "router", false);
        check_matches("router.*", "router.register.now", false);
        check_matches("*.exited", "droplet.exited", true);
        check_matches(">", "a", true);
        check_matches("app.>", "app.sleep.now", true);
        check_matches("app.>", "app", false);
    }

    #[test]
    fn one_publishes_to_whole_subjects_only() {
        assert_eq!(check_subject("router.register"), Ok(()));
        assert_eq!(check_subject("_INBOX.a8.x"), Ok(()));
        for bad in ["", ".", "a.", ".a", "a..b", "a.*", ">", "a b", "a\r\nPUB", "a\tb", "a\u{0}"] {
            assert_eq!(check_subject(bad), Err(BadSubject(bad.into())));
        }
    }

    #[test]
    fn kin_share_a_subscription_so_that_their_order_survives() {
        let of = |subjects: &[&str]| subscriptions(&subjects.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            of(&["router.register", "router.unregister", "dea.heartbeat", "droplet.exited", "dea.shutdown"]),
            ["router.*", "dea.*", "droplet.exited"]
        );
        assert_eq!(of(&["app.*", "app.park"]), ["app.*"]);
        assert_eq!(of(&["app.>", "app.a.b", "app.c"]), ["app.>", "app.a.b", "app.c"]);
        assert_eq!(of(&["*.a", "*.b", ">"]), ["*.a", "*.b", ">"]);
    }
}

//! Who starts a sleeping app: the bus, a web hook, a program, or a Cloud Controller.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::reader::Reader;
use super::schema::{Key, Kind, Section, Shape, ms, restart};

/// The key of `[wake]` that chooses.
pub(super) const START: Key = restart(
    "start",
    Kind::Choice(&["nats", "webhook", "command", "cloudfoundry"]),
    "\"nats\"",
    "Who starts an app that somebody wants. `nats`: whoever listens to `app.wake` on the bus; the others are configured in the \
     section of their name and say themselves whether the start was taken on.",
);

const TIMEOUT: Kind = Kind::Duration { zero: "", least: ms(100), most: Duration::from_secs(600) };

pub(super) const WEBHOOK: Section = Section {
    path: "wake.webhook",
    shape: Shape::Always,
    doc: "`start = \"webhook\"`: a POST with the body of `app.wake` and an `Idempotency-Key`. A status of 2xx means that the start was \
          taken on. Any other means that it was not; if its body is JSON with a `message`, visitors read that.",
    keys: &[
        restart("url", Kind::Text("URL"), "\"\"", "Where to post, `http://` or `https://`. Required."),
        restart("token", Kind::Secret, "\"\"", "Sent as `Authorization: Bearer`. Empty: none."),
        restart(
            "token_file",
            Kind::Text("path"),
            "\"\"",
            "A file that holds the token, instead of `token`. A newline at its end is cut.",
        ),
        restart("ca", Kind::Text("path"), "\"\"", "PEM file of the authorities to trust. Empty: those of the system."),
        restart("timeout", TIMEOUT, "\"10s\"", "How long the answer may take."),
    ],
};

pub(super) const COMMAND: Section = Section {
    path: "wake.command",
    shape: Shape::Always,
    doc: "`start = \"command\"`: a program of this machine. Status 0 means that the start was taken on. The facts are in its \
          environment: `WEIGHBRIDGE_APP`, `WEIGHBRIDGE_URI`, `WEIGHBRIDGE_EPOCH`, `WEIGHBRIDGE_ATTEMPT`, `WEIGHBRIDGE_ROUTER`. What it \
          writes goes to the log. What it leaves running must write elsewhere.",
    keys: &[
        restart(
            "run",
            Kind::List("words"),
            "[]",
            "The program and its arguments. No shell reads them; `{app}`, `{uri}`, `{epoch}` and `{attempt}` are replaced. Required.",
        ),
        restart(
            "concurrency",
            Kind::Integer { least: 1, most: 256 },
            "4",
            "Programs that may run at once; others wait.",
        ),
        restart(
            "timeout",
            TIMEOUT,
            "\"60s\"",
            "How long it may run before it is killed and the start counts as failed.",
        ),
    ],
};

pub(super) const CLOUD_FOUNDRY: Section = Section {
    path: "wake.cloudfoundry",
    shape: Shape::Always,
    doc: "`start = \"cloudfoundry\"`: `POST /v3/apps/GUID/actions/start` of a Cloud Controller, with a token of its own or one that UAA \
          gives for client credentials (fetched anew before it expires).",
    keys: &[
        restart("api", Kind::Text("URL"), "\"\"", "The Cloud Controller, such as `https://api.example.com`. Required."),
        restart("uaa", Kind::Text("URL"), "\"\"", "UAA. Empty: where the Cloud Controller says that it is."),
        restart("client", Kind::Text("client id"), "\"\"", "The client that asks UAA for a token."),
        restart("client_secret", Kind::Secret, "\"\"", "Belongs to `client`."),
        restart(
            "client_secret_file",
            Kind::Text("path"),
            "\"\"",
            "A file that holds the secret, instead of `client_secret`. A newline at its end is cut.",
        ),
        restart("token", Kind::Secret, "\"\"", "A token, instead of a client."),
        restart(
            "token_file",
            Kind::Text("path"),
            "\"\"",
            "A file that holds the token, instead of `token`. A newline at its end is cut.",
        ),
        restart("ca", Kind::Text("path"), "\"\"", "PEM file of the authorities to trust. Empty: those of the system."),
        restart("timeout", TIMEOUT, "\"10s\"", "How long each answer may take."),
    ],
};

/// Who starts an app that somebody wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WakeStart {
    /// Whoever listens on the bus.
    #[default]
    Nats,
    /// A web service.
    Webhook(WebhookConfig),
    /// A program of this machine.
    Command(CommandConfig),
    /// A Cloud Controller.
    CloudFoundry(CloudFoundryConfig),
}

/// A web service that starts apps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Absolute, `http` or `https`.
    pub url: String,
    /// Sent as a bearer token.
    pub token: Option<Secret>,
    /// Whom to trust; `None`: whom the system trusts.
    pub ca: Option<PathBuf>,
    /// For the whole answer.
    pub timeout: Duration,
}

/// A program that starts apps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandConfig {
    /// Not empty.
    pub program: String,
    /// With places for the facts.
    pub arguments: Vec<String>,
    /// At least 1.
    pub concurrency: usize,
    /// How long one may run.
    pub timeout: Duration,
}

/// A Cloud Controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudFoundryConfig {
    /// Without a slash at its end.
    pub api: String,
    /// Without a slash at its end; `None`: the Cloud Controller knows.
    pub uaa: Option<String>,
    /// How to prove who we are.
    pub auth: CloudFoundryAuth,
    /// Whom to trust; `None`: whom the system trusts.
    pub ca: Option<PathBuf>,
    /// For each answer.
    pub timeout: Duration,
}

/// How to prove to a Cloud Controller who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudFoundryAuth {
    /// UAA gives tokens for this.
    Client {
        /// Its name.
        id: String,
        /// Its secret.
        secret: Secret,
    },
    /// A token that somebody else renews.
    Token(Secret),
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Nats,
    Webhook,
    Command,
    CloudFoundry,
}

/// Reads the choice from `[wake]` and what belongs to it. What is written about the other ways must be well-formed, too.
pub(super) fn read(wake: &mut Reader<'_, '_>) -> WakeStart {
    let ways = [
        ("nats", Way::Nats),
        ("webhook", Way::Webhook),
        ("command", Way::Command),
        ("cloudfoundry", Way::CloudFoundry),
    ];
    let way = wake.choice("start", &ways);
    let webhook = webhook(&mut wake.section("webhook"), matches!(way, Way::Webhook));
    let command = command(&mut wake.section("command"), matches!(way, Way::Command));
    let cloud_foundry = cloud_foundry(&mut wake.section("cloudfoundry"), matches!(way, Way::CloudFoundry));
    match way {
        Way::Nats => WakeStart::Nats,
        Way::Webhook => WakeStart::Webhook(webhook),
        Way::Command => WakeStart::Command(command),
        Way::CloudFoundry => WakeStart::CloudFoundry(cloud_foundry),
    }
}

fn webhook(section: &mut Reader<'_, '_>, is_chosen: bool) -> WebhookConfig {
    let url = needed_url(section, "url", is_chosen, "webhook");
    let token = section.secret("token", "token_file");
    must_fit_a_header(section, "token", token.as_ref());
    WebhookConfig { url, token, ca: section.path("ca"), timeout: section.duration("timeout") }
}

fn command(section: &mut Reader<'_, '_>, is_chosen: bool) -> CommandConfig {
    let mut words = section.list("run", |word| match word {
        word if word.contains('\0') => Err("must not hold a NUL".into()),
        word => Ok(word.to_owned()),
    });
    if words.first().is_none_or(String::is_empty) && (is_chosen || !words.is_empty()) {
        section.complain("run", "needs a program, such as [\"/usr/local/bin/start-app\", \"{app}\"]");
    }
    let arguments = words.split_off(words.len().min(1));
    CommandConfig {
        program: words.pop().unwrap_or_default(),
        arguments,
        concurrency: section.integer("concurrency") as usize,
        timeout: section.duration("timeout"),
    }
}

fn cloud_foundry(section: &mut Reader<'_, '_>, is_chosen: bool) -> CloudFoundryConfig {
    let without_slash = |url: String| url.trim_end_matches('/').to_owned();
    let api = without_slash(needed_url(section, "api", is_chosen, "cloudfoundry"));
    let uaa = section.parsed("uaa", url).filter(|uaa| !uaa.is_empty()).map(without_slash);
    let id = section.text("client");
    let secret = section.secret("client_secret", "client_secret_file");
    let token = section.secret("token", "token_file");
    must_fit_a_header(section, "token", token.as_ref());
    let auth = match (id.is_empty(), secret, token) {
        (false, Some(secret), None) => Some(CloudFoundryAuth::Client { id, secret }),
        (true, None, Some(token)) => Some(CloudFoundryAuth::Token(token)),
        (true, None, None) if is_chosen => {
            section.complain("", "needs a client with its client_secret, or a token");
            None
        }
        (true, None, None) => None,
        (false, None, None) => {
            section.complain("client", "a client needs a client_secret (or client_secret_file)");
            None
        }
        (true, Some(_), None) => {
            section.complain("client_secret", "a secret needs a client");
            None
        }
        (_, _, Some(_)) => {
            section.complain("token", "give a client with its client_secret, or a token, not both");
            None
        }
    };
    let auth = auth.unwrap_or(CloudFoundryAuth::Token(Secret::new(String::new())));
    CloudFoundryConfig { api, uaa, auth, ca: section.path("ca"), timeout: section.duration("timeout") }
}

/// A URL without which the way `start` leads nowhere.
fn needed_url(section: &mut Reader<'_, '_>, key: &str, is_chosen: bool, start: &str) -> String {
    let problems = section.context.problems.list.len();
    let url = section.parsed(key, url).unwrap_or_default();
    if is_chosen && url.is_empty() && section.context.problems.list.len() == problems {
        section.complain(key, format!("is needed for start = \"{start}\""));
    }
    url
}

fn must_fit_a_header(section: &mut Reader<'_, '_>, key: &str, secret: Option<&Secret>) {
    if secret.is_some_and(|secret| !secret.expose().bytes().all(|byte| byte.is_ascii_graphic())) {
        section.complain(key, "must be printable ASCII without spaces");
    }
}

/// Proves a URL for control calls; empty is none.
fn url(text: &str) -> Result<String, String> {
    let bad = || "is no URL; write \"https://host/path\"".to_owned();
    if text.is_empty() {
        return Ok(String::new());
    }
    let uri: http::Uri = text.parse().map_err(|_| bad())?;
    let authority = uri.authority().ok_or_else(bad)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.host().is_empty() || text.contains('#') {
        return Err(bad());
    }
    if authority.as_str().contains('@') {
        return Err("must not hold a login; there are keys for that".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::config::{CloudFoundryAuth, Config, Surroundings, WakeStart, load};

    #[track_caller]
    fn check_problem(wake: &str, expected: &str) {
        let text = format!("[wake]\n{wake}");
        let problems = load("w.toml", &text, &Surroundings::none()).expect_err("the file has a problem");
        assert_eq!(problems.to_string(), expected);
    }

    #[test]
    fn each_way_has_a_section_of_its_own() {
        let start = |wake: &str| Config::from_toml(&format!("[wake]\n{wake}")).expect("valid").wake.start;
        assert_eq!(start(""), WakeStart::Nats);
        let WakeStart::Webhook(webhook) =
            start("start = 'webhook'\nwebhook = { url = 'http://[::1]:8/x?y', token = 't' }")
        else {
            panic!("chosen")
        };
        assert_eq!((webhook.url.as_str(), webhook.ca, webhook.timeout.as_secs()), ("http://[::1]:8/x?y", None, 10));
        let WakeStart::Command(command) = start("start = 'command'\ncommand.run = ['a', 'b', '{app}']") else {
            panic!("chosen")
        };
        assert_eq!((command.program.as_str(), command.arguments.len(), command.concurrency), ("a", 2, 4));
        let WakeStart::CloudFoundry(cloud) = start(
            "start = 'cloudfoundry'\ncloudfoundry = { api = 'https://api.test/', client = 'c', client_secret = 's' }",
        ) else {
            panic!("chosen")
        };
        assert_eq!((cloud.api.as_str(), cloud.uaa), ("https://api.test", None));
        assert!(matches!(cloud.auth, CloudFoundryAuth::Client { id, .. } if id == "c"));
        assert_eq!(start("start = 'nats'\nwebhook.url = 'https://a.test'"), WakeStart::Nats);
    }

    #[test]
    fn what_a_way_needs_is_asked_for() {
        for (wake, expected) in [
            (
                "start = 'mail'",
                "w.toml:2: wake.start: must be one of nats, webhook, command, cloudfoundry, not \"mail\"",
            ),
            ("start = 'webhook'", "w.toml: wake.webhook.url: is needed for start = \"webhook\""),
            ("start = 'webhook'\nwebhook.url = ''", "w.toml:3: wake.webhook.url: is needed for start = \"webhook\""),
            (
                "webhook.url = 'ftp://a'",
                "w.toml:2: wake.webhook.url: \"ftp://a\" is no URL; write \"https://host/path\"",
            ),
            (
                "webhook.url = 'https://u:p@a'",
                "w.toml:2: wake.webhook.url: \"https://***@a\" must not hold a login; there are keys for that",
            ),
            (
                "webhook = { url = 'https://a', token = 'a b' }",
                "w.toml:2: wake.webhook.token: must be printable ASCII without spaces",
            ),
            (
                "start = 'command'",
                "w.toml: wake.command.run: needs a program, such as [\"/usr/local/bin/start-app\", \"{app}\"]",
            ),
            (
                "start = 'cloudfoundry'\ncloudfoundry.api = 'https://a'",
                "w.toml:3: wake.cloudfoundry: needs a client with its client_secret, or a token",
            ),
            (
                "start = 'cloudfoundry'\ncloudfoundry.token = 't'",
                "w.toml:3: wake.cloudfoundry.api: is needed for start = \"cloudfoundry\"",
            ),
            (
                "cloudfoundry.client = 'c'",
                "w.toml:2: wake.cloudfoundry.client: a client needs a client_secret (or client_secret_file)",
            ),
            ("cloudfoundry.client_secret = 'c'", "w.toml:2: wake.cloudfoundry.client_secret: a secret needs a client"),
            (
                "cloudfoundry = { token = 't', client = 'c', client_secret = 's' }",
                "w.toml:2: wake.cloudfoundry.token: give a client with its client_secret, or a token, not both",
            ),
        ] {
            check_problem(wake, expected);
        }
    }
}

//! Attacks the cookies of clients and apps: who is asked for is what was sent, and the cookie we set is one cookie, whatever
//! the app's own says.

use std::sync::{Arc, OnceLock};

use weighbridge::config::{StickyConfig, StickyMode};
use weighbridge::domain::balance::Live;
use weighbridge::domain::endpoint::{Endpoint, Facts};
use weighbridge::domain::identity::{Address, InstanceId};
use weighbridge::domain::moment::Moment;
use weighbridge::http1::{Head, Name};
use weighbridge::proxy::sticky::{asked_instance, pinning_cookie};

/// See `tests/fuzz/main.rs`. The first line is what a client sends in `Cookie`, each line behind it one `Set-Cookie`.
pub const TARGET: super::Target = super::Target {
    name: "cookies",
    seeds: &[
        b"__VCAP_ID__=one; JSESSIONID=x\nJSESSIONID=y; Path=/shop; Secure; SameSite=Lax",
        b"JSESSIONID=x; a=b; __VCAP_ID__=\"two\"\nJSESSIONID=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        b"__VCAP_ID__=; __VCAP_ID__=three\nJSESSIONID=y; Partitioned; HttpOnly; Domain=.test\n__VCAP_ID__=app",
        b"\nother=1; Path=/\nJSESSIONID",
    ],
    dictionary: &[
        b"__VCAP_ID__=",
        b"JSESSIONID=",
        b"; ",
        b";",
        b"=",
        b"\"",
        b"; Path=/",
        b"; Secure",
        b"; SameSite=None",
        b"; Max-Age=-1",
        b"; Expires=Wed, 09 Jun 2100 10:18:14 GMT",
        b"; Partitioned",
        b"\n",
        b"%3b",
        b"\xc3\xa9",
    ],
    check,
};

fn endpoint() -> &'static Endpoint {
    static ENDPOINT: OnceLock<Endpoint> = OnceLock::new();
    ENDPOINT.get_or_init(|| {
        let mut facts = Facts::at(Address::new("127.0.0.1", 80));
        facts.instance = InstanceId::new("here");
        Endpoint::new(1, facts, Arc::new(Live::new(Moment::START)), Arc::default())
    })
}

/// Panics when a promise is broken.
pub fn check(input: &[u8]) -> super::Ending {
    let mut lines = input.split(|byte| *byte == b'\n');
    let (mut request, mut response) = (Head::new(), Head::new());
    // What no head can carry never gets so far.
    if request.push_known(Name::Cookie, lines.next().unwrap_or_default()).is_err() {
        return "no value";
    }
    for line in lines {
        let _unfit = response.push_known(Name::SetCookie, line);
    }
    let modes = [StickyMode::Off, StickyMode::Always, StickyMode::Session];
    let [off, always, session] = modes.map(|mode| {
        let sticky = StickyConfig { mode, session_cookies: vec!["JSESSIONID".into()], secure: false };
        let asked = asked_instance(&request, &sticky);
        if let Some(asked) = &asked {
            let said = |line: &[u8]| line.windows(asked.len()).any(|part| part == asked.as_bytes());
            assert!(!asked.is_empty() && said(request.value(Name::Cookie).unwrap_or_default()), "nobody is made up");
        }
        let cookie = pinning_cookie(&response, asked.as_deref(), endpoint(), "/shop", &sticky);
        if let Some(cookie) = &cookie {
            check_cookie(cookie);
        }
        (asked, cookie)
    });
    assert_eq!(off, (None, None));
    assert!(session.0.is_none() || session.0 == always.0, "a session asks for whom it would ask anyway");
    match (session, always) {
        ((Some(_), Some(_)), _) => "asked and pinned",
        ((Some(_), None), _) => "asked",
        ((None, Some(_)), _) => "pinned",
        ((None, None), (Some(_), _)) => "asked without a session",
        ((None, None), (None, Some(_))) => "pinned without a session",
        ((None, None), (None, None)) => "nothing",
    }
}

/// One cookie for our instance and path, with attributes we know, fit for a head.
fn check_cookie(cookie: &str) {
    let mut parts = cookie.split("; ");
    assert_eq!(parts.next(), Some("__VCAP_ID__=here"), "{cookie}");
    let parts: Vec<&str> = parts.collect();
    assert_eq!(parts.iter().filter(|part| part.starts_with("Path=")).collect::<Vec<_>>(), [&"Path=/shop"], "{cookie}");
    assert!(parts.contains(&"HttpOnly"), "{cookie}");
    for part in parts {
        let name = part.split('=').next().unwrap_or_default();
        let known = ["HttpOnly", "Path", "SameSite", "Secure", "Partitioned", "Max-Age", "Expires"];
        assert!(known.contains(&name), "{cookie}");
    }
    Head::new().push_known(Name::SetCookie, cookie.as_bytes()).expect("it fits a head");
}

//! Session affinity by cookie: which instance a request asks for, and the cookie that makes the next one ask for it.

use cookie::{Cookie, Expiration};
use memchr::memmem;

use crate::config::{StickyConfig, StickyMode};
use crate::domain::endpoint::Endpoint;
use crate::http1::{Head, Name};

/// The cookie that holds an instance's `private_instance_id`.
pub const STICKY_COOKIE: &str = "__VCAP_ID__";

/// The instance that the request's cookies ask for. In session mode it counts only beside a session cookie.
pub fn asked_instance(request: &Head, sticky: &StickyConfig) -> Option<String> {
    let mut asked = None;
    let mut has_session = sticky.mode == StickyMode::Always;
    if sticky.mode == StickyMode::Off || !mentions_sticky_cookie(request) {
        return None;
    }
    for line in request.values(Name::Cookie) {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        for cookie in Cookie::split_parse(line).flatten() {
            has_session |= sticky.session_cookies.iter().any(|name| **name == *cookie.name());
            if cookie.name() == STICKY_COOKIE && asked.is_none() && !cookie.value().is_empty() {
                asked = Some(cookie.value().to_owned());
            }
        }
    }
    asked.filter(|_| has_session)
}

/// Most requests have no sticky cookie; finding that out must cost next to nothing.
fn mentions_sticky_cookie(request: &Head) -> bool {
    request.values(Name::Cookie).any(|line| memmem::find(line, STICKY_COOKIE.as_bytes()).is_some())
}

/// The `Set-Cookie` value that pins the client to `endpoint`, if this response calls for one: it sets a session cookie,
/// or the client had asked for another instance, or (always mode) for none. `asked` is what the client asked for.
pub fn pinning_cookie(
    response: &Head,
    asked: Option<&str>,
    endpoint: &Endpoint,
    context_path: &str,
    sticky: &StickyConfig,
) -> Option<String> {
    if sticky.mode == StickyMode::Off || endpoint.instance.is_empty() {
        return None;
    }
    let moved = asked.is_some_and(|asked| asked != endpoint.instance.as_str());
    let mut wanted = moved || (sticky.mode == StickyMode::Always && asked.is_none());
    if !wanted && !response.has(Name::SetCookie) {
        return None; // as with most responses
    }
    let mut pinning = Cookie::build((STICKY_COOKIE, endpoint.instance.as_str().to_owned()))
        .path(context_path.to_owned())
        .http_only(true)
        .build();
    if sticky.secure {
        pinning.set_secure(true);
    }
    for line in response.values(Name::SetCookie) {
        if !names_one_of(line, sticky) {
            continue;
        }
        let Some(set) = std::str::from_utf8(line).ok().and_then(|line| Cookie::parse(line).ok()) else { continue };
        if set.name() == STICKY_COOKIE {
            return None; // the app pins by itself
        }
        wanted = true;
        copy_attributes(&set, &mut pinning);
    }
    wanted.then(|| pinning.to_string())
}

fn names_one_of(line: &[u8], sticky: &StickyConfig) -> bool {
    let name = line.split(|&b| b == b'=').next().unwrap_or_default().trim_ascii();
    name == STICKY_COOKIE.as_bytes() || sticky.session_cookies.iter().any(|session| session.as_bytes() == name)
}

fn copy_attributes(session: &Cookie<'_>, pinning: &mut Cookie<'_>) {
    if session.secure() == Some(true) {
        pinning.set_secure(true);
    }
    if session.partitioned() == Some(true) {
        pinning.set_partitioned(true);
    }
    if let Some(same_site) = session.same_site() {
        pinning.set_same_site(same_site);
    }
    if let Some(Expiration::DateTime(when)) = session.expires() {
        pinning.set_expires(when);
    }
    if let Some(age) = session.max_age()
        && !age.is_positive()
    {
        pinning.set_max_age(age);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::domain::balance::Live;
    use crate::domain::endpoint::{Endpoint, Facts};
    use crate::domain::identity::{Address, InstanceId};
    use crate::domain::moment::Moment;

    fn sticky(mode: StickyMode) -> StickyConfig {
        StickyConfig { mode, session_cookies: vec!["JSESSIONID".into()], secure: false }
    }

    fn head(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::new();
        for (name, value) in fields {
            head.push(name, value.as_bytes()).expect("a valid field");
        }
        head
    }

    #[track_caller]
    fn check_asked(mode: StickyMode, cookie: &str, expected: Option<&str>) {
        assert_eq!(asked_instance(&head(&[("Cookie", cookie)]), &sticky(mode)).as_deref(), expected, "{cookie}");
    }

    #[test]
    fn a_session_is_pinned_only_beside_its_session_cookie() {
        check_asked(StickyMode::Session, "JSESSIONID=x; __VCAP_ID__=i-1", Some("i-1"));
        check_asked(StickyMode::Session, "a=b; __VCAP_ID__=i-1;JSESSIONID=", Some("i-1"));
        check_asked(StickyMode::Session, "__VCAP_ID__=i-1", None);
        check_asked(StickyMode::Always, "__VCAP_ID__=i-1", Some("i-1"));
        check_asked(StickyMode::Off, "JSESSIONID=x; __VCAP_ID__=i-1", None);
        check_asked(StickyMode::Session, "JSESSIONID=x; __VCAP_ID__=", None);
        check_asked(StickyMode::Session, "JSESSIONID=x; MY__VCAP_ID__=i-1", None);
    }

    #[track_caller]
    fn check_pinning(mode: StickyMode, set: &str, asked: Option<&str>, expected: Option<&str>) {
        let facts = Facts { instance: InstanceId::new("i-2"), ..Facts::at(Address::new("10.0.0.1", 80)) };
        let endpoint = Endpoint::new(1, facts, Arc::new(Live::new(Moment::START)), Arc::default());
        let response = head(&[("Set-Cookie", "other=1; Secure"), ("Set-Cookie", set)]);
        let cookie = pinning_cookie(&response, asked, &endpoint, "/Shop", &sticky(mode));
        assert_eq!(cookie.as_deref(), expected, "{set}");
    }

    #[test]
    fn the_cookie_takes_over_the_attributes_of_the_session() {
        let pinned = "__VCAP_ID__=i-2; HttpOnly; Path=/Shop";
        check_pinning(StickyMode::Session, "JSESSIONID=x", None, Some(pinned));
        check_pinning(
            StickyMode::Session,
            "JSESSIONID=x; Path=/; Secure; SameSite=None; Partitioned; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
            None,
            Some(
                "__VCAP_ID__=i-2; HttpOnly; SameSite=None; Partitioned; Secure; Path=/Shop; Max-Age=0; \
                 Expires=Thu, 01 Jan 1970 00:00:00 GMT",
            ),
        );
        check_pinning(StickyMode::Session, "JSESSIONID=x; Max-Age=3600; Domain=shop.test", None, Some(pinned));
    }

    #[test]
    fn the_cookie_comes_only_when_something_changed() {
        let pinned = Some("__VCAP_ID__=i-2; HttpOnly; Path=/Shop");
        check_pinning(StickyMode::Session, "cart=1", None, None);
        check_pinning(StickyMode::Session, "cart=1", Some("i-2"), None);
        check_pinning(StickyMode::Session, "cart=1", Some("i-1"), pinned);
        check_pinning(StickyMode::Always, "cart=1", None, pinned);
        check_pinning(StickyMode::Always, "cart=1", Some("i-2"), None);
        check_pinning(StickyMode::Off, "JSESSIONID=x", None, None);
        check_pinning(StickyMode::Session, "__VCAP_ID__=theirs", None, None);
    }
}

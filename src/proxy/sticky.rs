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

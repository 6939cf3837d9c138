//! A route as registrations write it: `host[/path]`, the host perhaps with a leading `*.`.

use std::fmt;
use std::hash::{Hash, Hasher};

use arcstr::ArcStr;

use super::rejection::{HOST_BYTES_MAX, Reason, Rejection, URI_BYTES_MAX};

/// A proven route. Two that differ in case only are equal.
#[derive(Clone, Debug)]
pub struct RouteUri {
    /// Lower case, without query and without one trailing slash.
    key: ArcStr,
    /// Where the path begins in `key`; its length if there is none.
    path_at: u16,
    /// The path in the case it was written in, if that differs.
    written_path: Option<ArcStr>,
}

impl RouteUri {
    /// Reads `host[/path]`. Everything from `?` is dropped, and so is one trailing `/`.
    ///
    /// # Errors
    /// `bad_uri` if the host is empty or too long, a `*` stands anywhere in it but as the leading `*.`, or there is a
    /// space or a control character; `too_large` if the whole is.
    pub fn parse(written: &str) -> Result<RouteUri, Rejection> {
        let refuse = |why: &str| Err(Rejection::new(Reason::BadUri, format!("route {written:?} {why}")));
        if written.len() > URI_BYTES_MAX {
            return Err(Rejection::new(Reason::TooLarge, format!("a route has more than {URI_BYTES_MAX} bytes")));
        }
        if written.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return refuse("has a space or a control character");
        }
        let kept = written.split_once('?').map_or(written, |(before, _)| before);
        let kept = kept.strip_suffix('/').unwrap_or(kept);
        let path_at = kept.find('/').unwrap_or(kept.len());
        let host = &kept[..path_at];
        let name = host.strip_prefix("*.").unwrap_or(host);
        if name.is_empty() {
            return refuse("has no host");
        }
        if host.len() > HOST_BYTES_MAX {
            return refuse("has a host that is too long");
        }
        if name.contains('*') {
            return refuse("has a * that is not the whole first label");
        }
        let path = &kept[path_at..];
        let written_path = path.bytes().any(|byte| byte.is_ascii_uppercase()).then(|| path.into());
        let key = if kept.bytes().any(|byte| byte.is_ascii_uppercase()) {
            kept.to_ascii_lowercase().into()
        } else {
            kept.into()
        };
        // URI_BYTES_MAX fits.
        Ok(RouteUri { key, path_at: path_at as u16, written_path })
    }

    /// The whole route in lower case: `shop.example.com`, `*.example.com/api`.
    pub fn as_str(&self) -> &str {
        &self.key
    }

    /// The same, to share it.
    pub fn shared(&self) -> &ArcStr {
        &self.key
    }

    /// Whether the host begins with `*.`.
    pub fn is_wildcard(&self) -> bool {
        self.key.starts_with("*.")
    }

    /// The host in lower case, without `*.`.
    pub fn name(&self) -> &str {
        let host = &self.key[..usize::from(self.path_at)];
        host.strip_prefix("*.").unwrap_or(host)
    }

    /// The path in lower case, empty for none.
    pub fn path(&self) -> &str {
        &self.key[usize::from(self.path_at)..]
    }

    /// The path as it was written, `/` for none: what a sticky cookie's `Path` is to be.
    pub fn context_path(&self) -> &str {
        match &self.written_path {
            Some(path) => path,
            None if self.path().is_empty() => "/",
            None => self.path(),
        }
    }
}

impl PartialEq for RouteUri {
    fn eq(&self, other: &RouteUri) -> bool {
        self.key == other.key
    }
}

impl Eq for RouteUri {}

impl Hash for RouteUri {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl fmt::Display for RouteUri {
    /// As it was written: lower-case host, path in its own case. It reads back as the same route.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key[..usize::from(self.path_at)])?;
        f.write_str(self.written_path.as_deref().unwrap_or(self.path()))?;
        // One trailing slash is dropped when it is read.
        f.write_str(if self.key.ends_with('/') { "/" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `written` becomes `key`, split into name and path, with the context path.
    #[track_caller]
    fn check(written: &str, key: &str, name: &str, path: &str, context_path: &str) {
        let uri = RouteUri::parse(written).expect("a good route");
        assert_eq!((uri.as_str(), uri.name(), uri.path(), uri.context_path()), (key, name, path, context_path));
        assert_eq!(RouteUri::parse(&uri.to_string()).map(|again| again.as_str().to_owned()), Ok(key.to_owned()));
    }

    #[track_caller]
    fn check_refused(written: &str) {
        assert_eq!(RouteUri::parse(written).map_err(|rejection| rejection.reason), Err(Reason::BadUri), "{written:?}");
    }

    #[test]
    fn a_host_alone_has_no_path() {
        check("shop.example.com", "shop.example.com", "shop.example.com", "", "/");
        check("shop.example.com/", "shop.example.com", "shop.example.com", "", "/");
        check("*.example.com", "*.example.com", "example.com", "", "/");
    }

    #[test]
    fn keys_are_lower_case_but_the_context_path_keeps_its_case() {
        check("Shop.Example.com/Cart", "shop.example.com/cart", "shop.example.com", "/cart", "/Cart");
        check("*.Example.com/API/V1/", "*.example.com/api/v1", "example.com", "/api/v1", "/API/V1");
    }

    #[test]
    fn the_query_and_one_trailing_slash_are_dropped() {
        check("a.com/foo/?b=c", "a.com/foo", "a.com", "/foo", "/foo");
        check("a.com?b=c/d", "a.com", "a.com", "", "/");
        check("a.com/foo//", "a.com/foo/", "a.com", "/foo/", "/foo/");
    }

    #[test]
    fn routes_that_differ_in_case_are_equal() {
        assert_eq!(RouteUri::parse("A.com/Foo"), RouteUri::parse("a.com/foo"));
    }

    #[test]
    fn routes_that_no_request_could_match_are_refused() {
        for written in
            ["", "/", "/foo", "?x", "*.", "*", "a.*.com", "*foo.com", "*.*.com", "a .com", "a.com/\r\nx", "\u{7f}"]
        {
            check_refused(written);
        }
        check_refused(&format!("{}.com", "a".repeat(300)));
        let long = format!("a.com/{}", "x".repeat(URI_BYTES_MAX));
        assert_eq!(RouteUri::parse(&long).map_err(|rejection| rejection.reason), Err(Reason::TooLarge));
    }
}

//! Who asks for a sleeping app: somebody in front of a browser, the loading page itself, a program, or somebody whose
//! requests shall not count.

use crate::domain::accept;

/// The media type by which the loading page asks how far the start is.
pub const POLL_TYPE: &str = "application/vnd.weighbridge.wake+json";

/// The facts of a request that tell who asks. Header values are as sent; several lines of one name are joined by `, `.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asking<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The path of the target; a query may follow, it is not looked at.
    pub path: &'a str,
    /// `Accept`.
    pub accept: Option<&'a [u8]>,
    /// `Sec-Fetch-Mode`.
    pub fetch_mode: Option<&'a [u8]>,
    /// Whether there is an `X-Requested-With` (scripts of the old school say so about themselves).
    pub requested_with: bool,
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
}

/// What a request for a sleeping app gets depends on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visitor {
    /// A person opens the address: the loading page.
    Navigation,
    /// The loading page asks how far the start is: a small JSON body.
    Poll,
    /// Anything else, from an API call to an image: held until the app answers.
    Program,
    /// A health checker or crawler: 503, nobody is woken, nothing is counted.
    Ignored,
}

impl Asking<'_> {
    /// Tells who asks.
    pub fn visitor(&self, ignore: &Ignore) -> Visitor {
        if ignore.covers(self.user_agent, self.path) {
            return Visitor::Ignored;
        }
        // Only these two can be asked again by a page that reloads itself; a POST must reach the app as it is.
        if !matches!(self.method, "GET" | "HEAD") {
            return Visitor::Program;
        }
        let accept = self.accept.unwrap_or_default();
        if accept::names(accept, POLL_TYPE) {
            return Visitor::Poll;
        }
        let navigates = match self.fetch_mode {
            Some(mode) => mode == b"navigate",
            None => {
                let wanted = accept::preferred(accept).unwrap_or_default();
                let html = ["text/html", "application/xhtml+xml"].iter().any(|html| wanted.eq_ignore_ascii_case(html));
                html && !self.requested_with
            }
        };
        if navigates { Visitor::Navigation } else { Visitor::Program }
    }
}

/// Whose requests neither wake an app nor count as its use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    /// Lower-cased parts of user agents.
    agents: Box<[Box<str>]>,
    paths: Box<[Path]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Path {
    Exactly(Box<str>),
    /// Ends with `/`.
    Below(Box<str>),
}

/// Why a list of agents and paths was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIgnore {
    /// It would match every user agent.
    #[error("an empty user agent would ignore everybody")]
    EmptyAgent,
    /// Paths start with a slash and may end with `/*`.
    #[error("{0:?} is not a path: write \"/health\" or \"/health/*\"")]
    NotAPath(String),
    /// Each entry costs time on every request.
    #[error("{0} entries are more than {ENTRIES_MAX}")]
    TooMany(usize),
}

/// Most entries of one list.
pub const ENTRIES_MAX: usize = 64;

impl Ignore {
    /// `agents`: parts of `User-Agent`, in any case. `paths`: `/health` is that path alone, `/health/*` is everything below
    /// it, `/*` everything.
    pub fn new<S: AsRef<str>>(agents: &[S], paths: &[S]) -> Result<Ignore, BadIgnore> {
        if let Some(&length) = [agents.len(), paths.len()].iter().find(|length| **length > ENTRIES_MAX) {
            return Err(BadIgnore::TooMany(length));
        }
        let agents = agents.iter().map(|agent| match agent.as_ref().trim() {
            "" => Err(BadIgnore::EmptyAgent),
            agent => Ok(agent.to_ascii_lowercase().into()),
        });
        let paths = paths.iter().map(|path| match path.as_ref() {
            path if !path.starts_with('/') || path.contains(['?', '#', ' ']) => {
                Err(BadIgnore::NotAPath(path.to_owned()))
            }
            path => Ok(match path.strip_suffix('*') {
                Some(above) if above.ends_with('/') => Path::Below(above.into()),
                _ => Path::Exactly(path.into()),
            }),
        });
        Ok(Ignore { agents: agents.collect::<Result<_, _>>()?, paths: paths.collect::<Result<_, _>>()? })
    }

    /// Whether nobody is ignored, which spares looking.
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty() && self.paths.is_empty()
    }

    /// Whether a request by `user_agent` for `path` (a query may follow) is to be ignored.
    pub fn covers(&self, user_agent: Option<&[u8]>, path: &str) -> bool {
        let agent = user_agent.unwrap_or_default();
        let path = path.split(['?', '#']).next().unwrap_or_default();
        self.agents.iter().any(|part| contains_ignoring_case(agent, part.as_bytes()))
            || self.paths.iter().any(|ignored| match ignored {
                Path::Exactly(exactly) => path == &**exactly,
                Path::Below(above) => path.starts_with(&**above),
            })
    }
}

fn contains_ignoring_case(text: &[u8], lower_part: &[u8]) -> bool {
    text.windows(lower_part.len()).any(|window| window.eq_ignore_ascii_case(lower_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request as text: `METHOD path`, then `name: value` lines.
    #[track_caller]
    fn check_visitor(request: &str, expected: Visitor) {
        let mut lines = request.lines().map(str::trim);
        let (method, path) = lines.next().and_then(|line| line.split_once(' ')).expect("METHOD path");
        let mut asking = Asking { method, path, ..Asking::default() };
        for line in lines {
            let (name, value) = line.split_once(": ").expect("name: value");
            match name {
                "accept" => asking.accept = Some(value.as_bytes()),
                "mode" => asking.fetch_mode = Some(value.as_bytes()),
                "agent" => asking.user_agent = Some(value.as_bytes()),
                "with" => asking.requested_with = true,
                other => panic!("{other}?"),
            }
        }
        let ignore = Ignore::new(&["kube-probe", "UptimeRobot"], &["/health", "/internal/*"]).expect("good lists");
        assert_eq!(asking.visitor(&ignore), expected, "{request}");
    }

    const BROWSER: &str = "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

    #[test]
    fn a_browser_that_opens_an_address_gets_the_page() {
        check_visitor(&format!("GET /\nmode: navigate\n{BROWSER}"), Visitor::Navigation);
        check_visitor(&format!("GET /cart?x=1\n{BROWSER}"), Visitor::Navigation);
        check_visitor(&format!("HEAD /\n{BROWSER}"), Visitor::Navigation);
        check_visitor("GET /\nmode: navigate", Visitor::Navigation);
        check_visitor("GET /\naccept: application/xhtml+xml", Visitor::Navigation);
    }

    #[test]
    fn everything_else_is_held() {
        check_visitor("GET /\naccept: */*", Visitor::Program);
        check_visitor("GET /", Visitor::Program);
        check_visitor(&format!("POST /order\nmode: navigate\n{BROWSER}"), Visitor::Program);
        check_visitor(&format!("GET /api\nwith: XMLHttpRequest\n{BROWSER}"), Visitor::Program);
        check_visitor(&format!("GET /api\nmode: cors\n{BROWSER}"), Visitor::Program);
        check_visitor("GET /logo.png\nmode: no-cors\naccept: image/avif,image/webp,*/*;q=0.8", Visitor::Program);
        check_visitor("GET /api\naccept: application/json, text/html", Visitor::Program);
        check_visitor("get /\nmode: navigate", Visitor::Program);
    }

    #[test]
    fn the_page_asks_by_its_own_media_type() {
        check_visitor("GET /cart\nmode: cors\naccept: application/vnd.weighbridge.wake+json", Visitor::Poll);
        check_visitor("POST /cart\naccept: application/vnd.weighbridge.wake+json", Visitor::Program);
    }

    #[test]
    fn monitors_and_their_paths_are_ignored_whatever_they_ask() {
        check_visitor(&format!("GET /\nagent: Kube-Probe/1.30\n{BROWSER}"), Visitor::Ignored);
        check_visitor("GET /\nagent: Mozilla/5.0 (compatible; uptimerobot/2.0)", Visitor::Ignored);
        check_visitor("GET /health", Visitor::Ignored);
        check_visitor("GET /health?deep=1", Visitor::Ignored);
        check_visitor("GET /healthy", Visitor::Program);
        check_visitor("GET /internal/metrics\naccept: application/vnd.weighbridge.wake+json", Visitor::Ignored);
        check_visitor("GET /internal", Visitor::Program);
    }

    #[test]
    fn lists_that_cannot_be_meant_are_refused() {
        let refused = |agent: &str, path: &str| Ignore::new(&[agent], &[path]).expect_err("refused");
        assert_eq!(refused(" ", "/"), BadIgnore::EmptyAgent);
        assert_eq!(refused("a", "health"), BadIgnore::NotAPath("health".to_owned()));
        assert_eq!(refused("a", "/a?b"), BadIgnore::NotAPath("/a?b".to_owned()));
        assert_eq!(Ignore::new(&["a"; 65], &[]), Err(BadIgnore::TooMany(65)));
        assert!(Ignore::default().is_empty() && !Ignore::default().covers(None, "/"));
        assert!(Ignore::new(&[], &["/*"]).expect("everything").covers(None, "/x"));
    }
}

//! Small bodies for what the router itself has to say: text for people at a terminal, JSON for programs, HTML where the
//! operator has a template for it.

use super::template::{BadTemplate, Kind, Template, Variable};
use crate::domain::accept;

/// What a template of the error page may use.
pub const VARIABLES: &[Variable] = &[
    Variable { name: "status", kind: Kind::Text, doc: "the status, `502`" },
    Variable { name: "reason", kind: Kind::Text, doc: "its usual phrase, `Bad Gateway`" },
    Variable { name: "error", kind: Kind::Text, doc: "the value of `X-Weighbridge-Error`" },
    Variable { name: "message", kind: Kind::Text, doc: "what went wrong, as a sentence" },
    Variable { name: "request_id", kind: Kind::Text, doc: "the value of `X-Vcap-Request-Id`" },
];

/// The content type of a page.
pub const HTML: &str = "text/html; charset=utf-8";

/// The content type of a sentence.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// What went wrong.
#[derive(Clone, Copy, Debug)]
pub struct ErrorFacts<'a> {
    /// The status of the answer.
    pub status: u16,
    /// Its usual phrase.
    pub reason: &'a str,
    /// The stable name of the error, in snake case.
    pub label: &'a str,
    /// What went wrong, as a sentence without its full stop.
    pub message: &'a str,
    /// By which the request is found in logs.
    pub request_id: &'a str,
}

/// Error bodies, with the operator's template if there is one.
#[derive(Clone, Debug, Default)]
pub struct ErrorPage {
    template: Option<Template>,
}

impl ErrorPage {
    /// With a page for browsers.
    ///
    /// # Errors
    /// What is wrong with the template.
    pub fn from_template(source: &[u8]) -> Result<ErrorPage, BadTemplate> {
        Template::parse(source, VARIABLES).map(|template| ErrorPage { template: Some(template) })
    }

    /// The content type and body that the client prefers by `Accept` (its lines joined by `, `).
    pub fn body(&self, facts: &ErrorFacts<'_>, accept: &[u8]) -> (&'static str, Vec<u8>) {
        let offers: &[&str] = match self.template {
            Some(_) => &["text/plain", "application/json", "text/html"],
            None => &["text/plain", "application/json"],
        };
        match (accept::choose(accept, offers), &self.template) {
            (2, Some(template)) => (HTML, html(template, facts).into_bytes()),
            (1, _) => ("application/json", json(facts)),
            _ => (TEXT, text(facts).into_bytes()),
        }
    }
}

fn text(facts: &ErrorFacts<'_>) -> String {
    let ErrorFacts { status, reason, message, request_id, .. } = facts;
    format!("{status} {reason}: {message}.\nRequest {request_id}.\n")
}

fn json(facts: &ErrorFacts<'_>) -> Vec<u8> {
    let ErrorFacts { status, label, message, request_id, .. } = facts;
    let said = serde_json::json!({"status": status, "error": label, "message": message, "request_id": request_id});
    said.to_string().into_bytes()
}

fn html(template: &Template, facts: &ErrorFacts<'_>) -> String {
    template.render(|name, page| match name {
        "status" => page.push_str(&facts.status.to_string()),
        "reason" => page.push_str(facts.reason),
        "error" => page.push_str(facts.label),
        "message" => page.push_str(facts.message),
        "request_id" => page.push_str(facts.request_id),
        unknown => unreachable!("{unknown} is none of VARIABLES, which a test renders one by one"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: ErrorFacts<'_> = ErrorFacts {
        status: 404,
        reason: "Not Found",
        label: "unknown_route",
        message: "no route for <b>",
        request_id: "5e1f",
    };

    const TEMPLATE: &[u8] = b"{{status}} {{reason}} {{error}} {{message}} {{request_id}}";

    #[track_caller]
    fn check_body(page: &ErrorPage, accept: &str, expected_type: &str, expected: &str) {
        let (content_type, body) = page.body(&FACTS, accept.as_bytes());
        assert_eq!((content_type, String::from_utf8_lossy(&body).as_ref()), (expected_type, expected), "{accept}");
    }

    #[test]
    fn everybody_gets_the_form_they_prefer() {
        let plain = ("text/plain; charset=utf-8", "404 Not Found: no route for <b>.\nRequest 5e1f.\n");
        let json = r#"{"error":"unknown_route","message":"no route for <b>","request_id":"5e1f","status":404}"#;
        let browser = "text/html,application/xhtml+xml,*/*;q=0.8";
        let without = ErrorPage::default();
        check_body(&without, "", plain.0, plain.1);
        check_body(&without, "*/*", plain.0, plain.1);
        check_body(&without, browser, plain.0, plain.1);
        check_body(&without, "application/json, text/plain, */*", "application/json", json);
        check_body(&without, "application/problem+json", "application/json", json);
        check_body(&without, "text/plain, application/json;q=0.9", plain.0, plain.1);
        let with = ErrorPage::from_template(TEMPLATE).expect("a good template");
        check_body(&with, "*/*", plain.0, plain.1);
        check_body(&with, "application/json", "application/json", json);
        let html = "404 Not Found unknown_route no route for &lt;b&gt; 5e1f";
        check_body(&with, browser, "text/html; charset=utf-8", html);
    }

    #[test]
    fn a_template_with_a_variable_of_the_other_page_is_refused() {
        assert!(matches!(ErrorPage::from_template(b"{{heading}}"), Err(BadTemplate::UnknownVariable { line: 1, .. })));
    }
}

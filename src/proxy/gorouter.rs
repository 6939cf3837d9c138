//! Errors in gorouter's words (its documentation and its users' scripts know them), for `compat = "gorouter"`.

use super::error::{Cause, ProxyError};
use crate::http1::{Head, Name};

/// The body that gorouter sends for `error`. It always ends with a newline.
pub fn body(error: &ProxyError, status: u16, reason: &str, request: &Head) -> Vec<u8> {
    let host = text(request, Name::Host);
    let said = match error {
        ProxyError::EmptyHost => "Request had empty Host header".into(),
        ProxyError::UnknownRoute => format!("Requested route ('{host}') does not exist."),
        ProxyError::NoEndpoints => format!("Requested route ('{host}') has no available endpoints."),
        ProxyError::ConnectionLimit => format!("Requested route ('{host}') has reached the connection limit."),
        ProxyError::MalformedInstanceHeader if request.has(Name::XCfAppInstance) => {
            "Invalid X-CF-App-Instance Header".into()
        }
        ProxyError::MalformedInstanceHeader => "Invalid X-CF-Process-Instance Header".into(),
        ProxyError::UnknownInstance => unknown_instance(request, &host),
        ProxyError::RouteService => "Support for route services is disabled.".into(),
        ProxyError::Endpoint(cause) if has_only_a_status(*cause) => String::new(),
        ProxyError::Endpoint(_) | ProxyError::EndpointTimeout => {
            "Registered endpoint failed to handle the request.".into()
        }
        ProxyError::AppWaking { .. } | ProxyError::AppFailed { .. } => format!("{error}."), // gorouter knows no such thing
        ProxyError::BadRequest(_)
        | ProxyError::HeadTooLarge(_)
        | ProxyError::BodyTooLarge
        | ProxyError::ClientTimeout
        | ProxyError::ConnectMethod
        | ProxyError::Crowded(_)
        | ProxyError::TraceMethod
        | ProxyError::ClientGone => String::new(),
    };
    let colon = if said.is_empty() { "" } else { ": " };
    format!("{status} {reason}{colon}{said}\n").into_bytes()
}

/// gorouter says no more than the status of TLS towards an instance.
fn has_only_a_status(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::NotTls | Cause::BadCertificate | Cause::NoAuthorities | Cause::WrongName | Cause::CertificateWanted
    )
}

fn unknown_instance(request: &Head, host: &str) -> String {
    let (name, kind) = match request.has(Name::XCfAppInstance) {
        true => (Name::XCfAppInstance, "guid"),
        false => (Name::XCfProcessInstance, "process guid"),
    };
    let asked = text(request, name);
    let (guid, index) = asked.split_once(':').unwrap_or((&asked, ""));
    format!("Requested instance ('{index}') with {kind} ('{guid}') does not exist for route ('{host}')")
}

fn text(request: &Head, name: Name) -> String {
    String::from_utf8_lossy(request.value(name).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: ProxyError, reason: &str, fields: &[(Name, &str)], expected: &str) {
        let mut request = Head::new();
        for (name, value) in fields {
            request.push_known(*name, value.as_bytes()).expect("a plain value");
        }
        let body = body(&error, error.status(502), reason, &request);
        assert_eq!(String::from_utf8_lossy(&body), format!("{expected}\n"));
    }

    #[test]
    fn errors_are_told_in_gorouters_words() {
        let host = (Name::Host, "shop.test:80");
        let told = [
            (ProxyError::UnknownRoute, "Not Found", "404 Not Found: Requested route ('shop.test:80') does not exist."),
            (
                ProxyError::ConnectionLimit,
                "Service Unavailable",
                "503 Service Unavailable: Requested route ('shop.test:80') has reached the connection limit.",
            ),
            (
                ProxyError::EndpointTimeout,
                "Bad Gateway",
                "502 Bad Gateway: Registered endpoint failed to handle the request.",
            ),
            (
                ProxyError::Endpoint(Cause::Reset),
                "Bad Gateway",
                "502 Bad Gateway: Registered endpoint failed to handle the request.",
            ),
            (ProxyError::Endpoint(Cause::WrongName), "Service Unavailable", "503 Service Unavailable"),
            (ProxyError::Endpoint(Cause::NotTls), "SSL Handshake Failed", "525 SSL Handshake Failed"),
            (ProxyError::ClientTimeout, "Request Timeout", "408 Request Timeout"),
        ];
        for (error, reason, expected) in told {
            check(error, reason, &[host], expected);
        }
        check(ProxyError::EmptyHost, "Bad Request", &[], "400 Bad Request: Request had empty Host header");
        check(
            ProxyError::UnknownInstance,
            "Bad Request",
            &[host, (Name::XCfAppInstance, "guid:7")],
            "400 Bad Request: Requested instance ('7') with guid ('guid') does not exist for route ('shop.test:80')",
        );
        check(
            ProxyError::UnknownInstance,
            "Bad Request",
            &[host, (Name::XCfProcessInstance, "guid")],
            "400 Bad Request: Requested instance ('') with process guid ('guid') does not exist for route ('shop.test:80')",
        );
        check(
            ProxyError::MalformedInstanceHeader,
            "Bad Request",
            &[host, (Name::XCfProcessInstance, ":")],
            "400 Bad Request: Invalid X-CF-Process-Instance Header",
        );
    }
}

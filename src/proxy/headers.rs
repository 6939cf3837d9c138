//! What the proxy changes in heads on their way: hop-by-hop fields go, the forwarded ones and ours come.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::answer;
use super::ids;
use super::settings::Settings;
use super::trace;
use crate::config::{ClientCertHeader, ForwardedProto};
use crate::domain::endpoint::Endpoint;
use crate::http1::head::tokens;
use crate::http1::{Head, Method, Name, NameSet, Refusal, Version, framing, write};

/// Fields that end at the next hop (RFC 9110 section 7.6.1). `Transfer-Encoding` is one too, but bodies keep their
/// framing from hop to hop; where they do not, the field is changed there.
const HOP_BY_HOP: NameSet = NameSet::of(&[
    Name::Connection,
    Name::KeepAlive,
    Name::ProxyConnection,
    Name::Te,
    Name::Upgrade,
    Name::Http2Settings,
]);

/// Fields that say which instance answers: ours alone, written for each attempt.
const OF_INSTANCE: NameSet = NameSet::of(&[Name::XCfApplicationId, Name::XCfInstanceId, Name::XCfInstanceIndex]);

/// Fields that `Connection` must not name: without them a request would mean something else, or lose what this router or
/// one in front of it has said.
const PROTECTED: NameSet = NameSet::of(&[
    Name::Authorization,
    Name::B3,
    Name::ContentLength,
    Name::Cookie,
    Name::Forwarded,
    Name::Host,
    Name::SetCookie,
    Name::Traceparent,
    Name::Tracestate,
    Name::TransferEncoding,
    Name::XB3Flags,
    Name::XB3ParentSpanId,
    Name::XB3Sampled,
    Name::XB3SpanId,
    Name::XB3TraceId,
    Name::XCfAppInstance,
    Name::XCfProcessInstance,
    Name::XForwardedClientCert,
    Name::XForwardedFor,
    Name::XForwardedHost,
    Name::XForwardedProto,
    Name::XRequestStart,
    Name::XVcapRequestId,
])
.and(OF_INSTANCE);

/// What is known about the client's side of a request.
#[derive(Clone, Copy, Debug)]
pub struct ClientFacts<'a> {
    /// Where the connection comes from.
    pub address: IpAddr,
    /// The same as text.
    pub address_text: &'a str,
    /// Whether it came over TLS.
    pub secure: bool,
    /// The certificate it has shown: DER in Base64.
    pub certificate: Option<&'a str>,
    /// The request's id: a UUID in its usual form.
    pub request_id: [u8; 36],
    /// Random bits that name our part of a trace.
    pub span: u64,
    /// When the request came, in milliseconds of the Unix epoch.
    pub unix_millis: u64,
}

/// Makes a client's head fit for any instance: done once per request, whatever the number of attempts.
///
/// # Errors
/// When `Connection` lists too many options, or the head becomes too large by what is added.
pub fn towards_instances(head: &mut Head, client: &ClientFacts<'_>, settings: &Settings) -> Result<(), Refusal> {
    // Looked at before they go, as `Connection` lists them.
    let wants_trailers = head.lists(Name::Te, "trailers");
    let upgrade = asked_upgrade(head);
    drop_listed(head, settings)?;
    head.remove_lookalikes(|known, name| is_protected(known, name, settings));
    if let (Method::Options | Method::Trace, Some(left)) = (head.method_kind(), forwards_left(head)) {
        head.set(Name::MaxForwards, left.saturating_sub(1).to_string().as_bytes())?;
    }
    if head.version() == Version::Http10 {
        head.remove(Name::Expect); // it means nothing there (RFC 9110 section 10.1.1)
    }
    head.ask_as_origin()?;
    // Whatever the client speaks, it is we who speak to the instance (RFC 9110 section 6.2).
    head.set_version(Version::Http11);
    let believed = settings.trusts(client.address);
    if !believed && !settings.trusted_proxies.is_empty() {
        const CLAIMS: NameSet = NameSet::of(&[Name::XForwardedFor, Name::XForwardedHost, Name::Forwarded]);
        head.remove_all(CLAIMS);
    }
    let proto = forwarded_proto(head, client.secure, believed, settings.forwarded.proto);
    const REPLACED: NameSet = NameSet::of(&[Name::XForwardedProto, Name::XVcapRequestId]);
    head.remove_all(HOP_BY_HOP.and(OF_INSTANCE).and(REPLACED));

    forward_certificate(head, client.certificate, settings.forwarded.client_cert)?;
    if head.has(Name::XForwardedFor) {
        head.append_to_list(Name::XForwardedFor, client.address_text.as_bytes())?;
    } else {
        head.push_ours(Name::XForwardedFor, client.address_text.as_bytes())?;
    }
    head.push_ours(Name::XForwardedProto, proto)?;
    if settings.forwarded.x_forwarded_host && !(believed && head.has(Name::XForwardedHost)) {
        head.set_as(Name::XForwardedHost, Name::Host)?;
    }
    if settings.forwarded.rfc7239 {
        let element = forwarded_element(head, client.address, proto);
        head.append_to_list(Name::Forwarded, &element)?;
    }
    if !head.has(Name::XRequestStart) {
        head.push_fixed(Name::XRequestStart, &ids::millis(client.unix_millis))?;
    }
    head.push_fixed(Name::XVcapRequestId, &client.request_id)?;
    trace::pass_on(head, &settings.tracing, &client.request_id, client.span)?;
    if wants_trailers {
        head.push_known(Name::Te, b"trailers")?;
    }
    if let Some(protocols) = &upgrade {
        head.push_known(Name::Upgrade, protocols)?;
    }
    match (wants_trailers, upgrade.is_some()) {
        (false, false) => Ok(()),
        (true, false) => head.push_known(Name::Connection, b"TE"),
        (false, true) => head.push_known(Name::Connection, b"Upgrade"),
        (true, true) => head.push_known(Name::Connection, b"TE, Upgrade"),
    }
}

/// The protocols that the sender of `head` offers or takes up instead of HTTP/1.1, as one list. HTTP/2 is none of them:
/// behind such an upgrade requests would pass us unseen (RFC 9113 has abolished it, too).
pub fn asked_upgrade(head: &Head) -> Option<Vec<u8>> {
    let asks = head.version() == Version::Http11
        && head.has(Name::Upgrade)
        && head.lists(Name::Connection, "upgrade")
        && !head.lists(Name::Upgrade, "h2c");
    asks.then(|| head.values(Name::Upgrade).collect::<Vec<_>>().join(b", ".as_slice()))
}

/// Whether `response` takes up protocols that `request` offers, and no others (RFC 9110 section 7.8).
pub fn takes_up_offer(request: &Head, response: &Head) -> bool {
    let offered = |protocol: &[u8]| {
        let mut offers = request.values(Name::Upgrade).flat_map(tokens);
        offers.any(|offer| offer.eq_ignore_ascii_case(protocol))
    };
    let Some(taken) = asked_upgrade(response) else { return false };
    tokens(&taken).next().is_some() && tokens(&taken).all(offered)
}

/// Writes a request to one instance, which is told who it is. What a registration says and a header cannot carry is left out.
pub fn write_to_instance(request: &Head, endpoint: &Endpoint, out: &mut Vec<u8>) {
    let told = [
        (Name::XCfApplicationId, endpoint.app.as_str()),
        (Name::XCfInstanceId, endpoint.instance.as_str()),
        (Name::XCfInstanceIndex, &endpoint.index),
    ];
    let fit = if endpoint.is_plain { told } else { told.map(|(name, value)| (name, write::fit(value))) };
    write::request_saying(request, fit, out);
}

/// Makes an instance's final head, which came at `unix`, fit for the client.
///
/// # Errors
/// When `Connection` lists too many options, or the head becomes too large by what is added.
pub fn towards_client(
    head: &mut Head,
    request_id: &[u8; 36],
    unix: Duration,
    settings: &Settings,
) -> Result<(), Refusal> {
    let upgrade = if head.status() == 101 { asked_upgrade(head) } else { None };
    drop_listed(head, settings)?;
    head.set_version(Version::Http11); // ours: an old instance does not make the router old
    head.remove_all(HOP_BY_HOP.and(NameSet::of(&[Name::XVcapRequestId])));
    if head.status() < 200 || head.status() == 204 {
        head.remove(Name::ContentLength); // `framing` has let a zero through that must not be there
    }
    if !head.has(Name::Date) {
        head.push_known(Name::Date, answer::date(unix).to_string().as_bytes())?; // RFC 9110 section 6.6.1
    }
    if let Some(protocol) = upgrade {
        head.push_known(Name::Connection, b"Upgrade")?;
        head.push_known(Name::Upgrade, &protocol)?;
    }
    for name in &settings.rewrite.remove_response_headers {
        head.remove_named(name.as_bytes());
    }
    for (name, value) in &settings.rewrite.add_response_headers {
        if head.value_of(name).is_none() {
            head.push(name, value.as_bytes())?;
        }
    }
    head.push_fixed(Name::XVcapRequestId, request_id)
}

/// Makes an instance's interim head (100, 103…) fit for the client.
///
/// # Errors
/// When it announces a body, or `Connection` lists too many options.
pub fn interim_towards_client(head: &mut Head, settings: &Settings) -> Result<(), Refusal> {
    framing::of_response(head, Method::Get)?;
    drop_listed(head, settings)?;
    head.set_version(Version::Http11);
    head.remove_all(HOP_BY_HOP.and(NameSet::of(&[Name::ContentLength])));
    Ok(())
}

/// How many more hops a request of OPTIONS or TRACE may take (RFC 9110 section 7.6.2); `None`: any number, which is also
/// what a value means that is no number or is given twice.
pub fn forwards_left(head: &Head) -> Option<u64> {
    let value = head.value(Name::MaxForwards).filter(|_| !head.repeats(Name::MaxForwards))?;
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    // Beyond what fits the largest that does is as good.
    is_number.then(|| std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX))
}

/// Whether `head` carries a method that may be repeated without harm, or says so by `Idempotency-Key`.
pub fn is_idempotent(head: &Head) -> bool {
    match head.method_kind() {
        Method::Get | Method::Head | Method::Options | Method::Put | Method::Delete | Method::Trace => true,
        Method::Post | Method::Patch | Method::Connect | Method::Other => head.has(Name::IdempotencyKey),
    }
}

fn drop_listed(head: &mut Head, settings: &Settings) -> Result<(), Refusal> {
    head.remove_listed(|known, name| is_protected(known, name, settings))
}

fn is_protected(known: Name, name: &[u8], settings: &Settings) -> bool {
    PROTECTED.contains(known)
        || settings.forwarded.protect.iter().any(|protected| protected.as_bytes().eq_ignore_ascii_case(name))
}

fn forwarded_proto(head: &Head, secure: bool, believed: bool, mode: ForwardedProto) -> &'static [u8] {
    let ours: &[u8] = if secure { b"https" } else { b"http" };
    let said = || match head.value(Name::XForwardedProto) {
        Some(said) if said.eq_ignore_ascii_case(b"https") => Some(b"https".as_slice()),
        Some(said) if said.eq_ignore_ascii_case(b"http") => Some(b"http".as_slice()),
        _ => None,
    };
    match mode {
        ForwardedProto::Https => b"https",
        ForwardedProto::Keep => said().unwrap_or(ours),
        ForwardedProto::Sanitize if believed => said().unwrap_or(ours),
        ForwardedProto::Sanitize => ours,
    }
}

/// `X-Forwarded-Client-Cert`: what came is believed only where the operator says so.
fn forward_certificate(head: &mut Head, shown: Option<&str>, mode: ClientCertHeader) -> Result<(), Refusal> {
    match (mode, shown) {
        (ClientCertHeader::AlwaysForward, _) | (ClientCertHeader::Forward, Some(_)) => Ok(()),
        (ClientCertHeader::SanitizeSet, Some(certificate)) => {
            head.set(Name::XForwardedClientCert, certificate.as_bytes())
        }
        (ClientCertHeader::Forward | ClientCertHeader::SanitizeSet, None) => {
            head.remove(Name::XForwardedClientCert);
            Ok(())
        }
    }
}

/// Our element of `Forwarded` (RFC 7239 section 4).
fn forwarded_element(head: &Head, address: IpAddr, proto: &[u8]) -> Vec<u8> {
    let mut element = Vec::with_capacity(96);
    match address {
        IpAddr::V4(ip) => write!(element, "for={ip}"),
        IpAddr::V6(ip) => write!(element, "for=\"[{ip}]\""),
    }
    .expect("a vector takes every write");
    if let Some(host) = head.value(Name::Host)
        && !host.iter().any(|byte| matches!(byte, b'"' | b'\\'))
    {
        element.extend_from_slice(b";host=\"");
        element.extend_from_slice(host);
        element.push(b'"');
    }
    element.extend_from_slice(b";proto=");
    element.extend_from_slice(proto);
    element
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::http1::{Limits, parse};

    /// Without traces, which have tests of their own.
    fn settings(toml: &str) -> Settings {
        Settings::of(
            &Config::from_toml(&format!("tracing.w3c = false\n{toml}")).expect("the settings of a test are valid"),
            Default::default(),
        )
    }

    fn request(fields: &str) -> Head {
        let text = format!("GET /a?b HTTP/1.1\r\nHost: shop.test\r\n{}\r\n", fields.replace('\n', "\r\n"));
        let mut head = Head::new();
        parse::request(text.as_bytes(), &Limits::default(), &mut head).expect("the request of a test is valid");
        head
    }

    fn lines(head: &Head) -> String {
        head.fields()
            .map(|field| {
                let (name, value) = (String::from_utf8_lossy(field.name), String::from_utf8_lossy(field.value));
                format!("{name}: {value}\n")
            })
            .collect()
    }

    /// What becomes of a request's fields on their way to an instance, from a client at 10.0.0.9.
    #[track_caller]
    fn check_request(toml: &str, fields: &str, expected: &str) {
        let mut head = request(fields);
        let client = ClientFacts {
            address: "10.0.0.9".parse().expect("an address"),
            address_text: "10.0.0.9",
            secure: false,
            certificate: None,
            request_id: *b"00000000-0000-4000-8000-000000000000",
            span: 1,
            unix_millis: 1_700_000_000_123,
        };
        towards_instances(&mut head, &client, &settings(toml)).expect("nothing is too large");
        assert_eq!(lines(&head), expected);
    }

    #[test]
    fn a_plain_request_is_told_who_asked_and_how() {
        check_request(
            "",
            "Accept: */*\n",
            "Host: shop.test\nAccept: */*\nX-Forwarded-For: 10.0.0.9\nX-Forwarded-Proto: http\n\
             X-Forwarded-Host: shop.test\nX-Request-Start: 1700000000123\n\
             X-Vcap-Request-Id: 00000000-0000-4000-8000-000000000000\n",
        );
    }

    const QUIET: &str = "forwarded.x_forwarded_host = false";
    const ENDING: &str = "X-Request-Start: 1700000000123\nX-Vcap-Request-Id: 00000000-0000-4000-8000-000000000000\n";

    #[test]
    fn the_chain_of_proxies_grows_and_what_only_we_may_say_is_replaced() {
        check_request(
            QUIET,
            "X-Forwarded-For: 1.1.1.1\nX-Forwarded-For: 2.2.2.2\nX-Forwarded-Proto: https\nX-Vcap-Request-Id: mine\n\
             X-CF-InstanceID: forged\nX-Request-Start: 5\n",
            "Host: shop.test\nX-Request-Start: 5\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.9\nX-Forwarded-Proto: http\n\
             X-Vcap-Request-Id: 00000000-0000-4000-8000-000000000000\n",
        );
    }

    #[test]
    fn only_trusted_proxies_are_believed_once_some_are_named() {
        let claims = "X-Forwarded-For: 1.1.1.1\nX-Forwarded-Proto: https\nForwarded: for=1.1.1.1\n";
        check_request(
            &format!("{QUIET}\nhttp.trusted_proxies = [\"192.168.0.0/16\"]"),
            claims,
            &format!("Host: shop.test\nX-Forwarded-For: 10.0.0.9\nX-Forwarded-Proto: http\n{ENDING}"),
        );
        check_request(
            &format!("{QUIET}\nhttp.trusted_proxies = [\"10.0.0.0/8\"]\nforwarded.rfc7239 = true"),
            claims,
            &format!(
                "Host: shop.test\nX-Forwarded-For: 1.1.1.1, 10.0.0.9\nX-Forwarded-Proto: https\n\
                 Forwarded: for=1.1.1.1, for=10.0.0.9;host=\"shop.test\";proto=https\n{ENDING}"
            ),
        );
    }

    #[test]
    fn hop_by_hop_fields_end_here_and_connection_cannot_take_ours_with_it() {
        check_request(
            QUIET,
            "Connection: X-Mine, X-Forwarded-For, Host, close\nX-Mine: 1\nX-Forwarded-For: 1.1.1.1\nKeep-Alive: 5\n\
             Proxy-Connection: close\nTE: gzip\nUpgrade: h3\n",
            &format!("Host: shop.test\nX-Forwarded-For: 1.1.1.1, 10.0.0.9\nX-Forwarded-Proto: http\n{ENDING}"),
        );
    }

    #[test]
    fn protected_fields_stay_and_trailers_may_be_asked_for() {
        check_request(
            &format!("{QUIET}\nforwarded.protect = [\"X-Mine\"]"),
            "Connection: x-mine, te\nX-Mine: 1\nTE: trailers, gzip\n",
            &format!(
                "Host: shop.test\nX-Mine: 1\nX-Forwarded-For: 10.0.0.9\nX-Forwarded-Proto: http\n{ENDING}TE: trailers\n\
                 Connection: TE\n"
            ),
        );
    }

    #[test]
    fn the_scheme_can_be_kept_or_fixed() {
        let proto = |toml: &str, said: &str| {
            let head = request(&format!("X-Forwarded-Proto: {said}\n"));
            let mode = settings(toml).forwarded.proto;
            String::from_utf8_lossy(forwarded_proto(&head, false, false, mode)).into_owned()
        };
        assert_eq!(proto("forwarded.proto = \"keep\"", "https"), "https");
        assert_eq!(proto("forwarded.proto = \"keep\"", "gopher"), "http");
        assert_eq!(proto("forwarded.proto = \"https\"", "http"), "https");
        assert_eq!(proto("", "https"), "http");
    }

    #[test]
    fn a_response_loses_and_gains_what_the_operator_says() {
        let toml = "[rewrite]\nremove_response_headers = [\"X-Powered-By\"]\n\
                    add_response_headers = { \"X-Frame-Options\" = \"DENY\", \"Server\" = \"none\" }";
        let mut head = Head::new();
        let text = b"HTTP/1.1 200 OK\r\nx-powered-by: php\r\nServer: app\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
                     X-Vcap-Request-Id: forged\r\n\r\n";
        parse::response(text, &Limits::default(), &mut head).expect("a valid response");
        let (id, unix) = (b"00000000-0000-4000-8000-000000000000", Duration::from_secs(784_111_777));
        towards_client(&mut head, id, unix, &settings(toml)).expect("small enough");
        assert_eq!(
            lines(&head),
            "Server: app\nDate: Sun, 06 Nov 1994 08:49:37 GMT\nX-Frame-Options: DENY\n\
             X-Vcap-Request-Id: 00000000-0000-4000-8000-000000000000\n"
        );
    }

    /// What an instance learns of certificates where the client says `claims`, has shown `shown`, in each of the modes
    /// sanitize_set, forward and always_forward.
    #[track_caller]
    fn check_certificate(claims: &str, shown: Option<&str>, expected: [Option<&str>; 3]) {
        for (mode, expected) in ["sanitize_set", "forward", "always_forward"].into_iter().zip(expected) {
            let mut head = request(claims);
            let mode = settings(&format!("forwarded.client_cert = \"{mode}\"")).forwarded.client_cert;
            forward_certificate(&mut head, shown, mode).expect("small enough");
            let found: Vec<_> = head.values(Name::XForwardedClientCert).map(String::from_utf8_lossy).collect();
            assert_eq!(found.first().map(|value| &**value), expected, "{mode:?}");
            assert!(found.len() <= 1, "{mode:?}: {found:?}");
        }
    }

    #[test]
    fn certificates_of_clients_are_told_as_the_operator_trusts() {
        let claims = "X-Forwarded-Client-Cert: claimed\n";
        check_certificate("", None, [None, None, None]);
        check_certificate("", Some("shown"), [Some("shown"), None, None]);
        check_certificate(claims, None, [None, None, Some("claimed")]);
        check_certificate(claims, Some("shown"), [Some("shown"), Some("claimed"), Some("claimed")]);
    }

    #[test]
    fn posts_are_idempotent_only_if_they_say_so() {
        assert!(is_idempotent(&request("")));
        let mut post = Head::new();
        post.set_request("POST", "/").expect("a valid request line");
        assert!(!is_idempotent(&post));
        post.push("Idempotency-Key", b"k").expect("a valid field");
        assert!(is_idempotent(&post));
    }
}

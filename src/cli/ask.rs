//! Questions to a running router, and messages for its bus.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

use super::{Failure, Router, load, print, show};
use crate::adapters::admin::client::Client;
use crate::adapters::bus;
use crate::config::Config;
use crate::domain::dice::Dice;
use crate::domain::protocol::envelope::Outgoing;

/// Publishes over NATS if that is configured and no router is named, else through the router.
pub(super) fn publish(router: &Router, subject: String, message: String) -> Result<(), Failure> {
    let config = load::config(router.file.config.as_deref())?;
    let by = match &config.nats {
        Some(nats) if router.admin.is_none() => {
            let outgoing = Outgoing { subject: subject.clone(), payload: Bytes::from(message), reply: None };
            let dice = Dice::seeded(uuid::Uuid::new_v4().as_u64_pair().0);
            wait(bus::publish(nats, outgoing, dice))??
        }
        _ => {
            wait(client(router, &config).publish(&subject, message))??;
            "the router".into()
        }
    };
    print(&format!("published on {subject} by {by}\n"))
}

/// The route table, for people or as JSON.
pub(super) fn routes(router: &Router, json: bool) -> Result<String, Failure> {
    let config = load::config(router.file.config.as_deref())?;
    let answer = wait(client(router, &config).routes())??;
    if json { Ok(text(&answer)) } else { Ok(show::routes(&serde_json::from_slice(&answer)?)) }
}

/// The apps, for people or as JSON.
pub(super) fn apps(router: &Router, json: bool) -> Result<String, Failure> {
    let config = load::config(router.file.config.as_deref())?;
    let answer = wait(client(router, &config).apps())??;
    if json { Ok(text(&answer)) } else { Ok(show::apps(&serde_json::from_slice(&answer)?)) }
}

/// Puts an app to sleep.
pub(super) fn sleep(router: &Router, app: &str, uris: &[String]) -> Result<String, Failure> {
    let config = load::config(router.file.config.as_deref())?;
    let wish = serde_json::json!({ "uris": uris }).to_string();
    wait(client(router, &config).sleep(app, wish))??;
    Ok(format!("{app} is put to sleep\n"))
}

/// Has an app started.
pub(super) fn wake(router: &Router, app: &str) -> Result<String, Failure> {
    let config = load::config(router.file.config.as_deref())?;
    wait(client(router, &config).wake(app))??;
    Ok(format!("{app} is being woken\n"))
}

/// Where a request would go, for people or as JSON.
pub(super) fn explain(router: &Router, url: &str, session: Option<&str>, json: bool) -> Result<String, Failure> {
    let (host, path) = host_and_path(url)?;
    let config = load::config(router.file.config.as_deref())?;
    let answer = wait(client(router, &config).explain(host, path, session))??;
    if json { Ok(text(&answer)) } else { Ok(show::explanation(&serde_json::from_slice(&answer)?)) }
}

fn client(router: &Router, config: &Config) -> Client {
    let address = router.admin.clone().unwrap_or_else(|| reachable(config.admin.listen).to_string());
    Client::new(&address, config.admin.login.clone())
}

/// Where a listener on this machine answers: one that listens everywhere does so on loopback too.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let loopback = match listen.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    if listen.ip().is_unspecified() { SocketAddr::new(loopback, listen.port()) } else { listen }
}

/// Splits what was typed into what a request would carry.
fn host_and_path(url: &str) -> Result<(&str, &str), Failure> {
    let rest = ["http://", "https://"].into_iter().find_map(|scheme| url.strip_prefix(scheme)).unwrap_or(url);
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if host.is_empty() {
        return Err(Failure(format!("{url:?} has no host; write host and path, such as shop.example.com/cart")));
    }
    Ok((host, if path.is_empty() { "/" } else { path }))
}

fn text(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    format!("{}\n", text.trim_end())
}

fn wait<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_with_and_without_scheme() {
        for (url, expected) in [
            ("shop.test", Some(("shop.test", "/"))),
            ("shop.test:8080/cart", Some(("shop.test:8080", "/cart"))),
            ("http://shop.test", Some(("shop.test", "/"))),
            ("https://shop.test/a/b?c=/d#e", Some(("shop.test", "/a/b"))),
            ("/cart", None),
            ("http://", None),
            ("", None),
        ] {
            assert_eq!(host_and_path(url).ok(), expected, "{url}");
        }
    }

    #[test]
    fn a_router_that_listens_everywhere_is_asked_on_loopback() {
        for (listen, expected) in
            [("0.0.0.0:81", "127.0.0.1:81"), ("[::]:81", "[::1]:81"), ("10.0.0.1:81", "10.0.0.1:81")]
        {
            assert_eq!(reachable(listen.parse().expect("an address")).to_string(), expected);
        }
    }
}

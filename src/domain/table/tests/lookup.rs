//! Which route a request finds.

use std::time::Duration;

use proptest::prelude::*;

use super::{World, lookup, shown};
use crate::domain::protocol::route_uri::RouteUri;
use crate::domain::table::settings::TableSettings;
use crate::domain::table::snapshot::Found;

/// Registers the routes, each with a port of its own, and looks the requests up: `url -> route`.
#[track_caller]
fn check_lookup(routes: &[&str], requests: &[(&str, &str)]) {
    let mut world = World::new();
    for (no, route) in routes.iter().enumerate() {
        world.register(&format!("10.0.0.1:{} {route}", 1000 + no));
    }
    for (url, expected) in requests {
        let found = world.find(url);
        let route = found.rsplit_once(':').and_then(|(_, port)| Some(routes[port.parse::<usize>().ok()? - 1000]));
        assert_eq!(route.unwrap_or(&found), *expected, "{url}");
    }
}

#[test]
fn an_exact_host_is_found_in_any_case_and_nothing_else_is() {
    check_lookup(
        &["Shop.Example.com"],
        &[
            ("shop.example.com", "Shop.Example.com"),
            ("SHOP.EXAMPLE.COM/x", "Shop.Example.com"),
            ("example.com", "nothing"),
            ("a.shop.example.com", "nothing"),
            ("", "nothing"),
        ],
    );
}

#[test]
fn a_path_matches_by_whole_segments_longest_first() {
    check_lookup(
        &["a.com/foo", "a.com", "a.com/foo/bar"],
        &[
            ("a.com/foo", "a.com/foo"),
            ("a.com/foo/", "a.com/foo"),
            ("a.com/foo/x", "a.com/foo"),
            ("a.com/foo?bar", "a.com/foo"),
            ("a.com/foobar", "a.com"),
            ("a.com/foo/bar/baz", "a.com/foo/bar"),
            ("a.com/foo/barbaz", "a.com/foo"),
            ("a.com/", "a.com"),
            ("a.com//foo", "a.com"),
        ],
    );
}

#[test]
fn paths_match_in_any_case_and_as_escaped() {
    check_lookup(
        &["a.com/Foo/Bar", "a.com/x%2Fy"],
        &[
            ("a.com/fOO/bAR/z", "a.com/Foo/Bar"),
            ("a.com/foo%2Fbar", "nothing"),
            ("a.com/x%2fy/z", "a.com/x%2Fy"),
            ("a.com/x/y", "nothing"),
        ],
    );
}

#[test]
fn a_route_with_a_path_alone_leaves_the_rest_of_the_host_unknown() {
    check_lookup(&["a.com/foo"], &[("a.com", "nothing"), ("a.com/fo", "nothing"), ("a.com/foo/1", "a.com/foo")]);
}

#[test]
fn the_most_specific_wildcard_wins_after_the_exact_host() {
    check_lookup(
        &["*.example.com", "*.apps.example.com", "shop.apps.example.com", "*.com"],
        &[
            ("shop.apps.example.com", "shop.apps.example.com"),
            ("x.apps.example.com", "*.apps.example.com"),
            ("x.y.apps.example.com", "*.apps.example.com"),
            ("apps.example.com", "*.example.com"),
            ("deep.below.example.com", "*.example.com"),
            ("example.com", "*.com"),
            ("com", "nothing"),
        ],
    );
}

#[test]
fn wildcards_have_paths_and_dots_in_a_request_path_are_no_labels() {
    check_lookup(
        &["*.example.com/api", "*.example.com", "*.b/c"],
        &[
            ("x.example.com/api/1", "*.example.com/api"),
            ("x.example.com/apix", "*.example.com"),
            ("nowhere/a.example.com", "nothing"),
            ("nowhere/a.b/c", "nothing"),
            ("a.b/c/d", "*.b/c"),
        ],
    );
}

#[test]
fn an_exact_host_without_the_path_gives_way_to_a_wildcard() {
    check_lookup(&["a.example.com/x", "*.example.com"], &[("a.example.com/y", "*.example.com")]);
}

#[test]
fn an_empty_path_pool_falls_back_to_its_parent_and_to_wildcards() {
    let mut world = World::new();
    world.register("10.0.0.1:1 a.example.com");
    world.register("10.0.0.1:2 a.example.com/foo");
    world.register("10.0.0.1:3 *.example.com");
    world.unregister("10.0.0.1:2 a.example.com/foo");
    world.check("a.example.com/foo/x", "10.0.0.1:1");
    world.unregister("10.0.0.1:1 a.example.com");
    world.check("a.example.com/foo/x", "10.0.0.1:3");
    world.unregister("10.0.0.1:3 *.example.com");
    world.check("a.example.com/foo/x", "empty");
}

#[test]
fn hosts_that_are_too_long_or_odd_are_not_found() {
    let long = "a".repeat(300);
    check_lookup(
        &["*.com"],
        &[
            (&format!("{long}.com"), "nothing"),
            (&format!("{}.com", long.to_uppercase()), "nothing"),
            ("..com", "*.com"),
        ],
    );
}

/// The rules of the protocol, read aloud: every route is tried, the best that fits is taken.
fn naive(routes: &[(RouteUri, bool)], host: &str, path: &str) -> String {
    let (host, path) = (host.to_ascii_lowercase(), path.to_ascii_lowercase());
    let path = path.split('?').next().unwrap_or_default();
    let host_fits = |uri: &RouteUri| match uri.is_wildcard() {
        true => host.ends_with(&format!(".{}", uri.name())),
        false => host == uri.name(),
    };
    let path_fits =
        |uri: &RouteUri| path == uri.path() || uri.path().is_empty() || path.starts_with(&format!("{}/", uri.path()));
    let mut fitting: Vec<&(RouteUri, bool)> =
        routes.iter().filter(|(uri, _)| host_fits(uri) && path_fits(uri)).collect();
    fitting.sort_by_key(|(uri, _)| std::cmp::Reverse((!uri.is_wildcard(), uri.name().len(), uri.path().len())));
    match fitting.iter().find(|(_, serves)| *serves) {
        Some((uri, _)) => uri.as_str().to_owned(),
        None if fitting.is_empty() => "nothing".to_owned(),
        None => "empty".to_owned(),
    }
}

fn host() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "A", "com"]), 1..4).prop_map(|labels| labels.join("."))
}

/// Longer than what is kept of a path in place.
const LONG: &str = "long-enough-to-be-read-from-its-route-itself";

fn path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["x", "X", "xy", "y", "", "%2F", "a.b", "x-y", LONG]);
    prop::collection::vec(segment, 0..4)
        .prop_map(|segments| segments.iter().map(|segment| format!("/{segment}")).collect())
}

fn route(host: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let written = (any::<bool>(), host, path());
    written.prop_map(|(wild, host, path)| format!("{}{host}{path}", if wild { "*." } else { "" }))
}

/// What is to become of a route.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Serves,
    Empty,
    Forgotten,
}

/// Registers routes, lets some of them lose their instance or be forgotten, and looks the requests up.
fn check_against_the_rules(
    written: &[(String, Fate)],
    requests: &[(String, String, bool)],
) -> Result<(), TestCaseError> {
    let mut world = World::new();
    let mut routes: Vec<(RouteUri, Fate)> = Vec::new();
    for (uri, fate) in written {
        let known = RouteUri::parse(uri).expect("a good route");
        if !routes.iter().any(|(other, _)| *other == known) {
            world.register(&format!("10.0.0.1:80 {uri}"));
            routes.push((known, *fate));
        }
    }
    world.publish();
    for (gone, keep_empty) in [(Fate::Forgotten, Duration::ZERO), (Fate::Empty, Duration::from_secs(60))] {
        let settings = TableSettings { keep_empty, ..TableSettings::default() };
        world.table.configure(settings, &[], world.now, &mut Default::default());
        for (uri, _) in routes.iter().filter(|(_, fate)| *fate == gone) {
            world.unregister(&format!("10.0.0.1:80 {uri}"));
        }
        world.publish();
    }
    let known = routes.iter().filter(|(_, fate)| *fate != Fate::Forgotten);
    let known: Vec<(RouteUri, bool)> = known.map(|(uri, fate)| (uri.clone(), *fate == Fate::Serves)).collect();
    prop_assert_eq!(world.snapshot.routes(), known.len());
    prop_assert_eq!(world.snapshot.pools().count(), known.len());
    for (host, path, query) in requests {
        let path = if *query { format!("{path}?/x/y") } else { path.clone() };
        let found = match world.snapshot.lookup(host, &path) {
            Found::Pool(pool) => pool.route.to_string(),
            other => shown(other),
        };
        prop_assert_eq!(found, naive(&known, host, &path), "{} {}", host, path);
    }
    Ok(())
}

fn fate() -> impl Strategy<Value = Fate> {
    prop::sample::select(vec![Fate::Serves, Fate::Serves, Fate::Serves, Fate::Empty, Fate::Forgotten])
}

proptest! {
    #[test]
    fn look_up_agrees_with_the_rules_read_aloud(
        written in prop::collection::vec((route(host()), fate()), 0..12),
        requests in prop::collection::vec((host(), path(), prop::bool::weighted(0.1)), 1..12),
    ) {
        check_against_the_rules(&written, &requests)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn look_up_among_many_routes_of_a_host_does_so_too(
        written in prop::collection::vec((route(Just("a.com".to_owned())), fate()), 100..400),
        requests in prop::collection::vec((host(), path(), prop::bool::weighted(0.1)), 100..200),
    ) {
        let of_the_host = requests.iter().map(|(_, path, query)| ("a.com".to_owned(), path.clone(), *query));
        let requests: Vec<_> = requests.iter().cloned().chain(of_the_host).collect();
        check_against_the_rules(&written, &requests)?;
    }
}

#[test]
fn names_and_paths_of_any_length_are_found() {
    for length in 1..=63 {
        let text = "x".repeat(length - 1);
        let [name, other, longer] = [format!("a{text}.test"), format!("b{text}.test"), format!("a{text}.tess")];
        let (wild, path) = (format!("*.{name}"), format!("{name}/{text}y"));
        let routes = [&*path, &*wild, &*name];
        for (first, requested) in routes.iter().zip([&path, &format!("www.{name}"), &name]) {
            // Each kind alone, then among the others.
            check_lookup(&[first], &[(requested, first), (&requested.to_uppercase(), first)]);
            check_lookup(&routes, &[(requested, first), (&requested.to_uppercase(), first)]);
            check_lookup(&[first], &[(&other, "nothing"), (&longer, "nothing")]);
        }
        check_lookup(&[&path], &[(&format!("{name}/{text}z"), "nothing"), (&format!("{path}y"), "nothing")]);
    }
}

#[test]
fn what_is_forgotten_is_not_found_and_the_rest_is() {
    let long = format!("a.com/{}", "x".repeat(50));
    let routes = ["a.com", "*.a.com", "a.com/x", "a.com/x/y", "*.a.com/x", &long, &format!("*.{long}")];
    for forgotten in 0..routes.len() {
        let mut world = World::with(TableSettings { keep_empty: Duration::ZERO, ..TableSettings::default() });
        let line = |n: usize| format!("10.0.0.1:{} {}", 1000 + n, routes[n]);
        (0..routes.len()).for_each(|n| _ = world.register(&line(n)));
        world.publish();
        let before = world.snapshot.clone();
        world.unregister(&line(forgotten));
        world.publish();
        for (n, route) in routes.iter().enumerate() {
            let url = route.replace('*', "b");
            let its_own = format!("10.0.0.1:{}", 1000 + n);
            assert_eq!(shown(lookup(&before, &url)), its_own, "pictures do not change");
            assert_eq!(world.find(&url) == its_own, n != forgotten, "{url} without {}", routes[forgotten]);
        }
        assert_eq!((before.routes(), world.snapshot.routes()), (routes.len(), routes.len() - 1));
    }
}

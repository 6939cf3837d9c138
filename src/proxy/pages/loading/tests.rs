//! The loading page, read as a browser, a screen reader and an attacker would.

use arcstr::ArcStr;
use proptest::prelude::*;

use super::*;
use crate::domain::load::Share;
use crate::domain::wake::Failure;

fn at(seconds: u64) -> Moment {
    Moment::from_nanos(seconds * 1_000_000_000)
}

fn starting() -> View {
    View {
        stage: Stage::Starting,
        name: Some("Shop".into()),
        since: at(100),
        expected: Some(Duration::from_secs(8)),
        attempt: 1,
        ..View::default()
    }
}

fn failed() -> View {
    let failure = Some(Failure::Told("no memory left".into()));
    View { stage: Stage::Failed, failure, retry_at: Some(at(145)), ..starting() }
}

fn facts(view: &View) -> PageFacts<'_> {
    PageFacts {
        view,
        host: "shop.example.com",
        target: "/a/cart?b=c&d",
        language: Language::English,
        now: at(104),
        nonce: "n0nce",
    }
}

fn rendered(view: &View) -> String {
    LoadingPage::default().render(&facts(view))
}

#[track_caller]
fn check_says(page: &str, expected: &[&str]) {
    for part in expected {
        assert!(page.contains(part), "{part:?} is missing in:\n{}", page.replace(CSS, "").replace(SCRIPT, ""));
    }
}

#[test]
fn a_starting_app_shows_how_far_it_is() {
    let page = rendered(&starting());
    let bar = "<progress max=\"100\" value=\"45.0\" aria-label=\"Progress of the start\" data-wake=\"progress\">";
    check_says(
        &page,
        &[
            "<html lang=\"en\" data-state=\"starting\">",
            "<title>Waking up Shop…</title>",
            "<div role=\"status\" aria-live=\"polite\">\n<h1 data-wake=\"heading\">Waking up Shop</h1>",
            "<p class=\"now\" data-wake=\"status\">Starting</p>",
            "<span role=\"timer\" data-wake=\"elapsed\">0:04</span><span data-wake=\"expected\">usually takes about 8 s<",
            bar,
            "<noscript><meta http-equiv=\"refresh\" content=\"3; url=./cart?b=c&amp;d\"></noscript>",
            "<footer>shop.example.com</footer>",
        ],
    );
}

#[test]
fn what_the_platform_says_is_shown() {
    let told = View { progress: Share::reported(0.7), message: Some("Pulling image".into()), ..starting() };
    check_says(&rendered(&told), &["data-wake=\"status\">Pulling image</p>", "value=\"70.0\""]);
    let again = View { attempt: 2, message: Some("no room".into()), ..starting() };
    check_says(&rendered(&again), &["data-wake=\"status\">Trying again (attempt 2) · no room</p>"]);
    let late = View { since: at(0), ..starting() };
    check_says(&rendered(&late), &["This takes a little longer than usual", ">1:44<"]);
    let unknown = View { expected: None, name: None, ..starting() };
    check_says(
        &rendered(&unknown),
        &["<h1 data-wake=\"heading\">Waking up shop.example.com</h1>", "<progress max=\"100\" aria"],
    );
}

#[test]
fn the_first_visitor_has_not_waited_yet() {
    check_says(&rendered(&View { stage: Stage::Sleeping, ..starting() }), &[">0:00<", "value=\"0.0\"", ">Starting<"]);
}

#[test]
fn a_failed_start_says_why_and_does_not_reload_by_itself() {
    let page = rendered(&failed());
    check_says(
        &page,
        &[
            "data-state=\"failed\"",
            "<h1 data-wake=\"heading\">Shop could not be started</h1>",
            "The platform says: no memory left",
            "You can try again in 41 s.",
            "<a href=\"\" data-wake=\"again\">Try again</a>",
        ],
    );
    assert!(!page.contains("http-equiv"), "each reload would be a visit that starts it again");
}

#[test]
fn a_platform_out_of_reach_is_no_failure_of_the_app() {
    let page = rendered(&View { unreachable: true, ..starting() });
    check_says(&page, &["data-state=\"unreachable\"", "cannot be reached at the moment", "content=\"10; url=./cart"]);
}

#[test]
fn without_javascript_the_page_comes_back_to_where_it_is() {
    let check = |target: &str, expected: &str| assert_eq!(same_address(target), expected);
    check("/", "./");
    check("/a/b", "./b");
    check("/a/b/?c=/d", "./?c=/d");
    check("//evil.example/x", "./x");
    check("/javascript:x", "./javascript:x");
    check("/\\\\evil.example", "./evil.example");
    check("*", "./*");
}

#[test]
fn it_speaks_chinese() {
    let view = starting();
    let chinese =
        |view: &View| LoadingPage::default().render(&PageFacts { language: Language::Chinese, ..facts(view) });
    check_says(&chinese(&view), &["<html lang=\"zh-Hans\"", "正在唤醒 Shop", "通常约需 8 秒", "正在启动"]);
    check_says(&chinese(&failed()), &["Shop 未能启动", "平台反馈：no memory left", "41 秒后可以重试。", ">重试</a>"]);
    let english = rendered(&view).replace(CSS, "").replace(SCRIPT, "");
    assert!(!english.chars().any(|c| ('\u{4e00}'..'\u{9fff}').contains(&c)));
}

#[test]
fn nothing_is_asked_of_anybody_else() {
    for view in [starting(), failed()] {
        let page = rendered(&view);
        let links = page.match_indices("://").map(|(at, _)| &page[at.saturating_sub(20)..at + 20]);
        assert!(links.clone().all(|link| link.contains("http://www.w3.org/2000")), "{:?}", links.collect::<Vec<_>>());
        assert!(!page.contains("url(") && !page.contains("@import") && !page.contains(" src="));
        assert!(page.len() < 24 * 1024, "{} bytes", page.len());
    }
}

#[test]
fn the_browser_is_told_to_run_nothing_but_what_is_ours() {
    let view = starting();
    let page = rendered(&view);
    assert_eq!(page.matches("<script").count(), page.matches("<script nonce=\"n0nce\"").count());
    assert_eq!(page.matches("<style").count(), page.matches("<style nonce=\"n0nce\"").count());
    assert!(!page.contains(" style=") && !page.contains(" onclick=") && !page.contains(" onload="));
    let headers = headers(&facts(&view));
    let value = |name: &str| headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str());
    let policy = value("Content-Security-Policy").expect("a policy");
    check_says(policy, &["default-src 'none'", "script-src 'nonce-n0nce'", "style-src 'nonce-n0nce'"]);
    assert_eq!(
        (value("Cache-Control"), value("Vary"), value("Retry-After")),
        (Some("no-store"), Some("Accept"), Some("4"))
    );
    assert_eq!(value("Content-Language"), Some("en"));
}

#[test]
fn another_look_is_worth_while_when_the_app_may_be_there() {
    let check = |view: View, expected: u64| assert_eq!(retry_seconds(&facts(&view)), expected, "{view:?}");
    check(starting(), 4);
    check(View { since: at(0), ..starting() }, 2);
    check(View { expected: None, ..starting() }, 5);
    check(View { unreachable: true, ..starting() }, 10);
    check(failed(), 41);
    check(View { retry_at: Some(at(999_999)), ..failed() }, 3600);
}

#[test]
fn a_poll_hears_the_same_words_as_the_page() {
    let answer =
        |view: &View| -> serde_json::Value { serde_json::from_slice(&poll_answer(&facts(view))).expect("JSON") };
    let heard = answer(&starting());
    assert_eq!(heard["state"], "starting");
    assert_eq!(heard["heading"], "Waking up Shop");
    assert_eq!(heard["status"], "Starting");
    assert_eq!((&heard["elapsed_ms"], &heard["expected_ms"]), (&4000.into(), &8000.into()));
    assert_eq!(heard["progress"], serde_json::Value::Null);
    assert_eq!(answer(&failed())["retry_after_ms"], 41_000);
    assert_eq!(answer(&View { progress: Share::reported(0.5), ..starting() })["progress"], 0.5);
    assert_eq!(answer(&View::default())["state"], "awake");
    assert_eq!(answer(&View { stage: Stage::Parking, ..View::default() })["state"], "awake");
}

#[test]
fn an_operators_template_may_use_every_variable() {
    let all: String = VARIABLES.iter().map(|variable| format!("[{}={{{{{0}}}}}]\n", variable.name)).collect();
    let page = LoadingPage::from_template(all.as_bytes()).expect("every variable is known").render(&facts(&starting()));
    check_says(
        &page,
        &[
            "[lang=en]",
            "[state=starting]",
            "[name=Shop]",
            "[host=shop.example.com]",
            "[elapsed=0:04]",
            "[elapsed_seconds=4]",
            "[expected_seconds=8]",
            "[progress=45]",
            "[retry_seconds=4]",
            "[again=Try again]",
            "[nonce=n0nce]",
            "[bar=<progress",
            "[scale=<svg",
            "[script=<script nonce=\"n0nce\" data-state=\"starting\" data-elapsed=\"4.000\" data-expected=\"8.000\"",
        ],
    );
    assert!(LoadingPage::from_template(b"{{secret}}").is_err());
}

/// Text that would do harm if it got through, with a mark to find it by.
fn hostile() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("<script>alert(1)</script>".to_owned()),
        Just("\"><img onerror=x>".to_owned()),
        Just("' autofocus onfocus='x".to_owned()),
        Just("</style></title></script>".to_owned()),
        Just("{{script}}".to_owned()),
        Just("&lt;&#60;".to_owned()),
        Just("<!--".to_owned()),
        "\\PC{0,12}",
    ];
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.concat())
}

/// The page without what is known to be ours.
fn foreign_parts(page: &str) -> String {
    let mut page = page.replace(CSS, "").replace(SCRIPT, "").replace(SCALE.trim_end(), "");
    for fixed in HTML.split("{{").map(|part| part.split_once("}}").map_or(part, |(_, after)| after)) {
        page = page.replacen(fixed, "\u{0}", 1);
    }
    page
}

proptest! {
    #[test]
    fn nothing_foreign_becomes_markup(
        name in hostile(), host in hostile(), target in hostile(), message in hostile(), nonce in hostile(),
        stage in prop::sample::select(Stage::ALL.to_vec()), attempt in 0..3u32, elapsed in 0..4000u64,
        expected in prop::option::of(0..400u64), chinese in any::<bool>(),
    ) {
        let view = View {
            stage,
            name: Some(ArcStr::from(name.as_str())),
            since: at(0),
            expected: expected.map(Duration::from_secs),
            message: Some(ArcStr::from(message.as_str())),
            failure: Some(Failure::Told(ArcStr::from(message.as_str()))),
            attempt,
            ..View::default()
        };
        let language = if chinese { Language::Chinese } else { Language::English };
        let facts = PageFacts { view: &view, host: &host, target: &target, language, now: at(elapsed), nonce: &nonce };
        let page = LoadingPage::default().render(&facts);
        // Every tag and every quote of the page is one of ours: a harmless page has exactly as many.
        let harmless = View { name: Some("x".into()), message: Some("x".into()), failure: Some(Failure::Told("x".into())), ..view.clone() };
        let harmless = LoadingPage::default().render(&PageFacts { view: &harmless, host: "x", target: "x", language, now: at(elapsed), nonce: "x" });
        for mark in ["<", ">", "\"", "'", "</script", "<!--"] {
            prop_assert_eq!(page.matches(mark).count(), harmless.matches(mark).count(), "{:?} in {}", mark, foreign_parts(&page));
        }
        let heard: serde_json::Value = serde_json::from_slice(&poll_answer(&facts)).expect("JSON");
        prop_assert_eq!(heard["name"].as_str(), Some(name.as_str()));
    }
}

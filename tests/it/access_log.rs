//! The access log: one line for every request, however it ends, and none lost when the file is moved away.

use std::time::Duration;

use serde_json::Value;

use crate::harness::answer::{self, Answer, Step};
use crate::harness::process::{Folder, Process, free_port};
use crate::harness::router::Router;
use crate::harness::{bus, eventually, instance, router};
use crate::life::{Crowd, Manner, at, settings};

/// Waits for the only line of the request to `host` and checks its status and ending.
async fn check_line(router: &Router, host: &str, status: u16, ending: &str) {
    let of_host = |line: &String| {
        let line: Value = serde_json::from_str(line).expect("a line is a JSON object");
        (line["host"].as_str().unwrap_or_default() == host).then_some(line)
    };
    let lines = || router.log_lines().iter().filter_map(of_host).collect::<Vec<_>>();
    eventually(host, || !lines().is_empty()).await;
    let lines = lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(
        (lines[0]["status"].as_u64(), lines[0]["ending"].as_str()),
        (Some(status.into()), Some(ending)),
        "{host}"
    );
}

#[tokio::test]
async fn every_request_has_a_line_that_says_how_it_ended() {
    let bus = bus::embedded().await;
    let settings = "timeouts = { idle_body = \"100ms\", response_head = \"100ms\" }\nretry.attempts = 1";
    let router = router::with(settings).logging("json").on(&bus).await;
    let half = || Answer::new().write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    let _instances = [
        instance::serving("good.test").on(&bus).await,
        instance::serving("cut.test").answering(half().then(Step::Close)).on(&bus).await,
        instance::serving("stall.test").answering(half().then(Step::Hang)).on(&bus).await,
        instance::serving("closing.test").answering(Answer::new().then(Step::Close)).on(&bus).await,
        instance::serving("silent.test").answering(Answer::new().then(Step::Hang)).on(&bus).await,
        instance::serving("endless.test").answering(answer::pattern(1 << 30)).on(&bus).await,
    ];
    router.until(|r| r.knows("endless.test")).await;

    assert_eq!(router.get("good.test/").await.status(), 200);
    check_line(&router, "good.test", 200, "complete").await;
    for host in ["cut.test", "stall.test"] {
        let mut wire = router.wire().await;
        wire.send(router.get(&format!("{host}/")).bytes()).await.expect("it takes bytes");
        assert!(wire.response_to("GET").await.is_err(), "{host} is whole");
    }
    check_line(&router, "cut.test", 200, "instance_cut").await;
    check_line(&router, "stall.test", 200, "timed_out").await;
    assert_eq!(router.get("closing.test/").await.status(), 502);
    check_line(&router, "closing.test", 502, "complete").await;
    assert_eq!(router.get("silent.test/").await.status(), 504);
    check_line(&router, "silent.test", 504, "complete").await;
    assert_eq!(router.get("unknown.test/").await.status(), 404);
    check_line(&router, "unknown.test", 404, "complete").await;

    let mut leaves = router.wire().await;
    leaves.send(router.get("endless.test/").bytes()).await.expect("it takes bytes");
    leaves.some().await.expect("it begins");
    leaves.reset();
    check_line(&router, "endless.test", 200, "client_gone").await;

    router.exchange("GET / HTTP/1.1\r\nHost : refused.test\r\n\r\n").await;
    let lines = router.until_logged(8).await;
    let with = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
    assert_eq!(with(r#""status":400"#), 1, "{lines:?}");
    assert_eq!(with(r#""ending":"refused""#), 1, "{lines:?}");
}

#[tokio::test]
async fn a_request_that_the_end_of_the_router_cuts_off_is_told_of() {
    let bus = bus::embedded().await;
    let slow = instance::serving("slow.test").answering(Answer::new().then(Step::Hang)).on(&bus).await;
    let router = router::with("").logging("json").on(&bus).await;
    router.until(|r| r.knows("slow.test")).await;
    let pending = router.get("slow.test/").begin();
    slow.until_begun(1).await;
    router.running.conductor.enter(weighbridge::runtime::shutdown::Phase::Stopped);
    check_line(&router, "slow.test", 0, "router_stopped").await;
    pending.abandon().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_moved_away_under_load_takes_no_line_with_it() {
    const ROTATIONS: usize = 10;
    let shop = instance::serving("shop.test").alone().await;
    let folder = Folder::new();
    let (port, path) = (free_port(), folder.path("access.log"));
    let text =
        settings(port, free_port(), &shop).replace("access_log.path = \"\"", &format!("access_log.path = {path:?}"));
    let mut router = Process::serving(&folder.write("router.toml", &text), folder.path("log")).await;
    let crowd = Crowd::of(4, Manner::Keeping, Duration::from_nanos(1), at(port));
    let old = |nth: usize| folder.path(&format!("access.log.{nth}"));
    for nth in 0..ROTATIONS {
        crowd.answers(200).await;
        std::fs::rename(&path, old(nth)).expect("a file can be moved");
        router.signal("HUP");
        eventually("a new file", || path.exists()).await;
    }
    let answered = crowd.went_well().await;
    router.signal("TERM");
    assert!(router.ended().await.success());
    let files = (0..ROTATIONS).map(old).chain([path.clone()]);
    let text: String = files.map(|file| std::fs::read_to_string(file).expect("a file of ours")).collect();
    assert_eq!(text.lines().filter(|line| line.starts_with('{') && line.ends_with('}')).count(), answered);
}

//! The demo as a newcomer starts it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tokio::sync::oneshot;

use crate::harness::client::Request;
use crate::harness::{eventually, in_time, millis};

/// A demo that runs; it ends with the test.
struct Demo {
    program: Child,
    apps: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ended_already = self.program.kill();
        let _status = self.program.wait();
    }
}

async fn demo(options: &'static [&'static str]) -> Demo {
    let mut program = Command::new(env!("CARGO_BIN_EXE_weighbridge"))
        .arg("demo")
        .args(options)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program was built");
    let lines = BufReader::new(program.stdout.take().expect("it is piped")).lines();
    let (found, ports) = oneshot::channel();
    std::thread::spawn(move || {
        let mut found = Some(found);
        let mut apps = None;
        for line in lines.map_while(Result::ok) {
            let behind =
                |words| line.split_once(words).and_then(|(_, rest)| rest.split('/').next()?.parse::<u16>().ok());
            apps = apps.or(behind("http://shop.localhost:"));
            if let (Some(apps), Some(admin)) = (apps, behind("Metrics are on http://127.0.0.1:")) {
                let _test_ended = found.take().map(|found| found.send((apps, admin)));
            }
        }
    });
    let (apps, admin) = in_time("the addresses", ports).await.expect("the demo prints them");
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    Demo { program, apps: local(apps), admin: local(admin) }
}

#[tokio::test]
async fn the_demo_balances_keeps_sessions_and_ends_well() {
    let mut demo = demo(&[]).await;
    let apps = demo.apps;
    let get = |path: &str| Request::new(apps, "GET", &format!("shop.localhost:{}{path}", apps.port()));

    let mut seen = std::collections::BTreeSet::new();
    in_time("answers of several instances", async {
        while seen.len() < 2 {
            let response = get("/").await;
            if response.status() == 200 {
                let answer = response.text();
                assert!(answer.starts_with("shop-"), "{answer}");
                seen.extend(answer.split(' ').next().map(str::to_owned));
            }
        }
    })
    .await;

    let login = get("/login").await;
    let cookies = login.headers("set-cookie");
    let cookies: Vec<_> = cookies.iter().filter_map(|cookie| cookie.split(';').next()).collect();
    assert_eq!(cookies.len(), 2, "the session and its pin: {cookies:?}");
    let home = login.text().split(' ').next().unwrap_or_default().to_owned();
    for _ in 0..10 {
        let again = get("/").cookie(&cookies.join("; ")).await.text();
        assert!(again.starts_with(&home) && again.contains("pinned"), "{again}");
    }

    let sent = Command::new("kill").args(["-INT", &demo.program.id().to_string()]).status();
    assert!(sent.expect("kill is installed").success());
    let mut ended = None;
    eventually("its end", || {
        ended = demo.program.try_wait().expect("it was started by us");
        ended.is_some()
    })
    .await;
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}

#[tokio::test]
async fn the_sleeping_app_of_the_demo_starts_because_somebody_comes_and_sleeps_when_nobody_does() {
    let demo = demo(&["--idle-ms", "1500"]).await;
    let apps = demo.apps;
    let get = |path: &str| Request::new(apps, "GET", &format!("notes.localhost:{}{path}", apps.port()));
    let opened = async || get("/").header("Accept", "text/html").sent().await;
    let until_asleep = async |epoch: u64| {
        in_time("it sleeps", async {
            loop {
                let apps = Request::new(demo.admin, "GET", &format!("{}/v1/apps", demo.admin)).sent().await.text();
                let apps: Value = serde_json::from_str(&apps).expect("JSON");
                if apps["notes"]["state"] == "sleeping" && apps["notes"]["epoch"].as_u64() >= Some(epoch) {
                    break;
                }
                tokio::time::sleep(millis(20)).await;
            }
        })
        .await;
    };
    until_asleep(1).await;
    let page = opened().await;
    assert_eq!(page.status(), 503);
    assert!(page.text().contains("Notes"), "{}", page.text());
    let held = get("/").sent().await;
    assert_eq!(held.status(), 200, "{}", held.text());
    assert!(held.text().starts_with("notes-0 on oak"), "{}", held.text());
    // Nobody comes any more, so it sleeps again; and starts again for the next visitor.
    until_asleep(2).await;
    assert_eq!(opened().await.status(), 503);
    assert!(get("/").sent().await.text().starts_with("notes-0 on oak"));
}

#[tokio::test]
async fn demos_that_start_at_once_do_not_share_their_ports() {
    let demos = [(); 4].map(|()| tokio::spawn(demo(&[])));
    let mut ports = std::collections::BTreeSet::new();
    let mut running = Vec::new();
    for demo in demos {
        let demo = demo.await.expect("no panic");
        ports.extend([demo.apps.port(), demo.admin.port()]);
        running.push(demo);
    }
    assert_eq!(ports.len(), 8);
}

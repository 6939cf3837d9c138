//! The demo as a newcomer starts it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tokio::sync::oneshot;

use crate::harness::client::Request;
use crate::harness::{eventually, in_time};

/// A demo that runs; it ends with the test.
struct Demo {
    program: Child,
    apps: SocketAddr,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ended_already = self.program.kill();
        let _status = self.program.wait();
    }
}

async fn demo() -> Demo {
    let mut program = Command::new(env!("CARGO_BIN_EXE_weighbridge"))
        .arg("demo")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program was built");
    let lines = BufReader::new(program.stdout.take().expect("it is piped")).lines();
    let (found, port) = oneshot::channel();
    std::thread::spawn(move || {
        let mut found = Some(found);
        for line in lines.map_while(Result::ok) {
            let port =
                line.split_once("http://shop.localhost:").and_then(|(_, rest)| rest.split('/').next()?.parse().ok());
            if let (Some(port), true) = (port, found.is_some()) {
                let _test_ended = found.take().map(|found| found.send(port));
            }
        }
    });
    let port: u16 = in_time("the address of the apps", port).await.expect("the demo prints it");
    Demo { program, apps: SocketAddr::from(([127, 0, 0, 1], port)) }
}

#[tokio::test]
async fn the_demo_balances_keeps_sessions_and_ends_well() {
    let mut demo = demo().await;
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
async fn the_sleeping_app_of_the_demo_starts_because_somebody_comes() {
    let demo = demo().await;
    let apps = demo.apps;
    let get = |path: &str| Request::new(apps, "GET", &format!("notes.localhost:{}{path}", apps.port()));
    let opened = async || get("/").header("Accept", "text/html").sent().await;
    // It falls asleep a moment after the demo has told where it is.
    let mut page = opened().await;
    in_time("the loading page", async {
        while page.status() != 503 {
            page = opened().await;
        }
    })
    .await;
    assert!(page.text().contains("Notes"), "{}", page.text());
    let held = get("/").sent().await;
    assert_eq!(held.status(), 200, "{}", held.text());
    assert!(held.text().starts_with("notes-0 on oak"), "{}", held.text());
    assert_eq!(opened().await.status(), 200);
}

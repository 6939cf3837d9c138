//! A real browser, driven through WebDriver: headless Chromium, with an empty profile, gone with its handle.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// How long a fact may take to come true before the test gives up. Never waited for in full unless the test fails anyway.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one window.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Opens one. `arguments` are added to those that every browser of a test has.
    pub async fn open(arguments: &[&str]) -> Browser {
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let (driver, port) = driver();
        let mut browser = Browser { driver, port, session: String::new(), _profile: profile };
        let folder = browser._profile.path().display();
        let mut all: Vec<String> = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--window-size=1000,700",
        ]
        .map(str::to_owned)
        .into();
        all.push(format!("--user-data-dir={folder}"));
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "acceptInsecureCerts": true, "pageLoadStrategy": "eager",
            "goog:chromeOptions": {"args": all, "binary": chromium()},
        }}});
        let given = browser.call(Method::POST, "/session", wanted).await;
        given["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        browser
    }

    /// Goes to a URL; returns once the page is there.
    pub async fn go(&self, url: &str) {
        self.post("/url", json!({"url": url})).await;
    }

    /// Where it is.
    pub async fn url(&self) -> String {
        self.get("/url").await.as_str().unwrap_or_default().to_owned()
    }

    /// The document as it is now; empty while one takes the place of another. Works without JavaScript as well.
    pub async fn html(&self) -> String {
        let root = self.cdp("DOM.getDocument", json!({"depth": 0})).await;
        let of_root = json!({"cmd": "DOM.getOuterHTML", "params": {"nodeId": root["root"]["nodeId"]}});
        let path = format!("/session/{}/goog/cdp/execute", self.session);
        let answer = self.exchange(Method::POST, &path, of_root).await;
        let is_leaving = answer["value"]["message"].as_str().is_some_and(|why| why.contains("Could not find node"));
        assert!(is_leaving || answer["value"]["error"].is_null(), "{answer}");
        answer["value"]["outerHTML"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the document has this text in it, and returns the document.
    pub async fn until_it_shows(&self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let html = self.html().await;
            if html.contains(text) {
                return html;
            }
            assert!(begun.elapsed() < PATIENCE, "the page never showed {text:?}:\n{html}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs a function body in the page; what it gives to `arguments[0]` comes back.
    pub async fn ask_page(&self, script: &str) -> Value {
        self.post("/execute/async", json!({"script": script, "args": []})).await
    }

    /// Lets the page see dark mode or not.
    pub async fn prefer(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}]);
        self.cdp("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// Has a window of this size, or is a telephone with such a screen.
    pub async fn show_at(&self, (width, height): (u32, u32), is_phone: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": if is_phone { 2 } else { 1 }, "mobile": is_phone});
        self.cdp("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Turns JavaScript off from the next page on.
    pub async fn without_scripts(&self) {
        self.cdp("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
    }

    /// What the window looks like, as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        let encoded = self.cdp("Page.captureScreenshot", json!({"format": "png"})).await;
        BASE64_STANDARD.decode(encoded["data"].as_str().expect("a picture")).expect("Base64")
    }

    async fn cdp(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, &format!("/session/{}{path}", self.session), Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.call(Method::POST, &format!("/session/{}{path}", self.session), body).await
    }

    /// One command to the driver; panics with what it says if it fails.
    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = self.exchange(method, path, body).await;
        let error = answer["value"]["error"].as_str();
        assert!(error.is_none(), "{path}: {}", answer["value"]);
        answer["value"].clone()
    }

    async fn exchange(&self, method: Method, path: &str, body: Value) -> Value {
        let called = tokio::time::timeout(PATIENCE * 2, exchange(self.port, method, path, &body)).await;
        called.unwrap_or_else(|_| panic!("{path}: the browser does not answer"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser when it is told to, and not when it is killed.
        let path = format!("/session/{}", self.session);
        let port = self.port;
        let told = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let end = exchange(port, Method::DELETE, &path, &Value::Null);
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), end).await.is_ok() })
        });
        let _already_gone = told.join();
        let _already_gone = self.driver.kill();
        let _status = self.driver.wait();
    }
}

async fn exchange(port: u16, method: Method, path: &str, body: &Value) -> Value {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the driver is there");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("the driver speaks HTTP");
    tokio::spawn(connection);
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).header("host", format!("127.0.0.1:{port}"));
    let request = request.header("content-type", "application/json").body(Full::new(body)).expect("a good request");
    let answer = sender.send_request(request).await.expect("an answer of the driver");
    let body = answer.into_body().collect().await.expect("the whole answer").to_bytes();
    serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{path}: {error}: {}", String::from_utf8_lossy(&body)))
}

/// Starts a driver; where it listens.
fn driver() -> (Child, u16) {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("chromedriver cannot be started ({error}): tests/run installs it"));
    let mut lines = BufReader::new(driver.stdout.take().expect("it is piped")).lines();
    let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let (_, port) = line.split_once("started successfully on port ")?;
        port.trim_end_matches('.').parse().ok()
    });
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop)); // what it says later is read, or it would wait
    (driver, port.expect("the driver says where it listens"))
}

/// Debian's name, or everybody else's.
fn chromium() -> &'static str {
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .expect("chromium is missing: tests/run installs it")
}

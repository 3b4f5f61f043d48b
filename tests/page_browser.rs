//! The live page in a real browser: Chromium without a window, told what to do over its DevTools protocol.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use support::needs::{is_installed, skip};
use support::web::Site;
use support::{BOUND, Server, program, wait_until};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

/// One browser at a time: each is a dozen processes.
static TURN: Mutex<()> = Mutex::new(());

struct Browser {
    child: Child,
    _folder: TempDir,
    _turn: MutexGuard<'static, ()>,
    socket: WebSocket<TcpStream>,
    last_id: u64,
    session: String,
    /// What the page has complained about.
    complaints: Vec<String>,
}

/// A browser, or `None`, and said so, where there is none.
fn browser() -> Option<Browser> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let name = names.iter().find(|name| is_installed(name));
    let Some(name) = name else {
        skip("chromium", "it is not installed here");
        return None;
    };
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(name);
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    command.args(["--disable-background-networking", "--no-proxy-server", "--remote-debugging-port=0"]);
    command.arg(format!("--user-data-dir={}", folder.path().display())).arg("about:blank");
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // It writes there where it listens: a port, and a path.
    let file = folder.path().join("DevToolsActivePort");
    let (port, path) = wait_until("the browser listens", || {
        let text = fs::read_to_string(&file).ok()?;
        let (port, path) = text.split_once('\n')?;
        Some((port.parse::<u16>().ok()?, path.trim().to_owned())).filter(|(_, path)| !path.is_empty())
    });
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    let (socket, _) = tungstenite::client::client(format!("ws://127.0.0.1:{port}{path}"), stream).unwrap();
    let session = String::new();
    let mut browser =
        Browser { child, _folder: folder, _turn: turn, socket, last_id: 0, session, complaints: Vec::new() };
    let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
    let attached = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
    browser.session = attached["sessionId"].as_str().unwrap().to_owned();
    for domain in ["Page", "Runtime", "Log"] {
        browser.call(&format!("{domain}.enable"), json!({}));
    }
    Some(browser)
}

impl Browser {
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(message.to_string())).unwrap();
        loop {
            let Message::Text(text) = self.socket.read().unwrap() else { continue };
            let answer: Value = serde_json::from_str(text.as_str()).unwrap();
            if answer["id"] == self.last_id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            if answer["method"] == "Runtime.exceptionThrown" || answer["method"] == "Log.entryAdded" {
                self.complaints.push(answer["params"].to_string());
            }
        }
    }

    fn open(&mut self, page: SocketAddr) {
        self.call("Page.navigate", json!({"url": format!("http://{page}/")}));
        self.wait_for("document.readyState === 'complete' && !!document.getElementById('status')");
        self.wait_for("document.getElementById('status').dataset.state === 'live'");
    }

    /// The value of an expression in the page.
    fn value(&mut self, expression: &str) -> Value {
        let answer = self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    fn text(&mut self, id: &str) -> String {
        self.value(&format!("document.getElementById('{id}').innerText")).as_str().unwrap().to_owned()
    }

    fn wait_for(&mut self, expression: &str) {
        wait_until(expression, || {
            // While it goes from one page to the next, it may have none.
            let answer = self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}));
            (answer["result"]["value"] == true).then_some(())
        });
    }

    fn wait_for_text(&mut self, id: &str, text: &str) {
        self.wait_for(&format!("document.getElementById('{id}').innerText.includes({})", json!(text)));
    }

    /// Types into what has the focus, and presses Enter.
    fn enter(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
        for kind in ["keyDown", "keyUp"] {
            let key = json!({"type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"});
            self.call("Input.dispatchKeyEvent", key);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The height of the last point of a line: how far it is from the top.
const LAST_POINT: &str = "Number(document.getElementById('line-now').getAttribute('d').split(',').pop())";

#[test]
fn a_connection_appears_and_goes_and_the_picture_moves() {
    let Some(mut browser) = browser() else { return };
    let site = Site::start(&["--service", "echo"]);
    browser.open(site.page);
    assert_eq!(browser.text("status"), "live");
    assert_eq!(browser.text("now"), "0");
    assert_eq!(browser.value("document.querySelectorAll('#rows tr').length"), 0);
    assert!(browser.text("nobody").contains("cargo run --bin talk"));
    // The line has begun, at the bottom.
    browser.wait_for("document.getElementById('line-now').getAttribute('d')?.startsWith('M')");
    assert_eq!(browser.value(LAST_POINT), 140);
    let begun = browser.value("document.getElementById('line-now').getAttribute('d')");

    let mut client = site.server.client();
    client.send("hello").expect("hello");
    let peer = client.0.local_addr().unwrap().to_string();
    browser.wait_for_text("rows", &peer);
    browser.wait_for_text("rows", "idle");
    browser.wait_for("document.getElementById('rows').innerText.includes('5 B')");
    assert_eq!(browser.text("now"), "1");
    assert_eq!(browser.value("document.title"), "1 · socket-steps");
    browser.wait_for(&format!("{LAST_POINT} < 140"));
    assert_ne!(browser.value("document.getElementById('line-now').getAttribute('d')"), begun);
    browser.wait_for("document.getElementById('line-in').getAttribute('d') !== ''");
    let label = browser.value("document.getElementById('chart-now').getAttribute('aria-label')");
    assert_eq!(label, "Connections during the last minute: now 1, at most 1");

    drop(client);
    browser.wait_for("document.querySelectorAll('#rows tr').length === 0");
    browser.wait_for_text("ended", "finished");
    assert_eq!(browser.text("now"), "0");
    assert_eq!(browser.text("peak"), "1");
    browser.wait_for(&format!("{LAST_POINT} === 140"));
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}

#[test]
fn the_room_is_crossed_both_ways_and_what_is_said_is_only_text() {
    let Some(mut browser) = browser() else { return };
    let site = Site::start(&["--service", "chat"]);
    browser.open(site.page);
    browser.wait_for("!document.getElementById('line').disabled");
    let mut client = site.server.client();
    client.send("안녕하세요, 브라우저님!\n");
    browser.wait_for_text("talk", "안녕하세요, 브라우저님!");
    // With the keyboard alone.
    browser.value("document.getElementById('line').focus()");
    browser.enter("안녕하세요, 소켓님!");
    client.expect("안녕하세요, 소켓님!\n");
    browser.wait_for_text("talk", "안녕하세요, 소켓님!");
    assert_eq!(browser.value("document.getElementById('line').value"), "");
    let attack = "<img src=x onerror=document.title='bad'><script>document.title='bad'</script>";
    client.send(format!("{attack}\n")).send("\u{1b}[2J\n").send("after\n");
    browser.wait_for_text("talk", "after");
    assert!(browser.text("talk").contains(attack));
    assert_eq!(browser.value("document.querySelectorAll('#talk img, #talk script').length"), 0);
    assert_ne!(browser.value("document.title"), "bad");
    assert_eq!(browser.value("document.querySelectorAll('#talk li.you').length"), 1);
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}

#[test]
fn the_page_says_that_the_server_has_gone_and_comes_back_by_itself() {
    let Some(mut browser) = browser() else { return };
    let site = Site::start(&["--service", "chat"]);
    let page = site.page;
    browser.open(page);
    browser.value("window.isTheSamePage = true");
    assert!(site.server.stop().status.success());
    browser.wait_for("document.getElementById('status').dataset.state === 'gone'");
    browser.wait_for_text("status", "the server has gone");
    browser.wait_for("document.getElementById('line').disabled");
    browser.wait_for_text("retry", "Try");

    let address = page.to_string();
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--service", "chat", "--page", &address]);
    let site = Site::of(Server::from_command(&mut command));
    assert_eq!(site.page, page);
    browser.wait_for("document.getElementById('status').dataset.state === 'live'");
    browser.wait_for("!document.getElementById('line').disabled && document.getElementById('retry').hidden");
    let mut client = site.server.client();
    client.send("welcome back\n");
    browser.wait_for_text("talk", "welcome back");
    browser.wait_for_text("rows", &client.0.local_addr().unwrap().to_string());
    assert_eq!(browser.value("window.isTheSamePage"), true);
    // That nobody was there is told in the browser's own words; nothing else is.
    let of_the_page =
        |one: &&String| !one.contains("WebSocket connection to") && !one.contains(r#""source":"network""#);
    let others: Vec<&String> = browser.complaints.iter().filter(of_the_page).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn a_phone_shows_it_without_scrolling_sideways_and_in_the_dark() {
    let Some(mut browser) = browser() else { return };
    let site = Site::start(&["--service", "echo"]);
    let _clients: Vec<_> = (0..3).map(|_| site.server.client()).collect();
    let screen = json!({"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true});
    browser.call("Emulation.setDeviceMetricsOverride", screen);
    browser.open(site.page);
    browser.wait_for("document.querySelectorAll('#rows tr').length === 3");
    assert_eq!(browser.value("document.documentElement.scrollWidth"), 360);
    let colour = "getComputedStyle(document.body).backgroundColor";
    let mut seen = Vec::new();
    for scheme in ["light", "dark"] {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.call("Emulation.setEmulatedMedia", media);
        seen.push(browser.value(colour).as_str().unwrap().to_owned());
    }
    assert_eq!(seen, ["rgb(245, 243, 238)", "rgb(14, 19, 24)"]);
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}

#[test]
fn whoever_does_not_see_it_finds_everything_by_name() {
    let Some(mut browser) = browser() else { return };
    let site = Site::start(&["--service", "echo"]);
    let _client = site.server.client();
    browser.open(site.page);
    browser.wait_for("document.querySelectorAll('#rows tr').length === 1");
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let nodes: Vec<(String, String)> = tree["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let of = |field: &str| node[field]["value"].as_str().unwrap_or_default().to_owned();
            (of("role"), of("name"))
        })
        .collect();
    let has = |role: &str, name: &str| nodes.iter().any(|(known, text)| known == role && text.starts_with(name));
    for (role, name) in [
        ("banner", ""),
        ("main", ""),
        ("contentinfo", ""),
        ("heading", "socket-steps"),
        ("heading", "Open connections"),
        ("status", ""),
        ("columnheader", "peer"),
        ("columnheader", "open for"),
        ("region", "The last minute"),
        ("image", "Connections during the last minute: now 1"),
        ("image", "Bytes a second"),
        ("log", "What is said in the room"),
        ("textbox", "Say something to everyone else"),
        ("button", "Say"),
    ] {
        assert!(has(role, name), "no {role} {name:?} among {nodes:?}");
    }
    for (role, name) in &nodes {
        assert!(
            !matches!(role.as_str(), "button" | "textbox" | "link" | "image") || !name.is_empty(),
            "a {role} without a name"
        );
    }
}

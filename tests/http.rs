//! What is no proper request gets the exact status that says so; whatever is sent, the page's server goes on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::thread;
use std::time::{Duration, Instant};

use support::figures::{figure, full};
use support::web::{Response, Site, ask, handshake};
use support::{Client, cpu_time, has_program, run};

/// A request for the page, with these lines besides.
fn with(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

fn to_host(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn first_line(line: &str) -> String {
    format!("{line}\r\nHost: localhost\r\n\r\n")
}

/// A right handshake, but for this.
fn handshake_but(right: &str, wrong: &str) -> String {
    let request = handshake("/live", "");
    assert!(request.contains(right));
    request.replace(right, wrong)
}

/// What may not be served, and the status that says why.
fn bad_requests() -> Vec<(u16, String)> {
    let mut requests = Vec::new();
    let mut add = |status: u16, of: Vec<String>| requests.extend(of.into_iter().map(|request| (status, request)));
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let each = |make: fn(&str) -> String, texts: &[&str]| texts.iter().map(|text| make(text)).collect::<Vec<_>>();

    // Lines.
    add(
        400,
        strings(&[
            "GET / HTTP/1.1\nHost: localhost\n\n",
            "GET / HTTP/1.1\r\nHost: localhost\n\r\n",
            "GET / HTTP/1.1\rHost: localhost\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\nHost: localhost\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "\n",
            "\0",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}", // The first words of TLS.
        ]),
    );
    // The request line.
    add(
        400,
        each(
            first_line,
            &[
                "GET /",
                "GET  / HTTP/1.1",
                " GET / HTTP/1.1",
                "GET / HTTP/1.1 x",
                "GET / HTTP/1",
                "GET / HTTP/11",
                "GET / http/1.1",
                "GET / HTTPS/1.1",
                "G\u{e9}T / HTTP/1.1",
                "GET * HTTP/1.1",
                "GET stats.json HTTP/1.1",
                "GET https://localhost/ HTTP/1.1",
                "GET http:///stats.json HTTP/1.1",
                "GET http://a@localhost/ HTTP/1.1",
                "GET /#top HTTP/1.1",
                "GET /a b HTTP/1.1",
                "GET /\u{e9} HTTP/1.1",
                "GET /\t HTTP/1.1",
            ],
        ),
    );
    add(405, each(first_line, &["POST / HTTP/1.1", "DELETE /stats.json HTTP/1.1", "OPTIONS * HTTP/1.1"]));
    add(405, each(first_line, &["CONNECT localhost:80 HTTP/1.1", "TRACE / HTTP/1.1"]));
    add(405, strings(&["PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"]));
    add(501, each(first_line, &["BREW / HTTP/1.1", "get / HTTP/1.1", "GETT / HTTP/1.1"]));
    add(505, each(first_line, &["GET / HTTP/2.0", "GET / HTTP/1.2", "GET / HTTP/0.9"]));
    // Paths: there is a table, and no file system.
    for path in [
        "/../Cargo.toml",
        "/../../../../etc/passwd",
        "/%2e%2e/Cargo.toml",
        "/%00",
        "/stats.json%00",
        "//",
        "//stats.json",
        "/./",
        "/stats.json/",
        "/STATS.JSON",
        "/%73tats.json",
        "/page.html",
    ] {
        add(404, vec![first_line(&format!("GET {path} HTTP/1.1"))]);
    }
    // How long the request is.
    let lengths = ["+5", "-1", "0x5", "5, 5", "5 5", "5.0", "", "99999999999999999999999", "5"];
    add(400, lengths.iter().map(|length| with(&format!("Content-Length: {length}\r\n"))).collect());
    add(
        400,
        each(
            with,
            &[
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
                "Content-Length: 0\r\nContent-Length: 0\r\n",
                "Content-Length: 0\r\nContent-Length: 5\r\n",
                "Transfer-Encoding: chunked\r\n",
                "Transfer-Encoding: identity\r\n",
            ],
        ),
    );
    add(400, strings(&["GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"]));
    // Fields.
    add(
        400,
        each(
            with,
            &[
                "A: b\r\n c\r\n",
                "A: b\r\n\tc\r\n",
                "A : b\r\n",
                "A\t: b\r\n",
                "A\r\n",
                ": b\r\n",
                "A(b): c\r\n",
                "\u{e9}: c\r\n",
                "A: b\0c\r\n",
                "A: b\u{7}c\r\n",
                "A: b\u{7f}c\r\n",
                "A: b\rc\r\n",
                "Host: localhost\r\n",
            ],
        ),
    );
    add(400, strings(&["GET / HTTP/1.1\r\n Host: localhost\r\n\r\n", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n"]));
    add(
        400,
        each(to_host, &["", "a b", "a/b", "user@localhost", "localhost:port", "localhost:65536", "[::1", "::1", "[x]"]),
    );
    add(
        421,
        each(
            to_host,
            &["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "localhost.", "127.1", "0x7f000001"],
        ),
    );
    add(421, strings(&["GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n"]));
    // Also of a page that has moved here for the sake of a conversation (DNS rebinding).
    let moved = handshake("/live", "Origin: http://evil.example\r\n").replace("Host: localhost", "Host: evil.example");
    add(421, vec![moved]);
    // Too much of it.
    add(431, vec![with(&"A: b\r\n".repeat(64)), with(&format!("A: {}\r\n", "x".repeat(9000)))]);
    add(431, vec![with(&format!("{}: b\r\n", "x".repeat(9000))), with(&"A: bcdefgh\r\n".repeat(2000))]);
    add(414, vec![first_line(&format!("GET /{} HTTP/1.1", "x".repeat(9000))), "x".repeat(9000)]);
    // Handshakes.
    add(426, each(first_line, &["GET /live HTTP/1.1", "GET /chat HTTP/1.1"]));
    add(426, vec![handshake_but("Upgrade: websocket", "Upgrade: h2c"), handshake_but("HTTP/1.1", "HTTP/1.0")]);
    add(426, vec![handshake_but("Version: 13", "Version: 8"), handshake_but("Version: 13", "Version: 13, 8")]);
    add(405, vec![handshake_but("GET", "HEAD")]);
    for (right, wrong) in [
        ("Connection: Upgrade\r\n", ""),
        ("Connection: Upgrade", "Connection: close"),
        ("Sec-WebSocket-Version: 13\r\n", ""),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        ("dGhlIHNhbXBsZSBub25jZQ==", ""),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j!!=="),
    ] {
        add(400, vec![handshake_but(right, wrong)]);
    }
    for twice in
        ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", "Origin: http://localhost"]
    {
        add(400, vec![handshake("/chat", &format!("{twice}\r\nOrigin: http://localhost\r\n"))]);
    }
    for origin in ["http://evil.example", "null", "http://localhost:1", "file://localhost", "localhost", ""] {
        add(403, vec![handshake("/chat", &format!("Origin: {origin}\r\n"))]);
    }
    requests
}

#[test]
fn each_bad_request_gets_the_exact_status() {
    let site = Site::start(&[]);
    let requests = bad_requests();
    assert!(requests.len() >= 40);
    let mut wrong = Vec::new();
    for (status, request) in &requests {
        let response = ask(site.page, request.as_bytes());
        let shown: String = request.chars().take(300).collect();
        assert_eq!(response.field("content-length"), response.body.len().to_string(), "{shown:?}");
        assert!(response.field("connection").starts_with("close"), "{shown:?}");
        assert_eq!(response.field("content-type"), "text/plain; charset=utf-8");
        if response.status != *status {
            wrong.push(format!("{} instead of {status}: {shown:?}: {}", response.status, response.body));
        }
    }
    let figures = format!("{} bad requests, {} with another status than they should have", requests.len(), wrong.len());
    figure("B20", wrong.is_empty(), figures);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert_eq!(site.get("/").status, 200);
    let ended = site.server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.accounts.of("accepted"), 0, "the page is not counted");
    assert!(!ended.log.contains("panicked"), "{}", ended.log);
}

#[test]
fn a_status_that_needs_it_says_what_would_be_right() {
    let site = Site::start(&[]);
    let ask = |request: &str| ask(site.page, request.as_bytes());
    assert_eq!(ask(&first_line("POST / HTTP/1.1")).field("allow"), "GET, HEAD");
    let plain = ask(&first_line("GET /live HTTP/1.1"));
    assert_eq!((plain.field("upgrade"), plain.field("connection")), ("websocket", "close, Upgrade"));
    assert_eq!(ask(&handshake_but("Version: 13", "Version: 8")).field("sec-websocket-version"), "13");
    assert!(ask(&to_host("steps.example")).body.contains("--page-host steps.example"));
}

#[test]
fn what_is_right_is_served_however_it_is_written() {
    let site = Site::start(&["--page-host", "steps.example", "--page-host", "other.example"]);
    for request in [
        to_host("localhost"),
        to_host("LOCALHOST:8081"),
        to_host("127.0.0.1"),
        to_host("192.0.2.7:80"),
        to_host("[::1]:8081"),
        to_host("steps.example"),
        to_host("Other.Example:80"),
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        first_line("GET /?fresh=1 HTTP/1.1"),
        "GET http://localhost/ HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),
        "GET http://localhost:8081?x HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        format!("\r\n{}", to_host("localhost")),
        with("Content-Length: 0\r\n"),
        with("Upgrade: websocket\r\nConnection: Upgrade\r\n"),
        with("Accept-Language: \u{e9}\r\nA:b\r\nC:\t d \r\n"),
        with(&"A: b\r\n".repeat(63)),
        // A second request on the same connection is not answered: it was told that the connection ends.
        format!("{}{}", to_host("localhost"), to_host("localhost")),
    ] {
        let response = ask(site.page, request.as_bytes());
        assert_eq!(response.status, 200, "{request:?}: {response:?}");
        assert!(response.body.starts_with("<!doctype html>") && response.body.ends_with("</html>\n"));
        assert_eq!(response.field("content-length"), response.body.len().to_string());
    }
    // In as many pieces as it has bytes.
    let mut client = Client::connect(site.page);
    for byte in to_host("localhost").as_bytes() {
        client.send([*byte]);
    }
    assert_eq!(Response::read(&mut client).status, 200);
    // The same, but for the content.
    let head = ask(site.page, first_line("HEAD / HTTP/1.1").as_bytes());
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.field("content-length"), site.get("/").body.len().to_string());
}

#[test]
fn a_head_that_takes_longer_than_5_seconds_is_not_waited_for() {
    let site = Site::start(&[]);
    let began = Instant::now();
    // A page's, and that of a WebSocket, with all that belongs to it but its end.
    let handshake = handshake("/live", "A: ");
    let heads = ["GET / HTTP/1.1\r\nHost: localhost\r\nA: ", handshake.strip_suffix("\r\n").unwrap()];
    thread::scope(|scope| {
        // One says nothing at all, and need not be told anything.
        let silent = scope.spawn(|| {
            let rest = Client::connect(site.page).rest();
            (rest, began.elapsed())
        });
        let drips = heads.map(|head| {
            let mut client = Client::connect(site.page);
            scope.spawn(move || {
                let mut reader = Client(client.0.try_clone().unwrap());
                let answer = scope.spawn(move || (reader.rest_and_end().0, began.elapsed()));
                // A byte at a time, and never the last: no wait for a byte ever becomes long.
                for byte in head.bytes().chain(std::iter::repeat(b'x')) {
                    if answer.is_finished() || std::io::Write::write_all(&mut client.0, &[byte]).is_err() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                answer.join().unwrap()
            })
        });
        // Meanwhile, everyone else is served.
        assert_eq!(site.get("/").status, 200);
        let (nothing, silent_for) = silent.join().unwrap();
        assert!(nothing.is_empty(), "{}", String::from_utf8_lossy(&nothing));
        let dripped_for = drips.map(|drips| {
            let (answer, dripped_for) = drips.join().unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 408 Request Timeout\r\n"), "{}", String::from_utf8_lossy(&answer));
            dripped_for
        });
        for took in dripped_for.into_iter().chain([silent_for]) {
            assert!(took >= Duration::from_secs(5), "{took:?} after the connect");
            assert!(took < Duration::from_secs(15), "{took:?} after the connect");
        }
    });
}

#[test]
fn a_request_that_ends_early_is_told_so() {
    let site = Site::start(&[]);
    let mut client = Client::connect(site.page);
    client.send("GET / HTTP/1.1\r\nHost").end();
    assert_eq!(Response::read(&mut client).status, 400);
    assert!(Client::connect(site.page).end().rest().is_empty());
    let mut resets = Client::connect(site.page);
    resets.send("GET / HT");
    resets.reset();
    assert_eq!(site.get("/").status, 200);
}

#[test]
fn a_header_of_20_megabytes_costs_next_to_nothing() {
    let site = Site::start(&[]);
    assert_eq!(site.get("/").status, 200);
    let mut request = b"GET / HTTP/1.1\r\nHost: localhost\r\nA: ".to_vec();
    request.resize(20_000_000, b'x');
    // The clock of processor time has ticks of 10 ms; one of them may not have been seen yet.
    const TICK: Duration = Duration::from_millis(10);
    let times = if full() { 50 } else { 5 };
    let before = cpu_time(site.server.pid());
    for _ in 0..times {
        assert_eq!(ask(site.page, &request).status, 431);
    }
    let cost = (cpu_time(site.server.pid()) - before + TICK) / times;
    figure(
        "B20",
        cost <= Duration::from_millis(50),
        format!("a header of 20 MB costs at most {cost:?}, the mean of {times}"),
    );
    assert!(cost < Duration::from_secs(1), "{cost:?}: all of it has been looked at");
}

#[test]
fn everything_says_what_a_browser_may_do_with_it() {
    let site = Site::start(&[]);
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/stats.json", "application/json"),
        ("/nothing", "text/plain; charset=utf-8"),
    ] {
        let response = site.get(path);
        assert_eq!(response.field("content-type"), content_type, "{path}");
        assert_eq!(response.field("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(response.field("cache-control"), "no-store", "{path}");
        let policy = response.field("content-security-policy");
        for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert!(response.field("date").ends_with(" GMT"), "{path}");
    }
}

#[test]
fn curl_gets_the_page_and_the_numbers() {
    if !has_program("curl") {
        return;
    }
    let site = Site::start(&[]);
    let curl = |words: &[&str], path: &str| {
        let mut command = std::process::Command::new("curl");
        command
            .args(["-sS", "--noproxy", "*", "--max-time", "30"])
            .args(words)
            .arg(format!("http://{}{path}", site.page));
        run(&mut command, b"")
    };
    let (status, page, errors) = curl(&["-f"], "/");
    assert!(status.success() && page.starts_with("<!doctype html>"), "{errors}");
    let (status, numbers, errors) = curl(&["-f"], "/stats.json");
    assert!(status.success(), "{errors}");
    let numbers: serde_json::Value = serde_json::from_str(&numbers).unwrap();
    assert_eq!(numbers["accepted"], 0);
    let (_, code, _) = curl(&["-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: evil.example"], "/");
    assert_eq!(code, "421");
    let (_, code, _) = curl(&["-o", "/dev/null", "-w", "%{http_code}", "-d", "a=b"], "/");
    assert_eq!(code, "405");
}

//! WebSocket as RFC 6455 has it, against a client that says whatever it is told to, byte by byte: the cases of
//! Autobahn; and what a hostile client may try.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod autobahn;
mod case;
#[path = "../support/mod.rs"]
mod support;
mod utf8;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket_steps::room::Room;
use socket_steps::server::{Config, Server as KitServer};
use socket_steps::web::page::{Options, Page, Running};
use socket_steps::web::websocket::Limits;
use support::figures::figure;
use support::web::{BINARY, CLOSE, CONTINUE, FIN, Frame, PING, PONG, Site, TEXT, Ws, head, masked};
use support::{BOUND, Client, Server, program, resident, run, wait_until};

fn close_with(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

#[test]
fn what_is_not_masked_is_refused() {
    let site = Site::start(&[]);
    for opcode in [TEXT, BINARY, PING, CLOSE] {
        let mut ws = Ws::connect(site.page, "/chat");
        ws.0.send(head(FIN | opcode, 2, 0)).send("hi");
        assert_eq!(ws.close_code(), 1002, "{opcode}");
    }
}

#[test]
fn a_message_over_the_limit_is_refused_before_anything_is_kept_for_it() {
    let site = Site::start(&["--max-message", "64KiB"]);
    let before = resident(site.server.pid());
    // Nothing of it need come: what it says of itself is enough.
    for length in [64 * 1024 + 1, 1 << 20, 1 << 40, (1 << 63) - 1, u64::MAX] {
        for opcode in [TEXT, BINARY, PING] {
            let mut ws = Ws::connect(site.page, "/chat");
            ws.0.send(head(FIN | opcode, length, 0x80)).send("mask");
            assert_eq!(ws.close_code(), 1009, "{length}");
        }
    }
    // In parts, each of which would pass.
    let mut ws = Ws::connect(site.page, "/chat");
    ws.send(TEXT, [b'x'; 40_000]).send(CONTINUE, [b'x'; 40_000]);
    assert_eq!(ws.close_code(), 1009);
    let grown = resident(site.server.pid()).saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more");
    // Exactly the limit is no more than the limit.
    let (mut says, mut hears) = (Ws::connect(site.page, "/chat"), Ws::connect(site.page, "/chat"));
    hears.send(FIN | PING, "there?");
    assert_eq!(hears.next().first, FIN | PONG);
    says.send(FIN | TEXT, [b'x'; 64 * 1024]);
    assert_eq!(hears.hear().len(), 64 * 1024);
    assert!(site.server.stop().status.success());
}

#[test]
fn what_comes_right_behind_the_handshake_is_not_lost() {
    let site = Site::start(&[]);
    let mut ws = Client::connect(site.page);
    let request = support::web::handshake(
        "/chat",
        "Origin: http://localhost\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
    );
    ws.send([request.as_bytes(), &masked(FIN | PING, b"at once")].concat());
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.extend(ws.read(1));
    }
    assert!(!String::from_utf8(answer).unwrap().contains("deflate"), "no compression is offered");
    assert_eq!(Ws(ws).frame(), Frame { first: FIN | PONG, payload: b"at once".to_vec() });
}

#[test]
fn what_is_said_never_reaches_the_log_as_it_is() {
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--page", "127.0.0.1:0"]).env("RUST_LOG", "trace");
    let site = Site::of(Server::from_command(&mut command));
    let mut hears = Ws::connect(site.page, "/chat");
    let mut says = Ws::connect(site.page, "/chat");
    says.say("\u{1b}[2J\u{7}\nforged");
    assert_eq!([hears.hear(), hears.hear()], ["\u{1b}[2J\u{7}", "forged"]);
    says.send(FIN | CLOSE, close_with(1000, b"\x1b[2J"));
    assert_eq!(says.close_code(), 1000);
    site.get("/nothing\u{1b}[2J");
    let log = site.server.stop().log;
    assert!(log.contains("TRACE") && !log.contains('\u{1b}') && !log.contains('\u{7}'), "{log}");
    // A line of the log begins with its time, and none was made by a client.
    assert!(log.lines().all(|line| line.starts_with('[')) && !log.contains("forged"), "{log}");
}

/// A page in this process, beside a server that nobody visits, with bounds of the test's own.
struct Here {
    page: Option<Running>,
    address: SocketAddr,
    _server: KitServer,
}

impl Here {
    fn with(limits: Limits) -> Here {
        let server = KitServer::bind(["127.0.0.1:0"], Config::default()).unwrap();
        let page = Page::bind("127.0.0.1:0", Options { limits, ..Options::default() }).unwrap();
        let address = page.local_addrs()[0].to_string().parse().unwrap();
        let page = Some(page.start(server.handle(), Room::default()).unwrap());
        Here { page, address, _server: server }
    }

    fn stop(mut self) {
        let summary = self.page.take().unwrap().stop();
        assert!(summary.is_clean(), "{summary}");
    }
}

const SHORT: Duration = Duration::from_millis(500);

/// How much later than a deadline is late.
const LATE: Duration = Duration::from_millis(500);

#[test]
fn a_flood_of_pings_without_reading_ends_at_the_write_deadline() {
    let here = Here::with(Limits { write: SHORT, ..Limits::default() });
    let (mut says, mut hears) = (Ws::connect(here.address, "/chat"), Ws::connect(here.address, "/chat"));
    // Not in the room: there, it would be ended as soon as it has to be told something.
    let mut floods = Ws::with_little_room_on_the_way(here.address, "/live");
    let began = Instant::now();
    let flood = masked(FIN | PING, &[b'x'; 125]).repeat(1000);
    let flooding = thread::spawn(move || {
        let mut sent = 0;
        let error = loop {
            match floods.0.0.write_all(&flood) {
                Ok(()) => sent += flood.len(),
                Err(error) => break error,
            }
        };
        (sent, began.elapsed(), error)
    });
    // Meanwhile the others talk as if nothing were.
    let mut said = 0;
    while !flooding.is_finished() {
        let text = format!("line {said}");
        says.say(&text);
        assert_eq!(hears.hear(), text);
        said += 1;
    }
    let (sent, took, error) = flooding.join().unwrap();
    assert!(sent > 1024 * 1024, "{sent} bytes are no flood");
    assert!(took >= SHORT && took < BOUND / 2, "{took:?}");
    // It is no clean end: what it was sent has a gap.
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(said > 10, "the others said only {said} lines");
    figure(
        "B19",
        took <= SHORT + LATE,
        format!(
            "a flood of pings, {} KiB, ended after {took:.2?} with a write deadline of {SHORT:?}; meanwhile the others \
             have said {said} lines",
            sent / 1024
        ),
    );
    here.stop();
}

#[test]
fn a_slow_viewer_is_ended_alone_and_the_others_miss_nothing() {
    let here = Here::with(Limits { write: 4 * BOUND, ..Limits::default() });
    let (mut says, mut hears) = (Ws::connect(here.address, "/chat"), Ws::connect(here.address, "/chat"));
    hears.send(FIN | PING, "");
    assert_eq!(hears.next().first, FIN | PONG);
    let slow = Ws::on(Client::with_a_small_window(here.address), "/chat");
    let watcher = slow.0.0.try_clone().unwrap();
    let hang_up = thread::spawn(move || Client(watcher).wait_for_hang_up());
    let text = "x".repeat(60_000);
    let mut lines = 0_u64;
    while !hang_up.is_finished() {
        // At the pace of those who listen: nobody else has more than one line to read.
        let line = format!("{lines} {text}");
        says.say(&line);
        assert_eq!(hears.hear(), line);
        lines += 1;
        assert!(lines < 10_000, "it is never ended");
    }
    hang_up.join().unwrap();
    assert!(lines * 60_000 > 256 * 1024, "it was not slow: {lines} lines");
    drop(slow);
    says.say("and still");
    assert_eq!(hears.hear(), "and still");
    here.stop();
}

#[test]
fn who_does_not_answer_pings_is_gone_and_who_does_stays() {
    let limits = Limits { ping_every: SHORT / 5, heard_within: SHORT, ..Limits::default() };
    let here = Here::with(limits);
    let began = Instant::now();
    let mut stays = Ws::connect(here.address, "/chat");
    let mut silent = Ws::connect(here.address, "/chat");
    let vanished = thread::spawn(move || {
        let _ = silent.0.rest_and_end();
        began.elapsed()
    });
    // More than twice as long as nothing may come; nothing but pongs come.
    while began.elapsed() < 5 * SHORT / 2 {
        let ping = stays.frame();
        assert_eq!(ping.first, FIN | PING);
        stays.send(FIN | PONG, &ping.payload);
    }
    // And as long once more, while it is spoken to without a pause.
    let mut speaker = Ws::connect(here.address, "/chat");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let speaking = thread::spawn(move || {
        let lines = masked(FIN | TEXT, b"and on and on").repeat(100);
        while !stopped.load(Ordering::SeqCst) && speaker.0.0.write_all(&lines).is_ok() {}
    });
    let mut heard = 0;
    while began.elapsed() < 5 * SHORT {
        let frame = stays.frame();
        match frame.first {
            first if first == FIN | PING => drop(stays.send(FIN | PONG, &frame.payload)),
            first => {
                assert_eq!(first, FIN | TEXT, "{frame:?}");
                heard += 1;
            }
        }
    }
    stop.store(true, Ordering::SeqCst);
    assert!(heard > 1000, "only {heard} lines are not without a pause");
    wait_until("it is given up", || vanished.is_finished().then_some(()));
    let took = vanished.join().unwrap();
    assert!(took >= SHORT, "{took:?}");
    stays.send(FIN | PING, "still here");
    while stays.next() != (Frame { first: FIN | PONG, payload: b"still here".to_vec() }) {}
    speaking.join().unwrap();
    here.stop();
}

#[test]
fn a_stop_says_goodbye_to_everyone() {
    let here = Here::with(Limits::default());
    let mut viewers: Vec<Ws> = ["/live", "/chat", "/live"].map(|path| Ws::connect(here.address, path)).into();
    // One is in the middle of a message.
    let mut half = Ws::connect(here.address, "/chat");
    half.0.send(&masked(FIN | TEXT, b"half a message")[..10]);
    viewers.push(half);
    let began = Instant::now();
    let stopping = thread::spawn(move || {
        here.stop();
        began.elapsed()
    });
    for viewer in &mut viewers {
        assert_eq!(viewer.close_code(), 1001);
    }
    drop(viewers);
    assert!(stopping.join().unwrap() < BOUND / 2);
}

#[test]
fn a_page_that_has_been_stopped_has_no_threads() {
    // The other tests of this file have such threads, too: looked at is a process of its own.
    const NAME: &str = "a_page_that_has_been_stopped_has_no_threads";
    const CHILD: &str = "LOOKS_AT_ITS_OWN_THREADS";
    if std::env::var_os(CHILD).is_none() {
        let mut again = Command::new(std::env::current_exe().unwrap());
        let (status, output, errors) = run(again.args([NAME, "--exact", "--nocapture"]).env(CHILD, "1"), b"");
        assert!(status.success() && output.contains("1 passed"), "{output} {errors}");
        return;
    }
    let names = || -> BTreeSet<String> {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok()).collect()
    };
    for _ in 0..3 {
        let before = names();
        let here = Here::with(Limits::default());
        let mut viewers = ["/live", "/chat"].map(|path| Ws::connect(here.address, path));
        assert!(viewers[0].hear().starts_with('{'));
        let with_page = names();
        for name in ["page\n", "publisher\n", "writer\n"] {
            assert!(with_page.contains(name) && !before.contains(name), "{before:?} {with_page:?}");
        }
        here.stop();
        assert_eq!(viewers.each_mut().map(Ws::close_code), [1001, 1001]);
        wait_until("its threads have ended", || (names() == before).then_some(()));
    }
}

//! WebSocket as RFC 6455 has it, against a client that says whatever it is told to, byte by byte: a table keyed by
//! the numbers of Autobahn's test cases; and what a hostile client may try.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

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
use support::web::{BINARY, CLOSE, FIN, Frame, PING, PONG, Site, TEXT, Ws, head, masked};
use support::{BOUND, Client, Server, program, resident, run, wait_until};

const CONTINUE: u8 = 0;
const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;
const RSV3: u8 = 0x10;

/// How a case's bytes are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Whole,
    Frames,
    Octets,
}

/// One of Autobahn's cases: what is sent, which texts the others in the room hear, and what comes back. The
/// room's server echoes nothing: where Autobahn expects an echo, the others must have heard it.
struct Case {
    number: String,
    cut: Cut,
    frames: Vec<(u8, Vec<u8>)>,
    heard: Vec<String>,
    answers: Vec<Frame>,
    /// The code of the server's close; the case's own close is 1000.
    code: u16,
}

impl Case {
    fn new(number: impl Into<String>, frames: &[(u8, &[u8])]) -> Case {
        let frames = frames.iter().map(|(first, payload)| (*first, payload.to_vec())).collect();
        let (heard, answers) = (Vec::new(), Vec::new());
        Case { number: number.into(), cut: Cut::Whole, frames, heard, answers, code: 1000 }
    }

    fn cut(self, cut: Cut) -> Case {
        Case { cut, ..self }
    }

    fn heard(self, texts: &[&str]) -> Case {
        Case { heard: texts.iter().map(|text| (*text).to_owned()).collect(), ..self }
    }

    fn pongs(self, payloads: &[&[u8]]) -> Case {
        let pong = |payload: &&[u8]| Frame { first: FIN | PONG, payload: payload.to_vec() };
        Case { answers: payloads.iter().map(pong).collect(), ..self }
    }

    fn closes(self, code: u16) -> Case {
        Case { code, ..self }
    }
}

/// A text in fragments of one octet, as frames.
fn octets(bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let last = bytes.len() - 1;
    let first = |at: usize| if at == 0 { TEXT } else { CONTINUE } | if at == last { FIN } else { 0 };
    bytes.chunks(1).enumerate().map(|(at, byte)| (first(at), byte)).collect()
}

fn close_with(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

fn messages_and_pings(cases: &mut Vec<Case>) {
    for (at, size) in [0, 125, 126, 127, 128, 65_535, 65_536].into_iter().enumerate() {
        let text = "*".repeat(size);
        let one = |number: usize| Case::new(format!("1.1.{number}"), &[(FIN | TEXT, text.as_bytes())]).heard(&[&text]);
        cases.push(one(at + 1));
        if size == 65_536 {
            cases.push(one(8).cut(Cut::Frames));
        }
        // This room takes text only, and says so: 1003 is "a type of data that it cannot accept".
        let binary = vec![0xfe; size];
        cases.push(Case::new(format!("1.2.{}", at + 1), &[(FIN | BINARY, &binary)]).closes(1003));
    }
    let long = [0xfe; 125];
    for (number, payload) in
        [(1, &b""[..]), (2, b"Hello, world!"), (3, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"), (4, &long)]
    {
        cases.push(Case::new(format!("2.{number}"), &[(FIN | PING, payload)]).pongs(&[payload]));
    }
    cases.push(Case::new("2.5", &[(FIN | PING, &[0xfe; 126])]).closes(1002));
    cases.push(Case::new("2.6", &[(FIN | PING, &long)]).cut(Cut::Octets).pongs(&[&long]));
    cases.push(Case::new("2.7", &[(FIN | PONG, b"")]));
    cases.push(Case::new("2.8", &[(FIN | PONG, b"unsolicited")]));
    cases.push(Case::new("2.9", &[(FIN | PONG, b"unsolicited"), (FIN | PING, b"ping")]).pongs(&[b"ping"]));
    let payloads: Vec<Vec<u8>> = (0..10).map(|at| format!("payload-{at}").into_bytes()).collect();
    let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    let pings: Vec<(u8, &[u8])> = payloads.iter().map(|payload| (FIN | PING, *payload)).collect();
    // Of pings that come together, only the last would need an answer (RFC 6455, section 5.5.3); all get one.
    cases.push(Case::new("2.10", &pings).pongs(&payloads));
    cases.push(Case::new("2.11", &pings).cut(Cut::Octets).pongs(&payloads));
}

fn reserved(cases: &mut Vec<Case>) {
    let hello = (FIN | TEXT, &b"Hello, world!"[..]);
    let ping = (FIN | PING, &b""[..]);
    let after_hello = |number: &str, first: u8| {
        Case::new(number, &[hello, (first, hello.1), ping]).heard(&["Hello, world!"]).closes(1002)
    };
    cases.push(Case::new("3.1", &[(FIN | RSV3 | TEXT, hello.1)]).closes(1002));
    cases.push(after_hello("3.2", FIN | RSV2 | TEXT));
    cases.push(after_hello("3.3", FIN | RSV2 | RSV3 | TEXT).cut(Cut::Frames));
    cases.push(after_hello("3.4", FIN | RSV1 | TEXT).cut(Cut::Octets));
    cases.push(Case::new("3.5", &[(FIN | RSV1 | RSV3 | BINARY, hello.1)]).closes(1002));
    cases.push(Case::new("3.6", &[(FIN | RSV1 | RSV2 | PING, hello.1)]).closes(1002));
    cases.push(Case::new("3.7", &[(FIN | RSV1 | RSV2 | RSV3 | CLOSE, b"")]).closes(1002));
    for (group, opcodes) in [(1, 3..=7), (2, 11..=15)] {
        for (at, opcode) in opcodes.enumerate() {
            let number = format!("4.{group}.{}", at + 1);
            cases.push(match at {
                0 => Case::new(number, &[(FIN | opcode, b"")]).closes(1002),
                1 => Case::new(number, &[(FIN | opcode, b"reserved")]).closes(1002),
                2 => after_hello(&number, FIN | opcode),
                3 => after_hello(&number, FIN | opcode).cut(Cut::Frames),
                _ => after_hello(&number, FIN | opcode).cut(Cut::Octets),
            });
        }
    }
}

fn fragments(cases: &mut Vec<Case>) {
    let (one, two) = ((TEXT, &b"fragment1"[..]), (FIN | CONTINUE, &b"fragment2"[..]));
    let both = &["fragment1fragment2"];
    let ping = (FIN | PING, &b"ping"[..]);
    cases.push(Case::new("5.1", &[(PING, b"fragment1"), two]).closes(1002));
    cases.push(Case::new("5.2", &[(PONG, b"fragment1"), two]).closes(1002));
    for (at, cut) in [Cut::Whole, Cut::Frames, Cut::Octets].into_iter().enumerate() {
        let case = |number: usize, frames: &[(u8, &[u8])]| Case::new(format!("5.{}", number + at), frames).cut(cut);
        cases.push(case(3, &[one, two]).heard(both));
        cases.push(case(6, &[one, ping, two]).heard(both).pongs(&[b"ping"]));
        let hello = (FIN | TEXT, &b"Hello, world!"[..]);
        cases.push(case(9, &[(FIN | CONTINUE, b"non-continuation"), hello]).closes(1002));
        cases.push(case(12, &[(CONTINUE, b"non-continuation"), hello]).closes(1002));
    }
    cases.push(
        Case::new("5.15", &[one, two, (CONTINUE, b"fragment3"), (FIN | TEXT, b"fragment4")]).heard(both).closes(1002),
    );
    for (number, first) in [("5.16", CONTINUE), ("5.17", FIN | CONTINUE)] {
        cases.push(Case::new(number, &[(first, b"fragment1"), one, two]).closes(1002));
    }
    cases.push(Case::new("5.18", &[one, (FIN | TEXT, b"fragment2")]).closes(1002));
    for (number, cut) in [("5.19", Cut::Whole), ("5.20", Cut::Frames)] {
        let part = |first| (first, &b"fragment"[..]);
        let frames = [part(TEXT), part(CONTINUE), ping, part(CONTINUE), part(CONTINUE), ping, part(FIN | CONTINUE)];
        cases.push(Case::new(number, &frames).cut(cut).heard(&[&"fragment".repeat(5)]).pongs(&[b"ping", b"ping"]));
    }
}

fn utf8(cases: &mut Vec<Case>) {
    let text = "Hello-µ@ßöäüàá-UTF-8!!";
    cases.push(Case::new("6.1.1", &[(FIN | TEXT, b"")]).heard(&[""]));
    cases.push(Case::new("6.1.2", &[(TEXT, b""), (CONTINUE, b""), (FIN | CONTINUE, b"")]).heard(&[""]));
    let middle = [(TEXT, &b""[..]), (CONTINUE, b"middle"), (FIN | CONTINUE, b"")];
    cases.push(Case::new("6.1.3", &middle).heard(&["middle"]));
    let (before, after) = text.split_at("Hello-µ@ßöä".len());
    cases.push(Case::new("6.2.1", &[(FIN | TEXT, text.as_bytes())]).heard(&[text]));
    let halves = [(TEXT, before.as_bytes()), (FIN | CONTINUE, after.as_bytes())];
    cases.push(Case::new("6.2.2", &halves).heard(&[text]));
    cases.push(Case::new("6.2.3", &octets(text.as_bytes())).heard(&[text]));
    cases.push(Case::new("6.2.4", &octets("κόσμε".as_bytes())).heard(&["κόσμε"]));
    let broken = ["κόσμε".as_bytes(), b"\xed\xa0\x80", b"edited"].concat();
    cases.push(Case::new("6.3.1", &[(FIN | TEXT, &broken)]).closes(1007));
    cases.push(Case::new("6.3.2", &octets(&broken)).closes(1007));
    let beyond = ["κόσμε".as_bytes(), b"\xf4\x90\x80\x80", b"edited"].concat();
    for (number, cut) in [("6.4.1", Cut::Whole), ("6.4.2", Cut::Frames), ("6.4.3", Cut::Octets)] {
        // When it is found out, now or at the end of the message, is left to us.
        let frames = [(TEXT, &beyond[..12]), (CONTINUE, &beyond[12..16]), (FIN | CONTINUE, &beyond[16..])];
        cases.push(Case::new(number, &frames).cut(cut).closes(1007));
    }
    let good = ["κόσμε", "\0", "\u{80}", "\u{800}", "\u{10000}", "\u{7f}", "\u{7ff}", "\u{ffff}", "\u{10ffff}"];
    let more = ["\u{d7ff}", "\u{e000}", "\u{fffd}", "\u{fffe}", "\u{1fffe}", "\u{10fffe}", "안녕하세요", "👩‍👩‍👧"];
    for (at, text) in good.into_iter().chain(more).enumerate() {
        cases.push(Case::new(format!("6.5-6.9, 6.22 ({at})"), &[(FIN | TEXT, text.as_bytes())]).heard(&[text]));
    }
    let bad: &[&[u8]] = &[
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce", // 6.6: cut in the middle
        b"\xf8\x88\x80\x80\x80",                     // 6.7: five bytes
        b"\xfc\x84\x80\x80\x80\x80",                 // 6.7: six
        b"\xf7\xbf\xbf\xbf",                         // 6.8: beyond the last
        b"\xf4\x90\x80\x80",                         // 6.11
        b"\x80",                                     // 6.12: a continuation alone
        b"\xbf",
        b"\x80\xbf\x80\xbf\x80\xbf",
        b"\xc0 \xc1 \xc2 ", // 6.13: a beginning alone
        b"\xe0 \xe1 ",
        b"\xf0 \xf1 ",
        b"\xc0", // 6.14: the last byte is missing
        b"\xe0\x80",
        b"\xf0\x80\x80",
        b"\xc0\xe0\x80\xf0\x80\x80", // 6.15
        b"\xfe",                     // 6.16: in no character
        b"\xff",
        b"\xc0\xaf", // 6.17: longer than need be
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc1\xbf", // 6.18
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xc0\x80", // 6.19: a long zero
        b"\xe0\x80\x80",
        b"\xed\xa0\x80", // 6.20: half of a pair
        b"\xed\xaf\xbf",
        b"\xed\xb0\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80", // 6.21: both halves
        b"\xed\xaf\xbf\xed\xbf\xbf",
    ];
    for bytes in bad {
        cases.push(Case::new(format!("6.6-6.21 {bytes:02x?}"), &[(FIN | TEXT, bytes)]).closes(1007));
    }
}

fn closing(cases: &mut Vec<Case>) {
    let hello = (FIN | TEXT, &b"Hello World!"[..]);
    let goodbye = close_with(1000, b"");
    let close = (FIN | CLOSE, &goodbye[..]);
    cases.push(Case::new("7.1.1", &[hello, close]).heard(&["Hello World!"]));
    cases.push(Case::new("7.1.2", &[close, close]));
    cases.push(Case::new("7.1.3", &[close, (FIN | PING, b"too late")]));
    cases.push(Case::new("7.1.4", &[close, hello]));
    cases.push(Case::new("7.1.5", &[(TEXT, b"fragment1"), close, (FIN | CONTINUE, b"fragment2")]));
    let long = "BAsd7&jh23".repeat(26_214);
    let frames = [(FIN | TEXT, long.as_bytes()), (FIN | TEXT, &b"Hello World!"[..]), close, (FIN | PING, b"")];
    cases.push(Case::new("7.1.6", &frames).heard(&[&long, "Hello World!"]));
    let with = |number: String, payload: &[u8]| Case::new(number, &[(FIN | CLOSE, payload)]);
    cases.push(with("7.3.1".into(), b"").closes(1005));
    cases.push(with("7.3.2".into(), b"a").closes(1002));
    cases.push(with("7.3.3".into(), &goodbye));
    cases.push(with("7.3.4".into(), &close_with(1000, b"Hello World!")));
    cases.push(with("7.3.5".into(), &close_with(1000, &[b'*'; 123])));
    cases.push(with("7.3.6".into(), &close_with(1000, &[b'*'; 124])).closes(1002));
    cases.push(with("7.5.1".into(), &close_with(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80")).closes(1007));
    let allowed = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    for (at, code) in allowed.into_iter().enumerate() {
        cases.push(with(format!("7.7.{}", at + 1), &close_with(code, b"")).closes(code));
    }
    let forbidden = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    for (at, code) in forbidden.into_iter().enumerate() {
        cases.push(with(format!("7.9.{}", at + 1), &close_with(code, b"")).closes(1002));
    }
    for (at, code) in [5000, 65_535].into_iter().enumerate() {
        cases.push(with(format!("7.13.{}", at + 1), &close_with(code, b"")).closes(1002));
    }
}

fn many_fragments(cases: &mut Vec<Case>) {
    let text = "*".repeat(65_536);
    let last = 65_536 / 1300;
    let first = |at: usize| if at == 0 { TEXT } else { CONTINUE } | if at == last { FIN } else { 0 };
    let frames: Vec<(u8, &[u8])> =
        text.as_bytes().chunks(1300).enumerate().map(|(at, part)| (first(at), part)).collect();
    cases.push(Case::new("10.1.1", &frames).heard(&[&text]));
}

/// Plays a case, and says what was not as expected.
fn play(page: SocketAddr, listener: &mut Ws, case: &Case) -> Result<(), String> {
    let mut ws = Ws::connect(page, "/chat");
    let mut frames: Vec<Vec<u8>> = case.frames.iter().map(|(first, payload)| masked(*first, payload)).collect();
    let has_close = case.frames.iter().any(|(first, _)| first & 0xf == CLOSE);
    if !has_close && case.code == 1000 {
        frames.push(masked(FIN | CLOSE, &close_with(1000, b"")));
    }
    let pieces: Vec<&[u8]> = match case.cut {
        Cut::Whole => Vec::new(),
        Cut::Frames => frames.iter().map(Vec::as_slice).collect(),
        Cut::Octets => frames.iter().flat_map(|frame| frame.chunks(1)).collect(),
    };
    // The server may have hung up before all is sent.
    match case.cut {
        Cut::Whole => drop(ws.0.0.write_all(&frames.concat())),
        _ => pieces.iter().for_each(|piece| drop(ws.0.0.write_all(piece))),
    }
    let mut answers = Vec::new();
    let code = loop {
        let frame = ws.next();
        match frame.close_code() {
            Some(code) => break code,
            None => answers.push(frame),
        }
    };
    if !ws.0.rest_and_end().0.is_empty() {
        return Err("something was said after the goodbye".to_owned());
    }
    if code != case.code {
        return Err(format!("closed with {code} instead of {}", case.code));
    }
    if answers != case.answers {
        return Err(format!("answered {answers:?} instead of {:?}", case.answers));
    }
    for text in &case.heard {
        let heard = listener.hear();
        if heard != *text {
            return Err(format!("the others heard {heard:?} instead of {text:?}"));
        }
    }
    // And nothing else: what is said next is what they hear next.
    let mut ends = Ws::connect(page, "/chat");
    ends.say(&case.number);
    let heard = listener.hear();
    if heard == case.number { Ok(()) } else { Err(format!("the others also heard {heard:?}")) }
}

#[test]
fn each_case_of_autobahns_1_to_7_and_10_is_answered_rightly() {
    let site = Site::start(&["--max-message", "1MiB"]);
    let mut cases = Vec::new();
    for add in [messages_and_pings, reserved, fragments, utf8, closing, many_fragments] {
        add(&mut cases);
    }
    assert!(cases.len() > 150, "{}", cases.len());
    let mut failed = Vec::new();
    for case in &cases {
        // A new listener for each: one that has failed must not spoil the next.
        let mut listener = Ws::connect(site.page, "/chat");
        eprintln!("{} ({:?})", case.number, case.cut); // For whoever looks at a failure.
        if let Err(why) = play(site.page, &mut listener, case) {
            failed.push(format!("{} ({:?}): {why}", case.number, case.cut));
        }
    }
    figure("B19", failed.is_empty(), format!("{} cases, {} failed", cases.len(), failed.len()));
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), cases.len(), failed.join("\n"));
    assert!(site.server.stop().status.success());
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

#[test]
fn a_flood_of_pings_without_reading_ends_at_the_write_deadline() {
    let here = Here::with(Limits { write: SHORT, ..Limits::default() });
    let (mut says, mut hears) = (Ws::connect(here.address, "/chat"), Ws::connect(here.address, "/chat"));
    // Not in the room: there, it would be ended as soon as it has to be told something.
    let mut floods = Ws::on(Client::with_a_small_window(here.address), "/live");
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

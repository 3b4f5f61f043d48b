//! The cases of Autobahn, the test suite by which WebSockets are known, under its own numbers: all of its sections 1 to
//! 7 and 10. Of the others, 9 is about speed, 12 and 13 about compression, which this server does not offer; 8 and 11
//! have no cases.

use std::ops::RangeInclusive;

use crate::case::{Case, Cut, fragments_of, play};
use crate::support::figures::figure;
use crate::support::web::{BINARY, CLOSE, CONTINUE, FIN, PING, PONG, Site, TEXT, Ws};
use crate::{close_with, utf8};

const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;
const RSV3: u8 = 0x10;

const HELLO: (u8, &[u8]) = (FIN | TEXT, b"Hello, world!");

/// How many cases Autobahn has in each group. Within its group, a case is numbered from 1.
#[rustfmt::skip]
const COUNTS: [(&str, usize); 37] = [
    ("1.1", 8), ("1.2", 8), ("2", 11), ("3", 7), ("4.1", 5), ("4.2", 5), ("5", 20),
    ("6.1", 3), ("6.2", 4), ("6.3", 2), ("6.4", 4), ("6.5", 5), ("6.6", 11), ("6.7", 4), ("6.8", 2), ("6.9", 4),
    ("6.10", 3), ("6.11", 5), ("6.12", 8), ("6.13", 5), ("6.14", 10), ("6.15", 1), ("6.16", 3), ("6.17", 5),
    ("6.18", 5), ("6.19", 5), ("6.20", 7), ("6.21", 8), ("6.22", 34), ("6.23", 7),
    ("7.1", 6), ("7.3", 6), ("7.5", 1), ("7.7", 13), ("7.9", 9), ("7.13", 2), ("10.1", 1),
];

const OCTETS: Cut = Cut::Pieces(1);

/// Of each size, and the largest once more, in pieces.
fn messages(of_size: impl Fn(usize) -> Case) -> Vec<Case> {
    let mut cases: Vec<Case> = [0, 125, 126, 127, 128, 65_535, 65_536].into_iter().map(&of_size).collect();
    cases.push(of_size(65_536).cut(Cut::Pieces(997)));
    cases
}

fn text_of(size: usize) -> Case {
    let text = "*".repeat(size);
    Case::new(&[(FIN | TEXT, text.as_bytes())]).heard(&[&text])
}

/// This room takes text only, and says so: 1003 is "a type of data that it cannot accept".
fn bytes_of(size: usize) -> Case {
    Case::new(&[(FIN | BINARY, &vec![0xfe; size])]).closes(1003)
}

fn pings() -> Vec<Case> {
    let ping = |payload: &[u8]| Case::new(&[(FIN | PING, payload)]).pongs(&[payload]);
    let longest = [0xfe; 125];
    let payloads: Vec<Vec<u8>> = (0..10).map(|at| format!("payload-{at}").into_bytes()).collect();
    let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    let many: Vec<(u8, &[u8])> = payloads.iter().map(|payload| (FIN | PING, *payload)).collect();
    // Of pings that come together, only the last would need an answer (RFC 6455, section 5.5.3); all get one.
    let ten = || Case::new(&many).pongs(&payloads);
    vec![
        ping(b""),
        ping(b"Hello, world!"),
        ping(b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"),
        ping(&longest),
        Case::new(&[(FIN | PING, &[0xfe; 126])]).closes(1002),
        ping(&longest).cut(OCTETS),
        Case::new(&[(FIN | PONG, b"")]),
        Case::new(&[(FIN | PONG, b"unsolicited")]),
        Case::new(&[(FIN | PONG, b"unsolicited"), (FIN | PING, b"ping")]).pongs(&[b"ping"]),
        ten(),
        ten().cut(OCTETS),
    ]
}

/// A text that is heard, then a frame that is wrong, then a ping, which is not answered.
fn wrong_after_hello(first: u8) -> Case {
    Case::new(&[HELLO, (first, HELLO.1), (FIN | PING, b"")]).heard(&["Hello, world!"]).closes(1002)
}

fn reserved_bits() -> Vec<Case> {
    let wrong = |first: u8, payload: &[u8]| Case::new(&[(first, payload)]).closes(1002);
    vec![
        wrong(FIN | RSV3 | TEXT, HELLO.1),
        wrong_after_hello(FIN | RSV2 | TEXT),
        wrong_after_hello(FIN | RSV2 | RSV3 | TEXT).cut(Cut::Frames),
        wrong_after_hello(FIN | RSV1 | TEXT).cut(OCTETS),
        wrong(FIN | RSV1 | RSV3 | BINARY, HELLO.1),
        wrong(FIN | RSV1 | RSV2 | PING, HELLO.1),
        wrong(FIN | RSV1 | RSV2 | RSV3 | CLOSE, b""),
    ]
}

fn reserved_opcodes(opcodes: RangeInclusive<u8>) -> Vec<Case> {
    let case = |(at, opcode): (usize, u8)| match at {
        0 => Case::new(&[(FIN | opcode, b"")]).closes(1002),
        1 => Case::new(&[(FIN | opcode, b"reserved")]).closes(1002),
        2 => wrong_after_hello(FIN | opcode),
        3 => wrong_after_hello(FIN | opcode).cut(Cut::Frames),
        _ => wrong_after_hello(FIN | opcode).cut(OCTETS),
    };
    opcodes.enumerate().map(case).collect()
}

fn in_each_cut(case: impl Fn() -> Case) -> [Case; 3] {
    [Cut::Whole, Cut::Frames, OCTETS].map(|cut| case().cut(cut))
}

fn fragments() -> Vec<Case> {
    let (one, two) = ((TEXT, &b"fragment1"[..]), (FIN | CONTINUE, &b"fragment2"[..]));
    let both = &["fragment1fragment2"];
    let ping = (FIN | PING, &b"ping"[..]);
    let nothing_to_continue = |first: u8| (first, &b"non-continuation"[..]);
    let part = |first: u8| (first, &b"fragment"[..]);
    let five = [part(TEXT), part(CONTINUE), ping, part(CONTINUE), part(CONTINUE), ping, part(FIN | CONTINUE)];
    let in_five = || Case::new(&five).heard(&[&"fragment".repeat(5)]).pongs(&[b"ping", b"ping"]);

    let mut cases: Vec<Case> =
        [PING, PONG].map(|control| Case::new(&[(control, b"fragment1"), two]).closes(1002)).into();
    cases.extend(in_each_cut(|| Case::new(&[one, two]).heard(both)));
    cases.extend(in_each_cut(|| Case::new(&[one, ping, two]).heard(both).pongs(&[b"ping"])));
    cases.extend(in_each_cut(|| Case::new(&[nothing_to_continue(FIN | CONTINUE), HELLO]).closes(1002)));
    cases.extend(in_each_cut(|| Case::new(&[nothing_to_continue(CONTINUE), HELLO]).closes(1002)));
    cases.push(Case::new(&[one, two, nothing_to_continue(CONTINUE), HELLO]).heard(both).closes(1002));
    for first in [CONTINUE, FIN | CONTINUE] {
        cases.push(Case::new(&[nothing_to_continue(first), one, two].repeat(2)).closes(1002));
    }
    cases.push(Case::new(&[one, (FIN | TEXT, b"fragment2")]).closes(1002));
    cases.extend([in_five(), in_five().cut(Cut::Frames)]);
    cases
}

/// What comes after a goodbye, or is cut short by it.
fn goodbyes() -> Vec<Case> {
    let goodbye = close_with(1000, b"");
    let close = (FIN | CLOSE, &goodbye[..]);
    let long = "*".repeat(256 * 1024);
    vec![
        Case::new(&[HELLO, close]).heard(&["Hello, world!"]),
        Case::new(&[close, close]),
        Case::new(&[close, (FIN | PING, b"too late")]),
        Case::new(&[close, HELLO]),
        Case::new(&[(TEXT, b"fragment1"), close, (FIN | CONTINUE, b"fragment2")]),
        Case::new(&[(FIN | TEXT, long.as_bytes()), HELLO, close, (FIN | PING, b"")]).heard(&[&long, "Hello, world!"]),
    ]
}

fn close(payload: &[u8]) -> Case {
    Case::new(&[(FIN | CLOSE, payload)])
}

fn close_payloads() -> Vec<Case> {
    vec![
        close(b"").closes(1005),
        close(b"a").closes(1002),
        close(&close_with(1000, b"")),
        close(&close_with(1000, b"Hello World!")),
        close(&close_with(1000, &[b'*'; 123])),
        close(&close_with(1000, &[b'*'; 124])).closes(1002),
    ]
}

/// Closes with each of these codes: it is said back, or refused.
fn close_codes(codes: &[u16], are_allowed: bool) -> Vec<Case> {
    let case = |code: u16| close(&close_with(code, b"")).closes(if are_allowed { code } else { 1002 });
    codes.iter().copied().map(case).collect()
}

/// Autobahn's groups in its order.
fn table() -> Vec<(&'static str, Vec<Case>)> {
    let text = "*".repeat(65_536);
    let mut groups = vec![
        ("1.1", messages(text_of)),
        ("1.2", messages(bytes_of)),
        ("2", pings()),
        ("3", reserved_bits()),
        ("4.1", reserved_opcodes(3..=7)),
        ("4.2", reserved_opcodes(11..=15)),
        ("5", fragments()),
    ];
    groups.extend(utf8::table());
    groups.extend([
        ("7.1", goodbyes()),
        ("7.3", close_payloads()),
        ("7.5", vec![close(&close_with(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80")).closes(1007)]),
        ("7.7", close_codes(&[1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999], true)),
        ("7.9", close_codes(&[0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999], false)),
        ("7.13", close_codes(&[5000, 65_535], false)),
        ("10.1", vec![Case::new(&fragments_of(1300, text.as_bytes())).heard(&[&text])]),
    ]);
    groups
}

#[test]
fn each_case_of_autobahns_1_to_7_and_10_is_answered_rightly() {
    let table = table();
    let counts: Vec<(&str, usize)> = table.iter().map(|(group, cases)| (*group, cases.len())).collect();
    assert_eq!((counts.as_slice(), counts.iter().map(|(_, count)| count).sum()), (&COUNTS[..], 247));
    let site = Site::start(&["--max-message", "1MiB"]);
    let mut failed = Vec::new();
    for (group, cases) in &table {
        for (case, number) in cases.iter().zip(1..) {
            let number = format!("{group}.{number}");
            // A new listener for each: one that has failed must not spoil the next.
            let mut listener = Ws::connect(site.page, "/chat");
            eprintln!("{number} ({:?})", case.cut); // For whoever looks at a failure.
            if let Err(why) = play(site.page, &mut listener, &number, case) {
                failed.push(format!("{number} ({:?}): {why}", case.cut));
            }
        }
    }
    figure("B19", failed.is_empty(), format!("all 247 cases, {} failed", failed.len()));
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(site.server.stop().status.success());
}

//! The promise of `reply`: every byte comes back, and no character is torn by the prefix.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use socket_steps::deadline::Timeouts;
use socket_steps::server::Config;
use socket_steps::services;
use socket_steps::stats::CloseReason;
use support::figures::tries;
use support::kit::Kit;
use support::{Client, PREFIX, Server};

/// Cannot come about in the payloads of these tests, nor at the seam of a payload and itself.
const MARK: &str = "[the answer is] ";

/// The first two bytes of `안`, which has three.
const HALF: &[u8] = b"\xec\x95";

fn reply(prefix: &str) -> Kit {
    Kit::serve(Config::default(), services::reply(prefix))
}

/// Sends the pieces so that each is a read of its own, ends, and returns what came back.
fn send_in_pieces<'a>(kit: &Kit, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut client = kit.client();
    let mut sent = 0;
    for piece in pieces {
        client.send(piece);
        sent += piece.len() as u64;
        kit.wait_until_read(sent);
    }
    let answer = client.end().rest();
    kit.wait_until_empty();
    answer
}

fn without(prefix: &str, answer: &[u8]) -> Vec<u8> {
    let mut rest = answer;
    let mut bytes = Vec::new();
    while let Some(first) = rest.first() {
        match rest.strip_prefix(prefix.as_bytes()) {
            Some(after) => rest = after,
            None => {
                bytes.push(*first);
                rest = &rest[1..];
            }
        }
    }
    bytes
}

#[test]
fn one_byte_at_a_time_each_character_comes_back_whole_and_nothing_before_it_is_complete() {
    let kit = reply(PREFIX);
    let mut client = kit.client();
    let (mut sent, mut received) = (0, 0);
    for character in "aé안녕 🦀𝄞하세요!\n".chars() {
        let text = character.to_string();
        for byte in text.as_bytes() {
            assert_eq!(kit.connection().bytes_out, received, "an answer to a part of {character:?}");
            client.send([*byte]);
            sent += 1;
            kit.wait_until_read(sent);
        }
        client.expect(format!("{PREFIX}{text}"));
        received += (PREFIX.len() + text.len()) as u64;
    }
    assert!(client.end().rest().is_empty());
}

#[test]
fn a_character_is_whole_wherever_a_text_is_cut() {
    let kit = reply(PREFIX);
    let text = "가é🦀";
    for cut in 0..=text.len() {
        let (one, two) = text.as_bytes().split_at(cut);
        let answer = String::from_utf8(send_in_pieces(&kit, [one, two])).unwrap();
        assert_eq!(without(PREFIX, answer.as_bytes()), text.as_bytes(), "cut at {cut}: {answer}");
    }
}

#[test]
fn every_byte_value_comes_back_unchanged() {
    let kit = reply(MARK);
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(without(MARK, &send_in_pieces(&kit, [&all[..]])), all);
    assert_eq!(without(MARK, &send_in_pieces(&kit, all.chunks(1))), all, "one at a time");
}

#[test]
fn invalid_and_cut_off_characters_come_back_unchanged() {
    let kit = reply(MARK);
    let cases: &[&[u8]] = &[
        b"\xff",
        b"\xc0\xaf",         // a slash in two bytes: too long
        b"\xed\xa0\x80",     // half of a surrogate pair
        b"\xf4\x90\x80\x80", // beyond the last character
        b"\x80\x80\x80\x80", // only continuations
        b"\xec\x95a",        // cut off by another character
        b"\xec\xec\x95\x88", // cut off by a whole one
        b"\xf0\x9f\xa6",     // cut off by the end
        b"a\0b\0",
    ];
    for case in cases {
        assert_eq!(without(MARK, &send_in_pieces(&kit, [*case])), *case);
        assert_eq!(without(MARK, &send_in_pieces(&kit, case.chunks(1))), *case, "one at a time");
    }
}

#[test]
fn bytes_cut_anywhere_come_back_and_so_does_text_with_every_character_whole() {
    let (bytes, text) = (reply(MARK), reply(PREFIX));
    let cuts = || prop::collection::vec(1usize..9, 1..20);
    // Bytes of which characters are made, so that cut and broken ones are frequent.
    let any_bytes = prop::collection::vec(prop::sample::select(b"a\x80\x95\xc3\xec\xed\xf0\xf4\xff".to_vec()), 1..60);
    let any_text = "[a-z가-힣🦀-🦊]{1,20}";
    let mut runner = TestRunner::new(tries(40, 400));
    runner
        .run(&(any_bytes, any_text, cuts()), |(some_bytes, some_text, cuts)| {
            let answer = send_in_pieces(&bytes, cut(&some_bytes, &cuts));
            prop_assert_eq!(without(MARK, &answer), some_bytes);
            let answer = send_in_pieces(&text, cut(some_text.as_bytes(), &cuts));
            let answer = String::from_utf8(answer).expect("a character was torn");
            prop_assert_eq!(without(PREFIX, answer.as_bytes()), some_text.into_bytes());
            Ok(())
        })
        .unwrap();
}

/// Cuts into pieces of these sizes, again and again.
fn cut<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        let (piece, rest) = bytes.split_at((*size).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
        if bytes.is_empty() {
            break;
        }
    }
    pieces
}

/// A client whose half character the server holds: it came with a whole one, which is answered.
fn with_half_a_character_held(server: &Server) -> Client {
    let mut client = server.client();
    client.send([b"a", HALF].concat()).expect(format!("{PREFIX}a"));
    client
}

fn prefix_and_half() -> Vec<u8> {
    [PREFIX.as_bytes(), HALF].concat()
}

#[test]
fn half_a_character_comes_back_when_the_input_ends() {
    let server = Server::start(&[]);
    let mut client = with_half_a_character_held(&server);
    assert_eq!(client.end().rest(), prefix_and_half());
}

#[test]
fn half_a_character_comes_back_when_the_server_stops() {
    let server = Server::start(&[]);
    let mut client = with_half_a_character_held(&server);
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(client.rest(), prefix_and_half());
    assert_eq!(ended.accounts.of("out"), (PREFIX.len() + 1 + PREFIX.len() + HALF.len()) as u64);
}

#[test]
fn half_a_character_comes_back_at_the_message_deadline_and_not_before() {
    let limit = Duration::from_millis(300);
    let timeouts = Timeouts { message: Some(limit), ..Timeouts::default() };
    let kit = Kit::serve(Config { timeouts, ..Config::default() }, services::reply(PREFIX));
    let mut client = kit.client();
    let began = Instant::now();
    client.send(HALF);
    assert_eq!(client.rest(), prefix_and_half());
    let took = began.elapsed();
    // Far below the idle deadline, which is 30 s.
    assert!(took >= limit && took < Duration::from_secs(15), "{took:?}");
    kit.wait_until_empty();
    assert_eq!(kit.ended(CloseReason::Message), 1);
}

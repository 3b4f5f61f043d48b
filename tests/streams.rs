//! What is written arrives: every byte, in order, however much it is, however slowly it is taken, and
//! whichever side has ended its half.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use socket_steps::server::Config;
use socket_steps::socket::Socket;
use support::kit::Kit;
use support::{BOUND, Client, PREFIX, Server, resident};

const MUCH: usize = 20_000_000;

/// More than the buffers of the kernel hold between a writer and a reader who are both on this machine.
fn much() -> Vec<u8> {
    // Text, so that it can go through `reply`; no two parts of it alike; lines of every length.
    let mut text = String::with_capacity(MUCH + 100);
    let mut number = 1u64;
    while text.len() < MUCH {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(if number % 7 < 5 { "소켓 " } else { "\n" });
        text.push_str(&(number >> 33).to_string());
    }
    let mut bytes = text.into_bytes();
    bytes.truncate(MUCH - 1);
    bytes.push(b'\n');
    bytes
}

/// Writes everything and ends. Says when it is stuck for the first time because nobody takes any more, and
/// returns whether it ever was.
fn write_and_end(mut client: Client, bytes: &[u8], stuck: Sender<()>) -> bool {
    client.0.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut was_stuck = false;
    let mut rest = bytes;
    while !rest.is_empty() {
        match client.0.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock && !was_stuck => {
                was_stuck = true;
                stuck.send(()).unwrap();
                client.0.set_write_timeout(Some(BOUND)).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    client.end();
    was_stuck
}

/// Reads everything in small portions, with pauses.
fn read_slowly(client: &mut Client) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * MUCH);
    let mut portion = [0; 10_000];
    loop {
        let count = client.0.read(&mut portion).unwrap();
        if count == 0 {
            return bytes;
        }
        bytes.extend_from_slice(&portion[..count]);
        if bytes.len() % 1_000_000 < count {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// One thread of a client writes 20 MB and ends; the other begins to read when the first is stuck, and reads
/// slowly. Returns what came back, when the books are found right.
fn there_and_back(service: &str, bytes: &[u8]) -> Vec<u8> {
    let server = Server::start(&["--service", service]);
    let mut client = server.client();
    let writer = Client(client.0.try_clone().unwrap());
    let (sender, stuck) = channel();
    let came = thread::scope(|scope| {
        let writing = scope.spawn(move || write_and_end(writer, bytes, sender));
        stuck.recv_timeout(BOUND).expect("the writer was never stuck: nothing was held back");
        let came = read_slowly(&mut client);
        assert!(writing.join().unwrap());
        came
    });
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.accounts.of("in"), bytes.len() as u64);
    assert_eq!(ended.accounts.of("out"), came.len() as u64);
    came
}

/// Fails with the place of the first difference, not with 40 MB of text.
fn assert_same(came: &[u8], expected: &[u8]) {
    let differs = came.iter().zip(expected).position(|(one, other)| one != other);
    assert_eq!(differs, None, "the first byte that differs");
    assert_eq!(came.len(), expected.len());
}

#[test]
fn twenty_megabytes_through_echo_come_back_to_a_client_that_reads_late_and_slowly() {
    let bytes = much();
    assert_same(&there_and_back("echo", &bytes), &bytes);
}

#[test]
fn twenty_megabytes_through_lines_come_back_with_a_prefix_before_each_line() {
    let bytes = much();
    let mut expected = Vec::with_capacity(2 * bytes.len());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        expected.extend_from_slice(PREFIX.as_bytes());
        expected.extend_from_slice(line);
    }
    assert_same(&there_and_back("lines", &bytes), &expected);
}

#[test]
fn twenty_megabytes_through_reply_come_back_with_every_character_whole() {
    let bytes = much();
    let came = String::from_utf8(there_and_back("reply", &bytes)).expect("a character was torn");
    assert!(came.starts_with(PREFIX));
    assert_same(came.replace(PREFIX, "").as_bytes(), &bytes);
}

#[test]
fn twenty_megabytes_that_the_server_sends_after_the_clients_end_arrive_whole() {
    let bytes = much();
    let answer = bytes.clone();
    let kit = Kit::serve(Config::default(), move |mut socket: Socket| {
        let mut question = Vec::new();
        socket.read_to_end(&mut question)?;
        socket.write_all(&answer)
    });
    let mut client = kit.client();
    client.send("and now you").end();
    assert_same(&read_slowly(&mut client), &bytes);
    let summary = kit.stop();
    assert_eq!((summary.bytes_in, summary.bytes_out), (11, MUCH as u64));
}

#[test]
fn lines_that_arrive_together_are_answered_each_and_a_line_in_pieces_once() {
    let server = Server::start(&["--service", "lines"]);
    let mut client = server.client();
    client.send("one\ntwo\nthr").expect(format!("{PREFIX}one\n{PREFIX}two\n"));
    for byte in "ee, 셋".as_bytes() {
        client.send([*byte]);
    }
    client.send("\n").expect(format!("{PREFIX}three, 셋\n"));
    client.send("\n\r\n").expect(format!("{PREFIX}\n{PREFIX}\r\n"));

    let many: String = (0..5000).map(|number| format!("{number}\n")).collect();
    let answers: String = (0..5000).map(|number| format!("{PREFIX}{number}\n")).collect();
    client.send(many).expect(answers);
    assert!(client.end().rest().is_empty());
}

#[test]
fn what_was_sent_right_before_the_end_is_answered() {
    for (service, sent, answer) in [
        ("echo", "안녕", "안녕".to_owned()),
        ("reply", "안녕", format!("{PREFIX}안녕")),
        ("lines", "one\ntwo\nand the rest", format!("{PREFIX}one\n{PREFIX}two\n{PREFIX}and the rest")),
    ] {
        let server = Server::start(&["--service", service]);
        for _ in 0..20 {
            let mut client = server.client();
            client.send(sent).end();
            assert_eq!(client.rest_as_text(), answer, "{service}");
        }
    }
}

#[test]
fn answers_of_every_size_do_not_leave_blocks_of_every_size_behind() {
    // The C library keeps freed blocks, some of each size for each thread. A buffer that is as long as its answer makes
    // that a megabyte here, and a hundred with as many workers as there may be.
    const WORKERS: usize = 32;
    let many = WORKERS.to_string();
    let server =
        Server::start(&["--service", "lines", "--prefix", "", "--min-workers", &many, "--max-connections", &many]);
    let a_round = |length: usize| {
        let mut clients: Vec<Client> = (0..WORKERS).map(|_| server.client()).collect();
        let line = [&vec![b'x'; length - 1][..], b"\n"].concat();
        for client in &mut clients {
            client.send(&line).end();
        }
        for mut client in clients {
            assert_eq!(client.rest(), line);
        }
    };
    (0..10).for_each(|_| a_round(100));
    let before = resident(server.pid());
    for length in (40..1000).step_by(16).flat_map(|length| [length; 3]) {
        a_round(length);
    }
    let more = resident(server.pid()).saturating_sub(before);
    assert!(more < 512, "{more} KiB more");
}

//! The two ends over real UDP, on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use socket_steps::arq::endpoint::{Server, send};
use socket_steps::arq::link::{Faults, Link};
use socket_steps::arq::packet::{HEADER, Kind, Packet};
use socket_steps::arq::peers::Limits;
use socket_steps::arq::sender::Options;
use support::datagrams::Receiving;
use support::lossy::long_message;
use support::trace::Trace;
use support::{BOUND, Server as ChildServer, has_ipv6, has_program, run};

const BAD: Faults = Faults {
    lost: 10,
    doubled: 5,
    late: 25,
    damaged: 2,
    delay: Duration::from_millis(1),
    late_by: Duration::from_millis(3),
};

const LARGE: Limits = Limits { peers: 100, message: 1 << 20, idle: Duration::from_secs(30) };

fn start(address: &str) -> Receiving {
    Receiving::on(Server::bind(address, LARGE).unwrap())
}

fn perfect() -> Link {
    Link::new(Faults::default(), 0)
}

fn bad(seed: u64) -> Link {
    Link::new(BAD, seed)
}

fn patient() -> Options {
    Options { patience: BOUND, ..Options::default() }
}

/// A socket of a test, which waits for what should come.
fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(BOUND)).unwrap();
    socket
}

fn ask(socket: &UdpSocket, server: SocketAddr, packet: &Packet) -> Packet {
    socket.send_to(&packet.encode(), server).unwrap();
    let mut bytes = [0; 2000];
    let (count, from) = socket.recv_from(&mut bytes).unwrap();
    assert_eq!(from, server);
    Packet::decode(&bytes[..count]).unwrap()
}

#[test]
fn a_message_arrives_over_a_bad_link() {
    let server = start("127.0.0.1:0");
    let message = long_message(200_000, 1);
    let tally = send(server.address, message.clone(), patient(), bad(1), bad(2)).unwrap();
    assert!(tally.after_gaps > 5 && tally.malformed > 0, "{tally:?}");
    let (messages, counts) = server.stop();
    assert!(messages == [message]);
    assert!(counts.malformed > 0 && counts.bytes_out <= counts.bytes_in, "{counts:?}");
}

#[test]
fn messages_of_many_arrive_each_whole() {
    let server = start("127.0.0.1:0");
    let address = server.address;
    thread::scope(|scope| {
        for seed in 0..12 {
            let message = long_message(5000, seed);
            scope.spawn(move || send(address, message, patient(), bad(seed), bad(seed + 100)).unwrap());
        }
    });
    let (mut messages, counts) = server.stop();
    let mut expected: Vec<Vec<u8>> = (0..12).map(|seed| long_message(5000, seed)).collect();
    messages.sort();
    expected.sort();
    assert!(messages == expected);
    assert_eq!((counts.whole, counts.unknown, counts.full), (12, 0, 0));
}

#[test]
fn an_empty_message_is_a_message() {
    let server = start("127.0.0.1:0");
    send(server.address, Vec::new(), patient(), perfect(), perfect()).unwrap();
    assert_eq!(server.stop().0, [b""]);
}

#[test]
fn ipv6_is_no_different() {
    if !has_ipv6() {
        return;
    }
    let server = start("[::1]:0");
    send(server.address, b"hello".into(), patient(), perfect(), perfect()).unwrap();
    assert_eq!(server.stop().0, [b"hello"]);
}

#[test]
fn a_server_that_is_not_there_yet_is_waited_for() {
    // On an address that nobody else here uses, so that the port stays free.
    let place = UdpSocket::bind("127.0.0.17:0").unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let mut client =
        program(&["client", &address.to_string()]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // The kernel tells it that nobody listens.
    let mut told = String::new();
    BufReader::new(client.stderr.as_mut().unwrap()).read_line(&mut told).unwrap();
    assert!(told.starts_with("client: going on: Connection refused"), "{told:?}");
    let server = Receiving::on(Server::bind(address, LARGE).unwrap());
    assert!(client.wait().unwrap().success());
    assert_eq!(server.stop().0, ["안녕하세요, 서버님!".as_bytes()]);
}

#[test]
fn a_server_that_never_comes_is_given_up() {
    let place = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = place.local_addr().unwrap();
    // The port stays taken, and nobody reads.
    let begun = Instant::now();
    let impatient = Options { patience: Duration::from_millis(500), ..Options::default() };
    let error = send(address, b"hello".into(), impatient, perfect(), perfect()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(error.to_string(), format!("{address} has acknowledged nothing new for 0.5 s"));
    assert!(begun.elapsed() >= impatient.patience);
}

#[test]
fn clients_that_are_gone_do_not_trouble_a_server() {
    let server = start("127.0.0.1:0");
    for _ in 0..50 {
        // What it answers finds nobody, and an ICMP message says so.
        socket().send_to(&Packet::bare(Kind::Hello, 1, 0).encode(), server.address).unwrap();
    }
    send(server.address, b"hello".into(), patient(), perfect(), perfect()).unwrap();
    let (messages, counts) = server.stop();
    assert_eq!((messages, counts.greeted), (vec![b"hello".to_vec()], 51));
}

#[test]
fn noise_is_counted_and_never_answered() {
    let server = start("127.0.0.1:0");
    let socket = socket();
    let noise: [&[u8]; 5] = [b"", b"hello", &[0; HEADER], &[0xff; 1221], &[7; 60_000]];
    for datagram in noise {
        assert_eq!(socket.send_to(datagram, server.address).unwrap(), datagram.len());
    }
    // What is answered is the greeting after it, and that first.
    let answer = ask(&socket, server.address, &Packet::bare(Kind::Hello, 7, 0));
    assert_eq!((answer.kind, answer.number), (Kind::Cookie, 7));
    let (_, counts) = server.stop();
    assert_eq!((counts.malformed, counts.bytes_out), (5, HEADER as u64));
}

#[test]
fn a_server_that_is_greeted_in_the_name_of_another_says_one_word_and_the_other_none() {
    let [a, b] = [start("127.0.0.1:0"), start("127.0.0.1:0")];
    // Only root can forge an address; but whatever a says to b is one of these two.
    let socket = socket();
    let cookie = ask(&socket, a.address, &Packet::bare(Kind::Hello, 7, 0));
    let last = Packet { data: b"!".into(), ..Packet::bare(Kind::Last, 7, cookie.cookie) };
    let ack = ask(&socket, a.address, &last);
    assert_eq!(ack, last.acknowledged(8));
    for answer in [cookie, ack] {
        socket.send_to(&answer.encode(), b.address).unwrap();
    }
    // The first thing that b says is to this.
    assert_eq!(ask(&socket, b.address, &Packet::bare(Kind::Hello, 9, 0)).number, 9);
    let (_, counts) = b.stop();
    assert_eq!((counts.answers, counts.bytes_out), (2, HEADER as u64));
    assert_eq!(a.stop().0, [b"!"]);
}

#[test]
fn an_acknowledgement_from_a_stranger_is_not_heard() {
    // The client's socket is connected: the kernel gives it nothing that another address has sent.
    let place = socket();
    let address = place.local_addr().unwrap();
    let client = thread::spawn(move || {
        let impatient = Options { patience: Duration::from_secs(2), ..Options::default() };
        send(address, b"hello".into(), impatient, perfect(), perfect())
    });
    let mut bytes = [0; 2000];
    let (count, from) = place.recv_from(&mut bytes).unwrap();
    let hello = Packet::decode(&bytes[..count]).unwrap();
    socket().send_to(&Packet::bare(Kind::Cookie, hello.number, 42).encode(), from).unwrap();
    // It greets again, for it has heard nothing.
    let (count, _) = place.recv_from(&mut bytes).unwrap();
    assert_eq!(Packet::decode(&bytes[..count]).unwrap(), hello);
    assert_eq!(client.join().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
}

fn program(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ch17_reliable"));
    command.args(words).env_remove("RUST_LOG").env_remove("NARRATE_WIDTH");
    command
}

#[test]
fn the_programs_client_is_heard_by_its_server_through_whatever_it_loses() {
    let mut server = ChildServer::from_command(&mut program(&["server", "127.0.0.1:0"]));
    let address = server.address().to_owned();
    for words in [&["client", &address][..], &["client", &address, "--loss", "30", "--seed", "7"]] {
        let (status, output, errors) = run(&mut program(words), b"");
        assert!(status.success() && output.starts_with("delivered; sent "), "{status} {output} {errors}");
        assert_eq!(server.next_line().unwrap(), "received 안녕하세요, 서버님!");
    }
}

#[test]
fn the_programs_server_goes_on_when_it_is_told_that_a_client_cannot_be_reached() {
    if !has_program("strace") {
        return;
    }
    for error in ["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH"] {
        // Of an ICMP message Linux tells only a socket that is connected, which a server's is not. So strace tells it,
        // right after the client's greeting.
        let fault = format!("recvfrom:error={error}:when=2..4");
        let (mut command, trace) = Trace::with_fault(&fault, program(&[]).get_program());
        let mut server = ChildServer::from_command(command.args(["server", "127.0.0.1:0"]));
        for message in ["hello", "and hello again"] {
            send(server.socket_addr(), message.into(), patient(), perfect(), perfect()).unwrap();
            assert_eq!(server.next_line().unwrap(), format!("received {message}"));
        }
        assert_eq!(trace.wait_for_injections(3).len(), 3, "{}", trace.text());
    }
}

#[test]
fn what_a_stranger_sends_moves_no_cursor_of_the_programs_terminal() {
    let mut server = ChildServer::from_command(&mut program(&["server", "127.0.0.1:0"]));
    let address = server.socket_addr();
    send(address, b"\x1b[2Jhello\nreceived a lie".into(), patient(), perfect(), perfect()).unwrap();
    assert_eq!(server.next_line().unwrap(), r"received \u{1b}[2Jhello\nreceived a lie");
}

#[test]
fn the_same_seed_prints_the_same_story_to_the_byte() {
    let story = |seed| {
        let (status, output, _) = run(&mut program(&["--seed", seed]), b"");
        assert!(status.success());
        output
    };
    assert_eq!(story("3"), story("3"));
    assert_ne!(story("3"), story("4"));
    let (_, output, _) = run(&mut program(&[]), b"");
    for word in [
        "loses",
        "damages",
        "doubles",
        "drops",
        "keeps",
        "had",
        "again: silence",
        "again: 3 repeats",
        "again: a gap",
        "and on",
        "all of it",
    ] {
        assert!(output.contains(word), "the scene tells of nothing that {word}: {output}");
    }
}

#[test]
fn options_that_are_none_are_answered_with_the_usage_line() {
    let wrong: [&[&str]; 8] = [
        &["--seed"],
        &["--seed", "-1"],
        &["--seed", "many"],
        &["client", "--loss"],
        &["client", "--loss", "101"],
        &["client", "--loss", "-1"],
        &["client", "--seed", "18446744073709551616"],
        &["server", "--seed", "1"],
    ];
    for words in wrong {
        let (status, output, errors) = run(&mut program(words), b"");
        assert_eq!((status.code(), output.as_str(), errors.lines().count()), (Some(2), "", 1), "{words:?}: {errors}");
        assert!(errors.starts_with("usage: ch17_reliable "), "{words:?}: {errors}");
    }
    for words in [&["server", "nowhere"][..], &["client", "nowhere"]] {
        let (status, _, errors) = run(&mut program(words), b"");
        assert_eq!((status.code(), errors.lines().count()), (Some(2), 1), "{words:?}: {errors}");
        assert!(errors.starts_with("ch17_reliable: nowhere: "), "{words:?}: {errors}");
    }
}

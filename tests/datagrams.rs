//! Datagrams behave as chapter 16 says, and its server goes on whatever comes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;
use support::trace::Trace;
use support::{BOUND, PREFIX, Server, has_ipv6, has_program, run, wait_until};

/// What a datagram over IPv4 can carry.
const LARGEST: usize = 65_507;

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(BOUND)).unwrap();
    socket
}

fn connected_to(address: SocketAddr) -> UdpSocket {
    let socket = socket();
    socket.connect(address).unwrap();
    socket
}

/// A server, and a client that is connected to it.
fn pair() -> (UdpSocket, UdpSocket) {
    let server = socket();
    let client = connected_to(server.local_addr().unwrap());
    (client, server)
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut room = vec![0; LARGEST + 1];
    let count = socket.recv(&mut room).unwrap();
    room.truncate(count);
    room
}

/// A port that is ours, so that nobody else gets it, and that refuses: its socket hears only itself.
fn refusing() -> UdpSocket {
    let socket = socket();
    socket.connect(socket.local_addr().unwrap()).unwrap();
    socket
}

fn nothing_comes(socket: &UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    let error = socket.recv(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
    socket.set_nonblocking(false).unwrap();
}

#[test]
fn each_send_is_one_receive_however_many_wait() {
    let (client, server) = pair();
    let sent: Vec<Vec<u8>> = (0..20).map(|n| vec![n; usize::from(n) * 7]).collect();
    for datagram in &sent {
        client.send(datagram).unwrap();
    }
    let received: Vec<Vec<u8>> = sent.iter().map(|_| receive(&server)).collect();
    assert_eq!(received, sent);
    nothing_comes(&server);
}

#[test]
fn an_empty_datagram_arrives_and_is_no_end() {
    let (client, server) = pair();
    client.send(b"").unwrap();
    client.send(b"more").unwrap();
    assert_eq!(receive(&server), b"");
    assert_eq!(receive(&server), b"more");
}

#[test]
fn what_the_buffer_has_no_room_for_is_gone() {
    let (client, server) = pair();
    client.send("안녕하세요".as_bytes()).unwrap();
    client.send(b"next").unwrap();
    let mut room = [0; 9];
    assert_eq!(server.recv(&mut room).unwrap(), 9);
    assert_eq!(room, "안녕하".as_bytes());
    assert_eq!(receive(&server), b"next");
}

#[test]
fn the_largest_arrives_whole_and_one_byte_more_is_refused() {
    let (client, server) = pair();
    let error = client.send(&[b'x'; LARGEST + 1]).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::MSGSIZE), "{error}");
    nothing_comes(&server);
    assert_eq!(client.send(&[b'x'; LARGEST]).unwrap(), LARGEST);
    assert_eq!(receive(&server), [b'x'; LARGEST]);
}

#[test]
fn nobody_there_is_an_error_of_the_next_call_and_only_of_that() {
    let nobody = refusing();
    let client = connected_to(nobody.local_addr().unwrap());
    assert_eq!(client.send(b"hello?").unwrap(), 6, "the send itself succeeds");
    let error = client.recv(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    // It has been told, and is over.
    nothing_comes(&client);
    assert_eq!(client.send(b"hello?").unwrap(), 6);
}

#[test]
fn who_is_not_connected_never_hears_that_nobody_is_there() {
    let nobody = refusing();
    let (client, witness) = (socket(), connected_to(nobody.local_addr().unwrap()));
    for socket in [&client, &witness] {
        socket.send_to(b"hello?", nobody.local_addr().unwrap()).unwrap();
    }
    // The same question was refused to one who is connected.
    assert_eq!(witness.recv(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    nothing_comes(&client);
    client.send_to(b"hello?", nobody.local_addr().unwrap()).unwrap();
}

#[test]
fn connecting_sends_nothing_and_shuts_strangers_out() {
    let (client, server) = pair();
    nothing_comes(&server);
    let stranger = socket();
    stranger.send_to(b"not for you", client.local_addr().unwrap()).unwrap();
    client.send(b"question").unwrap();
    let mut room = [0; 100];
    let (_, address) = server.recv_from(&mut room).unwrap();
    server.send_to(b"answer", address).unwrap();
    assert_eq!(receive(&client), b"answer");
    nothing_comes(&client);
}

// From here on: the chapter's program.

fn program(words: &[&str]) -> Command {
    let folder = Path::new(env!("CARGO_BIN_EXE_socket-steps")).parent().unwrap();
    let mut command = Command::new(folder.join("ch16_udp"));
    command.args(words).env_remove("RUST_LOG");
    command
}

fn server() -> Server {
    Server::from_command(&mut program(&["server", "127.0.0.1:0"]))
}

fn is_answered(server: &Server, word: &str) {
    let client = connected_to(server.socket_addr());
    client.send(word.as_bytes()).unwrap();
    assert_eq!(receive(&client), format!("{PREFIX}{word}").as_bytes());
}

#[test]
fn the_server_says_first_where_it_is_answers_everybody_and_runs_until_ctrl_c() {
    let mut server = server();
    assert_ne!(server.socket_addr().port(), 0);
    let clients: Vec<UdpSocket> = (0..10).map(|_| connected_to(server.socket_addr())).collect();
    for (number, client) in clients.iter().enumerate() {
        client.send(format!("안녕 {number}").as_bytes()).unwrap();
    }
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(receive(client), format!("{PREFIX}안녕 {number}").as_bytes());
    }
    is_answered(&server, "");
    server.signal(Signal::INT);
    assert_eq!(server.wait_for_status().signal(), Some(2));
}

#[test]
fn the_server_goes_on_when_a_client_has_gone_before_the_answer() {
    let server = server();
    let client = connected_to(server.socket_addr());
    let port = client.local_addr().unwrap().port();
    server.signal(Signal::STOP);
    wait_until("the server has stopped", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T').then_some(())
    });
    client.send(b"I cannot wait").unwrap();
    drop(client);
    server.signal(Signal::CONT);
    server.wait_for_log(&format!("127.0.0.1:{port} says I cannot wait"));
    is_answered(&server, "안녕하세요");
}

#[test]
fn the_server_goes_on_when_it_is_told_that_a_client_cannot_be_reached() {
    if !has_program("strace") {
        return;
    }
    for (error, why) in [("ECONNREFUSED", "Connection refused"), ("EHOSTUNREACH", "No route to host")] {
        // Of an ICMP message Linux tells only a socket that is connected, which a server's is not. So strace tells it.
        let fault = format!("recvfrom:error={error}:when=2..4");
        let (mut command, trace) = Trace::with_fault(&fault, program(&[]).get_program());
        let server = Server::from_command(command.args(["server", "127.0.0.1:0"]));
        is_answered(&server, "one who cannot be reached afterwards");
        (0..3).for_each(|_| drop(server.wait_for_log(&format!("going on: {why}"))));
        is_answered(&server, "안녕하세요");
        assert_eq!(trace.wait_for_injections(3).len(), 3, "{}", trace.text());
    }
}

#[test]
fn the_server_goes_on_when_its_answer_is_too_large() {
    let server = server();
    let client = connected_to(server.socket_addr());
    client.send(&[b'x'; LARGEST]).unwrap();
    server.wait_for_log("going on: Message too long");
    nothing_comes(&client);
    is_answered(&server, "안녕하세요");
}

#[test]
fn an_answer_is_answered_and_so_is_the_answer_to_it() {
    // A server that answers answers, and another like it, which is played here. A datagram that says that it comes
    // from there begins it; afterwards nobody needs to do anything.
    let server = server();
    let other = connected_to(server.socket_addr());
    let mut answer = Vec::new();
    for round in 0..500 {
        other.send(&answer).unwrap();
        let next = receive(&other);
        assert_eq!(next.len(), answer.len() + PREFIX.len(), "in round {round}");
        answer = [PREFIX.as_bytes(), &next].concat();
    }
}

#[test]
fn what_came_is_shown_without_its_control_characters() {
    let server = server();
    let client = connected_to(server.socket_addr());
    client.send(b"\x1b[2J\nserver: all is well").unwrap();
    assert!(server.wait_for_log("says").ends_with(r"says \u{1b}[2J\nserver: all is well"));
}

#[test]
fn the_client_prints_the_answer_or_says_that_there_is_none() {
    let server = server();
    let (status, output, errors) = run(&mut program(&["client", server.address()]), b"");
    assert_eq!((status.code(), output.trim_end()), (Some(0), "서버 응답: 안녕하세요, 서버님!"), "{errors}");

    let nobody = refusing();
    let address = nobody.local_addr().unwrap().to_string();
    let (status, output, errors) = run(&mut program(&["client", &address]), b"");
    assert_eq!((status.code(), output.as_str()), (Some(1), ""), "{errors}");
    assert!(errors.contains("no answer: Connection refused"), "{errors}");
}

#[test]
fn behind_a_bad_link_the_same_seed_loses_and_doubles_the_same() {
    let server = server();
    let words = ["client", server.address(), "--bad-link", "17"];
    for _ in 0..2 {
        let (status, output, _) = run(&mut program(&words), b"");
        assert!(status.success());
        let answers: Vec<&str> = output.lines().map(|line| line.strip_prefix(PREFIX).unwrap()).collect();
        assert_eq!(answers, ["둘", "하나", "셋", "다섯", "다섯"]);
    }
}

#[test]
fn words_that_the_program_does_not_know_are_answered_with_one_line() {
    for words in [&["server", "a", "b"][..], &["client", "--bad-link"], &["client", "a", "--bad-link", "many"]] {
        let (status, output, errors) = run(&mut program(words), b"");
        assert_eq!((status.code(), output.as_str(), errors.lines().count()), (Some(2), "", 1), "{words:?}: {errors}");
        assert!(errors.starts_with("usage: ch16_udp "), "{errors}");
    }
    for words in [&["server", "nonsense"][..], &["client", "127.0.0.1"], &["server", "192.0.2.1:80"]] {
        let (status, output, errors) = run(&mut program(words), b"");
        assert_eq!((status.code(), output.as_str(), errors.lines().count()), (Some(2), "", 1), "{words:?}: {errors}");
        assert!(errors.contains(words[1]), "{errors}");
    }
}

#[test]
fn a_server_on_ipv6_answers_too() {
    if !has_ipv6() {
        return;
    }
    let server = Server::from_command(&mut program(&["server", "[::1]:0"]));
    let (status, output, errors) = run(&mut program(&["client", server.address()]), b"");
    assert!(status.success() && output.starts_with(PREFIX), "{output} {errors}");
}

#[test]
fn a_client_that_hears_nothing_gives_up() {
    let silent = socket();
    let began = std::time::Instant::now();
    let (status, _, errors) = run(&mut program(&["client", &silent.local_addr().unwrap().to_string()]), b"");
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(began.elapsed() >= Duration::from_secs(2), "it was in a hurry");
    assert_eq!(receive(&silent), "안녕하세요, 서버님!".as_bytes(), "its question came");
}

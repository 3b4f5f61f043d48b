//! Every chapter's program keeps the same promises: its scene tells the same story each time, it refuses
//! words that it does not know, and where it has a server, that says where it can be found.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use rustix::process::Signal;
use support::{PREFIX, Server, run};

/// The chapters' programs that are there, in their order.
fn programs() -> Vec<String> {
    let sources = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin")).unwrap();
    let names = sources.map(|source| source.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    let mut programs: Vec<String> = names.filter(|name| name.starts_with("ch") && name.contains('_')).collect();
    programs.sort();
    assert!(programs.len() >= 7, "where are the chapters? {programs:?}");
    programs
}

fn command(program: &str, words: &[&str]) -> Command {
    let folder: PathBuf = Path::new(env!("CARGO_BIN_EXE_socket-steps")).parent().unwrap().to_owned();
    let mut command = Command::new(folder.join(program));
    command.args(words).env_remove("RUST_LOG").env_remove("NARRATE_WIDTH");
    command
}

/// Looks at all programs at the same time.
fn for_each(programs: &[String], look: impl Fn(&str) + Sync) {
    thread::scope(|scope| {
        for program in programs {
            scope.spawn(|| look(program));
        }
    });
}

/// The usage line, which must be all that is said about words like these.
fn usage(program: &str, words: &[&str]) -> String {
    let (status, output, errors) = run(&mut command(program, words), b"");
    assert_eq!((status.code(), output.as_str()), (Some(2), ""), "{program} {words:?}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{program} {words:?}: {errors}");
    assert!(errors.starts_with(&format!("usage: {program} ")), "{program} {words:?}: {errors}");
    errors
}

/// The programs that can play this side alone: their usage line says so.
fn with_a_side(side: &str) -> Vec<String> {
    let has = |program: &String| usage(program, &["?"]).contains(&format!("{side} [ADDR]"));
    let with: Vec<String> = programs().into_iter().filter(has).collect();
    assert!(with.len() >= 4, "only these have a {side}: {with:?}");
    with
}

/// Every number becomes the same one, and takes the same room in its line.
fn without_numbers(text: &str) -> String {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = text.replace(|c: char| c.is_ascii_digit(), "0");
    let mut lines = shown.lines().map(words).collect::<Vec<_>>().join("\n");
    while lines.contains("00") {
        lines = lines.replace("00", "0");
    }
    lines
}

#[test]
fn three_runs_of_a_scene_tell_the_same_but_for_the_numbers() {
    for_each(&programs(), |program| {
        let told: Vec<String> = (0..3)
            .map(|_| {
                let (status, output, errors) = run(&mut command(program, &[]), b"");
                assert_eq!((status.code(), errors.as_str()), (Some(0), ""), "{program}: {output}");
                assert!(output.lines().count() > 5, "{program} tells nothing: {output}");
                without_numbers(&output)
            })
            .collect();
        assert_eq!(told[0], told[1], "{program}, first and second");
        assert_eq!(told[0], told[2], "{program}, first and third");
    });
}

#[test]
fn words_that_a_program_does_not_know_are_answered_with_one_line() {
    for_each(&programs(), |program| {
        for words in [&["sever"][..], &["--help"], &["server", "a", "b", "c", "d"], &["client", "a", "b"], &[""]] {
            usage(program, words);
        }
    });
}

#[test]
fn a_limit_or_a_deadline_that_is_none_is_answered_with_the_usage_line() {
    let usage_of = |program: &String| usage(program, &["?"]);
    let limited: Vec<String> = programs().into_iter().filter(|program| usage_of(program).contains("--limit")).collect();
    assert!(!limited.is_empty(), "no program has a limit");
    for_each(&limited, |program| {
        for limit in ["0", "-1", "many", ""] {
            usage(program, &["server", "--limit", limit]);
        }
        usage(program, &["server", "--limit"]);
    });
    let patient = limited.iter().filter(|program| usage_of(program).contains("--idle"));
    let patient: Vec<String> = patient.cloned().collect();
    assert!(!patient.is_empty(), "no program has a deadline");
    for_each(&patient, |program| {
        for deadline in ["0s", "-1s", "30", "soon", ""] {
            usage(program, &["server", "--idle", deadline]);
            usage(program, &["server", "--message", deadline]);
        }
    });
}

/// What a chapter's server is asked, and how its answer begins. The book's protocol is the line, until the layers
/// above TCP.
fn question_and_answer(program: &str) -> (&'static str, &'static str) {
    match program {
        "ch18_http" => ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
        "ch19_websocket" => (
            "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n",
        ),
        // Nobody else is there to hear it.
        "ch20_live" => ("안녕하세요\n", ""),
        _ => ("안녕하세요\n", PREFIX),
    }
}

#[test]
fn the_http_server_keeps_its_limit_to_the_byte_and_tells_what_was_wrong() {
    let mut server = Server::from_command(&mut command("ch18_http", &["server", "127.0.0.1:0"]));
    let head = |bytes: usize| {
        let (begin, end) = ("GET / HTTP/1.1\r\nX: ", "\r\n\r\n");
        format!("{begin}{}{end}", "x".repeat(bytes - begin.len() - end.len()))
    };
    for (request, status) in [
        (head(8192), "200 OK"),
        (head(8193), "431 Request Header Fields Too Large"),
        ("GET /../secret.txt HTTP/1.1\r\n\r\n".to_owned(), "404 Not Found"),
        // 405 would have to say, in `Allow`, what is allowed (RFC 9110, section 15.5.6).
        ("POST / HTTP/1.1\r\n\r\n".to_owned(), "501 Not Implemented"),
        ("안녕하세요\r\n\r\n".to_owned(), "400 Bad Request"),
    ] {
        let mut client = server.client();
        client.send(&request);
        let answer = client.rest_as_text();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{} bytes: {answer}", request.len());
    }
    server.signal(Signal::INT);
    server.wait_for_status();
}

#[test]
fn a_server_says_first_where_it_can_be_connected_to_and_runs_until_ctrl_c() {
    for_each(&with_a_side("server"), |program| {
        let (question, answer) = question_and_answer(program);
        let mut server = Server::from_command(&mut command(program, &["server", "127.0.0.1:0"]));
        let address = server.socket_addr();
        assert_ne!(address.port(), 0, "{program}");
        drop(TcpStream::connect(address).unwrap());
        // It outlives a client that leaves without a word.
        let mut client = server.client();
        client.send(question).end();
        assert!(client.rest_as_text().starts_with(answer), "{program}");
        server.signal(Signal::INT);
        let status = server.wait_for_status();
        assert!(status.code() == Some(0) || status.signal() == Some(2), "{program}: {status}");
    });
}

/// Before chapter 8, `main` returns the error, and Rust prints it in the form for programmers.
#[test]
fn a_server_whose_port_is_taken_says_so_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let from_8_on: Vec<String> = with_a_side("server").into_iter().filter(|name| name.as_str() >= "ch08").collect();
    assert!(from_8_on.len() >= 10, "where are the others? {from_8_on:?}");
    for_each(&from_8_on, |program| {
        let (status, output, errors) = run(&mut command(program, &["server", &address]), b"");
        assert!(matches!(status.code(), Some(1 | 2)) && output.is_empty(), "{program}: {status} {output}");
        assert!(errors.starts_with(&format!("{program}: ")) && errors.lines().count() == 1, "{program}: {errors}");
        assert!(errors.contains("Address already in use") && !errors.contains("Os {"), "{program}: {errors}");
    });
}

#[test]
fn a_programs_client_is_answered_by_its_server() {
    let servers = with_a_side("server");
    for_each(&with_a_side("client"), |program| {
        // A chapter about clients has no server; that of the chapter before will do.
        let server = servers.iter().rev().find(|server| server.as_str() <= program).unwrap();
        let server = Server::from_command(&mut command(server, &["server", "127.0.0.1:0"]));
        let (status, output, errors) = run(&mut command(program, &["client", server.address()]), "안녕\n".as_bytes());
        assert!(status.success(), "{program}: {status} {errors}");
        assert!(output.contains(PREFIX), "{program}: {output}");
    });
}

#[test]
fn what_a_client_sends_moves_no_cursor_where_a_server_tells_its_story() {
    let told = Mutex::new(String::new());
    for_each(&with_a_side("server"), |program| {
        let mut command = command(program, &["server", "127.0.0.1:0"]);
        let mut server = Server::from_command(command.env("RUST_LOG", "trace"));
        let mut client = server.client();
        client.send("\u{1b}[2J\u{7}\u{9b}31m hostile\r\r\n\r\n").end();
        // However each of them ends this, it has dealt with it then.
        let _ = client.rest_and_end();
        server.signal(Signal::INT);
        server.wait_for_status();
        let log = server.rest_of_log();
        assert!(!log.contains(|shown: char| shown.is_control() && shown != '\n'), "{program}: {log:?}");
        told.lock().unwrap().push_str(&log);
    });
    assert!(told.into_inner().unwrap().contains("\\u{1b}[2J"), "nobody told of it: the fault did not happen");
}

//! The interactive client, as a person and as a script use it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::{PREFIX, Server, run, wait_until};

fn talk(address: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_talk"));
    command.arg(address);
    command
}

fn start(address: &str) -> Child {
    talk(address).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn what_a_pipe_sends_is_answered_and_its_end_is_the_end() {
    let server = Server::start(&["--service", "lines"]);
    let (status, shown, errors) = run(&mut talk(server.address()), "안녕하세요\n서버님".as_bytes());
    assert_eq!(shown, format!("{PREFIX}안녕하세요\n{PREFIX}서버님"));
    assert_eq!((status.code(), errors.as_str()), (Some(0), ""));
}

#[test]
fn a_line_is_answered_while_the_next_one_has_not_been_typed() {
    // A server that answers pieces could answer a line twice: its newline may come by itself.
    let server = Server::start(&["--service", "lines"]);
    let mut talk = start(server.address());
    let mut typed = talk.stdin.take().unwrap();
    let mut shown = BufReader::new(talk.stdout.take().unwrap());
    for word in ["하나", "둘", "셋"] {
        writeln!(typed, "{word}").unwrap();
        let mut line = String::new();
        shown.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{PREFIX}{word}\n"));
    }
    drop(typed);
    assert!(wait_until("talk ends after the end of its input", || talk.try_wait().unwrap()).success());
}

#[test]
fn after_the_end_of_the_input_the_rest_of_the_answer_is_still_shown() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut talk = start(&listener.local_addr().unwrap().to_string());
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(support::BOUND)).unwrap();
    drop(talk.stdin.take());
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0, "its half has not ended");
    stream.write_all(b"a late answer").unwrap();
    drop(stream);
    let output = talk.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"a late answer"[..]));
}

#[test]
fn the_servers_end_ends_it_even_while_it_waits_for_a_person() {
    let server = Server::start(&["--idle-timeout", "200ms"]);
    let mut talk = start(server.address());
    let _nobody_types = talk.stdin.take();
    assert!(wait_until("talk ends with the server", || talk.try_wait().unwrap()).success());
    server.wait_for_log("(idle)");
}

#[test]
fn control_c_ends_it() {
    let server = Server::start(&[]);
    let mut talk = start(server.address());
    server.wait_for_log("connected");
    kill_process(Pid::from_child(&talk), Signal::INT).unwrap();
    let status = wait_until("talk ends", || talk.try_wait().unwrap());
    assert!(!status.success());
    server.wait_for_log("ended (finished)");
}

#[test]
fn a_reset_is_said_and_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut talk = start(&listener.local_addr().unwrap().to_string());
    let mut typed = talk.stdin.take().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(support::BOUND)).unwrap();
    // Only what it has sent proves that it knows of being connected.
    typed.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    let output = talk.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "talk: Connection reset by peer\n");
}

#[test]
fn a_megabyte_through_a_pipe_comes_back_whole() {
    let server = Server::start(&["--service", "echo"]);
    let text = "하나 둘 셋\n".repeat(60_000);
    let (status, shown, errors) = run(&mut talk(server.address()), text.as_bytes());
    assert!(status.success(), "{errors}");
    // The lines come without the last newline.
    assert!(shown == text.trim_end(), "{} of {} bytes", shown.len(), text.len());
}

#[test]
fn a_path_is_an_address_too() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("server").display());
    let _server = Server::listening_on(&address, &[]);
    let (status, shown, _) = run(&mut talk(&address), b"hello");
    assert_eq!((status.code(), shown), (Some(0), format!("{PREFIX}hello")));
}

#[test]
fn nobody_there_and_wrong_words_are_one_clear_line_each() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let cases: [(&[&str], i32, &str); 5] = [
        (&[&free], 1, "Connection refused"),
        (&["unix:/nowhere/at/all"], 1, "No such file"),
        (&["8080"], 2, "localhost:8080"),
        (&["localhost:8080", "--within", "0s"], 2, "500ms"),
        (&["--loudly"], 2, "--loudly"),
    ];
    for (words, code, says) in cases {
        let (status, shown, errors) = run(Command::new(env!("CARGO_BIN_EXE_talk")).args(words), b"");
        assert_eq!((status.code(), shown.as_str()), (Some(code), ""), "{words:?}: {errors}");
        assert!(errors.lines().count() == 1 && errors.contains(says), "{words:?}: {errors}");
    }
}

/// Runs a command in a terminal, which script(1) makes; what is shown there. Nothing where there is no script(1).
fn in_a_terminal(command: &str) -> Option<String> {
    if !support::has_program("script") {
        return None;
    }
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", command, "/dev/null"]);
    let (status, shown, errors) = run(&mut script, b"");
    assert_eq!((status.code(), errors.as_str()), (Some(0), ""), "{shown}");
    Some(shown)
}

#[test]
fn a_person_is_told_what_the_keys_do_and_a_pipe_is_not() {
    let server = Server::start(&["--service", "lines"]);
    let talk = format!("{} {}", env!("CARGO_BIN_EXE_talk"), server.address());
    let Some(shown) = in_a_terminal(&talk) else { return };
    assert!(shown.contains("Ctrl-D ends your half"), "{shown:?}");
    let shown = in_a_terminal(&format!("echo hello | {talk}")).unwrap();
    assert_eq!(shown.trim_end(), format!("{PREFIX}hello"));
}

#[test]
fn what_a_server_says_moves_no_cursor_of_a_persons_terminal_and_reaches_a_pipe_as_it_is() {
    const SAID: &str = "\u{1b}[2J\u{7}\u{9b}31m안녕\0";
    let server = Server::start(&["--service", "echo", "--prefix", ""]);
    let talk =
        format!("printf '\\033[2J\\007\\302\\23331m안녕\\000' | {} {}", env!("CARGO_BIN_EXE_talk"), server.address());
    let Some(shown) = in_a_terminal(&talk) else { return };
    assert_eq!(shown.trim_end(), "\\u{1b}[2J\\u{7}\\u{9b}31m안녕\\u{0}");
    let shown = in_a_terminal(&format!("{talk} | cat")).unwrap();
    assert_eq!(shown.trim_end(), SAID);
}

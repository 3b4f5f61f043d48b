//! Whoever gets an option wrong is told what is wrong and what would be right, in one line.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::net::TcpListener;
use std::process::Command;

use support::{Server, after, program, run};

/// Runs the server with options that it must refuse: in one line on standard error that contains all of
/// these texts, and with status 2.
fn is_refused(options: &[&str], texts: &[&str]) {
    is_refused_by(program().args(options), texts);
}

fn is_refused_by(command: &mut Command, texts: &[&str]) {
    let (status, output, line) = run(command, b"");
    assert_eq!((status.code(), output.as_str()), (Some(2), ""), "{command:?}: {line}");
    assert!(line.starts_with("socket-steps: ") && !line.contains('\n'), "{command:?}: {line}");
    for text in texts {
        assert!(line.contains(text), "{command:?}: no {text:?} in {line:?}");
    }
}

/// The server, in a shell that has lowered its limit of descriptors for good.
fn with_descriptors(number: usize) -> Command {
    let mut shell = after(&format!("ulimit -n {number}"), program().get_program());
    shell.arg("--no-page");
    shell
}

#[test]
fn a_wrong_duration_is_refused() {
    const RIGHT: &str = "such as 500ms, 30s or 2m";
    for option in ["--idle-timeout", "--message-timeout", "--write-timeout", "--drain"] {
        is_refused(&[option, "0s"], &[option, "'0s'", "zero", RIGHT]);
        is_refused(&[option, "0"], &[option, "'0'", "zero", RIGHT]);
        is_refused(&[option, "-5s"], &[option, "'-5s'", RIGHT]);
        is_refused(&[option, "30"], &[option, "'30'", "the unit is missing", RIGHT]);
        is_refused(&[option, "99999999999999999999s"], &[option, "more than a year", RIGHT]);
        is_refused(&[option, "soon"], &[option, "'soon'", RIGHT]);
        is_refused(&[option, ""], &[option, "''", RIGHT]);
        is_refused(&[option], &[option, "a value is required"]);
    }
}

#[test]
fn a_wrong_number_is_refused() {
    const RIGHT: &str = "a whole number from 1 up";
    for option in ["--max-connections", "--min-workers", "--per-source"] {
        is_refused(&[option, "0"], &[option, "'0'", "zero", RIGHT]);
        is_refused(&[option, "-1"], &[option, "'-1'", RIGHT]);
        is_refused(&[option, "4294967296"], &[option, "'4294967296'", "too many", RIGHT]);
        is_refused(&[option, "2.5"], &[option, "'2.5'", RIGHT]);
        is_refused(&[option, "many"], &[option, "'many'", RIGHT]);
    }
    is_refused(
        &["--min-workers", "9", "--max-connections", "8"],
        &["--min-workers 9 is more than --max-connections 8"],
    );
}

#[test]
fn a_wrong_size_is_refused() {
    const RIGHT: &str = "a number of bytes from 1 to 1GiB, such as 4096 or 64KiB";
    for size in ["0", "-1", "2GiB", "99999999999999999999", "64lines", ""] {
        is_refused(&["--max-message", size], &["--max-message", &format!("'{size}'"), RIGHT]);
    }
}

#[test]
fn a_wrong_name_for_the_page_is_refused() {
    for name in ["steps.example:8081", "http://steps.example", "", "a b", "[::1]"] {
        is_refused(
            &["--page-host", name],
            &["--page-host", &format!("'{name}'"), "without a port, such as steps.example"],
        );
    }
}

#[test]
fn an_unknown_word_is_refused_with_the_words_that_there_are() {
    is_refused(&["--service", "magic"], &["--service", "'magic'", "reply, echo, lines, chat"]);
    is_refused(&["--when-full", "maybe"], &["--when-full", "'maybe'", "refuse, wait"]);
    is_refused(&["--speed", "11"], &["'--speed'", "--help"]);
    is_refused(&["8080"], &["'8080'", "--help"]);
    is_refused(&["--drain", "1s", "--drain", "2s"], &["--drain", "multiple times"]);
}

#[test]
fn a_wrong_address_is_refused() {
    const RIGHT: &str = "write HOST:PORT, such as localhost:8080 or [::1]:8080, or unix:PATH";
    for (address, why) in [
        ("8080", "the port is missing"),
        ("localhost", "the port is missing"),
        ("localhost:", "the port is a number"),
        ("localhost:65536", "the port is a number"),
        ("localhost:-1", "the port is a number"),
        (":8080", "the host is missing"),
        ("::1:8080", "brackets"),
        ("unix:", "the path is missing"),
        ("", "the port is missing"),
    ] {
        is_refused(&["--listen", address], &[&format!("'{address}'"), why, RIGHT]);
    }
}

#[test]
fn an_address_that_cannot_be_had_is_named_with_the_remedy() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    is_refused(&["--listen", &taken], &["cannot listen on", &taken, "end it, or choose another"]);
    // Also when there was another address before it that could be had.
    is_refused(&["--listen", "127.0.0.1:0", "--listen", &taken], &["cannot listen on", &taken]);
    // Set aside for documentation: nobody has it.
    is_refused(&["--listen", "192.0.2.1:8080"], &["192.0.2.1:8080", "not an address of this machine"]);
    // A newline in a path does not make it two lines.
    is_refused(&["--listen", "unix:/nowhere/a\nb"], &["/nowhere/a\\nb", "the folder does not exist"]);
}

#[test]
fn a_path_that_is_too_long_is_refused_with_how_long_it_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let path = |length: usize| format!("unix:{folder}/{}", "x".repeat(length - folder.len() - 1));
    is_refused(&["--listen", &path(108)], &["the path has 108 bytes", "107 at most"]);
    let server = Server::listening_on(&path(107), &[]);
    assert_eq!(server.address(), path(107));
}

#[test]
fn more_places_than_the_machine_can_hold_are_refused_with_the_limit() {
    is_refused(&["--max-connections", "1000000"], &["--max-connections 1000000 is too many", "enough for"]);
    let limit = "the descriptor limit (ulimit -n) is 700, enough for ";
    is_refused_by(with_descriptors(700).args(["--max-connections", "690"]), &["--max-connections 690", limit]);
    is_refused_by(with_descriptors(700).args(["--min-workers", "600"]), &["--min-workers 600 is more than"]);
    let limit = "the descriptor limit (ulimit -n) is 50, enough for 0 connections; raise it";
    is_refused_by(&mut with_descriptors(50), &[limit]);
}

#[test]
fn where_the_default_is_too_many_it_is_lowered_and_the_log_says_so() {
    let options = ["--listen", "127.0.0.1:0", "--service", "lines", "--when-full", "refuse"];
    let server = Server::from_command(with_descriptors(120).args(options));
    let line = server.wait_for_log("the descriptor limit (ulimit -n) is 120, enough for ");
    assert!(line.contains("the default would be 512"), "{line}");
    let places: usize = line.split_once("enough for ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    // As many as it says, and whoever comes then is told.
    let mut clients: Vec<_> = (0..places).map(|_| server.client()).collect();
    for client in &mut clients {
        client.say_hello();
    }
    assert!(server.client().rest_as_text().starts_with(&format!("busy: all places are taken ({places} of")));
    drop(clients);
    assert!(server.stop().status.success());
}

#[test]
fn the_help_is_on_standard_output_and_mentions_every_option() {
    let options = [
        "--listen",
        "--page",
        "--no-page",
        "--page-host",
        "--service",
        "--prefix",
        "--min-workers",
        "--max-connections",
        "--when-full",
        "--per-source",
        "--idle-timeout",
        "--message-timeout",
        "--write-timeout",
        "--drain",
        "--max-message",
        "--help",
        "--version",
    ];
    for help in ["--help", "-h"] {
        let (status, output, errors) = run(program().arg(help), b"");
        assert!(status.success());
        assert_eq!(errors, "");
        for option in options {
            assert!(output.contains(option), "{help} is silent about {option}");
        }
        // What a newcomer asks first: what it does, where it listens, how it is stopped.
        for text in ["A server that answers", "localhost:8080", "Ctrl-C", "Examples:", "Exit status:", "500ms"] {
            assert!(output.contains(text), "{help} is silent about {text:?}");
        }
        assert!(!output.contains('\x1b'), "colours for a pipe");
    }
}

#[test]
fn the_version_is_on_standard_output() {
    for version in ["--version", "-V"] {
        let (status, output, errors) = run(program().arg(version), b"");
        assert!(status.success());
        assert_eq!((output.as_str(), errors.as_str()), (concat!("socket-steps ", env!("CARGO_PKG_VERSION")), ""));
    }
}

#[test]
fn a_prefix_may_begin_with_a_hyphen() {
    let server = Server::start(&["--prefix", "- "]);
    server.client().send("hello").expect("- hello");
}

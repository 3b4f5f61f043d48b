//! Node's programs and ours understand each other, both ways. The programs in `tests/node` have the shape of
//! the two study notes'.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;

use socket_steps::client::Client;
use socket_steps::server::{Config, Server as KitServer};
use socket_steps::services;
use socket_steps::stats::CloseReason;
use support::kit::Kit;
use support::{PREFIX, Server, has_ipv6, has_program, run};

const GREETING: &str = "안녕하세요, 서버님!";

/// One of our programs for Node, with these words; `None`, and said so, where there is no Node.
fn node(program: &str, words: &[&str]) -> Option<Command> {
    has_program("node").then(|| {
        let mut command = Command::new("node");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node").join(program)).args(words);
        command
    })
}

/// Runs it to its end, which must be a good one, and returns what it printed.
fn output_of(mut command: Command) -> String {
    let (status, output, errors) = run(&mut command, b"");
    assert!(status.success(), "{status}: {output} {errors}");
    output
}

fn what_a_client_prints() -> String {
    format!("data {PREFIX}{GREETING}\nend\nclose")
}

#[test]
fn nodes_client_is_answered_on_ipv4() {
    let server = Server::start(&[]);
    // It is told a port only, and tries localhost's addresses.
    let Some(client) = node("client.js", &[&server.socket_addr().port().to_string()]) else { return };
    assert_eq!(output_of(client), what_a_client_prints());
    let ended = server.stop();
    assert!(ended.status.success() && ended.log.contains("ended (finished)"), "{ended:?}");
    assert_eq!((ended.accounts.of("in"), ended.accounts.of("out")), (27, 27 + 15));
}

#[test]
fn nodes_client_is_answered_on_ipv6() {
    if !has_ipv6() {
        return;
    }
    let server = Server::listening_on("[::1]:0", &[]);
    let Some(client) = node("client.js", &[&server.socket_addr().port().to_string(), "::1"]) else { return };
    assert_eq!(output_of(client), what_a_client_prints());
    let ended = server.stop();
    assert!(ended.status.success() && ended.log.contains("ended (finished)"), "{ended:?}");
}

#[test]
fn nodes_client_is_answered_on_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server").display().to_string();
    let kit = Kit::on(KitServer::bind([format!("unix:{path}")], Config::default()).unwrap(), services::reply(PREFIX));
    let Some(client) = node("client.js", &[&path]) else { return };
    assert_eq!(output_of(client), what_a_client_prints());
    assert_eq!(kit.stop().bytes_in, 27);
}

#[test]
fn fifty_connects_of_nodes_in_a_row_are_fifty_answers() {
    let server = Server::start(&[]);
    let Some(many) = node("many.js", &[&server.socket_addr().port().to_string(), "50", PREFIX]) else { return };
    assert_eq!(output_of(many), "50 answered");
    let ended = server.stop();
    assert_eq!((ended.accounts.of("served"), ended.accounts.of("closed")), (50, 50));
}

#[test]
fn node_can_end_early_and_still_gets_twenty_million_bytes() {
    let kit = Kit::serve(Config::default(), |mut socket| {
        io::copy(&mut socket, &mut io::sink())?; // To the client's end.
        socket.write_all(&vec![b'x'; 20_000_000])
    });
    let Some(client) = node("ends_early.js", &[&kit.socket_addr().port().to_string()]) else { return };
    assert_eq!(output_of(client), "end after 20000000");
    assert_eq!(kit.stop().bytes_out, 20_000_000);
}

#[test]
fn nodes_resets_leave_the_others_alone() {
    let kit = Kit::serve(Config::default(), services::echo);
    let mut other = kit.client();
    other.send("before").expect("before");
    let Some(resets) = node("resets.js", &[&kit.socket_addr().port().to_string(), "20"]) else { return };
    assert_eq!(output_of(resets), "20 reset");
    kit.wait_for_end(CloseReason::Reset, 20);
    other.send("after").expect("after").end();
    assert!(other.rest().is_empty());
    assert_eq!(kit.stop().served, 21);
}

#[test]
fn our_client_is_answered_by_nodes_server() {
    let Some(mut command) = node("server.js", &[]) else { return };
    let server = Server::from_command(&mut command);
    for _ in 0..10 {
        let mut socket = Client::to(server.address()).connect().unwrap();
        socket.write_all(GREETING.as_bytes()).unwrap();
        let mut answer = vec![0; PREFIX.len() + GREETING.len()];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), format!("{PREFIX}{GREETING}"));
        socket.finish().unwrap();
    }
}

/// Chapter 4's program, which the book promises to understand the study note's.
fn chapter_4(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ch04_reply"));
    command.args(words).env_remove("RUST_LOG");
    command
}

#[test]
fn chapter_4s_server_answers_nodes_client() {
    let server = Server::from_command(&mut chapter_4(&["server", "127.0.0.1:0"]));
    let Some(client) = node("client.js", &[&server.socket_addr().port().to_string()]) else { return };
    assert_eq!(output_of(client), what_a_client_prints());
    server.wait_for_log("received 안녕하세요, 서버님!");
    server.wait_for_log("the client has ended");
}

#[test]
fn chapter_4s_client_is_answered_by_nodes_server() {
    let Some(mut command) = node("server.js", &[]) else { return };
    let server = Server::from_command(&mut command);
    assert_eq!(output_of(chapter_4(&["client", server.address()])), format!("{PREFIX}{GREETING}"));
}

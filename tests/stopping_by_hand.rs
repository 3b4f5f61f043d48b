//! Chapter 12's own server stops in good order at every signal that asks for it, and at once at the second one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::process::Command;

use rustix::process::Signal;
use support::{PREFIX, Server};

fn started() -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ch12_shutdown"));
    Server::from_command(command.args(["server", "127.0.0.1:0", "--message", "60s"]).env_remove("RUST_LOG"))
}

#[test]
fn a_silent_client_is_sent_home_and_a_message_that_has_begun_is_answered() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut server = started();
        let (mut silent, mut busy) = (server.client(), server.client());
        silent.say_hello();
        busy.send("hello\nhalf ").expect(format!("{PREFIX}hello\n"));
        server.signal(signal);
        assert!(silent.rest().is_empty());
        assert_eq!(busy.send("a line\n").rest_as_text(), format!("{PREFIX}half a line\n"));
        drop((silent, busy));
        assert_eq!(server.wait_for_status().code(), Some(0), "{signal:?}");
    }
}

#[test]
fn the_second_ctrl_c_ends_it_in_the_middle_of_a_message() {
    let mut server = started();
    let mut client = server.client();
    client.send("hello\nhalf ").expect(format!("{PREFIX}hello\n"));
    server.signal(Signal::INT);
    server.wait_for_log("stopping");
    server.signal(Signal::INT);
    assert_eq!(server.wait_for_status().code(), Some(130), "it has waited for the client");
}

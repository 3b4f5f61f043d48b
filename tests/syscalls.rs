//! The path of a message is as short as it can be: one receive, one send, and nothing else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use support::trace::Trace;
use support::{Server, has_program, program, wait_until};

const MESSAGES: usize = 1000;

/// The thread and the system call of each line that `strace -f` has written; a call that was interrupted by
/// another thread's line is finished on a line of its own, which does not count again.
fn calls(trace: &str) -> Vec<(&str, &str)> {
    let lines = trace.lines().filter(|line| !line.contains(" resumed>"));
    let calls = lines.filter_map(|line| line.split_once('(')?.0.split_once(' '));
    calls.map(|(thread, call)| (thread, call.trim())).collect()
}

#[test]
fn an_echoed_message_is_one_receive_and_one_send() {
    if !has_program("strace") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace");
    // Detached (-D), so that the server is our child, and strace is not.
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-o"]).arg(&file).arg(program().get_program());
    command.args(["--no-page", "--listen", "127.0.0.1:0", "--service", "echo"]).env_remove("RUST_LOG");
    let server = Server::from_command(&mut command);
    let mut client = server.client();
    for _ in 0..MESSAGES {
        client.send("hello").expect("hello");
    }
    let pid = server.pid().to_string();
    drop(client);
    assert!(server.stop().status.success());
    let trace = wait_until("strace has written the last line", || {
        let trace = fs::read_to_string(&file).unwrap();
        let mut lines = trace.lines().filter_map(|line| line.split_once(' '));
        lines.any(|(thread, what)| thread == pid && what.trim() == "+++ exited with 0 +++").then_some(trace)
    });

    let calls = calls(&trace);
    let sends: Vec<usize> = (0..calls.len()).filter(|&at| calls[at].1 == "sendto").collect();
    assert_eq!(sends.len(), MESSAGES);
    // From the first hundred messages to the last hundred, over all threads of the server.
    let (first, last) = (sends[100], sends[MESSAGES - 100]);
    let mut counts = BTreeMap::new();
    for call in &calls[first..last] {
        *counts.entry(call).or_insert(0) += 1;
    }
    let worker = calls[first].0;
    let mut count = |name| counts.remove(&(worker, name)).unwrap_or(0);
    assert_eq!(count("sendto"), 800);
    let receives = count("recvfrom");
    assert!((799..=801).contains(&receives), "{receives} receives for 800 messages");
    // A time-out may be set again once in a while; whatever is done for each message would be 800 of them.
    assert!(counts.values().sum::<usize>() < 20, "{counts:?}");
}

#[test]
fn an_accept_that_never_succeeds_is_not_tried_without_pause() {
    let Some((server, trace)) = Trace::of_a_server("accept4:error=EPERM", &[]) else { return };
    // As with a firewall that forbids it: the client stays in the backlog, and the listener readable.
    let _client = server.client();
    server.wait_for_log("a client was lost before accept");
    // What is measured is time; there is nothing else to wait for.
    thread::sleep(Duration::from_millis(1500));
    let tries = trace.injections().len();
    assert!((16..1000).contains(&tries), "{tries} tries in 1.5 s");
    assert!(server.stop().status.success());
}

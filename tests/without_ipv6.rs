//! A machine whose kernel has no IPv6 is a machine all the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::path::Path;
use std::process::Command;

use support::{PREFIX, Server, has_program, program, run};

/// The finished server, on a kernel that refuses its first socket as one without IPv6 would, and notes that in
/// this file. `None`, and said so, where there is no strace, or it is not allowed to work.
fn without_ipv6(address: &str, notes: &Path) -> Option<Command> {
    if !has_program("strace") {
        return None;
    }
    let mut command = Command::new("strace");
    // -D: strace is the grandchild, and this child becomes the server.
    command.args(["-D", "-f", "-qq", "-e", "trace=socket", "-e", "inject=socket:error=EAFNOSUPPORT:when=1", "-o"]);
    command.arg(notes);
    if !Command::new("strace").args(["-o", "/dev/null", "true"]).status().unwrap().success() {
        eprintln!("SKIPPED: strace may not trace here");
        return None;
    }
    command.arg(program().get_program()).args(["--no-page", "--listen", address]);
    Some(command)
}

fn assert_that_it_happened(notes: &Path) {
    let notes = std::fs::read_to_string(notes).unwrap();
    let first = notes.lines().next().unwrap();
    assert!(first.contains("AF_INET6") && first.contains("INJECTED"), "{notes}");
}

#[test]
fn localhost_is_listened_on_with_ipv4_alone() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes");
    let Some(mut command) = without_ipv6("localhost:0", &notes) else { return };
    let server = Server::from_command(&mut command);
    assert!(server.address().starts_with("127.0.0.1:"), "{}", server.address());
    server.client().send("x").expect(format!("{PREFIX}x"));
    assert!(server.stop().status.success());
    assert_that_it_happened(&notes);
}

#[test]
fn an_address_of_ipv6_is_refused_as_not_this_machines() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes");
    let Some(mut command) = without_ipv6("[::1]:0", &notes) else { return };
    let (status, _, errors) = run(&mut command, b"");
    assert_eq!(status.code(), Some(2), "{errors}");
    assert!(errors.lines().last().unwrap().contains("it is not an address of this machine"), "{errors}");
    assert_that_it_happened(&notes);
}

//! A machine whose kernel has no IPv6 is a machine all the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::process::Command;

use support::trace::Trace;
use support::{PREFIX, Server, has_program, program, run};

/// The finished server, on a kernel that refuses its first socket as one without IPv6 would. `None`, and said so, where
/// there is no strace, or it is not allowed to work.
fn without_ipv6(address: &str) -> Option<(Command, Trace)> {
    if !has_program("strace") {
        return None;
    }
    let (mut command, trace) = Trace::with_fault("socket:error=EAFNOSUPPORT:when=1", program().get_program());
    command.args(["--no-page", "--listen", address]);
    Some((command, trace))
}

fn assert_that_it_happened(trace: &Trace) {
    let notes = trace.text();
    let first = notes.lines().next().unwrap();
    assert!(first.contains("AF_INET6") && first.contains("INJECTED"), "{notes}");
}

#[test]
fn localhost_is_listened_on_with_ipv4_alone() {
    let Some((mut command, trace)) = without_ipv6("localhost:0") else { return };
    let server = Server::from_command(&mut command);
    assert!(server.address().starts_with("127.0.0.1:"), "{}", server.address());
    server.client().send("x").expect(format!("{PREFIX}x"));
    assert!(server.stop().status.success());
    assert_that_it_happened(&trace);
}

#[test]
fn an_address_of_ipv6_is_refused_as_not_this_machines() {
    let Some((mut command, trace)) = without_ipv6("[::1]:0") else { return };
    let (status, _, errors) = run(&mut command, b"");
    assert_eq!(status.code(), Some(2), "{errors}");
    assert!(errors.lines().last().unwrap().contains("it is not an address of this machine"), "{errors}");
    assert_that_it_happened(&trace);
}

//! What a test needs besides Rust: a program, or something that this machine does, or lets its user do. Where it is
//! missing, the test is skipped, aloud; or it fails, where `MUST_HAVE` names what is missing.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

/// Everything that can be asked for by name, as in `MUST_HAVE=strace,namespaces cargo test`.
const NEEDS: [&str; 22] = [
    // Programs.
    "cc",
    "chromium",
    "curl",
    "faketime",
    "nohup",
    "node",
    "node-websocket",
    "prlimit",
    "python3",
    "script",
    "ss",
    "strace",
    // To make networks, control groups and mounts of one's own, to end others' connections, and to be another user.
    "namespaces",
    "cgroup",
    "mounts",
    "sock-destroy",
    "another-user",
    // A machine with IPv6, whose port 8080 is free, that lets a backlog be long (sysctl net.core.somaxconn), that has
    // room for a crowd, and that runs out of memory maps before it runs out of anything else.
    "ipv6",
    "port-8080",
    "somaxconn",
    "room",
    "memory-maps",
];

static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Says that a test, or a part of one, is skipped: what is missing, and why. Fails where `MUST_HAVE` names that.
#[track_caller]
pub fn skip(missing: &str, why: impl Display) {
    let list = env::var("MUST_HAVE").unwrap_or_default();
    let must_have: Vec<&str> = list.split(',').filter(|name| !name.is_empty()).collect();
    // A name with a mistake in it would ask for nothing.
    for name in must_have.iter().chain([&missing]) {
        assert!(NEEDS.contains(name), "nothing is called {name:?}, only: {}", NEEDS.join(", "));
    }
    assert!(!must_have.contains(&missing), "MUST_HAVE names {missing}, but: {why}");
    let thread = thread::current();
    let line = format!("SKIPPED for want of {missing}: {}: {why}", thread.name().unwrap_or("a test"));
    // Once is enough for a test that tries again and again.
    if SAID.lock().unwrap().insert(line.clone()) {
        // Not eprintln!: the test harness keeps that to itself while a test passes.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Whether a program is here; strace, whether it may also look at other programs.
pub fn is_installed(program: &str) -> bool {
    match program {
        "strace" => {
            Command::new(program).args(["-o", "/dev/null", "true"]).output().is_ok_and(|it| it.status.success())
        }
        _ => Command::new(program).arg("--version").output().is_ok(),
    }
}

/// Whether a program can be run here; if not, says so, since the test is then skipped.
pub fn has_program(name: &str) -> bool {
    let found = is_installed(name);
    if !found {
        skip(name, "it is not installed here, or may not do its work");
    }
    found
}

/// Whether this machine has IPv6; if not, says so, since the test is then skipped. Many containers have none.
pub fn has_ipv6() -> bool {
    let found = TcpListener::bind("[::1]:0").is_ok();
    if !found {
        skip("ipv6", "this machine has none");
    }
    found
}

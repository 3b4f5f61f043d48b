//! `check` finds nothing wrong with what is right: the finished server, whatever it puts in front of an
//! answer, and the starters for readers, in their languages.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{Server, has_program, run};

/// What a server is asked to promise, and `check` told that it does.
const PROMISES: &[&str] = &["--limit", "16", "--deadline", "500ms"];

/// Judges, and gives the stages that did not pass: failed, and skipped.
fn check(options: &[&str]) -> (Vec<String>, Vec<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_check"));
    let (status, output, errors) = run(command.args(["--json", "--seed", "7"]).args(options), b"");
    let report: Value = serde_json::from_str(&output).unwrap_or_else(|_| panic!("{status} {errors} {output}"));
    let with = |outcome: &str| {
        let stages = report["stages"].as_array().unwrap().iter().filter(|stage| stage["outcome"] == outcome);
        stages.map(|stage| stage["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let failed = with("failed");
    assert!(failed.is_empty() && status.success(), "{status}: {report:#}");
    (failed, with("skipped"))
}

fn finished(options: &str) -> String {
    let promises = "--max-connections 16 --idle-timeout 500ms --message-timeout 500ms";
    format!("{} --listen 127.0.0.1:0 {promises} {options}", env!("CARGO_BIN_EXE_socket-steps"))
}

fn passes(command: &str, skipped: &[&str]) {
    let options = [&["--spawn", command], PROMISES].concat();
    assert_eq!(check(&options), (vec![], skipped.iter().map(|name| (*name).to_owned()).collect()));
}

#[test]
fn the_finished_server_passes_with_reply() {
    // Where every piece is a message, none is begun and not ended.
    passes(&finished("--service reply"), &["drip-let-go"]);
}

#[test]
fn the_finished_server_passes_with_echo() {
    passes(&finished("--service echo"), &["drip-let-go"]);
}

#[test]
fn the_finished_server_passes_with_lines() {
    passes(&finished("--service lines"), &[]);
}

#[test]
fn the_finished_server_passes_when_the_clients_beyond_its_limit_wait() {
    passes(&finished("--service lines --when-full wait"), &[]);
}

#[test]
fn a_prefix_may_share_its_bytes_with_the_messages() {
    std::thread::scope(|scope| {
        for prefix in ["e", "'e '", "'> '", "안", "'\n'"] {
            scope.spawn(move || {
                for service in ["reply", "lines"] {
                    let command = finished(&format!("--service {service} --prefix {prefix}"));
                    check(&["--spawn", &command, "--until", "ch05"]);
                }
            });
        }
    });
}

#[test]
fn a_server_that_runs_already_is_judged_by_its_address() {
    let server = Server::start(&["--service", "lines"]);
    let (_, skipped) = check(&["--addr", server.address()]);
    for stage in ["threads-bounded", "silent-let-go", "over-limit", "descriptors", "interrupt"] {
        assert!(skipped.iter().any(|name| name == stage), "{stage} is not in {skipped:?}");
    }
    server.stop();
}

#[test]
fn a_unix_socket_is_judged_as_far_as_it_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("server").display());
    let server = Server::listening_on(&address, &["--service", "lines"]);
    let (_, skipped) = check(&["--addr", &address]);
    assert!(skipped.iter().any(|name| name == "reset-idle"), "a Unix socket has no reset: {skipped:?}");
    server.stop();
    let command = format!(
        "{} --listen {address} --service reply --max-connections 16 --idle-timeout 500ms",
        env!("CARGO_BIN_EXE_socket-steps")
    );
    check(&[&["--spawn", &command], PROMISES].concat());
}

fn starter(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tutorial/starters").join(name);
    shell_words::quote(path.to_str().unwrap()).into_owned()
}

#[test]
fn the_starter_in_python_passes_and_has_fewer_than_forty_lines() {
    let source = include_str!("../tutorial/starters/server.py");
    assert!(source.lines().count() < 40);
    if has_program("python3") {
        passes(&format!("python3 {} 127.0.0.1:0 16 0.5", starter("server.py")), &[]);
    }
}

#[test]
fn the_starter_in_node_passes() {
    if has_program("node") {
        passes(&format!("node {} 127.0.0.1:0 16 0.5", starter("server.js")), &[]);
    }
}

#[test]
fn the_starter_in_c_passes() {
    if !has_program("cc") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("server");
    let mut compile = Command::new("cc");
    compile.args(["-Wall", "-Wextra", "-Werror", "-pthread"]).arg(starter("server.c")).arg("-o").arg(&program);
    let (status, _, errors) = run(&mut compile, b"");
    assert!(status.success(), "{errors}");
    passes(&format!("{} 127.0.0.1:0 16 0.5", program.display()), &[]);
}

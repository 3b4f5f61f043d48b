//! `check` finds nothing wrong with what is right: the finished server, whatever it puts in front of an
//! answer, and the starters for readers, in their languages.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::Value;
use support::{Server, has_program, run};

/// What a server is asked to promise, and `check` told that it does.
const PROMISES: &[&str] = &["--limit", "16", "--deadline", "500ms"];

/// What only a server on a path can be asked.
const PATHS: &[&str] = &["path-again", "path-kept"];

/// What only a server of WebSocket can be asked.
const WEBSOCKET: &[&str] = &["ws-handshake", "ws-echo", "ws-ping", "ws-close", "ws-fragments", "ws-refused"];

/// Judges; nothing may fail. The stages that were skipped.
fn check(options: &[&str]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_check"));
    let (status, output, errors) = run(command.args(["--json", "--seed", "7"]).args(options), b"");
    let report: Value = serde_json::from_str(&output).unwrap_or_else(|_| panic!("{status} {errors} {output}"));
    let with = |outcome: &str| {
        let stages = report["stages"].as_array().unwrap().iter().filter(|stage| stage["outcome"] == outcome);
        stages.map(|stage| stage["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let failed = with("failed");
    assert!(failed.is_empty() && status.success(), "{options:?}: {failed:?} {report:#}");
    with("skipped")
}

fn finished(options: &str) -> String {
    let promises = "--max-connections 16 --idle-timeout 500ms --message-timeout 500ms";
    format!("{} --no-page --listen 127.0.0.1:0 {promises} {options}", env!("CARGO_BIN_EXE_socket-steps"))
}

/// All of these, on a port, pass all stages but those that are named. It is nearly all waiting, so they take turns at it.
fn pass(commands: &[(String, &[&str])]) {
    thread::scope(|scope| {
        for (command, skipped) in commands {
            scope.spawn(move || {
                let options = [&["--spawn", command], PROMISES].concat();
                assert_eq!(check(&options), [skipped, PATHS, WEBSOCKET].concat(), "{command}");
            });
        }
    });
}

#[test]
fn the_finished_server_passes_with_each_of_its_services() {
    pass(&[
        // Where every piece is a message, none is begun and not ended.
        (finished("--service reply"), &["drip-let-go", "endless-line"]),
        (finished("--service echo"), &["drip-let-go", "endless-line"]),
        (finished("--service lines"), &[]),
        (finished("--service lines --when-full wait"), &[]),
    ]);
}

#[test]
fn a_prefix_may_share_its_bytes_with_the_messages() {
    thread::scope(|scope| {
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
    let skipped = check(&["--addr", server.address()]);
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
    let skipped = check(&["--addr", &address]);
    assert!(skipped.iter().any(|name| name == "reset-idle"), "a Unix socket has no reset: {skipped:?}");
    server.stop();
    let command = format!(
        "{} --no-page --listen {address} --service reply --max-connections 16 --idle-timeout 500ms",
        env!("CARGO_BIN_EXE_socket-steps")
    );
    let skipped = check(&[&["--spawn", &command], PROMISES].concat());
    assert!(!skipped.iter().any(|name| PATHS.contains(&name.as_str())), "{skipped:?}");
}

fn starter(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tutorial/starters").join(name);
    shell_words::quote(path.to_str().unwrap()).into_owned()
}

#[test]
fn the_starters_pass_in_python_in_node_and_in_c() {
    let folder = tempfile::tempdir().unwrap();
    let mut starters: Vec<(String, &[&str])> = Vec::new();
    if has_program("python3") {
        starters.push((format!("python3 {} 127.0.0.1:0 16 0.5", starter("server.py")), &[]));
    }
    if has_program("node") {
        starters.push((format!("node {} 127.0.0.1:0 16 0.5", starter("server.js")), &[]));
    }
    if has_program("cc") {
        let program = folder.path().join("server");
        let mut compile = Command::new("cc");
        compile.args(["-Wall", "-Wextra", "-Werror", "-pthread"]).arg(starter("server.c")).arg("-o").arg(&program);
        let (status, _, errors) = run(&mut compile, b"");
        assert!(status.success(), "{errors}");
        starters.push((format!("{} 127.0.0.1:0 16 0.5", program.display()), &[]));
    }
    pass(&starters);
}

#[test]
fn the_starter_in_python_has_fewer_than_forty_lines() {
    assert!(include_str!("../tutorial/starters/server.py").lines().count() < 40);
}

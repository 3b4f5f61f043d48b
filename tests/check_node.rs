//! The server of the study notes, as it is written in Node, and what `check` says about its two faults.
//! Skipped, aloud, where there is no Node.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::process::Command;

use serde_json::Value;
use support::{has_program, run};

/// A string and `data` added together; and, if asked for, an `error` listener.
fn documents_server(listeners: &str) -> String {
    let program = format!(
        "const net = require('net');\n\
         const server = net.createServer((socket) => {{\n\
           socket.on('data', (data) => {{ socket.write('서버 응답: ' + data); }});\n\
           socket.on('end', () => {{}});\n\
           {listeners}\n\
         }});\n\
         server.listen(0, '127.0.0.1', () => {{ console.log('listening on 127.0.0.1:' + server.address().port); }});"
    );
    format!("node -e {}", shell_words::quote(&program))
}

fn stages(command: &str) -> Vec<Value> {
    let mut check = Command::new(env!("CARGO_BIN_EXE_check"));
    let (status, output, errors) =
        run(check.args(["--json", "--seed", "3", "--until", "ch10", "--spawn", command]), b"");
    assert_eq!(status.code(), Some(1), "{errors} {output}");
    let report: Value = serde_json::from_str(&output).unwrap();
    report["stages"].as_array().unwrap().clone()
}

fn failed(stages: &[Value]) -> Vec<&str> {
    stages.iter().filter(|stage| stage["outcome"] == "failed").map(|stage| stage["name"].as_str().unwrap()).collect()
}

fn stage<'a>(stages: &'a [Value], name: &str) -> &'a Value {
    stages.iter().find(|stage| stage["name"] == name).unwrap()
}

#[test]
fn it_answers_the_greeting_and_tears_half_a_character() {
    if !has_program("node") {
        return;
    }
    let stages = stages(&documents_server("socket.on('error', () => {});"));
    assert_eq!(failed(&stages), ["all-bytes", "half-a-character"], "{stages:#?}");
    assert_eq!(stage(&stages, "greeting")["outcome"], "passed");
    let cause = stage(&stages, "half-a-character")["cause"].as_str().unwrap();
    assert!(cause.contains("U+FFFD") && cause.contains("socket.setEncoding('utf8') would keep the half"), "{cause}");
}

#[test]
fn set_encoding_mends_the_half_character_as_the_hint_says() {
    if !has_program("node") {
        return;
    }
    let stages = stages(&documents_server("socket.setEncoding('utf8'); socket.on('error', () => {});"));
    assert_eq!(failed(&stages), ["all-bytes"], "{stages:#?}");
}

#[test]
fn without_an_error_listener_it_dies_of_the_first_reset() {
    if !has_program("node") {
        return;
    }
    let stages = stages(&documents_server(""));
    let resets = ["reset-idle", "reset-sending", "reset-receiving"];
    assert_eq!(failed(&stages), [&["all-bytes", "half-a-character"], &resets[..]].concat(), "{stages:#?}");
    for name in resets {
        let stage = stage(&stages, name);
        assert!(stage["cause"].as_str().unwrap().contains("a socket without an 'error' listener"), "{stage:#}");
        let last = stage["steps"].as_array().unwrap().last().unwrap().as_str().unwrap();
        assert!(last.contains("process ended: exit status 1") && last.contains("ECONNRESET"), "{last}");
    }
}

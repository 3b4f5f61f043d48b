//! The reader's server in Python, step by step: each step passes every stage of `check` up to the one that the
//! next step is for, and the last one passes them all.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_json::Value;
use support::{has_program, run};

/// A step, what it is told after its address, and the first stage that it fails.
const STEPS: [(u32, &str, Option<&str>); 12] = [
    (1, "", Some("several-messages")),
    (2, "", Some("half-a-character")),
    (3, "", Some("second-client")),
    (4, "", Some("threads-bounded")),
    (5, "16", Some("silent-let-go")),
    (6, "16 0.5", Some("drip-let-go")),
    (7, "16 0.5", Some("last-words")),
    (8, "16 0.5", Some("descriptors")),
    (9, "16 0.5", Some("endless-line")),
    (10, "16 0.5", Some("descriptors")),
    // It lets everybody go after half a second, so it ends. The other test gives it half a minute.
    (11, "16 0.5", None),
    (12, "16 0.5", None),
];

fn steps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tutorial/starters/steps")
}

/// What `check` says of a step: the names of these stages, and their outcomes.
fn judge(step: u32, words: &str, stages: &[String], flags: &[&str]) -> Vec<(String, String)> {
    let file = steps().join(format!("{step}.py"));
    let server = format!("python3 {} 127.0.0.1:0 {words}", shell_words::quote(file.to_str().unwrap()));
    let mut check = Command::new(env!("CARGO_BIN_EXE_check"));
    check.args(["--json", "--seed", "1", "--limit", "16", "--spawn", &server]).args(flags);
    check.args(stages.iter().flat_map(|stage| ["--stage", stage]));
    let (_, report, errors) = run(&mut check, b"");
    let report: Value = serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}{errors}"));
    let text = |stage: &Value, key: &str| stage[key].as_str().unwrap().to_owned();
    let stages = report["stages"].as_array().unwrap().iter();
    stages.map(|stage| (text(stage, "name"), text(stage, "outcome"))).collect()
}

/// All stages for a server on a port, in their order.
fn stages() -> Vec<String> {
    let (_, list, _) = run(Command::new(env!("CARGO_BIN_EXE_check")).arg("--list"), b"");
    let indented = list.lines().filter_map(|line| line.strip_prefix("  "));
    let names = indented.map(|line| line.split_whitespace().next().unwrap().to_owned());
    names.filter(|name| !name.starts_with("path-")).collect()
}

#[test]
fn a_step_passes_what_comes_before_the_stage_that_the_next_step_is_for() {
    if !has_program("python3") {
        return;
    }
    let stages = stages();
    thread::scope(|scope| {
        for (step, words, fails) in STEPS {
            let end = fails.map_or(stages.len(), |fails| 1 + stages.iter().position(|name| name == fails).unwrap());
            let stages = &stages[..end];
            scope.spawn(move || {
                let judged = judge(step, words, stages, &["--deadline", "500ms"]);
                assert_eq!(judged.len(), stages.len(), "step {step}: {judged:?}");
                for (name, outcome) in judged {
                    let expected = if fails == Some(&name) { "failed" } else { "passed" };
                    assert_eq!(outcome, expected, "step {step}: {name}");
                }
            });
        }
    });
}

#[test]
fn only_the_last_step_ends_at_ctrl_c_while_somebody_is_silent_for_half_a_minute() {
    if !has_program("python3") {
        return;
    }
    let interrupt = "interrupt".to_owned();
    for (step, outcome) in [(11, "failed"), (12, "passed")] {
        let judged = judge(step, "16 30", std::slice::from_ref(&interrupt), &[]);
        assert_eq!(judged, [(interrupt.clone(), outcome.to_owned())], "step {step}");
    }
}

#[test]
fn every_step_is_in_the_table() {
    let files = fs::read_dir(steps()).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "py"));
    assert_eq!(files.count(), STEPS.len());
}

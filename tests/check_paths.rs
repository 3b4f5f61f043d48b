//! `check` finds what is wrong with a server on a path: a file that stays in the way, a path that is taken from
//! a living server; and it leaves no file and no process behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;
#[path = "wrong_server/on_a_path.rs"]
mod wrong_server;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::run;

const BOTH: &[&str] = &["path-again", "path-kept"];

/// Played when this program is started again as a server.
#[test]
fn play_the_wrong_server() {
    if let Some(path) = std::env::var_os("WRONG_PATH") {
        wrong_server::play(&std::env::var("WRONG_SERVER").unwrap(), Path::new(&path));
    }
}

/// Judges a server with this fault, which must not leave its file behind. The stages, in their order.
fn check(fault: &str, stages: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let program = std::env::current_exe().unwrap();
    let spawn = format!("{} --exact play_the_wrong_server --nocapture", shell_words::quote(program.to_str().unwrap()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_check"));
    command.env("WRONG_SERVER", fault).env("WRONG_PATH", &path).args(["--json", "--patience", "2s", "--spawn", &spawn]);
    let (status, output, errors) = run(command.args(stages.iter().flat_map(|stage| ["--stage", stage])), b"");
    assert!(matches!(status.code(), Some(0 | 1)), "{fault:?}: {status} {errors}");
    let report: Value = serde_json::from_str(&output).unwrap_or_else(|error| panic!("{fault:?}: {error}: {output}"));
    let listens = |pid: &u32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|e| has(&e, path.as_os_str().as_encoded_bytes()))
    };
    assert!(!processes().any(|pid| listens(&pid)), "{fault:?}: a server is left");
    if fault != "never removes its file" {
        assert!(!fs::exists(&path).unwrap(), "{fault:?}: a file is left");
    }
    report["stages"].as_array().unwrap().clone()
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
}

/// The outcomes of both stages; the failure must say this.
fn outcomes(fault: &str, says: &str) -> [String; 2] {
    let stages = check(fault, BOTH);
    let failed: Vec<String> =
        stages.iter().filter(|stage| stage["outcome"] == "failed").map(Value::to_string).collect();
    assert!(failed.iter().any(|failed| failed.contains(says)), "{fault:?}: no {says:?} in {stages:#?}");
    [0, 1].map(|at| stages[at]["outcome"].as_str().unwrap().to_owned())
}

#[test]
fn without_a_fault_it_passes() {
    for stage in check("", &["greeting", "several-messages", "path-again", "path-kept"]) {
        assert_eq!(stage["outcome"], "passed", "{stage:#}");
    }
}

#[test]
fn a_stale_file_that_stays_in_the_way_is_found() {
    assert_eq!(outcomes("gives up at a stale file", "killed leaves its socket file behind"), ["failed", "passed"]);
}

#[test]
fn a_path_that_is_stolen_is_found() {
    assert_eq!(outcomes("removes whatever is there", "nobody can reach any more"), ["passed", "failed"]);
}

#[test]
fn a_file_that_is_removed_by_who_could_not_have_it_is_found() {
    assert_eq!(outcomes("removes what is not its own", "A file belongs to whoever"), ["passed", "failed"]);
}

#[test]
fn a_file_that_is_left_at_every_end_is_not_taken_for_a_port_that_is_kept() {
    // After the first of these stages the server is ended with SIGTERM, and started again.
    let stages = check("never removes its file", &["descriptors", "path-again"]);
    assert!(stages[1].to_string().contains("Its socket file is still there"), "{stages:#?}");
}

#[test]
fn on_a_port_and_without_a_command_they_are_skipped_aloud() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("socket").display());
    let server = support::Server::listening_on(&address, &["--service", "lines"]);
    let on_a_port = support::Server::start(&["--service", "lines"]);
    for (address, why) in [(server.address(), "--spawn"), (on_a_port.address(), "on a path")] {
        let mut check = Command::new(env!("CARGO_BIN_EXE_check"));
        let (status, output, _) =
            run(check.args(["--addr", address, "--stage", "path-again", "--stage", "path-kept"]), b"");
        assert!(status.success(), "{output}");
        let skipped = output.lines().filter(|line| line.contains("skipped: ") && line.contains(why));
        assert_eq!(skipped.count(), 2, "{output}");
    }
}

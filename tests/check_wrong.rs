//! `check` finds what is wrong: one fault a server, each found by exactly the stages that it explains, with
//! every seed, and with the words that help.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;
mod wrong_server;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use serde_json::Value;
use support::run;

/// The seeds of a fault: the first with all stages, the others with those that must fail. All stages with all of
/// them take minutes, and are asked for by name: `EVERY_STAGE=1 cargo test --test check_wrong`.
const SEEDS: u64 = 10;

/// How many servers are judged at the same time: nearly all of it is waiting.
const AT_ONCE: usize = 24;

/// A fault, the stages that must fail, and what one of them must say.
struct Wrong {
    fault: &'static str,
    fails: &'static [&'static str],
    /// Stages that may fail too, as the network or the machine has it.
    may_fail: &'static [&'static str],
    says: &'static str,
    until: &'static str,
}

impl Wrong {
    const fn or(self, may_fail: &'static [&'static str]) -> Wrong {
        Wrong { may_fail, ..self }
    }

    const fn until(self, until: &'static str) -> Wrong {
        Wrong { until, ..self }
    }
}

const fn wrong(fault: &'static str, fails: &'static [&'static str], says: &'static str) -> Wrong {
    Wrong { fault, fails, may_fail: &[], says, until: "ch21" }
}

/// Played when this program is started again as a server.
#[test]
fn play_the_wrong_server() {
    if let Ok(fault) = std::env::var("WRONG_SERVER") {
        wrong_server::play(&fault);
    }
}

fn check(fault: &str, options: &[&str]) -> Value {
    let program = std::env::current_exe().unwrap();
    let spawn = format!("{} --exact play_the_wrong_server --nocapture", shell_words::quote(program.to_str().unwrap()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_check"));
    command.env("WRONG_SERVER", fault).args(["--spawn", &spawn, "--json", "--patience", "1200ms"]).args(options);
    let (status, output, errors) = run(&mut command, b"");
    assert!(matches!(status.code(), Some(0 | 1)), "{fault}: {status} {errors}");
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{fault}: {error}: {output}"))
}

fn with(outcome: &str, report: &Value) -> BTreeSet<String> {
    let stages = report["stages"].as_array().unwrap().iter();
    stages.filter(|stage| stage["outcome"] == outcome).map(|stage| stage["name"].as_str().unwrap().to_owned()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const PROMISES: &[&str] = &["--limit", "16", "--deadline", "400ms"];

#[test]
fn without_a_fault_it_passes() {
    let report = check("", PROMISES);
    // It is on a port, and speaks in lines; see `check_paths` and `check_websocket` for others.
    let mut skipped = with("skipped", &report);
    skipped.retain(|name| !name.starts_with("path-") && !name.starts_with("ws-"));
    assert_eq!((with("failed", &report), skipped), (set(&[]), set(&[])), "{report:#}");
}

#[test]
fn every_fault_is_found_by_the_stages_that_it_explains_with_every_seed() {
    judge(WRONG);
}

fn judge(faults: &[Wrong]) {
    // One seed of all, then the next: a fault that takes long is not left to one thread.
    let all = (0..SEEDS).flat_map(|seed| faults.iter().map(move |wrong| (wrong, seed)));
    let queue = Mutex::new(all);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((wrong, seed)) = { queue.lock().unwrap().next() } {
                    if let Err(failure) = judge_one(wrong, seed) {
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} faults:\n{}", failures.len(), faults.len(), failures.join("\n"));
}

fn judge_one(wrong: &Wrong, seed: u64) -> Result<(), String> {
    let fault = wrong.fault;
    let seed_text = seed.to_string();
    let mut options = vec!["--seed", &seed_text, "--until", wrong.until];
    options.extend_from_slice(PROMISES);
    if seed > 0 && std::env::var_os("EVERY_STAGE").is_none() {
        options.extend(wrong.fails.iter().flat_map(|name| ["--stage", name]));
    }
    let report = check(fault, &options);
    let failed = with("failed", &report);
    let must = set(wrong.fails);
    let may = set(wrong.may_fail);
    if !must.is_subset(&failed) || !failed.is_subset(&must.union(&may).cloned().collect()) {
        return Err(format!("{fault:?}, seed {seed}: failed {failed:?}, should {must:?}\n{report:#}"));
    }
    let told = report["stages"].as_array().unwrap().iter().any(|stage| {
        let parts = [&stage["cause"], &stage["steps"], &stage["received"]];
        stage["outcome"] == "failed" && parts.iter().any(|part| part.to_string().contains(wrong.says))
    });
    if !told {
        return Err(format!("{fault:?}, seed {seed}: nowhere {:?}\n{report:#}", wrong.says));
    }
    Ok(())
}

const WRONG: &[Wrong] = &[
    wrong("speaks first", &["connects"], "speaks before it is asked"),
    wrong("closes at once", &["connects", "greeting"], "Read first"),
    wrong("no newline", &["greeting"], "newline is missing"),
    wrong("upper case", &["greeting"], "upper case"),
    wrong("a newline too many", &["greeting"], "println!"),
    wrong("twice", &["greeting"], "twice"),
    wrong("carriage returns", &["greeting"], "has become"),
    wrong("quotes", &["greeting"], "quotation marks"),
    wrong("a counter in front", &["greeting"], "not the same each time"),
    wrong("answers the end", &["greeting"], "Is the end"),
    wrong("silent", &["greeting"], "keeps its connection open"),
    wrong("flood", &["connects", "greeting"], "does not stop sending"),
    wrong("garbage", &["connects", "greeting"], "speaks before it is asked"),
    wrong("dies of a message", &["greeting"], "exit status 101").or(&["connects"]),
    wrong("a counter of messages", MORE_THAN_ONE, "A later answer differs").or(&["late-answer"]),
    // It closes behind its first answer: whether it meets what comes next before that is a matter of moments.
    wrong("one message", MORE_THAN_ONE, "Read in a loop").or(&["late-answer", "endless-line"]),
    wrong("never closes", &["ends-with-client"], "read returns 0").until("ch06"),
    wrong("loses a thread to each empty client", &["come-and-go"], "sends nothing is no error")
        .or(&["threads-bounded"]),
    wrong("dies of an empty client", &["come-and-go"], "exit status 101").or(&["threads-bounded"]),
    wrong("lines made text", &["all-bytes"], "bytes are not text"),
    wrong("ends at a zero byte", &["all-bytes"], "zero byte"),
    wrong("spaces trimmed", &["all-bytes"], "bytes are not text"),
    wrong("cuts long lines", &["one-mebibyte", "slow-reader"], "cut to the size of a buffer"),
    wrong("drops what does not fit", &["slow-reader"], "is the rest written later").or(&["one-mebibyte"]),
    wrong("a prefix in each piece", &["half-a-character"], "middle of a character"),
    wrong("each piece is made text", &["all-bytes", "half-a-character"], "setEncoding"),
    wrong("dies of half a character", &["all-bytes", "half-a-character"], "exit status 101"),
    wrong("each piece is a line", &["half-a-character", "cut-anywhere"], "A piece is not a line").or(BULK),
    wrong(
        "only the first line of a piece",
        &["all-bytes", "one-mebibyte", "slow-reader", "cut-anywhere", "late-answer"],
        "One read may bring two lines",
    ),
    wrong("one after another", &["second-client", "at-once"], "waits for a silent client").until("ch06"),
    wrong("one buffer for all", &["at-once"], "Each connection needs its own"),
    wrong("loses what comes with the end", &["late-answer"], "only its own half"),
    wrong("a thread for each", &["threads-bounded"], "Keep a pool"),
    wrong("no deadline", &["silent-let-go", "drip-let-go"], "keeps its place"),
    wrong("a deadline for each read", &["drip-let-go"], "begins again with every byte"),
    wrong("lives as long as the deadline", &["silent-let-go"], "not the length of a connection"),
    wrong("a hasty deadline", &["silent-let-go", "drip-let-go"], "before the deadline").or(&["connects"]),
    wrong("dies of any error", &["reset-idle", "reset-sending", "reset-receiving", "nothing-left"], "exit status 101"),
    wrong("dies of a broken pipe", &["reset-receiving"], "exit status 101"),
    wrong("closes with unread input", &["last-words"], "turns that into a reset"),
    wrong("closes amid a long line", &["endless-line"], "turns that into a reset"),
    wrong("closes without a word", &["over-limit"], "cannot know why"),
    wrong("resets those over the limit", &["last-words", "over-limit"], "cannot know why"),
    wrong("forgets those over the limit", &["over-limit"], "neither told nor served"),
    wrong("tells and stays open", &["over-limit"], "not closed"),
    wrong("spins without descriptors", &["descriptors"], "uses a whole processor"),
    wrong("dies without descriptors", &["descriptors"], "EMFILE"),
    wrong("gives up without descriptors", &["descriptors"], "Go on accepting"),
    wrong("leaves descriptors behind", &["descriptors", "nothing-left"], "leaves a descriptor behind"),
    wrong("leaves threads behind", &["nothing-left"], "leaves a thread behind").or(&["threads-bounded"]),
    wrong("no signal handler", &["interrupt"], "only set a flag"),
    wrong("drops what is in flight", &["interrupt"], "only set a flag"),
    wrong("ignores the signal", &["interrupt"], "goes on as before"),
    wrong("goes on accepting", &["interrupt"], "goes on as before"),
    wrong("waits for the silent", &["interrupt"], "waits for a client that says nothing"),
];

/// Where a client sends a second message.
const MORE_THAN_ONE: &[&str] = &[
    "several-messages",
    "all-bytes",
    "one-mebibyte",
    "slow-reader",
    "half-a-character",
    "cut-anywhere",
    "second-client",
    "silent-let-go",
    "reset-idle",
    "reset-sending",
    "reset-receiving",
    "interrupt",
];

/// Where the network may cut as it likes.
const BULK: &[&str] = &["all-bytes", "one-mebibyte", "slow-reader", "late-answer"];

//! Each stage of `check` is passed by the chapter that introduces it and by every later one, and the last
//! judged chapter before it fails it: so a chapter brings what its stages ask for, and a stage asks for
//! something. The book prints the table; `UPDATE=1 cargo test --test matrix` writes it.
//!
//! A new chapter adds a row to `JUDGED`, or says in `NOT_JUDGED` why not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use serde_json::Value;
use support::run;

/// The chapters with a server that can be judged, in their order, and the options that their servers take.
const JUDGED: &[(&str, &[&str])] = &[
    ("ch04_reply", &[]),
    ("ch05_stream", &[]),
    ("ch06_threads", &[]),
    ("ch07_pool", &["--limit", LIMIT]),
    ("ch08_timeouts", PROMISES),
    ("ch09_stats", PROMISES),
    ("ch10_endings", PROMISES),
    ("ch11_limits", PROMISES),
    ("ch12_shutdown", PROMISES),
    ("ch13_server", PROMISES),
    ("ch15_ipc", PROMISES),
    ("ch19_websocket", &[]),
];

/// What the servers from chapter 8 on are told.
const PROMISES: &[&str] = &["--limit", LIMIT, "--idle", DEADLINE, "--message", DEADLINE];

/// A chapter whose stages only some servers can be asked for, those that have another kind of address: where they
/// have it, they pass, and the chapter before has nothing to fail.
struct Kind {
    chapter: &'static str,
    programs: &'static [&'static str],
    /// What `check` is told besides; then these programs are asked for nothing else.
    options: &'static [&'static str],
    /// In words for the reader.
    who: &'static str,
    others: &'static str,
}

const KINDS: &[Kind] = &[
    Kind {
        chapter: PATHS,
        programs: &["ch15_ipc"],
        options: &[],
        who: "a server on a path",
        others: "those that are on a port",
    },
    Kind {
        chapter: "ch19_websocket",
        programs: &["ch19_websocket"],
        options: &["--path", "/"],
        who: "a server of WebSocket",
        others: "those that speak in lines, and for it where lines are asked for",
    },
];

/// The chapter whose server can be on a path, and on a port, too.
const PATHS: &str = "ch15_ipc";

/// The kind of server that a chapter's stages need, if it is not any.
fn kind(chapter: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.chapter == chapter)
}

/// What `check` is told of a program that is asked for nothing but the stages of its kind.
fn only(program: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| !kind.options.is_empty() && kind.programs.contains(&program))
}

/// Whether a program can be asked for the stages of a chapter.
fn is_asked(program: &str, chapter: &str) -> bool {
    match (kind(chapter), only(program)) {
        (Some(kind), _) => kind.programs.contains(&program),
        (None, only) => only.is_none(),
    }
}

/// The chapters without a stage of their own, and why, in words for the reader.
const NOT_JUDGED: &[(&str, &str)] = &[
    ("ch01_file", "both of its ends are in one program"),
    ("ch02_address", "it is about addresses, and nothing is sent"),
    ("ch03_steps", "its server says one sentence to everyone, and hangs up"),
    ("ch14_client", "it is about clients, and `check` is one itself"),
    ("ch16_udp", "its server takes datagrams, and `check` speaks in streams"),
    ("ch17_reliable", "its stream is built of datagrams, and `check` speaks in TCP's"),
    ("ch18_http", "it speaks HTTP, and `check` speaks in lines"),
    ("ch20_live", "whoever says something in it is heard by the others, and not answered"),
    ("ch21_load", "it is about how fast a server is, and `check` asks whether it is right"),
];

/// The chapters that are judged, and bring no stage, and why, in words for the reader.
const WITHOUT_A_STAGE: &[(&str, &str)] = &[
    ("ch09_stats", "what a server knows of itself cannot be seen from outside"),
    ("ch13_server", "it is chapter 12's server again, in some 25 lines, and passes what that one passes"),
];

/// The stages that the last judged chapter before their own passes, too, and why, in words for the reader.
const PASSED_BEFORE: &[(&str, &str)] = &[
    (
        "cut-anywhere",
        "a server that answers every piece, as chapter 4's does, sends every byte back in order, and `check` allows \
         a prefix in front of each answer, wherever it begins",
    ),
    (
        "late-answer",
        "whoever answers what came, and closes only after that, passes it, as chapter 4's server does; it is there for \
         servers that drop a client at once when it ends its half",
    ),
    ("writes-first", "it tells what a server does, and fails none"),
    (
        "reset-idle",
        "in Rust an error is a value, and the chapters' servers have always looked at it; in other languages it is an \
         exception or a signal that nobody expects",
    ),
    ("reset-sending", "the same"),
    ("reset-receiving", "the same"),
    (
        "last-words",
        "a server that lets whoever is beyond its limit wait, as those from chapter 7 on do, says nothing to them",
    ),
    ("over-limit", "waiting is one right answer, and the one of chapters 7 to 10; chapter 11 brings the other one"),
    ("nothing-left", "Rust closes a stream when its owner is gone, so there was never anything left"),
];

/// What `check` is told of every server: chapters that know no limit, or no deadline, have to do without it.
const LIMIT: &str = "8";
const DEADLINE: &str = "2s";

/// How many servers are judged at the same time: nearly all of it is waiting.
const AT_ONCE: usize = 12;

/// What is expected to pass may take its time; what is expected to fail is a wait to the end of this.
const PATIENT: &str = "20s";
const IMPATIENT: &str = "1s";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

struct Stage {
    name: String,
    chapter: String,
}

/// The outcome of a stage with a chapter's program.
type Table = BTreeMap<(String, &'static str), Outcome>;

#[test]
fn each_chapter_brings_its_stages_and_the_chapter_before_lacks_them() {
    let stages = stages();
    let table = judge(&stages);
    let problems = problems(&stages, &table);
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    compare_with_the_book(&in_markdown(&stages, &table));
}

#[test]
fn no_chapter_is_forgotten() {
    let listed: Vec<&str> =
        NOT_JUDGED.iter().map(|(name, _)| *name).chain(JUDGED.iter().map(|(name, _)| *name)).collect();
    for source in fs::read_dir(root().join("src/bin")).unwrap() {
        let name = source.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        let is_chapter = name.starts_with("ch") && name.contains('_');
        assert!(!is_chapter || listed.contains(&name.as_str()), "{name} is neither judged nor is it said why not");
    }
    for (name, _) in NOT_JUDGED.iter().chain(WITHOUT_A_STAGE) {
        assert!(!stages().iter().any(|stage| stage.chapter == *name), "{name} has a stage");
    }
}

fn excused(stage: &str) -> bool {
    PASSED_BEFORE.iter().any(|(name, _)| *name == stage)
}

fn check(options: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_check"));
    let (status, output, errors) = run(command.args(options).arg("--json"), b"");
    assert!(matches!(status.code(), Some(0 | 1)), "{options:?}: {status} {errors}");
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{options:?}: {error}: {output}"))
}

/// Every stage of a chapter that is judged, in the order of `check`. (A chapter that is not written yet has no
/// row; once it is, `no_chapter_is_forgotten`.)
fn stages() -> Vec<Stage> {
    let (last, _) = JUDGED[JUDGED.len() - 1];
    let list = check(&["--list", "--until", last]);
    let text = |stage: &Value, field: &str| stage[field].as_str().unwrap().to_owned();
    let stages = list["stages"].as_array().unwrap().iter();
    let stages = stages.map(|stage| Stage { name: text(stage, "name"), chapter: text(stage, "chapter") });
    stages.filter(|stage| JUDGED.iter().any(|(program, _)| *program == stage.chapter)).collect()
}

fn judge(stages: &[Stage]) -> Table {
    // A program's own stages and the earlier ones pass, on one server, one after another; each later one may
    // leave the server in a sorry state, so it has a server of its own. The ones that take long come first.
    let mut errands = Vec::new();
    for (program, options) in JUDGED {
        let later = stages.iter().filter(|stage| stage.chapter.as_str() > *program);
        errands
            .extend(later.map(|stage| {
                (*program, *options, vec![stage], if excused(&stage.name) { PATIENT } else { IMPATIENT })
            }));
    }
    for (program, options) in JUDGED {
        let own = stages.iter().filter(|stage| stage.chapter.as_str() <= *program);
        let (on_a_path, others): (Vec<&Stage>, Vec<&Stage>) = own.partition(|stage| stage.chapter == PATHS);
        let groups = [others, on_a_path].into_iter().filter(|group| !group.is_empty());
        errands.extend(groups.map(|group| (*program, *options, group, PATIENT)));
    }

    let queue = Mutex::new(errands.into_iter());
    let table = Mutex::new(Table::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((program, options, stages, patience)) = { queue.lock().unwrap().next() } {
                    let outcomes = judge_some(program, options, &stages, patience);
                    table
                        .lock()
                        .unwrap()
                        .extend(outcomes.into_iter().map(|(name, outcome)| ((name, program), outcome)));
                }
            });
        }
    });
    table.into_inner().unwrap()
}

fn judge_some(program: &str, options: &[&str], stages: &[&Stage], patience: &str) -> Vec<(String, Outcome)> {
    let folder = Path::new(env!("CARGO_BIN_EXE_socket-steps")).parent().unwrap();
    let path = folder.join(program).display().to_string();
    let socket = tempfile::tempdir().unwrap();
    let address = match stages.iter().all(|stage| stage.chapter == PATHS && is_asked(program, PATHS)) {
        true => format!("unix:{}", socket.path().join("socket").display()),
        false => "127.0.0.1:0".to_owned(),
    };
    let words = [path.as_str(), "server", &address].into_iter().chain(options.iter().copied());
    let spawn = shell_words::join(words);
    let mut asked = vec!["--spawn", &spawn, "--seed", "1", "--limit", LIMIT, "--deadline", DEADLINE];
    asked.extend(["--patience", patience]);
    asked.extend(only(program).map_or(&[][..], |kind| kind.options));
    asked.extend(stages.iter().flat_map(|stage| ["--stage", stage.name.as_str()]));
    let report = check(&asked);
    let outcome = |stage: &Value| match stage["outcome"].as_str() {
        Some("passed") => Outcome::Passed,
        Some("failed") => Outcome::Failed,
        Some("skipped") => Outcome::Skipped,
        _ => panic!("{stage:#}"),
    };
    let judged = report["stages"].as_array().unwrap().iter();
    judged.map(|stage| (stage["name"].as_str().unwrap().to_owned(), outcome(stage))).collect()
}

/// Where the table is not as it should be.
fn problems(stages: &[Stage], table: &Table) -> Vec<String> {
    let mut problems = Vec::new();
    for Stage { name, chapter } in stages {
        let of = |program: &'static str| table[&(name.clone(), program)];
        for (program, _) in JUDGED {
            let right = match (is_asked(program, chapter), *program >= chapter.as_str()) {
                (true, true) => Outcome::Passed,
                (false, _) => Outcome::Skipped,
                (true, false) => continue,
            };
            if of(program) != right {
                problems.push(format!("{name}, of {chapter}: {program}: {:?}, should be {right:?}", of(program)));
            }
        }
        if kind(chapter).is_some() {
            continue;
        }
        let before = JUDGED.iter().rev().find(|(program, _)| *program < chapter.as_str() && is_asked(program, chapter));
        let excused = excused(name);
        match before.map(|(program, _)| (program, of(program))) {
            Some((program, outcome)) if !excused && outcome != Outcome::Failed => {
                problems.push(format!("{name}, of {chapter}: {program}, before it, should fail it: {outcome:?}"));
            }
            Some((program, Outcome::Failed)) if excused => {
                problems.push(format!("{name}: {program} fails it; it needs no excuse"));
            }
            None if excused => problems.push(format!("{name}: no chapter is judged before it; it needs no excuse")),
            _ => {}
        }
    }
    for (name, _) in PASSED_BEFORE {
        if !stages.iter().any(|stage| stage.name == *name) {
            problems.push(format!("{name}: there is no such stage"));
        }
    }
    problems
}

fn in_markdown(stages: &[Stage], table: &Table) -> String {
    let mut text = String::from("| stage | brought by |");
    for (program, _) in JUDGED {
        text += &format!(" [{}]({}) |", number(program), page(program));
    }
    text += "\n|---|:-:|";
    text += &":-:|".repeat(JUDGED.len());
    for Stage { name, chapter } in stages {
        text += &format!("\n| `{name}` | {} |", number(chapter));
        for (program, _) in JUDGED {
            text += match table[&(name.clone(), *program)] {
                Outcome::Passed => " ✓ |",
                Outcome::Failed => " ✗ |",
                Outcome::Skipped => " – |",
            };
        }
    }
    text += "\n\nSome stages are passed earlier than the chapter that brings them:\n";
    for (name, why) in PASSED_BEFORE {
        text += &format!("\n- `{name}`: {why}.");
    }
    text += "\n\nChapters without a stage of their own:\n";
    for (program, why) in WITHOUT_A_STAGE {
        text += &format!("\n- [chapter {}]({}): {why}.", number(program), page(program));
    }
    let judged = KINDS.iter().filter(|kind| JUDGED.iter().any(|(program, _)| *program == kind.chapter));
    for Kind { chapter, who, others, .. } in judged {
        let (number, page) = (number(chapter), page(chapter));
        text +=
            &format!("\n\nOnly {who} can be asked for the stages of [chapter {number}]({page}): – is for {others}.");
    }
    text += "\n\nNot judged:\n";
    for (program, why) in NOT_JUDGED {
        text += &format!("\n- [chapter {}]({}): {why}.", number(program), page(program));
    }
    text
}

/// 4, of `ch04_reply`.
fn number(program: &str) -> usize {
    program[2..4].parse().unwrap()
}

/// `04-reply.md`, of `ch04_reply`.
fn page(program: &str) -> String {
    format!("{}.md", program[2..].replacen('_', "-", 1))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

const BEGIN: &str = "<!-- matrix -->\n";
const END: &str = "\n<!-- end of matrix -->";

fn compare_with_the_book(table: &str) {
    let path = root().join("tutorial/en/README.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page says where the table begins");
    let (printed, after) = rest.split_once(END).expect("the page says where the table ends");
    if printed.trim() == table {
        return;
    }
    assert!(
        std::env::var_os("UPDATE").is_some(),
        "the book prints:\n{printed}\nIt is:\n{table}\nTo mend it: UPDATE=1 cargo test --test matrix"
    );
    fs::write(&path, format!("{before}{BEGIN}\n{table}\n{END}{after}")).unwrap();
    eprintln!("rewritten: {}", path.display());
}

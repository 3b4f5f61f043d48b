//! Whatever stands on a command line, a program says in one line what is wrong with it, or does what it says; it never
//! panics, and never hangs.
//!
//! Nothing here can be reached from outside: the server is given so few descriptors that it does not get as far as
//! listening, and everyone else is sent to a port of this machine on which nobody is.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

use crate::corpus::{bytes_of, inputs};
use crate::support::figures::figure;
use crate::support::figures::tries;
use crate::support::{Server, after, program, run};

const PROGRAMS: [&str; 4] = ["socket-steps", "check", "load", "talk"];

/// The file of a program of this package.
fn file(name: &str) -> PathBuf {
    Path::new(program().get_program()).with_file_name(name)
}

/// A program with these words, which cannot listen.
fn command(name: &str, words: &[OsString]) -> Command {
    let mut command = if name == "socket-steps" { after("ulimit -n 50", file(name)) } else { Command::new(file(name)) };
    command.args(words).env_remove("RUST_LOG");
    command
}

/// Runs it, and says what is wrong with how it ended; else its status.
fn ended(name: &str, words: &[OsString]) -> Result<i32, String> {
    let (status, output, errors) = run(&mut command(name, words), b"");
    let wrong = |what: &str| Err(format!("{name} {words:?}: {what}: {status}, {output:?}, {errors:?}"));
    let Some(code) = status.code() else { return wrong("it was killed") };
    let is_one_line = errors.lines().count() == 1 && !errors.contains(char::is_control) && errors.len() > 10;
    match code {
        0 if !errors.is_empty() => wrong("something was said about a success"),
        0 => Ok(0),
        1 | 2 if !output.is_empty() => wrong("something is on standard output"),
        1 | 2 if !is_one_line => wrong("not one clear line"),
        1 | 2 if errors.contains("panicked") => wrong("a panic"),
        1 if name != "talk" => wrong("nothing was tried that could fail"),
        1 | 2 => Ok(code),
        _ => wrong("no status that it has"),
    }
}

#[test]
fn the_corpus_is_answered_in_one_line_each() {
    let corpus = inputs(include_str!("corpus/words.txt"));
    for input in &corpus {
        let mut words = input.notation.split(' ').map(|word| OsString::from_vec(bytes_of(word)));
        let name = words.next().unwrap();
        let words: Vec<OsString> = words.collect();
        let status = ended(name.to_str().unwrap(), &words).map(|status| status.to_string());
        assert_eq!(status.as_deref(), Ok(input.expected), "{}", input.why);
    }
    figure("B22", true, format!("command lines: {} of the corpus, each answered in one line", corpus.len()));
}

/// A word that is anything but an address of somewhere else.
fn any_word() -> impl Strategy<Value = OsString> {
    let texts = prop_oneof![
        "[-+.0-9a-zA-Zµ \t]{0,12}",
        any::<String>(),
        "--?[a-z-]{0,12}(=[ -~]{0,8})?",
        "\u{1b}\\[[0-9]{1,2}[A-Zm]|[\n\r]{1,3}|[%$`'\"\\\\]{1,4}",
    ];
    let bytes = prop_oneof![4 => texts.prop_map(String::into_bytes), 1 => prop::collection::vec(any::<u8>(), 0..20)];
    bytes.prop_map(|mut bytes| {
        bytes.retain(|byte| ![0, b':'].contains(byte));
        OsString::from_vec(bytes)
    })
}

fn values(known: &'static [&'static str]) -> BoxedStrategy<OsString> {
    let known = select(known).prop_map(OsString::from);
    prop_oneof![3 => known, 1 => any_word()].boxed()
}

const DURATIONS: &[&str] =
    &["1ms", "30s", "0s", "-1s", "365d", "1e9s", "18446744073709551615s", "5", "", "9999999999999999ns", "1s 1s"];
const COUNTS: &[&str] = &["1", "0", "-1", "2", "65535", "65536", "4294967295", "4294967296", "+3", "0x10", "1_000", ""];
const SIZES: &[&str] = &["1", "0", "64KiB", "1GiB", "2GiB", "18446744073709551615", "99EiB", "0.5", "-1KiB", "1e3", ""];
const ADDRESSES: &[&str] = &[
    "127.0.0.1:1",
    "localhost:1",
    "[::1]:1",
    "unix:/nowhere/at/all",
    "unix:",
    "127.0.0.1:65536",
    "127.0.0.1:",
    ":1",
    "::1:1",
    "[]:1",
    "[127.0.0.1]:1",
    "127.0.0.1:-1",
    "127.0.0.1:0",
];

/// The options that take a value, and such values.
fn options(name: &str) -> &'static [(&'static str, &'static [&'static str])] {
    match name {
        "socket-steps" => &[
            ("--listen", ADDRESSES),
            ("-l", ADDRESSES),
            ("--page", ADDRESSES),
            ("--page-host", &["a.example", "a:1", "", "é"]),
            ("--service", &["reply", "echo", "lines", "chat", "Reply", ""]),
            ("--prefix", &["", "\u{1b}[2J", "- ", "안녕", "--"]),
            ("--max-message", SIZES),
            ("--min-workers", COUNTS),
            ("--max-connections", COUNTS),
            ("--when-full", &["refuse", "wait", "never"]),
            ("--per-source", COUNTS),
            ("--idle-timeout", DURATIONS),
            ("--message-timeout", DURATIONS),
            ("--write-timeout", DURATIONS),
            ("--drain", DURATIONS),
            ("--no-page", &["", "yes"]),
        ],
        "check" => &[
            ("--addr", ADDRESSES),
            ("--addr", &["ws://127.0.0.1:1/", "ws://127.0.0.1:1", "ws://", "ws://[::1]:1/#", "wss://127.0.0.1:1/"]),
            ("--port", COUNTS),
            ("--path", &["/chat", "chat", "/ ", "/#", "/é"]),
            ("--until", &["ch04", "ch22", "04", "ch", ""]),
            ("--stage", &["greeting", "greet", ""]),
            ("--seed", COUNTS),
            ("--deadline", DURATIONS),
            ("--limit", COUNTS),
            ("--patience", &["1ms", "10ms", "0s", "2h", ""]),
        ],
        "load" => &[
            ("--addr", ADDRESSES),
            ("--mode", &["pingpong", "stream", "churn", "idle", "Idle", ""]),
            ("--connections", COUNTS),
            ("--seconds", DURATIONS),
            ("--size", SIZES),
            ("--rate", COUNTS),
            ("--prefix", &["", "\u{1b}[2J", "- "]),
            ("--pid", COUNTS),
            ("--warm-up", DURATIONS),
            ("--window", SIZES),
            ("--patience", DURATIONS),
            ("--threads", COUNTS),
            ("--seed", COUNTS),
        ],
        _ => &[("--within", DURATIONS)],
    }
}

/// Words for a program: mostly its own options, and some that are none. What could be valid in all is tried first.
fn command_lines() -> impl Strategy<Value = (&'static str, Vec<OsString>)> {
    select(&PROGRAMS[..]).prop_flat_map(|name| {
        let option =
            select(options(name)).prop_flat_map(|(option, known)| (Just(option), values(known), any::<bool>()));
        let option = option.prop_map(|(option, value, is_one_word)| match is_one_word {
            true => vec![OsString::from_vec([option.as_bytes(), b"=", value.as_bytes()].concat())],
            false => vec![option.into(), value],
        });
        // A command that check starts is none of chance's.
        let spawned =
            ["--spawn=", "--spawn=true", "--spawn=false", "--spawn='", "--spawn=/nowhere/at/all", "--spawn=echo hi"];
        let flags = match name {
            "check" => [&["--list", "--json", "--help", "--"][..], &spawned].concat(),
            "talk" => [&["-h", "--version", "--"][..], ADDRESSES].concat(),
            "load" => vec!["--json", "-h", "--version", "--"],
            _ => vec!["--no-page", "-h", "--version", "--"],
        };
        let flag = select(flags).prop_map(|flag| vec![OsString::from(flag)]);
        let word = any_word().prop_map(|word| vec![word]);
        let items = prop::collection::vec(prop_oneof![8 => option, 2 => flag, 1 => word], 0..5);
        // Whom to talk to, so that there is not always the same to complain about.
        let whom: &[&str] = match name {
            "check" | "load" => &["--addr", "127.0.0.1:1"],
            "talk" => &["127.0.0.1:1"],
            _ => &[],
        };
        (any::<bool>(), items).prop_map(move |(has_whom, items)| {
            // Talk's usual address might be somebody's server.
            let whom = if has_whom || name == "talk" { whom } else { &[] };
            (name, items.concat().into_iter().chain(whom.iter().map(OsString::from)).collect())
        })
    })
}

#[test]
fn any_words_are_answered_in_one_line_or_done() {
    let tries = tries(120, 1000);
    let mut met = [0; 3];
    let counts = std::cell::RefCell::new(&mut met);
    let outcome = TestRunner::new(tries.clone()).run(&command_lines(), |(name, words)| {
        let status = ended(name, &words).map_err(TestCaseError::fail)?;
        counts.borrow_mut()[status as usize] += 1;
        Ok(())
    });
    outcome.unwrap();
    assert!(met[2] > 0, "{met:?}");
    let (cases, seed) = (tries.cases, tries.rng_seed);
    figure(
        "B22",
        true,
        format!("command lines: {cases} thought up; {met:?} ended with 0, 1, 2; 0 failed; seed {seed}"),
    );
}

#[test]
fn a_chapters_program_answers_words_that_it_does_not_know_with_its_usage_line() {
    let bins = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin");
    let names = fs::read_dir(bins).unwrap().map(|entry| entry.unwrap().path().file_stem().unwrap().to_owned());
    let chapters: Vec<String> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with("ch") && name != "check")
        .collect();
    assert!(chapters.len() >= 21);
    let strange = || prop_oneof![any_word(), Just(OsString::from_vec(vec![0xff]))];
    let words = (strange(), prop::collection::vec(strange(), 0..3))
        .prop_filter("a word that it knows", |(first, _)| {
            !["server", "client", "average", "samples", "--seed"].iter().any(|known| first == known)
        });
    let tries = tries(3, 10);
    let for_each_chapter = prop::collection::vec(words, chapters.len());
    let outcome = TestRunner::new(tries.clone()).run(&for_each_chapter, |for_each_chapter| {
        for (name, (first, rest)) in chapters.iter().zip(for_each_chapter) {
            let words: Vec<OsString> = std::iter::once(first).chain(rest).collect();
            let (status, output, errors) = run(Command::new(file(name)).args(&words).env_remove("RUST_LOG"), b"");
            let is_usage = errors.starts_with(&format!("usage: {name}")) && errors.lines().count() == 1;
            prop_assert!(
                status.code() == Some(2) && output.is_empty() && is_usage,
                "{:?}: {} {}",
                words,
                status,
                errors
            );
        }
        Ok(())
    });
    outcome.unwrap();
    let (count, cases, seed) = (chapters.len(), tries.cases, tries.rng_seed);
    figure(
        "B22",
        true,
        format!("command lines: {count} chapters, {cases} times words that they do not know; seed {seed}"),
    );
}

/// What load accepts it also does, however strange it is.
#[test]
fn whatever_load_accepts_it_measures() {
    let server = Server::start(&["--service", "echo"]);
    let modes = select(&["pingpong", "stream", "churn", "idle"][..]);
    let sizes = select(&["1", "2", "15", "16", "17", "18", "64KiB", "1MiB"][..]);
    let windows = select(&["1", "64", "1MiB", "1GiB"][..]);
    let rates = prop::option::of(select(&["1", "1000", "10000000"][..]));
    let places = (1..9_u32, 1..256_u32, any::<u64>());
    let times = select(&["1ns", "1us", "10ms"][..]);
    let plans = (modes, sizes, windows, rates, places, (times.clone(), times));
    let tries = tries(5, 30);
    let outcome =
        TestRunner::new(tries.clone()).run(&plans, |(mode, size, window, rate, places, (seconds, warm_up))| {
            let (connections, threads, seed) = places;
            let numbers = [connections.to_string(), threads.to_string(), seed.to_string()];
            let mut words =
                vec!["--addr", server.address(), "--mode", mode, "--size", size, "--window", window, "--json"];
            words.extend(["--connections", &numbers[0], "--threads", &numbers[1], "--seed", &numbers[2]]);
            words.extend(["--seconds", seconds, "--warm-up", warm_up]);
            words.extend(rate.iter().flat_map(|rate| ["--rate", rate]));
            let (status, output, errors) = run(Command::new(file("load")).args(&words), b"");
            prop_assert!(status.code() == Some(0) && errors.is_empty(), "{:?}: {} {}", words, status, errors);
            let report: serde_json::Value =
                serde_json::from_str(&output).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert!(report.is_object(), "{}", output);
            Ok(())
        });
    outcome.unwrap();
    assert!(server.stop().status.success());
    let (cases, seed) = (tries.cases, tries.rng_seed);
    figure("B22", true, format!("load: {cases} plans, as strange as it accepts, all measured; seed {seed}"));
}

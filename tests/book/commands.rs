//! From the command that a page shows to the one that is run: the built program instead of `cargo run`.

use std::path::Path;
use std::sync::LazyLock;

use regex_lite::{Captures, Regex};

use crate::markdown::pattern;

/// What a program does without an address: (its name, its first word, unless a word contains one of these, added).
const DEFAULTS: &[(&str, &str, &[&str], &str)] = &[
    ("ch15_ipc", "server", &[":"], "unix:/tmp/ch15_ipc.sock"),
    ("ch15_ipc", "client", &[":"], "unix:/tmp/ch15_ipc.sock"),
    ("ch", "server", &[":"], "127.0.0.1:8080"),
    ("ch", "client", &[":"], "127.0.0.1:8080"),
    ("talk", "", &[":", "--help", "--version"], "127.0.0.1:8080"),
    // Its messages are random, and a page has one of each.
    ("check", "", &["--seed", "--list", "--help"], "--seed 1"),
    ("socket-steps", "", &["--listen", "-l", "--help", "--version"], "--listen 127.0.0.1:8080"),
    // Many are run at once, and the port of the live page is one.
    ("socket-steps", "", &["--page", "--no-page", "--help", "--version"], "--no-page"),
];

/// Programs that listen: (name, first word).
const SERVERS: &[(&str, &str)] = &[("ch", "server"), ("socket-steps", "")];

/// A command with the programs' names in it.
#[derive(Debug, PartialEq)]
pub(crate) struct Command {
    pub(crate) text: String,
    /// It listens, until Ctrl-C.
    pub(crate) is_server: bool,
    /// It starts a server beside its other commands: in the background (`&`), or in front of them (`| {`).
    pub(crate) starts_server: bool,
    /// Commands in quotes, for a program to start: as they are run, and as the page has them.
    pub(crate) quoted: Vec<(String, String)>,
}

impl Command {
    /// Replaces each `cargo run`, the last one first: it may be quoted in the words of another.
    pub(crate) fn parse(shown: &str, programs: &Path) -> Result<Command, String> {
        let mut command =
            Command { text: shown.to_owned(), is_server: false, starts_server: false, quoted: Vec::new() };
        while let Some(at) = command.text.rfind(CARGO_RUN) {
            let rest = &command.text[at + CARGO_RUN.len()..];
            let quote = command.text[..at].chars().next_back().filter(|last| "'\"".contains(*last));
            let length = end_of_command(rest, quote);
            let run = Run::parse(&rest[..length])?;
            if !programs.join(run.program).is_file() {
                return Err(format!("no program is called {}", run.program));
            }
            let is_server = run.is_one_of(SERVERS);
            // A server that another program starts listens where it likes.
            let address = if quote.is_some() && is_server { "127.0.0.1:0" } else { "127.0.0.1:8080" };
            let text = run.with_defaults(address);
            let in_background = goes_on(&rest[length..]);
            command.starts_server |= is_server && quote.is_none() && in_background;
            command.is_server |= is_server && quote.is_none() && !in_background;
            if quote.is_some() {
                command.quoted.push((text.clone(), format!("{CARGO_RUN}{}", &rest[..length])));
            }
            command.text.replace_range(at..at + CARGO_RUN.len() + length, &text);
        }
        command.start_python();
        // What else would listen meets the one that does already.
        command.is_server &= !command.starts_server;
        Ok(command)
    }

    /// A server in Python takes its address as its first word. One that another program starts listens where it
    /// likes.
    fn start_python(&mut self) {
        static SERVER: LazyLock<Regex> =
            LazyLock::new(|| pattern(r#"(['"]?)(python3 tutorial/starters/\S+\.py)( [\w.]+:\d+)?"#));
        let text = self.text.clone();
        let started = SERVER.replace_all(&text, |found: &Captures<'_>| {
            let (quote, server) = (&found[1], &found[2]);
            let address = found.get(3).map_or("", |address| address.as_str());
            if quote.is_empty() {
                self.is_server = true;
                return format!("{server}{}", if address.is_empty() { " 127.0.0.1:8080" } else { address });
            }
            let run = format!("{server} 127.0.0.1:0");
            self.quoted.push((run.clone(), format!("{server}{address}")));
            format!("{quote}{run}")
        });
        self.text = started.into_owned();
    }
}

const CARGO_RUN: &str = "cargo run";

/// `cargo run`, taken apart.
struct Run<'a> {
    program: &'a str,
    words: &'a str,
    /// What follows the words: spaces.
    after: &'a str,
}

impl<'a> Run<'a> {
    fn parse(text: &'a str) -> Result<Run<'a>, String> {
        let (flags, words) = text.split_once(" -- ").unwrap_or((text, ""));
        let mut program = "socket-steps";
        let mut flags = flags.split_whitespace();
        while let Some(flag) = flags.next() {
            match flag {
                "-q" | "--quiet" | "--release" | "--" => {}
                "--bin" => program = flags.next().ok_or("--bin lacks its name")?,
                _ => return Err(format!("`cargo run {flag}` is not known here")),
            }
        }
        Ok(Run { program, words: words.trim(), after: &text[text.trim_end().len()..] })
    }

    fn is_one_of(&self, programs: &[(&str, &str)]) -> bool {
        programs.iter().any(|&(program, first)| self.is(program, first))
    }

    fn is(&self, program: &str, first: &str) -> bool {
        let named = if program == "ch" { self.program.starts_with("ch") } else { self.program == program };
        let chapter = program != "ch" || self.program[2..].starts_with(|c: char| c.is_ascii_digit());
        named && chapter && (first.is_empty() || self.words.split_whitespace().next() == Some(first))
    }

    fn with_defaults(&self, address: &str) -> String {
        let mut text = self.program.to_owned();
        if !self.words.is_empty() {
            text = text + " " + self.words;
        }
        for (program, first, unless, added) in DEFAULTS {
            if self.is(program, first) && !unless.iter().any(|part| text.contains(part)) {
                text = text + " " + &added.replace("127.0.0.1:8080", address);
            }
        }
        text + self.after
    }
}

/// Gives a command more time than the page does, so that a busy machine can do what a reader's does: what is
/// silent stays so until its section ends, and a program that is ended by `timeout` gets three times as long.
pub(crate) fn patiently(command: &str, is_silent: bool) -> String {
    static TIMEOUT: LazyLock<Regex> = LazyLock::new(|| pattern(r"\btimeout (\d+) "));
    static SILENCE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^sleep \d+ \|"));
    let seconds = |found: &Captures<'_>| found[1].parse::<u32>().unwrap() * 3;
    let command = TIMEOUT.replace_all(command, |found: &Captures<'_>| format!("timeout {} ", seconds(found)));
    if is_silent { SILENCE.replace(&command, "sleep 600 |").into_owned() } else { command.into_owned() }
}

/// Whether the shell starts other commands while the simple command that this follows is running.
fn goes_on(rest: &str) -> bool {
    static BESIDE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(?:\d?>\S+ *)*(?:&(?:[^&]|$)|\| *\{)"));
    BESIDE.is_match(rest)
}

/// Where the simple command at the beginning of this text ends.
fn end_of_command(text: &str, quoted: Option<char>) -> usize {
    let mut open: Option<char> = None;
    for (at, c) in text.char_indices() {
        match (open, c) {
            (None, _) if quoted == Some(c) => return at,
            (None, '\'' | '"') => open = Some(c),
            (Some(quote), _) if quote == c => open = None,
            (None, '|' | ';' | '&' | ')' | '<' | '>' | '\n') => return at,
            // The 2 of `2>&1`.
            (None, '0'..='9') if text[at + 1..].starts_with('>') && text[..at].ends_with(' ') => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(shown: &str) -> String {
        let programs = crate::programs();
        Command::parse(shown, &programs).unwrap().text
    }

    #[test]
    fn cargo_run_is_the_built_program_with_the_address_that_the_page_means() {
        for (shown, run) in [
            ("cargo run", "socket-steps --listen 127.0.0.1:8080 --no-page"),
            ("cargo run -- --service lines", "socket-steps --service lines --listen 127.0.0.1:8080 --no-page"),
            ("cargo run -q --bin ch04_reply", "ch04_reply"),
            ("cargo run -q --bin ch04_reply -- server", "ch04_reply server 127.0.0.1:8080"),
            ("cargo run --bin ch04_reply -- server 127.0.0.1:9000", "ch04_reply server 127.0.0.1:9000"),
            ("cargo run --bin ch07_pool -- server --limit 2", "ch07_pool server --limit 2 127.0.0.1:8080"),
            ("cargo run --bin ch15_ipc -- server", "ch15_ipc server unix:/tmp/ch15_ipc.sock"),
            ("echo a | cargo run -q --bin talk | head -1", "echo a | talk 127.0.0.1:8080 | head -1"),
            ("sleep 1 | cargo run -q --bin talk -- [::1]:8080 2>&1", "sleep 1 | talk [::1]:8080 2>&1"),
            ("cargo run -q --bin load -- --seconds 1", "load --seconds 1"),
            ("cargo run --bin ch04_reply -- server 2>/dev/null", "ch04_reply server 127.0.0.1:8080 2>/dev/null"),
            ("x --spawn 'cargo run -q --bin ch04_reply -- server' -y", "x --spawn 'ch04_reply server 127.0.0.1:0' -y"),
            (
                "cargo run --bin ch04_reply -- x 'cargo run --bin ch07_pool -- server --limit 2' | head",
                "ch04_reply x 'ch07_pool server --limit 2 127.0.0.1:0' | head",
            ),
            ("python3 tutorial/starters/a.py", "python3 tutorial/starters/a.py 127.0.0.1:8080"),
            ("x 'python3 tutorial/starters/a.py' -y", "x 'python3 tutorial/starters/a.py 127.0.0.1:0' -y"),
            (
                "x 'python3 tutorial/starters/a.py 127.0.0.1:8080 16'",
                "x 'python3 tutorial/starters/a.py 127.0.0.1:0 16'",
            ),
        ] {
            assert_eq!(parsed(shown), run);
        }
        let programs = crate::programs();
        assert!(Command::parse("cargo run --bin nothing", &programs).is_err());
        assert!(Command::parse("cargo run --bin ch04_reply -- server", &programs).unwrap().is_server);
        assert!(!Command::parse("cargo run --bin ch04_reply -- client", &programs).unwrap().is_server);
        assert!(Command::parse("python3 tutorial/starters/a.py", &programs).unwrap().is_server);
        let in_background =
            Command::parse("(a=b cargo run -- -l [::1]:80 2>&1 & sleep 1; cargo run)", &programs).unwrap();
        assert!(in_background.starts_server && !in_background.is_server);
        assert!(!Command::parse("cargo run 2>&1 && true", &programs).unwrap().starts_server);
        let quoted = Command::parse("x 'python3 tutorial/starters/a.py 127.0.0.1:8080'", &programs).unwrap();
        assert!(!quoted.is_server);
        let (run, shown) = &quoted.quoted[0];
        assert_eq!(run, "python3 tutorial/starters/a.py 127.0.0.1:0");
        assert_eq!(shown, "python3 tutorial/starters/a.py 127.0.0.1:8080");
    }

    #[test]
    fn a_busy_machine_has_time() {
        assert_eq!(patiently("sleep 4 | talk", true), "sleep 600 | talk");
        assert_eq!(patiently("sleep 1; echo a | timeout 1 talk", false), "sleep 1; echo a | timeout 3 talk");
    }
}

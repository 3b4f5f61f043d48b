//! `check` judges a server, in whatever language it is written: it connects to it as a client, stage by
//! stage, and explains what went wrong, and which chapter of the book tells more.
//!
//! It shares no code with the server kit: a bug in both would be seen by neither.

mod diagnose;
mod ear;
mod exchange;
mod frames;
mod handshake;
mod judge;
mod kernel;
mod manner;
mod matcher;
#[cfg_attr(not(target_os = "linux"), path = "peer_unknown.rs")]
mod peer;
mod probe;
mod random;
mod replies;
mod report;
mod show;
mod spawned;
mod stages;
mod story;
mod target;
mod trouble;
mod websocket;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{CommandFactory, Parser};

use handshake::UrlPath;
use judge::{Judge, Target};
use stages::{Chapter, Need, Stage};
use target::Written;

/// Judges any server, in any language, stage by stage, and explains what went wrong.
///
/// The server answers each line with that line; a constant text may stand in front of it. Either it runs
/// already (--addr), or check starts it, may signal it, and ends it (--spawn): that allows more stages. A server
/// of WebSocket is asked for that instead: what comes back to whom is for it to choose.
#[derive(Parser)]
#[command(name = "check", version, after_help = AFTER_HELP)]
struct Options {
    /// The server that runs already: HOST:PORT, unix:PATH, or its WebSocket at ws://HOST:PORT/PATH
    #[arg(long, value_name = "ADDR", conflicts_with = "spawn")]
    addr: Option<Written>,

    /// Start this command, in quotes, and judge it; it prints `listening on HOST:PORT`
    #[arg(long, value_name = "COMMAND")]
    spawn: Option<String>,

    /// With --spawn: the port that the command listens on, if it does not print it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// With --spawn: judge its WebSocket, which it has at this path, such as /chat
    #[arg(long, value_name = "PATH", value_parser = url_path)]
    path: Option<UrlPath>,

    /// Only the stages up to this chapter, such as ch07 or ch07_pool
    #[arg(long, value_name = "CHAPTER", value_parser = chapter)]
    until: Option<Chapter>,

    /// Only this stage; may be repeated
    #[arg(long, value_name = "NAME", value_parser = stage_name)]
    stage: Vec<String>,

    /// Show the stages: their chapters, names and requirements
    #[arg(long)]
    list: bool,

    /// One JSON object instead of the text
    #[arg(long)]
    json: bool,

    /// What is sent depends on it; shown in every report [default: a new one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// The server's idle and message deadline, such as 1s
    #[arg(long, value_name = "D", value_parser = duration)]
    deadline: Option<Duration>,

    /// How many clients at once the server says that it takes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    limit: Option<u16>,

    /// How long the server may take for an answer
    #[arg(long, value_name = "D", value_parser = duration, default_value = "3s")]
    patience: Duration,
}

const AFTER_HELP: &str = "\
Durations have a unit: 500ms, 1s.

Examples:
  check --addr 127.0.0.1:8080
  check --spawn 'python3 server.py 127.0.0.1:0'
  check --spawn 'node server.js' --port 8080 --until ch05
  check --spawn './server --limit 8 --deadline 1s' --limit 8 --deadline 1s
  check --addr ws://127.0.0.1:8081/chat
  check --spawn 'node chat.js' --port 8080 --path /chat

Exit status: 0 no stage failed; 1 some did; 2 wrong usage, or nothing to connect to.";

fn chapter(name: &str) -> Result<Chapter, String> {
    Chapter::named(name).ok_or_else(|| "not a chapter; write ch04, or ch04_reply (--list shows them)".to_owned())
}

fn url_path(text: &str) -> Result<UrlPath, String> {
    text.parse()
}

fn stage_name(name: &str) -> Result<String, String> {
    if stages::all().any(|stage| stage.name == name) {
        return Ok(name.to_owned());
    }
    let near = stages::all().find(|stage| stage.name.contains(name) || name.contains(stage.name));
    let near = near.map_or(String::new(), |stage| format!("; is it {}?", stage.name));
    Err(format!("no such stage{near} --list shows them").replace("stage --", "stage; --"))
}

fn duration(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(60 * 60);
    // One number and its unit at a time: humantime 2.4 adds several up, and panics where the sum is beyond a Duration.
    let mut before = ' ';
    let begins = |character: char| {
        let begins = character.is_ascii_digit() && before.is_alphabetic();
        before = if character.is_whitespace() { before } else { character };
        begins
    };
    let starts: Vec<usize> = text.match_indices(begins).map(|(at, _)| at).collect();
    let ends = starts.iter().copied().chain([text.len()]);
    let mut parts =
        [0].iter().chain(&starts).zip(ends).map(|(start, end)| humantime::parse_duration(&text[*start..end]));
    let sum = parts.try_fold(Duration::ZERO, |sum, part| part.ok().and_then(|part| sum.checked_add(part)));
    match sum {
        Some(duration) if !duration.is_zero() && duration <= LONGEST => Ok(duration),
        _ => Err("write a number and its unit, from 1ms to 1h, such as 500ms or 1s".to_owned()),
    }
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => return refuse(&one_line(&error.to_string())),
    };
    // Ctrl-C on check must not leave a server behind. Without a handler it would; so a failure is no detail.
    if let Err(error) = ctrlc::set_handler(|| spawned::end_for_good()) {
        return refuse(&format!("cannot wait for signals: {error}"));
    }
    match run(&options) {
        Ok(code) => code,
        Err(line) => refuse(&line),
    }
}

/// One line on standard error, status 2. A newline that came in with a path, or an escape code, is shown and does
/// nothing.
fn refuse(line: &str) -> ExitCode {
    let shown = |character: char| match character.is_control() {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    };
    let line: String = line.chars().map(shown).collect();
    let _ = writeln!(io::stderr(), "check: {line}");
    ExitCode::from(2)
}

/// Clap explains over several lines; the usage line names every option, and is a `--help` away.
fn one_line(explanation: &str) -> String {
    let lines = explanation.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let line = lines.map(|line| line.trim_start_matches("error: ")).collect::<Vec<_>>().join("; ");
    format!("{line} (--help lists the options)")
}

fn run(options: &Options) -> Result<ExitCode, String> {
    let is_websocket = options.is_websocket();
    let stages: Vec<&'static Stage> = stages::all()
        .filter(|stage| stage.needs.contains(&Need::WebSocket) || !is_websocket || !options.stage.is_empty())
        .filter(|stage| options.until.is_none_or(|until| stage.chapter <= until))
        .filter(|stage| options.stage.is_empty() || options.stage.iter().any(|name| name == stage.name))
        .collect();
    if stages.is_empty() {
        return Err("no stage is left with these options; --list shows the stages".to_owned());
    }
    let mut out = io::stdout().lock();
    if options.list {
        // A closed pipe is the reader's choice.
        let _ = if options.json { report::list_json(&mut out, &stages) } else { report::list(&mut out, &stages) };
        return Ok(ExitCode::SUCCESS);
    }
    let target = options.target()?;
    let seed = options.seed.unwrap_or_else(new_seed);
    let limit = options.limit.map(usize::from);
    let mut judge = Judge::new(target, seed, limit, options.deadline, options.patience);
    judge.start()?;

    let again = options.to_repeat(seed);
    let mut report = report::Report::new(options.json, judge.address(), seed, again);
    report.begin(&mut out);
    judge.run(&stages, &mut |result| report.stage(&mut out, result));
    Ok(match report.end(&mut out) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Short enough to be typed.
fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos() ^ std::process::id().rotate_left(16)) % 100_000
}

impl Options {
    fn is_websocket(&self) -> bool {
        self.path.is_some() || matches!(self.addr, Some(Written::WebSocket { .. }))
    }

    fn target(&self) -> Result<Target, String> {
        if let Some(address) = &self.addr {
            if self.port.is_some() {
                return Err("--port is for a server that check starts, with --spawn".to_owned());
            }
            if self.path.is_some() {
                return Err("--path goes with --spawn; with --addr, write ws://HOST:PORT/PATH".to_owned());
            }
            return Ok(Target::Running(address.clone()));
        }
        let Some(command) = &self.spawn else {
            let name = Options::command().get_name().to_owned();
            return Err(format!("nothing to judge; say {name} --addr HOST:PORT, or {name} --spawn 'COMMAND'"));
        };
        let words = shell_words::split(command).map_err(|_| format!("a quote is not closed in {command:?}"))?;
        if words.is_empty() {
            return Err("the command to --spawn is empty".to_owned());
        }
        Ok(Target::Command { words, port: self.port, path: self.path.clone() })
    }

    /// The command that repeats a stage with what was sent this time.
    fn to_repeat(&self, seed: u64) -> String {
        let mut words = vec!["check".to_owned()];
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                words.push(name.to_owned());
                words.push(shell_words::quote(&value).into_owned());
            }
        };
        add("--addr", self.addr.as_ref().map(ToString::to_string));
        add("--spawn", self.spawn.clone());
        add("--port", self.port.map(|port| port.to_string()));
        add("--path", self.path.as_ref().map(ToString::to_string));
        add("--limit", self.limit.map(|limit| limit.to_string()));
        add("--deadline", self.deadline.map(|deadline| humantime::format_duration(deadline).to_string()));
        add("--seed", Some(seed.to_string()));
        words.join(" ")
    }
}

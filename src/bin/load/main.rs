//! `load` measures a server, in whatever language it is written: how many messages or connections a second, how
//! long an answer takes, what a message costs the server, and what a connection does.
//!
//! It knows every byte of every answer beforehand, and compares them all: a rate of wrong answers is worth nothing.

mod connection;
mod control;
mod driver;
mod failure;
mod figures;
mod messages;
mod plan;
mod process;
mod progress;
mod report;
mod results;
mod run;
mod tally;
mod target;
#[cfg_attr(not(target_os = "linux"), path = "timer_unknown.rs")]
mod timer;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use socket_steps::addr::plain;
use socket_steps::limits;
use socket_steps::options::{self, count, duration, size};
use socket2::Socket;

use control::Control;
use messages::Messages;
use plan::{Mode, Plan};
use run::{Look, Outcome};
use target::Target;

/// Measures any server that sends back what it receives.
///
/// Each connection sends messages of text that end with a newline, and that tell connections and messages apart;
/// everything that comes back is compared, byte by byte. A constant text may stand in front of each answer
/// (--prefix).
#[derive(Parser)]
#[command(name = "load", version, after_help = AFTER_HELP)]
struct Options {
    /// The server: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    addr: String,

    /// What the connections do
    #[arg(long, value_enum, default_value_t = Mode::Pingpong)]
    mode: Mode,

    // Values may begin with a hyphen, here and below: `-5` is a wrong number, not an unknown option.
    /// How many connections at once
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true, default_value = "1")]
    connections: usize,

    /// How long to measure; with another unit: 500ms, 2m
    #[arg(long, value_name = "S", value_parser = seconds, allow_hyphen_values = true, default_value = "5")]
    seconds: Duration,

    /// How large a message is, its newline included [default: 64, in a stream 64KiB]
    #[arg(long, value_name = "BYTES", value_parser = size, allow_hyphen_values = true)]
    size: Option<usize>,

    /// Messages (churn: connections) a second, all connections together, sent when they are due
    /// [default: each as soon as the answer before is there; idle: 100]
    #[arg(long, value_name = "R", value_parser = rate, allow_hyphen_values = true)]
    rate: Option<usize>,

    /// What the server puts in front of each answer
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, default_value = "", hide_default_value = true)]
    prefix: String,

    /// The server's process on this machine: what it uses is looked up
    #[arg(long, value_name = "PID", value_parser = count, allow_hyphen_values = true)]
    pid: Option<usize>,

    /// One JSON object instead of the text
    #[arg(long)]
    json: bool,

    /// What is sent before anything counts [default: a tenth of the seconds, at most 1s]
    #[arg(long, value_name = "D", value_parser = duration, allow_hyphen_values = true)]
    warm_up: Option<Duration>,

    /// In a stream: how many bytes of a connection may be on their way, in 2 to 1024 messages
    #[arg(long, value_name = "BYTES", value_parser = size, allow_hyphen_values = true, default_value = "1MiB")]
    window: usize,

    /// How long an answer may take before it is given up
    #[arg(long, value_name = "D", value_parser = duration, allow_hyphen_values = true, default_value = "10s")]
    patience: Duration,

    /// Threads of load's own [default: half of the processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), allow_hyphen_values = true)]
    threads: Option<u16>,

    /// What is sent depends on it
    #[arg(long, value_name = "N", allow_hyphen_values = true, default_value_t = 1)]
    seed: u64,
}

const AFTER_HELP: &str = "\
Durations have a unit: 500ms, 30s, 2m. Sizes may have one: 64, 64KiB.

Without --rate the loop is closed: a connection sends when it has its answer, so a server
that stalls is asked less, and looks better than it is. With --rate each message has a moment
at which it is due, and its latency counts from there, whenever it could be sent.

With --json, a key names its unit: _s is seconds, _us microseconds, busy a share of one; rate is
a second, size in bytes, all else a count. What is not known, or would say nothing, is null.

Examples:
  load --addr localhost:8080 --connections 16 --prefix '서버 응답: '
  load --addr localhost:8080 --connections 100 --rate 5000 --seconds 30
  load --addr localhost:8080 --mode stream --connections 8
  load --addr localhost:8080 --mode churn --connections 64
  load --addr unix:/tmp/steps.sock --mode idle --connections 10000 --pid 4711

Exit status: 0 every answer was right; 1 some were not, or did not come, or the results cannot
be written; 2 wrong usage, or nothing to connect to; 130 interrupted, after what was measured
so far.";

/// The option is named after a unit, so a mere number has one.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.trim().parse::<f64>() {
        Ok(_) => duration(&format!("{}s", text.trim())),
        Err(_) => duration(text),
    }
}

/// More than one machine can send: only a mistake in typing would be measured.
fn rate(text: &str) -> Result<usize, String> {
    match count(text)? {
        rate @ ..=10_000_000 => Ok(rate),
        _ => Err("far too many; write a whole number up to 10000000".to_owned()),
    }
}

fn main() -> ExitCode {
    let options: Options = options::parse_or_exit();
    if let Err(error) = limits::raise_descriptors() {
        give_up(&format!("cannot raise the limit of descriptors: {}", plain(&error)));
    }
    // Looked at before the first connection: what comes later is the connections'.
    let server = options.pid.map(|pid| match Look::at(&pid.to_string()) {
        Some(look) => (pid as u32, look),
        None => give_up(&format!("there is no process {pid} to look at")),
    });
    let (plan, first) = options.plan().unwrap_or_else(|line| give_up(&line));
    let control = Arc::new(Control::new());
    let waiting = Arc::clone(&control);
    let on_signal = move || {
        if !waiting.interrupt() {
            std::process::exit(130);
        }
    };
    if let Err(error) = ctrlc::set_handler(on_signal) {
        give_up(&format!("cannot wait for signals: {error}"));
    }
    let outcome = run::run(&plan, &control, first, server).unwrap_or_else(|line| give_up(&line));
    match show(&options, &plan, &outcome) {
        // A closed pipe is the reader's choice.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            options::exit_with(1, &format!("load: cannot write the results: {}", plain(&error)));
        }
        _ => {}
    }
    if outcome.is_interrupted {
        ExitCode::from(130)
    } else if outcome.tally.failures.total() > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn show(options: &Options, plan: &Plan, outcome: &Outcome) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match options.json {
        true => writeln!(out, "{}", results::json(plan, outcome))?,
        false => report::write(&mut out, plan, outcome)?,
    }
    out.flush()
}

fn give_up(why: &str) -> ! {
    options::exit_with(2, &format!("load: {why}"))
}

impl Options {
    /// What is to be done, and the first connection; one line if that cannot be done.
    fn plan(&self) -> Result<(Plan, Socket), String> {
        let size = self.size.unwrap_or(if self.mode == Mode::Stream { 64 * 1024 } else { 64 });
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.map_or((processors / 2).max(1), usize::from).min(self.connections);
        let rate = match self.mode {
            Mode::Idle => Some(self.rate.unwrap_or(100)),
            _ => self.rate,
        };
        let (mut target, first) = Target::find(&self.addr, self.patience)?;
        target.reserve(self.connections, threads, self.mode == Mode::Churn)?;
        // They may take a while to make, and a gigabyte: only once it is clear that there is something to measure.
        let messages = Messages::new(size, &self.prefix, self.seed);
        let plan = Plan {
            mode: self.mode,
            target,
            messages,
            seed: self.seed,
            connections: self.connections,
            threads,
            // With one, nothing would be on its way while the answer is; with too many, all would stand in a queue.
            window: if self.mode == Mode::Stream { (self.window / size).clamp(2, 1024) as u64 } else { 1 },
            rate: rate.map(|rate| rate as f64),
            warm_up: self.warm_up.unwrap_or((self.seconds / 10).min(Duration::from_secs(1))),
            seconds: self.seconds,
            patience: self.patience,
        };
        Ok((plan, first))
    }
}

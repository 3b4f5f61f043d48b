//! The finished server: the kit at work, with a command line, a log, and exit statuses.

use std::io::{self, IsTerminal};
use std::panic;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::builder::{OsStr, Resettable};
use clap::{Parser, ValueEnum};
use socket_steps::deadline::Timeouts;
use socket_steps::limits::{self, Limit};
use socket_steps::options::{self, count, duration, size};
use socket_steps::output::Output;
use socket_steps::room::Room;
use socket_steps::server::{Config, Server, Summary, WhenFull};
use socket_steps::services;
use socket_steps::web::page::{self, Page};
use socket_steps::web::websocket::Limits;

/// How long the last lines may take to be written, when nobody reads them. Not shorter: when somebody does, a
/// machine that stands still for a moment must not cost them the accounts.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A server that answers every client, each on a thread of its own.
///
/// Without options it listens on port 8080 of this machine, where nobody else can reach it. Each piece of text
/// is answered with `서버 응답: ` and the piece; a client that is silent for 30 seconds is let go. Talk to it in
/// a second terminal, with `cargo run --bin talk`; stop it with Ctrl-C.
#[derive(Parser)]
#[command(name = "socket-steps", version, after_help = AFTER_HELP)]
struct Options {
    /// Where to listen: HOST:PORT (every address of the name) or unix:PATH; may be repeated
    #[arg(short, long, value_name = "ADDR", default_value = "localhost:8080")]
    listen: Vec<String>,

    /// What the clients are offered
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Service::Reply)]
    service: Service,

    // No default of clap's: what is not asked for is left out where it cannot be had.
    #[arg(long, value_name = "ADDR", help_heading = PAGE)]
    #[arg(help = format!("Where a browser finds the live page: HOST:PORT [default: {USUAL_PAGE}]"))]
    page: Option<String>,

    /// Without the live page
    #[arg(long, conflicts_with_all = ["page", "page_host"], help_heading = PAGE)]
    no_page: bool,

    /// A name by which browsers may ask for the page, besides localhost and IP addresses; may be repeated
    #[arg(long, value_name = "NAME", value_parser = host_name, help_heading = PAGE)]
    page_host: Vec<String>,

    // Values may begin with a hyphen, here and below: `-5s` is to be refused as a wrong duration, not as an
    // unknown option.
    /// What `reply` and `lines` put in front of each answer
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, default_value = "서버 응답: ")]
    prefix: String,

    /// How long a line may be, its newline not counted
    #[arg(long, value_name = "BYTES", value_parser = size, allow_hyphen_values = true, default_value = "64KiB")]
    max_message: usize,

    // No default of clap's for these two: what is not asked for is lowered to fit this machine.
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true, help_heading = PLACES)]
    #[arg(help = format!("Threads kept ready [default: {}]", Config::default().min_workers))]
    min_workers: Option<usize>,

    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true, help_heading = PLACES)]
    #[arg(help = format!(
        "Connections at most; each has a thread of its own [default: {}]",
        Config::default().max_connections
    ))]
    max_connections: Option<usize>,

    /// What happens to one client too many
    #[arg(long, value_name = "POLICY", value_enum, default_value_t, help_heading = PLACES)]
    when_full: WhenFull,

    /// Connections from one address at most [default: no limit]
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true, help_heading = PLACES)]
    per_source: Option<usize>,

    /// How long a client may be silent between two messages
    #[arg(long, value_name = "D", value_parser = duration, allow_hyphen_values = true)]
    #[arg(default_value = usual(Timeouts::default().idle), help_heading = DEADLINES)]
    idle_timeout: Duration,

    /// How long a message may take from its first byte to its last
    #[arg(long, value_name = "D", value_parser = duration, allow_hyphen_values = true)]
    #[arg(default_value = usual(Timeouts::default().message), help_heading = DEADLINES)]
    message_timeout: Duration,

    /// How long a client may take to accept a whole answer
    #[arg(long, value_name = "D", value_parser = duration, allow_hyphen_values = true)]
    #[arg(default_value = usual(Timeouts::default().write), help_heading = DEADLINES)]
    write_timeout: Duration,

    /// How long connections may take to end after Ctrl-C
    #[arg(long, value_name = "D", value_parser = duration, allow_hyphen_values = true)]
    #[arg(default_value = usual(Some(Config::default().drain)), help_heading = DEADLINES)]
    drain: Duration,
}

/// Where the live page is, unless it is asked for elsewhere.
const USUAL_PAGE: &str = "127.0.0.1:8081";

/// The headings of the help.
const PAGE: &str = "The live page";
const PLACES: &str = "Places";
const DEADLINES: &str = "Deadlines";

const AFTER_HELP: &str = "\
Durations have a unit: 500ms, 30s, 2m. Sizes may have one: 4096, 64KiB.

Examples:
  socket-steps --listen 0.0.0.0:8080                    for other machines, too
  socket-steps --listen unix:/tmp/steps.sock            on a path instead of a port
  socket-steps --service lines --idle-timeout 5m        an answer for each line; more patience
  socket-steps --service chat                           a room for everyone, on the page, too
  socket-steps --max-connections 8 --when-full wait     the ninth client waits until one leaves

The log goes to standard error; RUST_LOG=debug shows more of it, RUST_LOG=warn less.

Exit status: 0 stopped (Ctrl-C, SIGTERM, SIGHUP); 1 something did not end, or accepting failed;
2 wrong usage, or cannot listen; 130 at a second Ctrl-C, at once.";

#[derive(Clone, Copy, ValueEnum)]
enum Service {
    /// Answers each piece of text, as it arrives, with the prefix and the piece
    Reply,
    /// Sends back the same bytes
    Echo,
    /// Answers each line with the prefix and the line
    Lines,
    /// Says each line to everyone else; the live page is in the same room
    Chat,
}

/// A name as browsers send it, but for the port, which may be any.
fn host_name(text: &str) -> Result<String, String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match !text.is_empty() && text.bytes().all(is_name) {
        true => Ok(text.to_owned()),
        false => Err("not a name; write it without a port, such as steps.example".to_owned()),
    }
}

/// A default of the kit's, as it would be written on the command line.
fn usual(limit: Option<Duration>) -> Resettable<OsStr> {
    limit.map(|limit| humantime::format_duration(limit).to_string().into()).into()
}

fn main() -> ExitCode {
    let options: Options = options::parse_or_exit();
    #[cfg(target_os = "linux")]
    keep_ignoring_hang_ups();
    let (output, log) = match start_output() {
        Ok(outputs) => outputs,
        Err(error) => give_up(&format!("cannot start a thread: {error}")),
    };
    if let Err(error) = limits::raise_descriptors() {
        log::warn!("cannot raise the limit of descriptors: {error}");
    }
    let machine = limits::tightest();
    let has_room_for_page = machine.connections > 2 * page::SHARE;
    let most = options.share_of(machine, has_room_for_page);
    let config = options.config(&most);
    let wanted = options.max_connections.unwrap_or(Config::default().max_connections);
    let is_lowered = config.max_connections < wanted;
    let server = match Server::bind(&options.listen, config) {
        Ok(server) => server,
        Err(error) => {
            log.flush(LAST_WORDS);
            give_up(&error.to_string())
        }
    };
    let page = match options.bind_page(has_room_for_page) {
        Ok(page) => page,
        Err(error) => {
            log.flush(LAST_WORDS);
            give_up(&error.to_string())
        }
    };
    if is_lowered {
        log::warn!("{most}; the default would be {wanted}");
    }
    if let Err(error) = stop_on_signals(&server) {
        give_up(&format!("cannot wait for signals: {error}"));
    }
    for address in server.local_addrs() {
        output.line(&format!("listening on {address}"));
    }

    let room = Room::default();
    let page_addresses = page.iter().flat_map(Page::local_addrs).map(ToString::to_string).collect::<Vec<_>>();
    let page = page.map(|page| page.start(server.handle(), room.clone())).transpose();
    let page = page.unwrap_or_else(|error| give_up(&format!("cannot start a thread: {error}")));
    for address in page_addresses {
        output.line(&format!("live page on http://{address}/"));
    }

    let summary = options.serve(server, room);

    // Until here, one could watch the others leave.
    let page_is_clean = page.is_none_or(|page| page.stop().is_clean());
    output.line(&summary.to_string());
    if let Some(error) = &summary.failure {
        log::error!("accepting ended: {error}");
    }
    output.flush(LAST_WORDS);
    log.flush(LAST_WORDS);
    if summary.is_clean() && page_is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn give_up(why: &str) -> ! {
    options::exit_with(2, &format!("socket-steps: {why}"))
}

/// Standard output and the log, each behind a thread of its own: a terminal that is stopped with Ctrl-S, or a
/// pipe that nobody reads, must not stop the server.
fn start_output() -> io::Result<(Output, Output)> {
    let output = Output::to("stdout", io::stdout())?;
    let log = Output::to("log", io::stderr())?;
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let style = if colours { env_logger::WriteStyle::Always } else { env_logger::WriteStyle::Never };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
        // It would log what others say as they said it, newlines and all, which look like lines of the log.
        .filter_module("tungstenite", log::LevelFilter::Off)
        .format_timestamp_millis()
        .write_style(style)
        .target(env_logger::Target::Pipe(Box::new(log.clone())))
        .init();
    // The default hook writes to standard error itself, and would wait for it.
    panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    Ok((output, log))
}

/// A program that was started with `nohup` ignores SIGHUP, and outlives its terminal. Whoever catches that signal
/// undoes this; so it is blocked, which every thread inherits that is started from now on.
#[cfg(target_os = "linux")]
fn keep_ignoring_hang_ups() {
    use nix::sys::signal::{SigSet, Signal};
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    if ignored.unwrap_or_default() >> (Signal::SIGHUP as u32 - 1) & 1 == 1 {
        let _ = SigSet::from(Signal::SIGHUP).thread_block();
    }
}

/// The first signal stops the server in good order, the second at once.
fn stop_on_signals(server: &Server) -> io::Result<()> {
    let handle = server.handle();
    let asked = AtomicBool::new(false);
    let set = ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        log::info!("stopping; a second signal ends it at once");
        handle.stop();
    });
    set.map_err(|error| match error {
        ctrlc::Error::System(error) => error, // By itself it does not say which.
        other => io::Error::other(other),
    })
}

impl Options {
    /// The configuration that was asked for, if the machine can hold it.
    fn config(&self, most: &Limit) -> Config {
        let defaults = Config::default();
        if most.connections == 0 {
            give_up(&format!("{most}; raise it"));
        }
        let max_connections = self.max_connections.unwrap_or(defaults.max_connections.min(most.connections));
        if max_connections > most.connections {
            give_up(&format!("--max-connections {max_connections} is too many: {most}"));
        }
        let min_workers = self.min_workers.unwrap_or(defaults.min_workers.min(max_connections));
        if min_workers > max_connections {
            give_up(&format!("--min-workers {min_workers} is more than --max-connections {max_connections}"));
        }
        Config {
            min_workers,
            max_connections,
            when_full: self.when_full,
            per_source: self.per_source,
            timeouts: Timeouts {
                idle: Some(self.idle_timeout),
                message: Some(self.message_timeout),
                write: Some(self.write_timeout),
            },
            drain: self.drain,
            ..defaults
        }
    }

    /// What is left of the machine for connections: the page takes its share, and a conversation of the chat's
    /// has two threads.
    fn share_of(&self, machine: Limit, has_room_for_page: bool) -> Limit {
        let for_page = if !self.no_page && has_room_for_page { page::SHARE } else { 0 };
        let threads = if matches!(self.service, Service::Chat) { 2 } else { 1 };
        Limit { connections: (machine.connections - for_page) / threads, ..machine }
    }

    /// The page, if it is wanted. Where it is only usual, the server does without it rather than not to start.
    fn bind_page(&self, has_room: bool) -> io::Result<Option<Page>> {
        if self.no_page {
            return Ok(None);
        }
        let address = self.page.as_deref().unwrap_or(USUAL_PAGE);
        let limits = Limits { max_message: self.max_message, write: self.write_timeout, ..Limits::default() };
        let page = match has_room {
            true => Page::bind(address, page::Options { hosts: self.page_host.clone(), limits }),
            false => Err(io::Error::other("this machine's limits leave no room for it")),
        };
        match page {
            Ok(page) => Ok(Some(page)),
            Err(error) if self.page.is_some() => Err(io::Error::new(error.kind(), format!("the live page: {error}"))),
            Err(error) => {
                log::warn!("no live page: {error}");
                Ok(None)
            }
        }
    }

    fn serve(&self, server: Server, room: Room) -> Summary {
        match self.service {
            Service::Reply => server.serve(services::reply(&self.prefix)),
            Service::Echo => server.serve(services::echo),
            Service::Lines => server.serve(services::lines(&self.prefix, self.max_message)),
            Service::Chat => server.serve(services::chat(room, self.max_message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;
    use std::io::Write;
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::Instant;

    const PANIC: &str = "PANIC_WITH_A_FULL_STANDARD_ERROR";
    const SURVIVED: i32 = 77;

    /// Runs itself a second time, with a standard error that nobody reads: there, a thread panics.
    #[test]
    fn a_panic_does_not_wait_for_standard_error() {
        if env::var_os(PANIC).is_some() {
            start_output().unwrap();
            thread::spawn(|| panic!("on purpose")).join().unwrap_err();
            std::process::exit(SURVIVED);
        }
        let (_reader, mut errors) = io::pipe().unwrap();
        // The flag belongs to the pipe's end, and is not to be inherited.
        rustix::io::ioctl_fionbio(&errors, true).unwrap();
        while errors.write(b".").is_ok() {}
        rustix::io::ioctl_fionbio(&errors, false).unwrap();

        let name = "tests::a_panic_does_not_wait_for_standard_error";
        let mut again = Command::new(env::current_exe().unwrap());
        again.args(["--exact", name, "--nocapture"]).env(PANIC, "1").stdout(Stdio::null()).stderr(errors);
        let (mut child, began) = (again.spawn().unwrap(), Instant::now());
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if began.elapsed() > Duration::from_secs(30) => break None,
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        let _ = child.kill();
        let _ = child.wait();
        let status = status.expect("it waits for a reader");
        assert_eq!(status.code(), Some(SURVIVED), "{status}");
    }
}

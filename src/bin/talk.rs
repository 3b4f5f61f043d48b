//! An interactive client: what you type goes to the server, what the server says is shown, both at once.

use std::io::{self, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use socket_steps::addr::plain;
use socket_steps::client::Client;
use socket_steps::deadline::Timeouts;
use socket_steps::lines::incomplete_character;
use socket_steps::options::{self, duration, exit_with};
use socket_steps::output::harmless;
use socket_steps::stream::Stream;

/// Talk to a server: every line you type is sent, and everything that comes back is shown.
///
/// Ctrl-D ends your half of the conversation and still shows what the server has to say; Ctrl-C ends it all.
/// Input can come from a pipe, too.
#[derive(Parser)]
#[command(name = "talk", version, after_help = AFTER_HELP)]
struct Options {
    /// Where the server is: HOST:PORT or unix:PATH
    #[arg(value_name = "ADDR", default_value = "localhost:8080")]
    address: String,

    /// How long connecting may take
    #[arg(long, value_name = "D", value_parser = duration, default_value = "10s")]
    within: Duration,
}

const AFTER_HELP: &str = "\
Durations have a unit: 500ms, 10s.

Examples:
  talk
  talk 127.0.0.1:8080
  echo 안녕하세요 | talk unix:/tmp/steps.sock

Exit status: 0 the server has ended the conversation; 1 there was none, or it was cut off; 2 wrong usage.";

/// How long a sender needs to say what its last write returned.
const ABOUT_TO: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let options: Options = options::parse_or_exit();
    // No deadlines: a person takes as long as a person takes.
    let client = Client::to(&options.address).within(options.within).timeouts(Timeouts::NONE);
    let socket = match client.connect() {
        Ok(socket) => socket,
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => exit_with(2, &format!("talk: {error}")),
        Err(error) => exit_with(1, &format!("talk: {error}")),
    };
    note(&format!("connected to {}; Ctrl-D ends your half, Ctrl-C everything", socket.peer()));

    // The socket is duplex: one thread writes to it while this one reads from it.
    let connection = Arc::clone(socket.connection());
    let (report, reports) = crossbeam_channel::bounded(1);
    thread::spawn(move || drop(report.send(send_what_is_typed(connection.stream()))));

    let ended = show_what_comes(socket.connection().stream());
    // The kernel reports a reset once, to whoever comes first. If that was the sender, the end that we have
    // read is no end, and it is about to say so; unless it waits for somebody to type.
    let sent = reports.recv_timeout(ABOUT_TO).unwrap_or(Ok(()));
    match ended.and(sent.or_else(unless_the_server_has_finished)) {
        Ok(()) => {
            note("the server has ended the conversation");
            ExitCode::SUCCESS
        }
        Err(error) => exit_with(1, &format!("talk: {}", plain(&error))),
    }
}

/// Sends standard input as it comes, line by line from a terminal, and then ends our half.
fn send_what_is_typed(stream: &Stream) -> io::Result<()> {
    let mut typed = io::stdin().lock();
    let mut to_server = stream;
    io::copy(&mut typed, &mut to_server)?;
    stream.shutdown(Shutdown::Write)
}

/// A server may say goodbye while we are still talking; that it hears no more is no error then.
fn unless_the_server_has_finished(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected => Ok(()),
        _ => Err(error),
    }
}

/// Shows what the server sends until it ends its half.
fn show_what_comes(stream: &Stream) -> io::Result<()> {
    let on_terminal = io::stdout().is_terminal();
    let mut from_server = stream;
    let mut shown = io::stdout().lock();
    let mut buffer = vec![0; 64 * 1024];
    let mut held = 0;
    let mut last = b'\n';
    loop {
        let count = from_server.read(&mut buffer[held..])?;
        let end = held + count;
        if on_terminal {
            // A piece may end in the middle of a character: its rest is in the next one.
            held = if count > 0 { incomplete_character(&buffer[..end]) } else { 0 };
            // A server could otherwise move the cursor, or hide what it says.
            let text = String::from_utf8_lossy(&buffer[..end - held]);
            show(&mut shown, harmless(&text, &['\n', '\t']).as_bytes());
            last = buffer[..end - held].last().copied().unwrap_or(last);
            buffer.copy_within(end - held..end, 0);
        } else {
            show(&mut shown, &buffer[..end]);
        }
        if count == 0 {
            if on_terminal && last != b'\n' {
                show(&mut shown, b"\n");
            }
            return Ok(());
        }
    }
}

/// Writes to standard output. If whoever reads it has gone, as `head` does, there is nothing left to do.
fn show(shown: &mut impl Write, bytes: &[u8]) {
    match shown.write_all(bytes).and_then(|()| shown.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => exit_with(1, &format!("talk: cannot write: {error}")),
        Ok(()) => {}
    }
}

/// Tells a person something who is typing. Where a pipe types, or a program reads, it would be in the way.
fn note(text: &str) {
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        let _ = writeln!(io::stderr(), "({text})");
    }
}

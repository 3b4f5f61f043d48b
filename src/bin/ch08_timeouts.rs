//! Chapter 8: deadlines. A server waits, but not for ever.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use log::info;
use socket_steps::chapter::{Actor, Part, give_up, part};
use socket_steps::lines::LineBuffer;
use socket_steps::narrate;
use socket_steps::pool::Pool;

const PREFIX: &str = "서버 응답: ";
const LIMIT: usize = 64 * 1024;

fn main() -> io::Result<()> {
    match part("ch08_timeouts [server [ADDR] [--limit N] [--idle D] [--message D]]") {
        Part::Server(options) => {
            narrate::aside();
            let listener = TcpListener::bind(&options.address).map_err(give_up)?;
            println!("listening on {}", listener.local_addr()?);
            let write = Duration::from_secs(10);
            let timeouts = Timeouts { idle: options.idle, message: Some(options.message), write };
            serve(&listener, options.limit, timeouts)
        }
        _ => scene(),
    }
}

// ANCHOR: timeouts
/// How long a client may take for what.
#[derive(Clone, Copy)]
struct Timeouts {
    /// To begin a message.
    idle: Duration,
    /// To send a message, from its first byte to its last. Without this, each of its bytes may take as long
    /// as `idle`.
    message: Option<Duration>,
    /// To take an answer, as a whole.
    write: Duration,
}
// ANCHOR_END: timeouts

// ANCHOR: left
/// What is left of `limit`, which has counted since then. When nothing is left, that is the error.
fn left(limit: Duration, since: Instant, what: &str) -> io::Result<Duration> {
    match limit.checked_sub(since.elapsed()) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(io::Error::new(ErrorKind::TimedOut, format!("{what} {limit:?}"))),
    }
}
// ANCHOR_END: left

/// A client's stream, which is read and written under deadlines.
struct Socket<'a> {
    stream: &'a TcpStream,
    timeouts: Timeouts,
    /// When the message that is being read began.
    message_began: Option<Instant>,
}

// ANCHOR: read
impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let now = Instant::now();
        loop {
            let left = match (self.message_began, self.timeouts.message) {
                (Some(began), Some(limit)) => left(limit, began, "a message took longer than")?,
                _ => left(self.timeouts.idle, now, "silent for")?,
            };
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(buffer) {
                Err(error) if is_no_answer(&error) => {}
                result => return result,
            }
        }
    }
}
// ANCHOR_END: read

/// The time is up, or a signal came in between: either way, look at the clock.
fn is_no_answer(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

// ANCHOR: write
impl Socket<'_> {
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let began = Instant::now();
        while !bytes.is_empty() {
            let left = left(self.timeouts.write, began, "an answer was not taken within")?;
            self.stream.set_write_timeout(Some(left))?;
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_no_answer(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
// ANCHOR_END: write

/// Answers each line, until the client ends, or takes too long.
fn answer(stream: &TcpStream, timeouts: Timeouts) -> io::Result<()> {
    let mut socket = Socket { stream, timeouts, message_began: None };
    let mut buffer = LineBuffer::new(LIMIT);
    loop {
        match buffer.next_line() {
            Ok(Some(line)) => {
                socket.write_all(&[PREFIX.as_bytes(), line].concat())?;
                socket.message_began = None;
            }
            Err(too_long) => return socket.write_all(format!("{too_long}\n").as_bytes()),
            Ok(None) => {
                // ANCHOR: begins
                if socket.message_began.is_none() && !buffer.rest().is_empty() {
                    socket.message_began = Some(Instant::now());
                }
                // ANCHOR_END: begins
                if buffer.read_from(&mut socket)? == 0 {
                    break;
                }
            }
        }
    }
    if !buffer.rest().is_empty() {
        socket.write_all(&[PREFIX.as_bytes(), buffer.rest()].concat())?;
    }
    Ok(())
}

fn serve(listener: &TcpListener, limit: usize, timeouts: Timeouts) -> io::Result<()> {
    let pool = Pool::new(limit, limit)?;
    loop {
        let (stream, _peer) = listener.accept()?;
        info!(target: "server", "a client has connected");
        let place = pool.places().take_or_wait();
        let job = move || {
            if let Err(error) = answer(&stream, timeouts) {
                info!(target: "server", "let go: {error}");
            }
            drop(place);
        };
        pool.run(Box::new(job)).map_err(|failed| failed.error)?;
    }
}

fn scene() -> io::Result<()> {
    narrate::scene(&["server", "client"]);
    let tenths = |tenths: u64| Duration::from_millis(100 * tenths);
    let with_a_message_deadline = Timeouts { idle: tenths(5), message: Some(tenths(7)), write: tenths(5) };
    let without = Timeouts { message: None, ..with_a_message_deadline };
    let with_a_message_deadline = start(with_a_message_deadline)?;
    let without = start(without)?;

    silent(without)?;
    info!(target: "server", "no deadline for messages");
    drip(without)?;
    info!(target: "server", "waited over a second; no pause was over 500ms");
    info!(target: "server", "a deadline for messages: 700ms");
    drip(with_a_message_deadline)?;
    never_reads(with_a_message_deadline)
}

fn start(timeouts: Timeouts) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || serve(&listener, 1, timeouts));
    Ok(address)
}

fn silent(address: SocketAddr) -> io::Result<()> {
    narrate::share_row(&["server", "client"]);
    let mut client = Actor::connect("client", address)?;
    info!(target: "client", "saying nothing");
    client.hear()?;
    Ok(())
}

/// Sends a line of ten letters, one letter in a tenth of a second, as long as the server has patience.
fn drip(address: SocketAddr) -> io::Result<()> {
    narrate::share_row(&["server", "client"]);
    let mut client = Actor::connect("client", address)?;
    client.stream().set_nodelay(true)?;
    client.stream().set_read_timeout(Some(Duration::from_millis(100)))?;
    for letter in b"abcdefghij\n" {
        match letter {
            b'a' | b'b' => info!(target: "client", "sending {}", char::from(*letter)),
            b'c' => info!(target: "client", "sending c, and so on, to j"),
            _ => {}
        }
        let sent = client.stream().write_all(&[*letter]);
        // The pause between two letters is a read: it ends early when the server ends.
        if sent.is_err() || client.stream().peek(&mut [0]).is_ok() {
            break;
        }
    }
    client.stream().set_read_timeout(None)?;
    client.hear()?;
    Ok(())
}

fn never_reads(address: SocketAddr) -> io::Result<()> {
    narrate::share_row(&["server", "client"]);
    let client = Actor::connect("client", address)?;
    info!(target: "client", "sending lines, and reading no answer");
    let line = [&[b'x'; LIMIT - 1][..], b"\n"].concat();
    while client.stream().write_all(&line).is_ok() {}
    info!(target: "client", "the server has closed the connection");
    Ok(())
}

//! A server with one fault, for `check` to find. Without a fault it is right: the faults are the only
//! difference between what passes and what does not.
//!
//! It is played by the test program itself, started again with `WRONG_SERVER=fault` in its environment.

#![allow(clippy::unwrap_used, reason = "a server that cannot go on should end")]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::exit;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What the right one promises; told to `check`.
pub(crate) const LIMIT: usize = 16;
pub(crate) const DEADLINE: Duration = Duration::from_millis(400);

/// How often it looks whether it should stop.
const GLANCE: Duration = Duration::from_millis(20);

static FAULT: OnceLock<String> = OnceLock::new();
static OPEN: AtomicUsize = AtomicUsize::new(0);
static SEEN: AtomicUsize = AtomicUsize::new(0);
static STOP: AtomicBool = AtomicBool::new(false);
static EMPTY: AtomicUsize = AtomicUsize::new(0);
static SHARED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn is(fault: &str) -> bool {
    FAULT.get().is_some_and(|ours| ours == fault)
}

fn is_one_of(faults: &[&str]) -> bool {
    faults.iter().any(|fault| is(fault))
}

/// Never returns.
pub(crate) fn play(fault: &str) {
    FAULT.set(fault.to_owned()).unwrap();
    if !is("no signal handler") {
        ctrlc::set_handler(|| STOP.store(true, SeqCst)).unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // The test harness may have begun a line.
    let mut out = io::stdout();
    writeln!(out, "\nlistening on {}", listener.local_addr().unwrap()).unwrap();
    out.flush().unwrap();
    listener.set_nonblocking(true).unwrap();
    accept_all(&listener);
    drop(listener);
    let began = Instant::now();
    while OPEN.load(SeqCst) > 0 && (began.elapsed() < Duration::from_secs(5) || is("waits for the silent")) {
        thread::sleep(GLANCE);
    }
    exit(0);
}

fn accept_all(listener: &TcpListener) {
    loop {
        if STOP.load(SeqCst) && !is_one_of(&["ignores the signal", "goes on accepting"]) {
            return;
        }
        let is_full = OPEN.load(SeqCst) >= LIMIT;
        if is_full && !goes_over_the_limit() {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        let glance = Timespec { tv_sec: 0, tv_nsec: GLANCE.as_nanos() as i64 };
        let _ = poll(&mut [PollFd::new(&listener.as_fd(), PollFlags::IN)], Some(&glance));
        match listener.accept() {
            Ok((stream, _)) => take(stream, is_full),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) if is("spins without descriptors") => {}
            Err(error) if is("dies without descriptors") => {
                eprintln!("accept: {error}");
                exit(1);
            }
            Err(_) if is("gives up without descriptors") => loop {
                thread::sleep(Duration::from_secs(1));
            },
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn goes_over_the_limit() -> bool {
    is_one_of(&[
        "a thread for each",
        "closes with unread input",
        "closes without a word",
        "forgets those over the limit",
        "tells and stays open",
        "resets those over the limit",
    ])
}

fn take(mut stream: TcpStream, is_full: bool) {
    stream.set_nonblocking(false).unwrap();
    stream.set_nodelay(true).unwrap();
    let number = SEEN.fetch_add(1, SeqCst);
    if is_full && !is("a thread for each") {
        match FAULT.get().unwrap().as_str() {
            "closes with unread input" => {
                let _ = stream.write_all(b"busy: try again later\n");
            }
            "forgets those over the limit" => std::mem::forget(stream),
            "tells and stays open" => {
                let _ = stream.write_all(b"busy: try again later\n");
                std::mem::forget(stream);
            }
            "resets those over the limit" => {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            // A clean end, but nobody knows why.
            _ => say_goodbye(&mut stream),
        }
        return;
    }
    if is("loses a thread to each empty client") && EMPTY.load(SeqCst) >= 4 {
        return std::mem::forget(stream); // Nobody is left to serve it.
    }
    OPEN.fetch_add(1, SeqCst);
    if is("one after another") {
        serve(stream, number);
        OPEN.fetch_sub(1, SeqCst);
        return;
    }
    thread::spawn(move || {
        serve(stream, number);
        OPEN.fetch_sub(1, SeqCst);
        if is("leaves threads behind") {
            thread::park();
        }
    });
}

fn say_goodbye(stream: &mut TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
    while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
}

struct Connection {
    stream: TcpStream,
    number: usize,
    buffer: Vec<u8>,
    answered: usize,
    since: Instant,
}

fn serve(stream: TcpStream, number: usize) {
    if is("silent") {
        let _ = (&stream).read_to_end(&mut Vec::new());
        return;
    }
    if is("flood") {
        while (&stream).write_all(&[b'x'; 4096]).is_ok() {}
        return;
    }
    if is("garbage") {
        let _ = (&stream).write_all(b"\x00\xff\x1b[2J\x9c");
    }
    if is("speaks first") {
        let _ = (&stream).write_all("어서 오세요\n".as_bytes());
    }
    if is("closes at once") {
        return;
    }
    let mut connection = Connection { stream, number, buffer: Vec::new(), answered: 0, since: Instant::now() };
    let result = connection.talk();
    if result.is_err() && is("dies of any error") {
        eprintln!("read: {result:?}");
        exit(101);
    }
    if is("leaves descriptors behind") {
        // The end is sent, and the descriptor is kept.
        let _ = connection.stream.shutdown(Shutdown::Both);
        std::mem::forget(connection.stream);
    }
}

impl Connection {
    fn talk(&mut self) -> io::Result<()> {
        let mut piece = vec![0; if is("a small piece") { 7 } else { 64 * 1024 }];
        loop {
            let Some(count) = self.read(&mut piece)? else { return Ok(()) };
            if count == 0 {
                return self.at_the_end();
            }
            self.take(&piece[..count])?;
            if is("one message") && self.answered > 0 {
                return Ok(());
            }
        }
    }

    /// `None`: it is over, by a deadline or by the signal.
    fn read(&mut self, piece: &mut [u8]) -> io::Result<Option<usize>> {
        self.stream.set_read_timeout(Some(GLANCE))?;
        let began = Instant::now();
        loop {
            match self.stream.read(piece) {
                Ok(count) => {
                    if !is("lives as long as the deadline")
                        && (self.buffer.is_empty() || is("a deadline for each read"))
                    {
                        self.since = Instant::now();
                    }
                    return Ok(Some(count));
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
            if STOP.load(SeqCst) && !is_one_of(&["ignores the signal", "waits for the silent"]) {
                let in_flight = !self.buffer.is_empty() && !is("drops what is in flight");
                // A signal in the middle of a line waits for its end; and what has arrived by now is still read.
                if !in_flight && !is("goes on accepting") {
                    self.stream.set_nonblocking(true)?;
                    let last = self.stream.read(piece);
                    self.stream.set_nonblocking(false)?;
                    return Ok(last.ok().filter(|_| !is("drops what is in flight")));
                }
            }
            let deadline = if is("a hasty deadline") { DEADLINE / 2 } else { DEADLINE };
            let since = if is("a deadline for each read") { began.max(self.since) } else { self.since };
            if since.elapsed() > deadline && !is("no deadline") && !(is("waits for the silent") && STOP.load(SeqCst)) {
                return Ok(None);
            }
        }
    }

    fn at_the_end(&mut self) -> io::Result<()> {
        match FAULT.get().unwrap().as_str() {
            "never closes" => std::mem::forget(self.stream.try_clone()?),
            "answers the end" => self.stream.write_all(b"bye\n")?,
            "loses a thread to each empty client" if self.answered == 0 => {
                EMPTY.fetch_add(1, SeqCst); // Four threads there were.
            }
            "dies of an empty client" if self.answered == 0 => panic_and_exit("index out of bounds: the len is 0"),
            _ => {}
        }
        let rest = std::mem::take(&mut self.buffer);
        if rest.is_empty() { Ok(()) } else { self.stream.write_all(&rest) }
    }

    fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        match FAULT.get().unwrap().as_str() {
            // The documents' shape: a text in front of each piece.
            "a prefix in each piece" => return self.write(&["서버 응답: ".as_bytes(), piece].concat()),
            "each piece is made text" => {
                let text = String::from_utf8_lossy(piece).into_owned();
                return self.write(format!("서버 응답: {text}").as_bytes());
            }
            "each piece is a line" => {
                let line = [piece.trim_ascii_end(), b"\n"].concat();
                return self.write(&line);
            }
            "dies of half a character" => {
                let Ok(text) = std::str::from_utf8(piece) else { panic_and_exit("stream did not contain valid UTF-8") };
                return self.write(text.as_bytes());
            }
            "only the first line of a piece" => {
                let end = piece.iter().position(|byte| *byte == b'\n').map_or(piece.len(), |at| at + 1);
                return self.write(&piece[..end]);
            }
            _ => {}
        }
        self.buffer.extend_from_slice(piece);
        if is("closes amid a long line") && self.buffer.len() > 100_000 && !self.buffer.contains(&b'\n') {
            self.write(b"too long\n")?;
            return Err(io::ErrorKind::InvalidData.into());
        }
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            self.since = if is("lives as long as the deadline") { self.since } else { Instant::now() };
            self.answer(line)?;
        }
        Ok(())
    }

    fn answer(&mut self, line: Vec<u8>) -> io::Result<()> {
        self.answered += 1;
        if is("dies of a message") {
            panic_and_exit("called `Option::unwrap()` on a `None` value");
        }
        if is("loses what comes with the end") && self.answered == 1 {
            // It looks first whether the client has ended; an answer would be too late, it thinks.
            thread::sleep(Duration::from_millis(20));
            let mut next = [0];
            self.stream.set_read_timeout(Some(Duration::from_millis(1)))?;
            if matches!(self.stream.peek(&mut next), Ok(0)) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let answer = self.made_of(line);
        self.write(&answer)
    }

    fn made_of(&self, line: Vec<u8>) -> Vec<u8> {
        let text = || String::from_utf8_lossy(&line).into_owned();
        match FAULT.get().unwrap().as_str() {
            "no newline" => line[..line.len() - 1].to_vec(),
            "upper case" => line.to_ascii_uppercase(),
            "a newline too many" => [&line[..], b"\n"].concat(),
            "twice" => line.repeat(2),
            "a counter in front" => [format!("{}: ", self.number).as_bytes(), &line].concat(),
            "a counter of messages" => [format!("{}: ", self.answered).as_bytes(), &line].concat(),
            "lines made text" => text().into_bytes(),
            "ends at a zero byte" => match line.iter().position(|byte| *byte == 0) {
                Some(zero) => [&line[..zero], b"\n"].concat(),
                None => line,
            },
            "carriage returns" => [&line[..line.len() - 1], b"\r\n"].concat(),
            "cuts long lines" if line.len() > 512 => [&line[..512], b"\n"].concat(),
            "spaces trimmed" => [line.trim_ascii(), b"\n"].concat(),
            "quotes" => format!("{:?}\n", text().trim_end()).into_bytes(),
            "one buffer for all" if OPEN.load(SeqCst) > 4 => {
                // What was read last is what everyone is answered with, a moment later.
                SHARED.lock().unwrap().clone_from(&line);
                thread::sleep(Duration::from_millis(30));
                SHARED.lock().unwrap().clone()
            }
            _ => line,
        }
    }

    fn write(&mut self, answer: &[u8]) -> io::Result<()> {
        if is("drops what does not fit") {
            // As with a socket that does not block, and a write that nobody looks at.
            self.stream.set_nonblocking(true)?;
            let _ = self.stream.write(answer);
            self.stream.set_nonblocking(false)?;
            return Ok(());
        }
        let result = self.stream.write_all(answer);
        if result.is_err() && is("dies of a broken pipe") {
            eprintln!("write: {result:?}");
            exit(101);
        }
        result
    }
}

fn panic_and_exit(why: &str) -> ! {
    eprintln!("thread 'main' panicked at src/main.rs:7:9:\n{why}");
    exit(101)
}

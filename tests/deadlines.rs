//! A client that drips, one that does not read, and one that says nothing are each let go at their own
//! deadline, and nobody else notices.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Socket, Type};
use support::figures::figure;
use support::{BOUND, Client, PREFIX, Server};

const IDLE: Duration = Duration::from_millis(1500);
const MESSAGE: Duration = Duration::from_millis(1000);
const WRITE: Duration = Duration::from_millis(1250);
const DEADLINES: [&str; 8] =
    ["--service", "lines", "--idle-timeout", "1500ms", "--message-timeout", "1000ms", "--write-timeout", "1250ms"];

/// What a deadline may be late by on a machine that is very busy. One that does not hold is late for ever.
const LATE: Duration = Duration::from_secs(20);

fn assert_at(deadline: Duration, elapsed: Duration) {
    assert!(elapsed >= deadline, "after {elapsed:?}, too early for {deadline:?}");
    assert!(elapsed < deadline + LATE, "after {elapsed:?}, too late for {deadline:?}");
}

/// A client that sends a byte of its line at every turn, and never the last.
struct Drip {
    client: Client,
    began: Instant,
    sent: usize,
}

/// Which of them have something to read, after waiting a little for it: the pace of the dripping.
fn readable(drips: &[Drip]) -> Vec<bool> {
    let mut watched: Vec<_> = drips.iter().map(|drip| PollFd::new(&drip.client.0, PollFlags::IN)).collect();
    poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 30_000_000 })).unwrap();
    watched.iter().map(|one| !one.revents().is_empty()).collect()
}

/// Sends lines and reads no answer, until the connection ends: after how long, and how.
fn never_read(mut client: Client) -> (Duration, io::ErrorKind) {
    let lines = "a line whose answer nobody takes\n".repeat(2000);
    let began = Instant::now();
    loop {
        if let Err(error) = client.0.write_all(lines.as_bytes()) {
            return (began.elapsed(), error.kind());
        }
    }
}

/// Says nothing until the connection ends: after how long.
fn say_nothing(mut client: Client, began: Instant) -> Duration {
    assert!(client.rest().is_empty());
    began.elapsed()
}

#[test]
fn drips_and_those_who_do_not_read_and_those_who_say_nothing_go_at_their_deadlines_and_nobody_else_does() {
    let server = Server::start(&DEADLINES);
    let mut healthy = server.client();
    let began = Instant::now();
    let silent = server.client();
    let silent = thread::spawn(move || say_nothing(silent, began));
    let deaf = server.client();
    let deaf = thread::spawn(move || never_read(deaf));
    let mut drips: Vec<Drip> =
        (0..200).map(|_| Drip { client: server.client(), began: Instant::now(), sent: 0 }).collect();

    let mut turns = 0;
    while !drips.is_empty() || !silent.is_finished() || !deaf.is_finished() {
        assert!(began.elapsed() < BOUND);
        for drip in &mut drips {
            if drip.sent == 0 {
                drip.began = Instant::now();
            }
            // It may have been let go since we looked.
            drip.sent += drip.client.0.write(b".").unwrap_or(0);
        }
        let line = format!("turn {turns}\n");
        healthy.send(&line).expect(format!("{PREFIX}{line}"));
        turns += 1;

        let mut readable = readable(&drips).into_iter();
        drips.retain_mut(|drip| {
            let is_over = readable.next().unwrap();
            if is_over {
                // Half a line has no answer.
                assert_eq!(drip.client.rest_and_end().0, b"");
                assert!(drip.sent > 1, "it did not drip");
                assert_at(MESSAGE, drip.began.elapsed());
            }
            !is_over
        });
    }
    assert_at(IDLE, silent.join().unwrap());
    let (elapsed, kind) = deaf.join().unwrap();
    assert_at(WRITE, elapsed);
    // Half an answer must not look like a whole one.
    assert_eq!(kind, io::ErrorKind::ConnectionReset);
    // The one who talks has been there longer than any deadline.
    assert!(began.elapsed() > IDLE);
    healthy.send("still here\n").expect(format!("{PREFIX}still here\n"));

    let log = server.stop().log;
    let ended = |reason: &str| log.matches(&format!(" ended ({reason}) ")).count();
    assert_eq!((ended("message"), ended("idle"), ended("write"), ended("stopped")), (200, 1, 1, 1), "{log}");
}

#[test]
fn a_client_that_says_something_now_and_then_is_kept_beyond_the_idle_deadline() {
    let server = Server::start(&["--service", "lines", "--idle-timeout", "1s"]);
    let began = Instant::now();
    let mut client = server.client();
    client.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while began.elapsed() < Duration::from_millis(2200) {
        client.say_hello();
        // A pause, far below the deadline; an end would come here.
        let nothing = client.0.read(&mut [0]);
        assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
    // And then no longer.
    let last = Instant::now();
    client.send("goodbye\n").expect(format!("{PREFIX}goodbye\n"));
    client.0.set_read_timeout(Some(BOUND)).unwrap();
    assert!(client.rest().is_empty());
    assert_at(Duration::from_secs(1), last.elapsed());
    server.wait_for_log("ended (idle)");
}

/// A client with a small receive buffer, which has to be set before it connects.
fn client_with_little_room(server: &Server) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect(&server.socket_addr().into()).unwrap();
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.set_write_timeout(Some(BOUND)).unwrap();
    Client(stream)
}

#[test]
fn a_reader_that_takes_a_little_at_a_time_is_let_go_at_the_write_deadline_for_the_whole_answer() {
    let server = Server::start(&["--service", "lines", "--max-message", "32MiB", "--write-timeout", "1s"]);
    let mut client = client_with_little_room(&server);
    // More than the kernel can hold on the way: 4 MiB on the server's side, next to nothing on ours.
    let size = 12 * 1024 * 1024;
    client.send("x".repeat(size));
    let began = Instant::now();
    client.send("\n");
    let (mut turns, mut came) = (0, 0);
    let end = loop {
        match client.0.read(&mut [0; 8 * 1024]) {
            Ok(0) => break None,
            Ok(count) => came += count,
            Err(error) => break Some(error.kind()),
        }
        turns += 1;
        // The slowness is the fault: at this pace, the whole would take over ten seconds.
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(end, Some(io::ErrorKind::ConnectionReset), "half an answer must not look like a whole one");
    assert!(turns > 20 && came < size, "{turns} turns, {came} bytes");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    server.wait_for_log("ended (write)");
}

/// Lets the peak of a process's memory begin again at what it has now (see proc(5)).
fn forget_peak_memory(server: &Server) {
    std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").unwrap();
}

/// The most memory that a process has had resident since then, in kibibytes.
fn peak_memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Sends 1 GiB without a newline, if nobody stops it: how much went out, and when the first byte over the limit did.
fn send_without_end(mut client: Client, limit: usize) -> (usize, Instant) {
    let piece = vec![b'x'; 64 * 1024];
    let (mut sent, mut over) = (0, Instant::now());
    while sent < 1024 * 1024 * 1024 {
        if sent <= limit {
            over = Instant::now();
        }
        match client.0.write(&piece) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    (sent, over)
}

#[test]
fn a_line_without_end_is_refused_in_a_text_that_arrives_and_takes_no_memory() {
    for limit in [64 * 1024, 4 * 1024 * 1024] {
        let server = Server::start(&["--service", "lines", "--max-message", &limit.to_string()]);
        // As many as there are threads ready: what a thread takes for itself is not the line's.
        let mut healthy = [(); 4].map(|()| server.client());
        for one in &mut healthy {
            one.say_hello();
        }
        let [.., mut leaves] = healthy;
        assert!(leaves.end().rest().is_empty());
        server.wait_for_log("ended (finished)");
        forget_peak_memory(&server);
        let before = peak_memory(&server);

        let mut client = server.client();
        let sender = Client(client.0.try_clone().unwrap());
        let sender = thread::spawn(move || send_without_end(sender, limit));
        client.expect(format!("too long: a line may have at most {limit} bytes\n"));
        let told = Instant::now();
        assert!(client.rest().is_empty());
        let (sent, over) = sender.join().unwrap();
        assert!(sent > limit, "the fault did not happen");
        assert!(sent < 100 * 1024 * 1024, "{sent} bytes were taken of a line that may have {limit}");
        let grown = peak_memory(&server) - before;
        let limit = limit as u64 / 1024;
        assert!(grown < 512 + 2 * limit, "{grown} KiB for a line that may have {limit}");
        server.wait_for_log("ended (rejected)");

        let told = told.saturating_duration_since(over);
        let is_held = grown <= 2 * limit && told <= Duration::from_millis(100);
        let what = format!("a limit of {limit} KiB: {grown} KiB more memory, told after {told:.1?}");
        figure("B18", is_held, what);
    }
}

#[test]
fn a_line_of_exactly_the_limit_is_answered_and_one_byte_more_is_too_long() {
    let server = Server::start(&["--service", "lines", "--max-message", "1000"]);
    let longest = format!("{}\n", "x".repeat(1000));
    let mut client = server.client();
    client.send(&longest).expect(format!("{PREFIX}{longest}"));
    client.send(format!("x{longest}"));
    assert_eq!(client.rest_as_text(), "too long: a line may have at most 1000 bytes\n");
    // The lines before it are answered, even if all arrive together.
    let mut client = server.client();
    client.send(format!("one\ntwo\n{longest}x{longest}"));
    let answer = format!("{PREFIX}one\n{PREFIX}two\n{PREFIX}{longest}too long: a line may have at most 1000 bytes\n");
    assert_eq!(client.rest_as_text(), answer);
}

//! Whoever does not take an answer, or takes it too slowly, is let go at the write deadline for the whole of it, and
//! what it did get is the answer's beginning, byte for byte.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socket_steps::addr::Addr;
use socket_steps::deadline::{Deadline, Timeouts};
use socket_steps::server::{Config, Server};
use socket_steps::socket::Socket;
use socket_steps::stats::{CloseReason, Event};
use socket_steps::stream::Stream;
use support::figures::{figure, full};
use support::kit::Kit;
use support::{BOUND, Client};

/// For an answer as a whole.
const WRITE: Duration = Duration::from_secs(1);

/// What the bar grants beyond it.
const LATE: Duration = Duration::from_millis(500);

/// Four bytes each, no two alike: more than the kernel holds on the way to a client that does not read.
fn numbers() -> Vec<u8> {
    (0..4 * 1024 * 1024u32).flat_map(u32::to_be_bytes).collect()
}

/// Takes nothing until the connection is dead; then what had come to its kernel by itself, and how that ends.
fn stall(mut client: Client) -> (Vec<u8>, Option<ErrorKind>) {
    client.wait_for_hang_up();
    let (came, end) = client.rest_and_end();
    (came, end.err().map(|error| error.kind()))
}

/// Takes a little at a time: at this pace, the whole would take half a minute.
fn drain_slowly(mut client: Client) -> (Vec<u8>, Option<ErrorKind>) {
    let (mut came, mut portion) = (Vec::new(), [0; 8 * 1024]);
    let mut end = None;
    while end.is_none() {
        match client.0.read(&mut portion) {
            Ok(0) => return (came, None),
            Ok(count) => came.extend_from_slice(&portion[..count]),
            Err(error) => end = Some(error.kind()),
        }
        // The slowness is the fault.
        thread::sleep(Duration::from_millis(15));
    }
    (came, end)
}

#[test]
fn readers_that_stall_or_drain_slowly_are_let_go_at_the_write_deadline_with_no_byte_twice() {
    let each = if full() { 25 } else { 4 };
    let answer = Arc::new(numbers());
    let begun = Arc::new(Mutex::new(Vec::new()));
    let (sender, freed) = channel();
    let timeouts = Timeouts { write: Some(WRITE), ..Timeouts::default() };
    let server = Server::bind_observed(["127.0.0.1:0"], Config { timeouts, ..Config::default() }, move |event| {
        if let Event::Disconnected { id, reason, .. } = event {
            sender.send((*id, *reason, Instant::now())).unwrap();
        }
    });
    let (said, noted) = (Arc::clone(&answer), Arc::clone(&begun));
    let kit = Kit::on(server.unwrap(), move |mut socket: Socket| {
        socket.read_exact(&mut [0])?;
        noted.lock().unwrap().push((socket.connection().id(), Instant::now()));
        socket.write_all(&said)
    });

    let clients: Vec<_> = (0..2 * each)
        .map(|number| {
            let mut client = Client::with_a_small_window(kit.socket_addr());
            client.send("?");
            thread::spawn(move || if number % 2 == 0 { stall(client) } else { drain_slowly(client) })
        })
        .collect();
    let freed: Vec<_> = clients.iter().map(|_| freed.recv_timeout(BOUND).unwrap()).collect();
    for (number, client) in clients.into_iter().enumerate() {
        let (came, end) = client.join().unwrap();
        assert_eq!(end, Some(ErrorKind::ConnectionReset), "half an answer must not look like a whole one");
        assert!(came.len() < answer.len(), "the fault did not happen: all of it was taken");
        assert!(number % 2 == 0 || came.len() > 20 * 8 * 1024, "it stalled: {} bytes", came.len());
        assert!(came == answer[..came.len()], "not the beginning of the answer: something was said twice, or left out");
    }

    let begun = begun.lock().unwrap();
    let mut latest = Duration::ZERO;
    for (id, reason, when) in freed {
        let (_, began) = begun.iter().find(|(one, _)| *one == id).unwrap();
        let elapsed = when.duration_since(*began);
        assert_eq!(reason, CloseReason::Write);
        assert!(elapsed >= WRITE, "after {elapsed:?}, too early");
        latest = latest.max(elapsed - WRITE);
    }
    assert_eq!(kit.handle().snapshot().now, 0, "a place is not free");
    let what = format!("{each} that stall, {each} that drain 8 KiB in 15 ms: each freed at most {latest:.0?} late");
    figure("B11", latest <= LATE, what);
}

#[test]
fn on_a_path_too_a_slow_reader_is_let_go_at_the_write_deadline() {
    const LIMIT: Duration = Duration::from_millis(500);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let timeouts = Timeouts { write: Some(LIMIT), ..Timeouts::default() };
    let mut socket = Socket::new(Stream::Unix(ours), Addr::Unix(None), timeouts);
    // At this pace, the whole would take a minute and a half. The kernel's own time-out begins again at every block.
    let reader = thread::spawn(move || {
        while theirs.read(&mut [0; 4 * 1024]).is_ok_and(|count| count > 0) {
            thread::sleep(Duration::from_millis(20));
        }
    });
    for answer in 1..=2 {
        let began = Instant::now();
        let error = socket.write_all(&numbers()).unwrap_err();
        assert_eq!(Deadline::of(&error), Some(Deadline::Write(LIMIT)), "answer {answer}: {error}");
        assert!(began.elapsed() >= LIMIT, "answer {answer}: after {:?}, too early", began.elapsed());
    }
    socket.abort().unwrap();
    reader.join().unwrap();
}

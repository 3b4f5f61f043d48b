//! Whoever knows how a `net.Socket` of Node's ends finds here every such end, and its reason.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use socket_steps::deadline::{Deadline, Timeouts};
use socket_steps::server::Config;
use socket_steps::services;
use socket_steps::socket::Socket;
use socket_steps::stats::CloseReason;
use socket2::SockRef;
use support::kit::Kit;
use support::{BOUND, PREFIX, wait_until};

/// Waits until the kernel knows of the other side's reset, without reading.
fn wait_for_reset(socket: &Socket) {
    let stream = socket.connection().stream();
    while poll(&mut [PollFd::new(stream, PollFlags::empty())], None).is_err() {}
}

/// Writes what the kernel takes while the other side does not read; says how much that was.
fn write_until_full(socket: &Socket) -> io::Result<usize> {
    let mut stream = socket.connection().stream();
    stream.set_nonblocking(true)?;
    let mut count = 0;
    loop {
        match stream.write(&[b'x'; 10_000]) {
            Ok(written) => count += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    stream.set_nonblocking(false)?;
    Ok(count)
}

#[test]
fn finish_delivers_everything_and_abort_throws_away_what_is_not_sent() {
    let (report, written) = channel();
    let kit = Kit::serve(Config::default(), move |mut socket| {
        let mut verb = [0; 6];
        socket.read_exact(&mut verb)?;
        report.send(write_until_full(&socket)?).unwrap();
        if &verb == b"finish" { socket.finish() } else { socket.abort() }
    });
    let mut client = kit.client();
    let written_by_now = || written.recv_timeout(BOUND).unwrap();
    client.send("finish");
    let all = written_by_now();
    assert_eq!(client.rest().len(), all);

    let mut client = kit.client();
    // Little fits here, so that most has to wait on the server's side.
    SockRef::from(&client.0).set_recv_buffer_size(4096).unwrap();
    client.send("abort!");
    let all = written_by_now();
    kit.wait_for_end(CloseReason::Aborted, 1);
    let (came, end) = client.rest_and_end();
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(came.len() < all, "nothing was thrown away of {all} bytes");
}

#[test]
fn an_abort_is_a_linger_of_zero() {
    let (report, linger) = channel();
    let kit = Kit::serve(Config::default(), move |socket| {
        let connection = Arc::clone(socket.connection());
        socket.abort()?;
        report.send(SockRef::from(connection.stream()).linger()?).unwrap();
        Ok(())
    });
    let mut client = kit.client();
    assert_eq!(linger.recv_timeout(BOUND).unwrap(), Some(Duration::ZERO));
    assert_eq!(client.rest_and_end().1.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn each_deadline_ends_the_connection_with_a_reason_of_its_own() {
    let limit = Duration::from_millis(200);
    let timeouts = |idle, message, write| Timeouts { idle, message, write };
    let cases = [
        (CloseReason::Idle, timeouts(Some(limit), None, None)),
        (CloseReason::Message, timeouts(None, Some(limit), None)),
        (CloseReason::Write, timeouts(None, None, Some(limit))),
    ];
    for (reason, timeouts) in cases {
        let lines = services::lines("", 100);
        let kit = Kit::serve(Config { timeouts, ..Config::default() }, move |mut socket| match reason {
            CloseReason::Write => socket.write_all(&vec![b'x'; 100_000_000]),
            _ => lines(socket),
        });
        let began = Instant::now();
        let mut client = kit.client();
        if reason == CloseReason::Message {
            client.send("half a message");
        }
        kit.wait_for_end(reason, 1);
        assert!(began.elapsed() >= limit, "{reason}: too early");
        let (came, end) = client.rest_and_end();
        if reason == CloseReason::Write {
            // Half an answer must not look like a whole one.
            assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        } else {
            assert_eq!((came.len(), end.is_ok()), (0, true), "{reason}");
        }
    }
}

#[test]
fn a_deadline_that_has_passed_says_which_it_was() {
    let (report, errors) = channel();
    let timeouts = Timeouts { idle: Some(Duration::from_millis(20)), ..Timeouts::NONE };
    let kit = Kit::serve(Config { timeouts, ..Config::default() }, move |mut socket| {
        let error = socket.read(&mut [0]).unwrap_err();
        report.send((Deadline::of(&error), error.kind())).unwrap();
        Err(error)
    });
    let _silent = kit.client();
    let expected = (Some(Deadline::Idle(Duration::from_millis(20))), ErrorKind::TimedOut);
    assert_eq!(errors.recv_timeout(BOUND).unwrap(), expected);
}

#[test]
fn a_byte_now_and_then_does_not_put_off_the_messages_deadline() {
    let timeouts = Timeouts { idle: None, message: Some(Duration::from_millis(300)), write: None };
    let kit = Kit::serve(Config { timeouts, ..Config::default() }, services::lines("", usize::MAX));
    let mut client = kit.client();
    let mut sent = 0;
    while kit.ended(CloseReason::Message) == 0 {
        // The next byte as soon as the last was read: as little silence as there can be.
        if kit.handle().snapshot().bytes_in == sent && client.0.write(b"x").is_ok() {
            sent += 1;
        }
        assert!(sent < 10_000_000, "it goes on for ever");
    }
    assert!(sent > 10, "that was no drip: {sent}");
}

#[test]
fn a_reset_ends_one_connection_and_is_its_reason() {
    let kit = Kit::serve(Config::default(), services::reply(PREFIX));
    let mut other = kit.client();
    other.send("x").expect(format!("{PREFIX}x"));
    let mut between_messages = kit.client();
    between_messages.send("x").expect(format!("{PREFIX}x"));
    between_messages.reset();
    kit.wait_for_end(CloseReason::Reset, 1);

    let mut inside_a_character = kit.client();
    inside_a_character.send(&"안".as_bytes()[..2]);
    wait_until("the server reads it", || (kit.handle().snapshot().bytes_in == 4).then_some(()));
    inside_a_character.reset();
    wait_until("it ends", || (kit.handle().snapshot().now == 1).then_some(()));
    assert_eq!(kit.ended(CloseReason::Reset), 2, "{:?}", kit.handle().snapshot().ended);
    other.send("y").expect(format!("{PREFIX}y"));
}

#[test]
fn data_then_the_reset_then_the_end_always() {
    const TIMES: usize = 100;
    let (report, seen) = channel();
    let kit = Kit::serve(Config::default(), move |mut socket| {
        wait_for_reset(&socket);
        let mut buffer = [0; 100];
        let data = socket.read(&mut buffer).map(|count| buffer[..count].to_vec());
        let reset = socket.read(&mut buffer);
        let end = socket.read(&mut buffer);
        report.send((data, reset.map_err(|error| error.kind()), end)).unwrap();
        Err(ErrorKind::ConnectionReset.into())
    });
    for _ in 0..TIMES {
        let mut client = kit.client();
        client.send("last words");
        client.reset();
        let (data, reset, end) = seen.recv_timeout(BOUND).unwrap();
        assert_eq!(data.unwrap(), b"last words");
        assert_eq!(reset, Err(ErrorKind::ConnectionReset));
        assert_eq!(end.unwrap(), 0);
    }
    kit.wait_for_end(CloseReason::Reset, TIMES as u64);
}

#[test]
fn a_panic_in_a_handler_ends_one_connection_and_is_its_reason() {
    let kit = Kit::serve(Config::default(), |mut socket| {
        let mut word = [0; 5];
        loop {
            socket.read_exact(&mut word)?;
            if &word == b"panic" {
                // Without the message that `panic!` would print.
                std::panic::resume_unwind(Box::new("on purpose"));
            }
            socket.write_all(&word)?;
        }
    });
    let mut other = kit.client();
    other.send("hello").expect("hello");
    let mut unlucky = kit.client();
    unlucky.send("panic");
    assert!(unlucky.rest().is_empty());
    kit.wait_for_end(CloseReason::Panicked, 1);
    other.send("hello").expect("hello");
}

#[test]
fn writing_after_the_end_is_a_broken_pipe_once() {
    let (report, errors) = channel();
    let kit = Kit::serve(Config::default(), move |mut socket| {
        socket.write_all(b"the end")?;
        socket.end()?;
        let error = socket.write_all(b"and one thing more").unwrap_err();
        report.send(error.kind()).unwrap();
        Err(error)
    });
    let mut client = kit.client();
    assert_eq!(client.rest_as_text(), "the end");
    assert_eq!(errors.recv_timeout(BOUND).unwrap(), ErrorKind::BrokenPipe);
    kit.wait_for_end(CloseReason::BrokenPipe, 1);
    kit.stop();
    assert!(errors.recv().is_err(), "it came twice");
}

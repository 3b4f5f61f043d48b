//! Whoever knows Node's `net.Socket` finds here what it promises; and where it surprises, what is better.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use socket_steps::lines::incomplete_character;
use socket_steps::server::Config;
use socket_steps::services;
use socket_steps::socket::{Deadline, Socket, Timeouts};
use socket_steps::stats::CloseReason;
use socket2::SockRef;
use support::kit::Kit;
use support::{BOUND, PREFIX, Server, wait_until};

/// Too much for a connection to hold while nobody reads: most of it waits in the sender.
const LARGE: usize = 4_000_000;

/// Waits until the kernel knows of the other side's reset, without reading.
fn wait_for_reset(socket: &Socket) {
    let stream = socket.connection().stream();
    while poll(&mut [PollFd::new(&**stream, PollFlags::empty())], None).is_err() {}
}

/// Waits until the server has read so many bytes of its only connection.
fn wait_for_bytes(kit: &Kit, count: usize) {
    wait_until("the server reads", || (kit.handle.snapshot().bytes_in == count as u64).then_some(()));
}

/// Writes what the kernel takes while the other side does not read; says how much that was.
fn write_until_full(socket: &Socket) -> io::Result<usize> {
    let stream = socket.connection().stream();
    stream.set_nonblocking(true)?;
    let mut count = 0;
    loop {
        match (&**stream).write(&[b'x'; 10_000]) {
            Ok(written) => count += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    stream.set_nonblocking(false)?;
    Ok(count)
}

#[test]
fn three_writes_may_be_one_piece_and_are_three_lines_all_the_same() {
    let (open_gate, gate) = channel();
    let gate = Mutex::new(gate);
    let lines = services::lines("> ", 100);
    let kit = Kit::serve(move |socket| {
        gate.lock().unwrap().recv().unwrap();
        let merged = socket.connection().stream().bytes_waiting()?;
        assert_eq!(merged, 14, "they did not merge");
        lines(socket)
    });
    let mut client = kit.client();
    client.send("one\n").send("two\n").send("three\n");
    open_gate.send(()).unwrap();
    client.expect("> one\n> two\n> three\n");
}

#[test]
fn a_line_that_comes_byte_by_byte_is_one_line_all_the_same() {
    let kit = Kit::serve(services::lines("> ", 100));
    let mut client = kit.client();
    let line = "안녕\n";
    for (index, byte) in line.bytes().enumerate() {
        wait_for_bytes(&kit, index);
        client.send([byte]);
    }
    client.expect("> 안녕\n");
}

#[test]
fn half_a_character_is_answered_when_its_other_half_has_come() {
    let kit = Kit::serve(services::reply(PREFIX));
    let mut client = kit.client();
    let greeting = "안녕하세요";
    let (first, second) = greeting.as_bytes().split_at(4);
    client.send(first).expect(format!("{PREFIX}안"));
    wait_for_bytes(&kit, 4);
    client.send(second).expect(format!("{PREFIX}녕하세요"));
}

#[test]
fn a_character_that_the_end_has_cut_off_and_bytes_that_are_none_are_told_apart() {
    let cut_off = &"안".as_bytes()[..2];
    let invalid = b"\xff\xec";
    let error_len = |bytes| std::str::from_utf8(bytes).unwrap_err().error_len();
    assert_eq!((error_len(cut_off), incomplete_character(cut_off)), (None, 2));
    assert_eq!((error_len(invalid), incomplete_character(invalid)), (Some(1), 1));

    let kit = Kit::serve(services::reply("> "));
    // What can never become a character is answered at once, what still may is waited for; and at the end
    // every byte has gone back unchanged.
    let mut client = kit.client();
    client.send(invalid).expect(b"> \xff").end();
    assert_eq!(client.rest(), b"> \xec");
    let mut client = kit.client();
    client.send(cut_off).end();
    assert_eq!(client.rest(), [b"> ", cut_off].concat());
}

#[test]
fn a_late_reply_arrives_though_the_client_has_ended_its_half() {
    let kit = Kit::serve(|mut socket| {
        let question = io::read_to_string(&mut socket)?;
        socket.write_all(question.repeat(LARGE / question.len()).as_bytes())
    });
    let mut client = kit.client();
    client.send("question").end();
    assert_eq!(client.rest().len(), LARGE);
    assert_eq!(kit.stop().bytes_out, LARGE as u64);
}

#[test]
fn either_side_can_end_its_half_first_and_go_on_in_the_other_direction() {
    let (report, heard) = channel();
    let kit = Kit::serve(move |mut socket| {
        socket.write_all(b"all that I say")?;
        socket.end()?;
        report.send(io::read_to_string(&mut socket)?).unwrap();
        Ok(())
    });
    let mut client = kit.client();
    assert_eq!(client.rest_as_text(), "all that I say");
    client.send("and I say ").send("much more").end();
    assert_eq!(heard.recv_timeout(BOUND).unwrap(), "and I say much more");
}

#[test]
fn finish_delivers_everything_and_abort_throws_away_what_is_not_sent() {
    let (report, written) = channel();
    let kit = Kit::serve(move |mut socket| {
        let mut verb = [0; 6];
        socket.read_exact(&mut verb)?;
        report.send(write_until_full(&socket)?).unwrap();
        if &verb == b"finish" { socket.finish() } else { socket.abort() }
    });
    let ask = |verb: &str| {
        let mut client = kit.client();
        // Little fits here, so that most has to wait on the server's side.
        SockRef::from(&client.0).set_recv_buffer_size(4096).unwrap();
        client.send(verb);
        (client, written.recv_timeout(BOUND).unwrap())
    };

    let (mut client, written) = ask("finish");
    assert_eq!(client.rest().len(), written);

    let (mut client, written) = ask("abort!");
    kit.wait_for_end(CloseReason::Aborted, 1);
    let (came, end) = client.rest_and_end();
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(came.len() < written, "nothing was thrown away of {written} bytes");
}

#[test]
fn an_abort_is_a_linger_of_zero() {
    let (report, linger) = channel();
    let kit = Kit::serve(move |socket| {
        let stream = Arc::clone(socket.connection().stream());
        socket.abort()?;
        report.send(SockRef::from(&*stream).linger()?).unwrap();
        Ok(())
    });
    let mut client = kit.client();
    assert_eq!(linger.recv_timeout(BOUND).unwrap(), Some(Duration::ZERO));
    assert_eq!(client.rest_and_end().1.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reply_arrives_whole_though_the_clients_input_was_not_read() {
    let (report, unread) = channel();
    let (open_gate, gate) = channel();
    let gate = Mutex::new(gate);
    let kit = Kit::serve(move |mut socket| {
        gate.lock().unwrap().recv().unwrap();
        socket.write_all(&[b'x'; 100_000])?;
        report.send(socket.connection().stream().bytes_waiting()?).unwrap();
        Ok(())
    });
    let mut client = kit.client();
    client.send([b'?'; 20_000]);
    open_gate.send(()).unwrap();
    assert!(unread.recv_timeout(BOUND).unwrap() > 0, "it was read");
    kit.wait_for_end(CloseReason::Closed, 1);
    assert_eq!(client.rest().len(), 100_000);
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
        let kit = Kit::configured(Config { timeouts, ..Config::default() }, move |mut socket| match reason {
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
fn a_byte_now_and_then_does_not_put_off_the_messages_deadline() {
    let timeouts = Timeouts { idle: None, message: Some(Duration::from_millis(300)), write: None };
    let kit = Kit::configured(Config { timeouts, ..Config::default() }, services::lines("", usize::MAX));
    let mut client = kit.client();
    let mut sent = 0;
    while kit.ended(CloseReason::Message) == 0 {
        // The next byte as soon as the last was read: as little silence as there can be.
        if kit.handle.snapshot().bytes_in == sent && client.0.write(b"x").is_ok() {
            sent += 1;
        }
        assert!(sent < 10_000_000, "it goes on for ever");
    }
    assert!(sent > 10, "that was no drip: {sent}");
}

#[test]
fn a_reset_ends_one_connection_and_is_its_reason() {
    let kit = Kit::serve(services::reply(PREFIX));
    let mut other = kit.client();
    other.send("x").expect(format!("{PREFIX}x"));
    let mut between_messages = kit.client();
    between_messages.send("x").expect(format!("{PREFIX}x"));
    between_messages.reset();
    kit.wait_for_end(CloseReason::Reset, 1);

    let mut inside_a_character = kit.client();
    inside_a_character.send(&"안".as_bytes()[..2]);
    wait_for_bytes(&kit, 4);
    inside_a_character.reset();
    wait_until("it ends", || (kit.handle.snapshot().now == 1).then_some(()));
    assert_eq!(kit.ended(CloseReason::Reset), 2, "{:?}", kit.handle.snapshot().ended);
    other.send("y").expect(format!("{PREFIX}y"));
}

#[test]
fn a_panic_in_a_handler_ends_one_connection_and_is_its_reason() {
    let kit = Kit::serve(|mut socket| {
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
fn data_then_the_reset_then_the_end_always() {
    const TIMES: usize = 100;
    let (report, seen) = channel();
    let kit = Kit::serve(move |mut socket| {
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
fn writing_after_the_end_is_a_broken_pipe_once() {
    let (report, errors): (Sender<ErrorKind>, _) = channel();
    let kit = Kit::serve(move |mut socket| {
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

#[test]
fn a_client_that_does_not_read_costs_the_server_no_memory() {
    let server = Server::start(&["--service", "echo", "--write-timeout", "500ms"]);
    let most_memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    };
    let mut client = server.client();
    client.send("x").expect("x");
    let before = most_memory();
    let piece = [b'x'; 100_000];
    let mut sent = 0;
    // The server waits until its answer is taken, so the kernel stops taking ours, and we wait too.
    let end = loop {
        match client.0.write(&piece) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
        assert!(sent < 200_000_000, "nothing held it back");
    };
    assert!(matches!(end.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{end}");
    assert!(sent > 2_000_000, "too little to tell: {sent}");
    let grown = most_memory() - before;
    assert!(grown < 1_000_000, "{grown} bytes more after {sent}");
    server.wait_for_log("ended (write)");
}

#[test]
fn bytes_are_counted_for_each_connection_and_in_total() {
    let kit = Kit::serve(services::lines("> ", 100));
    let mut first = kit.client();
    first.send("four\n").expect("> four\n").end();
    assert!(first.rest().is_empty());
    let mut second = kit.client();
    second.send("안녕\n").expect("> 안녕\n");
    let now = kit.handle.snapshot();
    let open: Vec<_> = now.connections.iter().map(|one| (one.id, one.bytes_in, one.bytes_out)).collect();
    assert_eq!(open, [(2, 7, 9)]);
    assert_eq!((now.bytes_in, now.bytes_out), (5 + 7, 7 + 9));
    let summary = kit.stop();
    assert_eq!((summary.bytes_in, summary.bytes_out), (5 + 7, 7 + 9));
}

#[test]
fn no_delay_and_keep_alive_are_set_as_configured() {
    let options_of = |config: Config| {
        let (report, options) = channel();
        let kit = Kit::configured(config, move |socket| {
            let socket = SockRef::from(&**socket.connection().stream());
            let idle = socket.keepalive()?.then(|| socket.tcp_keepalive_time()).transpose()?;
            report.send((socket.tcp_nodelay()?, idle)).unwrap();
            Ok(())
        });
        let _client = kit.client();
        options.recv_timeout(BOUND).unwrap()
    };
    let with = |no_delay, keep_alive| options_of(Config { no_delay, keep_alive, ..Config::default() });
    assert_eq!(options_of(Config::default()), (true, None));
    assert_eq!(with(false, None), (false, None));
    assert_eq!(with(true, Some(Duration::from_secs(7))), (true, Some(Duration::from_secs(7))));
    // The kernel counts in whole seconds, from 1 to 32,767. What is out of range is not left out in silence.
    assert_eq!(with(true, Some(Duration::from_millis(500))), (true, Some(Duration::from_secs(1))));
    assert_eq!(with(true, Some(Duration::from_millis(1500))), (true, Some(Duration::from_secs(2))));
    assert_eq!(with(true, Some(Duration::MAX)), (true, Some(Duration::from_secs(32_767))));
}

#[test]
fn a_deadline_that_has_passed_says_which_it_was() {
    let (report, errors) = channel();
    let timeouts = Timeouts { idle: Some(Duration::from_millis(20)), ..Timeouts::NONE };
    let kit = Kit::configured(Config { timeouts, ..Config::default() }, move |mut socket| {
        let error = socket.read(&mut [0]).unwrap_err();
        report.send((Deadline::of(&error), error.kind())).unwrap();
        Err(error)
    });
    let _silent = kit.client();
    let expected = (Some(Deadline::Idle(Duration::from_millis(20))), ErrorKind::TimedOut);
    assert_eq!(errors.recv_timeout(BOUND).unwrap(), expected);
}

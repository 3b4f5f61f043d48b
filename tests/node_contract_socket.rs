//! Whoever knows Node's `net.Socket` finds here what it promises of bytes, there and back; and where it
//! surprises, what is better.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{self, ErrorKind, Write};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use socket_steps::lines::incomplete_character;
use socket_steps::server::Config;
use socket_steps::services;
use socket_steps::stats::CloseReason;
use socket2::SockRef;
use support::kit::Kit;
use support::{BOUND, PREFIX, Server, wait_until};

/// Waits until the server has read so many bytes of its only connection.
fn wait_for_bytes(kit: &Kit, count: usize) {
    wait_until("the server reads", || (kit.handle().snapshot().bytes_in == count as u64).then_some(()));
}

#[test]
fn three_writes_may_be_one_piece_and_are_three_lines_all_the_same() {
    let (open_gate, gate) = channel();
    let gate = Mutex::new(gate);
    let lines = services::lines("> ", 100);
    let kit = Kit::serve(Config::default(), move |socket| {
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
    let kit = Kit::serve(Config::default(), services::lines("> ", 100));
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
    let kit = Kit::serve(Config::default(), services::reply(PREFIX));
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

    let kit = Kit::serve(Config::default(), services::reply("> "));
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
    let kit = Kit::serve(Config::default(), |mut socket| {
        let question = io::read_to_string(&mut socket)?;
        socket.write_all(question.repeat(500_000).as_bytes())
    });
    let mut client = kit.client();
    client.send("question").end();
    assert_eq!(client.rest().len(), 4_000_000);
    assert_eq!(kit.stop().bytes_out, 4_000_000);
}

#[test]
fn either_side_can_end_its_half_first_and_go_on_in_the_other_direction() {
    let (report, heard) = channel();
    let kit = Kit::serve(Config::default(), move |mut socket| {
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
fn a_reply_arrives_whole_though_the_clients_input_was_not_read() {
    let (report, unread) = channel();
    let (open_gate, gate) = channel();
    let gate = Mutex::new(gate);
    let kit = Kit::serve(Config::default(), move |mut socket| {
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
    let kit = Kit::serve(Config::default(), services::lines("> ", 100));
    let mut first = kit.client();
    first.send("four\n").expect("> four\n").end();
    assert!(first.rest().is_empty());
    let mut second = kit.client();
    second.send("안녕\n").expect("> 안녕\n");
    // A client may have its answer before the server has counted it.
    let counted = || Some(kit.handle().snapshot()).filter(|now| now.bytes_out == 7 + 9);
    let now = wait_until("the answers are counted", counted);
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
        let kit = Kit::serve(config, move |socket| {
            let socket = SockRef::from(socket.connection().stream());
            let idle = socket.keepalive()?.then(|| socket.tcp_keepalive_time()).transpose()?;
            // As Node asks: ten times, a second apart.
            let asks = (socket.tcp_keepalive_retries()?, socket.tcp_keepalive_interval()?);
            assert!(idle.is_none() || asks == (10, Duration::from_secs(1)), "{asks:?}");
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

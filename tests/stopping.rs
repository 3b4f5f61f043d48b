//! A stop loses nothing: what was written arrives, what has begun is finished, whoever waits is told, and it
//! ends in time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{Read, Write};
use std::sync::mpsc::channel;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use socket_steps::limits;
use socket_steps::server::Config;
use socket_steps::services;
use socket_steps::socket::Socket;
use support::figures::{figure, full};
use support::kit::Kit;
use support::{BOUND, Client, PREFIX, STOPPING, Server, wait_until};

/// Says `line` and waits for its answer, again and again, until the server ends; returns how many bytes came.
/// Anything but whole answers and a clean end is a failure.
fn talk_to_the_end(mut client: Client, line: &str) -> u64 {
    let answer = format!("{PREFIX}{line}");
    let mut received = 0;
    loop {
        // To a server that has ended already, writing is an error. The reading has to be clean all the same.
        let _ = client.0.write_all(line.as_bytes());
        let mut bytes = vec![0; answer.len()];
        let mut count = 0;
        while count < bytes.len() {
            match client.0.read(&mut bytes[count..]).expect("a reset instead of an end") {
                0 => break,
                more => count += more,
            }
        }
        received += count as u64;
        if count == 0 {
            return received;
        }
        assert_eq!(String::from_utf8_lossy(&bytes[..count]), answer);
    }
}

/// How long the server may take to end.
const DRAIN: Duration = Duration::from_secs(5);

#[test]
fn with_hundreds_of_busy_clients_and_50_silent_ones_every_byte_arrives_and_every_end_is_clean() {
    const SILENT: u64 = 50;
    let busy = if full() { 1000 } else { 200 };
    limits::raise_descriptors().unwrap();
    let places = (busy + SILENT).to_string();
    let server = Server::start(&["--service", "lines", "--max-connections", &places]);
    let silent: Vec<Client> = (0..SILENT).map(|_| server.client()).collect();
    let (sender, answered) = channel();
    // They begin together: those who talk already would leave the others no processor to come with.
    let (wait, waiting) = crossbeam_channel::bounded::<()>(0);
    let clients: Vec<_> = (0..busy as usize)
        .map(|number| {
            let (mut client, sender, waiting) = (server.client(), sender.clone(), waiting.clone());
            let line = format!("{}\n", "안녕 ".repeat(1 + number % 50 * 40));
            thread::spawn(move || {
                for _ in 0..2 {
                    client.send(&line).expect(format!("{PREFIX}{line}"));
                    sender.send(()).unwrap();
                    let _ = waiting.recv();
                }
                2 * (PREFIX.len() + line.len()) as u64 + talk_to_the_end(client, &line)
            })
        })
        .collect();
    let all_are_answered = || clients.iter().for_each(|_| answered.recv_timeout(BOUND).unwrap());
    all_are_answered();
    drop(wait);
    all_are_answered();

    let ended = server.stop();
    // A reset is a failure there: the bar's 0.1 % are not needed.
    let received: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.accounts.of("out"), received);
    assert_eq!(ended.accounts.of("served"), busy + SILENT);
    for mut client in silent {
        assert!(client.rest().is_empty());
    }
    assert!(!ended.log.contains("drain deadline has passed"), "{}", ended.log);
    let what = format!("{busy} active, {received} bytes written = received, 0 resets, exit after {:.1?}", ended.took);
    figure("B12", ended.took <= DRAIN + Duration::from_millis(500), what);
    assert!(ended.took < DRAIN + BOUND / 2, "{:?}", ended.took);
}

#[test]
fn a_line_that_has_begun_is_finished_and_the_connection_ends_after_it() {
    let server = Server::start(&["--service", "lines"]);
    let mut client = server.client();
    // The first answer says that the beginning of the second line has been read.
    client.send("one\ntw").expect(format!("{PREFIX}one\n"));
    server.signal(Signal::TERM);
    server.wait_for_log(STOPPING);
    client.send("o\n").expect(format!("{PREFIX}two\n"));
    assert!(client.rest().is_empty());
    drop(client);
    let ended = server.wait();
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_line_is_finished_whose_beginning_nobody_had_read_when_the_stop_came() {
    let (release, released) = channel();
    let released = Mutex::new(released);
    let lines = services::lines(PREFIX, 1000);
    let kit = Kit::serve(Config::default(), move |socket: Socket| {
        released.lock().unwrap().recv_timeout(BOUND).unwrap();
        lines(socket)
    });
    let mut client = kit.client();
    client.send("one\ntw");
    kit.connection();
    kit.handle().stop();
    release.send(()).unwrap();
    client.expect(format!("{PREFIX}one\n"));
    client.send("o\nthree").expect(format!("{PREFIX}two\n"));
    assert!(client.rest().is_empty(), "the line in flight was not the last");
    drop(client);
    assert_eq!(kit.stop().stuck, 0);
}

#[test]
fn answers_that_are_still_on_their_way_arrive_even_if_the_client_says_more() {
    const ANSWER: usize = 1_000_000;
    let kit = Kit::serve(Config::default(), |mut socket: Socket| {
        while socket.read(&mut [0])? > 0 {
            socket.write_all(&[b'x'; ANSWER])?;
        }
        Ok(())
    });
    // The kernel has taken the answer and the handler waits for more: it is idle, and ended by the stop.
    let mut client = Client::with_a_small_window(kit.socket_addr());
    client.send("?");
    kit.wait_until_read(1);
    kit.handle().stop();
    kit.wait_until_empty();
    client.send("?");
    assert_eq!(client.rest().len(), ANSWER);
    assert_eq!(kit.stop().bytes_out, ANSWER as u64);
}

#[test]
fn fifty_clients_in_the_backlog_are_told_and_end_cleanly() {
    let server = Server::start(&["--max-connections", "1", "--when-full", "wait"]);
    let mut served = server.client();
    served.send("mine").expect(format!("{PREFIX}mine"));
    let mut waiting: Vec<Client> = (0..50).map(|_| server.client()).collect();
    // What they say first must not turn their end into a reset.
    for client in &mut waiting {
        client.send("hello");
    }
    server.signal(Signal::TERM);
    for client in &mut waiting {
        let text = client.rest_as_text();
        assert!(text.starts_with("stopping: ") && text.ends_with('\n'), "{text:?}");
    }
    assert!(served.rest().is_empty());
    drop(waiting);
    let ended = server.wait();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!((ended.accounts.of("served"), ended.accounts.of("refused")), (1, 50));
    figure("B12", true, "50 queued: 50 told, each with a clean end");
}

#[test]
fn a_stop_at_the_instant_of_a_message_finishes_the_message_or_has_not_seen_it() {
    const CLIENTS: usize = 8;
    let mut finished = 0;
    for _ in 0..50 {
        let kit = Kit::serve(Config::default(), services::lines(PREFIX, 1000));
        let (at_once, stopped) = (Barrier::new(CLIENTS + 1), Barrier::new(CLIENTS + 1));
        let talk = &|mut client: Client| {
            at_once.wait();
            client.send("one\ntw");
            stopped.wait();
            // Fails if the server has gone already.
            let _ = client.0.write_all(b"o\n");
            client.rest_as_text()
        };
        let answers: Vec<String> = thread::scope(|scope| {
            let start = |client: Client| scope.spawn(move || talk(client));
            let clients: Vec<_> = (0..CLIENTS).map(|_| start(kit.client())).collect();
            wait_until("all are served", || (kit.handle().snapshot().now == CLIENTS as u64).then_some(()));
            at_once.wait();
            kit.handle().stop();
            stopped.wait();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        for answer in answers {
            assert!(answer.is_empty() || answer == format!("{PREFIX}one\n{PREFIX}two\n"), "{answer:?}");
            finished += usize::from(!answer.is_empty());
        }
        assert_eq!(kit.stop().stuck, 0);
    }
    assert!(finished > 0, "no message was in flight");
}

#[test]
fn thirty_stops_leave_nobody_with_half_an_answer() {
    for _ in 0..30 {
        let kit = Kit::serve(Config::default(), services::lines(PREFIX, 1000));
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let client = kit.client();
                thread::spawn(move || talk_to_the_end(client, "a line\n"))
            })
            .collect();
        wait_until("they talk", || (kit.handle().snapshot().bytes_out > 1000).then_some(()));
        let summary = kit.stop();
        let received: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert_eq!((summary.bytes_out, summary.stuck), (received, 0));
    }
}

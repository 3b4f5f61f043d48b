//! However a connection goes wrong, the others notice nothing, and nothing of it stays behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::Write;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use socket_steps::lines::LineBuffer;
use socket_steps::server::Config;
use socket_steps::socket::Socket;
use support::bystanders::{ALL_READY, beside_two_others, threads_and_descriptors};
use support::figures::{figure, full};
use support::kit::{is_to_serve, serve};
use support::{Client, Server, is_standing_still, threads, wait_until};

const RESETS: u64 = 200;
const AT_ONCE: u64 = 20;
const PANICS: u64 = 1000;

/// Brings clients to the point that is meant, and resets them all there. Returns the bytes in and out.
fn reset_in(service: &[&str], talk: impl Fn(&mut Client) + Sync, to_the_point: impl Fn(&mut Client)) -> (u64, u64) {
    let server = Server::start(&[service, &ALL_READY].concat());
    beside_two_others(&server, threads_and_descriptors, talk, || {
        for _ in 0..RESETS / AT_ONCE {
            let new_client = |_| Client::with_a_small_window(server.socket_addr());
            let mut clients: Vec<Client> = (0..AT_ONCE).map(new_client).collect();
            clients.iter_mut().for_each(&to_the_point);
            clients.into_iter().for_each(Client::reset);
            for _ in 0..AT_ONCE {
                server.wait_for_log("ended (reset)");
            }
        }
    });
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.accounts.of("served"), RESETS + 2);
    (ended.accounts.of("in"), ended.accounts.of("out"))
}

fn say_hello(client: &mut Client) {
    client.send("hello\n").expect("hello\n");
}

#[test]
fn connections_without_a_byte() {
    // As many as there are threads ready, when the others have theirs.
    let server = Server::start(&["--service", "echo", "--min-workers", "6", "--max-connections", "6"]);
    beside_two_others(&server, threads_and_descriptors, say_hello, || {
        for _ in 0..25 {
            let mut empty = [(); 4].map(|()| server.client());
            for client in &mut empty {
                assert!(client.end().rest().is_empty(), "nothing was said, and yet there is an answer");
            }
        }
    });
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.accounts.of("served"), 4 * 25 + 2);
    assert_eq!(ended.accounts.of("in"), ended.accounts.of("out"));
}

#[test]
fn resets_before_anything_was_sent() {
    reset_in(&["--service", "echo"], say_hello, |_| {});
}

#[test]
fn resets_before_the_server_has_accepted() {
    let server = Server::start(&["--service", "echo", "--max-connections", "256"]);
    let mut other = server.client();
    say_hello(&mut other);
    // While it stands still, the kernel makes connections for it, and ends them.
    server.signal(Signal::STOP);
    wait_until("the server stands still", || is_standing_still(server.pid()).then_some(()));
    (0..RESETS).map(|_| server.client()).collect::<Vec<_>>().into_iter().for_each(Client::reset);
    server.signal(Signal::CONT);
    for _ in 0..RESETS {
        server.wait_for_log("ended (reset)");
    }
    say_hello(&mut other);
    drop(other);
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!((ended.accounts.of("served"), ended.accounts.of("closed")), (RESETS + 1, RESETS + 1));
}

#[test]
fn resets_between_two_messages() {
    reset_in(&["--service", "echo"], say_hello, say_hello);
}

#[test]
fn resets_in_the_middle_of_a_message() {
    reset_in(&["--service", "lines", "--prefix", ""], say_hello, |client| {
        client.send("hello\nand then").expect("hello\n");
    });
}

#[test]
fn resets_in_the_middle_of_an_answer() {
    // A few newlines make a long answer of a long prefix: more than the kernel takes at once.
    const LINES: usize = 200;
    let prefix = "x".repeat(100_000);
    let talk = |client: &mut Client| assert_eq!(client.send("\n").read(100_001).last(), Some(&b'\n'));
    let began = |client: &mut Client| assert_eq!(client.send("\n".repeat(LINES)).read(1), b"x");
    let (newlines, out) = reset_in(&["--service", "lines", "--prefix", &prefix], talk, began);
    assert!(out < newlines * 100_001, "every answer was complete");
}

#[test]
fn a_thousand_panics_in_a_handler() {
    if is_to_serve("a_thousand_panics_in_a_handler") {
        panic::set_hook(Box::new(|_| eprintln!("panicked on purpose")));
        serve(Config { min_workers: 24, max_connections: 24, ..Config::default() }, echo_lines_or_panic);
    }
    // One of so many panics, and not always the same one.
    let (one_of, began) = (if full() { 10 } else { 2 }, Instant::now());
    let panics = |number| number % one_of == number / one_of * 7 % one_of;
    let server = Server::of_test("a_thousand_panics_in_a_handler");
    let (address, next, connections) = (server.socket_addr(), AtomicU64::new(0), PANICS * one_of);
    let before = threads(server.pid());
    beside_two_others(&server, threads_and_descriptors, say_hello, || {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= connections {
                            return;
                        }
                        let mut client = Client::connect(address);
                        say_hello(&mut client);
                        if panics(number) {
                            client.send("panic\nnever read");
                            assert!(client.rest().is_empty(), "an answer after the panic");
                        } else {
                            client.send(format!("{number}\n")).expect(format!("{number}\n")).end();
                            assert!(client.rest().is_empty());
                        }
                    }
                });
            }
        });
    });
    let after = threads(server.pid());
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.accounts.of("served"), connections + 2);
    assert_eq!(ended.accounts.of("closed"), connections + 2);
    // Said by the panics themselves: of events, a busy machine may drop some.
    assert_eq!(ended.log.matches("panicked on purpose").count() as u64, PANICS, "the fault did not happen");
    assert_eq!(after, before, "threads");
    figure(
        "B14",
        true,
        format_args!(
            "{PANICS} panics in {connections} connections, {:.1?}: the other {} right, and two more throughout; opened = \
             closed = {}; {after} threads, as before",
            began.elapsed(),
            connections - PANICS,
            ended.accounts.of("closed")
        ),
    );
}

fn echo_lines_or_panic(mut socket: Socket) -> std::io::Result<()> {
    let mut lines = LineBuffer::new(100);
    while lines.read_from(&mut socket)? > 0 {
        while let Some(line) = lines.next_line()? {
            assert_ne!(line, b"panic\n", "on purpose");
            socket.write_all(line)?;
        }
    }
    Ok(())
}

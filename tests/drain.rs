//! A stop ends in time: at once where it can, at the drain deadline where it must, and never by waiting for a
//! thread that does not return.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket_steps::server::Config;
use socket_steps::socket::Socket;
use support::figures::{figure, full};
use support::kit::{Kit, is_to_serve, serve};
use support::{Client, PREFIX, STOPPING, Server};

/// Far longer than anything that does not hang takes, and far shorter than what it is compared with.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn every_signal_that_asks_for_an_end_gets_an_orderly_one() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let server = Server::start(&[]);
        let mut client = server.client();
        client.send("hello").expect(format!("{PREFIX}hello"));
        server.signal(signal);
        assert!(client.rest().is_empty());
        let ended = server.wait();
        assert!(ended.status.success(), "{signal:?}: {ended:?}");
        assert_eq!(ended.accounts.of("closed"), 1);
    }
}

/// Sends without a pause until the other side has had enough.
fn send_for_ever(client: &Client) {
    let bytes = b"hello\n".repeat(1000);
    while (&client.0).write_all(&bytes).is_ok() {}
}

#[test]
fn a_client_that_never_pauses_does_not_keep_the_server_from_ending() {
    for service in ["echo", "reply", "lines"] {
        // Far longer than the bound of this test: nobody waits for this deadline.
        let server = Server::start(&["--service", service, "--drain", "120s"]);
        let mut client = server.client();
        let writer = Client(client.0.try_clone().unwrap());
        let writing = thread::spawn(move || send_for_ever(&writer));
        let mut came = client.read(1_000_000).len();
        server.signal(Signal::TERM);
        came += client.rest().len();
        client.0.shutdown(Shutdown::Both).ok();
        let ended = server.wait();
        writing.join().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        assert_eq!(ended.accounts.of("out"), came as u64, "{service}");
    }
}

#[test]
fn a_client_that_takes_no_answers_is_cut_at_the_drain_deadline() {
    let drain = Duration::from_millis(300);
    let server = Server::start(&["--service", "echo", "--drain", "300ms"]);
    let client = Client::with_a_small_window(server.socket_addr());
    client.0.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    // Until nothing goes on any more: the server is in the middle of an answer.
    send_for_ever(&client);
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.log.contains("the drain deadline has passed: cutting 1 connections"), "{}", ended.log);
    assert!(ended.log.contains("ended (cut)"), "{}", ended.log);
    assert!(ended.took >= drain && ended.took < SOON, "{:?}", ended.took);
}

#[test]
fn half_an_answer_at_the_drain_deadline_does_not_look_like_a_whole_one() {
    const ANSWER: usize = 20_000_000;
    let config = Config { drain: Duration::from_millis(300), ..Config::default() };
    let kit = Kit::serve(config, |mut socket: Socket| socket.write_all(&vec![b'x'; ANSWER]));
    let mut client = Client::with_a_small_window(kit.socket_addr());
    // The kernel has taken a part, and the handler waits for room.
    client.read(1);
    let summary = kit.stop();
    assert_eq!((summary.stuck, summary.closed), (0, 1));
    let (bytes, end) = client.rest_and_end();
    assert!(bytes.len() + 1 < ANSWER, "the fault did not happen");
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_line_that_is_not_finished_is_cut_at_the_drain_deadline() {
    let drain = Duration::from_millis(300);
    let server = Server::start(&["--service", "lines", "--drain", "300ms"]);
    let mut client = server.client();
    client.send("one\ntw").expect(format!("{PREFIX}one\n"));
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.log.contains("ended (cut)"), "{}", ended.log);
    assert!(ended.took >= drain && ended.took < SOON, "{:?}", ended.took);
    assert!(client.rest().is_empty(), "an answer to half a line");
}

#[test]
fn handlers_that_never_return_are_counted_and_not_waited_for() {
    const NAME: &str = "handlers_that_never_return_are_counted_and_not_waited_for";
    // At full size, the usual five seconds, and as many as there is room for.
    let (stuck, drain) = if full() { (512, Duration::from_secs(5)) } else { (20, Duration::from_millis(300)) };
    if is_to_serve(NAME) {
        serve(Config { drain, ..Config::default() }, |mut socket: Socket| {
            socket.write_all(b"never again")?;
            loop {
                thread::park();
            }
        });
    }
    let server = Server::of_test(NAME);
    let mut clients: Vec<Client> = (0..stuck).map(|_| server.client()).collect();
    for client in &mut clients {
        client.expect("never again");
    }
    let ended = server.stop();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!((ended.accounts.of("stuck"), ended.accounts.of("closed")), (stuck, 0));
    assert_eq!(ended.log.matches("its handler does not return").count() as u64, stuck, "{}", ended.log);
    assert!(ended.took >= drain && ended.took < SOON, "{:?}", ended.took);
    for client in &mut clients {
        assert!(client.rest().is_empty());
    }
    let late = ended.took - drain;
    figure(
        "B13",
        late <= Duration::from_millis(500),
        format_args!(
            "{stuck} handlers that never return: ended {late:.0?} after the deadline of {drain:?}, status 1, says {stuck}"
        ),
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let options = ["--service", "lines", "--drain", "60s", "--message-timeout", "60s"];
    let mut server = Server::start(&options);
    let mut client = server.client();
    client.send("one\ntw").expect(format!("{PREFIX}one\n"));
    server.signal(Signal::TERM);
    server.wait_for_log(STOPPING);
    let began = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_status().code(), Some(130));
    let took = began.elapsed();
    assert!(took < SOON, "{took:?}");
    figure(
        "B13",
        took <= Duration::from_millis(100),
        format_args!("a second signal, with a drain deadline of 60 s: ended after {took:.1?}, status 130"),
    );
}

//! Connecting again after a failure, and giving up at once when stopped.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use socket_steps::addr::Addr;
use socket_steps::backoff::Backoff;
use socket_steps::client::{Client, RetryPolicy};
use socket_steps::listener::Listener;
use socket_steps::shutdown::StopHandle;
use support::port::Port;
use support::{BOUND, NEVER, wait_until};

fn tries(tries: u32, first: Duration, most: Duration) -> RetryPolicy {
    RetryPolicy { tries, backoff: Backoff::new(first, most) }
}

/// What is logged about failed tries to connect to this address.
fn failed_tries(address: &SocketAddr) -> Vec<String> {
    LOGGED.lock().unwrap().iter().filter(|line| line.contains(&address.to_string())).cloned().collect()
}

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Remember;

impl log::Log for Remember {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target() == "socket_steps::client" {
            LOGGED.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn remember_the_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Remember).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
}

#[test]
fn the_deadline_counts_for_each_try() {
    let hanging = Port::any().hangs();
    let limit = Duration::from_millis(100);
    let retry = tries(3, Duration::from_millis(1), Duration::from_millis(1));
    let began = Instant::now();
    let error = Client::to(&hanging.address.to_string()).within(limit).retry(retry).connect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(began.elapsed() >= 3 * limit, "{:?}", began.elapsed());
}

#[test]
fn it_tries_as_often_as_it_was_told_and_waits_longer_each_time() {
    remember_the_log();
    let nobody = Port::any().refuses();
    let retry = tries(5, Duration::from_millis(20), Duration::from_millis(50));
    let began = Instant::now();
    let error = Client::to(&nobody.address.to_string()).retry(retry).connect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(began.elapsed() >= Duration::from_millis(20 + 40 + 50 + 50));
    let failed = failed_tries(&nobody.address);
    let pauses: Vec<_> = failed.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(pauses, ["20ms", "40ms", "50ms", "50ms"]); // And the fifth failure is the error.
}

#[test]
fn without_being_told_it_tries_once() {
    remember_the_log();
    let nobody = Port::any().refuses();
    let address = nobody.address.to_string();
    Client::to(&address).connect().unwrap_err();
    Client::to(&address).retry(tries(0, NEVER, NEVER)).connect().unwrap_err();
    assert!(failed_tries(&nobody.address).is_empty());
}

#[test]
fn a_server_that_starts_later_is_found_by_trying_again() {
    remember_the_log();
    let port = Port::any().refuses();
    let address = port.address;
    let retry = tries(u32::MAX, Duration::from_millis(5), Duration::from_millis(50));
    let connecting = thread::spawn(move || Client::to(&address.to_string()).retry(retry).connect());
    wait_until("two tries have failed", || (failed_tries(&address).len() >= 2).then_some(()));
    let _port = port.listens();
    wait_until("it connects", || connecting.is_finished().then_some(()));
    assert_eq!(connecting.join().unwrap().unwrap().peer(), &Addr::Tcp(address));
}

#[test]
fn a_mistake_in_the_address_is_explained_and_not_tried_again() {
    let too_long = format!("unix:/{}", "x".repeat(200));
    let cases = [
        ("8080", "the port is missing; write HOST:PORT, such as localhost:8080"),
        ("localhost:8080x", "the port is a number from 0 to 65535; write HOST:PORT"),
        ("localhost:70000", "the port is a number from 0 to 65535; write HOST:PORT"),
        (":8080", "the host is missing; write HOST:PORT"),
        ("::1:8080", "an IPv6 address stands in brackets; write HOST:PORT, such as localhost:8080 or [::1]:8080"),
        ("unix:", "the path is missing"),
        ("unix:a\0b", "a zero byte"),
        (&too_long, "has 201 bytes; a socket's path may have 107 at most"),
    ];
    for (wrong, why) in cases {
        let began = Instant::now();
        let error = Client::to(wrong).retry(tries(2, NEVER, NEVER)).connect().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(began.elapsed() < BOUND, "{wrong}: it was tried again");
    }
}

#[test]
fn a_stop_before_connecting_lets_nobody_knock() {
    let listener = Listener::bind(&Addr::resolve("127.0.0.1:0").unwrap()[0]).unwrap();
    listener.set_nonblocking(true).unwrap();
    let stop = StopHandle::new().unwrap();
    stop.stop();
    let client = Client::to(&listener.local_addr().to_string()).stop_with(stop);
    assert_eq!(client.connect().unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_stop_ends_a_connect_that_hangs() {
    let hanging = Port::any().hangs();
    let stop = StopHandle::new().unwrap();
    let client = Client::to(&hanging.address.to_string()).within(NEVER).stop_with(stop.clone());
    let client = client.retry(tries(9, NEVER, NEVER));
    let connecting = thread::spawn(move || client.connect());
    hanging.wait_for_a_knock();
    stop.stop();
    wait_until("it gives up", || connecting.is_finished().then_some(()));
    assert_eq!(connecting.join().unwrap().unwrap_err().kind(), ErrorKind::Interrupted);
}

#[test]
fn a_stop_ends_the_pause_between_two_tries_of_everyone_who_shares_it() {
    remember_the_log();
    let nobody = [Port::any().refuses(), Port::any().refuses()];
    let stop = StopHandle::new().unwrap();
    let connecting = nobody.each_ref().map(|port| {
        let client = Client::to(&port.address.to_string()).stop_with(stop.clone()).retry(tries(9, NEVER, NEVER));
        thread::spawn(move || client.connect())
    });
    for port in &nobody {
        wait_until("the first try has failed", || (failed_tries(&port.address).len() == 1).then_some(()));
    }
    stop.stop();
    for one in connecting {
        wait_until("it gives up", || one.is_finished().then_some(()));
        assert_eq!(one.join().unwrap().unwrap_err().kind(), ErrorKind::Interrupted);
    }
}

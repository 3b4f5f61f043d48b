//! A server that has nothing to do does nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::thread;
use std::time::{Duration, Instant};

use support::figures::{figure, full};
use support::{Client, PREFIX, Server, cpu_time, wake_ups};

/// Measured over this long. It is not waited for anything here: time itself is what is measured.
fn a_while() -> Duration {
    Duration::from_secs(if full() { 15 } else { 3 })
}

/// At most ten wake-ups a second, and a thousandth of a processor. The kernel counts that in hundredths of a second,
/// and one may be counted for a moment.
fn assert_idle(who: &str, server: &Server) {
    let (began, used, woken) = (Instant::now(), cpu_time(server.pid()), wake_ups(server.pid()));
    thread::sleep(a_while());
    let (used, woken) = (cpu_time(server.pid()) - used, wake_ups(server.pid()) - woken);
    let span = began.elapsed();
    let (most_used, most_woken) = ((span / 1000).max(Duration::from_millis(10)), 10.0 * span.as_secs_f64());
    let held = used <= most_used && woken as f64 <= most_woken;
    let figures = format!("{} ms of processor time and {woken} wake-ups in {span:.0?} with {who}", used.as_millis());
    figure("B24", held, &figures);
    assert!(held, "{figures}");
}

#[test]
fn a_server_without_clients_does_nothing() {
    let server = Server::start(&[]);
    // It has everything ready now, and has had a client.
    let mut client = server.client();
    client.send("hello").expect(format!("{PREFIX}hello")).end();
    assert!(client.rest().is_empty());
    server.wait_for_log("#1 ended");
    assert_idle("nobody", &server);
    assert!(server.stop().status.success());
}

#[test]
fn a_server_with_100_silent_clients_does_nothing() {
    let server = Server::start(&[]);
    let mut clients: Vec<Client> = (0..100).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send("hello").expect(format!("{PREFIX}hello"));
    }
    server.wait_for_log("#100 ");
    assert_idle("100 silent clients", &server);
    // Idle, and all there.
    for client in &mut clients {
        client.send("still here").expect(format!("{PREFIX}still here"));
    }
    assert_eq!(server.stop().accounts.of("served"), 100);
}

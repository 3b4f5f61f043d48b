//! A server with a limit: whoever finds no place is told so or waits, as asked, and nobody is forgotten.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::figures::{figure, full};
use support::{BOUND, Client, PREFIX, Server, cpu_time, has_ipv6, is_standing_still, wait_until};

/// A text that a client is sent instead of an answer: one line, then a clean end.
fn told(client: &mut Client) -> String {
    one_line(client.rest_as_text())
}

fn one_line(text: String) -> String {
    assert_eq!(text.find('\n'), Some(text.len() - 1), "not one line: {text:?}");
    text
}

/// Whether it is answered this line, or is told that there is no place for it.
fn is_served(client: &mut Client, line: &str) -> bool {
    match client.hear(line) {
        Ok(()) => true,
        Err(told) => {
            assert!(one_line(told).contains("try again later"));
            false
        }
    }
}

fn send_hello(clients: &mut [Client]) {
    for client in clients {
        client.send("hello\n");
    }
}

/// How many connections the kernel holds for a listener until it accepts them: what `/proc/net/tcp` calls
/// the receive queue of a socket that listens.
fn backlog(address: SocketAddr) -> usize {
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = fields.into_iter().find(|row| row[1].ends_with(&port) && row[3] == "0A").expect("it listens");
    usize::from_str_radix(row[4].split_once(':').unwrap().1, 16).unwrap()
}

#[test]
fn of_200_clients_8_are_served_and_192_are_told_and_the_8_notice_nothing() {
    let server = Server::start(&["--service", "lines", "--max-connections", "8"]);
    // While the server stands still, all of them connect and send: those who are refused then have input that
    // nobody reads, and a server that closes on it would reset them.
    server.signal(Signal::STOP);
    wait_until("the server stands still", || is_standing_still(server.pid()).then_some(()));
    let mut clients: Vec<Client> = (0..200).map(|_| server.client()).collect();
    send_hello(&mut clients);
    server.signal(Signal::CONT);
    clients.retain_mut(|client| is_served(client, "hello\n"));
    assert_eq!(clients.len(), 8);
    for client in &mut clients {
        client.send("still here\n").expect(format!("{PREFIX}still here\n")).end();
        assert!(client.rest().is_empty());
    }
    let accounts = server.stop().accounts;
    assert_eq!((accounts.of("served"), accounts.of("refused"), accounts.of("failed")), (8, 192, 0));
}

#[test]
fn a_place_that_is_given_back_goes_to_the_next_client() {
    let server = Server::start(&["--service", "lines", "--max-connections", "2"]);
    let mut held = [server.client(), server.client()];
    for client in &mut held {
        assert!(is_served(client.send("mine\n"), "mine\n"));
    }
    assert!(told(&mut server.client()).starts_with("busy: all places are taken (2 of 2)"));
    let [mut leaving, mut staying] = held;
    assert!(leaving.end().rest().is_empty());
    assert!(is_served(server.client().send("now\n"), "now\n"));
    staying.send("still here\n").expect(format!("{PREFIX}still here\n"));
    assert_eq!(server.stop().accounts.of("refused"), 1);
}

#[test]
fn with_wait_nobody_is_refused_and_everybody_is_served_in_the_end() {
    let server = Server::start(&["--service", "lines", "--max-connections", "8", "--when-full", "wait"]);
    let mut clients: Vec<Client> = (0..40).map(|_| server.client()).collect();
    send_hello(&mut clients);
    wait_until("32 clients wait", || (backlog(server.socket_addr()) == 32).then_some(()));
    // In the order in which they came: the kernel's queue is a queue.
    for client in &mut clients {
        assert!(is_served(client, "hello\n"));
        assert!(client.end().rest().is_empty());
    }
    let accounts = server.stop().accounts;
    assert_eq!((accounts.of("served"), accounts.of("refused"), accounts.of("failed")), (40, 0, 0));
}

#[test]
fn with_wait_a_stop_tells_those_who_wait_and_is_not_held_up_by_them() {
    let server = Server::start(&["--service", "lines", "--max-connections", "1", "--when-full", "wait"]);
    let mut held = server.client();
    assert!(is_served(held.send("hello\n"), "hello\n"));
    let mut waiting: Vec<Client> = (0..20).map(|_| server.client()).collect();
    send_hello(&mut waiting);
    wait_until("20 clients wait", || (backlog(server.socket_addr()) == 20).then_some(()));
    let ended = server.stop();
    for client in &mut waiting {
        assert!(told(client).starts_with("stopping: "));
    }
    assert!(held.rest().is_empty());
    assert!(ended.status.success(), "{ended:?}");
    // Far below the drain deadline of 5 s: it did not wait for anyone.
    assert!(ended.took < Duration::from_secs(4), "{:?}", ended.took);
    assert_eq!((ended.accounts.of("served"), ended.accounts.of("refused")), (1, 20));
}

#[test]
fn with_one_place_2000_clients_that_read_to_the_end_and_come_again_are_all_served() {
    let server = Server::start(&["--service", "lines", "--max-connections", "1"]);
    for number in 0..2000 {
        let mut client = server.client();
        client.send(format!("{number}\n")).end();
        assert_eq!(client.rest_as_text(), format!("{PREFIX}{number}\n"));
    }
    let accounts = server.stop().accounts;
    assert_eq!((accounts.of("served"), accounts.of("refused")), (2000, 0));
}

#[test]
fn with_one_place_2000_clients_that_close_and_come_again_at_once_are_all_served() {
    let server = Server::start(&["--service", "lines", "--max-connections", "1"]);
    for number in 0..2000 {
        // Gone without a word: the server has yet to find out when the next one comes.
        server.client().send(format!("{number}\n")).expect(format!("{PREFIX}{number}\n"));
    }
    let accounts = server.stop().accounts;
    assert_eq!((accounts.of("served"), accounts.of("refused")), (2000, 0));
}

#[test]
fn with_one_place_for_each_address_clients_that_close_and_come_again_at_once_are_served() {
    let server = Server::start(&["--service", "lines", "--per-source", "1"]);
    let visit = |number: &usize| is_served(server.client().send(format!("{number}\n")), &format!("{number}\n"));
    let refused = (0..2000).filter(|number| !visit(number)).count();
    // A machine that stands still for longer than the grace costs somebody a place. Without it, 500 are refused.
    assert!(refused < 20, "{refused} were refused");
    assert_eq!(server.stop().accounts.of("refused"), refused as u64);
}

#[test]
fn whoever_hopes_that_its_address_lets_go_of_a_place_costs_next_to_nothing_and_is_told_at_a_stop() {
    let server = Server::start(&["--service", "lines", "--per-source", "1"]);
    let mut held = server.client();
    assert!(is_served(held.send("hello\n"), "hello\n"));
    let used = cpu_time(server.pid());
    let began = Instant::now();
    for _ in 0..20 {
        assert!(told(&mut server.client()).starts_with("busy: your address has"));
    }
    let (used, took) = (cpu_time(server.pid()) - used, began.elapsed());
    assert!(took >= Duration::from_millis(20 * 50), "it was refused before its time: {took:?}");
    assert!(used < took / 4, "{used:?} of processor time in {took:?}");
    let mut hoping: Vec<Client> = (0..10).map(|_| server.client()).collect();
    let ended = server.stop();
    for client in &mut hoping {
        let text = told(client);
        assert!(text.starts_with("stopping: ") || text.starts_with("busy: your address has"), "{text:?}");
    }
    assert_eq!(ended.accounts.of("refused"), 30);
}

/// The address beside the one from which everybody else comes.
const ANOTHER: [u8; 4] = [127, 0, 0, 2];

#[test]
fn one_greedy_address_cannot_take_every_place() {
    let server = Server::start(&["--service", "lines", "--max-connections", "8", "--per-source", "5"]);
    let mut greedy: Vec<Client> = (0..20).map(|_| server.client()).collect();
    for client in &mut greedy[..5] {
        assert!(is_served(client.send("hello\n"), "hello\n"));
    }
    for client in &mut greedy[5..] {
        assert!(told(client).starts_with("busy: your address has as many connections"));
    }
    let mut other = Client::from(ANOTHER, server.socket_addr());
    assert!(is_served(other.send("me too\n"), "me too\n"));
    // A place that the greedy address gives back, it may take again.
    assert!(greedy[0].end().rest().is_empty());
    assert!(is_served(server.client().send("again\n"), "again\n"));
    assert_eq!(server.stop().accounts.of("refused"), 15);
}

#[test]
fn whoever_comes_from_another_address_is_served_at_once_while_a_greedy_one_never_lets_up() {
    let healthy = if full() { 1000 } else { 50 };
    let server = Server::start(&["--service", "lines", "--max-connections", "128", "--per-source", "64"]);
    let mut held: Vec<Client> = (0..64).map(|_| server.client()).collect();
    for client in &mut held {
        assert!(is_served(client.send("hello\n"), "hello\n"));
    }
    let (address, began) = (server.socket_addr(), Instant::now());
    let (over, tries) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut took: Vec<Duration> = thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) && began.elapsed() < BOUND {
                    assert!(told(&mut Client::connect(address)).starts_with("busy: your address has"));
                    tries.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        wait_until("it tries for more", || (tries.load(Ordering::SeqCst) > 100).then_some(()));
        let visit = |_| {
            let came = Instant::now();
            let mut other = Client::from(ANOTHER, address);
            let served = is_served(other.send("me too\n"), "me too\n");
            (served, came.elapsed())
        };
        let visits: Vec<(bool, Duration)> = (0..healthy).map(visit).collect();
        over.store(true, Ordering::SeqCst);
        assert!(visits.iter().all(|visit| visit.0), "refused, because of somebody else");
        visits.into_iter().map(|visit| visit.1).collect()
    });
    let tries = tries.into_inner();
    assert!(tries > healthy, "it has let up");
    took.sort();
    let (p99, slowest) = (took[healthy * 99 / 100], took[healthy - 1]);
    figure(
        "B10",
        slowest <= Duration::from_millis(200),
        format_args!(
            "one address holds its 64 places and was refused {tries} times; {healthy} of {healthy} clients from \
             another were answered, p99 {p99:.1?}, the slowest after {slowest:.1?}"
        ),
    );
    assert_eq!(server.stop().accounts.of("refused"), tries as u64);
}

#[test]
fn ipv4_in_ipv6s_clothes_counts_as_the_same_address() {
    if !has_ipv6() {
        return;
    }
    // To a socket of IPv6, a client of 127.0.0.1 is one of ::ffff:127.0.0.1.
    let server = Server::listening_on("[::ffff:127.0.0.1]:0", &["--listen", "127.0.0.1:0", "--per-source", "1"]);
    let mut dressed = server.client();
    assert!(is_served(dressed.send("hello\n"), "hello\n"));
    let connected = server.wait_for_log("#1 ");
    assert!(connected.contains(" 127.0.0.1:"), "not canonical: {connected}");
    let mut server = server;
    let plain = server.next_line().unwrap();
    let plain = plain.strip_prefix("listening on ").expect("a second address").parse().unwrap();
    assert!(told(&mut Client::connect(plain)).starts_with("busy: your address has"));
    drop(dressed);
    assert!(server.stop().status.success());
}

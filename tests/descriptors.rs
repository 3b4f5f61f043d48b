//! When descriptors run out under a running server, it neither spins nor falls silent, and it recovers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use support::figures::{figure, full};
use support::{Client, PREFIX, Server, cpu_time, descriptors, limit_descriptors, wait_until};

/// Over how long its quiet is measured.
fn a_while() -> Duration {
    Duration::from_millis(if full() { 10_000 } else { 2500 })
}

/// What it complains of when it cannot accept, and what it says of the first time.
const NEXT_TRY: &str = "cannot accept, next try in ";
const AFTER_THE_SHORTEST_PAUSE: &str = "next try in 5ms: ";

const BUSY: &str = "busy: no descriptors are left, try again later\n";

/// The limit below which the server has so many numbers for descriptors left.
fn limit_that_leaves(server: &Server, free: usize) -> Option<u64> {
    let numbers = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let taken: HashSet<u64> =
        numbers.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    (0..).filter(|number| !taken.contains(number)).nth(free)
}

/// Takes places until a client is told that there are no more.
fn take_every_descriptor(server: &Server) -> Vec<Client> {
    let mut held = Vec::new();
    loop {
        let mut client = server.client();
        client.send("hello\n");
        // The prefix, too, has as many bytes. (The rest may be a reset: there is no descriptor to say goodbye with.)
        if client.read("busy:".len()) == b"busy:" {
            return held;
        }
        client.read(format!("{PREFIX}hello\n").len() - "busy:".len());
        held.push(client);
    }
}

/// Waits until the while is over, which began with that much processor time used, and checks that less than
/// a twentieth of it was worked. Nothing can be waited for here but time: it is what is measured. Returns the
/// share of a core, in percent.
fn assert_quiet(server: &Server, began: Instant, used: Duration) -> f64 {
    thread::sleep(a_while().saturating_sub(began.elapsed()));
    let (used, elapsed) = (cpu_time(server.pid()) - used, began.elapsed());
    assert!(used < elapsed / 20, "{used:?} of processor time in {elapsed:?}");
    100.0 * used.as_secs_f64() / elapsed.as_secs_f64()
}

/// How many complaints there may be in a second.
const MOST_COMPLAINTS: f64 = 2.0;

/// How many complaints a second there are among these lines of the log, about what was wrong for so long. No more than
/// two, and one of each kind to begin with.
fn assert_few_complaints(log: &[String], elapsed: Duration) -> f64 {
    let complaints = log.iter().filter(|line| line.contains("WARN") || line.contains("ERROR")).count() as f64;
    let seconds = elapsed.as_secs_f64();
    assert!(complaints > 0.0, "it does not say what is wrong");
    assert!(complaints <= 2.0 + MOST_COMPLAINTS * seconds, "in {elapsed:?}: {log:?}");
    complaints / seconds
}

#[test]
fn without_descriptors_newcomers_are_told_at_little_cost_and_all_is_well_when_there_are_some_again() {
    let server = Server::start(&["--service", "lines"]);
    // Once a client is served, everything that the server needs for itself is open.
    let mut first = server.client();
    first.say_hello();
    let at_first = descriptors(server.pid()) - 1;
    limit_descriptors(&server, limit_that_leaves(&server, 23));
    let began = Instant::now();
    let mut held = take_every_descriptor(&server);
    assert_eq!(held.len(), 23);
    held.push(first);

    let used = cpu_time(server.pid());
    // All at once, and then one after another.
    let came = Instant::now();
    let mut refused: Vec<Client> = (0..100).map(|_| server.client()).collect();
    for client in &mut refused {
        assert_eq!(client.rest_as_text(), BUSY);
    }
    let all_closed = came.elapsed();
    let closed_after = |_| {
        let came = Instant::now();
        assert_eq!(server.client().rest_as_text(), BUSY);
        came.elapsed()
    };
    let one_closed = (0..50).map(closed_after).max().unwrap();
    let share = assert_quiet(&server, began, used);
    let elapsed = began.elapsed();
    let complaints = assert_few_complaints(&server.new_log_lines(), elapsed);
    held.iter_mut().for_each(Client::say_hello);

    let released = Instant::now();
    drop(held);
    wait_until("the server lets go of them", || (descriptors(server.pid()) == at_first).then_some(()));
    let mut clients: Vec<Client> = (0..20).map(|_| server.client()).collect();
    clients.iter_mut().for_each(Client::say_hello);
    let recovered = released.elapsed();
    drop(clients);
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!((ended.accounts.of("served"), ended.accounts.of("refused")), (24 + 20, 151));
    let are_soon_closed = all_closed.max(one_closed) <= Duration::from_millis(200);
    figure(
        "B7",
        share < 5.0 && complaints <= MOST_COMPLAINTS && are_soon_closed && recovered <= Duration::from_secs(1),
        format_args!(
            "none left: {share:.1} % of a core over {elapsed:.1?}, {complaints:.1} log lines a second; 100 extra \
             clients at once were told and closed in {all_closed:.1?}, 50 one after another in {one_closed:.1?} each \
             at most; 20 of 20 served {recovered:.1?} after the release"
        ),
    );
}

#[test]
fn without_even_the_spare_descriptor_newcomers_wait_at_little_cost_and_are_served_when_there_are_some_again() {
    let server = Server::start(&["--service", "lines"]);
    let mut first = server.client();
    first.say_hello();
    // So low that what is given up cannot be had again.
    limit_descriptors(&server, Some(3));
    let (began, used) = (Instant::now(), cpu_time(server.pid()));
    let mut waiting: Vec<Client> = (0..20).map(|_| server.client()).collect();
    let first_complaint = server.wait_for_log(NEXT_TRY);
    assert!(first_complaint.contains(AFTER_THE_SHORTEST_PAUSE), "{first_complaint}");
    let share = assert_quiet(&server, began, used);
    let elapsed = began.elapsed();
    let complaints = assert_few_complaints(&[vec![first_complaint], server.new_log_lines()].concat(), elapsed);

    let released = Instant::now();
    limit_descriptors(&server, None);
    waiting.iter_mut().for_each(Client::say_hello);
    let recovered = released.elapsed();
    // It has a spare one again: the next time, newcomers are told.
    limit_descriptors(&server, limit_that_leaves(&server, 0));
    assert!(take_every_descriptor(&server).is_empty());
    // And when even that one is gone again, the pauses begin anew: it has served somebody since. Only time lets it
    // complain about the first of them: it does so once a second.
    thread::sleep(Duration::from_secs(1));
    limit_descriptors(&server, Some(3));
    let mut waits = server.client();
    let complaint = server.wait_for_log(NEXT_TRY);
    assert!(complaint.contains(AFTER_THE_SHORTEST_PAUSE), "{complaint}");
    limit_descriptors(&server, None);
    waits.say_hello();
    drop((waiting, waits));
    let ended = server.stop();
    assert_eq!((ended.accounts.of("served"), ended.accounts.of("refused")), (22, 1));
    figure(
        "B7",
        share < 5.0 && complaints <= MOST_COMPLAINTS && recovered <= Duration::from_secs(1),
        format_args!(
            "not even the spare one: {share:.1} % of a core over {elapsed:.1?}, {complaints:.1} log lines a second; \
             the 20 in the backlog served {recovered:.1?} after the release"
        ),
    );
}

//! Thousands who are connected and say nothing cost little, nobody notices them, and when they have gone the server
//! is what it was before they came.

use std::thread;
use std::time::{Duration, Instant};

use socket_steps::limits;

use crate::support::figures::{figure, full, lacks};
use crate::support::{Client, PREFIX, Server, descriptors, resident, threads, wait_until, wake_ups};
use crate::tail::{Tail, figure_of_times, stay_on_one_processor};

/// One connection's share of the server's resident memory may be so many KiB.
const MOST_EACH: f64 = 20.0;

/// How much longer the p99 of somebody active may be among them.
const MOST_SLOWER: f64 = 1.2;

/// How often a second the threads of a server may be woken among whose clients nobody speaks.
const MOST_WOKEN: f64 = 10.0;

/// That is looked at for so long. It is not waited for anything here: time itself is what is measured.
const A_WHILE: Duration = Duration::from_secs(1);

/// How much more memory the second crowd may take than the first.
const MOST_ADDED: f64 = 0.05;

/// If nothing were given back, it would be more than this, for a small crowd, too.
const A_LEAK: f64 = 0.2;

/// The server of a crowd of as many as the bar asks for, if this machine holds so many, and how many those are.
fn server_for_a_crowd(row: &str) -> (Server, usize) {
    let wanted = if full() { 10_000 } else { 200 };
    limits::raise_descriptors().unwrap();
    // The same for this process and the server, and each has a descriptor for each connection.
    let limit = limits::tightest();
    let (others, size) = (16, wanted.min(limit.connections - 16));
    if size < wanted {
        lacks(row, "room", format_args!("{wanted} connections do not fit: {limit}; with {size}:"));
    }
    // Nobody is to leave before it is time.
    let places = (size + others).to_string();
    let server = Server::start(&["--max-connections", &places, "--idle-timeout", "10m"]);
    // It has everything ready now, and has had a client.
    let mut client = server.client();
    client.send("hello").expect(format!("{PREFIX}hello")).end();
    assert!(client.rest().is_empty());
    server.wait_for_log("#1 ended");
    (server, size)
}

/// So many clients, each of whom has been answered once.
fn crowd(server: &Server, size: usize) -> Vec<Client> {
    let mut crowd: Vec<Client> = (0..size).map(|_| server.client()).collect();
    ask(&mut crowd);
    assert!(descriptors(server.pid()) > size && threads(server.pid()) > size, "they are all there at once");
    crowd
}

/// Asks each of them once.
fn ask(crowd: &mut [Client]) {
    for some in crowd.chunks_mut(100) {
        for client in &mut *some {
            client.send("hello");
        }
        for client in some {
            client.expect(format!("{PREFIX}hello"));
        }
    }
}

fn held_by(server: &Server) -> (usize, usize) {
    (threads(server.pid()), descriptors(server.pid()))
}

fn wait_for_descriptors(server: &Server, before: (usize, usize)) {
    wait_until("the descriptors are closed", || (descriptors(server.pid()) == before.1).then_some(()));
}

/// Waits until the server holds what it held before, and says how long that took. Threads without work wait some
/// seconds for more.
fn wait_for_calm(server: &Server, before: (usize, usize)) -> Duration {
    let began = Instant::now();
    wait_for_descriptors(server, before);
    wait_until("the threads end", || (threads(server.pid()) == before.0).then_some(()));
    assert_eq!(held_by(server), before);
    began.elapsed()
}

#[test]
fn ten_thousand_who_are_silent_cost_little_and_one_who_is_not_does_not_notice_them() {
    stay_on_one_processor();
    let (server, size) = server_for_a_crowd("B1");
    // Asked in turn with the other, so that whatever else this machine does befalls both.
    let deserted = Server::start(&[]);
    let (mut before, mut among, mut alone) = (Tail::default(), Tail::default(), Tail::default());
    let (rounds, attempts) = if full() { (15, 3) } else { (2, 1) };
    (0..rounds).for_each(|_| before.measure(&server, 1));

    let memory = resident(server.pid());
    let mut crowd = crowd(&server, size);
    let each = (resident(server.pid()) - memory) as f64 / size as f64;
    // On a busy machine, it takes more rounds to have a quiet one.
    let mut slower = f64::INFINITY;
    for _ in 0..attempts {
        if slower > MOST_SLOWER {
            for _ in 0..rounds {
                among.measure(&server, 1);
                alone.measure(&deserted, 1);
            }
            slower = among.quietest() / alone.quietest().min(before.quietest());
        }
    }
    // Not even now and then, between two rounds, does the crowd make work.
    let (began, woken) = (Instant::now(), wake_ups(server.pid()));
    thread::sleep(A_WHILE);
    let woken = (wake_ups(server.pid()) - woken) as f64 / began.elapsed().as_secs_f64();
    // Idle, and all there.
    ask(&mut crowd);

    let times = format!("p99 × {slower:.2}: {among} among them, {alone} alone, {before} before");
    let figures = format!("{size} idle: {each:.1} KiB each, {woken:.1} wake-ups a second; {times}; on one processor");
    figure_of_times("B1", each <= MOST_EACH && slower <= MOST_SLOWER && woken <= MOST_WOKEN, &alone, &figures);
    assert!(each <= MOST_EACH && woken <= MOST_WOKEN, "{figures}");
    assert!(server.stop().accounts.of("served") > size as u64);
    assert!(deserted.stop().status.success());
}

#[test]
fn what_a_crowd_has_taken_is_given_back_and_the_next_crowd_takes_no_more() {
    let (server, size) = server_for_a_crowd("B2");
    let before = held_by(&server);
    let (mut there, mut after, mut calm) = (Vec::new(), Vec::new(), Duration::ZERO);
    for round in 1..=2 {
        let crowd = crowd(&server, size);
        there.push(resident(server.pid()));
        drop(crowd);
        wait_for_descriptors(&server, before);
        if full() || round == 2 {
            calm = wait_for_calm(&server, before);
        }
        after.push(resident(server.pid()));
    }
    let added = |memory: &[u64]| memory[1] as f64 / memory[0] as f64 - 1.0;
    let (more_there, more_after) = (added(&there), added(&after));
    let what = format!("{size} twice: after {calm:.1?}, {} threads and {} descriptors as before", before.0, before.1);
    let memory = format!("{} MiB with them and {:+.1} % the second time", there[0] / 1024, more_there * 100.0);
    let left = format!("{} MiB after them and {:+.1} %", after[0] / 1024, more_after * 100.0);
    figure("B2", more_there.max(more_after) <= MOST_ADDED, format_args!("{what}; {memory}; {left}"));
    assert!(more_there.max(more_after) <= A_LEAK, "{memory}; {left}");
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.accounts.of("served"), 2 * size as u64 + 1);
}

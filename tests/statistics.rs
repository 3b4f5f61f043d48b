//! The central stats thread: it is told of everyone who comes and goes, and the server never waits for it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket_steps::addr::Addr;
use socket_steps::connection::State;
use socket_steps::server::{Config, Handle, Server, Summary};
use socket_steps::services;
use socket_steps::stats::{CloseReason, Event, Snapshot};
use support::figures::{figure, full};
use support::{BOUND, Client, PREFIX, resident, wait_until};

/// A server in this process, which serves lines.
struct Running {
    handle: Handle,
    serving: JoinHandle<Summary>,
}

impl Running {
    fn start(config: Config, observer: impl Fn(&Event) + Send + 'static) -> Running {
        let server = Server::bind_observed(["127.0.0.1:0"], config, observer).unwrap();
        let handle = server.handle();
        Running { handle, serving: thread::spawn(|| server.serve(services::lines(PREFIX, 1000))) }
    }

    /// Also returns what the observer is told.
    fn observed(config: Config) -> (Running, Receiver<Event>) {
        let (sender, events) = channel();
        // The test may have ended.
        (Running::start(config, move |event| drop(sender.send(event.clone()))), events)
    }

    fn address(&self) -> SocketAddr {
        match &self.handle.local_addrs()[0] {
            Addr::Tcp(address) => *address,
            other => panic!("not an address of TCP: {other}"),
        }
    }

    fn client(&self) -> Client {
        Client::connect(self.address())
    }

    fn stop(self) -> Summary {
        self.handle.stop();
        self.serving.join().unwrap()
    }
}

fn is_served(client: &mut Client) {
    client.send("hello\n").expect(format!("{PREFIX}hello\n"));
}

/// A whole conversation, to the clean end.
fn comes_and_goes(mut client: Client) {
    is_served(&mut client);
    assert!(client.end().rest().is_empty());
}

fn ended(snapshot: &Snapshot) -> u64 {
    snapshot.ended.values().sum()
}

fn local(client: &Client) -> Addr {
    Addr::Tcp(client.0.local_addr().unwrap())
}

#[test]
fn every_connect_and_disconnect_is_told_and_in_order() {
    let (server, events) = Running::observed(Config::default());
    for number in 1..=3 {
        let client = server.client();
        let address = local(&client);
        comes_and_goes(client);
        match events.recv_timeout(BOUND).unwrap() {
            Event::Connected { id, peer } => assert_eq!((id, peer), (number, address)),
            other => panic!("{other:?}"),
        }
        match events.recv_timeout(BOUND).unwrap() {
            Event::Disconnected { id, reason, bytes_in, bytes_out, .. } => {
                assert_eq!((id, reason, bytes_in, bytes_out), (number, CloseReason::Finished, 6, 21));
            }
            other => panic!("{other:?}"),
        }
    }
    server.stop();
    assert!(events.try_recv().is_err(), "more was told than has happened");
}

#[test]
fn nobody_is_told_to_have_gone_before_having_come() {
    let (server, events) = Running::observed(Config::default());
    let address = server.address();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..25).for_each(|_| comes_and_goes(Client::connect(address))));
        }
    });
    server.stop();
    let mut open = BTreeMap::new();
    for event in events.try_iter() {
        match event {
            Event::Connected { id, .. } => assert_eq!(open.insert(id, true), None),
            Event::Disconnected { id, .. } => assert_eq!(open.insert(id, false), Some(true)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(open.len(), 200);
    assert!(open.values().all(|is_open| !is_open));
}

#[test]
fn whoever_is_turned_away_is_told_with_the_text() {
    let config = Config { max_connections: 1, ..Config::default() };
    let (server, events) = Running::observed(config);
    let mut held = server.client();
    is_served(&mut held);
    assert!(matches!(events.recv_timeout(BOUND).unwrap(), Event::Connected { id: 1, .. }));
    let mut client = server.client();
    let told = client.rest_as_text();
    match events.recv_timeout(BOUND).unwrap() {
        Event::Refused { peer, text } => assert_eq!((peer, format!("{text}\n")), (local(&client), told)),
        other => panic!("{other:?}"),
    }
    let snapshot = server.handle.snapshot();
    assert_eq!((snapshot.accepted, snapshot.served, snapshot.refused, snapshot.now), (2, 1, 1, 1));
    server.stop();
}

#[test]
fn a_snapshot_shows_who_is_there_and_how_the_others_have_ended() {
    let (server, _events) = Running::observed(Config::default());
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    // One after another, so that their numbers are in order.
    for client in &mut clients {
        is_served(client);
    }
    clients[2].send("half a line");
    let rows = |snapshot: &Snapshot| {
        let rows = snapshot.connections.iter();
        rows.map(|one| (one.peer.clone(), one.state, one.bytes_in, one.bytes_out)).collect::<Vec<_>>()
    };
    let row = |client: &Client, state, bytes_in| (local(client), state, bytes_in, 21);
    let expected = vec![
        row(&clients[0], State::Idle, 6),
        row(&clients[1], State::Idle, 6),
        row(&clients[2], State::Active, 17),
        row(&clients[3], State::Idle, 6),
    ];
    wait_until("the half line has arrived, and the others wait", || {
        (rows(&server.handle.snapshot()) == expected).then_some(())
    });
    let snapshot = server.handle.snapshot();
    assert_eq!((snapshot.now, snapshot.peak, snapshot.accepted, snapshot.served), (4, 4, 4, 4));
    assert_eq!((snapshot.bytes_in, snapshot.bytes_out), (35, 84));
    assert_eq!((ended(&snapshot), snapshot.events_dropped), (0, 0));
    // More threads than connections there may be, but not fewer.
    assert!(snapshot.threads >= 4);
    assert_eq!(snapshot.connections.iter().map(|one| one.id).collect::<Vec<_>>(), [1, 2, 3, 4]);

    // One finishes, one is rejected, one resets, one stays.
    let stays = clients.pop().unwrap();
    let [mut finishes, mut rejected, resets] = <[Client; 3]>::try_from(clients).unwrap();
    assert!(finishes.end().rest().is_empty());
    assert!(rejected.send("x".repeat(1001)).rest_as_text().starts_with("too long: "));
    resets.reset();
    let snapshot = wait_until("three have ended", || {
        let snapshot = server.handle.snapshot();
        (ended(&snapshot) == 3).then_some(snapshot)
    });
    let expected = [CloseReason::Finished, CloseReason::Reset, CloseReason::Rejected].map(|reason| (reason, 1));
    assert_eq!(snapshot.ended, BTreeMap::from(expected));
    assert_eq!((snapshot.now, snapshot.peak), (1, 4));
    assert_eq!(rows(&snapshot), [row(&stays, State::Idle, 6)]);
    // Of those who have gone, every byte is still counted.
    assert_eq!((snapshot.bytes_in, snapshot.served), (35 + 1001, 4));
    server.stop();
}

/// How many events wait for the observer at most.
const QUEUE: u64 = 4096;

/// What clients that come one after another notice.
struct Noticed {
    clients: u64,
    /// The longest time from one that is served to the next.
    gap: Duration,
    /// The longest, but for what the threads have spent in waiting for a processor.
    own_gap: Duration,
    /// Kibibytes more memory afterwards.
    grown: u64,
}

/// How long the threads of this process could have run and had no processor, together (see proc(5), `schedstat`).
fn waited_for_a_processor() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // One that ends while we look has no file any more.
    let waited = tasks.filter_map(|task| {
        let times = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        times.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    Duration::from_nanos(waited.sum())
}

/// Lets clients come, one after another, until there were more than the queue can hold, and for this long.
fn clients_come(server: &Running, for_at_least: Duration) -> Noticed {
    const FEW: u64 = 2500;
    let before = resident(std::process::id());
    let began = Instant::now();
    let (mut last, mut waited) = (began, waited_for_a_processor());
    let mut noticed = Noticed { clients: 0, gap: Duration::ZERO, own_gap: Duration::ZERO, grown: 0 };
    while noticed.clients < FEW || began.elapsed() < for_at_least {
        let mut client = server.client();
        is_served(&mut client);
        // A thousand a second, ended in good order, would leave no port to come from.
        client.reset();
        let gap = last.elapsed();
        let waited_before = std::mem::replace(&mut waited, waited_for_a_processor());
        noticed.clients += 1;
        noticed.gap = noticed.gap.max(gap);
        noticed.own_gap = noticed.own_gap.max(gap.saturating_sub(waited.saturating_sub(waited_before)));
        last = Instant::now();
    }
    noticed.grown = resident(std::process::id()).saturating_sub(before);
    wait_until("all have left", || (server.handle.snapshot().now == 0).then_some(()));
    noticed
}

/// The figure of the bar. What a busy machine adds to it is not the server's.
fn say(how: &str, noticed: &Noticed, books: &str) {
    let Noticed { clients, gap, own_gap, grown } = noticed;
    let is_held = *own_gap <= Duration::from_millis(10) && *grown <= 1024;
    let gap = format!("accept gap {own_gap:.1?} ({gap:.1?} with the waiting for a processor)");
    figure("B15", is_held, format!("{how}: {gap}, {grown} KiB more memory, {clients} clients: {books}"));
}

/// How long the statistics stand still, at least.
fn stall() -> Duration {
    Duration::from_secs(if full() { 10 } else { 0 })
}

#[test]
fn an_observer_that_stalls_holds_up_nobody_and_what_it_misses_is_counted() {
    let (release, stalled) = channel::<()>();
    let counted = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&counted);
    let server = Running::start(Config::default(), move |_| {
        // Returns when the sender is dropped, and at once from then on.
        let _ = stalled.recv();
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let noticed = clients_come(&server, stall());
    let clients = noticed.clients;
    // What must be exact does not depend on the stats thread, and asking does not wait for it for long.
    let snapshot = server.handle.snapshot();
    assert_eq!((snapshot.accepted, snapshot.served, snapshot.now), (clients, clients, 0));
    assert!(snapshot.events_dropped > 0, "the fault did not happen");
    assert_eq!((counted.load(Ordering::SeqCst), ended(&snapshot)), (0, 0));

    drop(release);
    let seen = |snapshot: &Snapshot| counted.load(Ordering::SeqCst) + snapshot.events_dropped;
    let snapshot = wait_until("it catches up", || {
        let snapshot = server.handle.snapshot();
        (seen(&snapshot) == 2 * clients).then_some(snapshot)
    });
    // No more was kept for it than its queue can hold, and the event that it was stalled in.
    let counted = counted.load(Ordering::SeqCst);
    assert!(counted <= QUEUE + 1, "{counted} events were kept");
    assert!(ended(&snapshot) <= counted);
    let summary = server.stop();
    assert_eq!((summary.accepted, summary.served, summary.closed), (clients, clients, clients));
    let dropped = snapshot.events_dropped;
    say("stalled", &noticed, &format!("{counted} events counted + {dropped} dropped = all"));
}

#[test]
fn an_observer_that_never_returns_holds_up_nobody_and_not_the_stop() {
    let (sender, called) = channel();
    let (_never, stalled) = channel::<()>();
    let server = Running::start(Config::default(), move |_| {
        let _ = sender.send(());
        let _ = stalled.recv();
    });
    let noticed = clients_come(&server, stall());
    called.recv_timeout(BOUND).expect("the fault did not happen");
    let clients = noticed.clients;
    let dropped = server.handle.snapshot().events_dropped;
    // As many as wait, and the one that it never returns from.
    assert_eq!(dropped + QUEUE + 1, 2 * clients);
    let began = Instant::now();
    let summary = server.stop();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!((summary.served, summary.closed), (clients, clients));
    say("dead", &noticed, &format!("{} events kept + {dropped} dropped = all", QUEUE + 1));
}

/// A panic that goes on when it is over: what was thrown panics once more in being dropped.
struct Relentless;

impl Drop for Relentless {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("on purpose, once more"));
    }
}

#[test]
fn an_observer_whose_panic_panics_again_does_not_kill_the_statistics() {
    let server = Running::start(Config::default(), |_| std::panic::resume_unwind(Box::new(Relentless)));
    for _ in 0..100 {
        comes_and_goes(server.client());
    }
    let snapshot = wait_until("all is counted", || {
        let snapshot = server.handle.snapshot();
        (ended(&snapshot) + snapshot.events_dropped >= 100).then_some(snapshot)
    });
    assert_eq!((snapshot.served, snapshot.now, ended(&snapshot), snapshot.events_dropped), (100, 0, 100, 0));
    assert!(server.stop().is_clean());
}

#[test]
fn an_observer_that_panics_holds_up_nobody_and_the_counting_goes_on() {
    let server = Running::start(Config::default(), |_| std::panic::resume_unwind(Box::new("on purpose")));
    for _ in 0..100 {
        comes_and_goes(server.client());
    }
    let mut stays = server.client();
    is_served(&mut stays);
    let snapshot = wait_until("all is counted", || {
        let snapshot = server.handle.snapshot();
        (ended(&snapshot) + snapshot.events_dropped >= 100).then_some(snapshot)
    });
    assert_eq!((snapshot.served, snapshot.now, ended(&snapshot), snapshot.events_dropped), (101, 1, 100, 0));
    assert!(server.stop().is_clean());
}

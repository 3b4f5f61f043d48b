//! Who looks on must not hold up anybody: an observer of a server's events that stalls, never returns, or panics.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use socket_steps::server::Config;
use socket_steps::stats::{Event, Snapshot};
use support::figures::{figure, full};
use support::kit::{Kit, comes_and_goes, ended};
use support::{BOUND, resident, wait_until};

/// A server of lines in this process, and its observer.
fn observed(observer: impl Fn(&Event) + Send + 'static) -> Kit {
    Kit::observed(Config::default(), observer)
}

/// How many events wait for the observer at most.
const QUEUE: u64 = 4096;

/// What clients that come one after another notice.
#[derive(Default)]
struct Noticed {
    clients: u64,
    /// The longest time from one that is served to the next, in each look, but for what a thread has spent in waiting
    /// for a processor; the shortest first. What only one look sees is the machine's: a server that is held up is held
    /// up in all of them.
    own_gaps: Vec<Duration>,
    /// The longest of all, with everything.
    gap: Duration,
    /// Kibibytes more memory afterwards.
    grown: u64,
}

/// How long each thread of this process could have run and had no processor (see proc(5), `schedstat`).
fn waits_for_a_processor() -> HashMap<OsString, Duration> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // One that ends while we look has no file any more.
    let waited = tasks.filter_map(|task| {
        let task = task.ok()?;
        let times = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        Some((task.file_name(), Duration::from_nanos(times.split_whitespace().nth(1)?.parse().ok()?)))
    });
    waited.collect()
}

/// How long a single thread has waited since then: of several that waited at the same time, the one that waited
/// longest. Their sum may be longer than the time in which they did, and would hide what the server has to answer for.
fn longest_wait(before: &HashMap<OsString, Duration>, now: &HashMap<OsString, Duration>) -> Duration {
    let wait =
        |(thread, waited): (_, &Duration)| waited.saturating_sub(before.get(thread).copied().unwrap_or_default());
    now.iter().map(wait).max().unwrap_or_default()
}

/// How often is looked: a virtual machine takes some milliseconds away now and then, 9 of them from a loop that does
/// nothing but look at the clock.
const LOOKS: u32 = 5;

/// Lets clients come, one after another, until there were more than the queue can hold, and for this long.
fn clients_come(server: &Kit, for_at_least: Duration) -> Noticed {
    let before = resident(std::process::id());
    let mut noticed = Noticed::default();
    for _ in 0..LOOKS {
        look(server, for_at_least / LOOKS, &mut noticed);
    }
    noticed.own_gaps.sort();
    noticed.grown = resident(std::process::id()).saturating_sub(before);
    server.wait_until_empty();
    noticed
}

fn look(server: &Kit, for_at_least: Duration, noticed: &mut Noticed) {
    // Each is two events.
    const FEW: u64 = 2500 / LOOKS as u64;
    let began = Instant::now();
    let (mut last, mut waited) = (began, waits_for_a_processor());
    let (mut clients, mut own_gap) = (0, Duration::ZERO);
    while clients < FEW || began.elapsed() < for_at_least {
        let mut client = server.client();
        client.say_hello();
        // A thousand a second, ended in good order, would leave no port to come from.
        client.reset();
        let gap = last.elapsed();
        let waited_before = std::mem::replace(&mut waited, waits_for_a_processor());
        clients += 1;
        own_gap = own_gap.max(gap.saturating_sub(longest_wait(&waited_before, &waited)));
        noticed.gap = noticed.gap.max(gap);
        last = Instant::now();
    }
    noticed.clients += clients;
    noticed.own_gaps.push(own_gap);
}

/// The figure of the bar. What a busy machine adds to it is not the server's.
fn say(how: &str, noticed: &Noticed, books: &str) {
    let Noticed { clients, own_gaps, gap, grown } = noticed;
    let middle = own_gaps[own_gaps.len() / 2];
    let is_held = middle <= Duration::from_millis(10) && *grown <= 1024;
    let gap = format!("accept gap {middle:.1?} (of {own_gaps:.1?}; {gap:.1?} with the waiting for a processor)");
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
    let server = observed(move |_| {
        // Returns when the sender is dropped, and at once from then on.
        let _ = stalled.recv();
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let noticed = clients_come(&server, stall());
    let clients = noticed.clients;
    // What must be exact does not depend on the stats thread, and asking does not wait for it for long.
    let snapshot = server.handle().snapshot();
    assert_eq!((snapshot.accepted, snapshot.served, snapshot.now), (clients, clients, 0));
    assert!(snapshot.events_dropped > 0, "the fault did not happen");
    assert_eq!((counted.load(Ordering::SeqCst), ended(&snapshot)), (0, 0));

    drop(release);
    let seen = |snapshot: &Snapshot| counted.load(Ordering::SeqCst) + snapshot.events_dropped;
    let snapshot = wait_until("it catches up", || {
        let snapshot = server.handle().snapshot();
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
    let server = observed(move |_| {
        let _ = sender.send(());
        let _ = stalled.recv();
    });
    let noticed = clients_come(&server, stall());
    called.recv_timeout(BOUND).expect("the fault did not happen");
    let clients = noticed.clients;
    let dropped = server.handle().snapshot().events_dropped;
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
    let server = observed(|_| std::panic::resume_unwind(Box::new(Relentless)));
    for _ in 0..100 {
        comes_and_goes(server.client());
    }
    let snapshot = wait_until("all is counted", || {
        let snapshot = server.handle().snapshot();
        (ended(&snapshot) + snapshot.events_dropped >= 100).then_some(snapshot)
    });
    assert_eq!((snapshot.served, snapshot.now, ended(&snapshot), snapshot.events_dropped), (100, 0, 100, 0));
    assert!(server.stop().is_clean());
}

#[test]
fn an_observer_that_panics_holds_up_nobody_and_the_counting_goes_on() {
    let server = observed(|_| std::panic::resume_unwind(Box::new("on purpose")));
    for _ in 0..100 {
        comes_and_goes(server.client());
    }
    let mut stays = server.client();
    stays.say_hello();
    let snapshot = wait_until("all is counted", || {
        let snapshot = server.handle().snapshot();
        (ended(&snapshot) + snapshot.events_dropped >= 100).then_some(snapshot)
    });
    assert_eq!((snapshot.served, snapshot.now, ended(&snapshot), snapshot.events_dropped), (101, 1, 100, 0));
    assert!(server.stop().is_clean());
}

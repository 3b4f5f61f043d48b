//! Far more clients than places: each is served or told, and nothing of them stays behind.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::figures::{figure, full};
use crate::support::{BOUND, Client, PREFIX, Server, after, descriptors, program, wait_until};

/// How many clients each thread of the flood has at once: together more than the server sees out politely.
const AT_ONCE: usize = 128;
const THREADS: usize = 8;

/// How many places there are, and what those are told who find none.
const PLACES: usize = 16;
const WHY: [&str; 2] = ["busy: all places are taken (16 of 16)", "stopping: the server is going down"];

/// A server all of whose places are taken, and those who have them.
fn a_full_server() -> (Server, Vec<Client>) {
    let server = Server::start(&["--service", "lines", "--max-connections", &PLACES.to_string()]);
    let mut held: Vec<Client> = (0..PLACES).map(|_| server.client()).collect();
    held.iter_mut().for_each(Client::say_hello);
    (server, held)
}

/// What became of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Served,
    /// Told why not, and ended in good order.
    Told,
    /// Told, and then reset: it knows, but might not have.
    ToldAndReset,
    /// Reset without a word.
    BareReset,
    /// Ended without a word, or with half of one.
    Untold,
}

fn fate_of(client: &mut Client) -> Fate {
    let (bytes, end) = client.rest_and_end();
    let text = String::from_utf8(bytes).unwrap();
    let told = WHY.iter().any(|why| text.starts_with(why)) && text.ends_with('\n');
    match end.map_err(|error| error.kind()) {
        Ok(()) if text == format!("{PREFIX}hello\n") => Fate::Served,
        Ok(()) if told => Fate::Told,
        Ok(()) => Fate::Untold,
        Err(ErrorKind::ConnectionReset) if told => Fate::ToldAndReset,
        Err(ErrorKind::ConnectionReset) => Fate::BareReset,
        Err(kind) => panic!("{kind}"),
    }
}

/// How many clients have met which fate.
#[derive(Debug, Default)]
struct Fates(BTreeMap<Fate, usize>);

impl Fates {
    fn add(&mut self, fate: Fate, count: usize) {
        *self.0.entry(fate).or_default() += count;
    }

    fn add_all(&mut self, others: Fates) {
        others.0.into_iter().for_each(|(fate, count)| self.add(fate, count));
    }

    fn of(&self, fate: Fate) -> usize {
        self.0.get(&fate).copied().unwrap_or_default()
    }

    fn all(&self) -> usize {
        self.0.values().sum()
    }

    /// Ten times as many as the bar allows are too many on any machine. Returns whether it is held.
    fn assert_few_bare_resets(&self) -> bool {
        let bare_resets = self.of(Fate::BareReset);
        assert!(bare_resets * 100 <= self.all(), "{self:?}");
        bare_resets * 1000 <= self.all()
    }
}

impl Display for Fates {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [served, told, told_and_reset, bare_resets, untold] =
            [Fate::Served, Fate::Told, Fate::ToldAndReset, Fate::BareReset, Fate::Untold].map(|fate| self.of(fate));
        write!(
            f,
            "{served} served, {told} told, {told_and_reset} told and then reset, {bare_resets} bare resets, \
             {untold} untold"
        )
    }
}

/// Comes with many at once, from an address of its own, again and again. Every client says something, which a
/// server that refuses it has not read when it closes.
fn flood(number: u8, address: SocketAddr, rounds: usize) -> Fates {
    let mut fates = Fates::default();
    for _ in 0..rounds {
        let mut clients: Vec<Client> = (0..AT_ONCE).map(|_| Client::from([127, 0, 1, number], address)).collect();
        for client in &mut clients {
            // An error is no fate yet: what the server has said can still be read.
            let _ = client.0.write_all(b"hello\n");
        }
        for client in &mut clients {
            let _ = client.0.shutdown(std::net::Shutdown::Write);
            fates.add(fate_of(client), 1);
        }
    }
    fates
}

/// Who is told is seen out politely, which keeps a descriptor: not for ever, and not for everybody. Those that a
/// served client needs are not among them.
#[test]
fn whoever_is_told_and_never_leaves_keeps_a_descriptor_for_a_second_at_most() {
    // Of 600 descriptors, a quarter is for those who leave.
    let mut shell = after("ulimit -n 600", program().get_program());
    shell.args(["--no-page", "--listen", "127.0.0.1:0", "--service", "lines", "--max-connections", "1"]);
    let server = Server::from_command(&mut shell);
    let mut held = server.client();
    held.send("mine\n").expect(format!("{PREFIX}mine\n"));
    let before = descriptors(server.pid());
    let mut told: Vec<Client> = (0..800).map(|_| server.client()).collect();
    let mut most = 0;
    for client in &mut told {
        assert!(client.rest_as_text().starts_with("busy: all places are taken"));
        most = most.max(descriptors(server.pid()) - before);
    }
    assert!(most > 50, "all of them have left: {most}");
    assert!(most <= 150 + 16, "{most} descriptors for those who leave");
    // None of them has: their own half is open.
    wait_until("the descriptors are given back", || (descriptors(server.pid()) == before).then_some(()));
    held.send("still mine\n").expect(format!("{PREFIX}still mine\n"));
    drop(told);
    assert_eq!(server.stop().accounts.of("refused"), 800);
    println!("800 were told and stayed: {most} descriptors for them at most, 0 in the end");
}

#[test]
fn everyone_in_a_flood_is_served_or_told_and_no_descriptor_is_left_behind() {
    let rounds = if full() { 50_000_usize } else { 5000 }.div_ceil(THREADS * AT_ONCE);
    let all = rounds * THREADS * AT_ONCE;
    // Nothing is free: a place that changed hands all the time would, with the grace that a full server grants,
    // serve nearly all of them.
    let (server, mut held) = a_full_server();
    let before = descriptors(server.pid());
    let (address, began) = (server.socket_addr(), Instant::now());
    let mut fates = Fates::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || flood(n as u8 + 1, address, rounds))).collect();
        threads.into_iter().for_each(|thread| fates.add_all(thread.join().unwrap()));
    });
    let took = began.elapsed();
    wait_until("the descriptors are given back", || (descriptors(server.pid()) == before).then_some(()));
    held.iter_mut().for_each(Client::say_hello);

    let accounts = server.stop().accounts;
    assert_eq!(fates.all(), all);
    assert!(fates.of(Fate::Told) > all / 2, "no flood: {fates}");
    assert_eq!(fates.of(Fate::Untold), 0, "{fates}");
    assert_eq!(accounts.of("served"), (PLACES + fates.of(Fate::Served)) as u64, "{fates}");
    assert_eq!(accounts.of("accepted"), (PLACES + all) as u64);
    let what = format_args!("{all} connects over the limit in {took:.1?}: {fates}; 0 descriptors left behind");
    figure("B6", fates.assert_few_bare_resets(), what);
}

/// Comes with several at once, so that somebody is always on the way, until nobody listens any more.
fn flood_until_nobody_listens(address: SocketAddr, came: &AtomicUsize) -> Fates {
    let (mut fates, mut is_over) = (Fates::default(), false);
    while !is_over {
        let mut clients = Vec::new();
        while !is_over && clients.len() < AT_ONCE / THREADS {
            match TcpStream::connect_timeout(&address, BOUND) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(BOUND)).unwrap();
                    let _ = (&stream).write_all(b"hello\n");
                    clients.push(Client(stream));
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => is_over = true,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                    fates.add(Fate::BareReset, 1);
                }
            }
        }
        for client in &mut clients {
            fates.add(fate_of(client), 1);
            came.fetch_add(1, Ordering::SeqCst);
        }
    }
    fates
}

#[test]
fn newcomers_who_flood_in_while_it_stops_are_told_and_do_not_hold_it_up() {
    let stops = if full() { 30 } else { 3 };
    let (mut fates, mut let_in, mut slowest) = (Fates::default(), 0, Duration::ZERO);
    for _ in 0..stops {
        let (server, mut held) = a_full_server();
        let (address, came) = (server.socket_addr(), AtomicUsize::new(0));
        let ended = thread::scope(|scope| {
            let flood = || scope.spawn(|| flood_until_nobody_listens(address, &came));
            let threads: Vec<_> = (0..THREADS).map(|_| flood()).collect();
            wait_until("the flood is on", || (came.load(Ordering::SeqCst) > 500).then_some(()));
            let ended = server.stop();
            threads.into_iter().for_each(|thread| fates.add_all(thread.join().unwrap()));
            ended
        });
        assert!(ended.status.success(), "{ended:?}");
        assert!(ended.took < Duration::from_secs(4), "{:?}", ended.took);
        slowest = slowest.max(ended.took);
        let_in += ended.accounts.of("served") as usize - PLACES;
        held.iter_mut().for_each(|client| assert!(client.rest().is_empty()));
    }
    assert!(fates.of(Fate::Told) > fates.all() / 2, "no flood: {fates}");
    // Whoever is let in at the last moment is sent home like everybody who has a place, and that is without a word.
    assert!(fates.of(Fate::Served) + fates.of(Fate::Untold) <= let_in, "{let_in} let in: {fates}");
    let all = fates.all();
    let what = format_args!("{stops} stops, the slowest in {slowest:.1?}, while {all} newcomers flood in: {fates}");
    figure("B12", fates.assert_few_bare_resets(), what);
}

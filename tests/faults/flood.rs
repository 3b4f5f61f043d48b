//! Far more clients than places: each is served or told, and nothing of them stays behind.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use crate::support::figures::{figure, full};
use crate::support::{Client, PREFIX, Server, after, descriptors, program, wait_until};

/// How many clients each thread of the flood has at once: together more than the server sees out politely.
const AT_ONCE: usize = 128;
const THREADS: usize = 8;

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
    let told = text.starts_with("busy: all places are taken (16 of 16)") && text.ends_with('\n');
    match end.map_err(|error| error.kind()) {
        Ok(()) if text == format!("{PREFIX}hello\n") => Fate::Served,
        Ok(()) if told => Fate::Told,
        Ok(()) => Fate::Untold,
        Err(ErrorKind::ConnectionReset) if told => Fate::ToldAndReset,
        Err(ErrorKind::ConnectionReset) => Fate::BareReset,
        Err(kind) => panic!("{kind}"),
    }
}

/// Comes with many at once, from an address of its own, again and again. Every client says something, which a
/// server that refuses it has not read when it closes.
fn flood(number: u8, address: SocketAddr, rounds: usize) -> BTreeMap<Fate, usize> {
    let mut fates = BTreeMap::new();
    for _ in 0..rounds {
        let mut clients: Vec<Client> = (0..AT_ONCE).map(|_| Client::from([127, 0, 1, number], address)).collect();
        for client in &mut clients {
            // An error is no fate yet: what the server has said can still be read.
            let _ = client.0.write_all(b"hello\n");
        }
        for client in &mut clients {
            let _ = client.0.shutdown(std::net::Shutdown::Write);
            *fates.entry(fate_of(client)).or_default() += 1;
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
    let server = Server::start(&["--service", "lines", "--max-connections", "16"]);
    // Nothing is free: a place that changed hands all the time would, with the grace that a full server grants,
    // serve nearly all of them.
    let mut held: Vec<Client> = (0..16).map(|_| server.client()).collect();
    for client in &mut held {
        client.send("mine\n").expect(format!("{PREFIX}mine\n"));
    }
    let before = descriptors(server.pid());
    let (address, began) = (server.socket_addr(), Instant::now());
    let mut fates: BTreeMap<Fate, usize> = BTreeMap::new();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || flood(n as u8 + 1, address, rounds))).collect();
        for (fate, count) in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
            *fates.entry(fate).or_default() += count;
        }
    });
    let took = began.elapsed();
    wait_until("the descriptors are given back", || (descriptors(server.pid()) == before).then_some(()));
    for client in &mut held {
        client.send("still mine\n").expect(format!("{PREFIX}still mine\n"));
    }

    let of = |fate| fates.get(&fate).copied().unwrap_or_default();
    let accounts = server.stop().accounts;
    assert_eq!(fates.values().sum::<usize>(), all);
    assert!(of(Fate::Told) > all / 2, "no flood: {fates:?}");
    assert_eq!(of(Fate::Untold), 0, "{fates:?}");
    assert_eq!(accounts.of("served"), (16 + of(Fate::Served)) as u64, "{fates:?}");
    assert_eq!(accounts.of("accepted"), (16 + all) as u64);
    figure(
        "B6",
        of(Fate::BareReset) * 1000 <= all,
        format_args!(
            "{all} connects over the limit in {took:.1?}: {} served, {} told, {} told and then reset, {} bare resets, \
             0 untold; 0 descriptors left behind",
            of(Fate::Served),
            of(Fate::Told),
            of(Fate::ToldAndReset),
            of(Fate::BareReset)
        ),
    );
}

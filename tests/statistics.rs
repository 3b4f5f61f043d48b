//! The central stats thread: it is told of everyone who comes and goes, and the server never waits for it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use socket_steps::addr::Addr;
use socket_steps::connection::State;
use socket_steps::server::Config;
use socket_steps::stats::{CloseReason, Event, Snapshot};
use support::kit::{Kit, comes_and_goes, ended};
use support::{BOUND, Client, wait_until};

/// A server that serves lines, and what its observer is told.
fn observed(config: Config) -> (Kit, Receiver<Event>) {
    let (sender, events) = channel();
    // The test may have ended.
    (Kit::observed(config, move |event| drop(sender.send(event.clone()))), events)
}

fn local(client: &Client) -> Addr {
    Addr::Tcp(client.0.local_addr().unwrap())
}

#[test]
fn every_connect_and_disconnect_is_told_and_in_order() {
    let (server, events) = observed(Config::default());
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
    let (server, events) = observed(Config::default());
    let address = server.socket_addr();
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
    let (server, events) = observed(config);
    let mut held = server.client();
    held.say_hello();
    assert!(matches!(events.recv_timeout(BOUND).unwrap(), Event::Connected { id: 1, .. }));
    let mut client = server.client();
    let told = client.rest_as_text();
    match events.recv_timeout(BOUND).unwrap() {
        Event::Refused { peer, text } => assert_eq!((peer, format!("{text}\n")), (local(&client), told)),
        other => panic!("{other:?}"),
    }
    let snapshot = server.handle().snapshot();
    assert_eq!((snapshot.accepted, snapshot.served, snapshot.refused, snapshot.now), (2, 1, 1, 1));
    server.stop();
}

#[test]
fn a_snapshot_shows_who_is_there_and_how_the_others_have_ended() {
    let (server, _events) = observed(Config::default());
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    // One after another, so that their numbers are in order.
    for client in &mut clients {
        client.say_hello();
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
        (rows(&server.handle().snapshot()) == expected).then_some(())
    });
    let snapshot = server.handle().snapshot();
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
        let snapshot = server.handle().snapshot();
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

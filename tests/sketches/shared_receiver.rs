//! Chapter 7: a pool whose workers share one receiver behind a lock, and hold the lock too long.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// In place of a client's connection.
type Client = Box<dyn FnOnce() + Send>;

fn answer(client: Client) {
    client();
}

// ANCHOR: work
fn work(clients: &Mutex<Receiver<Client>>) {
    while let Ok(client) = clients.lock().unwrap().recv() {
        answer(client); // The lock is still held: `while let` keeps it to the end of the round.
    }
}
// ANCHOR_END: work

#[test]
fn while_one_worker_serves_the_others_wait_for_the_lock() {
    let (sender, receiver) = channel::<Client>();
    let clients = Arc::new(Mutex::new(receiver));
    for _ in 0..4 {
        let clients = Arc::clone(&clients);
        thread::spawn(move || work(&clients));
    }
    let (release, first_is_served) = channel::<()>();
    let (served, second_is_served) = channel();
    sender.send(Box::new(move || first_is_served.recv().unwrap_or_default())).unwrap();
    sender.send(Box::new(move || served.send(()).unwrap())).unwrap();
    let early = second_is_served.recv_timeout(Duration::from_millis(300));
    assert!(early.is_err(), "three workers are free, and none of them can take the second client");
    drop(release);
    second_is_served.recv_timeout(Duration::from_secs(60)).expect("after the first, the second is served");
}

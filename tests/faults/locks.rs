//! A thread that dies with a lock in its hands leaves the lock poisoned. Nobody else dies of it.

use std::io;
use std::panic;

use socket_steps::lines::LineBuffer;
use socket_steps::outbox::Outbox;
use socket_steps::room::{Room, as_line};
use socket_steps::server::Config;
use socket_steps::socket::Socket;
use socket_steps::stats::CloseReason;

use crate::support::kit::Kit;
use crate::support::{Client, wait_until};

/// How many clients die while the room is locked.
const PANICS: u64 = 20;

/// Called for each line that is said, while the room is locked.
fn panics_at_the_word(line: &[u8]) -> Vec<u8> {
    if line == b"panic" {
        panic::resume_unwind(Box::new("on purpose"));
    }
    as_line(line)
}

fn talk(room: &Room, mut socket: Socket) -> io::Result<()> {
    let outbox = Outbox::new(&socket, 1000);
    let writing = outbox.start(&socket, None)?;
    let presence = room.enter(&outbox, panics_at_the_word);
    let mut lines = LineBuffer::new(1000);
    while lines.read_from(&mut socket)? > 0 {
        while let Some(line) = lines.next_line()? {
            presence.say(&line[..line.len() - 1]);
        }
    }
    writing.finish(Ok(()))
}

#[test]
fn who_panics_while_the_room_is_locked_leaves_it_alone_and_the_others_go_on_talking() {
    let room = Room::default();
    let kit = Kit::serve(Config::default(), move |socket| talk(&room, socket));
    let is_in = |count| {
        wait_until("all are in", || {
            let connections = kit.handle().snapshot().connections;
            let all = connections.len() == count && connections.iter().all(|one| format!("{:?}", one.state) == "Idle");
            all.then_some(())
        });
    };
    let [mut one, mut two] = [(); 2].map(|()| kit.client());
    for round in 1..=PANICS {
        let mut dies = kit.client();
        is_in(3);
        dies.send("hello\n");
        one.expect("hello\n");
        two.expect("hello\n");
        // Nobody hears it: it dies of the first.
        assert!(dies.send("panic\nhello\n").rest().is_empty());
        kit.wait_for_end(CloseReason::Panicked, round);
        one.send("still here\n");
        two.expect("still here\n").send("so am I\n");
        one.expect("so am I\n");
    }
    let leave = |mut client: Client| assert!(client.end().rest().is_empty());
    leave(one);
    leave(two);
    let summary = kit.stop();
    assert_eq!((summary.served, summary.closed), (PANICS + 2, PANICS + 2));
    println!("{PANICS} panics while the room was locked: the two others heard each other after each");
}

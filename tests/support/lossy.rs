//! A sender and a server with a bad link between them, and a clock that goes only as far as the next event.

use std::net::SocketAddr;
use std::time::Duration;

use socket_steps::arq::link::{Faults, Link};
use socket_steps::arq::peers::{Limits, Peers};
use socket_steps::arq::sender::{Options, Sender, State};

/// The link that the book promises to get through: of a hundred, 20 are lost, 5 doubled, 25 late, one is damaged.
pub const BAD: Faults = Faults {
    lost: 20,
    doubled: 5,
    late: 25,
    damaged: 1,
    delay: Duration::from_millis(50),
    late_by: Duration::from_millis(30),
};

/// No message is longer.
pub const ROOMY: Limits = Limits { peers: 4, message: 64 << 20, idle: Duration::from_secs(100_000) };

/// A sender that gives up only when nothing can come any more.
pub const PATIENT: Options = Options { window: 64, piece: 1200, patience: Duration::from_secs(3600) };

pub struct World {
    pub now: Duration,
    pub client: SocketAddr,
    pub sender: Sender,
    pub there: Link,
    pub peers: Peers,
    pub back: Link,
    /// What the server was given.
    pub messages: Vec<Vec<u8>>,
    /// The largest number of bytes that the server kept.
    pub most_held: usize,
    /// What happened, if it is wanted.
    pub story: Option<Vec<String>>,
}

impl World {
    pub fn new(sender: Sender, faults: Faults, seed: u64) -> World {
        World {
            now: Duration::ZERO,
            client: ([192, 0, 2, 1], 50000).into(),
            sender,
            there: Link::new(faults, 2 * seed),
            peers: Peers::new(ROOMY),
            back: Link::new(faults, 2 * seed + 1),
            messages: Vec::new(),
            most_held: 0,
            story: None,
        }
    }

    /// Until the sender has nothing to do any more.
    pub fn play(&mut self) -> State {
        loop {
            self.what_happens_now();
            if self.sender.state() != State::Sending {
                return self.sender.state();
            }
            let next = [self.sender.wakes_at(), self.there.next_arrival(), self.back.next_arrival()];
            let next = next.into_iter().flatten().min().expect("a sender that waits knows for what");
            assert!(next >= self.now, "time goes back");
            self.now = next;
        }
    }

    /// Until nothing is on the way any more; the sender sends nothing.
    pub fn settle(&mut self) {
        while let Some(now) = self.there.next_arrival() {
            self.now = now.max(self.now);
            self.at_the_server();
        }
    }

    fn what_happens_now(&mut self) {
        self.at_the_server();
        while let Some(datagram) = self.back.receive(self.now) {
            let what = self.sender.receive(self.now, &datagram);
            self.tell(|| format!("client: {what:?}"));
        }
        while let Some((packet, why)) = self.sender.next_packet(self.now) {
            let fate = self.there.send(self.now, &packet.encode());
            self.tell(|| format!("{:?} {}: {why:?}, {fate:?}", packet.kind, packet.number));
        }
    }

    fn at_the_server(&mut self) {
        while let Some(datagram) = self.there.receive(self.now) {
            let reaction = self.peers.receive(self.now, self.client, &datagram);
            self.tell(|| format!("server: {:?}", reaction.news));
            if let Some(answer) = reaction.answer {
                self.back.send(self.now, &answer.encode());
            }
            self.messages.extend(reaction.message);
            self.most_held = self.most_held.max(self.peers.held());
        }
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            // A cookie is another one each time, and means nothing.
            let what = what();
            let before = what.split(" cookie: ").next().unwrap_or_default();
            story.push(format!("{:?} {before}", self.now));
        }
    }
}

/// Bytes that do not repeat: a piece in the wrong place is found.
pub fn long_message(bytes: usize, seed: u64) -> Vec<u8> {
    let words = (0..bytes.div_ceil(8) as u64).map(|n| (n + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let mut message = words.collect::<Vec<_>>().concat();
    message.truncate(bytes);
    message
}

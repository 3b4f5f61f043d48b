//! Chapter 17: TCP's promise, built in small over UDP.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use log::info;
use socket_steps::arq::endpoint::{self, Server};
use socket_steps::arq::link::{Fate, Faults, Link};
use socket_steps::arq::packet::{Kind, Packet};
use socket_steps::arq::peers::{Limits, News, Peers, Reaction};
use socket_steps::arq::receiver::Receipt;
use socket_steps::arq::sender::{Options, Sender, State, Tally, Why};
use socket_steps::chapter;
use socket_steps::narrate;
use socket_steps::options::exit_with;
use socket_steps::output::harmless;

const GREETING: &str = "안녕하세요, 서버님!";

/// So few bytes a packet that even a greeting is several.
const PIECE: usize = 4;

/// Of a hundred packets, this many share each fate. A round trip takes 0.1 s.
const BAD: Faults = Faults {
    lost: 20,
    doubled: 10,
    late: 20,
    damaged: 10,
    delay: Duration::from_millis(50),
    late_by: Duration::from_millis(40),
};

fn main() -> io::Result<()> {
    let words = chapter::words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => scene(2105),
        ["--seed", seed] => scene(number(Some(&seed))),
        ["server"] => server("127.0.0.1:8080"),
        ["server", address] if !address.starts_with('-') => server(address),
        ["client", ref words @ ..] => client(words),
        _ => usage(),
    }
}

fn number<T: std::str::FromStr>(word: Option<&&str>) -> T {
    word.and_then(|word| word.parse().ok()).unwrap_or_else(|| usage())
}

fn usage() -> ! {
    eprintln!("usage: ch17_reliable [--seed N | server [HOST:PORT] | client [HOST:PORT] [--loss PERCENT] [--seed N]]");
    std::process::exit(2);
}

fn scene(seed: u64) -> io::Result<()> {
    narrate::scene(&["client", "link", "server"]);
    for window in [1, 4] {
        info!(target: "client", "* a window of {window}");
        Story::new(window, seed).play();
    }
    Ok(())
}

/// Both sides, what is between them, and what time it is. No socket, and no clock: time goes on to the next thing that
/// happens, and so the same seed tells the same story.
struct Story {
    now: Duration,
    sender: Sender,
    there: Link,
    peers: Peers,
    back: Link,
}

impl Story {
    fn new(window: usize, seed: u64) -> Story {
        let options = Options { window, piece: PIECE, ..Options::default() };
        Story {
            now: Duration::ZERO,
            // A real one begins at a number that nobody can guess.
            sender: Sender::new(GREETING.into(), 1, options),
            there: Link::new(BAD, seed),
            peers: Peers::new(Limits::default()),
            back: Link::new(BAD, !seed),
        }
    }

    /// Until everything has been acknowledged, or the client gives up.
    fn play(mut self) {
        while self.sender.state() == State::Sending {
            while let Some(datagram) = self.there.receive(self.now) {
                self.server_receives(&datagram);
            }
            while let Some(datagram) = self.back.receive(self.now) {
                let packet = self.sender.receive(self.now, &datagram).ok();
                self.tell("client", client_hears(packet));
            }
            while let Some((packet, why)) = self.sender.next_packet(self.now) {
                self.tell("client", client_sends(&packet, why));
                let fate = self.there.send(self.now, &packet.encode());
                tell_fate(&packet, fate);
            }
            let next = [self.sender.wakes_at(), self.there.next_arrival(), self.back.next_arrival()];
            self.now = next.into_iter().flatten().min().unwrap_or(self.now);
        }
        let is_done = self.sender.state() == State::Delivered;
        let trips = self.now.div_duration_f64(2 * BAD.delay);
        info!(target: "client", "{}: {trips:.0} round trips", if is_done { "done" } else { "gives up" });
    }

    fn server_receives(&mut self, datagram: &[u8]) {
        let reaction = self.peers.receive(self.now, CLIENT.into(), datagram);
        let packet = Packet::decode(datagram).ok();
        self.tell("server", server_receives(packet, &reaction));
        if let Some(message) = reaction.message {
            info!(target: "server", "all of it: {}", String::from_utf8_lossy(&message));
        }
        if let Some(answer) = reaction.answer {
            let fate = self.back.send(self.now, &answer.encode());
            tell_fate(&answer, fate);
        }
    }

    fn tell(&self, actor: &str, what: String) {
        info!(target: actor, "{:.2}s {what}", self.now.as_secs_f64());
    }
}

/// Where the story's client is: at an address that is kept for examples.
const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 1], 50000);

fn client_sends(packet: &Packet, why: Why) -> String {
    let what = name(packet);
    match why {
        Why::New => format!("sends {what}"),
        Why::Silence => format!("sends {what} again: silence"),
        Why::Repeated => format!("sends {what} again: 3 repeats"),
        Why::NextGap => format!("sends {what} again: a gap"),
    }
}

fn client_hears(packet: Option<Packet>) -> String {
    match packet {
        None => "drops what is damaged".into(),
        Some(packet) if packet.kind == Kind::Ack => format!("hears: next is {}", packet.number),
        Some(packet) => format!("hears {}", name(&packet)),
    }
}

fn server_receives(packet: Option<Packet>, reaction: &Reaction) -> String {
    let Some(packet) = packet else { return "drops what is damaged".into() };
    let name = name(&packet);
    let expected = reaction.answer.as_ref().map_or(0, |answer| answer.number);
    match reaction.news {
        News::Greeted => format!("hears {name}"),
        News::Packet(Receipt::InOrder(1)) => format!("has {name}; next is {expected}"),
        News::Packet(Receipt::InOrder(_)) => format!("has {name} and on; next is {expected}"),
        News::Packet(Receipt::Early) => format!("keeps {name}; next is {expected}"),
        News::Packet(Receipt::Repeated) => format!("had {name}; next is {expected}"),
        dropped => format!("drops {name}: {dropped:?}"),
    }
}

fn tell_fate(packet: &Packet, fate: Fate) {
    let fates = [(fate.lost, "loses"), (fate.damaged, "damages"), (fate.doubled, "doubles"), (fate.late, "delays")];
    for (_, does) in fates.iter().filter(|(is_so, _)| *is_so) {
        info!(target: "link", "{does} {}", name(packet));
    }
}

fn name(packet: &Packet) -> String {
    match packet.kind {
        Kind::Hello => "a greeting".into(),
        Kind::Cookie => "a cookie".into(),
        Kind::Data => packet.number.to_string(),
        Kind::Last => format!("{} (end)", packet.number),
        Kind::Ack => format!("\"next is {}\"", packet.number),
    }
}

fn server(address: &str) -> io::Result<()> {
    narrate::aside();
    let mut server = Server::bind(address, Limits::default()).unwrap_or_else(|error| give_up(address, &error));
    println!("listening on {}", server.local_addr()?);
    loop {
        if let Some((_from, message)) = server.receive(Duration::from_secs(60))? {
            println!("received {}", harmless(&String::from_utf8_lossy(&message), &[]));
        }
    }
}

fn client(words: &[&str]) -> io::Result<()> {
    let (mut address, mut loss, mut seed) = (None, 0, 1);
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        match word {
            "--loss" => loss = number(words.next()),
            "--seed" => seed = number(words.next()),
            _ if address.is_none() && !word.starts_with('-') => address = Some(word),
            _ => usage(),
        }
    }
    if loss > 100 {
        usage();
    }
    narrate::aside();
    let name = address.unwrap_or("127.0.0.1:8080");
    let address = name.to_socket_addrs().and_then(|mut all| all.next().ok_or(io::ErrorKind::NotFound.into()));
    match send(address.unwrap_or_else(|error| give_up(name, &error)), loss, seed) {
        Ok(tally) => println!("delivered; sent {} packets, {} of them again", tally.sent, tally.sent_again()),
        Err(error) => exit_with(1, &format!("ch17_reliable: {error}")),
    }
    Ok(())
}

fn give_up(address: &str, error: &io::Error) -> ! {
    exit_with(2, &format!("ch17_reliable: {address}: {error}"))
}

/// Over real UDP. Loopback loses next to nothing, so the link in front of it loses on purpose, in both directions.
fn send(server: SocketAddr, loss: u8, seed: u64) -> io::Result<Tally> {
    let faults = Faults { lost: loss, ..Faults::default() };
    let options = Options { window: 4, piece: PIECE, patience: Duration::from_secs(10) };
    endpoint::send(server, GREETING.into(), options, Link::new(faults, seed), Link::new(faults, !seed))
}

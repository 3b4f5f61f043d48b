//! Who comes to a server in the course of an hour: some who behave, and all the others.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Socket, Type};

use crate::proxy::Proxy;
use crate::random::Random;
use crate::support::web::{CLOSE, FIN, Ws};
use crate::support::{BOUND, Client, PREFIX};
use crate::through::{answer_in_lines, talk, text};

/// The deadlines of a message and of a write, and the limits, of the server that is visited.
pub(crate) const DEADLINE: Duration = Duration::from_secs(2);
pub(crate) const MAX_MESSAGE: usize = 1024;
pub(crate) const PER_SOURCE: usize = 32;

/// How long one may be silent with the server whose handler can panic.
pub(crate) const IDLE: Duration = Duration::from_secs(1);

/// How much is said through the proxy at least. A fault before this place is one in the middle.
pub(crate) const MESSAGE: usize = 600;

/// Where to, and what has become of the visits.
pub(crate) struct Town {
    /// The finished server, its service `lines`, and its page.
    pub(crate) lines: SocketAddr,
    pub(crate) page: SocketAddr,
    /// A server of the kit whose handler panics when it is told to.
    pub(crate) panics: SocketAddr,
    /// A bad way to the first.
    pub(crate) proxy: Proxy,
    pub(crate) seed: u64,
    pub(crate) tally: Tally,
    /// Whoever takes their time is to come no more; and how many of them are still here.
    pub(crate) over: AtomicBool,
    pub(crate) slow_left: AtomicU64,
}

#[derive(Default)]
pub(crate) struct Tally {
    /// Visits, by who came.
    pub(crate) visits: Mutex<BTreeMap<&'static str, u64>>,
    /// Connections to the server itself, not through the proxy, and to the one that panics.
    pub(crate) to_lines: AtomicU64,
    pub(crate) to_panics: AtomicU64,
    /// Clients that were told that they are too many.
    pub(crate) told: AtomicU64,
}

/// Quick visits: of a hundred so many, who, and what they do.
pub(crate) type Visit = fn(&Town, &mut Random, Ipv4Addr);
pub(crate) const QUICK: [(u64, &str, Visit); 11] = [
    (51, "well-behaved", talks),
    (9, "gone without a word", leaves),
    (9, "reset at once", resets),
    (6, "reset between two messages", resets_between),
    (6, "reset in a message", resets_within),
    (4, "half a line at the end", ends_half),
    (3, "endless line", never_ends_its_line),
    (3, "not reading the answer", does_not_read),
    (6, "through the proxy", goes_the_bad_way),
    (2, "panic", makes_it_panic),
    (1, "bytes that are no text", says_no_text),
];

/// Visits that take their time, each again and again, and how many at once.
pub(crate) const SLOW: [(u64, &str, Visit); 8] = [
    (4, "drip", drips),
    (2, "half a line, then silence", falls_silent),
    (2, "silence", is_silent),
    (1, "never reading", never_reads),
    (1, "reset in an answer", resets_in_an_answer),
    (1, "flood", floods),
    (1, "watching the page", watches),
    (1, "chatting on the page", chats),
];

impl Town {
    /// One visit.
    pub(crate) fn visit(&self, who: &'static str, what: Visit, random: &mut Random, source: Ipv4Addr) {
        what(self, random, source);
        *self.tally.visits.lock().unwrap().entry(who).or_default() += 1;
    }

    fn client(&self, source: Ipv4Addr) -> Client {
        let client = connect(self.lines, source);
        self.tally.to_lines.fetch_add(1, Relaxed);
        client
    }

    fn client_of_panics(&self, source: Ipv4Addr) -> Client {
        let client = connect(self.panics, source);
        self.tally.to_panics.fetch_add(1, Relaxed);
        client
    }
}

/// From an address of this machine's own: all of 127.0.0.0/8 are.
fn connect(to: SocketAddr, source: Ipv4Addr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Of a million connections, most leave a port in TIME_WAIT; it need not be another one for each.
    setsockopt(&socket, IpBindAddressNoPort, &true).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(BOUND)).unwrap();
    socket.set_write_timeout(Some(BOUND)).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    Client(socket.into())
}

fn talks(town: &Town, random: &mut Random, source: Ipv4Addr) {
    let mut client = town.client(source);
    for _ in 0..random.within(1..=4) {
        let line = format!("{:x} 안녕\n", random.next());
        client.send(&line).expect(format!("{PREFIX}{line}"));
    }
    assert!(client.end().rest().is_empty(), "an answer to nothing");
}

fn leaves(town: &Town, _: &mut Random, source: Ipv4Addr) {
    drop(town.client(source));
}

fn resets(town: &Town, _: &mut Random, source: Ipv4Addr) {
    town.client(source).reset();
}

fn resets_between(town: &Town, _: &mut Random, source: Ipv4Addr) {
    let mut client = town.client(source);
    client.say_hello();
    client.reset();
}

fn resets_within(town: &Town, _: &mut Random, source: Ipv4Addr) {
    let mut client = town.client(source);
    client.send("hello\nand th").expect(format!("{PREFIX}hello\n"));
    client.reset();
}

fn ends_half(town: &Town, _: &mut Random, source: Ipv4Addr) {
    let mut client = town.client(source);
    assert_eq!(client.send("half a li").end().rest_as_text(), format!("{PREFIX}half a li"));
}

fn never_ends_its_line(town: &Town, _: &mut Random, source: Ipv4Addr) {
    let mut client = town.client(source);
    let told = client.send([b'x'; 3 * MAX_MESSAGE]).rest_as_text();
    assert!(told.starts_with("too long: "), "{told:?}");
}

fn does_not_read(town: &Town, _: &mut Random, source: Ipv4Addr) {
    town.client(source).send("one\ntwo\nthree\n");
}

fn goes_the_bad_way(town: &Town, random: &mut Random, _: Ipv4Addr) {
    let (client, fate) = town.proxy.client();
    talk(client, fate, text(random, MESSAGE).as_bytes(), answer_in_lines);
}

fn makes_it_panic(town: &Town, _: &mut Random, source: Ipv4Addr) {
    let mut client = town.client_of_panics(source);
    client.send("panic\nnever read");
    assert!(client.rest().is_empty(), "an answer after the panic");
}

fn says_no_text(town: &Town, random: &mut Random, source: Ipv4Addr) {
    let mut client = town.client(source);
    let mut line = random.bytes(100);
    line.retain(|byte| *byte != b'\n');
    line.push(b'\n');
    assert_eq!(client.send(&line).end().rest(), [PREFIX.as_bytes(), &line].concat());
}

/// A byte now and then, and never a newline.
fn drips(town: &Town, _: &mut Random, source: Ipv4Addr) {
    let (mut client, began) = (town.client(source), Instant::now());
    client.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    loop {
        // That the other side has gone is what the read says.
        let _ = client.0.write_all(b"x");
        match client.0.read(&mut [0; 100]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) => break,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            other => panic!("an answer to a drip: {other:?}"),
        }
        assert!(began.elapsed() < BOUND, "the deadline has not ended a drip");
    }
    assert!(began.elapsed() >= DEADLINE, "too early: {:?}", began.elapsed());
}

fn falls_silent(town: &Town, _: &mut Random, source: Ipv4Addr) {
    let (mut client, began) = (town.client(source), Instant::now());
    client.send("one\ntw").expect(format!("{PREFIX}one\n"));
    assert!(client.rest().is_empty(), "an answer to half a line");
    assert!(began.elapsed() >= DEADLINE, "too early: {:?}", began.elapsed());
}

fn is_silent(town: &Town, _: &mut Random, source: Ipv4Addr) {
    let began = Instant::now();
    let mut client = town.client_of_panics(source);
    assert!(client.rest().is_empty(), "an answer to nothing");
    assert!(began.elapsed() >= IDLE, "too early: {:?}", began.elapsed());
}

/// Speaks until the server is in the middle of an answer that nobody takes.
fn speaks_until_stuck(town: &Town, source: Ipv4Addr) -> Client {
    let mut client = town.client(source);
    let lines = [[b'x'; MAX_MESSAGE - 1].as_slice(), b"\n"].concat().repeat(64);
    client.0.set_write_timeout(Some(DEADLINE / 8)).unwrap();
    while client.0.write_all(&lines).is_ok() {}
    client
}

fn never_reads(town: &Town, _: &mut Random, source: Ipv4Addr) {
    speaks_until_stuck(town, source).wait_for_hang_up();
}

fn resets_in_an_answer(town: &Town, _: &mut Random, source: Ipv4Addr) {
    speaks_until_stuck(town, source).reset();
}

/// Comes many times at once: the first are served, and the others are told.
fn floods(town: &Town, _: &mut Random, source: Ipv4Addr) {
    let mut clients: Vec<Client> = (0..PER_SOURCE + 16).map(|_| town.client(source)).collect();
    let mut told = 0;
    for client in &mut clients {
        let _ = client.0.write_all(b"x\n");
        let mut first = [0; 5];
        client.0.read_exact(&mut first).unwrap();
        told += u64::from(&first == b"busy:");
        assert!(&first == b"busy:" || PREFIX.as_bytes().starts_with(&first), "{first:?}");
    }
    assert!(told >= 16, "only {told} were told");
    town.tally.told.fetch_add(told, Relaxed);
    drop(clients);
    thread::sleep(DEADLINE / 10); // Enough of it: nobody else would get through.
}

fn watches(town: &Town, random: &mut Random, _: Ipv4Addr) {
    let mut viewer = Ws::connect(town.page, "/live");
    for _ in 0..2 {
        assert!(viewer.hear().contains("\"served\""));
    }
    leaves_the_page(viewer, random);
}

fn chats(town: &Town, random: &mut Random, _: Ipv4Addr) {
    let [mut one, mut other] = [(); 2].map(|()| Ws::connect(town.page, "/chat"));
    for _ in 0..10 {
        let line = format!("{:x} 안녕", random.next());
        one.say(&line);
        assert_eq!(other.hear(), line);
    }
    leaves_the_page(one, random);
    leaves_the_page(other, random);
    thread::sleep(DEADLINE / 50); // The page has few places, and others come to it.
}

/// As it should be, or with a reset, or without a word.
fn leaves_the_page(mut viewer: Ws, random: &mut Random) {
    match random.within(0..=2) {
        0 => viewer.0.reset(),
        1 => drop(viewer),
        _ => {
            viewer.send(FIN | CLOSE, 1000u16.to_be_bytes());
            assert_eq!(viewer.close_code(), 1000);
        }
    }
}

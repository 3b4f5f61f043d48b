//! Any datagrams at all, sent to a server of chapter 17's over real UDP: each is counted as what it is, only greetings
//! are answered, never with more bytes than have come; and a message arrives whole all the same.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::UdpSocket;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;
use socket_steps::arq::endpoint::{Server, send};
use socket_steps::arq::link::{Faults, Link};
use socket_steps::arq::packet::{HEADER, Kind, MAX_DATA, Packet};
use socket_steps::arq::peers::Limits;
use socket_steps::arq::sender::Options;

use crate::corpus::inputs;
use crate::support::BOUND;
use crate::support::datagrams::Receiving;
use crate::support::figures::figure;
use crate::support::figures::tries;

/// With a checksum that is right: whoever wrote this meant it.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some((checksum, rest)) = bytes.split_first_chunk_mut::<4>() {
        *checksum = crc32fast::hash(rest).to_be_bytes();
    }
    bytes
}

/// What a datagram is to a server that knows nobody: written down once more, from the picture in `packet.rs`.
fn what_is(datagram: &[u8]) -> &'static str {
    match datagram {
        [..] if datagram.len() < HEADER => "short",
        [..] if datagram.len() > HEADER + MAX_DATA => "long",
        [a, b, c, d, rest @ ..] if u32::from_be_bytes([*a, *b, *c, *d]) != crc32fast::hash(rest) => "damaged",
        [_, _, _, _, 1 | 2 | 5, ..] if datagram.len() > HEADER => "data",
        [_, _, _, _, 1, ..] => "greeted",
        [_, _, _, _, 2 | 5, ..] => "answer",
        [_, _, _, _, 3 | 4, ..] => "unknown",
        _ => "kind",
    }
}

/// A server in a thread, and whoever sends to it.
struct Here {
    socket: UdpSocket,
    receiving: Receiving,
    met: RefCell<BTreeMap<&'static str, u64>>,
}

impl Here {
    fn new() -> Here {
        let receiving = Receiving::on(Server::bind("127.0.0.1:0", Limits::default()).unwrap());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        socket.connect(receiving.address).unwrap();
        Here { socket, receiving, met: RefCell::default() }
    }

    /// Sends these, and a greeting behind them; returns how many answers came before its own.
    fn send(&self, datagrams: &[Vec<u8>]) -> Result<usize, String> {
        let last = Packet::bare(Kind::Hello, 0x1234_5678, 42).encode();
        for datagram in datagrams.iter().chain([&last]) {
            self.socket.send(datagram).map_err(|error| error.to_string())?;
            *self.met.borrow_mut().entry(what_is(datagram)).or_default() += 1;
        }
        let mut answers = 0;
        let mut bytes = [0; 2000];
        loop {
            let count = self.socket.recv(&mut bytes).map_err(|error| error.to_string())?;
            let answer = Packet::decode(&bytes[..count]).map_err(|malformed| malformed.to_string())?;
            match (answer.kind, answer.number) {
                (Kind::Cookie, 0x1234_5678) => return Ok(answers),
                (Kind::Cookie, _) if count == HEADER => answers += 1,
                _ => return Err(format!("answered with {answer:?}")),
            }
        }
    }

    /// Sends a message that must arrive, and compares the server's books with ours; how many of what there were.
    fn end(self) -> BTreeMap<&'static str, u64> {
        let (link, back) = (Link::new(Faults::default(), 0), Link::new(Faults::default(), 0));
        let patient = Options { patience: BOUND, ..Options::default() };
        let address = self.socket.peer_addr().unwrap();
        send(address, "안녕하세요, 서버님!".into(), patient, link, back).unwrap();
        let (messages, counts) = self.receiving.stop();
        assert_eq!(messages, ["안녕하세요, 서버님!".as_bytes()]);
        let met = self.met.into_inner();
        let ours = |names: &[&str]| names.iter().filter_map(|name| met.get(name)).sum::<u64>();
        assert_eq!(counts.malformed, ours(&["short", "long", "damaged", "kind", "data"]));
        assert_eq!((counts.answers, counts.unknown), (ours(&["answer"]), ours(&["unknown"])));
        // The message has greeted, too, perhaps more than once.
        assert!(counts.greeted > ours(&["greeted"]) && counts.bytes_out <= counts.bytes_in, "{counts:?}");
        assert_eq!((counts.full, counts.too_long, counts.whole), (0, 0, 1));
        met
    }
}

#[test]
fn the_corpus_is_counted_as_what_it_is() {
    let here = Here::new();
    let corpus = inputs(include_str!("corpus/packets.txt"));
    for input in &corpus {
        let (datagram, expected) = match input.expected.strip_prefix("sealed:") {
            Some(expected) => (sealed(input.bytes.clone()), expected),
            None => (input.bytes.clone(), input.expected),
        };
        assert_eq!(what_is(&datagram), expected, "{}", input.why);
        assert_eq!(here.send(&[datagram]), Ok(usize::from(expected == "greeted")), "{}", input.why);
    }
    here.end();
    figure("B22", true, format!("packets: {} datagrams of the corpus, each counted as what it is", corpus.len()));
}

fn datagrams() -> impl Strategy<Value = Vec<u8>> {
    let noise = || prop::collection::vec(any::<u8>(), 0..100);
    let kinds = select(&[Kind::Hello, Kind::Cookie, Kind::Data, Kind::Last, Kind::Ack][..]);
    let packet = (kinds, any::<u32>(), any::<u32>(), any::<u64>(), noise(), any::<bool>());
    let packet = packet.prop_map(|(kind, number, echo, cookie, data, has_data)| {
        let data = if has_data { data } else { Vec::new() };
        Packet { kind, number, echo, cookie, data }.encode()
    });
    let flipped = (packet.clone(), any::<Index>(), 0..8_u32).prop_map(|(mut bytes, at, bit)| {
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        bytes
    });
    let cut = (packet.clone(), any::<Index>()).prop_map(|(bytes, at)| bytes[..at.index(bytes.len())].to_vec());
    let written = (any::<u8>(), noise()).prop_map(|(kind, rest)| sealed([&[0, 0, 0, 0, kind % 8], &rest[..]].concat()));
    let long = (0..9000_usize).prop_map(|more| vec![7; HEADER + MAX_DATA + more]);
    prop_oneof![4 => packet, 2 => noise(), 2 => flipped, 1 => cut, 2 => written, 1 => long]
}

#[test]
fn any_datagrams_are_counted_and_none_but_greetings_are_answered() {
    let here = Here::new();
    let tries = tries(100, 4000);
    // Few enough at once for the socket's buffer: what it has no room for is lost, and that is UDP.
    let outcome = TestRunner::new(tries.clone()).run(&prop::collection::vec(datagrams(), 0..12), |datagrams| {
        let greetings = datagrams.iter().filter(|datagram| what_is(datagram) == "greeted").count();
        prop_assert_eq!(here.send(&datagrams), Ok(greetings));
        Ok(())
    });
    outcome.unwrap();
    let met = here.end();
    for what in ["short", "long", "damaged", "kind", "data", "greeted", "answer", "unknown"] {
        assert!(met.contains_key(what), "none was {what}: {met:?}");
    }
    let met: Vec<String> = met.iter().map(|(what, times)| format!("{times} {what}")).collect();
    let (met, seed) = (met.join(", "), tries.rng_seed);
    figure("B22", true, format!("packets: datagrams over UDP, {met}; all counted, 0 failed; seed {seed}"));
}

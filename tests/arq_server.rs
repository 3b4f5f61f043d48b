//! A server gives nothing away to those who have shown nothing, keeps what it must and no more, and takes each
//! message once. No socket, and no clock but the test's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use socket_steps::arq::cookie::LIFETIME;
use socket_steps::arq::link::{Faults, Link};
use socket_steps::arq::packet::{HEADER, Kind, MAX_WINDOW, Malformed, Packet};
use socket_steps::arq::peers::{Limits, News, Peers, Reaction};
use socket_steps::arq::receiver::Receipt;
use socket_steps::arq::sender::{Sender, State};
use support::figures::tries;
use support::lossy::{BAD, PATIENT, World, long_message};

const START: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);

/// A million of them and more: a host of 10.0.0.0/8, and a port.
fn source(n: u32) -> SocketAddr {
    let [_, a, b, c] = n.to_be_bytes();
    ([10, a, b, c], 40_000).into()
}

fn greet(peers: &mut Peers, now: Duration, from: SocketAddr, number: u32) -> u64 {
    let reaction = peers.receive(now, from, &Packet::bare(Kind::Hello, number, 0).encode());
    assert_eq!(reaction.news, News::Greeted);
    reaction.answer.unwrap().cookie
}

fn data(kind: Kind, number: u32, cookie: u64, data: &[u8]) -> Vec<u8> {
    Packet { data: data.into(), ..Packet::bare(kind, number, cookie) }.encode()
}

fn dropped(news: News) -> Reaction {
    Reaction { news, answer: None, message: None }
}

#[test]
fn a_million_sources_that_only_greet_cost_nothing() {
    let mut peers = Peers::new(Limits::default());
    for n in 0..1_000_000 {
        greet(&mut peers, START + n / 1000 * Duration::from_millis(1), source(n), n);
    }
    assert_eq!((peers.counts().greeted, peers.known(), peers.held()), (1_000_000, 0, 0));
}

#[test]
fn a_million_sources_with_cookies_get_no_more_places_than_there_are() {
    let limits = Limits { peers: 100, ..Limits::default() };
    let mut peers = Peers::new(limits);
    for n in 0..1_000_000 {
        // A thousand a second, and nobody says a second word.
        let now = n / 1000 * SECOND;
        let cookie = greet(&mut peers, now, source(n), n);
        peers.receive(now, source(n), &data(Kind::Data, n, cookie, &[0; 10]));
        assert!(peers.known() <= limits.peers);
        // The most are there shortly before a second is over.
        assert!(n % 1000 != 999 || peers.held() <= limits.peers * 10);
    }
    let counts = peers.counts();
    assert!(counts.full > 900_000, "{counts:?}");
    // Places are given back, and taken again: a thousand seconds are some 33 times 30.
    assert!(counts.forgotten > 30 * 100, "{counts:?}");
    assert_eq!(counts.packets + counts.full, 1_000_000);
}

#[test]
fn who_cannot_read_what_is_sent_to_their_address_gets_no_more_than_they_sent() {
    let mut peers = Peers::new(Limits::default());
    let victim = source(1);
    let mut sent = 0;
    // Whoever forges an address can guess a cookie, or bring one of their own.
    let mine = greet(&mut peers, START, source(2), 7);
    for cookie in [0, 1, mine, u64::MAX] {
        for number in 7..1000 {
            let reaction = peers.receive(START, victim, &data(Kind::Data, number, cookie, &[0; 1000]));
            assert_eq!(reaction, dropped(News::Unknown));
        }
    }
    for number in 0..1000 {
        let greeting = Packet::bare(Kind::Hello, number, 0).encode();
        sent += greeting.len();
        let answer = peers.receive(START, victim, &greeting).answer.unwrap();
        assert_eq!(answer.encode().len(), greeting.len());
    }
    assert_eq!(peers.counts().bytes_out, (sent + HEADER) as u64);
    assert_eq!(peers.known(), 0);
}

#[test]
fn a_cookie_opens_a_message_for_its_own_address_with_its_own_number() {
    let mut peers = Peers::new(Limits::default());
    let cookie = greet(&mut peers, START, source(1), 7);
    let first = data(Kind::Data, 7, cookie, b"first");
    assert_eq!(peers.receive(START, source(2), &first), dropped(News::Unknown));
    assert_eq!(peers.receive(START, source(1), &data(Kind::Data, 8, cookie, b"second")), dropped(News::Unknown));
    let reaction = peers.receive(START, source(1), &first);
    assert_eq!(reaction.news, News::Packet(Receipt::InOrder(1)));
    assert_eq!(peers.known(), 1);
}

proptest! {
    #![proptest_config(tries(200, 2000))]

    #[test]
    fn no_answer_is_larger_than_what_it_answers_and_no_answer_is_answered(
        number in any::<u32>(),
        ours in any::<bool>(),
        guess in any::<u64>(),
        steps in prop::collection::vec((0..5_usize, -3..70_i32, 0..100_usize), 1..100),
    ) {
        const KINDS: [Kind; 5] = [Kind::Hello, Kind::Cookie, Kind::Data, Kind::Last, Kind::Ack];
        let mut peers = Peers::new(Limits { message: 1000, ..Limits::default() });
        let cookie = greet(&mut peers, START, source(1), number);
        let cookie = if ours { cookie } else { guess };
        for (kind, step, length) in steps {
            let kind = KINDS[kind];
            let has_data = matches!(kind, Kind::Data | Kind::Last);
            let piece = vec![0; if has_data { length } else { 0 }];
            let packet = data(kind, number.wrapping_add_signed(step), cookie, &piece);
            let answer = peers.receive(START, source(1), &packet).answer;
            prop_assert!(answer.is_none() || !kind.is_answer());
            if let Some(answer) = answer {
                prop_assert!(answer.kind.is_answer());
                prop_assert!(answer.encode().len() <= packet.len());
            }
            prop_assert!(peers.held() <= 1000);
        }
    }
}

#[test]
fn two_servers_that_are_set_on_each_other_stop_after_one_answer() {
    // Someone greets one of them in the name of the other.
    let [mut a, mut b] = [Peers::new(Limits::default()), Peers::new(Limits::default())];
    let (at_a, at_b) = (source(1), source(2));
    let answer = a.receive(START, at_b, &Packet::bare(Kind::Hello, 7, 0).encode()).answer.unwrap();
    assert_eq!(b.receive(START, at_a, &answer.encode()), dropped(News::Answer));
    // The same with an acknowledgement.
    let cookie = greet(&mut a, START, at_b, 7);
    let answer = a.receive(START, at_b, &data(Kind::Last, 7, cookie, b"!")).answer.unwrap();
    assert_eq!(b.receive(START, at_a, &answer.encode()), dropped(News::Answer));
    assert_eq!(b.counts().answers, 2);
}

#[test]
fn what_is_malformed_is_dropped_and_counted_and_the_message_arrives_all_the_same() {
    let mut peers = Peers::new(Limits::default());
    let cookie = greet(&mut peers, START, source(1), 7);
    let good = data(Kind::Last, 7, cookie, "안녕하세요, 서버님!".as_bytes());
    let mut malformed = 0;
    for length in 0..good.len() {
        let reaction = peers.receive(START, source(1), &good[..length]);
        let why = if length < HEADER { Malformed::Short } else { Malformed::Damaged };
        assert_eq!(reaction, dropped(News::Malformed(why)));
        malformed += 1;
    }
    for bit in 0..8 * good.len() {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(peers.receive(START, source(1), &damaged), dropped(News::Malformed(Malformed::Damaged)));
        malformed += 1;
    }
    assert_eq!((peers.counts().malformed, peers.known()), (malformed, 0));
    assert_eq!(peers.receive(START, source(1), &good).message.unwrap(), "안녕하세요, 서버님!".as_bytes());
}

#[test]
fn a_message_is_taken_once_however_late_its_packets_come_again() {
    let mut peers = Peers::new(Limits::default());
    let cookie = greet(&mut peers, START, source(1), 7);
    let whole = data(Kind::Last, 7, cookie, b"transfer 100 won");
    assert!(peers.receive(START, source(1), &whole).message.is_some());
    for second in 0..1000 {
        let reaction = peers.receive(second * SECOND, source(1), &whole);
        assert_eq!(reaction.message, None, "after {second} s");
        // Whoever asks is told, as long as they go on asking.
        assert_eq!(reaction.answer.unwrap().number, 8, "after {second} s");
    }
    // Whoever is silent is forgotten; and then their cookie is too old to begin anything.
    let late = 999 * SECOND + LIFETIME;
    peers.forget(late);
    assert_eq!(peers.known(), 0);
    assert_eq!(peers.receive(late, source(1), &whole), dropped(News::Unknown));
    assert_eq!(peers.counts().whole, 1);
}

#[test]
fn a_cookie_that_is_found_on_the_way_is_soon_worth_nothing() {
    let mut peers = Peers::new(Limits::default());
    let cookie = greet(&mut peers, START, source(1), 7);
    let first = data(Kind::Data, 7, cookie, b"late");
    assert_eq!(peers.receive(LIFETIME, source(1), &first), dropped(News::Unknown));
}

#[test]
fn a_message_that_goes_on_survives_the_change_of_the_secret() {
    let mut peers = Peers::new(Limits::default());
    let cookie = greet(&mut peers, START, source(1), 0);
    for number in 0..100 {
        let now = number * 10 * SECOND; // 1000 s in all
        let reaction = peers.receive(now, source(1), &data(Kind::Data, number, cookie, b"piece"));
        assert_eq!(reaction.news, News::Packet(Receipt::InOrder(1)), "{number}");
    }
}

#[test]
fn a_peer_that_falls_silent_is_forgotten_and_its_memory_is_given_back() {
    let limits = Limits { idle: 30 * SECOND, ..Limits::default() };
    let mut peers = Peers::new(limits);
    let cookie = greet(&mut peers, START, source(1), 7);
    peers.receive(START, source(1), &data(Kind::Data, 7, cookie, &[0; 1000]));
    peers.forget(29 * SECOND);
    assert_eq!((peers.known(), peers.held()), (1, 1000));
    peers.forget(30 * SECOND);
    assert_eq!((peers.known(), peers.held(), peers.counts().forgotten), (0, 0, 1));
}

#[test]
fn a_message_beyond_the_limit_is_dropped_and_its_memory_given_back() {
    let mut peers = Peers::new(Limits { message: 1000, ..Limits::default() });
    let cookie = greet(&mut peers, START, source(1), 0);
    for number in 0..10 {
        let reaction = peers.receive(START, source(1), &data(Kind::Data, number, cookie, &[0; 100]));
        assert_eq!(reaction.news, News::Packet(Receipt::InOrder(1)), "{number}");
    }
    assert_eq!(peers.receive(START, source(1), &data(Kind::Data, 10, cookie, &[0; 1])), dropped(News::TooLong));
    assert_eq!(peers.held(), 0);
    assert_eq!(peers.receive(START, source(1), &data(Kind::Last, 11, cookie, b"")), dropped(News::TooLong));
    assert_eq!(peers.counts().too_long, 2);
}

#[test]
fn what_is_early_counts_towards_the_limit() {
    let mut peers = Peers::new(Limits { message: 1000, ..Limits::default() });
    let cookie = greet(&mut peers, START, source(1), 0);
    peers.receive(START, source(1), &data(Kind::Data, 0, cookie, b""));
    let mut news = Vec::new();
    for number in 2..MAX_WINDOW as u32 {
        news.push(peers.receive(START, source(1), &data(Kind::Data, number, cookie, &[0; 100])).news);
        assert!(peers.held() <= 1000);
    }
    assert_eq!(news[..10], [News::Packet(Receipt::Early); 10]);
    assert_eq!(news[10], News::TooLong);
}

#[test]
fn the_last_acknowledgement_may_be_lost() {
    // Of the acknowledgements, half are lost.
    const BACK: Faults = Faults { lost: 50, ..BAD };
    let mut repeated = 0;
    for seed in 0..20 {
        let mut world = World::new(Sender::new(long_message(100, seed), 1, PATIENT), BAD, seed);
        (world.there, world.back) = (Link::new(Faults { lost: 0, ..BAD }, seed), Link::new(BACK, seed));
        assert_eq!(world.play(), State::Delivered);
        assert_eq!(world.messages, [long_message(100, seed)]);
        repeated += world.peers.counts().packets - 1;
    }
    assert!(repeated > 10, "{repeated}");
}

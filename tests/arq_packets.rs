//! What is no packet is found, whatever it is, and hurts nobody.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::time::Duration;

use proptest::prelude::*;
use socket_steps::arq::packet::{HEADER, Kind, MAX_DATA, MAX_WINDOW, Malformed, Packet, distance};
use socket_steps::arq::peers::{Limits, Peers};
use socket_steps::arq::receiver::Receiver;
use socket_steps::arq::sender::{Options, Sender, State};
use support::figures::tries;

fn packets() -> impl Strategy<Value = Packet> {
    let kinds = prop_oneof![Just(Kind::Hello), Just(Kind::Cookie), Just(Kind::Data), Just(Kind::Last), Just(Kind::Ack)];
    let data = prop::collection::vec(any::<u8>(), 0..=MAX_DATA);
    (kinds, any::<u32>(), any::<u32>(), any::<u64>(), data).prop_map(|(kind, number, echo, cookie, data)| {
        let data = if matches!(kind, Kind::Data | Kind::Last) { data } else { Vec::new() };
        Packet { kind, number, echo, cookie, data }
    })
}

proptest! {
    #![proptest_config(tries(50, 250))]

    #[test]
    fn a_packet_comes_out_as_it_went_in(packet in packets()) {
        let bytes = packet.encode();
        prop_assert_eq!(bytes.len(), HEADER + packet.data.len());
        prop_assert_eq!(Packet::decode(&bytes), Ok(packet));
    }

    #[test]
    fn every_truncation_is_found(packet in packets()) {
        let bytes = packet.encode();
        for length in 0..bytes.len() {
            let why = if length < HEADER { Malformed::Short } else { Malformed::Damaged };
            prop_assert_eq!(Packet::decode(&bytes[..length]), Err(why), "cut to {}", length);
        }
    }

    #[test]
    fn every_flipped_bit_is_found(packet in packets()) {
        let mut bytes = packet.encode();
        for bit in 0..8 * bytes.len() {
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Packet::decode(&bytes), Err(Malformed::Damaged), "bit {}", bit);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn up_to_32_bits_in_a_row_are_found(packet in packets(), at in any::<prop::sample::Index>(), noise in 1..=u32::MAX) {
        let mut bytes = packet.encode();
        let at = at.index(bytes.len() - 3);
        for (byte, noise) in bytes[at..].iter_mut().zip(noise.to_be_bytes()) {
            *byte ^= noise;
        }
        prop_assert_eq!(Packet::decode(&bytes), Err(Malformed::Damaged));
    }

    #[test]
    fn bytes_at_the_end_are_found(packet in packets(), more in prop::collection::vec(any::<u8>(), 1..2000)) {
        let bytes = [packet.encode(), more].concat();
        let why = if bytes.len() > HEADER + MAX_DATA { Malformed::Long } else { Malformed::Damaged };
        prop_assert_eq!(Packet::decode(&bytes), Err(why));
    }

    #[test]
    fn a_distance_goes_there_and_back_across_the_wrap(from in any::<u32>(), far in i32::MIN + 1..=i32::MAX) {
        let to = from.wrapping_add_signed(far);
        prop_assert_eq!((distance(from, to), distance(to, from)), (far, -far));
    }

    #[test]
    fn packets_nobody_would_send_make_no_receiver_stumble(
        first in any::<u32>(),
        packets in prop::collection::vec((any::<i8>(), any::<bool>(), 0..50_usize), 0..500),
    ) {
        let mut receiver = Receiver::new(first);
        for (step, is_last, length) in packets {
            let number = receiver.expected().wrapping_add_signed(i32::from(step));
            receiver.receive(number, is_last, &vec![0; length]);
            receiver.take();
            prop_assert!(receiver.held() <= MAX_WINDOW * 50);
        }
    }

    #[test]
    fn answers_nobody_would_give_make_no_sender_stumble(
        first in any::<u32>(),
        answers in prop::collection::vec((packets(), any::<i8>(), any::<i8>(), any::<bool>()), 0..100),
    ) {
        let mut sender = Sender::new(vec![0; 1000], first, Options { piece: 10, ..Options::default() });
        let mut now = Duration::ZERO;
        let mut newest = first;
        for (packet, number, echo, ours) in answers {
            while let Some((packet, _)) = sender.next_packet(now) {
                newest = packet.number;
            }
            prop_assert_eq!(sender.wakes_at().is_some(), sender.state() == State::Sending);
            let number = newest.wrapping_add_signed(i32::from(number));
            let echo = newest.wrapping_add_signed(i32::from(echo));
            let cookie = if ours { 42 } else { packet.cookie };
            let number = if packet.kind == Kind::Cookie { first } else { number };
            let _ = sender.receive(now, &Packet { number, echo, cookie, ..packet }.encode());
            now += Duration::from_millis(10);
        }
    }

    #[test]
    fn bytes_that_are_anything_are_dropped_counted_and_not_answered(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..100)
    ) {
        let mut peers = Peers::new(Limits::default());
        let mut sender = Sender::new(b"hello".into(), 1, Options::default());
        for datagram in &datagrams {
            let reaction = peers.receive(Duration::ZERO, ([192, 0, 2, 1], 1).into(), datagram);
            prop_assert_eq!(reaction.answer, None);
            prop_assert!(sender.receive(Duration::ZERO, datagram).is_err());
        }
        prop_assert_eq!(peers.counts().malformed, datagrams.len() as u64);
        prop_assert_eq!(sender.tally().malformed, datagrams.len() as u64);
        prop_assert_eq!((peers.known(), peers.held()), (0, 0));
    }
}

/// With a checksum that is right: whoever wrote this meant it.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

#[test]
fn a_right_checksum_does_not_make_a_packet() {
    let mut bytes = Packet::bare(Kind::Hello, 1, 2).encode();
    for kind in (0..=0).chain(6..=255) {
        bytes[4] = kind;
        assert_eq!(Packet::decode(&sealed(bytes.clone())), Err(Malformed::Kind), "{kind}");
    }
    for kind in [Kind::Hello, Kind::Cookie, Kind::Ack] {
        bytes[4] = kind as u8;
        assert!(Packet::decode(&sealed(bytes.clone())).is_ok());
        let with_data = [&bytes[..], b"data"].concat();
        assert_eq!(Packet::decode(&sealed(with_data)), Err(Malformed::Data), "{kind:?}");
    }
    assert_eq!(Packet::decode(&sealed(vec![0; HEADER + MAX_DATA + 1])), Err(Malformed::Long));
}

#[test]
fn only_what_comes_from_a_server_is_an_answer() {
    let answers = [Kind::Hello, Kind::Cookie, Kind::Data, Kind::Last, Kind::Ack].map(Kind::is_answer);
    assert_eq!(answers, [false, true, false, false, true]);
}

//! A message arrives whole, once, through a link that loses, doubles, overtakes and damages; all in a time that
//! only the test makes go by.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::cell::Cell;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use socket_steps::arq::link::{Fates, Faults};
use socket_steps::arq::sender::{Options, Sender, State};
use support::figures::{figure, tries};
use support::lossy::{BAD, PATIENT, World, long_message};

const PERFECT: Faults = Faults { lost: 0, doubled: 0, late: 0, damaged: 0, ..BAD };

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn ten_mebibytes_arrive_through_a_bad_link_with_twenty_seeds_across_the_wrap() {
    const MESSAGE: usize = 10 << 20;
    let seeds = Mutex::new(0..20);
    let met = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while let Some(seed) = { seeds.lock().unwrap().next() } {
                    let message = long_message(MESSAGE, seed);
                    // Some thousands of packets before the numbers begin again.
                    let sender = Sender::new(message.clone(), u32::MAX - 4000, PATIENT);
                    assert!(sender.packets() > 8000);
                    let mut world = World::new(sender, BAD, seed);
                    assert_eq!(world.play(), State::Delivered, "seed {seed}");
                    world.settle();
                    assert!(world.messages == [message], "seed {seed}: another message has come");
                    every_fault_was_met(&world);
                    met.lock().unwrap().extend([world.there.fates(), world.back.fates()]);
                }
            });
        }
    });
    let met = met.into_inner().unwrap();
    let sum = |count: fn(&Fates) -> u64| met.iter().map(count).sum::<u64>();
    let [sent, lost] = [sum(|fates| fates.sent), sum(|fates| fates.lost)];
    let [doubled, late, damaged] = [sum(|fates| fates.doubled), sum(|fates| fates.late), sum(|fates| fates.damaged)];
    figure(
        "B21",
        met.len() == 2 * 20,
        format!(
            "seeds 0 to 19, {MESSAGE} bytes each, all equal and taken once; of {sent} datagrams both ways {lost} lost, \
             {doubled} doubled, {late} late, {damaged} damaged"
        ),
    );
}

/// The links did what they were told to, and both ends saw it.
fn every_fault_was_met(world: &World) {
    for link in [&world.there, &world.back] {
        let fates = link.fates();
        let share = |count: u64| count as f64 / fates.sent as f64;
        assert!((0.18..0.22).contains(&share(fates.lost)), "{fates:?}");
        // What is lost has no other fate.
        assert!((0.03..0.05).contains(&share(fates.doubled)), "{fates:?}");
        assert!((0.18..0.22).contains(&share(fates.late)), "{fates:?}");
        assert!((0.005..0.012).contains(&share(fates.damaged)), "{fates:?}");
    }
    let (tally, counts) = (world.sender.tally(), world.peers.counts());
    assert!(tally.malformed > 0 && tally.useless > 0 && tally.after_silence > 0 && tally.after_gaps > 0, "{tally:?}");
    assert!(counts.malformed > 0 && counts.packets > world.sender.packets() as u64, "{counts:?}");
    assert!(counts.bytes_out <= counts.bytes_in, "{counts:?}");
}

#[test]
fn a_window_is_as_many_times_faster_as_it_has_packets() {
    let trip = 2 * PERFECT.delay;
    let time = |window| {
        // The greeting and the first packet take a round trip each; then 64 packets.
        let sender = Sender::new(long_message(65 * 10, 1), 1, Options { window, piece: 10, ..PATIENT });
        let mut world = World::new(sender, PERFECT, 1);
        assert_eq!(world.play(), State::Delivered);
        assert_eq!(world.sender.tally().sent, 66, "something was sent again");
        world.now.div_duration_f64(trip).round()
    };
    assert_eq!([1, 2, 16, 64].map(time), [66.0, 34.0, 6.0, 3.0]);
}

#[test]
fn on_a_bad_link_a_window_is_several_times_faster() {
    let time = |window| {
        let sender = Sender::new(long_message(100_000, 1), 1, Options { window, piece: 1000, ..PATIENT });
        let mut world = World::new(sender, BAD, 1);
        assert_eq!(world.play(), State::Delivered);
        assert!(world.there.fates().lost > 10);
        world.now
    };
    assert!(time(1) > 3 * time(16), "{:?} and {:?}", time(1), time(16));
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let story = |seed| {
        let sender = Sender::new(long_message(1000, 1), 1, Options { window: 8, piece: 10, ..PATIENT });
        let mut world = World::new(sender, BAD, seed);
        world.story = Some(Vec::new());
        assert_eq!(world.play(), State::Delivered);
        world.story.unwrap()
    };
    assert!(story(3).len() > 300);
    assert_eq!(story(3), story(3));
    assert_ne!(story(3), story(4));
}

#[test]
fn a_packet_that_acknowledgements_show_to_be_missing_is_sent_again_before_its_time() {
    // Nothing is late here: what is missing is lost.
    let sender = Sender::new(long_message(1000, 1), 1, Options { window: 16, piece: 10, ..PATIENT });
    let mut world = World::new(sender, Faults { lost: 5, ..PERFECT }, 1);
    assert_eq!(world.play(), State::Delivered);
    let (lost, tally) = (world.there.fates().lost, world.sender.tally());
    assert!(lost > 2 && tally.after_gaps >= lost - 1, "{lost} lost, {tally:?}");
    assert!(tally.after_silence <= 2, "{lost} lost, {tally:?}");
}

#[test]
fn a_link_that_carries_nothing_is_given_up_when_the_patience_is_over_and_not_before() {
    let sender = Sender::new(b"hello".into(), 1, Options { patience: seconds(20), ..PATIENT });
    let mut world = World::new(sender, Faults { lost: 100, ..BAD }, 1);
    assert_eq!(world.play(), State::GaveUp);
    assert_eq!(world.now, seconds(20));
    // It has waited 1, 2, 4 and 8 seconds, each time twice as long, and then the rest.
    assert_eq!(world.sender.tally().sent, 5);
    assert!(world.messages.is_empty());
}

#[test]
fn the_largest_delay_there_is_does_not_overflow() {
    let sender = Sender::new(b"hello".into(), 1, Options { patience: seconds(20), ..PATIENT });
    let endless = Faults { delay: Duration::MAX, late_by: Duration::MAX, late: 100, ..PERFECT };
    assert_eq!(World::new(sender, endless, 1).play(), State::GaveUp);
}

/// Up to so bad that of two packets one is not acknowledged.
fn faults() -> impl Strategy<Value = Faults> {
    let shares = (0..=30_u8, 0..=50_u8, 0..=50_u8, 0..=5_u8);
    (shares, 0..200_u64, 0..500_u64).prop_map(|((lost, doubled, late, damaged), delay, late_by)| Faults {
        lost,
        doubled,
        late,
        damaged,
        delay: Duration::from_millis(delay),
        late_by: Duration::from_millis(late_by),
    })
}

#[test]
fn any_message_arrives_whole_and_once_through_any_link_or_its_sender_is_told() {
    let tries = tries(200, 2000);
    let (cases, seed) = (tries.cases, tries.rng_seed);
    let numbers = prop_oneof![any::<u32>(), u32::MAX - 100..=u32::MAX];
    let messages = prop::collection::vec(any::<u8>(), 0..3000);
    let anything = (messages, numbers, 1..80_usize, 1..100_usize, faults(), any::<u32>());
    let delivered = Cell::new(0);
    let outcome = TestRunner::new(tries).run(&anything, |(message, first, window, piece, faults, seed)| {
        let options = Options { window, piece, patience: seconds(200) };
        let mut world = World::new(Sender::new(message.clone(), first, options), faults, u64::from(seed));
        let state = world.play();
        world.settle();
        // Who gives up does not know whether the message has arrived, or only its acknowledgement was lost.
        prop_assert!(state == State::Delivered || world.messages.is_empty() || world.messages == [&message[..]]);
        prop_assert!(state == State::GaveUp || world.messages == [&message[..]]);
        prop_assert!(world.most_held <= message.len());
        let counts = world.peers.counts();
        prop_assert!(counts.bytes_out <= counts.bytes_in);
        prop_assert_eq!(counts.malformed > 0, world.there.fates().damaged > 0);
        delivered.set(delivered.get() + u32::from(state == State::Delivered));
        Ok(())
    });
    outcome.unwrap();
    let delivered = delivered.get();
    assert!(delivered > cases * 3 / 4, "only {delivered} of {cases} were delivered");
    let gave_up = cases - delivered;
    figure(
        "B21",
        true,
        format!(
            "{cases} messages through links as bad as you like: {delivered} whole and once, {gave_up} given up and told; \
             seed {seed}"
        ),
    );
}

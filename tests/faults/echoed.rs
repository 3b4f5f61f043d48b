//! Row B4: of many gibibytes, echoed to many at once in pieces of every size, no byte is lost or changed.

use std::env;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::random::Random;
use crate::support::figures::seed;
use crate::support::figures::{figure, full};
use crate::support::{Client, Server};

const LANES: u64 = 64;
const MIB: u64 = 1 << 20;
const LARGEST: u64 = 256 * 1024;

/// A connection carries as much at most. Each ends with a half-close, so that there are many of them.
const LONGEST: u64 = 64 * MIB;

/// Of a hundred pieces, so many are followed by a pause.
const PAUSES: u8 = 6;
const PAUSE: Duration = Duration::from_millis(4);

/// How much is echoed: 20 GiB at full size, or as many as `FAULTS_GIB` says.
fn amount() -> u64 {
    match env::var("FAULTS_GIB") {
        Ok(gib) => gib.parse::<u64>().expect("FAULTS_GIB is a number") * 1024 * MIB,
        Err(_) if full() => 20 * 1024 * MIB,
        Err(_) => 128 * MIB,
    }
}

/// The bytes that one lane says, in all of its connections. Nothing like it is anywhere else: each block begins with
/// its own number, and the rest of it is the lane's noise.
struct Content {
    lane: u64,
    noise: Vec<u8>,
}

const BLOCK: u64 = 4096;

impl Content {
    fn new(seed: u64, lane: u64) -> Content {
        Content { lane, noise: Random::new(seed, lane).bytes(BLOCK as usize) }
    }

    /// What stands at this place and after it. Copied rather than computed: a generator would be slower than what
    /// is to be tested.
    fn fill(&self, mut at: u64, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let (block, from) = (at / BLOCK, (at % BLOCK) as usize);
            let (part, rest) = bytes.split_at_mut(bytes.len().min(self.noise.len() - from));
            part.copy_from_slice(&self.noise[from..][..part.len()]);
            let number = (self.lane << 48 | block).to_be_bytes();
            for (byte, number) in part.iter_mut().zip(number.iter().skip(from)) {
                *byte = *number;
            }
            at += part.len() as u64;
            bytes = rest;
        }
    }
}

/// What was done to the server, to be seen to have happened.
#[derive(Default)]
struct Done {
    connections: AtomicU64,
    pieces: AtomicU64,
    smallest: AtomicU64,
    largest: AtomicU64,
    pauses: AtomicU64,
    /// Half-closes while a part of the answer was still to come.
    early: AtomicU64,
}

/// Says this part of the content in pieces of every size, and ends its half.
fn say(mut client: &std::net::TcpStream, content: &Content, from: u64, to: u64, heard: &AtomicU64, done: &Done) {
    let mut random = Random::new(content.lane, from);
    let mut piece = vec![0; LARGEST as usize];
    let mut at = from;
    while at < to {
        let length = random.of_any_size(LARGEST).min(to - at);
        content.fill(at, &mut piece[..length as usize]);
        client.write_all(&piece[..length as usize]).unwrap();
        at += length;
        done.pieces.fetch_add(1, Relaxed);
        done.smallest.fetch_add(u64::from(length == 1), Relaxed);
        done.largest.fetch_max(length, Relaxed);
        if random.percent(PAUSES) {
            // Not to wait for anything: the pause is what is tested.
            thread::sleep(random.time(PAUSE));
            done.pauses.fetch_add(1, Relaxed);
        }
    }
    client.shutdown(Shutdown::Write).unwrap();
    done.early.fetch_add(u64::from(heard.load(Relaxed) < to), Relaxed);
}

/// Hears this part of the content, to the byte, and then the end; with pauses of its own.
fn hear(mut client: &std::net::TcpStream, content: &Content, from: u64, to: u64, heard: &AtomicU64) {
    let mut random = Random::new(!content.lane, from);
    let (mut came, mut expected) = (vec![0; LARGEST as usize], vec![0; LARGEST as usize]);
    let mut at = from;
    loop {
        let count = client.read(&mut came).unwrap();
        if count == 0 {
            break;
        }
        assert!(at + count as u64 <= to, "lane {}: more than was said", content.lane);
        content.fill(at, &mut expected[..count]);
        if came[..count] != expected[..count] {
            let differs = came.iter().zip(&expected).position(|(one, other)| one != other).unwrap();
            panic!("lane {}: byte {} is another one", content.lane, at + differs as u64);
        }
        at += count as u64;
        heard.store(at, Relaxed);
        if random.percent(1) {
            thread::sleep(random.time(PAUSE));
        }
    }
    assert_eq!(at, to, "lane {}: not everything came back", content.lane);
}

#[test]
fn of_many_gibibytes_in_random_pieces_with_pauses_and_half_closes_no_byte_is_lost_or_changed() {
    let (seed, amount, began) = (seed(), amount(), Instant::now());
    let places = LANES.to_string();
    // One that hears nothing for a while on a busy machine is not what this is about.
    let server = Server::start(&["--service", "echo", "--max-connections", &places, "--write-timeout", "60s"]);
    let done = Done::default();
    thread::scope(|scope| {
        for lane in 0..LANES {
            let (server, done) = (server.socket_addr(), &done);
            scope.spawn(move || {
                let content = Content::new(seed, lane);
                let mut random = Random::new(seed, LANES + lane);
                let share = amount / LANES;
                let mut at = 0;
                while at < share {
                    let to = (at + random.of_any_size(LONGEST.min(share))).min(share);
                    let client = Client::connect(server);
                    let heard = AtomicU64::new(at);
                    done.connections.fetch_add(1, Relaxed);
                    thread::scope(|scope| {
                        scope.spawn(|| say(&client.0, &content, at, to, &heard, done));
                        hear(&client.0, &content, at, to, &heard);
                    });
                    at = to;
                }
            });
        }
    });
    let took = began.elapsed();
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    let [connections, pieces, smallest, largest, pauses, early] =
        [&done.connections, &done.pieces, &done.smallest, &done.largest, &done.pauses, &done.early]
            .map(|n| n.load(Relaxed));
    assert_eq!((ended.accounts.of("served"), ended.accounts.of("refused")), (connections, 0));
    assert_eq!((ended.accounts.of("in"), ended.accounts.of("out")), (amount, amount));
    assert!(smallest > 0 && largest > LARGEST / 2 && pauses > 0 && early > 0, "the fault did not happen");
    let what = format!(
        "{:.1} GiB over {LANES} at a time, {connections} in all, {pieces} pieces of 1 to {largest} bytes, {pauses} \
         pauses, {early} half-closes before all had come back: 0 bytes lost or changed, in {:.0} s, seed {seed}",
        amount as f64 / (1024 * MIB) as f64,
        took.as_secs_f64()
    );
    figure("B4", true, what);
}

#[test]
fn every_block_of_every_lane_is_another_one() {
    let block = |lane, at| {
        let mut bytes = vec![0; 100];
        Content::new(1, lane).fill(at, &mut bytes);
        bytes
    };
    assert_eq!(block(1, BLOCK - 50)[50..], block(1, BLOCK)[..50], "it is the same wherever a piece begins");
    assert_eq!(block(1, 3)[..97], block(1, 0)[3..], "and in the middle of a number");
    assert_ne!(block(1, 0), block(1, BLOCK));
    assert_ne!(block(1, 0), block(2, 0));
}

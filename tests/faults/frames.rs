//! Whatever comes where frames should, a WebSocket ends with frames that are right, and the room goes on. What is said
//! in it does not depend on how it is cut: into fragments, or into pieces of TCP.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::Shutdown;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;

use crate::corpus::inputs;
use crate::support::figures::figure;
use crate::support::figures::tries;
use crate::support::web::{CLOSE, CONTINUE, FIN, Frame, PING, PONG, Site, TEXT, Ws};
use crate::support::{PREFIX, wait_until};

/// A room with somebody in it who hears, and somebody who says when it is enough.
struct Here {
    site: Site,
    hears: RefCell<Ws>,
    ends: RefCell<Ws>,
    said: Cell<u64>,
}

/// What came of some bytes: the frames that came back, and what the others heard.
type Outcome = (Vec<Frame>, Vec<String>);

impl Here {
    fn new() -> Here {
        let site = Site::start(&["--max-message", "64KiB"]);
        let [hears, ends] = [(); 2].map(|()| RefCell::new(Ws::connect(site.page, "/chat")));
        Here { site, hears, ends, said: Cell::new(0) }
    }

    /// Somebody enters the room, sends these bytes in pieces of such sizes, and then ends.
    fn send(&self, bytes: &[u8], sizes: &[usize]) -> Result<Outcome, String> {
        let mut ws = Ws::connect(self.site.page, "/chat");
        let (mut rest, mut sizes) = (bytes, sizes.iter());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(sizes.next().copied().unwrap_or(usize::MAX).min(rest.len()));
            // The server may have hung up already.
            let _ = ws.0.0.write_all(piece);
            rest = after;
        }
        let _ = ws.0.0.shutdown(Shutdown::Write);
        let (answer, end) = ws.0.rest_and_end();
        end.map_err(|error| format!("it ended with {error}"))?;
        let frames = frames(&answer)?;
        // What is said after it is heard after it.
        self.said.set(self.said.get() + 1);
        let last = format!("that was {}", self.said.get());
        self.ends.borrow_mut().say(&last);
        let mut hears = self.hears.borrow_mut();
        let heard = std::iter::from_fn(|| Some(hears.hear()).filter(|text| *text != last)).collect();
        // Whoever ends the room's conversations hears them too, and must not become slow.
        let mut ends = self.ends.borrow_mut();
        ends.send(FIN | PING, &last);
        while ends.frame() != (Frame { first: FIN | PONG, payload: last.clone().into_bytes() }) {}
        Ok((frames, heard))
    }

    /// All is as at first, and nothing has reached the log that could move a cursor.
    fn end(self) {
        assert_eq!(self.site.get("/").status, 200);
        self.site.server.client().send("hello").expect(format!("{PREFIX}hello"));
        drop((self.hears, self.ends));
        wait_until("nobody is in the room", || {
            let threads = crate::support::threads(self.site.server.pid());
            (threads < 20).then_some(())
        });
        let ended = self.site.server.stop();
        assert!(ended.status.success() && !ended.log.contains("panicked"), "{ended:?}");
        assert!(!ended.log.contains(|character: char| character.is_control() && character != '\n'), "{:?}", ended.log);
    }
}

/// A server's frames, each of which must be as RFC 6455 wants it, and the last of which is a goodbye or none.
fn frames(mut bytes: &[u8]) -> Result<Vec<Frame>, String> {
    let mut frames: Vec<Frame> = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let (length, rest) = match length {
            0..=125 => (usize::from(*length), rest),
            126 if rest.len() >= 2 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            _ => return Err(format!("a length of {length}: masked, or longer than what it answers")),
        };
        if rest.len() < length || ![FIN | PONG, FIN | CLOSE, FIN | PING, FIN | TEXT].contains(first) {
            return Err(format!("no frame of a server's: {bytes:02x?}"));
        }
        let frame = Frame { first: *first, payload: rest[..length].to_vec() };
        bytes = &rest[length..];
        if frame.first != FIN | TEXT && length > 125 {
            return Err(format!("a control frame of {length} bytes"));
        }
        if frames.iter().any(|earlier| earlier.close_code().is_some()) {
            return Err(format!("something was said after the goodbye: {frame:?}"));
        }
        frames.push(frame);
    }
    // A heartbeat may come whenever it likes.
    frames.retain(|frame| *frame != Frame { first: FIN | PING, payload: Vec::new() });
    if bytes.is_empty() { Ok(frames) } else { Err(format!("half a frame: {bytes:02x?}")) }
}

#[test]
fn the_corpus_is_ended_with_its_codes_however_it_is_cut() {
    let here = Here::new();
    let corpus = inputs(include_str!("corpus/frames.txt"));
    for input in &corpus {
        let whole = here.send(&input.bytes, &[]);
        let code = whole.as_ref().map(|(frames, _)| frames.last().and_then(Frame::close_code));
        assert_eq!(code, Ok(input.expected.parse().ok()), "{}", input.why);
        for cut in [1, 2, 3, 6, 10, input.bytes.len() / 2] {
            assert_eq!(here.send(&input.bytes, &[cut, 1, 1]), whole, "cut at {cut}: {}", input.why);
        }
    }
    figure("B22", true, format!("frames: {} inputs of the corpus, each ended with its code", corpus.len()));
    here.end();
}

/// A client's frame, which may say of itself what it likes.
#[derive(Clone, Debug)]
struct Sent {
    first: u8,
    mask: Option<[u8; 4]>,
    /// How its length is written: 0 as it should be, or in so many bytes; and how far it is off.
    bytes_of_length: u8,
    off: i64,
    payload: Vec<u8>,
}

impl Sent {
    fn new(first: u8, mask: [u8; 4], payload: &[u8]) -> Sent {
        Sent { first, mask: Some(mask), bytes_of_length: 0, off: 0, payload: payload.to_vec() }
    }

    fn bytes(&self) -> Vec<u8> {
        let length = (self.payload.len() as u64).wrapping_add_signed(self.off);
        let bit = if self.mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        match (self.bytes_of_length, length) {
            (0, 0..=125) => bytes.push(bit | length as u8),
            (0, 126..=0xffff) | (2, _) => {
                bytes.push(bit | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(bit | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        bytes.extend(self.mask.iter().flatten());
        let mask = self.mask.unwrap_or_default();
        bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }
}

fn any_frames() -> impl Strategy<Value = Vec<u8>> {
    let usual = select(&[FIN | TEXT, TEXT, CONTINUE, FIN | CONTINUE, FIN | PING, FIN | PONG, FIN | CLOSE, FIN | 2][..]);
    let first = prop_oneof![12 => usual, 1 => any::<u8>()];
    let mask = prop_oneof![12 => any::<[u8; 4]>().prop_map(Some), 1 => Just(None)];
    let length = prop_oneof![12 => Just((0, 0)), 1 => (select(&[2_u8, 8][..]), Just(0)), 1 => (0..9_u8, any::<i8>().prop_map(i64::from)), 1 => (0..9_u8, any::<i64>())];
    let codes = (select(&[0_u16, 999, 1000, 1001, 1005, 1006, 1015, 3000, 4999, 5000][..]), "[a-z\u{ac00}]{0,20}");
    let payload = prop_oneof![
        6 => ".{0,30}".prop_map(String::into_bytes),
        2 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (0..70_000_usize).prop_map(|length| vec![b'x'; length]),
        1 => codes.prop_map(|(code, reason)| [&code.to_be_bytes(), reason.as_bytes()].concat()),
    ];
    let sent = (first, mask, length, payload).prop_map(|(first, mask, (bytes_of_length, off), payload)| {
        Sent { first, mask, bytes_of_length, off, payload }.bytes()
    });
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![9 => prop::collection::vec(sent, 0..8).prop_map(|frames| frames.concat()), 1 => noise]
}

#[test]
fn any_bytes_are_answered_alike_and_rightly_however_they_are_cut() {
    let here = Here::new();
    let tries = tries(80, 2000);
    let codes = RefCell::new(std::collections::BTreeMap::<Option<u16>, u32>::new());
    let sizes = prop::collection::vec(prop_oneof![1..20_usize, 1..5000_usize], 0..30);
    let outcome = TestRunner::new(tries.clone()).run(&(any_frames(), sizes), |(bytes, sizes)| {
        let whole = here.send(&bytes, &[]).map_err(TestCaseError::fail)?;
        let code = whole.0.last().and_then(Frame::close_code);
        *codes.borrow_mut().entry(code).or_default() += 1;
        prop_assert_eq!(here.send(&bytes, &sizes).map_err(TestCaseError::fail)?, whole);
        Ok(())
    });
    outcome.unwrap();
    let codes = codes.into_inner();
    assert!(codes.contains_key(&Some(1002)) && codes.len() > 2, "there was nothing to refuse: {codes:?}");
    let codes: Vec<String> = codes.iter().map(|(code, times)| format!("{times} with {}", code.unwrap_or(0))).collect();
    let (cases, seed) = (tries.cases, tries.rng_seed);
    figure("B22", true, format!("frames: {cases} times any, ended {}; 0 failed; seed {seed}", codes.join(", ")));
    here.end();
}

#[test]
fn a_message_is_heard_as_it_was_said_however_it_is_cut_and_whatever_stands_between() {
    let here = Here::new();
    let tries = tries(60, 1500);
    let texts = prop_oneof![6 => "[^\n]{0,60}", 1 => (0..30_000_usize).prop_map(|length| "x".repeat(length))];
    let cuts = prop::collection::vec(any::<Index>(), 0..5);
    let pings = prop::option::of(prop::collection::vec(any::<u8>(), 0..=125));
    let messages = prop::collection::vec((texts, cuts, pings, any::<[u8; 4]>()), 0..6);
    let sizes = prop::collection::vec(prop_oneof![1..20_usize, 1..5000_usize], 0..30);
    let outcome = TestRunner::new(tries.clone()).run(&(messages, sizes), |(messages, sizes)| {
        let (mut bytes, mut answers, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for (text, cuts, ping, mask) in messages {
            let mut edges: Vec<usize> =
                cuts.iter().map(|cut| cut.index(text.len() + 1)).chain([0, text.len()]).collect();
            edges.sort_unstable();
            let last = edges.len() - 2;
            for (at, edge) in edges.windows(2).enumerate() {
                let first = if at == 0 { TEXT } else { CONTINUE } | if at == last { FIN } else { 0 };
                bytes.extend(Sent::new(first, mask, &text.as_bytes()[edge[0]..edge[1]]).bytes());
                // Between two fragments, too.
                if let Some(ping) = &ping {
                    bytes.extend(Sent::new(FIN | PING, mask, ping).bytes());
                    answers.push(Frame { first: FIN | PONG, payload: ping.clone() });
                }
            }
            texts.push(text);
        }
        bytes.extend(Sent::new(FIN | CLOSE, [0; 4], &[3, 232]).bytes());
        answers.push(Frame { first: FIN | CLOSE, payload: vec![3, 232] });
        prop_assert_eq!(here.send(&bytes, &sizes).map_err(TestCaseError::fail)?, (answers, texts));
        Ok(())
    });
    outcome.unwrap();
    let (cases, seed) = (tries.cases, tries.rng_seed);
    figure("B22", true, format!("frames: {cases} conversations cut anywhere, all heard as said; seed {seed}"));
    here.end();
}

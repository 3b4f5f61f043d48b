//! Any bytes, cut anywhere, are the same lines; and the service answers each of them, up to one that is too long.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use socket_steps::lines::{LineBuffer, TooLong};

use crate::corpus::inputs;
use crate::support::figures::figure;
use crate::support::figures::tries;
use crate::support::{PREFIX, Server};

/// How long a line may be where the corpus is tried.
const LIMIT: usize = 100;

/// What the lines should be, and whether one was too long: written down without a buffer.
fn expected(bytes: &[u8], limit: usize) -> (Vec<&[u8]>, bool) {
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let is_too_long = |line: &&[u8]| line.strip_suffix(b"\n").unwrap_or(line).len() > limit;
    match lines.iter().position(is_too_long) {
        Some(at) => (lines[..at].to_vec(), true),
        None => (lines, false),
    }
}

/// Hands out bytes in pieces of these sizes, and then as many at a time as are wanted.
struct Pieces<'a>(&'a [u8], std::slice::Iter<'a, usize>);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.1.next().copied().unwrap_or(usize::MAX).clamp(1, buffer.len());
        let (piece, rest) = self.0.split_at(most.min(self.0.len()));
        buffer[..piece.len()].copy_from_slice(piece);
        self.0 = rest;
        Ok(piece.len())
    }
}

fn lines_of(bytes: &[u8], sizes: &[usize], limit: usize) -> (Vec<Vec<u8>>, bool) {
    let (mut buffer, mut source) = (LineBuffer::new(limit), Pieces(bytes, sizes.iter()));
    let mut lines = Vec::new();
    loop {
        match buffer.next_line() {
            Ok(Some(line)) => {
                lines.push(line.to_vec());
                continue;
            }
            Ok(None) => {}
            Err(TooLong { .. }) => return (lines, true),
        }
        if buffer.read_from(&mut source).unwrap() == 0 {
            lines.extend(Some(buffer.rest().to_vec()).filter(|rest| !rest.is_empty()));
            return (lines, false);
        }
    }
}

/// What the service says to these bytes, cut into pieces of these sizes.
fn answer(server: &Server, bytes: &[u8], sizes: &[usize]) -> Result<Vec<u8>, String> {
    let mut client = server.client();
    let mut source = Pieces(bytes, sizes.iter());
    let mut piece = [0; 4096];
    loop {
        match source.read(&mut piece).unwrap() {
            0 => break,
            // It need not hear the end of a line that is too long.
            count => drop(client.0.write_all(&piece[..count])),
        }
    }
    let _ = client.0.shutdown(Shutdown::Write);
    let (answer, end) = client.rest_and_end();
    end.map(|()| answer).map_err(|error| error.to_string())
}

/// What it should say.
fn right_answer(bytes: &[u8], limit: usize) -> Vec<u8> {
    let (lines, is_too_long) = expected(bytes, limit);
    let mut answer = lines.iter().flat_map(|line| [PREFIX.as_bytes(), line]).collect::<Vec<_>>().concat();
    if is_too_long {
        answer.extend(format!("too long: a line may have at most {limit} bytes\n").bytes());
    }
    answer
}

fn start(limit: usize) -> Server {
    Server::start(&["--service", "lines", "--max-message", &limit.to_string()])
}

fn stop(server: Server) {
    server.client().send("still here\n").expect(format!("{PREFIX}still here\n"));
    let ended = server.stop();
    assert!(ended.status.success() && !ended.log.contains("panicked"), "{ended:?}");
    assert!(!ended.log.contains(|character: char| character.is_control() && character != '\n'), "{:?}", ended.log);
}

#[test]
fn the_corpus_is_answered_line_by_line_however_it_is_cut() {
    let server = start(LIMIT);
    let corpus = inputs(include_str!("corpus/lines.txt"));
    for input in &corpus {
        let (bytes, why) = (&input.bytes, input.why);
        let (lines, is_too_long) = expected(bytes, LIMIT);
        let counted = format!("{}{}", lines.len(), if is_too_long { "!" } else { "" });
        assert_eq!(counted, input.expected, "{why}");
        for sizes in [&[][..], &[1; 300], &[2, 1, 1], &[100, 1, 1], &[101]] {
            let lines: Vec<Vec<u8>> = lines.iter().map(|line| line.to_vec()).collect();
            assert_eq!(lines_of(bytes, sizes, LIMIT), (lines, is_too_long), "{sizes:?}: {why}");
            assert_eq!(answer(&server, bytes, sizes).as_ref(), Ok(&right_answer(bytes, LIMIT)), "{sizes:?}: {why}");
        }
    }
    figure("B22", true, format!("lines: {} inputs of the corpus, each answered rightly", corpus.len()));
    stop(server);
}

/// Bytes with runs of one of them as long as this, and sizes of pieces to cut them into.
fn inputs_and_cuts(longest: usize) -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    let part = prop_oneof![
        4 => Just(b"\n".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        4 => prop::collection::vec(any::<u8>(), 0..20),
        1 => (0..longest).prop_map(|length| vec![b'x'; length]),
    ];
    let bytes = prop::collection::vec(part, 0..60);
    let sizes = prop::collection::vec(prop_oneof![1..5_usize, 1..3000_usize], 0..60);
    (bytes.prop_map(|bytes| bytes.concat()), sizes)
}

#[test]
fn any_bytes_are_the_same_lines_however_they_are_cut() {
    let tries = tries(300, 5000);
    let mut too_long = 0;
    let counted = std::cell::RefCell::new(&mut too_long);
    let anything = (inputs_and_cuts(5000), any::<Index>(), 0..3_usize);
    let outcome = TestRunner::new(tries.clone()).run(&anything, |((bytes, sizes), at, more)| {
        // As long as one of its lines, or a byte more or less: that is where mistakes are.
        let lengths: Vec<usize> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::len).collect();
        let limit = (lengths[at.index(lengths.len())] + more).saturating_sub(1);
        let (lines, is_too_long) = expected(&bytes, limit);
        let lines: Vec<Vec<u8>> = lines.into_iter().map(<[u8]>::to_vec).collect();
        **counted.borrow_mut() += u32::from(is_too_long);
        prop_assert_eq!(lines_of(&bytes, &sizes, limit), (lines, is_too_long));
        Ok(())
    });
    outcome.unwrap();
    assert!(too_long > 0 && too_long < tries.cases, "{too_long}");
    let (cases, seed) = (tries.cases, tries.rng_seed);
    figure(
        "B22",
        true,
        format!("lines: {cases} inputs thought up, {too_long} with a line too long, 0 failed; seed {seed}"),
    );
}

#[test]
fn any_bytes_are_answered_line_by_line() {
    let server = start(LIMIT);
    let tries = tries(100, 3000);
    let outcome = TestRunner::new(tries.clone()).run(&inputs_and_cuts(LIMIT + 20), |(bytes, sizes)| {
        prop_assert_eq!(answer(&server, &bytes, &sizes), Ok(right_answer(&bytes, LIMIT)));
        Ok(())
    });
    outcome.unwrap();
    let (cases, seed) = (tries.cases, tries.rng_seed);
    figure("B22", true, format!("lines: {cases} conversations with the service, all answered rightly; seed {seed}"));
    stop(server);
}

//! What is sent, and what must come back: every connection knows every byte of it beforehand.

use std::io::IoSlice;

/// What stands at the head of a message, where there is room: who sent it, and which one it is, so that an
/// answer which is given to the wrong connection, or in the wrong order, tells whose it is.
const STAMP: usize = 16;

/// The rest of a message is one of so many texts, where they do not take too much memory.
const BODIES: usize = 16;
const BODIES_BYTES: usize = 16 * 1024 * 1024;

/// Letters and digits, 64 of them with two signs: servers of text, lines and bytes all take them.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The messages of a run. Each is a line of text of the same size, so that servers of pieces, of lines and of
/// bytes can all be measured.
pub(crate) struct Messages {
    /// Each message's size, its newline included.
    pub(crate) size: usize,
    /// What the server puts in front of each answer.
    pub(crate) prefix: Vec<u8>,
    /// How many bytes of a message are its stamp.
    stamp: usize,
    /// What follows the stamp, newline and all, one after the other.
    bodies: Vec<u8>,
    seed: u64,
}

/// The beginning of one message.
#[derive(Clone, Copy)]
pub(crate) struct Stamp([u8; STAMP]);

impl Messages {
    pub(crate) fn new(size: usize, prefix: &str, seed: u64) -> Messages {
        let stamp = STAMP.min(size - 1);
        let body = size - stamp;
        let count = (BODIES_BYTES / body).clamp(1, BODIES);
        let mut random = Random(seed);
        let mut bodies = Vec::with_capacity(body * count);
        for _ in 0..count {
            bodies.extend(std::iter::repeat_with(|| random.letters()).flatten().take(body - 1));
            bodies.push(b'\n');
        }
        Messages { size, prefix: prefix.as_bytes().to_vec(), stamp, bodies, seed }
    }

    /// The size of an answer, prefix and all.
    pub(crate) fn answer_size(&self) -> usize {
        self.prefix.len() + self.size
    }

    /// The head of this connection's message of this number: `c00007 m0000123 `; in messages without room for
    /// that, as many letters as fit, of which no two connections have the same sequence.
    pub(crate) fn stamp(&self, connection: usize, number: u64) -> Stamp {
        let mut stamp = *b"c000000 m000000 ";
        if self.stamp == STAMP {
            write_digits(&mut stamp[1..7], connection as u64);
            write_digits(&mut stamp[9..15], number);
        } else {
            let mut random = Random(self.seed ^ ((connection as u64) << 32) ^ number);
            let letters = random.letters();
            stamp[..8].copy_from_slice(&letters);
            stamp[8..].copy_from_slice(&random.letters());
        }
        Stamp(stamp)
    }

    /// What stands at this place of the message: the next part of it that lies in one piece.
    pub(crate) fn part<'a>(&'a self, stamp: &'a Stamp, connection: usize, number: u64, at: usize) -> &'a [u8] {
        if at < self.stamp {
            return &stamp.0[at..self.stamp];
        }
        let length = self.size - self.stamp;
        let which = (connection as u64 + number) % (self.bodies.len() / length) as u64;
        let body = &self.bodies[which as usize * length..][..length];
        &body[at - self.stamp..]
    }

    /// The same for an answer, which begins with the prefix.
    pub(crate) fn answer_part<'a>(&'a self, stamp: &'a Stamp, who: usize, number: u64, at: usize) -> &'a [u8] {
        match at.checked_sub(self.prefix.len()) {
            None => &self.prefix[at..],
            Some(at) => self.part(stamp, who, number, at),
        }
    }

    /// The same, but no longer than `most` and across parts: for people.
    pub(crate) fn answer_text(&self, connection: usize, number: u64, at: usize, most: usize) -> Vec<u8> {
        let stamp = self.stamp(connection, number);
        let mut text = Vec::new();
        while text.len() < most && at + text.len() < self.answer_size() {
            text.extend_from_slice(self.answer_part(&stamp, connection, number, at + text.len()));
        }
        text.truncate(most);
        text
    }
}

/// How many messages go to the kernel in one call, at most.
pub(crate) const BATCH: usize = 32;

/// The bytes of some messages in a row, ready for one call.
pub(crate) struct Batch<'a> {
    pub(crate) slices: [IoSlice<'a>; 2 * BATCH],
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

impl<'a> Batch<'a> {
    /// The messages from `first` up to, but without, `end`, of which the first lacks the bytes before `at`.
    pub(crate) fn of(
        messages: &'a Messages,
        stamps: &'a mut [Stamp; BATCH],
        connection: usize,
        (first, end): (u64, u64),
        at: usize,
    ) -> Batch<'a> {
        let numbers = first..end.min(first + BATCH as u64);
        for (stamp, number) in stamps.iter_mut().zip(numbers.clone()) {
            *stamp = messages.stamp(connection, number);
        }
        let stamps: &'a [Stamp; BATCH] = stamps;
        let mut batch = Batch { slices: [IoSlice::new(&[]); 2 * BATCH], count: 0, bytes: 0 };
        let mut at = at;
        for (stamp, number) in stamps.iter().zip(numbers) {
            while at < messages.size {
                let part = messages.part(stamp, connection, number, at);
                batch.slices[batch.count] = IoSlice::new(part);
                batch.count += 1;
                batch.bytes += part.len();
                at += part.len();
            }
            at = 0;
        }
        batch
    }
}

impl Stamp {
    pub(crate) const EMPTY: Stamp = Stamp([0; STAMP]);
}

fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// splitmix64: small, good enough, and the same on every machine.
struct Random(u64);

impl Random {
    fn letters(&mut self) -> [u8; 8] {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^= number >> 31;
        number.to_le_bytes().map(|byte| ALPHABET[usize::from(byte % 64)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(messages: &Messages, connection: usize, number: u64) -> Vec<u8> {
        let mut stamps = [Stamp::EMPTY; BATCH];
        let batch = Batch::of(messages, &mut stamps, connection, (number, number + 1), 0);
        let bytes = batch.slices[..batch.count].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>();
        assert_eq!(bytes.len(), batch.bytes);
        bytes
    }

    #[test]
    fn a_message_is_one_line_of_its_size_and_the_answer_is_prefix_and_message() {
        for size in [1, 2, 5, 16, 17, 18, 64, 70_000] {
            let messages = Messages::new(size, "답: ", 1);
            let sent = message(&messages, 7, 123);
            assert_eq!(sent.len(), size);
            assert!(sent.ends_with(b"\n") && sent[..size - 1].iter().all(|byte| *byte >= b' '), "{sent:?}");
            let answer = [messages.prefix.clone(), sent].concat();
            assert_eq!(messages.answer_text(7, 123, 0, usize::MAX), answer);
            assert_eq!(messages.answer_text(7, 123, 3, usize::MAX), answer[3..]);
        }
    }

    #[test]
    fn messages_of_other_connections_and_numbers_differ() {
        for size in [5, 16, 17, 64, 1000] {
            let messages = Messages::new(size, "", 1);
            let all = (0..20).flat_map(|who| (0..20).map(move |number| (who, number)));
            let all: Vec<_> = all.map(|(who, number)| message(&messages, who, number)).collect();
            let different: std::collections::BTreeSet<_> = all.iter().collect();
            assert!(different.len() >= all.len() - 1, "{size}: {} of {}", different.len(), all.len());
        }
    }

    #[test]
    fn another_seed_makes_other_messages() {
        assert_ne!(message(&Messages::new(64, "", 1), 0, 0), message(&Messages::new(64, "", 2), 0, 0));
        assert_eq!(message(&Messages::new(64, "", 1), 0, 0), message(&Messages::new(64, "", 1), 0, 0));
    }
}

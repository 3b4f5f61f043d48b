//! Whether what comes back is what was sent.
//!
//! A server may put a constant prefix in front of its answers, and nobody can say where: a server of pieces
//! puts it in front of each piece, and the network decides what a piece is. So the answer is right when it is
//! the bytes sent, with copies of the prefix inserted anywhere. The same byte may belong to either; all the
//! readings that are still possible are followed at once.

use crate::manner::Manner;

/// One way to read what has come so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    /// How many of the bytes sent have come back.
    matched: usize,
    /// Inside a copy of what the server adds: which, and how much of it has come.
    inside: Option<(usize, usize)>,
}

/// Compares an answer with the bytes sent, as it arrives.
#[derive(Debug)]
pub(crate) struct Matcher {
    sent: Vec<u8>,
    added: Vec<Vec<u8>>,
    received: Vec<u8>,
    readings: Vec<Reading>,
    /// Where in the bytes taken last the first wrong one is.
    wrong_at: Option<usize>,
}

impl Matcher {
    pub(crate) fn new(sent: &[u8], manner: &Manner) -> Matcher {
        let added = [&manner.prefix, &manner.suffix].into_iter().filter(|text| !text.is_empty()).cloned().collect();
        let readings = vec![Reading { matched: 0, inside: None }];
        Matcher { sent: sent.to_vec(), added, received: Vec::new(), readings, wrong_at: None }
    }

    /// Takes what has arrived. `false` at the first byte that no reading explains.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> bool {
        let mut index = 0;
        while let Some(&byte) = bytes.get(index) {
            let run = self.plain_run(&bytes[index..]);
            if run > 0 {
                self.readings[0].matched += run;
                index += run;
                continue;
            }
            if !self.step(byte) {
                self.wrong_at = Some(index);
                // What follows is for the report; what came before is the context.
                self.received.extend_from_slice(&bytes[..index]);
                return false;
            }
            index += 1;
        }
        self.received.extend_from_slice(bytes);
        true
    }

    /// How many of these bytes are what was sent and can be nothing else: nearly always, nearly all of them.
    fn plain_run(&self, bytes: &[u8]) -> usize {
        let [Reading { matched, inside: None }] = self.readings[..] else { return 0 };
        let rest = &self.sent[matched..];
        let most = bytes.len().min(rest.len());
        let beginnings = self.added.iter().filter_map(|added| memchr::memchr(added[0], &bytes[..most]));
        let most = beginnings.min().unwrap_or(most);
        // Comparing blocks is what the machine does best.
        if bytes[..most] == rest[..most] {
            return most;
        }
        bytes.iter().zip(rest).take_while(|(one, other)| one == other).count()
    }

    /// `false` leaves the readings as they were before this byte.
    fn step(&mut self, byte: u8) -> bool {
        // Nearly always there is one reading, and the next byte is the next byte sent.
        let mut next = Vec::with_capacity(self.readings.len() + 1);
        for reading in &self.readings {
            if let Some((which, progress)) = reading.inside {
                if self.added[which][progress] == byte {
                    push(&mut next, self.advance(reading.matched, which, progress + 1));
                }
                continue;
            }
            if self.sent.get(reading.matched) == Some(&byte) {
                push(&mut next, Reading { matched: reading.matched + 1, inside: None });
            }
            for (which, added) in self.added.iter().enumerate() {
                if added[0] == byte {
                    push(&mut next, self.advance(reading.matched, which, 1));
                }
            }
        }
        if next.is_empty() {
            return false;
        }
        self.readings = next;
        true
    }

    fn advance(&self, matched: usize, which: usize, progress: usize) -> Reading {
        let inside = (progress < self.added[which].len()).then_some((which, progress));
        Reading { matched, inside }
    }

    /// Of the bytes taken last, those from the first wrong one on.
    pub(crate) fn wrong_tail(&self, last: &[u8]) -> Vec<u8> {
        self.wrong_at.map_or(Vec::new(), |at| last[at..].to_vec())
    }

    /// Everything sent has come back; something wrong may have come behind it.
    pub(crate) fn is_complete(&self) -> bool {
        self.readings.contains(&Reading { matched: self.sent.len(), inside: None })
    }

    /// How many of the bytes sent have come back, in the reading that is furthest.
    pub(crate) fn matched(&self) -> usize {
        self.best().matched
    }

    /// How many there are in all.
    pub(crate) fn sent_len(&self) -> usize {
        self.sent.len()
    }

    fn best(&self) -> Reading {
        let far = |reading: &&Reading| (reading.inside.is_none(), reading.matched);
        *self.readings.iter().max_by_key(far).unwrap_or(&Reading { matched: 0, inside: None })
    }

    /// Everything that came and was right.
    pub(crate) fn received(&self) -> &[u8] {
        &self.received
    }

    /// What should come next.
    pub(crate) fn expected_next(&self) -> Vec<u8> {
        let best = self.best();
        let mut next = match best.inside {
            Some((which, progress)) => self.added[which][progress..].to_vec(),
            None => Vec::new(),
        };
        let rest = &self.sent[best.matched..];
        next.extend_from_slice(&rest[..rest.len().min(200)]);
        next
    }

    /// More than this is not an answer any more, even if every byte of it could be a prefix.
    pub(crate) fn most(&self) -> usize {
        let added: usize = self.added.iter().map(Vec::len).sum();
        (self.sent.len() + 64) * (added + 1)
    }
}

fn push(readings: &mut Vec<Reading>, reading: Reading) {
    if !readings.contains(&reading) {
        readings.push(reading);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(prefix: &str, sent: &str, received: &str) -> (bool, bool) {
        let manner = Manner { prefix: prefix.into(), suffix: Vec::new() };
        let mut matcher = Matcher::new(sent.as_bytes(), &manner);
        let right = matcher.take(received.as_bytes());
        (right, right && matcher.is_complete())
    }

    #[test]
    fn a_prefix_may_stand_anywhere_and_nothing_else_may() {
        assert_eq!(judge("> ", "one\ntwo\n", "> one\n> two\n"), (true, true));
        assert_eq!(judge("> ", "one\ntwo\n", "> o> ne\ntw> o\n"), (true, true));
        assert_eq!(judge("> ", "one\ntwo\n", "one\ntwo\n"), (true, true));
        assert_eq!(judge("> ", "one\ntwo\n", "> one\n>two\n"), (false, false));
        assert_eq!(judge("> ", "one\n", "> one\n> "), (true, true));
        assert_eq!(judge("> ", "one\n", "> one"), (true, false));
        assert_eq!(judge("", "one\n", "one\none\n"), (false, false));
    }

    #[test]
    fn bytes_that_could_be_either_do_not_confuse_it() {
        // The message begins like the prefix, or ends in the middle of one.
        assert_eq!(judge("aab", "aaab\n", "aabaaab\n"), (true, true));
        assert_eq!(judge("aab", "aa\n", "aabaaaba\n"), (true, true));
        assert_eq!(judge("ab", "aab\n", "aabab\n"), (true, true));
        assert_eq!(judge("ab", "a\n", "aaab\n"), (false, false));
    }

    #[test]
    fn after_a_wrong_byte_what_should_have_come_is_known() {
        let manner = Manner { prefix: b"> ".to_vec(), suffix: Vec::new() };
        let mut matcher = Matcher::new(b"one two\n", &manner);
        assert!(!matcher.take(b"> one TWO\n"));
        assert_eq!((matcher.received(), matcher.expected_next().as_slice()), (&b"> one "[..], &b"two\n"[..]));
    }
}

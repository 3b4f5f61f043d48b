//! What waits to be written to one connection: whole messages, in order, up to a limit; and one picture of which
//! only the newest counts.

use std::collections::VecDeque;
use std::sync::Arc;

/// How many bytes wait for one connection at most, but always as many as [`FEW`] messages of the largest size. What
/// is said to many is kept once, however many it waits for.
const MOST_WAITING: usize = 1024 * 1024;

/// See [`MOST_WAITING`].
const FEW: usize = 4;

/// What one that waits costs besides its bytes, so that a million empty lines are not free.
const OVERHEAD: usize = 64;

/// How much goes out with one system call, unless one alone is larger.
const BATCH: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Waiting {
    messages: VecDeque<Arc<[u8]>>,
    /// How many bytes these are, and what they cost besides.
    cost: usize,
    most: usize,
    /// Goes out when nothing else waits, if no newer one has come until then.
    newest: Option<Arc<[u8]>>,
}

impl Waiting {
    /// Nothing yet; a message has at most so many bytes.
    pub(crate) fn for_messages_of(most_bytes: usize) -> Waiting {
        let most = MOST_WAITING.max(FEW.saturating_mul(most_bytes.saturating_add(OVERHEAD)));
        Waiting { messages: VecDeque::new(), cost: 0, most, newest: None }
    }

    pub(crate) fn cost(&self) -> usize {
        self.cost
    }

    /// Whatever its size, one fits when nothing else waits.
    pub(crate) fn has_room_for(&self, bytes: &[u8]) -> bool {
        self.messages.is_empty() || self.cost.saturating_add(bytes.len() + OVERHEAD) <= self.most
    }

    pub(crate) fn is_half_full(&self) -> bool {
        self.cost > self.most / 2
    }

    pub(crate) fn has_messages(&self) -> bool {
        !self.messages.is_empty()
    }

    pub(crate) fn add(&mut self, bytes: Arc<[u8]>) {
        self.cost += bytes.len() + OVERHEAD;
        self.messages.push_back(bytes);
    }

    /// Replaces what was the newest.
    pub(crate) fn set_newest(&mut self, bytes: Option<Arc<[u8]>>) {
        self.newest = bytes;
    }

    /// What is to be written next, in one go; nothing if nothing waits.
    pub(crate) fn take(&mut self) -> Vec<Arc<[u8]>> {
        let mut batch = Vec::new();
        let mut size = 0;
        while let Some(next) = self.messages.pop_front() {
            size += next.len();
            if size > BATCH && !batch.is_empty() {
                self.messages.push_front(next);
                break;
            }
            self.cost -= next.len() + OVERHEAD;
            batch.push(next);
        }
        if batch.is_empty() {
            batch.extend(self.newest.take());
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(size: usize) -> Arc<[u8]> {
        vec![b'x'; size].into()
    }

    #[test]
    fn the_newest_picture_replaces_the_older_ones_and_comes_after_the_messages() {
        let mut waiting = Waiting::for_messages_of(10);
        waiting.set_newest(Some(b"old".as_slice().into()));
        waiting.add(b"a".as_slice().into());
        waiting.set_newest(Some(b"new".as_slice().into()));
        waiting.add(b"b".as_slice().into());
        assert_eq!(waiting.take().concat(), b"ab");
        assert_eq!(waiting.take().concat(), b"new");
        assert!(waiting.take().is_empty());
    }

    #[test]
    fn a_few_of_the_largest_fit_and_no_more_than_the_limit() {
        for size in [0, 1, 1000, 10 * MOST_WAITING] {
            let mut waiting = Waiting::for_messages_of(size);
            let mut count = 0;
            while waiting.has_room_for(&message(size)) {
                waiting.add(message(size));
                count += 1;
            }
            assert!(count >= FEW, "{count} of {size}");
            assert!(waiting.cost() <= MOST_WAITING.max(FEW * (size + OVERHEAD)), "{count} of {size}");
            // All of it comes out again, and then all of the room is there again.
            while waiting.has_messages() {
                let batch = waiting.take();
                assert!(batch.len() == 1 || batch.concat().len() <= BATCH);
                count -= batch.len();
            }
            assert_eq!((count, waiting.cost()), (0, 0));
        }
    }

    #[test]
    fn one_that_is_too_large_for_the_limit_fits_when_it_is_alone() {
        let mut waiting = Waiting::for_messages_of(10);
        assert!(waiting.has_room_for(&message(2 * MOST_WAITING)));
        waiting.add(message(1));
        assert!(!waiting.has_room_for(&message(2 * MOST_WAITING)));
    }
}
